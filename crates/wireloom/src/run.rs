//! `wireloom run`: an interface, from its creation to its end.

use std::num::NonZeroUsize;

use clap::Args;

use crate::interface::InterfaceName;

/// How to run an interface.
#[derive(Args)]
pub struct RunArgs {
    /// Stay in the foreground
    #[arg(short, long)]
    pub foreground: bool,
    /// How many threads move packets; as many as there are processors, if not said
    #[arg(long, value_name = "N")]
    pub workers: Option<NonZeroUsize>,
    /// Send each UDP datagram by itself, not in segments of one
    #[arg(long)]
    pub no_udp_gso: bool,
    /// Receive each UDP datagram by itself, not joined by the kernel
    #[arg(long)]
    pub no_udp_gro: bool,
    /// Take and give each packet of the interface by itself, with its checksum done
    #[arg(long)]
    pub no_tun_offload: bool,
    /// The interface's MTU in bytes
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(68..))]
    pub mtu: Option<u16>,
    /// The interface to create
    pub interface: InterfaceName,
}

/// Why an interface cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// This build has no data plane.
    #[error("cannot run {0}: this build has no data plane")]
    NoDataPlane(InterfaceName),
}

/// Runs an interface until it is taken away.
pub fn run(args: RunArgs) -> Result<(), RunError> {
    Err(RunError::NoDataPlane(args.interface))
}

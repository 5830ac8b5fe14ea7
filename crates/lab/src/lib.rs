//! The lab: tunnels between network namespaces of this machine, driven and measured from outside.
//!
//! A [`Namespace`] is a host, a [`Link`] a cable between two, a [`Daemon`] one running implementation of WireGuard (a
//! [`System`]), a [`Tunnel`] two of them configured by Debian's `wg` exactly as a person would, and a [`Guest`] a host with a
//! kernel of its own, whose WireGuard is the one that all others are measured by. On top of that stand the
//! measurements: [`iperf`], [`ping`], [`usage`], [`traffic`], which checks every byte, and [`crowd`], which is 100,000 peers; and
//! those who mean harm: [`rogue`], who says anything, and [`flood`].
//!
//! Everything made here is named after this process, is bounded in time, and is taken away when its value is dropped, on a
//! panic too. What a killed process left behind is swept by the next one. Nothing outside our own namespaces is touched,
//! except that the sockets in `/var/run/wireguard` are shared by all of them, and so interface names are unique.
#![forbid(unsafe_code)]

pub mod capture;
mod command;
pub mod crowd;
mod debian;
mod engine;
mod error;
pub mod experiment;
pub mod flood;
pub mod guest;
pub mod helper;
mod interrupt;
pub mod iperf;
mod link;
pub mod machine;
mod namespace;
mod nft;
mod numbers;
pub mod ping;
mod process;
mod relay;
pub mod rogue;
mod source;
pub mod subject;
mod system;
pub mod taken;
pub mod topology;
pub mod traffic;
pub mod trusted;
mod tunnel;
mod unpacked;
pub mod usage;
mod wait;
pub mod wg;
mod witness;

pub use command::{Finished, run, run_checked};
pub use debian::Debian;
pub use engine::Engine;
pub use error::LabError;
pub use guest::{Guest, GuestSpec, Image, Job, Kernel, Package, Series};
pub use interrupt::{Until, interrupt_flag, interrupted};
pub use link::{Counters, Gso, Link, Port, SwitchPort};
pub use namespace::{Namespace, require_root, sweep};
pub use nft::{Hook, Tap};
pub use numbers::Numbers;
pub use process::Process;
pub use relay::{Carrier, Relay, Seen};
pub use source::{Extent, Source, Version};
pub use system::{Daemon, IFNAME, System, ask, built_binary, peers_folder, socket_path, unique_interface};
pub use topology::{Shape, Side, Topology, TopologySpec, Way};
pub use tunnel::{End, Endpoints, Outer, Tunnel, TunnelSpec};
pub use unpacked::Unpacked;
pub use wait::{wait_for, wait_until};
pub use witness::{Offence, Witness};

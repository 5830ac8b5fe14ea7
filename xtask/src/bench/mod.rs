//! `cargo xtask bench`: what is measured here, one command for each question.
//!
//! - `net`, which is meant when none is named: how do we do beside the others, end to end? ([`net`])
//! - `aead`: what does the cryptography cost, each back end for itself? ([`aead`])
//! - `bpf`: what does it cost inside the kernel? ([`bpf`])
//! - `scale`: what do more workers bring, without the kernel? ([`scaling`])
//! - `peers`: what do very many peers cost? ([`peers`])
//! - `size`: what do `up`, `show` and `down` take with very many peers, or networks? ([`size`])
//! - `flood`: what does a flood cost those who are served? ([`flood`])

mod aead;
mod bpf;
mod figures;
mod flood;
mod machine;
mod measure;
mod net;
mod peers;
mod plot;
mod report;
mod sample;
mod scaling;
mod size;
mod stats;
mod subject;

use clap::{Args, Subcommand, ValueEnum};
use lab::{Gso, System};

use crate::cargo::build_release;
use crate::error::Failure;
use crate::setup;

/// What `bench` may be told: one of the commands, or the options of `net`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
#[group(skip)]
pub struct Options {
    #[command(subcommand)]
    question: Option<Question>,
    #[command(flatten)]
    net: net::Options,
}

#[derive(Subcommand, Debug)]
enum Question {
    /// Ourselves and each peer in turn, end to end (what `bench` alone does)
    Net(net::Options),
    /// The cryptography alone, each back end
    Aead(aead::Options),
    /// The cryptography of the programs inside the kernel
    Bpf,
    /// More workers, in one process and without the kernel
    Scale(scaling::Options),
    /// A device with very many peers, ours beside wireguard-go
    Peers(peers::Options),
    /// `up`, `show` and `down` with very many peers, and with very many networks
    Size(size::Options),
    /// What floods do to a stream through our tunnel
    Flood(flood::Options),
}

/// The links, by the name that the command line has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LinkKind {
    /// A veth that passes super-packets whole
    Gso,
    /// Each datagram crosses alone, as on a real link
    NoGso,
}

impl LinkKind {
    fn gso(self) -> Gso {
        match self {
            LinkKind::Gso => Gso::Through,
            LinkKind::NoGso => Gso::Off,
        }
    }
}

/// Measures, prints and saves.
pub fn run(options: &Options) -> Result<(), Failure> {
    match &options.question {
        None => net::run(&options.net),
        Some(Question::Net(options)) => net::run(options),
        Some(Question::Aead(options)) => aead::run(options),
        Some(Question::Bpf) => bpf::run(),
        Some(Question::Scale(options)) => scaling::run(options),
        Some(Question::Peers(options)) => peers::run(options),
        Some(Question::Size(options)) => size::run(options),
        Some(Question::Flood(options)) => flood::run(options),
    }
}

/// What everything needs that makes namespaces: the right to, the programs, and our binary.
fn prepare() -> Result<System, Failure> {
    lab::require_root()?;
    setup::run(&setup::Options::default())?;
    build_release()
}

//! The systems under test: whatever carries packets from one gateway to the other, each set up the way that it wants to be.
//!
//! A [`Subject`] knows what it is, whether this machine has it, and how to make tunnels with it on a [`Topology`]. What comes of that is a
//! [`Live`]: tunnels through which packets are known to pass, with what was needed to get there. Dropping it takes everything away, and so does a set-up
//! that fails half way. [`Works`] is what all set-ups are made with: it counts what a person would have had to write and type, and can be told to fail before any step.

mod guest;
mod kernel;
mod live;
mod none;
mod openvpn;
mod ours;
mod peers;
mod strongswan;
mod wireguard;
mod works;

use std::env;
use std::fmt;
use std::path::PathBuf;

use crate::{LabError, Topology};

pub use guest::{Weight, weigh};
pub use kernel::{KernelWireGuard, place_of};
pub use live::{Configuration, Live, Starts};
pub use none::NoTunnel;
pub use openvpn::OpenVpn;
pub use ours::Ours;
pub use peers::Peer;
pub use strongswan::{Cipher, Esp, StrongSwan};
pub use works::Works;

/// What is spoken between the gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Nothing: packets cross the link as they are.
    Nothing,
    /// WireGuard.
    WireGuard,
    /// ESP, with keys by IKEv2.
    Ipsec,
    /// OpenVPN's own, with keys by TLS.
    OpenVpn,
}

impl Protocol {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Nothing => "none",
            Protocol::WireGuard => "WireGuard",
            Protocol::Ipsec => "IPsec",
            Protocol::OpenVpn => "OpenVPN",
        }
    }
}

/// What of the machine moves the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The kernel's forwarding and nothing besides.
    Nowhere,
    /// A module of the kernel, loaded on demand.
    Module,
    /// Code that is part of the kernel's image.
    BuiltIn,
    /// Programs that the kernel verifies and runs, and a process for what those leave.
    Ebpf,
    /// A process.
    Userspace,
}

impl Place {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Place::Nowhere => "none",
            Place::Module => "kernel module",
            Place::BuiltIn => "built into the kernel",
            Place::Ebpf => "eBPF",
            Place::Userspace => "userspace",
        }
    }
}

/// The programs that a system consists of here, and what each says of its version in one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions(pub Vec<(String, String)>);

impl Versions {
    /// Of one program.
    pub fn of(program: &str, version: impl Into<String>) -> Versions {
        Versions(vec![(program.to_owned(), version.into())])
    }
}

/// Why a system cannot be had here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What is missing, in words.
    pub what: String,
    /// The command that installs it, or what else would help.
    pub install: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.install)
    }
}

/// A system under test.
pub trait Subject: Send + Sync {
    /// Its id on the command line and in records: lower-case letters, digits and hyphens.
    fn slug(&self) -> &str;

    /// Its name in tables and plots.
    fn name(&self) -> &str;

    /// Whether it is but another way to run one that is there as well: a quick run leaves it out, unless it is asked for.
    fn is_variant(&self) -> bool {
        false
    }

    /// What it speaks.
    fn protocol(&self) -> Protocol;

    /// What moves its packets; of a system that is missing, what would.
    fn place(&self) -> Place;

    /// What seals its packets, in words; empty where nothing does.
    fn cipher(&self) -> &str;

    /// Whether this machine has all that it takes.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    fn available(&self) -> Result<Versions, Missing>;

    /// Makes the tunnels that the topology is for, by means of `works`, and returns how they are told apart from outside. [`set_up`] is what to call.
    ///
    /// # Errors
    /// Whatever stood in the way.
    fn build(&self, works: &mut Works) -> Result<Box<dyn Meter>, LabError>;
}

/// How much a tunnel has carried, as the system itself or its interface counts.
pub trait Meter: Send + Sync {
    /// Bytes that have come out of tunnel `number` (from 1) at the right end.
    ///
    /// # Errors
    /// The system does not say.
    fn carried(&self, topology: &Topology, number: u32) -> Result<u64, LabError>;
}

/// Sets a system up on a topology and waits until each tunnel has carried a packet there and one back.
///
/// # Errors
/// Whatever stood in the way; everything that was made until then is taken away, the topology included.
pub fn set_up(subject: &dyn Subject, topology: Topology) -> Result<Live, LabError> {
    set_up_until(subject, topology, None)
}

/// The same, failing before step `fault` (from 1) as if it had gone wrong: what tests see by that nothing is left behind.
///
/// # Errors
/// As [`set_up`], and [`LabError::Told`] where there is such a step.
pub fn set_up_until(subject: &dyn Subject, topology: Topology, fault: Option<u32>) -> Result<Live, LabError> {
    let mut works = Works::new(topology, fault)?;
    let meter = subject.build(&mut works)?;
    works.finish(meter)
}

/// All of them, in the order of tables.
pub fn all() -> Vec<Box<dyn Subject>> {
    fn boxed<S: Subject + 'static>(subjects: Vec<S>) -> impl Iterator<Item = Box<dyn Subject>> {
        subjects.into_iter().map(|subject| Box::new(subject) as Box<dyn Subject>)
    }
    boxed(Ours::all())
        .chain(boxed(vec![KernelWireGuard]))
        .chain(boxed(Peer::all()))
        .chain(boxed(StrongSwan::all()))
        .chain(boxed(OpenVpn::ALL.to_vec()))
        .chain(boxed(vec![NoTunnel]))
        .collect()
}

/// The one with this slug.
pub fn named(slug: &str) -> Option<Box<dyn Subject>> {
    all().into_iter().find(|subject| subject.slug() == slug)
}

/// What an adapter says of a program that it does not find or that does not run.
fn missing(error: LabError, install: &str) -> Missing {
    let what = match error {
        LabError::Missing { program, .. } => format!("{program} is not installed"),
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    Missing { what, install: install.to_owned() }
}

/// Where a program is, in the path or where Debian keeps those of root.
fn find(program: &str) -> Result<PathBuf, LabError> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .ok_or(LabError::Missing { program: program.to_owned(), hint: "`cargo xtask setup` installs it" })
}

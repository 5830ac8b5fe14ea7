//! What can go wrong with `up` and `down`, each in one line.

use std::io;
use std::path::PathBuf;

use linux::rt::RtError;

use super::resolv_conf::ResolvConfError;
use super::step::StepError;

/// Why an interface is not up, or not down.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum QuickError {
    #[error("there is no file {}, expected one with the settings of '{interface}'", path.display())]
    NoFile { path: PathBuf, interface: String },
    #[error("{} is not the file of an interface, expected /etc/wireguard/NAME.conf, or a path whose last part is a name of up to 15 letters, digits and _=+.- before .conf", .0.display())]
    FileName(PathBuf),
    #[error("this takes root (CAP_NET_ADMIN), expected `sudo wireloom {0} …`")]
    NotRoot(&'static str),
    #[error("interface '{0}' is up already, expected `wireloom down {0}` first, or `wireloom reload {0}`")]
    IsUp(String),
    #[error(
        "interface '{0}' exists already, and is not of this command; expected another name, or `ip link delete {0}` first"
    )]
    Exists(String),
    #[error("interface '{0}' was brought up from another network namespace, expected `wireloom down {0}` there first")]
    Elsewhere(String),
    #[error("interface '{0}' is not up")]
    NotUp(String),
    #[error("another wireloom is at work on interface '{0}', expected it to end first")]
    Busy(String),
    #[error("there is no network namespace '{name}', expected one that `ip netns list` shows: {source}")]
    Netns { name: String, source: io::Error },
    #[error("the kernel's WireGuard has no rules for what may pass, expected another engine or no --policy")]
    NoPolicy,
    #[error("this kernel has no WireGuard of its own, expected `--engine userspace`")]
    NoKernelEngine,
    #[error("WIRELOOM_ENGINE is '{0}', expected auto, userspace, ebpf or kernel")]
    Environment(String),
    #[error("cannot keep the journal {}: {source}", path.display())]
    Journal { path: PathBuf, source: io::Error },
    #[error("the journal {} makes no sense ({source}), expected it to be as `wireloom up` left it; remove it, and what it was about by hand", path.display())]
    JournalText { path: PathBuf, source: serde_json::Error },
    #[error("{what}: {source}; what was changed before stays, and another `wireloom reload` goes on from there")]
    Reload { what: String, source: Box<StepError> },
    #[error("cannot write {}, which is as it was: {source}", path.display())]
    Save { path: PathBuf, source: io::Error },
    #[error("cannot look at this machine's network: {0}")]
    Look(RtError),
    #[error(transparent)]
    Names(ResolvConfError),
    #[error("cannot watch for interrupts: {0}")]
    Signals(io::Error),
    #[error("{what}: {source}; what was done before is undone")]
    Step { what: String, source: Box<StepError> },
    #[error("cannot configure '{interface}' again: {source}")]
    Again { interface: String, source: Box<StepError> },
    #[error("{what}: {source}")]
    Hook { what: String, source: Box<StepError> },
    #[error(
        "interface '{interface}' is down, but of what belonged to it {left} could not be undone; `wireloom down {interface}` tries again"
    )]
    Left { interface: String, left: usize },
}

impl From<RtError> for QuickError {
    fn from(error: RtError) -> QuickError {
        QuickError::Look(error)
    }
}

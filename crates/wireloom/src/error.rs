//! What can go wrong in a command, each in one line that says what, where, and what would be right.

use std::io;
use std::path::PathBuf;

use config::file::Problem;
use config::key::KeyError;
use config::policy::PolicyError;
use config::uapi::ReplyError;
use config::value::{Quoted, ValueError};

use crate::attend::AttendError;
use crate::capture::CaptureError;
use crate::exchange::ExchangeError;
use crate::interface::NotAName;
#[cfg(feature = "lab")]
use crate::laboratory::LaboratoryError;
use crate::quick::QuickError;
use crate::run::RunError;
use crate::service::ServiceError;
use crate::top::TopError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum Error {
    #[error(
        "{word} is no command, expected `wireloom {meant}`; or `wireloom run` with it, if an interface is to be called so"
    )]
    Slip { word: Quoted, meant: String },
    #[error("{0} is {1}")]
    Name(Quoted, NotAName),
    #[error("no interface '{0}' runs here, expected one that `wireloom show interfaces` lists")]
    NoInterface(String),
    #[error(
        "interface '{0}' is not WireGuard's, or its daemon has gone, expected one that `wireloom show interfaces` lists"
    )]
    NotOurs(String),
    #[error("cannot ask the kernel for its interfaces: {0}")]
    Links(io::Error),
    #[error("cannot open {}: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("may not open {}, expected root (sudo) or whoever runs the interface", path.display())]
    NoRight { path: PathBuf },
    #[error("interface '{0}' is the kernel's, which answers root alone, expected sudo (CAP_NET_ADMIN)")]
    NoRightOfKernel(String),
    #[error("cannot read {folder}: {source}")]
    Folder { folder: &'static str, source: io::Error },
    #[error("interface '{interface}': {source}")]
    Request { interface: String, source: ReplyError },
    #[error("interface '{interface}' has not answered for {seconds} seconds")]
    Silent { interface: String, seconds: u64 },
    #[error("interface '{0}' is run by a program that does not tell what it drops, expected one of `wireloom run`")]
    NoDrops(String),
    #[error("interface '{0}' is run by a program that has no rules for what may pass, expected one of `wireloom run`")]
    NoPolicy(String),
    #[error(
        "interface '{0}' is the kernel's, which refuses: to take away single allowed IPs takes Linux 6.16; expected all that are to stay, without signs"
    )]
    OldKernel(String),
    #[error("no interface could be shown")]
    NothingShown,
    #[error("show interfaces takes no field, expected `show all` or `show INTERFACE` before '{0}'")]
    FieldOfInterfaces(&'static str),

    #[error("show interfaces has no form in JSON, expected `show all --json`")]
    JsonOfInterfaces,
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is longer than {limit} bytes", path.display())]
    TooLong { path: PathBuf, limit: u64 },
    #[error("{}: {source}", path.display())]
    KeyFile { path: PathBuf, source: KeyError },
    #[error("{}:{source}", path.display())]
    Policy { path: PathBuf, source: PolicyError },
    #[error("{}:{line}: {problem}", path.display())]
    File { path: PathBuf, line: usize, problem: Problem },

    #[error("set: {0} is not a setting here, expected {1}")]
    UnknownSetting(Quoted, &'static str),
    #[error("set: {0} stands at the end, expected {1} after it")]
    MissingValue(&'static str, &'static str),
    #[error("set: peer {0}: {1}")]
    PeerKey(Quoted, KeyError),
    #[error("set: {0}")]
    Value(#[from] ValueError),

    #[error("cannot resolve endpoint '{endpoint}': {reason}")]
    Resolve { endpoint: String, reason: String },
    #[error("WG_ENDPOINT_RESOLUTION_RETRIES is {0}, expected a number or infinity")]
    Retries(Quoted),

    #[error("standard input: {0}")]
    StdinKey(KeyError),
    #[error("cannot read standard input: {0}")]
    Stdin(io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("the kernel has no random bytes: {0}")]
    Random(getrandom::Error),

    #[error("cannot write the manual into {}: {source}", folder.display())]
    Manual { folder: PathBuf, source: io::Error },

    /// They have been told.
    #[error("there are faults")]
    Faults,

    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Attend(#[from] AttendError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Quick(#[from] QuickError),
    /// A service ended otherwise than it was told to.
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error(transparent)]
    Top(#[from] TopError),
    #[cfg(feature = "lab")]
    #[error(transparent)]
    Lab(#[from] LaboratoryError),
}

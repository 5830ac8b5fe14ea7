//! Why a command ends early, one variant per reason.

use std::io;
use std::process::ExitStatus;

use lab::LabError;

/// What went wrong, as one line for the person who typed the command.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The lab could not do its part.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A command that we ran in sight of everyone said no; it has said why.
    #[error("`{command}` failed ({status})")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// Programs are missing and we may not install them.
    #[error("missing: {missing}; {remedy}")]
    Missing {
        /// Their packages.
        missing: String,
        /// What the person can do.
        remedy: &'static str,
    },
    /// The kernel has no TUN devices.
    #[error("/dev/net/tun is not there: load the module with `modprobe tun`, or pass the device into this container")]
    NoTun,
    /// Not all tests passed; the summary above says which stages.
    #[error("failed: {0}")]
    Tests(String),
    /// The demonstration's traffic did not come through as it should.
    #[error("the tunnel is not right: {0}")]
    Tunnel(String),
    /// Something happened that never must.
    #[error("what must not happen has: {0}")]
    Soak(String),
    /// Some of our own measurements could not be taken; the lines above say which.
    #[error("{0} of our own measurements failed")]
    Measurements(usize),
    /// Two systems of a comparison have one name.
    #[error("two systems are called {0:?}: name each once, and with --impl choose another name")]
    Twice(String),
    /// A system that was given as a command does not make a tunnel.
    #[error("--impl {name}: {reason}")]
    Given {
        /// Its name.
        name: String,
        /// What it does, or not, in one line.
        reason: String,
    },
    /// The Debian package cannot be made, or is not as it should be.
    #[error("the package: {0}")]
    Package(String),
    /// The programs for the kernel cannot be made, or are not what their sources make.
    #[error("the programs for the kernel: {0}")]
    Bpf(String),
    /// A file or a program could not be reached.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Cargo did not say where it builds.
    #[error("cannot read the target folder from `cargo metadata`")]
    NoTarget,
}

impl Failure {
    /// Wraps an I/O error with what was attempted.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
        let what = what.into();
        move |source| Failure::Io { what, source }
    }
}

//! What can go wrong in the lab, one variant per thing that happened.

use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

/// Why something in the lab did not work.
#[derive(thiserror::Error)]
pub enum LabError {
    /// Namespaces, links and TUN devices belong to root.
    #[error("this makes network namespaces and so needs root: run it with sudo")]
    NotRoot,
    /// A program that we drive is not on this machine.
    #[error("{program} is missing: {hint}")]
    Missing {
        /// What was looked for: a command or a path.
        program: String,
        /// How to get it.
        hint: &'static str,
    },
    /// There is no kernel of a series to download for a guest.
    #[error("no image of Linux {series} to download: {reason}; a Debian 12 with its usual sources has one")]
    NoKernel {
        /// The series, such as `6.12`.
        series: &'static str,
        /// What was tried, and what came of it.
        reason: String,
    },
    /// What compiles a kernel is not on this machine.
    #[error("{packages} {} missing, expected `apt-get install {packages}` before", if packages.contains(' ') { "are" } else { "is" })]
    Packages {
        /// Debian's packages, with blanks between.
        packages: String,
    },
    /// A kernel was not compiled.
    #[error("{kernel} was not built: {reason}")]
    NotBuilt {
        /// Its name, such as `built-in-6.12`.
        kernel: &'static str,
        /// What went wrong, in one line.
        reason: String,
    },
    /// There is no source package to download.
    #[error("no source package {packages} {version} where this Debian takes its packages from, nor in its backports")]
    NoSource {
        /// The names that were looked for.
        packages: String,
        /// Which version, in words.
        version: String,
    },
    /// Nobody can listen in on a cable that leads from host to host.
    #[error("{interface} leads to no switch at which one could listen: make the link with `switched`")]
    NoSwitch {
        /// The interface at one end.
        interface: String,
    },
    /// A command ran and said no.
    #[error("`{command}` failed ({status}): {output}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed, standard error first.
        output: String,
    },
    /// Something did not happen within its bound.
    #[error("waited {} ms in vain for {what}", after.as_millis())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// The bound.
        after: Duration,
    },
    /// A process that should have gone on has ended.
    #[error("{name} ended early ({status}); it said:\n{log}")]
    Died {
        /// The command line.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// All that it printed.
        log: String,
    },
    /// A system has no packets of the size that it was to carry.
    #[error("takes no more than {most} B")]
    TooLarge {
        /// Its MTU, in bytes.
        most: u32,
    },
    /// It was told to fail here, to see what that leaves.
    #[error("failed before step {0}, as it was told to")]
    Told(u32),
    /// The person, or the machine, asked us to stop.
    #[error("interrupted")]
    Interrupted,
    /// The time that was given for all of it is over.
    #[error("the time that was given was over")]
    TimeOver,
    /// What is to be measured has been taken down before.
    #[error("the system is not up any more")]
    Down,
    /// Something was sent, and nothing came out at the other end.
    #[error("none of {what} arrived")]
    NothingArrived {
        /// What was sent.
        what: String,
    },
    /// Too few clients could connect for a rate to be told.
    #[error("only {agreed} of {members} clients could connect within {} s", within.as_secs())]
    FewConnected {
        /// Clients that did.
        agreed: u32,
        /// All of them.
        members: u32,
        /// The bound.
        within: Duration,
    },
    /// There are fewer of something than a measurement asks for.
    #[error("there is no {what}")]
    Lacking {
        /// What there is none of, such as `processor 7`.
        what: String,
    },
    /// A system that is to run in one way runs in another.
    #[error("{interface} is not moved by {expected}; the kernel says of it: {text}")]
    NotOffloaded {
        /// The interface.
        interface: String,
        /// What was to move its packets.
        expected: &'static str,
        /// What `ip` says.
        text: String,
    },
    /// A file, a socket or a process could not be reached.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A program printed something that we cannot read.
    #[error("cannot read {what} from: {text}")]
    Unreadable {
        /// What we looked for.
        what: &'static str,
        /// What there was.
        text: String,
    },
}

// A test that unwraps shows `Debug`, and the text is what its reader needs.
impl fmt::Debug for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl LabError {
    /// In one line: of a program that said more, the last line.
    pub fn line(&self) -> String {
        match self {
            LabError::Died { name, status, log } => {
                let last = log.lines().rfind(|line| !line.trim().is_empty());
                let said = last.map_or_else(|| "nothing".to_owned(), |line| line.trim().to_owned());
                format!("`{name}` ended early ({status}); it said: {said}")
            }
            other => other.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
        }
    }

    /// Wraps an I/O error with what was attempted.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
        let what = what.into();
        move |source| LabError::Io { what, source }
    }
}

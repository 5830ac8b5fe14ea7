//! Commands that run to their end, within a bound.

use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::{LabError, Process};

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The command line.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard error, then standard output.
    pub fn log(&self) -> String {
        format!("{}{}", self.stderr, self.stdout)
    }

    /// The same, if it ended well.
    ///
    /// # Errors
    /// [`LabError::Failed`] with what it said.
    pub fn checked(self) -> Result<Finished, LabError> {
        if self.status.success() {
            return Ok(self);
        }
        let output = self.log().trim().to_owned();
        Err(LabError::Failed { command: self.command, status: self.status, output })
    }
}

/// Runs `command` to its end; what that was is for the caller to judge.
///
/// # Errors
/// It could not be started, or took longer than `limit` (it is ended then).
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished, LabError> {
    Process::spawn(command)?.finish(limit)
}

/// Runs `command`, which is expected to succeed, and takes its standard output.
///
/// # Errors
/// As [`run`], and [`LabError::Failed`] on an exit status other than 0.
pub fn run_checked(command: &mut Command, limit: Duration) -> Result<String, LabError> {
    Ok(run(command, limit)?.checked()?.stdout)
}

/// The command line as a person would type it, without the wrapper that enters a namespace.
pub(crate) fn describe(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    match words.iter().position(|word| word == "--pdeathsig") {
        Some(at) => words[at + 2..].join(" "),
        None => words.join(" "),
    }
}

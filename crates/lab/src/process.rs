//! A child process that cannot outlive us, and whose output is kept.
//!
//! It is started in a process group of its own, so that Ctrl-C reaches us and not it: we end it, in our order. Its output goes
//! to unnamed files, not pipes, so that nobody has to read along for it to go on.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

use crate::command::describe;
use crate::interrupt::stopped;
use crate::{Finished, LabError, wait_for};

/// How long a process may take to end after SIGTERM before SIGKILL follows; and where somebody waits for us to stop.
const GRACE: Duration = Duration::from_secs(2);
const HASTE: Duration = Duration::from_millis(500);
/// How long it may take until the wish to stop is noticed.
const SLICE: Duration = Duration::from_millis(100);

/// A running child. Dropping it ends it.
pub struct Process {
    name: String,
    child: Child,
    stdout: File,
    stderr: File,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with its input closed and its output captured.
    ///
    /// # Errors
    /// [`LabError::Missing`] when there is no such program, [`LabError::Io`] otherwise.
    pub fn spawn(command: &mut Command) -> Result<Process, LabError> {
        let name = describe(command);
        let scratch = || tempfile::tempfile().map_err(LabError::io("a temporary file"));
        let (stdout, stderr) = (scratch()?, scratch()?);
        let share = |file: &File| file.try_clone().map_err(LabError::io("a temporary file"));
        command.stdin(Stdio::null()).stdout(share(&stdout)?).stderr(share(&stderr)?).process_group(0);
        let child = command.spawn().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => LabError::Missing {
                program: command.get_program().to_string_lossy().into_owned(),
                hint: "`cargo xtask setup` installs what the lab uses",
            },
            _ => LabError::Io { what: format!("starting `{name}`"), source },
        })?;
        Ok(Process { name, child, stdout, stderr, status: None })
    }

    /// The command line.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        contents(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        contents(&self.stderr)
    }

    /// Both of its outputs, standard error first.
    pub fn log(&self) -> String {
        format!("{}{}", self.stderr(), self.stdout())
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// [`LabError::TimedOut`] after `limit`; it runs on then.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        self.wait_unless(limit, stopped)
    }

    /// Waits until the kernel says that it has ended: how long something took is not to depend on how often somebody looks.
    fn wait_unless(&mut self, limit: Duration, enough: impl Fn() -> Option<LabError>) -> Result<ExitStatus, LabError> {
        let begun = Instant::now();
        // Not reaped before `status` is asked, and so the id is its own.
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let ending = match (self.status, pid) {
            (None, Some(pid)) => pidfd_open(pid, PidfdFlags::empty())
                .map_err(|source| LabError::Io { what: format!("following `{}`", self.name), source: source.into() })?,
            (Some(status), _) => return Ok(status),
            (None, None) => return Err(self.in_vain(limit)),
        };
        loop {
            if let Some(status) = self.status() {
                return Ok(status);
            }
            if let Some(why) = enough() {
                return Err(why);
            }
            let Some(left) = limit.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) else {
                return Err(self.in_vain(limit));
            };
            // Not for ever: the wish to stop may have come to another thread.
            let slice = Timespec::try_from(left.min(SLICE)).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
            // A signal cuts it short, and the end is looked for in any case.
            let _ = poll(&mut [PollFd::new(&ending, PollFlags::IN)], Some(&slice));
        }
    }

    fn in_vain(&self, limit: Duration) -> LabError {
        LabError::TimedOut { what: format!("`{}` to end", self.name), after: limit }
    }

    /// Waits for it to end and takes its output.
    ///
    /// # Errors
    /// As [`Process::wait`]; the process is ended then.
    pub fn finish(mut self, limit: Duration) -> Result<Finished, LabError> {
        let status = self.wait(limit)?;
        Ok(Finished { command: self.name.clone(), status, stdout: self.stdout(), stderr: self.stderr() })
    }

    /// Waits until its output holds `text`.
    ///
    /// # Errors
    /// [`LabError::Died`] when it ends without having said so, [`LabError::TimedOut`] after `limit`.
    pub fn wait_for_output(&mut self, text: &str, limit: Duration) -> Result<(), LabError> {
        let what = format!("`{}` to say {text:?}", self.name);
        wait_for(&what, limit, || {
            // The order matters: a process that says it and ends has said it.
            let ended = self.status();
            if self.log().contains(text) {
                return Ok(Some(()));
            }
            match ended {
                Some(status) => Err(self.died(status)),
                None => Ok(None),
            }
        })
    }

    /// Sends it a signal; one that has ended already gets none.
    pub fn signal(&mut self, signal: Signal) {
        if self.status().is_none()
            && let Some(pid) = Pid::from_raw(self.child.id().cast_signed())
        {
            // Not reaped yet, and so the id is still its own; a failure means that it is ending by itself.
            let _ = kill_process(pid, signal);
        }
    }

    /// The same for it and all that it has started.
    pub(crate) fn stop_group(&mut self) {
        if self.status().is_none()
            && let Some(pid) = Pid::from_raw(self.child.id().cast_signed())
        {
            // The group has its id, and is there at least as long as it is not reaped.
            let _ = kill_process_group(pid, Signal::TERM);
        }
        self.stop();
    }

    /// Asks it to end, waits a while, then makes it.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        // Also where the wish to stop has come: a process that is told to end still gets a moment to tidy up.
        let asked = Instant::now();
        let ended = self.wait_unless(GRACE, || stopped().filter(|_| asked.elapsed() >= HASTE)).is_ok();
        if !ended {
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
    }

    /// The error for a process that should not have ended.
    pub(crate) fn died(&self, status: ExitStatus) -> LabError {
        LabError::Died { name: self.name.clone(), status, log: self.log() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// All of a file, whatever its offset, which the child moves.
fn contents(file: &File) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while let Ok(n @ 1..) = file.read_at(&mut chunk, bytes.len() as u64) {
        bytes.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

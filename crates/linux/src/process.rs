//! The process: going to the background, what it may use, what may be seen of it.
//!
//! `daemonise` forks early, while there is only one thread, and the foreground process waits on a pipe. So whoever started
//! it can rely on the exit code: 0 means that the interface and its socket exist, 1 that they do not and why was printed.
//!
//! ```text
//!   foreground ── fork ──▶ middle (setsid) ── fork ──▶ daemon: start up … Readiness::ready | ::fail | dies
//!        │                    └ exits at once                    │
//!        └──── reads the pipe ◀──────────────────────────────────┘
//!   one zero byte → exit 0 · a message → print it, exit 1 · nothing (it died) → say so, exit 1
//! ```
//!
//! The second fork leaves a daemon that leads no session and so can never acquire a terminal.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::sys::check;

/// What becomes of standard output and error once the daemon is ready. Standard input is always closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// They stay open: what is logged goes on to appear where the command was given, as wireguard-go does.
    Keep,
    /// They go to /dev/null, so that a pipe that reads the command's output ends.
    Discard,
}

/// Why the process could not go to the background.
#[derive(Debug, thiserror::Error)]
pub enum DaemoniseError {
    /// Only the calling thread would exist in the child, so it must be the only one.
    #[error("cannot go to the background: {0} threads are running already")]
    Threads(usize),
    /// A system call failed.
    #[error("cannot go to the background")]
    Os(#[from] io::Error),
}

/// The daemon's duty to tell the foreground process how its start went. Dropped without a word, it counts as a failure.
#[derive(Debug)]
pub struct Readiness {
    pipe: File,
}

/// Goes to the background. Returns in the daemon only; the foreground process exits as told by the [`Readiness`].
///
/// Must be called before any thread is started. Descriptors, environment and working directory are kept.
pub fn daemonise() -> Result<Readiness, DaemoniseError> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(DaemoniseError::Threads(threads));
    }
    let (read_end, write_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from)?;
    // What is buffered would be printed by both.
    io::stdout().flush()?;

    // SAFETY: there is one thread, so the child has a complete copy of a consistent process.
    let middle = check(unsafe { libc::fork() })?;
    if middle != 0 {
        drop(write_end);
        foreground(middle, read_end);
    }
    drop(read_end);
    let mut readiness = Readiness { pipe: write_end.into() };
    match detach() {
        Ok(()) => Ok(readiness),
        Err(error) => {
            readiness.report(format!("cannot go to the background: {error}").as_bytes());
            std::process::exit(1);
        }
    }
}

/// In the middle process: a session of its own, and the second fork. Returns in the daemon.
fn detach() -> io::Result<()> {
    rustix::process::setsid()?;
    // SAFETY: as for the first fork.
    if check(unsafe { libc::fork() })? != 0 {
        // SAFETY: ends this process at once; the daemon has all that is to be flushed or dropped.
        unsafe { libc::_exit(0) };
    }
    Ok(())
}

/// The foreground process: waits for the report and ends.
fn foreground(middle: libc::pid_t, pipe: OwnedFd) -> ! {
    let mut status = 0;
    // SAFETY: `status` is writable. An error would mean that it was reaped already; the pipe tells all that matters.
    unsafe { libc::waitpid(middle, &mut status, 0) };
    let mut report = Vec::new();
    let outcome = File::from(pipe).take(64 * 1024).read_to_end(&mut report);
    let code = match (outcome, report.as_slice()) {
        (Ok(_), [0]) => 0,
        (Ok(_), []) => {
            eprintln!("the daemon ended before it was ready");
            1
        }
        (Ok(_), message) => {
            eprintln!("{}", String::from_utf8_lossy(message));
            1
        }
        (Err(error), _) => {
            eprintln!("the daemon's report could not be read: {error}");
            1
        }
    };
    std::process::exit(code)
}

impl Readiness {
    /// The TUN device and the socket are there: the foreground process exits with 0. From here on the working directory is
    /// `/`, so that no file system is kept from being unmounted, and standard input is /dev/null.
    pub fn ready(mut self, output: Output) -> io::Result<()> {
        std::env::set_current_dir("/")?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        if output == Output::Discard {
            rustix::stdio::dup2_stdout(&null)?;
            rustix::stdio::dup2_stderr(&null)?;
        }
        self.report(&[0]);
        Ok(())
    }

    /// The start failed: the foreground process prints the message and exits with 1.
    pub fn fail(mut self, message: &str) {
        self.report(message.as_bytes());
    }

    fn report(&mut self, bytes: &[u8]) {
        // Nobody is left to tell when the foreground process has gone.
        let _ = self.pipe.write_all(bytes);
    }
}

/// The number of CPUs that this process may run on (its affinity), at least 1.
pub fn cpus() -> usize {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (set.count() as usize).max(1),
        // More CPUs than the set has room for.
        Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// The kernel's number of the calling thread.
pub fn thread_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()
}

/// Makes the process not dumpable: no core file, no ptrace and no /proc/PID/mem for others of the same user.
pub fn no_dump() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Gives this process the name of the program, which one that was started as `/proc/self/exe` has not.
pub fn set_name() -> io::Result<()> {
    Ok(rustix::thread::set_name(c"wireloom")?)
}

/// Ends this process, by SIGTERM, when the one that started it ends. An error if it has already.
pub fn end_with_parent() -> io::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // It may have ended before it was asked for: then somebody else is the parent.
    if getppid() != parent {
        return Err(io::Error::other("it has ended"));
    }
    Ok(())
}

/// Lets the calling thread stand back: where others want the processor as well it gets about a tenth of what each of them gets
/// (`sched_prio_to_weight` in the kernel's `sched/core.c`), and all of it where nobody does. Not to be undone without a privilege.
pub fn stand_back() -> io::Result<()> {
    const NICE: i32 = 10;
    // To Linux, process 0 is the calling thread.
    Ok(rustix::process::setpriority_process(None, NICE)?)
}

/// Unblocks all signals in the calling thread. For a child program between fork and exec (async-signal-safe, so fit for
/// `Command::pre_exec`), which would otherwise inherit what [`crate::poll::SignalFd`] blocks and ignore the interrupt key.
pub fn unblock_signals() -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set that `pthread_sigmask` reads; the old mask is not asked for.
    let error = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut())
    };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Marks a descriptor that was inherited (`WG_TUN_FD`, `WG_UAPI_FD`) as ours: checks that it is open, and closes it on exec.
///
/// Each number may be adopted once: the value owns the descriptor.
pub fn adopt_fd(number: i32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    if number <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: F_GETFD only looks at the number, whether it is open or not.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: it is open, and the caller's statement is that it was handed to this process to own.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    debug_assert_eq!(fd.as_raw_fd(), number);
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_those_of_the_affinity() {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
        let mask = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed:")).expect("mask");
        let count: u32 = mask.chars().filter_map(|c| c.to_digit(16)).map(u32::count_ones).sum();
        assert_eq!(cpus(), count as usize);
    }

    #[test]
    fn a_multi_threaded_process_is_not_forked() {
        // The test harness runs this in a thread beside its main one.
        assert!(matches!(daemonise(), Err(DaemoniseError::Threads(n)) if n > 1));
    }

    #[test]
    fn only_open_descriptors_beyond_the_standard_ones_are_adopted() {
        assert!(adopt_fd(1).is_err());
        assert!(adopt_fd(1_000_000).is_err());
    }
}

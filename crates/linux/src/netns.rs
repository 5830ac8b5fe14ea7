//! Network namespaces, as seen by a thread.
//!
//! A socket belongs to the namespace that its thread was in when it was made, for good. So to talk to another namespace,
//! a short-lived thread enters it, makes the socket, hands it over and ends (`run_in`); nothing else in the process moves.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use crate::sys::check;

/// The network namespace that the calling thread is in.
pub fn current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Moves the calling thread, and no other, into the namespace. Needs CAP_SYS_ADMIN.
pub fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a plain system call; it changes which network the thread sees, not its memory.
    check(unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Moves the calling thread into a new, empty namespace, which ends with its last thread, socket and descriptor.
/// Needs CAP_SYS_ADMIN.
pub fn unshare() -> io::Result<()> {
    // SAFETY: as in `enter`.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Whether two descriptors are of one namespace.
pub fn same(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<bool> {
    let id = |fd: BorrowedFd<'_>| -> io::Result<(u64, u64)> {
        let meta = File::from(fd.try_clone_to_owned()?).metadata()?;
        Ok((meta.dev(), meta.ino()))
    };
    Ok(id(a)? == id(b)?)
}

/// Runs `work` inside the namespace. When that is where the caller is already, no thread is needed, nor any privilege.
pub fn run_in<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    if same(netns, current()?.as_fd())? {
        return work();
    }
    std::thread::scope(|scope| {
        let helper = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
            enter(netns)?;
            work()
        })?;
        match helper.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

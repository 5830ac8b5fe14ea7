//! The four system calls that move packets, done by whoever measures the data plane without the kernel (the feature `modelled`).
//!
//! Until [`set`] is called they are the kernel's. No other build has this.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use crate::udp::{Outgoing, Received, SendError};

/// What stands for the kernel. The descriptor tells whose call it is.
pub trait Calls: Send + Sync {
    /// [`crate::tun::Queue::read`].
    fn read(&self, queue: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize>;
    /// [`crate::tun::Queue::write_vectored`].
    fn write(&self, queue: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<()>;
    /// [`crate::udp::Socket::recv`].
    fn recv(&self, socket: BorrowedFd<'_>, bufs: &mut [&mut [u8]], out: &mut [Received]) -> io::Result<usize>;
    /// [`crate::udp::Socket::send`].
    fn send(&self, socket: BorrowedFd<'_>, sends: &[Outgoing<'_>]) -> (usize, Option<SendError>);
}

static CALLS: OnceLock<Box<dyn Calls>> = OnceLock::new();

/// From now on, for good; the first caller decides.
pub fn set(calls: Box<dyn Calls>) {
    let _ = CALLS.set(calls);
}

#[inline]
pub(crate) fn calls() -> Option<&'static dyn Calls> {
    CALLS.get().map(|calls| &**calls)
}

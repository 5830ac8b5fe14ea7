//! Waiting: epoll, and the descriptors that wake it (events, boot-time timers, signals).
//!
//! Deadlines come from a `BootTimer`, not from the timeout of `Epoll::wait`: epoll's own clock stops in suspend.

use std::io;
use std::mem::MaybeUninit;
use std::ops::BitOr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::sys::check;

/// What to wait for on a descriptor. Errors and hang-ups are always reported. Combine with `|`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interest(u32);

impl Interest {
    /// Only errors and hang-ups.
    pub const NONE: Interest = Interest(0);
    /// There is something to read.
    pub const READ: Interest = Interest(libc::EPOLLIN as u32);
    /// There is room to write.
    pub const WRITE: Interest = Interest(libc::EPOLLOUT as u32);
    /// Report changes only (edge-triggered), instead of again and again while the condition lasts.
    pub const EDGE: Interest = Interest(libc::EPOLLET as u32);
    /// Report once, then wait for `Epoll::modify`.
    pub const ONCE: Interest = Interest(libc::EPOLLONESHOT as u32);
    /// Where several epolls watch the descriptor, wake one of them, not all. Cannot be modified later.
    pub const EXCLUSIVE: Interest = Interest(libc::EPOLLEXCLUSIVE as u32);
}

impl BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
}

/// One descriptor that is ready, by the token under which it was added.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Event(libc::epoll_event);

impl Event {
    /// A value to fill an array with.
    pub const EMPTY: Event = Event(libc::epoll_event { events: 0, u64: 0 });

    /// The token given to `Epoll::add`.
    pub fn token(&self) -> u64 {
        self.0.u64
    }

    /// A read will not block; it may also report the error or the end.
    pub fn readable(&self) -> bool {
        self.0.events & (libc::EPOLLIN | libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0
    }

    /// A write will not block; it may also report the error.
    pub fn writable(&self) -> bool {
        self.0.events & (libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0
    }

    /// An error is pending on the descriptor, or the other side has gone (a TUN device that was removed shows this).
    pub fn closed(&self) -> bool {
        self.0.events & (libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0
    }
}

impl Default for Event {
    fn default() -> Event {
        Event::EMPTY
    }
}

/// A set of descriptors to wait on.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// An empty set.
    pub fn new() -> io::Result<Epoll> {
        Ok(Epoll(rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)?))
    }

    /// Watches a descriptor. It leaves the set when its last duplicate is closed, or by `remove`.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_fd(), token, interest)
    }

    /// Changes the token and the interest of a descriptor in the set.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_fd(), token, interest)
    }

    /// Watches a descriptor no longer.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_fd(), 0, Interest::NONE)
    }

    fn control(&self, operation: libc::c_int, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest.0, u64: token };
        // SAFETY: `event` outlives the call, which reads it; both descriptors are open.
        let rc = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd.as_raw_fd(), &mut event) };
        check(rc).map(drop)
    }

    /// Waits until something is ready, and returns what, in the memory given. `None` waits for ever; a timeout is rounded
    /// up to milliseconds. A signal handler that interrupts the wait gives an empty answer, as the timeout does.
    pub fn wait<'a>(&self, events: &'a mut [Event], timeout: Option<Duration>) -> io::Result<&'a [Event]> {
        let millis = match timeout {
            None => -1,
            Some(timeout) => {
                let millis = timeout.as_nanos().div_ceil(1_000_000);
                libc::c_int::try_from(millis).unwrap_or(libc::c_int::MAX)
            }
        };
        // SAFETY: `Event` is transparent over `epoll_event`, and the kernel writes at most as many as the slice has.
        let rc = unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                events.as_mut_ptr().cast(),
                libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX),
                millis,
            )
        };
        match check(rc) {
            Ok(count) => Ok(&events[..count as usize]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(&[]),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A flag that wakes whoever polls it, across threads.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// An event that has not been signalled. Non-blocking.
    pub fn new() -> io::Result<EventFd> {
        Ok(EventFd(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Makes the descriptor readable, until `drain`. Any number of signals before that count as one.
    pub fn signal(&self) {
        // The only error that can come is EAGAIN, of a counter that is full: then it is readable already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Takes the signal back; whether there was one.
    pub fn drain(&self) -> bool {
        rustix::io::read(&self.0, &mut [0u8; 8]).is_ok()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A timer on the boot-time clock: becomes readable at its deadline, suspend included, and wakes nobody before.
#[derive(Debug)]
pub struct BootTimer(OwnedFd);

impl BootTimer {
    /// A timer that is not set. Non-blocking.
    pub fn new() -> io::Result<BootTimer> {
        Ok(BootTimer(timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?))
    }

    /// Sets the deadline, in nanoseconds of [`crate::clock::boot_nanos`], in place of the one before. A deadline in the past
    /// fires at once; `None` never does. A deadline that has fired and was not drained is forgotten.
    pub fn set(&self, deadline: Option<u64>) -> io::Result<()> {
        // Zero would mean "never" to the kernel.
        let nanos = deadline.map_or(0, |d| d.max(1));
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let at = Timespec { tv_sec: (nanos / 1_000_000_000) as _, tv_nsec: (nanos % 1_000_000_000) as _ };
        let spec = Itimerspec { it_interval: none, it_value: at };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &spec)?;
        Ok(())
    }

    /// Makes the descriptor unreadable again; whether the deadline had passed.
    pub fn drain(&self) -> bool {
        rustix::io::read(&self.0, &mut [0u8; 8]).is_ok()
    }
}

impl AsFd for BootTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A signal that the daemon takes as an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP.
    Hangup,
    /// SIGUSR1.
    User1,
}

impl Signal {
    const ALL: [Signal; 4] = [Signal::Interrupt, Signal::Terminate, Signal::Hangup, Signal::User1];

    fn number(self) -> libc::c_int {
        match self {
            Signal::Interrupt => libc::SIGINT,
            Signal::Terminate => libc::SIGTERM,
            Signal::Hangup => libc::SIGHUP,
            Signal::User1 => libc::SIGUSR1,
        }
    }
}

/// Signals as something to read, instead of handlers.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks the signals in the calling thread, and so in all threads that it starts later, and takes them here. Call it
    /// before the first thread is started: a thread that does not block a signal would be killed by it. Child programs
    /// inherit the mask too; see [`crate::process::unblock_signals`].
    pub fn new(signals: &[Signal]) -> io::Result<SignalFd> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initialises the set that `sigaddset`, `pthread_sigmask` and `signalfd` then read; the signal
        // numbers are valid. The old mask is not asked for.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                libc::sigaddset(set.as_mut_ptr(), signal.number());
            }
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        let fd = check(fd)?;
        // SAFETY: the descriptor was just made and belongs to nobody else.
        Ok(SignalFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that came, if any.
    pub fn next(&self) -> Option<Signal> {
        let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
        rustix::io::read(&self.0, &mut record).ok()?;
        // The record starts with ssi_signo, a u32.
        let number = u32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
        Signal::ALL.into_iter().find(|s| s.number() as u32 == number)
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until the descriptor can be written to, or the time is over; whether it can.
pub fn wait_writable(fd: impl AsFd, timeout: Duration) -> bool {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd.as_fd(), rustix::event::PollFlags::OUT)];
    let timeout = rustix::event::Timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos().into() };
    matches!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1..))
}

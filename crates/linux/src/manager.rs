//! The service manager that started this process, as sd_notify(3), sd_listen_fds(3) and sd_watchdog_enabled(3) have it.
//!
//! It is told by datagrams of text that the service is ready, what it is about, and that it is well; and it keeps descriptors that it
//! is handed, which the next process of the same service is started with. What it has said to this process is in the environment,
//! and is taken out there, so that no child answers for us.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    sendmsg_addr,
};

use crate::process::adopt_fd;

/// The first descriptor that a process is started with, besides the standard ones.
const FIRST: i32 = 3;

/// What a service manager has told this process; nothing where there is none.
#[derive(Debug, Default)]
pub struct Told {
    /// Where it is spoken to.
    pub manager: Option<Manager>,
    /// How often it wants to hear that the service is well, or else ends it.
    pub watchdog: Option<Duration>,
}

/// Where a service manager listens.
#[derive(Debug)]
pub struct Manager {
    socket: OwnedFd,
    address: SocketAddrUnix,
}

/// Takes what the service manager has said out of the environment. Call it while there is one thread.
///
/// # Errors
/// There is more than one thread, or the address is none of a UNIX socket.
pub fn take() -> io::Result<Told> {
    let mut environment = Environment::alone()?;
    let mut take = |name| environment.take(name);
    let manager = take("NOTIFY_SOCKET").filter(|address| !address.is_empty());
    let (pid, interval) = (take("WATCHDOG_PID"), number(take("WATCHDOG_USEC")));
    // Who is not named may have inherited it from one that is.
    let watchdog = interval.filter(|_| pid.is_none() || ours(pid)).map(Duration::from_micros);
    Ok(Told { manager: manager.map(|address| Manager::at(&address)).transpose()?, watchdog })
}

/// Takes the descriptors that the service manager has kept, by name and in no particular order. Call it once, while there is one thread:
/// each has one owner.
///
/// # Errors
/// There is more than one thread.
pub fn take_kept() -> io::Result<Vec<(String, OwnedFd)>> {
    let mut environment = Environment::alone()?;
    let mut take = |name| environment.take(name);
    let (pid, count, names) = (take("LISTEN_PID"), number(take("LISTEN_FDS")), take("LISTEN_FDNAMES"));
    let mut kept = Vec::new();
    if ours(pid) {
        let names = names.unwrap_or_default();
        let mut names = names.as_bytes().split(|byte| *byte == b':');
        for fd in (FIRST..).take(usize::try_from(count.unwrap_or(0)).unwrap_or(0)) {
            let name = String::from_utf8_lossy(names.next().unwrap_or_default()).into_owned();
            // One that is not open was closed by who started us: it is missing, as if it had not been kept.
            kept.extend(adopt_fd(fd).map(|fd| (name, fd)));
        }
    }
    Ok(kept)
}

fn number(value: Option<OsString>) -> Option<u64> {
    value?.to_str()?.parse().ok()
}

fn ours(pid: Option<OsString>) -> bool {
    number(pid) == Some(std::process::id().into())
}

/// The environment of a process with one thread, which may change it.
struct Environment;

impl Environment {
    fn alone() -> io::Result<Environment> {
        match std::fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Environment),
            _ => Err(io::Error::other("the environment is not changed while there are several threads")),
        }
    }

    fn take(&mut self, name: &str) -> Option<OsString> {
        let value = env::var_os(name);
        // SAFETY: there is one thread, so nobody reads the environment meanwhile.
        unsafe { env::remove_var(name) };
        value
    }
}

impl Manager {
    /// The one at this address: a path, or `@` and the name of an abstract socket.
    pub fn at(address: &OsStr) -> io::Result<Manager> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            [b'/', ..] => SocketAddrUnix::new(address)?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "NOTIFY_SOCKET is no path and no @name")),
        };
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Manager { socket, address })
    }

    /// Says something: lines of `NAME=VALUE`.
    pub fn say(&self, text: &str) -> io::Result<()> {
        self.send(text, &[])
    }

    /// Hands over a descriptor to be kept under this name, for as long as the service is to run.
    pub fn keep(&self, name: &str, fd: impl AsFd) -> io::Result<()> {
        // It need not look whether the other side hangs up: we know when it does.
        self.send(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), &[fd.as_fd()])
    }

    /// Lets go of all that is kept under this name.
    pub fn let_go(&self, name: &str) -> io::Result<()> {
        self.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}"))
    }

    /// Waits until all that was said has been heard: who ends right after it might not be known any more. (systemd 246)
    ///
    /// # Errors
    /// It was not, within this time.
    pub fn wait(&self, within: Duration) -> io::Result<()> {
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        self.send("BARRIER=1", &[theirs.as_fd()])?;
        drop(theirs);
        let within = Timespec { tv_sec: within.as_secs() as _, tv_nsec: within.subsec_nanos().into() };
        // Nobody writes; it closes its end.
        match poll(&mut [PollFd::new(&ours, PollFlags::IN)], Some(&within))? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }

    fn send(&self, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            // There is room for one.
            beside.push(SendAncillaryMessage::ScmRights(fds));
        }
        sendmsg_addr(&self.socket, &self.address, &[IoSlice::new(text.as_bytes())], &mut beside, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// Lets the next program that is executed inherit a descriptor, under the number that it has. Take it back with [`disinherit`].
pub fn inherit(fd: impl AsFd) -> io::Result<i32> {
    rustix::io::fcntl_setfd(fd.as_fd(), rustix::io::FdFlags::empty())?;
    Ok(fd.as_fd().as_raw_fd())
}

/// Lets no program inherit it, which is how all of ours begin.
pub fn disinherit(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, recvmsg};
    use std::io::IoSliceMut;

    fn listen(address: &SocketAddrUnix) -> OwnedFd {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&socket, address).unwrap();
        socket
    }

    fn receive(from: &OwnedFd) -> (String, Option<OwnedFd>) {
        let mut bytes = [0; 200];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::DONTWAIT).unwrap();
        let fd = beside.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        (String::from_utf8_lossy(&bytes[..got.bytes]).into_owned(), fd)
    }

    #[test]
    fn it_is_told_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("wl-manager-test-{}", std::process::id());
        for (socket, address) in [
            (listen(&SocketAddrUnix::new(&path).unwrap()), path.clone().into_os_string()),
            (listen(&SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap()), format!("@{name}").into()),
        ] {
            let manager = Manager::at(&address).unwrap();
            manager.say("READY=1\nSTATUS=up").unwrap();
            let (text, fd) = receive(&socket);
            assert!(fd.is_none() && text == "READY=1\nSTATUS=up", "{text}");
            let (one, other) = rustix::pipe::pipe().unwrap();
            manager.keep("queue-0", &one).unwrap();
            let (text, fd) = receive(&socket);
            assert_eq!(text, "FDSTORE=1\nFDPOLL=0\nFDNAME=queue-0");
            // It is the same pipe.
            rustix::io::write(&other, b"x").unwrap();
            assert_eq!(rustix::io::read(fd.unwrap(), &mut [0; 2]), Ok(1));
            manager.let_go("queue-0").unwrap();
            assert_eq!(receive(&socket).0, "FDSTOREREMOVE=1\nFDNAME=queue-0");
            std::thread::scope(|scope| {
                let waits = scope.spawn(|| manager.wait(Duration::from_secs(30)));
                rustix::event::poll(&mut [PollFd::new(&socket, PollFlags::IN)], None).unwrap();
                assert!(!waits.is_finished(), "it has not been heard");
                assert_eq!(receive(&socket).0, "BARRIER=1");
                waits.join().unwrap().unwrap();
            });
        }
        assert!(Manager::at(OsStr::new("vsock:2:1234")).is_err());
        assert!(Manager::at(OsStr::new("/nowhere/at/all")).unwrap().say("READY=1").is_err());
    }

    #[test]
    fn the_environment_is_left_alone_where_another_thread_may_read_it() {
        // The test harness runs this in a thread beside its main one.
        assert!(take().is_err() && take_kept().is_err());
    }
}

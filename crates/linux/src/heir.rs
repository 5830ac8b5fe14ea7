//! What a daemon that died has left with its steward, and how a successor comes by it. See `steward/estate.rs` for the other side.
//!
//! ```text
//!   find ── connected ──▶ names and descriptors ──▶ Heritage ── take ──▶ the steward ends
//!    └── nobody is there                               └── dropped ──▶ it keeps on
//! ```
//!
//! So whoever fails before all is settled leaves it as it was.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};

use crate::bpf::{Attached, Hook};
use crate::netns;
use crate::steward::{self, END, Place, TAKEN};
use crate::tun::Queue;

/// Where the sockets are.
pub const FOLDER: &str = "/run/wireloom";

/// What the network namespace of the one that died is kept as.
const HOME: &str = "home";

/// How long a daemon that lives, or is about to end, keeps its successor waiting. Its steward answers as soon as it has ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// Successors that may wait.
const BACKLOG: i32 = 4;

/// The socket at which the steward of an interface's daemon waits for a successor.
pub fn path(interface: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{interface}.heir"))
}

/// Listens there, with the steward: from here on it is its. What somebody else has left there is removed. The folder is made if it is missing, for its
/// owner only, and so is the socket.
///
/// # Errors
/// What failed; and nothing is done where there is no steward.
pub fn await_successor(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // As `unix` does it: the file is private from the first moment.
    fchmod(&socket, Mode::from_raw_mode(0o600))?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    steward::keep(HOME, netns::current()?)?;
    steward::await_successor(path, &socket)
}

/// What was left.
#[derive(Debug)]
pub struct Heritage {
    /// Descriptors, by the names under which they were kept.
    pub kept: Vec<(String, OwnedFd)>,
    /// Programs in their places. What of it is still here when it is taken leaves these.
    pub places: Vec<Left>,
    home: Option<OwnedFd>,
    steward: OwnedFd,
}

impl Heritage {
    /// Asks for what was left at this path. `None` where nobody waits, or a daemon lives.
    ///
    /// # Errors
    /// Something else is wrong there.
    pub fn find(path: &Path) -> io::Result<Option<Heritage>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        match connect(&socket, &SocketAddrUnix::new(path)?) {
            // EAGAIN: more wait already than it is fit for. EACCES: what is left is root's, and not for us.
            Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN | Errno::ACCESS) => return Ok(None),
            connected => connected?,
        }
        rustix::io::ioctl_fionbio(&socket, false)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        let mut heritage = Heritage { kept: Vec::new(), places: Vec::new(), home: None, steward: socket };
        let mut name = [0; 128];
        loop {
            let (len, fd) = match steward::receive(&heritage.steward, &mut name) {
                // A daemon lives. Or somebody else was faster, and the steward has ended.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionReset) => {
                    return Ok(None);
                }
                received => received?,
            };
            match (&name[..len], fd) {
                ([], _) => return Ok(None),
                (END, None) => return Ok(Some(heritage)),
                (name, Some(fd)) => {
                    let name = String::from_utf8_lossy(name);
                    match Place::read(&name, fd) {
                        Ok((place, made)) => heritage.places.push(Left { place, made }),
                        Err(fd) if name == HOME => heritage.home = Some(fd),
                        Err(fd) => heritage.kept.push((name.into_owned(), fd)),
                    }
                }
                (_, None) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// Whether the one that died lived in the network namespace in which this process does.
    pub fn is_of_here(&self) -> io::Result<bool> {
        match &self.home {
            Some(home) => netns::same(home.as_fd(), netns::current()?.as_fd()),
            None => Ok(false),
        }
    }

    /// What is kept by this name.
    pub fn remove(&mut self, name: &str) -> Option<OwnedFd> {
        let at = self.kept.iter().position(|(kept, _)| kept == name)?;
        Some(self.kept.remove(at).1)
    }

    /// The first of the interface's queues.
    pub fn queue(&self) -> Option<Queue> {
        let first = format!("{}0", steward::QUEUE);
        let (_, fd) = self.kept.iter().find(|(name, _)| *name == first)?;
        fd.try_clone().ok().map(Queue::from)
    }

    /// The interface's queues, in their order.
    pub fn queues(&mut self) -> Vec<OwnedFd> {
        (0..).map_while(|number| self.remove(&format!("{}{number}", steward::QUEUE))).collect()
    }

    /// All is settled: who kept it ends.
    pub fn take(self) -> io::Result<()> {
        for left in self.places {
            drop(left.take_over()?);
        }
        steward::send(&self.steward, &[TAKEN], None)
    }
}

/// A program in its place, where somebody else has put it.
#[derive(Debug)]
pub struct Left {
    place: Place,
    made: bool,
}

impl Left {
    /// By which hook it is there.
    pub fn hook(&self) -> Hook {
        self.place.hook
    }

    /// On which interface.
    pub fn interface(&self) -> u32 {
        self.place.interface
    }

    /// As if it had been put there by this process.
    pub fn take_over(self) -> io::Result<Attached> {
        Attached::take_over(self.place, self.made)
    }
}

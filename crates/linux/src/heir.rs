//! What a daemon that died has left with its steward, and how a successor comes by it. See `steward/estate.rs` for the other side.
//!
//! ```text
//!   find ── connected, and proved ──▶ names and descriptors ──▶ Heritage ── settle ──▶ ours; the steward ends
//!    └── nobody is there                                           ├── declined ─────▶ it takes all away, and ends
//!                                                                  └── dropped ──────▶ it keeps on
//! ```
//!
//! So whoever fails before all is settled leaves it as it was: programs stay where they are ([`Claim`]), and the steward can still be asked, since a
//! successor's own socket takes the name of the other one as the last thing of all ([`settle`]).
//!
//! A service manager can keep it in between, where stewards do not survive: [`Heritage::copies`] and [`Heritage::pass_on`] on one side, [`hand_on`] on the
//! other.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with, socketpair,
};

use crate::bpf::Attached;
use crate::netns;
use crate::steward::{self, DECLINED, END, PROOF, Place, TAKEN, Terms};
use crate::sys::set_int;
use crate::tun::Queue;

/// Where the sockets are.
pub const FOLDER: &str = "/run/wireloom";

/// What the network namespace of the one that died is kept as.
const HOME: &str = "home";

/// How long a daemon that lives, or is about to end, keeps its successor waiting. Its steward answers as soon as it has ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// Successors that may wait.
const BACKLOG: i32 = 4;

/// Bytes that may wait to be read, which is more than all names and what is sent with them (some 1 KiB each).
pub(crate) const ROOM: libc::c_int = 4 << 20;

/// The socket at which the steward of an interface's daemon waits for a successor.
pub fn path(interface: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{interface}.heir"))
}

/// Whether somebody listens there: the steward of a daemon that lives, or that was of another place.
pub fn is_answered(path: &Path) -> bool {
    // EAGAIN: more wait already than it is fit for.
    dial(path).is_ok_and(|connected| matches!(connected, Ok(_) | Err(Errno::AGAIN)))
}

fn dial(path: &Path) -> io::Result<Result<OwnedFd, Errno>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    Ok(connect(&socket, &SocketAddrUnix::new(path)?).map(|()| socket))
}

/// Listens for a successor, with the steward: from here on it is its. It is there by a name of its own until [`settle`] gives it the one that is asked for,
/// so that who is to be found by that is found still. The folder is made if it is missing, for its owner only, and so is the socket.
///
/// # Errors
/// What failed; and nothing is done where there is no steward.
pub fn await_successor(path: &Path) -> io::Result<()> {
    if !steward::is_there() {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut ours = path.to_owned().into_os_string();
    ours.push(format!(".{}", std::process::id()));
    let ours = PathBuf::from(ours);
    match std::fs::remove_file(&ours) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // As `unix` does it: the file is private from the first moment.
    fchmod(&socket, Mode::from_raw_mode(0o600))?;
    bind(&socket, &SocketAddrUnix::new(&ours)?)?;
    listen(&socket, BACKLOG)?;
    steward::keep(HOME, netns::current()?)?;
    steward::await_successor(&ours, &socket)
}

/// The end of a start: what was left is ours from here on, as is what we leave ourselves if there are `terms` for it, and then who kept it ends. Nothing
/// that fails here makes the start fail: what was left might be in pieces by then.
pub fn settle(heritage: Option<Heritage>, terms: Option<&Terms>) {
    if let Some(heritage) = &heritage {
        heritage.claim();
    }
    if let Some(terms) = terms
        && let Err(error) = steward::is_whole(terms)
    {
        log::warn!("if this daemon dies nobody carries on: {error}");
    }
    if let Some(heritage) = heritage {
        heritage.taken();
    }
}

/// The end of a start of a daemon that has no programs: those that were left would go on by the sessions, peers and rules that there were, past it. So who kept
/// them takes them away and overwrites their keys, and that is waited for.
pub fn decline(heritage: Option<Heritage>) {
    let Some(Heritage { steward, kept, places, all, .. }) = heritage else { return };
    // Nothing is held in its place by us.
    drop((kept, places, all));
    let ended = steward::send(&steward, &[DECLINED], None).and_then(|()| steward::receive(&steward, &mut [0]));
    match ended {
        Err(error) if !is_end(&error) => log::warn!("programs of an earlier daemon may stay on interfaces: {error}"),
        _ => (),
    }
}

/// Whether what was left is ours already. Until then nothing of it is to be changed.
#[derive(Clone, Debug, Default)]
pub struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Whether it is.
    pub fn is_made(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What was left.
#[derive(Debug)]
pub struct Heritage {
    /// Descriptors, by the names under which they were kept.
    pub kept: Vec<(String, OwnedFd)>,
    /// Programs in their places. They stay there if it is not [settled](settle), and go then if they are still here.
    pub places: Vec<Attached>,
    home: Option<OwnedFd>,
    /// All places once more, with whether their discipline goes with them.
    all: Vec<(Place, bool)>,
    claim: Claim,
    steward: OwnedFd,
}

impl Heritage {
    /// Asks for what was left at this path. `None` where nobody waits, or a daemon lives, or we may not.
    ///
    /// # Errors
    /// Something else is wrong there.
    pub fn find(path: &Path) -> io::Result<Option<Heritage>> {
        let socket = match dial(path)? {
            // EAGAIN: more wait already than it is fit for. EACCES: what is left is root's, and not for us.
            Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN | Errno::ACCESS) => return Ok(None),
            connected => connected?,
        };
        // EACCES: without the privilege to configure interfaces there is nothing to be had.
        let Ok(proof) = proof() else { return Ok(None) };
        rustix::io::ioctl_fionbio(&socket, false)?;
        match steward::send(&socket, &[PROOF], Some(proof.as_fd())) {
            Err(error) if is_end(&error) => return Ok(None),
            sent => sent?,
        }
        Heritage::receive(socket)
    }

    /// Reads what comes by this socket: from a steward, or from who has kept it in its place ([`hand_on`]).
    ///
    /// # Errors
    /// As for [`Heritage::find`].
    pub fn receive(socket: OwnedFd) -> io::Result<Option<Heritage>> {
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        let (kept, places, all) = Default::default();
        let mut heritage = Heritage { kept, places, home: None, all, claim: Claim::default(), steward: socket };
        let mut name = [0; 128];
        loop {
            let (len, fd) = match steward::receive(&heritage.steward, &mut name) {
                // A daemon lives. Or somebody else was faster, and the steward has ended.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_end(&error) => return Ok(None),
                received => received?,
            };
            match (&name[..len], fd) {
                ([], _) => return Ok(None),
                (END, None) => return Ok(Some(heritage)),
                (name, Some(fd)) => heritage.add(&String::from_utf8_lossy(name), fd)?,
                (_, None) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    fn add(&mut self, name: &str, fd: OwnedFd) -> io::Result<()> {
        match Place::read(name, fd) {
            Ok((place, made)) => {
                self.places.push(Attached::left(place.try_clone()?, self.claim.clone()));
                self.all.push((place, made));
            }
            Err(fd) if name == HOME => self.home = Some(fd),
            Err(fd) => self.kept.push((name.to_owned(), fd)),
        }
        Ok(())
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

    /// Tells whether it is ours already.
    pub fn token(&self) -> Claim {
        self.claim.clone()
    }

    /// Copies of all that is still here, by the names under which they were kept, for [`hand_on`].
    pub fn copies(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        let home = self.home.iter().map(|home| Ok((HOME.to_owned(), home.try_clone()?)));
        let kept = self.kept.iter().map(|(name, fd)| Ok((name.clone(), fd.try_clone()?)));
        let places = self.all.iter().map(|(place, made)| Ok((place.name(*made), place.held.try_clone()?)));
        home.chain(kept).chain(places).collect()
    }

    /// Somebody else has it now, by its [copies](Heritage::copies): the steward ends, and nothing has changed.
    pub fn pass_on(self) {
        self.taken();
    }

    /// It is ours: programs with their places are the steward's as well from here on, so that it takes them away one day.
    fn claim(&self) {
        for (place, made) in &self.all {
            if let Err(error) = place.take_over(*made) {
                log::warn!("a program of interface {} may stay when we end: {error}", place.interface);
            }
        }
        self.claim.0.store(true, Ordering::SeqCst);
    }

    /// Who kept it is told. It may have come to its end meanwhile, which is the same: what there is we have.
    fn taken(self) {
        if let Err(error) = steward::send(&self.steward, &[TAKEN], None) {
            log::debug!("who kept what an earlier daemon left has ended already: {error}");
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// What shows that its maker may configure interfaces: a socket that is marked for debugging, which does nothing, and takes CAP_NET_ADMIN in the first user
/// namespace (`sockopt_capable` in the kernel's `net/core/sock.c`). The user's number alone would show nothing, as a container's root may have no capability.
fn proof() -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_DEBUG, 1)?;
    Ok(socket)
}

/// Whether this descriptor shows it.
pub(crate) fn proves(fd: BorrowedFd<'_>) -> bool {
    crate::sys::int_option(fd, libc::SOL_SOCKET, libc::SO_DEBUG).is_ok_and(|marked| marked != 0)
}

/// Writes what was left into a socket, from which the successor [reads](Heritage::receive) it: its end and ours. See [`is_taken`].
///
/// # Errors
/// There is no room for all of it, which takes CAP_NET_ADMIN if it is much.
pub fn hand_on(kept: &[(String, OwnedFd)]) -> io::Result<(OwnedFd, OwnedFd)> {
    let (theirs, ours) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // What does not fit without is refused below.
    let _ = set_int(ours.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, ROOM);
    for (name, fd) in kept {
        steward::send_at_once(&ours, name.as_bytes(), Some(fd.as_fd()))?;
    }
    steward::send_at_once(&ours, END, None)?;
    Ok((theirs, ours))
}

/// Waits until the successor says by our end that all is its; false where it ends before.
pub fn is_taken(ours: &OwnedFd, within: Duration) -> bool {
    let mut said = [0; TAKEN.len()];
    set_socket_timeout(ours, Timeout::Recv, Some(within)).is_ok()
        && steward::receive(ours, &mut said).is_ok_and(|(len, _)| said[..len] == *TAKEN)
}

/// Takes away what was left, by this process itself, and overwrites the keys: nobody carries on.
pub fn discard(kept: &[(String, OwnedFd)], terms: &Terms) -> io::Result<()> {
    let (theirs, _ours) = hand_on(kept)?;
    let heritage = Heritage::receive(theirs)?;
    settle(heritage, None);
    steward::wipe(kept, terms);
    Ok(())
}

//! What a daemon leaves behind when it dies, and what becomes of it.
//!
//! Where programs in the kernel move the packets, they need no daemon for as long as their keys last. So the steward of such a daemon has copies of all
//! descriptors that they live by, under names: the interface's queues, maps, programs, and what holds these in their places. If the daemon says that
//! it ends, it lets go of them. If it just dies, the steward *keeps*:
//!
//! ```text
//!   daemon dies ──▶ keeps ── a successor asks ──▶ hands all over ── it has taken it ──▶ ends, and the rest is the successor's
//!                    │ ▲                              │
//!                    │ └────── it went away ──────────┘
//!                    └── keys too old, interface deleted, SIGTERM, or it has no use for it ──▶ overwrites the keys, lets go, ends
//! ```
//!
//! A successor shows by its first message that it may configure interfaces; then it gets everything, and it has taken it when it says so. In the middle of that
//! nothing ends, or only when it takes very long. At the end programs go first and keys are overwritten after them; but not where a successor has the maps
//! and says nothing: it may have sessions of its own in them by then, and wipes them itself, or timers of the kernel do.
//!
//! It never looks at a key. How old sessions are it reads where programs and daemon keep their books ([`Terms`]). Only the daemon could make a new one,
//! so the time at which the last one ends is known as soon as the daemon has died.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{SocketFlags, accept_with};

use super::Task;
use crate::bpf::{Hook, Map, hook};
use crate::clock;
use crate::heir::{ROOM, proves};
use crate::link::open_requests;
use crate::poll::{BootTimer, Epoll, Event, Interest, Signal, SignalFd};
use crate::sys::set_int;
use crate::tun::Queue;
use crate::unix::SocketFile;

/// What the names of the queues of an interface begin with.
pub const QUEUE: &str = "queue-";
/// What the names of programs in their places begin with: hook, interface, handle, and whether the discipline is to be taken away with it, follow.
const PLACE: &str = "place-";

/// What a successor says first, with a descriptor that shows that it may.
pub(crate) const PROOF: &[u8] = b"proof";
/// What a successor is told when it has been handed everything. No name is empty.
pub(crate) const END: &[u8] = b"\0end";
/// What it says when it has taken it.
pub(crate) const TAKEN: &[u8] = b"taken";
/// What it says when nobody is to carry on.
pub(crate) const DECLINED: &[u8] = b"declined";

/// How long an interface that shows an error is looked at again, until it is known to be gone.
const AGAIN: Duration = Duration::from_millis(20);

/// How long somebody who asks may take to show who it is.
const PROVING: Duration = Duration::from_secs(2);

/// How long a successor that has been handed everything may take from the end of the last session on.
const TAKING: Duration = Duration::from_secs(10);

/// How long a program that has met a packet may be at it when it has been taken away.
const GRACE: Duration = Duration::from_millis(20);

/// How sessions show their age: an array map has a record of each, in which one word is odd while the session lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The name of the map of the records.
    pub sessions: String,
    /// The name of the map of their keys, which is overwritten at the end.
    pub keys: String,
    /// Where in a record that word (32 bits) is, in bytes.
    pub epoch_at: u32,
    /// Where the time is at which the session began: nanoseconds of [`clock::boot_nanos`], 64 bits.
    pub created_at: u32,
    /// How long a session lasts from then on.
    pub life: Duration,
}

impl Terms {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.epoch_at.to_be_bytes());
        bytes.extend(self.created_at.to_be_bytes());
        bytes.extend(u64::try_from(self.life.as_nanos()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend(self.sessions.as_bytes());
        bytes.push(0);
        bytes.extend(self.keys.as_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Terms> {
        let (epoch_at, rest) = bytes.split_first_chunk()?;
        let (created_at, rest) = rest.split_first_chunk()?;
        let (life, names) = rest.split_first_chunk()?;
        let (sessions, keys) = std::str::from_utf8(names).ok()?.split_once('\0')?;
        Some(Terms {
            sessions: sessions.to_owned(),
            keys: keys.to_owned(),
            epoch_at: u32::from_be_bytes(*epoch_at),
            created_at: u32::from_be_bytes(*created_at),
            life: Duration::from_nanos(u64::from_be_bytes(*life)),
        })
    }
}

/// A program in its place.
#[derive(Debug)]
pub(crate) struct Place {
    pub hook: Hook,
    pub interface: u32,
    pub handle: u32,
    /// What holds it there, or for a filter the program.
    pub held: OwnedFd,
}

impl Place {
    pub(crate) fn is(&self, hook: Hook, interface: u32, handle: u32) -> bool {
        (self.hook, self.interface, self.handle) == (hook, interface, handle)
    }

    pub(crate) fn try_clone(&self) -> io::Result<Place> {
        let Place { hook, interface, handle, .. } = *self;
        Ok(Place { hook, interface, handle, held: self.held.try_clone()? })
    }

    /// Has the steward take it away one day, which somebody else has put there. `made`: its discipline goes with it.
    pub(crate) fn take_over(&self, made: bool) -> io::Result<()> {
        let Place { hook, interface, handle, .. } = *self;
        super::perform(Task::TakeOver { hook, interface, handle, made }, self.held.as_fd()).map(drop)
    }

    /// By what name it is handed over. `made`: its discipline goes with it.
    pub(crate) fn name(&self, made: bool) -> String {
        format!("{PLACE}{}-{}-{}-{}", self.hook as u8, self.interface, self.handle, u8::from(made))
    }

    /// What was handed over by this name: the place, and whether its discipline is to be taken away with it. `Err` gives back what is something else.
    pub(crate) fn read(name: &str, held: OwnedFd) -> Result<(Place, bool), OwnedFd> {
        let numbers = || {
            let mut numbers = name.strip_prefix(PLACE)?.split('-').map(|number| number.parse::<u32>().ok());
            let mut next = || numbers.next().flatten();
            let hook = *Hook::ALL.get(next()? as usize)?;
            Some((hook, next()?, next()?, next()? != 0))
        };
        match numbers() {
            Some((hook, interface, handle, made)) => Ok((Place { hook, interface, handle, held }, made)),
            None => Err(held),
        }
    }
}

/// What the steward needs for a time without a daemon, made while it may.
pub(super) struct Vigil {
    timer: BootTimer,
    signals: SignalFd,
    wait: Epoll,
}

impl Vigil {
    pub(super) fn new() -> io::Result<Vigil> {
        let signals = SignalFd::new(&[Signal::Interrupt, Signal::Terminate])?;
        Ok(Vigil { timer: BootTimer::new()?, signals, wait: Epoll::new()? })
    }
}

/// What is kept.
#[derive(Default)]
pub(super) struct Estate {
    pub kept: Vec<(String, OwnedFd)>,
    pub places: Vec<Place>,
    /// Where a successor asks, and the file of that.
    pub listener: Option<(OwnedFd, SocketFile)>,
    /// There are some once it is all there.
    pub terms: Option<Terms>,
}

/// How it was with the estate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// A successor has it.
    Taken,
    /// Nobody does.
    Over,
    /// A successor has the interface, and nobody the rest.
    Declined,
    /// Somebody was handed a copy, and has not said what becomes of it.
    Open,
}

const LISTENER: u64 = 0;
const SUCCESSOR: u64 = 1;
const INTERFACE: u64 = 2;
const TIMER: u64 = 3;
const SIGNALS: u64 = 4;

/// Somebody who asks for it.
struct Successor {
    socket: OwnedFd,
    /// Everything has been handed over.
    has_all: bool,
}

/// What such a one says.
enum Said {
    /// That it may have it.
    Proof,
    /// That it has taken it.
    Taken,
    /// That it has no use for it.
    Declined,
}

impl Estate {
    /// Whether this is the tunnel's own interface, here at home.
    pub(super) fn is_interface(&self, index: u32, home: BorrowedFd<'_>) -> bool {
        let look = || {
            let (_, fd) = self.queue().ok_or(io::ErrorKind::NotFound)?;
            Queue::from(fd.try_clone()?).index_at(home, open_requests()?.as_fd())
        };
        look().is_ok_and(|found| found == Some(index))
    }

    fn queue(&self) -> Option<&(String, OwnedFd)> {
        self.kept.iter().find(|(name, _)| name.starts_with(QUEUE))
    }

    /// Keeps it, now that the daemon has died, for as long as it is of use.
    pub(super) fn keep(&self, vigil: &Vigil) -> End {
        let Some((terms, (listener, file))) = self.terms.as_ref().zip(self.listener.as_ref()) else { return End::Over };
        self.wait(vigil, terms, listener.as_fd(), file).unwrap_or(End::Over)
    }

    fn wait(&self, vigil: &Vigil, terms: &Terms, listener: BorrowedFd<'_>, file: &SocketFile) -> io::Result<End> {
        let Some(last) = self.last_end(terms)? else { return Ok(End::Over) };
        vigil.timer.set(Some(last))?;
        vigil.wait.add(&vigil.timer, TIMER, Interest::READ)?;
        vigil.wait.add(&vigil.signals, SIGNALS, Interest::READ)?;
        vigil.wait.add(listener, LISTENER, Interest::READ)?;
        let queue = self.queue().map(|(_, fd)| fd.try_clone().map(Queue::from)).transpose()?;
        if let Some(queue) = &queue {
            // What comes for the daemon stays where it is, for its successor: it is a change that wakes us, and not that there is something.
            vigil.wait.add(queue, INTERFACE, Interest::READ | Interest::EDGE)?;
        }
        let is_gone = || queue.as_ref().is_some_and(|queue| !queue.is_attached());
        let mut successor: Option<Successor> = None;
        let mut events = [Event::EMPTY; 5];
        let (mut again, mut deadline) = (None, None::<Instant>);
        // The time is over, or we were told to end.
        let mut over = false;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let timeout = [again.take(), left].into_iter().flatten().min();
            let events = vigil.wait.wait(&mut events, timeout)?;
            if is_gone() {
                return Ok(End::Over);
            }
            let mut goes = false;
            for event in events {
                match event.token() {
                    TIMER | SIGNALS => {
                        if !successor.as_ref().is_some_and(|successor| successor.has_all) {
                            return Ok(End::Over);
                        }
                        // It has the maps: not under its hands.
                        (over, deadline) = (true, Some(Instant::now() + TAKING));
                        vigil.wait.modify(&vigil.timer, TIMER, Interest::NONE)?;
                        vigil.wait.modify(&vigil.signals, SIGNALS, Interest::NONE)?;
                    }
                    // It is being deleted.
                    INTERFACE if event.closed() => again = Some(AGAIN),
                    INTERFACE => (),
                    LISTENER => {
                        let Ok(socket) = accept_with(listener, SocketFlags::CLOEXEC) else { continue };
                        vigil.wait.add(&socket, SUCCESSOR, Interest::READ)?;
                        // One at a time.
                        vigil.wait.modify(listener, LISTENER, Interest::NONE)?;
                        successor = Some(Successor { socket, has_all: false });
                        deadline = Some(Instant::now() + PROVING);
                    }
                    _ => match self.hear(successor.as_mut()) {
                        Some(Said::Taken) => return Ok(End::Taken),
                        Some(Said::Declined) => {
                            // It waits until this is closed, which is when we have ended.
                            std::mem::forget(successor);
                            return Ok(End::Declined);
                        }
                        Some(Said::Proof) => deadline = None,
                        None => goes = true,
                    },
                }
            }
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if goes || late {
                if late && over {
                    return Ok(End::Open);
                }
                successor = None;
                deadline = None;
                if over {
                    return Ok(End::Over);
                }
                if file.is_replaced() {
                    // It died just after it had put its own in the place of ours: its steward has it all, and is found.
                    return Ok(End::Taken);
                }
                vigil.wait.modify(listener, LISTENER, Interest::READ)?;
            }
        }
    }

    /// Takes in what somebody who asks has said; nothing where it has gone or is not to have it. Who has shown that it may has been handed everything.
    fn hear(&self, successor: Option<&mut Successor>) -> Option<Said> {
        let Successor { socket, has_all } = successor?;
        let mut said = [0; 16];
        let (len, fd) = super::receive(socket, &mut said).ok()?;
        match (&said[..len], fd) {
            (TAKEN, None) if *has_all => Some(Said::Taken),
            (DECLINED, None) if *has_all => Some(Said::Declined),
            (PROOF, Some(proof)) if !*has_all && is_root(socket) && proves(proof.as_fd()) => {
                self.hand_over(socket).ok()?;
                *has_all = true;
                Some(Said::Proof)
            }
            _ => None,
        }
    }

    /// When the last session ends; none if there is none.
    fn last_end(&self, terms: &Terms) -> io::Result<Option<u64>> {
        let map = self.map(&terms.sessions)?;
        let mut record = vec![0; map.sizes().1];
        let (epoch_at, created_at) = (terms.epoch_at as usize, terms.created_at as usize);
        if epoch_at + 4 > record.len() || created_at + 8 > record.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let life = u64::try_from(terms.life.as_nanos()).unwrap_or(u64::MAX);
        let now = clock::boot_nanos();
        let mut last = None;
        for slot in 0..map.entries() {
            map.lookup(&slot.to_ne_bytes(), &mut record)?;
            let lives = record[epoch_at..].first_chunk().is_some_and(|word| u32::from_ne_bytes(*word) % 2 == 1);
            let created = record[created_at..].first_chunk().map_or(0, |time| u64::from_ne_bytes(*time));
            let end = created.saturating_add(life);
            if lives && end > now {
                last = last.max(Some(end));
            }
        }
        Ok(last)
    }

    /// See [`wipe`].
    pub(super) fn wipe(&self) {
        self.terms.iter().for_each(|terms| wipe(&self.kept, terms));
    }

    fn map(&self, name: &str) -> io::Result<Map> {
        map(&self.kept, name)
    }

    /// Hands a copy of everything to a successor, which then has to say that it has taken it.
    fn hand_over(&self, to: &OwnedFd) -> io::Result<()> {
        // There is room for all of it then, so that who does not read does not hold us up.
        set_int(to.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, ROOM)?;
        for (name, fd) in &self.kept {
            super::send_at_once(to, name.as_bytes(), Some(fd.as_fd()))?;
        }
        for place in &self.places {
            let name = place.name(hook::is_made_here(place.hook, place.interface));
            super::send_at_once(to, name.as_bytes(), Some(place.held.as_fd()))?;
        }
        super::send_at_once(to, END, None)
    }
}

/// Overwrites the keys, once all programs have been taken from their places: whoever has the maps as well must not find them. What cannot be overwritten
/// goes with the last descriptor.
pub(crate) fn wipe(kept: &[(String, OwnedFd)], terms: &Terms) {
    std::thread::sleep(GRACE);
    let wipe = || {
        let map = map(kept, &terms.keys)?;
        let zeros = vec![0; map.sizes().1];
        (0..map.entries()).try_for_each(|slot| map.update(&slot.to_ne_bytes(), &zeros))
    };
    let _: io::Result<()> = wipe();
}

fn map(kept: &[(String, OwnedFd)], name: &str) -> io::Result<Map> {
    let found = kept.iter().find(|(kept, _)| kept == name).ok_or(io::ErrorKind::NotFound)?;
    Map::from_fd(found.1.try_clone()?)
}

/// Whether the process at the other end is root's.
fn is_root(socket: &OwnedFd) -> bool {
    let mut told = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which is what `told` has.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut told).cast(), &mut len)
    };
    done == 0 && told.uid == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read_as_they_were_written() {
        let terms = Terms {
            sessions: "map-ledgers".to_owned(),
            keys: "map-keys".to_owned(),
            epoch_at: 32,
            created_at: 24,
            life: Duration::from_secs(180),
        };
        let bytes = terms.encode();
        assert_eq!(Terms::decode(&bytes), Some(terms));
        assert_eq!(Terms::decode(&bytes[..15]), None);
        assert_eq!(Terms::decode(&bytes[..20]), None, "there are two names");
    }

    #[test]
    fn a_place_is_known_by_its_name() {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let place = Place { hook: Hook::FilterIngress, interface: 7, handle: u32::MAX, held: null() };
        let (read, made) = Place::read(&place.name(false), null()).unwrap();
        assert!(read.is(place.hook, place.interface, place.handle) && !made);
        for name in ["queue-0", "place-9-1-1-0", "place-1-1", "place-1-x-1-0"] {
            assert!(Place::read(name, null()).is_err(), "{name}");
        }
    }
}

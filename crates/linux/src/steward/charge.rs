//! What the steward of a daemon is entrusted with, and what it lets that daemon ask for.
//!
//! ```text
//!   start: what is kept, what others left ── it is whole, or farewell ──▶ through: programs in their own places, and nothing more
//! ```
//!
//! Somebody who takes over the daemon comes too late for the first part, since nothing that strangers send is read before its end. What is left to him is put
//! in places that are this tunnel's by what the steward itself sees: its interface, and a filter's handle, which is the number of that.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::estate::{Estate, Place, Terms};
use super::{AWAIT, FAREWELL, KEEP, Task, WHOLE};
use crate::bpf::Hook;
use crate::unix::SocketFile;

/// Descriptors that are kept for a successor at most: the queues are the most of them. And bytes of their names.
const KEPT_MAX: usize = 1024;
const NAME_MAX: usize = 64;

/// What the steward is entrusted with.
#[derive(Default)]
pub(super) struct Charge {
    /// The file of the daemon's socket.
    pub file: Option<SocketFile>,
    /// It is removed when that is asked for, and not otherwise.
    pub kept: bool,
    /// It was told where to wait for a successor, whether that was possible or not.
    awaits: bool,
    /// The daemon has said that all is there, or that it ends.
    through: bool,
    /// Programs that were put in place and not taken away, and what else a successor of the daemon needs.
    pub estate: Estate,
}

impl Charge {
    /// Whether the daemon may ask for this. What puts packets of an interface into the tunnel goes to the tunnel's own interface alone, a filter has
    /// the number of that for its handle, so that it takes the place of nobody else's, what is taken away is what was put there for this daemon, and
    /// what others have put there can be taken over until the start is through.
    pub(super) fn allows(&self, task: Task<'_>, home: &OwnedFd) -> bool {
        let has = |hook, interface, handle| self.estate.places.iter().any(|place| place.is(hook, interface, handle));
        let is_own = |index| self.estate.is_interface(index, home.as_fd());
        match task {
            Task::Attach { hook, interface, handle } => {
                let is_egress = matches!(hook, Hook::TcxEgress | Hook::FilterEgress);
                has(hook, interface, handle)
                    || (!is_egress || is_own(interface)) && (!hook.is_filter() || is_own(handle))
            }
            Task::Detach { hook, interface, handle } => !hook.is_filter() || has(hook, interface, handle),
            Task::TakeOver { .. } => !self.through,
            _ => true,
        }
    }

    /// Remembers what this task, which was carried out, leaves behind.
    pub(super) fn note(&mut self, task: Task<'_>, on: OwnedFd, made: Option<&OwnedFd>) {
        let places = &mut self.estate.places;
        match task {
            Task::Attach { hook, interface, handle } | Task::TakeOver { hook, interface, handle, .. } => {
                places.retain(|place| !place.is(hook, interface, handle));
                // The link, or for a filter its program. What cannot be copied ends with the daemon.
                if let Ok(held) = made.map_or(Ok(on), OwnedFd::try_clone) {
                    places.push(Place { hook, interface, handle, held });
                }
            }
            Task::Detach { hook, interface, handle } => places.retain(|place| !place.is(hook, interface, handle)),
            _ => (),
        }
    }

    /// What is no task, but concerns what is kept.
    pub(super) fn keep(&mut self, tag: u8, bytes: &[u8], fd: Option<OwnedFd>) -> io::Result<()> {
        let invalid = || io::Error::from(rustix::io::Errno::INVAL);
        match (tag, fd) {
            (KEEP, Some(fd)) if self.estate.kept.len() < KEPT_MAX && !self.through => {
                let name = std::str::from_utf8(bytes).map_err(|_| invalid())?;
                if name.is_empty() || name.len() > NAME_MAX {
                    return Err(invalid());
                }
                self.estate.kept.push((name.to_owned(), fd));
            }
            // As with the daemon's own socket, the first call counts: nobody has another file removed by it.
            (AWAIT, Some(fd)) if !self.awaits => {
                self.awaits = true;
                self.estate.listener = take_charge(bytes)?.map(|file| (fd, file));
            }
            (WHOLE, None) if !self.through => {
                self.estate.terms = Some(Terms::decode(bytes).ok_or_else(invalid)?);
                self.through = true;
                // From here on it is found. What was found there before had its successor in this daemon.
                if let Some((_, file)) = &mut self.estate.listener {
                    file.put_in_place()?;
                }
            }
            (FAREWELL, None) => {
                self.through = true;
                self.estate.terms = None;
                self.estate.kept.clear();
                self.estate.listener.take().iter().for_each(|(_, file)| file.remove());
            }
            _ => return Err(rustix::io::Errno::PERM.into()),
        }
        Ok(())
    }
}

/// The socket's file at this path; none for want of one, or where it is gone already, which the other process will notice.
pub(super) fn take_charge(path: &[u8]) -> io::Result<Option<SocketFile>> {
    use std::os::unix::ffi::OsStrExt;
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    match SocketFile::new(path.to_owned()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> OwnedFd {
        OwnedFd::from(std::fs::File::open("/dev/null").unwrap())
    }

    #[test]
    fn nothing_is_taken_over_once_the_start_is_through() {
        let take_over = Task::TakeOver { hook: Hook::FilterIngress, interface: 1, handle: 9, made: true };
        let terms = Terms {
            sessions: "sessions".to_owned(),
            keys: "keys".to_owned(),
            epoch_at: 0,
            created_at: 8,
            life: std::time::Duration::from_secs(1),
        };
        for tags in [&[WHOLE][..], &[FAREWELL], &[WHOLE, FAREWELL]] {
            let mut charge = Charge::default();
            assert!(charge.allows(take_over, &null()));
            charge.keep(KEEP, b"queue-0", Some(null())).unwrap();
            for tag in tags {
                charge.keep(*tag, &terms.encode(), None).unwrap();
            }
            assert!(!charge.allows(take_over, &null()), "{tags:?}");
            assert!(charge.keep(KEEP, b"queue-1", Some(null())).is_err(), "{tags:?}");
            assert!(charge.keep(WHOLE, &terms.encode(), None).is_err(), "{tags:?}");
        }
    }

    #[test]
    fn a_filter_of_somebody_else_is_neither_replaced_nor_taken_away() {
        // That there is no interface of ours is the same as that it is another one.
        let mut charge = Charge::default();
        for hook in [Hook::FilterIngress, Hook::FilterEgress] {
            let (interface, handle) = (1, 7);
            assert!(!charge.allows(Task::Attach { hook, interface, handle }, &null()));
            assert!(!charge.allows(Task::Detach { hook, interface, handle }, &null()));
            charge.estate.places.push(Place { hook, interface, handle, held: null() });
            assert!(charge.allows(Task::Attach { hook, interface, handle }, &null()));
            assert!(charge.allows(Task::Detach { hook, interface, handle }, &null()));
        }
        assert!(charge.allows(Task::Attach { hook: Hook::TcxIngress, interface: 1, handle: 0 }, &null()));
    }
}

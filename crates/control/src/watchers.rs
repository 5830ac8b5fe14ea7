//! Clients that watch: what happens to peers is told them as it happens.
//!
//! A watcher is a connection without a thread, and takes none of the places of other clients. What it has not read is the kernel's to keep, in the
//! socket's buffer; who lets that run full is cut off, and so is nobody who has gone: that shows with the next event, or when somebody else wants a
//! place. As long as nobody watches, an event costs a look at a number.

use crate::lock::lock;
use config::uapi::{Errno, PeerEvent, reply_to_get, write_event};
use noise::PublicKey;
use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Watchers at a time. One process for each interface is what they are there for.
const MAX: usize = 8;

struct Watcher {
    stream: UnixStream,
    /// Whom it watches, in order; everybody if nobody is named.
    of: Vec<PublicKey>,
}

impl Watcher {
    fn has_gone(&self) -> bool {
        !matches!((&self.stream).read(&mut [0; 64]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the text was taken whole.
    fn tell(&self, text: &[u8]) -> bool {
        matches!((&self.stream).write(text), Ok(len) if len == text.len())
    }
}

/// Those that there are.
#[derive(Default)]
pub(crate) struct Watchers {
    all: Mutex<Vec<Watcher>>,
    count: AtomicUsize,
}

impl Watchers {
    /// Takes a watcher in, and answers it, so that no event comes before that.
    ///
    /// # Errors
    /// EBUSY: there are enough.
    pub(crate) fn take(&self, stream: UnixStream, mut of: Vec<PublicKey>) -> Result<(), Errno> {
        of.sort_unstable();
        stream.set_nonblocking(true).map_err(|error| Errno::from(&error))?;
        let watcher = Watcher { stream, of };
        let mut all = lock(&self.all);
        if all.len() >= MAX {
            all.retain(|watcher| !watcher.has_gone());
        }
        if all.len() >= MAX {
            // The answer is the caller's, who may wait.
            let _ = watcher.stream.set_nonblocking(false);
            return Err(Errno::BUSY);
        }
        if watcher.tell(reply_to_get(Ok(())).as_bytes()) {
            all.push(watcher);
        }
        self.count.store(all.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Whether nobody would hear.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Tells all who watch this peer.
    pub(crate) fn tell(&self, event: &PeerEvent) {
        let mut text = Vec::with_capacity(256);
        write_event(&mut text, event);
        let mut all = lock(&self.all);
        all.retain(|watcher| {
            let concerns = watcher.of.is_empty() || watcher.of.binary_search(&event.public_key).is_ok();
            let stays = !concerns || watcher.tell(&text);
            if !stays {
                log::debug!("a watcher has gone, or does not read what it is told: it is cut off");
            }
            stays
        });
        self.count.store(all.len(), Ordering::Relaxed);
    }
}

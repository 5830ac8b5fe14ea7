//! What the workers tell control, in a queue that cannot grow beyond what there is to say.
//!
//! A peer is in the queue at most once: what is to be said of it is a set of bits in the peer, and only the worker that
//! finds none set queues it. A session is confirmed once in its life. Handshake messages, which anybody can send, have
//! a bound of their own.

use super::{
    drops::{Drops, Reason},
    peer::Peer,
};
use crate::{HandshakeBytes, PlaneEvent};
use inet::Endpoint;
use linux::poll::EventFd;
use noise::Session;
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

/// Packets wait, and there is no session.
pub(crate) const SESSION_WANTED: u8 = 1;
/// The session is old.
pub(crate) const REKEY_DUE: u8 = 2;
/// The timers should look.
pub(crate) const ACTIVITY: u8 = 4;

/// Handshake messages that may wait for control.
const HANDSHAKES_MAX: usize = 1024;

enum Said {
    Peer(Arc<Peer>),
    Event(PlaneEvent),
}

struct Queue {
    said: VecDeque<Said>,
    handshakes: usize,
}

/// The queue from the workers to control.
pub(crate) struct Events {
    queue: Mutex<Queue>,
    wake: EventFd,
}

impl Events {
    pub(crate) fn new() -> io::Result<Self> {
        let queue = Mutex::new(Queue { said: VecDeque::new(), handshakes: 0 });
        Ok(Self { queue, wake: EventFd::new()? })
    }

    /// Says `what` of the peer, unless control has yet to hear it.
    #[inline]
    pub(crate) fn raise(&self, peer: &Arc<Peer>, what: u8) {
        // Always written: a look first could miss that control has just taken the bits, and with them what they were about.
        if peer.raised.fetch_or(what, Ordering::AcqRel) == 0 {
            self.push(Said::Peer(peer.clone()));
        }
    }

    pub(crate) fn confirmed(&self, session: Arc<Session>) {
        self.push(Said::Event(PlaneEvent::SessionConfirmed(session)));
    }

    pub(crate) fn tun_gone(&self, error: io::Error) {
        self.push(Said::Event(PlaneEvent::TunGone(error)));
    }

    pub(crate) fn handshake(&self, from: Endpoint, bytes: HandshakeBytes, drops: &Drops) {
        let mut queue = self.lock();
        if queue.handshakes == HANDSHAKES_MAX {
            return drops.count(Reason::HandshakeFlood, 1);
        }
        queue.handshakes += 1;
        queue.said.push_back(Said::Event(PlaneEvent::Handshake { from, bytes }));
        self.wake.signal();
    }

    /// The next thing to hear.
    pub(crate) fn poll(&self) -> Option<PlaneEvent> {
        let mut queue = self.lock();
        loop {
            match queue.said.pop_front() {
                None => {
                    // Under the lock, so that a push after this look signals after this drain.
                    self.wake.drain();
                    return None;
                }
                Some(Said::Event(event)) => {
                    if matches!(event, PlaneEvent::Handshake { .. }) {
                        queue.handshakes -= 1;
                    }
                    return Some(event);
                }
                Some(Said::Peer(peer)) => {
                    // The wanted session first: packets wait for it.
                    let raised = peer.raised.swap(0, Ordering::AcqRel);
                    let events = [
                        (SESSION_WANTED, PlaneEvent::SessionWanted(peer.id)),
                        (REKEY_DUE, PlaneEvent::RekeyDue(peer.id)),
                        (ACTIVITY, PlaneEvent::Activity(peer.id)),
                    ];
                    for (bit, event) in events.into_iter().rev() {
                        if raised & bit != 0 {
                            queue.said.push_front(Said::Event(event));
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn push(&self, said: Said) {
        let mut queue = self.lock();
        queue.said.push_back(said);
        self.wake.signal();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A thread that panicked in between left a queue that is whole: each change is one call.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

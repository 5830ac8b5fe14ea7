//! Handshake messages that wait for the control thread.
//!
//! Bounded, in memory that is taken once; what does not fit is dropped. How many wait is the measure of load: from `LOAD` on,
//! and for a second after, the protocol asks senders to prove that they receive at their address (whitepaper, section 5.3).

use inet::Endpoint;
use noise::Instant;
use plane::HandshakeBytes;
use std::{collections::VecDeque, time::Duration};

/// Messages that may wait (the kernel's MAX_QUEUED_INCOMING_HANDSHAKES).
const MAX: usize = 4096;
/// So many waiting are load.
const LOAD: usize = MAX / 8;
/// How long load is held to last after it was last seen.
const LOAD_HOLD: Duration = Duration::from_secs(1);

/// The queue.
pub(crate) struct Handshakes {
    queue: VecDeque<(Endpoint, HandshakeBytes)>,
    last_load: Option<Instant>,
}

impl Handshakes {
    pub(crate) fn new() -> Handshakes {
        Handshakes { queue: VecDeque::with_capacity(MAX), last_load: None }
    }

    /// Takes a message; false, and it is dropped, if too many wait.
    #[must_use]
    pub(crate) fn push(&mut self, now: Instant, from: Endpoint, bytes: HandshakeBytes) -> bool {
        if self.queue.len() == MAX {
            return false;
        }
        self.queue.push_back((from, bytes));
        if self.queue.len() >= LOAD {
            self.last_load = Some(now);
        }
        true
    }

    pub(crate) fn pop(&mut self) -> Option<(Endpoint, HandshakeBytes)> {
        let first = self.queue.pop_front();
        if self.queue.is_empty() {
            // Back to where the memory begins, so that in quiet times only its first page is ever touched.
            self.queue.clear();
        }
        first
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether messages come faster than they are handled, now or within the last second.
    pub(crate) fn under_load(&self, now: Instant) -> bool {
        self.queue.len() >= LOAD || self.last_load.is_some_and(|last| now.saturating_since(last) < LOAD_HOLD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue_of(len: usize, at: Instant) -> Handshakes {
        let mut handshakes = Handshakes::new();
        let bytes = HandshakeBytes::new(&[1; 148]).unwrap();
        for port in 0..len {
            let _ = handshakes.push(at, Endpoint::new(([192, 0, 2, 1], port as u16).into()), bytes);
        }
        handshakes
    }

    #[test]
    fn load_begins_with_the_depth_and_lasts_a_second() {
        let start = Instant::from_nanos(1 << 40);
        assert!(!queue_of(LOAD - 1, start).under_load(start));
        let mut handshakes = queue_of(LOAD, start);
        assert!(handshakes.under_load(start + Duration::from_secs(5)), "as long as they wait");
        while handshakes.pop().is_some() {}
        assert!(handshakes.under_load(start + Duration::from_millis(999)));
        assert!(!handshakes.under_load(start + Duration::from_secs(1)));
    }

    #[test]
    fn the_queue_is_bounded_and_keeps_the_first() {
        let mut handshakes = queue_of(MAX + 10, Instant::from_nanos(1));
        let capacity = handshakes.queue.capacity();
        for port in 0..MAX {
            assert_eq!(handshakes.pop().unwrap().0.addr.port(), port as u16);
        }
        assert!(handshakes.pop().is_none() && handshakes.is_empty());
        assert_eq!(handshakes.queue.capacity(), capacity);
    }
}

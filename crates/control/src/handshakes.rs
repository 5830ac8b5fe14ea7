//! Handshake messages that wait for the control thread.
//!
//! Bounded, in memory that is taken once; what does not fit is dropped. How many wait is the measure of load: from `LOAD` on,
//! and for a second after, the protocol asks senders to prove that they receive at their address (whitepaper, section 5.3).
//!
//! Who gets no answer asks again after REKEY_TIMEOUT, and has forgotten the first question then. So what has waited for nearly as long is
//! dropped unread: were it answered, all that follows would be answered too late as well, and a device with more to answer than it can
//! would work for nothing. And the queue holds some seconds of work, or 100,000 peers that come back at once would fill it in a moment,
//! and then leave us idle until they ask again.

use inet::Endpoint;
use noise::{Instant, limits::REKEY_TIMEOUT};
use plane::HandshakeBytes;
use std::{collections::VecDeque, time::Duration};

/// Messages that may wait: what one thread answers in two to four seconds (the kernel, with a thread on each processor, lets 4096 wait).
const MAX: usize = 16_384;
/// So many waiting are load (an eighth of the kernel's MAX_QUEUED_INCOMING_HANDSHAKES).
const LOAD: usize = 4096 / 8;
/// What has waited for so long is not worth an answer: that has to travel, too.
const STALE: Duration = REKEY_TIMEOUT.saturating_sub(Duration::from_secs(1));
/// How long load is held to last after it was last seen.
const LOAD_HOLD: Duration = Duration::from_secs(1);

/// The queue.
pub(crate) struct Handshakes {
    /// With the time at which each came.
    queue: VecDeque<(Instant, Endpoint, HandshakeBytes)>,
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
        self.queue.push_back((now, from, bytes));
        if self.queue.len() >= LOAD {
            self.last_load = Some(now);
        }
        true
    }

    /// The message that has waited longest and is still worth an answer; `stale` is called for each that was not.
    pub(crate) fn pop(&mut self, now: Instant, mut stale: impl FnMut()) -> Option<(Endpoint, HandshakeBytes)> {
        let found = loop {
            match self.queue.pop_front() {
                Some((came, ..)) if now.saturating_since(came) >= STALE => stale(),
                found => break found,
            }
        };
        if self.queue.is_empty() {
            // Back to where the memory begins, so that in quiet times only its first page is ever touched.
            self.queue.clear();
        }
        found.map(|(_, from, bytes)| (from, bytes))
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
        while handshakes.pop(start, || ()).is_some() {}
        assert!(handshakes.under_load(start + Duration::from_millis(999)));
        assert!(!handshakes.under_load(start + Duration::from_secs(1)));
    }

    #[test]
    fn what_has_waited_too_long_is_dropped_unread() {
        let start = Instant::from_nanos(1 << 40);
        let mut handshakes = queue_of(10, start);
        let late = start + Duration::from_secs(3);
        let bytes = HandshakeBytes::new(&[1; 148]).unwrap();
        assert!(handshakes.push(late, Endpoint::new(([192, 0, 2, 2], 1).into()), bytes));
        assert!(handshakes.pop(late, || unreachable!()).is_some());
        let mut stale = 0;
        let (from, _) = handshakes.pop(start + Duration::from_secs(4), || stale += 1).unwrap();
        assert_eq!((from.addr.ip(), stale), ([192, 0, 2, 2].into(), 9));
        assert!(handshakes.is_empty());
    }

    #[test]
    fn the_queue_is_bounded_and_keeps_the_first() {
        let mut handshakes = queue_of(MAX + 10, Instant::from_nanos(1));
        let capacity = handshakes.queue.capacity();
        for port in 0..MAX {
            assert_eq!(handshakes.pop(Instant::from_nanos(1), || ()).unwrap().0.addr.port(), port as u16);
        }
        assert!(handshakes.pop(Instant::from_nanos(1), || ()).is_none() && handshakes.is_empty());
        assert_eq!(handshakes.queue.capacity(), capacity);
    }
}

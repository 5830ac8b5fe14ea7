//! Handshake messages that wait for the control thread.
//!
//! Bounded; what does not fit is dropped. How many wait is the measure of load: from [`LOAD`] on, and for a second after,
//! the protocol asks senders to prove that they receive at their address (whitepaper, section 5.3).

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
#[derive(Default)]
pub(crate) struct Handshakes {
    queue: VecDeque<(Endpoint, HandshakeBytes)>,
    last_load: Option<Instant>,
    /// Messages dropped because the queue was full.
    pub(crate) dropped: u64,
}

impl Handshakes {
    pub(crate) fn push(&mut self, now: Instant, from: Endpoint, bytes: HandshakeBytes) {
        if self.queue.len() == MAX {
            self.dropped += 1;
            return;
        }
        self.queue.push_back((from, bytes));
        if self.queue.len() >= LOAD {
            self.last_load = Some(now);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<(Endpoint, HandshakeBytes)> {
        self.queue.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether messages come faster than they are handled, now or within the last second.
    pub(crate) fn under_load(&self, now: Instant) -> bool {
        self.last_load.is_some_and(|last| now.saturating_since(last) < LOAD_HOLD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_begins_with_the_depth_and_lasts_a_second() {
        let mut handshakes = Handshakes::default();
        let from = Endpoint::new(([192, 0, 2, 1], 1).into());
        let bytes = HandshakeBytes::new(&[1; 148]).unwrap();
        let start = Instant::from_nanos(1 << 40);
        for _ in 0..LOAD - 1 {
            handshakes.push(start, from, bytes);
        }
        assert!(!handshakes.under_load(start));
        handshakes.push(start, from, bytes);
        assert!(handshakes.under_load(start));
        while handshakes.pop().is_some() {}
        assert!(handshakes.under_load(start + Duration::from_millis(999)));
        assert!(!handshakes.under_load(start + Duration::from_secs(1)));
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut handshakes = Handshakes::default();
        let from = Endpoint::new(([192, 0, 2, 1], 1).into());
        let bytes = HandshakeBytes::new(&[1; 148]).unwrap();
        for _ in 0..MAX + 10 {
            handshakes.push(Instant::from_nanos(1), from, bytes);
        }
        assert_eq!((handshakes.queue.len(), handshakes.dropped), (MAX, 10));
    }
}

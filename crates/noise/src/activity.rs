//! What a data plane reports of a peer, for the timers to read when they are due.
//!
//! Two of the protocol's timers start and stop with packets: the answer that we wait for after sending data
//! (a new handshake when none comes), and the answer that we owe after receiving data (a keepalive when we have
//! nothing else to say). Setting a timer for each packet would wake the control thread all the time, so the data
//! plane only notes *since when* each is pending, and the device looks at the notes when a deadline passes: if by then
//! nothing is pending, the deadline is dropped; if what is pending began later, it moves.
//!
//! `armed` says which of the two the device has a deadline for. Whoever makes something pending and finds its bit clear
//! sets it and tells the device. The device, before it forgets a deadline, clears the bit *and then looks again*. Both sides
//! write their own word before they read the other's, all sequentially consistent, so at least one of them sees the
//! other: no wakeup is lost, and one that is too many finds nothing to do.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::time::Instant;

/// We wait for an answer to data.
pub(crate) const AWAITING: u8 = 1;
/// We owe an answer to data.
pub(crate) const OWING: u8 = 2;

/// The time of the last packet is only written when it moved by so much, to keep a busy cache line quiet.
const GRAIN_NANOS: u64 = 1_000_000;

/// The notes of one peer. Zero stands for "never" and "nothing".
#[derive(Default)]
pub struct Activity {
    /// When data was first sent that nothing has come back after.
    awaiting_since: AtomicU64,
    /// When data was first received that nothing has been sent after.
    owing_since: AtomicU64,
    /// More data came while an answer was owed.
    owing_more: AtomicBool,
    /// When data was last sent.
    last_data_sent: AtomicU64,
    /// When anything authentic was last sent or received.
    last_traversal: AtomicU64,
    /// Which of AWAITING and OWING the device has deadlines for.
    armed: AtomicU8,
}

impl Activity {
    /// Data was sealed and handed to the network. Returns whether `Device::handle_activity` must be told.
    pub fn data_sent(&self, now: Instant) -> bool {
        let nanos = stamp(now);
        note(&self.last_data_sent, nanos);
        self.sent(nanos);
        begin(&self.awaiting_since, nanos) && self.arm(AWAITING)
    }

    /// An empty message was sealed and handed to the network. Returns whether `Device::handle_activity` must be told.
    pub fn keepalive_sent(&self, now: Instant) -> bool {
        self.sent(stamp(now));
        false
    }

    /// Data was received and authenticated. Returns whether `Device::handle_activity` must be told.
    pub fn data_received(&self, now: Instant) -> bool {
        let nanos = stamp(now);
        self.received(nanos);
        if begin(&self.owing_since, nanos) {
            return self.arm(OWING);
        }
        if !self.owing_more.load(Ordering::Relaxed) {
            self.owing_more.store(true, Ordering::Relaxed);
        }
        false
    }

    /// An empty message was received and authenticated. It wants no answer: two peers that answered each other's
    /// keepalives would never stop. Returns whether `Device::handle_activity` must be told.
    pub fn keepalive_received(&self, now: Instant) -> bool {
        self.received(stamp(now));
        false
    }

    /// A handshake message left for the peer.
    pub(crate) fn handshake_sent(&self, now: Instant) {
        self.sent(stamp(now));
    }

    /// A handshake message of the peer authenticated.
    pub(crate) fn handshake_received(&self, now: Instant) {
        self.received(stamp(now));
    }

    /// Since when data is unanswered by the peer.
    pub(crate) fn awaiting_since(&self) -> Option<Instant> {
        instant(self.awaiting_since.load(Ordering::SeqCst))
    }

    /// Since when data is unanswered by us.
    pub(crate) fn owing_since(&self) -> Option<Instant> {
        instant(self.owing_since.load(Ordering::SeqCst))
    }

    pub(crate) fn last_data_sent(&self) -> Option<Instant> {
        instant(self.last_data_sent.load(Ordering::Relaxed))
    }

    pub(crate) fn last_traversal(&self) -> Option<Instant> {
        instant(self.last_traversal.load(Ordering::Relaxed))
    }

    /// What was owed is being paid: whether more came meanwhile, which deserves a second keepalive later.
    pub(crate) fn settle(&self) -> bool {
        self.owing_since.store(0, Ordering::SeqCst);
        self.owing_more.swap(false, Ordering::Relaxed)
    }

    /// We no longer wait for an answer: a handshake is on its way instead.
    pub(crate) fn stop_awaiting(&self) {
        self.awaiting_since.store(0, Ordering::SeqCst);
    }

    /// The device has a deadline for `what`.
    pub(crate) fn set_armed(&self, what: u8) {
        self.armed.fetch_or(what, Ordering::SeqCst);
    }

    /// The device is about to forget its deadline for `what`; it looks again after this.
    pub(crate) fn disarm(&self, what: u8) {
        self.armed.fetch_and(!what, Ordering::SeqCst);
    }

    /// Nothing is pending, and no deadline exists: the device went down.
    pub(crate) fn reset(&self) {
        self.awaiting_since.store(0, Ordering::SeqCst);
        self.settle();
        self.armed.store(0, Ordering::SeqCst);
    }

    fn sent(&self, nanos: u64) {
        note(&self.last_traversal, nanos);
        if self.owing_since.load(Ordering::Relaxed) != 0 {
            self.settle();
        }
    }

    fn received(&self, nanos: u64) {
        note(&self.last_traversal, nanos);
        if self.awaiting_since.load(Ordering::Relaxed) != 0 {
            self.awaiting_since.store(0, Ordering::SeqCst);
        }
    }

    fn arm(&self, what: u8) -> bool {
        self.armed.load(Ordering::SeqCst) & what == 0 && self.armed.fetch_or(what, Ordering::SeqCst) & what == 0
    }
}

/// Makes `since` begin, if it has not; whether it did.
fn begin(since: &AtomicU64, nanos: u64) -> bool {
    since.load(Ordering::Relaxed) == 0 && since.compare_exchange(0, nanos, Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

fn note(last: &AtomicU64, nanos: u64) {
    if nanos >= last.load(Ordering::Relaxed).saturating_add(GRAIN_NANOS) {
        last.store(nanos, Ordering::Relaxed);
    }
}

/// Zero means never, so the instant of boot itself becomes one nanosecond later.
fn stamp(now: Instant) -> u64 {
    now.as_nanos().max(1)
}

fn instant(nanos: u64) -> Option<Instant> {
    (nanos != 0).then(|| Instant::from_nanos(nanos))
}

#[cfg(test)]
#[path = "activity/tests.rs"]
mod tests;

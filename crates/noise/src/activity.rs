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

use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::lent::{Lent, Memory};
use crate::time::Instant;

/// We wait for an answer to data.
pub(crate) const AWAITING: u32 = 1;
/// We owe an answer to data.
pub(crate) const OWING: u32 = 2;

/// The time of the last packet is only written when it moved by so much, to keep a busy cache line quiet.
const GRAIN_NANOS: u64 = 1_000_000;

/// The notes of one peer, in nanoseconds of CLOCK_BOOTTIME. Zero stands for "never" and "nothing". (`struct wl_notes` of the in-kernel data plane has
/// the same layout.)
#[repr(C)]
#[derive(Default)]
pub struct Notes {
    /// When data was first sent that nothing has come back after.
    awaiting_since: AtomicU64,
    /// When data was first received that nothing has been sent after.
    owing_since: AtomicU64,
    /// When data was last sent.
    last_data_sent: AtomicU64,
    /// When anything authentic was last sent or received.
    last_traversal: AtomicU64,
    /// 1: more data came while an answer was owed.
    owing_more: AtomicU32,
    /// Which of AWAITING and OWING the device has deadlines for.
    armed: AtomicU32,
}

impl Notes {
    /// Each field's name and offset in bytes, for whoever compares the layout with another's.
    pub const FIELDS: [(&'static str, usize); 6] = [
        ("awaiting_since", offset_of!(Self, awaiting_since)),
        ("owing_since", offset_of!(Self, owing_since)),
        ("last_data_sent", offset_of!(Self, last_data_sent)),
        ("last_traversal", offset_of!(Self, last_traversal)),
        ("owing_more", offset_of!(Self, owing_more)),
        ("armed", offset_of!(Self, armed)),
    ];
}

impl AsRef<Notes> for Notes {
    fn as_ref(&self) -> &Notes {
        self
    }
}

/// What the data plane reports of one peer, in memory of our own or lent.
#[derive(Default)]
pub struct Activity(Memory<Notes>);

impl Activity {
    /// In lent memory, as it is.
    pub(crate) fn lent(notes: Lent<Notes>) -> Self {
        Self(Memory::Lent(notes))
    }

    /// The lender's number of the notes, if they are lent.
    pub fn slot(&self) -> Option<u32> {
        match &self.0 {
            Memory::Own(_) => None,
            Memory::Lent(notes) => Some(notes.slot()),
        }
    }

    #[inline]
    fn notes(&self) -> &Notes {
        self.0.get()
    }

    /// Data was sealed and handed to the network. Returns whether `Device::handle_activity` must be told.
    pub fn data_sent(&self, now: Instant) -> bool {
        let nanos = stamp(now);
        note(&self.notes().last_data_sent, nanos);
        self.sent(nanos);
        begin(&self.notes().awaiting_since, nanos) && self.arm(AWAITING)
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
        if begin(&self.notes().owing_since, nanos) {
            return self.arm(OWING);
        }
        if self.notes().owing_more.load(Ordering::Relaxed) == 0 {
            self.notes().owing_more.store(1, Ordering::Relaxed);
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
        instant(self.notes().awaiting_since.load(Ordering::SeqCst))
    }

    /// Since when data is unanswered by us.
    pub(crate) fn owing_since(&self) -> Option<Instant> {
        instant(self.notes().owing_since.load(Ordering::SeqCst))
    }

    pub(crate) fn last_data_sent(&self) -> Option<Instant> {
        instant(self.notes().last_data_sent.load(Ordering::Relaxed))
    }

    pub(crate) fn last_traversal(&self) -> Option<Instant> {
        instant(self.notes().last_traversal.load(Ordering::Relaxed))
    }

    /// What was owed is being paid: whether more came meanwhile, which deserves a second keepalive later.
    pub(crate) fn settle(&self) -> bool {
        self.notes().owing_since.store(0, Ordering::SeqCst);
        self.notes().owing_more.swap(0, Ordering::Relaxed) != 0
    }

    /// We no longer wait for an answer: a handshake is on its way instead.
    pub(crate) fn stop_awaiting(&self) {
        self.notes().awaiting_since.store(0, Ordering::SeqCst);
    }

    /// The device has a deadline for `what`.
    pub(crate) fn set_armed(&self, what: u32) {
        self.notes().armed.fetch_or(what, Ordering::SeqCst);
    }

    /// The device is about to forget its deadline for `what`; it looks again after this.
    pub(crate) fn disarm(&self, what: u32) {
        self.notes().armed.fetch_and(!what, Ordering::SeqCst);
    }

    /// Nothing is pending, and no deadline exists: the device went down.
    pub(crate) fn reset(&self) {
        self.notes().awaiting_since.store(0, Ordering::SeqCst);
        self.settle();
        self.notes().armed.store(0, Ordering::SeqCst);
    }

    fn sent(&self, nanos: u64) {
        note(&self.notes().last_traversal, nanos);
        if self.notes().owing_since.load(Ordering::Relaxed) != 0 {
            self.settle();
        }
    }

    fn received(&self, nanos: u64) {
        note(&self.notes().last_traversal, nanos);
        if self.notes().awaiting_since.load(Ordering::Relaxed) != 0 {
            self.notes().awaiting_since.store(0, Ordering::SeqCst);
        }
    }

    fn arm(&self, what: u32) -> bool {
        self.notes().armed.load(Ordering::SeqCst) & what == 0
            && self.notes().armed.fetch_or(what, Ordering::SeqCst) & what == 0
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

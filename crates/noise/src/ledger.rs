//! What changes in a session while packets move, and what all who handle its packets must agree about.
//!
//! [`Facts`] are what every session has; a [`Ledger`] is a session's facts and a replay window that needs no lock, as they lie in memory that is
//! lent (`struct wl_ledger` of the in-kernel data plane has the same layout). Everything is atomic. A session without lent memory has its own
//! facts, and a window behind a lock ([`crate::ReplayWindow`]).

use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::index::ReceiverIndex;
use crate::time::Instant;

/// Words of a ledger's replay window, each for 32 counters: more than the window has, and a power of two.
pub(crate) const WINDOW_WORDS: usize = 512;

/// All of a session that changes, but for the replay window.
#[repr(C)]
#[derive(Default)]
pub(crate) struct Facts {
    /// The next counter to send with. Whoever takes one adds to it.
    pub next_counter: AtomicU64,
    /// One more than the greatest counter received; only grows.
    pub received_next: AtomicU64,
    /// Messages that were new.
    pub arrived: AtomicU64,
    /// When the keys were derived, nanoseconds of CLOCK_BOOTTIME.
    pub created: AtomicU64,
    /// The lender's: odd while the session lives.
    pub epoch: AtomicU32,
    /// 0: our private key changed.
    pub may_send: AtomicU32,
    /// 1: we are the responder, and nothing authentic has come yet. 2: who lent the memory has seen the first, and we have not heard of it.
    pub awaits_confirmation: AtomicU32,
    /// 1: we began the handshake.
    pub is_initiator: AtomicU32,
    pub rekey_asked_on_send: AtomicU32,
    pub rekey_asked_on_receive: AtomicU32,
    /// As they lie on the wire.
    pub local_index: AtomicU32,
    pub remote_index: AtomicU32,
    /// The lender's.
    pub peer: AtomicU32,
    pub reserved: [AtomicU32; 3],
}

/// What is noted when a session begins.
pub(crate) struct Beginning {
    pub created: Instant,
    pub is_initiator: bool,
    pub local_index: ReceiverIndex,
    pub remote_index: ReceiverIndex,
}

impl Facts {
    /// A new session's. What is the lender's stays.
    pub(crate) fn begin(&self, with: &Beginning) {
        for counter in [&self.next_counter, &self.received_next, &self.arrived] {
            counter.store(0, Ordering::Relaxed);
        }
        self.created.store(with.created.as_nanos(), Ordering::Relaxed);
        self.may_send.store(1, Ordering::Relaxed);
        self.awaits_confirmation.store(u32::from(!with.is_initiator), Ordering::Relaxed);
        self.is_initiator.store(u32::from(with.is_initiator), Ordering::Relaxed);
        self.let_rekey_be_asked();
        self.local_index.store(with.local_index.as_u32().to_le(), Ordering::Relaxed);
        self.remote_index.store(with.remote_index.as_u32().to_le(), Ordering::Release);
    }

    /// Whoever asked for a new session is gone, or nobody did.
    pub(crate) fn let_rekey_be_asked(&self) {
        self.rekey_asked_on_send.store(0, Ordering::Relaxed);
        self.rekey_asked_on_receive.store(0, Ordering::Relaxed);
    }

    /// What was noted when the session began.
    pub(crate) fn beginning(&self) -> Beginning {
        let index = |index: &AtomicU32| ReceiverIndex::from_u32(u32::from_le(index.load(Ordering::Relaxed)));
        Beginning {
            created: Instant::from_nanos(self.created.load(Ordering::Relaxed)),
            is_initiator: self.is_initiator.load(Ordering::Relaxed) != 0,
            local_index: index(&self.local_index),
            remote_index: index(&self.remote_index),
        }
    }
}

/// A session's books in lent memory. All zeros is a valid one, of no session.
#[repr(C)]
pub struct Ledger {
    pub(crate) facts: Facts,
    /// See [`crate::replay::shared`].
    pub(crate) window: [AtomicU64; WINDOW_WORDS],
}

impl Default for Ledger {
    fn default() -> Self {
        Self { facts: Facts::default(), window: [const { AtomicU64::new(0) }; WINDOW_WORDS] }
    }
}

impl Ledger {
    /// Each field's name and offset in bytes, for whoever compares the layout with another's.
    pub const FIELDS: [(&'static str, usize); 15] = [
        ("next_counter", offset_of!(Self, facts.next_counter)),
        ("received_next", offset_of!(Self, facts.received_next)),
        ("arrived", offset_of!(Self, facts.arrived)),
        ("created", offset_of!(Self, facts.created)),
        ("epoch", offset_of!(Self, facts.epoch)),
        ("may_send", offset_of!(Self, facts.may_send)),
        ("awaits_confirmation", offset_of!(Self, facts.awaits_confirmation)),
        ("is_initiator", offset_of!(Self, facts.is_initiator)),
        ("rekey_asked_on_send", offset_of!(Self, facts.rekey_asked_on_send)),
        ("rekey_asked_on_receive", offset_of!(Self, facts.rekey_asked_on_receive)),
        ("local_index", offset_of!(Self, facts.local_index)),
        ("remote_index", offset_of!(Self, facts.remote_index)),
        ("peer", offset_of!(Self, facts.peer)),
        ("reserved", offset_of!(Self, facts.reserved)),
        ("window", offset_of!(Self, window)),
    ];

    /// The lender's word for whether this is a session that lives (odd), to be changed by nobody else.
    pub fn epoch(&self) -> &AtomicU32 {
        &self.facts.epoch
    }

    /// The lender's number of the peer, likewise.
    pub fn peer(&self) -> &AtomicU32 {
        &self.facts.peer
    }

    /// The index in what we receive, as the wire has it: the bytes in memory are the bytes there.
    pub fn local_index(&self) -> u32 {
        self.facts.local_index.load(Ordering::Acquire)
    }

    /// When the keys were derived.
    pub fn created(&self) -> Instant {
        self.facts.beginning().created
    }

    /// The next counter to send with.
    pub fn next_counter(&self) -> u64 {
        self.facts.next_counter.load(Ordering::Acquire)
    }

    /// Makes it a new session's. What is the lender's stays.
    pub(crate) fn begin(&self, with: &Beginning) {
        for word in &self.window {
            word.store(0, Ordering::Relaxed);
        }
        self.facts.begin(with);
    }
}

impl AsRef<Ledger> for Ledger {
    fn as_ref(&self) -> &Ledger {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_the_programs() {
        let offsets = Ledger::FIELDS.map(|(_, offset)| offset);
        assert_eq!(offsets, [0, 8, 16, 24, 32, 36, 40, 44, 48, 52, 56, 60, 64, 68, 80]);
        assert_eq!((size_of::<Ledger>(), align_of::<Ledger>()), (80 + 8 * WINDOW_WORDS, 8));
    }
}

//! A session: two keys, two indices, and what may still be done with them.
//!
//! Shared between the device, which makes and retires it, and the data plane, which seals and opens with it; everything
//! that changes is atomic, but for the replay window behind its lock. If the data plane lends the memory for it, all of that but whether the session
//! was revoked lies there, and the window needs no lock: others may handle packets of the session too. A session begins able to receive. The
//! initiator's may send from the start; the responder's once [`Session::confirm`] has told that the initiator holds the
//! key (the device then makes it current). It stops sending when its counter reaches REJECT_AFTER_MESSAGES, when the
//! device's private key changes, and with everything else when REJECT_AFTER_TIME has passed or the device revokes it.
//!
//! A nonce is never used twice: [`Session::reserve`] hands out each counter once, by a compare-and-swap that cannot
//! pass the limit (a bare addition would wrap). How far apart the counters are that are reserved but not yet on their way is
//! bounded, since a receiver with a small window would drop what falls too far behind: counters come in blocks of half that
//! bound, and a block begins only when the one before the last is empty.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::index::{PeerId, ReceiverIndex};
use crate::key::{KEY_LEN, SharedSecret};
use crate::ledger::{Beginning, Facts, Ledger};
use crate::lent::Lent;
use crate::limits::{
    KEEPALIVE_TIMEOUT, MAX_OUTSTANDING, REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME, REKEY_TIMEOUT,
};
use crate::replay::{Replay, ReplayWindow, in_window};
use crate::time::Instant;

/// Counters of one block. Two blocks may have outstanding counters, so that these are at most [`MAX_OUTSTANDING`] apart.
pub const BLOCK: u64 = MAX_OUTSTANDING as u64 / 2;

/// The counters from `first` on, as numbers of them in its block and in the next.
fn parts(first: u64, n: u32) -> [(u64, u32); 2] {
    let block = first / BLOCK;
    let left = BLOCK - first % BLOCK;
    let own = u64::from(n).min(left) as u32;
    [(block, own), (block + 1, n - own)]
}

/// Why no counters could be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// The session is too old to send with, or was revoked.
    #[error("the session has expired")]
    Expired,
    /// Fewer counters are left under this key than were asked for.
    #[error("the session's counters are used up")]
    Exhausted,
    /// Too many reserved counters are still on their way; try again when some were released.
    #[error("too many reserved counters are outstanding")]
    Busy,
}

/// What a finished handshake hands over.
pub(crate) struct SessionParts<'a> {
    pub peer: PeerId,
    pub local_index: ReceiverIndex,
    pub remote_index: ReceiverIndex,
    pub created: Instant,
    pub is_initiator: bool,
    pub sending: &'a SharedSecret,
    pub receiving: &'a SharedSecret,
    /// Where the session's books are kept, if not in itself.
    pub ledger: Option<Lent<Ledger>>,
}

/// Transport keys agreed with a peer.
pub struct Session {
    peer: PeerId,
    local_index: ReceiverIndex,
    remote_index: ReceiverIndex,
    created: Instant,
    is_initiator: bool,
    sealing: aead::SealingKey,
    opening: aead::OpeningKey,
    /// Reserved and not yet released, of the even and the odd one of the two newest blocks.
    outstanding: [AtomicU32; 2],
    revoked: AtomicBool,
    books: Books,
}

/// Where what changes is kept.
#[allow(clippy::large_enum_variant)] // Nearly all are their own, and found without one more step.
enum Books {
    Own {
        facts: Facts,
        replay: Mutex<ReplayWindow>,
    },
    Lent {
        ledger: Lent<Ledger>,
        /// For the lender, who has to tell others.
        keys: Box<[SharedSecret; 2]>,
    },
}

impl Session {
    pub(crate) fn new(parts: SessionParts<'_>) -> Self {
        let SessionParts { created, is_initiator, local_index, remote_index, .. } = parts;
        let beginning = Beginning { created, is_initiator, local_index, remote_index };
        let (sending, receiving) = (parts.sending, parts.receiving);
        let books = match parts.ledger {
            Some(ledger) => {
                ledger.as_ref().begin(&beginning);
                Books::Lent { ledger, keys: Box::new([sending.clone(), receiving.clone()]) }
            }
            None => {
                let facts = Facts::default();
                facts.begin(&beginning);
                Books::Own { facts, replay: Mutex::new(ReplayWindow::new()) }
            }
        };
        Self::with(parts.peer, &beginning, [sending, receiving], books)
    }

    /// The session that a ledger tells of, as it was left.
    pub(crate) fn adopt(peer: PeerId, ledger: Lent<Ledger>, keys: [SharedSecret; 2]) -> Self {
        let facts = &ledger.as_ref().facts;
        let beginning = facts.beginning();
        // Whoever has asked for the next session is gone, and who was to hear that this one is confirmed.
        facts.let_rekey_be_asked();
        let _ = facts.awaits_confirmation.compare_exchange(2, 0, Ordering::AcqRel, Ordering::Relaxed);
        let [sending, receiving] = keys.clone();
        Self::with(peer, &beginning, [&sending, &receiving], Books::Lent { ledger, keys: Box::new(keys) })
    }

    fn with(peer: PeerId, beginning: &Beginning, [sending, receiving]: [&SharedSecret; 2], books: Books) -> Self {
        Self {
            peer,
            local_index: beginning.local_index,
            remote_index: beginning.remote_index,
            created: beginning.created,
            is_initiator: beginning.is_initiator,
            sealing: aead::SealingKey::new(sending.as_bytes()),
            opening: aead::OpeningKey::new(receiving.as_bytes()),
            outstanding: [AtomicU32::new(0), AtomicU32::new(0)],
            revoked: AtomicBool::new(false),
            books,
        }
    }

    #[inline]
    fn facts(&self) -> &Facts {
        match &self.books {
            Books::Own { facts, .. } => facts,
            Books::Lent { ledger, .. } => &ledger.as_ref().facts,
        }
    }

    /// The lent memory in which the books of this session are kept, if they are.
    pub fn ledger(&self) -> Option<&Lent<Ledger>> {
        match &self.books {
            Books::Own { .. } => None,
            Books::Lent { ledger, .. } => Some(ledger),
        }
    }

    /// The bytes of both keys, that for what we send first: of a session in lent memory, whose lender must pass them on. Whoever copies them has
    /// a secret to wipe.
    pub fn keys(&self) -> Option<(&[u8; KEY_LEN], &[u8; KEY_LEN])> {
        match &self.books {
            Books::Own { .. } => None,
            Books::Lent { keys, .. } => Some((keys[0].as_bytes(), keys[1].as_bytes())),
        }
    }

    /// Whose session this is.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The index in what we receive.
    pub fn local_index(&self) -> ReceiverIndex {
        self.local_index
    }

    /// The index to write into what we send.
    pub fn remote_index(&self) -> ReceiverIndex {
        self.remote_index
    }

    /// When the keys were derived.
    pub fn created(&self) -> Instant {
        self.created
    }

    /// Whether we began the handshake that led to this session.
    pub fn is_initiator(&self) -> bool {
        self.is_initiator
    }

    /// The key for what we send.
    pub fn sealing_key(&self) -> &aead::SealingKey {
        &self.sealing
    }

    /// The key for what we receive.
    pub fn opening_key(&self) -> &aead::OpeningKey {
        &self.opening
    }

    /// Reserves `n` consecutive counters, at most [`BLOCK`] of them, and returns the first. Each is used once or skipped, and
    /// [`Session::release`]d either way.
    ///
    /// # Errors
    /// See [`ReserveError`]; nothing is reserved then.
    pub fn reserve(&self, now: Instant, n: u32) -> Result<u64, ReserveError> {
        if !self.may_send(now) {
            return Err(ReserveError::Expired);
        }
        loop {
            let first = self.facts().next_counter.load(Ordering::Acquire);
            let end = first.checked_add(n.into()).filter(|&end| end <= REJECT_AFTER_MESSAGES);
            let end = end.ok_or(ReserveError::Exhausted)?;
            // Counted before they are taken, so that nobody passes them unseen.
            if !self.count_out(first, n) {
                return Err(ReserveError::Busy);
            }
            if self.facts().next_counter.compare_exchange(first, end, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Ok(first);
            }
            self.release(first, n);
        }
    }

    /// These `n` counters left, or were skipped: they are no longer outstanding.
    pub fn release(&self, first: u64, n: u32) {
        for (block, n) in parts(first, n).into_iter().filter(|part| part.1 > 0) {
            let before = self.outstanding(block).fetch_sub(n, Ordering::AcqRel);
            debug_assert!(before >= n, "more counters released than reserved");
        }
    }

    /// Counts `n` counters as outstanding; false, and nothing is counted, if the first of a block is among them and the block
    /// before the last is not empty yet.
    fn count_out(&self, first: u64, n: u32) -> bool {
        if u64::from(n) > BLOCK {
            return false;
        }
        let [own, next] = parts(first, n);
        let count = |(block, n): (u64, u32), begins: bool| {
            let before = self.outstanding(block).fetch_add(n, Ordering::AcqRel);
            let fits = !begins || before == 0;
            if !fits {
                self.outstanding(block).fetch_sub(n, Ordering::AcqRel);
            }
            fits
        };
        if !count(own, first.is_multiple_of(BLOCK)) {
            return false;
        }
        if next.1 > 0 && !count(next, true) {
            self.outstanding(own.0).fetch_sub(own.1, Ordering::AcqRel);
            return false;
        }
        true
    }

    fn outstanding(&self, block: u64) -> &AtomicU32 {
        &self.outstanding[(block % 2) as usize]
    }

    /// Whether it may still seal: not revoked, not closed by a change of our private key, young enough, counters left.
    pub fn may_send(&self, now: Instant) -> bool {
        self.may_receive(now)
            && self.facts().may_send.load(Ordering::Acquire) != 0
            && self.facts().next_counter.load(Ordering::Acquire) < REJECT_AFTER_MESSAGES
    }

    /// Whether it may still open: not revoked and younger than REJECT_AFTER_TIME.
    pub fn may_receive(&self, now: Instant) -> bool {
        !self.is_revoked() && self.age(now) < REJECT_AFTER_TIME
    }

    /// Whether the device has retired it. What was sealed or opened with it since must not leave.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// A cheap look without the lock: `false` says that the counter is too old or out of range, `true` promises nothing.
    pub fn looks_new(&self, counter: u64) -> bool {
        in_window(counter, self.facts().received_next.load(Ordering::Relaxed))
    }

    /// The replay window, locked unless it is in lent memory. Commit a counter only after its packet authenticated.
    #[inline]
    pub fn replay(&self) -> Replay<'_> {
        match &self.books {
            // A thread that panicked in between left at worst a counter unmarked whose packet went nowhere.
            Books::Own { facts, replay } => Replay::own(replay.lock().unwrap_or_else(PoisonError::into_inner), facts),
            Books::Lent { ledger, .. } => Replay::lent(ledger.as_ref()),
        }
    }

    /// To be called for each authentic batch. True exactly once, and only for the responder: the initiator has proved
    /// that it holds the keys, and the caller reports that with `Device::handle_session_confirmed`.
    pub fn confirm(&self) -> bool {
        let awaits = &self.facts().awaits_confirmation;
        awaits.load(Ordering::Relaxed) != 0 && awaits.swap(0, Ordering::AcqRel) != 0
    }

    /// Whether it is the responder's, and the initiator has not shown yet that it has the keys.
    pub fn awaits_confirmation(&self) -> bool {
        self.facts().awaits_confirmation.load(Ordering::Acquire) == 1
    }

    /// Whether it is one of those, and [`Session::confirm`] was not called yet: a program may have seen that the initiator has the keys.
    pub fn is_unconfirmed(&self) -> bool {
        self.facts().awaits_confirmation.load(Ordering::Acquire) != 0
    }

    /// After sending: whether a new session should be asked for. True once per session, when its counter has reached
    /// REKEY_AFTER_MESSAGES or, for the initiator, its age REKEY_AFTER_TIME.
    pub fn rekey_due_on_send(&self, now: Instant) -> bool {
        let due = self.facts().next_counter.load(Ordering::Relaxed) >= REKEY_AFTER_MESSAGES
            || (self.is_initiator && self.age(now) >= REKEY_AFTER_TIME);
        due && first_time(&self.facts().rekey_asked_on_send)
    }

    /// After receiving: whether a new session should be asked for. True once per session, for the initiator who only
    /// receives and would let the session run out (whitepaper 6.2: REJECT_AFTER_TIME − KEEPALIVE_TIMEOUT − REKEY_TIMEOUT).
    pub fn rekey_due_on_receive(&self, now: Instant) -> bool {
        let due = self.is_initiator && self.age(now) >= REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT;
        due && first_time(&self.facts().rekey_asked_on_receive)
    }

    /// No longer send: our private key changed, and the peer would not know us under the new one.
    pub(crate) fn close_sending(&self) {
        self.facts().may_send.store(0, Ordering::Release);
    }

    pub(crate) fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    fn age(&self, now: Instant) -> std::time::Duration {
        now.saturating_since(self.created)
    }
}

/// Sets the flag; whether it was not set before. Reads first, since nearly always it is.
fn first_time(flag: &AtomicU32) -> bool {
    flag.load(Ordering::Relaxed) == 0 && flag.swap(1, Ordering::AcqRel) == 0
}

#[cfg(test)]
#[path = "session/tests.rs"]
mod tests;

//! The replay window: which counters of a session have been seen.
//!
//! A ring bitmap in blocks of 64, as in RFC 6479, so that moving forward clears whole words and shifts nothing. It
//! has one block more than the window needs, because the newest block is only partly filled: all of the newest
//! [`REPLAY_WINDOW`] counters are told apart, whatever the alignment. [`ReplayWindow::commit`] asks and marks in one step; the caller holds the
//! session's lock and calls it only after the packet authenticated. Counters from REJECT_AFTER_MESSAGES on are never new.
//!
//! A session in lent memory has another one that means the same and needs no lock ([`shared`]). [`Replay`] is either.

pub(crate) mod shared;

use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use crate::ledger::{Facts, Ledger};
use crate::limits::{REJECT_AFTER_MESSAGES, REPLAY_WINDOW};

const BLOCK_BITS: u64 = u64::BITS as u64;
const BLOCKS: usize = (REPLAY_WINDOW / BLOCK_BITS) as usize + 1;

/// How many messages came, of those that were sent as far as can be told: a sender counts them one by one, so that a gap is a message that was
/// lost, or is late. What was lost behind the last that came is not known of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reception {
    /// Messages that came, each once.
    pub arrived: u64,
    /// Messages that were sent, up to the last that came.
    pub sent: u64,
}

impl std::ops::AddAssign for Reception {
    fn add_assign(&mut self, other: Self) {
        self.arrived += other.arrived;
        self.sent += other.sent;
    }
}

/// What has been received under one key.
pub struct ReplayWindow {
    blocks: [u64; BLOCKS],
    /// One more than the greatest counter seen.
    next: u64,
    /// Counters that were new.
    taken: u64,
}

impl ReplayWindow {
    /// A window that has seen nothing.
    pub(crate) fn new() -> Self {
        Self { blocks: [0; BLOCKS], next: 0, taken: 0 }
    }

    /// Whether `counter` is new; from now on it is not.
    pub fn commit(&mut self, counter: u64) -> bool {
        let next = self.next;
        if !in_window(counter, next) {
            return false;
        }
        let block = counter / BLOCK_BITS;
        if counter >= next {
            // The blocks between the newest so far and this one hold bits from a lap ago. Before the first counter
            // all are clear, and `next` being 0 stands for "block 0 is the newest".
            let newest = next.saturating_sub(1) / BLOCK_BITS;
            let steps = (block - newest).min(BLOCKS as u64);
            for step in 1..=steps {
                self.blocks[slot(newest + step)] = 0;
            }
            self.next = counter + 1;
        }
        let bit = 1 << (counter % BLOCK_BITS);
        let word = &mut self.blocks[slot(block)];
        let new = *word & bit == 0;
        *word |= bit;
        self.taken += u64::from(new);
        new
    }
}

/// The replay window of a session, for as long as a batch takes. Commit a counter only after its packet authenticated.
pub struct Replay<'a>(Marks<'a>);

enum Marks<'a> {
    /// Locked. What others want a cheap look at is written to the facts when it is let go.
    Own(MutexGuard<'a, ReplayWindow>, &'a Facts),
    Lent(&'a Ledger),
}

impl<'a> Replay<'a> {
    pub(crate) fn own(window: MutexGuard<'a, ReplayWindow>, facts: &'a Facts) -> Self {
        Self(Marks::Own(window, facts))
    }

    pub(crate) fn lent(ledger: &'a Ledger) -> Self {
        Self(Marks::Lent(ledger))
    }

    /// Whether `counter` is new; from now on it is not.
    #[inline]
    pub fn commit(&mut self, counter: u64) -> bool {
        match &mut self.0 {
            Marks::Own(window, _) => window.commit(counter),
            Marks::Lent(ledger) => shared::commit(ledger, counter),
        }
    }

    /// What has come so far, of what was sent.
    pub fn reception(&self) -> Reception {
        match &self.0 {
            Marks::Own(window, _) => Reception { arrived: window.taken, sent: window.next },
            Marks::Lent(Ledger { facts, .. }) => Reception {
                arrived: facts.arrived.load(Ordering::Relaxed),
                sent: facts.received_next.load(Ordering::Relaxed),
            },
        }
    }

    /// Whether no counter beyond this one has been seen.
    #[inline]
    pub fn is_newest(&self, counter: u64) -> bool {
        let next = match &self.0 {
            Marks::Own(window, _) => window.next,
            Marks::Lent(ledger) => ledger.facts.received_next.load(Ordering::Relaxed),
        };
        counter.saturating_add(1) >= next
    }
}

impl Drop for Replay<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Marks::Own(window, facts) = &self.0 {
            facts.received_next.store(window.next, Ordering::Relaxed);
        }
    }
}

/// Whether `counter` may still be new when everything seen is below `next`.
#[inline]
pub(crate) fn in_window(counter: u64, next: u64) -> bool {
    counter < REJECT_AFTER_MESSAGES && counter.saturating_add(REPLAY_WINDOW) >= next
}

fn slot(block: u64) -> usize {
    (block % BLOCKS as u64) as usize
}

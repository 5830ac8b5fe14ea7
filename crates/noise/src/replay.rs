//! The replay window: which counters of a session have been seen.
//!
//! A ring bitmap in blocks of 64, as in RFC 6479, so that moving forward clears whole words and shifts nothing. It
//! has one block more than the window needs, because the newest block is only partly filled: all of the newest
//! [`REPLAY_WINDOW`] counters are told apart, whatever the alignment. [`ReplayWindow::commit`] asks and marks in one step; the caller holds the
//! session's lock and calls it only after the packet authenticated. Counters from REJECT_AFTER_MESSAGES on are never new.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    /// One more than the greatest counter seen; written under the session's lock, read by anybody who only wants a
    /// cheap look.
    next: Arc<AtomicU64>,
    /// Counters that were new.
    taken: u64,
}

impl ReplayWindow {
    /// A window that has seen nothing. `next` is where it publishes how far it has come.
    pub(crate) fn new(next: Arc<AtomicU64>) -> Self {
        Self { blocks: [0; BLOCKS], next, taken: 0 }
    }

    /// Whether `counter` is new; from now on it is not.
    pub fn commit(&mut self, counter: u64) -> bool {
        let next = self.next.load(Ordering::Relaxed);
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
            self.next.store(counter + 1, Ordering::Relaxed);
        }
        let bit = 1 << (counter % BLOCK_BITS);
        let word = &mut self.blocks[slot(block)];
        let new = *word & bit == 0;
        *word |= bit;
        self.taken += u64::from(new);
        new
    }

    /// What has come so far, of what was sent.
    pub fn reception(&self) -> Reception {
        Reception { arrived: self.taken, sent: self.next.load(Ordering::Relaxed) }
    }

    /// Whether no counter beyond this one has been seen.
    pub fn is_newest(&self, counter: u64) -> bool {
        counter.saturating_add(1) >= self.next.load(Ordering::Relaxed)
    }
}

/// Whether `counter` may still be new when everything seen is below `next`.
pub(crate) fn in_window(counter: u64, next: u64) -> bool {
    counter < REJECT_AFTER_MESSAGES && counter.saturating_add(REPLAY_WINDOW) >= next
}

fn slot(block: u64) -> usize {
    (block % BLOCKS as u64) as usize
}

//! A replay window in memory that several sides change at once, none of which can lock the others out.
//!
//! A ring of words, each for 32 counters: word `(counter / 32) % 512` has a bit for each in its lower half, and says in the upper whose they are, by
//! a tag: the low 32 bits of `counter / 32`, plus one. A word with another tag is left over from laps ago: it is replaced together with its tag,
//! and nothing has to be cleared in between. A compare-and-swap of one word commits a counter, so it is accepted once, whoever tries.
//!
//! The order makes it so that what is left over is never newer than what it is taken for: whoever commits a counter first makes `received_next`
//! pass it, then marks; and looks whether the counter is still inside the window *after* it has read the word. Who finds the mark of a counter that
//! is a lap ahead, 16384, finds `received_next` ahead too, and refuses. A word that was never touched is all zeros and has no bits, so it does not
//! matter what its tag is taken for. Tags repeat after 2^37 counters, more than any session lives to see; a counter that far from another one would
//! be refused at worst.

use std::sync::atomic::Ordering;

use super::in_window;
use crate::ledger::{Ledger, WINDOW_WORDS, WORD_COUNTERS};

/// Whether `counter` is new; from now on it is not.
pub(super) fn commit(ledger: &Ledger, counter: u64) -> bool {
    let next = &ledger.facts.received_next;
    let seen = next.load(Ordering::Relaxed);
    if !in_window(counter, seen) {
        return false;
    }
    if counter >= seen {
        next.fetch_max(counter + 1, Ordering::AcqRel);
    }
    let group = counter / WORD_COUNTERS;
    let tag = (group as u32).wrapping_add(1);
    let bit = 1u32 << (counter % WORD_COUNTERS);
    let word = &ledger.window[(group % WINDOW_WORDS as u64) as usize];
    let mut found = word.load(Ordering::Acquire);
    loop {
        if !in_window(counter, next.load(Ordering::Acquire)) {
            return false;
        }
        let marks = if (found >> 32) as u32 == tag { found as u32 } else { 0 };
        if marks & bit != 0 {
            return false;
        }
        let marked = u64::from(tag) << 32 | u64::from(marks | bit);
        match word.compare_exchange(found, marked, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => break,
            Err(now) => found = now,
        }
    }
    ledger.facts.arrived.fetch_add(1, Ordering::Relaxed);
    true
}

#[cfg(test)]
#[path = "shared/tests.rs"]
mod tests;

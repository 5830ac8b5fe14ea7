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

mod word;

use std::sync::atomic::{AtomicU64, Ordering};

use super::in_window;
use crate::ledger::{Ledger, WINDOW_WORDS};

/// Whether `counter` is new; from now on it is not.
pub(super) fn commit(ledger: &Ledger, counter: u64) -> bool {
    let word = &ledger.window[(counter / word::COUNTERS % WINDOW_WORDS as u64) as usize];
    let new = word::commit(&ledger.facts.received_next, word, counter);
    if new {
        ledger.facts.arrived.fetch_add(1, Ordering::Relaxed);
    }
    new
}

#[cfg(test)]
#[path = "shared/tests.rs"]
mod tests;

//! One word of the window, and the counter that all of them go by: everything that is done to either.
//!
//! What it stands on is its parent's, so that `crates/plane/tests/loom_replay.rs` can put loom's atomics under it and try all interleavings.

use super::{AtomicU64, Ordering, in_window};

/// Counters of one word.
pub(super) const COUNTERS: u64 = 32;

/// Whether `counter`, whose word is `word`, is new; from now on it is not. `next` is one more than the greatest that was seen.
pub(super) fn commit(next: &AtomicU64, word: &AtomicU64, counter: u64) -> bool {
    let seen = next.load(Ordering::Relaxed);
    if !in_window(counter, seen) {
        return false;
    }
    if counter >= seen {
        next.fetch_max(counter + 1, Ordering::AcqRel);
    }
    let tag = ((counter / COUNTERS) as u32).wrapping_add(1);
    let bit = 1u32 << (counter % COUNTERS);
    let mut found = word.load(Ordering::Acquire);
    loop {
        // After the word was read: whoever marked it for a later lap had made `next` pass that.
        if !in_window(counter, next.load(Ordering::Acquire)) {
            return false;
        }
        let marks = if (found >> 32) as u32 == tag { found as u32 } else { 0 };
        if marks & bit != 0 {
            return false;
        }
        let marked = u64::from(tag) << 32 | u64::from(marks | bit);
        match word.compare_exchange(found, marked, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return true,
            Err(now) => found = now,
        }
    }
}

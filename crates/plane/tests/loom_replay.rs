//! A word of the replay window that several sides share, in every order of their steps: a counter is new once, and a mark stays.

#![cfg(feature = "loom")]

#[path = "../../noise/src/replay/shared/word.rs"]
mod word;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use noise::limits::{REJECT_AFTER_MESSAGES, REPLAY_WINDOW};

/// As far apart are counters that have the same word and the same bit in it.
const LAP: u64 = 512 * word::COUNTERS;

/// As `noise` has it.
fn in_window(counter: u64, next: u64) -> bool {
    counter < REJECT_AFTER_MESSAGES && counter.saturating_add(REPLAY_WINDOW) >= next
}

/// `received_next` and the word.
type Shared = Arc<(AtomicU64, AtomicU64)>;

fn commit(shared: &Shared, counter: u64) -> bool {
    word::commit(&shared.0, &shared.1, counter)
}

/// Two threads commit the counters that each is given, after `before` were committed. What each found new.
fn both<const A: usize, const B: usize>(
    before: &[u64],
    first: [u64; A],
    second: [u64; B],
) -> (Shared, [bool; A], [bool; B]) {
    let shared: Shared = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    assert!(before.iter().all(|&counter| commit(&shared, counter)));
    let other = {
        let shared = shared.clone();
        loom::thread::spawn(move || first.map(|counter| commit(&shared, counter)))
    };
    let here = second.map(|counter| commit(&shared, counter));
    let there = other.join().unwrap();
    (shared, there, here)
}

#[test]
fn one_of_two_gets_each_counter() {
    loom::model(|| {
        let (shared, first, second) = both(&[], [5, 7], [7, 5]);
        assert!(first[0] != second[1] && first[1] != second[0]);
        assert!(!commit(&shared, 5) && !commit(&shared, 7) && commit(&shared, 6));
    });
}

#[test]
fn what_was_taken_a_lap_ago_is_not_taken_again_while_the_window_moves() {
    loom::model(|| {
        let (shared, again, ahead) = both(&[5], [5, 6], [LAP + 5]);
        assert!(!again[0] && ahead[0], "6 may be new, if it was in time");
        assert!(!commit(&shared, LAP + 5), "its mark was undone");
        assert!(!commit(&shared, 5) && !commit(&shared, 6) && commit(&shared, LAP + 6));
        assert_eq!(shared.0.load(Ordering::Relaxed), LAP + 7);
    });
}

#[test]
fn two_laps_at_once_leave_the_later_one() {
    loom::model(|| {
        let (shared, _, later) = both(&[1], [LAP + 5], [2 * LAP + 5, 2 * LAP + 5]);
        assert_eq!(later, [true, false]);
        assert!(!commit(&shared, 2 * LAP + 5) && !commit(&shared, LAP + 5));
    });
}

//! That many hands accept each counter once, and that the window means what the locked one does.

use std::collections::HashSet;
use std::sync::Barrier;

use proptest::prelude::*;

use super::*;
use crate::limits::{REJECT_AFTER_MESSAGES, REPLAY_WINDOW};
use crate::replay::ReplayWindow;

/// Steps forward, back and about, by laps of the ring too.
fn counter(kind: u8, step: u64, base: &mut u64) -> u64 {
    match kind {
        0 => {
            *base = base.saturating_add(step);
            *base
        }
        1 => base.saturating_add(step % 70),
        2 => (*base / 32 * 32).saturating_add(32 * (step % 3)),
        // Laps of the ring exactly, and one word beside.
        3 => base.saturating_add(32 * 512 * (step % 3) + step % 2 * 32),
        _ => base.saturating_sub(step),
    }
}

proptest! {
    #[test]
    fn it_agrees_with_the_locked_one(
        start in prop_oneof![Just(0), Just(1 << 36), Just((1 << 37) - 3000), Just(REJECT_AFTER_MESSAGES - 30_000)],
        steps in proptest::collection::vec((0u8..5, 0u64..20_000), 1..300),
    ) {
        let (ledger, mut window, mut base) = (Ledger::default(), ReplayWindow::new(), start);
        for (kind, step) in steps {
            let counter = counter(kind, step, &mut base);
            prop_assert_eq!(commit(&ledger, counter), window.commit(counter), "{}", counter);
        }
        let told = crate::Replay::lent(&ledger).reception();
        prop_assert_eq!((told.arrived, told.sent), (window.taken, window.next));
    }
}

#[test]
fn one_of_many_gets_each_counter() {
    const THREADS: u64 = 4;
    const COUNTERS: u64 = 100_000;
    let (ledger, barrier) = (Ledger::default(), Barrier::new(THREADS as usize));
    let accepted: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (ledger, barrier) = (&ledger, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let mut accepted = Vec::new();
                    for step in 0..COUNTERS {
                        // All of them try each counter, in orders of their own, and what has gone out of the window again.
                        let shuffled = step ^ (thread * 5);
                        let tries = [shuffled, shuffled.saturating_sub(REPLAY_WINDOW / 2), step / 2];
                        accepted.extend(tries.into_iter().filter(|&counter| commit(ledger, counter)));
                        // On few cores they would go one after the other.
                        if step % 97 == thread {
                            std::thread::yield_now();
                        }
                    }
                    accepted
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let all: Vec<u64> = accepted.into_iter().flatten().collect();
    let different: HashSet<u64> = all.iter().copied().collect();
    assert_eq!(different.len(), all.len(), "a counter was accepted twice");
    assert!(all.len() as u64 > COUNTERS / 2, "{} of {COUNTERS}", all.len());
    assert_eq!(ledger.facts.arrived.load(Ordering::Relaxed), all.len() as u64);
}

#[test]
fn what_is_left_over_of_a_lap_is_neither_taken_for_new_nor_in_its_way() {
    let ledger = Ledger::default();
    let lap = word::COUNTERS * WINDOW_WORDS as u64;
    assert!(commit(&ledger, 5) && commit(&ledger, lap + 6));
    assert!(!commit(&ledger, 5) && !commit(&ledger, 6), "behind the window");
    assert!(commit(&ledger, lap + 5), "though the word had that bit a lap ago");
    assert!(!commit(&ledger, lap + 5));
}

#[test]
fn a_mark_a_lap_ahead_is_never_undone() {
    // As another leaves it that has marked a counter, before anybody looks again.
    let ledger = Ledger::default();
    let ahead = word::COUNTERS * WINDOW_WORDS as u64 + 40;
    assert!(commit(&ledger, 40) && commit(&ledger, ahead));
    let before = ledger.window[1].load(Ordering::Relaxed);
    assert!(!commit(&ledger, 40) && !commit(&ledger, 41));
    assert_eq!(ledger.window[1].load(Ordering::Relaxed), before);
}

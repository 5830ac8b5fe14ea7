//! Counters, lifetimes and the replay window of one session.

use std::time::Duration;

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::limits::REPLAY_WINDOW;

const SEC: Duration = Duration::from_secs(1);

fn start() -> Instant {
    Instant::from_nanos(5_000_000_000)
}

fn session(is_initiator: bool) -> Session {
    with(is_initiator, None)
}

/// With its books in lent memory.
fn lent(is_initiator: bool) -> Session {
    with(is_initiator, Some(Lent::new(7, Box::new(Ledger::default()))))
}

fn with(is_initiator: bool, ledger: Option<Lent<Ledger>>) -> Session {
    let key = |n| SharedSecret::new(Zeroizing::new([n; 32]));
    Session::new(SessionParts {
        peer: PeerId::from_u32(1),
        local_index: ReceiverIndex::from_u32(2),
        remote_index: ReceiverIndex::from_u32(3),
        created: start(),
        is_initiator,
        sending: &key(1),
        receiving: &key(2),
        ledger,
    })
}

#[test]
fn counters_are_consecutive_and_bounded_while_under_way() {
    let session = session(true);
    assert_eq!(session.reserve(start(), 1), Ok(0));
    assert_eq!(session.reserve(start(), 45), Ok(1));
    assert_eq!(session.reserve(start(), 448), Ok(46), "the second block has begun");
    assert_eq!(session.reserve(start(), 402), Ok(494), "896 are under way now");
    assert_eq!(session.reserve(start(), 1), Err(ReserveError::Busy));
    session.release(1, 45);
    assert_eq!(session.reserve(start(), 1), Err(ReserveError::Busy), "the very first is still under way");
    session.release(46, 448);
    session.release(494, 402);
    assert_eq!(session.reserve(start(), 1), Err(ReserveError::Busy), "however many others have left");
    session.release(0, 1);
    assert_eq!(session.reserve(start(), 448), Ok(896));
    assert_eq!(session.reserve(start(), u32::MAX), Err(ReserveError::Busy));
}

#[test]
fn what_is_under_way_is_never_far_apart() {
    let session = session(true);
    let held = std::sync::Mutex::new(std::collections::BTreeSet::new());
    std::thread::scope(|scope| {
        for thread in 0..3u32 {
            let (session, held) = (&session, &held);
            scope.spawn(move || {
                for round in 0..3000u32 {
                    let n = 1 + (round * 7 + thread * 13) % 64;
                    let Ok(first) = session.reserve(start(), n) else {
                        std::thread::yield_now();
                        continue;
                    };
                    let last = first + u64::from(n) - 1;
                    {
                        let mut held = held.lock().unwrap();
                        held.extend([first, last]);
                        let span = held.last().unwrap() - held.first().unwrap();
                        assert!(span < u64::from(MAX_OUTSTANDING), "{span} apart");
                    }
                    if round % 5 == 0 {
                        std::thread::yield_now();
                    }
                    // Out of the books first: whoever reserves next must not find it there.
                    held.lock().unwrap().retain(|counter| !(first..=last).contains(counter));
                    session.release(first, n);
                }
            });
        }
    });
    assert!(session.outstanding.iter().all(|outstanding| outstanding.load(Ordering::Relaxed) == 0));
}

#[test]
fn counters_pass_32_bits() {
    let session = session(true);
    session.facts().next_counter.store(u32::MAX.into(), Ordering::Relaxed);
    assert_eq!(session.reserve(start(), 2), Ok(0xffff_ffff));
    assert_eq!(session.reserve(start(), 1), Ok(0x1_0000_0001));
}

#[test]
fn reject_after_messages_is_never_passed() {
    let session = session(true);
    session.facts().next_counter.store(REJECT_AFTER_MESSAGES - 3, Ordering::Relaxed);
    assert_eq!(session.reserve(start(), 4), Err(ReserveError::Exhausted));
    assert_eq!(session.reserve(start(), 3), Ok(REJECT_AFTER_MESSAGES - 3));
    session.release(REJECT_AFTER_MESSAGES - 3, 3);
    for _ in 0..1000 {
        assert!(session.reserve(start(), 1).is_err());
    }
    assert!(!session.may_send(start()));
    assert!(session.may_receive(start()));
    let outstanding: u32 = session.outstanding.iter().map(|outstanding| outstanding.load(Ordering::Relaxed)).sum();
    assert_eq!(outstanding, 0, "what was refused is not under way");
}

#[test]
fn no_two_threads_get_one_counter() {
    let session = session(true);
    let taken = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut taken = Vec::new();
                    for n in (1..6).cycle().take(2000) {
                        if let Ok(first) = session.reserve(start(), n) {
                            taken.extend(first..first + u64::from(n));
                            session.release(first, n);
                        }
                    }
                    taken
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let different: std::collections::BTreeSet<_> = taken.iter().collect();
    assert_eq!(different.len(), taken.len());
}

#[test]
fn a_session_dies_of_age_and_of_being_revoked() {
    let session = session(true);
    let last = start() + Duration::from_nanos(179_999_999_999);
    assert!(session.may_receive(last) && session.reserve(last, 1).is_ok());
    assert!(!session.may_receive(start() + 180 * SEC));
    assert_eq!(session.reserve(start() + 180 * SEC, 1), Err(ReserveError::Expired));
    session.close_sending();
    assert!(session.may_receive(last));
    assert_eq!(session.reserve(last, 1), Err(ReserveError::Expired));
    session.revoke();
    assert!(session.is_revoked() && !session.may_receive(start()));
}

#[test]
fn a_new_session_is_asked_for_once_for_each_reason() {
    let initiator = session(true);
    assert!(!initiator.rekey_due_on_send(start() + 119 * SEC));
    assert!(initiator.rekey_due_on_send(start() + 120 * SEC));
    assert!(!initiator.rekey_due_on_send(start() + 121 * SEC));
    assert!(!initiator.rekey_due_on_receive(start() + 164 * SEC));
    assert!(initiator.rekey_due_on_receive(start() + 165 * SEC));
    assert!(!initiator.rekey_due_on_receive(start() + 166 * SEC));

    let responder = session(false);
    assert!(!responder.rekey_due_on_send(start() + 179 * SEC), "the initiator sees to it");
    assert!(!responder.rekey_due_on_receive(start() + 179 * SEC));
    responder.facts().next_counter.store(REKEY_AFTER_MESSAGES, Ordering::Relaxed);
    assert!(responder.rekey_due_on_send(start()), "but not to how much the responder sent");
    assert!(!responder.rekey_due_on_send(start()));
}

#[test]
fn the_responder_confirms_once_and_the_initiator_never() {
    assert!(!session(true).confirm());
    let responder = session(false);
    assert!(responder.confirm());
    assert!(!responder.confirm());
}

/// Commits each counter and compares with what is expected.
fn commit(cases: &[(u64, bool)]) {
    let session = session(true);
    for (n, &(counter, new)) in cases.iter().enumerate() {
        assert!(!new || session.looks_new(counter), "case {n}: {counter} does not even look new");
        assert_eq!(session.replay().commit(counter), new, "case {n}: {counter}");
    }
}

#[test]
fn the_window_as_the_kernel_tests_it() {
    const LIMIT: u64 = REPLAY_WINDOW;
    commit(&[
        (0, true),
        (1, true),
        (1, false),
        (9, true),
        (8, true),
        (7, true),
        (7, false),
        (LIMIT, true),
        (LIMIT - 1, true),
        (LIMIT - 1, false),
        (LIMIT - 2, true),
        (2, true),
        (2, false),
        (LIMIT + 16, true),
        (3, false),
        (LIMIT + 16, false),
        (LIMIT * 4, true),
        (LIMIT * 4 - (LIMIT - 1), true),
        (10, false),
        (LIMIT * 4 - LIMIT, false),
        (LIMIT * 4 - (LIMIT + 1), false),
        (LIMIT * 4 - (LIMIT - 2), true),
        (LIMIT * 4 + 1 - LIMIT, false),
        (0, false),
        (REJECT_AFTER_MESSAGES, false),
        (REJECT_AFTER_MESSAGES - 1, true),
        (REJECT_AFTER_MESSAGES, false),
        (REJECT_AFTER_MESSAGES - 1, false),
        (REJECT_AFTER_MESSAGES - 2, true),
        (REJECT_AFTER_MESSAGES + 1, false),
        (REJECT_AFTER_MESSAGES + 2, false),
        (REJECT_AFTER_MESSAGES - 2, false),
        (REJECT_AFTER_MESSAGES - 3, true),
        (u64::MAX, false),
        (0, false),
    ]);
}

#[test]
fn all_of_8192_are_told_apart_at_any_alignment() {
    for newest in (REPLAY_WINDOW - 1..REPLAY_WINDOW + 130).chain([1 << 33, (1 << 33) + 63]) {
        let oldest = newest - (REPLAY_WINDOW - 1);
        let mut cases = vec![(newest, true), (oldest, true), (oldest, false)];
        if oldest > 0 {
            cases.push((oldest - 1, false));
        }
        commit(&cases);
    }
    let backwards: Vec<_> = (1..=REPLAY_WINDOW).rev().map(|counter| (counter, true)).collect();
    commit(&backwards);
    commit(&[backwards, vec![(0, false)]].concat());
}

proptest! {
    #[test]
    fn the_window_agrees_with_a_set(steps in proptest::collection::vec((0u64..3, 0u64..20_000), 1..300)) {
        let session = session(true);
        let mut seen = std::collections::HashSet::new();
        let mut newest: Option<u64> = None;
        let mut base = 0;
        for (kind, step) in steps {
            let counter = match kind {
                0 => { base += step; base }
                1 => base + step % 70,
                _ => base.saturating_sub(step),
            };
            let fits = newest.is_none_or(|newest| counter + REPLAY_WINDOW > newest);
            prop_assert_eq!(session.looks_new(counter), fits);
            prop_assert_eq!(session.replay().commit(counter), fits && seen.insert(counter));
            if fits {
                newest = newest.max(Some(counter));
            }
            let told = session.replay().reception();
            prop_assert_eq!((told.arrived, told.sent), (seen.len() as u64, newest.map_or(0, |newest| newest + 1)));
        }
    }
}

#[test]
fn long_runs_in_either_direction_as_the_kernel_tests_them() {
    const LIMIT: u64 = REPLAY_WINDOW;
    let forward = |from: u64, to: u64| -> Vec<(u64, bool)> { (from..=to).map(|counter| (counter, true)).collect() };
    let back = |from: u64, to: u64| -> Vec<(u64, bool)> { (to..=from).rev().map(|counter| (counter, true)).collect() };
    // The last of a full window is still new, once; one more pushes it out.
    commit(&[forward(1, LIMIT - 1), vec![(0, true), (0, false)]].concat());
    commit(&[forward(2, LIMIT), vec![(1, true), (0, false)]].concat());
    commit(&back(LIMIT - 1, 0));
    commit(&[back(LIMIT, 1), vec![(0, false)]].concat());
    commit(&[back(LIMIT - 1, 1), vec![(LIMIT, true), (0, false)]].concat());
    commit(&[back(LIMIT - 1, 1), vec![(0, true), (LIMIT, true)]].concat());
    // A jump over the whole ring leaves nothing of the lap before.
    commit(&[forward(0, LIMIT), vec![(LIMIT * 3, true)], forward(LIMIT * 2 + 1, LIMIT * 3 - 1)].concat());
}

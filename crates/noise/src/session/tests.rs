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

/// With its books in lent memory, where another session left something.
fn lent(is_initiator: bool) -> Session {
    let former = Ledger::default();
    former.window[3].store(u64::MAX, Ordering::Relaxed);
    for counter in [&former.facts.next_counter, &former.facts.received_next, &former.facts.arrived] {
        counter.store(99, Ordering::Relaxed);
    }
    let flags = [&former.facts.rekey_asked_on_send, &former.facts.rekey_asked_on_receive, &former.facts.epoch];
    for flag in flags {
        flag.store(1, Ordering::Relaxed);
    }
    with(is_initiator, Some(Lent::new(7, Box::new(former))))
}

fn both(is_initiator: bool) -> [Session; 2] {
    [session(is_initiator), lent(is_initiator)]
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
    for session in both(true) {
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
}

#[test]
fn what_is_under_way_is_never_far_apart() {
    for session in both(true) {
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
}

#[test]
fn counters_pass_32_bits() {
    for session in both(true) {
        session.facts().next_counter.store(u32::MAX.into(), Ordering::Relaxed);
        assert_eq!(session.reserve(start(), 2), Ok(0xffff_ffff));
        assert_eq!(session.reserve(start(), 1), Ok(0x1_0000_0001));
    }
}

#[test]
fn reject_after_messages_is_never_passed() {
    for session in both(true) {
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
}

#[test]
fn no_two_threads_get_one_counter() {
    for session in both(true) {
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
}

/// Programs in the kernel only add, one at a time, and count nothing as outstanding.
#[test]
fn who_only_adds_gets_no_counter_of_anybodys() {
    let session = lent(true);
    let done = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        let (session, done) = (&session, &done);
        let workers = (0..2).map(|_| {
            scope.spawn(move || {
                let mut taken = Vec::new();
                for n in (1..100).cycle().take(5000) {
                    match session.reserve(start(), n) {
                        Ok(first) => {
                            taken.extend(first..first + u64::from(n));
                            session.release(first, n);
                        }
                        Err(error) => assert_eq!(error, ReserveError::Busy),
                    }
                }
                done.store(true, Ordering::Relaxed);
                taken
            })
        });
        let workers: Vec<_> = workers.collect();
        let mut taken = Vec::new();
        while !done.load(Ordering::Relaxed) && taken.len() < 5_000_000 {
            taken.push(session.facts().next_counter.fetch_add(1, Ordering::AcqRel));
        }
        taken.extend(workers.into_iter().flat_map(|worker| worker.join().unwrap()));
        taken
    });
    let different: std::collections::HashSet<_> = taken.iter().collect();
    assert_eq!(different.len(), taken.len());
    assert!(session.outstanding.iter().all(|outstanding| outstanding.load(Ordering::Relaxed) == 0));
    // Beyond the limit they only make it more, and nobody gets any.
    session.facts().next_counter.store(REJECT_AFTER_MESSAGES + 20, Ordering::Relaxed);
    assert_eq!(session.reserve(start(), 1), Err(ReserveError::Expired));
}

#[test]
fn a_session_dies_of_age_and_of_being_revoked() {
    for session in both(true) {
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
}

#[test]
fn a_new_session_is_asked_for_once_for_each_reason() {
    for [initiator, responder] in [session, lent].map(|make: fn(bool) -> Session| [true, false].map(make)) {
        assert!(!initiator.rekey_due_on_send(start() + 119 * SEC));
        assert!(initiator.rekey_due_on_send(start() + 120 * SEC));
        assert!(!initiator.rekey_due_on_send(start() + 121 * SEC));
        assert!(!initiator.rekey_due_on_receive(start() + 164 * SEC));
        assert!(initiator.rekey_due_on_receive(start() + 165 * SEC));
        assert!(!initiator.rekey_due_on_receive(start() + 166 * SEC));
        assert!(!responder.rekey_due_on_send(start() + 179 * SEC), "the initiator sees to it");
        assert!(!responder.rekey_due_on_receive(start() + 179 * SEC));
        responder.facts().next_counter.store(REKEY_AFTER_MESSAGES, Ordering::Relaxed);
        assert!(responder.rekey_due_on_send(start()), "but not to how much the responder sent");
        assert!(!responder.rekey_due_on_send(start()));
    }
}

#[test]
fn the_responder_confirms_once_and_the_initiator_never() {
    assert!(both(true).iter().all(|initiator| !initiator.confirm()));
    for responder in both(false) {
        assert!(responder.awaits_confirmation() && responder.confirm());
        assert!(!responder.confirm() && !responder.awaits_confirmation());
        // What a program has seen is heard of once.
        responder.facts().awaits_confirmation.store(2, Ordering::Relaxed);
        assert!(!responder.awaits_confirmation() && responder.confirm() && !responder.confirm());
    }
}

/// Commits each counter and compares with what is expected.
fn commit(cases: &[(u64, bool)]) {
    for session in both(true) {
        for (n, &(counter, new)) in cases.iter().enumerate() {
            assert!(!new || session.looks_new(counter), "case {n}: {counter} does not even look new");
            assert_eq!(session.replay().commit(counter), new, "case {n}: {counter}");
        }
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
    fn the_window_agrees_with_a_set(
        is_lent in any::<bool>(),
        steps in proptest::collection::vec((0u64..3, 0u64..20_000), 1..300),
    ) {
        let session = if is_lent { lent(true) } else { session(true) };
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

#[test]
fn a_lent_session_tells_its_lender_what_it_needs_and_leaves_it_what_is_its_own() {
    let session = lent(false);
    let ledger = session.ledger().unwrap();
    assert_eq!((ledger.slot(), ledger.as_ref().epoch().load(Ordering::Relaxed)), (7, 1));
    assert_eq!(session.keys(), Some((&[1; 32], &[2; 32])));
    let facts = &ledger.as_ref().facts;
    let told = [&facts.may_send, &facts.awaits_confirmation, &facts.is_initiator, &facts.remote_index];
    assert_eq!(told.map(|fact| fact.load(Ordering::Relaxed)), [1, 1, 0, 3u32.to_le()]);
    assert_eq!((ledger.as_ref().local_index(), ledger.as_ref().created()), (2u32.to_le(), start()));
    session.revoke();
    assert_eq!(facts.epoch.load(Ordering::Relaxed) + facts.may_send.load(Ordering::Relaxed), 2, "the lender ends it");
    session.close_sending();
    assert_eq!(facts.may_send.load(Ordering::Relaxed), 0);
    assert!(super::tests::session(true).keys().is_none() && super::tests::session(true).ledger().is_none());
}

#[test]
fn two_that_take_up_a_ledger_agree_about_everything() {
    let ledger = std::sync::Arc::new(Ledger::default());
    struct Shared(std::sync::Arc<Ledger>);
    impl AsRef<Ledger> for Shared {
        fn as_ref(&self) -> &Ledger {
            &self.0
        }
    }
    let lend = || Lent::new(0, Box::new(Shared(ledger.clone())));
    let key = |n| SharedSecret::new(Zeroizing::new([n; 32]));
    let first = with(false, Some(lend()));
    assert_eq!(first.reserve(start(), 5), Ok(0));
    assert!(first.replay().commit(12));
    let second = Session::adopt(PeerId::from_u32(4), lend(), [key(1), key(2)]);
    assert_eq!(
        (second.peer(), second.local_index(), second.remote_index()),
        (PeerId::from_u32(4), first.local_index(), first.remote_index())
    );
    assert_eq!((second.created(), second.is_initiator()), (start(), false));
    assert_eq!((second.reserve(start(), 2), first.reserve(start(), 1)), (Ok(5), Ok(7)));
    assert!(!second.replay().commit(12) && second.replay().commit(13) && !first.replay().commit(13));
    assert!(second.confirm() && !first.confirm());
    second.close_sending();
    assert!(!first.may_send(start()) && first.may_receive(start()));
    second.revoke();
    assert!(!first.is_revoked(), "that is each process's own");
    // A program has seen the first message, and who should have heard of it is gone.
    first.facts().awaits_confirmation.store(2, Ordering::Relaxed);
    let third = Session::adopt(PeerId::from_u32(4), lend(), [key(1), key(2)]);
    assert!(!third.awaits_confirmation() && !third.confirm());
}

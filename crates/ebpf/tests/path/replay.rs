//! The replay window in BPF, held against the one that it is to be like: `noise::ReplayWindow`'s rule, told plainly.

use std::collections::HashSet;

use linux::tun::Offloads;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::bed::{self, KEYS, LIMIT, ledger};
use crate::wire::seal;

/// REJECT_AFTER_MESSAGES.
const LIMIT_OF_COUNTERS: u64 = u64::MAX - (1 << 13);

/// The rule: a counter is new if it was not taken, is among the newest 8192, and below the limit.
#[derive(Default)]
struct Rule {
    taken: HashSet<u64>,
    next: u64,
}

impl Rule {
    fn commit(&mut self, counter: u64) -> bool {
        if counter >= LIMIT_OF_COUNTERS || counter.saturating_add(8192) < self.next || !self.taken.insert(counter) {
            return false;
        }
        self.next = self.next.max(counter + 1);
        true
    }
}

struct Scene {
    at: bed::Scene,
    seen: u64,
}

impl Scene {
    fn new() -> Scene {
        Scene { at: bed::Scene::new(false, false, Offloads::default(), &[]), seen: 0 }
    }

    /// Forgets all counters.
    fn fresh(&self) {
        self.at.host.loaded.session(&KEYS);
    }

    /// Sends keepalives with these counters, in order; how many of them were new.
    fn burst(&mut self, counters: &[u64]) -> u64 {
        let before = self.at.host.loaded.count("WL_KEEPALIVE");
        for counter in counters {
            let message = seal(&KEYS.receive, KEYS.local, *counter, &[]);
            self.at.theirs.send(self.at.here(), 0, &message, None);
        }
        self.seen += counters.len() as u64;
        let loaded = &self.at.host.loaded;
        let all = || loaded.count("WL_KEEPALIVE") + loaded.count("WL_DROP_REPLAYED") >= self.seen;
        lab::wait_until("all to be looked at", LIMIT, all).unwrap_or_else(|e| panic!("{e}: {}", loaded.counts()));
        loaded.count("WL_KEEPALIVE") - before
    }
}

#[test]
fn the_windows_edges() {
    let mut scene = Scene::new();
    for (what, counters, new) in [
        ("twice", vec![0, 0], 1),
        ("backwards", (0..50).rev().collect(), 50),
        ("all twice", (0..50).chain(0..50).collect(), 50),
        ("the oldest in the window", vec![8191, 0], 2),
        ("one too old", vec![8192, 0], 1),
        ("and the next", vec![8192, 1, 1], 2),
        ("a word's last and first", vec![31, 32, 31, 32, 63, 64], 4),
        ("a lap", vec![5, 5 + 512 * 32, 5, 5 + 512 * 32], 2),
        ("many laps", vec![5, 5 + 512 * 32 * 1000, 5], 2),
        ("beyond what a word can tell", vec![5, 37 + (1 << 37), 5, 38 + (1 << 37) - 8192, 37 + (1 << 37) - 8192], 3),
        ("where a word's tag is zero", vec![(1 << 37) - 32, (1 << 37) - 32, (1 << 37) - 1, (1 << 37) - 1, 1 << 37], 3),
        ("the limit", vec![LIMIT_OF_COUNTERS, LIMIT_OF_COUNTERS - 1, u64::MAX, LIMIT_OF_COUNTERS - 1], 1),
    ] {
        scene.fresh();
        assert_eq!(scene.burst(&counters), new, "{what}");
        assert_eq!(scene.at.host.loaded.field64("ledgers", KEYS.slot, ledger::ARRIVED), new, "{what}");
    }
}

/// Counters as a network, or (`jumps`) somebody who holds the key and means ill, might deliver them.
fn counters(jumps: bool) -> impl Strategy<Value = Vec<u64>> {
    let step = prop_oneof![
        8 => -40i64..60,
        3 => -9000i64..9000,
        2 => prop_oneof![Just(-8192i64), Just(-8191), Just(-8193), Just(8192), Just(16384), Just(-16384)],
        1 => prop_oneof![Just(1i64 << 32), Just(-(1 << 32)), 0i64..1 << 33],
    ];
    let jump = prop_oneof![Just(1i64 << 37), Just((1 << 37) - 8192), Just(-(1 << 37)), 0i64..1 << 40];
    let step = if jumps { prop_oneof![4 => step, 1 => jump].boxed() } else { step.boxed() };
    let start = prop_oneof![Just(0u64), 0..20_000u64, Just((1 << 37) - 100), Just(LIMIT_OF_COUNTERS - 200)];
    (start, prop::collection::vec(step, 1..200)).prop_map(|(start, steps)| {
        let mut at = start;
        steps
            .into_iter()
            .map(|step| {
                at = at.saturating_add_signed(step);
                at
            })
            .collect()
    })
}

fn check(jumps: bool) {
    let scene = std::cell::RefCell::new(Scene::new());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[5; 32]);
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let told = TestRunner::new_with_rng(config, rng).run(&counters(jumps), |counters| {
        let mut scene = scene.borrow_mut();
        scene.fresh();
        let mut rule = Rule::default();
        let expected = counters.iter().filter(|counter| rule.commit(**counter)).count() as u64;
        let new = scene.burst(&counters);
        let loaded = &scene.at.host.loaded;
        prop_assert_eq!(loaded.field64("ledgers", KEYS.slot, ledger::ARRIVED), new);
        prop_assert_eq!(loaded.field64("ledgers", KEYS.slot, ledger::RECEIVED_NEXT), rule.next);
        prop_assert!(new == expected || (jumps && new < expected), "{} new, and not {}", new, expected);
        Ok(())
    });
    told.unwrap();
}

#[test]
fn the_window_is_as_the_rule_says() {
    check(false);
}

/// A word of the window keeps 32 bits of what it stands for: after a jump of 2^37 it may take what is new for seen, but never the other way round.
#[test]
fn jumps_that_a_word_cannot_tell_let_nothing_in_twice() {
    check(true);
}

//! Two devices against an adversary, from thousands of seeds.
//!
//! What is checked all the time: no key and no nonce is used twice, no plaintext is accepted twice, no index is given
//! twice, nothing that did not authenticate has an answer or an effect, no answer is larger than what it answers. What
//! is checked in the end: once the network is well again everything arrives, through at least three rekeys; and
//! once nobody talks any more, both fall silent, forget their keys and have no deadline.
//!
//! `WIRELOOM_SIM_SEEDS` says how many seeds (2000 by default), `WIRELOOM_SIM_SEED` runs one of them again and tells what is sent.

mod support;

use support::secs;
use support::world::World;

const SEEDS: u64 = 2000;
/// The worst that healing may take: a session that only one side has is found out after 15 s, and then each of up to two
/// cookies costs a retry.
const RECOVERY: u64 = 60;
const REKEYS: usize = 3;

#[test]
fn all_seeds() {
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    if let Some(seed) = number("WIRELOOM_SIM_SEED") {
        return one_seed(seed, true);
    }
    let seeds = number("WIRELOOM_SIM_SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || (thread..seeds).step_by(threads as usize).for_each(|seed| one_seed(seed, false)));
        }
    });
}

/// Prints the seed when it fails.
struct Name(u64);

impl Drop for Name {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: run it again with WIRELOOM_SIM_SEED={}", self.0);
        }
    }
}

fn one_seed(seed: u64, trace: bool) {
    let _name = Name(seed);
    let mut world = World::new(seed);
    world.trace = trace;
    let hostile = 30 + u64::from(world.below(300));
    world.run(secs(hostile));

    world.heal();
    world.run(secs(RECOVERY));
    let well = world.time;
    let keys = world.nodes[0].keys.len();
    while world.nodes[0].keys.len() < keys + REKEYS {
        world.run(secs(60));
        assert!(world.time < well + secs(1200), "no rekeys");
    }
    world.stop_talking();
    world.run(secs(1));
    let lost: Vec<_> = world.missing.iter().filter(|&(_, &sent)| sent >= well).collect();
    assert!(lost.is_empty(), "lost on a perfect network: {lost:?}");

    // Both fall silent: at most two keepalives each, and perhaps one last handshake.
    let before = world.datagrams();
    world.run(secs(900));
    let spoken = world.datagrams() - before;
    assert!(spoken <= 8, "{spoken} datagrams after everyone fell silent");
    for node in &world.nodes {
        assert_eq!(node.device.poll_timeout(), None, "an idle device has a deadline");
        assert!(node.sessions.is_empty() && node.current().is_none(), "keys were kept");
    }
}

//! A node dies, and another comes in its place that takes up its sessions from memory that was lent.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

mod support;

use std::time::Duration;

use noise::message::MessageType;
use noise::{Drop, PresharedKey};
use support::vault::Vault;
use support::world::World;
use support::*;

/// Node 1 with its memory in a vault, connected to node 2. Who began the handshake is up to the caller.
fn mortal(begins: bool) -> (Vault, Node, Node) {
    let now = at(secs(0));
    let vault = Vault::default();
    let (mut a, mut b) = (Node::lent(now, 1, 7, &vault), Node::new(now, 2));
    a.add_peer(now, key(2).public(), Some(b.address));
    b.add_peer(now, key(1).public(), Some(a.address));
    if begins {
        a.send(now, b"hello")
    } else {
        b.send(now, b"hello")
    }
    exchange(now, &mut a, &mut b);
    assert!(a.current().is_some() && b.current().is_some());
    assert_eq!(vault.living(), 1);
    for node in [&mut a, &mut b] {
        node.arrived.clear();
        node.told.clear();
    }
    (vault, a, b)
}

/// The node dies, and another comes. What the dead one goes on doing is as if others did it who share its memory.
fn succeed(now: noise::Now, vault: &Vault, former: &mut Node) -> Node {
    vault.die();
    let mut next = Node::lent(now, 1, 8, vault);
    next.succeed(former);
    next.add_peer(now, key(2).public(), former.links[&former.peer()].endpoint);
    next.settle(now);
    next
}

/// Sends both ways, and expects that it arrives and that no handshake is made.
fn talk(now: noise::Now, a: &mut Node, b: &mut Node, text: &[u8]) {
    for node in [&mut *a, &mut *b] {
        node.arrived.clear();
    }
    a.send(now, text);
    b.send(now, text);
    assert!(a.out.iter().chain(&b.out).all(|datagram| datagram.kind() == MessageType::Transport), "a handshake");
    exchange(now, a, b);
    assert_eq!((&*a.arrived, &*b.arrived), (&[text.to_vec()][..], &[text.to_vec()][..]));
}

#[test]
fn traffic_goes_on_without_a_handshake() {
    for begins in [true, false] {
        let (vault, mut a, mut b) = mortal(begins);
        talk(at(secs(1)), &mut a, &mut b, b"before");
        b.send(at(secs(1)), b"to be repeated");
        let recorded = b.out[0].clone();
        exchange(at(secs(1)), &mut a, &mut b);

        let mut next = succeed(at(secs(2)), &vault, &mut a);
        assert_eq!(next.told, [Told::Installed, Told::Current]);
        assert!(next.device.last_handshake(next.peer()).is_some());
        talk(at(secs(2)), &mut next, &mut b, b"after");
        next.arrived.clear();
        next.receive(at(secs(2)), &recorded);
        assert!(next.arrived.is_empty(), "what the dead one took was taken again");

        // It is replaced in its time, by a handshake that only then is made.
        for second in 3..119 {
            talk(at(secs(second)), &mut next, &mut b, &[second as u8]);
        }
        for second in [121, 122] {
            next.send(at(secs(second)), b"old");
            b.send(at(secs(second)), b"old");
            exchange(at(secs(second)), &mut next, &mut b);
        }
        let keys = next.keys.len();
        assert_eq!(keys, 2, "one rekey, whoever began the first");
        talk(at(secs(123)), &mut next, &mut b, b"new");
    }
}

#[test]
fn who_shares_the_memory_goes_on_meanwhile() {
    let (vault, mut a, mut b) = mortal(true);
    let mut next = succeed(at(secs(2)), &vault, &mut a);
    let peer = a.peer();
    for round in 0..500u64 {
        let now = at(secs(2) + millis(round));
        assert!(a.seal(now, peer, &round.to_le_bytes()));
        next.send(now, &round.to_be_bytes());
        b.send(now, &round.to_le_bytes());
        // Either may take it, and then the other may not.
        let taken = b.out.pop_front().unwrap();
        let (first, second) = if round % 3 == 0 { (&mut a, &mut next) } else { (&mut next, &mut a) };
        let before = (first.arrived.len(), second.arrived.len());
        first.receive(now, &taken);
        second.receive(now, &taken);
        assert_eq!((first.arrived.len(), second.arrived.len()), (before.0 + 1, before.1));
        for datagram in a.out.drain(..).chain(next.out.drain(..)) {
            b.receive(now, &datagram);
        }
        b.out.clear();
    }
    assert!(a.sealed.is_disjoint(&next.sealed), "a counter was used by both");
    assert_eq!(b.arrived.len(), 1000);
    assert_eq!(next.device.reception(next.peer()).unwrap().arrived, 500, "as both of them count it");
}

#[test]
fn another_key_gets_nothing() {
    let other = || PresharedKey::from_bytes([9; 32]);
    for case in 0..4 {
        let (vault, mut a, mut b) = mortal(true);
        vault.die();
        let now = at(secs(2));
        let mut device = noise::Device::new([8; 32]);
        device.set_lender(std::sync::Arc::new(vault.clone()));
        device.set_private_key(now, Some(key(if case == 0 { 3 } else { 1 })));
        device.set_up(now, case < 2);
        let mut next = Node { vault: Some(vault.clone()), ..Node::with(device, address(1)) };
        next.succeed(&mut a);
        let preshared = if case == 1 { other() } else { PresharedKey::default() };
        let peer = next.add_peer_with(now, key(2).public(), preshared, Some(b.address));
        // Known at first, and no more before it is taken up.
        if case == 2 {
            next.device.set_preshared_key(now, peer, other());
        }
        if case == 3 {
            next.device.set_private_key(now, Some(key(3)));
        }
        next.device.set_up(now, true);
        next.settle(now);
        assert!(next.told.is_empty() && next.current().is_none(), "case {case}");
        assert_eq!(
            vault.living(),
            usize::from(case < 2),
            "what was asked for is ended, and else nobody's: case {case}"
        );
        next.send(now, b"new");
        assert_eq!(next.out[0].kind(), MessageType::Initiation);
        b.send(now, b"old");
        next.receive(now, &b.out.pop_front().unwrap());
        assert!(next.arrived.is_empty());
    }
}

#[test]
fn too_old_gets_nothing() {
    for (age, taken) in [(Duration::from_nanos(179_999_999_999), 1), (secs(180), 0), (secs(4000), 0)] {
        let (vault, mut a, _b) = mortal(true);
        let next = succeed(at(age), &vault, &mut a);
        assert_eq!((next.sessions.len(), vault.living()), (taken, taken), "{age:?}");
    }
    // Nor what was made in the future.
    let (vault, mut a, _b) = mortal(true);
    let before = noise::Now { boot: noise::Instant::from_nanos(5), wall: secs(0) };
    let next = succeed(before, &vault, &mut a);
    assert_eq!((next.sessions.len(), vault.living()), (0, 0));
}

#[test]
fn an_index_of_another_sessions_is_left() {
    let (vault, a, _b) = mortal(true);
    vault.duplicate();
    vault.die();
    let mut next = noise::Device::new([8; 32]);
    next.set_lender(std::sync::Arc::new(vault.clone()));
    next.set_private_key(at(secs(1)), Some(key(1)));
    next.set_up(at(secs(1)), true);
    next.add_peer(at(secs(1)), key(2).public()).unwrap();
    let index = a.current().unwrap().local_index();
    let events: Vec<_> = std::iter::from_fn(|| next.poll_event()).collect();
    assert!(matches!(&events[..], [
        noise::Event::SessionInstalled { session },
        noise::Event::SessionCurrent { session: Some(_), .. },
    ] if session.local_index() == index));
}

#[test]
fn what_the_initiator_has_not_used_is_confirmed_by_the_next() {
    let now = at(secs(0));
    let vault = Vault::default();
    let (mut a, mut b) = (Node::lent(now, 1, 7, &vault), Node::new(now, 2));
    a.add_peer(now, key(2).public(), Some(b.address));
    b.add_peer(now, key(1).public(), Some(a.address));
    b.send(now, b"hello");
    a.receive(now, &b.out.pop_front().unwrap());
    assert!(a.current().is_none(), "its response is on the way");
    let response = a.out.pop_front().unwrap();

    let mut next = succeed(at(secs(1)), &vault, &mut a);
    assert_eq!(next.told, [Told::Installed]);
    next.told.clear();
    b.receive(at(secs(1)), &response);
    exchange(at(secs(1)), &mut next, &mut b);
    assert_eq!(next.arrived, [&b"hello"[..], b""]);
    assert_eq!(next.told, [Told::Current]);
    talk(at(secs(1)), &mut next, &mut b, b"both");
}

#[test]
fn all_three_sessions_are_taken_up_and_none_beyond() {
    let (vault, mut a, mut b) = mortal(true);
    // A rekey, and another one whose session is not used yet.
    a.send(at(secs(121)), b"old");
    exchange(at(secs(121)), &mut a, &mut b);
    b.device.handle_rekey_due(at(secs(127)), b.peer());
    b.settle(at(secs(127)));
    let initiation = b.out.pop_front().unwrap();
    a.receive(at(secs(127)), &initiation);
    let response = a.out.pop_front().unwrap();
    assert_eq!(a.sessions.len(), 2, "a new handshake of the peer's makes the previous one needless");

    let mut next = succeed(at(secs(128)), &vault, &mut a);
    assert_eq!(next.told, [Told::Installed, Told::Installed, Told::Current]);
    talk(at(secs(128)), &mut next, &mut b, b"with the former");
    b.receive(at(secs(128)), &response);
    exchange(at(secs(128)), &mut next, &mut b);
    talk(at(secs(129)), &mut next, &mut b, b"with the latter");
    assert_eq!(next.keys.len(), 3);

    // The previous one receives.
    b.send(at(secs(129)), b"under way");
    let late = b.out.pop_front().unwrap();
    b.device.handle_rekey_due(at(secs(134)), b.peer());
    b.settle(at(secs(134)));
    exchange(at(secs(134)), &mut next, &mut b);
    let mut last = succeed(at(secs(135)), &vault, &mut next);
    assert_eq!(last.sessions.len(), 2);
    last.receive(at(secs(135)), &late);
    assert_eq!(last.arrived, [b"under way"]);
}

#[test]
fn a_rekey_that_died_is_begun_again() {
    let (vault, mut a, mut b) = mortal(true);
    a.send(at(secs(121)), b"old");
    assert!(a.out.iter().any(|datagram| datagram.kind() == MessageType::Initiation));
    a.out.clear();
    let mut next = succeed(at(secs(122)), &vault, &mut a);
    next.send(at(secs(122)), b"old");
    assert!(next.out.iter().any(|datagram| datagram.kind() == MessageType::Initiation), "though it was asked for");
    exchange(at(secs(122)), &mut next, &mut b);
    talk(at(secs(123)), &mut next, &mut b, b"new");
}

/// When node `a` sends what next, if it hears nothing.
fn next_sent(a: &mut Node) -> (Duration, MessageType) {
    a.out.clear();
    let start = at(secs(0)).boot;
    loop {
        let deadline = a.device.poll_timeout().expect("a deadline").saturating_since(start);
        a.timeout(at(deadline));
        if let Some(datagram) = a.out.pop_front() {
            return (deadline, datagram.kind());
        }
    }
}

#[test]
fn what_was_pending_is_seen_to() {
    // Data that deserves an answer.
    let (vault, mut a, mut b) = mortal(true);
    b.send(at(secs(20)), b"are you there?");
    exchange(at(secs(20)), &mut a, &mut b);
    let mut next = succeed(at(secs(25)), &vault, &mut a);
    assert_eq!(next_sent(&mut next), (secs(30), MessageType::Transport));

    // Data that got none.
    let (vault, mut a, mut b) = mortal(true);
    talk(at(secs(1)), &mut a, &mut b, b"both");
    a.send(at(secs(20)), b"are you there?");
    let mut next = succeed(at(secs(25)), &vault, &mut a);
    let (when, what) = next_sent(&mut next);
    assert!((secs(35)..secs(36)).contains(&when) && what == MessageType::Initiation, "{what:?} after {when:?}");

    // And keys that nobody needs any more are wiped when the dead one would have done it.
    let (vault, mut a, mut b) = mortal(false);
    talk(at(secs(1)), &mut a, &mut b, b"both");
    a.seal(at(secs(2)), a.peer(), &[]);
    let mut next = succeed(at(secs(100)), &vault, &mut a);
    while let Some(deadline) = next.device.poll_timeout() {
        assert!(deadline <= at(secs(540)).boot);
        next.timeout(noise::Now { boot: deadline, ..at(secs(540)) });
    }
    assert_eq!((next.sessions.len(), vault.living()), (0, 0));
}

#[test]
fn a_persistent_keepalive_needs_no_handshake() {
    for up_first in [true, false] {
        let (vault, mut a, b) = mortal(true);
        vault.die();
        let now = at(secs(2));
        let mut next = Node::lent(now, 1, 8, &vault);
        next.device.set_up(now, up_first);
        next.succeed(&mut a);
        let peer = next.add_peer(now, key(2).public(), Some(b.address));
        next.device.set_persistent_keepalive(now, peer, Some(secs(25)));
        next.device.set_up(now, true);
        next.settle(now);
        next.timeout(now);
        let sent: Vec<_> = next.out.iter().map(Datagram::is_keepalive).collect();
        assert_eq!(sent, [true]);
    }
}

#[test]
fn timestamps_grow_though_the_clock_goes_back() {
    let (vault, mut a, mut b) = mortal(true);
    b.device.handle_rekey_due(at(secs(6)), b.peer());
    b.settle(at(secs(6)));
    let recorded = b.out[0].clone();
    exchange(at(secs(6)), &mut a, &mut b);

    // Too late to take anything up, and the clock shows a day before.
    let now = at_wall(secs(1000), secs(1_700_000_000 - 86400));
    let mut next = succeed(now, &vault, &mut a);
    assert_eq!(next.sessions.len(), 0);
    next.receive(now, &recorded);
    assert_eq!(next.drops, [Drop::Replayed], "what the dead one took was taken again");
    next.send(now, b"hello");
    let (drops, arrived) = (b.drops.len(), b.arrived.len());
    exchange(at(secs(1000)), &mut next, &mut b);
    assert_eq!((b.drops.len(), b.arrived.len()), (drops, arrived + 2), "a keepalive, and what was said");
}

#[test]
fn what_ends_is_given_back() {
    let (vault, mut a, mut b) = mortal(true);
    let mut next = succeed(at(secs(1)), &vault, &mut a);
    assert_eq!(vault.living(), 1);
    next.device.set_up(at(secs(2)), false);
    next.settle(at(secs(2)));
    assert_eq!(vault.living(), 0);
    next.device.set_up(at(secs(10)), true);
    next.send(at(secs(10)), b"again");
    exchange(at(secs(10)), &mut next, &mut b);
    assert_eq!(vault.next_counters(), [2], "in the place of the former, begun anew");
    let peer = next.peer();
    next.device.remove_peer(at(secs(11)), peer);
    next.settle(at(secs(11)));
    assert_eq!(vault.living(), 0);
}

#[test]
fn nodes_that_die_in_a_hostile_world() {
    const SEEDS: u64 = 200;
    let deaths: usize = std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let threads: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || (thread..SEEDS).step_by(threads as usize).map(one_seed).sum::<usize>()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(deaths as u64 > SEEDS, "{deaths} deaths");
}

/// As in `simulation.rs`: hostile, then healed, where all must arrive. Returns how often a node died.
fn one_seed(seed: u64) -> usize {
    let mut world = World::mortal(seed);
    let hostile = 30 + u64::from(world.below(600));
    world.run(secs(hostile));
    world.heal();
    world.run(secs(60));
    let well = world.time;
    world.run(secs(300));
    world.stop_talking();
    world.run(secs(1));
    let lost: Vec<_> = world.missing.iter().filter(|&(_, &sent)| sent >= well).collect();
    assert!(lost.is_empty(), "seed {seed}: lost on a perfect network: {lost:?}");
    world.run(secs(900));
    for node in &world.nodes {
        assert_eq!(node.device.poll_timeout(), None, "seed {seed}: an idle device has a deadline");
        assert_eq!(node.vault.as_ref().unwrap().living(), 0, "seed {seed}: keys were kept");
    }
    world.deaths
}

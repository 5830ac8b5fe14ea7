//! Bugs that other implementations have had, each with a test that would find it here.

mod support;

use std::collections::BTreeSet;

use noise::limits::{REJECT_AFTER_MESSAGES, REPLAY_WINDOW};
use noise::message::{MessageType, parse_transport_header, write_transport_header};
use noise::{Drop, PresharedKey, ReceiverIndex};
use support::*;

#[test]
fn a_changed_preshared_key_counts_from_the_next_handshake() {
    let (mut a, mut b) = connected(at(secs(0)));
    let (in_a, in_b) = (a.peer(), b.peer());
    b.device.set_preshared_key(at(secs(1)), in_b, PresharedKey::from_bytes([1; 32]));
    a.send(at(secs(2)), b"still the old session");
    exchange(at(secs(2)), &mut a, &mut b);
    assert_eq!(b.arrived.len(), 1);

    a.device.handle_rekey_due(at(secs(10)), in_a);
    a.settle(at(secs(10)));
    exchange(at(secs(10)), &mut a, &mut b);
    assert_eq!(a.drops, [Drop::NotAuthentic], "only one side has the key");

    a.device.set_preshared_key(at(secs(11)), in_a, PresharedKey::from_bytes([1; 32]));
    assert!(a.device.preshared_key(in_a) == b.device.preshared_key(in_b));
    let old = a.current().unwrap().local_index();
    a.timeout(at(secs(16)));
    exchange(at(secs(16)), &mut a, &mut b);
    assert_ne!(a.current().unwrap().local_index(), old);

    // And back to none.
    for (node, id) in [(&mut a, in_a), (&mut b, in_b)] {
        node.device.set_preshared_key(at(secs(20)), id, PresharedKey::default());
        assert!(node.device.preshared_key(id).unwrap().is_none());
    }
    let old = a.current().unwrap().local_index();
    a.device.handle_rekey_due(at(secs(30)), in_a);
    a.settle(at(secs(30)));
    exchange(at(secs(30)), &mut a, &mut b);
    assert_ne!(a.current().unwrap().local_index(), old);
}

#[test]
fn counters_have_64_bits_on_the_wire() {
    let mut header = [0; 32];
    write_transport_header(&mut header, ReceiverIndex::from_u32(0x0403_0201), 0x0807_0605_0403_0201);
    assert_eq!(header[..16], [4, 0, 0, 0, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8]);
    let parsed = parse_transport_header(&header).unwrap();
    assert_eq!(parsed.counter.as_u64(), 0x0807_0605_0403_0201);
    assert_eq!(parsed.receiver.as_u32(), 0x0403_0201);
}

#[test]
fn reject_after_messages_is_enforced_on_both_sides() {
    let (a, b) = connected(at(secs(0)));
    let session = b.current().unwrap();
    assert!(!session.looks_new(REJECT_AFTER_MESSAGES));
    assert!(!session.replay().commit(REJECT_AFTER_MESSAGES));
    assert!(session.replay().commit(REJECT_AFTER_MESSAGES - 1));
    assert_eq!(REJECT_AFTER_MESSAGES, 0xffff_ffff_ffff_dfff);
    drop(a);
}

#[test]
fn the_replay_window_holds_8192() {
    let (mut a, mut b) = connected(at(secs(0)));
    let now = at(secs(1));
    for _ in 0..REPLAY_WINDOW {
        assert!(a.seal(now, a.peer(), b"data"));
    }
    let oldest = a.out.pop_front().unwrap();
    let newest = a.out.pop_back().unwrap();
    b.receive(now, &newest);
    b.receive(now, &oldest);
    assert_eq!(b.arrived.len(), 2);
    b.receive(now, &oldest);
    assert_eq!(b.arrived.len(), 2);
}

#[test]
fn a_cookie_reply_moves_no_endpoint() {
    let now = at(secs(0));
    let (mut a, mut b) = pair(now);
    b.under_load = true;
    a.send(now, b"data");
    b.receive(now, &a.out.pop_front().unwrap());
    let mut reply = b.out.pop_front().unwrap();
    assert_eq!(reply.kind(), MessageType::CookieReply);
    let elsewhere = address(77);
    reply.from = elsewhere;
    a.receive(now, &reply);
    assert!(a.drops.is_empty(), "the cookie itself is good");
    assert!(!a.told.contains(&Told::Endpoint));
    assert_eq!(a.links[&a.peer()].endpoint, Some(b.address));
}

#[test]
fn a_cookie_is_worth_nothing_from_another_port() {
    let now = at(secs(0));
    let (mut a, mut b) = pair(now);
    b.under_load = true;
    a.send(now, b"data");
    exchange(now, &mut a, &mut b);
    a.timeout(at(secs(6)));
    let mut initiation = a.out.pop_front().unwrap();
    let here = initiation.from;
    initiation.from.set_port(here.port() + 1);
    b.receive(at(secs(6)), &initiation);
    assert_eq!(b.drops, [Drop::CookieSent, Drop::CookieSent]);
    initiation.from = here;
    b.receive(at(secs(6)), &initiation);
    assert_eq!(b.drops.len(), 2, "from where the cookie was sent it is");
}

#[test]
fn a_flood_from_one_source_costs_another_nothing() {
    let now = at(secs(0));
    let mut server = Node::new(now, 1);
    server.under_load = true;
    let mut clients: Vec<Node> = (2..=3)
        .map(|n| {
            server.add_peer(now, key(n).public(), None);
            let mut client = Node::new(now, n);
            client.add_peer(now, key(1).public(), Some(server.address));
            client.send(now, b"data");
            exchange(now, &mut client, &mut server);
            client.timeout(at(secs(6)));
            client
        })
        .collect();
    server.drops.clear();
    let later = at(secs(6));
    let flood = clients[0].out.pop_front().unwrap();
    for _ in 0..1000 {
        server.receive(later, &flood);
    }
    assert_eq!(server.drops.iter().filter(|&&drop| drop == Drop::RateLimited).count(), 995);
    let fair = clients[1].out.pop_front().unwrap();
    server.out.clear();
    server.receive(later, &fair);
    assert_eq!(server.out.pop_front().unwrap().kind(), MessageType::Response);
}

#[test]
fn indices_are_unpredictable_and_unique() {
    let now = at(secs(0));
    let mut node = Node::new(now, 1);
    let mut indices = Vec::new();
    for n in 0..200 {
        let id = node.add_peer(now, key(100 + (n % 100)).public().tweaked(n), Some(address(2)));
        node.send_to(now, id, b"data");
        let initiation = node.out.pop_back().unwrap();
        indices.push(u32::from_le_bytes(initiation.bytes[4..8].try_into().unwrap()));
    }
    assert_eq!(indices.iter().collect::<BTreeSet<_>>().len(), indices.len());
    // Each bit is set about half the time, and neighbours have nothing in common.
    for bit in 0..32 {
        let ones = indices.iter().filter(|&&index| index >> bit & 1 == 1).count();
        assert!((60..=140).contains(&ones), "bit {bit} is set {ones} times of 200");
    }
    let steps: BTreeSet<_> = indices.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert_eq!(steps.len(), indices.len() - 1);
}

/// Sessions of one peer stay on one worker: their indices share the lane and nothing else.
#[test]
fn indices_of_a_peer_keep_their_lane() {
    let now = at(secs(0));
    let mut node = Node::new(now, 1);
    node.device.set_lanes(7);
    let id = node.add_peer(now, key(2).public(), Some(address(2)));
    let mut indices = BTreeSet::new();
    for n in 0..20 {
        node.device.handle_session_wanted(at(secs(6 * n)), id);
        node.device.handle_timeout(at(secs(6 * n)));
        node.settle(at(secs(6 * n)));
        indices.extend(node.out.drain(..).map(|it| u32::from_le_bytes(it.bytes[4..8].try_into().unwrap())));
    }
    assert!(indices.len() >= 15, "{} handshakes", indices.len());
    assert_eq!(indices.iter().map(|index| (index & 0xff) % 7).collect::<BTreeSet<_>>().len(), 1);
    assert!(indices.iter().map(|index| index & 0xff).collect::<BTreeSet<_>>().len() > 3, "no more than that is fixed");
    assert_eq!(indices.iter().map(|index| index >> 8).collect::<BTreeSet<_>>().len(), indices.len());
}

/// More public keys than there are small private ones.
trait Tweaked {
    fn tweaked(self, n: u8) -> Self;
}

impl Tweaked for noise::PublicKey {
    fn tweaked(self, n: u8) -> Self {
        let mut bytes = *self.as_bytes();
        bytes[5] ^= n;
        Self::from_bytes(bytes)
    }
}

#[test]
fn keepalives_do_not_play_ping_pong() {
    let (mut a, mut b) = connected(at(secs(0)));
    assert!(a.seal(at(secs(20)), a.peer(), &[]));
    a.out.drain(..a.out.len() - 1);
    let before = b.activity_calls;
    b.receive(at(secs(20)), &a.out.pop_front().unwrap());
    assert_eq!(b.arrived, [vec![]]);
    assert_eq!(b.activity_calls, before, "a keepalive asks for nothing");
}

//! Handshakes between devices: who ends up with which session, what is refused, what the user's changes do.

mod support;

use std::time::Duration;

use noise::message::MessageType;
use noise::{AddPeerError, Device, Drop, PeerId, PresharedKey, PublicKey};
use support::*;

#[test]
fn a_handshake_leads_to_a_session_and_data_flows() {
    let now = at(secs(0));
    let (mut a, mut b) = pair(now);
    a.send(now, b"one");
    a.send(now, b"two");
    assert_eq!(a.out.len(), 1, "one initiation, while both packets wait");
    exchange(now, &mut a, &mut b);
    assert_eq!(b.arrived, [b"one".to_vec(), b"two".to_vec(), vec![]]);
    assert_eq!(a.told, [Told::Endpoint, Told::Installed, Told::Current, Told::Keepalive]);
    assert_eq!(b.told, [Told::Endpoint, Told::Installed, Told::Current]);
    b.send(now, b"three");
    exchange(now, &mut a, &mut b);
    assert_eq!(a.arrived, [b"three".to_vec()]);
    let (ours, theirs) = (a.current().unwrap(), b.current().unwrap());
    assert!(ours.is_initiator() && !theirs.is_initiator());
    assert_eq!(ours.local_index(), theirs.remote_index());
    assert_eq!(a.device.last_handshake(a.peer()), Some(now.wall));
    assert_eq!(b.device.last_handshake(b.peer()), Some(now.wall));
}

#[test]
fn the_responder_waits_until_the_initiator_has_spoken() {
    let now = at(secs(0));
    let (mut a, mut b) = pair(now);
    a.send(now, b"data");
    let initiation = a.out.pop_front().unwrap();
    b.receive(now, &initiation);
    assert_eq!(b.told, [Told::Endpoint, Told::Installed]);
    assert!(b.current().is_none(), "not before it is confirmed");
    let response = b.out.pop_front().unwrap();
    a.receive(now, &response);
    let data = a.out.pop_front().unwrap();
    b.receive(now, &data);
    assert_eq!(b.told[2..], [Told::Current]);
}

#[test]
fn three_sessions_at_most_and_the_old_one_still_receives() {
    let (mut a, mut b) = connected(at(secs(0)));
    let old = a.current().unwrap();
    a.send(at(secs(121)), b"late");
    let late = a.out.pop_front().unwrap();
    exchange(at(secs(121)), &mut a, &mut b);
    assert_ne!(a.current().unwrap().local_index(), old.local_index());
    assert_eq!((a.sessions.len(), b.sessions.len()), (2, 2));
    b.receive(at(secs(122)), &late);
    assert!(b.arrived.contains(&b"late".to_vec()), "what was under way is still received");
    for round in 2..6 {
        a.send(at(secs(121 * round)), b"data");
        exchange(at(secs(121 * round)), &mut a, &mut b);
        assert!(a.sessions.len() <= 3 && b.sessions.len() <= 3);
    }
    assert!(old.is_revoked());
}

#[test]
fn crossed_handshakes_agree_on_one_session() {
    for swapped in [false, true] {
        let now = at(secs(0));
        let (mut a, mut b) = pair(now);
        let id = b.peer();
        b.links.get_mut(&id).unwrap().endpoint = Some(a.address);
        a.send(now, b"from a");
        b.send(now, b"from b");
        if swapped {
            std::mem::swap(&mut a, &mut b);
        }
        exchange(now, &mut a, &mut b);
        let (ours, theirs) = (a.current().unwrap(), b.current().unwrap());
        assert_eq!(ours.local_index(), theirs.remote_index(), "both send with the same session");
        assert_ne!(ours.is_initiator(), theirs.is_initiator());
        assert!(a.arrived.len() + b.arrived.len() >= 2, "and nothing waits any more");
    }
}

/// What the initiator sends under a session can come late: when its responder has completed a handshake of its own.
#[test]
fn a_session_confirmed_after_it_was_displaced_is_not_sent_with() {
    let now = at(secs(0));
    let (mut a, mut b) = pair(now);
    let id = b.peer();
    b.links.get_mut(&id).unwrap().endpoint = Some(a.address);
    a.send(now, b"from a");
    b.send(now, b"from b");
    let (initiation, crossed) = (a.out.pop_front().unwrap(), b.out.pop_front().unwrap());
    b.receive(now, &initiation);
    a.receive(now, &b.out.pop_front().unwrap());
    let late = a.out.pop_front().unwrap();
    assert_eq!(late.kind(), MessageType::Transport);
    a.receive(now, &crossed);
    b.receive(now, &a.out.pop_back().unwrap());
    let current = b.current().unwrap();
    assert!(current.is_initiator());
    b.receive(now, &late);
    assert_eq!(b.arrived, [b"from a"]);
    assert_eq!(b.current().unwrap().local_index(), current.local_index(), "the displaced session is not sent with");
    exchange(now, &mut a, &mut b);
    assert_eq!(a.arrived[0], b"from b");
}

#[test]
fn an_initiation_is_not_answered_twice() {
    let now = at(secs(0));
    let (mut a, mut b) = pair(now);
    a.send(now, b"data");
    let first = a.out.pop_front().unwrap();
    b.receive(now, &first);
    b.receive(now, &first);
    assert_eq!((b.out.len(), b.drops.as_slice()), (1, [Drop::Replayed].as_slice()));

    // An older one than the latest is a replay too, though it was never seen.
    a.timeout(at(secs(6)));
    let second = a.out.pop_front().unwrap();
    a.timeout(at(secs(12)));
    let third = a.out.pop_front().unwrap();
    b.receive(at(secs(12)), &third);
    b.receive(at(secs(13)), &second);
    assert_eq!(b.drops[1..], [Drop::Replayed]);
}

#[test]
fn fifty_initiations_a_second_and_not_more() {
    let now = at(secs(0));
    let (mut a, mut b) = pair(now);
    // Collected over hours, delivered within a second.
    let mut initiations = Vec::new();
    for hour in 0..200 {
        let id = a.peer();
        a.device.handle_session_wanted(at(secs(3600 * hour)), id);
        a.settle(at(secs(3600 * hour)));
        initiations.push(a.out.pop_back().unwrap());
    }
    for (n, initiation) in initiations.iter().enumerate() {
        b.receive(at(millis(n as u64 * 5)), initiation);
    }
    assert_eq!(b.out.len(), 50);
    assert!(b.drops.iter().all(|drop| *drop == Drop::Flood));
}

#[test]
fn a_wall_clock_that_went_back_locks_nobody_out() {
    let now = at(secs(0));
    let (mut a, mut b) = connected(now);
    let later = at_wall(secs(600), secs(5));
    a.send(later, b"data");
    exchange(later, &mut a, &mut b);
    assert_eq!(b.arrived.first().map(Vec::as_slice), Some(&b"data"[..]));
    assert!(b.drops.is_empty());
}

#[test]
fn strangers_and_forgeries_are_dropped_without_an_answer() {
    let now = at(secs(0));
    let (mut a, mut b) = pair(now);
    let mut stranger = Node::new(now, 3);
    stranger.add_peer(now, key(2).public(), Some(b.address));
    stranger.send(now, b"let me in");
    b.receive(now, &stranger.out.pop_front().unwrap());
    assert_eq!(b.drops, [Drop::UnknownPeer]);

    a.send(now, b"data");
    let initiation = a.out.pop_front().unwrap();
    for at_byte in 0..148 {
        let mut forged = initiation.clone();
        forged.bytes[at_byte] ^= 4;
        b.receive(now, &forged);
        // Without load nobody looks at mac2.
        assert_eq!(b.out.len(), usize::from(at_byte >= 132), "byte {at_byte}");
        if at_byte >= 132 {
            break;
        }
    }
    let response = b.out.pop_front().unwrap();
    for at_byte in 0..76 {
        let mut forged = response.clone();
        forged.bytes[at_byte] ^= 4;
        a.receive(now, &forged);
        assert!(a.current().is_none() && a.out.is_empty(), "byte {at_byte}");
    }
    a.receive(now, &response);
    assert!(a.current().is_some(), "forged responses did not end the handshake");
    a.receive(now, &response);
    assert_eq!(a.drops.last(), Some(&Drop::UnknownIndex));
}

#[test]
fn what_is_no_handshake_message_is_malformed() {
    let now = at(secs(0));
    let (_, mut b) = pair(now);
    for bytes in [&[][..], &[1], &[1, 0, 0, 0], &[0; 148], &[1; 148], &[5, 0, 0, 0], &[4; 100]] {
        assert_eq!(b.device.handle_datagram(now, address(1), bytes, false), Err(Drop::Malformed));
    }
    let mut tight = [0; 149];
    tight[0] = 1;
    assert_eq!(b.device.handle_datagram(now, address(1), &tight, false), Err(Drop::Malformed));
    assert_eq!(b.device.handle_datagram(now, address(1), &tight[..148], false), Err(Drop::InvalidMac1));
}

#[test]
fn nothing_is_sent_to_low_order_points() {
    let mut one = [0; 32];
    one[0] = 1;
    let eighth = hex::decode("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157").unwrap();
    for bytes in [[0; 32], one, eighth.try_into().unwrap()] {
        let now = at(secs(0));
        let mut node = Node::new(now, 1);
        let id = node.add_peer(now, PublicKey::from_bytes(bytes), Some(address(2)));
        node.device.set_persistent_keepalive(now, id, Some(secs(25)));
        node.send(now, b"data");
        for second in 1..100 {
            node.timeout(at(secs(second)));
        }
        assert!(node.out.is_empty());
    }
}

#[test]
fn under_load_a_cookie_is_needed_and_the_handshake_still_succeeds() {
    let now = at(secs(0));
    let (mut a, mut b) = pair(now);
    (a.under_load, b.under_load) = (true, true);
    a.send(now, b"data");
    exchange(now, &mut a, &mut b);
    assert_eq!(b.drops, [Drop::CookieSent]);
    assert!(b.told.is_empty() && a.told.is_empty(), "a cookie reply confirms no endpoint");
    // The second initiation has a cookie, but now the response needs one.
    a.timeout(at(secs(6)));
    exchange(at(secs(6)), &mut a, &mut b);
    assert_eq!(a.drops, [Drop::CookieSent]);
    a.timeout(at(secs(12)));
    exchange(at(secs(12)), &mut a, &mut b);
    assert!(b.arrived.contains(&b"data".to_vec()));
}

#[test]
fn peers_are_found_in_order_and_numbers_never_come_back() {
    let now = at(secs(0));
    let mut device = Device::new([0; 32]);
    let keys: Vec<PublicKey> = (1..=20).rev().map(|n| key(n).public()).collect();
    let ids: Vec<PeerId> = keys.iter().map(|&key| device.add_peer(now, key).unwrap()).collect();
    assert!(device.peers().eq(ids.iter().copied()));
    assert_eq!(device.add_peer(now, keys[3]), Err(AddPeerError::Exists(ids[3])));
    device.remove_peer(now, ids[3]);
    assert_eq!((device.find_peer(&keys[3]), device.peer_key(ids[3])), (None, None));
    let again = device.add_peer(now, keys[3]).unwrap();
    assert!(!ids.contains(&again));
    assert_eq!(device.peers().last(), Some(again));
}

#[test]
fn our_own_key_is_no_peer() {
    let now = at(secs(0));
    let mut node = Node::new(now, 1);
    assert_eq!(node.device.add_peer(now, key(1).public()), Err(AddPeerError::OwnKey));
    let id = node.add_peer(now, key(2).public(), None);
    node.device.set_private_key(now, Some(key(2)));
    node.settle(now);
    assert_eq!((node.told.as_slice(), node.device.peers().count()), ([Told::Removed].as_slice(), 0));
    assert_eq!(node.device.peer_key(id), None);
}

#[test]
fn a_new_private_key_ends_sending_and_old_sessions_still_receive() {
    let now = at(secs(0));
    let (mut a, mut b) = connected(now);
    b.send(now, b"under way");
    a.device.set_private_key(now, Some(key(9)));
    a.settle(now);
    exchange(now, &mut a, &mut b);
    assert_eq!(a.arrived, [b"under way".to_vec()]);
    a.send(now, b"data");
    exchange(now, &mut a, &mut b);
    assert_eq!(b.drops, [Drop::UnknownPeer], "the peer does not know us under the new key");
    let id = b.add_peer(now, key(9).public(), None);
    a.timeout(at(secs(6)));
    exchange(at(secs(6)), &mut a, &mut b);
    assert!(b.links[&id].current.is_some());
}

#[test]
fn a_handshake_wanted_without_a_key_is_made_when_there_is_one() {
    let now = at(secs(0));
    let (mut a, mut b) = pair(now);
    a.device.set_private_key(now, None);
    a.send(now, b"data");
    assert!(a.out.is_empty());
    assert_eq!(
        a.device.handle_datagram(
            now,
            address(2),
            &{
                let mut m = [0; 148];
                m[0] = 1;
                m
            },
            false
        ),
        Err(Drop::NoPrivateKey)
    );
    a.device.set_private_key(at(secs(1)), Some(key(1)));
    assert_eq!(a.device.poll_timeout(), Some(at(secs(1)).boot));
    a.timeout(at(secs(1)));
    exchange(at(secs(1)), &mut a, &mut b);
    assert!(b.arrived.contains(&b"data".to_vec()));
}

#[test]
fn a_device_that_goes_down_forgets_sessions_and_deadlines() {
    let now = at(secs(0));
    let (mut a, mut b) = connected(now);
    let id = a.peer();
    a.device.set_persistent_keepalive(now, id, Some(secs(25)));
    a.settle(now);
    a.out.clear();
    a.told.clear();
    a.device.set_up(now, false);
    a.settle(now);
    assert_eq!(a.told, [Told::NoCurrent, Told::Retired]);
    assert_eq!(a.device.poll_timeout(), None);
    a.send(now, b"nowhere");
    assert!(a.out.is_empty());
    b.device.handle_rekey_due(at(secs(9)), b.peer());
    b.settle(at(secs(9)));
    a.receive(at(secs(9)), &b.out.pop_front().unwrap());
    assert_eq!(a.drops, [Drop::Down]);

    a.device.set_up(at(secs(20)), true);
    a.timeout(at(secs(20)));
    exchange(at(secs(20)), &mut a, &mut b);
    assert!(a.current().is_some(), "the persistent keepalive made a session at once");
    // The notes of before do not disturb: data is watched again.
    b.out.clear();
    a.send(at(secs(21)), b"data");
    a.out.clear();
    a.timeout(at(secs(21) + secs(16)));
    assert_eq!(a.out.pop_front().unwrap().kind(), MessageType::Initiation);
}

#[test]
fn removing_a_peer_ends_everything_of_it() {
    let now = at(secs(0));
    let (mut a, mut b) = connected(now);
    let id = a.peer();
    let session = a.current().unwrap();
    a.device.remove_peer(now, id);
    a.settle(now);
    assert_eq!(a.told, [Told::Retired, Told::Removed]);
    assert!(session.is_revoked() && session.reserve(now.boot, 1).is_err());
    assert_eq!(a.device.poll_timeout(), None);
    // What its data plane may still report finds nobody.
    a.device.handle_session_wanted(now, id);
    a.device.handle_activity(now, id);
    a.device.handle_rekey_due(now, id);
    a.device.handle_session_confirmed(now, &session);
    assert!(a.device.poll_event().is_none());
    b.device.handle_rekey_due(at(secs(9)), b.peer());
    b.settle(at(secs(9)));
    a.receive(at(secs(9)), &b.out.pop_front().unwrap());
    assert_eq!(a.drops, [Drop::UnknownPeer]);
}

#[test]
fn a_session_that_exists_is_handed_out_again() {
    let now = at(secs(0));
    let (mut a, _) = connected(now);
    let id = a.peer();
    a.device.handle_session_wanted(at(secs(1)), id);
    a.settle(at(secs(1)));
    assert_eq!(a.told, [Told::Current]);
    assert!(a.out.is_empty());
}

#[test]
fn the_same_seed_does_the_same_thing() {
    let run = || {
        let now = at(secs(0));
        let (mut a, mut b) = pair(now);
        a.send(now, b"data");
        let mut sent: Vec<Datagram> = a.out.iter().cloned().collect();
        let initiation = a.out.pop_front().unwrap();
        b.receive(now, &initiation);
        sent.extend(b.out.iter().cloned());
        (sent, a.device.poll_timeout())
    };
    assert_eq!(run(), run());
}

#[test]
fn many_peers_are_quick_to_change() {
    // Quadratic behaviour anywhere would make this take minutes.
    let now = at(secs(0));
    let mut device = Device::new([0; 32]);
    device.set_up(now, true);
    let key = |n: u32| {
        let mut bytes = [0x40; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        PublicKey::from_bytes(bytes)
    };
    let ids: Vec<PeerId> = (0..100_000).map(|n| device.add_peer(now, key(n)).unwrap()).collect();
    for &id in &ids {
        device.set_preshared_key(now, id, PresharedKey::from_bytes([1; 32]));
        device.set_persistent_keepalive(now, id, Some(Duration::from_secs(25)));
    }
    for &id in ids.iter().rev() {
        device.remove_peer(now, id);
    }
    assert_eq!(device.peers().count(), 0);
    assert_eq!(device.poll_timeout(), None);
}

#[test]
fn a_response_that_does_not_decrypt_does_not_end_the_handshake() {
    // Its mac1 is good, unlike that of a simple forgery; only the preshared key differs.
    let now = at(secs(0));
    let (mut a, mut b) = pair(now);
    let (in_a, in_b) = (a.peer(), b.peer());
    b.device.set_preshared_key(now, in_b, PresharedKey::from_bytes([1; 32]));
    a.send(now, b"data");
    b.receive(now, &a.out.pop_front().unwrap());
    let response = b.out.pop_front().unwrap();
    a.receive(now, &response);
    assert_eq!(a.drops, [Drop::NotAuthentic]);
    a.device.set_preshared_key(now, in_a, PresharedKey::from_bytes([1; 32]));
    a.receive(now, &response);
    assert!(a.current().is_some());
}

#[test]
fn an_index_is_forgotten_with_what_it_named() {
    let (mut a, _) = pair(at(secs(0)));
    a.send(at(secs(0)), b"data");
    let index_of = |initiation: &Datagram| initiation.bytes[4..8].to_vec();
    let first = index_of(&a.out.pop_front().unwrap());
    a.timeout(at(secs(6)));
    let second = index_of(&a.out.pop_front().unwrap());
    for (index, reason) in [(second, Drop::NotAuthentic), (first, Drop::UnknownIndex)] {
        let mut reply = [0; 64];
        reply[0] = 3;
        reply[4..8].copy_from_slice(&index);
        assert_eq!(a.device.handle_datagram(at(secs(6)), address(2), &reply, false), Err(reason));
    }
}

#[test]
fn a_session_that_was_never_confirmed_does_not_displace_the_current_one() {
    let (mut a, mut b) = connected(at(secs(0)));
    let id = b.peer();
    // b asks for a new session, and a's answer is lost.
    b.device.handle_rekey_due(at(secs(10)), id);
    b.settle(at(secs(10)));
    a.receive(at(secs(10)), &b.out.pop_front().unwrap());
    a.out.clear();
    // Much later a renews; what b sent meanwhile is still under way.
    b.send(at(secs(120)), b"under way");
    let data = b.out.pop_front().unwrap();
    a.send(at(secs(120)), b"data");
    exchange(at(secs(120)), &mut a, &mut b);
    a.receive(at(secs(121)), &data);
    assert_eq!(a.arrived, [b"under way".to_vec()]);
}

//! Handshakes between two devices: who ends up with which session, and what is refused.

mod support;

use noise::message::MessageType;
use noise::{AddPeerError, Drop, PresharedKey, PrivateKey, PublicKey};
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

//! The rules that say what may pass: told by keys, and known to the data plane by the peers that there are.

use super::{Ledger, device};
use config::device::{DeviceChange, PeerChange};
use config::policy::{Rule, RuleCount, parse};
use config::uapi::ReplyReader;
use noise::{PeerId, PublicKey};
use plane::policy::Whose;

fn whose(plane: &Ledger) -> Vec<Whose> {
    plane.with(|books| books.policy.iter().map(|rule| rule.whose).collect())
}

#[test]
fn a_rule_is_about_its_peer_as_long_as_there_is_one() {
    let (device, plane) = device();
    let key = PublicKey::from_bytes([7; 32]);
    let named = format!("drop in peer={}\npass", config::key::to_base64(&key));
    let rules: Vec<Rule> = parse(named.as_bytes()).unwrap();
    device.set_policy(rules.clone());
    assert_eq!(whose(&plane), [Whose::Nobody, Whose::Anybody]);

    let add = |key| DeviceChange { peers: vec![PeerChange::new(key)], ..DeviceChange::default() };
    device.apply(add(PublicKey::from_bytes([8; 32]))).unwrap();
    device.apply(add(key)).unwrap();
    let ids: Vec<PeerId> = plane.with(|books| books.peers.keys().copied().collect());
    assert_eq!(whose(&plane), [Whose::Peer(ids[1]), Whose::Anybody]);
    let remove = PeerChange { remove: true, ..PeerChange::new(key) };
    device.apply(DeviceChange { peers: vec![remove], ..DeviceChange::default() }).unwrap();
    assert_eq!(whose(&plane), [Whose::Nobody, Whose::Anybody]);
    device.apply(add(key)).unwrap();
    assert!(matches!(whose(&plane)[..], [Whose::Peer(_), Whose::Anybody]));
    assert_eq!(plane.with(|books| books.fresh), 1, "it is the same rules all the while");

    let counted: Vec<_> = device.policy();
    let count = |packets| RuleCount { packets, bytes: 2 * packets, dropped: 0 };
    assert_eq!(counted, [(rules[0].clone(), count(0)), (rules[1].clone(), count(1))]);
    device.set_policy(Vec::new());
    assert!(whose(&plane).is_empty() && device.policy().is_empty());
    assert_eq!(plane.with(|books| books.fresh), 2);

    // As a client hears it.
    let mut told = Vec::new();
    config::uapi::write_policy(&mut told, &counted);
    told.extend(config::uapi::reply_to_get(Ok(())).bytes());
    assert_eq!(ReplyReader::new(&told[..]).policy().unwrap(), counted);
}

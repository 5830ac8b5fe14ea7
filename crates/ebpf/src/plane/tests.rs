//! What the plane writes into the maps and when: with a TUN in a namespace, and programs that nobody sends anything.

use super::*;
use crate::object::{Capacity, load};
use lab::Namespace;
use linux::tun::{self, Offloads};
use plane::policy::Whose;
use plane::userspace::{Helping, UserspaceConfig};

/// A plane, with room for two allowed IPs of each family, that takes over where another was, or does not.
fn plane(namespace: &Namespace, takes_over: bool) -> Plane {
    let begin = || {
        let tun = tun::create("wg0", 1, Offloads::default()).map_err(io::Error::other)?;
        let queue = tun.queues[0].try_clone()?;
        let offloads = tun.offloads;
        let config = UserspaceConfig {
            offloads,
            udp_gso: true,
            mtu: 1420,
            busy_poll: std::time::Duration::ZERO,
            helping: Helping::Never,
        };
        let userspace = Arc::new(Userspace::start(tun.queues, config).map_err(io::Error::other)?);
        let capacity = Capacity { peers: 8, allowed_ips: 2 };
        let loaded = load(crate::OBJECT, capacity).map_err(io::Error::other)?;
        let left = takes_over.then(|| Left { places: Vec::new(), claim: Claim::default() });
        Plane::start(userspace, loaded, left, queue, Hooks::Best).map_err(io::Error::other)
    };
    namespace.inside(begin).unwrap()
}

fn drop_of(peer: PeerId) -> PeerRule {
    let rule: inet::policy::Matching = Default::default();
    PeerRule { whose: Whose::Peer(peer), matching: rule, action: inet::policy::Action::Drop }
}

#[test]
fn rules_reach_the_programs_when_it_is_said_who_the_peers_are() {
    let namespace = Namespace::new().unwrap();
    let plane = plane(&namespace, true);
    // Those of a former daemon, in the second set.
    let word = || plane.store.maps.device().policy.load(Ordering::SeqCst);
    plane.store.maps.device().policy.store(7 << 32 | 3, Ordering::SeqCst);
    plane.set_policy(&[], true);
    assert_eq!(word(), 7 << 32 | 3, "they are in force still");
    let peer = PeerId::from_u32(5);
    plane.set_policy(&[drop_of(peer)], true);
    let lent = plane.lender().unwrap().notes(peer, None).unwrap();
    plane.set_policy(&[drop_of(peer)], false);
    assert_eq!((word(), plane.policy().len()), (7 << 32 | 3, 1));
    plane.settled();
    assert_eq!(word(), 8 << 32 | 1);
    let rule = plane.store.maps.rules.rule(0).unwrap();
    assert_eq!(rule[..4], lent.slot().to_ne_bytes(), "the peer's, which has a slot");
    plane.set_policy(&[], true);
    assert_eq!(word(), 0, "and from here on at once");
    plane.settled();
    assert_eq!(word(), 0);
}

#[test]
fn what_has_found_no_room_is_let_in_when_there_is_some() {
    let namespace = Namespace::new().unwrap();
    let plane = plane(&namespace, false);
    let peers = [1, 2].map(PeerId::from_u32);
    let lent = peers.map(|peer| plane.lender().unwrap().notes(peer, None).unwrap());
    let prefix = |last: u8| Cidr::new([10, 0, 0, last].into(), 32).unwrap();
    let change = |changes: &[AllowedIpChange]| plane.change_allowed_ips(changes);
    let is_full = || plane.desk.stands(Against::Full);
    let known = || {
        let mut known = plane.store.maps.prefixes().unwrap();
        known.sort();
        known
    };
    let insert = |last, peer| AllowedIpChange::Insert(prefix(last), peer);
    change(&[insert(1, peers[0]), insert(2, peers[0])]);
    assert!(!is_full());
    // To another peer, which some kernels refuse where there is no room for one more.
    change(&[insert(2, peers[1])]);
    assert!(!is_full());
    change(&[insert(3, peers[0]), insert(4, peers[1])]);
    assert!(is_full());
    assert_eq!(known(), [prefix(1), prefix(2)]);
    change(&[AllowedIpChange::Remove(prefix(1), peers[0])]);
    assert!(is_full());
    assert_eq!(known(), [prefix(2), prefix(3)]);
    plane.remove_peer(peers[1]);
    assert!(!is_full());
    assert_eq!(known(), [prefix(3)]);
    drop(lent);
}

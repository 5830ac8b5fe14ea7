//! What the plane writes into the maps and when: with a TUN in a namespace, and programs that nobody sends anything.

use super::*;
use crate::heritage::take_over;
use crate::maps::MapFds;
use crate::object::{Capacity, load};
use lab::{Namespace, wait_until};
use linux::heir::{self, Heritage};
use linux::tun::{self, Offloads, Tun};
use plane::policy::Whose;
use plane::userspace::{Helping, UserspaceConfig};

/// How long anything may take.
const SOON: std::time::Duration = std::time::Duration::from_secs(30);

/// Room for two allowed IPs of each family.
const CAPACITY: Capacity = Capacity { peers: 8, allowed_ips: 2 };

fn start(tun: Tun, loaded: Loaded, left: Option<Left>, hooks: Hooks) -> io::Result<Plane> {
    let queue = tun.queues[0].try_clone()?;
    let config = UserspaceConfig {
        offloads: tun.offloads,
        udp_gso: true,
        mtu: 1420,
        busy_poll: std::time::Duration::ZERO,
        helping: Helping::Never,
    };
    let userspace = Arc::new(Userspace::start(tun.queues, config).map_err(io::Error::other)?);
    Plane::start(userspace, loaded, left, queue, hooks).map_err(io::Error::other)
}

fn tun() -> io::Result<Tun> {
    tun::create("wg0", 1, Offloads::default()).map_err(io::Error::other)
}

/// A plane that takes over where another was, or does not.
fn plane(namespace: &Namespace, takes_over: bool) -> Plane {
    let begin = || {
        let loaded = load(crate::OBJECT, CAPACITY).map_err(io::Error::other)?;
        let left = takes_over.then(|| Left { places: Vec::new(), claim: Claim::default() });
        start(tun()?, loaded, left, Hooks::Best)
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

#[test]
fn programs_over_maps_of_another_version_are_replaced_in_their_places() {
    let namespace = Namespace::new().unwrap();
    let filter = || {
        let text = namespace.run("tc", &["filter", "show", "dev", "wg0", "egress"]).unwrap();
        assert_eq!(text.matches(" wireloom ").count(), 1, "one, at any time: {text}");
        text.split_once(" id ").unwrap().1.split(' ').next().unwrap().to_owned()
    };
    let begin = || {
        let tun = tun()?;
        let Loaded { maps, programs, .. } = load(crate::OBJECT, CAPACITY).map_err(io::Error::other)?;
        let (hook, index) = (Hook::FilterEgress, tun.index);
        // Those that nobody has begun to use are of no version. Who has put the filter there is killed, and does not take it away.
        std::mem::forget(Attached::new(programs.egress.as_fd(), hook, index, index)?);
        let mut kept = vec![(format!("place-{}-{index}-{index}-1", hook as u8), programs.egress)];
        kept.extend(MapFds::NAMES.iter().map(|name| format!("map-{name}")).zip(maps.all));
        let (theirs, _ours) = heir::hand_on(&kept)?;
        let mut heritage = Heritage::receive(theirs)?.expect("all of it");
        let before = filter();
        let (loaded, left) = take_over(crate::OBJECT, CAPACITY, &mut heritage).map_err(io::Error::other)?;
        let plane = start(tun, loaded, Some(left), Hooks::Filter)?;
        assert_eq!(filter(), before);
        heir::settle(Some(heritage), None);
        Ok((plane, before))
    };
    let (plane, before) = namespace.inside(begin).unwrap();
    assert_eq!(filter(), before, "as long as nobody says who the peers are");
    plane.settled();
    wait_until("the new program to be in its place", SOON, || filter() != before).unwrap();
}

//! What the plane writes into the maps and when: with a TUN in a namespace, and programs that nobody sends anything.

use super::*;
use crate::heritage::take_over;
use crate::layout::{Path, reference};
use crate::maps::MapFds;
use crate::object::{Capacity, load};
use lab::{Namespace, wait_until};
use linux::bpf::Map;
use linux::heir::{self, Heritage};
use linux::tun::{self, Offloads, Tun};
use noise::{Destination, Device, Event, Instant, Ledger, Now, PrivateKey};
use plane::policy::Whose;
use plane::userspace::{Helping, UserspaceConfig};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;

/// How long anything may take.
const SOON: std::time::Duration = std::time::Duration::from_secs(30);

/// Room for two allowed IPs of each family.
const CAPACITY: Capacity = Capacity { peers: 8, allowed_ips: 2 };

fn userspace(tun: Tun) -> io::Result<Arc<Userspace>> {
    let config = UserspaceConfig {
        offloads: tun.offloads,
        udp_gso: true,
        mtu: 1420,
        busy_poll: std::time::Duration::ZERO,
        helping: Helping::Never,
    };
    Userspace::start(tun.queues, config).map(Arc::new).map_err(io::Error::other)
}

fn start(tun: Tun, loaded: Loaded, left: Option<Left>, hooks: Hooks) -> io::Result<Plane> {
    let queue = tun.queues[0].try_clone()?;
    Plane::start(userspace(tun)?, loaded, left, queue, hooks).map_err(io::Error::other)
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

/// One whose sessions can be looked at as programs do.
fn plane_and_ledgers(namespace: &Namespace) -> (Plane, Map) {
    let begin = || {
        let loaded = load(crate::OBJECT, CAPACITY).map_err(io::Error::other)?;
        let at = MapFds::NAMES.iter().position(|name| *name == "ledgers").unwrap();
        let ledgers = Map::from_fd(loaded.maps.all[at].try_clone()?)?;
        Ok((start(tun()?, loaded, None, Hooks::Best)?, ledgers))
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

/// Has the keeper do nothing any more: it would look for ways that there are none here.
fn end_keeper(plane: &Plane) {
    plane.desk.end();
    lock(&plane.keeper).take().unwrap().join().unwrap();
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::new([192, 0, 2, last].into(), 51820)
}

/// The protocol of a plane that answers, and of a peer that begins.
struct Ends<'a> {
    plane: &'a Plane,
    devices: [Device; 2],
    peers: [PeerId; 2],
    now: Now,
}

impl Ends<'_> {
    fn new(plane: &Plane) -> Ends<'_> {
        let now = Now {
            boot: Instant::from_nanos(linux::clock::boot_nanos()),
            wall: std::time::Duration::from_secs(1_700_000_000),
        };
        let keys = [1, 2].map(|n| PrivateKey::from_bytes([n; 32]));
        let publics = keys.each_ref().map(PrivateKey::public);
        let mut devices = [Device::new([1; 32]), Device::new([2; 32])];
        devices[0].set_lender(plane.lender().unwrap());
        let mut peers = Vec::new();
        for (n, (device, key)) in devices.iter_mut().zip(keys).enumerate() {
            device.set_private_key(now, Some(key));
            device.set_up(now, true);
            peers.push(device.add_peer(now, publics[1 - n]).unwrap());
        }
        plane.add_peer(peers[0], devices[0].activity(peers[0]).unwrap());
        Ends { plane, devices, peers: peers.try_into().unwrap(), now }
    }

    /// What the plane's end has to say, all but messages; the peer hears these.
    fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.devices[0].poll_event() {
            match event {
                Event::Transmit { message, .. } => {
                    self.devices[1].handle_datagram(self.now, address(1), &message, false).unwrap();
                }
                event => events.push(event),
            }
        }
        events
    }

    /// A session that waits for its confirmation, before the plane is told of it.
    fn answered(&mut self) -> Arc<Session> {
        // Who asks again does so later.
        self.now.boot = self.now.boot + std::time::Duration::from_secs(6);
        self.now.wall += std::time::Duration::from_secs(6);
        self.devices[1].handle_rekey_due(self.now, self.peers[1]);
        while let Some(event) = self.devices[1].poll_event() {
            if let Event::Transmit { to: Destination::Peer(_), message } = event {
                self.devices[0].handle_datagram(self.now, address(2), &message, false).unwrap();
            }
        }
        let installed = self.events().into_iter().find_map(|event| match event {
            Event::SessionInstalled { session } => Some(session),
            _ => None,
        });
        // The response is not answered by a message: who would send it is not here.
        while self.devices[1].poll_event().is_some() {}
        installed.expect("it has answered")
    }

    /// What the peer is sent with by the programs.
    fn current(&self) -> &AtomicU64 {
        &self.plane.store.peer(self.peers[0]).unwrap().1.current
    }
}

fn reference_to(session: &Session) -> u64 {
    let lent = session.ledger().unwrap();
    reference(lent.slot(), lent.as_ref().epoch().load(Ordering::SeqCst))
}

/// What a program does with the first message of a session.
fn confirm(ledgers: &Map, session: &Session) {
    let (slot, mut value) = (session.ledger().unwrap().slot().to_ne_bytes(), vec![0; ledgers.sizes().1]);
    ledgers.lookup(&slot, &mut value).unwrap();
    let (_, at) = Ledger::FIELDS.iter().find(|(name, _)| *name == "awaits_confirmation").unwrap();
    assert_eq!(value[*at..][..4], 1u32.to_ne_bytes());
    value[*at..][..4].copy_from_slice(&2u32.to_ne_bytes());
    ledgers.update(&slot, &value).unwrap();
}

#[test]
fn a_session_that_is_confirmed_while_it_is_taken_up_is_heard_of() {
    let namespace = Namespace::new().unwrap();
    let (plane, ledgers) = plane_and_ledgers(&namespace);
    let mut ends = Ends::new(&plane);
    let session = ends.answered();
    let slot = session.ledger().unwrap().slot();
    confirm(&ledgers, &session);
    plane.install_session(session.clone());
    let told = plane.told(Told::Confirmed(slot));
    assert!(matches!(told, Some(PlaneEvent::SessionConfirmed(told)) if Arc::ptr_eq(&told, &session)));
    assert!(plane.told(Told::Confirmed(slot)).is_none(), "once");
}

#[test]
fn a_session_that_ends_as_it_is_confirmed_leaves_the_one_before_current() {
    let namespace = Namespace::new().unwrap();
    let (plane, ledgers) = plane_and_ledgers(&namespace);
    let mut ends = Ends::new(&plane);
    let peer = ends.peers[0];
    let first = ends.answered();
    plane.install_session(first.clone());
    assert!(first.confirm());
    plane.set_current_session(peer, Some(first.clone()));
    assert_eq!(ends.current().load(Ordering::SeqCst), reference_to(&first));
    let second = ends.answered();
    plane.install_session(second.clone());
    // A program is just at it.
    confirm(&ledgers, &second);
    ends.current().store(reference_to(&second), Ordering::SeqCst);
    plane.retire_session(&second);
    assert_eq!(ends.current().load(Ordering::SeqCst), reference_to(&first));
}

#[test]
fn a_path_that_leads_where_the_peer_is_stays_whoever_has_written_it() {
    let namespace = Namespace::new().unwrap();
    let plane = plane(&namespace, false);
    end_keeper(&plane);
    let ends = Ends::new(&plane);
    let (peer, slot) = (ends.peers[0], plane.store.slot_of(ends.peers[0]).unwrap());
    let path =
        Path { remote: address(2), local: address(1).ip(), gateway: None, ifindex: 2, mtu: 1500, macs: None, mark: 0 };
    let remote = || plane.store.peer(peer).unwrap().1.whereabouts().map(|(remote, ..)| remote);
    for is_known in [true, false] {
        plane.store.paths().set(slot, Some(path));
        if !is_known {
            plane.store.paths().forget();
        }
        plane.set_endpoint(peer, Some(Endpoint { addr: address(2), source: None }));
        assert_eq!(remote(), Some(address(2)), "known: {is_known}");
        plane.set_endpoint(peer, Some(Endpoint { addr: address(3), source: None }));
        assert_eq!(remote(), None, "known: {is_known}");
    }
}

#[test]
fn one_error_in_finding_the_interface_turns_nothing_off() {
    let namespace = Namespace::new().unwrap();
    let begin = || {
        let tun = tun()?;
        let queue = tun.queues[0].try_clone()?;
        let Loaded { maps, programs, too_big } = load(crate::OBJECT, CAPACITY).map_err(io::Error::other)?;
        let store = Arc::new(Store::new(Maps::new(maps)?.0, None)?);
        let programs = Arc::new(programs);
        let desk = Arc::new(Desk::new(store, false)?);
        let inner = Inner::new(queue, programs.clone(), Hooks::Tc, None)?;
        let underlays = Underlays::new(programs, Hooks::Tc, Vec::new());
        let keeper = Keeper::new(desk.clone(), userspace(tun)?, Ways::open()?, inner, underlays, too_big)?;
        Ok((keeper, desk))
    };
    let (mut keeper, desk) = namespace.inside(begin).unwrap();
    keeper.find_inner_twice();
    assert!(!desk.stands(Against::Elsewhere));
    namespace.ip(&["link", "delete", "wg0"]).unwrap();
    keeper.find_inner_twice();
    assert!(!desk.stands(Against::Elsewhere), "it may be there the next time");
    keeper.find_inner_twice();
    assert!(desk.stands(Against::Elsewhere));
}

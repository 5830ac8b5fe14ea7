//! What was set is what a get tells: a device against a model of one, which is a list.

use super::{Ledger, device, reply, report};
use crate::device::Device;
use crate::lock::lock;
use config::device::{AllowedIpChange, DeviceChange, PeerChange};
use inet::Cidr;
use noise::{PresharedKey, PrivateKey, PublicKey};
use proptest::prelude::*;
use std::net::SocketAddr;

/// The first two have a private key in the tests, the last is a point of low order.
const PEERS: u8 = 6;

fn private(number: u8) -> PrivateKey {
    PrivateKey::from_bytes([number + 1; 32])
}

fn public(number: u8) -> PublicKey {
    match number {
        0 | 1 => private(number).public(),
        5 => PublicKey::from_bytes([0; 32]),
        _ => PublicKey::from_bytes([0x40 + number; 32]),
    }
}

/// A change to a peer, in small numbers.
#[derive(Clone, Debug)]
struct Peer {
    key: u8,
    remove: bool,
    update_only: bool,
    psk: Option<u8>,
    endpoint: Option<u16>,
    keepalive: Option<u16>,
    replace: bool,
    /// Added or removed.
    allowed: Vec<(bool, u8)>,
}

#[derive(Clone, Debug)]
struct Change {
    /// 2 stands for none.
    private: Option<u8>,
    port: Option<u16>,
    mark: Option<u32>,
    replace: bool,
    peers: Vec<Peer>,
}

fn endpoint(number: u16) -> SocketAddr {
    match number % 2 {
        0 => ([192, 0, 2, 1], number).into(),
        _ => ([0xfe80, 0, 0, 0, 0, 0, 0, 1], number).into(),
    }
}

fn prefix(number: u8) -> Cidr {
    let text = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.0.1/32", "::/0", "fd00::1/128"][usize::from(number)];
    config::address::parse_cidr(text).unwrap().0
}

fn seldom() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.15)
}

fn peer() -> impl Strategy<Value = Peer> {
    let allowed = prop::collection::vec((prop::bool::weighted(0.75), 0..6u8), 0..4);
    let options = (prop::option::of(0..3u8), prop::option::of(1..9u16), prop::option::of(0..4u16));
    (0..PEERS, seldom(), seldom(), options, seldom(), allowed).prop_map(
        |(key, remove, update_only, (psk, endpoint, keepalive), replace, allowed)| Peer {
            key,
            remove,
            update_only,
            psk,
            endpoint,
            keepalive,
            replace,
            allowed,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    let private = prop::option::weighted(0.3, 0..3u8);
    let peers = prop::collection::vec(peer(), 0..5);
    (private, prop::option::of(0..9u16), prop::option::of(0..3u32), seldom(), peers)
        .prop_map(|(private, port, mark, replace, peers)| Change { private, port, mark, replace, peers })
}

impl Change {
    fn real(&self) -> DeviceChange {
        DeviceChange {
            private_key: self.private.map(|number| (number < 2).then(|| private(number))),
            listen_port: self.port,
            fwmark: self.mark,
            replace_peers: self.replace,
            peers: self.peers.iter().map(Peer::real).collect(),
        }
    }
}

impl Peer {
    fn real(&self) -> PeerChange {
        PeerChange {
            remove: self.remove,
            update_only: self.update_only,
            preshared_key: self.psk.map(|number| Box::new(PresharedKey::from_bytes([number; 32]))),
            endpoint: self.endpoint.map(endpoint),
            persistent_keepalive: self.keepalive,
            replace_allowed_ips: self.replace,
            allowed_ips: self
                .allowed
                .iter()
                .map(
                    |&(add, number)| {
                        if add { AllowedIpChange::Add(prefix(number)) } else { AllowedIpChange::Remove(prefix(number)) }
                    },
                )
                .collect(),
            ..PeerChange::new(public(self.key))
        }
    }
}

/// What a device should tell.
#[derive(Default)]
struct Model {
    private: Option<u8>,
    port: u16,
    mark: u32,
    peers: Vec<ModelPeer>,
}

struct ModelPeer {
    key: u8,
    psk: u8,
    endpoint: Option<u16>,
    keepalive: u16,
    allowed: Vec<u8>,
}

impl Model {
    fn apply(&mut self, change: &Change) {
        self.mark = change.mark.unwrap_or(self.mark);
        self.port = change.port.unwrap_or(self.port);
        if change.replace {
            self.peers.clear();
        }
        if let Some(number) = change.private {
            self.private = (number < 2).then_some(number);
            self.peers.retain(|peer| Some(peer.key) != self.private);
        }
        for peer in &change.peers {
            self.apply_peer(peer);
        }
    }

    fn apply_peer(&mut self, change: &Peer) {
        let at = self.peers.iter().position(|peer| peer.key == change.key);
        if change.remove {
            at.map(|at| self.peers.remove(at));
            return;
        }
        if at.is_none() && (change.update_only || self.private == Some(change.key)) {
            return;
        }
        let at = at.unwrap_or_else(|| {
            let key = change.key;
            self.peers.push(ModelPeer { key, psk: 0, endpoint: None, keepalive: 0, allowed: Vec::new() });
            self.peers.len() - 1
        });
        let peer = &mut self.peers[at];
        peer.psk = change.psk.unwrap_or(peer.psk);
        peer.endpoint = change.endpoint.or(peer.endpoint);
        peer.keepalive = change.keepalive.unwrap_or(peer.keepalive);
        if change.replace {
            peer.allowed.clear();
        }
        for &(add, number) in &change.allowed {
            if add {
                self.peers.iter_mut().for_each(|peer| peer.allowed.retain(|&other| other != number));
                self.peers[at].allowed.push(number);
            } else {
                self.peers[at].allowed.retain(|&other| other != number);
            }
        }
    }

    fn check(&self, device: &Device, plane: &Ledger) {
        let told = report(device);
        assert!(told.private_key == self.private.map(private));
        assert_eq!((told.listen_port, told.fwmark), (self.port, self.mark));
        let keys = |peers: &[config::device::Peer]| peers.iter().map(|peer| peer.public_key).collect::<Vec<_>>();
        assert_eq!(keys(&told.peers), self.peers.iter().map(|peer| public(peer.key)).collect::<Vec<_>>());
        for (told, peer) in told.peers.iter().zip(&self.peers) {
            let psk = (peer.psk > 0).then(|| PresharedKey::from_bytes([peer.psk; 32]));
            assert!(told.preshared_key.as_deref() == psk.as_ref());
            assert_eq!(told.endpoint, peer.endpoint.map(endpoint));
            assert_eq!(told.persistent_keepalive, peer.keepalive);
            assert_eq!(told.allowed_ips, peer.allowed.iter().map(|&number| prefix(number)).collect::<Vec<_>>());
            assert_eq!((told.last_handshake, told.rx_bytes, told.tx_bytes), (None, 0, 0));
        }
        // Nothing of a peer that has gone is left in the data plane.
        assert_eq!(plane.with(|books| books.peers.len()), self.peers.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_get_tells_what_was_set(changes in prop::collection::vec(change(), 1..8)) {
        let (device, plane) = device();
        let mut model = Model::default();
        for change in &changes {
            prop_assert!(device.apply(change.real()).is_ok());
            model.apply(change);
            model.check(&device, &plane);
        }
    }
}

#[test]
fn a_peer_that_is_not_mentioned_keeps_its_counters() {
    use plane::DataPlane;
    let (device, plane) = device();
    let peers = [2, 3].map(|key| PeerChange::new(public(key)));
    device.apply(DeviceChange { peers: peers.into(), ..DeviceChange::default() }).unwrap();
    let first = device.state().noise.find_peer(&public(2)).unwrap();
    plane.count_handshake(first, 7, 8);
    let mut again = PeerChange::new(public(2));
    again.replace_allowed_ips = true;
    let mut gone = PeerChange::new(public(3));
    gone.remove = true;
    device.apply(DeviceChange { peers: vec![gone, again], ..DeviceChange::default() }).unwrap();
    let told = report(&device);
    assert_eq!(told.peers.len(), 1);
    assert_eq!((told.peers[0].tx_bytes, told.peers[0].rx_bytes), (7, 8));
    assert_eq!(device.state().noise.find_peer(&public(2)), Some(first));
}

/// Under what a data plane that outlasts us keeps a peer: another key is another peer to it, and everything that makes the difference is known when the
/// peer is added.
#[test]
fn a_peer_is_known_to_the_data_plane_by_all_keys() {
    let asked = |own: u8, psk: Option<u8>| {
        let (device, plane) = device();
        let mut peer = PeerChange::new(public(2));
        peer.preshared_key = psk.map(|psk| Box::new(PresharedKey::from_bytes([psk; 32])));
        let change =
            DeviceChange { private_key: Some(Some(private(own))), peers: vec![peer], ..DeviceChange::default() };
        device.apply(change).unwrap();
        let id = device.state().noise.find_peer(&public(2)).unwrap();
        (device, plane.with(|books| books.lending.clone()), id)
    };
    let tags = [(0, None), (1, None), (0, Some(1)), (0, Some(2))].map(|(own, psk)| {
        let (_, lending, id) = asked(own, psk);
        let asked = lock(&lending.0).clone();
        let [(peer, Some(tag))] = asked[..] else { panic!("{asked:?}") };
        assert_eq!(peer, id);
        tag
    });
    assert_eq!(tags.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    assert_eq!(lock(&asked(0, Some(0)).1.0)[0].1, Some(tags[0]), "zeros are no key");

    // It changes with each of the keys, and says nothing without one.
    let (device, lending, id) = asked(0, None);
    for _ in 0..2 {
        let mut peer = PeerChange::new(public(2));
        peer.preshared_key = Some(Box::new(PresharedKey::from_bytes([2; 32])));
        device.apply(DeviceChange { peers: vec![peer], ..DeviceChange::default() }).unwrap();
    }
    for key in [Some(private(1)), None] {
        device.apply(DeviceChange { private_key: Some(key), ..DeviceChange::default() }).unwrap();
    }
    let told = lock(&lending.0).split_off(1);
    let [(_, with_psk), (_, with_other), (_, without)] = told[..] else { panic!("{told:?}") };
    assert_eq!((with_psk, without), (Some(tags[3]), None));
    assert!(with_other.is_some() && with_other != with_psk && told.iter().all(|&(peer, _)| peer == id));
}

#[test]
fn many_peers_and_a_peer_with_many_networks_are_told_whole() {
    let (device, _) = device();
    let network = |number: u32| Cidr::new((0x0a00_0000 + number).to_be_bytes().into(), 32).unwrap();
    let mut peers: Vec<PeerChange> = (0..5000u32)
        .map(|number| {
            let mut key = [9; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            let mut peer = PeerChange::new(PublicKey::from_bytes(key));
            peer.preshared_key = Some(Box::new(PresharedKey::from_bytes(key)));
            peer.allowed_ips = vec![AllowedIpChange::Add(network(number))];
            peer
        })
        .collect();
    peers[17].allowed_ips = (5000..135_560).map(|number| AllowedIpChange::Add(network(number))).collect();
    device.apply(DeviceChange { peers, ..DeviceChange::default() }).unwrap();
    let told = report(&device);
    assert_eq!(told.peers.len(), 5000);
    assert_eq!(told.peers[17].allowed_ips.len(), 130_560);
    assert!(told.peers.iter().enumerate().all(|(at, peer)| at == 17 || peer.allowed_ips == [network(at as u32)]));
    assert!(told.peers.iter().all(|peer| peer.preshared_key.is_some()));
    assert!(reply(&device).lines().all(|line| line.is_empty() || line.matches('=').count() == 1));
}

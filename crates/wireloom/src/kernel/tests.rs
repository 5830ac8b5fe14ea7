//! What is written is what the kernel would read, however it is cut; what the kernel tells is read, however it is cut; and any bytes are
//! read without harm. That a real kernel understands it is a test of the lab.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use config::address::NumericZones;
use config::device::{AllowedIpChange, Device, DeviceChange, Peer, PeerChange};
use config::show::{self, Field};
use config::uapi;
use inet::Cidr;
use linux::netlink::{Attributes, Messages, Request, find};
use noise::{PresharedKey, PrivateKey, PublicKey};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::attribute::{allowed_ip, device, peer};
use super::write::{ROOM, SetMessages};
use super::{AF_INET, AF_INET6, GET_DEVICE, HEADER, header, read};

/// What a failing case does not print, because it holds keys.
struct Unseen<T>(T);

impl<T> fmt::Debug for Unseen<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

fn cidr() -> impl Strategy<Value = Cidr> {
    prop_oneof![
        (any::<Ipv4Addr>(), 0..=32_u8).prop_map(|(ip, len)| Cidr::new(ip.into(), len).unwrap()),
        (any::<Ipv6Addr>(), 0..=128_u8).prop_map(|(ip, len)| Cidr::new(ip.into(), len).unwrap()),
    ]
}

fn endpoint() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<(Ipv4Addr, u16)>().prop_map(|(ip, port)| (ip, port).into()),
        any::<(Ipv6Addr, u16)>().prop_map(|(ip, port)| (ip, port).into()),
        (any::<u64>(), any::<u16>(), any::<u32>()).prop_map(|(low, port, scope)| {
            let ip = Ipv6Addr::from((0xfe80_u128 << 112) | u128::from(low));
            std::net::SocketAddrV6::new(ip, port, 0, scope).into()
        }),
    ]
}

fn peer_change() -> impl Strategy<Value = Unseen<PeerChange>> {
    let change = prop_oneof![
        4 => cidr().prop_map(AllowedIpChange::Add),
        1 => cidr().prop_map(AllowedIpChange::Remove),
    ];
    let count = prop_oneof![3 => 0..4_usize, 1 => 500..1500_usize];
    let changes = count.prop_flat_map(move |count| vec(change.clone(), count));
    let flags = any::<[bool; 3]>();
    let settings = (of(any::<[u8; 32]>()), of(endpoint()), of(any::<u16>()));
    (any::<[u8; 32]>(), flags, settings, changes).prop_map(|(key, flags, (psk, endpoint, keepalive), changes)| {
        let [remove, update_only, replace_allowed_ips] = flags;
        Unseen(PeerChange {
            remove,
            update_only,
            preshared_key: psk.map(|bytes| Box::new(PresharedKey::from_bytes(bytes))),
            endpoint,
            persistent_keepalive: keepalive,
            replace_allowed_ips,
            allowed_ips: changes,
            ..PeerChange::new(PublicKey::from_bytes(key))
        })
    })
}

fn change() -> impl Strategy<Value = Unseen<DeviceChange>> {
    let settings = (of(of(any::<[u8; 32]>())), of(any::<u16>()), of(any::<u32>()), any::<bool>());
    (settings, vec(peer_change(), 0..8)).prop_map(|((private, listen_port, fwmark, replace_peers), peers)| {
        Unseen(DeviceChange {
            private_key: private.map(|private| private.map(PrivateKey::from_bytes)),
            listen_port,
            fwmark,
            replace_peers,
            peers: peers.into_iter().map(|peer| peer.0).collect(),
        })
    })
}

/// Reads messages as the kernel does (`wg_set_device`), into what was asked for; parts of a peer are put together again.
fn asked(messages: &[Vec<u8>]) -> DeviceChange {
    let mut change = DeviceChange::default();
    for (at, bytes) in messages.iter().enumerate() {
        assert!(bytes.len() <= ROOM);
        let all: Vec<_> = Messages(bytes).collect();
        let [message] = &all[..] else { panic!("{} messages in one", all.len()) };
        assert_eq!((message.kind, &message.body[..HEADER]), (77, &[1, 1, 0, 0][..]));
        for (kind, value) in Attributes(&message.body[HEADER..]) {
            match kind {
                device::NAME => assert_eq!(value, b"wg0\0"),
                device::PEERS => Attributes(value).for_each(|(_, value)| read_peer_change(&mut change, value)),
                // The rest is about the device, and is said once.
                _ => {
                    assert_eq!(at, 0);
                    match kind {
                        device::PRIVATE_KEY => {
                            let bytes: [u8; 32] = value.try_into().unwrap();
                            change.private_key = Some((bytes != [0; 32]).then(|| PrivateKey::from_bytes(bytes)));
                        }
                        device::LISTEN_PORT => change.listen_port = Some(u16::from_ne_bytes(value.try_into().unwrap())),
                        device::FWMARK => change.fwmark = Some(u32::from_ne_bytes(value.try_into().unwrap())),
                        device::FLAGS => change.replace_peers = value == device::REPLACE_PEERS.to_ne_bytes(),
                        _ => panic!("attribute {kind}"),
                    }
                }
            }
        }
    }
    change
}

fn read_peer_change(change: &mut DeviceChange, value: &[u8]) {
    let key = PublicKey::from_bytes(find(value, peer::PUBLIC_KEY).unwrap().try_into().unwrap());
    let flags = find(value, peer::FLAGS).map_or(0, |flags| u32::from_ne_bytes(flags.try_into().unwrap()));
    if change.peers.last().is_none_or(|last| last.public_key != key) {
        change.peers.push(PeerChange {
            remove: flags & peer::REMOVE_ME != 0,
            update_only: flags & peer::UPDATE_ONLY != 0,
            replace_allowed_ips: flags & peer::REPLACE_ALLOWED_IPS != 0,
            ..PeerChange::new(key)
        });
    } else {
        // What goes on must not take away what was just done.
        assert!(flags & (peer::REMOVE_ME | peer::REPLACE_ALLOWED_IPS) == 0);
    }
    let to = change.peers.last_mut().unwrap();
    assert_eq!(to.update_only, flags & peer::UPDATE_ONLY != 0);
    for (kind, value) in Attributes(value) {
        match kind {
            peer::PUBLIC_KEY | peer::FLAGS => {}
            peer::PRESHARED_KEY => {
                to.preshared_key = Some(Box::new(PresharedKey::from_bytes(value.try_into().unwrap())))
            }
            peer::ENDPOINT => {
                let mut of = Device::default();
                let message = answer(|to| to.put(peer::ENDPOINT, value));
                read::message(&mut of, &message).unwrap();
                to.endpoint = of.peers[0].endpoint;
            }
            peer::KEEPALIVE => to.persistent_keepalive = Some(u16::from_ne_bytes(value.try_into().unwrap())),
            peer::ALLOWED_IPS => to.allowed_ips.extend(Attributes(value).map(|(_, value)| read_allowed_ip(value))),
            _ => panic!("attribute {kind}"),
        }
    }
}

fn read_allowed_ip(value: &[u8]) -> AllowedIpChange {
    let address = find(value, allowed_ip::ADDRESS).unwrap();
    let ip: IpAddr = match u16::from_ne_bytes(find(value, allowed_ip::FAMILY).unwrap().try_into().unwrap()) {
        AF_INET => <[u8; 4]>::try_from(address).unwrap().into(),
        AF_INET6 => <[u8; 16]>::try_from(address).unwrap().into(),
        family => panic!("family {family}"),
    };
    let network = Cidr::new(ip, find(value, allowed_ip::PREFIX_LEN).unwrap()[0]).unwrap();
    match find(value, allowed_ip::FLAGS) {
        None => AllowedIpChange::Add(network),
        Some(flags) => {
            assert_eq!(flags, allowed_ip::REMOVE_ME.to_ne_bytes());
            AllowedIpChange::Remove(network)
        }
    }
}

/// The body of an answer about a device of one peer, of which `write` tells more.
fn answer(write: impl FnOnce(&mut Request)) -> Vec<u8> {
    let mut request = Request::new(77, 0, 0, &header(GET_DEVICE));
    let peers = request.open_nest(device::PEERS);
    let one = request.open_nest(0);
    request.put(peer::PUBLIC_KEY, &[7; 32]);
    write(&mut request);
    request.close(one);
    request.close(peers);
    request.finish().split_off(16)
}

fn device() -> impl Strategy<Value = Unseen<Device>> {
    let counters = (of((1..1_u64 << 40, 0..1_000_000_000_u32)), any::<u64>(), any::<u64>());
    let settings = (of(any::<[u8; 32]>()), of(endpoint()), any::<u16>());
    let peer = (any::<[u8; 32]>(), settings, counters, vec(cidr(), 0..12)).prop_map(
        |(key, (psk, endpoint, keepalive), (at, rx_bytes, tx_bytes), allowed_ips)| {
            Unseen(Peer {
                preshared_key: psk.map(|bytes| Box::new(PresharedKey::from_bytes(bytes))),
                endpoint,
                persistent_keepalive: keepalive,
                last_handshake: at.map(|(seconds, nanos)| Duration::new(seconds, nanos)),
                rx_bytes,
                tx_bytes,
                allowed_ips,
                ..Peer::new(PublicKey::from_bytes(key))
            })
        },
    );
    let settings = (of(any::<[u8; 32]>()), any::<u16>(), any::<u32>());
    (settings, vec(peer, 0..6)).prop_map(|((private, listen_port, fwmark), peers)| {
        Unseen(Device {
            private_key: private.map(PrivateKey::from_bytes),
            listen_port,
            fwmark,
            peers: peers.into_iter().map(|peer| peer.0).collect(),
            ..Device::default()
        })
    })
}

/// What the kernel tells of a device (`wg_get_device_dump`), cut after every `piece` allowed IPs and every peer, or not at all.
fn told(of: &Device, piece: usize) -> Vec<Vec<u8>> {
    let mut first = Request::new(77, 2, 0, &header(GET_DEVICE));
    if let Some(key) = &of.private_key {
        first.put(device::PRIVATE_KEY, key.as_bytes());
        first.put(4, key.public().as_bytes());
    }
    first.put(device::LISTEN_PORT, &of.listen_port.to_ne_bytes());
    first.put(device::FWMARK, &of.fwmark.to_ne_bytes());
    first.put(1, &5_u32.to_ne_bytes());
    first.put(device::NAME, b"wg0\0");
    let mut messages = vec![first];
    for one in &of.peers {
        let mut pieces: Vec<&[Cidr]> = one.allowed_ips.chunks(piece).collect();
        if pieces.is_empty() {
            pieces.push(&[]);
        }
        for (at, piece) in pieces.into_iter().enumerate() {
            let mut to = Request::new(77, 2, 0, &header(GET_DEVICE));
            let peers = to.open_nest(device::PEERS);
            let nest = to.open_nest(0);
            to.put(peer::PUBLIC_KEY, one.public_key.as_bytes());
            if at == 0 {
                tell_peer(&mut to, one);
            }
            let list = to.open_nest(peer::ALLOWED_IPS);
            for network in piece {
                let nest = to.open_nest(0);
                match network.addr() {
                    IpAddr::V4(ip) => {
                        to.put(allowed_ip::ADDRESS, &ip.octets());
                        to.put(allowed_ip::FAMILY, &AF_INET.to_ne_bytes());
                    }
                    IpAddr::V6(ip) => {
                        to.put(allowed_ip::ADDRESS, &ip.octets());
                        to.put(allowed_ip::FAMILY, &AF_INET6.to_ne_bytes());
                    }
                }
                to.put(allowed_ip::PREFIX_LEN, &[network.prefix_len()]);
                to.close(nest);
            }
            to.close(list);
            to.close(nest);
            to.close(peers);
            messages.push(to);
        }
    }
    messages.into_iter().map(|message| message.finish().split_off(16)).collect()
}

fn tell_peer(to: &mut Request, one: &Peer) {
    let psk = one.preshared_key.as_deref().map_or([0; 32], |psk| *psk.as_bytes());
    to.put(peer::PRESHARED_KEY, &psk);
    let at = one.last_handshake.unwrap_or_default();
    to.put(peer::LAST_HANDSHAKE, &[at.as_secs().to_ne_bytes(), u64::from(at.subsec_nanos()).to_ne_bytes()].concat());
    to.put(peer::KEEPALIVE, &one.persistent_keepalive.to_ne_bytes());
    to.put(peer::TX_BYTES, &one.tx_bytes.to_ne_bytes());
    to.put(peer::RX_BYTES, &one.rx_bytes.to_ne_bytes());
    to.put(10, &1_u32.to_ne_bytes());
    match one.endpoint {
        None => {}
        Some(SocketAddr::V4(at)) => {
            let bytes = [&AF_INET.to_ne_bytes()[..], &at.port().to_be_bytes(), &at.ip().octets(), &[0; 8]].concat();
            to.put(peer::ENDPOINT, &bytes);
        }
        Some(SocketAddr::V6(at)) => {
            let (port, scope) = (at.port().to_be_bytes(), at.scope_id().to_ne_bytes());
            let bytes = [&AF_INET6.to_ne_bytes()[..], &port, &[0; 4], &at.ip().octets(), &scope].concat();
            to.put(peer::ENDPOINT, &bytes);
        }
    }
}

/// Everything about a device, to compare.
fn dump(device: &Device) -> String {
    let mut out = Vec::new();
    show::field(&mut out, None, device, Field::Dump, &NumericZones).unwrap();
    show::field(&mut out, None, device, Field::LatestHandshakes, &NumericZones).unwrap();
    String::from_utf8(out).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_change_is_asked_for_however_it_is_cut(Unseen(mut change) in change()) {
        let messages: Vec<Vec<u8>> = SetMessages::new(77, "wg0", &change).map(|message| message.to_vec()).collect();
        prop_assert!(!messages.is_empty());
        let asked = asked(&messages);
        for peer in change.peers.iter_mut().filter(|peer| peer.remove) {
            // Of a peer that goes nothing else is said.
            let update_only = peer.update_only;
            *peer = PeerChange { remove: true, update_only, ..PeerChange::new(peer.public_key) };
        }
        prop_assert!(uapi::write_set(&asked) == uapi::write_set(&change));
    }

    #[test]
    fn a_device_is_read_however_it_is_cut(Unseen(device) in device(), piece in 1..20_usize) {
        let mut read = Device::default();
        for message in told(&device, piece) {
            prop_assert_eq!(read::message(&mut read, &message), Ok(()));
        }
        prop_assert_eq!(dump(&read), dump(&device));
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in vec(any::<u8>(), 0..300)) {
        let _ = read::message(&mut Device::default(), &bytes);
    }

    #[test]
    fn what_is_nearly_right_is_read_without_harm(Unseen(device) in device(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        for mut message in told(&device, 3) {
            let at = at.index(message.len());
            message[at] = byte;
            let _ = read::message(&mut Device::default(), &message);
            message.truncate(cut.index(message.len()));
            let _ = read::message(&mut Device::default(), &message);
        }
    }
}

#[test]
fn a_hundred_and_thirty_thousand_allowed_ips_take_many_messages() {
    let mut one = PeerChange::new(PublicKey::from_bytes([1; 32]));
    one.replace_allowed_ips = true;
    one.allowed_ips = (0..130_560_u32)
        .map(|at| AllowedIpChange::Add(Cidr::new(Ipv4Addr::from(0x0a00_0000 + at).into(), 32).unwrap()))
        .collect();
    let change = DeviceChange { peers: vec![one], ..DeviceChange::default() };
    let messages: Vec<Vec<u8>> = SetMessages::new(77, "wg0", &change).map(|message| message.to_vec()).collect();
    assert!(messages.len() > 100);
    assert!(uapi::write_set(&asked(&messages)) == uapi::write_set(&change));
}

#[test]
fn nonsense_is_told_as_such() {
    let wrong = |write: fn(&mut Request)| read::message(&mut Device::default(), &answer(write)).unwrap_err().0;
    assert_eq!(wrong(|to| to.put(peer::PRESHARED_KEY, &[1; 31])), "a key that is not one");
    assert_eq!(wrong(|to| to.put(peer::KEEPALIVE, &[1])), "a keepalive interval that is not one");
    assert_eq!(wrong(|to| to.put(peer::LAST_HANDSHAKE, &[1; 8])), "a handshake time that is not one");
    assert_eq!(wrong(|to| to.put(peer::LAST_HANDSHAKE, &[255; 16])), "a handshake time that is not one");
    assert_eq!(wrong(|to| to.put(peer::RX_BYTES, &[1; 4])), "a byte count that is not one");
    assert_eq!(wrong(|to| to.put(peer::ALLOWED_IPS, &[4, 0, 0, 0])), "an allowed IP that is not one");
    assert!(read::message(&mut Device::default(), &[0; 3]).is_err());
}

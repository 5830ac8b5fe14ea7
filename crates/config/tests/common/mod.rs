//! Devices and changes to them, made up for the tests of the formats.

#![allow(dead_code, clippy::unwrap_used)] // each test uses some of it; what cannot be made up fails the test

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use config::address::Zones;
use config::device::{AllowedIpChange, Device, DeviceChange, Peer, PeerChange};
use config::show::{self, Field, Style};
use inet::Cidr;
use noise::{PresharedKey, PrivateKey, PublicKey};
use proptest::option;
use proptest::prelude::*;

/// A host with one interface, `eth7`, of index 7.
pub struct Links;

impl Zones for Links {
    fn index(&self, name: &str) -> Option<u32> {
        (name == "eth7").then_some(7)
    }
    fn name(&self, index: u32) -> Option<String> {
        (index == 7).then(|| "eth7".to_owned())
    }
}

/// Everything that a device says of itself, in the forms of `show`.
pub fn show(device: &Device) -> String {
    let mut out = Vec::new();
    let style = Style { colour: true, show_keys: true, now: Duration::from_secs(u64::MAX), zones: &Links };
    show::pretty(&mut out, "wg0", device, &style).unwrap();
    show::field(&mut out, Some("wg0"), device, Field::Dump, &Links).unwrap();
    String::from_utf8(out).unwrap()
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<Ipv4Addr>().prop_map(IpAddr::from),
        any::<Ipv6Addr>().prop_map(IpAddr::from),
        any::<u32>().prop_map(|low| Ipv6Addr::from(u128::from(low)).into()),
    ]
}

pub fn cidr() -> impl Strategy<Value = Cidr> {
    (ip(), 0..=128_u8).prop_map(|(ip, len)| Cidr::new(ip, if ip.is_ipv4() { len / 4 } else { len }).unwrap())
}

pub fn endpoint() -> impl Strategy<Value = SocketAddr> {
    let link_local = (any::<u64>(), any::<u16>(), 0..10_u32).prop_map(|(low, port, zone)| {
        SocketAddrV6::new((0xfe80 << 112 | u128::from(low)).into(), port, 0, zone).into()
    });
    // Mapped addresses are read as IPv4, so they would not read back as they were written.
    prop_oneof![(ip(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port)), link_local]
}

/// What proptest may print of a device when a test fails: nothing, since keys have no `Debug`. The seed is printed, which is enough.
pub struct Silent<T>(pub T);

impl<T> std::fmt::Debug for Silent<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl<T> std::ops::Deref for Silent<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

type Bytes = [u8; 32];

fn peer() -> impl Strategy<Value = Silent<Peer>> {
    let networks = proptest::collection::vec(cidr(), 0..5);
    let time = option::of((0..1_u64 << 40, 1..1_000_000_000_u32));
    (any::<Bytes>(), option::of(1..=u8::MAX), option::of(endpoint()), any::<u16>(), networks, time, any::<(u64, u64)>())
        .prop_map(|(key, psk, endpoint, persistent_keepalive, allowed_ips, time, (rx_bytes, tx_bytes))| {
            Silent(Peer {
                public_key: PublicKey::from_bytes(key),
                preshared_key: psk.map(|byte| Box::new(PresharedKey::from_bytes([byte; 32]))),
                endpoint,
                persistent_keepalive,
                allowed_ips,
                last_handshake: time.map(|(seconds, nanos)| Duration::new(seconds, nanos)),
                rx_bytes,
                tx_bytes,
                reception: None,
            })
        })
}

pub fn device() -> impl Strategy<Value = Silent<Device>> {
    let peers = proptest::collection::vec(peer(), 0..5);
    (option::of(any::<Bytes>()), any::<u16>(), any::<u32>(), peers).prop_map(|(key, listen_port, fwmark, peers)| {
        let private_key = key.map(PrivateKey::from_bytes);
        let peers = peers.into_iter().map(|peer| peer.0).collect();
        Silent(Device { private_key, public_key: None, listen_port, fwmark, peers })
    })
}

fn peer_change() -> impl Strategy<Value = Silent<PeerChange>> {
    let networks = proptest::collection::vec(
        (cidr(), any::<bool>())
            .prop_map(|(cidr, add)| if add { AllowedIpChange::Add(cidr) } else { AllowedIpChange::Remove(cidr) }),
        0..5,
    );
    let values = (option::of(any::<Bytes>()), option::of(endpoint()), option::of(any::<u16>()), networks);
    (any::<Bytes>(), any::<[bool; 3]>(), values).prop_map(
        |(key, [remove, update_only, replace_allowed_ips], (psk, endpoint, persistent_keepalive, allowed_ips))| {
            let public_key = PublicKey::from_bytes(key);
            if remove {
                return Silent(PeerChange { remove, update_only, ..PeerChange::new(public_key) });
            }
            let preshared_key = psk.map(PresharedKey::from_bytes);
            Silent(PeerChange {
                public_key,
                remove,
                update_only,
                preshared_key: preshared_key.map(Box::new),
                endpoint,
                persistent_keepalive,
                replace_allowed_ips,
                allowed_ips,
            })
        },
    )
}

pub fn change() -> impl Strategy<Value = Silent<DeviceChange>> {
    let peers = proptest::collection::vec(peer_change(), 0..5);
    let device =
        (option::of(option::of(any::<Bytes>())), option::of(any::<u16>()), option::of(any::<u32>()), any::<bool>());
    (device, peers).prop_map(|((key, listen_port, fwmark, replace_peers), peers)| {
        let private_key = key.map(|key| key.map(PrivateKey::from_bytes));
        let peers = peers.into_iter().map(|peer| peer.0).collect();
        Silent(DeviceChange { private_key, listen_port, fwmark, replace_peers, peers })
    })
}

//! Two hosts, programs at both ends and nobody else: static keys in the maps, and the kernel's own traffic through the tunnel.

use std::net::IpAddr;

use crate::bed::{Host, KEYS};
use lab::{Gso, Link, Namespace, iperf, ping};
use linux::tun::Offloads;

fn pair(v6: bool, gso: Gso, xdp: bool) -> (Link, Host, Host) {
    let (left, right) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let link = Link::new(&left, &right, gso).unwrap();
    let one = Host::new(&link.left, 1, Offloads::ALL, &[], xdp);
    let two = Host::new(&link.right, 2, Offloads::ALL, &[], xdp);
    one.meet(&link.right, v6, 2, Some(&KEYS));
    two.meet(&link.left, v6, 1, Some(&KEYS.mirrored()));
    (link, one, two)
}

const INNER: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

#[test]
fn pings_cross_in_all_four_combinations() {
    for (v6, xdp) in [(false, false), (true, false), (false, true), (true, true)] {
        let (_link, one, two) = pair(v6, Gso::Off, xdp);
        for inner in INNER {
            let to: IpAddr = inner.parse().unwrap();
            let trips = ping::ping(&one.port.namespace, to, 20, "0.01", crate::bed::LIMIT).unwrap();
            let told = format!("{inner} in v6 {v6}, XDP {xdp}: {} / {}", one.loaded.counts(), two.loaded.counts());
            assert_eq!(trips.received, 20, "{told}");
        }
    }
}

#[test]
fn streams_cross() {
    for (v6, xdp) in [(false, false), (true, false), (false, true), (true, true)] {
        let (_link, one, two) = pair(v6, Gso::Off, xdp);
        for inner in INNER {
            let to: IpAddr = inner.parse().unwrap();
            let run = iperf::tcp(&one.port.namespace, &two.port.namespace, to, 1, 2).unwrap();
            let told = format!("{inner} in v6 {v6}, XDP {xdp}: {} / {}", one.loaded.counts(), two.loaded.counts());
            assert!(run.bytes > 1 << 20, "{told}");
        }
    }
}

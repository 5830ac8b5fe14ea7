//! What the sender of a packet hears when the tunnel cannot carry it.

use std::net::IpAddr;

use lab::{Endpoints, TunnelSpec, ping};

use crate::common::{check_pings, our_tunnel, spec};

#[track_caller]
fn check_unreachable(from: &lab::End, to: IpAddr) {
    let finished = ping::once(from.namespace(), to, &[]).unwrap();
    assert!(!finished.status.success());
    let text = finished.log().to_lowercase();
    assert!(text.contains("unreachable"), "{to}: {text}");
}

#[test]
fn an_address_that_no_peer_has_is_unreachable() {
    let tunnel = our_tunnel();
    for address in ["10.77.0.99", "fd77::99"] {
        check_unreachable(&tunnel.left, address.parse().unwrap());
    }
    check_pings(&tunnel.left, &tunnel.right);
}

#[test]
fn a_peer_without_an_endpoint_is_unreachable() {
    let tunnel = TunnelSpec { endpoints: Endpoints::OnlyRight, ..spec() }.build().unwrap();
    for address in tunnel.right.inner() {
        check_unreachable(&tunnel.left, address);
    }
    // Until it is heard of.
    check_pings(&tunnel.right, &tunnel.left);
    check_pings(&tunnel.left, &tunnel.right);
}

#[test]
fn packets_from_addresses_that_are_not_the_peers_are_dropped() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let interface = &left.daemon.interface;
    for (spoofed, to) in [("10.77.0.50", IpAddr::from(right.v4)), ("fd77::50", IpAddr::from(right.v6))] {
        let prefix = if to.is_ipv4() { "/32" } else { "/128" };
        let address = format!("{spoofed}{prefix}");
        let mut args = vec!["address", "add", &address, "dev", interface];
        if to.is_ipv6() {
            args.push("nodad");
        }
        left.namespace().ip(&args).unwrap();
        let before = right.counters().unwrap().received_packets;
        let lost = ping::once(left.namespace(), to, &["-I", spoofed, "-W", "1"]).unwrap();
        assert!(!lost.status.success());
        let after = right.counters().unwrap().received_packets;
        assert_eq!(after, before, "a spoofed packet came out of the tunnel");
        left.namespace().ip(&["address", "del", &address, "dev", interface]).unwrap();
    }
    check_pings(left, right);
}

//! A host whose own addresses and routes change, and one that has several: which address it sends from.

use std::net::IpAddr;

use lab::traffic::{Service, exchange_tcp};
use lab::{End, Endpoints, Gso, Link, Namespace, Outer, Port, Tap, TunnelSpec, wait_until};

use crate::common::{BYTES, LIMIT, SOON, Stream, check_pings, ends, introduce, ip, spec, wait_for_ping};
use crate::engines::{each_engine, each_engine_and_mixed};

each_engine!(
    an_address_that_goes_is_not_sent_from_any_more,
    a_route_that_takes_over_brings_its_own_address,
    who_comes_in_by_one_link_and_is_reached_by_another_is_answered_from_there,
    a_rule_of_our_port_decides_the_way_out,
    a_host_may_reach_another_by_either_family,
    a_host_with_one_family_alone_works,
);

each_engine_and_mixed!(each_way_to_a_host_is_answered_from_where_it_leads);

fn outer_address(port: &Port, outer: Outer) -> IpAddr {
    match outer {
        Outer::V4 => port.v4.into(),
        Outer::V6 => port.v6.into(),
    }
}

fn an_address_that_goes_is_not_sent_from_any_more() {
    for outer in [Outer::V4, Outer::V6] {
        let tunnel = TunnelSpec { outer, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        // With its first address a network would lose the others.
        let promote = format!("net/ipv4/conf/{}/promote_secondaries", left.port.interface);
        left.namespace().set_sysctl(&promote, "1").unwrap();
        check_pings(left, right);
        let (v4, v6) = tunnel.link.spare_addresses(9);
        left.port.add_addresses(v4, v6).unwrap();
        let stream = Stream::start(left, right, 2);
        wait_until("the stream to flow", SOON, || left.peer(right).unwrap().sent > 100_000).unwrap();
        left.port.remove_addresses().unwrap();
        stream.finish(20);
        let expected = match outer {
            Outer::V4 => v4.into(),
            Outer::V6 => IpAddr::from(v6),
        };
        assert_eq!(right.peer(left).unwrap().endpoint.unwrap().ip(), expected);
    }
}

fn a_route_that_takes_over_brings_its_own_address() {
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let first = Link::new(&a, &b, Gso::Through).unwrap();
    let second = Link::new(&a, &b, Gso::Through).unwrap();
    let (left, right) = ends(&first.left, &first.right);
    // The right host has an address that both links lead to.
    ip(&right, "address add 10.50.0.1/32 dev lo");
    let route = |link: &Link, metric: u8| {
        let Port { interface, v4, .. } = &link.left;
        format!("route add 10.50.0.1/32 via {} dev {interface} src {v4} metric {metric}", link.right.v4)
    };
    ip(&left, &route(&first, 20));
    left.add_peer(&right, Some(([10, 50, 0, 1], right.listen_port).into()), None).unwrap();
    right.add_peer(&left, None, None).unwrap();
    check_pings(&left, &right);
    let seen_at = || right.peer(&left).unwrap().endpoint.unwrap().ip();
    assert_eq!(seen_at(), IpAddr::from(first.left.v4));

    // Both ways are open; the new one is better. It is taken, and not with the address of the old one.
    let stream = Stream::start(&left, &right, 60);
    wait_until("the stream to flow", SOON, || left.peer(&right).unwrap().sent > 100_000).unwrap();
    ip(&left, &route(&second, 10));
    wait_until("the other address", SOON, || seen_at() == IpAddr::from(second.left.v4)).unwrap();
    stream.end(20);
    // And back, when it goes.
    ip(&left, &route(&second, 10).replace("add", "del"));
    wait_for_ping(&left, &right);
    wait_until("the first address", SOON, || seen_at() == IpAddr::from(first.left.v4)).unwrap();
    check_pings(&right, &left);
}

fn who_comes_in_by_one_link_and_is_reached_by_another_is_answered_from_there() {
    answer_by_another_link(|left, second| {
        ip(left, &format!("route add 10.50.0.1/32 via {} dev {}", second.right.v4, second.left.interface));
    });
}

fn a_rule_of_our_port_decides_the_way_out() {
    answer_by_another_link(|left, second| {
        ip(left, &format!("route add 10.50.0.1/32 via {} dev {} table 50", second.right.v4, second.left.interface));
        ip(left, &format!("rule add ipproto udp sport {} lookup 50", left.listen_port));
    });
}

/// `lead` sends what the left host has for the right one by the second link.
fn answer_by_another_link(lead: impl Fn(&End, &Link)) {
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let first = Link::switched(&a, &b, Gso::Through).unwrap();
    let second = Link::switched(&a, &b, Gso::Through).unwrap();
    let (left, right) = ends(&first.left, &first.right);
    // The right host sends from an address of its own, by the first link; the left one's way there is the second.
    ip(&right, "address add 10.50.0.1/32 dev lo");
    ip(&right, &format!("route add {}/32 dev {} src 10.50.0.1", first.left.v4, first.right.interface));
    // Any other datagram for it would leave by the first.
    ip(&left, &format!("route add 10.50.0.0/24 via {} dev {}", first.right.v4, first.left.interface));
    lead(&left, &second);
    left.add_peer(&right, None, None).unwrap();
    right.add_peer(&left, Some((first.left.v4, left.listen_port).into()), None).unwrap();
    let from_the_first = format!("udp sport {} ip saddr {}", left.listen_port, first.left.v4);
    let from_the_first = [&first.left, &second.left].map(|port| Tap::on_wire(port, &from_the_first, "").unwrap());
    let from_the_first = || from_the_first.iter().map(|tap| tap.packets().unwrap()).sum::<u64>();
    let seen_at = || right.peer(&left).unwrap().endpoint.unwrap().ip();
    wait_for_ping(&right, &left);
    assert_eq!(seen_at(), IpAddr::from(second.left.v4));
    // The right host is told the first address again and again, and packets to it do not bring that back, whatever other routes change.
    for n in 0..3 {
        ip(&left, &format!("route add 10.60.{n}.0/24 via {} dev {}", first.right.v4, first.left.interface));
        let endpoint = format!("{}:{}", first.left.v4, left.listen_port);
        right.daemon.set(&["peer", &left.keys.public, "endpoint", &endpoint]).unwrap();
        check_pings(&right, &left);
        assert_eq!(seen_at(), IpAddr::from(second.left.v4));
    }
    assert_eq!(from_the_first(), 0, "not even the first answer leaves from there");
}

fn each_way_to_a_host_is_answered_from_where_it_leads() {
    for outer in [Outer::V4, Outer::V6] {
        // The address that is asked is none of the interface that the answers leave by.
        let tunnel = TunnelSpec { outer, endpoints: Endpoints::OnlyRight, gso: Gso::Off, switched: true, ..spec() }
            .build()
            .unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        let port = left.listen_port;
        let (asked, via) = match outer {
            Outer::V4 => ("10.50.0.9", left.port.v4.to_string()),
            Outer::V6 => ("fd50::9", left.port.v6.to_string()),
        };
        let (bits, family, endpoint) = match outer {
            Outer::V4 => (32, "ip", format!("{asked}:{port}")),
            Outer::V6 => (128, "ip6", format!("[{asked}]:{port}")),
        };
        ip(left, &format!("address add {asked}/{bits} dev lo"));
        ip(right, &format!("route add {asked}/{bits} via {via}"));
        right.daemon.set(&["peer", &left.keys.public, "endpoint", &endpoint]).unwrap();
        let elsewhere = format!("udp sport {port} {family} saddr != {asked}");
        let elsewhere = Tap::on_wire(&left.port, &elsewhere, "").unwrap();
        let from_there = format!("udp sport {port} {family} saddr {asked}");
        let from_there = Tap::on_wire(&left.port, &from_there, "").unwrap();
        check_pings(right, left);
        // Runs that the receiver's kernel joins, and the answers to each of them.
        let _service = Service::start(left.namespace()).unwrap();
        for address in left.inner() {
            exchange_tcp(right.namespace(), address, BYTES, LIMIT).unwrap();
        }
        assert_eq!(right.peer(left).unwrap().endpoint.unwrap().to_string(), endpoint);
        assert_eq!(elsewhere.packets().unwrap(), 0, "{outer:?}");
        assert!(from_there.packets().unwrap() > 100, "{outer:?}");
    }
}

fn a_host_may_reach_another_by_either_family() {
    let tunnel = spec().build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    // Told of the other family in mid-traffic, and followed there.
    let stream = Stream::start(left, right, 3);
    for outer in [Outer::V6, Outer::V4, Outer::V6] {
        let endpoint = right.endpoint(outer).to_string();
        let expected = outer_address(&left.port, outer);
        // Again and again: an answer that was on the way from the old address takes the left end back there.
        wait_until("the other end to follow", SOON, || {
            left.daemon.set(&["peer", &right.keys.public, "endpoint", &endpoint]).unwrap();
            right.peer(left).unwrap().endpoint.unwrap().ip() == expected
        })
        .unwrap();
    }
    stream.finish(20);
}

fn a_host_with_one_family_alone_works() {
    let without = |end: &End, outer: Outer| match outer {
        Outer::V4 => {
            // As far as sysctl goes: no address, no neighbour, nothing may be sent.
            for name in ["all", "default", &end.port.interface] {
                end.namespace().set_sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
            }
        }
        Outer::V6 => {
            ip(end, &format!("-4 address flush dev {}", end.port.interface));
            ip(end, "-4 address flush dev lo");
        }
    };
    for outer in [Outer::V4, Outer::V6] {
        let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        let link = Link::new(&a, &b, Gso::Through).unwrap();
        let start = |port: &Port, host| {
            let daemon = crate::common::wireloom().start(&port.namespace).unwrap();
            End::new(daemon, port, host).unwrap()
        };
        let (left, right) = (start(&link.left, 1), start(&link.right, 2));
        for end in [&left, &right] {
            without(end, outer);
            let key = end.keys.private.path();
            end.daemon.set(&["private-key", &key, "listen-port", &end.listen_port.to_string()]).unwrap();
            ip(end, &format!("address add {}/24 dev {}", end.v4, end.daemon.interface));
            end.daemon.up().unwrap();
        }
        introduce(&left, &right, outer);
        wait_for_ping(&left, &right);
        let stream = Stream::start(&right, &left, 1);
        stream.finish(5);
        let _service = Service::start(right.namespace()).unwrap();
        exchange_tcp(left.namespace(), right.v4.into(), BYTES, LIMIT).unwrap();
        // The endpoint of a family that the host cannot use is no harm, and no obstacle to the way back.
        let other = if outer == Outer::V4 { Outer::V6 } else { Outer::V4 };
        let endpoint = right.endpoint(other).to_string();
        left.daemon.set(&["peer", &right.keys.public, "endpoint", &endpoint]).unwrap();
        lab::ping::once(left.namespace(), right.v4.into(), &["-W", "1"]).unwrap();
        wait_for_ping(&right, &left);
        wait_for_ping(&left, &right);
    }
}

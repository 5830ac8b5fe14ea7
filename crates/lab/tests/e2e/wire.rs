//! What is on the wire: congestion marks and classes, keepalives, and silence.

use std::time::Duration;

use lab::traffic::{Service, exchange_tcp};
use lab::{End, Endpoints, Hook, Outer, Tap, Tunnel, TunnelSpec, ping, wait_until};

use crate::common::{BYTES, LIMIT, SOON, check_pings, ip, messages_to, our_tunnel, spec};
use crate::engines::{each_engine, each_engine_and_mixed, each_engine_untaken};

each_engine_and_mixed!(
    congestion_marks_go_through_and_classes_do_not,
    congestion_on_the_way_is_told_to_who_understands_it,
    congestion_in_the_middle_slows_tcp_down_and_damages_nothing,
);

each_engine!(
    handshakes_are_of_the_class_af41_and_nothing_has_a_flow_label,
    who_has_nothing_to_say_is_silent,
    a_host_without_anything_but_a_route_hears_why_not,
);

each_engine_untaken!(persistent_keepalives_are_switched_while_it_runs);

/// In nftables' language: what a packet of the family is called.
fn family(outer: Outer) -> &'static str {
    match outer {
        Outer::V4 => "ip",
        Outer::V6 => "ip6",
    }
}

fn at(end: &End, hook: Hook, rule: &str) -> Tap {
    Tap::new(end.namespace(), hook, rule, "").unwrap()
}

/// What an end sends, as it is on the wire.
fn sent(by: &End, rule: &str) -> Tap {
    Tap::on_wire(&by.port, rule, "").unwrap()
}

fn congestion_marks_go_through_and_classes_do_not() {
    for outer in [Outer::V4, Outer::V6] {
        let tunnel = TunnelSpec { outer, switched: true, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        check_pings(left, right);
        let (ip, data) = (family(outer), messages_to(right, 4));
        for to in right.inner() {
            // Expedited forwarding (46), with each of the marks.
            for (mark, class) in [("not-ect", "0xb8"), ("ect1", "0xb9"), ("ect0", "0xba"), ("ce", "0xbb")] {
                let tap = sent(left, &format!("{data} {ip} dscp 0 {ip} ecn {mark}"));
                let before = tap.packets().unwrap();
                let trips = ping::once(left.namespace(), to, &["-Q", class]).unwrap();
                assert!(trips.status.success(), "{}", trips.log());
                assert!(tap.packets().unwrap() > before, "{outer:?} {to}: {mark} is not on the outside");
            }
        }
        // Nothing that carries data has another class or hop limit than that of any packet of this host.
        let hops = if outer == Outer::V4 { "ip ttl != 64" } else { "ip6 hoplimit != 64" };
        for other in [format!("{ip} dscp != 0"), hops.to_owned()] {
            let tap = sent(left, &format!("{data} {other}"));
            for to in right.inner() {
                let options = ["-Q", "0xb8", "-t", "9"];
                assert!(ping::once(left.namespace(), to, &options).unwrap().status.success());
            }
            assert_eq!(tap.packets().unwrap(), 0, "{outer:?}: {other}");
        }
    }
}

fn congestion_on_the_way_is_told_to_who_understands_it() {
    for outer in [Outer::V4, Outer::V6] {
        let tunnel = TunnelSpec { outer, switched: true, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        check_pings(left, right);
        let congested = messages_to(right, 4);
        let congest = |mark: &str| {
            let change = format!("{} ecn set {mark}", family(outer));
            Tap::on_wire(&left.port, &congested, &change).unwrap()
        };
        for (met, sent, received) in [
            ("ce", "0xba", "ce"),
            ("ce", "0xb9", "ce"),
            ("ect1", "0xba", "ect1"),
            ("ect0", "0xb9", "ect1"),
            ("not-ect", "0xba", "ect0"),
            // Who does not take part is left alone, and not cut off, as by the kernel.
            ("ce", "0xb8", "not-ect"),
        ] {
            let congestion = congest(met);
            for to in right.inner() {
                let inside = if to.is_ipv4() { Outer::V4 } else { Outer::V6 };
                let name = family(inside);
                let rule = format!("iifname {} {name} dscp ef {name} ecn {received}", right.daemon.interface);
                let tap = at(right, Hook::Incoming, &rule);
                let trips = ping::once(left.namespace(), to, &["-Q", sent]).unwrap();
                assert!(trips.status.success(), "{outer:?} {met} on {sent}: {}", trips.log());
                assert_eq!(tap.packets().unwrap(), 1, "{outer:?} {to}: {met} on {sent}");
            }
            assert!(congestion.packets().unwrap() > 0);
            congestion.remove().unwrap();
        }
    }
}

fn handshakes_are_of_the_class_af41_and_nothing_has_a_flow_label() {
    for outer in [Outer::V4, Outer::V6] {
        let tunnel = TunnelSpec { outer, endpoints: Endpoints::OnlyLeft, switched: true, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        let class = format!("{} dscp af41 {0} ecn not-ect", family(outer));
        let initiations = at(right, Hook::Incoming, &format!("{} {class}", messages_to(right, 1)));
        let responses = at(left, Hook::Incoming, &format!("{} {class}", messages_to(left, 2)));
        let labels = sent(left, &format!("udp dport {} ip6 flowlabel != 0", right.listen_port));
        check_pings(left, right);
        assert_eq!((initiations.packets().unwrap(), responses.packets().unwrap()), (1, 1), "{outer:?}");
        assert_eq!(labels.packets().unwrap(), 0);
    }
}

/// Nothing inside that speaks of itself.
fn quiet(tunnel: &Tunnel) {
    for end in [&tunnel.left, &tunnel.right] {
        let path = format!("net/ipv6/conf/{}/disable_ipv6", end.daemon.interface);
        end.namespace().set_sysctl(&path, "1").unwrap();
    }
}

/// All that one end sends to the port of the other.
fn all(from: &End, to: &End) -> Tap {
    sent(from, &format!("udp dport {}", to.listen_port))
}

fn who_has_nothing_to_say_is_silent() {
    let tunnel = TunnelSpec { switched: true, ..spec() }.build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    quiet(&tunnel);
    let (to_left, to_right) = (all(right, left), all(left, right));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((to_left.packets().unwrap(), to_right.packets().unwrap()), (0, 0), "before there is traffic");
    // A request and its answer: the initiation, the response, the request, the answer. The initiator may confirm the session by a
    // keepalive besides, if the request is on its way already as it is about to: the kernel's self-test takes either, too.
    let trip = || assert!(ping::once(left.namespace(), right.v4.into(), &[]).unwrap().status.success());
    trip();
    std::thread::sleep(Duration::from_millis(500));
    let count = || (to_left.packets().unwrap(), to_right.packets().unwrap());
    let (came, went) = count();
    assert!(came == 2 && (went == 2 || went == 3), "{came} and {went}");
    let confirmed = (went - 2) * 32;
    let (one, two) = (left.peer(right).unwrap(), right.peer(left).unwrap());
    assert_eq!((one.sent, one.received), (148 + 128 + confirmed, 92 + 128));
    assert_eq!((two.sent, two.received), (92 + 128, 148 + 128 + confirmed));
    // Who answered owes nothing; who got the answer sends one keepalive ten seconds later, if there is nothing else.
    trip();
    assert_eq!(count(), (came + 1, went + 1));
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(count(), (came + 1, went + 1), "in between");
    wait_until("the keepalive", SOON, || count() == (came + 1, went + 2)).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(count(), (came + 1, went + 2), "after it");
    assert_eq!(left.peer(right).unwrap().sent, one.sent + 128 + 32);
}

fn persistent_keepalives_are_switched_while_it_runs() {
    let tunnel = TunnelSpec { switched: true, ..spec() }.build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    quiet(&tunnel);
    check_pings_v4(left, right);
    // A keepalive is a message without content: 16 bytes of header, 16 of tag, and 8 of UDP.
    let keepalives = sent(left, &format!("{} udp length 40", messages_to(right, 4)));
    let set =
        |interval: &str| left.daemon.set(&["peer", &right.keys.public, "persistent-keepalive", interval]).unwrap();
    let count = || keepalives.packets().unwrap();
    let before = count();
    // By the interval it would be due much later than it is waited for.
    set("30");
    wait_until("one at once", SOON, || count() > before).unwrap();
    let start = std::time::Instant::now();
    set("1");
    wait_until("three more", LIMIT, || count() >= before + 4).unwrap();
    let took = start.elapsed();
    assert!(took > Duration::from_millis(2500), "three in {took:?}");
    // Once more on top of on changes nothing; another interval counts from now.
    set("1");
    set("30");
    let then = count();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(count() <= then + 1, "{} with an interval of 30 s", count() - then);
    set("1");
    let then = count();
    wait_until("two of the short interval", SOON, || count() >= then + 2).unwrap();
    set("off");
    let then = count();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(count() <= then + 1, "{} after it was switched off", count() - then);
}

fn check_pings_v4(from: &End, to: &End) {
    let series = ping::start_patiently(from.namespace(), to.v4.into(), 3, "0.1").unwrap();
    let trips = ping::collect(series, LIMIT).unwrap();
    assert_eq!(trips.received, 3);
}

fn a_host_without_anything_but_a_route_hears_why_not() {
    // A forwarded packet is answered to its sender, by the router's address, whichever way that is.
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let lan = lab::Namespace::new().unwrap();
    let link = lab::Link::new(&lan, left.namespace(), lab::Gso::Through).unwrap();
    left.namespace().set_sysctl("net/ipv4/ip_forward", "1").unwrap();
    left.namespace().set_sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
    let run = |args: String| lan.ip(&args.split(' ').collect::<Vec<_>>()).unwrap();
    run(format!("-4 route add 10.77.0.0/24 via {}", link.right.v4));
    run(format!("-6 route add fd77::/64 via {}", link.right.v6));
    for to in ["10.77.0.99", "fd77::99"] {
        let trip = ping::once(&lan, to.parse().unwrap(), &[]).unwrap();
        let log = trip.log().to_lowercase();
        assert!(!trip.status.success() && log.contains("unreachable"), "{log}");
    }
    // And where it may go, it goes, if the other end lets it in.
    let address = format!("{}/32,{}/32,{}/128", left.v4, link.left.v4, link.left.v6);
    right.daemon.set(&["peer", &left.keys.public, "allowed-ips", &format!("{address},{}/128", left.v6)]).unwrap();
    for to in [link.left.v4.to_string() + "/32", link.left.v6.to_string() + "/128"] {
        ip(right, &format!("route add {to} dev {}", right.daemon.interface));
    }
    for to in right.inner() {
        wait_until("a forwarded ping", SOON, || ping::once(&lan, to, &["-W", "1"]).unwrap().status.success()).unwrap();
    }
}

fn congestion_in_the_middle_slows_tcp_down_and_damages_nothing() {
    for outer in [Outer::V4, Outer::V6] {
        let tunnel = TunnelSpec { outer, switched: true, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        check_pings(left, right);
        for end in [left, right] {
            end.namespace().set_sysctl("net/ipv4/tcp_ecn", "1").unwrap();
        }
        // Every tenth datagram meets congestion, in the middle of trains too: what the receiver joins differs in its marks.
        let congestion = format!("{} {} ecn ect0 numgen inc mod 10 < 1", messages_to(right, 4), family(outer));
        let change = format!("{} ecn set ce", family(outer));
        let congestion = Tap::on_wire(&left.port, &congestion, &change).unwrap();
        let _service = Service::start(right.namespace()).unwrap();
        let count = |end: &End, file, group, name| end.namespace().counter(file, group, name).unwrap();
        for to in right.inner() {
            let met = |end: &End| match to.is_ipv4() {
                true => count(end, "netstat", "IpExt", "InCEPkts"),
                false => count(end, "snmp6", "", "Ip6InCEPkts"),
            };
            let before = (met(right), congestion.packets().unwrap());
            exchange_tcp(left.namespace(), to, BYTES, LIMIT).unwrap();
            // Told inside for the most part: an outer super-packet may become several inner ones or the reverse.
            let (inside, outside) = (met(right) - before.0, congestion.packets().unwrap() - before.1);
            assert!(inside > 0 && outside > 0, "{outer:?} {to}: {inside} of {outside}");
            assert_eq!(met(left), 0, "the way back is clear");
        }
        assert_eq!(count(right, "snmp", "Tcp", "InCsumErrors"), 0);
    }
}

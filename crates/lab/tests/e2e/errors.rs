//! What the sender of a packet hears when the tunnel cannot carry it.

use std::net::IpAddr;

use lab::{Endpoints, Gso, Hook, Link, Namespace, Tap, TunnelSpec, ping, wait_until};

use crate::common::{SOON, check_pings, ip, our_tunnel, spec};
use crate::engines::each_engine;

each_engine!(
    an_address_that_no_peer_has_is_unreachable,
    a_peer_without_an_endpoint_is_unreachable,
    packets_from_addresses_that_are_not_the_peers_are_dropped,
    errors_are_the_kernels_and_silence_is_its_too,
    whom_we_route_for_is_told_by_the_address_that_it_knows_us_by,
    who_is_hidden_by_a_translation_is_told_too,
    who_does_not_fit_is_told_what_would,
    a_flood_to_nobody_is_not_a_flood_of_errors,
);

#[track_caller]
fn check_unreachable(from: &lab::End, to: IpAddr) {
    let finished = ping::once(from.namespace(), to, &[]).unwrap();
    assert!(!finished.status.success());
    let text = finished.log().to_lowercase();
    assert!(text.contains("unreachable"), "{to}: {text}");
}

fn an_address_that_no_peer_has_is_unreachable() {
    let tunnel = our_tunnel();
    for address in ["10.77.0.99", "fd77::99"] {
        check_unreachable(&tunnel.left, address.parse().unwrap());
    }
    check_pings(&tunnel.left, &tunnel.right);
}

fn a_peer_without_an_endpoint_is_unreachable() {
    let tunnel = TunnelSpec { endpoints: Endpoints::OnlyRight, ..spec() }.build().unwrap();
    for address in tunnel.right.inner() {
        check_unreachable(&tunnel.left, address);
    }
    // Until it is heard of.
    check_pings(&tunnel.right, &tunnel.left);
    check_pings(&tunnel.left, &tunnel.right);
}

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

/// What comes to a host of errors: type and code, of either family.
fn told(namespace: &Namespace, to: IpAddr, kind: (u8, u8, &str)) -> Tap {
    let (icmp, code, more) = kind;
    let name = if to.is_ipv4() { "icmp" } else { "icmpv6" };
    Tap::new(namespace, Hook::Incoming, &format!("{name} type {icmp} {name} code {code} {more}"), "").unwrap()
}

/// "Host unreachable", "address unreachable".
fn unreachable(namespace: &Namespace, to: IpAddr) -> Tap {
    told(namespace, to, if to.is_ipv4() { (3, 1, "") } else { (1, 3, "") })
}

fn errors_are_the_kernels_and_silence_is_its_too() {
    let tunnel = TunnelSpec { endpoints: Endpoints::OnlyRight, ..spec() }.build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    // Nobody's address; a peer's that is nowhere.
    for to in ["10.77.0.99", "fd77::99"].map(|to| to.parse().unwrap()).into_iter().chain(right.inner()) {
        let tap = unreachable(left.namespace(), to);
        check_unreachable(left, to);
        assert!(tap.packets().unwrap() > 0, "{to}");
    }
    // Where nobody answers, or without a key, a packet waits for a session: nobody is told anything.
    left.daemon.set(&["peer", &right.keys.public, "endpoint", &format!("{}:9", right.port.v4)]).unwrap();
    let silent = |what: &str| {
        for to in right.inner() {
            let tap = unreachable(left.namespace(), to);
            let waiting = ping::once(left.namespace(), to, &["-W", "1"]).unwrap();
            assert!(!waiting.status.success() && tap.packets().unwrap() == 0, "{what}: {}", waiting.log());
        }
    };
    silent("nobody answers");
    left.daemon.set(&["private-key", "/dev/null"]).unwrap();
    silent("no key");
    left.daemon.set(&["private-key", &left.keys.private.path()]).unwrap();
    left.daemon.set(&["peer", &right.keys.public, "endpoint", &right.endpoint(lab::Outer::V4).to_string()]).unwrap();
    check_pings(left, right);
}

/// A host that is not the tunnel's, with the tunnel's left host for a router. Its link, as the left side of which the router's is the right.
fn behind(router: &lab::End) -> (Namespace, Link) {
    let lan = Namespace::new().unwrap();
    let link = Link::new(&lan, router.namespace(), Gso::Through).unwrap();
    router.namespace().set_sysctl("net/ipv4/ip_forward", "1").unwrap();
    router.namespace().set_sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
    lan.ip(&["-4", "route", "add", "default", "via", &link.right.v4.to_string()]).unwrap();
    lan.ip(&["-6", "route", "add", "default", "via", &link.right.v6.to_string()]).unwrap();
    (lan, link)
}

fn whom_we_route_for_is_told_by_the_address_that_it_knows_us_by() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let (lan, link) = behind(left);
    let interface = &left.daemon.interface;
    // With addresses of the tunnel interface, and without any: a router needs none.
    for numbered in [true, false] {
        if !numbered {
            ip(left, &format!("address flush dev {interface}"));
        }
        for (family, network, to, router) in [
            ("-4", "10.66.0.0/16", "10.66.0.1", IpAddr::from(link.right.v4)),
            ("-6", "fd66::/64", "fd66::1", IpAddr::from(link.right.v6)),
        ] {
            ip(left, &format!("{family} route replace {network} dev {interface}"));
            let trip = ping::once(&lan, to.parse().unwrap(), &[]).unwrap();
            let log = trip.log();
            assert!(!trip.status.success() && log.contains(&format!("From {router} ")), "{numbered}: {log}");
            assert!(log.to_lowercase().contains("unreachable"), "{log}");
        }
    }
}

fn who_is_hidden_by_a_translation_is_told_too() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    let (lan, link) = behind(left);
    let rule = format!("oifname {}", left.daemon.interface);
    let translated = Tap::new(left.namespace(), Hook::Leaving, &rule, "masquerade").unwrap();
    for to in right.inner() {
        let trip = ping::once(&lan, to, &["-W", "10"]).unwrap();
        assert!(trip.status.success(), "{}", trip.log());
    }
    left.daemon.set(&["peer", &right.keys.public, "remove"]).unwrap();
    for (to, own) in right.inner().into_iter().zip([IpAddr::from(link.left.v4), IpAddr::from(link.left.v6)]) {
        let name = if to.is_ipv4() { "ip" } else { "ip6" };
        let tap = told(&lan, to, if to.is_ipv4() { (3, 1, "") } else { (1, 3, "") });
        let trip = ping::once(&lan, to, &[]).unwrap();
        let log = trip.log();
        assert!(!trip.status.success() && log.to_lowercase().contains("unreachable"), "{name} {own}: {log}");
        assert_eq!(tap.packets().unwrap(), 1, "{log}");
    }
    assert!(translated.packets().unwrap() > 0);
}

fn who_does_not_fit_is_told_what_would() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let (lan, link) = behind(left);
    let allowed = format!("{}/32,{}/128,{}/32,{}/128", left.v4, left.v6, link.left.v4, link.left.v6);
    right.daemon.set(&["peer", &left.keys.public, "allowed-ips", &allowed]).unwrap();
    for (family, own) in [("-4", format!("{}/32", link.left.v4)), ("-6", format!("{}/128", link.left.v6))] {
        ip(right, &format!("{family} route add {own} dev {}", right.daemon.interface));
    }
    for (to, fits) in right.inner().into_iter().zip([1420 - 28, 1420 - 48]) {
        let send = |size: i32| {
            let size = size.to_string();
            ping::once(&lan, to, &["-M", "do", "-s", &size]).unwrap()
        };
        assert!(send(fits).status.success(), "{to}");
        let trip = send(fits + 1);
        let log = trip.log();
        assert!(!trip.status.success() && (log.contains("mtu=1420") || log.contains("mtu = 1420")), "{log}");
        assert!(send(fits).status.success(), "{to}");
    }
}

/// Sends three thousand datagrams, as fast as it can.
const FLOOD: &str = r#"
    use Socket;
    my $inet6 = $ARGV[0] =~ /:/;
    my $to = $inet6 ? pack_sockaddr_in6(9, Socket::inet_pton(AF_INET6, $ARGV[0])) : pack_sockaddr_in(9, inet_aton($ARGV[0]));
    socket(my $s, $inet6 ? AF_INET6 : AF_INET, SOCK_DGRAM, 0) or die "socket: $!";
    send($s, "x", 0, $to) for 1 .. 3000;
"#;

fn a_flood_to_nobody_is_not_a_flood_of_errors() {
    for to in ["10.77.0.99", "fd77::99"].map(|to| to.parse().unwrap()) {
        // One of its own for each: what may be told at once is used up by a flood.
        let tunnel = our_tunnel();
        let left = &tunnel.left;
        let tap = unreachable(left.namespace(), to);
        let start = std::time::Instant::now();
        left.namespace().run("perl", &["-e", FLOOD, &to.to_string()]).unwrap();
        let dropped = || left.daemon.drops().unwrap()["no-route"];
        wait_until("many to be read", SOON, || dropped() > 100 && tap.packets().unwrap() >= 10).unwrap();
        // Fifty at once and a hundred in a second, of each worker.
        let workers = std::thread::available_parallelism().unwrap().get().max(2) as u64;
        let told = tap.packets().unwrap();
        let bound = workers * (50 + start.elapsed().as_millis() as u64 / 10 + 1);
        assert!(told <= bound, "{to}: {told} of 3000 in {:?}", start.elapsed());
        // Whoever comes a little later is told.
        wait_until("an error", SOON, || {
            let tap = unreachable(left.namespace(), to);
            ping::once(left.namespace(), to, &["-W", "1"]).unwrap();
            tap.packets().unwrap() > 0
        })
        .unwrap();
        check_pings(left, &tunnel.right);
    }
}

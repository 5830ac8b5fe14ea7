//! Packets of all sizes over links of all sizes, and sizes that change under way.

use lab::traffic::{Service, UdpPlan, exchange_tcp, exchange_udp, finish_udp, start_udp};
use lab::{End, Engine, Gso, Hook, Link, Namespace, Outer, Tap, TunnelSpec, ping, wait_until};
use std::time::{Duration, Instant};

use crate::common::{BYTES, LIMIT, SOON, check_pings, ends, introduce, ip, our_tunnel, spec, wait_for_ping};
use crate::engines::{both, each_engine, each_engine_and_mixed};

each_engine_and_mixed!(a_router_with_a_smaller_link_behind_it_is_no_black_hole, inner_fragments_cross);

each_engine!(
    tunnels_in_links_of_their_size,
    tunnels_in_links_that_are_smaller,
    tunnels_in_links_that_are_larger,
    sizes_change_under_trains_of_segments,
    datagrams_without_a_checksum_cross,
    packets_to_groups_cross_where_they_are_allowed,
);

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
enum Trip {
    /// It was answered.
    Back,
    /// Its sender was told that it is too large: it may have crossed all the same, in pieces outside.
    Told,
    /// Neither.
    Lost,
}

/// One ping with DF, as an IP packet of `size` bytes.
#[track_caller]
fn trip(from: &End, to: std::net::IpAddr, size: u32) -> Trip {
    let headers = if to.is_ipv4() { 28 } else { 48 };
    let body = (size - headers).to_string();
    let ping = ping::once(from.namespace(), to, &["-M", "do", "-s", &body, "-W", "2"]).unwrap();
    let log = ping.log().to_lowercase();
    match ping.status.success() {
        true => Trip::Back,
        false if ["too long", "too big", "frag needed"].iter().any(|what| log.contains(what)) => Trip::Told,
        false => Trip::Lost,
    }
}

/// Sets the MTU of an interface of both ends.
fn set_mtu(ends: [&End; 2], mtu: u32, interface: impl Fn(&End) -> &str) {
    for end in ends {
        ip(end, &format!("link set {} mtu {mtu}", interface(end)));
    }
}

fn inner(end: &End) -> &str {
    &end.daemon.interface
}

fn outer(end: &End) -> &str {
    &end.port.interface
}

/// Whole packets of the largest sizes, and TCP both ways, with this MTU outside and that one inside.
#[track_caller]
fn check_sizes(family: Outer, outside: u32, inside: u32) {
    let what = format!("{family:?} with {outside} outside, {inside} inside");
    let tunnel = TunnelSpec { outer: family, ..spec() }.build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    set_mtu([left, right], outside, outer);
    set_mtu([left, right], inside, inner);
    let overhead = if family == Outer::V4 { 60 } else { 80 };
    let fits = inside + overhead <= outside;
    // IPv6 leaves an interface whose MTU is below 1280.
    let addresses = if inside < 1280 { &right.inner()[..1] } else { &right.inner()[..] };
    for &address in addresses {
        for size in [inside, inside - 1, inside - 15, inside - 16, inside - 17, inside / 2, 100] {
            // One that follows a burst may be lost to a change of the TUN's queue.
            let mut trips = (0..3).map(|_| trip(left, address, size));
            let trip = trips.find(|trip| *trip != Trip::Lost).unwrap_or(Trip::Lost);
            assert!(trip == Trip::Back || trip == Trip::Told && !fits, "{what}: {size} bytes to {address}: {trip:?}");
        }
        // A packet that does not fit the tunnel is refused to its sender, where its length can be said at all.
        assert!(inside > 65_000 || trip(left, address, inside + 1) == Trip::Told, "{what}");
        for (from, to) in [(left, right), (right, left)] {
            let _service = Service::start(to.namespace()).unwrap();
            let address = if address.is_ipv4() { to.v4.into() } else { to.v6.into() };
            exchange_tcp(from.namespace(), address, BYTES / 4, LIMIT).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
    let created = |end: &End| match family {
        Outer::V4 => end.namespace().counter("snmp", "Ip", "FragCreates").unwrap(),
        Outer::V6 => end.namespace().counter("snmp6", "", "Ip6FragCreates").unwrap(),
    };
    assert_eq!(created(left) == 0, fits, "{what}: fragments");
}

fn tunnels_in_links_of_their_size() {
    check_sizes(Outer::V4, 1500, 1420);
    check_sizes(Outer::V6, 1500, 1420);
    check_sizes(Outer::V4, 1340, 1280);
    check_sizes(Outer::V6, 1360, 1280);
    check_sizes(Outer::V4, 65_520, 65_455);
    check_sizes(Outer::V6, 65_520, 65_440);
}

fn tunnels_in_links_that_are_smaller() {
    check_sizes(Outer::V4, 576, 1280);
    check_sizes(Outer::V4, 1280, 1420);
    check_sizes(Outer::V6, 1280, 1280);
    check_sizes(Outer::V6, 1500, 8920);
    check_sizes(Outer::V4, 1500, 65_455);
}

fn tunnels_in_links_that_are_larger() {
    check_sizes(Outer::V4, 9000, 576);
    check_sizes(Outer::V6, 65_520, 1420);
    check_sizes(Outer::V4, 9000, 8920);
}

fn a_router_with_a_smaller_link_behind_it_is_no_black_hole() {
    for family in [Outer::V4, Outer::V6] {
        let [a, router, b] = [(); 3].map(|()| Namespace::new().unwrap());
        let near = Link::new(&a, &router, Gso::Through).unwrap();
        let far = Link::new(&router, &b, Gso::Through).unwrap();
        router.set_sysctl("net/ipv4/ip_forward", "1").unwrap();
        router.set_sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        let (left, right) = ends(&near.left, &far.right);
        for (end, port) in [(&left, &near.right), (&right, &far.left)] {
            ip(end, &format!("-4 route add default via {}", port.v4));
            ip(end, &format!("-6 route add default via {}", port.v6));
        }
        introduce(&left, &right, family);
        check_pings(&left, &right);
        // In mid-traffic, where neither end sees it.
        let _service = Service::start(right.namespace()).unwrap();
        let plan = UdpPlan { flows: 1, count: 400, size: 1300, gap: Duration::from_millis(5), echo: true };
        let stream = start_udp(left.namespace(), right.v4.into(), &plan).unwrap();
        wait_until("the stream to flow", SOON, || left.peer(&right).unwrap().sent > 100_000).unwrap();
        let began = Instant::now();
        for (port, namespace) in [(&far.left, &router), (&far.right, &b)] {
            namespace.ip(&["link", "set", &port.interface, "mtu", "1300"]).unwrap();
        }
        // Between the two commands the end that is still the larger one sends what the other does not take.
        let between = began.elapsed().as_millis().div_ceil(plan.gap.as_millis()) as u64;
        let outcome = finish_udp(stream, LIMIT).unwrap();
        assert_eq!(outcome.service.corrupt + outcome.echoes.corrupt, 0);
        // In IPv6 the first one is answered by "packet too big", and is lost; IPv4 routers cut. What programs send meanwhile goes the same way, until
        // the daemon has heard of it.
        let lost = between + if both() == [Engine::Userspace; 2] { 30 } else { 120 };
        assert!(outcome.echoes.received + lost >= outcome.sent, "{family:?}, {between} between: {outcome:?}");
        for (from, to) in [(&left, &right), (&right, &left)] {
            let _service = Service::start(to.namespace()).unwrap();
            for address in to.inner() {
                exchange_tcp(from.namespace(), address, BYTES, LIMIT).unwrap();
                // Its sender is told if it is too large; what it must never be is lost in silence.
                assert!((0..3).any(|_| trip(from, address, 1420) != Trip::Lost), "{family:?}");
                let large = if address.is_ipv4() { "1392" } else { "1372" };
                let cut = || ping::once(from.namespace(), address, &["-s", large]).unwrap().status.success();
                assert!((0..3).any(|_| cut()), "{family:?}");
            }
        }
    }
}

fn sizes_change_under_trains_of_segments() {
    for gso in [Gso::Through, Gso::Off] {
        let tunnel = TunnelSpec { gso, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        check_pings(left, right);
        set_mtu([left, right], 9000, outer);
        let _service = Service::start(right.namespace()).unwrap();
        std::thread::scope(|scope| {
            let transfer = scope.spawn(|| exchange_tcp(left.namespace(), right.v4.into(), 10 * BYTES, 2 * LIMIT));
            let before = left.peer(right).unwrap().sent;
            wait_until("the transfer", SOON, || left.peer(right).unwrap().sent > before + BYTES).unwrap();
            for mtu in [1280, 8900, 1420, 600, 1420] {
                set_mtu([left, right], mtu, inner);
                let sent = || left.peer(right).unwrap().sent + left.peer(right).unwrap().received;
                let then = sent();
                wait_until("it to go on", SOON, || sent() > then + 300_000 || transfer.is_finished()).unwrap();
            }
            for mtu in [1400, 1500, 576, 9000] {
                set_mtu([left, right], mtu, outer);
                let sent = || left.peer(right).unwrap().sent + left.peer(right).unwrap().received;
                let then = sent();
                wait_until("it to go on", SOON, || sent() > then + 300_000 || transfer.is_finished()).unwrap();
            }
            transfer.join().unwrap().unwrap();
        });
    }
}

fn inner_fragments_cross() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    for (from, to) in [(left, right), (right, left)] {
        let _service = Service::start(to.namespace()).unwrap();
        for address in to.inner() {
            let large = ping::once(from.namespace(), address, &["-s", "20000"]).unwrap();
            assert!(large.status.success(), "{}", large.log());
            let plan = UdpPlan { flows: 2, count: 50, size: 9000, gap: Duration::from_millis(5), echo: true };
            let outcome = exchange_udp(from.namespace(), address, &plan, LIMIT).unwrap();
            assert_eq!(outcome.service.corrupt + outcome.echoes.corrupt, 0);
            // Seven fragments each, of which none may be lost.
            assert!(outcome.echoes.received >= 50, "{outcome:?}");
        }
    }
}

/// Sends datagrams to port 7007 of its first argument in bursts, so that they can be joined; without checksums if its second
/// is 1; by its third, if that is there, as the source address of a broadcast.
const SEND: &str = r#"
    use Socket;
    my $to = pack_sockaddr_in(7007, inet_aton($ARGV[0]));
    socket(my $s, AF_INET, SOCK_DGRAM, 0) or die "socket: $!";
    setsockopt($s, SOL_SOCKET, 11, pack("i", $ARGV[1])) or die "SO_NO_CHECK: $!";
    setsockopt($s, SOL_SOCKET, SO_BROADCAST, pack("i", 1)) or die "SO_BROADCAST: $!";
    setsockopt($s, 0, 33, pack("i", 4)) or die "IP_MULTICAST_TTL: $!";
    if ($ARGV[2]) { bind($s, pack_sockaddr_in(0, inet_aton($ARGV[2]))) or die "bind: $!" }
    for my $burst (1 .. 20) {
        send($s, "x" x 600, 0, $to) for 1 .. 10;
        select(undef, undef, undef, 0.002);
    }
"#;

fn datagrams_without_a_checksum_cross() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let _service = Service::start(right.namespace()).unwrap();
    let count = |name| right.namespace().counter("snmp", "Udp", name).unwrap();
    let none = "ip protocol udp udp dport 7007 udp checksum 0";
    let none = Tap::new(right.namespace(), Hook::Incoming, none, "").unwrap();
    let before = count("InDatagrams");
    left.namespace().run("perl", &["-e", SEND, &right.v4.to_string(), "1"]).unwrap();
    wait_until("the datagrams", SOON, || count("InDatagrams") >= before + 200).unwrap();
    assert_eq!(count("InCsumErrors"), 0);
    assert!(none.packets().unwrap() > 0, "they had checksums");
}

fn packets_to_groups_cross_where_they_are_allowed() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    wait_for_ping(left, right);
    let interface = &left.daemon.interface;
    ip(left, &format!("route add 224.0.0.0/4 dev {interface}"));
    let came = |to: &str| {
        let rule = format!("iifname {} ip daddr {to} udp dport 7007", right.daemon.interface);
        Tap::new(right.namespace(), Hook::Incoming, &rule, "").unwrap()
    };
    for (to, allowed) in
        [("239.1.2.3", "239.0.0.0/8"), ("255.255.255.255", "255.255.255.255/32"), ("10.77.0.255", "10.77.0.255/32")]
    {
        if to == "255.255.255.255" {
            ip(left, &format!("route add {to}/32 dev {interface}"));
        }
        let tap = came(to);
        let source = left.v4.to_string();
        let send = || left.namespace().run("perl", &["-e", SEND, to, "0", &source]).unwrap();
        // Nobody's yet: dropped, and without an error, since errors are not sent about packets to more than one.
        send();
        assert_eq!(tap.packets().unwrap(), 0, "{to}");
        left.daemon.set(&["peer", &right.keys.public, "allowed-ips", allowed]).unwrap();
        send();
        wait_until("the packets", SOON, || tap.packets().unwrap() > 0).unwrap();
    }
}

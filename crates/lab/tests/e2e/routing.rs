//! Policy routing around the tunnel: marks, tables, several ways out of a host.

use lab::capture::Capture;
use lab::{End, Engine, Gso, Hook, Link, Namespace, Outer, Tap, ping, wait_until};

use crate::common::{LIMIT, SOON, Stream, check_pings, ends, ip, spec, wait_for_ping};
use crate::engines::{each_engine, each_engine_and_mixed, engine};

each_engine_and_mixed!(
    another_firewall_mark_is_another_way_at_once,
    a_host_with_two_default_routes_answers_by_the_one_that_was_asked,
    over_ipv6_a_new_way_keeps_the_address,
);

each_engine!(what_is_marked_on_its_way_out_is_routed_anew, everything_goes_through_the_tunnel_but_the_tunnel);

/// Two hosts with two links between them. The right one's address that matters is on neither.
struct Two {
    links: [Link; 2],
    left: End,
    right: End,
}

/// The right host's address beside its links'.
fn beside(outer: Outer) -> &'static str {
    match outer {
        Outer::V4 => "10.50.0.1",
        Outer::V6 => "fd50::1",
    }
}

fn bits(outer: Outer) -> (&'static str, u8) {
    match outer {
        Outer::V4 => ("-4", 32),
        Outer::V6 => ("-6", 128),
    }
}

fn with_port(address: &str, end: &End) -> String {
    match address.contains(':') {
        true => format!("[{address}]:{}", end.listen_port),
        false => format!("{address}:{}", end.listen_port),
    }
}

/// The addresses of a link's ends in a family.
fn addresses(link: &Link, outer: Outer) -> [String; 2] {
    match outer {
        Outer::V4 => [link.left.v4.to_string(), link.right.v4.to_string()],
        Outer::V6 => [link.left.v6.to_string(), link.right.v6.to_string()],
    }
}

impl Two {
    fn new() -> Two {
        let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        let links = [(); 2].map(|()| Link::switched(&a, &b, Gso::Through).unwrap());
        let (left, right) = ends(&links[0].left, &links[0].right);
        for outer in [Outer::V4, Outer::V6] {
            ip(&right, &format!("address add {}/{} dev lo", beside(outer), bits(outer).1));
        }
        for namespace in [&a, &b] {
            // What leaves by one link may be answered by the other.
            namespace.set_sysctl("net/ipv4/conf/all/rp_filter", "0").unwrap();
        }
        right.add_peer(&left, None, None).unwrap();
        Two { links, left, right }
    }

    /// The left end's peer, at the right host's own address.
    fn introduce(&self, outer: Outer) {
        let endpoint = with_port(beside(outer), &self.right);
        let allowed = format!("{}/32,{}/128", self.right.v4, self.right.v6);
        let key = &self.right.keys.public;
        self.left.daemon.set(&["peer", key, "endpoint", &endpoint, "allowed-ips", &allowed]).unwrap();
    }

    /// The left host's way to it by one of the links, in a table of its own.
    fn table(&self, outer: Outer, link: usize, table: u32) {
        let [_, via] = addresses(&self.links[link], outer);
        let (family, bits) = bits(outer);
        ip(&self.left, &format!("{family} route add {}/{bits} via {via} table {table}", beside(outer)));
    }

    /// How many datagrams the left end has sent by each link since it was asked last: as they are sent, whoever sends them.
    fn leaving(&self, ear: &Capture) -> [usize; 2] {
        let heard = ear.heard();
        self.links.each_ref().map(|link| {
            let mac = link.left.mac().unwrap();
            heard.iter().filter(|it| it.link == mac && it.to.port() == self.right.listen_port).count()
        })
    }

    /// What comes to the right end by a link.
    fn by(&self, link: usize) -> Tap {
        Tap::on_wire(&self.links[link].left, &format!("udp dport {}", self.right.listen_port), "").unwrap()
    }
}

fn another_firewall_mark_is_another_way_at_once() {
    for outer in [Outer::V4, Outer::V6] {
        let net = Two::new();
        let (left, right) = (&net.left, &net.right);
        let (family, _) = bits(outer);
        for (link, table) in [(0, 100), (1, 200)] {
            net.table(outer, link, table);
            ip(left, &format!("{family} rule add fwmark {table} lookup {table}"));
        }
        left.daemon.set(&["fwmark", "100"]).unwrap();
        net.introduce(outer);
        wait_for_ping(left, right);
        let handshake = left.peer(right).unwrap().handshake;
        // What comes tells of the way. What no longer goes is counted where it would be sent: on the way, the links' queues may hold it.
        let (taps, sent) = ([net.by(0), net.by(1)], Capture::start(left.namespace()).unwrap());
        let stream = Stream::start(left, right, LIMIT.as_secs());
        let mut now = 0;
        for mark in ["200", "100", "200"] {
            let before = taps[now].packets().unwrap();
            wait_until("the flow", SOON, || taps[now].packets().unwrap() > before + 20).unwrap();
            left.daemon.set(&["fwmark", mark]).unwrap();
            // What a worker was sending when `wg` returned may still go the former one.
            let (old, new) = (now, 1 - now);
            let before = taps[new].packets().unwrap();
            wait_until("the other way", SOON, || taps[new].packets().unwrap() > before + 5).unwrap();
            net.leaving(&sent);
            let before = taps[new].packets().unwrap();
            wait_until("more by the other way", SOON, || taps[new].packets().unwrap() > before + 20).unwrap();
            let went = net.leaving(&sent);
            assert!(went[old] == 0 && went[new] >= 20, "{outer:?} {mark}: some still go the former way: {went:?}");
            now = new;
        }
        stream.end(20);
        assert_eq!(left.peer(right).unwrap().handshake, handshake, "the session lives on");
        // Without a mark there is no way at all.
        left.daemon.set(&["fwmark", "0"]).unwrap();
        let trip = ping::once(left.namespace(), right.v4.into(), &["-W", "1"]).unwrap();
        assert!(!trip.status.success());
        left.daemon.set(&["fwmark", "100"]).unwrap();
        wait_for_ping(left, right);
    }
}

fn what_is_marked_on_its_way_out_is_routed_anew() {
    for outer in [Outer::V4, Outer::V6] {
        let net = Two::new();
        let (left, right) = (&net.left, &net.right);
        let (family, _) = bits(outer);
        net.table(outer, 0, 254);
        net.table(outer, 1, 200);
        // The right host may answer from its address on the first link, where its own way back is.
        let ([_, there], [_, via]) = (addresses(&net.links[0], outer), addresses(&net.links[1], outer));
        ip(left, &format!("{family} route add {there} via {via} table 200"));
        ip(left, &format!("{family} rule add fwmark 1 lookup 200"));
        net.introduce(outer);
        check_pings(left, right);
        let taps = [net.by(0), net.by(1)];
        // All that the host sends, tunnel and content.
        let chain = "{ chain c { type route hook output priority mangle; meta mark set 1; }; }";
        left.namespace().run("nft", &[&format!("table inet marks {chain}")]).unwrap();
        check_pings(left, right);
        for address in right.inner() {
            let bound = ping::once(left.namespace(), address, &["-I", &left.daemon.interface]).unwrap();
            assert!(bound.status.success(), "{}", bound.log());
        }
        let seen = taps.each_ref().map(|tap| tap.packets().unwrap());
        let before = taps[0].packets().unwrap();
        check_pings(left, right);
        match engine() {
            Engine::Userspace => {
                assert!(seen[1] >= 10, "{outer:?}: {seen:?}");
                assert_eq!(taps[0].packets().unwrap(), before, "{outer:?}");
            }
            // What programs send does not come by that chain, as docs/ebpf.md says, and so goes as it did.
            Engine::Ebpf => assert!(seen[0] >= 10, "{outer:?}: {seen:?}"),
        }
        let before = taps[0].packets().unwrap();
        left.namespace().run("nft", &["delete table inet marks"]).unwrap();
        check_pings(left, right);
        assert!(taps[0].packets().unwrap() > before);
    }
}

fn a_host_with_two_default_routes_answers_by_the_one_that_was_asked() {
    for outer in [Outer::V4, Outer::V6] {
        let net = Two::new();
        let (left, right) = (&net.left, &net.right);
        let (family, _) = bits(outer);
        // Two providers: what has the address of one leaves by that one. Anything else leaves by the first.
        for (n, link) in net.links.iter().enumerate() {
            let [own, via] = addresses(link, outer);
            let interface = &link.left.interface;
            ip(left, &format!("{family} route add default via {via} dev {interface} metric {}", 10 + n));
            ip(left, &format!("{family} route add default via {via} dev {interface} table {}", 100 + n));
            ip(left, &format!("{family} rule add from {own} lookup {}", 100 + n));
            // And the right host speaks with its own address everywhere.
            let bits = bits(outer).1;
            let back = format!("{own}/{bits} dev {} src {}", link.right.interface, beside(outer));
            ip(right, &format!("{family} route add {back}"));
        }
        left.add_peer(right, None, None).unwrap();
        let answers = [0, 1].map(|n: usize| {
            let [own, _] = addresses(&net.links[n], outer);
            let name = if outer == Outer::V4 { "ip" } else { "ip6" };
            let rule = format!("{name} saddr {own} udp sport {}", left.listen_port);
            Tap::on_wire(&net.links[n].left, &rule, "").unwrap()
        });
        let all = format!("udp sport {}", left.listen_port);
        let all = [0, 1].map(|n: usize| Tap::on_wire(&net.links[n].left, &all, "").unwrap());
        let all = || all.iter().map(|tap| tap.packets().unwrap()).sum::<u64>();
        let count = || (answers[0].packets().unwrap(), answers[1].packets().unwrap(), all());
        for n in [1, 0, 1] {
            let [own, _] = addresses(&net.links[n], outer);
            let endpoint = with_port(&own, left);
            right.daemon.set(&["peer", &left.keys.public, "endpoint", &endpoint]).unwrap();
            wait_for_ping(right, left);
            let before = count();
            check_pings(right, left);
            // The left host's own questions go there, too.
            check_pings(left, right);
            let after = count();
            let each = [after.0 - before.0, after.1 - before.1];
            assert_eq!(each[n], after.2 - before.2, "{outer:?} {n}: {before:?} {after:?}");
            assert!(each[n] >= 20);
            assert_eq!(right.peer(left).unwrap().endpoint.unwrap().to_string(), endpoint);
        }
    }
}

/// IPv6 goes on with its address as long as there is one (`send6`), whichever way it leaves; IPv4 does not, see `moves`.
fn over_ipv6_a_new_way_keeps_the_address() {
    let net = Two::new();
    let (left, right) = (&net.left, &net.right);
    let way = |link: usize, metric: u32| {
        let [own, via] = addresses(&net.links[link], Outer::V6);
        format!("-6 route add {}/128 via {via} src {own} metric {metric}", beside(Outer::V6))
    };
    ip(left, &way(0, 20));
    net.introduce(Outer::V6);
    check_pings(left, right);
    let seen_at = || right.peer(left).unwrap().endpoint.unwrap().ip().to_string();
    let [own, _] = addresses(&net.links[0], Outer::V6);
    assert_eq!(seen_at(), own);
    let taps = [net.by(0), net.by(1)];
    let stream = Stream::start(left, right, 2);
    wait_until("the stream to flow", SOON, || taps[0].packets().unwrap() > 20).unwrap();
    ip(left, &way(1, 10));
    wait_until("the other way", SOON, || taps[1].packets().unwrap() > 50).unwrap();
    let before = taps[0].packets().unwrap();
    stream.finish(20);
    assert_eq!((taps[0].packets().unwrap(), seen_at()), (before, own));
    // The address goes, and with it the way; the other one brings its own.
    let Link { left: port, .. } = &net.links[0];
    ip(left, &format!("-6 address del {}/64 dev {}", port.v6, port.interface));
    wait_for_ping(left, right);
    let [own, _] = addresses(&net.links[1], Outer::V6);
    wait_until("the other address", SOON, || {
        wait_for_ping(left, right);
        seen_at() == own
    })
    .unwrap();
}

fn everything_goes_through_the_tunnel_but_the_tunnel() {
    // As `wg-quick` routes for a peer that has all addresses, with IPv6 outside where the tunnel is over IPv4, and the reverse.
    for outer in [Outer::V4, Outer::V6] {
        let tunnel = lab::TunnelSpec { outer, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        let link = &tunnel.link;
        for address in ["192.168.99.7/32", "fd99::1111/128"] {
            ip(right, &format!("address add {address} dev {}", right.daemon.interface));
        }
        // What is behind the right host, too, and would be reached without the tunnel.
        for address in ["10.66.0.1/32", "fd66::1/128"] {
            ip(right, &format!("address add {address} dev lo"));
        }
        let interface = &left.daemon.interface;
        for (family, via) in [("-4", link.right.v4.to_string()), ("-6", link.right.v6.to_string())] {
            ip(left, &format!("{family} route add default via {via}"));
            ip(left, &format!("{family} route add default dev {interface} table 51820"));
            ip(left, &format!("{family} rule add not fwmark 51820 table 51820"));
            ip(left, &format!("{family} rule add table main suppress_prefixlength 0"));
        }
        left.daemon.set(&["fwmark", "51820", "peer", &right.keys.public, "allowed-ips", "0.0.0.0/0,::/0"]).unwrap();
        // Questions that are to be read on the link.
        let plain = ["icmp", "icmpv6"].map(|kind| {
            let rule = format!("iifname {} {kind} type echo-request", link.right.interface);
            Tap::new(right.namespace(), Hook::Incoming, &rule, "").unwrap()
        });
        for address in ["192.168.99.7", "fd99::1111", "10.66.0.1", "fd66::1"] {
            let flood = ping::ping(left.namespace(), address.parse().unwrap(), 100, "0.002", SOON).unwrap();
            assert!(flood.received >= 98, "{outer:?} {address}: {flood:?}");
        }
        assert_eq!(plain.each_ref().map(|tap| tap.packets().unwrap()), [0, 0], "{outer:?}");
        // What has a route of its own is reached by it.
        for address in [link.right.v4.into(), link.right.v6.into()] {
            assert!(ping::once(left.namespace(), address, &[]).unwrap().status.success());
        }
        assert_eq!(plain.each_ref().map(|tap| tap.packets().unwrap()), [1, 1], "{outer:?}");
    }
}

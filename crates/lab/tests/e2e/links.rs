//! Links that come and go, tunnels through tunnels, loops, and network namespaces that end.

use std::time::Duration;

use lab::traffic::{Service, exchange_tcp};
use lab::{
    Counters, End, Endpoints, Gso, Hook, Link, Namespace, Outer, Port, Tap, TunnelSpec, ping, socket_path, usage,
    wait_until,
};

use crate::common::{
    BYTES, LIMIT, SOON, Stream, check_pings, ends, introduce, ip, keep_addresses, messages_to, our_tunnel, spec,
    wait_for_free_port, wait_for_ping, wireloom,
};
use crate::engines::{each_engine, each_engine_and_mixed};

each_engine_and_mixed!(an_outer_link_that_flaps_is_used_again_when_it_is_back);

each_engine!(
    a_tunnel_interface_set_down_is_silent_and_deaf,
    a_tunnel_interface_that_flaps_comes_to_rest_as_it_was_left,
    a_tunnel_goes_through_a_tunnel,
    a_loop_into_the_tunnel_itself_is_cut,
    a_loop_over_two_tunnels_is_bounded,
    an_initiation_that_finds_no_way_is_tried_again,
    its_first_namespace_may_go_while_it_lives_in_another,
    it_ends_with_the_namespace_that_its_interface_is_in,
);

fn set(end: &End, interface: &str, state: &str) {
    ip(end, &format!("link set {interface} {state}"));
}

fn an_outer_link_that_flaps_is_used_again_when_it_is_back() {
    for outer in [Outer::V4, Outer::V6] {
        let tunnel = TunnelSpec { outer, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        check_pings(left, right);
        let before = left.peer(right).unwrap().handshake;
        let interface = &left.port.interface;
        // Without this the link would lose its IPv6 address as it goes down.
        left.namespace().set_sysctl(&format!("net/ipv6/conf/{interface}/keep_addr_on_down"), "1").unwrap();
        let stream = Stream::start(left, right, 3);
        for _ in 0..5 {
            set(left, interface, "down");
            set(left, interface, "up");
        }
        set(left, interface, "down");
        let lost = ping::once(left.namespace(), right.v4.into(), &["-W", "1"]).unwrap();
        assert!(!lost.status.success());
        set(left, interface, "up");
        wait_for_ping(left, right);
        // Lost is what was sent while the link was down, and while the kernel looked for its neighbour again.
        stream.finish(500);
        check_pings(right, left);
        assert_eq!(left.peer(right).unwrap().handshake, before, "the session lives on");
    }
}

fn a_tunnel_interface_set_down_is_silent_and_deaf() {
    let tunnel = TunnelSpec { switched: true, ..spec() }.build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    let key = &right.keys.public;
    left.daemon.set(&["peer", key, "persistent-keepalive", "1"]).unwrap();
    check_pings(left, right);
    keep_addresses(left);
    let sent = Tap::on_wire(&left.port, &format!("udp sport {}", left.listen_port), "").unwrap();
    let interface = &left.daemon.interface;
    let stream = Stream::start(right, left, 2);
    wait_until("the stream to flow", SOON, || left.peer(right).unwrap().received > 50_000).unwrap();
    set(left, interface, "down");
    // The port is free: another may have it.
    wait_for_free_port(left);
    let then = (sent.packets().unwrap(), left.peer(right).unwrap());
    std::thread::sleep(Duration::from_millis(1500));
    let now = (sent.packets().unwrap(), left.peer(right).unwrap());
    assert_eq!((now.0, now.1.received, now.1.sent), (then.0, then.1.received, then.1.sent));
    drop(stream);
    // Up again, the keepalive begins a new session by itself.
    set(left, interface, "up");
    let handshake = now.1.handshake;
    wait_until("a new handshake", SOON, || left.peer(right).is_ok_and(|peer| peer.handshake > handshake)).unwrap();
    let sent_by_then = sent.packets().unwrap();
    wait_until("keepalives", SOON, || sent.packets().unwrap() >= sent_by_then + 2).unwrap();
    check_pings(right, left);
    check_pings(left, right);
}

fn a_tunnel_interface_that_flaps_comes_to_rest_as_it_was_left() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let interface = &left.daemon.interface;
    let stream = Stream::start(right, left, 3);
    for _ in 0..15 {
        set(left, interface, "down");
        set(left, interface, "up");
    }
    assert_eq!(left.daemon.status().unwrap().port, left.listen_port);
    wait_for_ping(left, right);
    wait_for_ping(right, left);
    for _ in 0..15 {
        set(left, interface, "up");
        set(left, interface, "down");
    }
    wait_for_free_port(left);
    drop(stream);
    set(left, interface, "up");
    wait_for_ping(left, right);
}

fn a_tunnel_goes_through_a_tunnel() {
    let outer = our_tunnel();
    let port = |end: &End| Port {
        namespace: end.namespace().clone(),
        interface: end.daemon.interface.clone(),
        v4: end.v4,
        v6: end.v6,
        switch: None,
    };
    for family in [Outer::V4, Outer::V6] {
        // Beside the other daemon on the same host, on another port, in other networks.
        let end = |around: &End, host: u8| {
            let mut end = End::new(wireloom().start(around.namespace()).unwrap(), &port(around), host).unwrap();
            end.listen_port = 51_900 + u16::from(host);
            end.v4 = [10, 88, 0, host].into();
            end.v6 = format!("fd88::{host}").parse().unwrap();
            end.bring_up(1340).unwrap();
            end
        };
        let (left, right) = (end(&outer.left, 1), end(&outer.right, 2));
        introduce(&left, &right, family);
        for (from, to) in [(&left, &right), (&right, &left)] {
            wait_for_ping(from, to);
            let _service = Service::start(to.namespace()).unwrap();
            for address in to.inner() {
                exchange_tcp(from.namespace(), address, BYTES, LIMIT).unwrap();
                let (size, bits) = if address.is_ipv4() { ("1312", "-4") } else { ("1292", "-6") };
                let whole = || ping::once(from.namespace(), address, &[bits, "-M", "do", "-s", size]).unwrap();
                // One that follows a burst may be lost to a change of the TUN's queue.
                assert!((0..3).any(|_| whole().status.success()), "{}", whole().log());
            }
        }
        for end in [&left, &right] {
            let v4 = end.namespace().counter("snmp", "Ip", "FragCreates");
            let v6 = end.namespace().counter("snmp6", "", "Ip6FragCreates");
            assert_eq!((v4.unwrap(), v6.unwrap()), (0, 0), "{family:?}");
        }
    }
}

fn a_loop_into_the_tunnel_itself_is_cut() {
    let tunnel = TunnelSpec { endpoints: Endpoints::OnlyLeft, ..spec() }.build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    // The way to the other host leads into the tunnel now, and the tunnel's peer has all addresses.
    let mut args = vec!["peer", &right.keys.public, "allowed-ips"];
    let allowed = format!("{}/32,{}/128,{}/32", right.v4, right.v6, right.port.v4);
    args.push(&allowed);
    left.daemon.set(&args).unwrap();
    let route = format!("route add {}/32 dev {}", right.port.v4, left.daemon.interface);
    ip(left, &route);
    let series = ping::ping(left.namespace(), right.v4.into(), 50, "0.01", LIMIT).unwrap();
    assert_eq!(series.received, 0);
    let large = ["-s", "1392", "-c", "20", "-i", "0.01", "-W", "1"];
    ping::once(left.namespace(), right.v4.into(), &large).unwrap();
    // What went in has come to an end: nothing goes round, and the daemon sleeps.
    let pid = left.daemon.process.id();
    let rest = || {
        (Counters::of(left.namespace(), &left.daemon.interface).unwrap().sent_packets, usage::process_cpu(pid).unwrap())
    };
    let mut last = rest();
    wait_until("packets to stop going round and round", SOON, || {
        std::thread::sleep(Duration::from_secs(1));
        let now = rest();
        let before = std::mem::replace(&mut last, now);
        now.0 - before.0 < 200 && now.1 - before.1 < Duration::from_millis(300)
    })
    .unwrap();
    assert!(usage::memory(pid).unwrap().resident < 24 * 1024);
    // With the way as it was, all is well.
    ip(left, &route.replace("add", "del"));
    wait_for_ping(left, right);
    wait_for_ping(right, left);
}

fn a_loop_over_two_tunnels_is_bounded() {
    // Each of the two interfaces sends by the other one.
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let link = Link::new(&a, &b, Gso::Through).unwrap();
    let (left, right) = ends(&link.left, &link.right);
    introduce(&left, &right, Outer::V4);
    let second = |port: &Port, host: u8| {
        let mut end = End::new(wireloom().start(&port.namespace).unwrap(), port, host).unwrap();
        end.listen_port = 51_900 + u16::from(host);
        end.v4 = [10, 88, 0, host].into();
        end.v6 = format!("fd88::{host}").parse().unwrap();
        end.bring_up(1420).unwrap();
        end
    };
    let (near, far) = (second(&link.left, 1), second(&link.right, 2));
    introduce(&near, &far, Outer::V4);
    check_pings(&left, &right);
    check_pings(&near, &far);
    // The first goes to 10.99.0.1 and the second to 10.99.0.2, which are the right host, each through the other.
    for (end, other, endpoint, port) in
        [(&left, &near, "10.99.0.1", right.listen_port), (&near, &left, "10.99.0.2", far.listen_port)]
    {
        let key = &end.daemon.status().unwrap().peers[0].public_key;
        end.daemon.set(&["peer", key, "endpoint", &format!("{endpoint}:{port}"), "allowed-ips", "10.0.0.0/8"]).unwrap();
        ip(end, &format!("route add {endpoint}/32 dev {}", other.daemon.interface));
    }
    ping::ping(left.namespace(), right.v4.into(), 20, "0.01", LIMIT).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    // It may keep a processor busy, as such a loop does in the kernel; but nothing grows, and configuration is heard.
    for end in [&left, &near] {
        assert!(usage::memory(end.daemon.process.id()).unwrap().resident < 24 * 1024);
        end.daemon.status().unwrap();
    }
    for (end, other, endpoint) in [(&left, &right, "10.99.0.1"), (&near, &far, "10.99.0.2")] {
        ip(end, &format!("route del {endpoint}/32"));
        introduce(end, other, Outer::V4);
        let allowed = format!("{}/32,{}/128", other.v4, other.v6);
        end.daemon.set(&["peer", &other.keys.public, "allowed-ips", &allowed]).unwrap();
    }
    wait_for_ping(&left, &right);
    wait_for_ping(&near, &far);
}

fn its_first_namespace_may_go_while_it_lives_in_another() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let inside = Namespace::new().unwrap();
    move_into(left, &inside);
    wait_until("a ping", SOON, || ping_from(&inside, right)).unwrap();
    // The name of the first one goes; the daemon and its link to the world are in it still.
    let gone = left.namespace().name();
    let mut command = std::process::Command::new("ip");
    lab::run_checked(command.args(["netns", "delete", gone]), SOON).unwrap();
    wait_until("a ping", SOON, || ping_from(&inside, right)).unwrap();
    // It follows its interface there: down, up, and gone.
    inside.ip(&["link", "set", &left.daemon.interface, "down"]).unwrap();
    assert!(!ping_from(&inside, right));
    inside.ip(&["link", "set", &left.daemon.interface, "up"]).unwrap();
    wait_until("a ping", SOON, || ping_from(&inside, right)).unwrap();
    let mut tunnel = tunnel;
    inside.ip(&["link", "delete", &tunnel.left.daemon.interface]).unwrap();
    assert!(tunnel.left.daemon.process.wait(SOON).unwrap().success());
    assert!(!socket_path(&tunnel.left.daemon.interface).exists());
}

fn it_ends_with_the_namespace_that_its_interface_is_in() {
    let mut tunnel = our_tunnel();
    check_pings(&tunnel.left, &tunnel.right);
    let inside = Namespace::new().unwrap();
    move_into(&tunnel.left, &inside);
    wait_until("a ping", SOON, || ping_from(&inside, &tunnel.right)).unwrap();
    // Errors come from inside, too.
    let unknown = ping::once(&inside, [10, 77, 0, 99].into(), &[]).unwrap();
    assert!(unknown.log().to_lowercase().contains("unreachable"), "{}", unknown.log());
    drop(inside);
    let daemon = &mut tunnel.left.daemon;
    let status = daemon.process.wait(SOON).unwrap();
    assert!(status.success(), "{status}: {}", daemon.process.log());
    assert!(!socket_path(&daemon.interface).exists());
    assert!(daemon.namespace.ip(&["link", "show", "dev", &daemon.interface]).is_err());
}

/// Moves the interface of an end to another namespace, where it gets its addresses and is set up.
fn move_into(end: &End, namespace: &Namespace) {
    let interface = &end.daemon.interface;
    ip(end, &format!("link set {interface} netns {}", namespace.name()));
    let run = |args: &str| {
        let words: Vec<&str> = args.split(' ').collect();
        namespace.ip(&words).unwrap()
    };
    run(&format!("address add {}/24 dev {interface}", end.v4));
    run(&format!("link set {interface} up"));
}

fn ping_from(namespace: &Namespace, to: &End) -> bool {
    ping::once(namespace, to.v4.into(), &["-W", "1"]).unwrap().status.success()
}

fn an_initiation_that_finds_no_way_is_tried_again() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    let interface = &left.port.interface;
    set(left, interface, "down");
    let waiting = ping::start(left.namespace(), right.v4.into(), 1, "1").unwrap();
    let came = Tap::new(right.namespace(), Hook::Incoming, &messages_to(right, 1), "").unwrap();
    ping::collect(waiting, SOON).unwrap();
    set(left, interface, "up");
    // REKEY_TIMEOUT after the first.
    wait_until("the second initiation", SOON, || came.packets().unwrap() > 0).unwrap();
    wait_for_ping(left, right);
}

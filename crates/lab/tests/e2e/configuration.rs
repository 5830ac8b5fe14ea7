//! Changes by `wg` while the tunnel carries traffic, and changes of the world around it.

use std::time::Duration;

use lab::wg::{attempt_set, preshared_key};
use lab::{End, Endpoints, Gso, Link, Namespace, Outer, TunnelSpec, wait_until};

use crate::common::{SOON, check_pings, our_tunnel, spec, wait_for_ping, wireloom};
use crate::engines::{each_engine, each_engine_and_mixed, each_engine_untaken};

each_engine_and_mixed!(
    a_peer_that_moves_is_followed,
    replies_come_from_the_address_that_was_asked,
    the_listen_port_changes_under_way,
);

each_engine!(
    packets_carry_the_firewall_mark,
    a_changed_preshared_key_takes_effect,
    peers_come_and_go_and_the_others_do_not_notice,
    an_interface_that_goes_down_and_up_again_carries_on,
    a_port_in_use_is_refused,
);

each_engine_untaken!(persistent_keepalives_begin_by_themselves_and_go_on, an_idle_device_sleeps);

fn a_peer_that_moves_is_followed() {
    for outer in [Outer::V4, Outer::V6] {
        let tunnel = TunnelSpec { outer, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        check_pings(left, right);

        let (v4, v6) = tunnel.link.spare_addresses(9);
        // In this order: with its first address a network loses those that were added after it.
        left.port.remove_addresses().unwrap();
        left.port.add_addresses(v4, v6).unwrap();
        check_pings(left, right);

        let moved = right.peer(left).unwrap().endpoint.unwrap();
        let expected = match outer {
            Outer::V4 => v4.into(),
            Outer::V6 => v6.into(),
        };
        assert_eq!((moved.ip(), moved.port()), (expected, left.listen_port));
        check_pings(right, left);
    }
}

fn replies_come_from_the_address_that_was_asked() {
    for outer in [Outer::V4, Outer::V6] {
        let tunnel = TunnelSpec { outer, endpoints: Endpoints::OnlyRight, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        let (v4, v6) = tunnel.link.spare_addresses(7);
        left.port.add_addresses(v4, v6).unwrap();
        let second = match outer {
            Outer::V4 => format!("{v4}:{}", left.listen_port),
            Outer::V6 => format!("[{v6}]:{}", left.listen_port),
        };
        let key = &left.keys.public;
        right.daemon.set(&["peer", key, "endpoint", &second]).unwrap();
        check_pings(right, left);
        check_pings(left, right);
        // Had a reply come from the first address, the right end would have followed it there.
        let endpoint = right.peer(left).unwrap().endpoint.unwrap();
        assert_eq!(endpoint.to_string(), second);
    }
}

fn the_listen_port_changes_under_way() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let before = left.peer(right).unwrap();

    right.daemon.set(&["listen-port", "50007"]).unwrap();
    assert_eq!(right.daemon.status().unwrap().port, 50007);
    // The left end learns the new port from what comes from there.
    check_pings(right, left);
    check_pings(left, right);
    let after = left.peer(right).unwrap();
    assert_eq!(after.endpoint.unwrap().port(), 50007);
    assert_eq!(after.handshake, before.handshake, "the session lives on");
    assert!(after.received > before.received && after.sent > before.sent);
}

fn a_port_in_use_is_refused() {
    let tunnel = our_tunnel();
    let second = wireloom().start(tunnel.left.namespace()).unwrap();
    let port = tunnel.left.listen_port.to_string();
    let set = |port: &str| attempt_set(&second.interface, &["listen-port", port]).unwrap();
    second.up().unwrap();
    let refused = set(&port);
    assert!(!refused.status.success());
    let text = refused.log();
    assert!(text.contains("Address already in use"), "{text}");
    // The first daemon is none the worse for it, and the second takes another port.
    check_pings(&tunnel.left, &tunnel.right);
    let taken = set("50008");
    assert!(taken.status.success(), "{}", taken.log());
    assert_eq!(second.status().unwrap().port, 50008);
}

fn packets_carry_the_firewall_mark() {
    for outer in [Outer::V4, Outer::V6] {
        let tunnel = TunnelSpec { outer, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        check_pings(left, right);
        // Whatever carries the mark is refused by the routing of the left host.
        for family in ["-4", "-6"] {
            let rule = [family, "rule", "add", "fwmark", "0x51", "unreachable", "priority", "5"];
            left.namespace().ip(&rule).unwrap();
        }
        check_pings(left, right);
        left.daemon.set(&["fwmark", "0x51"]).unwrap();
        assert_eq!(left.daemon.status().unwrap().fwmark, 0x51);
        let marked = lab::ping::once(left.namespace(), right.v4.into(), &["-W", "1"]).unwrap();
        assert!(!marked.status.success(), "the mark is not on the packets");
        left.daemon.set(&["fwmark", "0"]).unwrap();
        assert_eq!(left.daemon.status().unwrap().fwmark, 0);
        wait_for_ping(left, right);
    }
}

fn persistent_keepalives_begin_by_themselves_and_go_on() {
    let tunnel = TunnelSpec { endpoints: Endpoints::OnlyLeft, ..spec() }.build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    let key = &right.keys.public;
    left.daemon.set(&["peer", key, "persistent-keepalive", "1"]).unwrap();
    assert_eq!(left.peer(right).unwrap().keepalive, 1);
    wait_until("a handshake without traffic", SOON, || right.peer(left).is_ok_and(|peer| peer.handshake > 0)).unwrap();
    // A keepalive is 32 bytes. The kernel's own chatter (IPv6 router solicitations) may add to it, never take away.
    let before = right.peer(left).unwrap().received;
    wait_until("keepalives", SOON, || right.peer(left).is_ok_and(|peer| peer.received >= before + 3 * 32)).unwrap();
    left.daemon.set(&["peer", key, "persistent-keepalive", "off"]).unwrap();
    assert_eq!(left.peer(right).unwrap().keepalive, 0);
}

fn a_changed_preshared_key_takes_effect() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    let key = preshared_key().unwrap();
    let args = ["peer", &right.keys.public, "preshared-key", &key.path()];
    left.daemon.set(&args).unwrap();
    let trips = lab::ping::ping(left.namespace(), right.v4.into(), 3, "0.3", SOON).unwrap();
    assert_eq!(trips.received, 0, "the two have different keys");
    assert_eq!(left.peer(right).unwrap().handshake, 0);
    let args = ["peer", &left.keys.public, "preshared-key", &key.path()];
    right.daemon.set(&args).unwrap();
    wait_for_ping(left, right);
}

fn peers_come_and_go_and_the_others_do_not_notice() {
    let (a, b, c) = (Namespace::new().unwrap(), Namespace::new().unwrap(), Namespace::new().unwrap());
    let to_b = Link::new(&a, &b, Gso::Through).unwrap();
    let to_c = Link::new(&a, &c, Gso::Through).unwrap();
    let end = |namespace, port, host| {
        let end = End::new(wireloom().start(namespace).unwrap(), port, host).unwrap();
        end.bring_up(1420).unwrap();
        end
    };
    let hub = end(&a, &to_b.left, 1);
    let one = end(&b, &to_b.right, 2);
    let two = end(&c, &to_c.right, 3);
    let meet = |other: &End, hub_at: std::net::Ipv4Addr| {
        let endpoint = other.endpoint(Outer::V4);
        hub.add_peer(other, Some(endpoint), None).unwrap();
        let endpoint = (hub_at, hub.listen_port).into();
        other.add_peer(&hub, Some(endpoint), None).unwrap();
    };

    meet(&one, to_b.left.v4);
    check_pings(&hub, &one);
    let before = hub.peer(&one).unwrap();

    meet(&two, to_c.left.v4);
    check_pings(&hub, &two);
    let with_two = hub.peer(&one).unwrap();
    assert_eq!(with_two.handshake, before.handshake);
    assert!(with_two.received >= before.received && with_two.sent >= before.sent);
    check_pings(&hub, &one);

    // A prefix moves to the peer that takes it last, and back.
    let address = format!("{}/32", one.v4);
    hub.daemon.set(&["peer", &two.keys.public, "allowed-ips", &format!("{}/32,{address}", two.v4)]).unwrap();
    assert!(!hub.peer(&one).unwrap().allowed_ips.contains(&address));
    assert!(hub.peer(&two).unwrap().allowed_ips.contains(&address));
    hub.add_peer(&one, None, None).unwrap();
    assert!(hub.peer(&one).unwrap().allowed_ips.contains(&address));
    check_pings(&one, &hub);

    hub.daemon.set(&["peer", &two.keys.public, "remove"]).unwrap();
    assert!(hub.peer(&two).is_err(), "the peer is gone");
    let lost = lab::ping::once(hub.namespace(), two.v4.into(), &["-W", "1"]).unwrap();
    assert!(!lost.status.success());
    check_pings(&hub, &one);
    let after = hub.peer(&one).unwrap();
    assert_eq!(after.handshake, before.handshake);
    assert!(after.received > with_two.received && after.sent > with_two.sent);
}

fn an_interface_that_goes_down_and_up_again_carries_on() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let interface = &right.daemon.interface;
    let link = |state| right.namespace().ip(&["link", "set", interface, state]);
    link("down").unwrap();
    let lost = lab::ping::once(left.namespace(), right.v4.into(), &["-W", "1"]).unwrap();
    assert!(!lost.status.success());
    link("up").unwrap();
    // The session ended with the interface: the side that is up again begins anew.
    wait_for_ping(right, left);
    wait_for_ping(left, right);
}

fn an_idle_device_sleeps() {
    let daemon = wireloom().start(&Namespace::new().unwrap()).unwrap();
    daemon.namespace.set_sysctl(&format!("net/ipv6/conf/{}/disable_ipv6", daemon.interface), "1").unwrap();
    daemon.set(&["listen-port", "50009"]).unwrap();
    daemon.up().unwrap();
    let pid = daemon.process.id();
    // Whatever the last command set in motion comes to rest first.
    let mut last = 0;
    wait_until("the daemon to come to rest", SOON, || {
        std::thread::sleep(Duration::from_millis(500));
        let now = lab::usage::sleeps(pid).unwrap();
        std::mem::replace(&mut last, now) == now
    })
    .unwrap();
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(lab::usage::sleeps(pid).unwrap(), last, "it woke up");
}

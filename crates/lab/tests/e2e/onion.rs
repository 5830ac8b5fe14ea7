//! Tunnels inside tunnels: three of them, each ending one host further away; as many in one interface; and what becomes of it when an
//! endpoint is inside what it is the endpoint of.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use lab::traffic::{Service, exchange_tcp};
use lab::{End, Gso, Link, Namespace, Outer, Port, Tap, ping, usage, wait_until};
use rustix::process::Signal;

use crate::common::{BYTES, LIMIT, SOON, check_pings, ends, introduce, ip, wait_for_ping, wireloom};
use crate::engines::{each_engine, each_engine_untaken};

each_engine!(
    three_tunnels_inside_each_other_end_one_host_further_each,
    one_interface_may_hold_the_tunnels_inside_each_other_even_when_they_loop,
);

each_engine_untaken!(two_interfaces_in_each_others_namespace_leave_nothing);

/// The end of the `layer`th tunnel, from outside: its networks are 10.(77 + layer).0.0/24 and the like. `host` is 1 for who begins.
fn layer(port: &Port, layer: u8, host: u8, mtu: u32) -> End {
    let mut end = End::new(wireloom().start(&port.namespace).unwrap(), port, host).unwrap();
    end.listen_port = 51_900 + 10 * u16::from(layer) + u16::from(host);
    end.v4 = [10, 77 + layer, 0, host].into();
    end.v6 = format!("fd{}::{host}", 77 + layer).parse().unwrap();
    end.bring_up(mtu).unwrap();
    end
}

fn forward(namespace: &Namespace) {
    namespace.set_sysctl("net/ipv4/ip_forward", "1").unwrap();
    namespace.set_sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
}

/// Both addresses of an end, as `wg` takes them.
fn both(v4: Ipv4Addr, v6: Ipv6Addr) -> String {
    format!("{v4}/32,{v6}/128")
}

/// The interface of a port's host, without addresses that matter: for another tunnel on the same host.
fn inside(end: &End) -> Port {
    Port {
        namespace: end.namespace().clone(),
        interface: end.daemon.interface.clone(),
        v4: end.v4,
        v6: end.v6,
        switch: None,
    }
}

fn three_tunnels_inside_each_other_end_one_host_further_each() {
    for outer in [Outer::V4, Outer::V6] {
        // A knows the way to B, B the one to C, and C the one to D. Nobody else knows another.
        let [a, b, c, d] = [(); 4].map(|()| Namespace::new().unwrap());
        let [further, furthest] = [(&b, &c), (&c, &d)].map(|(from, to)| Link::new(from, to, Gso::Through).unwrap());
        let links = [Link::switched(&a, &b, Gso::Through).unwrap(), further, furthest];
        for port in [&links[0].left, &links[0].right] {
            port.namespace.ip(&["link", "set", &port.interface, "mtu", "1660"]).unwrap();
        }
        for port in [&links[1], &links[2]].iter().flat_map(|link| [&link.left, &link.right]) {
            port.namespace.ip(&["link", "set", &port.interface, "mtu", "1580"]).unwrap();
        }
        forward(&b);
        forward(&c);
        let mtu = [1580, 1500, 1420];
        let near: Vec<End> = (0..3).map(|n| layer(&links[0].left, n, 1, mtu[usize::from(n)])).collect();
        let far: Vec<End> = (0..3u8).map(|n| layer(&links[usize::from(n)].right, n, 2, mtu[usize::from(n)])).collect();
        for (n, (near, far)) in near.iter().zip(&far).enumerate() {
            near.add_peer(far, Some(far.endpoint(outer)), None).unwrap();
            far.add_peer(near, None, None).unwrap();
            // What is around: the next host is reached through this tunnel, and knows the way back to this end's address.
            if let Some(link) = links.get(n + 1) {
                let Port { v4, v6, .. } = link.right;
                let allowed = both(far.v4, far.v6) + "," + &both(v4, v6);
                near.daemon.set(&["peer", &far.keys.public, "allowed-ips", &allowed]).unwrap();
                let interface = &near.daemon.interface;
                ip(near, &format!("-4 route add {v4}/32 dev {interface} src {}", near.v4));
                ip(near, &format!("-6 route add {v6}/128 dev {interface} src {}", near.v6));
                let next = &link.right.namespace;
                next.ip(&["-4", "route", "add", &near.v4.to_string(), "via", &link.left.v4.to_string()]).unwrap();
                next.ip(&["-6", "route", "add", &near.v6.to_string(), "via", &link.left.v6.to_string()]).unwrap();
            }
        }
        // On the first link there is one flow alone, to B.
        let other = format!("meta l4proto {{ tcp, udp }} th dport != {}", far[0].listen_port);
        let other = Tap::on_wire(&links[0].left, &other, "").unwrap();
        let (first, last) = (&near[2], &far[2]);
        wait_for_ping(first, last);
        check_pings(first, last);
        check_pings(last, first);
        for (from, to) in [(first, last), (last, first)] {
            let _service = Service::start(to.namespace()).unwrap();
            for address in to.inner() {
                exchange_tcp(from.namespace(), address, BYTES, LIMIT).unwrap();
            }
        }
        for address in last.inner() {
            let size = if address.is_ipv4() { "1392" } else { "1372" };
            let whole = || ping::once(&a, address, &["-M", "do", "-s", size]).unwrap();
            assert!((0..3).any(|_| whole().status.success()), "{}", whole().log());
        }
        assert_eq!(other.packets().unwrap(), 0);
        // Each host sees who is one tunnel nearer to it, and the last one not where it began.
        let seen: Vec<SocketAddr> =
            far.iter().zip(&near).map(|(far, near)| far.peer(near).unwrap().endpoint.unwrap()).collect();
        let from = |v4: Ipv4Addr, v6: Ipv6Addr, end: &End| match outer {
            Outer::V4 => SocketAddr::from((v4, end.listen_port)),
            Outer::V6 => SocketAddr::from((v6, end.listen_port)),
        };
        let outside = &links[0].left;
        let expected = [
            from(outside.v4, outside.v6, &near[0]),
            from(near[0].v4, near[0].v6, &near[1]),
            from(near[1].v4, near[1].v6, &near[2]),
        ];
        assert_eq!(seen, expected);
        for namespace in [&a, &b, &c, &d] {
            let v4 = namespace.counter("snmp", "Ip", "FragCreates").unwrap();
            let v6 = namespace.counter("snmp6", "", "Ip6FragCreates").unwrap();
            assert_eq!((v4, v6), (0, 0), "{outer:?}");
        }
    }
}

fn one_interface_may_hold_the_tunnels_inside_each_other_even_when_they_loop() {
    for outer in [Outer::V4, Outer::V6] {
        let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        let link = Link::new(&a, &b, Gso::Through).unwrap();
        let (left, right) = ends(&link.left, &link.right);
        introduce(&left, &right, outer);
        check_pings(&left, &right);
        // On the right host two more, which are reached by what the one before them carries; on the left one interface has all.
        let second = layer(&inside(&right), 1, 2, 1340);
        let third = layer(&inside(&second), 2, 2, 1280);
        let interface = &left.daemon.interface;
        for (n, end) in [(1, &second), (2, &third)] {
            left.add_peer(end, Some(end.endpoint(outer)), None).unwrap();
            let (v4, v6): (Ipv4Addr, Ipv6Addr) =
                ([10, 77 + n, 0, 1].into(), format!("fd{}::1", 77 + n).parse().unwrap());
            end.daemon.set(&["peer", &left.keys.public, "allowed-ips", &both(v4, v6)]).unwrap();
            ip(&left, &format!("address add {v4}/24 dev {interface}"));
            ip(&left, &format!("address add {v6}/64 dev {interface} nodad"));
        }
        for to in [&second, &third] {
            wait_for_ping(&left, to);
            check_pings(&left, to);
            let _service = Service::start(to.namespace()).unwrap();
            for address in to.inner() {
                exchange_tcp(left.namespace(), address, BYTES / 4, LIMIT).unwrap();
            }
        }
        // The innermost sees the address that the left host has in the tunnel around it.
        let seen = third.daemon.status().unwrap().peers[0].endpoint.unwrap().ip().to_string();
        assert_eq!(seen, if outer == Outer::V4 { "10.78.0.1" } else { "fd78::1" });

        // Now the endpoint of the second is inside itself.
        let endpoint = match outer {
            Outer::V4 => SocketAddr::from((second.v4, second.listen_port)),
            Outer::V6 => SocketAddr::from((second.v6, second.listen_port)),
        };
        // What was under way from where the second is brings it back, once.
        wait_until("nothing to come back", SOON, || {
            left.daemon.set(&["peer", &second.keys.public, "endpoint", &endpoint.to_string()]).unwrap();
            ping::ping(left.namespace(), second.v4.into(), 30, "0.01", LIMIT).unwrap().received == 0
        })
        .unwrap();
        let pid = left.daemon.process.id();
        let mut last = usage::process_cpu(pid).unwrap();
        wait_until("the packets to come to rest", SOON, || {
            std::thread::sleep(Duration::from_secs(1));
            let now = usage::process_cpu(pid).unwrap();
            now - std::mem::replace(&mut last, now) < Duration::from_millis(300)
        })
        .unwrap();
        assert!(usage::memory(pid).unwrap().resident < 24 * 1024);
        // The others go on, and so does the second once it is somewhere again.
        check_pings(&left, &right);
        left.daemon.set(&["peer", &second.keys.public, "endpoint", &second.endpoint(outer).to_string()]).unwrap();
        wait_for_ping(&left, &second);
        wait_for_ping(&left, &third);
    }
}

fn two_interfaces_in_each_others_namespace_leave_nothing() {
    // Each daemon lives where the interface of the other one is.
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let (mut one, mut other) = (wireloom().start(&a).unwrap(), wireloom().start(&b).unwrap());
    a.ip(&["link", "set", &one.interface, "netns", b.name()]).unwrap();
    b.ip(&["link", "set", &other.interface, "netns", a.name()]).unwrap();
    b.ip(&["link", "set", &one.interface, "up"]).unwrap();
    a.ip(&["link", "set", &other.interface, "up"]).unwrap();
    for daemon in [&one, &other] {
        // They have followed when they say where they listen.
        wait_until("it to listen", SOON, || daemon.status().is_ok_and(|status| status.port != 0)).unwrap();
    }
    for namespace in [&a, &b] {
        let mut command = std::process::Command::new("ip");
        lab::run_checked(command.args(["netns", "delete", namespace.name()]), SOON).unwrap();
    }
    // A process keeps the namespace that it lives in, and so each the other one's interface: until one of them is told to end.
    one.process.signal(Signal::TERM);
    assert!(one.process.wait(SOON).unwrap().success());
    let status = other.process.wait(SOON).unwrap();
    assert!(status.success(), "{status}: {}", other.process.log());
    for daemon in [&one, &other] {
        assert!(!lab::socket_path(&daemon.interface).exists());
    }
}

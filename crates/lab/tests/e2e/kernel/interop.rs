//! Ours with the kernel's: who begins, IPv4 and IPv6 outside and inside, with a preshared key and without; where each end goes
//! when the other moves; and what both count.

use lab::{Endpoints, Engine, Guest, Kernel, Outer, wait_until};

use super::pair::{BYTES, Pair, Plan, boot};
use crate::common::SOON;

/// Either begins, and is the only one that knows where the other is.
fn carries(kernel: Kernel) {
    let guest = boot(kernel);
    let mut number = 0;
    for outer in [Outer::V4, Outer::V6] {
        for (engine, preshared) in [
            (Engine::Userspace, false),
            (Engine::Userspace, true),
            // The programs are given keys of sessions, and know nothing of how those came about.
            (Engine::Ebpf, outer == Outer::V6),
        ] {
            for endpoints in [Endpoints::OnlyLeft, Endpoints::OnlyRight] {
                eprintln!("{engine:?}, {outer:?} outside, preshared key: {preshared}, {endpoints:?} knows the other");
                number += 1;
                let pair = Plan { outer, preshared, endpoints, engine, ..Plan::new(number) }.build(&guest);
                if endpoints == Endpoints::OnlyLeft {
                    pair.ping_kernel();
                    pair.exchange_with_kernel();
                } else {
                    pair.ping_ours();
                    pair.exchange_with_ours();
                }
                for status in [pair.at_ours(), pair.at_kernel()] {
                    let carried = status.received.min(status.sent);
                    assert!(status.handshake > 0 && carried > 2 * BYTES, "{status:?}");
                }
                pair.check_taken(100);
            }
        }
    }
}

#[test]
fn linux_6_1_with_ours() {
    carries(Kernel::V6_1);
}

#[test]
fn linux_6_12_with_ours() {
    carries(Kernel::V6_12);
}

/// Either end moves to another address and port, and the other one follows.
fn follows(guest: &Guest, engine: Engine, number: u8) {
    let pair = Plan { engine, ..Plan::new(number) }.build(guest);
    pair.ping_kernel();
    let [a, b, c, _] = guest.v4.octets();
    let (ours, theirs) = (format!("{a}.{b}.{c}.9"), format!("{a}.{b}.{c}.10"));

    // The kernel's interface stays until the guest ends, and so does its port.
    let theirs_at = 53_100 + u16::from(number);
    let port = &guest.host.interface;
    pair.namespace().ip(&["address", "del", &format!("{}/24", guest.host.v4), "dev", port]).unwrap();
    pair.namespace().ip(&["address", "add", &format!("{ours}/24"), "dev", port]).unwrap();
    pair.ours.daemon.set(&["listen-port", "52111"]).unwrap();
    pair.ping_kernel();
    assert_eq!(pair.at_kernel().endpoint.unwrap().to_string(), format!("{ours}:52111"));
    pair.ping_ours();

    let script = format!(
        "ip address del {}/24 dev eth0; ip address add {theirs}/24 dev eth0; wg set {} listen-port {theirs_at}",
        guest.v4, pair.interface
    );
    guest.run(&script).unwrap();
    pair.ping_ours();
    assert_eq!(pair.at_ours().endpoint.unwrap().to_string(), format!("{theirs}:{theirs_at}"));
    pair.ping_kernel();
    assert_eq!(pair.at_kernel().endpoint.unwrap().to_string(), format!("{ours}:52111"));

    drops_spoofed(&pair);
    pair.check_taken(10);

    // As it was, for whoever comes next.
    for (change, address) in [("del", format!("{ours}/24")), ("add", format!("{}/24", guest.host.v4))] {
        pair.namespace().ip(&["address", change, &address, "dev", port]).unwrap();
    }
    guest.run(&format!("ip address del {theirs}/24 dev eth0; ip address add {}/24 dev eth0", guest.v4)).unwrap();
}

/// What comes from an address that is not the peer's goes no further, at either end; and either counts it the same way.
fn drops_spoofed(pair: &Pair<'_>) {
    let (guest, interface) = (pair.guest, &pair.interface);
    // Addresses that both ends may use for what they send, and that the other end does not allow.
    pair.namespace().ip(&["address", "add", "10.200.0.1/32", "dev", &pair.ours.daemon.interface]).unwrap();
    guest.run(&format!("ip address add 10.200.0.2/32 dev {interface}")).unwrap();
    let kernel_packets = || -> u64 {
        guest.run(&format!("cat /sys/class/net/{interface}/statistics/rx_packets")).unwrap().trim().parse().unwrap()
    };
    let our_packets = || pair.ours.counters().unwrap().received_packets;

    let (before, status) = (kernel_packets(), pair.at_kernel());
    let sent = pair.at_ours().sent;
    let ping = lab::ping::once(pair.namespace(), pair.v4.into(), &["-I", "10.200.0.1", "-W", "1"]).unwrap();
    assert!(!ping.status.success());
    assert!(pair.at_ours().sent > sent, "it was sent");
    assert_eq!(kernel_packets(), before, "the kernel took a spoofed packet");
    let at_kernel = pair.at_kernel().received - status.received;

    let (before, status) = (our_packets(), pair.at_ours());
    let sent = pair.at_kernel().sent;
    let ping = guest.attempt(&format!("ping -n -c 1 -W 1 -I 10.200.0.2 {}", pair.ours.v4), SOON).unwrap();
    assert!(!ping.status.success());
    assert!(pair.at_kernel().sent > sent, "it was sent");
    assert_eq!(our_packets(), before, "ours took a spoofed packet");
    let at_ours = pair.at_ours().received - status.received;
    assert_eq!(at_ours, at_kernel, "bytes of a spoofed packet that are counted as received");
    pair.ping_ours();
    pair.ping_kernel();
}

/// After a known exchange both ends show the same: what one has sent the other has received, to the byte.
fn counts(guest: &Guest) {
    for (engine, endpoints, number) in [
        (Engine::Userspace, Endpoints::OnlyLeft, 1),
        (Engine::Userspace, Endpoints::OnlyRight, 2),
        (Engine::Ebpf, Endpoints::OnlyLeft, 3),
        (Engine::Ebpf, Endpoints::OnlyRight, 4),
    ] {
        let pair = Plan { endpoints, relayed: true, engine, ..Plan::new(number) }.build(guest);
        if endpoints == Endpoints::OnlyLeft {
            pair.ping_kernel()
        } else {
            pair.ping_ours()
        }
        // What is under way comes to rest.
        wait_until("both ends to count the same", SOON, || {
            let (ours, kernel) = (pair.at_ours(), pair.at_kernel());
            ours.sent == kernel.received && ours.received == kernel.sent
        })
        .unwrap_or_else(|_| panic!("{:?}\n{:?}", pair.at_ours(), pair.at_kernel()));
        let (ours, kernel) = (pair.at_ours(), pair.at_kernel());
        // Every message that crossed is counted, the handshake and keepalives among them: its bytes, without UDP and IP.
        let crossed = |from_left| -> u64 {
            pair.relay()
                .seen()
                .iter()
                .filter(|seen| seen.from_left == from_left)
                .map(|seen| seen.bytes.len() as u64)
                .sum()
        };
        assert_eq!((crossed(true), crossed(false)), (ours.sent, ours.received));
        assert!(ours.handshake.abs_diff(kernel.handshake) <= 2, "{} and {}", ours.handshake, kernel.handshake);
        assert_eq!((ours.keepalive, kernel.keepalive), (0, 0));
        pair.check_taken(4);
    }
}

fn counts_and_follows(kernel: Kernel) {
    let guest = boot(kernel);
    counts(&guest);
    follows(&guest, Engine::Userspace, 9);
    follows(&guest, Engine::Ebpf, 10);
}

#[test]
fn linux_6_1_counts_and_follows_as_ours_does() {
    counts_and_follows(Kernel::V6_1);
}

#[test]
fn linux_6_12_counts_and_follows_as_ours_does() {
    counts_and_follows(Kernel::V6_12);
}

//! Ours with the kernel's: who begins, IPv4 and IPv6 outside and inside, with a preshared key and without; where each end goes
//! when the other moves; and what both count.

use lab::{Endpoints, Kernel, Outer, wait_until};

use super::pair::{Pair, Plan, boot};
use crate::common::SOON;

/// One begins, and is the only one that knows where the other is.
fn carries(kernel: Kernel, endpoints: Endpoints) {
    let guest = boot(kernel);
    let cases = [(Outer::V4, false), (Outer::V4, true), (Outer::V6, false), (Outer::V6, true)];
    for ((outer, preshared), number) in cases.into_iter().zip(1..) {
        eprintln!("{outer:?} outside, preshared key: {preshared}");
        let pair = Plan { outer, preshared, endpoints, ..Plan::new(number) }.build(&guest);
        if endpoints == Endpoints::OnlyLeft {
            pair.ping_kernel();
            pair.exchange_with_kernel();
        } else {
            pair.ping_ours();
            pair.exchange_with_ours();
        }
        for status in [pair.at_ours(), pair.at_kernel()] {
            assert!(status.handshake > 0 && status.received > 2_000_000 && status.sent > 2_000_000, "{status:?}");
        }
    }
}

#[test]
fn ours_begins_with_linux_6_1() {
    carries(Kernel::V6_1, Endpoints::OnlyLeft);
}

#[test]
fn linux_6_1_begins_with_ours() {
    carries(Kernel::V6_1, Endpoints::OnlyRight);
}

#[test]
fn ours_begins_with_linux_6_12() {
    carries(Kernel::V6_12, Endpoints::OnlyLeft);
}

#[test]
fn linux_6_12_begins_with_ours() {
    carries(Kernel::V6_12, Endpoints::OnlyRight);
}

/// Either end moves to another address and port, and the other one follows.
fn follows(kernel: Kernel) {
    let guest = boot(kernel);
    let pair = Plan::new(1).build(&guest);
    pair.ping_kernel();
    let [a, b, c, _] = guest.v4.octets();
    let (ours, theirs) = (format!("{a}.{b}.{c}.9"), format!("{a}.{b}.{c}.10"));

    let port = &guest.host.interface;
    pair.namespace().ip(&["address", "del", &format!("{}/24", guest.host.v4), "dev", port]).unwrap();
    pair.namespace().ip(&["address", "add", &format!("{ours}/24"), "dev", port]).unwrap();
    pair.ours.daemon.set(&["listen-port", "52111"]).unwrap();
    pair.ping_kernel();
    assert_eq!(pair.at_kernel().endpoint.unwrap().to_string(), format!("{ours}:52111"));
    pair.ping_ours();

    let script = format!(
        "ip address del {}/24 dev eth0; ip address add {theirs}/24 dev eth0; wg set {} listen-port 53111",
        guest.v4, pair.interface
    );
    guest.run(&script).unwrap();
    pair.ping_ours();
    assert_eq!(pair.at_ours().endpoint.unwrap().to_string(), format!("{theirs}:53111"));
    pair.ping_kernel();
    assert_eq!(pair.at_kernel().endpoint.unwrap().to_string(), format!("{ours}:52111"));

    drops_spoofed(&pair);
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

#[test]
fn linux_6_1_is_followed_and_follows() {
    follows(Kernel::V6_1);
}

#[test]
fn linux_6_12_is_followed_and_follows() {
    follows(Kernel::V6_12);
}

/// After a known exchange both ends show the same: what one has sent the other has received, to the byte.
fn counts(kernel: Kernel) {
    let guest = boot(kernel);
    for (endpoints, number) in [(Endpoints::OnlyLeft, 1), (Endpoints::OnlyRight, 2)] {
        let pair = Plan { endpoints, relayed: true, ..Plan::new(number) }.build(&guest);
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
    }
}

#[test]
fn linux_6_1_counts_as_ours_does() {
    counts(Kernel::V6_1);
}

#[test]
fn linux_6_12_counts_as_ours_does() {
    counts(Kernel::V6_12);
}

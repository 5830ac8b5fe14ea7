//! The way in: messages that `ring` has sealed, from a plain socket at the other end of the cable.

use std::ops::Deref;
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags};
use linux::tun::Offloads;

use crate::bed::{self, Bytes, KEYS, LIMIT, Limits, Loaded, MTU, PORT, ledger, peer, push_vlan, user};
use crate::wire::{Observer, Sockets, padded, seal, udp_packet};

/// Where `policy` is in a `struct wl_device`, and where `number`.
const POLICY_AT: usize = 40;
const NUMBER_AT: usize = 20;

struct Scene {
    at: bed::Scene,
    /// What the programs leave comes here, as it would to the daemon.
    daemon: Sockets,
    observer: Observer,
    /// To whom the inner packets are, so that no ICMP error answers them.
    user: Sockets,
}

impl Deref for Scene {
    type Target = bed::Scene;

    fn deref(&self) -> &bed::Scene {
        &self.at
    }
}

impl Scene {
    fn new(v6: bool, xdp: bool, limits: Limits<'_>) -> Scene {
        let at = bed::Scene::new(v6, xdp, Offloads::default(), limits);
        let host = &at.link.left.namespace;
        Scene { daemon: Sockets::bind(host, PORT), observer: Observer::new(host), user: Sockets::bind(host, 7000), at }
    }

    /// All four kinds of carrier.
    fn each(mut test: impl FnMut(Scene)) {
        for (v6, xdp) in [(false, false), (true, false), (false, true), (true, true)] {
            test(Scene::new(v6, xdp, &[]));
        }
    }

    fn send(&self, message: &[u8]) {
        self.theirs.send(self.here(), 0, message, None);
    }

    fn send_inner(&self, counter: u64, inner: &[u8]) {
        self.send(&seal(&KEYS.receive, KEYS.local, counter, inner));
    }

    /// Sends a message that is to be counted so, and nothing else: all that is counted changes by that.
    fn counts(&self, what: &str, name: &str, message: &[u8]) {
        let before = (self.host.loaded.count(name), self.host.loaded.count("WL_OPENED"));
        self.send(message);
        self.host.wait_count(name, before.0 + 1);
        let after = (self.host.loaded.count(name), self.host.loaded.count("WL_OPENED"));
        assert_eq!(after.0, before.0 + 1, "{what}");
        assert!(name == "WL_OPENED" || after.1 == before.1, "{what}");
    }

    /// The same, and it reaches the daemon as it is.
    fn left(&self, what: &str, name: &str, message: &[u8]) {
        self.counts(what, name, message);
        let (came, _) = self.daemon.receive(self.v6, LIMIT).unwrap_or_else(|| panic!("{what}: it does not come"));
        assert_eq!(came, message, "{what}");
    }
}

fn inner(v6: bool, class: u8, payload: &[u8]) -> Vec<u8> {
    udp_packet(user(2, v6), user(1, v6), class, payload)
}

#[test]
fn what_ring_sealed_comes_out_of_the_interface() {
    Scene::each(|scene| {
        let mut counter = 0;
        let mut bytes = 0;
        for v6 in [false, true] {
            for len in [0, 1, 3, 4, 20, 100, 511, 512, 513, 1024, 1300, MTU as usize - if v6 { 48 } else { 28 }] {
                let payload: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
                let packet = inner(v6, 0, &payload);
                let mut text = padded(&packet);
                text.truncate(packet.len().max(text.len().min(MTU as usize)));
                scene.send_inner(counter, &text);
                scene.observer.expect(&format!("{len} bytes, v6 {v6} in {}", scene.v6), &packet);
                counter += 1;
                bytes += text.len() as u64 + 32;
            }
        }
        let loaded = &scene.host.loaded;
        assert_eq!(loaded.count("WL_OPENED"), counter, "{}", loaded.counts());
        assert_eq!(loaded.field64("ledgers", KEYS.slot, ledger::RECEIVED_NEXT), counter);
        assert_eq!(loaded.field64("ledgers", KEYS.slot, ledger::ARRIVED), counter);
        assert_eq!(loaded.traffic(0), [0, bytes, 0, counter]);
        assert!(loaded.field64("peers", 0, peer::OWING_SINCE) > 0);
        assert_eq!(loaded.field32("peers", 0, peer::OWING_MORE), 1);
        assert_eq!(loaded.field32("peers", 0, peer::ARMED), 2);
    });
}

#[test]
fn paddings_may_be_odd_and_lengths_may_not() {
    Scene::each(|scene| {
        let packet = inner(false, 0, b"odd");
        let mut counter = 0;
        let mut next = || {
            counter += 1;
            counter - 1
        };
        // None, some, too much.
        for more in [0, 1, 2, 3, 5, 15, 16, 17, 100] {
            let mut text = packet.clone();
            text.resize(packet.len() + more, 0);
            scene.send_inner(next(), &text);
            scene.observer.expect(&format!("{more} more"), &packet);
        }
        let mut short = packet.clone();
        short.truncate(packet.len() - 1);
        let mut version = packet.clone();
        version[0] = 0x55;
        let mut header = packet.clone();
        header[0] = 0x44;
        let v6 = inner(true, 0, b"");
        for (what, text) in [
            ("shorter than it says", padded(&short)[..packet.len() - 1].to_vec()),
            ("IP version 5", padded(&version)),
            ("16 bytes of header", padded(&header)),
            ("less than a header", vec![0x45; 16]),
            ("zeros", vec![0; 64]),
            ("a cut IPv6 header", v6[..32].to_vec()),
            ("less IPv6 than it says", v6[..v6.len() - 2].to_vec()),
        ] {
            let message = seal(&KEYS.receive, KEYS.local, next(), &text);
            // What is too short for the kernel to take an IPv6 header from is the daemon's.
            if scene.v6 && !scene.host.xdp && text.len() + 16 < 40 {
                scene.left(what, "WL_LEFT_MALFORMED", &message);
            } else {
                scene.counts(what, "WL_DROP_CONTENT", &message);
            }
        }
        // Larger than the interface: the daemon's to hand on.
        scene.host.loaded.device(scene.host.tun.index, 1000);
        let large = inner(false, 0, &vec![1; 1000 - 27]);
        let n = next();
        scene.left("large", "WL_LEFT_OPENED", &seal(&KEYS.receive, KEYS.local, n, &large));
        // Which has changed nothing.
        assert_eq!(scene.host.loaded.field64("ledgers", KEYS.slot, ledger::RECEIVED_NEXT), n);
    });
}

#[test]
fn what_is_not_authentic_changes_nothing() {
    Scene::each(|scene| {
        let packet = padded(&inner(false, 0, &[5; 300]));
        let message = seal(&KEYS.receive, KEYS.local, 9, &packet);
        for at in [8, 15, 16, 100, message.len() - 17, message.len() - 16, message.len() - 1] {
            let mut forged = message.clone();
            forged[at] ^= 0x10;
            scene.counts(&format!("byte {at}"), "WL_DROP_FORGED", &forged);
        }
        scene.counts("cut", "WL_DROP_FORGED", &message[..message.len() - 1]);
        let loaded = &scene.host.loaded;
        assert_eq!(loaded.field64("ledgers", KEYS.slot, ledger::RECEIVED_NEXT), 0);
        assert_eq!(loaded.traffic(0), [0; 4]);
        assert_eq!(loaded.field64("peers", 0, peer::LAST_TRAVERSAL), 0);
        scene.send(&message);
        scene.observer.expect("the true one", &inner(false, 0, &[5; 300]));
    });
}

#[test]
fn the_inner_source_has_to_be_the_peers() {
    Scene::each(|scene| {
        for v6 in [false, true] {
            let spoofed = udp_packet(user(9, v6), user(1, v6), 0, b"not mine");
            let n = u64::from(v6);
            scene.counts("spoofed", "WL_DROP_SOURCE", &seal(&KEYS.receive, KEYS.local, n, &padded(&spoofed)));
            // It was the peer who sent it all the same.
            assert_eq!(scene.host.loaded.field64("ledgers", KEYS.slot, ledger::RECEIVED_NEXT), n + 1);
            assert_eq!(scene.host.loaded.traffic(0), [0; 4]);
        }
        // Another peer's, and one that the programs do not serve.
        for owner in [1, u32::MAX] {
            scene.host.loaded.allow([192, 0, 2, 9].into(), 32, owner);
            let spoofed = padded(&udp_packet(user(9, false), user(1, false), 0, b"not mine"));
            scene.counts(
                "another's",
                "WL_DROP_SOURCE",
                &seal(&KEYS.receive, KEYS.local, 10 + u64::from(owner), &spoofed),
            );
        }
    });
}

#[test]
fn what_is_sent_again_does_not_count_for_the_rules() {
    Scene::each(|scene| {
        let loaded = &scene.host.loaded;
        // One rule that takes everything from anybody, into cell 0, and lets it pass.
        let rule = Bytes::default().u32(u32::MAX).u32(0).bytes(&[0, 3]).zeros(104);
        loaded.set("rules", &0u32.to_ne_bytes(), &rule.0);
        loaded.poke("device", 0, POLICY_AT, &1u64.to_ne_bytes());
        let message = seal(&KEYS.receive, KEYS.local, 5, &padded(&inner(false, 0, b"once")));
        scene.counts("the first", "WL_OPENED", &message);
        for _ in 0..10 {
            scene.counts("the same again", "WL_DROP_REPLAYED", &message);
        }
        let taken = loaded.map("rule_counts").lookup_percpu(&[0; 4], MapFlags::ANY).unwrap().unwrap();
        let packets: u64 = taken.iter().map(|cell| u64::from_ne_bytes(cell[..8].try_into().unwrap())).sum();
        assert_eq!(packets, 1);
    });
}

#[test]
fn keepalives_end_here() {
    Scene::each(|scene| {
        scene.counts("keepalive", "WL_KEEPALIVE", &seal(&KEYS.receive, KEYS.local, 0, &[]));
        let loaded = &scene.host.loaded;
        assert_eq!(loaded.traffic(0), [0, 32, 0, 1]);
        assert_eq!(loaded.field64("peers", 0, peer::OWING_SINCE), 0);
        assert!(loaded.field64("peers", 0, peer::LAST_TRAVERSAL) > 0);
        scene.counts("again", "WL_DROP_REPLAYED", &seal(&KEYS.receive, KEYS.local, 0, &[]));
    });
}

#[test]
fn what_the_programs_do_not_take_comes_to_the_daemon_as_it_is() {
    Scene::each(|scene| {
        let text = padded(&inner(false, 0, b"left"));
        let message = seal(&KEYS.receive, KEYS.local, 0, &text);
        scene.left("another index", "WL_LEFT_INDEX", &seal(&KEYS.receive, KEYS.local + 1, 0, &text));
        for kind in 1..=3 {
            let mut handshake = vec![kind, 0, 0, 0];
            handshake.resize(148, kind);
            scene.left("a handshake", "WL_LEFT_HANDSHAKE", &handshake);
        }
        let mut reserved = message.clone();
        reserved[2] = 1;
        scene.left("reserved bytes", "WL_LEFT_MALFORMED", &reserved);
        scene.left("too short", "WL_LEFT_MALFORMED", &message[..31]);
        let loaded = &scene.host.loaded;
        // An ended session, and one of another epoch.
        for epoch in [KEYS.epoch + 1, KEYS.epoch + 2] {
            loaded.poke("ledgers", KEYS.slot, ledger::EPOCH, &epoch.to_ne_bytes());
            scene.left("another epoch", "WL_LEFT_INDEX", &message);
        }
        loaded.poke("ledgers", KEYS.slot, ledger::EPOCH, &KEYS.epoch.to_ne_bytes());
        // One that is too old.
        let old = linux::clock::boot_nanos().saturating_sub(180_000_000_000);
        if old > 0 {
            let created = loaded.field64("ledgers", KEYS.slot, ledger::CREATED);
            loaded.poke("ledgers", KEYS.slot, ledger::CREATED, &old.to_ne_bytes());
            scene.left("expired", "WL_LEFT_EXPIRED", &message);
            loaded.poke("ledgers", KEYS.slot, ledger::CREATED, &created.to_ne_bytes());
        }
        // From another port.
        let elsewhere = Sockets::bind(&scene.link.right.namespace, PORT + 1);
        elsewhere.send(scene.here(), 0, &message, None);
        scene.host.wait_count("WL_LEFT_ROAMED", 1);
        assert_eq!(scene.daemon.receive(scene.v6, LIMIT).unwrap().0, message);
        assert_eq!(loaded.count("WL_OPENED"), 0, "{}", loaded.counts());
        scene.send(&message);
        scene.host.wait_count("WL_OPENED", 1);
        assert!(scene.daemon.receive(scene.v6, Duration::ZERO).is_none());
    });
}

#[test]
fn the_first_message_confirms_a_responders_session() {
    Scene::each(|scene| {
        let loaded = &scene.host.loaded;
        let awaits = || loaded.field32("ledgers", KEYS.slot, ledger::AWAITS_CONFIRMATION);
        let current = || loaded.field64("peers", 0, peer::CURRENT);
        loaded.poke("ledgers", KEYS.slot, ledger::AWAITS_CONFIRMATION, &1u32.to_ne_bytes());
        loaded.poke("peers", 0, peer::CURRENT, &0u64.to_ne_bytes());
        let message = |counter| seal(&KEYS.receive, KEYS.local, counter, &padded(&inner(false, 0, b"first")));
        // Who has not the keys confirms nothing.
        let mut forged = message(0);
        *forged.last_mut().unwrap() ^= 1;
        scene.counts("forged", "WL_DROP_FORGED", &forged);
        assert_eq!((awaits(), current()), (1, 0));
        scene.counts("the first", "WL_OPENED", &message(0));
        let this = u64::from(KEYS.slot) << 32 | u64::from(KEYS.epoch);
        assert_eq!((awaits(), current()), (2, this), "and from here on it is sent with");
        // Once, even where the daemon has chosen another one by now.
        loaded.poke("peers", 0, peer::CURRENT, &0u64.to_ne_bytes());
        scene.counts("the second", "WL_OPENED", &message(1));
        assert_eq!((awaits(), current()), (2, 0));
        let told = loaded.events();
        assert_eq!(told.iter().filter(|event| **event == [3, KEYS.slot]).count(), 1, "{told:?}");
        // Of one that may not be sent with any more it is told, and nothing else.
        loaded.poke("ledgers", KEYS.slot, ledger::AWAITS_CONFIRMATION, &1u32.to_ne_bytes());
        loaded.poke("ledgers", KEYS.slot, ledger::MAY_SEND, &0u32.to_ne_bytes());
        scene.counts("the third", "WL_OPENED", &message(2));
        assert_eq!((awaits(), current()), (2, 0));
    });
}

#[test]
fn congestion_on_the_way_is_carried_in() {
    use inet::ecn::{Decapsulated, decapsulate};
    Scene::each(|scene| {
        let mut counter = 0;
        for v6 in [false, true] {
            for (inside, outside) in (0..4u8).flat_map(|inside| (0..4u8).map(move |outside| (inside, outside))) {
                // DSCP of each stays where it is.
                let packet = inner(v6, 0xb8 | inside, &[inside, outside, counter as u8]);
                let message = seal(&KEYS.receive, KEYS.local, counter, &padded(&packet));
                scene.theirs.send(scene.here(), 0x28 | outside, &message, None);
                let mut expected = packet;
                if let Decapsulated::Set(bits) = decapsulate(inside, outside) {
                    inet::ip::set_ecn(&mut expected, bits);
                }
                scene.observer.expect(&format!("inner {inside:02b}, outer {outside:02b}"), &expected);
                counter += 1;
            }
        }
    });
}

#[test]
fn a_session_that_only_receives_asks_for_the_next_once() {
    let scene = Scene::new(false, false, &[("wl_rekey_on_receive_after", 1)]);
    for n in 0..3 {
        scene.send_inner(n, &padded(&inner(false, 0, b"received")));
    }
    scene.host.wait_count("WL_OPENED", 3);
    assert_eq!(
        scene.host.loaded.events().iter().map(|[kind, _]| *kind).collect::<Vec<_>>(),
        [1, 2],
        "activity, for the answer that is owed, and a rekey"
    );
    assert_eq!(scene.host.loaded.field32("ledgers", KEYS.slot, ledger::REKEY_ON_RECEIVE), 1);
}

/// Has the other end send to this link address of ours.
fn lead(scene: &Scene, mac: [u8; 6]) {
    let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    let (right, here) = (&scene.link.right, scene.here().ip().to_string());
    let add = ["neigh", "replace", &here, "lladdr", &mac.join(":"), "nud", "permanent", "dev", &right.interface];
    right.namespace.ip(&add).unwrap();
}

#[test]
fn a_copy_for_another_link_address_does_not_use_up_the_message() {
    Scene::each(|scene| {
        let packet = inner(false, 0, b"mirrored");
        let message = seal(&KEYS.receive, KEYS.local, 0, &padded(&packet));
        lead(&scene, [2, 0, 0, 0, 0, 0x99]);
        scene.send(&message);
        lead(&scene, scene.host.mac);
        scene.send(&message);
        scene.observer.expect("the one for us", &packet);
        // What comes by another interface than leaves, or with a next hop that is not known, is taken all the same.
        let loaded = &scene.host.loaded;
        loaded.poke("peers", 0, peer::HAS_MAC, &0u32.to_ne_bytes());
        let packet = inner(false, 0, b"by an interface's own address");
        scene.send_inner(1, &padded(&packet));
        scene.observer.expect("the interface's own", &packet);
        assert_eq!((loaded.count("WL_OPENED"), loaded.count("WL_DROP_REPLAYED")), (2, 0), "{}", loaded.counts());
    });
}

#[test]
fn what_was_opened_for_another_interface_does_not_pass_for_plain() {
    for v6 in [false, true] {
        let scene = Scene::new(v6, true, &[]);
        let host = &scene.host;
        let send = |counter: u64, text: &[u8]| {
            scene.send_inner(counter, &padded(&inner(v6, 0, text)));
            host.wait_count("WL_OPENED", counter + 1);
        };
        let receive = || scene.user.receive(v6, LIMIT).unwrap().0;
        // The program at TC finds that the interface is another one by now: the packet is nobody's.
        let later = Loaded::new(&[]);
        later.device(host.tun.index + 1, MTU);
        later.attach(&host.port.namespace, "wl_hand_over", host.ifindex, true);
        send(0, b"opened for an interface that is not there");
        host.loaded.attach(&host.port.namespace, "wl_hand_over", host.ifindex, true);
        send(1, b"opened for the interface");
        assert_eq!(receive(), b"opened for the interface");
        // A mark of another device's programs is that device's to judge.
        later.poke("device", 0, NUMBER_AT, &7u32.to_ne_bytes());
        later.attach(&host.port.namespace, "wl_hand_over", host.ifindex, true);
        send(2, b"another device's");
        assert_eq!(receive(), b"another device's");
    }
}

#[test]
fn the_tag_of_a_vlan_that_the_driver_put_aside_stays_outside() {
    let scene = Scene::new(false, true, &[]);
    let right = &scene.link.right;
    lead(&scene, scene.host.mac);
    // Whatever leaves the other end is of VLAN 10; a veth leaves the tag beside the frame.
    push_vlan(&right.namespace, bed::link_of(right).0, 10);
    let packet = inner(false, 0, b"tagged");
    scene.send_inner(0, &padded(&packet));
    scene.observer.expect("the packet", &packet);
    assert_eq!(scene.user.receive(false, LIMIT).unwrap().0, b"tagged");
}

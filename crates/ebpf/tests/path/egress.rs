//! The way out: the kernel's own packets, and some made by hand, sealed by the programs and opened by `ring`.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::time::Duration;

use lab::capture::Capture;
use linux::tun::Offloads;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with};

use crate::bed::{self, KEYS, LIMIT, Limits, MTU, PORT, Session, ledger, peer};
use crate::wire::{Sockets, checksums_are_right, ip_packet, open, padded, seal, tcp_packet, udp_packet};

struct Scene {
    at: bed::Scene,
    /// A user's sockets, behind the interface.
    user: Sockets,
    capture: Capture,
}

impl Deref for Scene {
    type Target = bed::Scene;

    fn deref(&self) -> &bed::Scene {
        &self.at
    }
}

fn there(v6: bool) -> SocketAddr {
    bed::user(2, v6)
}

fn here(v6: bool) -> SocketAddr {
    bed::user(1, v6)
}

impl Scene {
    fn new(v6: bool, offloads: Offloads, limits: Limits<'_>) -> Scene {
        let at = bed::Scene::new(v6, false, offloads, limits);
        let (user, capture) = (Sockets::bind(&at.link.left.namespace, 7000), Capture::start(&at.link.right.namespace));
        Scene { at, user, capture: capture.unwrap() }
    }

    /// The next sealed packet: its counter and what it holds, padding and all. What lies around it is right.
    fn sealed(&self) -> (u64, Vec<u8>, u8) {
        let (message, received) =
            self.theirs.receive(self.v6, LIMIT).unwrap_or_else(|| panic!("nothing: {}", self.host.loaded.counts()));
        assert_eq!(received.from, self.at.here());
        let (index, counter, text) = open(&KEYS.send, &message).unwrap();
        assert_eq!(index, KEYS.remote);
        (counter, text, received.ecn)
    }

    /// Sends an IP packet as it is, but for what the kernel fills in of an IPv4 header.
    fn inject(&self, packet: &[u8]) {
        let v6 = packet[0] >> 4 == 6;
        let send = || {
            let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
            let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?;
            let to = SocketAddr::new(there(v6).ip(), 0);
            sendto(&socket, packet, SendFlags::empty(), &to).map(drop).map_err(Into::into)
        };
        self.host.port.namespace.inside(send).unwrap();
    }

    /// What is left comes to the daemon as it is.
    fn left(&self, what: &str, name: &str, packet: &[u8]) {
        let before = self.host.loaded.count("WL_SEALED");
        self.inject(packet);
        self.host.wait_count(name, 1);
        let mut buffer = vec![0; 1 << 16];
        let found = lab::wait_for(what, LIMIT, || {
            while let Ok(len) = self.host.tun.queues[0].read(&mut buffer) {
                // The kernel numbers IPv4 packets that have no number.
                if buffer[..len] == *packet {
                    return Ok(Some(()));
                }
            }
            Ok(None)
        });
        found.unwrap_or_else(|error| panic!("{error}: {}", self.host.loaded.counts()));
        assert_eq!(self.host.loaded.count("WL_SEALED"), before, "{what}");
    }
}

#[test]
fn what_leaves_opens_with_ring() {
    for v6 in [false, true] {
        let scene = Scene::new(v6, Offloads::ALL, &[]);
        let (mut expected, mut bytes) = (0, 0);
        for inner in [false, true] {
            let most = MTU as usize - if inner { 48 } else { 28 };
            for len in [0, 1, 3, 4, 20, 100, 483, 484, 485, 1000, 1300, most - 1, most] {
                let payload: Vec<u8> = (0..len).map(|i| (i * 3 + len) as u8).collect();
                for class in [0, 0xb9, 0x02, 0x03] {
                    scene.user.send(there(inner), class, &payload, None);
                    let (counter, text, ecn) = scene.sealed();
                    assert_eq!(counter, expected);
                    expected += 1;
                    bytes += text.len() as u64 + 32;
                    let len = payload.len() + if inner { 48 } else { 28 };
                    assert_eq!(text.len(), len.next_multiple_of(16).min(len.max(MTU as usize)), "padding");
                    assert!(text[len..].iter().all(|byte| *byte == 0), "padding");
                    assert!(checksums_are_right(&text[..len]), "{len} bytes, class {class}, v6 {inner} in {v6}");
                    assert_eq!(text[len - payload.len()..len], payload);
                    assert_eq!(ecn, class & 3, "ECN goes out");
                }
            }
        }
        let heard = scene.capture.heard();
        assert!(heard.len() as u64 >= expected);
        for heard in heard.iter().filter(|heard| heard.to.port() == PORT) {
            assert!(heard.checksum_is_right());
            let class = if v6 { heard.ip[0] << 4 | heard.ip[1] >> 4 } else { heard.ip[1] };
            assert_eq!(class >> 2, 0, "DSCP stays inside");
            assert_eq!(heard.ip[if v6 { 7 } else { 8 }], 64, "hops");
            assert!(v6 || inet::checksum::finish(inet::checksum::sum(&heard.ip, 0)) == 0);
            assert!(v6 || heard.ip[6] & 0x40 == 0, "it may be cut on the way, as the daemon's may");
        }
        let loaded = &scene.host.loaded;
        assert_eq!(loaded.traffic(0), [bytes, 0, expected, 0]);
        assert_eq!(loaded.field64("ledgers", KEYS.slot, ledger::NEXT_COUNTER), expected);
        assert!(loaded.field64("peers", 0, peer::AWAITING_SINCE) > 0);
        assert!(loaded.field64("peers", 0, peer::LAST_DATA_SENT) > 0);
        assert_eq!(loaded.field32("peers", 0, peer::ARMED), 1);
    }
}

#[test]
fn what_cannot_be_taken_reaches_the_daemon_as_it_is() {
    let scene = Scene::new(false, Offloads::default(), &[]);
    let loaded = &scene.host.loaded;
    let packet = udp_packet(here(false), there(false), 0, &[3; 50]);
    let v6 = udp_packet(here(true), there(true), 0, &[3; 50]);
    let poke = |at: usize, value: u32| loaded.poke("ledgers", KEYS.slot, at, &value.to_ne_bytes());

    let elsewhere = udp_packet(here(false), "192.0.2.77:1".parse().unwrap(), 0, &[3; 50]);
    scene.left("nobody's", "WL_LEFT_ROUTE", &elsewhere);

    poke(ledger::MAY_SEND, 0);
    scene.left("closed", "WL_LEFT_SESSION", &packet);
    poke(ledger::MAY_SEND, 1);
    poke(ledger::AWAITS_CONFIRMATION, 1);
    scene.left("unconfirmed", "WL_LEFT_SESSION", &v6);
    poke(ledger::AWAITS_CONFIRMATION, 0);
    poke(ledger::EPOCH, KEYS.epoch + 1);
    scene.left("ended", "WL_LEFT_SESSION", &packet);
    poke(ledger::EPOCH, KEYS.epoch + 2);
    scene.left("another's slot", "WL_LEFT_SESSION", &v6);
    poke(ledger::EPOCH, KEYS.epoch);
    let keys = loaded.get("keys", KEYS.slot);
    loaded.poke("keys", KEYS.slot, 64, &[0; 4]);
    scene.left("wiped", "WL_LEFT_SESSION", &packet);
    loaded.set("keys", &KEYS.slot.to_ne_bytes(), &keys);

    let old = linux::clock::boot_nanos().saturating_sub(180_000_000_000);
    let created = loaded.field64("ledgers", KEYS.slot, ledger::CREATED);
    loaded.poke("ledgers", KEYS.slot, ledger::CREATED, &old.to_ne_bytes());
    scene.left("expired", "WL_LEFT_SESSION", &packet);
    loaded.poke("ledgers", KEYS.slot, ledger::CREATED, &created.to_ne_bytes());

    let whole = loaded.get("peers", 0);
    loaded.poke("peers", 0, peer::CURRENT, &[0; 8]);
    scene.left("no session", "WL_LEFT_SESSION", &v6);
    loaded.set("peers", &0u32.to_ne_bytes(), &whole);
    loaded.poke("peers", 0, peer::PATH_SEQ, &3u32.to_ne_bytes());
    scene.left("path in work", "WL_LEFT_PATH", &packet);
    loaded.set("peers", &0u32.to_ne_bytes(), &whole);
    loaded.poke("peers", 0, peer::FAMILY, &[0]);
    scene.left("no path", "WL_LEFT_PATH", &v6);
    loaded.set("peers", &0u32.to_ne_bytes(), &whole);
    // 78 bytes become 80, and 60 of headers and tag: one too many.
    loaded.poke("peers", 0, peer::PATH_MTU, &139u32.to_ne_bytes());
    scene.left("path too narrow", "WL_LEFT_SIZE", &packet);
    loaded.poke("peers", 0, peer::PATH_MTU, &140u32.to_ne_bytes());
    scene.inject(&packet);
    assert_eq!(scene.sealed().1, padded(&packet));
    loaded.set("peers", &0u32.to_ne_bytes(), &whole);

    // The peer's own endpoint, routed into the tunnel.
    loaded.allow(scene.link.right.v4.into(), 32, 0);
    scene.host.port.namespace.ip(&["route", "add", &format!("{}/32", scene.link.right.v4), "dev", "wg0"]).unwrap();
    let before = loaded.count("WL_LEFT_PATH");
    scene.user.send(SocketAddr::new(scene.link.right.v4.into(), PORT), 0, &[3; 50], None);
    scene.host.wait_count("WL_LEFT_PATH", before + 1);
}

#[test]
fn nothing_is_sent_with_a_counter_at_the_limit() {
    let limit = u64::MAX - (1 << 13);
    let scene = Scene::new(false, Offloads::ALL, &[]);
    let loaded = &scene.host.loaded;
    loaded.poke("ledgers", KEYS.slot, ledger::NEXT_COUNTER, &(limit - 2).to_ne_bytes());
    for counter in [limit - 2, limit - 1] {
        scene.user.send(there(false), 0, b"almost", None);
        assert_eq!(scene.sealed().0, counter);
    }
    for n in 1..=3 {
        scene.user.send(there(false), 0, b"too many", None);
        scene.host.wait_count("WL_LEFT_SESSION", n);
    }
    // A train that has fewer counters than it needs takes none.
    loaded.poke("ledgers", KEYS.slot, ledger::NEXT_COUNTER, &(limit - 2).to_ne_bytes());
    scene.user.send(there(false), 0, &[1; 3000], Some(1000));
    scene.host.wait_count("WL_LEFT_SESSION", 4);
    assert_eq!(loaded.field64("ledgers", KEYS.slot, ledger::NEXT_COUNTER), limit - 2);
    assert_eq!(loaded.count("WL_SEALED"), 2);
    assert!(scene.theirs.receive(false, Duration::ZERO).is_none());
}

#[test]
fn trains_of_datagrams_are_cut() {
    for v6 in [false, true] {
        let scene = Scene::new(v6, Offloads::ALL, &[]);
        let mut counter = 0;
        for inner in [false, true] {
            for (len, segment) in
                [(3000, 1000), (1001, 1000), (20_000, 1300), (400, 100), (777, 111), (64 * 20, 20), (9000, 1372)]
            {
                let payload: Vec<u8> = (0..len).map(|i| (i * 5 + segment) as u8).collect();
                let supers = scene.host.loaded.count("WL_SEALED_SUPER");
                scene.user.send(there(inner), 0x02, &payload, Some(segment as u16));
                for chunk in payload.chunks(segment) {
                    let (number, text, ecn) = scene.sealed();
                    let head = if inner { 48 } else { 28 };
                    assert_eq!((number, ecn), (counter, 2));
                    counter += 1;
                    assert_eq!(text.len(), (head + chunk.len()).next_multiple_of(16).min(MTU as usize));
                    let packet = &text[..head + chunk.len()];
                    assert_eq!(packet[head..], *chunk, "{len}/{segment}, v6 {inner} in {v6}");
                    assert!(checksums_are_right(packet), "{len}/{segment}, v6 {inner} in {v6}");
                }
                assert_eq!(scene.host.loaded.count("WL_SEALED_SUPER"), supers + 1, "{len}/{segment} v6 {inner}");
            }
        }
        assert_eq!(scene.host.loaded.count("WL_SEALED"), counter);
        assert!(
            scene.capture.heard().iter().filter(|heard| heard.to.port() == PORT).all(|heard| heard.checksum_is_right())
        );
        // Without the next hop's link address they are the daemon's.
        scene.host.loaded.poke("peers", 0, peer::HAS_MAC, &[0; 4]);
        scene.user.send(there(false), 0, &[1; 3000], Some(1000));
        scene.host.wait_count("WL_LEFT_PATH", 1);
    }
}

/// A stream whose other end is made by hand: what the kernel hands over in one piece is cut into segments that are each as they should be.
#[test]
fn streams_are_cut() {
    for inner in [false, true] {
        let scene = Scene::new(!inner, Offloads::ALL, &[]);
        let data: Vec<u8> = (0..200_000u32).map(|i| (i / 7) as u8).collect();
        let head = if inner { 40 } else { 20 };
        let to = SocketAddr::new(there(inner).ip(), 80);
        let us = scene.at.here();
        let namespace = scene.host.port.namespace.clone();
        let (mut cut, mut fin) = (0, false);
        std::thread::scope(|scope| {
            let sent = data.clone();
            scope.spawn(move || {
                let write = move || {
                    let mut stream = TcpStream::connect(to)?;
                    stream.write_all(&sent)
                };
                namespace.inside(write).unwrap();
            });
            let (mut begin, mut got, mut ours) = (0u32, 0usize, 0u64);
            let (mut known, mut last_id) = (vec![false; data.len()], None);
            while !fin {
                let (_, text, _) = scene.sealed();
                let ip = inet::ip::IpPacket::parse(&text).unwrap();
                if ip.protocol() != 6 {
                    continue;
                }
                let packet = ip.bytes();
                assert!(checksums_are_right(packet));
                let tcp = &packet[head..];
                let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
                let port = u16::from_be_bytes([tcp[0], tcp[1]]);
                let (seq, flags, body) = (word(4), tcp[13], &tcp[usize::from(tcp[12] >> 4) * 4..]);
                let mut answer = |seq: u32, ack: u32, flags: u8, options: &[u8]| {
                    let from = SocketAddr::new(here(inner).ip(), port);
                    let packet = tcp_packet(to, from, seq, ack, flags, options);
                    scene.theirs.send(us, 0, &seal(&KEYS.receive, KEYS.local, ours, &padded(&packet)), None);
                    ours += 1;
                };
                if flags & 2 != 0 {
                    begin = seq.wrapping_add(1);
                    answer(1000, begin, 0x12, &[2, 4, 1300u16.to_be_bytes()[0], 1300u16.to_be_bytes()[1], 3, 3, 7, 1]);
                    continue;
                }
                let at = seq.wrapping_sub(begin) as usize;
                assert_eq!(data[at..at + body.len()], *body);
                if !inner && !body.is_empty() {
                    let id = u16::from_be_bytes([packet[4], packet[5]]);
                    assert_ne!(last_id, Some(id), "each has its own");
                    last_id = Some(id);
                }
                known[at..at + body.len()].fill(true);
                while known.get(got) == Some(&true) {
                    got += 1;
                }
                fin = flags & 1 != 0 && got == data.len();
                assert!(flags & 1 == 0 || at + body.len() == data.len(), "FIN on the last only");
                if !body.is_empty() {
                    answer(1001, begin.wrapping_add((got + usize::from(fin)) as u32), 0x10, &[]);
                }
            }
            // The other end is done as well.
            cut = scene.host.loaded.count("WL_SEALED_SUPER");
        });
        assert!(cut > 5, "{}", scene.host.loaded.counts());
    }
}

#[test]
fn without_the_next_hops_link_address_the_kernel_finds_it() {
    for v6 in [false, true] {
        let scene = Scene::new(v6, Offloads::ALL, &[]);
        scene.host.loaded.poke("peers", 0, peer::HAS_MAC, &[0; 4]);
        scene.host.port.namespace.ip(&["neigh", "flush", "all", "nud", "all"]).unwrap();
        scene.user.send(there(false), 0, b"the first waits for a neighbour", None);
        let (counter, text, _) = scene.sealed();
        assert_eq!((counter, &text[28..59]), (0, &b"the first waits for a neighbour"[..]));
    }
}

#[test]
fn a_session_that_sends_asks_for_the_next_once() {
    let scene = Scene::new(false, Offloads::ALL, &[("wl_rekey_after_messages", 3)]);
    for _ in 0..5 {
        scene.inject(&ip_packet(here(false).ip(), there(false).ip(), 0, 253, &[1; 10]));
        scene.sealed();
    }
    assert_eq!(
        scene.host.loaded.events().iter().map(|[kind, _]| *kind).collect::<Vec<_>>(),
        [1, 2],
        "activity, for the answer that is awaited, and a rekey"
    );
    assert_eq!(scene.host.loaded.field32("ledgers", KEYS.slot, ledger::REKEY_ON_SEND), 1);
}

#[test]
fn keys_end_with_their_session_without_anybodys_doing() {
    let scene = Scene::new(false, Offloads::ALL, &[("wl_reject_after_time", 2_000_000_000)]);
    let loaded = &scene.host.loaded;
    // Of a session that is over at once, and of one that a later timer is for.
    let young = Session { slot: KEYS.slot + 1, local: KEYS.local + 1, ..KEYS };
    loaded.session(&young);
    for _ in 0..2 {
        loaded.arm(KEYS.slot, 2_000_000_000);
    }
    scene.user.send(there(false), 0, b"still", None);
    scene.sealed();
    let wiped = || loaded.get("keys", KEYS.slot)[..68].iter().all(|byte| *byte == 0);
    assert!(!wiped());
    lab::wait_until("the timer", LIMIT, wiped).unwrap();
    assert!(linux::clock::boot_nanos() >= loaded.field64("ledgers", KEYS.slot, ledger::CREATED) + 2_000_000_000);
    scene.user.send(there(false), 0, b"no more", None);
    scene.host.wait_count("WL_LEFT_SESSION", 1);
    assert_eq!(loaded.get("keys", young.slot)[..32], young.send, "its own timer was never started");
    // A timer that goes off for a slot's former session leaves the next one alone.
    loaded.session(&young);
    loaded.arm(young.slot, 1);
    loaded.poke("keys", KEYS.slot, 0, &[1]);
    loaded.arm(KEYS.slot, 1_000_000);
    lab::wait_until("the timer", LIMIT, wiped).unwrap();
    assert_eq!(loaded.get("keys", young.slot)[..32], young.send, "it is young");
}

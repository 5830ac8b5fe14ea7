//! One semantic, two evaluators: whatever the rules and the packet, the programs decide as the daemon does, by the same rule, and remember the same.
#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

use ebpf::policy::{COUNT_LEN, Sets, sum};
use inet::Cidr;
use inet::ip::IpPacket;
use inet::policy::{Action, Direction, Flow, Limit, Matching, Ports, Unit};
use libbpf_rs::{MapCore, MapFlags, MapMut, Object, ObjectBuilder, ProgramInput, ProgramMut};
use noise::{Instant, PeerId};
use plane::policy::{PeerRule, Policy, RuleCount, Subject, Whose, own_bucket};
use proptest::{collection::vec, option, prelude::*};
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;
use std::time::Duration;

/// Bytes of a `struct question`, and where its answer is.
const QUESTION: usize = 40;
const ANSWER: usize = 36;
/// Where `policy` is in a `struct wl_device`, and its size.
const POLICY_AT: usize = 40;
const DEVICE_LEN: usize = 48;

const OUR_SLOT: u32 = 17;

struct Programs {
    object: Object,
    sets: Sets,
}

impl Programs {
    fn load() -> Programs {
        let object = ObjectBuilder::default().open_memory(ebpf::POLICY_TEST_OBJECT).unwrap().load().unwrap();
        Programs { object, sets: Sets::default() }
    }

    fn map(&mut self, name: &str) -> MapMut<'_> {
        self.object.maps_mut().find(|map| map.name() == name).unwrap()
    }

    /// Puts rules in force: peer 1 is in the programs' slot, the others are not served.
    fn set(&mut self, rules: &[PeerRule], fresh: bool) {
        let (mut sets, this) = (self.sets, RefCell::new(self));
        let put = |number: u32, rule: &[u8; 104]| {
            this.borrow_mut().map("rules").update(&number.to_ne_bytes(), rule, MapFlags::ANY).unwrap();
            Ok(())
        };
        let empty = |number: u32| {
            let mut this = this.borrow_mut();
            let (counts, key) = (this.map("rule_counts"), number.to_ne_bytes());
            let zeros = vec![vec![0; COUNT_LEN]; libbpf_rs::num_possible_cpus().unwrap()];
            counts.update_percpu(&key, &zeros, MapFlags::ANY).unwrap();
            this.map("rule_buckets").update(&key, &[0; 8], MapFlags::ANY).unwrap();
            Ok(())
        };
        let slot = |peer: PeerId| (peer.as_u32() == 1).then_some(OUR_SLOT);
        let written = sets.write(rules, fresh, slot, put, empty).unwrap();
        let this = this.into_inner();
        this.sets = sets;
        let mut device = this.map("device").lookup(&[0; 4], MapFlags::ANY).unwrap().unwrap();
        assert_eq!(device.len(), DEVICE_LEN);
        device[POLICY_AT..POLICY_AT + 8].copy_from_slice(&written.word.to_ne_bytes());
        this.map("device").update(&[0; 4], &device, MapFlags::ANY).unwrap();
    }

    fn counts(&mut self) -> Vec<RuleCount> {
        let cells: Vec<u32> = self.sets.cells().collect();
        let map = self.map("rule_counts");
        let of = |cell: u32| map.lookup_percpu(&cell.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap().concat();
        cells.into_iter().map(|cell| sum(&of(cell))).collect()
    }

    /// What the programs say: 0 pass, 1 drop, 2 not a packet, 3 not theirs to tell.
    fn ask(&mut self, now: u64, direction: Direction, packets: u32, packet: &[u8]) -> u32 {
        let mut input = vec![0; QUESTION];
        input[16..24].copy_from_slice(&now.to_ne_bytes());
        input[24..28].copy_from_slice(&OUR_SLOT.to_ne_bytes());
        input[28..32].copy_from_slice(&packets.to_ne_bytes());
        input[32..36].copy_from_slice(&u32::from(direction == Direction::In).to_ne_bytes());
        input[36..40].copy_from_slice(&9u32.to_ne_bytes());
        input.extend_from_slice(packet);
        let mut output = vec![0; input.len()];
        let program: ProgramMut<'_> = self.object.progs_mut().find(|program| program.name() == "ask").unwrap();
        let result = program
            .test_run(ProgramInput { data_in: Some(&input), data_out: Some(&mut output), ..ProgramInput::default() })
            .unwrap();
        assert_eq!(result.return_value, 0);
        u32::from_ne_bytes(output[ANSWER..ANSWER + 4].try_into().unwrap())
    }
}

/// Few addresses, ports and protocols, so that rules and packets meet.
fn address(v4: bool, number: u8) -> IpAddr {
    if v4 {
        Ipv4Addr::new(10, number >> 6, number >> 3 & 7, number & 7).into()
    } else {
        Ipv6Addr::new(0xfd00, u16::from(number >> 6), 0, 0, 0, 0, u16::from(number >> 3 & 7), u16::from(number & 7))
            .into()
    }
}

fn prefix() -> impl Strategy<Value = Cidr> {
    (any::<bool>(), any::<u8>(), any::<u8>()).prop_map(|(v4, number, len)| {
        // All addresses of a family, or few: the interesting bits are at the end.
        let bits = if v4 { 32 } else { 128 };
        let len = if len < 64 { 0 } else { bits - len % 12 };
        Cidr::new(address(v4, number), len).unwrap()
    })
}

fn ports() -> impl Strategy<Value = Ports> {
    let number = prop_oneof![0..4u16, Just(u16::MAX)];
    (number.clone(), number).prop_map(|(a, b)| Ports { first: a.min(b), last: a.max(b) })
}

fn protocol() -> impl Strategy<Value = u8> {
    prop_oneof![Just(6u8), Just(17), Just(1), Just(58), Just(132), Just(33), Just(136), Just(47), any::<u8>()]
}

fn action() -> impl Strategy<Value = Action> {
    let limit = (1..5000u64, any::<bool>(), 1..200u64).prop_map(|(rate, bytes, millis)| Limit {
        per_second: NonZeroU64::new(rate).unwrap(),
        unit: if bytes { Unit::Bytes } else { Unit::Packets },
        burst: Duration::from_millis(millis),
    });
    prop_oneof![Just(Action::Pass), Just(Action::Drop), limit.prop_map(Action::Limit)]
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Out), Just(Direction::In)]
}

fn rule() -> impl Strategy<Value = PeerRule> {
    let whose = prop_oneof![
        4 => Just(Whose::Anybody),
        4 => Just(Whose::Peer(PeerId::from_u32(1))),
        1 => Just(Whose::Peer(PeerId::from_u32(2))),
        1 => Just(Whose::Nobody)
    ];
    let sparse = |of| proptest::option::weighted(0.3, of);
    let matching = (
        option::weighted(0.4, direction()),
        option::weighted(0.4, protocol()),
        sparse(prefix()),
        sparse(prefix()),
        option::weighted(0.2, ports()),
        option::weighted(0.2, ports()),
    );
    (whose, matching, action()).prop_map(
        |(whose, (direction, protocol, source, destination, source_ports, destination_ports), action)| PeerRule {
            whose,
            matching: Matching { direction, protocol, source, destination, source_ports, destination_ports },
            action,
        },
    )
}

/// An inner packet: a header that is right, mostly, and what follows it.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![4 => Just(0u16), 1 => Just(0x2000), 1 => Just(0x2001), 1 => any::<u16>()];
    let port = prop_oneof![0..4u16, any::<u16>()];
    let whole = (any::<bool>(), any::<[u8; 2]>(), protocol(), fragment, (port.clone(), port), 0..40usize, 0..11usize);
    let whole = whole.prop_map(|(v4, [from, to], protocol, fragment, ports, len, options)| {
        let header = if v4 { 20 + 4 * options } else { 40 };
        let mut packet = vec![0; header + len];
        let mut rest = [0; 4];
        rest[..2].copy_from_slice(&ports.0.to_be_bytes());
        rest[2..].copy_from_slice(&ports.1.to_be_bytes());
        for (to, byte) in packet[header..].iter_mut().zip(rest) {
            *to = byte;
        }
        let mut put = |at: usize, bytes: &[u8]| packet[at..at + bytes.len()].copy_from_slice(bytes);
        if v4 {
            put(0, &[0x40 | (5 + options as u8)]);
            put(2, &((header + len) as u16).to_be_bytes());
            put(6, &fragment.to_be_bytes());
            put(9, &[protocol]);
        } else {
            put(0, &[0x60]);
            put(4, &(len as u16).to_be_bytes());
            put(6, &[protocol]);
        }
        match (address(v4, from), address(v4, to)) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                put(12, &from.octets());
                put(16, &to.octets());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                put(8, &from.octets());
                put(24, &to.octets());
            }
            _ => unreachable!("both of one family"),
        }
        packet
    });
    prop_oneof![9 => whole, 1 => vec(any::<u8>(), 1..80)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn both_decide_alike(
        rules in vec(rule(), 0..12),
        rounds in vec((packet(), direction(), 1..5u32, 0..300u64), 1..24),
        again in any::<bool>(),
    ) {
        thread_local!(static PROGRAMS: RefCell<Programs> = RefCell::new(Programs::load()));
        PROGRAMS.with_borrow_mut(|programs| {
            let policy = Policy::default();
            policy.set(&rules, true, |_| own_bucket());
            programs.set(&rules, true);
            let half = rounds.len() / 2;
            let mut now = 1 << 40;
            for (number, (packet, direction, packets, millis)) in rounds.iter().enumerate() {
                if again && number == half {
                    // The same, told anew: nothing is forgotten.
                    policy.set(&rules, false, |_| unreachable!("each has its word"));
                    programs.set(&rules, false);
                }
                now += millis * 1_000_000;
                let answer = programs.ask(now, *direction, *packets, packet);
                let parsed = match IpPacket::parse(packet) {
                    Err(_) => {
                        prop_assert_eq!(answer, 2);
                        continue;
                    }
                    Ok(parsed) => parsed,
                };
                if answer == 3 {
                    // The daemon's, and rightly so: behind extension headers.
                    prop_assert!(matches!(packet[6], 0 | 43 | 44 | 51 | 60 | 135) && packet[0] >> 4 == 6);
                    continue;
                }
                let (flow, bytes) = (Flow::of(&parsed), parsed.total_len() as u32);
                let subject = Subject { peer: PeerId::from_u32(1), direction: *direction, flow, packets: *packets, bytes };
                let permitted = policy.permits(Instant::from_nanos(now), &subject);
                prop_assert_eq!(answer, u32::from(!permitted), "{:?}", subject);
                prop_assert_eq!(programs.counts(), policy.counts(), "another rule took it: {:?}", subject);
            }
            Ok(())
        })?;
    }
}

#[test]
fn as_many_rules_as_there_may_be_are_looked_at() {
    let mut programs = Programs::load();
    let only = |port| Matching {
        protocol: Some(17),
        destination_ports: Some(Ports { first: port, last: port }),
        ..Matching::default()
    };
    let rules: Vec<PeerRule> =
        (0..64).map(|port| PeerRule { whose: Whose::Anybody, matching: only(port), action: Action::Drop }).collect();
    programs.set(&rules, true);
    let mut packet = [0; 28];
    packet[..4].copy_from_slice(&[0x45, 0, 0, 28]);
    packet[9] = 17;
    for port in 0..65u8 {
        packet[23] = port;
        assert_eq!(programs.ask(0, Direction::Out, 1, &packet), u32::from(port < 64), "{port}");
    }
    let count = RuleCount { packets: 1, bytes: 28, dropped: 1 };
    assert_eq!(programs.counts(), [count; 64]);
    // And none, although they are still there.
    programs.set(&[], true);
    assert_eq!(programs.ask(0, Direction::Out, 1, &packet), 0);
}

#[test]
fn the_layout_is_the_programs() {
    let programs = Programs::load();
    for (name, size) in [("rules", ebpf::policy::RULE_LEN), ("rule_counts", COUNT_LEN), ("rule_buckets", 8)] {
        let map = programs.object.maps().find(|map| map.name() == name).unwrap();
        assert_eq!(
            (map.value_size() as usize, map.max_entries() as usize),
            (size, 2 * ebpf::policy::RULES_MAX),
            "{name}"
        );
    }
}

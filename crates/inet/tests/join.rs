//! Nothing is lost, doubled or reordered within its flow by joining, and what was joined can be cut again without a trace.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use inet::cut::Cut;
use inet::join::{Group, Joiner};
use inet::vnet::VnetHeader;
use proptest::prelude::*;
use support::{ACK, CWR, ECE, FIN, PSH, SYN, Spec, fix_ipv4_checksum, payload};

/// A joiner that was offered all of them.
fn offered(packets: &[Vec<u8>]) -> Joiner {
    let mut joiner = Joiner::new(packets.len(), true);
    for packet in packets {
        assert!(joiner.offer(packet));
    }
    joiner
}

fn grouping(packets: &[Vec<u8>]) -> Vec<Vec<usize>> {
    offered(packets).groups().map(|group| group.packets().collect()).collect()
}

/// The super-packet of a group, as it would be written.
fn super_packet(group: &Group<'_>, packets: &[Vec<u8>]) -> (VnetHeader, Vec<u8>) {
    let numbers: Vec<usize> = group.packets().collect();
    let mut out = vec![0xaa; group.head_len() + 1];
    let header = group.write_head(&packets[numbers[0]], &mut out);
    assert_eq!(out.pop(), Some(0xaa));
    for number in numbers {
        out.extend_from_slice(&packets[number][group.head_len()..]);
    }
    (header, out)
}

fn cut(header: &VnetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let cut = Cut::new(header, packet).unwrap();
    (0..cut.segments())
        .map(|i| {
            let mut out = vec![0; cut.head_len()];
            cut.write_head(i, &mut out);
            out.extend_from_slice(cut.body(i));
            out
        })
        .collect()
}

/// A packet without what GSO makes of it: where fragmentation is forbidden, the identification means nothing.
fn without_id(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        fix_ipv4_checksum(&mut packet);
    }
    packet
}

fn is_fragment(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4 && (packet[6] & 0x3f != 0 || packet[7] != 0)
}

/// Which flow a packet of the generator below belongs to; a fragment may belong to any between its hosts.
fn flow(packet: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let (hosts, transport) = match packet[0] >> 4 {
        4 => (packet[12..20].to_vec(), usize::from(packet[0] & 15) * 4),
        _ => (packet[8..40].to_vec(), 40),
    };
    if is_fragment(packet) {
        return (hosts, None);
    }
    let protocol = if packet[0] >> 4 == 4 { packet[9] } else { packet[6] };
    let ports = [&packet[transport..transport + 4], &[protocol]].concat();
    (hosts, Some(ports))
}

fn same_flow(a: &[u8], b: &[u8]) -> bool {
    let ((hosts_a, ports_a), (hosts_b, ports_b)) = (flow(a), flow(b));
    hosts_a == hosts_b && (ports_a.is_none() || ports_b.is_none() || ports_a == ports_b)
}

#[derive(Clone, Debug)]
enum Twist {
    None,
    Push,
    Smaller,
    Larger,
    Gap,
    Repeat,
    BareAck,
    Flags(u8),
    Corrupt(usize),
    Ttl,
    Class,
    DontFragment,
    Identification,
    Ack,
    Window,
    Options,
    FlowLabel,
    IpOptions,
    Fragment,
    NoUdpChecksum,
    Trailing,
}

fn any_twist() -> impl Strategy<Value = Twist> {
    use Twist::*;
    prop_oneof![
        30 => Just(Twist::None),
        1 => prop::sample::select(vec![
            Push, Smaller, Larger, Gap, Repeat, BareAck, Ttl, Class, DontFragment, Identification, Ack, Window, Options,
            FlowLabel, IpOptions, Fragment, NoUdpChecksum, Trailing, Flags(FIN | ACK), Flags(SYN), Flags(ACK | ECE),
            Flags(ACK | CWR), Flags(0),
        ]),
        1 => (0usize..160).prop_map(Corrupt),
    ]
}

/// Flows that mostly go on as they should, from a list of steps.
fn run(flows: usize, steps: &[(usize, Twist)]) -> Vec<Vec<u8>> {
    let mut specs: Vec<Spec> = (0..flows)
        .map(|i| Spec {
            v6: i & 1 != 0,
            tcp: i & 2 != 0,
            dont_fragment: i & 4 != 0,
            host: (i & 8) as u8,
            port: (i / 4) as u16,
            seq: u32::MAX - 300,
            ..Spec::default()
        })
        .collect();
    steps
        .iter()
        .map(|(i, twist)| {
            let spec = &mut specs[i % flows];
            let mut one = spec.clone();
            match twist {
                Twist::Push => one.flags |= PSH,
                Twist::Smaller => one.payload.truncate(60),
                Twist::Larger => one.payload = payload(140),
                Twist::Gap => one.seq = one.seq.wrapping_add(10),
                Twist::Repeat => one.seq = one.seq.wrapping_sub(one.payload.len() as u32),
                Twist::BareAck => one.payload.clear(),
                Twist::Flags(flags) => one.flags = *flags,
                Twist::Ttl => one.ttl -= 1,
                Twist::Class => one.class = 3,
                Twist::DontFragment => one.dont_fragment ^= true,
                Twist::Identification => one.id = one.id.wrapping_add(5),
                Twist::Ack => one.ack += 1,
                Twist::Window => one.window += 1,
                Twist::Options => one.tcp_options[7] += 1,
                Twist::FlowLabel => one.flow_label += 1,
                Twist::IpOptions => one.ip_options = vec![1; 4],
                _ => {}
            }
            let mut packet = one.bytes();
            match twist {
                Twist::Corrupt(at) => {
                    let at = one.transport() + 4 + at % (packet.len() - one.transport() - 4);
                    packet[at] ^= 0x10;
                }
                Twist::Fragment if !one.v6 => {
                    packet[6] |= 0x20;
                    fix_ipv4_checksum(&mut packet);
                }
                Twist::NoUdpChecksum if !one.tcp => packet[one.transport() + 6..one.transport() + 8].fill(0),
                Twist::Trailing => packet.extend([0; 5]),
                _ => {}
            }
            spec.seq = one.seq.wrapping_add(one.payload.len() as u32);
            spec.id = one.id.wrapping_add(1);
            packet
        })
        .collect()
}

proptest! {
    #[test]
    fn joining_what_was_cut_gives_it_back(
        (v6, tcp, dont_fragment, push) in any::<(bool, bool, bool, bool)>(),
        size in 1usize..1500,
        count in 2usize..64,
        last in 0usize..1500,
        id in any::<u16>(),
        seq in any::<u32>(),
    ) {
        let len = (size * (count - 1) + 1 + last % size).min(65_000);
        let flags = if push { ACK | PSH } else { ACK };
        let spec = Spec { v6, tcp, dont_fragment, id, seq, flags, payload: payload(len), ..Spec::default() };
        prop_assume!(len > size);
        let segments = cut(&spec.vnet(size as u16), &spec.partial());
        let joiner = offered(&segments);
        let groups: Vec<_> = joiner.groups().collect();
        prop_assert_eq!(groups.len(), 1);
        prop_assert_eq!(groups[0].len(), segments.len());
        let (header, packet) = super_packet(&groups[0], &segments);
        prop_assert_eq!(&packet, &spec.partial());
        prop_assert_eq!(header, VnetHeader { hdr_len: spec.head_len() as u16, ..spec.vnet(size as u16) });
    }

    #[test]
    fn any_mixture_comes_out_whole_and_in_order(
        flows in 1usize..40,
        steps in prop_oneof![
            // A small table, in which flows evict each other, and a large one.
            prop::collection::vec((any::<usize>(), any_twist()), 1..10),
            prop::collection::vec((any::<usize>(), any_twist()), 1..120),
        ],
    ) {
        let packets = run(flows, &steps);
        let joiner = offered(&packets);
        let mut seen = Vec::new();
        let mut firsts = Vec::new();
        for group in joiner.groups() {
            let numbers: Vec<usize> = group.packets().collect();
            prop_assert_eq!(numbers.len(), group.len());
            let (header, packet) = super_packet(&group, &packets);
            if group.len() == 1 {
                prop_assert_eq!(header, VnetHeader::default());
                prop_assert_eq!(&packet, &packets[numbers[0]]);
            } else {
                // The segments are the packets again, to the byte: this holds for no packet whose checksum was wrong.
                let segments = cut(&header, &packet);
                prop_assert_eq!(segments.len(), numbers.len());
                for (segment, &number) in segments.iter().zip(&numbers) {
                    prop_assert_eq!(without_id(segment), without_id(&packets[number]), "packet {}", number);
                }
            }
            firsts.push(numbers[0]);
            seen.extend(numbers);
        }
        prop_assert!(firsts.is_sorted());
        let mut sorted = seen.clone();
        sorted.sort_unstable();
        prop_assert!(sorted.into_iter().eq(0..packets.len()));
        for (i, &later) in seen.iter().enumerate() {
            for &earlier in &seen[..i] {
                prop_assert!(
                    earlier < later || !same_flow(&packets[earlier], &packets[later]),
                    "{} went before {}", earlier, later
                );
            }
        }
    }

    #[test]
    fn steady_flows_merge_completely(flows in 1usize..12, order in prop::collection::vec(any::<usize>(), 1..120)) {
        let steps: Vec<_> = order.iter().map(|&i| (i, Twist::None)).collect();
        let packets = run(flows, &steps);
        let used: std::collections::BTreeSet<_> = order.iter().map(|i| i % flows).collect();
        // In a table of this size no flow evicts another, unless five of the twelve meet in one place, and these do not.
        let mut joiner = Joiner::new(512, true);
        for packet in &packets {
            prop_assert!(joiner.offer(packet));
        }
        let datagrams = |i: &usize| i & 2 == 0;
        let extra: usize = used.iter().filter(|i| datagrams(i)).map(|flow| {
            (order.iter().filter(|&i| i % flows == *flow).count() - 1) / 64
        }).sum();
        prop_assert_eq!(joiner.groups().count(), used.len() + extra);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20)) {
        let numbers: usize = grouping(&packets).iter().map(Vec::len).sum();
        prop_assert_eq!(numbers, packets.len());
    }
}

/// How three packets of one flow group, the second with a twist.
fn with_second(flow: usize, twist: Twist) -> Vec<Vec<usize>> {
    let mut steps = vec![(flow, Twist::None); 4];
    steps[1].1 = twist;
    grouping(&run(8, &steps))
}

const UDP_V4: usize = 0;
const UDP_V6: usize = 1;
const TCP_V4: usize = 2;
const TCP_V6: usize = 3;
const TCP_V4_DF: usize = 6;

#[test]
fn a_packet_that_cannot_join_closes_the_group() {
    let apart = [vec![0], vec![1], vec![2, 3]];
    for (flow, twist) in [
        (TCP_V4, Twist::Corrupt(30)),
        (TCP_V6, Twist::Corrupt(30)),
        (UDP_V4, Twist::Corrupt(30)),
        (TCP_V4, Twist::BareAck),
        (UDP_V4, Twist::BareAck),
        (TCP_V4, Twist::Flags(FIN | ACK)),
        (TCP_V4, Twist::Flags(ACK | CWR)),
        (TCP_V4, Twist::Flags(ACK | ECE)),
        (TCP_V4, Twist::Flags(0)),
        (TCP_V4, Twist::IpOptions),
        (TCP_V4, Twist::Fragment),
        (UDP_V6, Twist::NoUdpChecksum),
        (TCP_V4, Twist::Trailing),
        (TCP_V4, Twist::Ttl),
        (TCP_V6, Twist::Ttl),
        (TCP_V4, Twist::Class),
        (TCP_V6, Twist::Class),
        (UDP_V6, Twist::Class),
        (TCP_V6, Twist::FlowLabel),
        (TCP_V4, Twist::DontFragment),
        (TCP_V4, Twist::Ack),
        (TCP_V4, Twist::Window),
        (TCP_V4, Twist::Options),
    ] {
        assert_eq!(with_second(flow, twist.clone()), apart, "flow {flow}, {twist:?}");
    }
}

#[test]
fn after_a_jump_a_new_group_begins() {
    for (flow, twist) in [(TCP_V4, Twist::Gap), (TCP_V6, Twist::Repeat), (UDP_V4, Twist::Identification)] {
        assert_eq!(with_second(flow, twist.clone()), [vec![0], vec![1, 2, 3]], "{twist:?}");
    }
}

#[test]
fn a_larger_segment_opens_a_group_that_the_next_one_ends() {
    for flow in [UDP_V4, TCP_V6] {
        assert_eq!(with_second(flow, Twist::Larger), [vec![0], vec![1, 2], vec![3]]);
    }
}

#[test]
fn push_and_a_smaller_segment_end_the_group_they_join() {
    for (flow, twist) in [(TCP_V4, Twist::Push), (TCP_V6, Twist::Smaller), (UDP_V4, Twist::Smaller)] {
        assert_eq!(with_second(flow, twist.clone()), [[0, 1], [2, 3]], "{twist:?}");
    }
}

#[test]
fn the_identification_does_not_matter_where_fragmentation_is_forbidden() {
    assert_eq!(with_second(TCP_V4_DF, Twist::Identification), [[0, 1, 2, 3]]);
}

#[test]
fn ece_on_all_segments_merges() {
    let steps = vec![(TCP_V4, Twist::Flags(ACK | ECE)); 3];
    assert_eq!(grouping(&run(8, &steps)), [[0, 1, 2]]);
}

#[test]
fn flows_do_not_disturb_each_other() {
    let steps: Vec<_> = (0..16).map(|i| (i % 8, Twist::None)).collect();
    let expected: Vec<Vec<usize>> = (0..8).map(|i| vec![i, i + 8]).collect();
    assert_eq!(grouping(&run(8, &steps)), expected);
}

#[test]
fn a_fragment_closes_every_group() {
    let steps = [(TCP_V6, Twist::None), (UDP_V4, Twist::Fragment), (TCP_V6, Twist::None)];
    assert_eq!(grouping(&run(8, &steps)), [[0], [1], [2]]);
}

#[test]
fn the_first_checksum_counts_too() {
    let steps = [(TCP_V4, Twist::Corrupt(40)), (TCP_V4, Twist::None), (TCP_V4, Twist::None)];
    assert_eq!(grouping(&run(8, &steps)), [vec![0], vec![1, 2]]);
    let mut packets = run(8, &[(TCP_V4, Twist::None), (TCP_V4, Twist::None)]);
    packets[1][10] ^= 1;
    assert_eq!(grouping(&packets), [[0], [1]]);
}

#[test]
fn a_group_is_no_longer_than_ip_can_tell() {
    for v6 in [false, true] {
        let mut spec = Spec { v6, payload: payload(1400), ..Spec::default() };
        let packets: Vec<_> = (0..60)
            .map(|_| {
                let packet = spec.bytes();
                spec.seq += 1400;
                packet
            })
            .collect();
        let joiner = offered(&packets);
        let groups: Vec<_> = joiner.groups().collect();
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].len(), (65535 - spec.head_len()) / 1400);
        assert!(super_packet(&groups[0], &packets).1.len() <= 65535);
    }
}

#[test]
fn at_most_64_datagrams_merge() {
    let packets = run(1, &vec![(UDP_V4, Twist::None); 130]);
    let lens: Vec<usize> = offered(&packets).groups().map(|group| group.len()).collect();
    assert_eq!(lens, [64, 64, 2]);
}

#[test]
fn datagrams_stay_apart_where_the_tun_does_not_take_them() {
    let packets = run(8, &[(UDP_V4, Twist::None), (UDP_V4, Twist::None), (TCP_V4, Twist::None), (TCP_V4, Twist::None)]);
    let mut joiner = Joiner::new(8, false);
    assert!(packets.iter().all(|packet| joiner.offer(packet)));
    let groups: Vec<Vec<usize>> = joiner.groups().map(|group| group.packets().collect()).collect();
    assert_eq!(groups, [vec![0], vec![1], vec![2, 3]]);
}

#[test]
fn a_full_joiner_takes_no_more_until_it_is_cleared() {
    let packets = run(8, &vec![(TCP_V4, Twist::None); 3]);
    let mut joiner = Joiner::new(2, true);
    assert!(joiner.offer(&packets[0]));
    assert!(joiner.offer(&packets[1]));
    assert!(!joiner.offer(&packets[2]));
    assert_eq!(joiner.groups().map(|group| group.len()).collect::<Vec<_>>(), [2]);
    joiner.clear();
    assert_eq!(joiner.groups().count(), 0);
    // Nothing of the run before is continued.
    assert!(joiner.offer(&packets[2]));
    assert_eq!(joiner.groups().map(|group| group.len()).collect::<Vec<_>>(), [1]);
    assert!(!Joiner::new(0, true).offer(&packets[0]));
}

//! What comes out of a super-packet is what the kernel would have sent.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use inet::cut::{Cut, CutError};
use inet::ip::IpError;
use inet::vnet::{Gso, VnetHeader};
use proptest::prelude::*;
use support::{ACK, CWR, ECE, FIN, PSH, Spec, assert_valid, naive_sum, payload, pseudo};

fn segments(header: &VnetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let cut = Cut::new(header, packet).unwrap();
    (0..cut.segments())
        .map(|i| {
            // More room than needed: nothing behind the head may be touched.
            let mut out = vec![0xaa; cut.head_len() + 1];
            cut.write_head(i, &mut out);
            assert_eq!(out.pop(), Some(0xaa));
            out.extend_from_slice(cut.body(i));
            assert_eq!(out.len(), cut.segment_len(i));
            out
        })
        .collect()
}

fn any_spec() -> impl Strategy<Value = Spec> {
    let shape = (any::<bool>(), any::<bool>(), 0usize..=3, 0usize..=10, 0usize..20_000);
    let words = (any::<u16>(), any::<u32>(), any::<u32>(), any::<u16>());
    (shape, words, any::<u8>(), any::<u8>()).prop_map(
        |((v6, tcp, ip_options, tcp_options, len), (id, seq, ack, window), flags, class)| Spec {
            v6,
            tcp,
            id,
            seq,
            ack,
            window,
            flags,
            class,
            ip_options: vec![1; ip_options * 4],
            tcp_options: vec![1; tcp_options * 4],
            payload: payload(len),
            ..Spec::default()
        },
    )
}

proptest! {
    #[test]
    fn segments_are_the_super_packet_in_pieces(spec in any_spec(), size in 1u16..3000) {
        let packet = spec.partial();
        let segments = segments(&spec.vnet(size), &packet);
        let (transport, head_len) = (spec.transport(), spec.head_len());
        let count = spec.payload.len().div_ceil(usize::from(size)).max(1);
        prop_assert_eq!(segments.len(), count);

        let mut joined = Vec::new();
        for (i, segment) in segments.iter().enumerate() {
            assert_valid(segment, transport, spec.protocol());
            let last = i + 1 == count;
            prop_assert!(last || segment.len() == head_len + usize::from(size));

            // What must be equal in all segments: put the super-packet's own values where they differ.
            let mut head = segment[..head_len].to_vec();
            if spec.v6 {
                head[4..6].copy_from_slice(&packet[4..6]);
            } else {
                prop_assert_eq!(&head[4..6], spec.id.wrapping_add(i as u16).to_be_bytes());
                head[2..6].copy_from_slice(&packet[2..6]);
                head[10..12].copy_from_slice(&packet[10..12]);
            }
            if spec.tcp {
                let seq = spec.seq.wrapping_add(joined.len() as u32);
                prop_assert_eq!(&head[transport + 4..transport + 8], seq.to_be_bytes());
                let mut flags = spec.flags;
                if !last { flags &= !(FIN | PSH) }
                if i > 0 { flags &= !CWR }
                prop_assert_eq!(head[transport + 13], flags);
                head[transport + 4..transport + 8].copy_from_slice(&spec.seq.to_be_bytes());
                head[transport + 13] = spec.flags;
                head[transport + 16..transport + 18].copy_from_slice(&packet[transport + 16..transport + 18]);
            } else {
                head[transport + 4..transport + 8].copy_from_slice(&packet[transport + 4..transport + 8]);
            }
            prop_assert_eq!(&head, &packet[..head_len]);
            joined.extend_from_slice(&segment[head_len..]);
        }
        prop_assert_eq!(joined, spec.payload);
    }

    #[test]
    fn plain_packets_get_their_checksum(spec in any_spec()) {
        let segments = segments(&spec.plain_vnet(), &spec.partial());
        prop_assert_eq!(segments.len(), 1);
        assert_valid(&segments[0], spec.transport(), spec.protocol());
        let mut expected = spec.bytes();
        if spec.tcp {
            // Zero has two forms.
            let at = spec.transport() + 16;
            if expected[at..at + 2] == [0, 0] { expected[at..at + 2].fill(0xff) }
        }
        prop_assert_eq!(&segments[0], &expected);
    }

    #[test]
    fn plain_packets_without_need_stay_as_they_are(spec in any_spec()) {
        let packet = spec.bytes();
        prop_assert_eq!(segments(&VnetHeader::default(), &packet), vec![packet]);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(header in any::<[u8; 10]>(), packet in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(header) = VnetHeader::parse(&header) {
            exercise(&header, &packet);
        }
    }

    #[test]
    fn damaged_super_packets_do_no_harm(
        spec in any_spec(),
        size in 0u16..3000,
        gso in 0usize..4,
        csum in prop::option::of((0u16..200, 0u16..40)),
        needs_csum in any::<bool>(),
        damage in prop::collection::vec((0usize..120, any::<u8>()), 0..6),
        cut_to in 0usize..2000,
    ) {
        let mut header = VnetHeader { needs_csum, ..spec.vnet(size) };
        header.gso = [Gso::None, Gso::TcpV4, Gso::TcpV6, Gso::UdpL4][gso];
        if let Some((start, offset)) = csum {
            (header.csum_start, header.csum_offset) = (start, offset);
        }
        let mut packet = spec.partial();
        for (at, byte) in damage {
            let len = packet.len();
            packet[at % len] = byte;
        }
        exercise(&header, &packet);
        packet.truncate(cut_to);
        exercise(&header, &packet);
    }
}

/// Whatever is accepted can be cut, and its lengths agree.
fn exercise(header: &VnetHeader, packet: &[u8]) {
    let Ok(cut) = Cut::new(header, packet) else { return };
    assert!(cut.segments() >= 1);
    let mut out = vec![0; cut.head_len()];
    let mut bodies = 0;
    for i in 0..cut.segments() {
        cut.write_head(i, &mut out);
        bodies += cut.body(i).len();
        assert_eq!(cut.segment_len(i), cut.head_len() + cut.body(i).len());
    }
    assert!(cut.head_len() + bodies <= packet.len());
    assert!(cut.body(cut.segments()).is_empty());
    assert!(cut.ecn() < 4);
    assert_eq!(cut.source().is_ipv4(), cut.destination().is_ipv4());
}

#[test]
fn flags_go_where_they_belong() {
    let spec = Spec { flags: ACK | FIN | PSH | CWR | ECE, payload: payload(250), ..Spec::default() };
    let flags: Vec<u8> =
        segments(&spec.vnet(100), &spec.partial()).iter().map(|segment| segment[spec.transport() + 13]).collect();
    assert_eq!(flags, [ACK | CWR | ECE, ACK | ECE, ACK | FIN | PSH | ECE]);
}

#[test]
fn one_segment_keeps_all_flags() {
    for size in [100, 101, 65535] {
        let spec = Spec { flags: ACK | FIN | PSH | CWR, ..Spec::default() };
        assert_eq!(segments(&spec.vnet(size), &spec.partial()), [spec.bytes()]);
    }
}

#[test]
fn identification_and_sequence_numbers_wrap() {
    let spec = Spec { id: 0xffff, seq: u32::MAX - 9, payload: payload(30), ..Spec::default() };
    let segments = segments(&spec.vnet(10), &spec.partial());
    assert_eq!(segments[1][4..6], [0, 0]);
    assert_eq!(segments[1][24..28], [0, 0, 0, 0]);
    assert_eq!(segments[2][24..28], [0, 0, 0, 10]);
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_ones() {
    // Let the first two bytes of payload be what the sum of all else lacks.
    let mut spec = Spec { tcp: false, payload: payload(20), ..Spec::default() };
    spec.payload[..2].fill(0);
    let packet = spec.bytes();
    let checksum = [packet[26], packet[27]];
    spec.payload[..2].copy_from_slice(&checksum);
    for header in [spec.plain_vnet(), spec.vnet(100)] {
        let segments = segments(&header, &spec.partial());
        assert_eq!(segments[0][26..28], [0xff, 0xff]);
        assert_valid(&segments[0], 20, 17);
    }
}

#[test]
fn without_needs_csum_the_checksums_are_made_all_the_same() {
    for (v6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
        let spec = Spec { v6, tcp, payload: payload(300), ..Spec::default() };
        let header = VnetHeader { needs_csum: false, csum_start: 0, csum_offset: 0, ..spec.vnet(100) };
        for segment in segments(&header, &spec.bytes()) {
            assert_valid(&segment, spec.transport(), spec.protocol());
        }
    }
}

#[test]
fn extension_headers_come_along() {
    // Hop-by-hop options, then destination options, then TCP.
    let mut extensions = vec![60, 0, 1, 4, 0, 0, 0, 0];
    extensions.extend([6, 1, 1, 12]);
    extensions.extend([0; 12]);
    let spec = Spec { v6: true, extensions: Some((0, extensions)), payload: payload(250), ..Spec::default() };
    let segments = segments(&spec.vnet(100), &spec.partial());
    assert_eq!(segments.len(), 3);
    for segment in segments {
        assert_valid(&segment, 64, 6);
    }
}

#[test]
fn a_routing_header_leaves_the_pseudo_header_to_who_knows_it() {
    // The last destination is in the routing header; the sender has summed it up in the checksum field.
    let mut extensions = vec![17, 2, 0, 1, 0, 0, 0, 0];
    extensions.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xee, 3]);
    let spec =
        Spec { v6: true, tcp: false, extensions: Some((43, extensions)), payload: payload(250), ..Spec::default() };
    let mut packet = spec.partial();
    let last_hop: [u8; 16] = packet[48..64].try_into().unwrap();
    let arrived = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        packet[24..40].copy_from_slice(&last_hop);
        packet
    };
    let sum = naive_sum(&[&pseudo(&arrived(&packet), 17, packet.len() - 64)]);
    packet[70..72].copy_from_slice(&sum.to_be_bytes());

    let segments = segments(&spec.vnet(100), &packet);
    assert_eq!(segments.len(), 3);
    for segment in segments {
        assert_valid(&arrived(&segment), 64, 17);
    }
    let unhelpful = VnetHeader { needs_csum: false, ..spec.vnet(100) };
    assert_eq!(Cut::new(&unhelpful, &packet).unwrap_err(), CutError::ChecksumPosition);
}

#[test]
fn what_follows_the_packet_is_ignored() {
    let spec = Spec { payload: payload(150), ..Spec::default() };
    let mut packet = spec.partial();
    packet.extend([0xee; 40]);
    let total: usize = segments(&spec.vnet(100), &packet).iter().map(|segment| segment.len() - spec.head_len()).sum();
    assert_eq!(total, 150);
    assert_eq!(segments(&spec.plain_vnet(), &packet), [spec.bytes()]);
}

#[test]
fn contradictions_are_refused() {
    let spec = Spec::default();
    let packet = spec.partial();
    let error = |header: VnetHeader, packet: &[u8]| Cut::new(&header, packet).unwrap_err();
    let good = spec.vnet(10);

    assert_eq!(error(VnetHeader { gso: Gso::TcpV6, ..good }, &packet), CutError::Kind);
    assert_eq!(error(VnetHeader { gso: Gso::UdpL4, ..good }, &packet), CutError::Kind);
    assert_eq!(error(VnetHeader { gso_size: 0, ..good }, &packet), CutError::ZeroSize);
    assert_eq!(error(VnetHeader { csum_start: 24, ..good }, &packet), CutError::ChecksumPosition);
    assert_eq!(error(VnetHeader { csum_offset: 6, ..good }, &packet), CutError::ChecksumPosition);
    assert_eq!(error(good, &packet[..packet.len() - 1]), CutError::Ip(IpError::Truncated));
    assert_eq!(error(good, &[]), CutError::Ip(IpError::Empty));

    let plain = spec.plain_vnet();
    assert_eq!(error(VnetHeader { csum_start: 8, ..plain }, &packet), CutError::ChecksumPosition);
    assert_eq!(error(VnetHeader { csum_offset: 7, ..plain }, &packet), CutError::ChecksumPosition);
    assert_eq!(error(VnetHeader { csum_start: u16::MAX, ..plain }, &packet), CutError::ChecksumPosition);
    let at_end = VnetHeader { csum_start: 20, csum_offset: packet.len() as u16 - 22, ..plain };
    assert!(Cut::new(&at_end, &packet).is_ok());
    let beyond = VnetHeader { csum_offset: packet.len() as u16 - 20, ..at_end };
    assert_eq!(error(beyond, &packet), CutError::ChecksumPosition);

    let mut fragment = packet.clone();
    fragment[6] = 0x20;
    assert_eq!(error(good, &fragment), CutError::Fragment);
    let mut long_header = packet.clone();
    long_header[32] = 0xf0;
    let short = &mut long_header[..60];
    short[3] = 60;
    assert_eq!(error(good, short), CutError::TransportHeader);
    short[32] = 0x40;
    assert_eq!(error(good, short), CutError::TransportHeader);
}

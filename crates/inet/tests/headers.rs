//! IP headers, checksums, virtio-net headers and ICMP errors.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use inet::checksum;
use inet::icmp::{self, Reason};
use inet::ip::{self, IpError, IpPacket, Version};
use inet::vnet::{Gso, VnetError, VnetHeader};
use proptest::prelude::*;
use support::{Spec, assert_valid, fix_ipv4_checksum, ip, naive_sum, payload, pseudo};

proptest! {
    #[test]
    fn sums_agree_with_the_slow_way(bytes in prop::collection::vec(any::<u8>(), 0..3000), skip in 0usize..9) {
        let bytes = &bytes[skip.min(bytes.len())..];
        prop_assert_eq!(checksum::fold(checksum::sum(bytes, 0)), naive_sum(&[bytes]));
    }

    #[test]
    fn sums_add_up(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..150) {
        let (left, right) = bytes.split_at((at * 2).min(bytes.len() & !1));
        prop_assert_eq!(checksum::fold(checksum::sum(right, checksum::sum(left, 0))), naive_sum(&[&bytes]));
    }

    #[test]
    fn pseudo_headers_agree_with_the_slow_way(v6 in any::<bool>(), host in any::<u8>(), protocol in any::<u8>(), len in 0usize..70_000) {
        let packet = Spec { v6, host, ..Spec::default() }.bytes();
        let view = IpPacket::parse(&packet).unwrap();
        let sum = checksum::pseudo_header(view.src(), view.dst(), protocol, len);
        prop_assert_eq!(checksum::fold(sum), naive_sum(&[&pseudo(&packet, protocol, len)]));
    }

    #[test]
    fn a_word_can_be_changed_under_a_checksum(mut bytes in prop::collection::vec(any::<u8>(), 20), new in any::<u16>()) {
        // Not all zero: then the checksum has two right forms.
        bytes[0] |= 1;
        let before = !naive_sum(&[&bytes]);
        let old = u16::from_be_bytes([bytes[8], bytes[9]]);
        bytes[8..10].copy_from_slice(&new.to_be_bytes());
        prop_assert_eq!(checksum::update(before, old, new), !naive_sum(&[&bytes]));
    }

    #[test]
    fn ecn_bits_are_set_and_nothing_else(v6 in any::<bool>(), class in any::<u8>(), ecn in 0u8..4) {
        let spec = Spec { v6, class, ..Spec::default() };
        let mut packet = spec.bytes();
        ip::set_ecn(&mut packet, ecn);
        prop_assert_eq!(&packet, &Spec { class: class & !3 | ecn, ..spec }.bytes());
        prop_assert_eq!(IpPacket::parse(&packet).unwrap().ecn(), ecn);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..120), version in 0u8..3, next in 0u8..80) {
        if let Some(first) = bytes.first_mut() {
            *first = match version { 0 => *first, 1 => 0x45, _ => 0x60 };
        }
        if version == 2 && bytes.len() > 7 {
            let len = bytes.len().saturating_sub(41) as u16;
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
            bytes[6] = next;
        }
        if let Ok(packet) = IpPacket::parse(&bytes) {
            prop_assert!(packet.total_len() <= bytes.len());
            prop_assert!(packet.header_len() <= packet.total_len());
            prop_assert_eq!(packet.src().is_ipv4(), packet.version() == Version::V4);
            if let Some(transport) = packet.transport() {
                prop_assert!(transport.offset <= packet.total_len());
                prop_assert!(transport.fragment || !transport.later_fragment);
            }
        }
        let mut out = [0; icmp::MAX_LEN];
        for source in ["192.0.2.1", "fd00::1"] {
            icmp::error(Reason::NoRoute, &bytes, ip(source), &mut out);
        }
        ip::set_ecn(&mut bytes, 3);
    }

    #[test]
    fn virtio_net_headers_survive_the_trip(
        (needs_csum, data_valid, ecn) in any::<(bool, bool, bool)>(),
        gso in 0usize..4,
        (hdr_len, gso_size, csum_start, csum_offset) in any::<(u16, u16, u16, u16)>(),
    ) {
        let gso = [Gso::None, Gso::TcpV4, Gso::TcpV6, Gso::UdpL4][gso];
        let header = VnetHeader { needs_csum, data_valid, gso, ecn, hdr_len, gso_size, csum_start, csum_offset };
        let mut bytes = [0xaa; 12];
        header.write(&mut bytes);
        prop_assert_eq!(&bytes[10..], [0xaa, 0xaa]);
        prop_assert_eq!(VnetHeader::parse(&bytes), Ok(header));
    }

    #[test]
    fn errors_quote_what_they_may(v6 in any::<bool>(), len in 0usize..2000, reason in 0usize..4) {
        let spec = Spec { v6, payload: payload(len), ..Spec::default() };
        let packet = spec.bytes();
        let reason = [Reason::NoRoute, Reason::NoEndpoint, Reason::TooBig(1420), Reason::AdminProhibited][reason];
        let source = if v6 { ip("fd00::99") } else { ip("192.0.2.9") };
        let mut out = [0; icmp::MAX_LEN];
        let (header, limit, protocol) = if v6 { (40, 1280, 58) } else { (20, 576, 1) };
        let total = (header + 8 + packet.len()).min(limit);
        prop_assert_eq!(icmp::error(reason, &packet, source, &mut out[..total - 1]), None);
        prop_assert_eq!(icmp::error(reason, &packet, source, &mut out), Some(total));
        let error = &out[..total];
        assert_valid(error, header, protocol);
        let view = IpPacket::parse(error).unwrap();
        prop_assert_eq!(view.src(), source);
        prop_assert_eq!(view.dst(), IpPacket::parse(&packet).unwrap().src());
        prop_assert_eq!(&error[header + 8..], &packet[..total - header - 8]);
        // An error about the error: never.
        prop_assert_eq!(icmp::error(reason, error, source, &mut [0; 1280]), None);
    }
}

#[test]
fn long_payloads_do_not_overflow() {
    let bytes = vec![0xff; 1 << 20];
    assert_eq!(checksum::fold(checksum::sum(&bytes, u64::from(u32::MAX))), 0xffff);
    assert_eq!(checksum::fold(u64::MAX), 0xffff);
    assert_eq!(checksum::finish_udp(0xffff), 0xffff);
    assert_eq!(checksum::finish_udp(0xfffe), 1);
}

#[test]
fn packets_are_trimmed_to_their_own_length() {
    for v6 in [false, true] {
        let packet = Spec { v6, ..Spec::default() }.bytes();
        let mut padded = packet.clone();
        padded.extend([0; 16]);
        let view = IpPacket::parse(&padded).unwrap();
        assert_eq!(view.bytes(), packet);
        assert_eq!(view.total_len(), packet.len());
        assert_eq!(IpPacket::parse(&packet[..packet.len() - 1]).unwrap_err(), IpError::Truncated);
    }
}

#[test]
fn what_is_no_packet_is_refused() {
    let packet = Spec::default().bytes();
    let mutated = |at: usize, byte: u8| {
        let mut packet = packet.clone();
        packet[at] = byte;
        IpPacket::parse(&packet).map(|view| view.total_len())
    };
    assert_eq!(IpPacket::parse(&[]).unwrap_err(), IpError::Empty);
    assert_eq!(IpPacket::parse(&packet[..19]).unwrap_err(), IpError::Truncated);
    assert_eq!(IpPacket::parse(&[0x60; 39]).unwrap_err(), IpError::Truncated);
    assert_eq!(mutated(0, 0x55), Err(IpError::Version(5)));
    assert_eq!(mutated(0, 0x44), Err(IpError::HeaderLength));
    assert_eq!(mutated(3, 19), Err(IpError::HeaderLength));
    assert_eq!(mutated(3, 20), Ok(20));
}

#[test]
fn fields_of_both_families() {
    let packet = Spec { class: 0xb9, ..Spec::default() }.bytes();
    let view = IpPacket::parse(&packet).unwrap();
    assert_eq!((view.src(), view.dst()), (ip("10.0.0.1"), ip("10.0.255.2")));
    assert_eq!((view.traffic_class(), view.ecn(), view.protocol(), view.header_len()), (0xb9, 1, 6, 20));
    let packet = Spec { v6: true, tcp: false, class: 0xb9, ..Spec::default() }.bytes();
    let view = IpPacket::parse(&packet).unwrap();
    assert_eq!((view.src(), view.dst()), (ip("fd00::1"), ip("fd00::ff02")));
    assert_eq!((view.traffic_class(), view.ecn(), view.protocol(), view.header_len()), (0xb9, 1, 17, 40));
}

#[test]
fn extension_headers_are_followed() {
    let transport = |first: u8, extensions: &[u8]| {
        let spec = Spec { v6: true, extensions: Some((first, extensions.to_vec())), ..Spec::default() };
        IpPacket::parse(&spec.bytes()).unwrap().transport()
    };
    let found = transport(0, &[6, 0, 1, 4, 0, 0, 0, 0]).unwrap();
    assert_eq!((found.protocol, found.offset, found.fragment), (6, 48, false));
    // The first fragment, a later one, and an atomic one.
    let found = transport(44, &[6, 0, 0, 1, 0, 0, 0, 9]).unwrap();
    assert!(found.fragment && !found.later_fragment && found.offset == 48);
    let found = transport(44, &[60, 0, 0, 8, 0, 0, 0, 9]).unwrap();
    assert!(found.later_fragment && found.protocol == 60 && found.offset == 48);
    let found = transport(44, &[6, 0, 0, 0, 0, 0, 0, 9]).unwrap();
    assert!(!found.fragment && found.protocol == 6);
    // Authentication header of 12 bytes, then a routing header with a segment left.
    let found = transport(51, &[43, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 0]).unwrap();
    assert!(found.rerouted && found.protocol == 6 && found.offset == 60);
    assert!(!transport(43, &[6, 0, 0, 0, 0, 0, 0, 0]).unwrap().rerouted);
    // Longer than the packet.
    assert_eq!(transport(60, &[6, 255, 1, 4, 0, 0, 0, 0]), None);
}

#[test]
fn unknown_kinds_of_super_packets_are_refused() {
    assert_eq!(VnetHeader::parse(&[0; 9]), Err(VnetError::Truncated));
    assert_eq!(VnetHeader::parse(&[0; 10]), Ok(VnetHeader::default()));
    // UDP fragmentation offload, which is gone.
    assert_eq!(VnetHeader::parse(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), Err(VnetError::UnknownGso(3)));
}

#[test]
fn icmp_types_and_codes() {
    let first = |v6: bool, reason: Reason| {
        let mut out = [0; icmp::MAX_LEN];
        let source = if v6 { ip("fd00::99") } else { ip("192.0.2.9") };
        let header = if v6 { 40 } else { 20 };
        icmp::error(reason, &Spec { v6, ..Spec::default() }.bytes(), source, &mut out).unwrap();
        [&out[header..header + 2], &out[header + 4..header + 8]].concat()
    };
    assert_eq!(first(false, Reason::NoRoute), [3, 1, 0, 0, 0, 0]);
    assert_eq!(first(false, Reason::NoEndpoint), [3, 1, 0, 0, 0, 0]);
    assert_eq!(first(false, Reason::TooBig(1420)), [3, 4, 0, 0, 5, 140]);
    assert_eq!(first(false, Reason::TooBig(70_000)), [3, 4, 0, 0, 255, 255]);
    assert_eq!(first(false, Reason::AdminProhibited), [3, 13, 0, 0, 0, 0]);
    assert_eq!(first(true, Reason::NoRoute), [1, 3, 0, 0, 0, 0]);
    assert_eq!(first(true, Reason::NoEndpoint), [1, 3, 0, 0, 0, 0]);
    assert_eq!(first(true, Reason::TooBig(70_000)), [2, 0, 0, 1, 17, 112]);
    assert_eq!(first(true, Reason::AdminProhibited), [1, 1, 0, 0, 0, 0]);
}

#[test]
fn no_errors_where_they_would_do_harm() {
    let mut out = [0; icmp::MAX_LEN];
    let mut error = |packet: &[u8], source: &str| icmp::error(Reason::NoRoute, packet, ip(source), &mut out).is_some();
    let v4 = Spec::default().bytes();
    let v6 = Spec { v6: true, ..Spec::default() }.bytes();
    assert!(error(&v4, "192.0.2.9"));
    assert!(error(&v6, "fd00::99"));
    assert!(error(&v4, "0.0.0.0") && error(&v6, "::"));
    assert!(!error(&v4, "fd00::99") && !error(&v6, "192.0.2.9"));
    assert!(!error(&[], "192.0.2.9"));

    let v4_with = |at: usize, bytes: &[u8]| {
        let mut packet = v4.clone();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        fix_ipv4_checksum(&mut packet);
        packet
    };
    for sender in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]] {
        assert!(!error(&v4_with(12, &sender), "192.0.2.9"), "from {sender:?}");
    }
    for destination in [[224, 0, 0, 1], [255; 4]] {
        assert!(!error(&v4_with(16, &destination), "192.0.2.9"), "to {destination:?}");
    }
    assert!(!error(&v4_with(6, &[0, 1]), "192.0.2.9"), "a later fragment");
    assert!(error(&v4_with(6, &[0x20, 0]), "192.0.2.9"), "the first fragment");
    for kind in 0..=255u8 {
        let mut packet = v4_with(9, &[1]);
        packet[20] = kind;
        assert_eq!(error(&packet, "192.0.2.9"), ![3, 4, 5, 11, 12].contains(&kind), "ICMP type {kind}");
        let mut packet = v6.clone();
        packet[6] = 58;
        packet[40] = kind;
        assert_eq!(error(&packet, "fd00::99"), kind >= 128 && kind != 137, "ICMPv6 type {kind}");
    }

    let v6_with = |at: usize, byte: u8| {
        let mut packet = v6.clone();
        packet[at] = byte;
        packet
    };
    assert!(!error(&v6_with(8, 0xff), "fd00::99"), "from a group");
    assert!(!error(&v6_with(24, 0xff), "fd00::99"), "to a group");
    let fragment = Spec { v6: true, extensions: Some((44, vec![6, 0, 0, 8, 0, 0, 0, 9])), ..Spec::default() };
    assert!(!error(&fragment.bytes(), "fd00::99"), "a later fragment");
    // An ICMPv6 error behind an extension header.
    let mut hidden = Spec { v6: true, extensions: Some((0, vec![58, 0, 1, 4, 0, 0, 0, 0])), ..Spec::default() }.bytes();
    hidden[48] = 1;
    assert!(!error(&hidden, "fd00::99"));
    hidden[48] = 128;
    assert!(error(&hidden, "fd00::99"));
}

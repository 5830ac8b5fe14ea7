//! The packets of the pipeline target: how one is built, what of it may change on the way, and what tells its flow.

use inet::{
    Cidr,
    cut::Cut,
    ip::{self, IpPacket, Version},
    vnet::{self, Gso, VnetHeader},
};
use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary};
use std::net::IpAddr;

use crate::MTU;

/// What a packet carries, and who is to finish it.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Udp,
    Tcp,
    /// With a partial checksum, as from a local socket.
    UdpPartial,
    /// Super-packets of so many bytes a segment.
    Tso(u16),
    Uso(u16),
}

/// The segments of a super-packet, without what may change on the way.
pub fn segments(header: &VnetHeader, packet: &[u8]) -> Option<Vec<Vec<u8>>> {
    let cut = Cut::new(header, packet).ok()?;
    Some(
        (0..cut.segments())
            .map(|i| {
                let mut segment = vec![0; cut.head_len()];
                cut.write_head(i, &mut segment);
                segment.extend_from_slice(cut.body(i));
                normal(&segment)
            })
            .collect(),
    )
}

/// A packet without padding, ECN mark and identification, which may change on the way.
pub fn normal(packet: &[u8]) -> Vec<u8> {
    let Ok(parsed) = IpPacket::parse(packet) else { return packet.to_vec() };
    let mut packet = parsed.bytes().to_vec();
    if parsed.version() == Version::V4 {
        packet[1] &= !3;
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    } else {
        packet[1] &= !0x30;
    }
    packet
}

/// What tells the flow of a packet.
pub fn flow(packet: &[u8]) -> Vec<u8> {
    let parsed = IpPacket::parse(packet).expect("what comes out is a packet");
    let mut flow = packet[if parsed.version() == Version::V4 { 12..20 } else { 8..40 }].to_vec();
    if let Some(transport) = parsed.transport() {
        flow.push(parsed.protocol());
        flow.extend(packet[transport.offset..].iter().take(4));
    }
    flow
}

pub fn cidr(octets: [u8; 4], len: u8) -> Cidr {
    Cidr::new(IpAddr::from(octets), len).expect("a network")
}

fn address6(last: u8) -> [u8; 16] {
    let mut octets = [0; 16];
    (octets[0], octets[15]) = (0xfd, last);
    octets
}

pub fn cidr6(last: u8, len: u8) -> Cidr {
    Cidr::new(IpAddr::from(if len == 0 { [0; 16] } else { address6(last) }), len).expect("a network")
}

/// A packet of a flow, virtio header first: from end `from` to the other, its payload told by `number`, sized within what `kind` may be.
pub fn packet(from: u8, v6: bool, flow: u8, kind: Kind, len: u16, ecn: u8, number: u64) -> Vec<u8> {
    let tcp = matches!(kind, Kind::Tcp | Kind::Tso(_));
    let (ip_len, l4_len) = (if v6 { 40 } else { 20 }, if tcp { 20 } else { 8 });
    let most = MTU as usize - ip_len - l4_len;
    let payload = match kind {
        Kind::Tso(size) | Kind::Uso(size) => usize::from(len).min(64 * usize::from(size).clamp(1, most)).min(65_000),
        _ => usize::from(len) % (most + 1),
    };
    let mut bytes = vec![0; vnet::LEN + ip_len + l4_len];
    bytes.extend((0..payload).map(|i| (number as usize ^ i.wrapping_mul(31)) as u8));
    for (to, from) in bytes[vnet::LEN + ip_len + l4_len..].iter_mut().zip(number.to_le_bytes()) {
        *to = from;
    }
    let total = bytes.len() - vnet::LEN;
    let protocol = if tcp { ip::TCP } else { ip::UDP };
    let head = &mut bytes[vnet::LEN..];
    let (source, destination): (IpAddr, IpAddr) = if v6 {
        (head[0], head[1]) = (0x60, (ecn & 3) << 4);
        head[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
        (head[6], head[7]) = (protocol, 64);
        head[8..24].copy_from_slice(&address6(from));
        head[24..40].copy_from_slice(&address6(1 - from.min(1)));
        (address6(from).into(), address6(1 - from.min(1)).into())
    } else {
        (head[0], head[1]) = (0x45, ecn & 3);
        head[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        head[4..6].copy_from_slice(&(number as u16).to_be_bytes());
        (head[6], head[8], head[9]) = (0x40, 64, protocol);
        head[12..16].copy_from_slice(&[10, 0, 0, from]);
        head[16..20].copy_from_slice(&[10, 0, 0, 1 - from.min(1)]);
        let sum = inet::checksum::finish(inet::checksum::sum(&head[..20], 0));
        head[10..12].copy_from_slice(&sum.to_be_bytes());
        ([10, 0, 0, from].into(), [10, 0, 0, 1 - from.min(1)].into())
    };
    let l4 = &mut head[ip_len..];
    l4[..4].copy_from_slice(&[1, flow % 4, 2, 2]);
    if tcp {
        l4[4..8].copy_from_slice(&(number as u32).to_be_bytes());
        (l4[12], l4[13]) = (0x50, 0x10);
    } else {
        l4[4..6].copy_from_slice(&((total - ip_len) as u16).to_be_bytes());
    }
    let csum_at = if tcp { 16 } else { 6 };
    let pseudo = inet::checksum::pseudo_header(source, destination, protocol, total - ip_len);
    let partial = !matches!(kind, Kind::Udp | Kind::Tcp);
    let sum = match partial {
        true => inet::checksum::fold(pseudo),
        false if tcp => inet::checksum::finish(inet::checksum::sum(l4, pseudo)),
        false => inet::checksum::finish_udp(inet::checksum::sum(l4, pseudo)),
    };
    l4[csum_at..csum_at + 2].copy_from_slice(&sum.to_be_bytes());
    let (gso, size) = match kind {
        Kind::Tso(size) => (if v6 { Gso::TcpV6 } else { Gso::TcpV4 }, size),
        Kind::Uso(size) => (Gso::UdpL4, size),
        _ => (Gso::None, 0),
    };
    let header = VnetHeader {
        needs_csum: partial,
        gso: if payload == 0 { Gso::None } else { gso },
        hdr_len: (ip_len + l4_len) as u16,
        gso_size: if gso == Gso::None || payload == 0 { 0 } else { size.clamp(1, most as u16) },
        csum_start: if partial { ip_len as u16 } else { 0 },
        csum_offset: if partial { csum_at as u16 } else { 0 },
        ..VnetHeader::default()
    };
    header.write(&mut bytes[..vnet::LEN]);
    bytes
}

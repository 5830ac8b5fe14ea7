//! Packets for the tests, and an implementation of the checksums that shares nothing with the one under test.

#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::IpAddr;

use inet::vnet::{Gso, VnetHeader};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

/// A TCP or UDP packet, to be written out.
#[derive(Clone, Debug)]
pub struct Spec {
    pub v6: bool,
    pub tcp: bool,
    pub host: u8,
    pub port: u16,
    pub class: u8,
    pub ttl: u8,
    pub id: u16,
    pub dont_fragment: bool,
    pub flow_label: u16,
    pub ip_options: Vec<u8>,
    /// IPv6 extension headers, and the protocol number of the first.
    pub extensions: Option<(u8, Vec<u8>)>,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub tcp_options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            v6: false,
            tcp: true,
            host: 1,
            port: 4000,
            class: 0,
            ttl: 64,
            id: 7,
            dont_fragment: true,
            flow_label: 0x1234,
            ip_options: Vec::new(),
            extensions: None,
            seq: 1000,
            ack: 77,
            flags: ACK,
            window: 500,
            tcp_options: vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
            payload: payload(100),
        }
    }
}

/// Bytes that differ from place to place.
pub fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 256 * 7 + 1) as u8).collect()
}

impl Spec {
    /// Where the transport header begins.
    pub fn transport(&self) -> usize {
        let extensions = self.extensions.as_ref().map_or(0, |(_, bytes)| bytes.len());
        if self.v6 { 40 + extensions } else { 20 + self.ip_options.len() }
    }

    pub fn head_len(&self) -> usize {
        self.transport() + if self.tcp { 20 + self.tcp_options.len() } else { 8 }
    }

    pub fn protocol(&self) -> u8 {
        if self.tcp { 6 } else { 17 }
    }

    /// The packet, its transport checksum complete.
    pub fn bytes(&self) -> Vec<u8> {
        let mut packet = self.partial();
        let start = self.transport();
        let at = start + if self.tcp { 16 } else { 6 };
        packet[at..at + 2].fill(0);
        let mut sum = !naive_sum(&[&pseudo(&packet, self.protocol(), packet.len() - start), &packet[start..]]);
        if sum == 0 && !self.tcp {
            sum = 0xffff;
        }
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// The packet with only the sum of the pseudo header in its checksum field.
    pub fn partial(&self) -> Vec<u8> {
        let mut transport = Vec::new();
        transport.extend(self.port.to_be_bytes());
        transport.extend(443u16.to_be_bytes());
        if self.tcp {
            transport.extend(self.seq.to_be_bytes());
            transport.extend(self.ack.to_be_bytes());
            transport.extend([((20 + self.tcp_options.len()) as u8 / 4) << 4, self.flags]);
            transport.extend(self.window.to_be_bytes());
            transport.extend([0; 4]);
            transport.extend(&self.tcp_options);
        } else {
            transport.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            transport.extend([0; 2]);
        }
        transport.extend(&self.payload);

        let mut packet = Vec::new();
        if self.v6 {
            let (first, extensions) = self.extensions.clone().unwrap_or((self.protocol(), Vec::new()));
            packet.extend([0x60 | self.class >> 4, self.class << 4]);
            packet.extend(self.flow_label.to_be_bytes());
            packet.extend(((extensions.len() + transport.len()) as u16).to_be_bytes());
            packet.extend([first, self.ttl]);
            packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, self.host]);
            packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 2]);
            packet.extend(extensions);
        } else {
            let len = 20 + self.ip_options.len();
            packet.extend([0x40 | (len / 4) as u8, self.class]);
            packet.extend(((len + transport.len()) as u16).to_be_bytes());
            packet.extend(self.id.to_be_bytes());
            packet.extend([if self.dont_fragment { 0x40 } else { 0 }, 0, self.ttl, self.protocol(), 0, 0]);
            packet.extend([10, 0, 0, self.host]);
            packet.extend([10, 0, 255, 2]);
            packet.extend(&self.ip_options);
            fix_ipv4_checksum(&mut packet);
        }
        let sum = naive_sum(&[&pseudo(&packet, self.protocol(), transport.len())]);
        let at = if self.tcp { 16 } else { 6 };
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        packet.extend(transport);
        packet
    }

    /// The virtio-net header for [`Spec::partial`] as a super-packet. Its `hdr_len` is wrong.
    pub fn vnet(&self, gso_size: u16) -> VnetHeader {
        VnetHeader {
            needs_csum: true,
            gso: match (self.tcp, self.v6) {
                (true, false) => Gso::TcpV4,
                (true, true) => Gso::TcpV6,
                (false, _) => Gso::UdpL4,
            },
            ecn: self.tcp && self.flags & CWR != 0,
            hdr_len: 9999,
            gso_size,
            csum_start: self.transport() as u16,
            csum_offset: if self.tcp { 16 } else { 6 },
            ..VnetHeader::default()
        }
    }

    /// The virtio-net header for [`Spec::partial`] as a plain packet.
    pub fn plain_vnet(&self) -> VnetHeader {
        VnetHeader { gso: Gso::None, gso_size: 0, ecn: false, ..self.vnet(0) }
    }
}

/// The ones-complement sum of 16-bit words, the slow way. All parts but the last have even lengths.
pub fn naive_sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
    }
    sum as u16
}

/// The pseudo header of a packet without a routing header.
pub fn pseudo(packet: &[u8], protocol: u8, len: usize) -> Vec<u8> {
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    let mut pseudo = addresses.to_vec();
    pseudo.extend((len as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, protocol]);
    pseudo
}

pub fn fix_ipv4_checksum(packet: &mut [u8]) {
    let len = usize::from(packet[0] & 0x0f) * 4;
    packet[10..12].fill(0);
    let sum = !naive_sum(&[&packet[..len]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Fails unless all lengths and checksums of a TCP, UDP or ICMP packet, whose transport header is at `transport`, are right.
pub fn assert_valid(packet: &[u8], transport: usize, protocol: u8) {
    let word = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    if packet[0] >> 4 == 4 {
        assert_eq!(word(2), packet.len(), "total length");
        assert_eq!(naive_sum(&[&packet[..usize::from(packet[0] & 15) * 4]]), 0xffff, "IPv4 header checksum");
    } else {
        assert_eq!(word(4) + 40, packet.len(), "payload length");
    }
    let rest = &packet[transport..];
    let pseudo = if protocol == 1 { Vec::new() } else { pseudo(packet, protocol, rest.len()) };
    assert_eq!(naive_sum(&[&pseudo, rest]), 0xffff, "transport checksum");
    if protocol == 17 {
        assert_eq!(word(transport + 4), rest.len(), "UDP length");
        assert_ne!(word(transport + 6), 0, "UDP without a checksum");
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

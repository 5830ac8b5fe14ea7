//! The packets that the modelled TUN gives.

use inet::{
    checksum, ip,
    vnet::{self, Gso, VnetHeader},
};
use std::net::Ipv4Addr;

/// Inner bytes of each packet of a super-packet, and how many there are in it.
pub const LARGE: usize = 1420;
pub const SEGMENTS: usize = 45;
/// Bytes of a small packet.
pub const SMALL: usize = 64;

/// What kind of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Super-packets of TCP.
    Super,
    /// Plain UDP, as many as a job takes.
    Small,
}

impl Shape {
    pub const ALL: [Shape; 2] = [Shape::Super, Shape::Small];

    pub fn name(self) -> &'static str {
        match self {
            Shape::Super => "45 x 1420 B",
            Shape::Small => "64 B",
        }
    }

    /// A packet, virtio header first, with a checksum that whoever sends it completes, as a local socket leaves it.
    pub fn packet(self, from: Ipv4Addr, to: Ipv4Addr, flow: u16) -> Vec<u8> {
        let (protocol, head, total) = match self {
            Shape::Super => (ip::TCP, 40, 40 + (LARGE - 40) * SEGMENTS),
            Shape::Small => (ip::UDP, 28, SMALL),
        };
        let mut bytes: Vec<u8> = (0..vnet::LEN + total).map(|i| (i * 31) as u8).collect();
        let header = VnetHeader {
            needs_csum: true,
            gso: if self == Shape::Super { Gso::TcpV4 } else { Gso::None },
            hdr_len: head as u16,
            gso_size: if self == Shape::Super { (LARGE - 40) as u16 } else { 0 },
            csum_start: 20,
            csum_offset: if self == Shape::Super { 16 } else { 6 },
            ..VnetHeader::default()
        };
        bytes[..vnet::LEN].copy_from_slice(&header.to_bytes());
        let packet = &mut bytes[vnet::LEN..];
        packet[..head].fill(0);
        (packet[0], packet[6], packet[8], packet[9]) = (0x45, 0x40, 64, protocol);
        packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        packet[12..16].copy_from_slice(&from.octets());
        packet[16..20].copy_from_slice(&to.octets());
        let sum = checksum::finish(checksum::sum(&packet[..20], 0));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet[20..22].copy_from_slice(&(1000 + flow).to_be_bytes());
        packet[22..24].copy_from_slice(&5001u16.to_be_bytes());
        let partial = checksum::fold(checksum::pseudo_header(from.into(), to.into(), protocol, total - 20));
        match self {
            Shape::Super => {
                (packet[32], packet[33]) = (0x50, 0x10);
                packet[36..38].copy_from_slice(&partial.to_be_bytes());
            }
            Shape::Small => {
                packet[24..26].copy_from_slice(&((total - 20) as u16).to_be_bytes());
                packet[26..28].copy_from_slice(&partial.to_be_bytes());
            }
        }
        bytes
    }

    /// Where, behind the virtio header, a packet says its number: the sequence number of TCP, the first payload of UDP.
    pub fn number_at(self) -> usize {
        if self == Shape::Super { 24 } else { 28 }
    }

    /// By how much the number grows from packet to packet.
    pub fn step(self) -> u32 {
        if self == Shape::Super { ((LARGE - 40) * SEGMENTS) as u32 } else { 1 }
    }

    /// Inner bytes of what was sealed into `len` bytes of datagrams, of which the first has `stride`; and how many they are.
    pub fn inner(len: usize, stride: usize) -> (usize, usize) {
        let datagrams = len.div_ceil(stride);
        (len - 32 * datagrams, datagrams)
    }
}

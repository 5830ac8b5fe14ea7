//! A view over an IP packet whose lengths have been checked.
//!
//! [`IpPacket::parse`] reads only the fixed header, because it runs for every packet that leaves a tunnel; what lies behind
//! IPv6 extension headers is looked for by [`IpPacket::transport`] when somebody asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum;

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Why bytes are not an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpError {
    /// No bytes at all, as in a keepalive.
    #[error("no packet")]
    Empty,
    /// Neither 4 nor 6.
    #[error("IP version {0}")]
    Version(u8),
    /// The fixed header, or the packet by its own length field, does not fit into the bytes.
    #[error("truncated packet")]
    Truncated,
    /// The header length is impossible.
    #[error("bad IP header length")]
    HeaderLength,
}

/// 4 or 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The transport header of a packet: which it is, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// IP protocol number.
    pub protocol: u8,
    /// Where it begins, in bytes from the IP header; at most the packet's length.
    pub offset: usize,
    /// The packet is a fragment, first or later, of a larger one.
    pub fragment: bool,
    /// The packet is not the first fragment: what lies at `offset` is no header.
    pub later_fragment: bool,
    /// An IPv6 routing header says that the packet goes elsewhere after its destination, which is what the transport's
    /// checksum covers.
    pub rerouted: bool,
}

/// An IP packet, trimmed to the length that its header tells.
#[derive(Clone, Copy, Debug)]
pub struct IpPacket<'a> {
    bytes: &'a [u8],
    version: Version,
}

impl<'a> IpPacket<'a> {
    /// Checks version and lengths. What follows the packet, such as a tunnel's padding, is trimmed.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, IpError> {
        let first = *bytes.first().ok_or(IpError::Empty)?;
        let (version, total_len) = match first >> 4 {
            4 => {
                let header: &[u8; 20] = bytes.first_chunk().ok_or(IpError::Truncated)?;
                let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
                let header_len = usize::from(first & 0x0f) * 4;
                if header_len < 20 || total_len < header_len {
                    return Err(IpError::HeaderLength);
                }
                (Version::V4, total_len)
            }
            6 => {
                let header: &[u8; 40] = bytes.first_chunk().ok_or(IpError::Truncated)?;
                (Version::V6, 40 + usize::from(u16::from_be_bytes([header[4], header[5]])))
            }
            version => return Err(IpError::Version(version)),
        };
        let bytes = bytes.get(..total_len).ok_or(IpError::Truncated)?;
        Ok(Self { bytes, version })
    }

    /// 4 or 6.
    #[inline]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The packet without what followed it.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The packet's length in bytes, headers included.
    #[inline]
    pub fn total_len(&self) -> usize {
        self.bytes.len()
    }

    /// The source address.
    #[inline]
    pub fn src(&self) -> IpAddr {
        address(self.bytes, self.version, 12, 8)
    }

    /// The destination address.
    #[inline]
    pub fn dst(&self) -> IpAddr {
        address(self.bytes, self.version, 16, 24)
    }

    /// The two ECN bits.
    #[inline]
    pub fn ecn(&self) -> u8 {
        self.traffic_class() & 0b11
    }

    /// DSCP and ECN: the TOS byte of IPv4, the traffic class of IPv6.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        match self.version {
            Version::V4 => self.bytes[1],
            Version::V6 => (self.bytes[0] << 4) | (self.bytes[1] >> 4),
        }
    }

    /// Length of the IP header: with options for IPv4, without extension headers for IPv6 (40).
    #[inline]
    pub fn header_len(&self) -> usize {
        match self.version {
            Version::V4 => usize::from(self.bytes[0] & 0x0f) * 4,
            Version::V6 => 40,
        }
    }

    /// The protocol field of IPv4, the first next-header field of IPv6.
    #[inline]
    pub fn protocol(&self) -> u8 {
        match self.version {
            Version::V4 => self.bytes[9],
            Version::V6 => self.bytes[6],
        }
    }

    /// The transport header, behind IPv6 extension headers if there are any; `None` if those are cut short.
    #[inline]
    pub fn transport(&self) -> Option<Transport> {
        match self.version {
            Version::V4 => {
                let fragment = u16::from_be_bytes([self.bytes[6], self.bytes[7]]);
                Some(Transport {
                    protocol: self.bytes[9],
                    offset: self.header_len(),
                    fragment: fragment & 0x3fff != 0,
                    later_fragment: fragment & 0x1fff != 0,
                    rerouted: false,
                })
            }
            Version::V6 => walk_extensions(self.bytes),
        }
    }
}

/// Sets the ECN bits of a packet that parses, and brings an IPv4 header checksum up to date. Anything else stays as it is.
#[inline]
pub fn set_ecn(packet: &mut [u8], ecn: u8) {
    let ecn = ecn & 0b11;
    match packet {
        [first, tos, rest @ ..] if *first >> 4 == 4 && rest.len() >= 18 => {
            let old = u16::from_be_bytes([*first, *tos]);
            *tos = *tos & !0b11 | ecn;
            let new = u16::from_be_bytes([*first, *tos]);
            let sum = checksum::update(u16::from_be_bytes([rest[8], rest[9]]), old, new);
            rest[8..10].copy_from_slice(&sum.to_be_bytes());
        }
        [first, second, ..] if *first >> 4 == 6 => *second = *second & !0x30 | (ecn << 4),
        _ => {}
    }
}

#[inline]
fn address(bytes: &[u8], version: Version, v4: usize, v6: usize) -> IpAddr {
    match version {
        Version::V4 => {
            let mut octets = [0; 4];
            octets.copy_from_slice(&bytes[v4..v4 + 4]);
            IpAddr::V4(Ipv4Addr::from(octets))
        }
        Version::V6 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(&bytes[v6..v6 + 16]);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
    }
}

/// Follows the chain of extension headers (RFC 8200, section 4) of a packet with a whole fixed header.
fn walk_extensions(bytes: &[u8]) -> Option<Transport> {
    let mut found =
        Transport { protocol: bytes[6], offset: 40, fragment: false, later_fragment: false, rerouted: false };
    loop {
        if !matches!(found.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS) {
            return Some(found);
        }
        let header = bytes.get(found.offset..)?;
        let &[next, len, high, low, ..] = header else { return None };
        let len = match found.protocol {
            FRAGMENT => {
                let offset = u16::from_be_bytes([high, low]);
                // An offset of zero and no more fragments: an atomic fragment (RFC 6946), which is whole.
                found.fragment |= offset & 0xfff9 != 0;
                found.later_fragment |= offset & 0xfff8 != 0;
                8
            }
            AUTHENTICATION => (usize::from(len) + 2) * 4,
            _ => (usize::from(len) + 1) * 8,
        };
        if header.len() < len {
            return None;
        }
        found.rerouted |= found.protocol == ROUTING && low != 0;
        found.protocol = next;
        found.offset += len;
        if found.later_fragment {
            return Some(found);
        }
    }
}

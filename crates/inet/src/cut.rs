//! Cutting a super-packet from the TUN into the segments that travel.
//!
//! A [`Cut`] is made once for each packet read: it finds the headers, checks that the virtio-net header agrees with them, and
//! sums up the parts of the headers that all segments share. Then each segment is asked for on its own: its head (IP and
//! transport header, rewritten for this segment) is written out, its body is where it always was. So a segment costs one
//! pass over its payload, for the checksum, and whoever seals it makes the only copy.
//!
//! A plain packet is one segment. Its head is the part that has to be written: up to the checksum if that is to be completed,
//! or else just the fixed IP header.
//!
//! The rules are those of the kernel's `tcp_offload.c` (`tcp_gso_segment`), `udp_offload.c` (`__udp_gso_segment`), `af_inet.c`
//! (`inet_gso_segment`) and `skb_checksum_help`. `hdr_len` of the virtio-net header is not looked at: on forwarded packets it
//! is the length of what lay in the first buffer, not of the headers.

use std::net::IpAddr;

use crate::checksum;
use crate::ip::{self, IpError, IpPacket, Version};
use crate::vnet::{Gso, VnetHeader};

pub(crate) const TCP_HEADER: usize = 20;
pub(crate) const TCP_CHECKSUM: usize = 16;
pub(crate) const TCP_FLAGS: usize = 13;
pub(crate) const FIN: u8 = 0x01;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const CWR: u8 = 0x80;
pub(crate) const UDP_HEADER: usize = 8;
pub(crate) const UDP_CHECKSUM: usize = 6;

const TCP_SEQ: usize = 4;
const UDP_LEN: usize = 4;
const IPV4_ID: usize = 4;
const IPV4_CHECKSUM: usize = 10;

/// Why a packet from the TUN cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// It is no IP packet.
    #[error(transparent)]
    Ip(#[from] IpError),
    /// The kind of super-packet does not match the IP version or the transport protocol, or that cannot be found.
    #[error("the super-packet is not of the kind that its virtio-net header tells")]
    Kind,
    /// A fragment cannot be a super-packet.
    #[error("a super-packet that is a fragment")]
    Fragment,
    /// The transport header is cut short, or its length is impossible.
    #[error("bad transport header")]
    TransportHeader,
    /// `csum_start` and `csum_offset` point to something else than the checksum, or out of the packet.
    #[error("the checksum is not where the virtio-net header tells")]
    ChecksumPosition,
    /// Segments of no bytes.
    #[error("a super-packet with segments of size zero")]
    ZeroSize,
    /// A segment would be longer than IP can tell.
    #[error("segments too long for IP")]
    TooLong,
}

/// A super-packet or a plain packet, checked, ready to be cut into segments.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'a> {
    packet: IpPacket<'a>,
    kind: Kind,
    head_len: usize,
    /// Payload of each segment but the last.
    size: usize,
    segments: usize,
    /// Where the transport header begins.
    transport: usize,
    /// Partial sum of the IPv4 header without total length, id and checksum.
    header_sum: u64,
    /// Partial sum of pseudo header and transport header, without lengths, checksum and, for TCP, sequence number and flags.
    transport_sum: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// A plain packet whose checksum, at `at`, covers everything from `start`.
    Checksum {
        start: usize,
        at: usize,
    },
    Tcp,
    Udp,
}

impl<'a> Cut<'a> {
    /// Checks a packet from the TUN. What follows the packet by its own length is ignored.
    #[inline]
    pub fn new(header: &VnetHeader, packet: &'a [u8]) -> Result<Self, CutError> {
        let packet = IpPacket::parse(packet)?;
        match header.gso {
            Gso::None => Self::plain(header, packet),
            Gso::TcpV4 if packet.version() == Version::V4 => Self::tcp(header, packet),
            Gso::TcpV6 if packet.version() == Version::V6 => Self::tcp(header, packet),
            Gso::UdpL4 => Self::udp(header, packet),
            Gso::TcpV4 | Gso::TcpV6 => Err(CutError::Kind),
        }
    }

    /// How many segments there are: at least one.
    #[inline]
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// The packet that is cut.
    #[inline]
    pub fn packet(&self) -> &IpPacket<'a> {
        &self.packet
    }

    /// Bytes of all segments together.
    #[inline]
    pub fn total_len(&self) -> usize {
        self.packet.total_len() + (self.segments - 1) * self.head_len
    }

    /// How many bytes [`Cut::write_head`] writes, the same for each segment.
    #[inline]
    pub fn head_len(&self) -> usize {
        self.head_len
    }

    /// Length of segment `i` in bytes: head and body.
    #[inline]
    pub fn segment_len(&self, i: usize) -> usize {
        self.head_len + self.body(i).len()
    }

    /// What follows the head of segment `i`.
    #[inline]
    pub fn body(&self, i: usize) -> &'a [u8] {
        let payload = &self.packet.bytes()[self.head_len..];
        let start = i.saturating_mul(self.size).min(payload.len());
        let end = start.saturating_add(self.size).min(payload.len());
        &payload[start..end]
    }

    /// Writes the head of segment `i` to the first [`Cut::head_len`] bytes of `out`: the headers with this segment's lengths,
    /// IPv4 identification, sequence number and flags, and all checksums complete. FIN and PSH stay on the last segment only,
    /// CWR on the first.
    ///
    /// # Panics
    /// If `out` is shorter than the head.
    #[inline]
    pub fn write_head(&self, i: usize, out: &mut [u8]) {
        let head = &mut out[..self.head_len];
        head.copy_from_slice(&self.packet.bytes()[..self.head_len]);
        match self.kind {
            Kind::Plain => {}
            Kind::Checksum { start, at } => {
                // The field holds the sum of the pseudo header, and counts. Zero would mean "none" to UDP; for other protocols
                // the two zeros are the same.
                let sum = checksum::finish_udp(checksum::sum(&self.packet.bytes()[start..], 0));
                put(head, at, sum);
            }
            Kind::Tcp => {
                let body = self.body(i);
                self.write_ip(i, body.len(), head);
                self.write_tcp(i, body, head);
            }
            Kind::Udp => {
                let body = self.body(i);
                self.write_ip(i, body.len(), head);
                self.write_udp(body, head);
            }
        }
    }

    /// The source address of all segments.
    #[inline]
    pub fn source(&self) -> IpAddr {
        self.packet.src()
    }

    /// The destination address of all segments.
    #[inline]
    pub fn destination(&self) -> IpAddr {
        self.packet.dst()
    }

    /// The ECN bits of all segments.
    #[inline]
    pub fn ecn(&self) -> u8 {
        self.packet.ecn()
    }

    fn plain(header: &VnetHeader, packet: IpPacket<'a>) -> Result<Self, CutError> {
        let fixed = match packet.version() {
            Version::V4 => 20,
            Version::V6 => 40,
        };
        let (kind, head_len) = if header.needs_csum {
            let start = usize::from(header.csum_start);
            let at = start + usize::from(header.csum_offset);
            if start < packet.header_len() || at + 2 > packet.total_len() || !header.csum_offset.is_multiple_of(2) {
                return Err(CutError::ChecksumPosition);
            }
            (Kind::Checksum { start, at }, at + 2)
        } else {
            (Kind::Plain, fixed)
        };
        Ok(Self {
            packet,
            kind,
            head_len,
            size: packet.total_len(),
            segments: 1,
            transport: 0,
            header_sum: 0,
            transport_sum: 0,
        })
    }

    fn tcp(header: &VnetHeader, packet: IpPacket<'a>) -> Result<Self, CutError> {
        let transport = find_transport(header, packet, ip::TCP, TCP_CHECKSUM)?;
        let tcp = &packet.bytes()[transport.offset..];
        let fixed: &[u8; TCP_HEADER] = tcp.first_chunk().ok_or(CutError::TransportHeader)?;
        let len = usize::from(fixed[12] >> 4) * 4;
        if len < TCP_HEADER || tcp.len() < len {
            return Err(CutError::TransportHeader);
        }
        let mut shared = *fixed;
        shared[TCP_SEQ..TCP_SEQ + 4].fill(0);
        shared[12..14].fill(0);
        shared[TCP_CHECKSUM..TCP_CHECKSUM + 2].fill(0);
        let sum = checksum::sum(&tcp[TCP_HEADER..len], checksum::sum(&shared, transport.pseudo_sum));
        Self::gso(header, packet, Kind::Tcp, transport.offset, len, sum)
    }

    fn udp(header: &VnetHeader, packet: IpPacket<'a>) -> Result<Self, CutError> {
        let transport = find_transport(header, packet, ip::UDP, UDP_CHECKSUM)?;
        let udp = &packet.bytes()[transport.offset..];
        let fixed: &[u8; UDP_HEADER] = udp.first_chunk().ok_or(CutError::TransportHeader)?;
        let sum = checksum::sum(&fixed[..4], transport.pseudo_sum);
        Self::gso(header, packet, Kind::Udp, transport.offset, UDP_HEADER, sum)
    }

    fn gso(
        header: &VnetHeader,
        packet: IpPacket<'a>,
        kind: Kind,
        transport: usize,
        transport_len: usize,
        transport_sum: u64,
    ) -> Result<Self, CutError> {
        let size = usize::from(header.gso_size);
        if size == 0 {
            return Err(CutError::ZeroSize);
        }
        let head_len = transport + transport_len;
        let payload = packet.total_len() - head_len;
        let uncounted = match packet.version() {
            Version::V4 => 0,
            Version::V6 => 40,
        };
        if head_len + size.min(payload) - uncounted > usize::from(u16::MAX) {
            return Err(CutError::TooLong);
        }
        let header_sum = match packet.version() {
            Version::V4 => {
                let bytes = &packet.bytes()[..packet.header_len()];
                let rest = checksum::sum(&bytes[6..IPV4_CHECKSUM], checksum::sum(&bytes[..2], 0));
                checksum::sum(&bytes[IPV4_CHECKSUM + 2..], rest)
            }
            Version::V6 => 0,
        };
        let segments = payload.div_ceil(size).max(1);
        Ok(Self { packet, kind, head_len, size, segments, transport, header_sum, transport_sum })
    }

    #[inline]
    fn write_ip(&self, i: usize, body: usize, head: &mut [u8]) {
        let total = self.head_len + body;
        match self.packet.version() {
            Version::V4 => {
                let id = get(head, IPV4_ID).wrapping_add(i as u16);
                put(head, 2, total as u16);
                put(head, IPV4_ID, id);
                put(head, IPV4_CHECKSUM, checksum::finish(self.header_sum + total as u64 + u64::from(id)));
            }
            Version::V6 => put(head, 4, (total - 40) as u16),
        }
    }

    #[inline]
    fn write_tcp(&self, i: usize, body: &[u8], head: &mut [u8]) {
        let tcp = &mut head[self.transport..];
        let seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add((i * self.size) as u32);
        tcp[TCP_SEQ..TCP_SEQ + 4].copy_from_slice(&seq.to_be_bytes());
        if i > 0 {
            tcp[TCP_FLAGS] &= !CWR;
        }
        if i + 1 < self.segments {
            tcp[TCP_FLAGS] &= !(FIN | PSH);
        }
        let sum = self.transport_sum + (tcp.len() + body.len()) as u64 + u64::from(seq) + u64::from(get(tcp, 12));
        put(tcp, TCP_CHECKSUM, checksum::finish(checksum::sum(body, sum)));
    }

    #[inline]
    fn write_udp(&self, body: &[u8], head: &mut [u8]) {
        let udp = &mut head[self.transport..];
        let len = (UDP_HEADER + body.len()) as u16;
        put(udp, UDP_LEN, len);
        // The length counts twice: in the pseudo header and in the header.
        let sum = self.transport_sum + 2 * u64::from(len);
        put(udp, UDP_CHECKSUM, checksum::finish_udp(checksum::sum(body, sum)));
    }
}

struct FoundTransport {
    offset: usize,
    /// Partial sum of the pseudo header without the length.
    pseudo_sum: u64,
}

/// Finds the transport header of a super-packet and checks that the virtio-net header means the same.
fn find_transport(
    header: &VnetHeader,
    packet: IpPacket<'_>,
    protocol: u8,
    checksum_at: usize,
) -> Result<FoundTransport, CutError> {
    let transport = packet.transport().ok_or(CutError::Kind)?;
    if transport.fragment {
        return Err(CutError::Fragment);
    }
    if transport.protocol != protocol {
        return Err(CutError::Kind);
    }
    let offset = transport.offset;
    let len = packet.total_len() - offset;
    if header.needs_csum && (usize::from(header.csum_start) != offset || usize::from(header.csum_offset) != checksum_at)
    {
        return Err(CutError::ChecksumPosition);
    }
    let pseudo_sum = if transport.rerouted {
        // The pseudo header has the last destination of the routing header, which the field has summed up already. Without
        // that we would have to know each type of routing header.
        if !header.needs_csum || len < checksum_at + 2 {
            return Err(CutError::ChecksumPosition);
        }
        u64::from(get(packet.bytes(), offset + checksum_at)) + u64::from(!checksum::fold(len as u64))
    } else {
        checksum::pseudo_header(packet.src(), packet.dst(), protocol, 0)
    };
    Ok(FoundTransport { offset, pseudo_sum })
}

#[inline]
pub(crate) fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
pub(crate) fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

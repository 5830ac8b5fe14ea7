//! The virtio-net header that precedes each packet on a TUN queue (`IFF_VNET_HDR`): `struct virtio_net_hdr` of
//! `linux/virtio_net.h`.
//!
//! Its 16-bit fields are in the host's byte order, the legacy format that a TUN speaks unless it is told otherwise.

/// Length of the header in bytes.
pub const LEN: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What kind of super-packet follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Gso {
    /// One ordinary packet.
    #[default]
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams of equal size (the last may be smaller), over IPv4 or IPv6.
    UdpL4,
}

/// The header's fields. The default says: one packet, its checksum complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VnetHeader {
    /// The checksum at `csum_start + csum_offset` covers only the pseudo header so far.
    pub needs_csum: bool,
    /// The checksums were verified already.
    pub data_valid: bool,
    /// What kind of super-packet follows.
    pub gso: Gso,
    /// The TCP super-packet carries CWR, which belongs to its first segment only.
    pub ecn: bool,
    /// Length of all headers in bytes, as the sender claims; wrong on forwarded packets.
    pub hdr_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Where the bytes that the checksum covers begin: the TCP or UDP header.
    pub csum_start: u16,
    /// Where the checksum lies, counted from `csum_start`.
    pub csum_offset: u16,
}

/// Why a virtio-net header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VnetError {
    /// Fewer than [`LEN`] bytes.
    #[error("shorter than a virtio-net header")]
    Truncated,
    /// A kind of super-packet that we never asked for.
    #[error("unknown virtio-net GSO type {0}")]
    UnknownGso(u8),
}

impl VnetHeader {
    /// Reads the header from the first [`LEN`] bytes. Unknown flags are ignored, as the kernel does.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, VnetError> {
        let bytes: &[u8; LEN] = bytes.first_chunk().ok_or(VnetError::Truncated)?;
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let gso = match bytes[1] & !GSO_ECN {
            GSO_NONE => Gso::None,
            GSO_TCPV4 => Gso::TcpV4,
            GSO_TCPV6 => Gso::TcpV6,
            GSO_UDP_L4 => Gso::UdpL4,
            other => return Err(VnetError::UnknownGso(other)),
        };
        Ok(Self {
            needs_csum: bytes[0] & F_NEEDS_CSUM != 0,
            data_valid: bytes[0] & F_DATA_VALID != 0,
            gso,
            ecn: bytes[1] & GSO_ECN != 0,
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        })
    }

    /// The header as it is written in front of a packet.
    #[inline]
    pub fn to_bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0] = u8::from(self.needs_csum) * F_NEEDS_CSUM + u8::from(self.data_valid) * F_DATA_VALID;
        bytes[1] = match self.gso {
            Gso::None => GSO_NONE,
            Gso::TcpV4 => GSO_TCPV4,
            Gso::TcpV6 => GSO_TCPV6,
            Gso::UdpL4 => GSO_UDP_L4,
        } + u8::from(self.ecn) * GSO_ECN;
        for (at, word) in [(2, self.hdr_len), (4, self.gso_size), (6, self.csum_start), (8, self.csum_offset)] {
            bytes[at..at + 2].copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// Writes the header to the first [`LEN`] bytes of `out`.
    ///
    /// # Panics
    /// If `out` is shorter than that.
    #[inline]
    pub fn write(&self, out: &mut [u8]) {
        out[..LEN].copy_from_slice(&self.to_bytes());
    }
}

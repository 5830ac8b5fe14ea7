//! Control messages: what goes along with a datagram to and from the kernel, beside its bytes.
//!
//! Written and read by hand in the layout of `struct cmsghdr` (length, level, type, then data, each aligned to the size of a long),
//! in buffers on the caller's stack.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use inet::Source;

const ALIGN: usize = size_of::<usize>();
const HEADER: usize = size_of::<libc::cmsghdr>();

const fn space(data: usize) -> usize {
    HEADER.next_multiple_of(ALIGN) + data.next_multiple_of(ALIGN)
}

/// Room for all that we send or are sent: packet information, traffic class, segment size, and one more.
pub(super) const CAPACITY: usize = space(size_of::<libc::in6_pktinfo>()) + 3 * space(4);

/// A control buffer, aligned as the kernel wants it. Not initialised: what is sent is written first, and of what is received
/// only the kernel's part is read.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Buffer(pub [u8; CAPACITY]);

impl Buffer {
    pub const EMPTY: Buffer = Buffer([0; CAPACITY]);
}

/// Writes control messages one after the other.
pub(super) struct Writer<'a> {
    buffer: &'a mut Buffer,
    len: usize,
}

impl<'a> Writer<'a> {
    pub fn new(buffer: &'a mut Buffer) -> Writer<'a> {
        Writer { buffer, len: 0 }
    }

    /// The bytes written so far.
    pub fn len(&self) -> usize {
        self.len
    }

    fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let start = self.len;
        let data_at = start + HEADER.next_multiple_of(ALIGN);
        let header = HEADER.next_multiple_of(ALIGN) + data.len();
        // `struct cmsghdr` begins with a length, a size_t (socklen_t, padded, in musl, which comes to the same in little-endian).
        self.buffer.0[start..start + ALIGN].copy_from_slice(&header.to_ne_bytes());
        self.buffer.0[start + ALIGN..start + ALIGN + 4].copy_from_slice(&level.to_ne_bytes());
        self.buffer.0[start + ALIGN + 4..start + ALIGN + 8].copy_from_slice(&kind.to_ne_bytes());
        self.buffer.0[data_at..data_at + data.len()].copy_from_slice(data);
        self.len = start + space(data.len());
    }

    /// The size of the segments to cut the datagram into.
    pub fn segment(&mut self, size: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }

    /// The traffic class.
    pub fn class(&mut self, v6: bool, class: u8) {
        let value = libc::c_int::from(class).to_ne_bytes();
        if v6 {
            self.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &value);
        } else {
            self.push(libc::IPPROTO_IP, libc::IP_TOS, &value);
        }
    }

    /// The address to send from, and for a link-local one the interface.
    ///
    /// Any other is not tied to its interface: with one given, the kernel takes the destination for on-link when no route or
    /// policy rule leads there by that interface, and so past a rule that forbids the way. The kernel's WireGuard leaves it out
    /// too (`send4` and `send6` in `socket.c`).
    pub fn source(&mut self, source: &Source) {
        match source.ip {
            IpAddr::V4(ip) => {
                // in_pktinfo: interface, address to use, destination (not read).
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&ip.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            IpAddr::V6(ip) => {
                // in6_pktinfo: address, interface.
                let mut info = [0; 20];
                info[..16].copy_from_slice(&ip.octets());
                if ip.is_unicast_link_local() {
                    info[16..].copy_from_slice(&source.ifindex.to_ne_bytes());
                }
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }
}

/// What came along with a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Received {
    pub source: Option<Source>,
    pub ecn: u8,
    /// The size of the segments that were coalesced.
    pub segment: Option<usize>,
}

/// Reads what the kernel wrote.
pub(super) fn read(mut bytes: &[u8]) -> Received {
    let mut received = Received::default();
    let number =
        |bytes: &[u8], at: usize| -> Option<u32> { Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
    while let Some(head) = bytes.first_chunk::<ALIGN>() {
        let len = usize::from_ne_bytes(*head);
        let (Some(level), Some(kind), Some(data)) =
            (number(bytes, ALIGN), number(bytes, ALIGN + 4), bytes.get(HEADER.next_multiple_of(ALIGN)..len))
        else {
            break;
        };
        match (level as libc::c_int, kind as libc::c_int) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                if let (Some(ifindex), Some(local)) = (number(data, 0), data.get(4..8)) {
                    received.source =
                        <[u8; 4]>::try_from(local).ok().map(|ip| Source { ip: Ipv4Addr::from(ip).into(), ifindex });
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let (Some(ifindex), Some(local)) = (number(data, 16), data.get(..16)) {
                    received.source =
                        <[u8; 16]>::try_from(local).ok().map(|ip| Source { ip: Ipv6Addr::from(ip).into(), ifindex });
                }
            }
            // One byte for IPv4.
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                received.ecn = data.first().map_or(0, |tos| tos & 3);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                received.ecn = number(data, 0).map_or(0, |class| class as u8 & 3);
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                received.segment = number(data, 0).map(|size| size as usize);
            }
            _ => (),
        }
        bytes = bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
    }
    received
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(v4: u32, v6: u128, ifindex: u32, ecn in 0u8..4) {
            for ip in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into()), "fe80::1".parse().expect("address")] {
                let mut buffer = Buffer::EMPTY;
                let mut writer = Writer::new(&mut buffer);
                let source = Source { ip, ifindex };
                writer.source(&source);
                writer.class(ip.is_ipv6(), 0x88 | ecn);
                writer.segment(1452);
                let len = writer.len();
                prop_assert!(len <= CAPACITY);
                let received = read(&buffer.0[..len]);
                let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
                let ifindex = if link_local { ifindex } else { 0 };
                prop_assert_eq!(received.source, Some(Source { ip, ifindex }));
                // In IPv4 the kernel takes an int and gives a byte.
                if ip.is_ipv6() || cfg!(target_endian = "little") {
                    prop_assert_eq!(received.ecn, ecn);
                }
            }
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..CAPACITY)) {
            read(&bytes);
        }

        #[test]
        fn lengths_that_cannot_be_end_it(len: usize, small in 0usize..40, rest in prop::collection::vec(any::<u8>(), 0..60)) {
            for len in [len, small] {
                let mut bytes = len.to_ne_bytes().to_vec();
                bytes.extend_from_slice(&rest);
                read(&bytes);
            }
        }
    }
}

//! ICMP errors about an inner packet, for its sender.
//!
//! A tunnel that cannot take a packet says so, as a router would: RFC 792 and RFC 1812 for IPv4, RFC 4443 for IPv6. This room
//! writes the error; whether one may be sent now (they are limited in rate) is the caller's business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum;
use crate::cut::put;
use crate::ip::{self, IpPacket};

/// Room that any error fits into, in bytes: the least MTU of IPv6 (RFC 4443, section 2.4).
pub const MAX_LEN: usize = 1280;

/// An IPv4 error is no longer than any host must take (RFC 1812, section 4.3.2.3).
const MAX_LEN_V4: usize = 576;
const ICMP_HEADER: usize = 8;
const HOP_LIMIT: u8 = 64;
/// Precedence "internetwork control" (RFC 1812, section 4.3.2.5).
const TOS_CONTROL: u8 = 0xc0;

const UNREACHABLE: u8 = 3;
const UNREACHABLE_V6: u8 = 1;
const TOO_BIG_V6: u8 = 2;

/// Why the packet could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No peer's allowed IPs contain its destination. The kernel's WireGuard calls that host unreachable (IPv4), address
    /// unreachable (IPv6), and so do we.
    NoRoute,
    /// The peer has no endpoint; told in the same words.
    NoEndpoint,
    /// It does not fit; packets of this many bytes would.
    TooBig(u32),
    /// Policy forbids it.
    AdminProhibited,
}

/// Writes the error about `packet`, sent from our address `source`, to the start of `out`, and returns its length. It quotes
/// as much of the packet as it may. An unspecified `source` is for the system to fill in, which then sums up anew, too.
/// There is no error, and the answer is `None`, if
/// - the packet is an ICMP error itself, or a redirect, or cannot be told from one, or is not the first fragment;
/// - its source is not one host that could be told, or its destination is more than one host;
/// - `source` is of the other family;
/// - `out` is too short ([`MAX_LEN`] always suffices).
pub fn error(reason: Reason, packet: &[u8], source: IpAddr, out: &mut [u8]) -> Option<usize> {
    let packet = IpPacket::parse(packet).ok()?;
    if !deserves_error(&packet) {
        return None;
    }
    match (source, packet.src(), packet.dst()) {
        (IpAddr::V4(source), IpAddr::V4(sender), IpAddr::V4(dst)) if is_host_v4(sender) && !is_group_v4(dst) => {
            error_v4(reason, packet.bytes(), source, sender, out)
        }
        (IpAddr::V6(source), IpAddr::V6(sender), IpAddr::V6(dst)) if is_host_v6(sender) && !dst.is_multicast() => {
            error_v6(reason, packet.bytes(), source, sender, out)
        }
        _ => None,
    }
}

fn error_v4(reason: Reason, packet: &[u8], source: Ipv4Addr, sender: Ipv4Addr, out: &mut [u8]) -> Option<usize> {
    const HEADER: usize = 20;
    let (code, mtu) = match reason {
        Reason::NoRoute | Reason::NoEndpoint => (1, 0),
        Reason::TooBig(mtu) => (4, u16::try_from(mtu).unwrap_or(u16::MAX)),
        Reason::AdminProhibited => (13, 0),
    };
    let quote = &packet[..packet.len().min(MAX_LEN_V4 - HEADER - ICMP_HEADER)];
    let len = HEADER + ICMP_HEADER + quote.len();
    let (header, icmp) = out.get_mut(..len)?.split_at_mut(HEADER);

    header.fill(0);
    header[0] = 0x45;
    header[1] = TOS_CONTROL;
    put(header, 2, len as u16);
    header[6] = 0x40; // never a fragment, so it needs no identification
    header[8] = HOP_LIMIT;
    header[9] = ip::ICMP;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&sender.octets());
    let sum = checksum::finish(checksum::sum(header, 0));
    put(header, 10, sum);

    icmp[..ICMP_HEADER].copy_from_slice(&[UNREACHABLE, code, 0, 0, 0, 0, 0, 0]);
    put(icmp, 6, mtu);
    icmp[ICMP_HEADER..].copy_from_slice(quote);
    let sum = checksum::finish(checksum::sum(icmp, 0));
    put(icmp, 2, sum);
    Some(len)
}

fn error_v6(reason: Reason, packet: &[u8], source: Ipv6Addr, sender: Ipv6Addr, out: &mut [u8]) -> Option<usize> {
    const HEADER: usize = 40;
    let (kind, code, mtu) = match reason {
        Reason::NoRoute | Reason::NoEndpoint => (UNREACHABLE_V6, 3, 0),
        Reason::TooBig(mtu) => (TOO_BIG_V6, 0, mtu),
        Reason::AdminProhibited => (UNREACHABLE_V6, 1, 0),
    };
    let quote = &packet[..packet.len().min(MAX_LEN - HEADER - ICMP_HEADER)];
    let len = HEADER + ICMP_HEADER + quote.len();
    let (header, icmp) = out.get_mut(..len)?.split_at_mut(HEADER);

    header.fill(0);
    header[0] = 0x60;
    put(header, 4, icmp.len() as u16);
    header[6] = ip::ICMPV6;
    header[7] = HOP_LIMIT;
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&sender.octets());

    icmp[..4].copy_from_slice(&[kind, code, 0, 0]);
    icmp[4..ICMP_HEADER].copy_from_slice(&mtu.to_be_bytes());
    icmp[ICMP_HEADER..].copy_from_slice(quote);
    let pseudo = checksum::pseudo_header(source.into(), sender.into(), ip::ICMPV6, icmp.len());
    let sum = checksum::finish(checksum::sum(icmp, pseudo));
    put(icmp, 2, sum);
    Some(len)
}

/// Whether errors may be sent about a packet, by what it is: RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 (e).
fn deserves_error(packet: &IpPacket<'_>) -> bool {
    let Some(transport) = packet.transport() else { return false };
    if transport.later_fragment {
        return false;
    }
    let kind = packet.bytes().get(transport.offset).copied();
    match transport.protocol {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        ip::ICMP => kind.is_some_and(|kind| !matches!(kind, 3 | 4 | 5 | 11 | 12)),
        // All below 128 are errors; 137 is a redirect.
        ip::ICMPV6 => kind.is_some_and(|kind| kind >= 128 && kind != 137),
        _ => true,
    }
}

fn is_host_v4(addr: Ipv4Addr) -> bool {
    !(addr.is_unspecified() || addr.is_loopback() || is_group_v4(addr))
}

fn is_group_v4(addr: Ipv4Addr) -> bool {
    addr.is_multicast() || addr.is_broadcast()
}

fn is_host_v6(addr: Ipv6Addr) -> bool {
    !(addr.is_unspecified() || addr.is_loopback() || addr.is_multicast())
}

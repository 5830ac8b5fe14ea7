//! Addresses, networks and endpoints as the C library writes and reads them.
//!
//! The standard library's spelling differs from `inet_ntop`'s in one case, an IPv4-compatible address (`::192.0.2.1`), and
//! scripts compare what `wg show` prints byte by byte. A link-local endpoint has a zone (`[fe80::1%eth0]:51820`), and `wg`
//! sends the interface's *name*: which number it has is asked of [`Zones`], because only the caller knows the network namespace.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use inet::Cidr;

/// What the interfaces are called, for the zone of a link-local endpoint.
pub trait Zones {
    /// The index of the interface of this name.
    fn index(&self, name: &str) -> Option<u32>;
    /// The name of the interface with this index.
    fn name(&self, index: u32) -> Option<String>;
}

/// Knows no interface by name: zones are numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NumericZones;

impl Zones for NumericZones {
    fn index(&self, _: &str) -> Option<u32> {
        None
    }
    fn name(&self, _: u32) -> Option<String> {
        None
    }
}

/// An address as `inet_ntop` writes it.
#[derive(Debug, Clone, Copy)]
pub struct IpText(pub IpAddr);

impl fmt::Display for IpText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V6(ip) if ip.segments()[..6] == [0; 6] && ip.segments()[6] != 0 => {
                let [.., a, b, c, d] = ip.octets();
                write!(f, "::{}", Ipv4Addr::new(a, b, c, d))
            }
            ip => write!(f, "{ip}"),
        }
    }
}

/// A network as `wg` prints it: address, slash, prefix length.
#[derive(Debug, Clone, Copy)]
pub struct CidrText(pub Cidr);

impl fmt::Display for CidrText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", IpText(self.0.addr()), self.0.prefix_len())
    }
}

/// An endpoint as `wg` prints it: `192.0.2.1:51820`, `[2001:db8::1]:51820`, `[fe80::1%eth0]:51820`.
#[derive(Clone, Copy)]
pub struct EndpointText<'a>(pub SocketAddr, pub &'a dyn Zones);

impl fmt::Display for EndpointText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EndpointText(SocketAddr::V6(v6), zones) = self else {
            return write!(f, "{}", self.0);
        };
        write!(f, "[{}", IpText((*v6.ip()).into()))?;
        if v6.scope_id() != 0 {
            // As in getnameinfo: a name only where the zone is an interface.
            match zones.name(v6.scope_id()).filter(|_| has_link_zone(v6.ip())) {
                Some(name) => write!(f, "%{name}")?,
                None => write!(f, "%{}", v6.scope_id())?,
            }
        }
        write!(f, "]:{}", v6.port())
    }
}

/// Whether the zone of this address is an interface: link-local unicast and multicast.
fn has_link_zone(ip: &Ipv6Addr) -> bool {
    let [first, second, ..] = ip.octets();
    ip.is_unicast_link_local() || (first == 0xff && second & 0x0f == 2)
}

/// Reads an endpoint as [`EndpointText`] writes it; the zone may be a number, too.
pub fn parse_endpoint(text: &str, zones: &dyn Zones) -> Option<SocketAddr> {
    let Some(rest) = text.strip_prefix('[') else {
        let (ip, port) = text.rsplit_once(':')?;
        return Some(SocketAddrV4::new(ip.parse().ok()?, digits(port)?).into());
    };
    let (host, port) = rest.split_once(']')?;
    let port = digits(port.strip_prefix(':')?)?;
    let (ip, zone) = match host.split_once('%') {
        Some((ip, zone)) => (ip, Some(zone)),
        None => (host, None),
    };
    let ip: Ipv6Addr = ip.parse().ok()?;
    let scope = match zone {
        None => 0,
        Some(zone) => zones.index(zone).filter(|_| has_link_zone(&ip)).or_else(|| digits(zone))?,
    };
    Some(SocketAddrV6::new(ip, port, 0, scope).into())
}

/// Reads a network `address/length`. Host bits are cut off; whether there were any is told, too.
pub fn parse_cidr(text: &str) -> Option<(Cidr, HostBits)> {
    let (ip, len) = text.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    masked(ip, digits(len)?)
}

/// Whether a network was written with bits behind its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostBits {
    /// All of them were zero.
    Clear,
    /// Some were set, and are ignored.
    Set,
}

/// The network of `prefix_len` bits that `ip` is in.
pub(crate) fn masked(ip: IpAddr, prefix_len: u8) -> Option<(Cidr, HostBits)> {
    let cidr = Cidr::new(ip, prefix_len)?;
    let bits = if cidr.addr() == ip { HostBits::Clear } else { HostBits::Set };
    Some((cidr, bits))
}

/// A decimal number of digits alone: no sign, no space, not empty.
pub(crate) fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

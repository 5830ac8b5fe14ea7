//! The values that people write: in files, and on the command line of `wg set`.
//!
//! Each is read as `wg` reads it, and what is refused is told with what would have been right. White space is the caller's
//! business: files and the command line strip it first.

use std::fmt;
use std::net::IpAddr;

use crate::address::{HostBits, digits, masked};
use crate::device::AllowedIpChange;

/// A value that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A port that is not one.
    #[error("listen port {0} is not one, expected a number from 0 to 65535 or the name of a UDP service")]
    ListenPort(Quoted),
    /// A mark that is not one.
    #[error("mark {0} is not one, expected off, a number, or 0x and hexadecimal digits, of 32 bits")]
    FwMark(Quoted),
    /// A keepalive interval that is not one.
    #[error("persistent keepalive {0} is not one, expected off or seconds from 0 to 65535")]
    Keepalive(Quoted),
    /// An address that is not one.
    #[error("allowed IP {0} has no address, expected one such as 192.0.2.0/24 or 2001:db8::/32")]
    Address(Quoted),
    /// A prefix length that is not one.
    #[error("allowed IP {0} has no proper prefix length, expected 0 to 32 for IPv4 and 0 to 128 for IPv6")]
    PrefixLength(Quoted),
    /// An endpoint without a host.
    #[error("endpoint {0} has no host, expected HOST:PORT, an IPv6 address in brackets")]
    Host(Quoted),
    /// An endpoint without a port.
    #[error(
        "endpoint {0} has no proper port, expected HOST:PORT, the port from 0 to 65535 or the name of a UDP service"
    )]
    Port(Quoted),
    /// An opening bracket that is not closed.
    #[error("endpoint {0} has no closing bracket, expected [IPV6]:PORT")]
    Bracket(Quoted),
}

/// Text from outside, as an error may tell it: control characters escaped, cut at 64 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    /// Quotes `text`.
    pub fn new(text: &str) -> Quoted {
        const LONGEST: usize = 64;
        let mut short: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
        if text.chars().nth(LONGEST).is_some() {
            short.push('…');
        }
        Quoted(short)
    }

    /// Quotes text that may not be UTF-8.
    pub fn bytes(text: &[u8]) -> Quoted {
        Quoted::new(&String::from_utf8_lossy(text))
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0)
    }
}

/// Where a peer is, as people write it: the host may be a name that is still to be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// An address, without brackets, or a name.
    pub host: String,
    /// The UDP port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A list of allowed IPs, as people write it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedIps {
    /// Whether those that the peer has are removed first: yes, unless one is marked by `+` or `-`.
    pub replace: bool,
    /// The networks, in order.
    pub changes: Vec<AllowedIpChange>,
    /// The networks that had host bits, as they were written.
    pub with_host_bits: Vec<Quoted>,
}

/// The ports that have names, as in `/etc/services`: `wg` takes such a name wherever it takes a port.
pub trait Services {
    /// The UDP port of the service of this name.
    fn port(&self, name: &str) -> Option<u16>;
}

/// Knows no service by name: ports are numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoServices;

impl Services for NoServices {
    fn port(&self, _: &str) -> Option<u16> {
        None
    }
}

/// A port, as a number or by name. What holds no letter is no name (RFC 6335, section 5.1): `wg` hands it to the C library, which
/// takes signs and leading spaces for parts of a number, and of a number too large its lower 16 bits.
fn port(text: &str, services: &dyn Services) -> Option<u16> {
    digits(text).or_else(|| text.contains(|c: char| c.is_ascii_alphabetic()).then(|| services.port(text))?)
}

/// A listen port.
pub fn listen_port(text: &str, services: &dyn Services) -> Result<u16, ValueError> {
    port(text, services).ok_or_else(|| ValueError::ListenPort(Quoted::new(text)))
}

/// A mark; `off` is 0.
pub fn fwmark(text: &str) -> Result<u32, ValueError> {
    let mark = match text.strip_prefix("0x") {
        _ if text.eq_ignore_ascii_case("off") => Some(0),
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u32::from_str_radix(hex, 16).ok(),
        _ => digits(text),
    };
    mark.ok_or_else(|| ValueError::FwMark(Quoted::new(text)))
}

/// A keepalive interval in seconds; `off` is 0.
pub fn persistent_keepalive(text: &str) -> Result<u16, ValueError> {
    let seconds = if text.eq_ignore_ascii_case("off") { Some(0) } else { digits(text) };
    seconds.ok_or_else(|| ValueError::Keepalive(Quoted::new(text)))
}

/// `HOST:PORT`, an IPv6 address in brackets.
pub fn endpoint(text: &str, services: &dyn Services) -> Result<HostPort, ValueError> {
    let quoted = || Quoted::new(text);
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(|| ValueError::Bracket(quoted()))?;
            (host, rest.strip_prefix(':').unwrap_or_default())
        }
        None => text.rsplit_once(':').unwrap_or((text, "")),
    };
    let port = self::port(port, services).ok_or_else(|| ValueError::Port(quoted()))?;
    // What is no part of a name, and could not be read again where it was written down.
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '[' | ']' | '#');
    if host.is_empty() || host.contains(is_odd) {
        return Err(ValueError::Host(quoted()));
    }
    Ok(HostPort { host: host.to_owned(), port })
}

/// A list of networks, separated by commas; the empty list removes all.
pub fn allowed_ips(text: &str) -> Result<AllowedIps, ValueError> {
    let mut list = AllowedIps { replace: true, ..AllowedIps::default() };
    if text.is_empty() {
        return Ok(list);
    }
    for item in text.split(',') {
        let (network, kind): (_, fn(_) -> _) = match item.split_at_checked(1) {
            Some(("-", rest)) => (rest, AllowedIpChange::Remove),
            Some(("+", rest)) => (rest, AllowedIpChange::Add),
            _ => (item, AllowedIpChange::Add),
        };
        list.replace &= network.len() == item.len();
        let (ip, len) = match network.split_once('/') {
            Some((ip, len)) => (ip, Some(len)),
            None => (network, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| ValueError::Address(Quoted::new(item)))?;
        let len = match len {
            Some(len) => digits(len),
            None => Some(if ip.is_ipv4() { 32 } else { 128 }),
        };
        let (cidr, host_bits) =
            len.and_then(|len| masked(ip, len)).ok_or_else(|| ValueError::PrefixLength(Quoted::new(item)))?;
        if host_bits == HostBits::Set {
            list.with_host_bits.push(Quoted::new(network));
        }
        list.changes.push(kind(cidr));
    }
    Ok(list)
}

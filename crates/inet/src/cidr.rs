//! A prefix of the IPv4 or IPv6 address space.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address prefix. Host bits are always zero, so that equal prefixes compare equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    addr: IpAddr,
    prefix_len: u8,
}

impl Cidr {
    /// The prefix of `prefix_len` bits that contains `addr`; `None` if an address of that family has fewer bits.
    pub fn new(addr: IpAddr, prefix_len: u8) -> Option<Self> {
        if prefix_len > address_bits(addr) {
            return None;
        }
        let addr = match addr {
            IpAddr::V4(a) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & mask))
            }
            IpAddr::V6(a) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix_len)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & mask))
            }
        };
        Some(Self { addr, prefix_len })
    }

    /// The prefix that contains `addr` alone (/32 or /128).
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, prefix_len: address_bits(addr) }
    }

    /// The lowest address of the prefix.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// How many leading bits are fixed: at most 32 or 128.
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Whether `addr` lies in the prefix. An address of the other family never does.
    pub fn contains(&self, addr: IpAddr) -> bool {
        Self::new(addr, self.prefix_len).as_ref() == Some(self)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix_len)
    }
}

fn address_bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(addr: &str, len: u8) -> Cidr {
        Cidr::new(addr.parse().unwrap(), len).unwrap()
    }

    #[test]
    fn masks_host_bits() {
        assert_eq!(cidr("10.1.2.3", 8).to_string(), "10.0.0.0/8");
        assert_eq!(cidr("10.1.2.3", 0).to_string(), "0.0.0.0/0");
        assert_eq!(cidr("10.1.2.3", 32).to_string(), "10.1.2.3/32");
        assert_eq!(cidr("fe80::1", 10).to_string(), "fe80::/10");
        assert_eq!(cidr("fe80::1", 0).to_string(), "::/0");
        assert_eq!(cidr("fe80::1", 128).to_string(), "fe80::1/128");
    }

    #[test]
    fn refuses_prefixes_longer_than_the_address() {
        assert_eq!(Cidr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 33), None);
        assert_eq!(Cidr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 129), None);
    }

    #[test]
    fn contains_its_own_family_only() {
        assert!(cidr("10.0.0.0", 8).contains("10.255.0.1".parse().unwrap()));
        assert!(!cidr("10.0.0.0", 8).contains("11.0.0.1".parse().unwrap()));
        assert!(!cidr("0.0.0.0", 0).contains("::1".parse().unwrap()));
        assert!(!cidr("::", 64).contains("0.0.0.0".parse().unwrap()));
        assert!(cidr("::", 0).contains("ff::1".parse().unwrap()));
    }
}

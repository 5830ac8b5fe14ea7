//! Socket addresses in C's form and in Rust's. IPv6 ones keep their scope, without which a link-local one means nothing.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for either family: a `sockaddr_in6` is the larger, and is aligned enough for both.
pub(super) type Raw = libc::sockaddr_in6;

pub(super) const LEN: libc::socklen_t = size_of::<Raw>() as libc::socklen_t;

pub(super) const EMPTY: Raw = Raw {
    sin6_family: 0,
    sin6_port: 0,
    sin6_flowinfo: 0,
    sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
    sin6_scope_id: 0,
};

/// The C form, and its length.
pub(super) fn encode(address: &SocketAddr) -> (Raw, libc::socklen_t) {
    let mut raw = EMPTY;
    match address {
        SocketAddr::V4(address) => {
            let v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: a `sockaddr_in6` is larger than a `sockaddr_in` and aligned at least as strictly; both are plain data.
            unsafe { (&raw mut raw).cast::<libc::sockaddr_in>().write(v4) };
            (raw, size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
        SocketAddr::V6(address) => {
            raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            raw.sin6_port = address.port().to_be();
            raw.sin6_flowinfo = address.flowinfo();
            raw.sin6_addr.s6_addr = address.ip().octets();
            raw.sin6_scope_id = address.scope_id();
            (raw, LEN)
        }
    }
}

/// The Rust form; `None` of a family that is neither.
pub(super) fn decode(raw: &Raw) -> Option<SocketAddr> {
    match libc::c_int::from(raw.sin6_family) {
        libc::AF_INET => {
            // SAFETY: as in `encode`, the memory is large and aligned enough, and the family says that this is its form.
            let v4 = unsafe { (&raw const *raw).cast::<libc::sockaddr_in>().read() };
            Some(SocketAddr::V4(SocketAddrV4::new(
                Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes()),
                u16::from_be(v4.sin_port),
            )))
        }
        libc::AF_INET6 => Some(SocketAddr::V6(SocketAddrV6::new(
            Ipv6Addr::from(raw.sin6_addr.s6_addr),
            u16::from_be(raw.sin6_port),
            raw.sin6_flowinfo,
            raw.sin6_scope_id,
        ))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_families_survive_the_way_there_and_back(v4: u32, v6: u128, port: u16, scope: u32) {
            for address in [
                SocketAddr::from((Ipv4Addr::from(v4), port)),
                SocketAddrV6::new(Ipv6Addr::from(v6), port, 0, scope).into(),
            ] {
                prop_assert_eq!(decode(&encode(&address).0), Some(address));
            }
        }
    }

    #[test]
    fn another_family_is_none() {
        assert_eq!(decode(&EMPTY), None);
    }
}

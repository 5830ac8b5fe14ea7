//! rtnetlink, to read and to change: links, addresses, routes and the rules that choose among tables.
//!
//! An [`Rt`] is a socket in the network namespace that the calling thread was in when it was opened, and stays there. A change is
//! acknowledged before the call returns; many routes go in datagrams of hundreds ([`Rt::add_routes`]), since a call for each would take a
//! minute for a hundred thousand. What the kernel refuses comes back with its own words where it has any ([`RtError::Refused`]).
//!
//! The messages are typed by `netlink-packet-route`. What it cannot read (a route of a kind that nobody here knows) is passed over:
//! others' routes are no reason to fail.

mod address;
mod error;
mod link;
mod route;
mod rule;
mod socket;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;

pub use address::Address;
pub use error::RtError;
pub use link::Link;
pub use route::{MAIN, Path, Route, RouteKind};
pub use rule::Rule;
use socket::Socket;

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// That of an address.
    pub fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// How many bits an address has.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    fn number(self) -> AddressFamily {
        match self {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        }
    }

    fn from_number(number: AddressFamily) -> Option<Family> {
        Family::ALL.into_iter().find(|family| family.number() == number)
    }
}

/// A socket for all of it.
#[derive(Debug)]
pub struct Rt {
    socket: Socket,
}

impl Rt {
    /// Opens one in the calling thread's network namespace.
    pub fn open() -> io::Result<Rt> {
        Ok(Rt { socket: Socket::open()? })
    }
}

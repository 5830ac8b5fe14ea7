//! Where a peer is reached, and from which of our addresses.

use std::net::{IpAddr, SocketAddr};

/// A peer's outer address, with the local address that it last reached us on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Where to send. A link-local IPv6 address keeps its scope id.
    pub addr: SocketAddr,
    /// What to send from; `None` leaves the choice to the kernel's routes.
    pub source: Option<Source>,
}

/// A local address and interface, as the kernel reports them with a datagram (`IP_PKTINFO`, `IPV6_PKTINFO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The local address that the datagram was sent to.
    pub ip: IpAddr,
    /// The index of the interface on which it came.
    pub ifindex: u32,
}

impl Endpoint {
    /// An endpoint that no datagram has come from yet: the kernel chooses the source.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, source: None }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self::new(addr)
    }
}

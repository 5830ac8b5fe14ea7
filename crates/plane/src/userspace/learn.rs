//! Whether an address of ours may be learnt from a peer's packet.
//!
//! A peer is answered from the address that it reached only if what is sent from there leaves by the interface that the packet came in by; the kernel's
//! WireGuard looks at that with each packet that it sends (`send4` in `socket.c`). Here whoever learns an address asks, before it is sent from for the first
//! time: the peer takes the address of any packet for ours, and one packet from a wrong one may lead it to where our routes do not mean it to be. What
//! becomes of it when routes change later is looked at by control. Of IPv6 the kernel does not look at it, and neither do we.
//!
//! Between the question and the moment in which the answer is in force ways out may change. So whoever asks notes the epoch first and looks at it again at the
//! end: control begins a new one before it looks at all peers, and that look finds whatever was in force by then. While marks and ports change nothing is
//! learnt at all: what is true by the one is not by the other, and sockets take theirs one after the other.

use super::shared::{Sockets, lock};
use inet::{Endpoint, Source};
use linux::link::Exits;
use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV4},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// What there is to say of an address of ours that a packet has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learnt {
    /// It may be sent from.
    Stands,
    /// What is sent from there leaves by this interface, and not where the packet came in; [`Exits::NOWHERE`] if the address is not ours any more.
    Leaves(u32),
    /// That is not to be said now.
    NotNow,
}

/// Who is asked by whoever learns an address.
pub(crate) struct Learning {
    exits: Mutex<Exits>,
    epoch: AtomicU64,
    held: AtomicBool,
}

impl Learning {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { exits: Mutex::new(Exits::open()?), epoch: AtomicU64::new(0), held: AtomicBool::new(false) })
    }

    /// From now on nothing is learnt, or again.
    pub(crate) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
        self.doubt();
    }

    /// Ways out may have changed.
    pub(crate) fn doubt(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// As long as it is the same, what was found out is true, or about to be looked at.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Looks at the source of an endpoint, which one of the sockets is to send to.
    pub(crate) fn look(&self, here: Endpoint, sockets: Option<&Sockets>) -> Learnt {
        let (Some(Source { ip: IpAddr::V4(ip), ifindex }), SocketAddr::V4(to)) = (here.source, here.addr) else {
            return Learnt::Stands;
        };
        if self.held.load(Ordering::SeqCst) {
            return Learnt::NotNow;
        }
        let sender = || {
            let socket = sockets?.family(false)?;
            Some((SocketAddrV4::new(ip, socket.port().ok()?), socket.mark().ok()?))
        };
        // While there are no sockets nothing is sent, and before there are new ones all sources are forgotten.
        let Some((from, mark)) = sender() else { return Learnt::Stands };
        match lock(&self.exits).interface(from, to, mark) {
            Ok(out) if out != ifindex => Learnt::Leaves(out),
            // Without any way out the address is as good as another.
            Ok(_) | Err(_) => Learnt::Stands,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux::udp::{SocketGroup, UdpOptions};

    /// The loopback interface is the first of each network namespace.
    const LOOPBACK: u32 = 1;

    fn here(source: &str, ifindex: u32, addr: &str) -> Endpoint {
        Endpoint { addr: addr.parse().unwrap(), source: Some(Source { ip: source.parse().unwrap(), ifindex }) }
    }

    #[test]
    fn an_address_stands_where_what_is_sent_from_it_leaves_as_it_came() {
        let learning = Learning::new().unwrap();
        let group = SocketGroup::bind(0, 1, &UdpOptions::default()).unwrap();
        let sockets = Sockets::new(group.workers[0].clone());
        let look = |endpoint| learning.look(endpoint, Some(&sockets));
        let to = "127.0.0.1:9";
        assert_eq!(look(here("127.0.0.1", LOOPBACK, to)), Learnt::Stands);
        assert_eq!(look(here("127.0.0.1", 77, to)), Learnt::Leaves(LOOPBACK));
        assert_eq!(look(here("192.0.2.1", 77, to)), Learnt::Leaves(Exits::NOWHERE));
        assert_eq!(look(here("::1", 77, "[::1]:9")), Learnt::Stands, "of IPv6 there is nothing to say");
        assert_eq!(learning.look(here("127.0.0.1", 77, to), None), Learnt::Stands);
        let before = learning.epoch();
        learning.hold(true);
        assert_eq!(look(here("127.0.0.1", LOOPBACK, to)), Learnt::NotNow);
        assert_ne!(learning.epoch(), before);
        let before = learning.epoch();
        learning.hold(false);
        assert_eq!(look(here("127.0.0.1", LOOPBACK, to)), Learnt::Stands);
        assert_ne!(learning.epoch(), before, "nor does what was found out meanwhile count");
    }
}

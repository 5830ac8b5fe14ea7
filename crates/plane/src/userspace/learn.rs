//! Whether an address of ours may be learnt from a peer's packet.
//!
//! A peer is answered from the address that it reached only if what is sent from there leaves by the interface that the packet came in by; the kernel's
//! WireGuard looks at that with each packet that it sends (`send4` in `socket.c`). Here whoever learns an address asks, before it is sent from for the first
//! time: the peer takes the address of any packet for ours, and one packet from a wrong one may lead it to where our routes do not mean it to be. What
//! becomes of it when routes change later is looked at by control. Of IPv6 the kernel does not look at it, and neither do we.
//!
//! While marks change nothing is learnt at all: what is true by the one is not by the other, and sockets take theirs one after the other.

use super::shared::{Sockets, lock};
use inet::{Endpoint, Source};
use linux::link::Exits;
use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV4},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// What there is to say of an address of ours that a packet has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learnt {
    /// It may be sent from.
    Stands,
    /// What is sent from there leaves by this interface, and not where the packet came in: zero, which is none, if the address is not ours any more.
    Leaves(u32),
    /// That is not to be said now.
    NotNow,
}

/// Who is asked by whoever learns an address.
pub(crate) struct Learning {
    exits: Mutex<Exits>,
    held: AtomicBool,
}

impl Learning {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { exits: Mutex::new(Exits::open()?), held: AtomicBool::new(false) })
    }

    /// From now on nothing is learnt, or again.
    pub(crate) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
    }

    /// Looks at the source of an endpoint, which one of the sockets is to send to.
    pub(crate) fn look(&self, here: Endpoint, sockets: Option<&Sockets>) -> Learnt {
        let (Some(Source { ip: IpAddr::V4(ip), ifindex }), SocketAddr::V4(to)) = (here.source, here.addr) else {
            return Learnt::Stands;
        };
        if self.held.load(Ordering::SeqCst) {
            return Learnt::NotNow;
        }
        let asked = || {
            let socket = sockets?.family(false)?;
            Some((SocketAddrV4::new(ip, socket.port().ok()?), socket.mark().ok()?))
        };
        let Some((from, mark)) = asked() else { return Learnt::Stands };
        match lock(&self.exits).interface(from, to, mark) {
            Ok(out) if out != Some(ifindex) => Learnt::Leaves(out.unwrap_or(0)),
            // Without any way out the address is as good as another.
            Ok(_) | Err(_) => Learnt::Stands,
        }
    }
}

//! Whether the addresses that we send from still go with the way out.
//!
//! A peer is answered from the address of ours that it reached, for as long as what is sent from there leaves by the interface
//! that the peer's packets came in by. When another route takes over, its own address goes with it: a router on the new way
//! might let no other pass. The kernel's WireGuard looks at this with each new route (`send4` in `socket.c`); here, all peers are looked
//! at when routes have changed, a few at a time. IPv6 addresses stay as long as they exist, there as here.

use crate::device::Device;
use inet::Endpoint;
use linux::link::Routes;
use noise::PeerId;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
};

/// Peers between two looks at everything else: about a millisecond of work.
const PEERS: usize = 128;

/// What is still to be looked at.
pub(crate) struct Sources {
    routes: Routes,
    peers: Vec<PeerId>,
    /// Something changed since that look began.
    again: bool,
}

impl Sources {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { routes: Routes::open()?, peers: Vec::new(), again: false })
    }

    /// Routes may have changed.
    pub(crate) fn hear(&mut self) {
        self.again |= self.routes.changed();
    }

    /// Whether there is nothing to look at.
    pub(crate) fn is_idle(&self) -> bool {
        self.peers.is_empty() && !self.again
    }

    /// Looks at some peers.
    pub(crate) fn check(&mut self, device: &Device) {
        if self.is_idle() {
            return;
        }
        let mark = {
            let state = device.state();
            if self.peers.is_empty() {
                self.again = false;
                self.peers.extend(state.noise.peers());
            }
            state.mark
        };
        for _ in 0..PEERS {
            let Some(peer) = self.peers.pop() else { return };
            if device.plane.endpoint(peer).is_some_and(|endpoint| self.is_stale(endpoint, mark)) {
                device.plane.forget_source(peer);
            }
        }
    }

    fn is_stale(&mut self, endpoint: Endpoint, mark: u32) -> bool {
        let (SocketAddr::V4(to), Some(source)) = (endpoint.addr, endpoint.source) else { return false };
        let IpAddr::V4(ip) = source.ip else { return false };
        match self.routes.interface(ip, to, mark) {
            Ok(interface) => interface != source.ifindex,
            // The address has gone. Without any way out, it is as good as another.
            Err(error) => error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()),
        }
    }
}

impl AsFd for Sources {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.routes.as_fd()
    }
}

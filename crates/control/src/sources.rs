//! Whether the addresses that we send from still go with the way out.
//!
//! A peer is answered from the address of ours that it reached, for as long as what is sent from there leaves by the interface
//! that the peer's packets came in by. When another route takes over, its own address goes with it: a router on the new way
//! might let no other pass. The kernel's WireGuard looks at this with each new route (`send4` in `socket.c`); here, all peers are looked
//! at when routes have changed, a few at a time. A new address is looked at by the data plane, before it is sent from for the first time. One that
//! does not go with the way out is refused: packets that were under way, or that come by another way than ours, do not bring it back before that way
//! changes. IPv6 addresses stay as long as they exist, there as here.

use crate::device::{Device, boot};
use inet::Endpoint;
use linux::link::{Exits, Routes};
use noise::{Instant, PeerId};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

/// Peers between two looks at everything else: those that are asked about, about a millisecond of work, and all.
const PEERS: usize = 128;
const PEERS_MAX: usize = 32 * PEERS;
/// After all peers were looked at, so many times as long passes before that begins again, but not longer than [`REST_MAX`]: with few, nothing
/// that is felt; with many, routes that change all the time cost a part of our time only.
const REST: u32 = 4;
const REST_MAX: Duration = Duration::from_secs(5);

/// What is still to be looked at.
pub(crate) struct Sources {
    routes: Routes,
    exits: Exits,
    peers: Vec<PeerId>,
    /// Something changed since that look began.
    again: bool,
    /// When the look began, and when the next may.
    began: Instant,
    next: Instant,
}

impl Sources {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            routes: Routes::open()?,
            exits: Exits::open()?,
            peers: Vec::new(),
            again: false,
            began: boot(),
            next: boot(),
        })
    }

    /// Routes may have changed.
    pub(crate) fn hear(&mut self) {
        self.again |= self.routes.changed();
    }

    /// In what time there is something to look at; `None` if nothing is.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match (self.peers.is_empty(), self.again) {
            (false, _) => Some(Duration::ZERO),
            (true, true) => Some(self.next.saturating_since(boot())),
            (true, false) => None,
        }
    }

    /// Looks at some peers.
    pub(crate) fn check(&mut self, device: &Device) {
        if self.patience() != Some(Duration::ZERO) {
            return;
        }
        let (port, mark) = {
            let state = device.state();
            (state.port, state.mark)
        };
        if self.peers.is_empty() {
            self.again = false;
            self.began = boot();
            device.plane.doubt_sources();
            self.peers.extend(device.state().noise.peers());
        }
        let mut asked = 0;
        for _ in 0..PEERS_MAX {
            let Some(peer) = self.peers.pop() else { break };
            asked += self.check_refused(device, peer, port, mark) + self.check_source(device, peer, port, mark);
            if asked >= PEERS {
                break;
            }
        }
        if self.peers.is_empty() {
            let now = boot();
            self.next = now + (now.saturating_since(self.began) * REST).min(REST_MAX);
        }
    }

    /// Refuses the address that the peer is sent to from, unless it goes with the way out. Returns how often the kernel had to be asked.
    fn check_source(&mut self, device: &Device, peer: PeerId, port: u16, mark: u32) -> usize {
        let Some(endpoint) = device.plane.endpoint(peer) else { return 0 };
        let Some((source, ifindex, to)) = sticky(endpoint) else { return 0 };
        if let Some(out) = self.way_out(SocketAddrV4::new(source, port), to, mark)
            && out != ifindex
        {
            device.plane.refuse_source(peer, endpoint, out);
        }
        1
    }

    /// What was refused may be right once the way out is another: the peer's next packet brings it, and then it is looked at.
    /// As long as the way out stands, so does the refusal, whatever else changes. Returns how often the kernel had to be asked.
    fn check_refused(&mut self, device: &Device, peer: PeerId, port: u16, mark: u32) -> usize {
        let refused = device.plane.refused_sources(peer);
        let moved = refused.iter().copied().filter_map(sticky).any(|(source, old, to)| {
            let out = self.way_out(SocketAddrV4::new(source, port), to, mark);
            out.is_some_and(|out| out != old || out == Exits::NOWHERE)
        });
        if moved {
            device.plane.forget_source(peer);
        }
        refused.len()
    }

    /// The interface by which a datagram leaves, [`Exits::NOWHERE`] if the address that it is from is not ours any more. `None` without any way
    /// out: then the address is as good as another.
    fn way_out(&mut self, source: SocketAddrV4, to: SocketAddrV4, mark: u32) -> Option<u32> {
        self.exits.interface(source, to, mark).ok()
    }
}

/// The IPv4 address of ours that the endpoint is sent to from, if there is one, its interface, and the peer's.
fn sticky(endpoint: Endpoint) -> Option<(Ipv4Addr, u32, SocketAddrV4)> {
    let source = endpoint.source?;
    match (source.ip, endpoint.addr) {
        (IpAddr::V4(ip), SocketAddr::V4(to)) => Some((ip, source.ifindex, to)),
        _ => None,
    }
}

impl AsFd for Sources {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.routes.as_fd()
    }
}

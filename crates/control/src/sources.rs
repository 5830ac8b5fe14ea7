//! Whether the addresses that we send from still go with the way out.
//!
//! A peer is answered from the address of ours that it reached, for as long as what is sent from there leaves by the interface
//! that the peer's packets came in by. When another route takes over, its own address goes with it: a router on the new way
//! might let no other pass. The kernel's WireGuard looks at this with each new route (`send4` in `socket.c`); here, all peers are looked
//! at when routes have changed, a few at a time, and each one whose packets have come in elsewhere. An address that does not go with
//! the way out is refused: packets that were under way, or that come by another way than ours, do not bring it back before routes
//! change again. IPv6 addresses stay as long as they exist, there as here.

use crate::device::{Device, boot};
use inet::Endpoint;
use linux::link::Routes;
use noise::{Instant, PeerId};
use std::{
    collections::VecDeque,
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
    peers: Vec<PeerId>,
    /// Of these an address was learnt.
    learnt: VecDeque<PeerId>,
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
            peers: Vec::new(),
            learnt: VecDeque::new(),
            again: false,
            began: boot(),
            next: boot(),
        })
    }

    /// Routes may have changed.
    pub(crate) fn hear(&mut self) {
        self.again |= self.routes.changed();
    }

    /// An address was learnt from the peer's packets.
    pub(crate) fn learnt(&mut self, peer: PeerId) {
        self.learnt.push_back(peer);
    }

    /// In what time there is something to look at; `None` if nothing is.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match (self.peers.is_empty() && self.learnt.is_empty(), self.again) {
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
        let mark = device.state().mark;
        for _ in 0..PEERS {
            let Some(peer) = self.learnt.pop_front() else { break };
            self.check_one(device, peer, mark);
        }
        if self.peers.is_empty() {
            if !self.again || boot() < self.next {
                return;
            }
            self.again = false;
            self.began = boot();
            self.peers.extend(device.state().noise.peers());
        }
        let mut asked = 0;
        for _ in 0..PEERS_MAX {
            let Some(peer) = self.peers.pop() else { break };
            asked += usize::from(self.check_one(device, peer, mark));
            if asked == PEERS {
                break;
            }
        }
        if self.peers.is_empty() {
            let now = boot();
            self.next = now + (now.saturating_since(self.began) * REST).min(REST_MAX);
        }
    }

    /// Returns whether the kernel had to be asked.
    fn check_one(&mut self, device: &Device, peer: PeerId, mark: u32) -> bool {
        let Some(endpoint) = device.plane.endpoint(peer) else { return false };
        match sticky(endpoint) {
            Some((source, ifindex, to)) => {
                if self.is_stale(source, ifindex, to, mark) {
                    device.plane.refuse_source(peer, endpoint);
                }
                true
            }
            None => {
                // What was refused may be right by now: the peer's next packet brings it, and then it is looked at.
                if endpoint.source.is_none() {
                    device.plane.forget_source(peer);
                }
                false
            }
        }
    }

    fn is_stale(&mut self, source: Ipv4Addr, ifindex: u32, to: SocketAddrV4, mark: u32) -> bool {
        match self.routes.interface(source, to, mark) {
            Ok(interface) => interface != ifindex,
            // The address has gone. Without any way out, it is as good as another.
            Err(error) => error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()),
        }
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

//! What the workers know of a peer: the session to send with, where to, and what moved.
//!
//! Everything that a packet needs is read without a lock. Control writes it; the workers write back the counters, the
//! notes for the timers, and the endpoint when an authentic packet came from elsewhere.

use crate::Traffic;
use arc_swap::ArcSwapOption;
use inet::Endpoint;
use noise::{Activity, PeerId, Session};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
};

/// A peer of the userspace data plane.
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) activity: Arc<Activity>,
    /// The session to send with.
    pub(crate) current: ArcSwapOption<Session>,
    /// Where to send.
    pub(crate) path: ArcSwapOption<Path>,
    /// How many packets wait for a session, in all workers.
    pub(crate) waiting: AtomicU32,
    /// Which events are queued for control (see `events`).
    pub(crate) raised: AtomicU8,
    removed: AtomicBool,
    tx_bytes: AtomicU64,
    rx_bytes: AtomicU64,
}

impl Peer {
    pub(crate) fn new(id: PeerId, activity: Arc<Activity>) -> Self {
        Self {
            id,
            activity,
            current: ArcSwapOption::empty(),
            path: ArcSwapOption::empty(),
            waiting: AtomicU32::new(0),
            raised: AtomicU8::new(0),
            removed: AtomicBool::new(false),
            tx_bytes: AtomicU64::new(0),
            rx_bytes: AtomicU64::new(0),
        }
    }

    /// From now on nothing is sent to the peer or taken from it.
    pub(crate) fn remove(&self) {
        self.removed.store(true, Ordering::Release);
        self.current.store(None);
    }

    #[inline]
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        self.path.load().as_ref().map(|path| path.endpoint)
    }

    /// Sends to `endpoint` from now on. What was learnt of the path stays while only our own address changes.
    pub(crate) fn set_endpoint(&self, endpoint: Option<Endpoint>) {
        let old = self.path.load();
        if old.as_ref().map(|path| path.endpoint) == endpoint {
            return;
        }
        self.path.store(endpoint.map(|endpoint| {
            let path = Path::new(endpoint);
            if let Some(old) = old.as_ref().filter(|old| old.endpoint.addr == endpoint.addr) {
                path.limit.store(old.limit.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            Arc::new(path)
        }));
    }

    /// Lets the kernel choose our address again.
    pub(crate) fn forget_source(&self) {
        if let Some(endpoint) = self.endpoint().filter(|endpoint| endpoint.source.is_some()) {
            self.set_endpoint(Some(Endpoint { source: None, ..endpoint }));
        }
    }

    #[inline]
    pub(crate) fn count_tx(&self, bytes: u64) {
        self.tx_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn count_rx(&self, bytes: u64) {
        self.rx_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn traffic(&self) -> Traffic {
        Traffic { tx_bytes: self.tx_bytes.load(Ordering::Relaxed), rx_bytes: self.rx_bytes.load(Ordering::Relaxed) }
    }
}

/// An endpoint, and what sending there has taught.
pub(crate) struct Path {
    pub(crate) endpoint: Endpoint,
    /// The largest outer IP packet in bytes that may be one segment of a GSO send; 0 when the device does none.
    limit: AtomicU32,
}

impl Path {
    fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, limit: AtomicU32::new(u32::MAX) }
    }

    /// Bytes of IP and UDP header around a datagram on this path.
    #[inline]
    pub(crate) fn overhead(&self) -> usize {
        match self.endpoint.addr {
            SocketAddr::V4(_) => 28,
            SocketAddr::V6(_) => 48,
        }
    }

    /// Whether datagrams of `len` bytes may go as segments of one send.
    #[inline]
    pub(crate) fn takes_segments_of(&self, len: usize) -> bool {
        len + self.overhead() <= self.limit.load(Ordering::Relaxed) as usize
    }

    /// The path's MTU in bytes, once a send was refused for its size.
    #[inline]
    pub(crate) fn mtu(&self) -> Option<usize> {
        let limit = self.limit.load(Ordering::Relaxed);
        (limit != u32::MAX && limit != 0).then_some(limit as usize)
    }

    /// A send with segments of `len` bytes was refused: the path is smaller.
    pub(crate) fn refuse_segments_of(&self, len: usize) {
        let limit = (len + self.overhead()).saturating_sub(1) as u32;
        self.limit.fetch_min(limit, Ordering::Relaxed);
    }

    /// The device on this path cuts no segments.
    pub(crate) fn refuse_segments(&self) {
        self.limit.store(0, Ordering::Relaxed);
    }
}

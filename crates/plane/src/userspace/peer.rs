//! What the workers know of a peer: the session to send with, where to, and what moved.
//!
//! Everything that a packet needs is read without a lock. Control writes it; the workers write back the counters, the
//! notes for the timers, and the endpoint when an authentic packet came from elsewhere.

use super::{learn::Learnt, shared::now};
use crate::Traffic;
use arc_swap::ArcSwapOption;
use inet::{Endpoint, Source};
use noise::{Activity, Instant, PeerId, Session};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
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
        // Before `waiting` is looked at; see `Worker::admit` for the other side.
        self.removed.store(true, Ordering::SeqCst);
        self.current.store(None);
    }

    #[inline]
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }

    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        let path = self.path.load();
        let path = path.as_ref()?;
        let mut endpoint = path.endpoint;
        if let Some(source) = &mut endpoint.source {
            source.ifindex = path.via.load(Ordering::Relaxed);
        }
        Some(endpoint)
    }

    /// Control's word of where the peer is: it counts, whatever a worker sees at this moment. `judge` is asked of its source, even if that is sent from
    /// already: a way out may have changed without anybody having been told.
    pub(crate) fn set_endpoint(&self, endpoint: Option<Endpoint>, judge: impl FnOnce(Endpoint) -> Learnt) {
        let Some(here) = endpoint else { return self.path.store(None) };
        let refuses = |path: &Arc<Path>| path.refuses(here);
        if self.path.load().as_ref().is_some_and(refuses) {
            return;
        }
        let learnt = if here.source.is_some() { judge(here) } else { Learnt::Stands };
        while self.learn(&self.path.load(), here, learnt).is_none() {}
    }

    /// The peer's newest packet came from `here`, and `judge` says what there is to say of its source, where that is another. Whether that has changed anything.
    #[inline]
    pub(crate) fn roam(&self, here: Endpoint, judge: impl FnOnce(Endpoint) -> Learnt) -> bool {
        let old = self.path.load();
        if old.as_ref().is_some_and(|path| path.is_at(here) || path.refuses(here)) {
            return false;
        }
        let learnt = match &*old {
            _ if here.source.is_none() => Learnt::Stands,
            // Who is translated may come from another port with each packet. The way there is the same.
            Some(path) if path.is_at_host(here) => Learnt::Stands,
            _ => judge(here),
        };
        // What somebody else has learnt meanwhile stands: the next packet tells.
        self.learn(&old, here, learnt).unwrap_or(false)
    }

    /// Writes down what was learnt, in place of `old`. Whether that has changed where the peer is sent to, or from where; `None` if `old` is not in place any more.
    #[cold]
    fn learn(&self, old: &Option<Arc<Path>>, here: Endpoint, learnt: Learnt) -> Option<bool> {
        let via = here.source.map_or(0, |source| source.ifindex);
        let nowhere = Endpoint { source: None, ..here };
        let new = match (old, learnt) {
            (Some(path), Learnt::Stands) if path.endpoint == without_interface(here) => {
                return Some(path.via.swap(via, Ordering::Relaxed) != via);
            }
            (_, Learnt::Stands) => Path::after(old.as_deref(), without_interface(here), via),
            // Where it was it is sent to from where it was.
            (Some(path), Learnt::NotNow) if path.endpoint.addr == here.addr => return Some(false),
            (_, Learnt::NotNow) => Path::after(old.as_deref(), nowhere, 0),
            (_, Learnt::Leaves(out)) => {
                let (endpoint, via) = match old {
                    // Another address, or the same by the right way, goes on being sent from.
                    Some(path) if path.endpoint.addr == here.addr && !path.sends_from(here, out) => {
                        (path.endpoint, path.via.load(Ordering::Relaxed))
                    }
                    _ => (nowhere, 0),
                };
                let mut new = Path::after(old.as_deref(), endpoint, via);
                here.source.into_iter().for_each(|source| new.refuse(Source { ip: source.ip, ifindex: out }));
                new
            }
        };
        let moved = old.as_ref().is_none_or(|path| path.endpoint != new.endpoint);
        let before = self.path.compare_and_swap(old, Some(Arc::new(new)));
        let at = |path: &Option<Arc<Path>>| path.as_ref().map(Arc::as_ptr);
        (at(&before) == at(old)).then_some(moved)
    }

    /// Lets the kernel choose our address again, until the peer's next packet. An endpoint that somebody sets at this moment stands.
    pub(crate) fn forget_source(&self) {
        self.drop_source(None);
    }

    /// Lets the kernel choose our address again: what is sent from this one leaves by the interface `out`. Until that is forgotten,
    /// the address is learnt from packets that come in there alone. Nothing happens if it is learnt anew, or another is, at this moment.
    pub(crate) fn refuse_source(&self, refused: Endpoint, out: u32) {
        self.drop_source(Some((refused, out)));
    }

    /// What was refused: each address, and the interface that it goes with.
    pub(crate) fn refused_sources(&self) -> Vec<Endpoint> {
        let path = self.path.load();
        let refused =
            path.iter().flat_map(|path| path.refused.iter().flatten().map(|source| (path.endpoint.addr, *source)));
        refused.map(|(addr, source)| Endpoint { addr, source: Some(source) }).collect()
    }

    fn drop_source(&self, refused: Option<(Endpoint, u32)>) {
        let old = self.path.load();
        let Some(path) = &*old else { return };
        let meant = refused.is_none_or(|(refused, _)| path.endpoint == without_interface(refused));
        if meant && (path.endpoint.source.is_some() || path.refused[0].is_some()) {
            let endpoint = Endpoint { source: None, ..path.endpoint };
            let mut new = Path::after(Some(path), endpoint, 0);
            match refused {
                Some((Endpoint { source: Some(Source { ip, .. }), .. }, out)) => {
                    new.refuse(Source { ip, ifindex: out })
                }
                _ => new.refused = [None; REFUSED],
            }
            self.path.compare_and_swap(&*old, Some(Arc::new(new)));
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

/// An endpoint whose source names no interface, unless the address means nothing without one: no other is sent by it, and a
/// peer that reaches us by two interfaces is not two places.
fn without_interface(mut endpoint: Endpoint) -> Endpoint {
    if let Some(source) = &mut endpoint.source
        && !matches!(source.ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
    {
        source.ifindex = 0;
    }
    endpoint
}

/// How long it is remembered what a path does not carry: as long as Linux remembers a path's MTU.
const LESSON_LASTS: Duration = Duration::from_secs(600);

/// Addresses of ours that are remembered as refused.
const REFUSED: usize = 4;

/// An endpoint, and what sending there has taught.
pub(crate) struct Path {
    pub(crate) endpoint: Endpoint,
    /// The interface that the peer's newest packet came in by.
    via: AtomicU32,
    /// Addresses of ours that packets came to by another interface than the one by which what is sent from there leaves, which is
    /// the one given. No two are the same, and the free places are the last.
    refused: [Option<Source>; REFUSED],
    lesson: Arc<Lesson>,
}

/// What sending to an address has taught; the same whichever address of ours we send from.
struct Lesson {
    /// The largest outer IP packet in bytes that may be one segment of a GSO send; 0 when the device does none.
    limit: AtomicU32,
    /// When that was learnt, in nanoseconds of boot time.
    learnt: AtomicU64,
}

impl Path {
    /// A path to `endpoint`, which remembers what `old` has taught if that led to the same address.
    fn after(old: Option<&Path>, endpoint: Endpoint, via: u32) -> Self {
        let (lesson, refused) = match old {
            Some(old) if old.endpoint.addr == endpoint.addr => (old.lesson.clone(), old.refused),
            _ => (Arc::new(Lesson { limit: AtomicU32::new(u32::MAX), learnt: AtomicU64::new(0) }), [None; REFUSED]),
        };
        Self { endpoint, via: AtomicU32::new(via), refused, lesson }
    }

    /// Whether the peer is sent to there from there already.
    #[inline]
    fn is_at(&self, here: Endpoint) -> bool {
        let via = here.source.map_or(0, |source| source.ifindex);
        self.endpoint == without_interface(here) && self.via.load(Ordering::Relaxed) == via
    }

    /// Whether it is sent to from there already, to that or another port of the host.
    fn is_at_host(&self, here: Endpoint) -> bool {
        self.endpoint.addr.ip() == here.addr.ip() && self.is_at(Endpoint { addr: self.endpoint.addr, ..here })
    }

    /// Whether it is sent to from the source of `here`, and not because packets have come in there by the interface `out`.
    fn sends_from(&self, here: Endpoint, out: u32) -> bool {
        let source = self.endpoint.source.map(|source| source.ip);
        source == here.source.map(|source| source.ip) && self.via.load(Ordering::Relaxed) != out
    }

    /// Whether the way to there does not start where these packets come in. Who has come by so many wrong ways that they cannot all be
    /// remembered is not followed to any more addresses: it would be looked at again and again.
    #[inline]
    fn refuses(&self, here: Endpoint) -> bool {
        let Some(source) = here.source else { return false };
        if self.refused[0].is_none() || self.endpoint.addr != here.addr {
            return false;
        }
        match self.refused.iter().flatten().find(|refused| refused.ip == source.ip) {
            Some(refused) => refused.ifindex != source.ifindex,
            None => self.refused[REFUSED - 1].is_some(),
        }
    }

    fn refuse(&mut self, source: Source) {
        let place = self.refused.iter_mut().find(|place| place.is_none_or(|refused| refused.ip == source.ip));
        if let Some(place) = place {
            *place = Some(source);
        }
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
        let limit = self.lesson.limit.load(Ordering::Relaxed);
        if limit == u32::MAX || len + self.overhead() <= limit as usize {
            return true;
        }
        let learnt = Instant::from_nanos(self.lesson.learnt.load(Ordering::Relaxed));
        let stale = now().saturating_since(learnt) > LESSON_LASTS;
        if stale {
            self.lesson.limit.store(u32::MAX, Ordering::Relaxed);
        }
        stale
    }

    /// The path's MTU in bytes, once a send was refused for its size.
    #[inline]
    pub(crate) fn mtu(&self) -> Option<usize> {
        let limit = self.lesson.limit.load(Ordering::Relaxed);
        (limit != u32::MAX && limit != 0).then_some(limit as usize)
    }

    /// Datagrams of `len` bytes were refused: the path is smaller.
    pub(crate) fn refuse_datagrams_of(&self, len: usize, now: Instant) {
        let limit = (len + self.overhead()).saturating_sub(1) as u32;
        self.lesson.learnt.store(now.as_nanos(), Ordering::Relaxed);
        self.lesson.limit.fetch_min(limit, Ordering::Relaxed);
    }

    /// The device on this path cuts no segments.
    pub(crate) fn refuse_segments(&self, now: Instant) {
        self.lesson.learnt.store(now.as_nanos(), Ordering::Relaxed);
        self.lesson.limit.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(source: Option<(&str, u32)>) -> Endpoint {
        let source = source.map(|(ip, ifindex)| Source { ip: ip.parse().unwrap(), ifindex });
        Endpoint { addr: "192.0.2.1:51820".parse().unwrap(), source }
    }

    fn stands(_: Endpoint) -> Learnt {
        Learnt::Stands
    }

    fn unasked(here: Endpoint) -> Learnt {
        panic!("{here:?} was known")
    }

    fn peer() -> Peer {
        Peer::new(PeerId::from_u32(1), Arc::default())
    }

    #[test]
    fn what_a_path_taught_outlasts_our_address_but_not_the_peers() {
        let peer = peer();
        peer.set_endpoint(Some(endpoint(Some(("192.0.2.9", 3)))), stands);
        let path = peer.path.load_full().unwrap();
        assert!(path.takes_segments_of(1452));
        path.refuse_datagrams_of(1452, now());
        assert!(!path.takes_segments_of(1452) && path.takes_segments_of(1451));
        peer.forget_source();
        let path = peer.path.load_full().unwrap();
        assert_eq!((path.endpoint.source, path.mtu()), (None, Some(1479)));
        peer.set_endpoint(Some(Endpoint::new("192.0.2.2:51820".parse().unwrap())), stands);
        assert!(peer.path.load_full().unwrap().takes_segments_of(1452));
    }

    #[test]
    fn what_a_path_taught_is_forgotten_in_time() {
        let peer = peer();
        peer.set_endpoint(Some(endpoint(None)), stands);
        let path = peer.path.load_full().unwrap();
        path.refuse_segments(Instant::from_nanos(1));
        let uptime = now().saturating_since(Instant::from_nanos(1));
        assert_eq!(path.takes_segments_of(100), uptime > LESSON_LASTS);
        path.refuse_segments(now());
        assert!(!path.takes_segments_of(100));
    }

    #[test]
    fn an_address_that_was_refused_is_not_learnt_until_it_is_forgotten() {
        let (peer, here) = (peer(), endpoint(Some(("192.0.2.9", 3))));
        assert!(peer.roam(here, stands) && !peer.roam(here, unasked), "news once");
        peer.refuse_source(endpoint(Some(("192.0.2.8", 3))), 4);
        assert_eq!(peer.endpoint(), Some(here), "another was meant");
        peer.refuse_source(here, 4);
        for _ in 0..2 {
            assert!(!peer.roam(here, unasked), "a packet that was on its way");
            peer.set_endpoint(Some(here), unasked);
            assert_eq!(peer.endpoint(), Some(endpoint(None)));
        }
        let elsewhere = endpoint(Some(("192.0.2.9", 4)));
        assert_eq!(peer.refused_sources(), [elsewhere]);
        assert!(peer.roam(elsewhere, stands), "the same address by the right way in");
        assert!(!peer.roam(here, unasked));
        assert_eq!(peer.endpoint(), Some(elsewhere), "which stands");
        peer.forget_source();
        assert!(peer.refused_sources().is_empty());
        assert!(peer.roam(here, stands));
        assert_eq!(peer.endpoint(), Some(here));
    }

    #[test]
    fn who_comes_to_an_address_that_the_way_out_does_not_start_at_is_answered_from_where_it_was() {
        let (peer, out) = (peer(), 4);
        let (wrong, other) = (endpoint(Some(("192.0.2.9", 3))), endpoint(Some(("192.0.2.8", 4))));
        assert!(peer.roam(wrong, |_| Learnt::Leaves(out)), "it is known where the peer is");
        assert_eq!(peer.endpoint(), Some(endpoint(None)), "and not from where to answer");
        assert!(peer.roam(other, stands) && !peer.roam(wrong, unasked));
        assert_eq!(peer.endpoint(), Some(other));
        let gone = endpoint(Some(("192.0.2.7", 3)));
        assert!(!peer.roam(gone, |_| Learnt::Leaves(0)) && !peer.roam(gone, unasked));
        assert_eq!(peer.endpoint(), Some(other), "an address that went does not take the one that we have");
        // Another place: what was refused on the way to the former one is no more.
        let there = Endpoint { addr: "192.0.2.2:51820".parse().unwrap(), ..wrong };
        assert!(peer.roam(there, |_| Learnt::Leaves(out)));
        assert_eq!(peer.endpoint(), Some(Endpoint { source: None, ..there }));
        assert_eq!(peer.refused_sources().len(), 1);
    }

    #[test]
    fn who_comes_from_another_port_alone_is_not_looked_at() {
        let (peer, here) = (peer(), endpoint(Some(("192.0.2.9", 3))));
        assert!(peer.roam(here, stands));
        let translated = Endpoint { addr: "192.0.2.1:7".parse().unwrap(), ..here };
        assert!(peer.roam(translated, unasked));
        assert_eq!(peer.endpoint(), Some(translated));
        let elsewhere = Endpoint { addr: "192.0.2.2:7".parse().unwrap(), ..here };
        assert!(peer.roam(elsewhere, |_| Learnt::Leaves(4)));
    }

    #[test]
    fn what_control_says_is_looked_at_even_if_it_is_nothing_new() {
        let (peer, here) = (peer(), endpoint(Some(("192.0.2.9", 3))));
        peer.set_endpoint(Some(here), stands);
        assert!(!peer.roam(here, unasked));
        peer.set_endpoint(Some(here), |_| Learnt::Leaves(4));
        assert_eq!((peer.endpoint(), peer.refused_sources().len()), (Some(endpoint(None)), 1));
        // The same address by two ways in, of which one is the way out.
        let right = endpoint(Some(("192.0.2.9", 4)));
        peer.set_endpoint(Some(right), stands);
        let other = endpoint(Some(("192.0.2.8", 4)));
        peer.set_endpoint(Some(other), |_| Learnt::Leaves(5));
        assert_eq!(peer.endpoint(), Some(right), "another's fault is not its own");
        peer.set_endpoint(None, unasked);
        assert_eq!(peer.endpoint(), None);
    }

    #[test]
    fn while_that_cannot_be_said_only_places_are_learnt() {
        let (peer, here) = (peer(), endpoint(Some(("192.0.2.9", 3))));
        let not_now = |_| Learnt::NotNow;
        assert!(peer.roam(here, not_now) && !peer.roam(here, not_now));
        assert_eq!(peer.endpoint(), Some(endpoint(None)));
        assert!(peer.roam(here, stands), "what is not refused is asked about again");
        let there = Endpoint { addr: "192.0.2.2:51820".parse().unwrap(), ..here };
        assert!(peer.roam(there, not_now));
        assert_eq!(peer.endpoint(), Some(Endpoint { source: None, ..there }));
    }

    #[test]
    fn however_many_wrong_ways_packets_come_in_by_they_are_looked_at_a_few_times() {
        let (peer, out) = (peer(), 3);
        peer.set_endpoint(Some(endpoint(None)), unasked);
        let mut looks = 0;
        for _ in 0..10 {
            for (last, ifindex) in (1..=9).flat_map(|last| [(last, 4), (last, 5)]) {
                let changed = peer.roam(endpoint(Some((&format!("192.0.2.{last}"), ifindex))), |_| {
                    looks += 1;
                    Learnt::Leaves(out)
                });
                assert!(!changed);
                assert_eq!(peer.endpoint(), Some(endpoint(None)));
            }
        }
        assert_eq!(looks, REFUSED, "one for each address that is remembered");
        assert!(peer.roam(endpoint(Some(("192.0.2.1", out))), stands), "the right way");
        // The way out changes: what is remembered of the address does too.
        peer.refuse_source(endpoint(Some(("192.0.2.1", out))), 5);
        assert_eq!(peer.refused_sources().len(), REFUSED);
        assert!(peer.roam(endpoint(Some(("192.0.2.1", 5))), stands));
        // Another place, another way there.
        let there = Endpoint { addr: "192.0.2.2:51820".parse().unwrap(), ..endpoint(Some(("192.0.2.9", 4))) };
        assert!(peer.roam(there, stands) && peer.refused_sources().is_empty());
    }

    #[test]
    fn the_interface_counts_for_link_local_addresses_only() {
        let peer = peer();
        peer.roam(endpoint(Some(("192.0.2.9", 3))), stands);
        let path = peer.path.load_full().unwrap();
        peer.roam(endpoint(Some(("192.0.2.9", 4))), stands);
        assert!(Arc::ptr_eq(&path, &peer.path.load_full().unwrap()), "the same place");
        assert_eq!(peer.endpoint(), Some(endpoint(Some(("192.0.2.9", 4)))), "though the way there is known");
        peer.roam(endpoint(Some(("fe80::1", 4))), stands);
        assert_eq!(peer.endpoint(), Some(endpoint(Some(("fe80::1", 4)))));
    }
}

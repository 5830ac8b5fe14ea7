//! Commits inbound jobs: what is authentic becomes packets for the TUN.
//!
//! In order, and by one thread at a time for each ring: the counters are marked in the session's replay window, the peer's
//! endpoint follows the newest packet, the timers are noted, the inner source is held against the allowed IPs and the
//! outer ECN mark is carried in. Only then are packets of one flow joined into a super-packet: a duplicate could not be
//! cut out of it again. A super-packet is written from where its parts lie, without copying them together.

use super::{
    drops::Reason,
    events::{ACTIVITY, REKEY_DUE},
    inbound::{Inbound, Opened, Part},
    peer::Peer,
    pool::Pool,
    shared::{Shared, now},
};
use crate::policy::Subject;
use crate::ring::Committer;
use arrayvec::ArrayVec;
use inet::{
    Endpoint,
    allowed::Snapshot,
    ecn::{self, Decapsulated},
    ip::{self, IpPacket},
    join::Joiner,
    policy::{Direction, Flow},
    vnet,
};
use linux::{tun::Queue, udp::Received};
use noise::Instant;
use noise::message::{TRANSPORT_HEADER_LEN, TRANSPORT_MIN_LEN};
use std::{io::IoSlice, net::IpAddr, sync::Arc};

/// Packets that one commit may join.
const PACKETS_MAX: usize = 512;
/// The longest headers of a super-packet: IPv6 and TCP with options.
const HEAD_MAX: usize = 40 + 60;

/// The kernel's word for a virtio header that it does not understand.
const EINVAL: i32 = 22;

/// Where a packet of the commit lies.
#[derive(Clone, Copy)]
struct Place {
    job: usize,
    at: usize,
    len: usize,
}

/// The committer of a worker's inbound ring.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    worker: usize,
    queue: Arc<Queue>,
    /// Whether the TUN speaks virtio headers.
    header: bool,
    /// Joins packets, if the TUN takes super-packets.
    joiner: Option<Joiner>,
    /// Whether UDP is joined too.
    udp: bool,
    pool: Pool<Inbound>,
    jobs: Vec<Box<Inbound>>,
    packets: Vec<Place>,
}

/// What a [`Writer`] is made of.
pub(crate) struct WriterParts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) worker: usize,
    pub(crate) queue: Arc<Queue>,
    pub(crate) offloads: linux::tun::Offloads,
    pub(crate) pool: Pool<Inbound>,
    pub(crate) ring: usize,
}

impl Writer {
    pub(crate) fn new(parts: WriterParts) -> Self {
        let offloads = parts.offloads;
        Self {
            shared: parts.shared,
            worker: parts.worker,
            queue: parts.queue,
            header: offloads.vnet,
            joiner: (offloads.vnet && offloads.tso).then(|| Joiner::new(PACKETS_MAX, offloads.uso)),
            udp: offloads.uso,
            pool: parts.pool,
            jobs: Vec::with_capacity(parts.ring),
            packets: Vec::with_capacity(PACKETS_MAX),
        }
    }

    /// Writes all packets taken so far, and gives the jobs back.
    fn write(&mut self) {
        let mut refused = false;
        match &mut self.joiner {
            Some(joiner) => {
                for group in joiner.groups() {
                    let mut members = group.packets();
                    let first = members.next().map(|first| self.packets[first]);
                    // A group has a first packet: offering one is what makes a group.
                    let Some(first) = first else { continue };
                    let first = self.jobs[first.job].bytes(first.at, first.len);
                    let (mut header, mut head) = ([0; vnet::LEN], [0; HEAD_MAX]);
                    let mut pieces = ArrayVec::<IoSlice<'_>, { PACKETS_MAX + 2 }>::new();
                    let head_len = group.head_len();
                    if group.len() > 1 {
                        group.write_head(first, &mut head[..head_len]).write(&mut header);
                    }
                    if group.len() == 1 {
                        pieces.push(IoSlice::new(&header));
                        pieces.push(IoSlice::new(first));
                    } else {
                        pieces.push(IoSlice::new(&header));
                        pieces.push(IoSlice::new(&head[..head_len]));
                        pieces.push(IoSlice::new(&first[head_len..]));
                        pieces.extend(members.map(|member| {
                            let place = self.packets[member];
                            IoSlice::new(&self.jobs[place.job].bytes(place.at, place.len)[head_len..])
                        }));
                    }
                    match self.queue.write_vectored(&pieces) {
                        Ok(()) => (),
                        Err(_) if group.len() == 1 => self.shared.drops.count(Reason::TunWrite, 1),
                        Err(error) => {
                            refused |= error.raw_os_error() == Some(EINVAL);
                            for place in group.packets().map(|member| self.packets[member]) {
                                let packet = self.jobs[place.job].bytes(place.at, place.len);
                                write_plain(&self.shared, &self.queue, true, packet);
                            }
                        }
                    }
                }
                joiner.clear();
            }
            None => {
                for place in &self.packets {
                    let packet = self.jobs[place.job].bytes(place.at, place.len);
                    write_plain(&self.shared, &self.queue, self.header, packet);
                }
            }
        }
        self.packets.clear();
        if refused {
            // The kernel does not take what it was thought to: first UDP is given up, then all.
            log::debug!("the interface refuses super-packets");
            self.joiner = self.udp.then(|| Joiner::new(PACKETS_MAX, false));
            self.udp = false;
        }
    }

    /// Takes a packet into the commit.
    fn offer(&mut self, place: Place) {
        if self.packets.len() == PACKETS_MAX {
            self.write();
        }
        if let Some(joiner) = &mut self.joiner {
            let packet = self.jobs[place.job].bytes(place.at, place.len);
            if !joiner.offer(packet) {
                self.shared.drops.count(Reason::TunWrite, 1);
                return;
            }
        }
        self.packets.push(place);
    }
}

impl Committer<Box<Inbound>> for Writer {
    fn take(&mut self, mut job: Box<Inbound>) {
        if self.jobs.len() == self.jobs.capacity() {
            self.flush();
        }
        let number = self.jobs.len();
        let mut accepted = ArrayVec::<Place, { super::inbound::DATAGRAMS_MAX }>::new();
        let (received, parts, mut opened, bytes) = job.parts();
        let shared = &*self.shared;
        let bytes_of = |opened: &Opened| opened.len + TRANSPORT_MIN_LEN;
        shared.loads[self.worker].received.batch(opened.len(), opened.iter().map(bytes_of).sum());
        let routes = shared.routes();
        for part in parts {
            let (these, rest) = opened.split_at(part.count);
            opened = rest;
            let mut arrivals = Arrivals { shared, part, received, routes: &routes, allowed: None };
            arrivals.accept(these, bytes, |at, len| accepted.push(Place { job: number, at, len }));
        }
        drop(routes);
        self.jobs.push(job);
        for place in accepted {
            self.offer(place);
        }
    }

    fn flush(&mut self) {
        self.write();
        let mut awaited = false;
        for mut job in self.jobs.drain(..) {
            job.clear();
            awaited |= self.pool.put(job);
        }
        if awaited {
            self.shared.links[self.worker].wake.signal();
        }
    }
}

/// Writes one packet as it is.
fn write_plain(shared: &Shared, queue: &Queue, header: bool, packet: &[u8]) {
    let pieces = [IoSlice::new(&[0; vnet::LEN]), IoSlice::new(packet)];
    if queue.write_vectored(if header { &pieces } else { &pieces[1..] }).is_err() {
        shared.drops.count(Reason::TunWrite, 1);
    }
}

/// Authentic datagrams of one session, in the order in which they came.
struct Arrivals<'a> {
    shared: &'a Shared,
    part: &'a Part,
    /// What the job's receives said.
    received: &'a [Received],
    routes: &'a Snapshot<Arc<Peer>>,
    /// The inner source that was last looked up, and whether it is the peer's.
    allowed: Option<(IpAddr, bool)>,
}

impl Arrivals<'_> {
    /// Marks the counters, notes what follows for the peer, and passes on where the inner packets lie. They may have come by several
    /// receives, from several places and late ones last.
    fn accept(&mut self, opened: &[Opened], bytes: &mut [u8], mut pass: impl FnMut(usize, usize)) {
        let (shared, session, peer) = (self.shared, &self.part.installed.session, &self.part.installed.peer);
        if session.is_revoked() || peer.is_removed() {
            return shared.drops.count(Reason::SessionEnded, opened.len());
        }
        let mut new = ArrayVec::<Opened, { super::inbound::DATAGRAMS_MAX }>::new();
        let newest = {
            let mut window = session.replay();
            new.extend(opened.iter().filter(|opened| window.commit(opened.counter)).copied());
            new.iter().max_by_key(|opened| opened.counter).filter(|opened| window.is_newest(opened.counter))
        };
        let newest = newest.map(|opened| opened.receive);
        shared.drops.count(Reason::Replayed, opened.len() - new.len());
        if new.is_empty() {
            return;
        }
        if session.confirm() {
            // At once, as in the kernel: what answers this packet leaves under the session that its sender surely has, which the
            // former one may not be (it may have been restarted). Control hears of it and has the last word.
            if !session.is_revoked() {
                peer.current.store(Some(session.clone()));
                shared.session_confirmed(peer.id, session);
            }
            shared.events.confirmed(session.clone());
        }
        if let Some(receive) = newest {
            self.roam(shared, peer, &self.received[receive]);
        }
        let (now, data) = (now(), new.iter().any(|opened| opened.len > 0));
        if if data { peer.activity.data_received(now) } else { peer.activity.keepalive_received(now) } {
            shared.events.raise(peer, ACTIVITY);
        }
        if session.rekey_due_on_receive(now) {
            shared.events.raise(peer, REKEY_DUE);
        }
        // As the kernel counts: keepalives, and packets that the peer may send.
        let mut wire = 0;
        for opened in new {
            if opened.len > 0 {
                let plaintext = &mut bytes[opened.at..opened.at + opened.len];
                let Some(len) = self.admit(peer, plaintext, self.received[opened.receive].ecn) else { continue };
                // It came, and is counted, whatever the rules say.
                if !shared.policy.in_force() || self.may_enter(peer, &plaintext[..len], now) {
                    pass(opened.at, len);
                } else {
                    shared.drops.count(Reason::Policy, 1);
                }
            }
            wire += opened.len + TRANSPORT_MIN_LEN;
        }
        peer.count_rx(wire as u64);
    }

    /// Whether the rules let the packet in.
    #[cold]
    fn may_enter(&self, peer: &Peer, packet: &[u8], now: Instant) -> bool {
        // It has been parsed before, so it is one.
        let Ok(packet) = IpPacket::parse(packet) else { return false };
        let (flow, bytes) = (Flow::of(&packet), packet.total_len() as u32);
        let subject = Subject { peer: peer.id, direction: Direction::In, flow, packets: 1, bytes };
        self.shared.policy.permits(now, &subject)
    }

    /// The peer is where its newest packet came from, and reaches us where that packet did.
    fn roam(&self, shared: &Shared, peer: &Arc<Peer>, received: &Received) {
        let source = received.source;
        if shared.roam(peer, Endpoint { addr: received.from, source }) {
            shared.tell_moved(peer.id);
        }
    }

    /// Checks the packet in a plaintext that came with these ECN bits; its length without padding, if it may go on.
    fn admit(&mut self, peer: &Arc<Peer>, plaintext: &mut [u8], outer_ecn: u8) -> Option<usize> {
        let Ok(packet) = IpPacket::parse(plaintext) else {
            self.shared.drops.count(Reason::ContentMalformed, 1);
            return None;
        };
        let (source, len, inner_ecn) = (packet.src(), packet.total_len(), packet.ecn());
        let allowed = match self.allowed {
            Some((known, allowed)) if known == source => allowed,
            _ => {
                let allowed = self.routes.lookup(source).is_some_and(|owner| Arc::ptr_eq(owner, peer));
                self.allowed = Some((source, allowed));
                allowed
            }
        };
        if !allowed {
            self.shared.drops.count(Reason::SourceNotAllowed, 1);
            return None;
        }
        if let Decapsulated::Set(bits) = ecn::decapsulate(inner_ecn, outer_ecn) {
            ip::set_ecn(plaintext, bits);
        }
        Some(len)
    }
}

const _: () = assert!(TRANSPORT_MIN_LEN == TRANSPORT_HEADER_LEN + aead::TAG_LEN);

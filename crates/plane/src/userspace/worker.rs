//! A worker: one thread, one TUN queue, the UDP sockets of each family, and two job rings.
//!
//! It runs to completion: a batch is read, worked on and committed before the next one is read, so that it stays in this
//! core's cache and waits nowhere. It sleeps in epoll when all that it reads from is empty; there is no tick.
//!
//! ```text
//! TUN queue ─ read ─ admit ─► outbound ring ─ seal ─ commit ─► UDP sockets      (outbound, sender)
//! UDP sockets ─ receive ────► inbound ring ── open ─ commit ─► TUN queue        (inbound, writer)
//! ```

use super::{
    drops::Reason,
    events::SESSION_WANTED,
    icmp::Errors,
    inbound::Inbound,
    outbound::{Outbound, PACKET_MAX, PACKETS_MAX, SEGMENTS_IN_PACKET},
    peer::Peer,
    pool::Pool,
    sender::Sender,
    shared::{Command, Shared, Sockets, now},
    waiting::Waiting,
    writer::{Writer, WriterParts},
};
use crate::ring::Producer;
use arrayvec::ArrayVec;
use inet::{allowed::Snapshot, cut::Cut, icmp, ip, ip::IpPacket, vnet, vnet::VnetHeader};
use linux::{
    memory::hide_stack,
    poll::{Epoll, Event, Interest},
    tun::{Offloads, Queue},
    udp::{Received, Socket},
};
use noise::{Instant, Session, message::parse_transport_header};
use std::{io, net::SocketAddr, os::fd::AsFd, sync::Arc, time::Duration};

/// Jobs in each ring, and in each pool.
const RING: usize = 16;
/// Messages taken by one receive.
const RECEIVE: usize = 4;
/// Outbound jobs before the other direction has its turn: as many as one receive gives.
const TURN: usize = RECEIVE;

const TUN: u64 = 0;
const WAKE: u64 = 1;
/// The socket of IPv4; that of IPv6 comes next.
const UDP: u64 = 2;

/// How a worker is made.
pub(crate) struct WorkerParts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) number: usize,
    pub(crate) queue: Queue,
    pub(crate) offloads: Offloads,
    pub(crate) gso: bool,
    /// How long it looks for more before it sleeps.
    pub(crate) busy_poll: Duration,
}

/// One worker's state.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    number: usize,
    epoll: Epoll,
    queue: Arc<Queue>,
    /// Whether the TUN speaks virtio headers.
    header: bool,
    sockets: Option<Arc<Sockets>>,
    outbound: Producer<Box<Outbound>, Sender>,
    outbound_pool: Pool<Outbound>,
    inbound: Producer<Box<Inbound>, Writer>,
    inbound_pool: Pool<Inbound>,
    waiting: Waiting,
    errors: Errors,
    /// What may have something to read.
    ready: Ready,
    busy_poll: Duration,
    running: bool,
}

#[derive(Default)]
struct Ready {
    tun: bool,
    /// The sockets of IPv4 and of IPv6.
    udp: [bool; 2],
}

impl Ready {
    fn any(&self) -> bool {
        self.tun || self.udp != [false; 2]
    }
}

/// What becomes of a packet from the TUN.
enum Admission {
    /// It is sealed for this peer, in so many segments.
    Seal(Arc<Peer>, usize),
    Wait(Arc<Peer>),
    Refuse(Reason, Option<icmp::Reason>),
}

/// Into how many segments a packet (virtio header first) is cut; one if that cannot be told.
pub(super) fn segments(packet: &[u8]) -> usize {
    let split = packet.split_at_checked(vnet::LEN);
    let cut = split.and_then(|(header, packet)| Cut::new(&VnetHeader::parse(header).ok()?, packet).ok());
    cut.map_or(1, |cut| cut.segments())
}

/// Whether a packet is a data message of this very session, on its way to the peer's endpoint: with each turn it would grow, and fall
/// into fragments that do the same. A later fragment is let through, since its own message will be none. The index alone does not
/// tell: some implementations count them up from one, and a tunnel in this tunnel may have the same.
pub(super) fn is_looped(packet: &[u8], session: &Session, endpoint: SocketAddr) -> bool {
    let Ok(packet) = IpPacket::parse(packet) else { return false };
    let Some(udp) = packet.transport().filter(|it| it.protocol == ip::UDP && !it.later_fragment) else { return false };
    let Some((header, message)) = packet.bytes()[udp.offset..].split_at_checked(8) else { return false };
    let port = u16::from_be_bytes([header[2], header[3]]);
    parse_transport_header(message).is_some_and(|header| header.receiver == session.remote_index())
        && (packet.dst(), port) == (endpoint.ip(), endpoint.port())
}

impl Worker {
    /// Takes all the memory that the worker will use.
    pub(crate) fn new(parts: WorkerParts) -> io::Result<Self> {
        let WorkerParts { shared, number, queue, offloads, gso, busy_poll } = parts;
        let queue = Arc::new(queue);
        let epoll = Epoll::new()?;
        epoll.add(queue.as_fd(), TUN, Interest::READ)?;
        epoll.add(shared.links[number].wake.as_fd(), WAKE, Interest::READ)?;
        let outbound_pool = Pool::new(RING, Outbound::new)?;
        let inbound_pool = Pool::new(RING, Inbound::new)?;
        let sender = Sender::new(shared.clone(), number, gso, outbound_pool.clone(), RING);
        let writer = Writer::new(WriterParts {
            shared: shared.clone(),
            queue: queue.clone(),
            offloads,
            pool: inbound_pool.clone(),
            ring: RING,
        });
        Ok(Self {
            number,
            epoll,
            queue,
            header: offloads.vnet,
            sockets: None,
            outbound: Producer::new(RING, sender),
            outbound_pool,
            inbound: Producer::new(RING, writer),
            inbound_pool,
            waiting: Waiting::default(),
            errors: Errors::new(now()),
            ready: Ready::default(),
            busy_poll,
            running: true,
            shared,
        })
    }

    /// Runs until told to quit, or until the TUN has gone.
    pub(crate) fn run(mut self) {
        hide_stack();
        self.work();
        self.shared.links[self.number].end();
    }

    fn work(&mut self) {
        let mut events = [Event::EMPTY; 8];
        let mut polls_until = None;
        while self.running {
            // While there is work, a look at what else has come, so that neither direction nor a command waits for the other.
            // For a while after it, if that was asked for, too; but then whoever else wants this core comes first.
            let busy = self.ready.any();
            let polling = !busy && polls_until.is_some_and(|until| now() < until);
            if polling {
                std::thread::yield_now();
            }
            match self.turn(&mut events, (busy || polling).then_some(Duration::ZERO)) {
                Ok(0) => (),
                Ok(_) => polls_until = (!self.busy_poll.is_zero()).then(|| now() + self.busy_poll),
                Err(error) => return self.shared.events.tun_gone(error),
            }
        }
    }

    /// Waits for something to happen, and sees to what is ready for one turn each. Returns how much happened.
    fn turn(&mut self, events: &mut [Event], timeout: Option<Duration>) -> io::Result<usize> {
        let events = self.epoll.wait(events, timeout)?;
        for event in events {
            match event.token() {
                TUN => self.ready.tun = true,
                WAKE => self.obey(),
                udp => self.ready.udp[usize::from(udp > UDP)] = true,
            }
        }
        if self.running && self.ready.udp != [false; 2] {
            self.receive();
        }
        if self.running && self.ready.tun {
            self.ready.tun = self.read();
        }
        Ok(events.len())
    }

    /// Carries out what the worker was told.
    fn obey(&mut self) {
        for command in self.shared.links[self.number].commands() {
            match command {
                Command::Flush(peer) => self.flush_waiting(&peer),
                Command::Drop(peer) => self.shared.drops.count(Reason::Unsent, self.waiting.clear(peer)),
                Command::Keepalive(peer) => self.keepalive(&peer),
                Command::Sockets(done) => {
                    self.take_sockets();
                    // Whoever asked may have stopped waiting.
                    let _ = done.send(());
                }
                Command::Quit => self.running = false,
            }
        }
        self.take_strays();
    }

    /// Takes in what control received for us.
    fn take_strays(&mut self) {
        while let Some(mut job) = self.inbound_pool.take() {
            let Some(received) = self.shared.links[self.number].next_stray(job.buffer()) else {
                return self.inbound_pool.put(job);
            };
            job.received = received;
            self.push_inbound(job);
            self.work_inbound();
        }
    }

    /// Turns until nothing is ready, for the fuzz targets. Panics when that does not come, or when a job is lost on the way.
    #[cfg(fuzzing)]
    pub(crate) fn rest(&mut self) {
        let mut events = [Event::EMPTY; 8];
        for _ in 0..10_000 {
            let happened = self.turn(&mut events, Some(Duration::ZERO)).expect("an epoll instance can be waited for");
            if happened == 0 && !self.ready.any() {
                assert!(self.outbound.ring().is_empty() && self.inbound.ring().is_empty(), "a job stayed in its ring");
                assert_eq!((self.outbound_pool.len(), self.inbound_pool.len()), (RING, RING), "a job is lost");
                return;
            }
        }
        panic!("the worker does not come to rest");
    }

    pub(crate) fn take_sockets(&mut self) {
        for socket in self.sockets.iter().flat_map(|sockets| sockets.iter()) {
            // A socket that was never added (the add failed) is no loss.
            let _ = self.epoll.remove(socket);
        }
        self.sockets = self.shared.links[self.number].sockets.load_full();
        for socket in self.sockets.iter().flat_map(|sockets| sockets.iter()) {
            if let Err(error) = self.epoll.add(socket, UDP + u64::from(socket.is_v6()), Interest::READ) {
                log::error!("worker {}: cannot wait for a socket: {error}", self.number);
            }
        }
    }

    /// Reads from the TUN for one turn. Returns whether there may be more.
    fn read(&mut self) -> bool {
        for _ in 0..TURN {
            let Some(mut job) = self.outbound_pool.take() else {
                return true;
            };
            let more = self.fill(&mut job);
            self.dispatch(job);
            if !more {
                return false;
            }
        }
        true
    }

    /// Fills a job from the TUN. Returns whether there may be more to read.
    fn fill(&mut self, job: &mut Outbound) -> bool {
        let shared = self.shared.clone();
        let (routes, now) = (shared.routes(), now());
        // A bound on reads, not only on what is admitted: packets that are refused or wait take no room.
        for _ in 0..PACKETS_MAX {
            let Some(room) = job.room() else { break };
            let offset = if self.header { 0 } else { vnet::LEN };
            room[..offset].fill(0);
            match self.queue.read(&mut room[offset..PACKET_MAX]) {
                Ok(len) => {
                    self.admit(job, offset + len, &routes, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => {
                    if !self.queue.is_attached() {
                        self.running = false;
                        self.shared.events.tun_gone(error);
                    }
                    return false;
                }
            }
        }
        true
    }

    /// Decides what becomes of the packet of `len` bytes (virtio header and all) that was just read into the job's room.
    fn admit(&mut self, job: &mut Outbound, len: usize, routes: &Snapshot<Arc<Peer>>, now: Instant) {
        match self.admission(job.candidate(len), routes, now) {
            Admission::Seal(peer, segments) => job.admit(len, &peer, segments),
            Admission::Wait(peer) => {
                let mut dropped = self.waiting.push(&peer, job.candidate(len));
                if peer.is_removed() {
                    // Removed since the routes were looked at: nobody will ask for these packets again.
                    dropped += self.waiting.clear(peer.id);
                }
                self.shared.drops.count(Reason::Unsent, dropped);
                self.shared.events.raise(&peer, SESSION_WANTED);
            }
            Admission::Refuse(reason, error) => {
                self.shared.drops.count(reason, 1);
                if let Some(error) = error {
                    let packet = &job.candidate(len)[vnet::LEN..];
                    self.errors.send(&self.shared, error, packet);
                }
            }
        }
    }

    fn admission(&self, packet: &[u8], routes: &Snapshot<Arc<Peer>>, now: Instant) -> Admission {
        let Some((header, packet)) = packet.split_at_checked(vnet::LEN) else {
            return Admission::Refuse(Reason::InnerMalformed, None);
        };
        let cut = VnetHeader::parse(header).ok().and_then(|header| Cut::new(&header, packet).ok());
        let Some(cut) = cut else {
            return Admission::Refuse(Reason::InnerMalformed, None);
        };
        if cut.segments() > SEGMENTS_IN_PACKET {
            return Admission::Refuse(Reason::TooManySegments, None);
        }
        let Some(peer) = routes.lookup(cut.destination()) else {
            return Admission::Refuse(Reason::NoRoute, Some(icmp::Reason::NoRoute));
        };
        let path = peer.path.load();
        let Some(path) = path.as_ref() else {
            return Admission::Refuse(Reason::NoEndpoint, Some(icmp::Reason::NoEndpoint));
        };
        let current = peer.current.load();
        if current.as_ref().is_some_and(|session| is_looped(packet, session, path.endpoint.addr)) {
            return Admission::Refuse(Reason::Looped, None);
        }
        let has_session = current.as_ref().is_some_and(|session| session.may_send(now));
        // While others wait, waiting keeps the order.
        if has_session && !self.waiting.holds(peer) {
            Admission::Seal(peer.clone(), cut.segments())
        } else {
            Admission::Wait(peer.clone())
        }
    }

    /// Seals and sends a job, in order behind those before it.
    fn dispatch(&mut self, job: Box<Outbound>) {
        if job.is_empty() {
            return self.outbound_pool.put(job);
        }
        let mut job = job;
        while let Err(back) = self.outbound.push(job) {
            job = back;
            self.work_outbound();
        }
        self.work_outbound();
    }

    fn work_outbound(&mut self) {
        let ring = self.outbound.ring().clone();
        ring.work(|job| {
            job.seal(&self.shared);
            for (packet, mtu) in job.too_big() {
                let reason = icmp::Reason::TooBig(mtu as u32);
                self.errors.send(&self.shared, reason, packet);
            }
        });
        ring.commit();
    }

    /// Sends what waits for the peer, if there is a session by now.
    fn flush_waiting(&mut self, peer: &Arc<Peer>) {
        while self.waiting.holds(peer) {
            // Without an endpoint the same would be asked again and again.
            if peer.is_removed() || peer.path.load().is_none() {
                return self.shared.drops.count(Reason::Unsent, self.waiting.clear(peer.id));
            }
            if !peer.current.load().as_ref().is_some_and(|session| session.may_send(now())) {
                return self.shared.events.raise(peer, SESSION_WANTED);
            }
            let Some(mut job) = self.outbound_pool.take() else { return };
            while let Some(room) = job.room() {
                let Some(packet) = self.waiting.pop(peer.id) else { break };
                room[..packet.len()].copy_from_slice(&packet);
                job.admit(packet.len(), peer, segments(&packet));
            }
            self.dispatch(job);
        }
    }

    fn keepalive(&mut self, peer: &Arc<Peer>) {
        let Some(mut job) = self.outbound_pool.take() else { return };
        job.admit_keepalive(peer);
        self.dispatch(job);
    }

    /// Receives for one turn, from the sockets that may have something.
    fn receive(&mut self) {
        let ready = std::mem::take(&mut self.ready.udp);
        let Some(sockets) = self.sockets.clone() else { return };
        for socket in sockets.iter().filter(|socket| ready[usize::from(socket.is_v6())]) {
            self.ready.udp[usize::from(socket.is_v6())] = self.receive_from(socket);
        }
    }

    fn receive_from(&mut self, socket: &Socket) -> bool {
        {
            let mut jobs = ArrayVec::<Box<Inbound>, RECEIVE>::new();
            jobs.extend(std::iter::from_fn(|| self.inbound_pool.take()).take(RECEIVE));
            let mut received = [Received::default(); RECEIVE];
            let count = {
                let mut buffers: ArrayVec<&mut [u8], RECEIVE> = jobs.iter_mut().map(|job| job.buffer()).collect();
                // An error stands for one datagram that did not come (a report from the network): there may be more.
                socket.recv(&mut buffers, &mut received)
            };
            let count = match count {
                Ok(count) => count,
                Err(error) => {
                    jobs.into_iter().for_each(|job| self.inbound_pool.put(job));
                    return error.kind() != io::ErrorKind::WouldBlock && error.kind() != io::ErrorKind::InvalidInput;
                }
            };
            let full = count == jobs.len();
            for (number, mut job) in jobs.into_iter().enumerate() {
                if number >= count {
                    self.inbound_pool.put(job);
                    continue;
                }
                job.received = received[number];
                self.push_inbound(job);
            }
            self.work_inbound();
            full
        }
    }

    fn push_inbound(&mut self, mut job: Box<Inbound>) {
        while let Err(back) = self.inbound.push(job) {
            job = back;
            self.inbound.ring().work(|job| job.open(&self.shared));
            self.inbound.ring().commit();
        }
    }

    /// Opens all jobs in the ring and gives what they hold to the TUN.
    fn work_inbound(&mut self) {
        while self.inbound.ring().work(|job| job.open(&self.shared)) {}
        self.inbound.ring().commit();
    }
}

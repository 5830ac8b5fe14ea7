//! A worker: one thread, one TUN queue, the UDP sockets of each family, and two job rings.
//!
//! It runs to completion: a batch is read, worked on and committed before the next one is read, so that it stays in this
//! core's cache and waits nowhere. It sleeps in epoll when all that it reads from is empty; there is no tick.
//!
//! When more comes than it can work off at once and another worker sleeps, it calls that one and reads ahead, so that there is
//! something to claim; while a helper is here, that one commits, and the owner reads and does what it does not get to (see
//! `crew`). A helper goes on looking at its own sockets after each job, and does nothing else while they have something for it.
//! When all jobs are in the ring, held up by a helper that is kept from running, the owner stops reading and is woken by
//! whoever gives one back.
//!
//! ```text
//! TUN queue ─ read ─ admit ─► outbound ring ─ seal ─ commit ─► UDP sockets      (outbound, sender)
//! UDP sockets ─ receive ────► inbound ring ── open ─ commit ─► TUN queue        (inbound, writer)
//! ```

use super::{
    crew::{Crew, Mate, Pace, Stint},
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
use crate::policy::Subject;
use crate::ring::{Committer, Producer, Ring};
use arrayvec::ArrayVec;
use inet::policy::{Direction, Flow};
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
/// Messages taken by one receive while they are short.
const RECEIVE_SHORT: usize = 16;
/// They are, if those of one receive have fewer bytes than this on average.
const SHORT: usize = 4096;
/// Outbound jobs before the other direction has its turn: as many as one receive gives.
const TURN: usize = RECEIVE;

/// Bytes of received datagrams, behind those of the first job, that are worth another worker's waking up.
const WORTH_A_CALL: usize = 16 << 10;
/// How often a worker looks whether a helper has done with its old sockets, every 100 µs.
const SETTLE: usize = 10_000;

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
    /// The other workers, if there are any.
    crew: Option<Arc<Crew>>,
    pace: Pace,
    /// Who has called for help.
    called_by: Option<usize>,
    /// What it does for another worker.
    stint: Option<Stint>,
    /// Full jobs that were read one after the other.
    streak: usize,
    /// What is not read, because no job is free.
    stalled: Ready,
    /// Commands that wait for a free job.
    postponed: Vec<Command>,
    waiting: Waiting,
    errors: Errors,
    /// How many messages the next receive takes.
    receive: usize,
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
        self.tun || self.receives()
    }

    fn receives(&self) -> bool {
        self.udp != [false; 2]
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
        let sender = Sender::new(shared.clone(), number, gso, outbound_pool.clone());
        let writer = Writer::new(WriterParts {
            shared: shared.clone(),
            worker: number,
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
            crew: None,
            pace: Pace::new(),
            called_by: None,
            stint: None,
            streak: 0,
            stalled: Ready::default(),
            postponed: Vec::new(),
            waiting: Waiting::default(),
            errors: Errors::new(now()),
            receive: RECEIVE,
            ready: Ready::default(),
            busy_poll,
            running: true,
            shared,
        })
    }

    /// What others see of this worker.
    pub(crate) fn mate(&self) -> Mate {
        Mate::new(self.outbound.ring().clone(), self.inbound.ring().clone())
    }

    /// Runs until told to quit, or until the TUN has gone. The crew has all workers, if there are others.
    pub(crate) fn run(mut self, crew: Option<Arc<Crew>>) {
        hide_stack();
        self.crew = crew;
        self.shared.loads[self.number].begin();
        self.work();
        // Whoever has just called it waits for an answer.
        self.help();
        self.stop_helping();
        self.shared.loads[self.number].end();
        self.shared.links[self.number].end();
    }

    fn work(&mut self) {
        let mut events = [Event::EMPTY; 8];
        let mut polls_until = None;
        while self.running {
            // While there is work, a look at what else has come, so that neither direction nor a command waits for the other.
            // For a while after it, if that was asked for, too; but then whoever else wants this core comes first.
            let busy = self.ready.any() || self.stint.is_some();
            let polling = !busy && polls_until.is_some_and(|until| now() < until);
            if polling {
                std::thread::yield_now();
            }
            match self.turn(&mut events, !busy && !polling) {
                Ok(0) => (),
                Ok(_) => polls_until = (!self.busy_poll.is_zero()).then(|| now() + self.busy_poll),
                Err(error) => return self.shared.events.tun_gone(error),
            }
            self.help();
        }
    }

    /// Waits for something to happen, or only looks whether something has. Others may call while it waits.
    fn wait<'a>(&mut self, events: &'a mut [Event], sleeps: bool) -> io::Result<&'a [Event]> {
        let timeout = (!sleeps).then_some(Duration::ZERO);
        if sleeps {
            // It is about to: one write less than before and after.
            self.shared.loads[self.number].woke();
        }
        let Some(crew) = self.crew.as_ref().filter(|_| sleeps) else {
            return self.epoll.wait(events, timeout);
        };
        // What else is in the rings a helper has, or is about to commit.
        debug_assert_eq!((self.outbound.ring().pending().count, self.inbound.ring().pending().count), (0, 0));
        let start = now();
        crew.calls.sleep(self.number);
        let happened = self.epoll.wait(events, timeout);
        self.called_by = crew.calls.wake(self.number);
        self.pace.slept(now().saturating_since(start));
        happened
    }

    /// Waits for something to happen if it may sleep, and sees to what is ready for one turn each. Returns how much happened.
    fn turn(&mut self, events: &mut [Event], sleeps: bool) -> io::Result<usize> {
        let events = self.wait(events, sleeps)?;
        if !events.is_empty() {
            // Its own work comes first.
            self.stop_helping();
        }
        for event in events {
            match event.token() {
                TUN => self.ready.tun = true,
                WAKE => self.obey(),
                udp => self.ready.udp[usize::from(udp > UDP)] = true,
            }
        }
        if self.running && self.ready.receives() {
            self.receive();
        }
        if self.running && self.ready.tun {
            self.ready.tun = self.read();
        }
        Ok(events.len())
    }

    /// Helps for a step, if it was called.
    fn help(&mut self) {
        if let (Some(owner), Some(crew)) = (self.called_by.take(), &self.crew) {
            self.stint = crew.answer(owner, self.running && !self.ready.any());
        }
        if let Some(stint) = &mut self.stint
            && !stint.step(&self.shared)
        {
            self.stop_helping();
        }
    }

    fn stop_helping(&mut self) {
        if let Some(stint) = self.stint.take() {
            let steps = stint.end(&self.shared);
            self.shared.loads[self.number].helped(steps);
        }
    }

    /// Carries out what the worker was told.
    fn obey(&mut self) {
        let commands = self.shared.links[self.number].commands();
        self.resume();
        for command in std::mem::take(&mut self.postponed).into_iter().chain(commands) {
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
        // What a helper left when it went.
        self.finish_outbound();
        self.finish_inbound();
    }

    /// No job is free: reads no more of this kind until one is. True if one is by now.
    fn stall(&mut self, outbound: bool) -> bool {
        let waits = if outbound { self.outbound_pool.wait() } else { self.inbound_pool.wait() };
        if waits {
            self.stalled.tun |= outbound;
            self.stalled.udp[0] |= !outbound;
            self.watch(outbound, Interest::NONE);
        }
        !waits
    }

    /// Reads again what it had stopped reading, since a job may be free.
    fn resume(&mut self) {
        let stalled = std::mem::take(&mut self.stalled);
        if stalled.tun {
            self.watch(true, Interest::READ);
            self.ready.tun = true;
        }
        if stalled.receives() {
            self.watch(false, Interest::READ);
            self.ready.udp = [true; 2];
        }
    }

    fn watch(&self, tun: bool, interest: Interest) {
        if tun {
            // Neither can fail but for want of memory, and then all that is lost is a look.
            let _ = self.epoll.modify(self.queue.as_fd(), TUN, interest);
            return;
        }
        for socket in self.sockets.iter().flat_map(|sockets| sockets.iter()) {
            let _ = self.epoll.modify(socket, UDP + u64::from(socket.is_v6()), interest);
        }
    }

    /// Takes in what control received for us.
    fn take_strays(&mut self) {
        loop {
            let Some(mut job) = self.inbound_pool.take() else {
                if self.stall(false) {
                    continue;
                }
                return;
            };
            let Some(received) = self.shared.links[self.number].next_stray(job.buffer()) else {
                self.inbound_pool.put(job);
                return;
            };
            job.take(received);
            self.push_inbound(job);
            self.finish_inbound();
        }
    }

    /// Turns until nothing is ready, for the fuzz targets. Panics when that does not come, or when a job is lost on the way.
    #[cfg(fuzzing)]
    pub(crate) fn rest(&mut self) {
        let mut events = [Event::EMPTY; 8];
        for _ in 0..10_000 {
            let happened = self.turn(&mut events, false).expect("an epoll instance can be waited for");
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
        // A helper may be sending by the old ones, which are to be closed now.
        if !self.outbound.ring().settle(SETTLE, || std::thread::sleep(Duration::from_micros(100))) {
            log::warn!(
                "worker {}: a helper is kept from running, and may still send by the former sockets",
                self.number
            );
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
                self.finish_outbound();
                return self.stall(true);
            };
            let more = self.fill(&mut job);
            self.dispatch(job);
            if !more {
                self.streak = 0;
                self.finish_outbound();
                return false;
            }
            self.streak += 1;
            self.advance_outbound();
        }
        true
    }

    /// Fills a job from the TUN. Returns whether there may be more to read.
    fn fill(&mut self, job: &mut Outbound) -> bool {
        let shared = self.shared.clone();
        let (routes, now) = (shared.routes(), now());
        // A bound on reads, not only on what is admitted: packets that are refused or wait take no room.
        let forced = self.crew.as_ref().is_some_and(|crew| crew.is_forced());
        for _ in 0..if forced { 1 } else { PACKETS_MAX } {
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
        if self.shared.policy.in_force() && !self.may_leave(peer, &cut, now) {
            // One is counted where it is refused.
            self.shared.drops.count(Reason::Policy, cut.segments() - 1);
            return Admission::Refuse(Reason::Policy, None);
        }
        let has_session = current.as_ref().is_some_and(|session| session.may_send(now));
        // While others wait, waiting keeps the order.
        if has_session && !self.waiting.holds(peer) {
            Admission::Seal(peer.clone(), cut.segments())
        } else {
            Admission::Wait(peer.clone())
        }
    }

    /// Whether the rules let the packet out.
    #[cold]
    fn may_leave(&self, peer: &Peer, cut: &Cut<'_>, now: Instant) -> bool {
        let (packets, bytes) = (cut.segments() as u32, cut.total_len() as u32);
        let flow = Flow::of(cut.packet());
        self.shared.policy.permits(now, &Subject { peer: peer.id, direction: Direction::Out, flow, packets, bytes })
    }

    /// Puts a job into the ring, in order behind those before it.
    fn dispatch(&mut self, mut job: Box<Outbound>) {
        if job.is_empty() {
            self.outbound_pool.put(job);
            return;
        }
        let (shared, ring) = (&self.shared, self.outbound.ring());
        job.reserve(shared, || {
            while ring.work(|job| job.seal(shared)) {}
            ring.commit() > 0
        });
        while let Err(back) = self.outbound.push(job) {
            // There are no more jobs than the ring has room for, but a slot is free only after its job has gone.
            job = back;
            self.finish_outbound();
            std::thread::yield_now();
        }
    }

    /// Seals and sends all that is in the ring, but for what a helper is at.
    fn finish_outbound(&self) {
        let ring = self.outbound.ring();
        if !ring.is_empty() {
            while ring.work(|job| job.seal(&self.shared)) {}
            ring.commit();
        }
    }

    /// More is about to be read: seals and sends what is in the ring, or leaves some of it to helpers.
    fn advance_outbound(&mut self) {
        if self.is_alone(self.streak > 1) {
            return self.finish_outbound();
        }
        self.share(self.outbound.ring(), |job| job.seal(&self.shared));
    }

    /// Whether nobody helps, nor is on the way. If there is a backlog, somebody may be called.
    #[inline]
    fn is_alone(&mut self, backlog: bool) -> bool {
        let (Some(crew), pace) = (&self.crew, &mut self.pace) else { return true };
        crew.is_alone(self.number, &self.shared, pace, backlog)
    }

    /// Works on as much as helpers do not get to; commits only when they do not.
    fn share<J, C: Committer<J>>(&self, ring: &Ring<J, C>, mut work: impl FnMut(&mut J)) {
        let helped = self.crew.as_ref().is_some_and(|crew| crew.calls.helpers(self.number).here > 0);
        loop {
            let pending = ring.pending();
            // One job is left for a helper to claim, but not the one that all others wait for.
            let own = pending.count > 1 || (pending.head && ring.len() > 1);
            if !own || !ring.work(&mut work) {
                break;
            }
        }
        if !helped || ring.len() > RING / 2 {
            ring.commit();
        }
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
            let Some(mut job) = self.outbound_pool.take() else {
                return self.postpone(Command::Flush(peer.clone()));
            };
            while let Some(room) = job.room() {
                let Some(packet) = self.waiting.pop(peer.id) else { break };
                room[..packet.len()].copy_from_slice(&packet);
                job.admit(packet.len(), peer, segments(&packet));
            }
            self.dispatch(job);
            self.finish_outbound();
        }
    }

    fn keepalive(&mut self, peer: &Arc<Peer>) {
        let Some(mut job) = self.outbound_pool.take() else {
            return self.postpone(Command::Keepalive(peer.clone()));
        };
        job.admit_keepalive(peer);
        self.dispatch(job);
        self.finish_outbound();
    }

    /// Keeps a command until a job is free.
    fn postpone(&mut self, command: Command) {
        self.postponed.push(command);
        if !self.outbound_pool.wait() {
            self.shared.links[self.number].wake.signal();
        }
    }

    /// Receives for one turn, from the sockets that may have something.
    fn receive(&mut self) {
        let ready = std::mem::take(&mut self.ready.udp);
        if let Some(sockets) = self.sockets.clone() {
            for socket in sockets.iter().filter(|socket| ready[usize::from(socket.is_v6())]) {
                self.ready.udp[usize::from(socket.is_v6())] = self.receive_from(socket);
            }
        }
        if !self.ready.receives() {
            self.finish_inbound();
        }
    }

    fn receive_from(&mut self, socket: &Socket) -> bool {
        let mut jobs = ArrayVec::<Box<Inbound>, RECEIVE_SHORT>::new();
        jobs.extend(std::iter::from_fn(|| self.inbound_pool.take()).take(self.receive));
        if jobs.is_empty() {
            self.finish_inbound();
            return self.stall(false);
        }
        let mut received = [Received::default(); RECEIVE_SHORT];
        let count = {
            let mut buffers: ArrayVec<&mut [u8], RECEIVE_SHORT> = jobs.iter_mut().map(|job| job.buffer()).collect();
            // An error stands for one datagram that did not come (a report from the network): there may be more.
            socket.recv(&mut buffers, &mut received)
        };
        let count = match count {
            Ok(count) => count,
            Err(error) => {
                for job in jobs {
                    self.inbound_pool.put(job);
                }
                return error.kind() != io::ErrorKind::WouldBlock && error.kind() != io::ErrorKind::InvalidInput;
            }
        };
        let full = count == jobs.len();
        let bytes: usize = received[..count].iter().map(|received| received.len).sum();
        self.receive = if count >= RECEIVE && bytes < count * SHORT { RECEIVE_SHORT } else { RECEIVE };
        let mut open: Option<Box<Inbound>> = None;
        let forced = self.crew.as_ref().is_some_and(|crew| crew.is_forced());
        // Bytes behind the first job.
        let mut behind = 0;
        for (number, mut job) in jobs.into_iter().enumerate() {
            if number < count {
                job.take(received[number]);
            }
            let mut absorbs = || !forced && open.as_mut().is_some_and(|open| open.absorb(&job));
            if number >= count || absorbs() {
                job.clear();
                self.inbound_pool.put(job);
            } else if let Some(job) = open.replace(job) {
                behind += received[number].len;
                self.push_inbound(job);
            }
        }
        if let Some(job) = open {
            self.push_inbound(job);
        }
        self.advance_inbound(behind >= WORTH_A_CALL || (forced && behind > 0));
        full
    }

    fn push_inbound(&mut self, mut job: Box<Inbound>) {
        while let Err(back) = self.inbound.push(job) {
            job = back;
            self.finish_inbound();
            std::thread::yield_now();
        }
    }

    /// Opens all that is in the ring, but for what a helper is at, and gives what it holds to the TUN.
    fn finish_inbound(&self) {
        let ring = self.inbound.ring();
        if !ring.is_empty() {
            while ring.work(|job| job.open(&self.shared)) {}
            ring.commit();
        }
    }

    /// Opens what was received and gives it to the TUN, or leaves some of it to helpers.
    fn advance_inbound(&mut self, backlog: bool) {
        if self.is_alone(backlog) {
            return self.finish_inbound();
        }
        self.share(self.inbound.ring(), |job| job.open(&self.shared));
    }
}

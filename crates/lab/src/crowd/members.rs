//! The crowd at work: one thread, one UDP port, a protocol device for each member.
//!
//! What members say first is made before any of it is sent, on a clock that stands still meanwhile, so that they begin at one moment
//! however long it took. A member that one thread has not got to yet sees the newest message of each type only: the hosts that it stands for
//! would each have answered the one before in time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use inet::{Endpoint, Source};
use linux::clock;
use linux::poll::{Epoll, Event as Ready, Interest};
use linux::udp::{Outgoing, Received, SendError, SocketGroup, UdpOptions};
use noise::message::{MessageType, TRANSPORT_HEADER_LEN, parse_transport_header, write_transport_header};
use noise::{Destination, Device, Event, Instant, Now, PublicKey, Session};

use crate::usage;

use super::{Outcome, PORT, Role, member_at, outside, private_key};

/// Datagrams in one system call.
const BATCH: usize = 32;
/// The longest message that a member cares for, and a little more.
const BUFFER: usize = 256;
/// Members in turn that have neither agreed nor waited too long: enough to keep a daemon busy, and fewer than any that we know takes for an attack.
const TURN: u32 = 64;
/// How long a member in turn has the place of one: what was lost is tried again only after seconds.
const PATIENCE: Duration = Duration::from_millis(250);
/// Calls before timers are looked at again.
const RECEIVES: usize = 8;

struct Member {
    device: Device,
    session: Option<Arc<Session>>,
    agreed: bool,
    /// What has come and is not yet looked at.
    mail: Vec<(SocketAddr, Vec<u8>)>,
    /// Whether it takes the place of one in turn.
    open: bool,
    /// Under which deadline it stands in the queue; entries with another are stale.
    due: Option<Instant>,
}

struct Crowd {
    to: SocketAddr,
    sockets: SocketGroup,
    members: Vec<Member>,
    due: BinaryHeap<Reverse<(Instant, u32)>>,
    /// Who has mail, in the order in which it came.
    mailed: VecDeque<u32>,
    out: VecDeque<(u32, Vec<u8>)>,
    /// First messages whose turn has not come.
    later: VecDeque<(u32, Vec<u8>)>,
    /// Whose turn has come, and when; and how many of them are still waited for.
    turns: VecDeque<(Instant, u32)>,
    open: u32,
    /// When members agreed.
    agreed: Vec<Instant>,
    /// By how much our clock lags behind boot time.
    behind: Duration,
    outcome: Outcome,
}

/// Runs a crowd of `count` members around the daemon at `to`, until all have agreed with it or `limit` has passed since the first message.
/// `ready` is called once before.
///
/// # Errors
/// The port is taken, or the network refuses.
pub fn run(
    to: SocketAddr,
    daemon: PublicKey,
    count: u32,
    role: Role,
    limit: Duration,
    ready: impl FnOnce(),
) -> io::Result<Outcome> {
    let options = UdpOptions { gso: false, gro: false, buffer: 256 << 20, ..UdpOptions::default() };
    let sockets = SocketGroup::bind(PORT, 1, &options).map_err(io::Error::other)?;
    let mut crowd = Crowd {
        to,
        sockets,
        members: Vec::new(),
        due: BinaryHeap::new(),
        mailed: VecDeque::new(),
        out: VecDeque::new(),
        later: VecDeque::new(),
        turns: VecDeque::new(),
        open: 0,
        agreed: Vec::new(),
        behind: Duration::ZERO,
        outcome: Outcome { members: count, ..Outcome::default() },
    };
    let frozen = crowd.now();
    for member in 0..count {
        crowd.join(frozen, member, daemon, role)?;
    }
    if role == Role::InTurn {
        crowd.later = std::mem::take(&mut crowd.out);
    }
    crowd.behind = clock_since(frozen);
    ready();
    crowd.attend(limit)?;
    Ok(crowd.outcome)
}

fn clock_since(then: Now) -> Duration {
    Instant::from_nanos(clock::boot_nanos()).saturating_since(then.boot)
}

impl Crowd {
    fn now(&self) -> Now {
        let behind = self.behind.as_nanos() as u64;
        Now { boot: Instant::from_nanos(clock::boot_nanos() - behind), wall: clock::wall() - self.behind }
    }

    fn join(&mut self, now: Now, number: u32, daemon: PublicKey, role: Role) -> io::Result<()> {
        let mut seed = [0xc5; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        seed[4..20].copy_from_slice(&clock::wall().as_nanos().to_le_bytes());
        let mut device = Device::new(seed);
        device.set_private_key(now, Some(private_key(number)));
        device.set_up(now, true);
        let daemon = device.add_peer(now, daemon).map_err(io::Error::other)?;
        if role != Role::Respond {
            device.handle_session_wanted(now, daemon);
        }
        self.members.push(Member { device, session: None, agreed: false, mail: Vec::new(), open: false, due: None });
        self.settle(now, number);
        Ok(())
    }

    fn attend(&mut self, limit: Duration) -> io::Result<()> {
        let epoll = Epoll::new()?;
        let sockets: Vec<_> =
            self.sockets.control.iter().chain(self.sockets.workers.iter().flatten()).cloned().collect();
        for socket in &sockets {
            epoll.add(socket, 0, Interest::READ)?;
        }
        let mut buffers = vec![[0; BUFFER]; BATCH];
        let watch = usage::Window::open().ok();
        let mut begun = (!self.out.is_empty() || !self.later.is_empty()).then(|| self.now().boot);
        let started = self.now().boot;
        loop {
            let now = self.now();
            if now.boot.saturating_since(begun.unwrap_or(started)) >= limit
                || self.agreed.len() == self.members.len() && self.out.is_empty()
            {
                self.conclude(begun.unwrap_or(started));
                let shares = watch.and_then(|watch| watch.close().ok());
                self.outcome.busy = shares.map_or(0.0, |shares| shares.iter().sum());
                return Ok(());
            }
            self.give_turns(now.boot);
            let stuck = self.send()?;
            self.time(now);
            for socket in &sockets {
                loop {
                    let mut received = [Received::default(); BATCH];
                    let mut into: Vec<&mut [u8]> = buffers.iter_mut().map(|buffer| &mut buffer[..]).collect();
                    let count = match socket.recv(&mut into, &mut received) {
                        Ok(count) => count,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        // A report from the network about something that we sent.
                        Err(_) => continue,
                    };
                    for (received, buffer) in received[..count].iter().zip(&buffers) {
                        let Some(Source { ip: IpAddr::V4(ip), .. }) = received.source else { continue };
                        begun.get_or_insert(now.boot);
                        self.deliver(member_at(ip), received.from, &buffer[..received.len]);
                    }
                }
            }
            for _ in 0..BATCH {
                let Some(number) = self.mailed.pop_front() else { break };
                let Some(member) = self.members.get_mut(number as usize) else { continue };
                for (from, bytes) in std::mem::take(&mut member.mail) {
                    self.receive(number, from, &bytes);
                }
            }
            let next = self.due.peek().map_or(limit, |Reverse((due, _))| due.saturating_since(self.now().boot));
            let busy = !self.mailed.is_empty() || !self.out.is_empty() && !stuck;
            let pause = if busy { Duration::ZERO } else { Duration::from_millis(20) };
            epoll.wait(&mut [Ready::EMPTY; 4], Some(pause.min(next)))?;
        }
    }

    /// Lets members begin as long as there is room for them.
    fn give_turns(&mut self, now: Instant) {
        while let Some((since, number)) = self.turns.front().copied() {
            let open = self.members.get(number as usize).is_some_and(|member| member.open);
            if open && now.saturating_since(since) < PATIENCE {
                break;
            }
            self.close(number);
            self.turns.pop_front();
        }
        while self.open < TURN
            && let Some((number, message)) = self.later.pop_front()
        {
            if let Some(member) = self.members.get_mut(number as usize) {
                member.open = true;
                self.open += 1;
            }
            self.turns.push_back((now, number));
            self.out.push_back((number, message));
        }
    }

    /// Its place is another's from now on.
    fn close(&mut self, number: u32) {
        if let Some(member) = self.members.get_mut(number as usize)
            && std::mem::take(&mut member.open)
        {
            self.open -= 1;
        }
    }

    /// Sends some of what is to be sent; whether the socket takes no more.
    fn send(&mut self) -> io::Result<bool> {
        let Some(socket) = self.sockets.control.iter().find(|socket| !socket.is_v6()) else {
            return Err(io::Error::other("no IPv4 here"));
        };
        for _ in 0..RECEIVES {
            let batch: Vec<Outgoing<'_>> = (self.out.iter().take(BATCH))
                .map(|(member, bytes)| {
                    let source = Source { ip: outside(*member).into(), ifindex: 0 };
                    let to = Endpoint { addr: self.to, source: Some(source) };
                    Outgoing { to, class: 0, bytes, segment: None }
                })
                .collect();
            if batch.is_empty() {
                return Ok(false);
            }
            let (sent, error) = socket.send(&batch);
            self.out.drain(..sent);
            match error {
                None => (),
                Some(SendError::WouldBlock) => return Ok(true),
                // Lost on the way, as it were.
                Some(SendError::Unreachable(_) | SendError::Other(_)) => drop(self.out.pop_front()),
                Some(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }

    fn time(&mut self, now: Now) {
        for _ in 0..BATCH {
            let Some(&Reverse((due, number))) = self.due.peek() else { return };
            if due > now.boot {
                return;
            }
            self.due.pop();
            if let Some(member) = self.members.get_mut(number as usize)
                && member.due == Some(due)
            {
                member.due = None;
                member.device.handle_timeout(now);
                self.settle(now, number);
            }
        }
    }

    fn deliver(&mut self, number: u32, from: SocketAddr, bytes: &[u8]) {
        // Cheap, and nothing to do with what the others wait for.
        if MessageType::of(bytes) == Some(MessageType::Transport) {
            return self.receive(number, from, bytes);
        }
        let Some(member) = self.members.get_mut(number as usize) else { return };
        if member.mail.is_empty() {
            self.mailed.push_back(number);
        }
        member.mail.retain(|(_, other)| MessageType::of(other) != MessageType::of(bytes));
        member.mail.push((from, bytes.to_vec()));
    }

    fn receive(&mut self, number: u32, from: SocketAddr, bytes: &[u8]) {
        let now = self.now();
        let Some(member) = self.members.get_mut(number as usize) else { return };
        match MessageType::of(bytes) {
            Some(MessageType::Transport) => {
                if let Some(session) = member.session.clone()
                    && is_authentic(&session, bytes)
                    && session.confirm()
                {
                    member.device.handle_session_confirmed(now, &session);
                }
            }
            Some(MessageType::CookieReply) => {
                self.outcome.cookies += 1;
                let _ = member.device.handle_datagram(now, from, bytes, false);
            }
            _ => {
                self.outcome.received += 1;
                self.outcome.late += u64::from(member.device.handle_datagram(now, from, bytes, false).is_err());
            }
        }
        self.settle(now, number);
    }

    /// Carries out what a member wants.
    fn settle(&mut self, now: Now, number: u32) {
        let Some(member) = self.members.get_mut(number as usize) else { return };
        while let Some(event) = member.device.poll_event() {
            match event {
                Event::Transmit { to: Destination::Peer(_) | Destination::Source, message } => {
                    self.outcome.initiations += u64::from(MessageType::of(&message) == Some(MessageType::Initiation));
                    self.out.push_back((number, message.to_vec()));
                }
                Event::SessionInstalled { session } => member.session = Some(session),
                Event::SessionCurrent { session: Some(_), .. } if !member.agreed => {
                    member.agreed = true;
                    self.open -= u32::from(std::mem::take(&mut member.open));
                    self.agreed.push(now.boot);
                }
                Event::KeepaliveDue { .. } => {
                    self.out.extend(member.session.as_ref().and_then(|it| keepalive(it, now)).map(|it| (number, it)));
                }
                _ => (),
            }
        }
        let due = member.device.poll_timeout();
        if due != member.due {
            member.due = due;
            self.due.extend(due.map(|due| Reverse((due, number))));
        }
    }

    fn conclude(&mut self, begun: Instant) {
        let at = |share: f64| {
            let place = (self.members.len() as f64 * share).ceil() as usize;
            let time = self.agreed.get(place.saturating_sub(1)).or(self.agreed.last());
            time.map_or(0.0, |time| time.saturating_since(begun).as_secs_f64())
        };
        let (half, most, last) = (at(0.5), at(0.99), at(1.0));
        let agreed = self.agreed.len() as u32;
        self.outcome = Outcome { agreed, half, most, last, ..self.outcome.clone() };
    }
}

fn is_authentic(session: &Session, bytes: &[u8]) -> bool {
    let Some(header) = parse_transport_header(bytes).filter(|it| it.receiver == session.local_index()) else {
        return false;
    };
    let mut text = bytes[TRANSPORT_HEADER_LEN..].to_vec();
    let nonce = aead::counter_nonce(header.counter.as_u64());
    let segment = aead::OpenSegment { nonce, aad: &[], text: &mut text, authentic: false };
    session.opening_key().open(&mut [segment]) == 1
}

fn keepalive(session: &Session, now: Now) -> Option<Vec<u8>> {
    let counter = session.reserve(now.boot, 1).ok()?;
    let mut bytes = vec![0; TRANSPORT_HEADER_LEN + aead::TAG_LEN];
    write_transport_header(&mut bytes, session.remote_index(), counter);
    let (nonce, out) = (aead::counter_nonce(counter), &mut bytes[TRANSPORT_HEADER_LEN..]);
    session.sealing_key().seal(&mut [aead::SealSegment { nonce, aad: &[], head: 0, body: &[], out }]);
    session.release(counter, 1);
    Some(bytes)
}

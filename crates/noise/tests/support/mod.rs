//! A device with the smallest data plane that does everything a real one must: it waits for sessions, reserves counters, seals, opens,
//! checks for replays, and reports what happened. Also keeps books on what no data plane may do twice.

#![allow(dead_code)] // Each test file uses its own part of this.
#![allow(clippy::unwrap_used)] // Only tests are behind this.

pub mod vault;
pub mod world;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use noise::message::{MessageType, TRANSPORT_HEADER_LEN, parse_transport_header, write_transport_header};
use noise::{
    Activity, Destination, Device, Drop, Event, Instant, Now, PeerId, PresharedKey, PrivateKey, PublicKey,
    ReceiverIndex, Session,
};
use vault::Vault;

/// A moment on both clocks, `boot` after some point of uptime.
pub fn at(boot: Duration) -> Now {
    at_wall(boot, Duration::from_secs(1_700_000_000) + boot)
}

pub fn at_wall(boot: Duration, wall: Duration) -> Now {
    Now { boot: Instant::from_nanos((Duration::from_secs(1000) + boot).as_nanos() as u64), wall }
}

pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn key(n: u8) -> PrivateKey {
    PrivateKey::from_bytes([n; 32])
}

pub fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 51820))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

impl Datagram {
    pub fn kind(&self) -> MessageType {
        MessageType::of(&self.bytes).unwrap()
    }

    pub fn is_keepalive(&self) -> bool {
        self.kind() == MessageType::Transport && self.bytes.len() == TRANSPORT_HEADER_LEN + aead::TAG_LEN
    }
}

/// What was told by events, without what is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Endpoint,
    Installed,
    Current,
    NoCurrent,
    Retired,
    Keepalive,
    Abandoned,
    SourceStale,
    Removed,
    Failing,
    Answered,
}

/// What the data plane keeps of a peer.
pub struct Link {
    pub activity: Arc<Activity>,
    pub current: Option<Arc<Session>>,
    pub endpoint: Option<SocketAddr>,
    pub waiting: VecDeque<Vec<u8>>,
}

pub struct Node {
    pub device: Device,
    pub address: SocketAddr,
    pub links: BTreeMap<PeerId, Link>,
    pub sessions: BTreeMap<ReceiverIndex, Arc<Session>>,
    /// What left, in order.
    pub out: VecDeque<Datagram>,
    /// What arrived, authentic and new; keepalives are empty.
    pub arrived: Vec<Vec<u8>>,
    pub told: Vec<Told>,
    pub drops: Vec<Drop>,
    /// Every (key, counter) that was ever sealed with.
    pub sealed: HashSet<([u8; 16], u64)>,
    /// Every key that was ever installed to seal with.
    pub keys: HashSet<[u8; 16]>,
    /// Every (session, counter) whose plaintext was accepted.
    pub accepted: HashSet<(ReceiverIndex, [u8; 16], u64)>,
    /// Called back into `Device::handle_activity`.
    pub activity_calls: usize,
    pub under_load: bool,
    /// Where what changes is kept, if not in the device.
    pub vault: Option<Vault>,
}

const MAX_WAITING: usize = 16;

impl Node {
    pub fn new(now: Now, n: u8) -> Self {
        let mut device = Device::new([n ^ 0x5a; 32]);
        device.set_private_key(now, Some(key(n)));
        device.set_up(now, true);
        Self::with(device, address(n))
    }

    pub fn with(device: Device, address: SocketAddr) -> Self {
        Self {
            device,
            address,
            links: BTreeMap::new(),
            sessions: BTreeMap::new(),
            out: VecDeque::new(),
            arrived: Vec::new(),
            told: Vec::new(),
            drops: Vec::new(),
            sealed: HashSet::new(),
            keys: HashSet::new(),
            accepted: HashSet::new(),
            activity_calls: 0,
            under_load: false,
            vault: None,
        }
    }

    /// One whose memory is in the vault.
    pub fn lent(now: Now, n: u8, seed: u8, vault: &Vault) -> Self {
        let mut device = Device::new([seed; 32]);
        device.set_lender(Arc::new(vault.clone()));
        device.set_private_key(now, Some(key(n)));
        device.set_up(now, true);
        Self { vault: Some(vault.clone()), ..Self::with(device, address(n)) }
    }

    /// Goes on with the books of another, who has died.
    pub fn succeed(&mut self, other: &mut Node) {
        self.sealed.extend(other.sealed.drain());
        self.keys.extend(other.keys.drain());
        self.accepted.extend(other.accepted.drain());
    }

    pub fn add_peer(&mut self, now: Now, key: PublicKey, endpoint: Option<SocketAddr>) -> PeerId {
        self.add_peer_with(now, key, PresharedKey::default(), endpoint)
    }

    pub fn add_peer_with(
        &mut self,
        now: Now,
        key: PublicKey,
        preshared: PresharedKey,
        endpoint: Option<SocketAddr>,
    ) -> PeerId {
        let id = self.device.add_peer_with(now, key, preshared).unwrap();
        let activity = self.device.activity(id).unwrap();
        self.links.insert(id, Link { activity, current: None, endpoint, waiting: VecDeque::new() });
        id
    }

    /// The only peer.
    pub fn peer(&self) -> PeerId {
        *self.links.keys().next().unwrap()
    }

    pub fn current(&self) -> Option<Arc<Session>> {
        self.links[&self.peer()].current.clone()
    }

    /// Sends data to the only peer.
    pub fn send(&mut self, now: Now, data: &[u8]) {
        let id = self.peer();
        self.send_to(now, id, data);
    }

    pub fn send_to(&mut self, now: Now, id: PeerId, data: &[u8]) {
        let link = self.links.get_mut(&id).unwrap();
        if link.waiting.len() == MAX_WAITING {
            link.waiting.pop_front();
        }
        link.waiting.push_back(data.to_vec());
        self.flush(now, id);
        self.settle(now);
    }

    /// Handles a datagram, whatever its type, and what follows from it.
    pub fn receive(&mut self, now: Now, datagram: &Datagram) {
        match parse_transport_header(&datagram.bytes) {
            Some(_) => self.open(now, datagram),
            None => {
                let handled = self.device.handle_datagram(now, datagram.from, &datagram.bytes, self.under_load);
                self.drops.extend(handled.err());
                self.carry_out(now, Some(datagram.from));
            }
        }
        self.settle(now);
    }

    pub fn timeout(&mut self, now: Now) {
        self.device.handle_timeout(now);
        self.settle(now);
    }

    /// Carries out what the device wants after a call made directly on it.
    pub fn settle(&mut self, now: Now) {
        self.carry_out(now, None);
    }

    fn carry_out(&mut self, now: Now, source: Option<SocketAddr>) {
        while let Some(event) = self.device.poll_event() {
            match event {
                Event::Transmit { to, message } => {
                    let to = match to {
                        Destination::Source => source,
                        Destination::Peer(id) => self.links[&id].endpoint,
                    };
                    if let Some(to) = to {
                        self.out.push_back(Datagram { from: self.address, to, bytes: message.to_vec() });
                    }
                }
                Event::EndpointConfirmed { peer } => {
                    self.told.push(Told::Endpoint);
                    self.links.get_mut(&peer).unwrap().endpoint =
                        Some(source.expect("only while a datagram is handled"));
                }
                Event::SessionInstalled { session } => {
                    self.told.push(Told::Installed);
                    let lived = self.vault.as_ref().is_some_and(|vault| vault.install(&session));
                    let is_new = self.keys.insert(fingerprint(session.sealing_key()));
                    assert!(is_new || lived, "a session key came twice");
                    let former = self.sessions.insert(session.local_index(), session);
                    assert!(former.is_none(), "two sessions with one index");
                }
                Event::SessionCurrent { peer, session } => {
                    self.told.push(if session.is_some() { Told::Current } else { Told::NoCurrent });
                    if let Some(vault) = &self.vault {
                        vault.set_current(peer, session.as_deref());
                    }
                    self.links.get_mut(&peer).unwrap().current = session;
                    self.flush(now, peer);
                }
                Event::SessionRetired { session } => {
                    self.told.push(Told::Retired);
                    assert!(session.is_revoked());
                    if let Some(vault) = &self.vault {
                        vault.retire(&session);
                    }
                    assert!(self.sessions.remove(&session.local_index()).is_some(), "retired without being installed");
                }
                Event::KeepaliveDue { peer } => {
                    self.told.push(Told::Keepalive);
                    if self.links[&peer].waiting.is_empty() {
                        self.seal(now, peer, &[]);
                    } else {
                        self.flush(now, peer);
                    }
                }
                Event::HandshakeAbandoned { peer } => {
                    self.told.push(Told::Abandoned);
                    self.links.get_mut(&peer).unwrap().waiting.clear();
                }
                Event::SourceStale { .. } => self.told.push(Told::SourceStale),
                Event::HandshakesFail { .. } => self.told.push(Told::Failing),
                Event::HandshakeAnswered { .. } => self.told.push(Told::Answered),
                Event::PeerRemoved { peer } => {
                    self.told.push(Told::Removed);
                    self.links.remove(&peer);
                }
                _ => unreachable!("all events are handled above"),
            }
        }
    }

    fn flush(&mut self, now: Now, id: PeerId) {
        while let Some(data) = self.links.get_mut(&id).and_then(|link| link.waiting.pop_front()) {
            if !self.seal(now, id, &data) {
                self.links.get_mut(&id).unwrap().waiting.push_front(data);
                self.device.handle_session_wanted(now, id);
                // The device answers with the same session if it has one; this node has no other reason to fail.
                return;
            }
        }
    }

    /// Seals one packet and sends it; false if no session can.
    pub fn seal(&mut self, now: Now, id: PeerId, data: &[u8]) -> bool {
        let link = &self.links[&id];
        let Some(session) = link.current.clone() else { return false };
        let Ok(counter) = session.reserve(now.boot, 1) else { return false };
        assert!(
            self.sealed.insert((fingerprint(session.sealing_key()), counter)),
            "a nonce was used twice under one key"
        );
        let mut bytes = vec![0; TRANSPORT_HEADER_LEN + data.len() + aead::TAG_LEN];
        write_transport_header(&mut bytes, session.remote_index(), counter);
        session.sealing_key().seal(&mut [aead::SealSegment {
            nonce: aead::counter_nonce(counter),
            aad: &[],
            head: 0,
            body: data,
            out: &mut bytes[TRANSPORT_HEADER_LEN..],
        }]);
        session.release(counter, 1);
        if let Some(to) = link.endpoint {
            self.out.push_back(Datagram { from: self.address, to, bytes });
        }
        let tell =
            if data.is_empty() { link.activity.keepalive_sent(now.boot) } else { link.activity.data_sent(now.boot) };
        self.report(now, id, tell);
        if session.rekey_due_on_send(now.boot) {
            self.device.handle_rekey_due(now, id);
        }
        true
    }

    fn open(&mut self, now: Now, datagram: &Datagram) {
        let header = parse_transport_header(&datagram.bytes).unwrap();
        let counter = header.counter.as_u64();
        let Some(session) = self.sessions.get(&header.receiver).cloned() else { return };
        if !session.may_receive(now.boot) || !session.looks_new(counter) {
            return;
        }
        let mut text = datagram.bytes[TRANSPORT_HEADER_LEN..].to_vec();
        let nonce = aead::counter_nonce(counter);
        let mut segment = [aead::OpenSegment { nonce, aad: &[], text: &mut text, authentic: false }];
        if session.opening_key().open(&mut segment) == 0 || !session.replay().commit(counter) {
            return;
        }
        text.truncate(text.len() - aead::TAG_LEN);
        let name = (session.local_index(), fingerprint(session.sealing_key()), counter);
        assert!(self.accepted.insert(name), "a plaintext was accepted twice");

        let id = session.peer();
        if session.confirm() {
            // At once, as our data plane does it; the device has the last word.
            self.links.get_mut(&id).unwrap().current = Some(session.clone());
            self.device.handle_session_confirmed(now, &session);
        }
        let link = self.links.get_mut(&id).unwrap();
        link.endpoint = Some(datagram.from);
        let tell = if text.is_empty() {
            link.activity.keepalive_received(now.boot)
        } else {
            link.activity.data_received(now.boot)
        };
        self.report(now, id, tell);
        if session.rekey_due_on_receive(now.boot) {
            self.device.handle_rekey_due(now, id);
        }
        self.arrived.push(text);
    }

    fn report(&mut self, now: Now, id: PeerId, tell: bool) {
        if tell {
            self.activity_calls += 1;
            self.device.handle_activity(now, id);
        }
    }
}

/// Names a sealing key without knowing it: the tag of nothing under a nonce that is no counter.
pub fn fingerprint(key: &aead::SealingKey) -> [u8; 16] {
    let mut tag = [0; 16];
    key.seal(&mut [aead::SealSegment { nonce: [0xff; 12], aad: b"name", head: 0, body: &[], out: &mut tag }]);
    tag
}

/// Two nodes that know each other, node 1 and node 2, both up. Only the first knows where the other is.
pub fn pair(now: Now) -> (Node, Node) {
    let (mut a, mut b) = (Node::new(now, 1), Node::new(now, 2));
    a.add_peer(now, key(2).public(), Some(b.address));
    b.add_peer(now, key(1).public(), None);
    (a, b)
}

/// Delivers everything both ways until nothing is under way.
pub fn exchange(now: Now, a: &mut Node, b: &mut Node) {
    loop {
        if let Some(datagram) = a.out.pop_front() {
            b.receive(now, &datagram);
        } else if let Some(datagram) = b.out.pop_front() {
            a.receive(now, &datagram);
        } else {
            return;
        }
    }
}

/// Two nodes after a handshake that the first began, with a message from it delivered.
pub fn connected(now: Now) -> (Node, Node) {
    let (mut a, mut b) = pair(now);
    a.send(now, b"hello");
    exchange(now, &mut a, &mut b);
    assert!(a.current().is_some() && b.current().is_some());
    for node in [&mut a, &mut b] {
        node.arrived.clear();
        node.told.clear();
    }
    (a, b)
}

//! A small world: two nodes, a network, and an adversary who owns it. Everything that happens follows from one seed.
//!
//! While hostile, the adversary drops, repeats, delays, reorders and corrupts what is sent, sends again what it recorded long
//! ago, makes nodes appear at other addresses, invents messages, sets wall clocks, and lets a node sleep. Then the world heals: the
//! network is perfect from there on, and what was sent must arrive.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use noise::message::MessageType;
use noise::{Drop, Instant, Now, PresharedKey};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use std::sync::Arc;

use super::vault::Vault;
use super::{Datagram, Node, address, at, at_wall, key, millis, secs};

/// How hostile the adversary is, in percent of datagrams.
#[derive(Clone, Copy, Debug)]
pub struct Hostility {
    pub drop: u32,
    pub repeat: u32,
    pub delay: u32,
    pub corrupt: u32,
    pub roam: u32,
}

const PEACE: Hostility = Hostility { drop: 0, repeat: 0, delay: 0, corrupt: 0, roam: 0 };
const TRANSIT: Duration = millis(20);
const REMEMBERED: usize = 64;

pub struct World {
    /// Tell what is sent.
    pub trace: bool,
    rng: ChaCha8Rng,
    pub time: Duration,
    pub nodes: [Node; 2],
    preshared: PresharedKey,
    /// How often a node has died.
    pub deaths: usize,
    hostility: Hostility,
    /// What is under way, by arrival and then by number.
    network: BTreeMap<(Duration, u64), Datagram>,
    sent: u64,
    /// What the adversary recorded.
    memory: Vec<Datagram>,
    asleep_until: [Duration; 2],
    wall_offset: [i64; 2],
    /// Of both traffic patterns, when the next message is due.
    next_message: [Option<Duration>; 2],
    pace: [Option<Duration>; 2],
    next_mischief: Option<Duration>,
    next_number: u32,
    received: HashSet<Vec<u8>>,
    /// Messages that were sent and have not arrived, with the time of sending.
    pub missing: BTreeMap<u32, Duration>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, false)
    }

    /// One in which nodes die, and leave their sessions to successors.
    pub fn mortal(seed: u64) -> Self {
        Self::with(seed, true)
    }

    fn with(seed: u64, mortal: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let now = at(secs(0));
        let mut nodes = [1, 2].map(|n| {
            let mut bytes = [n; 32];
            rng.fill_bytes(&mut bytes[..31]);
            let mut device = noise::Device::new(bytes);
            let vault = mortal.then(Vault::default);
            if let Some(vault) = &vault {
                device.set_lender(Arc::new(vault.clone()));
            }
            device.set_private_key(now, Some(key(n)));
            device.set_up(now, true);
            Node { vault, ..Node::with(device, address(n)) }
        });
        nodes[0].add_peer(now, key(2).public(), Some(address(2)));
        nodes[1].add_peer(now, key(1).public(), Some(address(1)));
        let mut preshared = PresharedKey::default();
        if rng.next_u32() % 2 == 0 {
            preshared = PresharedKey::from_bytes([3; 32]);
            for node in &mut nodes {
                let peer = node.peer();
                node.device.set_preshared_key(now, peer, preshared.clone());
            }
        }
        let pace = |rng: &mut ChaCha8Rng| Some(millis(u64::from(rng.next_u32() % 20_000) + 200));
        let pace = match rng.next_u32() % 4 {
            0 => [pace(&mut rng), None],
            1 => [None, pace(&mut rng)],
            _ => [pace(&mut rng), pace(&mut rng)],
        };
        let mut percent = |limit: u32| rng.next_u32() % (limit + 1);
        let hostility = Hostility {
            drop: percent(60),
            repeat: percent(30),
            delay: percent(50),
            corrupt: percent(20),
            roam: percent(10),
        };
        Self {
            trace: false,
            rng,
            time: secs(0),
            nodes,
            preshared,
            deaths: 0,
            hostility,
            network: BTreeMap::new(),
            sent: 0,
            memory: Vec::new(),
            asleep_until: [secs(0); 2],
            wall_offset: [0; 2],
            next_message: pace.map(|pace| pace.map(|_| secs(0))),
            pace,
            next_mischief: Some(secs(1)),
            next_number: 0,
            received: HashSet::new(),
            missing: BTreeMap::new(),
        }
    }

    /// From now on everything arrives, in order.
    pub fn heal(&mut self) {
        self.hostility = PEACE;
        self.next_mischief = None;
        self.asleep_until = [self.time; 2];
    }

    /// Everyone falls silent.
    pub fn stop_talking(&mut self) {
        self.next_message = [None; 2];
    }

    /// How many datagrams were ever sent.
    pub fn datagrams(&self) -> u64 {
        self.sent
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        self.rng.next_u32() % limit
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    fn now(&self, n: usize) -> Now {
        let wall = 1_700_000_000_i64 + self.wall_offset[n];
        at_wall(self.time, Duration::from_secs(wall.max(0) as u64) + self.time)
    }

    /// Lets `span` pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.time + span;
        while let Some(next) = self.next_event().filter(|&next| next <= end) {
            self.time = self.time.max(next);
            self.step();
        }
        self.time = end;
    }

    fn next_event(&self) -> Option<Duration> {
        let start = at(secs(0)).boot;
        let timers = [0, 1].map(|n| {
            let deadline = self.nodes[n].device.poll_timeout()?;
            Some(deadline.saturating_since(start).max(self.asleep_until[n]))
        });
        let messages = [0, 1].map(|n| Some(self.next_message[n]?.max(self.asleep_until[n])));
        let arrival = self.network.first_key_value().map(|(&(time, _), _)| time);
        timers.into_iter().chain(messages).chain([arrival, self.next_mischief]).flatten().min()
    }

    fn step(&mut self) {
        while let Some(entry) = self.network.first_entry().filter(|entry| entry.key().0 <= self.time) {
            let datagram = entry.remove();
            self.deliver(&datagram);
        }
        for n in [0, 1] {
            if self.asleep_until[n] > self.time {
                continue;
            }
            let now = self.now(n);
            if self.nodes[n].device.poll_timeout().is_some_and(|deadline| deadline <= now.boot) {
                self.nodes[n].timeout(now);
                assert!(
                    self.nodes[n].device.poll_timeout().is_none_or(|deadline| deadline > now.boot),
                    "a deadline stayed after it was handled"
                );
            }
            if self.next_message[n].is_some_and(|due| due <= self.time) {
                self.talk(n, now);
            }
            self.collect(n);
        }
        if self.next_mischief.is_some_and(|due| due <= self.time) {
            self.mischief();
            let pause = millis(u64::from(self.below(8000)) + 100);
            self.next_mischief = Some(self.time + pause);
        }
    }

    fn talk(&mut self, n: usize, now: Now) {
        let mut message = self.next_number.to_le_bytes().to_vec();
        message.push(n as u8);
        self.missing.insert(self.next_number, self.time);
        self.next_number += 1;
        self.nodes[n].send(now, &message);
        self.next_message[n] = self.pace[n].map(|pace| self.time + pace);
    }

    /// Takes what a node sent into the network, as the adversary likes it.
    fn collect(&mut self, n: usize) {
        while let Some(mut datagram) = self.nodes[n].out.pop_front() {
            self.sent += 1;
            if self.trace {
                let told = std::mem::take(&mut self.nodes[n].told);
                let (kind, len) = (datagram.kind(), datagram.bytes.len());
                eprintln!("{:?} node {n} {told:?} sends {kind:?} of {len} to {}", self.time, datagram.to);
            }
            if self.memory.len() < REMEMBERED {
                self.memory.push(datagram.clone());
            } else if self.hostility.drop != 0 {
                let at = self.below(REMEMBERED as u32) as usize;
                self.memory[at] = datagram.clone();
            }
            if self.chance(self.hostility.roam) {
                datagram.from = alias(datagram.from, self.below(4) as u8);
            }
            let copies = 1 + u32::from(self.chance(self.hostility.repeat));
            for _ in 0..copies {
                if self.chance(self.hostility.drop) {
                    continue;
                }
                let mut copy = datagram.clone();
                if self.chance(self.hostility.corrupt) {
                    self.corrupt(&mut copy);
                }
                let late = if self.chance(self.hostility.delay) { self.below(9000) } else { 0 };
                self.post(copy, millis(late.into()));
            }
        }
    }

    fn corrupt(&mut self, datagram: &mut Datagram) {
        match self.below(8) {
            0 => datagram.bytes.truncate(self.rng.next_u32() as usize % datagram.bytes.len()),
            1 => datagram.bytes.push(0),
            _ => {
                let at = self.below(datagram.bytes.len() as u32) as usize;
                datagram.bytes[at] ^= 1 << self.below(8);
            }
        }
    }

    fn post(&mut self, datagram: Datagram, late: Duration) {
        let number = self.sent * 16 + self.network.len() as u64;
        self.network.insert((self.time + TRANSIT + late, number), datagram);
    }

    fn mischief(&mut self) {
        let n = self.below(2) as usize;
        match self.below(12) {
            0..5 if !self.memory.is_empty() => {
                let at = self.below(self.memory.len() as u32) as usize;
                let mut datagram = self.memory[at].clone();
                if self.chance(30) {
                    datagram.from = alias(datagram.from, 9);
                }
                if self.chance(20) {
                    self.corrupt(&mut datagram);
                }
                self.post(datagram, secs(0));
            }
            5 => self.invent(n),
            6 => self.wall_offset[n] = i64::from(self.below(200_000)) - 100_000,
            7 => {
                let limit = if self.chance(20) { 700 } else { 40 };
                self.asleep_until[n] = self.time + secs(self.below(limit).into());
            }
            8 | 9 => self.nodes[n].under_load = !self.nodes[n].under_load,
            10 if self.nodes[n].vault.is_some() => self.die(n),
            _ => {}
        }
    }

    /// Ends a node at once, and puts another in its place, which knows no more than what the data plane kept.
    fn die(&mut self, n: usize) {
        let now = self.now(n);
        let vault = self.nodes[n].vault.clone().unwrap();
        vault.die();
        self.deaths += 1;
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let mut device = noise::Device::new(seed);
        device.set_lender(Arc::new(vault.clone()));
        device.set_private_key(now, Some(key(n as u8 + 1)));
        let up_first = self.chance(50);
        device.set_up(now, up_first);
        let own = self.nodes[n].address;
        let next = Node { vault: Some(vault), ..Node::with(device, own) };
        let mut former = std::mem::replace(&mut self.nodes[n], next);
        let node = &mut self.nodes[n];
        node.succeed(&mut former);
        node.drops = std::mem::take(&mut former.drops);
        let endpoint = former.links[&former.peer()].endpoint;
        node.add_peer_with(now, key(2 - n as u8).public(), self.preshared.clone(), endpoint);
        node.device.set_up(now, true);
        node.settle(now);
        self.collect(n);
    }

    /// A message of the right form that nobody sent.
    fn invent(&mut self, n: usize) {
        let (kind, len) = [(1, 148), (2, 92), (3, 64), (4, 32), (4, 96), (0, 148)][self.below(6) as usize];
        let mut bytes = vec![0; len];
        self.rng.fill_bytes(&mut bytes[4..]);
        bytes[0] = kind;
        if kind != 1 && kind != 0 && self.chance(50) {
            // Indices are no secret from who owns the network.
            let node = &self.nodes[n];
            if let Some(index) = node.sessions.keys().next() {
                let at = if kind == 2 { 8 } else { 4 };
                bytes[at..at + 4].copy_from_slice(&index.as_u32().to_le_bytes());
            }
        }
        let from = SocketAddr::from(([192, 0, 2, 1], 9));
        let to = self.nodes[n].address;
        self.post(Datagram { from, to, bytes }, secs(0));
    }

    fn deliver(&mut self, datagram: &Datagram) {
        let n = if owner(datagram.to) == owner(self.nodes[0].address) { 0 } else { 1 };
        if owner(datagram.to) != owner(self.nodes[n].address) || self.asleep_until[n] > self.time {
            return;
        }
        let now = self.now(n);
        let node = &mut self.nodes[n];
        let endpoint = node.links[&node.peer()].endpoint;
        let (drops, arrived) = (node.drops.len(), node.arrived.len());
        assert!(node.out.is_empty());
        node.receive(now, datagram);
        self.check_answer(n, datagram, endpoint, drops, arrived);
        for message in self.nodes[n].arrived.split_off(arrived) {
            if message.is_empty() {
                continue;
            }
            assert_ne!(message[4], n as u8, "a message came back to its sender");
            assert!(self.received.insert(message.clone()), "a message was delivered twice");
            let number = u32::from_le_bytes(*message.first_chunk().unwrap());
            self.missing.remove(&number);
        }
        self.collect(n);
    }

    /// What does not authenticate changes nothing and has no answer, but for a cookie reply under load.
    fn check_answer(
        &self,
        n: usize,
        datagram: &Datagram,
        endpoint: Option<SocketAddr>,
        drops_before: usize,
        arrived_before: usize,
    ) {
        let node = &self.nodes[n];
        let dropped = node.drops.get(drops_before);
        let kind = MessageType::of(&datagram.bytes);
        let is_data = kind == Some(MessageType::Transport);
        let authentic = if is_data { node.arrived.len() > arrived_before } else { dropped.is_none() };
        let endpoint_now = node.links[&node.peer()].endpoint;
        if !authentic || kind == Some(MessageType::CookieReply) {
            assert_eq!(endpoint_now, endpoint, "the endpoint moved without proof");
        }
        for answer in &node.out {
            let response = answer.kind();
            match kind {
                _ if dropped == Some(&Drop::CookieSent) => {
                    assert!(node.under_load && node.out.len() == 1);
                    assert_eq!((response, answer.to), (MessageType::CookieReply, datagram.from));
                }
                Some(MessageType::Initiation) => {
                    assert!(authentic && node.out.len() == 1, "an initiation has one answer");
                    assert_eq!((response, answer.to), (MessageType::Response, datagram.from));
                }
                // Rekeying may begin with data, and a confirmed session sends what waited.
                Some(MessageType::Response | MessageType::Transport) => assert!(authentic),
                Some(MessageType::CookieReply) | None => panic!("answered what has no answer"),
            }
            if !authentic || kind == Some(MessageType::Initiation) {
                assert!(answer.bytes.len() < datagram.bytes.len(), "an answer is larger than its request");
            }
        }
    }

    /// The moment, for direct calls on a node.
    pub fn instant(&self) -> Instant {
        self.now(0).boot
    }
}

/// Another address of the same node.
fn alias(address: SocketAddr, n: u8) -> SocketAddr {
    let SocketAddr::V4(v4) = address else { return address };
    let [a, b, _, d] = v4.ip().octets();
    SocketAddr::from(([a, b, n, d], 1000 + u16::from(n)))
}

/// Which node an address belongs to.
fn owner(address: SocketAddr) -> Option<u8> {
    match address {
        SocketAddr::V4(v4) if v4.ip().octets()[0] == 10 => Some(v4.ip().octets()[3]),
        _ => None,
    }
}

//! A device over a data plane that only keeps the books: what control told it is what the tests look at.

mod clients;
mod configuration;
mod network;
mod policy;

use crate::device::{Device, DeviceConfig};
use crate::lock::lock;
use config::address::NumericZones;
use config::uapi::{ReplyReader, reply_to_get};
use inet::allowed::AllowedIps;
use inet::{Cidr, Endpoint};
use linux::poll::EventFd;
use linux::udp::{Received, Socket};
use noise::{Activity, Inherited, Label, Lender, Lent, Mac1Checker, Notes, PeerId, Session, Tag};
use plane::policy::{PeerRule, RuleCount};
use plane::{AllowedIpChange, ControlDrop, DataPlane, PlaneEvent, Traffic};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

/// What the data plane knows of a peer.
#[derive(Default)]
struct Entry {
    endpoint: Option<Endpoint>,
    traffic: Traffic,
    current: Option<Arc<Session>>,
    keepalives: usize,
    dropped: usize,
}

struct Books {
    peers: BTreeMap<PeerId, Entry>,
    allowed: AllowedIps<PeerId, ()>,
    sessions: BTreeSet<u32>,
    sockets: Option<Vec<Vec<Socket>>>,
    /// How often the sockets were changed.
    rebound: usize,
    drops: Vec<ControlDrop>,
    strays: Vec<Vec<u8>>,
    /// The rules, and how often they were fresh.
    policy: Vec<PeerRule>,
    fresh: u64,
    lending: Lending,
}

/// Whom it was asked to lend to, by what tag. It lends notes.
#[derive(Clone, Default)]
struct Lending(Arc<Mutex<Asked>>);

type Asked = Vec<(PeerId, Option<Tag>)>;

impl Lender for Lending {
    fn notes(&self, peer: PeerId, tag: Option<&Tag>) -> Option<Lent<Notes>> {
        lock(&self.0).push((peer, tag.copied()));
        Some(Lent::new(0, Box::new(Notes::default())))
    }

    fn retag(&self, peer: PeerId, tag: Option<&Tag>) {
        lock(&self.0).push((peer, tag.copied()));
    }

    fn ledger(&self, _: PeerId) -> Option<Lent<noise::Ledger>> {
        None
    }

    fn inherited(&self, _: PeerId) -> Vec<Inherited> {
        Vec::new()
    }

    fn sent_label(&self) -> Option<Label> {
        None
    }

    fn keep_sent_label(&self, _: &Label) {}

    fn received_label(&self, _: PeerId) -> Option<Label> {
        None
    }

    fn keep_received_label(&self, _: PeerId, _: &Label) {}
}

/// A data plane without packets.
struct Ledger {
    books: Mutex<Books>,
    event: EventFd,
}

impl Ledger {
    fn new() -> Arc<Ledger> {
        let books = Books {
            peers: BTreeMap::new(),
            allowed: AllowedIps::new(),
            sessions: BTreeSet::new(),
            sockets: None,
            rebound: 0,
            drops: Vec::new(),
            strays: Vec::new(),
            lending: Lending::default(),
            policy: Vec::new(),
            fresh: 0,
        };
        Arc::new(Ledger { books: Mutex::new(books), event: EventFd::new().unwrap() })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Books) -> T) -> T {
        f(&mut lock(&self.books))
    }

    fn entry<T>(&self, peer: PeerId, f: impl FnOnce(&mut Entry) -> T) -> T {
        self.with(|books| f(books.peers.get_mut(&peer).expect("a peer that was added")))
    }
}

impl DataPlane for Ledger {
    fn lender(&self) -> Option<Arc<dyn Lender>> {
        Some(Arc::new(self.with(|books| books.lending.clone())))
    }

    fn add_peer(&self, peer: PeerId, _: Arc<Activity>) {
        assert!(self.with(|books| books.peers.insert(peer, Entry::default())).is_none(), "added twice");
    }

    fn remove_peer(&self, peer: PeerId) {
        self.with(|books| {
            books.peers.remove(&peer).expect("a peer that was added");
            books.allowed.remove_owner(peer);
        });
    }

    fn set_endpoint(&self, peer: PeerId, endpoint: Option<Endpoint>) {
        self.entry(peer, |entry| entry.endpoint = endpoint);
    }

    fn endpoint(&self, peer: PeerId) -> Option<Endpoint> {
        self.with(|books| books.peers.get(&peer)?.endpoint)
    }

    fn forget_source(&self, peer: PeerId) {
        self.entry(peer, |entry| entry.endpoint = entry.endpoint.map(|endpoint| endpoint.addr.into()));
    }

    fn hold_sources(&self, _: bool) {}

    fn doubt_sources(&self) {}

    fn refuse_source(&self, peer: PeerId, _: Endpoint, _: u32) {
        self.forget_source(peer);
    }

    fn refused_sources(&self, _: PeerId) -> Vec<Endpoint> {
        Vec::new()
    }

    fn change_allowed_ips(&self, changes: &[AllowedIpChange]) {
        self.with(|books| {
            for change in changes {
                match *change {
                    AllowedIpChange::Insert(prefix, peer) => {
                        assert!(books.peers.contains_key(&peer));
                        books.allowed.insert(prefix, peer, &());
                    }
                    AllowedIpChange::Remove(prefix, peer) => {
                        books.allowed.remove(prefix, peer);
                    }
                    AllowedIpChange::Clear(peer) => {
                        books.allowed.remove_owner(peer);
                    }
                }
            }
        });
    }

    fn allowed_ips(&self, peer: PeerId) -> Vec<Cidr> {
        self.with(|books| books.allowed.of(peer).collect())
    }

    fn set_policy(&self, rules: &[PeerRule], fresh: bool) {
        self.with(|books| {
            books.policy = rules.to_vec();
            books.fresh += u64::from(fresh);
        });
    }

    fn policy(&self) -> Vec<RuleCount> {
        let rules = self.with(|books| books.policy.len()) as u64;
        (0..rules).map(|number| RuleCount { packets: number, bytes: 2 * number, dropped: 0 }).collect()
    }

    fn install_session(&self, session: Arc<Session>) {
        self.with(|books| books.sessions.insert(session.local_index().as_u32()));
    }

    fn set_current_session(&self, peer: PeerId, session: Option<Arc<Session>>) {
        self.entry(peer, |entry| entry.current = session);
    }

    fn retire_session(&self, session: &Session) {
        assert!(self.with(|books| books.sessions.remove(&session.local_index().as_u32())), "was installed");
    }

    fn send_keepalive(&self, peer: PeerId) {
        self.entry(peer, |entry| entry.keepalives += 1);
    }

    fn drop_waiting(&self, peer: PeerId) {
        self.entry(peer, |entry| entry.dropped += 1);
    }

    fn traffic(&self, peer: PeerId) -> Traffic {
        self.with(|books| books.peers.get(&peer).map(|entry| entry.traffic).unwrap_or_default())
    }

    fn count_handshake(&self, peer: PeerId, tx: u64, rx: u64) {
        self.entry(peer, |entry| {
            entry.traffic.tx_bytes += tx;
            entry.traffic.rx_bytes += rx;
        });
    }

    fn set_sockets(&self, workers: Option<Vec<Vec<Socket>>>) {
        self.with(|books| {
            books.sockets = workers;
            books.rebound += 1;
        });
    }

    fn set_mtu(&self, _: u32) {}

    fn find_inner(&self) {}

    fn set_mac1_checker(&self, _: Option<Mac1Checker>) {}

    fn poll_event(&self) -> Option<PlaneEvent> {
        None
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    fn take_stray(&self, _: Received, message: &[u8]) {
        self.with(|books| books.strays.push(message.to_vec()));
    }

    fn count_control_drop(&self, drop: ControlDrop) {
        self.with(|books| books.drops.push(drop));
    }

    fn loads(&self) -> Vec<plane::WorkerLoad> {
        vec![plane::WorkerLoad { wakeups: 7, ..plane::WorkerLoad::default() }]
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        vec![("of-control", self.with(|books| books.drops.len() as u64))]
    }

    fn shutdown(&self) {}
}

/// A device that is down, and its books.
fn device() -> (Arc<Device>, Arc<Ledger>) {
    let plane = Ledger::new();
    let config = DeviceConfig { workers: 1, udp_gso: true, udp_gro: true };
    (Arc::new(Device::new(config, plane.clone()).unwrap()), plane)
}

/// What a get tells, as it stands in the reply.
fn reply(device: &Device) -> String {
    let mut reply = Vec::new();
    device.report(&mut reply).unwrap();
    reply.extend_from_slice(reply_to_get(Ok(())).as_bytes());
    String::from_utf8(reply).unwrap()
}

/// What a get tells.
fn report(device: &Device) -> config::device::Device {
    ReplyReader::new(reply(device).as_bytes()).get(&NumericZones).unwrap()
}

//! The userspace data plane: a TUN device on the inner side, UDP sockets on the outer.
//!
//! One worker for each core ([`worker`]); what they share is in `shared`. The way of a packet, function by function, is
//! told in `docs/packet-flow.md`.

mod crew;
mod drops;
mod events;
#[cfg(fuzzing)]
pub mod hand;
mod icmp;
mod inbound;
mod learn;
mod load;
mod outbound;
mod peer;
mod pool;
mod sender;
mod shared;
mod strays;
#[cfg(test)]
mod tests;
mod waiting;
mod worker;
mod writer;

pub use crew::Helping;

use crate::policy::{Bucket, PeerRule, RuleCount, own_bucket};
use crate::{AllowedIpChange, ControlDrop, DataPlane, Observer, PlaneEvent, Traffic, WorkerLoad};
use crew::Crew;
use drops::Reason;
use inet::{Cidr, Endpoint};
use linux::{
    netns,
    tun::{Offloads, Queue},
    udp::{Received, Socket},
};
use load::Load;
use noise::{Activity, Mac1Checker, PeerId, Session};
use peer::Peer;
use shared::{Command, Shared, Sockets};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering, mpsc::sync_channel},
    thread::JoinHandle,
    time::Duration,
};
use worker::{Worker, WorkerParts};

/// How long control waits for a worker to let go of its sockets. A worker answers between two batches.
const SOCKETS_WAIT: Duration = Duration::from_secs(2);

/// How the data plane is to run.
#[derive(Clone, Copy, Debug)]
pub struct UserspaceConfig {
    /// What the TUN was granted.
    pub offloads: Offloads,
    /// Whether several datagrams may leave in one send.
    pub udp_gso: bool,
    /// The inner device's MTU in bytes.
    pub mtu: u32,
    /// How long a worker that has nothing to do any more looks for work before it sleeps. Zero: not at all.
    pub busy_poll: Duration,
    /// When workers help each other.
    pub helping: Helping,
}

/// Why the data plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// The TUN has no queue to read from.
    #[error("the TUN device has no queue")]
    NoQueue,
    /// Buffers, a wait queue or a thread were refused.
    #[error("cannot start a worker: {0}")]
    Worker(#[from] io::Error),
}

/// The userspace data plane.
pub struct Userspace {
    shared: Arc<Shared>,
    /// A descriptor of the TUN, by which its network namespace is found.
    queue: Queue,
    /// The network namespace that we live in.
    home: OwnedFd,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Userspace {
    /// Starts one worker for each TUN queue.
    pub fn start(queues: Vec<Queue>, config: UserspaceConfig) -> Result<Self, PlaneError> {
        let shared = Arc::new(Shared::new(queues.len(), config.mtu)?);
        let queue = queues.first().ok_or(PlaneError::NoQueue)?.try_clone()?;
        let plane = Self { shared: shared.clone(), queue, home: netns::current()?, threads: Mutex::default() };
        let make = |(number, queue)| {
            let UserspaceConfig { offloads, udp_gso: gso, busy_poll, .. } = config;
            Worker::new(WorkerParts { shared: shared.clone(), number, queue, offloads, gso, busy_poll })
        };
        let workers = queues.into_iter().enumerate().map(make).collect::<io::Result<Vec<Worker>>>()?;
        let crew = Crew::of(&workers, config.helping);
        for (number, worker) in workers.into_iter().enumerate() {
            let crew = crew.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            plane.threads().push(thread.spawn(move || worker.run(crew))?);
        }
        Ok(plane)
    }

    /// Tells `observer` what the workers change by themselves: to be called once, before they have sockets.
    pub fn set_observer(&self, observer: Arc<dyn Observer>) {
        self.shared.set_observer(observer);
    }

    /// The session that we send to the peer with.
    pub fn current_session(&self, peer: PeerId) -> Option<Arc<Session>> {
        self.shared.peer(peer)?.current.load_full()
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts rules in force as [`DataPlane::set_policy`] does, with words for their limits that somebody else has before him as well: each
    /// rule's by its number, asked for where the rules are fresh.
    pub fn set_policy_lending(&self, rules: &[PeerRule], fresh: bool, lend: impl FnMut(usize) -> Bucket) {
        self.shared.policy.set(rules, fresh, lend);
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for link in &self.shared.links {
            link.tell(command());
        }
    }
}

impl DataPlane for Userspace {
    fn add_peer(&self, peer: PeerId, activity: Arc<Activity>) {
        self.shared.insert_peer(Arc::new(Peer::new(peer, activity)));
    }

    fn remove_peer(&self, peer: PeerId) {
        if let Some(removed) = self.shared.remove_peer(peer) {
            removed.remove();
            self.shared.change_routes(|table| {
                table.remove_owner(peer);
            });
            self.drop_waiting_of(&removed);
        }
    }

    fn set_endpoint(&self, peer: PeerId, endpoint: Option<Endpoint>) {
        if let Some(peer) = self.shared.peer(peer) {
            self.shared.set_endpoint(&peer, endpoint);
        }
    }

    fn endpoint(&self, peer: PeerId) -> Option<Endpoint> {
        self.shared.peer(peer)?.endpoint()
    }

    fn forget_source(&self, peer: PeerId) {
        if let Some(peer) = self.shared.peer(peer) {
            peer.forget_source();
        }
    }

    fn hold_sources(&self, held: bool) {
        self.shared.learning.hold(held);
    }

    fn doubt_sources(&self) {
        self.shared.learning.doubt();
    }

    fn refuse_source(&self, peer: PeerId, endpoint: Endpoint, out: u32) {
        if let Some(peer) = self.shared.peer(peer) {
            peer.refuse_source(endpoint, out);
        }
    }

    fn refused_sources(&self, peer: PeerId) -> Vec<Endpoint> {
        self.shared.peer(peer).map(|peer| peer.refused_sources()).unwrap_or_default()
    }

    fn change_allowed_ips(&self, changes: &[AllowedIpChange]) {
        self.shared.change_routes(|table| {
            for change in changes {
                match *change {
                    AllowedIpChange::Insert(cidr, peer) => {
                        if let Some(slot) = self.shared.peer(peer) {
                            table.insert(cidr, peer, &slot);
                        }
                    }
                    AllowedIpChange::Remove(cidr, peer) => {
                        table.remove(cidr, peer);
                    }
                    AllowedIpChange::Clear(peer) => {
                        table.remove_owner(peer);
                    }
                }
            }
        });
    }

    fn allowed_ips(&self, peer: PeerId) -> Vec<Cidr> {
        self.shared.allowed_ips(peer)
    }

    fn set_policy(&self, rules: &[PeerRule], fresh: bool) {
        self.set_policy_lending(rules, fresh, |_| own_bucket());
    }

    fn policy(&self) -> Vec<RuleCount> {
        self.shared.policy.counts()
    }

    fn install_session(&self, session: Arc<Session>) {
        self.shared.install(session);
    }

    fn set_current_session(&self, peer: PeerId, session: Option<Arc<Session>>) {
        if let Some(peer) = self.shared.peer(peer) {
            let usable = session.is_some();
            peer.current.store(session);
            if usable && peer.waiting.load(Ordering::Relaxed) > 0 {
                self.tell_all(|| Command::Flush(peer.clone()));
            }
        }
    }

    fn retire_session(&self, session: &Session) {
        self.shared.retire(session);
    }

    fn send_keepalive(&self, peer: PeerId) {
        if let Some(peer) = self.shared.peer(peer) {
            if peer.waiting.load(Ordering::Relaxed) > 0 {
                self.tell_all(|| Command::Flush(peer.clone()));
            } else {
                self.shared.links[0].tell(Command::Keepalive(peer));
            }
        }
    }

    fn drop_waiting(&self, peer: PeerId) {
        if let Some(peer) = self.shared.peer(peer) {
            self.drop_waiting_of(&peer);
        }
    }

    fn traffic(&self, peer: PeerId) -> Traffic {
        self.shared.peer(peer).map(|peer| peer.traffic()).unwrap_or_default()
    }

    fn count_handshake(&self, peer: PeerId, tx: u64, rx: u64) {
        if let Some(peer) = self.shared.peer(peer) {
            peer.count_tx(tx);
            peer.count_rx(rx);
        }
    }

    fn set_sockets(&self, workers: Option<Vec<Vec<Socket>>>) {
        let mut workers = workers.map(Vec::into_iter);
        let (sender, done) = sync_channel(self.shared.links.len());
        for link in &self.shared.links {
            let sockets = workers.as_mut().and_then(Iterator::next);
            link.sockets.store(sockets.map(|sockets| Arc::new(Sockets::new(sockets))));
            link.tell(Command::Sockets(sender.clone()));
        }
        drop(sender);
        // Until all have answered. Those that have ended have dropped their sender.
        let deadline = std::time::Instant::now() + SOCKETS_WAIT;
        while done.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now())).is_ok() {}
    }

    fn set_mtu(&self, mtu: u32) {
        self.shared.set_mtu(mtu);
    }

    fn find_inner(&self) {
        let way = icmp::Way::to(&self.queue, self.home.as_fd());
        if let Err(error) = &way {
            log::debug!("no ICMP errors will be sent: {error}");
        }
        self.shared.errors.store(way.ok().map(Arc::new));
    }

    fn set_mac1_checker(&self, checker: Option<Mac1Checker>) {
        self.shared.mac1.store(checker.map(Arc::new));
    }

    fn poll_event(&self) -> Option<PlaneEvent> {
        self.shared.events.poll()
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.shared.events.fd()
    }

    fn take_stray(&self, received: Received, message: &[u8]) {
        // The lane of the receiver index, as its place on the wire has it (see `noise::Device::set_lanes`).
        let lane = message.get(4).copied().map_or(0, usize::from);
        if !self.shared.links[lane % self.shared.links.len()].stray(received, message) {
            self.shared.drops.count(Reason::Misplaced, 1);
        }
    }

    fn count_control_drop(&self, drop: ControlDrop) {
        self.shared.drops.count(drop.into(), 1);
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        self.shared.drops.list()
    }

    fn loads(&self) -> Vec<WorkerLoad> {
        self.shared.loads.iter().map(Load::told).collect()
    }

    fn shutdown(&self) {
        self.tell_all(|| Command::Quit);
        for thread in self.threads().drain(..) {
            if thread.join().is_err() {
                log::error!("a worker panicked");
            }
        }
    }
}

impl Userspace {
    fn drop_waiting_of(&self, peer: &Arc<Peer>) {
        if peer.waiting.load(Ordering::Relaxed) > 0 {
            let id = peer.id;
            self.tell_all(|| Command::Drop(id));
        }
    }
}

impl Drop for Userspace {
    fn drop(&mut self) {
        self.shutdown();
    }
}

//! The data plane: userspace's, with the programs in front of it.
//!
//! Every call goes to the userspace plane, and what the programs need of it into the maps. They take the packets that they can handle alone, and leave
//! all others to userspace as if they were not there, so a peer, a session or an address that they are not told of is slower and nothing else.
//! The order of the two follows from that: what begins begins in userspace first, what ends ends in the maps first.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use inet::{Cidr, Endpoint, Source};
use linux::bpf::{Attached, Hook};
use linux::heir::Claim;
use linux::link::Ways;
use linux::poll::{Epoll, Interest};
use linux::tun::Queue;
use linux::udp::{Received, Socket};
use noise::{Activity, Lender, Mac1Checker, PeerId, Session};
use plane::policy::{PeerRule, RuleCount};
use plane::userspace::Userspace;
use plane::{AllowedIpChange, ControlDrop, DataPlane, PlaneEvent, Taken, Traffic, WorkerLoad};

use crate::attach::{Hooks, Inner, Underlays};
use crate::counts;
use crate::events::{Ring, Told};
use crate::heritage::Left;
use crate::keeper::{Against, Desk, Keeper, Watch};
use crate::maps::Maps;
use crate::object::Loaded;
use crate::store::{Lending, Store};

/// A super-packet is cut and sealed in one go, and whatever else the processor has to carry waits for it: 64 KiB take 160 µs, so many bytes 40.
/// The throughput is the same (docs/performance.md).
const SUPER_PACKET_MAX: u32 = 16 << 10;

/// Why the plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The maps cannot be used.
    #[error("the eBPF maps cannot be used: {0}")]
    Maps(io::Error),
    /// The tunnel's interface takes no program.
    #[error("the eBPF program cannot be put on the interface: {0}")]
    Interface(io::Error),
    /// A descriptor or a thread was refused.
    #[error("the ways to peers cannot be followed: {0}")]
    Keeper(io::Error),
}

/// Who has which prefix, as it is in the maps.
#[derive(Default)]
struct Allowed {
    owner: HashMap<Cidr, PeerId>,
    of: HashMap<PeerId, BTreeSet<Cidr>>,
    /// Those that have found no room.
    outside: BTreeSet<Cidr>,
}

/// The eBPF data plane.
pub struct Plane {
    userspace: Arc<Userspace>,
    store: Arc<Store>,
    ring: Ring,
    /// Readable while the ring or userspace has something to say.
    wait: Epoll,
    /// What is to be said before that.
    pending: Mutex<VecDeque<PlaneEvent>>,
    desk: Arc<Desk>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    allowed: Mutex<Allowed>,
    /// Rules that were set while the maps are as another process left them. They are given to the programs with all else.
    rules: Mutex<Option<Vec<PeerRule>>>,
    /// Sessions of which the first message may come to the programs, by slot.
    awaiting: Mutex<HashMap<u32, Weak<Session>>>,
    /// One of those that we send by, to ask for its mark.
    socket: Mutex<Option<Socket>>,
    /// Whether what another process left is ours by now.
    claim: Option<Claim>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole before anything that could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Plane {
    /// Puts the programs in front of a userspace plane that has no sockets yet. `queue` is one of the tunnel's interface. Where an earlier process has
    /// `left` something, what it did goes on, until [`DataPlane::settled`].
    ///
    /// # Errors
    /// See [`StartError`]. Nothing is left behind.
    pub fn start(
        userspace: Arc<Userspace>,
        loaded: Loaded,
        left: Option<Left>,
        queue: Queue,
        hooks: Hooks,
    ) -> Result<Plane, StartError> {
        let claim = left.as_ref().map(|left| left.claim.clone());
        let places = left.map(|left| left.places).unwrap_or_default().into_iter();
        let is_egress = |attached: &Attached| matches!(attached.hook(), Hook::TcxEgress | Hook::FilterEgress);
        let (egress, ingress): (Vec<_>, Vec<_>) = places.partition(is_egress);
        let Loaded { maps, mut programs, too_big } = loaded;
        let (maps, events) = Maps::new(maps).map_err(StartError::Maps)?;
        let store = Arc::new(Store::new(maps, programs.arm.take()).map_err(StartError::Maps)?);
        let ring = Ring::new(events).map_err(StartError::Maps)?;
        let programs = Arc::new(programs);
        let begin = || -> io::Result<_> {
            let wait = Epoll::new()?;
            wait.add(&ring, 0, Interest::READ)?;
            wait.add(userspace.event_fd(), 1, Interest::READ)?;
            let desk = Arc::new(Desk::new(store.clone(), claim.is_some())?);
            let ways = Ways::open()?;
            let inner = Inner::new(queue, programs.clone(), hooks, egress.into_iter().next())?;
            let underlays = Underlays::new(programs.clone(), hooks, ingress);
            Ok((wait, desk.clone(), Keeper::new(desk, userspace.clone(), ways, inner, underlays, too_big)?))
        };
        let (wait, desk, mut keeper) = begin().map_err(StartError::Keeper)?;
        keeper.find_inner().map_err(StartError::Interface)?;
        let thread = std::thread::Builder::new().name("keeper".to_owned());
        let thread = thread.spawn(move || keeper.run()).map_err(StartError::Keeper)?;
        userspace.set_observer(Arc::new(Watch { desk: desk.clone(), userspace: Arc::downgrade(&userspace) }));
        Ok(Plane {
            userspace,
            store,
            ring,
            wait,
            pending: Mutex::default(),
            desk,
            keeper: Mutex::new(Some(thread)),
            allowed: Mutex::default(),
            rules: Mutex::default(),
            awaiting: Mutex::default(),
            socket: Mutex::default(),
            claim,
        })
    }

    /// What became of packets in the programs, by name.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        counts::COUNTS.into_iter().zip(self.store.maps.counts()).collect()
    }

    /// Notices that the sockets have been given another mark, of which nothing tells but that all sources are forgotten then.
    fn follow_mark(&self) {
        let mark = lock(&self.socket).as_ref().and_then(|socket| socket.mark().ok());
        if mark.is_some_and(|mark| mark != self.desk.mark()) {
            self.read_sockets();
        }
    }

    /// Asks the sockets anew what they put on packets.
    fn read_sockets(&self) {
        let facts = lock(&self.socket).as_ref().and_then(|socket| Some((socket.port().ok()?, socket.mark().ok()?)));
        self.desk.set_sockets(facts);
    }

    fn put(&self, allowed: &mut Allowed, prefix: Cidr, peer: PeerId) {
        if let Some(before) = allowed.owner.insert(prefix, peer)
            && let Some(prefixes) = allowed.of.get_mut(&before)
        {
            prefixes.remove(&prefix);
        }
        allowed.of.entry(peer).or_default().insert(prefix);
        let slot = self.store.slot_of(peer);
        let Err(error) = self.store.maps.allow(prefix, slot) else {
            allowed.outside.remove(&prefix);
            return;
        };
        log::debug!("{prefix} finds no room: {error}");
        self.desk.set(Against::Full, true);
        // Some kernels say so even of one that is there, and goes to another peer.
        self.store.maps.disallow(prefix);
        if self.store.maps.allow(prefix, slot).is_err() {
            allowed.outside.insert(prefix);
        }
    }

    fn take(&self, allowed: &mut Allowed, prefix: Cidr, peer: PeerId) {
        if allowed.owner.get(&prefix) == Some(&peer) {
            allowed.owner.remove(&prefix);
            if let Some(prefixes) = allowed.of.get_mut(&peer) {
                prefixes.remove(&prefix);
            }
            self.drop_prefix(allowed, prefix);
        }
    }

    fn clear(&self, allowed: &mut Allowed, peer: PeerId) {
        for prefix in allowed.of.remove(&peer).unwrap_or_default() {
            allowed.owner.remove(&prefix);
            self.drop_prefix(allowed, prefix);
        }
    }

    fn drop_prefix(&self, allowed: &mut Allowed, prefix: Cidr) {
        if !allowed.outside.remove(&prefix) {
            self.store.maps.disallow(prefix);
        }
    }

    /// Room may have been made for allowed IPs that had found none.
    fn let_in(&self, allowed: &mut Allowed) {
        while let Some(prefix) = allowed.outside.first().copied() {
            let slot = allowed.owner.get(&prefix).and_then(|peer| self.store.slot_of(*peer));
            if self.store.maps.allow(prefix, slot).is_err() {
                return;
            }
            allowed.outside.remove(&prefix);
        }
        self.desk.set(Against::Full, false);
    }

    /// Gives the rules to the programs, and to userspace with the words that the programs' limits remember in.
    fn rule(&self, rules: &[PeerRule], fresh: bool) {
        let (maps, slot) = (&self.store.maps, |peer| self.store.slot_of(peer));
        let given = maps.rules.set(maps.device(), rules, fresh, slot);
        if let Err(error) = &given {
            log::error!("the eBPF programs do not get their rules, and everything is left to userspace: {error}");
        }
        // What the programs cannot judge they must not take.
        self.desk.set(Against::Unruled, given.is_err());
        self.userspace.set_policy_lending(rules, fresh, |number| maps.rules.lend(number));
    }

    fn told(&self, told: Told) -> Option<PlaneEvent> {
        match told {
            Told::Activity(slot) => self.store.peer_at(slot).map(PlaneEvent::Activity),
            Told::Rekey(slot) => self.store.peer_at(slot).map(PlaneEvent::RekeyDue),
            Told::Confirmed(slot) => self.confirmed(slot).map(PlaneEvent::SessionConfirmed),
            Told::Lost => {
                log::warn!("the eBPF programs had more to tell than there was room for: all peers are looked at");
                let mut pending = lock(&self.pending);
                for (peer, _) in self.store.peers() {
                    pending.extend([PlaneEvent::Activity(peer), PlaneEvent::RekeyDue(peer)]);
                }
                let slots: Vec<u32> = lock(&self.awaiting).keys().copied().collect();
                pending.extend(
                    slots.into_iter().filter_map(|slot| self.confirmed(slot)).map(PlaneEvent::SessionConfirmed),
                );
                pending.pop_front()
            }
        }
    }

    /// The session of this slot, if a program has confirmed it and nobody has heard of that yet.
    fn confirmed(&self, slot: u32) -> Option<Arc<Session>> {
        let mut awaiting = lock(&self.awaiting);
        let session = awaiting.get(&slot)?.upgrade();
        if session.as_ref().is_some_and(|session| session.awaits_confirmation()) {
            // It is another one that has the slot by now.
            return None;
        }
        awaiting.remove(&slot);
        session.filter(|session| session.confirm())
    }
}

impl DataPlane for Plane {
    fn lender(&self) -> Option<Arc<dyn Lender>> {
        Some(Arc::new(Lending(self.store.clone())))
    }

    fn super_packet_max(&self) -> u32 {
        SUPER_PACKET_MAX
    }

    fn add_peer(&self, peer: PeerId, activity: Arc<Activity>) {
        if activity.slot().is_none() {
            log::info!(
                "peer {} is left to userspace: the eBPF engine has room for {}",
                peer.as_u32(),
                self.store.maps.peers.len()
            );
        }
        self.userspace.add_peer(peer, activity);
        // Known from an earlier process: that is where it is, unless somebody says otherwise.
        if let Some((addr, ip, ifindex)) = self.store.peer(peer).and_then(|(_, memory)| memory.whereabouts()) {
            self.userspace.set_endpoint(peer, Some(Endpoint { addr, source: Some(Source { ip, ifindex }) }));
        }
        self.desk.look_at(peer);
    }

    fn remove_peer(&self, peer: PeerId) {
        {
            let mut allowed = lock(&self.allowed);
            self.clear(&mut allowed, peer);
            self.let_in(&mut allowed);
        }
        self.store.set_current(peer, None);
        self.userspace.remove_peer(peer);
        // Last: from here on the keeper finds no way to it any more.
        if let Some(slot) = self.store.slot_of(peer) {
            self.desk.forget(slot);
        }
    }

    fn set_endpoint(&self, peer: PeerId, endpoint: Option<Endpoint>) {
        self.userspace.set_endpoint(peer, endpoint);
        self.follow_mark();
        self.desk.moved(peer, &self.userspace);
    }

    fn endpoint(&self, peer: PeerId) -> Option<Endpoint> {
        self.userspace.endpoint(peer)
    }

    fn forget_source(&self, peer: PeerId) {
        self.userspace.forget_source(peer);
        self.follow_mark();
        self.desk.look_at(peer);
    }

    fn hold_sources(&self, held: bool) {
        self.userspace.hold_sources(held);
    }

    fn doubt_sources(&self) {
        self.userspace.doubt_sources();
    }

    fn refuse_source(&self, peer: PeerId, endpoint: Endpoint, out: u32) {
        self.userspace.refuse_source(peer, endpoint, out);
        self.desk.look_at(peer);
    }

    fn refused_sources(&self, peer: PeerId) -> Vec<Endpoint> {
        self.userspace.refused_sources(peer)
    }

    fn change_allowed_ips(&self, changes: &[AllowedIpChange]) {
        self.userspace.change_allowed_ips(changes);
        let mut allowed = lock(&self.allowed);
        for change in changes {
            match *change {
                AllowedIpChange::Insert(prefix, peer) => self.put(&mut allowed, prefix, peer),
                AllowedIpChange::Remove(prefix, peer) => self.take(&mut allowed, prefix, peer),
                AllowedIpChange::Clear(peer) => self.clear(&mut allowed, peer),
            }
        }
        if changes.iter().any(|change| !matches!(change, AllowedIpChange::Insert(..))) {
            self.let_in(&mut allowed);
        }
    }

    fn settled(&self) {
        if !self.desk.is_held() {
            return;
        }
        self.store.end_unclaimed();
        let mut allowed = lock(&self.allowed);
        let prefixes = self.store.maps.prefixes();
        if let Err(error) = &prefixes {
            log::error!("the allowed IPs that are left cannot be read, and everything is left to userspace: {error}");
        }
        // Some may lead to peers that are others now.
        self.desk.set(Against::Unknown, prefixes.is_err());
        let gone = prefixes.into_iter().flatten().filter(|prefix| !allowed.owner.contains_key(prefix));
        gone.for_each(|prefix| self.store.maps.disallow(prefix));
        self.let_in(&mut allowed);
        let mut rules = lock(&self.rules);
        // There are some, or the word that there are none.
        if let Some(rules) = rules.take() {
            self.rule(&rules, true);
        }
        // Last: all that the programs go by is there.
        self.desk.release();
    }

    fn allowed_ips(&self, peer: PeerId) -> Vec<Cidr> {
        self.userspace.allowed_ips(peer)
    }

    fn set_policy(&self, rules: &[PeerRule], fresh: bool) {
        let mut waiting = lock(&self.rules);
        if self.desk.is_held() {
            // The programs have sessions, and go on with the rules that they were given until all that holds from now on is in force at once.
            self.userspace.set_policy(rules, fresh);
            *waiting = Some(rules.to_vec());
        } else {
            self.rule(rules, fresh);
        }
    }

    fn policy(&self) -> Vec<RuleCount> {
        let mut counts = self.userspace.policy();
        for (count, fast) in counts.iter_mut().zip(self.store.maps.rules.counts()) {
            count.packets += fast.packets;
            count.bytes += fast.bytes;
            count.dropped += fast.dropped;
        }
        counts
    }

    fn install_session(&self, session: Arc<Session>) {
        self.userspace.install_session(session.clone());
        // One that a program has confirmed while it was taken up is among them: what is in the ring asks for it here.
        if let Some(lent) = session.ledger()
            && session.is_unconfirmed()
        {
            lock(&self.awaiting).insert(lent.slot(), Arc::downgrade(&session));
        }
        self.store.begin(&session);
    }

    fn set_current_session(&self, peer: PeerId, session: Option<Arc<Session>>) {
        match &session {
            None => self.store.set_current(peer, None),
            // What is known of a path's size grows old; sessions come often enough for a look.
            Some(_) => self.desk.look_at(peer),
        }
        self.userspace.set_current_session(peer, session.clone());
        self.store.set_current(peer, session.as_deref());
    }

    fn retire_session(&self, session: &Session) {
        if let Some(lent) = session.ledger() {
            let awaited = lock(&self.awaiting).remove(&lent.slot()).is_some();
            self.store.end(lent.slot());
            if awaited {
                // A program may have confirmed it, and so put it in the place of the one that we send with.
                let current = self.userspace.current_session(session.peer());
                self.store.set_current(session.peer(), current.as_deref());
            }
        }
        self.userspace.retire_session(session);
    }

    fn send_keepalive(&self, peer: PeerId) {
        self.userspace.send_keepalive(peer);
    }

    fn drop_waiting(&self, peer: PeerId) {
        self.userspace.drop_waiting(peer);
    }

    fn traffic(&self, peer: PeerId) -> Traffic {
        let Traffic { tx_bytes, rx_bytes } = self.userspace.traffic(peer);
        let fast = self.store.slot_of(peer).map(|slot| self.store.maps.traffic(slot)).unwrap_or_default();
        Traffic { tx_bytes: tx_bytes + fast.tx_bytes, rx_bytes: rx_bytes + fast.rx_bytes }
    }

    fn count_handshake(&self, peer: PeerId, tx: u64, rx: u64) {
        self.userspace.count_handshake(peer, tx, rx);
    }

    fn set_sockets(&self, workers: Option<Vec<Vec<Socket>>>) {
        // Before the others, so that none of the old ones is left when they are.
        *lock(&self.socket) = workers.iter().flatten().flatten().next().cloned();
        if workers.is_none() {
            self.desk.set_sockets(None);
        }
        self.userspace.set_sockets(workers);
        self.read_sockets();
    }

    fn set_mtu(&self, mtu: u32) {
        self.store.maps.device().inner_mtu.store(mtu, Ordering::Release);
        self.userspace.set_mtu(mtu);
    }

    fn find_inner(&self) {
        self.userspace.find_inner();
        self.desk.look_at_inner();
    }

    fn set_mac1_checker(&self, checker: Option<Mac1Checker>) {
        self.userspace.set_mac1_checker(checker);
    }

    fn poll_event(&self) -> Option<PlaneEvent> {
        if let Some(event) = lock(&self.pending).pop_front() {
            return Some(event);
        }
        while let Some(told) = self.ring.next() {
            if let Some(event) = self.told(told) {
                return Some(event);
            }
        }
        self.userspace.poll_event()
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.wait.as_fd()
    }

    fn take_stray(&self, received: Received, message: &[u8]) {
        self.userspace.take_stray(received, message);
    }

    fn count_control_drop(&self, drop: ControlDrop) {
        self.userspace.count_control_drop(drop);
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        let mut drops = self.userspace.drops();
        counts::add_drops(&mut drops, &self.store.maps.counts());
        drops
    }

    fn programs(&self) -> Vec<(&'static str, u64)> {
        counts::programs(&self.store.maps.counts())
    }

    fn loads(&self) -> Vec<WorkerLoad> {
        self.userspace.loads()
    }

    fn taken(&self) -> Option<Taken> {
        let counts = self.store.maps.counts();
        let count = |what: &str| {
            let at = counts::COUNTS.iter().position(|name| *name == what);
            at.and_then(|at| counts.get(at)).copied().unwrap_or_default()
        };
        Some(Taken { sent: count("sealed"), received: count("opened") + count("keepalive") })
    }

    fn shutdown(&self) {
        // The start has failed, and who has left it keeps it for another.
        let is_ours = self.claim.as_ref().is_none_or(Claim::is_made);
        if is_ours {
            self.store.maps.device().enabled.store(0, Ordering::SeqCst);
        }
        self.desk.end();
        if let Some(keeper) = lock(&self.keeper).take()
            && keeper.join().is_err()
        {
            log::error!("the keeper panicked");
        }
        self.userspace.shutdown();
        if is_ours {
            self.store.end_unclaimed();
            self.store.end_all();
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.shutdown();
    }
}

#[cfg(test)]
mod tests;

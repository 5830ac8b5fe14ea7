//! What all workers share: peers, sessions, routes, and the way to each other.

use super::{
    drops::Drops,
    events::Events,
    icmp::Way,
    learn::{Learning, Learnt},
    load::Load,
    peer::Peer,
    strays::Strays,
};
use crate::Observer;
use crate::policy::Policy;
use arc_swap::{ArcSwap, ArcSwapOption};
use inet::{
    Endpoint,
    allowed::{AllowedIps, Snapshot},
};
#[cfg(not(fuzzing))]
use linux::clock;
use linux::{
    poll::EventFd,
    udp::{Received, Socket},
};
use noise::{Instant, Mac1Checker, PeerId, Session};
use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
        mpsc::SyncSender,
    },
};

/// CLOCK_BOOTTIME, now.
#[inline]
pub(crate) fn now() -> Instant {
    #[cfg(fuzzing)]
    return super::hand::now();
    #[cfg(not(fuzzing))]
    Instant::from_nanos(clock::boot_nanos())
}

/// A session that may receive, and whose it is.
#[derive(Clone)]
pub(crate) struct Installed {
    pub(crate) session: Arc<Session>,
    pub(crate) peer: Arc<Peer>,
}

/// What a receiver index leads to. The map frees what was removed from it at its leisure; the slot is emptied at once, so that a
/// retired session's keys are wiped when its last packet has gone.
struct Slot {
    session: ArcSwapOption<Session>,
    peer: Arc<Peer>,
}

/// The allowed IPs: the half that is written.
struct Allowed {
    table: AllowedIps<PeerId, Arc<Peer>>,
    /// Snapshots that a worker may still be looking at. Whoever drops the last reference frees what only that snapshot
    /// held, perhaps a table of 100,000 entries: that is a writer's work, not a worker's.
    retired: Vec<Arc<Snapshot<Arc<Peer>>>>,
}

/// Sockets of one worker, one for each address family that there is.
pub(crate) struct Sockets(Vec<Socket>);

impl Sockets {
    pub(crate) fn new(sockets: Vec<Socket>) -> Self {
        Self(sockets)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Socket> {
        self.0.iter()
    }

    /// The socket for an address family.
    #[inline]
    pub(crate) fn family(&self, v6: bool) -> Option<&Socket> {
        self.0.iter().find(|socket| socket.is_v6() == v6)
    }
}

/// What a worker is told.
pub(crate) enum Command {
    /// Send what waits for the peer.
    Flush(Arc<Peer>),
    /// Drop what waits for the peer.
    Drop(PeerId),
    /// Send the peer an empty packet.
    Keepalive(Arc<Peer>),
    /// The sockets have changed: look, and answer when the old ones are no longer used.
    Sockets(SyncSender<()>),
    /// End.
    Quit,
}

/// The way to a worker.
pub(crate) struct Link {
    pub(crate) sockets: ArcSwapOption<Sockets>,
    /// Those that the worker has yet to see; `None` once it has ended.
    commands: Mutex<Option<Vec<Command>>>,
    strays: Mutex<Strays>,
    pub(crate) wake: EventFd,
}

impl Link {
    fn new() -> io::Result<Self> {
        let (commands, strays) = (Mutex::new(Some(Vec::new())), Mutex::new(Strays::new()));
        Ok(Self { sockets: ArcSwapOption::empty(), commands, strays, wake: EventFd::new()? })
    }

    /// Tells the worker; one that has ended hears nothing.
    pub(crate) fn tell(&self, command: Command) {
        if let Some(commands) = &mut *lock(&self.commands) {
            commands.push(command);
            self.wake.signal();
        }
    }

    /// Leaves a stray for the worker; false if there are too many already.
    pub(crate) fn stray(&self, received: Received, message: &[u8]) -> bool {
        let taken = lock(&self.strays).push(received, message);
        self.wake.signal();
        taken
    }

    /// Moves the worker's first stray into a buffer.
    pub(crate) fn next_stray(&self, buffer: &mut [u8]) -> Option<Received> {
        lock(&self.strays).pop(buffer)
    }

    /// The worker has ended: it is told nothing more, and whoever waits for its answer need not.
    pub(crate) fn end(&self) {
        *lock(&self.commands) = None;
    }

    /// What was told since the last call.
    pub(crate) fn commands(&self) -> Vec<Command> {
        self.wake.drain();
        lock(&self.commands).as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// What all workers share.
pub(crate) struct Shared {
    peers: RwLock<HashMap<PeerId, Arc<Peer>>>,
    sessions: papaya::HashMap<u32, Slot>,
    routes: ArcSwap<Snapshot<Arc<Peer>>>,
    allowed: Mutex<Allowed>,
    mtu: AtomicU32,
    pub(crate) mac1: ArcSwapOption<Mac1Checker>,
    /// How errors get to the senders of packets, if they do.
    pub(crate) errors: ArcSwapOption<Way>,
    pub(crate) events: Events,
    pub(crate) drops: Drops,
    observer: OnceLock<Arc<dyn Observer>>,
    /// What may pass.
    pub(crate) policy: Policy,
    pub(crate) links: Box<[Link]>,
    pub(crate) loads: Box<[Load]>,
    pub(crate) learning: Learning,
}

impl Shared {
    pub(crate) fn new(workers: usize, mtu: u32) -> io::Result<Self> {
        let links: io::Result<_> = (0..workers).map(|_| Link::new()).collect();
        let table = AllowedIps::new();
        let routes = ArcSwap::from_pointee(table.snapshot());
        Ok(Self {
            peers: RwLock::default(),
            sessions: papaya::HashMap::new(),
            routes,
            allowed: Mutex::new(Allowed { table, retired: Vec::new() }),
            mtu: AtomicU32::new(mtu),
            mac1: ArcSwapOption::empty(),
            errors: ArcSwapOption::empty(),
            events: Events::new()?,
            drops: Drops::new(),
            observer: OnceLock::new(),
            policy: Policy::default(),
            links: links?,
            loads: (0..workers).map(|_| Load::default()).collect(),
            learning: Learning::new()?,
        })
    }

    /// The inner device's MTU in bytes.
    #[inline]
    pub(crate) fn mtu(&self) -> usize {
        self.mtu.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn set_mtu(&self, mtu: u32) {
        self.mtu.store(mtu, Ordering::Relaxed);
    }

    pub(crate) fn peer(&self, id: PeerId) -> Option<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub(crate) fn insert_peer(&self, peer: Arc<Peer>) {
        self.peers.write().unwrap_or_else(PoisonError::into_inner).insert(peer.id, peer);
    }

    pub(crate) fn remove_peer(&self, id: PeerId) -> Option<Arc<Peer>> {
        self.peers.write().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }

    /// Whom to tell what the workers change; the first one stays.
    pub(crate) fn set_observer(&self, observer: Arc<dyn Observer>) {
        let _ = self.observer.set(observer);
    }

    /// The peer's newest packet came from `here`. Whether that has changed where it is sent to, or from where.
    #[inline]
    pub(crate) fn roam(&self, peer: &Peer, here: Endpoint) -> bool {
        let mut asked = None;
        let moved = peer.roam(here, |here| self.look_at_source(here, &mut asked));
        asked.is_some_and(|when| self.forget_if_in_doubt(peer, when)) || moved
    }

    /// Control says where the peer is.
    pub(crate) fn set_endpoint(&self, peer: &Peer, endpoint: Option<Endpoint>) {
        let mut asked = None;
        peer.set_endpoint(endpoint, |here| self.look_at_source(here, &mut asked));
        if let Some(when) = asked {
            self.forget_if_in_doubt(peer, when);
        }
    }

    /// What there is to say of the source of an endpoint. All workers' sockets have the same port and mark.
    #[cold]
    fn look_at_source(&self, here: Endpoint, asked: &mut Option<u64>) -> Learnt {
        *asked = Some(self.learning.epoch());
        let sockets = self.links.first().and_then(|link| link.sockets.load_full());
        self.learning.look(here, sockets.as_deref())
    }

    /// What was found out of a source at that time, and is in force by now, is forgotten if ways out may have changed since: the peer's next packet has it
    /// found out anew. Whether it was.
    #[cold]
    fn forget_if_in_doubt(&self, peer: &Peer, when: u64) -> bool {
        let in_doubt = self.learning.epoch() != when;
        if in_doubt {
            peer.forget_source();
        }
        in_doubt
    }

    /// A worker has changed the peer's endpoint.
    pub(crate) fn tell_moved(&self, peer: PeerId) {
        if let Some(observer) = self.observer.get() {
            observer.endpoint_moved(peer);
        }
    }

    /// A worker has confirmed a session.
    pub(crate) fn session_confirmed(&self, peer: PeerId, session: &Session) {
        if let Some(observer) = self.observer.get() {
            observer.session_confirmed(peer, session);
        }
    }

    /// The session with this receiver index.
    #[inline]
    pub(crate) fn session(&self, index: u32) -> Option<Installed> {
        let sessions = self.sessions.pin();
        let slot = sessions.get(&index)?;
        Some(Installed { session: slot.session.load_full()?, peer: slot.peer.clone() })
    }

    pub(crate) fn install(&self, session: Arc<Session>) {
        if let Some(peer) = self.peer(session.peer()) {
            let index = session.local_index().as_u32();
            self.sessions.pin().insert(index, Slot { session: ArcSwapOption::new(Some(session)), peer });
        }
    }

    pub(crate) fn retire(&self, session: &Session) {
        let (sessions, index) = (self.sessions.pin(), session.local_index().as_u32());
        let is_it = |slot: &Slot| slot.session.load().as_ref().is_some_and(|it| std::ptr::eq(&**it, session));
        // Somebody else's session has the index already if it is not this one.
        if let Some(slot) = sessions.get(&index).filter(|slot| is_it(slot)) {
            slot.session.store(None);
            sessions.remove(&index);
        }
    }

    /// The routes as they are now, to look at for the time of a batch.
    #[inline]
    pub(crate) fn routes(&self) -> arc_swap::Guard<Arc<Snapshot<Arc<Peer>>>> {
        self.routes.load()
    }

    /// Changes the allowed IPs and publishes what came of it, once.
    pub(crate) fn change_routes(&self, change: impl FnOnce(&mut AllowedIps<PeerId, Arc<Peer>>)) {
        let mut allowed = lock(&self.allowed);
        change(&mut allowed.table);
        let old = self.routes.swap(Arc::new(allowed.table.snapshot()));
        allowed.retired.push(old);
        allowed.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }

    pub(crate) fn allowed_ips(&self, peer: PeerId) -> Vec<inet::Cidr> {
        lock(&self.allowed).table.of(peer).collect()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each of these is left whole by every call that changes it, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

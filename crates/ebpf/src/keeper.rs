//! The keeper: a thread that keeps the programs where packets pass, and the ways to peers as they are.
//!
//! It sleeps until something is reported (a route, an address, an interface, a neighbour) or asked for (a peer has moved, the tunnel's interface
//! has). A peer's way is what the kernel would do with a datagram to it: the route with our mark, port and source, the interface's MTU, the next hop's
//! hardware address if it is known. Without a way, or where it leads by something that takes no program, the peer's packets are left to userspace, which
//! sends them as ever, and by that has the kernel find the neighbour, for example.
//!
//! When routes change all ways are looked at. With many peers the next such look waits for a while, so that routes that change all the time cost a part
//! of a processor only; what a peer's own move asks for is not held up.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use inet::Source;
use linux::icmp::TooBig;
use linux::link::{Changes, Interface, Ways};
use linux::memory::hide_stack;
use linux::poll::{Epoll, Event, EventFd, Interest};
use noise::{PeerId, Session};
use plane::{DataPlane, Observer, userspace::Userspace};

use crate::attach::{Inner, Underlays};
use crate::layout::{Path, Peer};
use crate::store::Store;

/// After a look at all peers so many times as long passes before the next.
const REST: u32 = 4;
const REST_MAX: Duration = Duration::from_secs(5);
/// When what could not be looked at is looked at again.
const ONCE_MORE: Duration = Duration::from_millis(100);
/// How long the kernel may take to write down how large a path's packets may be, once that was reported.
const SETTLE: Duration = Duration::from_millis(5);

/// What is to be looked at.
#[derive(Default)]
struct Asked {
    peers: BTreeSet<PeerId>,
    all: bool,
    inner: bool,
    settled: bool,
    end: bool,
}

/// What the keeper and those who ask it share.
pub(crate) struct Desk {
    asked: Mutex<Asked>,
    wake: EventFd,
    /// Where we listen, and the mark of what we send.
    port: AtomicU32,
    mark: AtomicU32,
    /// The maps are as another process left them, and stay so until it is said who the peers are.
    held: AtomicBool,
    /// What there is against it that the programs take packets: a bit for each [`Against`].
    against: Mutex<u32>,
    store: Arc<Store>,
}

/// Why the programs are to leave everything to userspace.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Against {
    /// The device is down.
    Down = 1,
    /// The interface is not here.
    Elsewhere = 2,
    /// Somebody listens at the interface.
    Watched = 4,
    /// Not all allowed IPs have found room, and so none may be believed.
    Full = 8,
    /// Nor if it is not known what a former process has left of them.
    Unknown = 16,
    /// They have not been given the rules that are in force.
    Unruled = 32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked in between left something that is looked at again.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// `held`: see [`Desk::release`].
    pub(crate) fn new(store: Arc<Store>, held: bool) -> io::Result<Desk> {
        Ok(Desk {
            asked: Mutex::default(),
            wake: EventFd::new()?,
            port: AtomicU32::new(0),
            mark: AtomicU32::new(0),
            held: AtomicBool::new(held),
            against: Mutex::new(Against::Down as u32 | Against::Elsewhere as u32),
            store,
        })
    }

    fn ask(&self, what: impl FnOnce(&mut Asked)) {
        what(&mut lock(&self.asked));
        self.wake.signal();
    }

    /// The way to the peer may be another one.
    pub(crate) fn look_at(&self, peer: PeerId) {
        self.ask(|asked| {
            asked.peers.insert(peer);
        });
    }

    /// All ways may be.
    pub(crate) fn look_at_all(&self) {
        self.ask(|asked| asked.all = true);
    }

    /// The tunnel's interface may be somewhere else.
    pub(crate) fn look_at_inner(&self) {
        self.ask(|asked| asked.inner = true);
    }

    /// The keeper is to end.
    pub(crate) fn end(&self) {
        self.ask(|asked| asked.end = true);
    }

    /// The peer is somewhere else: what is still sent there the old way is none of the programs' any more.
    pub(crate) fn moved(&self, peer: PeerId, userspace: &Userspace) {
        if let Some(slot) = self.store.slot_of(peer) {
            let endpoint = userspace.endpoint(peer);
            let mut paths = self.store.paths();
            let same = |remote: SocketAddr, local: IpAddr| {
                endpoint.is_some_and(|now| now.addr == remote && now.source.is_none_or(|Source { ip, .. }| ip == local))
            };
            // Of what a former daemon wrote no more is known than where it leads. While that is right it stays, until the keeper has looked: there may be
            // no daemon in the next moment.
            let stays = match paths.get(slot) {
                Some(path) => same(path.remote, path.local),
                None => {
                    let there = self.store.maps.peers.get(slot).and_then(Peer::whereabouts);
                    there.is_some_and(|(remote, local, _)| same(remote, local))
                }
            };
            if !self.is_held() && !stays {
                paths.set(slot, None);
            }
        }
        self.look_at(peer);
    }

    /// The peer has gone, or is about to.
    pub(crate) fn forget(&self, slot: u32) {
        self.store.paths().set(slot, None);
    }

    /// It is said who the peers are, and all else is in the maps: from here on they tell what holds now, and not what another process left.
    pub(crate) fn release(&self) {
        let mut paths = self.store.paths();
        // What was found meanwhile was not written.
        paths.forget();
        self.held.store(false, Ordering::SeqCst);
        drop(paths);
        self.set_port();
        self.enable(&lock(&self.against));
        self.ask(|asked| (asked.settled, asked.all, asked.inner) = (true, true, true));
    }

    /// Whether the maps are to stay as another process left them.
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    fn set_port(&self) {
        let mut word = [0; 4];
        word[..2].copy_from_slice(&(self.port.load(Ordering::Relaxed) as u16).to_be_bytes());
        if !self.is_held() {
            self.store.maps.device().port.store(u32::from_ne_bytes(word), Ordering::Release);
        }
    }

    /// Where we listen, and the mark of what we send; `None` while the device is down.
    pub(crate) fn set_sockets(&self, facts: Option<(u16, u32)>) {
        if let Some((port, mark)) = facts {
            self.port.store(port.into(), Ordering::Relaxed);
            self.mark.store(mark, Ordering::Relaxed);
            self.set_port();
        }
        self.set(Against::Down, facts.is_none());
        self.look_at_all();
    }

    /// The mark of what we send, as far as it was told.
    pub(crate) fn mark(&self) -> u32 {
        self.mark.load(Ordering::Relaxed)
    }

    /// Whether something stands against it that the programs take packets.
    pub(crate) fn set(&self, what: Against, stands: bool) {
        let (mut against, bit) = (lock(&self.against), what as u32);
        let before = *against;
        *against = if stands { before | bit } else { before & !bit };
        // Under the lock: two who tell different things at once must not both have looked before.
        self.enable(&against);
        match (what, stands) {
            _ if before == *against => (),
            (Against::Watched, true) => {
                log::info!(
                    "somebody listens at the interface: all packets are left to userspace, where they are heard"
                );
            }
            (Against::Watched, false) => log::info!("nobody listens at the interface any more"),
            (Against::Full, true) => {
                log::warn!("there are more allowed IPs than the eBPF engine holds: all packets are left to userspace");
            }
            (Against::Full, false) => log::info!("all allowed IPs have found room in the eBPF engine"),
            _ => (),
        }
    }

    /// Whether it does.
    pub(crate) fn stands(&self, what: Against) -> bool {
        *lock(&self.against) & what as u32 != 0
    }

    fn enable(&self, against: &u32) {
        if !self.is_held() {
            self.store.maps.device().enabled.store((*against == 0).into(), Ordering::SeqCst);
        }
    }
}

/// What the workers change by themselves.
pub(crate) struct Watch {
    pub(crate) desk: Arc<Desk>,
    pub(crate) userspace: std::sync::Weak<Userspace>,
}

impl Observer for Watch {
    fn endpoint_moved(&self, peer: PeerId) {
        if let Some(userspace) = self.userspace.upgrade() {
            self.desk.moved(peer, &userspace);
        }
    }

    fn session_confirmed(&self, peer: PeerId, session: &Session) {
        self.desk.store.set_current(peer, Some(session));
    }
}

/// The keeper's state.
pub(crate) struct Keeper {
    desk: Arc<Desk>,
    userspace: Arc<Userspace>,
    ways: Ways,
    inner: Inner,
    underlays: Underlays,
    wait: Epoll,
    /// Reports that a datagram was too big for a path.
    too_big: Option<TooBig>,
    /// Routes changed since the last look at all peers.
    again: bool,
    next: Instant,
    /// The tunnel's own interface could not be looked at.
    lost_inner: bool,
}

impl Keeper {
    pub(crate) fn new(
        desk: Arc<Desk>,
        userspace: Arc<Userspace>,
        ways: Ways,
        inner: Inner,
        underlays: Underlays,
        too_big: Option<TooBig>,
    ) -> io::Result<Keeper> {
        let wait = Epoll::new()?;
        wait.add(&ways, 0, Interest::READ)?;
        wait.add(&desk.wake, 1, Interest::READ)?;
        for socket in too_big.iter().flat_map(TooBig::sockets) {
            wait.add(socket, 2, Interest::READ)?;
        }
        Ok(Keeper {
            desk,
            userspace,
            ways,
            inner,
            underlays,
            wait,
            too_big,
            again: false,
            next: Instant::now(),
            lost_inner: false,
        })
    }

    /// Looks where the tunnel's interface is.
    ///
    /// # Errors
    /// It cannot be found, or takes no program.
    pub(crate) fn find_inner(&mut self) -> io::Result<()> {
        let was_here = !self.desk.stands(Against::Elsewhere);
        let index = self.inner.find(&mut self.ways)?;
        if let Some(index) = index {
            self.desk.store.maps.device().inner_ifindex.store(index, Ordering::Release);
        }
        self.underlays.belong_to(index);
        self.desk.set(Against::Elsewhere, index.is_none());
        if !was_here && index.is_some() {
            // Without it no underlay has been given programs.
            self.desk.look_at_all();
        }
        let is_watched = |index| self.ways.interface(index).is_ok_and(|interface| interface.is_watched);
        self.desk.set(Against::Watched, index.is_some_and(is_watched));
        if was_here && index.is_none() {
            log::info!(
                "the interface is in another network namespace than its sockets: all packets are left to userspace"
            );
        }
        Ok(())
    }

    /// The same, of an interface that was found before: one error means nothing yet, and programs that were turned off by mistake would carry nothing for
    /// a daemon that dies. So what held holds on until it has been looked for once more.
    pub(crate) fn find_inner_twice(&mut self) {
        let Err(error) = self.find_inner() else {
            self.lost_inner = false;
            return;
        };
        log::info!("the interface is not found: {error}");
        self.lost_inner = !self.lost_inner;
        if self.lost_inner {
            self.again = true;
            self.next = Instant::now() + ONCE_MORE;
        } else {
            self.desk.set(Against::Elsewhere, true);
        }
    }

    /// Runs until it is told to end. What is attached goes with it.
    pub(crate) fn run(mut self) {
        hide_stack();
        let mut events = [Event::EMPTY; 4];
        loop {
            let timeout = self.again.then(|| self.next.saturating_duration_since(Instant::now()));
            if let Err(error) = self.wait.wait(&mut events, timeout) {
                log::error!("ways to peers are not followed any more, and all packets are left to userspace: {error}");
                return self.desk.set(Against::Elsewhere, true);
            }
            self.desk.wake.drain();
            let asked = std::mem::take(&mut *lock(&self.desk.asked));
            if asked.end {
                return self.inner.let_go();
            }
            if let Some(too_big) = &self.too_big
                && too_big.drain(self.desk.port.load(Ordering::Relaxed) as u16)
            {
                // The kernel has it after us. A look that is due already is not put off, since there may be a report for each packet.
                if !self.again {
                    self.next = self.next.max(Instant::now() + SETTLE);
                }
                self.again = true;
            }
            let changes = self.ways.changes();
            let links = changes.links || changes.lost;
            let mut due = asked.peers;
            self.hear(changes, &mut due);
            if asked.settled {
                self.inner.replace();
                self.underlays.replace();
            }
            let all = asked.all || (self.again && Instant::now() >= self.next);
            if all {
                self.again = false;
            }
            if asked.inner || asked.settled || links || (all && self.lost_inner) {
                self.find_inner_twice();
            }
            if all {
                due.extend(self.desk.store.peers().into_iter().map(|(peer, _)| peer));
            }
            let began = Instant::now();
            let mut interfaces = HashMap::new();
            for peer in due {
                self.look(peer, &mut interfaces);
            }
            if all && !self.lost_inner {
                let hops: BTreeSet<_> = self.desk.store.paths().all().map(|(_, path)| path.hop()).collect();
                self.ways.keep_neighbours(|hop| hops.contains(hop));
                self.next = Instant::now() + (began.elapsed() * REST).min(REST_MAX);
            }
        }
    }

    /// Takes in what was reported.
    fn hear(&mut self, changes: Changes, due: &mut BTreeSet<PeerId>) {
        for index in changes.gone {
            self.underlays.forget(index);
        }
        if changes.lost {
            self.underlays.look_for_all(&mut self.ways);
        }
        self.again |= changes.routes || changes.lost;
        if changes.neighbours.is_empty() {
            return;
        }
        let paths = self.desk.store.paths();
        let concerned = |path: &Path| changes.neighbours.contains(&path.hop());
        let slots = paths.all().filter(|(_, path)| concerned(path)).map(|(slot, _)| slot);
        due.extend(slots.filter_map(|slot| self.desk.store.peer_at(slot)));
    }

    /// Finds the way to a peer, and writes it down.
    fn look(&mut self, peer: PeerId, interfaces: &mut HashMap<u32, Option<Interface>>) {
        let Some(slot) = self.desk.store.slot_of(peer) else { return };
        let found = self.find(peer, interfaces);
        let mut paths = self.desk.store.paths();
        // It may have gone meanwhile, and the slot with it.
        if self.desk.is_held() || self.desk.store.slot_of(peer) != Some(slot) {
            return;
        }
        // That there is none is written in any case: what a former daemon wrote is not known.
        if found.is_none() || paths.get(slot) != found.as_ref() {
            paths.set(slot, found);
        }
    }

    fn find(&mut self, peer: PeerId, interfaces: &mut HashMap<u32, Option<Interface>>) -> Option<Path> {
        let endpoint = self.userspace.endpoint(peer)?;
        let (remote, source) = (unmapped(endpoint.addr), endpoint.source);
        let (port, mark) = (self.desk.port.load(Ordering::Relaxed) as u16, self.desk.mark.load(Ordering::Relaxed));
        // An address that means nothing without one goes with its interface.
        let scope = match (remote, source) {
            (SocketAddr::V6(remote), _) if remote.scope_id() != 0 => Some(remote.scope_id()),
            (_, Some(Source { ip: IpAddr::V6(ip), ifindex })) if ip.is_unicast_link_local() => Some(ifindex),
            _ => None,
        };
        let ip = source.map(|source| source.ip);
        if ip.is_some_and(|ip| !self.ways.is_ours(ip)) {
            // Userspace sends the next packet, and forgets the address by that, of which we are told.
            return None;
        }
        let mut way = self.ways.way(remote, ip, scope, port, mark);
        if way.is_err() && ip.is_some() {
            way = self.ways.way(remote, None, scope, port, mark);
        }
        let way = way.ok()??;
        let index = way.interface;
        let interface = interfaces.entry(index).or_insert_with(|| self.ways.interface(index).ok()).as_ref()?;
        if !self.underlays.take(index, interface) {
            return None;
        }
        let next = way.gateway.unwrap_or(remote.ip());
        let macs = self.ways.neighbour(index, next).zip(interface.address);
        let mtu = way.mtu.map_or(interface.mtu, |mtu| mtu.min(interface.mtu));
        Some(Path { remote, local: way.source, gateway: way.gateway, ifindex: index, mtu, macs, mark })
    }
}

/// As IPv4, what is IPv4 written as IPv6.
fn unmapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => addr,
        },
        SocketAddr::V4(_) => addr,
    }
}

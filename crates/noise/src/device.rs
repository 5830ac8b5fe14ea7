//! A device: an identity, its peers, and what is to be done for them.
//!
//! This file is what the user's configuration does to it. A datagram's way is in `device/datagrams.rs`, the making of initiations and the
//! passing of time in `device/timing.rs`, what a data plane lends and an earlier process left in `device/adoption.rs`. All of them change peers and push events; nothing else comes out.
//!
//! A device starts down and without a key. Down, it drops all datagrams, has no deadlines, and its peers have neither sessions nor
//! handshakes. Without a key it makes and answers no handshakes, but remembers which peers wanted one.

mod adoption;
mod datagrams;
mod timing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::activity::Activity;
use crate::cookie::{Guard, Mac1Checker};
use crate::error::AddPeerError;
use crate::event::Event;
use crate::handshake::Identity;
use crate::index::{PeerId, ReceiverIndex};
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::lent::Lending;
use crate::peer::{Peer, Retired};
use crate::random::Randomness;
use crate::replay::Reception;
use crate::session::Session;
use crate::time::{Instant, Now};

/// What exists with a private key.
struct Owner {
    identity: Identity,
    guard: Guard,
}

/// One end of tunnels. See the crate's head for how it is driven.
pub struct Device {
    random: Randomness,
    owner: Option<Owner>,
    is_up: bool,
    /// In the order of creation, since numbers only grow.
    peers: BTreeMap<PeerId, Box<Peer>>,
    by_key: BTreeMap<PublicKey, PeerId>,
    /// Whose handshake or session each of our indices is.
    by_index: BTreeMap<ReceiverIndex, PeerId>,
    next_peer: u32,
    lanes: u32,
    lending: Lending,
    /// Each peer that has a deadline, under its earliest.
    deadlines: BTreeSet<(Instant, PeerId)>,
    events: VecDeque<Event>,
}

impl Device {
    /// A device that is down and has neither key nor peers. Every random byte that it uses comes from a ChaCha20 generator
    /// with this seed, which must be as secret as a key.
    pub fn new(seed: [u8; 32]) -> Device {
        Device {
            random: Randomness::new(seed),
            owner: None,
            is_up: false,
            peers: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_index: BTreeMap::new(),
            next_peer: 0,
            lanes: 1,
            lending: Lending::default(),
            deadlines: BTreeSet::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes another identity, or none. A peer that has the same key is removed. What was agreed under the old identity ends:
    /// handshakes are forgotten, and current sessions of all peers receive only (the kernel's
    /// `wg_noise_expire_current_peer_keypairs`). Peers for which a handshake was wanted or under way get one with the new key; that
    /// is due at once, in [`Device::handle_timeout`].
    pub fn set_private_key(&mut self, now: Now, key: Option<PrivateKey>) {
        if self.private_key() == key.as_ref() {
            return;
        }
        self.owner = key.map(|key| {
            let identity = Identity::new(key);
            Owner { guard: Guard::new(&identity.public, &mut self.random), identity }
        });
        if let Some(own) = self.public_key()
            && let Some(peer) = self.find_peer(&own)
        {
            self.remove_peer(now, peer);
        }
        let ids: Vec<PeerId> = self.peers().collect();
        ids.into_iter().for_each(|id| self.retag(id));
        for (id, peer) in &mut self.peers {
            peer.forget_agreement();
            peer.sessions.close_sending();
            peer.last_handshake_sent = None;
            if let Some(outstanding) = peer.outstanding.take() {
                self.by_index.remove(&outstanding.index);
                peer.handshake_wanted = true;
            }
            if self.is_up && self.owner.is_some() && std::mem::take(&mut peer.handshake_wanted) {
                peer.timers.handshake_wanted(now.boot);
                requeue(&mut self.deadlines, *id, peer);
            }
        }
    }

    /// Our private key.
    pub fn private_key(&self) -> Option<&PrivateKey> {
        self.owner.as_ref().map(|owner| &owner.identity.private)
    }

    /// Our public key.
    pub fn public_key(&self) -> Option<PublicKey> {
        self.owner.as_ref().map(|owner| owner.identity.public)
    }

    /// A checker of mac1 for other threads; `None` without a private key, and useless when that changes.
    pub fn mac1_checker(&self) -> Option<Mac1Checker> {
        self.owner.as_ref().map(|owner| owner.guard.mac1_checker().clone())
    }

    /// Adds a peer.
    ///
    /// # Errors
    /// See [`AddPeerError`].
    pub fn add_peer(&mut self, now: Now, key: PublicKey) -> Result<PeerId, AddPeerError> {
        self.add_peer_with(now, key, PresharedKey::default())
    }

    /// Adds a peer that has a preshared key, or zeros. Sessions that an earlier process left for it are taken up only if this is the key that they
    /// were agreed with (see [`Lender`](crate::Lender)): one that is set later is another.
    ///
    /// # Errors
    /// See [`AddPeerError`].
    pub fn add_peer_with(&mut self, now: Now, key: PublicKey, preshared: PresharedKey) -> Result<PeerId, AddPeerError> {
        if self.public_key() == Some(key) {
            return Err(AddPeerError::OwnKey);
        }
        if let Some(peer) = self.find_peer(&key) {
            return Err(AddPeerError::Exists(peer));
        }
        let id = PeerId::from_u32(self.next_peer);
        self.next_peer = self.next_peer.checked_add(1).ok_or(AddPeerError::Full)?;
        let mut peer = Peer::new(key, self.random.u32() as u8);
        peer.preshared = preshared;
        self.peers.insert(id, Box::new(peer));
        self.by_key.insert(key, id);
        self.borrow(id);
        self.adopt(now, id);
        Ok(id)
    }

    /// Removes a peer, with its sessions.
    pub fn remove_peer(&mut self, _now: Now, peer: PeerId) {
        let Some(mut removed) = self.peers.remove(&peer) else { return };
        self.by_key.remove(&removed.key);
        if let Some(queued) = removed.timers.queued {
            self.deadlines.remove(&(queued, peer));
        }
        if let Some(outstanding) = removed.outstanding.take() {
            self.by_index.remove(&outstanding.index);
        }
        self.retire(removed.sessions.clear());
        self.events.push_back(Event::PeerRemoved { peer });
    }

    /// The peer with this key.
    pub fn find_peer(&self, key: &PublicKey) -> Option<PeerId> {
        self.by_key.get(key).copied()
    }

    /// All peers, in the order in which they were added.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.peers.keys().copied()
    }

    /// A peer's key.
    pub fn peer_key(&self, peer: PeerId) -> Option<PublicKey> {
        self.peers.get(&peer).map(|peer| peer.key)
    }

    /// Sets or, with zeros, clears a peer's preshared key. The next handshake to finish uses it, one that is under way included.
    pub fn set_preshared_key(&mut self, _now: Now, peer: PeerId, key: PresharedKey) {
        if let Some(known) = self.peers.get_mut(&peer)
            && known.preshared != key
        {
            known.preshared = key;
            self.retag(peer);
        }
    }

    /// A peer's preshared key; zeros when it has none.
    pub fn preshared_key(&self, peer: PeerId) -> Option<&PresharedKey> {
        self.peers.get(&peer).map(|peer| &peer.preshared)
    }

    /// Sets after how much silence a packet is sent though there is nothing to say; no time at all means never. Turning it
    /// on sends one at once, or makes a handshake due at once, in [`Device::handle_timeout`]: whoever turns it on for 100,000 peers
    /// is not to wait for as many handshakes.
    pub fn set_persistent_keepalive(&mut self, now: Now, id: PeerId, interval: Option<Duration>) {
        let interval = interval.filter(|interval| !interval.is_zero());
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let turned_on = peer.timers.interval().is_none() && interval.is_some();
        peer.timers.set_interval(interval);
        if !self.is_up {
            return;
        }
        if turned_on {
            peer.timers.start_persistent(now.boot);
            if peer.sessions.current().is_some_and(|session| session.may_send(now.boot)) {
                self.events.push_back(Event::KeepaliveDue { peer: id });
            } else {
                peer.timers.handshake_wanted(now.boot);
            }
        }
        self.reschedule(id);
    }

    /// Tells whether there is an endpoint to send this peer's messages to; of a new peer it is taken for granted. Without one no
    /// handshake is begun; one that was wanted meanwhile is due at once when there is one, in [`Device::handle_timeout`].
    pub fn set_reachable(&mut self, now: Now, id: PeerId, reachable: bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.unreachable = !reachable;
        if reachable && self.is_up && self.owner.is_some() && std::mem::take(&mut peer.handshake_wanted) {
            peer.timers.handshake_wanted(now.boot);
            requeue(&mut self.deadlines, id, peer);
        }
    }

    /// A peer's persistent keepalive interval.
    pub fn persistent_keepalive(&self, peer: PeerId) -> Option<Duration> {
        self.peers.get(&peer)?.timers.interval()
    }

    /// Where the data plane notes what it does for this peer.
    pub fn activity(&self, peer: PeerId) -> Option<Arc<Activity>> {
        self.peers.get(&peer).map(|peer| Arc::clone(&peer.activity))
    }

    /// When a handshake with this peer last completed, since the Unix epoch.
    pub fn last_handshake(&self, peer: PeerId) -> Option<Duration> {
        self.peers.get(&peer)?.last_handshake
    }

    /// What came of a peer's messages, under all sessions since it was added. Both numbers only grow.
    pub fn reception(&self, peer: PeerId) -> Option<Reception> {
        let peer = self.peers.get(&peer)?;
        let mut all = peer.received;
        all += peer.sessions.reception();
        Some(all)
    }

    /// Takes the device up or down. Going down ends all sessions, handshakes and timers (the kernel's `wg_stop`). Coming up makes
    /// every peer with a persistent keepalive due at once, in [`Device::handle_timeout`], and takes up what an earlier process left.
    pub fn set_up(&mut self, now: Now, up: bool) {
        if self.is_up == up {
            return;
        }
        self.is_up = up;
        let ids: Vec<PeerId> = self.peers().collect();
        for id in ids {
            if up {
                self.adopt(now, id);
                let Some(peer) = self.peers.get_mut(&id) else { continue };
                if peer.timers.interval().is_some() {
                    peer.timers.start_persistent(now.boot);
                    if peer.sessions.current().is_some_and(|session| session.may_send(now.boot)) {
                        self.events.push_back(Event::KeepaliveDue { peer: id });
                    } else {
                        peer.timers.handshake_wanted(now.boot);
                    }
                }
            } else {
                self.forget_sessions(id);
                let Some(peer) = self.peers.get_mut(&id) else { continue };
                peer.timers.stop();
                peer.activity.reset();
                peer.last_handshake_sent = None;
                peer.handshake_wanted = false;
                peer.unanswered = 0;
            }
            self.reschedule(id);
        }
    }

    /// The next thing to be done.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Ends a peer's sessions and its handshake.
    fn forget_sessions(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(outstanding) = peer.outstanding.take() {
            self.by_index.remove(&outstanding.index);
        }
        let had_current = peer.sessions.current().is_some();
        let retired = peer.sessions.clear();
        if had_current {
            self.events.push_back(Event::SessionCurrent { peer: id, session: None });
        }
        self.retire(retired);
    }

    fn retire(&mut self, sessions: Retired) {
        for session in sessions.into_iter().flatten() {
            session.revoke();
            if let Some(peer) = self.peers.get_mut(&session.peer()) {
                peer.received += session.replay().reception();
            }
            self.by_index.remove(&session.local_index());
            self.events.push_back(Event::SessionRetired { session });
        }
    }

    /// Into how many lanes peers are divided: as many as there are workers, at most 256. A peer's indices all have the same
    /// low byte modulo this number, by which data finds its worker: a flow that changed workers with each new session could
    /// overtake itself. With one lane, as it is at first, indices are random throughout.
    pub fn set_lanes(&mut self, lanes: usize) {
        self.lanes = lanes.clamp(1, 256) as u32;
    }

    /// A new index for something of this peer's: random, but that it stays in the peer's lane.
    fn take_index(&mut self, peer: PeerId) -> ReceiverIndex {
        let lane = self.peers.get(&peer).map_or(0, |peer| u32::from(peer.lane)) % self.lanes;
        loop {
            let random = self.random.u32();
            let byte = random & 0xff;
            let byte = byte - byte % self.lanes + lane;
            // The last round of lanes may be incomplete: the byte before it is in the same lane.
            let byte = if byte > 0xff { byte - self.lanes } else { byte };
            let index = ReceiverIndex::from_u32(random & !0xff | byte);
            // With fewer than 2^19 indices taken in all, a free one is drawn nearly always.
            if let std::collections::btree_map::Entry::Vacant(entry) = self.by_index.entry(index) {
                entry.insert(peer);
                return index;
            }
        }
    }

    fn install(&mut self, session: &Arc<Session>) {
        self.events.push_back(Event::SessionInstalled { session: Arc::clone(session) });
    }
}

/// Puts a peer into the queue under its earliest deadline, or out of it.
fn requeue(deadlines: &mut BTreeSet<(Instant, PeerId)>, id: PeerId, peer: &mut Peer) {
    let next = peer.timers.next();
    if next == peer.timers.queued {
        return;
    }
    if let Some(queued) = peer.timers.queued {
        deadlines.remove(&(queued, id));
    }
    if let Some(next) = next {
        deadlines.insert((next, id));
    }
    peer.timers.queued = next;
}

//! Who has which slot: the memory that is lent to peers and sessions, and how it comes back.
//!
//! A peer's slot is `free → lent (in_use) → free`, a session's `free → lent → live → ended → free`. A session lives while its epoch is odd
//! ([`Store::begin`], [`Store::end`]); programs use a slot only by a reference with the epoch in it, and look at the epoch again after they have copied a
//! key. So what ends is first taken out of where references are found, then gets an even epoch, and then its keys are overwritten. A slot that
//! came back rests for [`REST`] before it is lent again: by then each program that ran when it ended has ended too (they never sleep, and take
//! some microseconds), so that none writes to memory that is somebody else's by now.
//!
//! What another process left is *unclaimed* at the start: its peers by their tags, its live sessions by their peers' slots. Who asks for memory
//! with such a tag gets that peer's, and its sessions are handed out with it. What nobody claims is ended by [`Store::end_unclaimed`]. A peer without a
//! tag (there was no private key) can be claimed by nobody. Keys that lie in a slot where no session lives are overwritten: a process was killed between writing
//! them and beginning the session, and no timer goes off for them.
//!
//! The ways to peers, too, are written here ([`Store::paths`]), by whoever has the lock; a slot that comes back has none.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use linux::bpf;
use linux::clock;
use noise::limits::REJECT_AFTER_TIME;
use noise::{Inherited, Label, Ledger, Lender, Lent, Notes, PeerId, Session, Tag};
use rustix::io::Errno;

use crate::layout::{LAYOUT, Path, Peer, reference};
use crate::maps::{Mapping, Maps};

/// How long a slot rests.
const REST: Duration = Duration::from_secs(1);

fn unmapped() -> io::Error {
    io::Error::other("a part of the maps that an earlier daemon left cannot be mapped")
}

/// How often a timer is asked for at most.
const ARM_TRIES: u32 = 1000;

/// Slots that nobody has. Those that came back have the time at which they did.
struct Free {
    /// The first that was never lent.
    fresh: u32,
    len: u32,
    resting: VecDeque<(u64, u32)>,
}

impl Free {
    fn take(&mut self) -> Option<u32> {
        let rested = clock::boot_nanos().saturating_sub(REST.as_nanos() as u64);
        if self.resting.front().is_some_and(|(since, _)| *since <= rested) {
            return self.resting.pop_front().map(|(_, slot)| slot);
        }
        (self.fresh < self.len).then(|| {
            self.fresh += 1;
            self.fresh - 1
        })
    }

    fn give_back(&mut self, slot: u32) {
        self.resting.push_back((clock::boot_nanos(), slot));
    }
}

struct Slots {
    free_peers: Free,
    free_sessions: Free,
    slot_of: HashMap<PeerId, u32>,
    peer_at: Vec<Option<PeerId>>,
    /// Of another process: peers by their tags, and sessions with the slot of their peer.
    unclaimed: HashMap<Tag, u32>,
    nobodys: Vec<u32>,
    left: Vec<(u32, u32)>,
}

/// The maps, and who has which slot of them.
pub struct Store {
    /// The maps.
    pub maps: Maps,
    slots: Mutex<Slots>,
    /// By slot. Locked before `slots` by who takes both.
    paths: Mutex<HashMap<u32, Path>>,
    /// Starts the timer that wipes a session's keys, where the programs have one.
    arm: Option<OwnedFd>,
}

/// The ways to peers, as they were written by this process: nobody else writes any meanwhile.
pub struct Paths<'a> {
    maps: &'a Maps,
    written: MutexGuard<'a, HashMap<u32, Path>>,
}

impl Paths<'_> {
    /// What was written for this slot.
    pub fn get(&self, slot: u32) -> Option<&Path> {
        self.written.get(&slot)
    }

    /// All that was written.
    pub fn all(&self) -> impl Iterator<Item = (u32, &Path)> {
        self.written.iter().map(|(slot, path)| (*slot, path))
    }

    /// Writes the way to the peer of this slot; `None` leaves its packets to us.
    pub fn set(&mut self, slot: u32, path: Option<Path>) {
        if let Some(peer) = self.maps.peers.get(slot) {
            peer.set_path(path.as_ref());
        }
        match path {
            Some(path) => self.written.insert(slot, path),
            None => self.written.remove(&slot),
        };
    }

    /// What is there is not known to be what was written here.
    pub fn forget(&mut self) {
        self.written.clear();
    }
}

impl Store {
    /// Over new maps, or those that another process left.
    ///
    /// # Errors
    /// The maps are of another version.
    pub fn new(maps: Maps, arm: Option<OwnedFd>) -> io::Result<Store> {
        let (peers, sessions) = (maps.peers.len(), maps.ledgers.len());
        let free = |len| Free { fresh: len, len, resting: VecDeque::new() };
        let mut slots = Slots {
            free_peers: free(peers),
            free_sessions: free(sessions),
            slot_of: HashMap::new(),
            peer_at: vec![None; peers as usize],
            unclaimed: HashMap::new(),
            nobodys: Vec::new(),
            left: Vec::new(),
        };
        match maps.device().layout.load(Ordering::Acquire) {
            0 => {
                slots.free_peers.fresh = 0;
                slots.free_sessions.fresh = 0;
                maps.device().number.store(clock::boot_nanos() as u32, Ordering::Relaxed);
            }
            LAYOUT => {
                // Not by the mappings that stay, or all of them would.
                let (all_peers, all_ledgers) = (maps.peers.again()?, maps.ledgers.again()?);
                for slot in 0..peers {
                    match all_peers.get(slot) {
                        None => return Err(unmapped()),
                        Some(peer) if peer.in_use.load(Ordering::Acquire) != 0 => {
                            let tag = peer.tag();
                            let other = (tag != [0; 32]).then(|| slots.unclaimed.insert(tag, slot));
                            slots.nobodys.extend(other.unwrap_or(Some(slot)));
                        }
                        _ => slots.free_peers.resting.push_back((0, slot)),
                    }
                }
                for slot in 0..sessions {
                    match all_ledgers.get(slot) {
                        // It would be taken for free, and its counters for nobody's.
                        None => return Err(unmapped()),
                        Some(ledger) if ledger.epoch().load(Ordering::Acquire) % 2 == 1 => {
                            slots.left.push((slot, ledger.peer().load(Ordering::Relaxed)));
                        }
                        _ => {
                            if maps.keys(slot).is_ok_and(|keys| !keys.are_zeros()) {
                                maps.wipe_keys(slot);
                            }
                            slots.free_sessions.resting.push_back((0, slot));
                        }
                    }
                }
            }
            other => return Err(io::Error::other(format!("maps of layout {other}, expected {LAYOUT}"))),
        }
        maps.device().layout.store(LAYOUT, Ordering::Release);
        Ok(Store { maps, slots: Mutex::new(slots), paths: Mutex::default(), arm })
    }

    /// The ways to peers, to be looked at and changed.
    pub fn paths(&self) -> Paths<'_> {
        // Whoever panicked in between left something that is looked at again.
        Paths { maps: &self.maps, written: self.paths.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // Each change under the lock is whole before anything that could panic.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slot of a peer, if it has one.
    pub fn slot_of(&self, peer: PeerId) -> Option<u32> {
        self.slots().slot_of.get(&peer).copied()
    }

    /// The peer of a slot.
    pub fn peer_at(&self, slot: u32) -> Option<PeerId> {
        *self.slots().peer_at.get(slot as usize)?
    }

    /// Peers that have a slot, with it.
    pub fn peers(&self) -> Vec<(PeerId, u32)> {
        self.slots().slot_of.iter().map(|(peer, slot)| (*peer, *slot)).collect()
    }

    /// The memory of a peer's slot.
    pub fn peer(&self, peer: PeerId) -> Option<(u32, &Peer)> {
        let slot = self.slot_of(peer)?;
        self.maps.peers.get(slot).map(|memory| (slot, memory))
    }

    /// Has the programs open messages of this session, if its ledger is lent by us.
    pub fn begin(&self, session: &Session) {
        let Some((lent, (sending, receiving))) = session.ledger().zip(session.keys()) else { return };
        let (slot, ledger) = (lent.slot(), lent.as_ref());
        let epoch = ledger.epoch().load(Ordering::Acquire);
        let live = if epoch % 2 == 1 { epoch } else { epoch.wrapping_add(1) };
        if live != epoch {
            if let Err(error) = self.maps.set_keys(slot, sending, receiving, live) {
                return log::error!("a session is left to userspace, as its keys cannot be written: {error}");
            }
            ledger.epoch().store(live, Ordering::Release);
        }
        self.arm(slot, ledger);
        if let Err(error) = self.maps.add_session(ledger.local_index(), reference(slot, live)) {
            log::error!("a session is left to userspace, as its index cannot be written: {error}");
            self.end(slot);
        }
    }

    /// Starts the timer that wipes the keys when nobody else does.
    fn arm(&self, slot: u32, ledger: &Ledger) {
        let Some(arm) = &self.arm else { return };
        let age = clock::boot_nanos().saturating_sub(ledger.created().as_nanos());
        let after = (REJECT_AFTER_TIME.as_nanos() as u64).saturating_sub(age);
        let mut context = [0; 16];
        context[..4].copy_from_slice(&slot.to_ne_bytes());
        context[8..].copy_from_slice(&after.to_ne_bytes());
        let mut told = bpf::run(arm.as_fd(), &context);
        for _ in 1..ARM_TRIES {
            // The kernel takes the memory for a program's timer where it can be had without waiting, and says ENOMEM where another is at it.
            if !matches!(told, Ok(error) if error.cast_signed() == -Errno::NOMEM.raw_os_error()) {
                break;
            }
            std::thread::yield_now();
            told = bpf::run(arm.as_fd(), &context);
        }
        match told {
            Ok(0) => (),
            Ok(error) => {
                log::warn!("the timer that wipes a session's keys is not set: it says {}", error.cast_signed())
            }
            Err(error) => log::warn!("the timer that wipes a session's keys is not set: {error}"),
        }
    }

    /// What to send to the peer with; `None`, or a session whose ledger is not ours, leaves that to us.
    pub fn set_current(&self, peer: PeerId, session: Option<&Session>) {
        let Some((_, memory)) = self.peer(peer) else { return };
        let lent = session.and_then(Session::ledger);
        let live = lent.map(|lent| (lent.slot(), lent.as_ref().epoch().load(Ordering::Acquire)));
        let current = live.filter(|(_, epoch)| epoch % 2 == 1).map_or(0, |(slot, epoch)| reference(slot, epoch));
        memory.current.store(current, Ordering::SeqCst);
    }

    /// Ends the session of this slot, if it lives.
    pub fn end(&self, slot: u32) {
        let Some(ledger) = self.maps.ledgers.get(slot) else { return };
        let epoch = ledger.epoch().load(Ordering::Acquire);
        if epoch % 2 == 0 {
            return;
        }
        let this = reference(slot, epoch);
        if let Some(peer) = self.maps.peers.get(ledger.peer().load(Ordering::Relaxed)) {
            // Another one may be current by now.
            let _ = peer.current.compare_exchange(this, 0, Ordering::SeqCst, Ordering::Relaxed);
        }
        if self.maps.session(ledger.local_index()) == Some(this) {
            self.maps.remove_session(ledger.local_index());
        }
        ledger.epoch().store(epoch.wrapping_add(1), Ordering::SeqCst);
        self.maps.wipe_keys(slot);
    }

    /// Ends all sessions: nothing is sealed or opened by the programs from here on.
    pub fn end_all(&self) {
        // One that lives is in memory that was asked for.
        let slots = 0..self.maps.ledgers.len();
        slots.filter(|slot| self.maps.ledgers.touched(*slot).is_some()).for_each(|slot| self.end(slot));
    }

    /// Ends what another process left and nobody has asked for. Sessions of peers that were asked for are theirs still.
    pub fn end_unclaimed(&self) {
        let (sessions, peers) = {
            let mut slots = self.slots();
            let (claimed, others) = std::mem::take(&mut slots.left)
                .into_iter()
                .partition(|(_, owner)| matches!(slots.peer_at.get(*owner as usize), Some(Some(_))));
            slots.left = claimed;
            let peers: Vec<u32> = std::mem::take(&mut slots.unclaimed).into_values().collect();
            (others, [peers, std::mem::take(&mut slots.nobodys)].concat())
        };
        self.end_left(sessions);
        peers.into_iter().for_each(|slot| self.free_peer(slot));
    }

    fn end_left(&self, sessions: Vec<(u32, u32)>) {
        for (slot, _) in sessions {
            self.end(slot);
            self.slots().free_sessions.give_back(slot);
        }
    }

    fn free_peer(&self, slot: u32) {
        let left = {
            let mut slots = self.slots();
            let (left, others) = std::mem::take(&mut slots.left).into_iter().partition(|(_, owner)| *owner == slot);
            slots.left = others;
            left
        };
        self.end_left(left);
        // Whoever has found a way to the peer writes it while the peer has the slot, or not at all.
        let mut paths = self.paths();
        paths.set(slot, None);
        if let Some(peer) = self.maps.peers.get(slot) {
            peer.clear();
            peer.in_use.store(0, Ordering::Release);
        }
        let mut slots = self.slots();
        if let Some(peer) = slots.peer_at[slot as usize].take() {
            slots.slot_of.remove(&peer);
        }
        slots.free_peers.give_back(slot);
    }
}

/// The store as the protocol sees it: a lender.
pub struct Lending(pub Arc<Store>);

/// A peer's memory while it is lent.
struct LentPeer {
    memory: Arc<Mapping<Peer>>,
    store: Arc<Store>,
    slot: u32,
}

impl AsRef<Notes> for LentPeer {
    #[inline]
    fn as_ref(&self) -> &Notes {
        match self.memory.get(self.slot) {
            Some(peer) => &peer.notes,
            None => unreachable!("a slot that was found in the map"),
        }
    }
}

impl Drop for LentPeer {
    fn drop(&mut self) {
        self.store.free_peer(self.slot);
    }
}

/// A session's memory while it is lent.
struct LentSession {
    memory: Arc<Mapping<Ledger>>,
    store: Arc<Store>,
    slot: u32,
}

impl AsRef<Ledger> for LentSession {
    #[inline]
    fn as_ref(&self) -> &Ledger {
        match self.memory.get(self.slot) {
            Some(ledger) => ledger,
            None => unreachable!("a slot that was found in the map"),
        }
    }
}

impl Drop for LentSession {
    fn drop(&mut self) {
        self.store.end(self.slot);
        self.store.slots().free_sessions.give_back(self.slot);
    }
}

impl Lending {
    /// Lends what is there.
    fn lend(&self, slot: u32) -> Option<Lent<Ledger>> {
        let (memory, store) = (self.0.maps.ledgers.clone(), self.0.clone());
        memory.get(slot)?;
        Some(Lent::new(slot, Box::new(LentSession { memory, store, slot })))
    }
}

impl Lender for Lending {
    fn notes(&self, peer: PeerId, tag: Option<&Tag>) -> Option<Lent<Notes>> {
        let store = &self.0;
        let (slot, claimed) = {
            let mut slots = store.slots();
            let claimed = tag.and_then(|tag| slots.unclaimed.remove(tag));
            let slot = claimed.or_else(|| slots.free_peers.take())?;
            slots.slot_of.insert(peer, slot);
            slots.peer_at[slot as usize] = Some(peer);
            (slot, claimed.is_some())
        };
        if !claimed {
            store.maps.peers.zero(slot);
            store.maps.reset_traffic(slot);
            let memory = store.maps.peers.get(slot)?;
            memory.set_tag(tag.unwrap_or(&[0; 32]));
            memory.in_use.store(1, Ordering::Release);
        }
        let (memory, store) = (store.maps.peers.clone(), store.clone());
        Some(Lent::new(slot, Box::new(LentPeer { memory, store, slot })))
    }

    fn retag(&self, peer: PeerId, tag: Option<&Tag>) {
        if let Some((_, memory)) = self.0.peer(peer) {
            memory.set_tag(tag.unwrap_or(&[0; 32]));
        }
    }

    fn ledger(&self, peer: PeerId) -> Option<Lent<Ledger>> {
        let slot = {
            let mut slots = self.0.slots();
            let owner = *slots.slot_of.get(&peer)?;
            let slot = slots.free_sessions.take()?;
            let ledger = self.0.maps.ledgers.get(slot)?;
            // Counters begin anew with who gets it. Whatever has brought a session's slot here that still lives: that must not be.
            if ledger.epoch().load(Ordering::Acquire) % 2 == 1 {
                log::error!("a session's slot was free while it lived, and is not used any more");
                return None;
            }
            ledger.peer().store(owner, Ordering::Relaxed);
            slot
        };
        self.lend(slot)
    }

    fn inherited(&self, peer: PeerId) -> Vec<Inherited> {
        let Some((owner, memory)) = self.0.peer(peer) else { return Vec::new() };
        let mine: Vec<u32> = {
            let mut slots = self.0.slots();
            let (mine, others) = std::mem::take(&mut slots.left).into_iter().partition(|(_, of)| *of == owner);
            slots.left = others;
            Vec::into_iter(mine).map(|(slot, _): (u32, u32)| slot).collect()
        };
        let current = memory.current.load(Ordering::Acquire);
        let inherit = |slot| {
            let ledger = self.lend(slot)?;
            let keys = self.0.maps.keys(slot).ok()?;
            // The timer was here.
            if keys.are_zeros() {
                return None;
            }
            let is_current = current == reference(slot, ledger.as_ref().epoch().load(Ordering::Acquire));
            Some(Inherited { ledger, sending: keys.sending, receiving: keys.receiving, is_current })
        };
        mine.into_iter().filter_map(inherit).collect()
    }

    fn sent_label(&self) -> Option<Label> {
        let words = self.0.maps.device().last_tai64n.each_ref().map(|word| word.load(Ordering::Acquire));
        let mut label = Label::default();
        label[..8].copy_from_slice(&words[0].to_be_bytes());
        label[8..].copy_from_slice(&words[1].to_be_bytes()[..4]);
        (label != Label::default()).then_some(label)
    }

    fn keep_sent_label(&self, label: &Label) {
        let mut halves = [[0; 8]; 2];
        halves[0].copy_from_slice(&label[..8]);
        halves[1][..4].copy_from_slice(&label[8..]);
        for (word, half) in self.0.maps.device().last_tai64n.iter().zip(halves) {
            word.store(u64::from_be_bytes(half), Ordering::Release);
        }
    }

    fn received_label(&self, peer: PeerId) -> Option<Label> {
        let label = self.0.peer(peer)?.1.label();
        (label != Label::default()).then_some(label)
    }

    fn keep_received_label(&self, peer: PeerId, label: &Label) {
        if let Some((_, memory)) = self.0.peer(peer) {
            memory.set_label(label);
        }
    }
}

#[cfg(test)]
mod tests;

//! What a device borrows for its peers, and sessions that it takes up from an earlier process.
//!
//! A peer that is added while there is a lender gets its notes from it, under a tag; sessions that were left under the same tag are *inherited*. They
//! are taken up as soon as the device is up: a young enough one becomes current, previous or next as it was, with its counters and its replay window
//! where they stand, so that no counter is used and none accepted again. Timers run as if the handshake had been ours. If the tag changes before
//! that, nothing is taken up; and whatever is not taken up goes back to the lender, which ends it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Device, requeue};
use crate::activity::Activity;
use crate::event::Event;
use crate::index::PeerId;
use crate::key::SharedSecret;
use crate::lent::{Inherited, Lender, Lending, Tag, tag};
use crate::limits::REJECT_AFTER_TIME;
use crate::session::Session;
use crate::time::Now;
use crate::timestamp::Timestamp;

impl Device {
    /// Takes memory for what changes from this lender, for peers and sessions that are added from now on.
    pub fn set_lender(&mut self, lender: Arc<dyn Lender>) {
        self.lending = Lending(Some(lender));
    }

    /// By what an earlier or later process knows the peer; `None` without a private key.
    pub fn tag(&self, peer: PeerId) -> Option<Tag> {
        let owner = self.owner.as_ref()?;
        let peer = self.peers.get(&peer)?;
        Some(tag(&owner.identity.private, &peer.key, &peer.preshared))
    }

    /// Asks for memory for a peer that was just added, and for what is known of it.
    pub(super) fn borrow(&mut self, id: PeerId) {
        let tag = self.tag(id);
        let Some(notes) = self.lending.ask(|lender| lender.notes(id, tag.as_ref())) else { return };
        let received = self.lending.ask(|lender| lender.received_label(id));
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.activity = Arc::new(Activity::lent(notes));
        peer.latest_timestamp = received.map(Timestamp::from_bytes);
        peer.inherits = true;
    }

    /// The peer's tag has changed.
    pub(super) fn retag(&mut self, id: PeerId) {
        let tag = self.tag(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.activity.slot().is_none() {
            return;
        }
        if std::mem::take(&mut peer.inherits) {
            drop(self.lending.0.as_ref().map(|lender| lender.inherited(id)));
        }
        self.lending.tell(|lender| lender.retag(id, tag.as_ref()));
    }

    /// Takes up the sessions that an earlier process left for the peer, if the device is up and it has not been done. Without any the notes that it
    /// may have left mean nothing.
    pub(super) fn adopt(&mut self, now: Now, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id).filter(|_| self.is_up && self.owner.is_some()) else { return };
        if !std::mem::take(&mut peer.inherits) {
            return;
        }
        let inherited = self.lending.0.as_ref().map(|lender| lender.inherited(id)).unwrap_or_default();
        let mut sessions: Vec<(Arc<Session>, bool)> = Vec::new();
        for session in inherited {
            let is_current = session.is_current;
            sessions.extend(self.take_up(now, id, session).map(|session| (session, is_current)));
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // The one that was sent with, or else the youngest that is known to be the peer's too.
        sessions.sort_by_key(|(session, is_current)| (*is_current, !session.awaits_confirmation(), session.created()));
        let Some(youngest) = sessions.iter().map(|(session, _)| session.created()).max() else {
            return peer.activity.reset();
        };
        let current = sessions.pop_if(|(session, _)| !session.awaits_confirmation()).map(|(session, _)| session);
        if let Some(current) = &current {
            peer.last_handshake = Some(now.wall_at(current.created()));
            // Its indices stay in their lane.
            peer.lane = current.local_index().as_u32() as u8;
        }
        peer.timers.session_derived(youngest);
        peer.unreachable = false;
        let rest = sessions.into_iter().map(|(session, _)| session);
        let (taken, left) = peer.sessions.take_up(current.clone(), rest);
        log::debug!("{:?}: {} sessions taken up", peer.key, taken.len());
        for session in left {
            self.by_index.remove(&session.local_index());
        }
        for session in taken {
            self.events.push_back(Event::SessionInstalled { session });
        }
        if let Some(session) = current {
            self.events.push_back(Event::SessionCurrent { peer: id, session: Some(session) });
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.timers.refresh(&peer.activity, &mut self.random, true);
        requeue(&mut self.deadlines, id, peer);
    }

    /// A session as it was left, if it can be used: it lives, is young enough, and its index is not somebody else's.
    fn take_up(&mut self, now: Now, id: PeerId, inherited: Inherited) -> Option<Arc<Session>> {
        let Inherited { ledger, sending, receiving, .. } = inherited;
        let facts = &ledger.as_ref().facts;
        let beginning = facts.beginning();
        let lives = facts.epoch.load(Ordering::Acquire) % 2 == 1;
        let in_time = beginning.created <= now.boot && now.boot.saturating_since(beginning.created) < REJECT_AFTER_TIME;
        if !lives || !in_time || self.by_index.contains_key(&beginning.local_index) {
            return None;
        }
        self.by_index.insert(beginning.local_index, id);
        let keys = [SharedSecret::new(sending), SharedSecret::new(receiving)];
        Some(Arc::new(Session::adopt(id, ledger, keys)))
    }
}

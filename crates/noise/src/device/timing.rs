//! What time does to a device: deadlines, initiations, and what the data plane reports.

use std::sync::Arc;

use super::{Device, requeue};
use crate::event::{Destination, Event, Message};
use crate::handshake::{InitiationOut, Initiator, PROLOGUE};
use crate::index::PeerId;
use crate::limits::{MAX_HANDSHAKE_ATTEMPTS, REKEY_TIMEOUT};
use crate::message::{self, Initiation, SEALED_STATIC_LEN, SEALED_TIMESTAMP_LEN};
use crate::peer::Outstanding;
use crate::session::Session;
use crate::time::{Instant, Now};
use crate::timers::Due;
use crate::timestamp::Timestamp;

/// So many peers are seen to in one call, some milliseconds of work when each makes an initiation. With more due, the next deadline
/// has passed already, and the caller comes back after it has done other things: above all, after it has looked at the answers to
/// the initiations before these, or 100,000 peers could keep it asking until all answers come too late.
const PEERS_PER_CALL: usize = 16;

/// After so many initiations without an answer it is told that handshakes fail, and after as many again. One gets lost now and then, three in 15
/// seconds do not.
const UNANSWERED: u8 = 3;

impl Device {
    /// When [`Device::handle_timeout`] must be called next; `None` when nothing is pending. May have passed already.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Does what is due, for a bounded number of peers: look at [`Device::poll_timeout`] again afterwards.
    pub fn handle_timeout(&mut self, now: Now) {
        for _ in 0..PEERS_PER_CALL {
            match self.deadlines.first() {
                Some(&(deadline, id)) if deadline <= now.boot => self.handle_peer_timeout(now, id),
                _ => return,
            }
        }
    }

    fn handle_peer_timeout(&mut self, now: Now, id: PeerId) {
        let mut keepalive = false;
        loop {
            let Some(peer) = self.peers.get_mut(&id) else { return };
            peer.timers.refresh(&peer.activity, &mut self.random, true);
            let Some(due) = peer.timers.take_due(now.boot, &peer.activity) else { break };
            match due {
                Due::ZeroKeys => self.forget_sessions(id),
                Due::Retransmit => self.retransmit(now, id),
                Due::Deferred => self.request_handshake(now, id),
                Due::NewHandshake => {
                    log::debug!("{:?}: data went unanswered, making a new handshake", peer.key);
                    self.events.push_back(Event::SourceStale { peer: id });
                    self.request_handshake(now, id);
                }
                Due::Keepalive => keepalive = true,
            }
        }
        if keepalive {
            self.send_keepalive(now, id);
        }
        self.reschedule(id);
    }

    fn retransmit(&mut self, now: Now, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.timers.attempts > MAX_HANDSHAKE_ATTEMPTS {
            log::debug!("{:?}: handshake abandoned after {} attempts", peer.key, peer.timers.attempts + 1);
            peer.timers.handshake_abandoned(now.boot, &peer.activity);
            peer.failing = true;
            self.events.push_back(Event::HandshakeAbandoned { peer: id });
            return;
        }
        peer.timers.attempts += 1;
        self.events.push_back(Event::SourceStale { peer: id });
        self.initiate_unless_recent(now, id);
    }

    /// The data plane has something to send and no session to send it with. If there is one after all, it is handed out
    /// again, so that what waits is sent.
    pub fn handle_session_wanted(&mut self, now: Now, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        if let Some(session) = peer.sessions.current().filter(|session| session.may_send(now.boot)) {
            let session = Some(Arc::clone(session));
            self.events.push_back(Event::SessionCurrent { peer: id, session });
            return;
        }
        self.request_handshake(now, id);
        self.reschedule(id);
    }

    /// A session asked to be replaced: `Session::rekey_due_on_send` or `rekey_due_on_receive`.
    pub fn handle_rekey_due(&mut self, now: Now, id: PeerId) {
        self.request_handshake(now, id);
        self.reschedule(id);
    }

    /// A session was used by its initiator for the first time: `Session::confirm`. Tells again which one to send with, whichever it is.
    pub fn handle_session_confirmed(&mut self, now: Now, session: &Session) {
        let id = session.peer();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let retired = peer.sessions.confirm(session);
        // Even if it was displaced before this was heard: who confirmed it may send with it already, and must not go on.
        let current = peer.sessions.current().cloned();
        self.events.push_back(Event::SessionCurrent { peer: id, session: current });
        let Some(retired) = retired else { return };
        peer.timers.handshake_completed();
        // Not when it was confirmed: whoever takes the session up after a restart knows when it was made, and is to tell the same time.
        peer.last_handshake = Some(now.wall_at(session.created()));
        if peer.answered() {
            self.events.push_back(Event::HandshakeAnswered { peer: id });
        }
        self.retire(retired);
        self.reschedule(id);
    }

    /// A note in a peer's `Activity` began to wait for something.
    pub fn handle_activity(&mut self, _now: Now, id: PeerId) {
        self.reschedule(id);
    }

    /// A keepalive, or what it takes to be able to send one.
    pub(super) fn send_keepalive(&mut self, now: Now, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        if peer.sessions.current().is_some_and(|session| session.may_send(now.boot)) {
            self.events.push_back(Event::KeepaliveDue { peer: id });
        } else {
            self.request_handshake(now, id);
        }
    }

    /// A handshake is wanted for a new reason: attempts count from the beginning.
    fn request_handshake(&mut self, now: Now, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.timers.attempts = 0;
        self.initiate_unless_recent(now, id);
    }

    fn initiate_unless_recent(&mut self, now: Now, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !self.is_up {
            return;
        }
        if self.owner.is_none() || peer.unreachable {
            peer.handshake_wanted = true;
            return;
        }
        if let Some(last) = peer.last_handshake_sent
            && now.boot.saturating_since(last) < REKEY_TIMEOUT
        {
            peer.timers.handshake_refused(last, &mut self.random);
            return;
        }
        self.initiate(now, id);
    }

    fn initiate(&mut self, now: Now, id: PeerId) {
        let index = self.take_index(id);
        let (Some(owner), Some(peer)) = (&self.owner, self.peers.get_mut(&id)) else { return };
        let key = peer.key;
        // One that an earlier process sent counts, whomever it sent it to.
        let earlier = || self.lending.ask(|lender| lender.sent_label()).map(Timestamp::from_bytes);
        let timestamp = Timestamp::next(now.wall, peer.last_timestamp.or_else(earlier));
        let mut ephemeral = [0; 32];
        let mut sealed_static = [0; SEALED_STATIC_LEN];
        let mut sealed_timestamp = [0; SEALED_TIMESTAMP_LEN];
        let secret = self.random.key();
        let written = peer.static_static(&owner.identity).and_then(|static_static| {
            let out = InitiationOut {
                ephemeral: &mut ephemeral,
                sealed_static: &mut sealed_static,
                sealed_payload: &mut sealed_timestamp,
            };
            let payload = timestamp.as_bytes();
            Initiator::write(PROLOGUE, &owner.identity, &key, static_static, secret, payload, out).ok()
        });
        let Some(initiator) = written else {
            log::debug!("{key:?}: this key is a point of low order, nothing is sent to it");
            self.by_index.remove(&index);
            return;
        };
        let mut message = message::write_initiation(&Initiation {
            sender: index,
            ephemeral: &ephemeral,
            sealed_static: &sealed_static,
            sealed_timestamp: &sealed_timestamp,
        });
        peer.jar.add_macs(now.boot, &key, &mut message);
        peer.last_timestamp = Some(timestamp);
        self.lending.tell(|lender| {
            if lender.sent_label().is_none_or(|greatest| greatest < *timestamp.as_bytes()) {
                lender.keep_sent_label(timestamp.as_bytes());
            }
        });
        peer.last_handshake_sent = Some(now.boot);
        peer.timers.handshake_initiated(now.boot, &mut self.random);
        peer.activity.handshake_sent(now.boot);
        if let Some(former) = peer.outstanding.replace(Box::new(Outstanding { initiator, index, sent: now.boot })) {
            self.by_index.remove(&former.index);
        }
        if peer.unanswered == UNANSWERED {
            peer.unanswered = 0;
            peer.failing = true;
            self.events.push_back(Event::HandshakesFail { peer: id });
        }
        peer.unanswered += 1;
        let message = Message::new(&message);
        self.events.push_back(Event::Transmit { to: Destination::Peer(id), message });
    }

    /// Brings the peer's place in the queue up to date with its timers, and these with what the data plane noted.
    pub(super) fn reschedule(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if self.is_up {
            peer.timers.refresh(&peer.activity, &mut self.random, false);
        } else {
            peer.activity.reset();
        }
        requeue(&mut self.deadlines, id, peer);
    }
}

//! A handshake datagram's way: parsed, judged by its macs, decrypted, and only then believed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Device, Owner};
use crate::cookie::Verdict;
use crate::error::Drop;
use crate::event::{Destination, Event, Message};
use crate::handshake::{PROLOGUE, Responder};
use crate::index::PeerId;
use crate::limits::{INITIATIONS_PER_SECOND, REKEY_TIMEOUT};
use crate::message::{self, CookieReply, Incoming, Initiation, Response, TIMESTAMP_LEN, macs};
use crate::session::{Session, SessionParts};
use crate::symmetric::SymmetricState;
use crate::time::Now;
use crate::timestamp::Timestamp;

impl Device {
    /// A datagram of types 1 to 3 came in from `src`. `under_load` asks for proof that the source is real before work is done for it. The events
    /// that follow belong to this datagram and are polled before the next.
    ///
    /// # Errors
    /// Why it was dropped. Nothing has changed then, but that a cookie reply may have to be sent.
    pub fn handle_datagram(&mut self, now: Now, src: SocketAddr, bytes: &[u8], under_load: bool) -> Result<(), Drop> {
        if !self.is_up {
            return Err(Drop::Down);
        }
        let Owner { guard, .. } = self.owner.as_ref().ok_or(Drop::NoPrivateKey)?;
        guard.mac1_checker().check(bytes)?;
        self.handle_checked(now, src, bytes, under_load)
    }

    /// As [`Device::handle_datagram`], of a datagram that a [`Mac1Checker`](crate::Mac1Checker) of this device has let pass: the same hash is
    /// not made twice in a flood. One that belonged to a former private key does no harm: what it let pass does not decrypt.
    ///
    /// # Errors
    /// As there.
    pub fn handle_checked(&mut self, now: Now, src: SocketAddr, bytes: &[u8], under_load: bool) -> Result<(), Drop> {
        if !self.is_up {
            return Err(Drop::Down);
        }
        match Incoming::parse(bytes).ok_or(Drop::Malformed)? {
            Incoming::Initiation(initiation) => {
                self.judge(now, src, bytes, under_load)?;
                self.handle_initiation(now, &initiation)
            }
            Incoming::Response(response) => {
                self.judge(now, src, bytes, under_load)?;
                self.handle_response(now, &response)
            }
            Incoming::CookieReply(reply) => self.handle_cookie_reply(now, &reply),
        }
    }

    fn judge(&mut self, now: Now, src: SocketAddr, bytes: &[u8], under_load: bool) -> Result<(), Drop> {
        let Owner { guard, .. } = self.owner.as_mut().ok_or(Drop::NoPrivateKey)?;
        let macs = macs(bytes).ok_or(Drop::Malformed)?;
        match guard.judge(now.boot, src, &macs, under_load, &mut self.random) {
            Verdict::Handle => Ok(()),
            Verdict::RateLimited => Err(Drop::RateLimited),
            Verdict::CookieLimited => Err(Drop::CookieLimited),
            Verdict::AskForCookie => {
                let sender = message::sender(bytes).ok_or(Drop::Malformed)?;
                let reply = guard.reply(now.boot, src, &macs, sender, &mut self.random);
                self.events.push_back(Event::Transmit { to: Destination::Source, message: Message::new(&reply) });
                Err(Drop::CookieSent)
            }
        }
    }

    fn handle_initiation(&mut self, now: Now, initiation: &Initiation<'_>) -> Result<(), Drop> {
        let Owner { identity, .. } = self.owner.as_ref().ok_or(Drop::NoPrivateKey)?;
        let (mut responder, key) =
            Responder::read_static(PROLOGUE, identity, initiation.ephemeral, initiation.sealed_static)
                .map_err(|_| Drop::NotAuthentic)?;
        let id = self.find_peer(&key).ok_or(Drop::UnknownPeer)?;
        let peer = self.peers.get_mut(&id).ok_or(Drop::UnknownPeer)?;
        let static_static = peer.static_static(identity).ok_or(Drop::NotAuthentic)?;
        let mut timestamp = [0; TIMESTAMP_LEN];
        responder
            .read_payload(static_static, initiation.sealed_timestamp, &mut timestamp)
            .map_err(|_| Drop::NotAuthentic)?;

        let timestamp = Timestamp::from_bytes(timestamp);
        if peer.latest_timestamp.is_some_and(|latest| timestamp <= latest) {
            return Err(Drop::Replayed);
        }
        let shortest = Duration::from_secs(1) / INITIATIONS_PER_SECOND;
        if peer.initiation_handled.is_some_and(|last| now.boot.saturating_since(last) < shortest) {
            return Err(Drop::Flood);
        }
        peer.latest_timestamp = Some(timestamp);
        if peer.activity.slot().is_some() {
            self.lending.tell(|lender| lender.keep_received_label(id, timestamp.as_bytes()));
        }
        peer.initiation_handled = Some(now.boot);
        self.respond(now, id, responder, initiation)
    }

    /// Answers an authentic initiation. If one of ours is under way it is forgotten, as in the kernel: its answer would come
    /// after a session that was agreed later.
    ///
    /// But if ours is so young that both crossed, only the device with the lesser public key forgets it, and the other one's leads to
    /// the session. If both forgot theirs, as two kernels do, both would try again after REKEY_TIMEOUT. If both kept
    /// theirs, each would send with the session that it began, and lose what it sends when the other makes room for the next.
    fn respond(&mut self, now: Now, id: PeerId, responder: Responder, initiation: &Initiation<'_>) -> Result<(), Drop> {
        let own = self.public_key();
        let index = self.take_index(id);
        let peer = self.peers.get_mut(&id).ok_or(Drop::UnknownPeer)?;
        let yields = own < Some(peer.key);
        let is_old = |sent| now.boot.saturating_since(sent) >= REKEY_TIMEOUT;
        if let Some(forgotten) = peer.outstanding.take_if(|ours| yields || is_old(ours.sent)) {
            self.by_index.remove(&forgotten.index);
        }
        let (mut ephemeral, mut sealed_nothing) = ([0; 32], [0; aead::TAG_LEN]);
        let secret = self.random.key();
        let written =
            responder.write(&peer.key, peer.preshared.as_bytes(), &secret, &[], &mut ephemeral, &mut sealed_nothing);
        let Ok(symmetric) = written else {
            self.by_index.remove(&index);
            return Err(Drop::NotAuthentic);
        };
        let mut message = message::write_response(&Response {
            sender: index,
            receiver: initiation.sender,
            ephemeral: &ephemeral,
            sealed_nothing: &sealed_nothing,
        });
        peer.jar.add_macs(now.boot, &peer.key, &mut message);
        peer.last_handshake_sent = Some(now.boot);
        peer.timers.session_derived(now.boot);
        peer.activity.handshake_received(now.boot);
        peer.activity.handshake_sent(now.boot);

        self.events.push_back(Event::EndpointConfirmed { peer: id });
        self.begin_session(now, id, &symmetric, index, initiation.sender, false);
        let message = Message::new(&message);
        self.events.push_back(Event::Transmit { to: Destination::Peer(id), message });
        self.reschedule(id);
        Ok(())
    }

    fn handle_response(&mut self, now: Now, response: &Response<'_>) -> Result<(), Drop> {
        let Owner { identity, .. } = self.owner.as_ref().ok_or(Drop::NoPrivateKey)?;
        let id = *self.by_index.get(&response.receiver).ok_or(Drop::UnknownIndex)?;
        let peer = self.peers.get_mut(&id).ok_or(Drop::UnknownIndex)?;
        let outstanding = peer.outstanding.take_if(|outstanding| outstanding.index == response.receiver);
        let outstanding = outstanding.ok_or(Drop::UnknownIndex)?;
        let read = outstanding.initiator.read(
            identity,
            peer.preshared.as_bytes(),
            response.ephemeral,
            response.sealed_nothing,
            &mut [],
        );
        let Ok(symmetric) = read else {
            // Whoever forged it must not have ended the handshake.
            peer.outstanding = Some(outstanding);
            return Err(Drop::NotAuthentic);
        };
        peer.timers.session_derived(now.boot);
        peer.timers.handshake_completed();
        peer.last_handshake = Some(now.wall);
        peer.activity.handshake_received(now.boot);
        let failed = peer.answered();

        self.events.push_back(Event::EndpointConfirmed { peer: id });
        if failed {
            self.events.push_back(Event::HandshakeAnswered { peer: id });
        }
        self.begin_session(now, id, &symmetric, response.receiver, response.sender, true);
        // The responder may not send before it has heard from us under the new keys.
        self.events.push_back(Event::KeepaliveDue { peer: id });
        self.reschedule(id);
        Ok(())
    }

    fn begin_session(
        &mut self,
        now: Now,
        id: PeerId,
        symmetric: &SymmetricState,
        local_index: crate::index::ReceiverIndex,
        remote_index: crate::index::ReceiverIndex,
        is_initiator: bool,
    ) {
        let (first, second) = symmetric.split();
        let (sending, receiving) = if is_initiator { (&first, &second) } else { (&second, &first) };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let ledger = peer.activity.slot().and_then(|_| self.lending.ask(|lender| lender.ledger(id)));
        let session = Arc::new(Session::new(SessionParts {
            peer: id,
            local_index,
            remote_index,
            created: now.boot,
            is_initiator,
            sending,
            receiving,
            ledger,
        }));
        // It was just heard from, and has what was wanted.
        peer.unreachable = false;
        peer.handshake_wanted = false;
        let retired = peer.sessions.add(Arc::clone(&session));
        self.install(&session);
        if is_initiator {
            self.events.push_back(Event::SessionCurrent { peer: id, session: Some(session) });
        }
        self.retire(retired);
    }

    /// A cookie changes nothing but what our next message carries; in particular it is no reason to believe that the
    /// peer is where it came from.
    fn handle_cookie_reply(&mut self, now: Now, reply: &CookieReply<'_>) -> Result<(), Drop> {
        let id = *self.by_index.get(&reply.receiver).ok_or(Drop::UnknownIndex)?;
        let peer = self.peers.get_mut(&id).ok_or(Drop::UnknownIndex)?;
        if !peer.jar.is_awaiting() {
            return Err(Drop::UnexpectedCookie);
        }
        if !peer.jar.accept(now.boot, &peer.key, reply) {
            return Err(Drop::NotAuthentic);
        }
        Ok(())
    }
}

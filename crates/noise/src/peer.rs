//! A peer: its keys, its sessions, and what is known of its handshakes.
//!
//! Three sessions at most (the kernel's `noise.c`). *current* is sent with. *next* is a responder's that the initiator has not
//! used yet; its first packet makes it current. *previous* was current before, and receives what is still under way.
//! Everything that only some peers need is behind a box, since there may be 100,000 that never speak.

use std::sync::Arc;
use std::time::Duration;

use crate::activity::Activity;
use crate::cookie::Jar;
use crate::handshake::{Identity, Initiator};
use crate::index::ReceiverIndex;
use crate::key::{PresharedKey, PublicKey, SharedSecret};
use crate::limits::{KEEPALIVE_TIMEOUT, REKEY_TIMEOUT};
use crate::replay::Reception;
use crate::session::Session;
use crate::time::Instant;
use crate::timers::Timers;
use crate::timestamp::Timestamp;

/// An unconfirmed session of this age is not going to be used any more.
const UNCONFIRMED_FOR: Duration = KEEPALIVE_TIMEOUT.saturating_add(REKEY_TIMEOUT);

/// An initiation of ours that waits for its response.
pub(crate) struct Outstanding {
    pub initiator: Initiator,
    pub index: ReceiverIndex,
    pub sent: Instant,
}

/// What our identity and the peer's agree on. Found when first needed: 100,000 agreements take seconds.
enum Agreement {
    Unknown,
    LowOrder,
    Known(Box<SharedSecret>),
}

/// One peer.
pub(crate) struct Peer {
    pub key: PublicKey,
    pub preshared: PresharedKey,
    agreement: Agreement,
    pub activity: Arc<Activity>,
    pub timers: Timers,
    pub sessions: Sessions,
    pub outstanding: Option<Box<Outstanding>>,
    pub jar: Jar,
    /// The greatest timestamp that the peer has sent.
    pub latest_timestamp: Option<Timestamp>,
    /// When its last initiation was handled.
    pub initiation_handled: Option<Instant>,
    /// The timestamp of our last initiation.
    pub last_timestamp: Option<Timestamp>,
    /// When we last sent an initiation or response.
    pub last_handshake_sent: Option<Instant>,
    /// A handshake was wanted when we had no key to make it with, or nowhere to send it.
    pub handshake_wanted: bool,
    /// It is not known where the peer is.
    pub unreachable: bool,
    /// When a handshake last completed, since the Unix epoch.
    pub last_handshake: Option<Duration>,
    /// What came of the peer's messages, under sessions that have ended.
    pub received: Reception,
    /// Initiations of ours since the last answer, or since it was last told that there is none.
    pub unanswered: u8,
    /// It was told that handshakes fail, and none has succeeded since.
    pub failing: bool,
    /// An earlier process may have left sessions for it, which have not been asked for.
    pub inherits: bool,
    /// By which the lane of all receiver indices is found that we give this peer.
    pub lane: u8,
}

impl Peer {
    pub(crate) fn new(key: PublicKey, lane: u8) -> Self {
        Self {
            key,
            preshared: PresharedKey::default(),
            agreement: Agreement::Unknown,
            activity: Arc::default(),
            timers: Timers::default(),
            sessions: Sessions::default(),
            outstanding: None,
            jar: Jar::default(),
            latest_timestamp: None,
            initiation_handled: None,
            last_timestamp: None,
            last_handshake_sent: None,
            handshake_wanted: false,
            unreachable: false,
            last_handshake: None,
            received: Reception::default(),
            unanswered: 0,
            failing: false,
            inherits: false,
            lane,
        }
    }

    /// What our identity and the peer's agree on; `None` if its key is of low order.
    pub(crate) fn static_static(&mut self, identity: &Identity) -> Option<&SharedSecret> {
        if matches!(self.agreement, Agreement::Unknown) {
            self.agreement = match identity.private.agree(&self.key) {
                Some(secret) => Agreement::Known(Box::new(secret)),
                None => Agreement::LowOrder,
            };
        }
        match &self.agreement {
            Agreement::Known(secret) => Some(secret),
            Agreement::Unknown | Agreement::LowOrder => None,
        }
    }

    /// A handshake has succeeded; whether it was told that they fail.
    pub(crate) fn answered(&mut self) -> bool {
        self.unanswered = 0;
        std::mem::take(&mut self.failing)
    }

    /// Our identity changed.
    pub(crate) fn forget_agreement(&mut self) {
        self.agreement = Agreement::Unknown;
    }
}

/// The sessions of one peer.
#[derive(Default)]
pub(crate) struct Sessions {
    current: Option<Arc<Session>>,
    previous: Option<Arc<Session>>,
    next: Option<Arc<Session>>,
}

/// Sessions that fell out of use.
pub(crate) type Retired = [Option<Arc<Session>>; 3];

impl Sessions {
    pub(crate) fn current(&self) -> Option<&Arc<Session>> {
        self.current.as_ref()
    }

    /// What came of the peer's messages under these sessions.
    pub(crate) fn reception(&self) -> Reception {
        let mut all = Reception::default();
        for session in [&self.current, &self.previous, &self.next].into_iter().flatten() {
            all += session.replay().reception();
        }
        all
    }

    /// Takes in a new session, and hands back those that it displaces.
    pub(crate) fn add(&mut self, session: Arc<Session>) -> Retired {
        if session.is_initiator() {
            // The response proved that the responder has the keys: they can be used at once. An unconfirmed session of a
            // handshake the other way round becomes the previous one, since the peer may just have begun to use it. Only if
            // that has been possible for long (one retry and a keepalive) it has not: then our response to it was lost, and what is
            // under way was sealed with the current session.
            let created = session.created();
            let former = self.current.replace(session);
            match self.next.take_if(|next| created.saturating_since(next.created()) < UNCONFIRMED_FOR) {
                Some(next) => [self.previous.replace(next), former, None],
                None => [std::mem::replace(&mut self.previous, former), self.next.take(), None],
            }
        } else {
            // Not to be sent with before the initiator has shown that it has the keys. Its new handshake says that it does
            // not need the previous session any more.
            [self.next.replace(session), self.previous.take(), None]
        }
    }

    /// Takes up sessions of an earlier process, given with the one to send with apart and the youngest last: what the initiator may not have used yet is
    /// next, what it has used is previous. Those that have a place, and those that have none.
    pub(crate) fn take_up(
        &mut self,
        current: Option<Arc<Session>>,
        rest: impl DoubleEndedIterator<Item = Arc<Session>>,
    ) -> (Vec<Arc<Session>>, Vec<Arc<Session>>) {
        let (mut taken, mut left) = (Vec::from_iter(current.clone()), Vec::new());
        self.current = current;
        for session in rest.rev() {
            let place = if session.awaits_confirmation() { &mut self.next } else { &mut self.previous };
            if place.is_none() {
                taken.push(Arc::clone(&session));
                *place = Some(session);
            } else {
                left.push(session);
            }
        }
        (taken, left)
    }

    /// The initiator has used that session. If it was waiting for this it is current now, and the previous one
    /// comes back to be retired.
    pub(crate) fn confirm(&mut self, session: &Session) -> Option<Retired> {
        let next = self.next.take_if(|next| std::ptr::eq(Arc::as_ptr(next), session))?;
        let former = self.current.replace(next);
        Some([std::mem::replace(&mut self.previous, former), None, None])
    }

    /// Our private key changed: the peer would not know us by what these sessions stand for.
    pub(crate) fn close_sending(&self) {
        for session in [&self.current, &self.next].into_iter().flatten() {
            session.close_sending();
        }
    }

    /// Takes out all of them.
    pub(crate) fn clear(&mut self) -> Retired {
        [self.current.take(), self.previous.take(), self.next.take()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_without_a_session_is_small() {
        // The rest are three entries in trees (peers, keys, deadlines) of some 50 bytes each, and the data plane's part.
        let size = size_of::<Peer>() + size_of::<Activity>() + size_of::<SharedSecret>();
        assert!(size < 800, "{size} bytes");
    }
}

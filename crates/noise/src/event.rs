//! What a device wants done. It does nothing itself: the caller polls events after each call and carries them out, in order.

use std::ops::Deref;
use std::sync::Arc;

use crate::index::PeerId;
use crate::message::INITIATION_LEN;
use crate::session::Session;

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To this peer's endpoint. Dropped if it has none.
    Peer(PeerId),
    /// Back to where the datagram just handled came from. Only cookie replies: their receiver has proved nothing yet.
    Source,
}

/// A handshake message or cookie reply, inline: at most 148 bytes.
#[derive(Clone, Copy)]
pub struct Message {
    len: u8,
    bytes: [u8; INITIATION_LEN],
}

impl Message {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut message = Self { len: bytes.len() as u8, bytes: [0; INITIATION_LEN] };
        message.bytes[..bytes.len()].copy_from_slice(bytes);
        message
    }
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len.into()]
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// What happened, or what is to be done.
#[non_exhaustive]
pub enum Event {
    /// Send this datagram.
    Transmit {
        /// To whom.
        to: Destination,
        /// The bytes.
        message: Message,
    },
    /// The datagram just handled authenticated: its source is the peer's endpoint from now on. Never on a cookie reply.
    EndpointConfirmed {
        /// Whose datagram it was.
        peer: PeerId,
    },
    /// Receive with this session from now on. Comes before the handshake response that makes the other side use it.
    SessionInstalled {
        /// The new session.
        session: Arc<Session>,
    },
    /// Send with this session from now on. With `Some`, what waits for the peer is sent now; the same session may come again.
    SessionCurrent {
        /// Whose current session.
        peer: PeerId,
        /// `None`: there is none any more.
        session: Option<Arc<Session>>,
    },
    /// Forget this session's index; it is revoked.
    SessionRetired {
        /// The session that ended.
        session: Arc<Session>,
    },
    /// Send what waits for the peer, or else an empty message. Only given out while the peer has a session to send with.
    KeepaliveDue {
        /// To whom.
        peer: PeerId,
    },
    /// The handshake went unanswered too often: what waits for the peer is dropped.
    HandshakeAbandoned {
        /// Who did not answer.
        peer: PeerId,
    },
    /// Another few initiations have gone unanswered, since the last time that this was told or a handshake succeeded; whatever they were sent
    /// for. For whoever may know another endpoint.
    HandshakesFail {
        /// Who does not answer.
        peer: PeerId,
    },
    /// A handshake has succeeded, the first since it was told that they fail.
    HandshakeAnswered {
        /// Who answers.
        peer: PeerId,
    },
    /// A handshake went unanswered: forget the sticky source address of the peer's endpoint, in case that is the trouble.
    SourceStale {
        /// Who did not answer.
        peer: PeerId,
    },
    /// The peer is gone, together with all that was known of it.
    PeerRemoved {
        /// The id that will never be used again.
        peer: PeerId,
    },
}

//! What can go wrong: adding a peer, and handling a datagram.

use crate::index::PeerId;

/// Why a peer could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddPeerError {
    /// The key is our own public key.
    #[error("this is the device's own public key")]
    OwnKey,
    /// There is a peer with this key.
    #[error("there is a peer with this key already")]
    Exists(PeerId),
    /// Four billion peers were added before.
    #[error("peer numbers are used up")]
    Full,
}

/// Why a datagram was dropped. Each is counted by the caller; none is worth more than a DEBUG log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Drop {
    /// The device is down.
    #[error("the device is down")]
    Down,
    /// The device has no private key.
    #[error("the device has no private key")]
    NoPrivateKey,
    /// No message of types 1 to 3, or of the wrong length.
    #[error("not a handshake message")]
    Malformed,
    /// Its mac1 does not belong to our public key.
    #[error("mac1 is invalid")]
    InvalidMac1,
    /// Under load: it had no valid cookie, and a cookie reply is its answer.
    #[error("a cookie reply was sent instead")]
    CookieSent,
    /// Under load: it had no valid cookie, and too many were asked for one already.
    #[error("it had no cookie, and too many were sent")]
    CookieLimited,
    /// Under load: its source sends too many.
    #[error("its source exceeded its rate")]
    RateLimited,
    /// It did not decrypt.
    #[error("it did not authenticate")]
    NotAuthentic,
    /// It names a peer that we do not have.
    #[error("the peer is unknown")]
    UnknownPeer,
    /// It answers nothing that we asked.
    #[error("no handshake or session has this index")]
    UnknownIndex,
    /// Its timestamp is not newer than one that we have seen.
    #[error("the timestamp was seen before")]
    Replayed,
    /// The peer initiates too often.
    #[error("the peer initiates too often")]
    Flood,
    /// A cookie reply that we do not wait for.
    #[error("no cookie was asked for")]
    UnexpectedCookie,
}

//! The formats on the wire (whitepaper 5.4): four types, each a little-endian word that is the type, then fixed fields.
//!
//! ```text
//! initiation    148  type 1 · sender 4 · ephemeral 32 · static 32+16 · timestamp 12+16 · mac1 16 · mac2 16
//! response       92  type 2 · sender 4 · receiver 4 · ephemeral 32 · empty 0+16 · mac1 16 · mac2 16
//! cookie reply   64  type 3 · receiver 4 · nonce 24 · cookie 16+16
//! transport    ≥ 32  type 4 · receiver 4 · counter 8 · packet n+16
//! ```
//!
//! Parsing checks the type and the length, which is exact for all but the last, and borrows the fields; writing fills
//! a fixed array. The macs cover all bytes before them.

use crate::index::{Counter, ReceiverIndex};

/// Length of a handshake initiation in bytes.
pub const INITIATION_LEN: usize = 148;
/// Length of a handshake response in bytes.
pub const RESPONSE_LEN: usize = 92;
/// Length of a cookie reply in bytes.
pub const COOKIE_REPLY_LEN: usize = 64;
/// Length of what stands before a transport message's ciphertext, in bytes.
pub const TRANSPORT_HEADER_LEN: usize = 16;
/// Length of the shortest transport message, a keepalive, in bytes.
pub const TRANSPORT_MIN_LEN: usize = TRANSPORT_HEADER_LEN + aead::TAG_LEN;

pub(crate) const MAC_LEN: usize = 16;
pub(crate) const SEALED_STATIC_LEN: usize = 32 + aead::TAG_LEN;
pub(crate) const TIMESTAMP_LEN: usize = 12;
pub(crate) const SEALED_TIMESTAMP_LEN: usize = TIMESTAMP_LEN + aead::TAG_LEN;
pub(crate) const COOKIE_LEN: usize = 16;
pub(crate) const SEALED_COOKIE_LEN: usize = COOKIE_LEN + aead::TAG_LEN;
pub(crate) const COOKIE_NONCE_LEN: usize = 24;

/// The four types of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// A handshake begins.
    Initiation,
    /// A handshake is answered.
    Response,
    /// A handshake message is to be sent again with proof that its source is real.
    CookieReply,
    /// Data, or nothing, under a session's key.
    Transport,
}

impl MessageType {
    /// The type of a datagram of the right length for it; `None` for anything else.
    pub fn of(bytes: &[u8]) -> Option<MessageType> {
        let kind = u32::from_le_bytes(*bytes.first_chunk()?);
        match (kind, bytes.len()) {
            (1, INITIATION_LEN) => Some(Self::Initiation),
            (2, RESPONSE_LEN) => Some(Self::Response),
            (3, COOKIE_REPLY_LEN) => Some(Self::CookieReply),
            (4, TRANSPORT_MIN_LEN..) => Some(Self::Transport),
            _ => None,
        }
    }

    const fn word(self) -> [u8; 4] {
        match self {
            Self::Initiation => [1, 0, 0, 0],
            Self::Response => [2, 0, 0, 0],
            Self::CookieReply => [3, 0, 0, 0],
            Self::Transport => [4, 0, 0, 0],
        }
    }
}

/// What stands before a transport message's ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportHeader {
    /// Which of the receiver's sessions.
    pub receiver: ReceiverIndex,
    /// The message's number and nonce.
    pub counter: Counter,
}

/// Writes a transport header to the first [`TRANSPORT_HEADER_LEN`] bytes of `out`.
///
/// # Panics
/// If `out` is shorter.
pub fn write_transport_header(out: &mut [u8], index: ReceiverIndex, counter: u64) {
    out[..4].copy_from_slice(&MessageType::Transport.word());
    out[4..8].copy_from_slice(&index.as_u32().to_le_bytes());
    out[8..TRANSPORT_HEADER_LEN].copy_from_slice(&counter.to_le_bytes());
}

/// Reads a transport header; `None` if this is no transport message or is too short to hold a tag.
pub fn parse_transport_header(bytes: &[u8]) -> Option<TransportHeader> {
    if MessageType::of(bytes)? != MessageType::Transport {
        return None;
    }
    Some(TransportHeader {
        receiver: ReceiverIndex::from_u32(u32::from_le_bytes(field(bytes, 4))),
        counter: Counter::from_u64(u64::from_le_bytes(field(bytes, 8))),
    })
}

/// A handshake initiation, borrowed from its datagram.
pub(crate) struct Initiation<'a> {
    pub sender: ReceiverIndex,
    pub ephemeral: &'a [u8; 32],
    pub sealed_static: &'a [u8; SEALED_STATIC_LEN],
    pub sealed_timestamp: &'a [u8; SEALED_TIMESTAMP_LEN],
}

/// A handshake response, borrowed from its datagram.
pub(crate) struct Response<'a> {
    pub sender: ReceiverIndex,
    pub receiver: ReceiverIndex,
    pub ephemeral: &'a [u8; 32],
    pub sealed_nothing: &'a [u8; aead::TAG_LEN],
}

/// A cookie reply, borrowed from its datagram.
pub(crate) struct CookieReply<'a> {
    pub receiver: ReceiverIndex,
    pub nonce: &'a [u8; COOKIE_NONCE_LEN],
    pub sealed_cookie: &'a [u8; SEALED_COOKIE_LEN],
}

/// A datagram for the control plane.
pub(crate) enum Incoming<'a> {
    Initiation(Initiation<'a>),
    Response(Response<'a>),
    CookieReply(CookieReply<'a>),
}

impl<'a> Incoming<'a> {
    /// `None` for what is not a message of types 1 to 3.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let index = |at| ReceiverIndex::from_u32(u32::from_le_bytes(field(bytes, at)));
        Some(match MessageType::of(bytes)? {
            MessageType::Initiation => Self::Initiation(Initiation {
                sender: index(4),
                ephemeral: borrow(bytes, 8)?,
                sealed_static: borrow(bytes, 40)?,
                sealed_timestamp: borrow(bytes, 88)?,
            }),
            MessageType::Response => Self::Response(Response {
                sender: index(4),
                receiver: index(8),
                ephemeral: borrow(bytes, 12)?,
                sealed_nothing: borrow(bytes, 44)?,
            }),
            MessageType::CookieReply => Self::CookieReply(CookieReply {
                receiver: index(4),
                nonce: borrow(bytes, 8)?,
                sealed_cookie: borrow(bytes, 32)?,
            }),
            MessageType::Transport => return None,
        })
    }
}

/// Writes an initiation but for its macs, which stay zero.
pub(crate) fn write_initiation(message: &Initiation<'_>) -> [u8; INITIATION_LEN] {
    let mut out = [0; INITIATION_LEN];
    out[..4].copy_from_slice(&MessageType::Initiation.word());
    out[4..8].copy_from_slice(&message.sender.as_u32().to_le_bytes());
    out[8..40].copy_from_slice(message.ephemeral);
    out[40..88].copy_from_slice(message.sealed_static);
    out[88..116].copy_from_slice(message.sealed_timestamp);
    out
}

/// Writes a response but for its macs, which stay zero.
pub(crate) fn write_response(message: &Response<'_>) -> [u8; RESPONSE_LEN] {
    let mut out = [0; RESPONSE_LEN];
    out[..4].copy_from_slice(&MessageType::Response.word());
    out[4..8].copy_from_slice(&message.sender.as_u32().to_le_bytes());
    out[8..12].copy_from_slice(&message.receiver.as_u32().to_le_bytes());
    out[12..44].copy_from_slice(message.ephemeral);
    out[44..60].copy_from_slice(message.sealed_nothing);
    out
}

/// Writes a cookie reply.
pub(crate) fn write_cookie_reply(message: &CookieReply<'_>) -> [u8; COOKIE_REPLY_LEN] {
    let mut out = [0; COOKIE_REPLY_LEN];
    out[..4].copy_from_slice(&MessageType::CookieReply.word());
    out[4..8].copy_from_slice(&message.receiver.as_u32().to_le_bytes());
    out[8..32].copy_from_slice(message.nonce);
    out[32..].copy_from_slice(message.sealed_cookie);
    out
}

/// The macs at the end of an initiation or a response, and what each covers.
pub(crate) struct Macs<'a> {
    pub before_mac1: &'a [u8],
    pub mac1: &'a [u8; MAC_LEN],
    pub before_mac2: &'a [u8],
    pub mac2: &'a [u8; MAC_LEN],
}

/// The macs of an initiation or response; `None` for anything else.
pub(crate) fn macs(bytes: &[u8]) -> Option<Macs<'_>> {
    match MessageType::of(bytes)? {
        MessageType::Initiation | MessageType::Response => {}
        MessageType::CookieReply | MessageType::Transport => return None,
    }
    let (before_mac2, mac2) = bytes.split_last_chunk()?;
    let (before_mac1, mac1) = before_mac2.split_last_chunk()?;
    Some(Macs { before_mac1, mac1, before_mac2, mac2 })
}

/// Under which index the sender of an initiation or response wants its answer.
pub(crate) fn sender(bytes: &[u8]) -> Option<ReceiverIndex> {
    match Incoming::parse(bytes)? {
        Incoming::Initiation(Initiation { sender, .. }) | Incoming::Response(Response { sender, .. }) => Some(sender),
        Incoming::CookieReply(_) => None,
    }
}

/// `N` bytes from `at`; the caller has checked the length.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn borrow<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

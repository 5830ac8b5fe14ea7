//! What was dropped, counted by reason: each packet once, by whoever drops it. `docs/drops.md` tells people what they mean.

use crate::ControlDrop;
use noise::Drop as Refusal;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why packets were dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Reason { $($(#[$doc])* $variant,)* }

        const NAMES: &[&str] = &[$($name,)*];
    };
}

reasons! {
    /// What the TUN gave is no IP packet, or its virtio header does not fit it.
    InnerMalformed = "inner-malformed",
    /// No peer's allowed IPs hold the destination.
    NoRoute = "no-route",
    /// A datagram that we sent to the peer ourselves: its endpoint is routed into the tunnel.
    Looped = "looped",
    /// A rule of the policy says so, either way.
    Policy = "policy",
    /// The peer has no endpoint.
    NoEndpoint = "no-endpoint",
    /// More waited for a session than there is room for, or the handshake was given up.
    Unsent = "no-session",
    /// The session ended between admission and sealing, or between sealing and sending.
    SessionEnded = "session-ended",
    /// Other workers held the session's counters for too long.
    CountersBusy = "counters-busy",
    /// A super-packet fell into more segments than a job holds.
    TooManySegments = "too-many-segments",
    /// The outer network did not take it.
    SendFailed = "send-failed",
    /// No socket: the device is down or has none of this address family.
    NoSocket = "no-socket",
    /// Not a WireGuard message.
    OuterMalformed = "outer-malformed",
    /// A receiver index that names no session.
    UnknownIndex = "unknown-index",
    /// The session is too old to receive with.
    SessionExpired = "session-expired",
    /// The tag is wrong.
    Forged = "not-authentic",
    /// The counter was seen before, or is too old to tell.
    Replayed = "replayed",
    /// The inner source is not among the peer's allowed IPs.
    SourceNotAllowed = "source-not-allowed",
    /// What was authentic holds no IP packet.
    ContentMalformed = "content-malformed",
    /// The TUN did not take it.
    TunWrite = "tun-write",
    /// Data that the kernel joined to a handshake message, and so gave to control.
    Misplaced = "outer-misplaced",
    /// A handshake message that came while the device went down.
    Down = "device-down",
    /// A handshake message to a device without a private key.
    NoPrivateKey = "no-private-key",
    /// A handshake message with a wrong mac1.
    HandshakeForged = "handshake-mac1",
    /// Handshake messages came faster than control takes them.
    HandshakeFlood = "handshake-queue-full",
    /// A handshake message waited for so long that nobody waits for its answer.
    HandshakeStale = "handshake-stale",
    /// Under load: the sender was asked to prove its address.
    HandshakeCookie = "handshake-cookie-sent",
    /// Under load: the sender had no cookie, and too many were sent already.
    HandshakeCookieLimit = "handshake-cookie-limit",
    /// Under load: its source sends too many.
    HandshakeRate = "handshake-rate",
    /// A handshake message or cookie that does not decrypt.
    HandshakeNotAuthentic = "handshake-not-authentic",
    /// An initiation by somebody whom we do not have as a peer.
    HandshakeUnknownPeer = "handshake-unknown-peer",
    /// A response or cookie to what we did not ask.
    HandshakeUnknownIndex = "handshake-unknown-index",
    /// An initiation that is not newer than one before.
    HandshakeReplayed = "handshake-replayed",
    /// A peer that initiates too often.
    HandshakeTooOften = "handshake-too-often",
    /// A cookie that we do not wait for.
    CookieUnexpected = "cookie-unexpected",
}

impl From<ControlDrop> for Reason {
    fn from(drop: ControlDrop) -> Self {
        match drop {
            ControlDrop::QueueFull => Self::HandshakeFlood,
            ControlDrop::Stale => Self::HandshakeStale,
            ControlDrop::Misplaced => Self::Misplaced,
            ControlDrop::Refused(refusal) => match refusal {
                Refusal::Down => Self::Down,
                Refusal::NoPrivateKey => Self::NoPrivateKey,
                Refusal::InvalidMac1 => Self::HandshakeForged,
                Refusal::CookieSent => Self::HandshakeCookie,
                Refusal::CookieLimited => Self::HandshakeCookieLimit,
                Refusal::RateLimited => Self::HandshakeRate,
                Refusal::NotAuthentic => Self::HandshakeNotAuthentic,
                Refusal::UnknownPeer => Self::HandshakeUnknownPeer,
                Refusal::UnknownIndex => Self::HandshakeUnknownIndex,
                Refusal::Replayed => Self::HandshakeReplayed,
                Refusal::Flood => Self::HandshakeTooOften,
                Refusal::UnexpectedCookie => Self::CookieUnexpected,
                // Malformed, and what the protocol may add: `docs/drops.md` has no word for it yet.
                _ => Self::OuterMalformed,
            },
        }
    }
}

/// Counters since the start.
pub(crate) struct Drops([AtomicU64; NAMES.len()]);

impl Drops {
    pub(crate) fn new() -> Self {
        Self([const { AtomicU64::new(0) }; NAMES.len()])
    }

    #[inline]
    pub(crate) fn count(&self, reason: Reason, packets: usize) {
        if packets > 0 {
            self.0[reason as usize].fetch_add(packets as u64, Ordering::Relaxed);
            log::trace!("{packets} dropped: {}", NAMES[reason as usize]);
        }
    }

    pub(crate) fn list(&self) -> Vec<(&'static str, u64)> {
        NAMES.iter().zip(&self.0).map(|(name, count)| (*name, count.load(Ordering::Relaxed))).collect()
    }
}

//! The protocol's constants (whitepaper 6.1; where it is silent, the kernel's `messages.h`).
//!
//! The feature `hurried` makes sessions so short that a test sees hundreds of them in an hour. Such a build gets along with any other: who
//! renews sooner is in order.

use std::time::Duration;

/// After so many messages under one key its sender asks for a new one.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// A counter from here on is neither sent nor accepted.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// After so long the initiator of a session asks for a new one when it sends.
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(if cfg!(feature = "hurried") { 6 } else { 120 });
/// After so long a session is dead.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(if cfg!(feature = "hurried") { 30 } else { 180 });
/// A handshake that goes unanswered for so long is tried again; also the shortest time between two initiations to a peer.
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// The most that is added to a retry at random, so that two peers that began together part.
pub const REKEY_TIMEOUT_JITTER_MAX: Duration = Duration::from_millis(333);
/// A retry is given up once more than this many went unanswered: 90 s / REKEY_TIMEOUT.
pub const MAX_HANDSHAKE_ATTEMPTS: u32 = 18;
/// Who received data and had nothing to send for so long sends an empty message.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A cookie's secret lives so long, and so does what was made with it.
pub const COOKIE_SECRET_MAX_AGE: Duration = Duration::from_secs(120);
/// The holder of a cookie stops using it so much earlier, since it had to travel.
pub const COOKIE_SECRET_LATENCY: Duration = Duration::from_secs(5);
/// Cookie replies per second, at most. (Not in the paper, nor in the kernel: sending is most of what a flood by those who know our public key costs. Who gets
/// no cookie asks again after REKEY_TIMEOUT, and more handshakes than this no core makes.)
pub const COOKIES_PER_SECOND: u32 = 16_000;
/// More initiations per second of one peer are ignored.
pub const INITIATIONS_PER_SECOND: u32 = 50;
/// Counters reserved and not yet released, at most: a stock peer's window may be as small as 1024.
pub const MAX_OUTSTANDING: u32 = 896;
/// The replay window: this many of the newest counters are told apart.
pub const REPLAY_WINDOW: u64 = 8192;

// Who only receives asks for a new session after who sends does, and long enough before the end that a handshake may be lost.
const _: () = assert!(
    REKEY_AFTER_TIME.as_nanos() + KEEPALIVE_TIMEOUT.as_nanos() + REKEY_TIMEOUT.as_nanos()
        < REJECT_AFTER_TIME.as_nanos()
);

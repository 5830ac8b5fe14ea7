//! The WireGuard protocol, without sockets, clock or threads.
//!
//! A [`Device`] holds an identity and its peers. Bytes and time come in through `handle_*` calls, what is to be done
//! comes out of `poll_event` and `poll_timeout`, and nothing else moves either. Every random byte comes from a seed, so
//! that two devices under a simulator do the same thing twice.
//!
//! The device makes handshakes (Noise_IKpsk2, whitepaper 5.4), cookies against floods, and the six timers that keep
//! sessions fresh. Data never passes through it: a data plane seals and opens with the [`Session`]s that it is given and
//! notes in each peer's [`Activity`] what it did.
//!
//! Names as in the whitepaper "WireGuard: Next Generation Kernel Network Tunnel"; behaviour where that is silent as in Linux's `drivers/net/wireguard`.

#![forbid(unsafe_code)]

mod activity;
mod cookie;
mod device;
mod error;
mod event;
mod handshake;
mod index;
mod key;
mod ledger;
mod lent;
pub mod limits;
pub mod message;
mod peer;
mod random;
mod ratelimiter;
mod replay;
mod session;
mod symmetric;
mod time;
mod timers;
mod timestamp;

pub use activity::{Activity, Notes};
pub use cookie::Mac1Checker;
pub use device::Device;
pub use error::{AddPeerError, Drop};
pub use event::{Destination, Event, Message};
pub use index::{Counter, PeerId, ReceiverIndex};
pub use key::{KEY_LEN, PresharedKey, PrivateKey, PublicKey, SharedSecret};
pub use ledger::Ledger;
pub use lent::{Inherited, Label, Lender, Lent, Tag};
pub use replay::{Reception, Replay, ReplayWindow};
pub use session::{BLOCK, ReserveError, Session};
pub use time::{Instant, Now};

//! What a data plane is, and the userspace one.
//!
//! A data plane moves packets. It is given sessions, allowed IPs and endpoints, and hands back what it cannot do itself:
//! handshake datagrams, "this peer needs a session", "this session is due for rekey". It never sees an identity or a
//! handshake's inside, so another one can take its place ([`DataPlane`] is the whole boundary).
//!
//! [`userspace::Userspace`] is the one that runs everywhere: a TUN device on the inner side, UDP sockets on the outer, one
//! worker thread for each core.

#![deny(unsafe_code)]

pub mod calls;
#[cfg(not(feature = "loom"))]
pub mod policy;
pub mod ring;
#[cfg(not(feature = "loom"))]
pub mod userspace;

#[cfg(not(feature = "loom"))]
mod boundary;

#[cfg(not(feature = "loom"))]
pub use boundary::{
    AllowedIpChange, BATCH_SIZES, BATCHES_SIZED, Batches, ControlDrop, DataPlane, HandshakeBytes, Observer, PlaneEvent,
    Taken, Traffic, WorkerLoad,
};

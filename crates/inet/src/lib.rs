//! Internet headers, as the data planes and the control plane need them: no sockets, no clock, no `unsafe`.
//!
//! What may enter this room is what can be said of a packet by looking at its bytes alone: its addresses and lengths
//! ([`ip`]), its checksums ([`checksum`]), how a super-packet is cut into segments ([`cut`]) and segments are joined into one
//! ([`join`]), what becomes of its ECN bits ([`ecn`]), the error that its sender is told ([`icmp`]), which peer its
//! address belongs to ([`allowed`]), and whether it may pass at all ([`policy`]). Nothing here logs, waits or keeps more memory than it was given at the start.
//!
//! Every function that reads bytes from outside takes arbitrary bytes and answers with an error, never a panic.

#![forbid(unsafe_code)]

pub mod allowed;
pub mod checksum;
mod cidr;
pub mod cut;
pub mod ecn;
mod endpoint;
pub mod icmp;
pub mod ip;
pub mod join;
pub mod policy;
pub mod vnet;

pub use cidr::Cidr;
pub use endpoint::{Endpoint, Source};

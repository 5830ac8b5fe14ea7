//! Each system under test, set up with one tunnel and with three: bytes that are checked pass through each tunnel, the system counts them there, and when
//! it is taken down, or fails half way, nothing of it is left.
//!
//! They need root and what `cargo xtask setup` installs. What this machine cannot have (a module of another kernel) is asked for what it says of that.
#![forbid(unsafe_code)]
// A test that cannot go on panics: then the daemons' logs are shown as they are dropped.
#![allow(clippy::unwrap_used)]

mod check;
mod four;
mod guest;
mod ipsec;
mod openvpn;
mod plain;
mod wireguard;

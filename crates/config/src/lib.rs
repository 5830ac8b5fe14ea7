//! The text formats of WireGuard, parsed and printed, and nothing else: no file is opened here, no name resolved, no socket read
//! that the caller did not hand over.
//!
//! - [`key`]: a key as base64 (files and people) and as hexadecimal (the UAPI).
//! - [`device`]: a device as it is ([`device::Device`]) and a change to one ([`device::DeviceChange`]); every format is a way to
//!   write one of these two.
//! - [`stats`]: what a device of ours tells of its work beyond that; [`policy`]: the rules that say what may pass it.
//! - [`uapi`]: the protocol on `/var/run/wireguard/IFACE.sock`, both ends of it.
//! - [`file`](mod@file): the INI files that `wg setconf` takes; [`value`]: the values that stand in them and on the command line of `wg set`.
//! - [`quick`]: the same with what `wireloom up` and wg-quick take beyond it.
//! - [`networkd`], [`nm`]: the files of systemd-networkd and NetworkManager, both ways; [`print`](mod@print): wg-quick's files printed.
//! - [`show`]: what `wg show` and `wg showconf` print, to the byte.
//! - [`address`]: addresses and endpoints as the C library writes them.
//!
//! What enters is bytes from outside: every parser is bounded, tells what it expected, and is tested with arbitrary bytes.
//! Secrets are encoded and decoded in constant time, wiped where they passed, and named in no error.

#![forbid(unsafe_code)]

pub mod address;
pub mod device;
pub mod file;
pub mod foreign;
mod ini;
pub mod key;
mod lines;
pub mod networkd;
pub mod nm;
pub mod policy;
pub mod print;
pub mod quick;
pub mod save;
pub mod show;
pub mod stats;
pub mod uapi;
pub mod value;

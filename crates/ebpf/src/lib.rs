//! The data plane inside the kernel: WireGuard's transport as eBPF programs.
//!
//! The programs are C, in `bpf/`; what clang-19 makes of them is committed in `objects/`, so that whoever builds this crate needs
//! no clang. `cargo xtask bpf` makes the objects anew, and `cargo xtask bpf --check`, which the tests run, compares.
//!
//! [`load`] brings them into the kernel, while the process may still do everything. [`Plane`] is the userspace data plane with the programs in front of it:
//!
//! ```text
//!   control ──▶ Plane ──▶ Userspace: TUN, UDP sockets, workers ── all that the programs leave
//!                 │
//!                 ├──▶ Store: slots of the maps; lends memory to peers and sessions
//!                 └──▶ Keeper: a thread; where the programs are attached, and the ways to peers
//! ```
//!
//! Without unsafe code but in `maps` and `events`, where memory is that the kernel shares.
#![deny(unsafe_code)]

mod attach;
mod counts;
pub mod crypto;
#[allow(unsafe_code, reason = "the ring buffer is memory that the kernel writes to")]
mod events;
mod heritage;
mod keeper;
mod layout;
#[allow(unsafe_code, reason = "maps are memory that the programs write to")]
mod maps;
mod object;
mod plane;
pub mod policy;
pub mod probe;
mod rules;
mod store;

pub use attach::Hooks;
pub use counts::COUNTS;
pub use heritage::{Left, keep, take_over, terms};
pub use object::{Capacity, LoadError, Loaded, Programs, load};
pub use plane::{Plane, StartError};

/// The data path's programs (`bpf/wireloom.bpf.c`).
pub const OBJECT: &[u8] = include_bytes!("../objects/wireloom.bpf.o");

/// ChaCha20-Poly1305 alone, in programs that are attached nowhere: for tests and measurements.
pub const AEAD_TEST_OBJECT: &[u8] = include_bytes!("../objects/aead_test.bpf.o");

/// The policy alone, likewise.
pub const POLICY_TEST_OBJECT: &[u8] = include_bytes!("../objects/policy_test.bpf.o");

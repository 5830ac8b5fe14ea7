//! The data plane inside the kernel: WireGuard's transport as eBPF programs.
//!
//! The programs are C, in `bpf/`; what clang-19 makes of them is committed in `objects/`, so that whoever builds this crate needs
//! no clang. `cargo xtask bpf` makes the objects anew, and `cargo xtask bpf --check`, which the tests run, compares.
#![deny(unsafe_code)]

/// ChaCha20-Poly1305 alone, in programs that are attached nowhere: for tests and measurements.
pub const AEAD_TEST_OBJECT: &[u8] = include_bytes!("../objects/aead_test.bpf.o");

/// The data path's programs (`bpf/wireloom.bpf.c`).
pub const OBJECT: &[u8] = include_bytes!("../objects/wireloom.bpf.o");

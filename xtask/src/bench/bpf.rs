//! `cargo xtask bench bpf`: what it costs to seal and to open inside the kernel, in BPF.
//!
//! The measuring is an example program of the crate, next to the tests that it shares its programs with.

use crate::cargo::{cargo, show};
use crate::error::Failure;

/// Measures and prints.
pub fn run() -> Result<(), Failure> {
    lab::require_root()?;
    show(&mut cargo(&["run", "--release", "--quiet", "-p", "wireloom-ebpf", "--example", "aead"]))
}

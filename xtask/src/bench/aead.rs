//! `cargo xtask bench aead`: what it costs to seal and to open, without sockets.

use clap::Args;

use crate::cargo::{cargo, show};
use crate::error::Failure;

/// What `bench aead` may be told.
#[derive(Args, Debug)]
pub struct Options {}

/// Measures and prints.
pub fn run(_: &Options) -> Result<(), Failure> {
    show(&mut cargo(&["run", "--release", "--quiet", "-p", "wireloom-aead", "--example", "throughput"]))
}

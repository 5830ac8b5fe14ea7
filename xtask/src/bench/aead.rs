//! `cargo xtask bench aead`: what it costs to seal and to open, without sockets, and whether the time depends on a secret.
//!
//! The measuring is an example program of the crate, so that it is built as the crate is for its users; see its files.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::cargo::{cargo, show, target_folder};
use crate::error::Failure;

/// What `bench aead` may be told.
#[derive(Args, Debug)]
pub struct Options {
    /// How many rounds the medians of the costs are taken from
    #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// How many samples each test for leaks takes
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    samples: u32,
}

/// Measures, prints and saves: a line of JSON for each cell of the tables.
pub fn run(options: &Options) -> Result<(), Failure> {
    let folder = target_folder()?.join("bench");
    fs::create_dir_all(&folder).map_err(Failure::io(folder.display().to_string()))?;
    // A clock before 1970 names the file as well as any other.
    let when = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let path = folder.join(format!("aead-{when}.jsonl"));
    let mut command = cargo(&["run", "--release", "--quiet", "-p", "wireloom-aead", "--example", "measure", "--"]);
    command.args(["--rounds", &options.rounds.to_string(), "--samples", &options.samples.to_string(), "--json"]);
    let outcome = show(command.arg(&path));
    println!("\nThe numbers are in {}", path.display());
    outcome
}

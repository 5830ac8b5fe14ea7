//! What the AEAD costs by each backend, and whether its time depends on what is secret: `cargo xtask bench aead`.
//!
//! `measure [--rounds N] [--samples N] [--json FILE]` prints two tables and, if asked to, writes a line of JSON for each row. It
//! fails where a time depends on a secret, and where its own control shows that it would not have noticed.

mod cost;
mod leaks;

use aead::Backend;
use std::{env, fs, process::ExitCode};

/// What was asked for.
struct Options {
    /// Of the throughput, in which the backends take turns; the median is told.
    rounds: usize,
    /// Of each test for leaks.
    samples: usize,
    json: Option<String>,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { rounds: 31, samples: 40_000, json: None };
        while let Some(name) = words.next() {
            let value = words.next().ok_or(format!("{name} needs a value"))?;
            let number = |least: usize| match value.parse() {
                Ok(number) if (least..=10_000_000).contains(&number) => Ok(number),
                _ => Err(format!("{name} is '{value}', expected a number from {least} to 10000000")),
            };
            match name.as_str() {
                "--rounds" => options.rounds = number(1)?,
                "--samples" => options.samples = number(100)?,
                "--json" => options.json = Some(value),
                _ => return Err(format!("unknown: {name}; expected --rounds N, --samples N or --json FILE")),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaint) => {
            eprintln!("measure: {complaint}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let options = Options::read(env::args().skip(1))?;
    for backend in Backend::ALL.into_iter().filter(|backend| !backend.available()) {
        println!("Not measured, for this processor cannot run it: {backend}");
    }
    let mut json = cost::measure(options.rounds);
    let (lines, verdict) = leaks::measure(options.samples);
    json.extend(lines);
    if let Some(path) = &options.json {
        fs::write(path, json.join("\n") + "\n").map_err(|error| format!("{path}: {error}"))?;
    }
    verdict
}

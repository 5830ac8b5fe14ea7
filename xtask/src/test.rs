//! `cargo xtask test`: every test that there is, stage by stage, with a summary at the end.

use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;
use lab::{LabError, interrupted};

use crate::cargo::{build_release, cargo, root, show_lines};
use crate::error::Failure;
use crate::{bpf, deb, fuzz, package, setup, soak};

/// What `test` may be told.
#[derive(Args, Debug)]
pub struct Options {}

/// At least this many tests at once: the end-to-end ones mostly wait, two of them for two minutes.
const THREADS: usize = 8;

/// What a stage came to.
struct Stage {
    name: &'static str,
    took: Duration,
    tests: Counts,
    outcome: Result<(), Failure>,
}

/// Tests as libtest counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Counts {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out`.
    fn add_line(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else {
            return;
        };
        let words: Vec<_> = rest.split_whitespace().collect();
        for pair in words.windows(2) {
            let [number, unit] = pair else { continue };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match unit.trim_end_matches(';') {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// Runs everything.
pub fn run(_options: &Options) -> Result<(), Failure> {
    lab::require_root()?;
    let fuzzed = root().join("fuzz/Cargo.toml").exists();
    let total = if fuzzed { 9 } else { 8 };
    let mut stages = Vec::new();
    let mut stage = |name, work: &mut dyn FnMut(&mut Counts) -> Result<(), Failure>| {
        println!("\n=== {}/{total}: {name}", stages.len() + 1);
        let (start, mut tests) = (Instant::now(), Counts::default());
        let mut outcome = work(&mut tests);
        if interrupted() {
            outcome = Err(LabError::Interrupted.into());
        }
        if let Err(failure) = &outcome {
            eprintln!("{name}: {failure}");
        }
        let ok = outcome.is_ok();
        stages.push(Stage { name, took: start.elapsed(), tests, outcome });
        ok
    };

    // Without these two nothing else can say anything.
    let mut binary = None;
    let ready = stage("set up", &mut |_| setup::run(&setup::Options::default()))
        && stage("build the binary", &mut |_| {
            binary = Some(build_release()?);
            Ok(())
        });
    if let (true, Some(ours)) = (ready, binary) {
        let binary = ours.program()?;
        stage("all tests of the workspace", &mut |counts| {
            let threads = std::thread::available_parallelism().map_or(THREADS, |n| n.get());
            let mut command = cargo(&["test", "--workspace", "--no-fail-fast"]);
            command.env("WIRELOOM_BIN", &binary).env("RUST_TEST_THREADS", threads.max(THREADS).to_string());
            counted(&mut command, counts)
        });
        stage("the programs for the kernel", &mut |_| bpf::run(&bpf::Options { check: true }));
        stage("what must never happen (soak)", &mut |_| soak::short());
        stage("the job ring in every order (loom)", &mut loom);
        stage("the data plane without the kernel", &mut |_| modelled());
        stage("the Debian package", &mut |_| package::check(&deb::build(&binary)?, &binary));
        if fuzzed {
            stage("the fuzz targets", &mut |_| fuzz::check());
        }
    }
    summarise(&stages)
}

/// The model tests of the data plane, which see another set of atomics and so are another build.
fn loom(counts: &mut Counts) -> Result<(), Failure> {
    counted(&mut cargo(&["test", "-p", "wireloom-plane", "--features", "loom", "--test", "loom*"]), counts)?;
    if counts.passed == 0 {
        return Err(Failure::Tests("no loom test ran".to_owned()));
    }
    Ok(())
}

/// What `bench scale` runs is another build too, which no other stage sees. Here it is only compiled.
fn modelled() -> Result<(), Failure> {
    let mut command =
        cargo(&["clippy", "--quiet", "-p", "wireloom-plane", "--features", "modelled", "--example", "scale"]);
    command.args(["--", "-D", "warnings"]);
    show_lines(&mut command, |_| ())
}

fn counted(command: &mut Command, counts: &mut Counts) -> Result<(), Failure> {
    show_lines(command, |line| counts.add_line(line))
}

fn summarise(stages: &[Stage]) -> Result<(), Failure> {
    println!("\n=== Summary");
    let mut failed = Vec::new();
    for stage in stages {
        let Counts { passed, failed: bad, ignored } = stage.tests;
        let mut tests = String::new();
        if passed + bad + ignored > 0 {
            tests = format!("{passed} passed, {bad} failed, {ignored} ignored");
        }
        let verdict = match &stage.outcome {
            Ok(()) => "ok",
            Err(_) => {
                failed.push(stage.name);
                "FAILED"
            }
        };
        println!("  {verdict:<7} {:<36} {:>5} s  {tests}", stage.name, stage.took.as_secs());
    }
    if failed.is_empty() {
        println!("All is well.");
        return Ok(());
    }
    Err(Failure::Tests(failed.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_results() {
        let mut counts = Counts::default();
        counts
            .add_line("test result: ok. 3 passed; 1 failed; 2 ignored; 0 measured; 9 filtered out; finished in 0.02s");
        counts.add_line("test result: FAILED. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        counts.add_line("test some::thing ... ok");
        let expected = Counts { passed: 7, failed: 1, ignored: 2 };
        assert_eq!(counts, expected);
    }
}

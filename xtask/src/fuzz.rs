//! `cargo xtask fuzz`: inputs that nobody thought of, for every parser and for the whole data path.
//!
//! Each target in `fuzz/fuzz_targets` is built with libFuzzer and the compiler's own coverage counters, which stable Rust has. It
//! starts from `fuzz/corpus/TARGET`, small files that are part of the tree, and what it finds besides goes to the target folder.
//! `--merge` takes from there into the tree what reaches code that the tree's files do not, and drops files that add nothing.
//!
//! A crash leaves its input in `fuzz/artifacts`, and the command says how to run it again. `cargo xtask test` lets each target run
//! over its corpus and on for a fixed number of inputs, from a fixed seed, so that no machine is too slow to say the same.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use lab::{LabError, interrupted};

use crate::cargo::{cargo, root, show, target_folder};
use crate::error::Failure;

/// What `fuzz` may be told.
#[derive(Args, Debug)]
pub struct Options {
    /// Targets, by the names of their files in fuzz/fuzz_targets; all if none is named
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    seconds: u64,
    /// How long each target runs, in hours instead
    #[arg(long, conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..=168))]
    hours: Option<u64>,
    /// How many targets run at once; as many as there are cores if not said
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: Option<u64>,
    /// Afterwards take what reaches new code into fuzz/corpus, and drop what does not
    #[arg(long)]
    merge: bool,
    /// Run one input, such as a crash left behind, through the one target named
    #[arg(long, value_name = "FILE", conflicts_with_all = ["merge", "hours", "seconds"])]
    reproduce: Option<PathBuf>,
}

/// The compiler's flags: counters for each branch, a table of what they stand for, and a look at what is compared. `fuzzing` opens
/// doors in our crates that other builds do not have.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// The longest input: whoever needs more than this to go wrong does so with less, too.
const INPUT_MAX: u32 = 4096;
/// The longest input that goes into the tree.
const CORPUS_INPUT_MAX: u32 = 512;
/// Seconds for one input, after which it counts as a hang, and MiB of memory, after which it counts as a leak.
const INPUT_SECONDS: u32 = 20;
const MEMORY: u32 = 2048;
/// How many inputs `cargo xtask test` makes beyond the corpus: a second or two of the quick targets, and of those that set up
/// sessions, or seal and open much, fewer.
const CHECK_RUNS: usize = 100_000;
const CHECK_RUNS_OF: [(&str, usize); 5] =
    [("aead", 20_000), ("device", 1000), ("handshake", 2000), ("pipeline", 1500), ("run", 10_000)];
/// Seconds after which a target that is slower than anybody expects has run enough.
const CHECK_SECONDS: u64 = 120;
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Runs `cargo xtask fuzz`.
pub fn run(options: &Options) -> Result<(), Failure> {
    let mut targets = targets()?;
    if let Some(unknown) = options.targets.iter().find(|name| !targets.contains(name)) {
        return Err(Failure::Tests(format!("there is no target {unknown}, expected one of {}", targets.join(", "))));
    }
    targets.retain(|name| options.targets.is_empty() || options.targets.contains(name));
    if let Some(input) = &options.reproduce {
        let [target] = &targets[..] else {
            return Err(Failure::Tests("--reproduce needs the one target that the input is for".to_owned()));
        };
        let programs = build()?;
        return show(Command::new(programs.join(target)).arg(input));
    }
    let programs = build()?;
    let seconds = options.hours.map_or(options.seconds, |hours| hours * 3600);
    let jobs = options.jobs.map_or_else(cores, |jobs| jobs as usize);
    let outcome = all(&programs, &targets, &Plan { seconds, is_check: false }, jobs);
    if options.merge {
        for target in &targets {
            merge(&programs, target)?;
        }
    }
    outcome
}

/// What `cargo xtask test` does: each target over its corpus and so many inputs beyond, from a fixed seed.
pub fn check() -> Result<(), Failure> {
    all(&build()?, &targets()?, &Plan { seconds: CHECK_SECONDS, is_check: true }, cores())
}

/// How many inputs a target runs in a check, its corpus among them.
fn check_runs(target: &str, corpus: &Path) -> usize {
    let beyond = CHECK_RUNS_OF.iter().find(|(name, _)| *name == target).map_or(CHECK_RUNS, |(_, runs)| *runs);
    fs::read_dir(corpus).map_or(0, Iterator::count) + beyond
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get())
}

/// The names of all targets.
fn targets() -> Result<Vec<String>, Failure> {
    let folder = root().join("fuzz/fuzz_targets");
    let files = fs::read_dir(&folder).map_err(Failure::io(folder.display().to_string()))?;
    let mut names: Vec<String> = files
        .flatten()
        .map(|file| file.path())
        .filter(|path| path.extension() == Some(OsStr::new("rs")))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Builds all targets; the folder that they are in.
fn build() -> Result<PathBuf, Failure> {
    println!("Building the fuzz targets …");
    let rustc = Command::new("rustc").arg("-vV").output().map_err(Failure::io("running `rustc -vV`"))?;
    let version = String::from_utf8_lossy(&rustc.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or("x86_64-unknown-linux-gnu");
    let folder = target_folder()?.join("fuzz");
    // With a target named, the flags are not for build scripts, which have no fuzzer to report to.
    let mut command = cargo(&["build", "--quiet", "--release", "--manifest-path", "fuzz/Cargo.toml", "--bins"]);
    command.args(["--target", host, "--target-dir"]).arg(&folder).env("RUSTFLAGS", COVERAGE);
    show(&mut command)?;
    Ok(folder.join(host).join("release"))
}

/// How targets are run.
struct Plan {
    /// At most.
    seconds: u64,
    /// Whether all is fixed: the seed, the number of inputs, and that nothing is there from the last time.
    is_check: bool,
}

/// A target that runs.
struct Running<'a> {
    target: &'a str,
    child: Child,
    log: PathBuf,
    begun: Instant,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Already over where all is well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the targets, some at a time, and says what became of each.
fn all(programs: &Path, targets: &[String], plan: &Plan, jobs: usize) -> Result<(), Failure> {
    let (mut waiting, mut running) = (targets.iter(), Vec::<Running<'_>>::new());
    let (mut failed, mut told) = (Vec::new(), Instant::now());
    loop {
        while running.len() < jobs
            && let Some(target) = waiting.next()
        {
            running.push(start(programs, target, plan)?);
        }
        if running.is_empty() {
            break;
        }
        if interrupted() {
            return Err(LabError::Interrupted.into());
        }
        thread::sleep(Duration::from_millis(50));
        let mut at = 0;
        while let Some(it) = running.get_mut(at) {
            match it.child.try_wait().map_err(Failure::io("waiting"))? {
                None => at += 1,
                Some(status) => {
                    let it = running.swap_remove(at);
                    if !report(&it, status) {
                        failed.push(it.target.to_owned());
                    }
                }
            }
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            for it in &running {
                println!("  …       {:<13} {}", it.target, last_line(&it.log, "#"));
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Tests(failed.join(", "))) }
}

fn start<'a>(programs: &Path, target: &'a str, plan: &Plan) -> Result<Running<'a>, Failure> {
    let found = programs.join("corpus").join(target);
    if plan.is_check {
        let _ = fs::remove_dir_all(&found);
    }
    let (artifacts, log) = (root().join("fuzz/artifacts").join(target), programs.join(format!("{target}.log")));
    for folder in [&found, &artifacts] {
        fs::create_dir_all(folder).map_err(Failure::io(folder.display().to_string()))?;
    }
    let mut command = Command::new(programs.join(target));
    command.args([
        format!("-max_total_time={}", plan.seconds),
        format!("-max_len={INPUT_MAX}"),
        format!("-timeout={INPUT_SECONDS}"),
        format!("-rss_limit_mb={MEMORY}"),
        format!("-artifact_prefix={}/", artifacts.display()),
        "-print_final_stats=1".to_owned(),
        // Long inputs sooner than by default: here they are what makes a history.
        "-len_control=20".to_owned(),
    ]);
    let corpus = root().join("fuzz/corpus").join(target);
    if plan.is_check {
        command.args(["-seed=1".to_owned(), format!("-runs={}", check_runs(target, &corpus))]);
    }
    // New finds go to the first folder.
    command.arg(&found);
    command.args(Some(corpus).filter(|corpus| corpus.exists()));
    let file = File::create(&log).map_err(Failure::io(log.display().to_string()))?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn();
    let child = child.map_err(Failure::io(format!("running the target {target}")))?;
    Ok(Running { target, child, log, begun: Instant::now() })
}

/// Says what became of a target. Returns whether all is well.
fn report(it: &Running<'_>, status: ExitStatus) -> bool {
    if status.success() {
        let executions = last_line(&it.log, "stat::number_of_executed_units:");
        let executions: u64 = executions.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default();
        let seconds = it.begun.elapsed().as_secs().max(1);
        let covered = last_line(&it.log, "#");
        let covered = covered.split_once("cov: ").map_or("", |(_, rest)| rest.split(" exec/s").next().unwrap_or(rest));
        println!("  ok      {:<13} {executions} runs, {} a second, cov: {covered}", it.target, executions / seconds);
        return true;
    }
    let text = read(&it.log);
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("stat::")).collect();
    eprintln!("  FAILED  {} ({status}); the last that it said:", it.target);
    for line in &lines[lines.len().saturating_sub(30)..] {
        eprintln!("    {line}");
    }
    if let Some(input) = text.lines().rev().find_map(|line| line.split_once("Test unit written to ")) {
        eprintln!("  The input is {}", input.1);
        eprintln!("  Again: cargo xtask fuzz {} --reproduce {}", it.target, input.1);
    }
    false
}

/// Puts into the tree the fewest inputs that reach all that is reached by the tree's and by those found since.
fn merge(programs: &Path, target: &str) -> Result<(), Failure> {
    let (corpus, fresh) = (root().join("fuzz/corpus").join(target), programs.join("merged").join(target));
    let _ = fs::remove_dir_all(&fresh);
    for folder in [&corpus, &fresh] {
        fs::create_dir_all(folder).map_err(Failure::io(folder.display().to_string()))?;
    }
    let mut command = Command::new(programs.join(target));
    command.args(["-set_cover_merge=1", "-verbosity=0"]).arg(format!("-max_len={CORPUS_INPUT_MAX}"));
    show(command.arg(&fresh).arg(&corpus).arg(programs.join("corpus").join(target)).stderr(Stdio::null()))?;
    fs::remove_dir_all(&corpus).map_err(Failure::io(corpus.display().to_string()))?;
    fs::create_dir_all(&corpus).map_err(Failure::io(corpus.display().to_string()))?;
    let (mut count, mut bytes) = (0, 0);
    for file in fs::read_dir(&fresh).map_err(Failure::io(fresh.display().to_string()))?.flatten() {
        let name = corpus.join(file.file_name());
        bytes += fs::copy(file.path(), &name).map_err(Failure::io(name.display().to_string()))?;
        count += 1;
    }
    println!("  merged  {target:<13} {count} files, {bytes} bytes");
    Ok(())
}

fn read(log: &Path) -> String {
    let mut bytes = Vec::new();
    // What cannot be read says nothing; the exit status does.
    let _ = File::open(log).and_then(|mut file| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn last_line(log: &Path, prefix: &str) -> String {
    read(log).lines().rev().find(|line| line.starts_with(prefix)).unwrap_or_default().to_owned()
}

//! `cargo xtask bench net`: ourselves and each peer in turn, in one run, on both kinds of link.
//!
//! One *pass* is one system on one link, fresh daemons, every measurement. A *round* is a pass of each, and each round begins with
//! another system, so that whatever the machine does meanwhile strikes all of them. Tables show the median of the rounds; only
//! ratios within one run of this command are worth comparing, across machines and days nothing is.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use lab::{Gso, LabError, interrupted};
use serde_json::json;

use super::measure::{self, Bed, Plan};
use super::report::Report;
use super::sample::Sample;
use super::subject::{self, Known, Subject};
use super::{LinkKind, machine, prepare};
use crate::cargo::target_folder;
use crate::error::Failure;

/// Seconds of each TCP measurement, and rounds, where nothing else was asked for.
pub const SECONDS: u32 = 3;
const ROUNDS: u32 = 3;

/// What `bench net` may be told.
#[derive(Args, Debug)]
pub struct Options {
    /// Which systems, separated by commas; all of them otherwise
    #[arg(long, value_delimiter = ',', value_enum)]
    systems: Vec<Known>,
    /// One more system: any daemon that makes the interface that it is told to and listens for `wg`; may be repeated
    #[arg(long = "impl", value_name = "NAME='COMMAND {ifname}'", value_parser = subject::parse_impl)]
    given: Vec<Subject>,
    /// Workers of ours, instead of one for each processor
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=256))]
    ours_workers: Option<u32>,
    /// Seconds of each TCP measurement
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: Option<u32>,
    /// How many rounds the medians are taken from
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=25))]
    runs: Option<u32>,
    /// On which links; both otherwise
    #[arg(long, value_enum)]
    link: Option<LinkKind>,
    /// One short round: to see that it works, not to quote
    #[arg(long)]
    quick: bool,
    /// Where the table, the JSON and the picture go; `target/bench` otherwise
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Measures, prints and saves.
pub fn run(options: &Options) -> Result<(), Failure> {
    let ours = prepare()?;
    let subjects = subject::list(&options.systems, &options.given, &ours, options.ours_workers)?;
    let folder = match &options.out {
        Some(folder) => folder.clone(),
        None => target_folder()?.join("bench"),
    };
    // Not half an hour later.
    std::fs::create_dir_all(&folder).map_err(Failure::io(folder.display().to_string()))?;
    try_given(&options.given)?;
    let links = match options.link {
        None => vec![Gso::Through, Gso::Off],
        Some(link) => vec![link.gso()],
    };
    let plan = Plan::new(options.seconds.unwrap_or(if options.quick { 1 } else { SECONDS }));
    let rounds = options.runs.unwrap_or(if options.quick { 1 } else { ROUNDS });
    let passes = rounds as usize * links.len() * subjects.len();
    println!(
        "{passes} passes ({} systems, {} links, {rounds} rounds), about {}. Leave the machine alone meanwhile.\n",
        subjects.len(),
        links.len(),
        minutes(plan.estimate() * passes as u32)
    );

    let start = Instant::now();
    let mut report = Report {
        when: machine::now(),
        command: command_line(),
        machine: machine::describe(),
        settings: settings(&plan, rounds, options),
        versions: versions(&subjects),
        systems: subjects.iter().map(|subject| subject.name.clone()).collect(),
        links: links.iter().map(|gso| gso.name()).collect(),
        wakeups: Vec::new(),
        samples: Vec::new(),
    };
    if !options.quick {
        println!("All systems, quiet, at once");
        let systems = subjects.iter().filter_map(|it| Some((it.name.as_str(), it.system.as_ref()?)));
        report.wakeups = measure::wakeups(systems)?;
    }
    let (mut failed, began) = (0, Instant::now());
    for round in 1..=rounds {
        for &gso in &links {
            for at in subject::order(subjects.len(), round - 1, rounds) {
                let subject = &subjects[at];
                let done = report.samples.len();
                println!(
                    "[{}/{passes}] round {round}, {}, {}{}",
                    done + 1,
                    gso.name(),
                    subject.name,
                    left(began, done, passes)
                );
                let sample = pass(subject, gso, round, &plan)?;
                println!("    {}", sample.line());
                failed += if subject.ours { sample.failures.len() } else { 0 };
                report.samples.push(sample);
            }
        }
    }
    println!("\n{}", report.markdown());
    let [table, json, picture] = report.save(&folder)?;
    println!(
        "Took {}. The table is in {}, the numbers in {}, a picture in {}",
        minutes(start.elapsed()),
        table.display(),
        json.display(),
        picture.display()
    );
    match failed {
        0 => Ok(()),
        n => Err(Failure::Measurements(n)),
    }
}

/// Each command that was given has to make a tunnel before the long measurement begins.
fn try_given(given: &[Subject]) -> Result<(), Failure> {
    for subject in given {
        println!("Trying {} …", subject.name);
        Bed::build(subject.system.as_ref(), Gso::Through).map_err(|error| match error {
            LabError::Interrupted => error.into(),
            other => Failure::Given { name: subject.name.clone(), reason: reason(other) },
        })?;
    }
    Ok(())
}

/// Why a command is of no use, in one line.
fn reason(error: LabError) -> String {
    match error {
        LabError::Died { name, status, log } => {
            let last = log.lines().rfind(|line| !line.trim().is_empty());
            let said = last.map_or_else(|| "without a word".to_owned(), |line| format!("and said: {}", line.trim()));
            format!("`{name}` made no interface that answers; it ended ({status}) {said}")
        }
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

/// One system on one link. A measurement that a system does not survive is missing from its sample; the others go on.
fn pass(subject: &Subject, gso: Gso, round: u32, plan: &Plan) -> Result<Sample, Failure> {
    let mut sample = Sample::new(&subject.name, gso.name(), round);
    let (busy, warning) = machine::others()?;
    sample.enter("busy_before", Some(busy));
    if let Some(warning) = warning {
        println!("    {warning}");
    }
    let bed = match Bed::build(subject.system.as_ref(), gso) {
        Ok(bed) => bed,
        Err(error) => return give_up(sample, "starting", error),
    };
    for (what, measure) in measure::STEPS {
        if let Err(error) = measure(&bed, plan, &mut sample) {
            sample = give_up(sample, what, error)?;
        }
    }
    Ok(sample)
}

/// Notes a measurement that failed; the wish to stop is passed on.
fn give_up(mut sample: Sample, what: &str, error: LabError) -> Result<Sample, Failure> {
    if interrupted() {
        return Err(error.into());
    }
    eprintln!("    {what} failed: {error}");
    sample.failures.push(format!("{what}: {}", reason(error)));
    Ok(sample)
}

fn settings(plan: &Plan, rounds: u32, options: &Options) -> serde_json::Value {
    json!({
        "rounds": rounds,
        "tcp_seconds": plan.seconds,
        "flood_seconds": plan.flood,
        "pings": plan.pings,
        "mtu": 1420,
        "congestion_control": "cubic",
        "clean_loss": lab::traffic::clean::CLEAN,
        "ours_workers": options.ours_workers,
    })
}

fn versions(subjects: &[Subject]) -> Vec<(String, String)> {
    let version = |subject: &Subject| Some((subject.name.clone(), subject.system.as_ref()?.version().ok()?));
    subjects.iter().filter_map(version).collect()
}

/// What the person typed, as far as we see it.
fn command_line() -> String {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let line = shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "));
    format!("cargo xtask {line}")
}

fn minutes(time: Duration) -> String {
    match time.as_secs().div_ceil(60) {
        1 => "a minute".to_owned(),
        count => format!("{count} minutes"),
    }
}

/// How long it will take from here on, once there is something to judge by.
fn left(began: Instant, done: usize, passes: usize) -> String {
    let each = began.elapsed().checked_div(done as u32);
    each.map_or_else(String::new, |each| format!(" (about {} left)", minutes(each * (passes - done) as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    #[test]
    fn what_a_command_does_wrong_is_one_line() {
        let died = |log: &str| LabError::Died {
            name: "x wg0".to_owned(),
            status: ExitStatus::from_raw(256),
            log: log.to_owned(),
        };
        assert_eq!(
            reason(died("first\nno such device\n\n")),
            "`x wg0` made no interface that answers; it ended (exit status: 1) and said: no such device"
        );
        assert!(reason(died("")).ends_with("it ended (exit status: 1) without a word"));
        assert_eq!(reason(LabError::Interrupted), "interrupted");
    }

    #[test]
    fn what_is_left_is_told_once_it_is_known() {
        assert_eq!(left(Instant::now(), 0, 5), "");
        let began = Instant::now().checked_sub(Duration::from_secs(100)).unwrap();
        assert_eq!(left(began, 2, 4), " (about 2 minutes left)");
        assert_eq!(minutes(Duration::from_secs(10)), "a minute");
    }
}

//! `cargo xtask bench net`: ourselves and each peer in turn, in one run, on both kinds of link.
//!
//! One *pass* is one system on one link, fresh daemons, every measurement. The systems alternate within a run and the runs
//! follow each other, so that whatever the machine does meanwhile strikes all of them. Tables show the median of the runs; only
//! ratios within one run of this command are worth comparing, across machines and days nothing is.

use std::time::Instant;

use clap::{Args, ValueEnum};
use lab::{Gso, LabError, System, interrupted};

use super::measure::{self, Bed, Plan};
use super::report::{self, Sample};
use super::{LinkKind, prepare};
use crate::error::Failure;

/// What `bench net` may be told.
#[derive(Args, Debug)]
pub struct Options {
    /// Which systems, separated by commas; all of them otherwise
    #[arg(long, value_delimiter = ',', value_enum)]
    systems: Vec<Subject>,
    /// Seconds of each TCP measurement
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: Option<u32>,
    /// How many runs the medians are taken from
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=25))]
    runs: Option<u32>,
    /// On which links; both otherwise
    #[arg(long, value_enum)]
    link: Option<LinkKind>,
    /// One short run: to see that it works, not to quote
    #[arg(long)]
    quick: bool,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// Ours
    Wireloom,
    /// Debian's wireguard-go
    WireguardGo,
    /// boringtun-cli
    Boringtun,
    /// gotatun-cli
    Gotatun,
    /// No tunnel: what the link itself can do
    None,
}

impl Subject {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Subject::Wireloom => "wireloom",
            Subject::WireguardGo => "wireguard-go",
            Subject::Boringtun => "boringtun",
            Subject::Gotatun => "gotatun",
            Subject::None => "no tunnel",
        }
    }

    /// What to start at both ends; nothing without a tunnel.
    pub fn system(self, ours: &System) -> Option<System> {
        match self {
            Subject::Wireloom => Some(ours.clone()),
            Subject::WireguardGo => Some(System::WireguardGo),
            Subject::Boringtun => Some(System::Boringtun),
            Subject::Gotatun => Some(System::Gotatun),
            Subject::None => None,
        }
    }
}

/// Measures, prints and saves.
pub fn run(options: &Options) -> Result<(), Failure> {
    let ours = prepare()?;
    let subjects = match options.systems.as_slice() {
        [] => Subject::value_variants(),
        some => some,
    };
    let links = match options.link {
        None => vec![Gso::Through, Gso::Off],
        Some(link) => vec![link.gso()],
    };
    let plan = Plan::new(options.seconds.unwrap_or(if options.quick { 1 } else { 5 }));
    let runs = options.runs.unwrap_or(if options.quick { 1 } else { 3 });
    let passes = runs as usize * links.len() * subjects.len();
    println!(
        "{passes} passes ({} systems, {} links, {runs} runs), about {} minutes. Leave the machine alone meanwhile.\n",
        subjects.len(),
        links.len(),
        (passes as u64 * plan.estimate().as_secs()).div_ceil(60)
    );

    let start = Instant::now();
    let (mut samples, mut failed) = (Vec::new(), 0);
    for run in 1..=runs {
        for &gso in &links {
            for &subject in subjects {
                let number = samples.len() + 1;
                let name = subject.name();
                let title = format!("[{number}/{passes}] run {run}, {}, {name}", gso.name());
                println!("{title}");
                let sample = pass(subject, &ours, gso, run, &plan)?;
                if subject == Subject::Wireloom {
                    failed += sample.failures;
                }
                println!("    {}", sample.line());
                samples.push(sample);
            }
        }
    }
    let report = report::Report::new(&ours, subjects, &links, &plan, runs, samples);
    println!("\n{}", report.markdown());
    println!(
        "Took {} minutes. The numbers are in {}",
        start.elapsed().as_secs().div_ceil(60),
        report.save()?.display()
    );
    match failed {
        0 => Ok(()),
        n => Err(Failure::Measurements(n)),
    }
}

/// One system on one link. A measurement that a system does not survive is missing from its sample; the others go on.
fn pass(subject: Subject, ours: &System, gso: Gso, run: u32, plan: &Plan) -> Result<Sample, Failure> {
    let mut sample = Sample::new(subject.name(), gso.name(), run);
    let bed = match Bed::build(subject.system(ours).as_ref(), gso) {
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
    sample.failures += 1;
    Ok(sample)
}

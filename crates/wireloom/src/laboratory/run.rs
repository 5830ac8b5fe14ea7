//! `lab run`: measures what a run lacks, keeps each measurement at once, and reports.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser};
use evaluation::{Plan, Run, System, catalogue, report};
use lab::experiment::{Campaign, CampaignError, Effort, Outcome, Planned, plan, plan_within};
use lab::subject::{self, Protocol, Subject, Versions};
use lab::{LabError, Until, helper, machine};

use super::progress::{Teller, about};
use super::{LaboratoryError, REPORT, RUN, code, heed_signals, kernel, name_of, print, width, write_report};
use crate::error::Error;

/// The minutes of a quick run.
const QUICK: u32 = 10;
/// The shares of its time after which a run begins nothing new, and for which it plans: a machine may be slower than was thought.
const LAST: f64 = 0.95;
const PLANNED: f64 = 0.88;

/// What the lab drives, whatever it measures, and the package that has it.
const PROGRAMS: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("iperf3", "iperf3"),
    ("ping", "iputils-ping"),
    ("setpriv", "util-linux"),
    ("taskset", "util-linux"),
];

/// A system that is here.
type Here = (Box<dyn Subject>, Versions);

/// Systems that are not here, by their names for people, and what installs them.
type Missing = Vec<(String, String)>;

/// What is to be measured.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct MeasureArgs {
    /// End within ten minutes, and leave variants of one system out
    #[arg(long, conflicts_with = "within")]
    quick: bool,
    /// End within so many minutes: as thorough as fits. Hours, if not said
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    within: Option<u32>,
    /// Only these systems, with commas between; all that are here, if not said
    #[arg(long, value_name = "SYSTEMS", value_delimiter = ',')]
    systems: Vec<String>,
    /// Only these experiments, with commas between
    #[arg(long, value_name = "EXPERIMENTS", value_delimiter = ',')]
    experiments: Vec<String>,
    /// How often everything is measured; 5, if not said, or what there is time for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: Option<u32>,
    /// The folder for the run, which is made
    #[arg(long, value_name = "FOLDER", default_value = "wireloom-lab")]
    out: PathBuf,
    /// Go on with the run in the folder: what is not said anew stays as it was said when it began
    #[arg(long)]
    resume: bool,
    /// Measure again what failed
    #[arg(long, requires = "resume")]
    again: bool,
}

impl MeasureArgs {
    /// The same, with each option that was not typed as it was before.
    fn or(self, before: MeasureArgs) -> MeasureArgs {
        let timed = self.limit().is_some();
        MeasureArgs {
            quick: if timed { self.quick } else { before.quick },
            within: if timed { self.within } else { before.within },
            systems: if self.systems.is_empty() { before.systems } else { self.systems },
            experiments: if self.experiments.is_empty() { before.experiments } else { self.experiments },
            rounds: self.rounds.or(before.rounds),
            ..self
        }
    }

    /// What a run is to measure that was to measure `before` and is gone on with like this. It never becomes less: what is measured now may be a part of it.
    fn and(&self, before: &MeasureArgs) -> MeasureArgs {
        let both = |one: &[String], other: &[String]| -> Vec<String> {
            // None are named where all are meant.
            if one.is_empty() || other.is_empty() {
                return Vec::new();
            }
            let new = one.iter().filter(|name| !other.contains(name));
            other.iter().chain(new).cloned().collect()
        };
        MeasureArgs {
            systems: both(&self.systems, &before.systems),
            experiments: both(&self.experiments, &before.experiments),
            rounds: self.rounds.max(before.rounds),
            ..self.clone()
        }
    }

    /// The time that it may take.
    fn limit(&self) -> Option<Duration> {
        let minutes = if self.quick { Some(QUICK) } else { self.within };
        minutes.map(|minutes| Duration::from_secs(60 * u64::from(minutes)))
    }

    /// The same in words that can be typed.
    fn command(&self) -> String {
        let mut words = vec!["wireloom lab run".to_owned()];
        words.extend(self.quick.then(|| "--quick".to_owned()));
        words.extend(self.within.map(|minutes| format!("--within {minutes}")));
        for (option, list) in [("--systems", &self.systems), ("--experiments", &self.experiments)] {
            words.extend((!list.is_empty()).then(|| format!("{option} {}", list.join(","))));
        }
        words.extend(self.rounds.map(|rounds| format!("--rounds {rounds}")));
        words.join(" ")
    }

    /// What [`MeasureArgs::command`] has written.
    fn from_command(command: &str) -> Option<MeasureArgs> {
        #[derive(Parser)]
        struct Typed {
            #[command(flatten)]
            args: MeasureArgs,
        }
        let words = command.strip_prefix("wireloom lab run")?.split_whitespace();
        Some(Typed::try_parse_from(std::iter::once("run").chain(words)).ok()?.args)
    }
}

/// Measures and reports.
pub fn run(mut args: MeasureArgs) -> Result<(), Error> {
    let began = Instant::now();
    let known = check(&args)?;
    lab::require_root().map_err(LaboratoryError::from)?;
    // Before anything is made that would have to be taken away.
    heed_signals()?;
    let path = args.out.join(RUN);
    let before = begun(&path, &mut args)?;
    programs(&args)?;
    let deadline = args.limit().map(|limit| began + limit.mul_f64(LAST));
    let (subjects, missing) = {
        // A program that hangs while it is asked for its version takes no more than there is.
        let _until = Until::new(deadline);
        choose(known, &args)?
    };
    if lab::interrupted() {
        return Err(LaboratoryError::from(LabError::Interrupted).into());
    }
    let chosen: Vec<&dyn Subject> = subjects.iter().map(|(it, _)| &**it).collect();
    let planned = planned(&args, &chosen, before.as_ref())?;
    if planned.plan.steps.is_empty() {
        return Err(LaboratoryError::Nothing.into());
    }
    let mut run = before.unwrap_or_else(|| new_run(&args, &planned));
    for (subject, versions) in &subjects {
        enter(&mut run, &**subject, versions).map_err(|why| LaboratoryError::Unlike { path: path.clone(), why })?;
    }
    if let Some(before) = MeasureArgs::from_command(&run.command) {
        run.command = args.and(&before).command();
    }
    if args.again {
        forget_failures(&mut run, &planned.plan);
    }
    let uncounted = code::enter_cached(&mut run);
    run.missing.retain(|name, _| !chosen.iter().any(|it| it.name() == name));
    run.missing.extend(missing);

    fs::create_dir_all(&args.out).map_err(|source| LaboratoryError::File { path: args.out.clone(), source })?;
    // So that there is something to go on with, whenever it is interrupted.
    run.save(&path).map_err(LaboratoryError::from)?;
    let _helper = helper::Link::new().map_err(LaboratoryError::from)?;
    announce(&planned, &run);
    let teller = Teller::new();
    let outcome = Campaign {
        subjects: &chosen,
        planned: &planned,
        deadline,
        keep: &mut |run| run.save(&path),
        tell: &mut |progress| teller.tell(progress),
    }
    .go(&mut run);
    teller.end();
    // Whoever asked for something certain did not ask for these.
    let kernels = match &outcome {
        Ok(_) if args.systems.is_empty() && args.experiments.is_empty() => kernel::complete(&mut run, &path, deadline),
        _ => Ok(()),
    };
    let page = args.out.join(REPORT);
    if !run.records.is_empty() {
        write_report(&run, &page)?;
    }
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(_) if lab::interrupted() => {
            let of = planned.plan.steps.len() * planned.plan.rounds as usize;
            let done = of - planned.plan.missing(&run, false).len();
            return Err(LaboratoryError::Interrupted { done, of, folder: args.out }.into());
        }
        Err(CampaignError::Lab(error)) => return Err(LaboratoryError::from(error).into()),
        Err(CampaignError::Kept(error)) => return Err(LaboratoryError::from(error).into()),
    };
    if let Err(error) = kernels {
        return match error {
            LaboratoryError::Lab(_) if lab::interrupted() => {
                let of = planned.plan.steps.len() * planned.plan.rounds as usize;
                Err(LaboratoryError::Interrupted { done: of - outcome.left, of, folder: args.out }.into())
            }
            error => Err(error.into()),
        };
    }
    let mut text = format!("{}\n{}", report::summary(&run, width()), ending(&outcome, &path, &page));
    if !uncounted.is_empty() {
        text += &code::hint(&uncounted, &args.out);
    }
    print(&text)
}

/// What was typed, against what there is: every system by its slug.
fn check(args: &MeasureArgs) -> Result<Vec<Box<dyn Subject>>, LaboratoryError> {
    let all = subject::all();
    let unknown = |kind, name: &String, known: Vec<&str>| {
        Err(LaboratoryError::Unknown { kind, name: name.clone(), known: known.join(", ") })
    };
    if let Some(name) = args.systems.iter().find(|name| all.iter().all(|it| it.slug() != **name)) {
        return unknown("system", name, all.iter().map(|it| it.slug()).collect());
    }
    if let Some(name) = args.experiments.iter().find(|name| catalogue::find(name).is_none()) {
        return unknown("experiment", name, catalogue::EXPERIMENTS.iter().map(|it| it.slug).collect());
    }
    Ok(all)
}

/// The run that is to be gone on with, if one is.
fn begun(path: &Path, args: &mut MeasureArgs) -> Result<Option<Run>, LaboratoryError> {
    if !args.resume {
        return if path.exists() { Err(LaboratoryError::Occupied { path: path.to_owned() }) } else { Ok(None) };
    }
    let run = Run::load(path)?;
    let unlike = |why: String| Err(LaboratoryError::Unlike { path: path.to_owned(), why });
    let here = machine::describe();
    if !run.machine.is_same(&here) {
        return unlike(format!("it was measured on another machine: {}, expected {}", run.machine.line(), here.line()));
    }
    if let Some(before) = MeasureArgs::from_command(&run.command) {
        if before.limit().is_none() && args.limit().is_some() {
            return unlike("it was begun without --quick or --within, expected none".to_owned());
        }
        *args = args.clone().or(before);
    }
    // The names of its systems may be of another version of this program.
    check(args)?;
    Ok(Some(run))
}

/// Takes the failures of what is planned out, so that it is measured again.
fn forget_failures(run: &mut Run, plan: &Plan) {
    let due: BTreeSet<_> =
        plan.missing(run, true).into_iter().map(|todo| (todo.step.record(1, 0).place(), todo.round)).collect();
    run.records.retain(|record| record.failure.is_none() || !due.contains(&(record.place(), record.round)));
}

/// What is to be measured; of a run that has been begun as thoroughly as it was.
fn planned(args: &MeasureArgs, chosen: &[&dyn Subject], before: Option<&Run>) -> Result<Planned, LaboratoryError> {
    // What only reads another's records has that one measured.
    let sources = args.experiments.iter().filter_map(|name| Some(catalogue::find(name)?.source.to_owned()));
    let experiments: Vec<String> = sources.collect();
    let Some(limit) = args.limit() else {
        let effort = Effort::full();
        return Ok(plan(chosen, &experiments, &effort, args.rounds.unwrap_or(effort.rounds)));
    };
    let fitting = plan_within(limit.as_secs_f64() * PLANNED, chosen, &experiments, args.rounds);
    let effort = before.and_then(|run| Effort::named(run.settings.get("effort")?));
    Ok(match effort {
        Some(effort) if effort != fitting.effort => plan(chosen, &experiments, &effort, fitting.plan.rounds),
        _ => fitting,
    })
}

/// The systems that are here, and of the others what would install them. One that was asked for has to be here.
fn choose(all: Vec<Box<dyn Subject>>, args: &MeasureArgs) -> Result<(Vec<Here>, Missing), LaboratoryError> {
    let (mut here, mut missing, names) = (Vec::new(), Vec::new(), &args.systems);
    for subject in all {
        let wanted = if names.is_empty() {
            !(args.quick && subject.is_variant())
        } else {
            names.iter().any(|name| name == subject.slug())
        };
        if !wanted {
            continue;
        }
        match subject.available() {
            Ok(versions) => here.push((subject, versions)),
            Err(it) if names.is_empty() => missing.push((subject.name().to_owned(), it.install)),
            Err(it) => {
                let name = subject.name().to_owned();
                return Err(LaboratoryError::NotHere { name, what: it.what, install: it.install });
            }
        }
    }
    Ok((here, missing))
}

fn programs(args: &MeasureArgs) -> Result<(), LaboratoryError> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let here = |program: &str| std::env::split_paths(&folders).any(|folder| folder.join(program).is_file());
    let none = args
        .systems
        .iter()
        .all(|name| subject::named(name).is_none_or(|subject| subject.protocol() != Protocol::WireGuard))
        && !args.systems.is_empty();
    let wg = (!none).then_some(("wg", "wireguard-tools"));
    match PROGRAMS.into_iter().chain(wg).find(|(program, _)| !here(program)) {
        Some((program, package)) => Err(LaboratoryError::Program { program, package }),
        None => Ok(()),
    }
}

fn new_run(args: &MeasureArgs, planned: &Planned) -> Run {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut run = Run::new(&name_of(&args.out), now, now, machine::describe());
    run.command = args.command();
    let effort = &planned.effort;
    for (key, value) in [
        ("effort", effort.name.to_owned()),
        ("seconds of TCP", effort.seconds.to_string()),
        ("congestion control", "cubic".to_owned()),
        ("link", "veth, 1500 B; each datagram crosses it alone, as by a network card, but for what is labelled `gso`: there super-packets cross whole".to_owned()),
        ("MTU of tunnels", "1420 B".to_owned()),
        ("echo requests of an idle tunnel", effort.pings.to_string()),
        ("rates tried for a clean one", effort.probes.to_string()),
        ("clients that connect at once", effort.members.to_string()),
    ] {
        run.settings.insert(key.to_owned(), value);
    }
    run
}

/// What a system is; what was counted when it was set up stays.
///
/// # Errors
/// Why it cannot stand beside what was measured: that was of another version.
fn enter(run: &mut Run, subject: &dyn Subject, versions: &Versions) -> Result<(), String> {
    let versions: Vec<_> = versions.0.iter().map(|(_, version)| version.as_str()).collect();
    let version = versions.join("; ");
    let measured = run.records.iter().any(|record| record.system == subject.slug());
    let system = run.systems.entry(subject.slug().to_owned()).or_default();
    if measured && system.version != version {
        let (slug, before) = (subject.slug(), &system.version);
        return Err(format!("{slug} was {before:?} and is now {version:?}, expected another folder with --out"));
    }
    *system = System {
        title: subject.name().to_owned(),
        version,
        protocol: subject.protocol().name().to_owned(),
        cipher: subject.cipher().to_owned(),
        carrier: subject.place().name().to_owned(),
        ours: subject.slug() == "wireloom" || subject.slug().starts_with("wireloom-"),
        caveat: std::mem::take(&mut system.caveat),
        configuration_lines: system.configuration_lines,
        steps: system.steps,
        code: system.code.take(),
    };
    Ok(())
}

/// What is going to be done, before it takes hours.
fn announce(planned: &Planned, run: &Run) {
    let missing = planned.plan.missing(run, false).len();
    let left = Duration::from_secs_f64(planned.plan.estimate(run, false).max(0.0));
    eprintln!(
        "{} systems, {missing} measurements in {} rounds, {}; Ctrl-C keeps what has been measured",
        run.systems.len(),
        planned.plan.rounds,
        about(left)
    );
    for (name, install) in &run.missing {
        eprintln!("not here: {name} ({install})");
    }
    if !planned.left_out.is_empty() {
        eprintln!("left out, because there is no time: {}", planned.left_out.join(", "));
    }
    if let Ok((_, Some(warning))) = machine::others() {
        eprintln!("{warning}: figures will not be worth much, and the report says so");
    }
}

fn ending(outcome: &Outcome, run: &Path, page: &Path) -> String {
    let mut text = String::new();
    if outcome.failed > 0 {
        text += &format!("{} of {} measurements failed; the report says why.\n", outcome.failed, outcome.measured);
    }
    if outcome.left > 0 {
        text += &format!("The time was over before {} measurements; `--resume` makes them.\n", outcome.left);
    }
    text + &format!("The report is in {}, the numbers in {}\n", page.display(), run.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_to_be_measured_is_known_when_it_is_gone_on_with() {
        for args in [
            MeasureArgs::default(),
            MeasureArgs {
                quick: true,
                systems: vec!["none".to_owned(), "wireloom".to_owned()],
                experiments: vec!["latency".to_owned()],
                rounds: Some(7),
                ..MeasureArgs::default()
            },
            MeasureArgs { within: Some(40), ..MeasureArgs::default() },
        ] {
            let read = MeasureArgs::from_command(&args.command()).unwrap();
            assert_eq!(MeasureArgs { out: PathBuf::new(), ..read }, args);
        }
        for bad in
            ["", "rm -rf /", "wireloom lab run --rounds 0", "wireloom lab run --fast", "wireloom lab run --within 0"]
        {
            assert_eq!(MeasureArgs::from_command(bad), None, "{bad}");
        }
    }

    fn typed(words: &str) -> MeasureArgs {
        MeasureArgs::from_command(&format!("wireloom lab run {words}")).unwrap()
    }

    #[test]
    fn what_is_not_typed_stays_and_a_run_never_becomes_less() {
        for (before, words, now, kept) in [
            (
                "--systems none,wireloom",
                "--rounds 8",
                "--systems none,wireloom --rounds 8",
                "--systems none,wireloom --rounds 8",
            ),
            ("--quick --rounds 3", "", "--quick --rounds 3", "--quick --rounds 3"),
            ("--quick", "--within 30", "--within 30", "--within 30"),
            (
                "--systems none,wireloom --rounds 8",
                "--systems kernel --rounds 2",
                "--systems kernel --rounds 2",
                "--systems none,wireloom,kernel --rounds 8",
            ),
            ("", "--systems none --experiments latency", "--systems none --experiments latency", ""),
        ] {
            let before = typed(before);
            let args = typed(words).or(before.clone());
            assert_eq!(args.command(), typed(now).command());
            assert_eq!(args.and(&before).command(), typed(kept).command());
        }
    }

    #[test]
    fn another_version_of_a_system_is_another_system() {
        let none = subject::named("none").unwrap();
        let mut run = Run::new("r", 0, 1, machine::describe());
        enter(&mut run, &*none, &Versions::default()).unwrap();
        run.systems.get_mut("none").unwrap().version = "2.0".to_owned();
        // As long as it was not measured, the old one is of no matter.
        enter(&mut run, &*none, &Versions::default()).unwrap();
        run.systems.get_mut("none").unwrap().version = "2.0".to_owned();
        run.records.push(evaluation::Record::new("latency", "none", 1, 0));
        let why = enter(&mut run, &*none, &Versions::default()).unwrap_err();
        assert_eq!(why, "none was \"2.0\" and is now \"\", expected another folder with --out");
    }

    #[test]
    fn only_failures_of_the_plan_are_forgotten() {
        let record = |experiment: &str, round, failure: Option<&str>| evaluation::Record {
            failure: failure.map(str::to_owned),
            ..evaluation::Record::new(experiment, "none", round, 0)
        };
        let mut run = Run::new("r", 0, 1, machine::describe());
        run.records = vec![
            record("latency", 1, None),
            record("latency", 2, Some("it said no")),
            record("start", 1, Some("it said no")),
            record("latency", 3, Some("it said no")),
        ];
        let plan = Plan { steps: vec![evaluation::Step::new("latency", "none", 1.0)], rounds: 2 };
        forget_failures(&mut run, &plan);
        let left: Vec<_> = run.records.iter().map(|it| (it.experiment.as_str(), it.round)).collect();
        assert_eq!(left, [("latency", 1), ("start", 1), ("latency", 3)]);
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let args = MeasureArgs { systems: names(&["none", "tinc"]), ..MeasureArgs::default() };
        let error = check(&args).map(drop).unwrap_err().to_string();
        assert!(error.starts_with("there is no system \"tinc\", expected some of wireloom, "), "{error}");
        let args = MeasureArgs { experiments: names(&["speed"]), ..MeasureArgs::default() };
        let error = check(&args).map(drop).unwrap_err().to_string();
        assert!(error.starts_with("there is no experiment \"speed\", expected some of streams, "), "{error}");
    }
}

//! `lab run`: measures what a run lacks, keeps each measurement at once, and reports.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser};
use evaluation::{Run, System, catalogue, report};
use lab::experiment::{Campaign, CampaignError, Effort, Outcome, Planned, plan, plan_within};
use lab::subject::{self, Protocol, Subject};
use lab::{helper, machine};

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
    /// Go on with the run in the folder. Where nothing else is said, what it was to measure is still measured
    #[arg(long)]
    resume: bool,
}

impl MeasureArgs {
    /// Whether nothing is said of what is to be measured.
    fn is_open(&self) -> bool {
        !self.quick
            && self.within.is_none()
            && self.systems.is_empty()
            && self.experiments.is_empty()
            && self.rounds.is_none()
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
    let path = args.out.join(RUN);
    let before = begun(&path, &mut args)?;
    programs(&args)?;
    let (subjects, missing) = choose(known, &args)?;
    let chosen: Vec<&dyn Subject> = subjects.iter().map(|it| &**it).collect();
    let planned = planned(&args, &chosen, before.as_ref())?;
    if planned.plan.steps.is_empty() {
        return Err(LaboratoryError::Nothing.into());
    }
    let mut run = before.unwrap_or_else(|| new_run(&args, &planned));
    for subject in &chosen {
        enter(&mut run, *subject);
    }
    let uncounted = code::enter_cached(&mut run);
    run.missing.retain(|name, _| !chosen.iter().any(|it| it.name() == name));
    run.missing.extend(missing);

    fs::create_dir_all(&args.out).map_err(|source| LaboratoryError::File { path: args.out.clone(), source })?;
    // So that there is something to go on with, whenever it is interrupted.
    run.save(&path).map_err(LaboratoryError::from)?;
    heed_signals()?;
    let _helper = helper::Link::new().map_err(LaboratoryError::from)?;
    announce(&planned, &run);
    let deadline = args.limit().map(|limit| began + limit.mul_f64(LAST));
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
    if run.machine != here {
        return unlike(format!("it was measured on another machine: {}, expected {}", run.machine.line(), here.line()));
    }
    if args.is_open()
        && let Some(typed) = MeasureArgs::from_command(&run.command)
    {
        *args = MeasureArgs { out: args.out.clone(), resume: true, ..typed };
    }
    let short = MeasureArgs::from_command(&run.command).is_some_and(|typed| typed.limit().is_some());
    match (short, args.limit().is_some()) {
        (true, false) => unlike("it was begun with --quick or --within, expected one of them again".to_owned()),
        (false, true) => unlike("it was begun without --quick or --within, expected none".to_owned()),
        _ => {
            // The names of its systems may be of another version of this program.
            check(args)?;
            Ok(Some(run))
        }
    }
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
fn choose(all: Vec<Box<dyn Subject>>, args: &MeasureArgs) -> Result<(Vec<Box<dyn Subject>>, Missing), LaboratoryError> {
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
            Ok(_) => here.push(subject),
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
fn enter(run: &mut Run, subject: &dyn Subject) {
    let versions = subject.available().map(|it| it.0).unwrap_or_default();
    let versions: Vec<_> = versions.into_iter().map(|(_, version)| version).collect();
    let system = run.systems.entry(subject.slug().to_owned()).or_default();
    *system = System {
        title: subject.name().to_owned(),
        version: versions.join("; "),
        protocol: subject.protocol().name().to_owned(),
        carrier: subject.place().name().to_owned(),
        ours: subject.slug() == "wireloom" || subject.slug().starts_with("wireloom-"),
        caveat: std::mem::take(&mut system.caveat),
        configuration_lines: system.configuration_lines,
        steps: system.steps,
        code: system.code.take(),
    };
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
        eprintln!("{warning}: figures will not be worth much");
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

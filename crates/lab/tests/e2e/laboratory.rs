//! `wireloom lab`: a small run is interrupted, gone on with, reported, compared and merged; and what cannot be measured is told and does not stop the rest.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use evaluation::{Machine, Run};
use lab::experiment::{Campaign, Effort, Outcome, plan};
use lab::subject::{self, Meter, Missing, NoTunnel, Place, Protocol, Subject, Versions, Works};
use lab::{Finished, LabError, Process, System};
use rustix::process::Signal;

/// Of what takes some seconds, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(240);

/// `wireloom lab`, with words.
fn command(folder: &Path, words: &str) -> Command {
    let mut command = Command::new(System::wireloom().unwrap().program().unwrap());
    command.current_dir(folder).arg("lab").args(words.split_whitespace());
    command
}

fn told(folder: &Path, words: &str) -> Finished {
    lab::run(&mut command(folder, words), LIMIT).unwrap()
}

fn fine(folder: &Path, words: &str) -> String {
    told(folder, words).checked().unwrap().stdout
}

/// The one line that it says, and nothing else.
fn refused(folder: &Path, words: &str) -> String {
    let said = told(folder, words);
    assert!(!said.status.success() && said.stdout.is_empty(), "{words}: {}", said.log());
    assert_eq!(said.stderr.trim_end().lines().count(), 1, "{words}: {}", said.stderr);
    said.stderr
}

#[test]
fn a_run_is_interrupted_gone_on_with_reported_compared_and_merged() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let words = "run --quick --systems none,wireloom --experiments latency,streams --rounds 1 --out small";
    let path = folder.join("small/run.json");
    let mut process = Process::spawn(&mut command(folder, words)).unwrap();
    let id = process.id();
    // Whatever is there of it is a whole run, at any moment.
    lab::wait_for("the first measurement", LIMIT, || match process.status() {
        Some(_) => Err(LabError::Unreadable { what: "a run", text: process.log() }),
        None => Ok((path.exists() && !Run::load(&path).unwrap().records.is_empty()).then_some(())),
    })
    .unwrap();
    process.signal(Signal::INT);
    let said = process.finish(LIMIT).unwrap();
    assert_eq!(said.status.code(), Some(1), "{}", said.log());
    let last = said.stderr.lines().last().unwrap();
    assert!(last.contains("interrupted after ") && last.contains(" of 6 measurements, which are in small"), "{last}");
    let left = fs::read_dir("/run/netns").unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let left: Vec<_> = left.filter(|name| name.starts_with(&format!("wl-{id}-"))).collect();
    assert!(left.is_empty(), "{left:?}");
    let begun = Run::load(&path).unwrap();
    assert!((1..6).contains(&begun.records.len()), "{} measurements", begun.records.len());

    // Another one is not begun in its place, nor is it gone on with in another way.
    assert!(refused(folder, words).contains("small/run.json is there already, expected --resume"));
    let other = refused(folder, "run --systems none --out small --resume");
    assert!(other.contains("it was begun with --quick"), "{other}");

    // What it was to measure it knows.
    let summary = fine(folder, "run --out small --resume");
    let run = Run::load(&path).unwrap();
    assert_eq!(run.records[..begun.records.len()], begun.records);
    let mut measured: Vec<_> = run.records.iter().map(|it| (it.system.as_str(), it.experiment.as_str())).collect();
    measured.sort_unstable();
    let of = |system| [(system, "latency"), (system, "streams"), (system, "streams")];
    assert_eq!(measured, [of("none"), of("wireloom")].concat());
    for record in &run.records {
        assert_eq!(record.failure, None, "{record:?}");
        assert!(record.took > 0.5, "{record:?}");
        if record.experiment == "latency" {
            assert!(record.latency.as_ref().unwrap().len() > 100, "{record:?}");
            assert!(record.metric("p99").unwrap() >= record.metric("p50").unwrap());
        } else {
            // Less than a megabit a second would be something else than a slow machine.
            assert!(record.metric("throughput").unwrap() > 1e6, "{record:?}");
            assert!(record.metric("cost").unwrap() > 0.0 && record.metric("processors").unwrap() > 0.0);
        }
    }
    assert!(run.systems["wireloom"].ours && run.systems["wireloom"].configuration_lines.unwrap() > 5);
    assert!(summary.contains("Throughput against streams") && summary.contains("Too few rounds (1)"), "{summary}");
    assert!(!folder.join("small/run.json.part").exists());

    // The same words again have nothing left to do.
    fine(folder, &format!("{words} --resume"));
    assert_eq!(Run::load(&path).unwrap().records.len(), 6);

    let page = fs::read_to_string(folder.join("small/report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("Throughput against streams"));
    let said = fine(folder, "report small/run.json --out page.html");
    assert!(said.contains("Latency of an idle tunnel") && said.contains("page.html"), "{said}");
    assert_eq!(fs::read_to_string(folder.join("page.html")).unwrap(), page);
    let said = fine(folder, "compare small small");
    assert!(said.contains("No difference can be shown"), "{said}");
    assert!(refused(folder, "merge small small --out both.json").contains("they are the same run"));
    let again = Run { id: "again".to_owned(), started: run.started + 1, ..run };
    again.save(&folder.join("again.json")).unwrap();
    fine(folder, "merge small again.json --out both.json");
    assert_eq!(Run::load(&folder.join("both.json")).unwrap().records.len(), 12);
    assert!(refused(folder, "merge small small --out both.json").contains("both.json is there already"));
}

#[test]
fn what_makes_no_sense_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("bad.json"), "{}").unwrap();
    for (words, said) in [
        ("run --systems tinc", "there is no system \"tinc\", expected some of wireloom, "),
        ("run --experiments speed", "there is no experiment \"speed\", expected some of streams, "),
        ("run --rounds 0", "invalid value '0' for '--rounds <N>'"),
        ("run --resume --out nowhere", "nowhere/run.json: No such file"),
        ("run --systems none --experiments start", "none of these systems can be asked for any of these experiments"),
        ("report nowhere", "nowhere: No such file"),
        ("report bad.json", "bad.json: not a run of the lab"),
        ("compare bad.json", "required arguments were not provided"),
        ("merge bad.json --out x", "2 values required"),
        ("kernel build --series 5.10", "there is no such series, expected one of 6.1, 6.12"),
        ("kernel weigh 7.0", "there is no such kernel, expected one of 6.1, 6.12, built-in-6.1, built-in-6.12"),
        ("kernel weigh --out bad.json", "bad.json: not a run of the lab"),
        ("fly", "unrecognized subcommand 'fly'"),
    ] {
        let line = refused(folder, words);
        assert!(line.contains(said), "{words}: {line}");
    }
    assert!(!folder.join("wireloom-lab").exists());
    let list = fine(folder, "list");
    for line in ["  none ", "  wireloom ", "  latency-loaded ", "(measured by tunnels)"] {
        assert!(list.contains(line), "{list}");
    }
}

#[test]
fn kernels_for_guests_are_listed_with_the_command_that_brings_each() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("wireloom/kernels");
    let here =
        |words: &str| lab::run(command(folder.path(), words).env("XDG_CACHE_HOME", folder.path()), LIMIT).unwrap();
    let list = here("kernel list").checked().unwrap().stdout;
    assert_eq!(list.matches("not here: ").count(), 4, "{list}");
    for words in ["fetch 6.1`", "fetch 6.12`", "build --series 6.1`", "build --series 6.12`"] {
        assert!(list.contains(&format!("`wireloom lab kernel {words}")), "{list}");
    }
    let said = here("kernel weigh built-in-6.12").stderr;
    assert_eq!(
        said.trim_end(),
        "wireloom: built-in-6.12 is not here, it is not in the cache, expected `wireloom lab kernel build --series 6.12` before"
    );
    // What a build that was killed has left is no kernel; nor is one of another configuration.
    for name in ["built-in-6.12.part", "built-in-6.12"] {
        fs::create_dir_all(cache.join(name)).unwrap();
        fs::write(cache.join(name).join("vmlinuz"), "MZ").unwrap();
        fs::write(cache.join(name).join("wanted"), "CONFIG_NET=y\n").unwrap();
        fs::write(cache.join(name).join("release"), "6.12.0\n").unwrap();
    }
    assert_eq!(here("kernel list").checked().unwrap().stdout, list);
    // None of what compiles is found where no program is, whatever this machine has.
    let mut build = command(folder.path(), "kernel build");
    let said = lab::run(build.env("XDG_CACHE_HOME", folder.path()).env("PATH", folder.path()), LIMIT).unwrap();
    assert!(!said.status.success() && said.stdout.is_empty() && said.stderr.lines().count() == 1, "{}", said.log());
    assert!(
        said.stderr.contains("are missing, expected `apt-get install make gcc binutils flex bison bc "),
        "{}",
        said.stderr
    );
}

/// A system that is here and that cannot be set up.
struct Broken;

impl Subject for Broken {
    fn slug(&self) -> &str {
        "broken"
    }

    fn name(&self) -> &str {
        "broken"
    }

    fn protocol(&self) -> Protocol {
        Protocol::Nothing
    }

    fn place(&self) -> Place {
        Place::Nowhere
    }

    fn cipher(&self) -> &str {
        ""
    }

    fn available(&self) -> Result<Versions, Missing> {
        Ok(Versions::default())
    }

    fn build(&self, works: &mut Works) -> Result<Box<dyn Meter>, LabError> {
        works.gateway(lab::Side::Left).run("false", &[]).map(drop)?;
        NoTunnel.build(works)
    }
}

#[test]
fn what_fails_is_a_record_and_the_rest_is_measured() {
    let subjects: [&dyn Subject; 2] = [&Broken, &NoTunnel];
    let effort = Effort { pings: 20, ..Effort::quick() };
    let experiments = ["latency".to_owned(), "recovery".to_owned()];
    let planned = plan(&subjects, &experiments, &effort, 1);
    let machine = Machine { processors: 1, ..Machine::default() };
    let mut run = Run::new("r", 0, 1, machine);
    for subject in subjects {
        run.systems.insert(subject.slug().to_owned(), evaluation::System::default());
    }
    let (mut kept, mut told) = (0, 0);
    let outcome = Campaign {
        subjects: &subjects,
        planned: &planned,
        deadline: None,
        keep: &mut |run| {
            kept += 1;
            assert_eq!((run.records.len(), run.fault()), (kept, None));
            Ok(())
        },
        tell: &mut |progress| {
            assert_eq!((progress.done, progress.of), (told, 4));
            told += 1;
        },
    }
    .go(&mut run)
    .unwrap();
    assert_eq!((outcome.measured, outcome.left), (4, 0));
    for record in &run.records {
        let why = record.failure.as_deref().unwrap_or_default();
        assert_eq!(why.starts_with("it could not be set up: `false` failed"), record.system == "broken", "{record:?}");
    }
    // A machine that is busy may spoil a measurement, too, but not all of them.
    let failed = run.records.iter().filter(|record| record.failure.is_some()).count();
    assert!(outcome.failed == failed && (2..4).contains(&failed), "{:?}", run.records);

    // And where there is no time, nothing is begun.
    run.records.clear();
    let late = Campaign {
        subjects: &subjects,
        planned: &planned,
        deadline: Some(std::time::Instant::now()),
        keep: &mut |_| panic!("there was no time"),
        tell: &mut |_| panic!("there was no time"),
    }
    .go(&mut run)
    .unwrap();
    assert_eq!(late, Outcome { measured: 0, failed: 0, left: 4 });
    assert!(subject::named("broken").is_none());
}

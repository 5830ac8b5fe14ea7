//! `wireloom lab`: a small run is interrupted, gone on with, reported, compared and merged; and what cannot be measured is told and does not stop the rest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use evaluation::{Machine, Run};
use lab::experiment::{Campaign, Effort, Outcome, plan};
use lab::subject::{self, Meter, Missing, NoTunnel, Place, Protocol, Subject, Versions, Works};
use lab::{Finished, LabError, Process, System};
use rustix::process::{Pid, Signal, kill_process_group};

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
    // Whatever it starts has this in its environment, too.
    let mark = format!("LAB_E2E_OF={}", folder.display());
    let (key, value) = mark.split_once('=').unwrap();
    let mut process = Process::spawn(command(folder, words).env(key, value)).unwrap();
    let id = process.id();
    // Whatever is there of it is a whole run, at any moment.
    lab::wait_for("the first measurement", LIMIT, || match process.status() {
        Some(_) => panic!("{}", process.log()),
        None => Ok((path.exists() && !Run::load(&path).unwrap().records.is_empty()).then_some(())),
    })
    .unwrap();
    // Whoever presses Ctrl-C once presses it again, and the terminal tells all of the group: nothing that cleans up may be stopped by that.
    assert!(!marked(&mark).is_empty());
    let group = Pid::from_raw(id.cast_signed()).unwrap();
    lab::wait_until("it to end", LIMIT, || {
        process.status().is_some() || kill_process_group(group, Signal::INT).is_err()
    })
    .unwrap();
    let said = process.finish(LIMIT).unwrap();
    assert_eq!(said.status.code(), Some(1), "{}", said.log());
    let last = said.stderr.lines().last().unwrap();
    assert!(last.contains("interrupted after ") && last.contains(" measurements, which are in small"), "{last}");
    let of = last.split(" of ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok()).unwrap();
    for (place, prefix) in [
        (Path::new("/run/netns"), format!("wl-{id}-")),
        (Path::new("/var/run/wireguard"), format!("wl{id}x")),
        (&std::env::temp_dir(), format!("wireloom-lab-{id}-")),
    ] {
        let names = fs::read_dir(place).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let left: Vec<_> = names.filter(|name| name.starts_with(&prefix)).collect();
        assert!(left.is_empty(), "{}: {left:?}", place.display());
    }
    // What has been killed with its namespace may still be ending.
    lab::wait_until("its processes to be gone", LIMIT, || marked(&mark).is_empty()).unwrap();
    let begun = Run::load(&path).unwrap();
    assert!((1..of).contains(&begun.records.len()), "{} measurements", begun.records.len());

    // Another one is not begun in its place, nor is it gone on with in another way.
    assert!(refused(folder, words).contains("small/run.json is there already, expected --resume"));
    fs::create_dir(folder.join("other")).unwrap();
    let mut other = begun.clone();
    other.command = "wireloom lab run --systems none".to_owned();
    for record in &begun.records {
        other.systems.get_mut(&record.system).unwrap().version = "of old".to_owned();
    }
    other.save(&folder.join("other/run.json")).unwrap();
    let said = refused(folder, "run --quick --out other --resume");
    assert!(said.contains("it was begun without --quick"), "{said}");
    let said = refused(folder, &format!("run --systems {} --out other --resume", begun.records[0].system));
    assert!(said.contains("was \"of old\" and is now "), "{said}");

    // What it was to measure it knows.
    let summary = fine(folder, "run --out small --resume");
    let run = Run::load(&path).unwrap();
    assert_eq!(run.records[..begun.records.len()], begun.records);
    assert_eq!(run.records.len(), of);
    for system in ["none", "wireloom"] {
        let of_it = |experiment: &str| {
            run.records.iter().filter(|it| it.system == system && it.experiment == experiment).count()
        };
        assert_eq!((of_it("latency"), of_it("streams")), (1, of / 2 - 1), "{system}");
    }
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
    let ours = &run.systems["wireloom"];
    assert!(ours.version.contains(", build ") && ours.cipher.starts_with("ChaCha20-Poly1305, "), "{ours:?}");
    assert!(run.systems["wireloom"].ours && run.systems["wireloom"].configuration_lines.unwrap() > 5);
    assert!(summary.contains("Throughput against streams") && summary.contains("Too few rounds (1)"), "{summary}");
    let mut files: Vec<_> = fs::read_dir(folder.join("small")).unwrap().map(|it| it.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["report.html", "run.json"]);

    // The same words again have nothing left to do.
    fine(folder, &format!("{words} --resume"));
    assert_eq!(Run::load(&path).unwrap().records.len(), of);

    let page = fs::read_to_string(folder.join("small/report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("Throughput against streams"));
    let said = fine(folder, "report small/run.json --out page.html");
    assert!(said.contains("Latency of an idle tunnel") && said.contains("page.html"), "{said}");
    assert_eq!(fs::read_to_string(folder.join("page.html")).unwrap(), page);
    let said = fine(folder, "compare small small");
    assert!(said.contains("No difference can be shown"), "{said}");
    assert!(refused(folder, "merge small small --out both.json").contains("both have the same measurement"));
    let mut again = Run { id: "again".to_owned(), started: run.started + 1, ..run };
    again.records.iter_mut().for_each(|record| record.when += 1);
    again.save(&folder.join("again.json")).unwrap();
    fine(folder, "merge small again.json --out both.json");
    assert_eq!(Run::load(&folder.join("both.json")).unwrap().records.len(), 2 * of);
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
    // Somebody who is not root, and who may read the program there.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.join("wireloom");
    fs::copy(System::wireloom().unwrap().program().unwrap(), &program).unwrap();
    let mut command = Command::new(program);
    let said = lab::run(command.args(["lab", "run"]).current_dir("/").uid(65534).gid(65534), LIMIT).unwrap();
    assert_eq!(said.status.code(), Some(1), "{}", said.log());
    assert_eq!(said.log(), "wireloom: this makes network namespaces and so needs root: run it with sudo\n");
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

/// The processes that were started with this in their environment.
fn marked(mark: &str) -> Vec<PathBuf> {
    let has = |path: &PathBuf| {
        fs::read(path.join("environ")).is_ok_and(|it| it.split(|b| *b == 0).any(|it| it == mark.as_bytes()))
    };
    fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).filter(has).collect()
}

/// A system that is here and that cannot be set up, because of a command.
struct Broken(&'static [&'static str]);

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
        works.gateway(lab::Side::Left).run(self.0[0], &self.0[1..]).map(drop)?;
        NoTunnel.build(works)
    }
}

#[test]
fn what_fails_is_a_record_and_the_rest_is_measured() {
    let subjects: [&dyn Subject; 2] = [&Broken(&["false"]), &NoTunnel];
    let effort = Effort { pings: 20, ..Effort::quick() };
    let experiments = ["latency".to_owned(), "flood".to_owned()];
    let planned = plan(&subjects, &experiments, &effort, 1);
    let of = planned.plan.steps.len();
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
            assert_eq!((progress.done, progress.of), (told, of));
            told += 1;
        },
    }
    .go(&mut run)
    .unwrap();
    assert_eq!((outcome.measured, outcome.left), (of, 0));
    for record in &run.records {
        let why = record.failure.as_deref().unwrap_or_default();
        assert_eq!(why.starts_with("it could not be set up: `false` failed"), record.system == "broken", "{record:?}");
    }
    // A machine that is busy may spoil a measurement, too, but not all of them.
    let failed = run.records.iter().filter(|record| record.failure.is_some()).count();
    assert!(outcome.failed == failed && (of / 2..of).contains(&failed), "{:?}", run.records);

    // And where there is no time, nothing is begun.
    run.records.clear();
    let late = Campaign {
        subjects: &subjects,
        planned: &planned,
        deadline: Some(Instant::now()),
        keep: &mut |_| panic!("there was no time"),
        tell: &mut |_| panic!("there was no time"),
    }
    .go(&mut run)
    .unwrap();
    assert_eq!(late, Outcome { measured: 0, failed: 0, left: of });
    assert!(subject::named("broken").is_none());

    // Nor does anything that hangs go beyond the time: it is broken off, and left to be measured.
    let subjects: [&dyn Subject; 1] = [&Broken(&["sleep", "600"])];
    let planned = plan(&subjects, &experiments, &effort, 1);
    let began = Instant::now();
    let broken_off = Campaign {
        subjects: &subjects,
        planned: &planned,
        deadline: Some(began + Duration::from_secs(3)),
        keep: &mut |_| panic!("nothing was measured"),
        tell: &mut |_| (),
    }
    .go(&mut run)
    .unwrap();
    assert_eq!((broken_off.measured, broken_off.left), (0, planned.plan.steps.len()));
    // A command in a namespace may take 20 s.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

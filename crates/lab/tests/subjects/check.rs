//! What is asked of every system.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use lab::subject::{self, Live, Place, Protocol, Subject};
use lab::traffic::{Service, exchange_tcp};
use lab::{LabError, Shape, Side, TopologySpec};

/// Bytes there and back through each tunnel.
const BYTES: u64 = 500_000;

/// The bound of anything that should take a second or two, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(60);

/// The system of this slug, which has to be here.
pub fn here(slug: &str) -> Box<dyn Subject> {
    let subject = subject::named(slug).unwrap_or_else(|| panic!("there is no {slug}"));
    let versions = subject.available().unwrap_or_else(|missing| panic!("{slug}: {missing}"));
    assert_eq!(versions.0.is_empty(), subject.protocol() == Protocol::Nothing, "{versions:?}");
    for (program, version) in &versions.0 {
        assert!(version.contains(|c: char| c.is_ascii_digit()), "{program}: {version}");
    }
    subject
}

/// One tunnel, then three, all gone afterwards.
pub fn carries(slug: &str) {
    for tunnels in [1, 3] {
        carries_on(slug, Shape::Pair, tunnels);
    }
}

/// Some tunnels on hosts of some shape, all gone afterwards.
pub fn carries_on(slug: &str, shape: Shape, tunnels: u32) {
    let subject = here(slug);
    let mut live = subject::set_up(&*subject, TopologySpec::new(shape, tunnels).build().unwrap()).unwrap();
    assert_eq!(live.ways().len() as u32, tunnels);
    check_pids(&*subject, &live);
    check_configuration(&*subject, &live);
    assert!(live.start_up > Duration::from_micros(100) && live.start_up < LIMIT, "{:?}", live.start_up);
    println!(
        "{slug}, {tunnels}: up in {:?}, {:?}, {} KiB",
        live.start_up,
        live.configuration,
        live.resident().unwrap()
    );
    check_traffic(&*subject, &live);
    live.check().unwrap();
    let traces = Traces::of(&live);
    drop(live);
    traces.check();
}

/// That it leaves nothing, whatever step it fails at; and that there is no step after those at which it works.
pub fn fails_cleanly(slug: &str) {
    fails_cleanly_from(slug, 1);
}

/// The same from a step on, for a system that takes seconds to start and shares the first steps with one that does not.
pub fn fails_cleanly_from(slug: &str, first: u32) {
    let subject = here(slug);
    for fault in first.. {
        let topology = TopologySpec::new(Shape::Pair, 1).build().unwrap();
        let names: Vec<String> = topology.hosts().iter().map(|host| host.name().to_owned()).collect();
        let before = folders();
        match subject::set_up_until(&*subject, topology, Some(fault)) {
            Err(LabError::Told(step)) => assert_eq!(step, fault),
            Err(other) => panic!("before step {fault}: {other}"),
            Ok(live) => {
                assert!(fault > first, "it has no such step");
                drop(live);
                gone(&names);
                return;
            }
        }
        gone(&names);
        // Another test may have made one meanwhile, and taken it away.
        for folder in folders().difference(&before) {
            lab::wait_until("folders to go", LIMIT, || !Path::new(folder).exists()).unwrap();
        }
    }
}

fn check_pids(subject: &dyn Subject, live: &Live) {
    let has_process = matches!(subject.place(), Place::Userspace | Place::Ebpf);
    for side in Side::BOTH {
        let pids = live.pids_at(side);
        assert_eq!(!pids.is_empty(), has_process || subject.protocol() == Protocol::Ipsec, "{pids:?}");
    }
    if has_process {
        assert!(live.resident().unwrap() > 100);
        live.cpu().unwrap();
    }
}

fn check_configuration(subject: &dyn Subject, live: &Live) {
    let it = live.configuration;
    assert!(it.commands > 0, "{it:?}");
    if subject.protocol() != Protocol::Nothing {
        assert!(it.files > 0 && it.lines > it.files && it.bytes > u64::from(it.lines), "{it:?}");
    }
}

/// Bytes through each tunnel; no other tunnel carries them, and none goes around.
fn check_traffic(subject: &dyn Subject, live: &Live) {
    let _service = Service::start(live.topology.end(Side::Right)).unwrap();
    let carried = || -> Vec<u64> { live.ways().iter().map(|way| live.carried(way.number).unwrap()).collect() };
    for (at, way) in live.ways().iter().enumerate() {
        let before = carried();
        exchange_tcp(live.topology.end(Side::Left), way.drain.into(), BYTES, LIMIT).unwrap();
        // Some count only when asked twice: what they tell is a moment old.
        lab::wait_until("the tunnel to have carried it", LIMIT, || carried()[at] >= before[at] + BYTES).unwrap();
        if subject.protocol() != Protocol::Nothing {
            let after = carried();
            for other in (0..after.len()).filter(|other| *other != at) {
                assert!(after[other] - before[other] < BYTES / 10, "tunnel {}: {before:?} {after:?}", way.number);
            }
        }
    }
}

/// What there is of a system that is up, and must not be later.
struct Traces {
    namespaces: Vec<String>,
    pids: Vec<u32>,
}

impl Traces {
    fn of(live: &Live) -> Traces {
        Traces {
            namespaces: live.topology.hosts().iter().map(|host| host.name().to_owned()).collect(),
            pids: live.pids(),
        }
    }

    fn check(&self) {
        gone(&self.namespaces);
        // Whoever was another's child may still have to be buried.
        let left = || self.pids.iter().any(|pid| Path::new("/proc").join(pid.to_string()).exists());
        lab::wait_until("all processes to be gone", LIMIT, || !left()).unwrap();
    }
}

/// That no namespace of these names is left, nor anything that runs in one.
fn gone(namespaces: &[String]) {
    for name in namespaces {
        assert!(!Path::new("/run/netns").join(name).exists(), "{name} is left");
    }
    let left = || processes().into_iter().find(|line| namespaces.iter().any(|name| line.contains(name)));
    lab::wait_until("all of it to be gone", LIMIT, || left().is_none())
        .unwrap_or_else(|_| panic!("left: {:?}", left()));
}

/// The command lines of all that runs.
fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .collect()
}

/// The folders of this process for systems under test.
fn folders() -> BTreeSet<String> {
    let prefix = format!("wireloom-lab-{}-", std::process::id());
    let entries = fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    entries.map(|entry| entry.path().to_string_lossy().into_owned()).filter(|path| path.contains(&prefix)).collect()
}

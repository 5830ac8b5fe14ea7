//! `cargo xtask bench scale`: what more workers bring, in one process and without the kernel.
//!
//! `crates/plane/examples/scale` measures (its head says what is real and what is modelled); here its samples become ratios. Processors
//! do not keep their speed, so what several workers do is held against what one did in the same round, a moment before, and the
//! median is taken of the ratios. *Efficiency* is throughput for each processor that was busy, again of one worker's: the
//! measure of the thesis on parallel WireGuard tunnels, without its machine in it.
//!
//! What is not measured is extrapolated by models that the output names. The cryptography alone, in threads that share nothing,
//! says what the machine itself would allow.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ::aead::{SealSegment, SealingKey, TAG_LEN, counter_nonce};
use clap::Args;
use serde_json::{Value, json};

use super::machine;
use super::plot::{self, Panel};
use super::stats::{Spread, median};
use crate::cargo::{cargo, target_folder};
use crate::error::Failure;

/// Bytes of a packet, and packets of a batch: one super-packet.
const PACKET: usize = 1420;
const BATCH: usize = 45;
/// For how many processors is extrapolated.
const FAR: f64 = 32.0;

/// What `bench scale` may be told.
#[derive(Args, Debug)]
pub struct Options {
    /// The most workers; one for each processor otherwise
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: Option<u32>,
    /// Rounds, of which the median is taken
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=99))]
    runs: u32,
    /// Milliseconds of each measurement
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(20..=500))]
    millis: u32,
    /// Only cases whose name has this in it, such as `64 B seal`
    #[arg(long, default_value = "")]
    only: String,
    /// A moment of each: to see that it works, not to quote
    #[arg(long)]
    quick: bool,
}

/// Measures, prints and saves.
pub fn run(options: &Options) -> Result<(), Failure> {
    lab::require_root()?;
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    let workers = options.workers.unwrap_or(cpus).min(cpus);
    let (rounds, millis) = if options.quick { (1, 50) } else { (options.runs, options.millis) };
    let machine = machine::describe();
    println!("{}\n", machine::line(&machine));
    let alone = ceiling(workers, rounds, Duration::from_millis(millis.into()))?;
    let found = measure(workers, millis, rounds, &options.only)?;
    let report = Report::new(&found, alone);
    println!("{}", report.text);
    let folder = target_folder()?.join("bench");
    fs::create_dir_all(&folder).map_err(Failure::io(folder.display().to_string()))?;
    let stem = format!("scale-{}", machine::now());
    let all = json!({ "machine": machine, "measured": found, "cases": report.json });
    let title = format!("In one process, without the kernel: {}", machine::line(&machine));
    for (kind, text) in
        [("json", format!("{all:#}\n")), ("svg", plot::svg(&title, &report.panels)), ("md", report.text.clone())]
    {
        let path = folder.join(format!("{stem}.{kind}"));
        fs::write(&path, text).map_err(Failure::io(path.display().to_string()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Builds the program that measures, and lets it.
fn measure(workers: u32, millis: u32, rounds: u32, only: &str) -> Result<Value, Failure> {
    println!("Building what measures, with modelled system calls …");
    let mut command = cargo(&["run", "--quiet", "--release", "-p", "wireloom-plane"]);
    command.args(["--features", "modelled", "--example", "scale"]);
    command.arg("--").args([workers, millis, rounds].map(|number| number.to_string())).env("SCALE_ONLY", only);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(Failure::io("cargo"))?;
    if lab::interrupted() {
        return Err(lab::LabError::Interrupted.into());
    }
    serde_json::from_slice(&output.stdout)
        .ok()
        .filter(|_| output.status.success())
        .ok_or(Failure::Command { command: "the scaling bench".to_owned(), status: output.status })
}

/// How many times what one thread seals so many seal together, sharing nothing.
fn ceiling(workers: u32, rounds: u32, time: Duration) -> Result<BTreeMap<u64, Spread>, Failure> {
    let mut ratios: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        let one = together(1, time);
        for count in 2..=workers {
            if lab::interrupted() {
                return Err(lab::LabError::Interrupted.into());
            }
            ratios.entry(count.into()).or_default().push(together(count, time) / one.max(1e-9));
        }
    }
    Ok(ratios.into_iter().filter_map(|(count, ratios)| Some((count, Spread::of(&ratios)?))).collect())
}

/// Gb/s that this many threads seal together.
fn together(threads: u32, time: Duration) -> f64 {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(move || alone(time))).collect();
        // One that panicked has said so, and is missing from the sum.
        threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
    })
}

fn alone(time: Duration) -> f64 {
    let key = SealingKey::new(&[7; 32]);
    let body = vec![1; PACKET * BATCH];
    let mut out = vec![0; (PACKET + TAG_LEN) * BATCH];
    let (start, mut counter) = (Instant::now(), 0);
    while start.elapsed() < time {
        let pairs = body.chunks(PACKET).zip(out.chunks_mut(PACKET + TAG_LEN)).zip(counter..);
        let mut batch: Vec<_> = pairs
            .map(|((body, out), number)| SealSegment { nonce: counter_nonce(number), aad: &[], head: 0, body, out })
            .collect();
        key.seal(&mut batch);
        counter += BATCH as u64;
    }
    counter as f64 * PACKET as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9
}

/// One sample of the measuring program.
struct Sample {
    /// Shape and way.
    what: String,
    load: String,
    workers: u64,
    round: u64,
    gbps: f64,
    mpps: f64,
    cores: f64,
    /// What part of one processor the calls take that read, and each kind of those that send or write.
    reading: f64,
    sending: f64,
}

impl Sample {
    fn parse(value: &Value) -> Option<Sample> {
        let number = |key: &str| value[key].as_f64();
        let seconds = number("seconds")?;
        let (udp, tun) = (number("sending_udp_s")?, number("sending_tun_s")?);
        Some(Sample {
            what: format!("{}, {}", value["shape"].as_str()?, value["way"].as_str()?),
            load: value["load"].as_str()?.to_owned(),
            workers: value["workers"].as_u64()?,
            round: value["round"].as_u64()?,
            gbps: number("bytes")? * 8e-9 / seconds,
            mpps: number("packets")? * 1e-6 / seconds,
            cores: number("cpu_s")? / seconds,
            reading: number("reading_s")? / seconds,
            sending: udp.max(tun) / seconds,
        })
    }

    fn per_core(&self) -> f64 {
        self.gbps / self.cores.max(1e-9)
    }
}

/// What so many workers did, and of what one did in the same rounds.
struct Case<'a> {
    samples: Vec<&'a Sample>,
    ratio: Spread,
    efficiency: Spread,
}

struct Report {
    text: String,
    json: Vec<Value>,
    panels: Vec<Panel>,
}

impl Report {
    fn new(found: &Value, ceiling: BTreeMap<u64, Spread>) -> Report {
        let samples: Vec<_> = found["samples"].as_array().into_iter().flatten().filter_map(Sample::parse).collect();
        let mut report = Report { text: String::new(), json: Vec::new(), panels: Vec::new() };
        let mut kinds: Vec<&str> = samples.iter().map(|sample| sample.what.as_str()).collect();
        kinds.dedup();
        kinds.sort_unstable();
        kinds.dedup();
        let out = &mut report.text;
        // Writing to a string cannot fail.
        let _ = writeln!(out, "What the calls were measured to cost, and take here: {}\n", costs(&found["costs"]));
        for (count, ratio) in &ceiling {
            let _ = writeln!(out, "{count} threads that share nothing seal {} times what one does.", ratio.text(2));
        }
        let _ = writeln!(
            out,
            "\n| packets, way | load | workers | Gb/s | Mpps | CPU-s/GB | Gb/s per core | efficiency | × one worker |\n\
             |---|---|--:|--:|--:|--:|--:|--:|--:|"
        );
        let mut far = String::new();
        for what in kinds {
            let of_kind: Vec<_> = samples.iter().filter(|sample| sample.what == what).collect();
            let one: BTreeMap<u64, &Sample> =
                of_kind.iter().filter(|it| it.workers == 1).map(|it| (it.round, *it)).collect();
            let mut lines = Vec::new();
            for load in ["tunnels", "flows", "elephant"] {
                let mut cases: BTreeMap<u64, Vec<&Sample>> = BTreeMap::new();
                let of_load = of_kind.iter().filter(|it| it.load == load || it.workers == 1);
                of_load.for_each(|it| cases.entry(it.workers).or_default().push(it));
                let cases = cases.into_iter().filter_map(|(count, samples)| Some((count, Case::new(samples, &one)?)));
                let cases: BTreeMap<u64, Case<'_>> = cases.collect();
                for (count, case) in cases.iter().filter(|(count, _)| **count > 1 || load == "tunnels") {
                    let _ = writeln!(out, "| {what} | {load} | {count} | {} |", case.cells().join(" | "));
                    report.json.push(case.json(what, load, *count));
                }
                let points = cases.iter().map(|(count, case)| (*count as f64, case.ratio)).collect();
                lines.push((load.to_owned(), points));
                far += &extrapolation(what, load, &cases).unwrap_or_default();
            }
            let title = format!("{what}: times what one worker moves");
            report.panels.push(Panel::Lines { title, across: "workers".to_owned(), lines });
        }
        let most = samples.iter().map(|sample| sample.workers).max().unwrap_or(1);
        let _ = writeln!(
            out,
            "\nExtrapolated to {FAR} processors, of which {most} were measured. Model: the Universal Scalability Law, \
             X(n) = n / (1 + σ(n − 1) + κn(n − 1)), where σ is waiting and κ is exchange of cache lines; two points cannot tell one \
             from the other, so both extremes are given (all of the loss σ, all of it κ). Of one flow, reads, sends and writes go on \
             one at a time each, so X is also at most 1 / the larger part that one of these has of a single worker's time. Memory \
             bandwidth, clocks that fall when many processors are busy, and the kernel's own locks are not in it.\n\n\
             | packets, way | load | σ alone: × | κ alone: × | bound by serial calls: × |\n|---|---|--:|--:|--:|\n{far}"
        );
        report
    }
}

impl<'a> Case<'a> {
    fn new(samples: Vec<&'a Sample>, one: &BTreeMap<u64, &Sample>) -> Option<Case<'a>> {
        let against = |value: &dyn Fn(&Sample) -> f64| {
            let ratios = samples.iter().filter_map(|it| Some(value(it) / value(one.get(&it.round)?).max(1e-9)));
            Spread::of(&ratios.collect::<Vec<_>>())
        };
        Some(Case { ratio: against(&|it| it.gbps)?, efficiency: against(&Sample::per_core)?, samples })
    }

    fn middle(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(|sample| value(sample)).collect()).unwrap_or_default()
    }

    fn cells(&self) -> [String; 6] {
        [
            format!("{:.2}", self.middle(|it| it.gbps)),
            format!("{:.2}", self.middle(|it| it.mpps)),
            format!("{:.3}", self.middle(|it| 8.0 / it.per_core())),
            format!("{:.2}", self.middle(Sample::per_core)),
            self.efficiency.text(2),
            self.ratio.text(2),
        ]
    }

    fn json(&self, what: &str, load: &str, workers: u64) -> Value {
        json!({
            "what": what, "load": load, "workers": workers,
            "gbps": self.middle(|it| it.gbps), "mpps": self.middle(|it| it.mpps), "cores": self.middle(|it| it.cores),
            "ratio": self.ratio.json(), "efficiency": self.efficiency.json(),
        })
    }
}

fn costs(costs: &Value) -> String {
    let one = |(name, key): (&str, &str)| {
        let number = |part: &str| costs[key][part].as_f64().unwrap_or_default();
        let super_packet = (number("call_ns") + number("byte_ns") * (PACKET * BATCH) as f64) / 1e3;
        format!(
            "{name} {:.2} µs + {:.1} ns/KB ({super_packet:.1} µs for {} B)",
            number("call_ns") / 1e3,
            number("byte_ns") * 1e3,
            PACKET * BATCH
        )
    };
    [("TUN read", "tun_read"), ("TUN write", "tun_write"), ("UDP receive", "udp_recv"), ("UDP send", "udp_send")]
        .map(one)
        .join("; ")
}

/// A row of what the models say of very many processors.
fn extrapolation(what: &str, load: &str, cases: &BTreeMap<u64, Case<'_>>) -> Option<String> {
    let points: Vec<_> =
        cases.iter().filter(|(count, _)| **count > 1).map(|(n, it)| (*n as f64, it.ratio.median)).collect();
    let (contention, coherence) = (fit(&points, |n| n - 1.0)?, fit(&points, |n| n * (n - 1.0))?);
    let sigma = FAR / (1.0 + contention * (FAR - 1.0));
    let kappa = FAR / (1.0 + coherence * FAR * (FAR - 1.0));
    let one = cases.get(&1)?;
    let serial = one.middle(|it| it.reading.max(it.sending)).max(1e-9);
    let (bound, cell) =
        if load == "elephant" { (1.0 / serial, format!("{:.1}", 1.0 / serial)) } else { (FAR, "–".to_owned()) };
    Some(format!("| {what} | {load} | {:.1} | {:.1} | {cell} |\n", sigma.min(bound), kappa.min(bound)))
}

/// The factor of `shape(n)` in n / X(n) − 1, by least squares; not less than zero.
fn fit(points: &[(f64, f64)], shape: impl Fn(f64) -> f64) -> Option<f64> {
    let above: f64 = points.iter().map(|(n, x)| shape(*n) * (n / x.max(1e-9) - 1.0)).sum();
    let below: f64 = points.iter().map(|(n, _)| shape(*n).powi(2)).sum();
    (below > 0.0).then(|| (above / below).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_is_found_again() {
        let points = |sigma: f64| [2.0, 4.0].map(|n| (n, n / (1.0 + sigma * (n - 1.0))));
        for sigma in [0.0, 0.05, 0.3] {
            assert!((fit(&points(sigma), |n| n - 1.0).unwrap() - sigma).abs() < 1e-9);
        }
        assert_eq!(fit(&[], |n| n), None);
        assert_eq!(fit(&[(2.0, 2.2)], |n| n - 1.0), Some(0.0), "more than twice is noise");
    }

    #[test]
    fn rounds_are_held_against_their_own() {
        let sample = |workers: u64, round: u64, gigabits: f64| {
            json!({
                "shape": "64 B", "way": "seal", "load": "tunnels", "workers": workers, "round": round, "seconds": 0.5,
                "cpu_s": 0.5 * workers as f64, "bytes": gigabits * 0.5e9 / 8.0, "packets": 10,
                "reading_s": 0.1, "sending_udp_s": 0.05, "sending_tun_s": 0.0,
            })
        };
        // The machine is half as fast in the second round.
        let samples = [sample(1, 0, 8.0), sample(2, 0, 12.0), sample(1, 1, 4.0), sample(2, 1, 6.0)];
        let report = Report::new(&json!({ "samples": samples }), BTreeMap::new());
        assert_eq!(report.json.len(), 2);
        assert_eq!(report.json[1]["ratio"]["min"], 1.5);
        assert_eq!(report.json[1]["ratio"]["max"], 1.5);
        assert_eq!(report.json[1]["efficiency"]["median"], 0.75);
        assert!(report.text.contains("| 64 B, seal | tunnels | 2 | 9.00 |"), "{}", report.text);
    }
}

//! The measurements of one pass, and of a quiet tunnel.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use lab::iperf::{self, Load, Run};
use lab::traffic::blast::{Blast, BlastPlan, blast};
use lab::traffic::clean::{self, PROBE, Verdict};
use lab::{Engine, Gso, LabError, Link, Namespace, System, Tunnel, TunnelSpec, interrupted, ping, usage, wait_for};

use super::sample::Sample;

/// One step of a pass, which enters what it finds into the sample.
type Step = fn(&Bed, &Plan, &mut Sample) -> Result<(), LabError>;

/// The steps in their order, memory after all load.
pub const STEPS: [(&str, Step); 8] = [
    ("latency when idle", idle_latency),
    ("TCP", tcp),
    ("latency under load", loaded_latency),
    ("UDP 64 B", udp_small),
    ("UDP 64 B by iperf3", udp_small_by_iperf),
    ("UDP 1300 B", udp_large),
    ("memory", memory),
    ("the share of programs", taken),
];

/// Rates that are tried to find the clean one, of which the last makes a difference of 2 %.
const PROBES: u32 = 8;

/// The rates that iperf3 tries, whose tries take longer.
const IPERF_RATES: [u64; 15] = [5, 10, 25, 50, 75, 100, 125, 150, 175, 200, 225, 250, 300, 350, 400];

/// How long after its last packet a tunnel has nothing more to say (10 s until the keepalive that answers data), and how
/// long it is watched then.
const SETTLE: Duration = Duration::from_secs(12);
const QUIET: Duration = Duration::from_secs(10);

/// How long everything takes.
pub struct Plan {
    /// Seconds of each TCP measurement, and of the latency under load.
    pub seconds: u32,
    /// Seconds of each UDP flood.
    pub flood: u32,
    /// Pings when idle, a hundredth of a second apart.
    pub pings: u32,
}

impl Plan {
    /// The plan for this many seconds of TCP.
    pub fn new(seconds: u32) -> Plan {
        Plan { seconds, flood: seconds.div_ceil(3), pings: 50 * seconds }
    }

    /// How long a pass takes, start and finish of each program included, and that some rates are tried twice.
    pub fn estimate(&self) -> Duration {
        let tcp = 3.0 * (f64::from(self.seconds) + 0.7) + f64::from(self.seconds) + 1.7;
        let floods = 4.0 * (f64::from(self.flood) + 0.5);
        let probe = PROBE.as_secs_f64() + 0.22;
        let iperf_probes = f64::from(usize::BITS - IPERF_RATES.len().leading_zeros());
        let probes = 1.25 * (2.0 * f64::from(PROBES) * probe + iperf_probes * 1.4);
        Duration::from_secs_f64(2.5 + f64::from(self.pings) / 100.0 + tcp + floods + probes)
    }
}

/// Two hosts, with a tunnel between them or just the link.
pub struct Bed {
    from: Namespace,
    to: Namespace,
    address: IpAddr,
    /// What runs of each of the two daemons.
    daemons: Vec<Vec<u32>>,
    _tunnel: Option<Tunnel>,
}

impl Bed {
    /// Builds it and waits for the first round trip.
    ///
    /// # Errors
    /// A daemon did not start, or nothing comes through.
    pub fn build(system: Option<&System>, gso: Gso) -> Result<Bed, LabError> {
        let bed = match system {
            Some(system) => {
                let tunnel = TunnelSpec { gso, ..TunnelSpec::new(system, system) }.build()?;
                let ends = [&tunnel.left, &tunnel.right];
                Bed {
                    from: tunnel.left.namespace().clone(),
                    to: tunnel.right.namespace().clone(),
                    address: tunnel.right.v4.into(),
                    // Nothing else runs there yet.
                    daemons: ends.map(|end| end.namespace().pids()).to_vec(),
                    _tunnel: Some(tunnel),
                }
            }
            None => {
                let (from, to) = (Namespace::new()?, Namespace::new()?);
                let link = Link::new(&from, &to, gso)?;
                Bed { from, to, address: link.right.v4.into(), daemons: Vec::new(), _tunnel: None }
            }
        };
        lab::wait_until("the first ping", Duration::from_secs(15), || {
            ping::once(&bed.from, bed.address, &["-W", "1"]).is_ok_and(|finished| finished.status.success())
        })?;
        Ok(bed)
    }

    fn daemons_cpu(&self) -> Result<Duration, LabError> {
        self.daemons.iter().flatten().copied().map(usage::process_cpu).sum()
    }

    fn sleeps(&self) -> Result<u64, LabError> {
        self.daemons.iter().flatten().copied().map(usage::sleeps).sum()
    }
}

/// How often the daemons of a used but quiet tunnel wake up in ten seconds; all systems at once, since there is nothing to do.
///
/// # Errors
/// Only the wish to stop: what cannot be measured is told of and left out.
pub fn wakeups<'a>(systems: impl Iterator<Item = (&'a str, &'a System)>) -> Result<Vec<(String, u64)>, LabError> {
    let mut beds = Vec::new();
    for (name, system) in systems {
        match quiet_bed(system) {
            Ok(bed) => beds.push((name, bed)),
            Err(error) if interrupted() => return Err(error),
            Err(error) => eprintln!("    {name}: {error}"),
        }
    }
    let pass = |time: Duration| {
        let start = Instant::now();
        wait_for("nothing", time * 2, || Ok((start.elapsed() >= time).then_some(())))
    };
    pass(SETTLE)?;
    let before: Vec<_> = beds.iter().map(|(_, bed)| bed.sleeps()).collect();
    pass(QUIET)?;
    let mut found = Vec::new();
    for ((name, bed), before) in beds.iter().zip(before) {
        match (before, bed.sleeps()) {
            (Ok(before), Ok(after)) => found.push(((*name).to_owned(), after.saturating_sub(before))),
            (Err(error), _) | (_, Err(error)) => eprintln!("    {name}: {error}"),
        }
    }
    Ok(found)
}

fn quiet_bed(system: &System) -> Result<Bed, LabError> {
    let bed = Bed::build(Some(system), Gso::Through)?;
    for end in bed._tunnel.iter().flat_map(|tunnel| [&tunnel.left, &tunnel.right]) {
        // The kernel itself would go on asking for routers.
        end.namespace().set_sysctl(&format!("net/ipv6/conf/{}/disable_ipv6", end.daemon.interface), "1")?;
    }
    Ok(bed)
}

fn idle_latency(bed: &Bed, plan: &Plan, sample: &mut Sample) -> Result<(), LabError> {
    let limit = Duration::from_secs(u64::from(plan.pings) / 50 + 20);
    let trips = ping::ping(&bed.from, bed.address, plan.pings, "0.01", limit)?;
    sample.enter("idle_p50_us", trips.percentile(0.5));
    sample.enter("idle_p99_us", trips.percentile(0.99));
    Ok(())
}

fn tcp(bed: &Bed, plan: &Plan, sample: &mut Sample) -> Result<(), LabError> {
    for (streams, key) in [(1, "tcp1_gbps"), (4, "tcp4_gbps"), (8, "tcp8_gbps")] {
        let before = (usage::machine_cpu()?, bed.daemons_cpu()?);
        let run = iperf::tcp(&bed.from, &bed.to, bed.address, streams, plan.seconds)?;
        sample.enter(key, Some(run.gigabits()));
        if streams == 1 {
            let gigabytes = (run.bytes as f64 / 1e9).max(1e-9);
            let machine = usage::machine_cpu()?.saturating_sub(before.0);
            let daemons = bed.daemons_cpu()?.saturating_sub(before.1);
            sample.enter("cpu_s_per_gb", Some(machine.as_secs_f64() / gigabytes));
            if !bed.daemons.is_empty() {
                sample.enter("daemon_s_per_gb", Some(daemons.as_secs_f64() / gigabytes));
            }
        }
    }
    Ok(())
}

/// The pings have nothing of the load's beginning and end. What it carries meanwhile is told with them: a short queue is easy to have at
/// a low rate.
fn loaded_latency(bed: &Bed, plan: &Plan, sample: &mut Sample) -> Result<(), LabError> {
    let load = Load::Tcp { streams: 1 };
    let seconds = plan.seconds + 1;
    let run = Run::start(&bed.from, &bed.to, bed.address, load, seconds, false)?;
    thread::sleep(Duration::from_millis(500));
    let limit = Duration::from_secs(u64::from(seconds) + 20);
    let trips = ping::ping(&bed.from, bed.address, plan.seconds * 195, "0.005", limit)?;
    sample.enter("loaded_gbps", Some(run.tcp()?.gigabits()));
    sample.enter("loaded_p50_us", trips.percentile(0.5));
    sample.enter("loaded_p99_us", trips.percentile(0.99));
    Ok(())
}

fn udp_small(bed: &Bed, plan: &Plan, sample: &mut Sample) -> Result<(), LabError> {
    udp(bed, plan, sample, 64, ["udp64_sent_kpps", "udp64_flood_kpps", "udp64_clean_kpps"])
}

fn udp_large(bed: &Bed, plan: &Plan, sample: &mut Sample) -> Result<(), LabError> {
    udp(bed, plan, sample, 1300, ["udp1300_sent_kpps", "udp1300_flood_kpps", "udp1300_clean_kpps"])?;
    iperf_flood(bed, plan, sample, 1300, ["iperf1300_sent_kpps", "iperf1300_flood_kpps"])
}

/// A flood, of which it counts what was sent and what arrived; then the highest clean rate, by bisection. All of it in batches.
fn udp(bed: &Bed, plan: &Plan, sample: &mut Sample, size: usize, keys: [&'static str; 3]) -> Result<(), LabError> {
    let mut late = 0;
    let mut try_rate = |rate: Option<f64>, time| -> Result<Blast, LabError> {
        let rate = rate.map(|rate| rate as u64);
        let blast = blast(&bed.from, &bed.to, bed.address, &BlastPlan { size, rate, time })?;
        late += blast.late;
        Ok(blast)
    };
    let flood = try_rate(None, Duration::from_secs(plan.flood.into()))?;
    sample.enter(keys[0], Some(flood.offered() / 1e3));
    sample.enter(keys[1], Some(flood.arrived() / 1e3));
    let clean = clean::highest(PROBES, None, |rate| {
        let blast = try_rate(Some(rate), PROBE)?;
        Ok(Verdict::of(rate, blast.offered(), blast.arrived()))
    })?;
    sample.enter(keys[2], Some(clean.rate / 1e3));
    sample.add("late", late as f64);
    Ok(())
}

fn udp_small_by_iperf(bed: &Bed, plan: &Plan, sample: &mut Sample) -> Result<(), LabError> {
    iperf_flood(bed, plan, sample, 64, ["iperf64_sent_kpps", "iperf64_flood_kpps"])?;
    // IPERF_RATES[..clean] are clean as far as we know, IPERF_RATES[dirty..] are not.
    let (mut clean, mut dirty) = (0, IPERF_RATES.len());
    while clean < dirty {
        let middle = clean.midpoint(dirty);
        let rate = IPERF_RATES[middle] * 1000;
        let verdict = clean::twice(|| {
            let run = iperf::udp(&bed.from, &bed.to, bed.address, 64, Some(rate), 1)?;
            let each_second = |count: u64| count as f64 / run.seconds.max(1e-9);
            Ok(Verdict::of(rate as f64, each_second(run.sent), each_second(run.received)))
        });
        if let Verdict::Clean(_) = verdict? {
            clean = middle + 1;
        } else {
            dirty = middle;
        }
    }
    let best = clean.checked_sub(1).map_or(0, |at| IPERF_RATES[at]);
    sample.enter("iperf64_clean_kpps", Some(best as f64));
    Ok(())
}

fn iperf_flood(
    bed: &Bed,
    plan: &Plan,
    sample: &mut Sample,
    size: u32,
    keys: [&'static str; 2],
) -> Result<(), LabError> {
    let flood = iperf::udp(&bed.from, &bed.to, bed.address, size, None, plan.flood)?;
    let kpps = |count: u64| count as f64 / flood.seconds.max(1e-9) / 1e3;
    sample.enter(keys[0], Some(kpps(flood.sent)));
    sample.enter(keys[1], Some(kpps(flood.received)));
    Ok(())
}

/// The larger of the two daemons, with all of its processes.
fn memory(bed: &Bed, _plan: &Plan, sample: &mut Sample) -> Result<(), LabError> {
    let mut most = None;
    for processes in &bed.daemons {
        let mut sum = 0;
        for &pid in processes {
            sum += usage::memory(pid)?.resident;
        }
        most = most.max(Some(sum));
    }
    sample.enter("rss_mib", most.map(|kib| kib as f64 / 1024.0));
    Ok(())
}

/// Of all packets of both ends, those that never came to the daemons. That is asked last, and so of everything that was measured.
fn taken(bed: &Bed, _plan: &Plan, sample: &mut Sample) -> Result<(), LabError> {
    let ends = bed._tunnel.iter().flat_map(|tunnel| [&tunnel.left, &tunnel.right]);
    let (mut taken, mut all) = (0, 0);
    for daemon in ends.map(|end| &end.daemon).filter(|daemon| daemon.engine == Engine::Ebpf) {
        let (sent, received) = daemon.taken()?;
        taken += sent + received;
        all += sent + received + daemon.taken_by_threads()?;
    }
    sample.enter("taken_percent", (all > 0).then(|| 100.0 * taken as f64 / all as f64));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_pass_is_short_enough() {
        // Seven systems, two links, three rounds.
        let minutes = Plan::new(super::super::net::SECONDS).estimate().as_secs_f64() * 42.0 / 60.0;
        assert!(minutes < 35.0, "{minutes}");
    }
}

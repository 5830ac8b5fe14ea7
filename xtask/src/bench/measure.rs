//! The measurements of one pass.

use std::net::IpAddr;
use std::time::Duration;

use lab::iperf::{self, Load, Run};
use lab::{Gso, LabError, Link, Namespace, System, Tunnel, TunnelSpec, ping, usage};

use super::report::Sample;

/// One step of a pass, which enters what it finds into the sample.
type Step = fn(&Bed, &Plan, &mut Sample) -> Result<(), LabError>;

/// The steps in their order, memory after all load.
pub const STEPS: [(&str, Step); 6] = [
    ("latency when idle", idle_latency),
    ("TCP", tcp),
    ("latency under load", loaded_latency),
    ("UDP 64 B", udp_small),
    ("UDP 1300 B", udp_large),
    ("memory", memory),
];

/// Rates at which UDP is tried, in thousands of datagrams per second.
const RATES: [u64; 15] = [5, 10, 25, 50, 75, 100, 125, 150, 175, 200, 225, 250, 300, 350, 400];

/// Up to this share of lost datagrams a rate counts as clean.
const CLEAN: f64 = 0.005;

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
        Plan { seconds, flood: seconds.div_ceil(2), pings: 50 * seconds }
    }

    /// How long a pass takes, start and finish of each program included.
    pub fn estimate(&self) -> Duration {
        let probes = u64::from(usize::BITS - RATES.len().leading_zeros());
        let tcp = 4 * (u64::from(self.seconds) + 1);
        let udp = 2 * (u64::from(self.flood) + 1 + probes * 2);
        Duration::from_secs(2 + tcp + udp + u64::from(self.pings) / 100)
    }
}

/// Two hosts, with a tunnel between them or just the link.
pub struct Bed {
    from: Namespace,
    to: Namespace,
    address: IpAddr,
    daemons: Vec<u32>,
    _tunnel: Option<Tunnel>,
}

impl Bed {
    /// Builds it and waits for the first round trip.
    pub fn build(system: Option<&System>, gso: Gso) -> Result<Bed, LabError> {
        let bed = match system {
            Some(system) => {
                let tunnel = TunnelSpec { gso, ..TunnelSpec::new(system, system) }.build()?;
                let ends = [&tunnel.left, &tunnel.right];
                Bed {
                    from: tunnel.left.namespace().clone(),
                    to: tunnel.right.namespace().clone(),
                    address: tunnel.right.v4.into(),
                    daemons: ends.map(|end| end.daemon.process.id()).to_vec(),
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
        self.daemons.iter().copied().map(usage::process_cpu).sum()
    }
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
            let machine = usage::machine_cpu()? - before.0;
            let daemons = bed.daemons_cpu()? - before.1;
            sample.enter("cpu_s_per_gb", Some(machine.as_secs_f64() / gigabytes));
            if !bed.daemons.is_empty() {
                sample.enter("daemon_s_per_gb", Some(daemons.as_secs_f64() / gigabytes));
            }
            sample.enter("tcp1_retransmits", Some(run.retransmits as f64));
        }
    }
    Ok(())
}

fn loaded_latency(bed: &Bed, plan: &Plan, sample: &mut Sample) -> Result<(), LabError> {
    let load = Load::Tcp { streams: 1 };
    // A second longer than the pings: these begin and end under load.
    let seconds = plan.seconds + 1;
    let run = Run::start(&bed.from, &bed.to, bed.address, load, seconds, false)?;
    let limit = Duration::from_secs(u64::from(seconds) + 20);
    let trips = ping::ping(&bed.from, bed.address, plan.seconds * 90, "0.01", limit)?;
    run.tcp()?;
    sample.enter("loaded_p50_us", trips.percentile(0.5));
    sample.enter("loaded_p99_us", trips.percentile(0.99));
    Ok(())
}

fn udp_small(bed: &Bed, plan: &Plan, sample: &mut Sample) -> Result<(), LabError> {
    let keys = ["udp64_sent_kpps", "udp64_flood_kpps", "udp64_clean_kpps"];
    udp(bed, plan, sample, 64, keys)
}

fn udp_large(bed: &Bed, plan: &Plan, sample: &mut Sample) -> Result<(), LabError> {
    let keys = ["udp1300_sent_kpps", "udp1300_flood_kpps", "udp1300_clean_kpps"];
    udp(bed, plan, sample, 1300, keys)
}

/// A flood, of which it counts what was sent and what arrived; then the highest clean rate, by bisection.
fn udp(bed: &Bed, plan: &Plan, sample: &mut Sample, size: u32, keys: [&'static str; 3]) -> Result<(), LabError> {
    let try_rate = |rate, seconds| iperf::udp(&bed.from, &bed.to, bed.address, size, rate, seconds);
    let flood = try_rate(None, plan.flood)?;
    let kpps = |count: u64| count as f64 / flood.seconds.max(1e-9) / 1e3;
    sample.enter(keys[0], Some(kpps(flood.sent)));
    sample.enter(keys[1], Some(kpps(flood.received)));

    // RATES[..clean] are clean as far as we know, RATES[dirty..] are not.
    let (mut clean, mut dirty) = (0, RATES.len());
    while clean < dirty {
        let middle = clean.midpoint(dirty);
        let rate = RATES[middle] * 1000;
        let is_clean = || -> Result<bool, LabError> {
            let run = try_rate(Some(rate), 1)?;
            let reached = run.sent as f64 / run.seconds.max(1e-9) >= rate as f64 * 0.95;
            Ok(reached && run.loss() <= CLEAN)
        };
        // A second try, because what else the machine does in that second may cost a rate its name.
        if is_clean()? || is_clean()? {
            clean = middle + 1;
        } else {
            dirty = middle;
        }
    }
    let best = clean.checked_sub(1).map_or(0, |at| RATES[at]);
    sample.enter(keys[2], Some(best as f64));
    Ok(())
}

/// The larger of the two daemons, now and at its peak.
fn memory(bed: &Bed, _plan: &Plan, sample: &mut Sample) -> Result<(), LabError> {
    for &pid in &bed.daemons {
        let memory = usage::memory(pid)?;
        sample.enter_larger("rss_mib", memory.resident as f64 / 1024.0);
        sample.enter_larger("peak_rss_mib", memory.peak as f64 / 1024.0);
    }
    Ok(())
}

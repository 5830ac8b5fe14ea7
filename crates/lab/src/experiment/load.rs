//! Loads: TCP through some tunnels at once, and what that takes of the machine.

use std::thread;
use std::time::Duration;

use evaluation::Record;
use evaluation::catalogue::{COST, PROCESSORS, THROUGHPUT};

use super::bench::Bench;
use crate::iperf::{Load, Run, TcpRun, start_all};
use crate::traffic::blast::{BlastPlan, blast};
use crate::usage::Window;
use crate::{LabError, Side};

/// How long after its start a load is under way, and how long before its end it still is.
const RISE: Duration = Duration::from_millis(300);
const FALL: Duration = Duration::from_millis(100);

/// How long a first flood is, of which nothing is told.
const WARMING: Duration = Duration::from_millis(100);

/// What came of a load.
pub(super) struct Carried {
    /// Payload that arrived, in bits per second.
    bits: f64,
    /// The busy share of each processor while the load was under way.
    pub processors: Vec<f64>,
}

impl Carried {
    /// Enters it.
    pub fn enter(&self, record: Record) -> Record {
        let busy: f64 = self.processors.iter().sum();
        record
            .with(THROUGHPUT.key, self.bits)
            .with(COST.key, busy * 8.0 / self.bits.max(1.0))
            .with(PROCESSORS.key, busy)
    }
}

/// TCP through all tunnels at once, in so many streams each.
pub(super) fn tcp(bench: &Bench<'_>, streams: u32) -> Result<Carried, LabError> {
    let live = bench.live()?;
    let (from, to) = (live.topology.end(Side::Left), live.topology.end(Side::Right));
    if !bench.warm.replace(true) {
        let (_, _, address) = bench.ends()?;
        blast(from, to, address, &BlastPlan { size: 1300, rate: None, time: WARMING })?;
    }
    let addresses: Vec<_> = live.ways().iter().map(|way| way.drain.into()).collect();
    let runs = start_all(from, to, &addresses, Load::Tcp { streams }, bench.effort.seconds)?;
    thread::sleep(RISE);
    let window = Window::open()?;
    thread::sleep(Duration::from_secs(bench.effort.seconds.into()).saturating_sub(RISE + FALL));
    let processors = window.close()?;
    let done = runs.into_iter().map(Run::tcp).collect::<Result<Vec<_>, _>>()?;
    let bytes: f64 = done.iter().map(|run| run.bytes as f64).sum();
    if bytes == 0.0 {
        return Err(LabError::NothingArrived { what: "the traffic".to_owned() });
    }
    Ok(Carried { bits: bytes * 8.0 / span(&done).max(1e-9), processors })
}

/// Seconds from the beginning of the first to the end of the last: they begin one after the other, by as much as it takes to start them.
fn span(runs: &[TcpRun]) -> f64 {
    let first = runs.iter().map(|run| run.began).fold(f64::INFINITY, f64::min);
    runs.iter().map(|run| run.began + run.seconds - first).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_overlap_are_one_span() {
        let run = |began, seconds| TcpRun { began, seconds, ..TcpRun::default() };
        assert_eq!(span(&[run(100.0, 1.0), run(100.25, 1.0), run(100.125, 1.0)]), 1.25);
        assert_eq!(span(&[run(100.0, 2.0)]), 2.0);
    }
}

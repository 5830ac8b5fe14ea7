//! Packets per second against their size: UDP at the highest rate of which at most one in a hundred is lost, found
//! by halving, from what arrives of a short flood.

use std::time::Duration;

use evaluation::Record;
use evaluation::catalogue::{PROCESSORS, THROUGHPUT};

use super::bench::{Bench, Site};
use super::{Effort, Experiment};
use crate::LabError;
use crate::traffic::blast::{BlastPlan, blast};
use crate::traffic::clean::{self, PROBE, Verdict};

/// How long a flood is that tells where to look.
const GLANCE: Duration = Duration::from_millis(150);

pub(super) struct Sizes;

impl Experiment for Sizes {
    fn slug(&self) -> &'static str {
        "sizes"
    }

    fn points(&self, effort: &Effort) -> Vec<f64> {
        effort.sizes.iter().copied().map(f64::from).collect()
    }

    fn site(&self, _x: f64, _effort: &Effort) -> Site {
        Site::Tunnel
    }

    /// Some rates are tried twice.
    fn seconds(&self, _x: f64, effort: &Effort) -> f64 {
        f64::from(effort.probes) * (PROBE.as_secs_f64() + 0.2) + GLANCE.as_secs_f64() + 0.2
    }

    fn measure(&self, bench: &mut Bench<'_>, x: f64, record: Record) -> Result<Record, LabError> {
        let (from, to, address) = bench.ends()?;
        // What arrives of a flood is near what can be carried, mostly.
        let flood = BlastPlan { size: x as usize, rate: None, time: GLANCE };
        let expected = Some(blast(from, to, address, &flood)?.arrived()).filter(|rate| *rate > 0.0);
        let mut best = None;
        let found = clean::highest(bench.effort.probes, expected, |rate| {
            let plan = BlastPlan { size: x as usize, rate: Some(rate as u64), time: PROBE };
            let blast = blast(from, to, address, &plan)?;
            let verdict = Verdict::of(rate, blast.offered(), blast.arrived());
            if let Verdict::Clean(_) = verdict {
                best = Some((blast.loss().max(0.0), blast.busy));
            }
            Ok(verdict)
        })?;
        let mut record = record.with("packets", found.rate).with(THROUGHPUT.key, found.rate * x * 8.0);
        for key in ["packets", THROUGHPUT.key] {
            record = record.resolved(key, found.factor);
            if found.bounded {
                record = record.bounded(key);
            }
        }
        // Where no rate was clean there is nothing to tell of it.
        Ok(match best {
            Some((lost, busy)) => record.with("lost", lost).with(PROCESSORS.key, busy),
            None => record,
        })
    }
}

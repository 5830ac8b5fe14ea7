//! Packets per second under a flood: UDP as fast as the sender can, and what arrives of it.

use std::time::Duration;

use evaluation::Record;
use evaluation::catalogue::PROCESSORS;

use super::bench::{Bench, Site};
use super::{Effort, Experiment};
use crate::LabError;
use crate::traffic::blast::{BlastPlan, blast};

pub(super) struct Flood;

/// Seconds of a flood.
fn time(effort: &Effort) -> u32 {
    effort.seconds.div_ceil(3)
}

impl Experiment for Flood {
    fn slug(&self) -> &'static str {
        "flood"
    }

    fn points(&self, effort: &Effort) -> Vec<f64> {
        effort.sizes.iter().copied().map(f64::from).collect()
    }

    fn site(&self, _x: f64, _effort: &Effort) -> Site {
        Site::Tunnel
    }

    fn seconds(&self, _x: f64, effort: &Effort) -> f64 {
        f64::from(time(effort)) + 0.2
    }

    fn measure(&self, bench: &mut Bench<'_>, x: f64, record: Record) -> Result<Record, LabError> {
        let (from, to, address) = bench.ends()?;
        let plan = BlastPlan { size: x as usize, rate: None, time: Duration::from_secs(time(bench.effort).into()) };
        let blast = blast(from, to, address, &plan)?;
        Ok(record.with("packets", blast.arrived()).with("sent", blast.offered()).with(PROCESSORS.key, blast.busy))
    }
}

//! Throughput against tunnels: one TCP stream through each of many, from a source by two gateways to a drain.

use evaluation::Record;

use super::bench::{Bench, Site};
use super::{Effort, Experiment, load};
use crate::{Gso, LabError};

pub(super) struct Tunnels;

impl Experiment for Tunnels {
    fn slug(&self) -> &'static str {
        "tunnels"
    }

    fn points(&self, effort: &Effort) -> Vec<f64> {
        effort.tunnels.iter().copied().map(f64::from).collect()
    }

    fn links(&self, effort: &Effort) -> Vec<Gso> {
        effort.links.clone()
    }

    fn site(&self, x: f64, _effort: &Effort) -> Site {
        Site::Gateways(x as u32)
    }

    fn seconds(&self, x: f64, effort: &Effort) -> f64 {
        f64::from(effort.seconds) + 0.2 + 0.05 * x
    }

    fn measure(&self, bench: &mut Bench<'_>, _x: f64, record: Record) -> Result<Record, LabError> {
        let carried = load::tcp(bench, 1)?;
        let record = carried.enter(record);
        bench.busy = Some(carried.processors);
        Ok(record)
    }
}

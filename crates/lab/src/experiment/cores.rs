//! The load of each processor while the most tunnels carry traffic: what [`super::tunnels`] saw, where that has been measured here.

use evaluation::Record;

use super::bench::{Bench, Site};
use super::{Effort, Experiment, load};
use crate::{LabError, machine};

pub(super) struct Cores;

impl Experiment for Cores {
    fn slug(&self) -> &'static str {
        "cores"
    }

    fn points(&self, effort: &Effort) -> Vec<f64> {
        (0..effort.processors).map(f64::from).collect()
    }

    fn site(&self, _x: f64, effort: &Effort) -> Site {
        Site::Gateways(effort.tunnels.iter().copied().max().unwrap_or(1))
    }

    /// As good as nothing, after the tunnels.
    fn seconds(&self, _x: f64, _effort: &Effort) -> f64 {
        0.01
    }

    fn measure(&self, bench: &mut Bench<'_>, x: f64, record: Record) -> Result<Record, LabError> {
        if bench.busy.is_none() {
            bench.busy = Some(load::tcp(bench, 1)?.processors);
        }
        // Of those that we may use; others belong to somebody else.
        let number = machine::allowed().get(x as usize).copied();
        let busy = bench.busy.as_ref().and_then(|busy| busy.get(number?));
        let busy = busy.ok_or(LabError::Lacking { what: format!("processor {x}") })?;
        Ok(record.with("busy", *busy))
    }
}

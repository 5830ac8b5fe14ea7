//! Throughput against MTU: one TCP stream, the MTU of the link raised with that of the tunnel.

use evaluation::Record;

use super::bench::{Bench, Site};
use super::{Effort, Experiment, load};
use crate::LabError;

pub(super) struct Mtu;

impl Experiment for Mtu {
    fn slug(&self) -> &'static str {
        "mtu"
    }

    fn points(&self, effort: &Effort) -> Vec<f64> {
        effort.mtus.iter().copied().map(f64::from).collect()
    }

    fn site(&self, x: f64, _effort: &Effort) -> Site {
        Site::Mtu(x as u32)
    }

    fn seconds(&self, _x: f64, effort: &Effort) -> f64 {
        f64::from(effort.seconds) + 0.2
    }

    fn measure(&self, bench: &mut Bench<'_>, _x: f64, record: Record) -> Result<Record, LabError> {
        Ok(load::tcp(bench, 1)?.enter(record))
    }
}

//! Throughput against streams: TCP streams side by side through one tunnel.

use evaluation::Record;

use super::bench::{Bench, Site};
use super::{Effort, Experiment, load};
use crate::{Gso, LabError};

pub(super) struct Streams;

impl Experiment for Streams {
    fn slug(&self) -> &'static str {
        "streams"
    }

    fn points(&self, effort: &Effort) -> Vec<f64> {
        effort.streams.iter().copied().map(f64::from).collect()
    }

    fn links(&self, effort: &Effort) -> Vec<Gso> {
        effort.links.clone()
    }

    fn site(&self, _x: f64, _effort: &Effort) -> Site {
        Site::Tunnel
    }

    fn seconds(&self, _x: f64, effort: &Effort) -> f64 {
        f64::from(effort.seconds) + 0.1
    }

    fn measure(&self, bench: &mut Bench<'_>, x: f64, record: Record) -> Result<Record, LabError> {
        Ok(load::tcp(bench, x as u32)?.enter(record))
    }
}

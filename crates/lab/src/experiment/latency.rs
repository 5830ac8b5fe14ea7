//! The latency of an idle tunnel: echo requests one after the other, the whole distribution.

use std::time::Duration;

use evaluation::{Distribution, Record};

use super::bench::{Bench, Site};
use super::{Effort, Experiment};
use crate::ping::{self, RoundTrips};
use crate::{LabError, Process};

pub(super) struct Latency;

impl Experiment for Latency {
    fn slug(&self) -> &'static str {
        "latency"
    }

    fn site(&self, _x: f64, _effort: &Effort) -> Site {
        Site::Tunnel
    }

    fn seconds(&self, _x: f64, effort: &Effort) -> f64 {
        // `ping` waits a little longer than it is told to.
        0.1 + 0.015 * f64::from(effort.pings)
    }

    fn measure(&self, bench: &mut Bench<'_>, _x: f64, record: Record) -> Result<Record, LabError> {
        let (from, _, address) = bench.ends()?;
        let series = ping::start(from, address, bench.effort.pings, "0.01")?;
        let (times, sent) = times(series, bench.effort.pings)?;
        Ok(record.echoed(times, sent))
    }
}

/// The times of a series of so many echo requests, to its end, and how many were sent: what was lost is slower than all.
///
/// # Errors
/// Nothing came back.
pub(super) fn times(series: Process, pings: u32) -> Result<(Distribution, u64), LabError> {
    let limit = Duration::from_secs(u64::from(pings) / 50 + 30);
    let RoundTrips { sent, micros, .. } = ping::collect(series, limit)?;
    let mut times = Distribution::new();
    for micros in micros {
        times.record(Duration::from_nanos((micros * 1000.0) as u64));
    }
    if times.is_empty() {
        return Err(LabError::NothingArrived { what: format!("{sent} echo requests") });
    }
    Ok((times, sent))
}

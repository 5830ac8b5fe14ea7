//! The latency of a busy tunnel: echo requests beside one TCP stream, and what that stream carried meanwhile, for a short queue is easy to have at a low rate.

use std::thread;
use std::time::Duration;

use evaluation::Record;
use evaluation::catalogue::THROUGHPUT;

use super::bench::{Bench, Site};
use super::{Effort, Experiment, latency};
use crate::iperf::{Load, Run};
use crate::{LabError, ping};

pub(super) struct LatencyLoaded;

impl Experiment for LatencyLoaded {
    fn slug(&self) -> &'static str {
        "latency-loaded"
    }

    fn site(&self, _x: f64, _effort: &Effort) -> Site {
        Site::Tunnel
    }

    fn seconds(&self, _x: f64, effort: &Effort) -> f64 {
        f64::from(effort.seconds) + 1.1
    }

    fn measure(&self, bench: &mut Bench<'_>, _x: f64, record: Record) -> Result<Record, LabError> {
        let (from, to, address) = bench.ends()?;
        let seconds = bench.effort.seconds;
        let run = Run::start(from, to, address, Load::Tcp { streams: 1 }, seconds + 1, false)?;
        // The pings have nothing of the load's beginning and end.
        thread::sleep(Duration::from_millis(500));
        let pings = seconds * 195;
        let (times, sent) = latency::times(ping::start(from, address, pings, "0.005")?, pings)?;
        let carried = run.tcp()?.gigabits() * 1e9;
        Ok(record.echoed(times, sent).with(THROUGHPUT.key, carried))
    }
}

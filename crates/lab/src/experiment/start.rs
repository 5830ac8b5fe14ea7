//! Start-up: from the first process or interface until the tunnel has answered, with keys and files there, less what it takes to start as many programs
//! that do nothing as the lab has started meanwhile; and what it takes to take all of it away.

use std::time::{Duration, Instant};

use evaluation::Record;

use super::bench::{Bench, Site};
use super::{Effort, Experiment};
use crate::subject::{Protocol, Subject};
use crate::{LabError, Side};

/// No start takes no time.
const LEAST: Duration = Duration::from_millis(1);

pub(super) struct Start;

impl Experiment for Start {
    fn slug(&self) -> &'static str {
        "start"
    }

    fn suits(&self, subject: &dyn Subject) -> bool {
        subject.protocol() != Protocol::Nothing
    }

    fn site(&self, _x: f64, _effort: &Effort) -> Site {
        Site::Fresh
    }

    fn seconds(&self, _x: f64, _effort: &Effort) -> f64 {
        0.5
    }

    fn measure(&self, bench: &mut Bench<'_>, _x: f64, record: Record) -> Result<Record, LabError> {
        let live = bench.live()?;
        let own = live.starts.empty(live.topology.gateway(Side::Left))?;
        let start = live.start_up.saturating_sub(own).max(LEAST);
        let live = bench.live.take();
        let began = Instant::now();
        drop(live);
        let stop = began.elapsed().as_secs_f64();
        // By how much the lab's own part may be misjudged.
        let step = 1.0 + 0.1 * own.as_secs_f64() / start.as_secs_f64();
        Ok(record.with("start", start.as_secs_f64()).with("stop", stop).resolved("start", step))
    }
}

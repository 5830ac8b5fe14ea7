//! Start-up: from the first process or interface until the tunnel has answered, with keys and files there; and what it takes to take all of it away.

use std::time::Instant;

use evaluation::Record;

use super::bench::{Bench, Site};
use super::{Effort, Experiment};
use crate::LabError;
use crate::subject::{Protocol, Subject};

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
        let start = bench.live()?.start_up.as_secs_f64();
        let live = bench.live.take();
        let began = Instant::now();
        drop(live);
        Ok(record.with("start", start).with("stop", began.elapsed().as_secs_f64()))
    }
}

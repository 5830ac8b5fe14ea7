//! The memory of one end: when it had just come up, and after load. Of pages that processes share, each has its part; BPF maps count.
//! What else the kernel holds for a system cannot be told from what it holds for others.

use evaluation::Record;

use super::bench::{Bench, Site};
use super::{Effort, Experiment, has_processes, load};
use crate::LabError;
use crate::subject::Subject;

pub(super) struct Memory;

impl Experiment for Memory {
    fn slug(&self) -> &'static str {
        "memory"
    }

    fn suits(&self, subject: &dyn Subject) -> bool {
        has_processes(subject)
    }

    fn site(&self, _x: f64, _effort: &Effort) -> Site {
        Site::Tunnel
    }

    fn seconds(&self, _x: f64, effort: &Effort) -> f64 {
        f64::from(effort.seconds) + 0.1
    }

    fn measure(&self, bench: &mut Bench<'_>, _x: f64, record: Record) -> Result<Record, LabError> {
        // Whatever else was measured here before.
        load::tcp(bench, 8)?;
        let bytes = |kib: u64| kib as f64 * 1024.0;
        Ok(record.with("idle", bytes(bench.idle)).with("loaded", bytes(bench.resident()?)))
    }
}

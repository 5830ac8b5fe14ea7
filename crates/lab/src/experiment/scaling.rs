//! Throughput against processors: all threads of the system's processes are held to so many of them, at both ends the same; what makes the traffic is not.

use std::process::Command;
use std::time::Duration;

use evaluation::Record;
use evaluation::catalogue::THROUGHPUT;

use super::bench::{Bench, Site};
use super::{Effort, Experiment, load};
use crate::subject::{Place, Subject};
use crate::{Gso, LabError, machine, run_checked};

pub(super) struct Scaling;

impl Experiment for Scaling {
    fn slug(&self) -> &'static str {
        "scaling"
    }

    /// The threads of the kernel cannot be held.
    fn suits(&self, subject: &dyn Subject) -> bool {
        subject.place() == Place::Userspace
    }

    fn points(&self, effort: &Effort) -> Vec<f64> {
        effort.workers.iter().copied().map(f64::from).collect()
    }

    fn links(&self, effort: &Effort) -> Vec<Gso> {
        effort.links.clone()
    }

    fn site(&self, _x: f64, _effort: &Effort) -> Site {
        Site::Held
    }

    fn seconds(&self, _x: f64, effort: &Effort) -> f64 {
        f64::from(effort.seconds) + 0.1
    }

    fn measure(&self, bench: &mut Bench<'_>, x: f64, record: Record) -> Result<Record, LabError> {
        let allowed = machine::allowed().into_iter().take((x as usize).max(1));
        let list = allowed.map(|number| number.to_string()).collect::<Vec<_>>().join(",");
        for pid in bench.live()?.pids() {
            let mut command = Command::new("taskset");
            run_checked(command.args(["-a", "-c", "-p", &list, &pid.to_string()]), Duration::from_secs(30))?;
        }
        let carried = load::tcp(bench, 4)?.enter(Record::new(self.slug(), "", 1, 0));
        let bits = carried.metric(THROUGHPUT.key).unwrap_or_default();
        Ok(record.with(THROUGHPUT.key, bits))
    }
}

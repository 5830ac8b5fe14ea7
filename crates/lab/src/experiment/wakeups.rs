//! Wake-ups of an idle tunnel: how often the processes of both ends went to sleep again while nothing was sent. There is nothing to do meanwhile, so all
//! systems are watched at once.

use std::time::{Duration, Instant};

use evaluation::Record;

use super::bench::{Bench, Site};
use super::{Effort, Experiment, has_processes};
use crate::subject::{Live, Subject};
use crate::{LabError, Side, usage, wait_for};

/// How long after its last packet a tunnel has nothing more to say (10 s until the keepalive that answers data), and how long it is watched then.
const SETTLE: Duration = Duration::from_secs(12);
const QUIET: Duration = Duration::from_secs(10);

/// Seconds that it takes, however many there are.
pub(super) const SECONDS: f64 = 22.0;

pub(super) struct Wakeups;

impl Experiment for Wakeups {
    fn slug(&self) -> &'static str {
        "wakeups"
    }

    fn suits(&self, subject: &dyn Subject) -> bool {
        has_processes(subject)
    }

    fn site(&self, _x: f64, _effort: &Effort) -> Site {
        Site::Quiet
    }

    /// If it were alone. A plan shares it among those that are watched at once.
    fn seconds(&self, _x: f64, _effort: &Effort) -> f64 {
        SECONDS
    }

    fn measure(&self, bench: &mut Bench<'_>, _x: f64, record: Record) -> Result<Record, LabError> {
        let [wakeups] = <[_; 1]>::try_from(watch(&[bench.live()?])?).unwrap_or([Ok(0.0)]);
        Ok(record.with("wakeups", wakeups?))
    }
}

/// Watches them all: the wake-ups of each in a second.
///
/// # Errors
/// The wish to stop. What is wrong with one of them stands in its place.
pub(super) fn watch(all: &[&Live]) -> Result<Vec<Result<f64, LabError>>, LabError> {
    for host in all.iter().flat_map(|live| Side::BOTH.map(|side| live.topology.gateway(side))) {
        // The kernel itself would go on asking for routers.
        host.set_sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
    }
    let sleeps = |live: &&Live| -> Result<u64, LabError> { live.pids().into_iter().map(usage::sleeps).sum() };
    pass(SETTLE)?;
    let (before, began) = (all.iter().map(sleeps).collect::<Vec<_>>(), Instant::now());
    pass(QUIET)?;
    let (after, elapsed) = (all.iter().map(sleeps).collect::<Vec<_>>(), began.elapsed().as_secs_f64());
    let each = before.into_iter().zip(after);
    Ok(each.map(|(before, after)| Ok(after?.saturating_sub(before?) as f64 / elapsed)).collect())
}

fn pass(time: Duration) -> Result<(), LabError> {
    let start = Instant::now();
    wait_for("nothing", time * 2, || Ok((start.elapsed() >= time).then_some(())))
}

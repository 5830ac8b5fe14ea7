//! Cost against the number of peers: one end has so many of them configured; its memory, and what one TCP stream to the one that is there loses by them.

use evaluation::Record;
use evaluation::catalogue::{COST, MEMORY, THROUGHPUT};

use super::bench::{Bench, Site};
use super::wireguard::Interface;
use super::{Effort, Experiment, is_wireguard, load};
use crate::subject::Subject;
use crate::{LabError, Side, crowd};

pub(super) struct Peers;

impl Experiment for Peers {
    fn slug(&self) -> &'static str {
        "peers"
    }

    fn suits(&self, subject: &dyn Subject) -> bool {
        is_wireguard(subject)
    }

    fn points(&self, effort: &Effort) -> Vec<f64> {
        effort.peers.iter().copied().map(f64::from).collect()
    }

    fn site(&self, x: f64, _effort: &Effort) -> Site {
        Site::Peers(x as u32)
    }

    fn seconds(&self, x: f64, effort: &Effort) -> f64 {
        f64::from(effort.seconds) + 0.3 + x / 10_000.0
    }

    fn measure(&self, bench: &mut Bench<'_>, x: f64, record: Record) -> Result<Record, LabError> {
        let server = Interface::of(bench.live()?, Side::Right)?;
        // The one at the other end is there already.
        let took = server.add(&crowd::peers(0..(x as u32).saturating_sub(1), |_| String::new()))?;
        let memory = bench.resident()? as f64 * 1024.0;
        let carried = load::tcp(bench, 1)?.enter(Record::new(self.slug(), "", 1, 0));
        let mut record = record.with("configure", took.as_secs_f64());
        if memory > 0.0 {
            record = record.with(MEMORY.key, memory);
        }
        for key in [THROUGHPUT.key, COST.key] {
            if let Some(value) = carried.metric(key) {
                record = record.with(key, value);
            }
        }
        Ok(record)
    }
}

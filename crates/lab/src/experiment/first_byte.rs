//! The time to the first byte: an echo request into a tunnel that has no session, to its answer. Only WireGuard makes its sessions on demand; how long the
//! others take to make one is their start.

use std::time::Duration;

use evaluation::{Distribution, Record};

use super::bench::{Bench, Site};
use super::wireguard::Interface;
use super::{Effort, Experiment, is_wireguard};
use crate::subject::Subject;
use crate::{LabError, Side, ping};

pub(super) struct FirstByte;

impl Experiment for FirstByte {
    fn slug(&self) -> &'static str {
        "first-byte"
    }

    fn suits(&self, subject: &dyn Subject) -> bool {
        is_wireguard(subject)
    }

    fn site(&self, _x: f64, _effort: &Effort) -> Site {
        Site::Tunnel
    }

    fn seconds(&self, _x: f64, effort: &Effort) -> f64 {
        0.04 * f64::from(effort.tries)
    }

    fn measure(&self, bench: &mut Bench<'_>, _x: f64, record: Record) -> Result<Record, LabError> {
        let (from, _, address) = bench.ends()?;
        let ends = [Interface::of(bench.live()?, Side::Left)?, Interface::of(bench.live()?, Side::Right)?];
        let mut times = Distribution::new();
        for _ in 0..bench.effort.tries {
            for end in &ends {
                end.forget()?;
            }
            let trips = ping::collect(ping::start_patiently(from, address, 1, "1")?, Duration::from_secs(30))?;
            match trips.micros.first() {
                Some(micros) => times.record(Duration::from_nanos((micros * 1000.0) as u64)),
                None => return Err(LabError::NothingArrived { what: "the first packets".to_owned() }),
            }
        }
        let median = times.quantile(0.5).unwrap_or_default();
        let mut record = record.with("first_byte", median);
        record.latency = Some(times);
        Ok(record)
    }
}

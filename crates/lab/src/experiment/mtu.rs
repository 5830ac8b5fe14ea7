//! Throughput against MTU: one TCP stream, the MTU of the link raised with that of the tunnel, as soon as a packet of that size has come through: some
//! notice only after a second that their interface has been told another MTU.

use std::time::Duration;

use evaluation::Record;

use super::bench::{Bench, Site};
use super::{Effort, Experiment, load};
use crate::{Gso, LabError, ping, wait_until};

/// What IPv4 and ICMP put around the payload of an echo request, in bytes.
const ECHO_OVERHEAD: u32 = 28;
/// How long a system may take to carry packets of another size.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) struct Mtu;

impl Experiment for Mtu {
    fn slug(&self) -> &'static str {
        "mtu"
    }

    fn points(&self, effort: &Effort) -> Vec<f64> {
        effort.mtus.iter().copied().map(f64::from).collect()
    }

    fn links(&self, effort: &Effort) -> Vec<Gso> {
        effort.links.clone()
    }

    fn site(&self, x: f64, _effort: &Effort) -> Site {
        Site::Mtu(x as u32)
    }

    fn seconds(&self, _x: f64, effort: &Effort) -> f64 {
        f64::from(effort.seconds) + 0.1
    }

    fn measure(&self, bench: &mut Bench<'_>, x: f64, record: Record) -> Result<Record, LabError> {
        let (from, _, address) = bench.ends()?;
        let mtu = bench.live()?.mtu;
        if f64::from(mtu) < x {
            return Err(LabError::TooLarge { most: mtu });
        }
        let size = mtu.saturating_sub(ECHO_OVERHEAD).to_string();
        wait_until(&format!("a packet of {mtu} B to come through"), LIMIT, || {
            let echo = ping::once(from, address, &["-W", "1", "-M", "do", "-s", &size]);
            echo.is_ok_and(|finished| finished.status.success())
        })?;
        Ok(load::tcp(bench, 1)?.enter(record))
    }
}

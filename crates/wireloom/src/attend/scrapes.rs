//! The duty of serving metrics ([`crate::metrics`]).

use linux::poll::{Event, Interest};

use super::process::{Duty, Watch};
use super::{AttendError, os};
use crate::metrics::Metrics;

/// Lets in whoever asks for metrics.
pub(super) struct Scrapes(Metrics);

impl Scrapes {
    /// Watches the server's doors.
    pub(super) fn new(metrics: Metrics, watch: &Watch<'_>) -> Result<Scrapes, AttendError> {
        for (number, door) in metrics.doors().enumerate() {
            watch.add(door, number as u32, Interest::READ).map_err(os("waiting for scrapes"))?;
        }
        Ok(Scrapes(metrics))
    }
}

impl Duty for Scrapes {
    fn ready(&mut self, which: u32, _: Event, _: &Watch<'_>) {
        self.0.accept(which as usize);
    }
}

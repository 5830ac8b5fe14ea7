//! Waiting for something to become true, with an end.

use std::thread;
use std::time::{Duration, Instant};

use crate::LabError;
use crate::interrupt::stopped;

/// How long between two looks: a share of what has passed, so that what is found is never noticed later than by as much, within bounds.
const SHARE: u32 = 16;
const PAUSES: (Duration, Duration) = (Duration::from_micros(250), Duration::from_millis(20));

/// Waits until `ready` says so.
///
/// # Errors
/// [`LabError::TimedOut`] after `limit`, [`LabError::Interrupted`] on the wish to stop, [`LabError::TimeOver`] at the end of an
/// [`Until`](crate::Until).
pub fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<(), LabError> {
    wait_for(what, limit, || Ok(ready().then_some(())))
}

/// Waits until `look` finds something, and hands it over.
///
/// # Errors
/// As [`wait_until`]; and an error of `look` ends the wait at once.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>, LabError>,
) -> Result<T, LabError> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if let Some(why) = stopped() {
            return Err(why);
        }
        if start.elapsed() >= limit {
            return Err(LabError::TimedOut { what: what.to_owned(), after: limit });
        }
        thread::sleep((start.elapsed() / SHARE).clamp(PAUSES.0, PAUSES.1));
    }
}

//! Waiting for something to become true, with an end.

use std::thread;
use std::time::{Duration, Instant};

use crate::{LabError, interrupted};

/// How long between two looks, once the first quick ones were in vain.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `ready` says so.
///
/// # Errors
/// [`LabError::TimedOut`] after `limit`, [`LabError::Interrupted`] on the wish to stop.
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
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if interrupted() {
            return Err(LabError::Interrupted);
        }
        if start.elapsed() >= limit {
            return Err(LabError::TimedOut { what: what.to_owned(), after: limit });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE);
    }
}

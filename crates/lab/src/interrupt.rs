//! The wish to stop, and the time that is over: every wait of the lab heeds both.
//!
//! A signal handler may do no more than set a flag. The waits look at it and end with [`LabError::Interrupted`], the error
//! travels up like any other, and the values on the way are dropped: one path of cleaning up for success, failure and Ctrl-C. A time that was given
//! goes the same way: whoever measures with a deadline holds an [`Until`], and waits of its thread that go beyond end with [`LabError::TimeOver`].

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use crate::LabError;

static FLAG: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

thread_local! {
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The flag for a signal handler to set.
pub fn interrupt_flag() -> Arc<AtomicBool> {
    Arc::clone(&FLAG)
}

/// Whether somebody asked us to stop.
pub fn interrupted() -> bool {
    FLAG.load(Ordering::Relaxed)
}

/// Why this thread is to wait no longer, if that is so.
pub(crate) fn stopped() -> Option<LabError> {
    if interrupted() {
        return Some(LabError::Interrupted);
    }
    UNTIL.get().is_some_and(|until| Instant::now() >= until).then_some(LabError::TimeOver)
}

/// The waits of this thread end at a moment, as long as this is held.
pub struct Until {
    before: Option<Instant>,
    // It is of the thread that made it.
    _thread: PhantomData<*const ()>,
}

impl Until {
    /// Until `end`, or until what held before, whichever comes first; `None` changes nothing.
    #[must_use]
    pub fn new(end: Option<Instant>) -> Until {
        let before = UNTIL.get();
        UNTIL.set(before.into_iter().chain(end).min());
        Until { before, _thread: PhantomData }
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        UNTIL.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wait_until;

    #[test]
    fn no_wait_goes_beyond_the_time_that_was_given() {
        let began = Instant::now();
        let soon = Until::new(Some(began + Duration::from_millis(50)));
        // One within cannot make it longer.
        let later = Until::new(Some(began + Duration::from_secs(600)));
        let limit = Duration::from_secs(300);
        assert!(matches!(wait_until("nothing", limit, || false), Err(LabError::TimeOver)));
        assert!((Duration::from_millis(50)..limit).contains(&began.elapsed()));
        // What is there already is no wait.
        wait_until("nothing", limit, || true).unwrap();
        drop((later, soon));
        let short = Duration::from_millis(1);
        assert!(matches!(wait_until("nothing", short, || false), Err(LabError::TimedOut { .. })));
    }
}

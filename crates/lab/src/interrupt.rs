//! The wish to stop, which every wait of the lab heeds.
//!
//! A signal handler may do no more than set a flag. The waits look at it and end with [`LabError::Interrupted`], the error
//! travels up like any other, and the values on the way are dropped: one path of cleaning up for success, failure and Ctrl-C.
//!
//! [`LabError::Interrupted`]: crate::LabError::Interrupted

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

static FLAG: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// The flag for a signal handler to set.
pub fn interrupt_flag() -> Arc<AtomicBool> {
    Arc::clone(&FLAG)
}

/// Whether somebody asked us to stop.
pub fn interrupted() -> bool {
    FLAG.load(Ordering::Relaxed)
}

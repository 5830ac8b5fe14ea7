//! Time, as an argument: this crate has no clock.
//!
//! [`Instant`] counts `CLOCK_BOOTTIME`, which goes on while the machine sleeps, so that a key that outlived its time in
//! a suspended laptop is dead on waking. [`Now`] adds the wall clock, which only the handshake's timestamp and the
//! "last handshake" shown to people need; it may jump, and nothing here trusts it to be monotonic.

use std::ops::Add;
use std::time::Duration;

/// A point of `CLOCK_BOOTTIME`, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The instant that many nanoseconds after boot.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not.
    pub const fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Stops at the end of time (584 years) instead of wrapping.
    fn add(self, duration: Duration) -> Instant {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}

/// Both clocks, read by the caller at the same moment.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// What every deadline and lifetime is measured by.
    pub boot: Instant,
    /// Time since the Unix epoch.
    pub wall: Duration,
}

impl Now {
    /// What the wall clock showed at an earlier moment, if nobody has set it since.
    pub(crate) fn wall_at(&self, earlier: Instant) -> Duration {
        self.wall.saturating_sub(self.boot.saturating_since(earlier))
    }
}

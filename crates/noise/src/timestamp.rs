//! The timestamp in an initiation: TAI64N, which orders the initiations of one peer so that an old one cannot be replayed.
//!
//! It says no more about our clock than it must: nanoseconds are cut to multiples of 2^24 (17 ms), as in the kernel. A wall
//! clock that jumped back would lock us out until it has caught up, so a timestamp is never below the last one either.

use std::time::Duration;

use crate::message::TIMESTAMP_LEN;

/// 2^62, where TAI64 puts 1970, and the ten seconds that TAI was ahead then. Leap seconds since are left out, as everywhere.
const EPOCH: u64 = (1 << 62) + 10;
const GRAIN_NANOS: u32 = 1 << 24;
const NANOS_PER_SEC: u32 = 1_000_000_000;

/// A TAI64N label, as on the wire; big-endian, so that bytes compare as times do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp([u8; TIMESTAMP_LEN]);

impl Timestamp {
    pub(crate) const fn from_bytes(bytes: [u8; TIMESTAMP_LEN]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; TIMESTAMP_LEN] {
        &self.0
    }

    /// The label for the wall clock, or the next one after `last` if that is not later.
    pub(crate) fn next(wall: Duration, last: Option<Timestamp>) -> Self {
        let nanos = wall.subsec_nanos();
        let now = Self::label(EPOCH.saturating_add(wall.as_secs()), nanos - nanos % GRAIN_NANOS);
        match last {
            Some(last) if now <= last => last.successor(),
            _ => now,
        }
    }

    fn successor(self) -> Self {
        let (secs, nanos) = self.parts();
        match nanos + GRAIN_NANOS {
            nanos if nanos < NANOS_PER_SEC => Self::label(secs, nanos),
            _ => Self::label(secs.saturating_add(1), 0),
        }
    }

    fn label(secs: u64, nanos: u32) -> Self {
        let mut bytes = [0; TIMESTAMP_LEN];
        bytes[..8].copy_from_slice(&secs.to_be_bytes());
        bytes[8..].copy_from_slice(&nanos.to_be_bytes());
        Self(bytes)
    }

    fn parts(self) -> (u64, u32) {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.0;
        (u64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes([i, j, k, l]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_big_endian_and_cut() {
        let label = Timestamp::next(Duration::new(1, (1 << 24) + 5), None);
        assert_eq!(label.as_bytes(), &[0x40, 0, 0, 0, 0, 0, 0, 11, 1, 0, 0, 0]);
    }

    #[test]
    fn labels_grow_whatever_the_clock_does() {
        let mut last = Timestamp::next(Duration::from_secs(1000), None);
        for wall in [1000, 999, 0, 1000, 1001, 5, 5, 5].map(Duration::from_secs) {
            for _ in 0..100 {
                let next = Timestamp::next(wall, Some(last));
                assert!(next > last);
                last = next;
            }
        }
    }
}

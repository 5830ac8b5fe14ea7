//! How long the TUN's own queue is to be.
//!
//! The kernel counts it in packets, and a packet is anything from 28 bytes to a super-packet of 62,000: a queue that takes a
//! burst of small packets holds, with super-packets, tens of milliseconds. So each worker measures how large the packets are
//! that it reads, weighted by their bytes, and wants as many as [`BYTES`] of them; what the smallest recent wish says is set.
//! A wish is reported when it differs by a factor of two, and not more often than every [`PAUSE`].

use noise::Instant;
use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// What the queue may hold, in bytes: 2 ms at 4 Gb/s.
const BYTES: f32 = 1_048_576.0;
/// The measure follows what was read in about so many bytes, or packets if those are small.
const MEMORY: (f32, f32) = (1_048_576.0, 4096.0);
/// The least and the most, in packets.
const RANGE: (u32, u32) = (32, 1024);
/// Its length in packets before anything was measured.
pub const QUEUE_LEN: u32 = 512;
/// Between two changes.
const PAUSE: Duration = Duration::from_millis(100);
/// A wish that was not renewed for so long is forgotten.
const RECENT: Duration = Duration::from_secs(1);

/// One worker's measure.
pub(crate) struct Meter {
    mean: f32,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self { mean: BYTES / QUEUE_LEN as f32 }
    }

    /// A packet of so many bytes was read.
    #[inline]
    pub(crate) fn note(&mut self, bytes: usize) {
        let bytes = bytes as f32;
        self.mean += (bytes - self.mean) * (bytes / MEMORY.0 + 1.0 / MEMORY.1);
    }

    /// How many packets the queue should hold: a power of two.
    fn wish(&self) -> u32 {
        ((BYTES / self.mean.max(1.0)) as u32).clamp(RANGE.0, RANGE.1).next_power_of_two().min(RANGE.1)
    }
}

struct Wish {
    packets: AtomicU32,
    /// Boot time in nanoseconds; 0 for never.
    at: AtomicU64,
}

/// What the workers wish, and what is set.
pub(crate) struct Backlog {
    wishes: Box<[Wish]>,
    set: AtomicU32,
    changed: AtomicU64,
}

impl Backlog {
    pub(crate) fn new(workers: usize) -> Self {
        let wish = || Wish { packets: AtomicU32::new(QUEUE_LEN), at: AtomicU64::new(0) };
        Self {
            wishes: (0..workers).map(|_| wish()).collect(),
            set: AtomicU32::new(QUEUE_LEN),
            changed: AtomicU64::new(0),
        }
    }

    /// Renews a worker's wish. Returns the length that the queue is to have, if it should change.
    #[inline]
    pub(crate) fn renew(&self, worker: usize, meter: &Meter, now: Instant) -> Option<u32> {
        let (own, nanos) = (&self.wishes[worker], now.as_nanos());
        own.packets.store(meter.wish(), Ordering::Relaxed);
        own.at.store(nanos, Ordering::Relaxed);
        let changed = self.changed.load(Ordering::Relaxed);
        if nanos.saturating_sub(changed) < PAUSE.as_nanos() as u64 {
            return None;
        }
        let recent = |wish: &&Wish| nanos.saturating_sub(wish.at.load(Ordering::Relaxed)) < RECENT.as_nanos() as u64;
        let wanted = self.wishes.iter().filter(recent).map(|wish| wish.packets.load(Ordering::Relaxed)).min()?;
        if wanted == self.set.load(Ordering::Relaxed) {
            return None;
        }
        // One of the workers that see it reports it.
        self.changed.compare_exchange(changed, nanos, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        self.set.store(wanted, Ordering::Relaxed);
        Some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos((1000 + millis) * 1_000_000)
    }

    #[test]
    fn super_packets_make_it_short_and_small_packets_long() {
        let (backlog, mut meter) = (Backlog::new(1), Meter::new());
        (0..100).for_each(|_| meter.note(62_000));
        assert_eq!(backlog.renew(0, &meter, at(0)), Some(32));
        // Between acknowledgements as well: bytes count, not packets.
        for _ in 0..100 {
            meter.note(62_000);
            (0..30).for_each(|_| meter.note(52));
        }
        assert_eq!(backlog.renew(0, &meter, at(200)), None);
        (0..100_000).for_each(|_| meter.note(92));
        assert_eq!(backlog.renew(0, &meter, at(250)), Some(1024));
        (0..100).for_each(|_| meter.note(62_000));
        assert_eq!(backlog.renew(0, &meter, at(300)), None, "too soon");
        assert_eq!(backlog.renew(0, &meter, at(350)), Some(32));
    }

    #[test]
    fn the_smallest_recent_wish_counts() {
        let (backlog, mut bulk, mut small) = (Backlog::new(2), Meter::new(), Meter::new());
        (0..100).for_each(|_| bulk.note(62_000));
        (0..100_000).for_each(|_| small.note(92));
        assert_eq!(backlog.renew(1, &small, at(0)), Some(1024));
        assert_eq!(backlog.renew(0, &bulk, at(200)), Some(32));
        assert_eq!(backlog.renew(1, &small, at(400)), None);
        assert_eq!(backlog.renew(1, &small, at(1300)), Some(1024), "the other has been silent for a second");
    }
}

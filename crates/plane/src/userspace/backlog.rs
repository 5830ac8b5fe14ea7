//! How long the TUN's own queue is to be.
//!
//! The kernel counts it in packets, and a packet is anything from 28 bytes to a super-packet of 62,000: a queue that takes a
//! burst of small packets holds, with super-packets, tens of milliseconds. So each worker measures how large the packets are
//! that it reads, weighted by their bytes, and wants as many as [`BYTES`] of them; what the smallest recent wish says is set.
//! A wish is one of a few lengths, and the length does not change more often than every [`PAUSE`].

use noise::Instant;
use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// What the queue may hold, in bytes: 2 ms at 4 Gb/s.
const BYTES: f32 = 1_048_576.0;
/// The measure follows what was read in about so many bytes, or packets if those are small.
const MEMORY: (f32, f32) = (1_048_576.0, 4096.0);
/// Its length in packets before anything was measured, which is also the most.
pub const QUEUE_LEN: u32 = 512;
/// The lengths that it may have. Few, since the kernel drops what comes while it changes the length.
const LENGTHS: [u32; 3] = [32, 128, QUEUE_LEN];
/// Between two changes.
const PAUSE: Duration = Duration::from_millis(100);
/// A wish that was not renewed for so long is forgotten.
const RECENT: Duration = Duration::from_secs(1);

/// After so long without a packet the measure begins anew: what was sent before says nothing of what comes.
const SILENCE: Duration = Duration::from_millis(50);

/// A short queue is lengthened again after so long without a packet.
const REST: Duration = Duration::from_millis(200);

/// One worker's measure.
pub(crate) struct Meter {
    mean: f32,
    last: Instant,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self { mean: BYTES / QUEUE_LEN as f32, last: Instant::from_nanos(0) }
    }

    /// Packets are about to be read.
    #[inline]
    pub(crate) fn begin(&mut self, now: Instant) {
        if now.saturating_since(self.last) > SILENCE {
            self.mean = BYTES / QUEUE_LEN as f32;
        }
        self.last = now;
    }

    /// A packet of so many bytes was read.
    #[inline]
    pub(crate) fn note(&mut self, bytes: usize) {
        let bytes = bytes as f32;
        self.mean += (bytes - self.mean) * (bytes / MEMORY.0 + 1.0 / MEMORY.1);
    }

    /// How many packets the queue should hold: the length nearest to what is wished, by ratio.
    fn wish(&self) -> u32 {
        let packets = BYTES / self.mean.max(1.0);
        LENGTHS.into_iter().rev().find(|length| packets * 2.0 >= *length as f32).unwrap_or(LENGTHS[0])
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

    /// How long a worker should sleep at most: for ever, unless the queue is short and is to be lengthened again.
    #[inline]
    pub(crate) fn patience(&self) -> Option<Duration> {
        (self.set.load(Ordering::Relaxed) < QUEUE_LEN).then_some(REST)
    }

    /// A worker has slept for so long. Returns the length that the queue is to have, if all have been silent: whatever comes
    /// next is to find it as long as at first.
    pub(crate) fn rest(&self, now: Instant) -> Option<u32> {
        let silent = |wish: &Wish| now.saturating_since(Instant::from_nanos(wish.at.load(Ordering::Relaxed))) >= REST;
        let short = self.set.load(Ordering::Relaxed) < QUEUE_LEN;
        if !short || !self.wishes.iter().all(silent) {
            return None;
        }
        self.changed.store(now.as_nanos(), Ordering::Relaxed);
        (self.set.swap(QUEUE_LEN, Ordering::AcqRel) < QUEUE_LEN).then_some(QUEUE_LEN)
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
        assert_eq!(backlog.renew(0, &meter, at(250)), Some(512));
        (0..100).for_each(|_| meter.note(62_000));
        assert_eq!(backlog.renew(0, &meter, at(300)), None, "too soon");
        assert_eq!(backlog.renew(0, &meter, at(350)), Some(32));
    }

    #[test]
    fn silence_makes_it_as_long_as_at_first() {
        let mut meter = Meter::new();
        meter.begin(at(0));
        (0..100).for_each(|_| meter.note(62_000));
        meter.begin(at(50));
        assert_eq!(meter.wish(), 32);
        meter.begin(at(101));
        assert_eq!(meter.wish(), QUEUE_LEN);
    }

    #[test]
    fn it_rests_at_its_first_length() {
        let (backlog, mut meter) = (Backlog::new(2), Meter::new());
        assert_eq!(backlog.patience(), None);
        (0..100).for_each(|_| meter.note(62_000));
        assert_eq!(backlog.renew(0, &meter, at(0)), Some(32));
        assert_eq!(backlog.patience(), Some(REST));
        assert_eq!(backlog.rest(at(199)), None);
        assert_eq!(backlog.rest(at(200)), Some(QUEUE_LEN));
        assert_eq!((backlog.rest(at(201)), backlog.patience()), (None, None));
    }

    #[test]
    fn the_smallest_recent_wish_counts() {
        let (backlog, mut bulk, mut small) = (Backlog::new(2), Meter::new(), Meter::new());
        (0..100).for_each(|_| bulk.note(62_000));
        (0..100_000).for_each(|_| small.note(92));
        assert_eq!(backlog.renew(1, &small, at(0)), None);
        assert_eq!(backlog.renew(0, &bulk, at(200)), Some(32));
        assert_eq!(backlog.renew(1, &small, at(400)), None);
        assert_eq!(backlog.renew(1, &small, at(1300)), Some(512), "the other has been silent for a second");
    }
}

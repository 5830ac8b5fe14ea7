//! What each worker has done since it started: batches, packets and bytes each way, how often it woke, how much it helped, and how much
//! processor time it took.
//!
//! A counter has one writer at a time, so it is loaded and stored, never added to atomically: those of a direction belong to whoever holds
//! the commit token of that ring (the token's swaps order one holder's stores before the next one's loads), the others to the worker itself.
//! Each worker's and each direction's counters lie on cache lines of their own. Readers may see a batch whose bytes are not counted yet.
//! The processor time costs the worker nothing: the kernel counts it, and whoever asks reads the clock of the worker's thread.

use crate::{BATCH_SIZES, BATCHES_SIZED, Batches, WorkerLoad};
use linux::{clock, process};
use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// Adds to a counter of which the caller is the only writer.
#[inline]
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

/// What went one way. Two cache lines, since processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Way {
    packets: AtomicU64,
    bytes: AtomicU64,
    sizes: [AtomicU64; BATCHES_SIZED],
}

impl Way {
    /// Counts a batch of so many packets and bytes of WireGuard messages. The caller holds the commit token of this way's ring.
    #[inline]
    pub(crate) fn batch(&self, packets: usize, bytes: usize) {
        if packets > 0 {
            // 1, 2, up to 4, up to 8 and so on: the number of bits of one less.
            let size = (usize::BITS - (packets - 1).leading_zeros()) as usize;
            add(&self.sizes[size.min(BATCH_SIZES.len())], 1);
            add(&self.packets, packets as u64);
            add(&self.bytes, bytes as u64);
        }
    }

    fn told(&self) -> Batches {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Batches { packets: read(&self.packets), bytes: read(&self.bytes), sizes: self.sizes.each_ref().map(read) }
    }
}

/// The counters of one worker.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Load {
    pub(crate) sent: Way,
    pub(crate) received: Way,
    wakeups: AtomicU64,
    helped: AtomicU64,
    /// The worker's thread, while it runs.
    thread: AtomicU32,
    /// What it had used when it ended, in nanoseconds.
    used: AtomicU64,
}

impl Load {
    /// The calling thread is the worker from now on.
    pub(crate) fn begin(&self) {
        self.thread.store(process::thread_id(), Ordering::Relaxed);
    }

    /// The worker's thread, which calls this, is about to end.
    pub(crate) fn end(&self) {
        self.used.store(clock::thread_nanos(), Ordering::Relaxed);
        self.thread.store(0, Ordering::Relaxed);
    }

    /// The worker woke, after it had slept.
    #[inline]
    pub(crate) fn woke(&self) {
        add(&self.wakeups, 1);
    }

    /// The worker has taken so many steps for another.
    pub(crate) fn helped(&self, steps: usize) {
        add(&self.helped, steps as u64);
    }

    pub(crate) fn told(&self) -> WorkerLoad {
        let thread = self.thread.load(Ordering::Relaxed);
        let running = (thread != 0).then(|| clock::nanos_of_thread(thread)).flatten();
        WorkerLoad {
            busy: Duration::from_nanos(running.unwrap_or_else(|| self.used.load(Ordering::Relaxed))),
            wakeups: self.wakeups.load(Ordering::Relaxed),
            helped: self.helped.load(Ordering::Relaxed),
            sent: self.sent.told(),
            received: self.received.told(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_counted_where_its_size_belongs() {
        for packets in 1..200 {
            let way = Way::default();
            way.batch(packets, 10 * packets);
            let told = way.told();
            assert_eq!((told.packets, told.bytes), (packets as u64, 10 * packets as u64));
            let at = told.sizes.iter().position(|count| *count == 1).expect("it is counted");
            let up_to = |at: usize| BATCH_SIZES.get(at).map_or(usize::MAX, |size| *size as usize);
            assert!(packets <= up_to(at) && (at == 0 || packets > up_to(at - 1)), "{packets} in {at}");
            assert_eq!(told.sizes.iter().sum::<u64>(), 1);
        }
        let way = Way::default();
        way.batch(0, 0);
        assert_eq!(way.told(), Batches::default());
    }

    #[test]
    fn the_time_of_a_thread_is_told_while_it_runs_and_after() {
        let load = Load::default();
        assert_eq!(load.told().busy, Duration::ZERO);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                load.begin();
                let start = clock::thread_nanos();
                while clock::thread_nanos() < start + 20_000_000 {}
                load.end();
            });
            while load.told().busy < Duration::from_millis(5) {
                assert!(!thread.is_finished() || load.told().busy > Duration::ZERO);
                std::thread::yield_now();
            }
        });
        assert!(load.told().busy >= Duration::from_millis(20), "{:?}", load.told().busy);
    }
}

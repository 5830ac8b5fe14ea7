//! A data plane without threads, for the fuzz targets: whoever holds it lets its one worker turn, and moves its clock.
//!
//! A socket that keeps packets apart stands for the TUN; the UDP sockets are real. All else is what runs everywhere.

use super::{PlaneError, Userspace, UserspaceConfig, shared, shared::Sockets, worker::Worker, worker::WorkerParts};
use linux::{clock, netns, tun::Queue, udp::Socket};
use noise::Instant;
use std::{
    ops::Deref,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// How far the clock is ahead of CLOCK_BOOTTIME, in nanoseconds.
static AHEAD: AtomicU64 = AtomicU64::new(0);

/// The data plane's clock.
pub fn now() -> Instant {
    Instant::from_nanos(clock::boot_nanos() + AHEAD.load(Ordering::Relaxed))
}

/// Lets time pass.
pub fn pass(time: Duration) {
    AHEAD.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
}

/// A data plane of one worker.
pub struct Hand {
    plane: Userspace,
    worker: Worker,
}

impl Hand {
    /// A data plane between `tun` and no sockets yet.
    pub fn new(tun: OwnedFd, config: UserspaceConfig) -> Result<Self, PlaneError> {
        let queue = Queue::from(tun);
        let shared = Arc::new(shared::Shared::new(1, config.mtu)?);
        let home = netns::current()?;
        let plane = Userspace { shared: shared.clone(), queue: queue.try_clone()?, home, threads: Mutex::default() };
        let parts = WorkerParts {
            shared,
            number: 0,
            queue,
            offloads: config.offloads,
            gso: config.udp_gso,
            busy_poll: config.busy_poll,
        };
        Ok(Self { plane, worker: Worker::new(parts)? })
    }

    /// Takes the sockets, as `set_sockets` does with a worker that has a thread.
    pub fn take_sockets(&mut self, sockets: Vec<Socket>) {
        self.plane.shared.links[0].sockets.store(Some(Arc::new(Sockets::new(sockets))));
        self.worker.take_sockets();
    }

    /// Lets the worker do all that there is to do. Panics when that has no end, or when a job is lost on the way.
    pub fn rest(&mut self) {
        self.worker.rest();
    }
}

impl Deref for Hand {
    type Target = Userspace;

    fn deref(&self) -> &Userspace {
        &self.plane
    }
}

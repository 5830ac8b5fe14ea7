//! The workers as a crew: whose rings there are to help with, when help is called, and how a helper goes about it. With two workers
//! nobody is called (see [`WORKERS`]); with three or more:
//!
//! Help is worth something only while a processor has nothing else to do, and a sleeping worker does not say that one has. So a
//! worker that is itself kept from running does not call ([`Pace`]), and each stint of a helper is judged: if it came late, was kept
//! from running, or found nothing left to do, the next call is put off, twice as long each time, up to [`LONGEST`]; after a good one
//! the next may follow at once.
//!
//! A helper works until it has found nothing for [`LINGER`]: a flow that keeps it busy wakes it once. It looks at its own sockets
//! every [`SLICE`], and leaves as soon as they have something for it.

use super::{
    inbound::Inbound,
    outbound::Outbound,
    sender::Sender,
    shared::{Shared, now},
    worker::Worker,
    writer::Writer,
};
use crate::{calls::Calls, ring::Ring};
use linux::clock;
use noise::Instant;
use std::{
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

/// When workers help each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Helping {
    /// With three workers or more, when there is a backlog and it has paid lately.
    #[default]
    Auto,
    /// The same with two.
    Willing,
    /// Never.
    Never,
    /// Always, and with jobs as small as there are, so that tests see much of it.
    Forced,
}

/// Workers that there must be. Of two processors the second is the one that whoever makes the packets or takes them runs on: there a
/// TCP stream with both its ends on the host lost up to a tenth.
const WORKERS: usize = 3;
/// Helpers of one worker at a time.
const HELPERS: usize = 1;
/// How long a helper looks for something to do before it sleeps again.
const LINGER: Duration = Duration::from_micros(20);
/// How long it works before it looks at its own sockets.
const SLICE: Duration = Duration::from_micros(50);
/// Looks at the rings, some 50 ns each, between two at the clock and at its own sockets.
const LOOKS: usize = 64;
/// A helper that arrives later than this after the call has waited for a processor.
const LATE: Duration = Duration::from_micros(100);
/// Jobs that make a stint a good one.
const GOOD: usize = 4;
/// How long the next call is put off after a bad stint; doubled with each up to the longest.
const SHORTEST: Duration = Duration::from_micros(100);
const LONGEST: Duration = Duration::from_millis(50);

/// How long a worker's pace is looked at before something is said of it, and after which a look at it is too old.
const RECENT: std::ops::Range<Duration> = Duration::from_millis(1)..Duration::from_millis(50);
/// How long no help is called after a look that said that there are too few processors.
const CROWDED: Duration = Duration::from_millis(20);

/// A thread's time: how much of it it wanted to run and did.
pub(crate) struct Pace {
    since: Instant,
    used: u64,
    /// How long it slept of its own accord since then.
    slept: Duration,
    held_up: bool,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { since: now(), used: clock::thread_nanos(), slept: Duration::ZERO, held_up: false }
    }

    /// The thread slept for so long because it had nothing to do.
    #[inline]
    pub(crate) fn slept(&mut self, time: Duration) {
        self.slept += time;
    }

    /// Whether the thread was kept from running lately, for more than a tenth of the time.
    fn is_held_up(&mut self) -> bool {
        let elapsed = now().saturating_since(self.since);
        if elapsed >= RECENT.start {
            let wanted = elapsed.saturating_sub(self.slept);
            let used = Duration::from_nanos(clock::thread_nanos().saturating_sub(self.used));
            let held_up = elapsed < RECENT.end && used * 10 < wanted * 9;
            *self = Self { held_up, ..Self::new() };
        }
        self.held_up
    }
}

/// What others see of a worker.
pub(crate) struct Mate {
    outbound: Arc<Ring<Box<Outbound>, Sender>>,
    inbound: Arc<Ring<Box<Inbound>, Writer>>,
    /// When help was last called, in nanoseconds of boot time.
    called: AtomicU64,
    /// Before when it is not called again.
    not_before: AtomicU64,
    /// Bad stints; a good one takes back half of them.
    failures: AtomicU32,
}

impl Mate {
    pub(crate) fn new(outbound: Arc<Ring<Box<Outbound>, Sender>>, inbound: Arc<Ring<Box<Inbound>, Writer>>) -> Self {
        let [called, not_before] = [0, 0].map(AtomicU64::new);
        Self { outbound, inbound, called, not_before, failures: AtomicU32::new(0) }
    }

    fn judge(&self, good: bool) {
        let failures = self.failures.load(Ordering::Relaxed);
        if good {
            return self.failures.store(failures / 2, Ordering::Relaxed);
        }
        self.failures.store(failures.saturating_add(1), Ordering::Relaxed);
        let pause = (SHORTEST * (1 << failures.min(10))).min(LONGEST);
        self.not_before.store((now() + pause).as_nanos(), Ordering::Relaxed);
    }
}

/// All workers of a device.
pub(crate) struct Crew {
    pub(crate) calls: Calls,
    mates: Box<[Mate]>,
    helping: Helping,
}

impl Crew {
    /// The crew of these workers; none if they are not to help each other.
    pub(crate) fn of(workers: &[Worker], helping: Helping) -> Option<Arc<Self>> {
        let mates = workers.iter().map(Worker::mate).collect();
        let crew = Self { calls: Calls::new(workers.len()), mates, helping };
        let enough = match helping {
            Helping::Auto => WORKERS,
            Helping::Willing | Helping::Forced => 2,
            Helping::Never => usize::MAX,
        };
        (workers.len() >= enough).then(|| Arc::new(crew))
    }

    /// Whether jobs are to be made small, and helpers called for the least.
    pub(crate) fn is_forced(&self) -> bool {
        self.helping == Helping::Forced
    }

    /// Whether nobody helps this worker, nor is on the way. If there is a backlog, somebody is called.
    #[inline]
    pub(crate) fn is_alone(&self, owner: usize, shared: &Shared, pace: &mut Pace, backlog: bool) -> bool {
        let helpers = self.calls.helpers(owner);
        let enough = helpers.called > 0 || helpers.here >= HELPERS;
        if backlog && !enough && self.call(owner, shared, pace) {
            return false;
        }
        helpers.called == 0 && helpers.here == 0
    }

    fn call(&self, owner: usize, shared: &Shared, pace: &mut Pace) -> bool {
        let (mate, now) = (&self.mates[owner], now().as_nanos());
        if !self.is_forced() {
            if now < mate.not_before.load(Ordering::Relaxed) {
                return false;
            }
            if pace.is_held_up() {
                mate.not_before.store(now + CROWDED.as_nanos() as u64, Ordering::Relaxed);
                return false;
            }
        }
        mate.called.store(now, Ordering::Relaxed);
        let helper = self.calls.call(owner);
        match helper {
            Some(helper) => shared.links[helper].wake.signal(),
            // Nobody sleeps; no need to look again with each job.
            None => mate.not_before.store(now + SHORTEST.as_nanos() as u64, Ordering::Relaxed),
        }
        helper.is_some()
    }

    /// A worker that was called answers: it comes, or it has work of its own.
    pub(crate) fn answer(self: &Arc<Self>, owner: usize, comes: bool) -> Option<Stint> {
        if !comes {
            self.calls.decline(owner);
            self.mates[owner].judge(false);
            return None;
        }
        self.calls.arrive(owner);
        let (now, called) = (now(), self.mates[owner].called.load(Ordering::Relaxed));
        let late = now.saturating_since(Instant::from_nanos(called)) > LATE;
        Some(Stint { crew: self.clone(), owner, last: now, steps: 0, late, pace: Pace::new() })
    }
}

/// A helper's time with another worker.
pub(crate) struct Stint {
    crew: Arc<Crew>,
    owner: usize,
    /// When it last found something to do.
    last: Instant,
    steps: usize,
    late: bool,
    pace: Pace,
}

impl Stint {
    /// Helps for a while. False when there has been nothing to do for long enough.
    pub(crate) fn step(&mut self, shared: &Shared) -> bool {
        let mate = &self.crew.mates[self.owner];
        let (start, mut looks) = (self.last, 0);
        while looks < LOOKS {
            let out = mate.outbound.assist(|job| job.seal(shared));
            if !mate.inbound.assist(|job| job.open(shared)) && !out {
                looks += 1;
                spin_loop();
                continue;
            }
            self.steps += 1;
            self.last = now();
            if self.last.saturating_since(start) > SLICE {
                return true;
            }
        }
        now().saturating_since(self.last) < LINGER
    }

    /// Goes, leaving nothing undone. Returns how many steps it took.
    pub(crate) fn end(mut self, shared: &Shared) -> usize {
        let mate = &self.crew.mates[self.owner];
        self.crew.calls.leave(self.owner);
        if mate.outbound.part() | mate.inbound.part() {
            shared.links[self.owner].wake.signal();
        }
        mate.judge(self.steps >= GOOD && !self.late && !self.pace.is_held_up());
        self.steps
    }
}

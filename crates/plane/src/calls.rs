//! Calls for help: which workers sleep, who was called by whom, and how many help each.
//!
//! A worker is `Awake → Asleep → Awake`, or `Awake → Asleep → Called → Awake`. Before it waits it says that it sleeps
//! ([`Calls::sleep`]); whoever wants help finds it so, makes it `Called` by a compare-and-swap, which one caller wins, and then
//! wakes it ([`Calls::call`]). When it is awake again, whatever woke it, it learns from a swap whether it was called
//! ([`Calls::wake`]): a call that comes between its word and its wait is found by the wait, since what wakes it stays
//! readable, and a call that it has seen already costs one look for nothing. So each call is answered once.
//!
//! The one who calls counts the helper in, as called; the helper makes that "here" ([`Calls::arrive`]) and counts itself out
//! ([`Calls::leave`]). `tests/loom_calls.rs` lets loom try all interleavings.

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicUsize, Ordering};

const AWAKE: usize = 0;
const ASLEEP: usize = 1;
/// Called by the worker of this number less `CALLED`.
const CALLED: usize = 2;

/// In the count of helpers: one that was called and is not here yet. Those that are here are counted below.
const ON_THE_WAY: usize = 1 << 16;

#[repr(align(128))]
struct Seat {
    state: AtomicUsize,
    helpers: AtomicUsize,
}

/// Who helps a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Helpers {
    /// Helpers that were called and have not answered.
    pub called: usize,
    /// Helpers that are here.
    pub here: usize,
}

/// The calls between a number of workers.
pub struct Calls {
    seats: Box<[Seat]>,
}

impl Calls {
    /// For so many workers, all awake.
    pub fn new(workers: usize) -> Self {
        let seat = || Seat { state: AtomicUsize::new(AWAKE), helpers: AtomicUsize::new(0) };
        Self { seats: (0..workers).map(|_| seat()).collect() }
    }

    /// The worker is about to wait, and can be called.
    #[inline]
    pub fn sleep(&self, worker: usize) {
        self.seats[worker].state.store(ASLEEP, Ordering::Release);
    }

    /// The worker no longer waits, and cannot be called. Returns who has called it: that one must be answered, by
    /// [`Calls::arrive`] or [`Calls::decline`].
    #[inline]
    pub fn wake(&self, worker: usize) -> Option<usize> {
        self.seats[worker].state.swap(AWAKE, Ordering::AcqRel).checked_sub(CALLED)
    }

    /// Calls one worker that sleeps, if any does. Who is returned is to be woken.
    pub fn call(&self, owner: usize) -> Option<usize> {
        let count = self.seats.len();
        let mut others = (1..count).map(|step| (owner + step) % count);
        others.find(|&other| {
            let state = &self.seats[other].state;
            if state.load(Ordering::Relaxed) != ASLEEP {
                return false;
            }
            // Counted in first: an answer must not come before.
            self.seats[owner].helpers.fetch_add(ON_THE_WAY, Ordering::Relaxed);
            let called = state.compare_exchange(ASLEEP, CALLED + owner, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            if !called {
                self.seats[owner].helpers.fetch_sub(ON_THE_WAY, Ordering::Relaxed);
            }
            called
        })
    }

    /// Somebody whom the owner called is here.
    pub fn arrive(&self, owner: usize) {
        self.seats[owner].helpers.fetch_sub(ON_THE_WAY - 1, Ordering::AcqRel);
    }

    /// Somebody whom the owner called will not come.
    pub fn decline(&self, owner: usize) {
        self.seats[owner].helpers.fetch_sub(ON_THE_WAY, Ordering::AcqRel);
    }

    /// Somebody who was here has gone.
    pub fn leave(&self, owner: usize) {
        self.seats[owner].helpers.fetch_sub(1, Ordering::AcqRel);
    }

    /// Who helps the owner.
    #[inline]
    pub fn helpers(&self, owner: usize) -> Helpers {
        let helpers = self.seats[owner].helpers.load(Ordering::Acquire);
        Helpers { called: helpers / ON_THE_WAY, here: helpers % ON_THE_WAY }
    }
}

//! The job ring: batches of packets that any core may work on and that leave in the order in which they came.
//!
//! One owner appends jobs ([`Producer::push`]). A slot's states move `Free → Pending → Claimed → Done → Free`:
//!
//! - the owner fills a `Free` slot and makes it `Pending`;
//! - whoever wins the compare-and-swap makes it `Claimed`, has the job to itself, works on it and makes it `Done`
//!   ([`Ring::work`]);
//! - whoever gets the *commit token* takes the run of `Done` jobs at the head, in order, hands each to the committer and
//!   makes its slot `Free` ([`Ring::commit`]).
//!
//! The token is a try-lock: nobody waits for it. Not everybody who finishes a job tries at once: a helper leaves it for its next
//! step, and the owner for its helper. No finished job is left lying all the same, because of what each does last: the owner claims
//! and works on all that is pending and tries to commit ([`Ring::commit`]) before it may sleep, and a helper ends with
//! [`Ring::part`]. If another holds the token then, that one looks again after it has put the token down: both sides touch it by
//! swaps only, and a swap reads the latest value. If the finisher's swap came first, the holder's later swap sees it, and with it
//! the `Done`; otherwise the finisher's swap gets the token. `tests/loom_ring.rs` lets loom try all interleavings of that, and
//! `tests/loom_calls.rs` a helper's whole stint.
//!
//! A helper ([`Ring::assist`]) leaves the job at the head to the owner, so that one that is kept from running before it has
//! claimed anything holds up nothing, and commits a quarter of the ring at a time, since it has sockets of its own to look at.
//!
//! The committer (what a commit needs besides the jobs: sockets, a joiner) lives in the ring and belongs to the token.
//!
//! This is the one file of the crate with unsafe code: two cells whose access the states and the token guard.

#![allow(unsafe_code)]

use std::ops::Deref;

#[cfg(feature = "loom")]
use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
};
#[cfg(not(feature = "loom"))]
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
};

/// The standard cell with the interface of loom's.
#[cfg(not(feature = "loom"))]
struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(feature = "loom"))]
impl<T> UnsafeCell<T> {
    fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline]
    fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

const FREE: u8 = 0;
const PENDING: u8 = 1;
const CLAIMED: u8 = 2;
const DONE: u8 = 3;

/// Takes finished jobs in order.
pub trait Committer<J> {
    /// Takes the next job.
    fn take(&mut self, job: J);
    /// Called after each run of jobs, before the token is put down: nothing may be left undone.
    fn flush(&mut self);
}

struct Slot<J> {
    state: AtomicU8,
    job: UnsafeCell<Option<J>>,
}

/// A value on a cache line of its own (two, since processors fetch them in pairs).
#[repr(align(128))]
struct Apart<T>(T);

impl<T> Deref for Apart<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// What waits in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Jobs that nobody has claimed.
    pub count: usize,
    /// Whether the one at the head is among them.
    pub head: bool,
}

/// A ring of jobs of type `J`, committed by a `C`.
pub struct Ring<J, C> {
    slots: Box<[Slot<J>]>,
    /// Position of the oldest job; written under the token.
    head: Apart<AtomicUsize>,
    /// Position of the next job; written by the owner.
    tail: Apart<AtomicUsize>,
    token: Apart<AtomicBool>,
    committer: UnsafeCell<C>,
}

// SAFETY: a slot's job is touched only by the thread that its state gives it to (see each access below), the committer
// only by the holder of the token; both move between threads, hence Send. Nobody gets a shared reference to either.
unsafe impl<J: Send, C: Send> Sync for Ring<J, C> {}

/// The owner's end of a ring. There is one.
pub struct Producer<J, C> {
    ring: Arc<Ring<J, C>>,
}

impl<J, C: Committer<J>> Producer<J, C> {
    /// A ring of `capacity` jobs, a power of two.
    pub fn new(capacity: usize, committer: C) -> Self {
        assert!(capacity.is_power_of_two());
        let slot = || Slot { state: AtomicU8::new(FREE), job: UnsafeCell::new(None) };
        Self {
            ring: Arc::new(Ring {
                slots: (0..capacity).map(|_| slot()).collect(),
                head: Apart(AtomicUsize::new(0)),
                tail: Apart(AtomicUsize::new(0)),
                token: Apart(AtomicBool::new(false)),
                committer: UnsafeCell::new(committer),
            }),
        }
    }

    /// The ring, for whoever works on its jobs.
    pub fn ring(&self) -> &Arc<Ring<J, C>> {
        &self.ring
    }

    /// Appends a job; gives it back when the ring is full.
    #[inline]
    pub fn push(&mut self, job: J) -> Result<(), J> {
        let tail = self.ring.tail.load(Ordering::Relaxed);
        let slot = self.ring.slot(tail);
        if slot.state.load(Ordering::Acquire) != FREE {
            return Err(job);
        }
        // SAFETY: only the owner (this method has the one Producer by &mut) takes a slot out of FREE, and in FREE nobody
        // else touches the cell; the Acquire above orders the former committer's access before this one.
        slot.job.with_mut(|cell| unsafe { *cell = Some(job) });
        slot.state.store(PENDING, Ordering::Release);
        self.ring.tail.store(tail.wrapping_add(1), Ordering::Release);
        Ok(())
    }
}

impl<J, C: Committer<J>> Ring<J, C> {
    #[inline]
    fn slot(&self, position: usize) -> &Slot<J> {
        &self.slots[position & (self.slots.len() - 1)]
    }

    /// How many jobs are in the ring, in whatever state.
    pub fn len(&self) -> usize {
        let head = self.head.load(Ordering::Relaxed);
        self.tail.load(Ordering::Relaxed).wrapping_sub(head).min(self.slots.len())
    }

    /// Whether no job is in the ring.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What nobody has claimed yet; others may claim it while this is found out.
    #[inline]
    pub fn pending(&self) -> Pending {
        let head = self.head.load(Ordering::Acquire);
        let is_pending =
            |&position: &usize| self.slot(head.wrapping_add(position)).state.load(Ordering::Relaxed) == PENDING;
        Pending { count: (0..self.len()).filter(is_pending).count(), head: !self.is_empty() && is_pending(&0) }
    }

    /// Whether the job at the head is finished, so that there is something to commit.
    #[inline]
    fn is_due(&self) -> bool {
        self.slot(self.head.load(Ordering::Acquire)).state.load(Ordering::Acquire) == DONE
    }

    /// Claims the oldest pending job and works on it; false when there is none.
    #[inline]
    pub fn work(&self, f: impl FnOnce(&mut J)) -> bool {
        self.work_behind(0, f)
    }

    /// One step of a helper: commits what is finished at the head (a quarter of the ring at most), or else claims the oldest pending job that is not at the head
    /// and works on it. False when there is neither.
    ///
    /// What it finished is left for the next step, or for [`Ring::part`].
    #[inline]
    pub fn assist(&self, f: impl FnOnce(&mut J)) -> bool {
        (self.is_due() && self.commit_lap((self.slots.len() / 4).max(1)).0 > 0) || self.work_behind(1, f)
    }

    /// A helper has done its last step for now: commits once more. True if finished jobs are left that nobody is about to
    /// commit, because the ring was refilled meanwhile: the owner must be told.
    pub fn part(&self) -> bool {
        self.commit_lap(self.slots.len()).1
    }

    /// Claims the oldest pending job of those that are at least so far behind the head, and works on it.
    #[inline]
    fn work_behind(&self, behind: usize, f: impl FnOnce(&mut J)) -> bool {
        let head = self.head.load(Ordering::Acquire);
        let tail = self.tail.load(Ordering::Acquire);
        for position in behind..tail.wrapping_sub(head).min(self.slots.len()) {
            let slot = self.slot(head.wrapping_add(position));
            // The head may be old by now, and the slot on its next lap: a pending job all the same.
            if slot.state.compare_exchange(PENDING, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                slot.job.with_mut(|cell| {
                    // SAFETY: the exchange from PENDING to CLAIMED gave this thread the cell until it stores DONE; its
                    // Acquire orders the owner's write of the job before this access.
                    let job = unsafe { &mut *cell };
                    f(job.as_mut().expect("a pending slot holds a job: push puts it there first"));
                });
                slot.state.store(DONE, Ordering::Release);
                return true;
            }
        }
        false
    }

    /// Commits the run of finished jobs at the head, unless somebody else is at it. Returns how many it committed.
    #[inline]
    pub fn commit(&self) -> usize {
        let mut committed = 0;
        loop {
            let (count, more) = self.commit_lap(self.slots.len());
            committed += count;
            if !more {
                return committed;
            }
        }
    }

    /// Commits so many finished jobs at most. Returns how many, and whether the head is finished again or still
    /// and nobody else is at it.
    #[inline]
    fn commit_lap(&self, most: usize) -> (usize, bool) {
        // A swap, not a load first: the holder learns from it that somebody finished meanwhile (see the file's head).
        if self.token.swap(true, Ordering::AcqRel) {
            return (0, false);
        }
        let first = self.head.load(Ordering::Relaxed);
        let mut head = first;
        self.committer.with_mut(|committer| {
            // SAFETY: this thread holds the token, which is put down only after this closure; its swaps order the
            // former holder's access before this one.
            let committer = unsafe { &mut *committer };
            while head.wrapping_sub(first) < most {
                let slot = self.slot(head);
                if slot.state.load(Ordering::Acquire) != DONE {
                    break;
                }
                // SAFETY: a DONE slot belongs to the holder of the token until it stores FREE; the Acquire above
                // orders the worker's access before this one.
                let job = slot.job.with_mut(|cell| unsafe { (*cell).take() });
                slot.state.store(FREE, Ordering::Release);
                head = head.wrapping_add(1);
                self.head.store(head, Ordering::Release);
                committer.take(job.expect("a finished slot holds its job: only a commit takes it out"));
            }
            if head != first {
                committer.flush();
            }
        });
        self.token.swap(false, Ordering::AcqRel);
        (head.wrapping_sub(first), self.slot(head).state.load(Ordering::Acquire) == DONE)
    }

    /// Waits, for `patience` calls of `pause` at most, until no commit is under way that began before this call.
    /// False if one still is.
    pub fn settle(&self, patience: usize, pause: impl Fn()) -> bool {
        for _ in 0..patience {
            if !self.token.swap(true, Ordering::AcqRel) {
                self.token.swap(false, Ordering::AcqRel);
                // Somebody may have finished a job while this held the token.
                self.commit();
                return true;
            }
            pause();
        }
        false
    }
}

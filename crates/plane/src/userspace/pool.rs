//! Jobs that are not in use.
//!
//! All are made at the start; their buffers take memory only when they are first written. The one that came back last
//! is given out first, since its buffers are still in the cache, and so a device that is never busy touches one or two.
//! Whoever finds none can wait for one: it says so, and whoever puts the next one back learns of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

struct Stock<T> {
    jobs: Vec<Box<T>>,
    awaited: bool,
}

/// A pool of boxed jobs, shared by a worker and whoever commits for it.
pub(crate) struct Pool<T>(Arc<Mutex<Stock<T>>>);

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Pool<T> {
    pub(crate) fn new<E>(len: usize, make: impl Fn() -> Result<T, E>) -> Result<Self, E> {
        let jobs: Result<Vec<_>, E> = (0..len).map(|_| make().map(Box::new)).collect();
        Ok(Self(Arc::new(Mutex::new(Stock { jobs: jobs?, awaited: false }))))
    }

    /// How many are not in use.
    #[cfg(fuzzing)]
    pub(crate) fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// One that is not in use.
    #[inline]
    pub(crate) fn take(&self) -> Option<Box<T>> {
        self.lock().jobs.pop()
    }

    /// Waits for a job if there is none: the next [`Pool::put`] says that one is awaited. False if there is one.
    pub(crate) fn wait(&self) -> bool {
        let mut stock = self.lock();
        stock.awaited = stock.jobs.is_empty();
        stock.awaited
    }

    /// Takes a job back; true if one was awaited. Never allocates: the vector had room for all at the start.
    #[inline]
    pub(crate) fn put(&self, job: Box<T>) -> bool {
        let mut stock = self.lock();
        stock.jobs.push(job);
        std::mem::take(&mut stock.awaited)
    }

    fn lock(&self) -> MutexGuard<'_, Stock<T>> {
        // Each change is one call, so a thread that panicked left a stock that is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

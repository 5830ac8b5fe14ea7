//! Jobs that are not in use.
//!
//! All are made at the start; their buffers take memory only when they are first written. The one that came back last
//! is given out first, since its buffers are still in the cache, and so a device that is never busy touches one or two.

use std::sync::{Arc, Mutex, PoisonError};

/// A pool of boxed jobs, shared by a worker and whoever commits for it.
pub(crate) struct Pool<T>(Arc<Mutex<Vec<Box<T>>>>);

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Pool<T> {
    pub(crate) fn new<E>(len: usize, make: impl Fn() -> Result<T, E>) -> Result<Self, E> {
        let jobs: Result<Vec<_>, E> = (0..len).map(|_| make().map(Box::new)).collect();
        Ok(Self(Arc::new(Mutex::new(jobs?))))
    }

    /// How many are not in use.
    #[cfg(fuzzing)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    #[inline]
    pub(crate) fn take(&self) -> Option<Box<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Never allocates: the vector had room for all at the start.
    #[inline]
    pub(crate) fn put(&self, job: Box<T>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(job);
    }
}

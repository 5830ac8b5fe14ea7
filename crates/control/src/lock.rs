//! A lock that is taken in turn.
//!
//! A mutex of the standard library may be taken again by the thread that has just let go of it, before the one that waits has
//! woken: a client that configures 100,000 peers, a lock for each, could so keep the control thread out for seconds. Here
//! whoever waits holds the *turn*, and whoever comes after waits for that.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A value behind a lock that is taken in turn.
pub(crate) struct Turnstile<T> {
    turn: Mutex<()>,
    value: Mutex<T>,
}

impl<T> Turnstile<T> {
    pub(crate) fn new(value: T) -> Turnstile<T> {
        Turnstile { turn: Mutex::new(()), value: Mutex::new(value) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let _turn = lock(&self.turn);
        lock(&self.value)
    }
}

/// Takes a mutex. A panic while it was held ends the process in a release build, and a test has nothing to save.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_next() {
        let turnstile = Turnstile::new(Vec::new());
        std::thread::scope(|scope| {
            let held = turnstile.lock();
            scope.spawn(|| turnstile.lock().push("who waited"));
            // The other has the turn once it can be taken no more.
            while turnstile.turn.try_lock().is_ok() {
                std::thread::yield_now();
            }
            drop(held);
            turnstile.lock().push("who had it before");
        });
        assert_eq!(*turnstile.lock(), ["who waited", "who had it before"]);
    }
}

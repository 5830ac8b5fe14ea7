//! Threads that run until they are told to end: at the latest when they are dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// Some of them, which end together.
#[derive(Default)]
pub struct Threads {
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts one more, which looks now and then at the word that tells it to end.
    pub fn start(&mut self, run: impl FnOnce(&AtomicBool) + Send + 'static) {
        let ending = Arc::clone(&self.ending);
        self.threads.push(thread::spawn(move || run(&ending)));
    }

    /// Tells them to end, and waits until they have.
    pub fn end(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end();
    }
}

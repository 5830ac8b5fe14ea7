//! The job ring under loom: an owner and helpers in every interleaving of a few preemptions each.
//!
//! The log is behind a mutex of std's, which loom does not see: that commits exclude each other is the ring's promise, and
//! a second mutex of loom's would keep it for the ring.
//!
//! Run with `cargo test -p wireloom-plane --features loom --test loom_ring`, as `cargo xtask test` does.

#![cfg(feature = "loom")]

use loom::thread;
use plane::ring::{Committer, Producer};
use std::sync::{Arc, Mutex};

/// Notes what was committed, and whether each run was flushed.
struct Log(Arc<Mutex<Vec<(usize, bool)>>>, usize);

impl Committer<(usize, bool)> for Log {
    fn take(&mut self, job: (usize, bool)) {
        self.0.lock().unwrap().push(job);
        self.1 += 1;
    }

    fn flush(&mut self) {
        assert!(self.1 > 0, "flushed without a job");
        self.1 = 0;
    }
}

fn run(jobs: usize, capacity: usize, helpers: usize, preemptions: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut producer = Producer::new(capacity, Log(log.clone(), 0));
        let helping: Vec<_> = (0..helpers)
            .map(|_| {
                let ring = producer.ring().clone();
                thread::spawn(move || {
                    ring.work(|job| job.1 = true);
                    ring.commit();
                })
            })
            .collect();
        for job in 0..jobs {
            let mut job = (job, false);
            while let Err(back) = producer.push(job) {
                job = back;
                if !producer.ring().work(|job| job.1 = true) {
                    // The helper has the job that is in the way.
                    thread::yield_now();
                }
                producer.ring().commit();
            }
        }
        while producer.ring().work(|job| job.1 = true) {}
        producer.ring().commit();
        for helper in helping {
            helper.join().unwrap();
        }
        // Whoever finished last has committed, or left it to the holder of the token: nothing is left, all is in order.
        let expected: Vec<_> = (0..jobs).map(|job| (job, true)).collect();
        assert_eq!(*log.lock().unwrap(), expected);
        assert!(producer.ring().is_empty());
    });
}

#[test]
fn one_helper_two_jobs() {
    run(2, 2, 1, 4);
}

#[test]
fn two_helpers_two_jobs() {
    run(2, 2, 2, 2);
}

#[test]
fn one_helper_and_a_ring_that_wraps() {
    run(3, 2, 1, 3);
}

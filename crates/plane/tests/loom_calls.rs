//! Calls for help under loom: an owner with a backlog, and another worker that goes to sleep, in every interleaving of a few
//! preemptions. Each call is answered, whenever it comes, and no job is left lying or done twice, whoever leaves when.
//!
//! What wakes a worker stays readable until it is read, as an eventfd does: a flag and a condition variable of loom's.
//! Loom itself finds it when a worker sleeps for ever.
//!
//! Run with `cargo test -p wireloom-plane --features loom --test loom_calls`, as `cargo xtask test` does.

#![cfg(feature = "loom")]

use loom::{
    sync::{Arc, Condvar, Mutex},
    thread,
};
use plane::{
    calls::{Calls, Helpers},
    ring::{Committer, Producer},
};
use std::sync::{Arc as StdArc, Mutex as StdMutex};

const OWNER: usize = 0;
const OTHER: usize = 1;

/// What a worker sleeps on.
#[derive(Default)]
struct Wake(Mutex<bool>, Condvar);

impl Wake {
    fn signal(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_one();
    }

    fn is_readable(&self) -> bool {
        *self.0.lock().unwrap()
    }

    fn wait(&self) {
        let mut readable = self.0.lock().unwrap();
        while !*readable {
            readable = self.1.wait(readable).unwrap();
        }
        *readable = false;
    }
}

struct Log(StdArc<StdMutex<Vec<(usize, u8)>>>);

impl Committer<(usize, u8)> for Log {
    fn take(&mut self, job: (usize, u8)) {
        self.0.lock().unwrap().push(job);
    }

    fn flush(&mut self) {}
}

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// The owner calls once and, if nobody slept, wakes the other for another reason, as a packet would.
#[test]
fn each_call_wakes_one_and_is_answered_once() {
    check(4, || {
        let (calls, wake) = (Arc::new(Calls::new(2)), Arc::new(Wake::default()));
        let other = {
            let (calls, wake) = (calls.clone(), wake.clone());
            thread::spawn(move || {
                calls.sleep(OTHER);
                wake.wait();
                let called = calls.wake(OTHER);
                if let Some(owner) = called {
                    calls.arrive(owner);
                    calls.leave(owner);
                }
                called
            })
        };
        let called = calls.call(OWNER);
        wake.signal();
        assert_eq!(other.join().unwrap(), called.map(|_| OWNER));
        assert_eq!(calls.helpers(OWNER), Helpers::default());
    });
}

/// Two workers call the same third one: one of them gets it.
#[test]
fn two_that_call_at_once_do_not_share_a_helper() {
    check(3, || {
        let calls = Arc::new(Calls::new(3));
        calls.sleep(2);
        let caller = |owner| {
            let calls = calls.clone();
            thread::spawn(move || calls.call(owner))
        };
        let called = [caller(0), caller(1)].map(|caller| caller.join().unwrap());
        let owner = calls.wake(2);
        match called {
            [Some(2), None] => assert_eq!(owner, Some(0)),
            [None, Some(2)] => assert_eq!(owner, Some(1)),
            _ => panic!("{called:?}"),
        }
        calls.decline(owner.unwrap());
        assert_eq!([0, 1].map(|owner| calls.helpers(owner)), [Helpers::default(); 2]);
    });
}

/// A whole stint: the owner calls at its second job, works as the workers do (`Worker::share`, then `finish_outbound`) and goes to
/// sleep; the helper works, and leaves. Whatever is left then is found, by the owner or because it was told.
#[test]
fn no_job_is_left_lying_when_the_helper_leaves() {
    check(2, || {
        let log = StdArc::new(StdMutex::new(Vec::new()));
        let mut producer = Producer::new(2, Log(log.clone()));
        let calls = Arc::new(Calls::new(2));
        let (to_owner, to_other) = (Arc::new(Wake::default()), Arc::new(Wake::default()));
        calls.sleep(OTHER);
        let helper = {
            let (ring, calls) = (producer.ring().clone(), calls.clone());
            let (to_owner, to_other) = (to_owner.clone(), to_other.clone());
            thread::spawn(move || {
                to_other.wait();
                let owner = calls.wake(OTHER).expect("nothing else wakes it");
                calls.arrive(owner);
                // What an idle helper does for a while, for as little as it may be.
                for _ in 0..2 {
                    ring.assist(|job| job.1 += 1);
                }
                calls.leave(owner);
                if ring.part() {
                    to_owner.signal();
                }
            })
        };
        let ring = producer.ring().clone();
        producer.push((0, 0)).unwrap();
        producer.push((1, 0)).unwrap();
        assert_eq!(calls.call(OWNER), Some(OTHER));
        to_other.signal();
        ring.work(|job| job.1 += 1);
        if calls.helpers(OWNER).here == 0 {
            ring.commit();
        }
        // Nothing more to read: all that can be done is done, and then it sleeps.
        while ring.work(|job| job.1 += 1) {}
        ring.commit();
        helper.join().unwrap();
        if to_owner.is_readable() {
            ring.commit();
        }
        assert!(ring.is_empty(), "a job was left to nobody");
        assert_eq!(*log.lock().unwrap(), [(0, 1), (1, 1)]);
    });
}

//! Whoever works on the jobs, and however long each takes, they are committed in the order in which they were pushed.

#![cfg(not(feature = "loom"))]

use plane::ring::{Committer, Producer};
use proptest::prelude::*;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

struct Job {
    flow: u8,
    number: u32,
    spins: u32,
    worked: bool,
}

struct Out(mpsc::Sender<(u8, u32)>);

impl Committer<Job> for Out {
    fn take(&mut self, job: Job) {
        assert!(job.worked);
        self.0.send((job.flow, job.number)).expect("the test holds the other end");
    }

    fn flush(&mut self) {}
}

fn work(job: &mut Job) {
    for _ in 0..job.spins {
        std::hint::spin_loop();
    }
    if job.spins.is_multiple_of(7) {
        thread::yield_now();
    }
    job.worked = true;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn no_flow_is_reordered(
        jobs in prop::collection::vec((0u8..5, 0u32..2000), 1..400),
        helpers in 0usize..4,
        stint in 1usize..20,
        lead in 1usize..4,
        capacity in prop::sample::select(vec![1usize, 2, 8, 16]),
    ) {
        let (sender, committed) = mpsc::channel();
        let mut producer = Producer::new(capacity, Out(sender));
        let over = Arc::new(AtomicBool::new(false));
        let helping: Vec<_> = (0..helpers).map(|_| {
            let (ring, over) = (producer.ring().clone(), over.clone());
            // Some help for ever, others come and go; what they leave when they go is the owner's.
            thread::spawn(move || while !over.load(Ordering::Relaxed) {
                for _ in 0..stint {
                    if !ring.assist(work) {
                        thread::yield_now();
                    }
                }
                ring.part();
            })
        }).collect();
        for (number, &(flow, spins)) in jobs.iter().enumerate() {
            let mut job = Job { flow, number: number as u32, spins, worked: false };
            while let Err(back) = producer.push(job) {
                job = back;
                if producer.ring().work(work) {
                    producer.ring().commit();
                }
            }
            // As far as it reads ahead, it leaves jobs to them.
            while producer.ring().pending().count > lead {
                producer.ring().work(work);
            }
        }
        while !producer.ring().is_empty() {
            producer.ring().work(work);
            producer.ring().commit();
        }
        over.store(true, Ordering::Relaxed);
        for helper in helping {
            helper.join().unwrap();
        }
        let committed: Vec<_> = committed.try_iter().collect();
        let expected: Vec<_> = jobs.iter().enumerate().map(|(number, job)| (job.0, number as u32)).collect();
        prop_assert_eq!(committed, expected);
    }
}

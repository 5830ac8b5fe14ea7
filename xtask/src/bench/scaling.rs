//! `cargo xtask bench scale`: what more threads bring, in one process and without the kernel.
//!
//! So far the cryptography alone: each thread seals batches of its own session, as many as it can in a set time. What is lost from one
//! thread to several is what the processors share: clock, caches, and the cores themselves where two are one core's threads.

use std::time::{Duration, Instant};

use ::aead::{SealSegment, SealingKey, TAG_LEN, counter_nonce};
use clap::Args;

use super::stats::median;
use crate::error::Failure;

/// Bytes of a packet, and packets of a batch: one super-packet.
const PACKET: usize = 1420;
const BATCH: usize = 45;

/// What `bench scale` may be told.
#[derive(Args, Debug)]
pub struct Options {
    /// The most workers; one for each processor otherwise
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: Option<u32>,
    /// Rounds, of which the median is taken
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=25))]
    runs: u32,
    /// A moment of each: to see that it works, not to quote
    #[arg(long)]
    quick: bool,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), Failure> {
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    let workers = options.workers.unwrap_or(cpus);
    let time = Duration::from_millis(if options.quick { 50 } else { 1000 });
    let rounds = if options.quick { 1 } else { options.runs };
    println!("| threads | sealed, Gb/s | of each thread |\n|--:|--:|--:|");
    let mut found = vec![Vec::new(); workers as usize];
    for _ in 0..rounds {
        for (count, rates) in (1..).zip(&mut found) {
            if lab::interrupted() {
                return Err(lab::LabError::Interrupted.into());
            }
            rates.push(together(count, time));
        }
    }
    for (count, rates) in (1..).zip(found) {
        let rate = median(rates).unwrap_or_default();
        println!("| {count} | {rate:.2} | {:.2} |", rate / f64::from(count));
    }
    Ok(())
}

/// Gb/s that this many threads seal together.
fn together(threads: u32, time: Duration) -> f64 {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(move || alone(time))).collect();
        // One that panicked has said so, and is missing from the sum.
        threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
    })
}

fn alone(time: Duration) -> f64 {
    let key = SealingKey::new(&[7; 32]);
    let body = vec![1; PACKET * BATCH];
    let mut out = vec![0; (PACKET + TAG_LEN) * BATCH];
    let (start, mut counter) = (Instant::now(), 0);
    while start.elapsed() < time {
        let pairs = body.chunks(PACKET).zip(out.chunks_mut(PACKET + TAG_LEN)).zip(counter..);
        let mut batch: Vec<_> = pairs
            .map(|((body, out), number)| SealSegment { nonce: counter_nonce(number), aad: &[], head: 0, body, out })
            .collect();
        key.seal(&mut batch);
        counter += BATCH as u64;
    }
    counter as f64 * PACKET as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9
}

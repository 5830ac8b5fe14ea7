//! What sealing and opening a message costs in BPF, on one processor: nanoseconds and cycles per byte.
//!
//! `cargo run -p wireloom-ebpf --release --example aead`, as root. The kernel repeats the program and takes the mean. That has
//! copying the message into the scratch area and back in it, which the last lines tell of alone.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::Programs;

/// How often a program is repeated for one figure, and how many figures the best is taken of.
const TIMES: u32 = 30_000;
const ROUNDS: usize = 7;

fn main() {
    let programs = Programs::load();
    let key = [7; 32];
    let ghz = clock();
    println!("processor: about {ghz:.2} GHz");
    println!("{:<8} {:>6} {:>9} {:>12}", "what", "bytes", "ns", "cycles/byte");
    for len in [64, 1424] {
        let sealed = programs.seal(&key, 1, &vec![1; len]);
        // Opening changes the message, so only the first of repeated runs would find it authentic. A forged one is the
        // authenticator's part alone.
        for (name, program, told) in [
            ("seal", "seal", len),
            ("open", "open_again", len + 16),
            ("refuse", "open", len + 16),
            ("copy", "seal", usize::MAX),
        ] {
            let mut message = sealed.clone();
            if name == "refuse" {
                message[len] ^= 1;
            }
            let best = (0..ROUNDS)
                .map(|_| programs.run(program, &key, 1, &message, told, TIMES).took)
                .min()
                .unwrap_or_default();
            let ns = best.as_nanos() as f64;
            println!("{name:<8} {len:>6} {ns:>9.0} {:>12.2}", ns * ghz / len as f64);
        }
    }
}

/// How fast the processor turns, by a chain of steps of 1 cycle for the exclusive or and 3 for the multiplication.
fn clock() -> f64 {
    let turns = 50_000_000_u64;
    let best = (0..3)
        .map(|_| {
            let start = Instant::now();
            let mut sum = 1_u64;
            for i in 0..turns {
                sum = (sum ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
            std::hint::black_box(sum);
            start.elapsed()
        })
        .min()
        .unwrap_or(Duration::MAX);
    4.0 * turns as f64 / best.as_nanos() as f64
}

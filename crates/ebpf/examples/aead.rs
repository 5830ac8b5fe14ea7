//! What sealing and opening a message costs in BPF, on one processor: `cargo xtask bench bpf`, as root.
//!
//! The kernel repeats the program and takes the mean, of some 2 ms each time. Copying the message from the packet into the scratch
//! area is part of it, and back again when sealing; the lines of `copy` have that alone. The best and the middle of many rounds
//! are told: on a machine that others use too they are far apart, and the best is what the code is worth.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use common::Programs;

/// How many rounds there are of each, by turns.
const ROUNDS: usize = 101;

/// What is measured: its name, the program, and what that is told of a message of so many bytes.
type Case = (&'static str, &'static str, fn(usize) -> usize);

const CASES: [Case; 4] = [
    ("seal", "seal", |len| len),
    // Opening in place would leave nothing that is authentic for the next time.
    ("open", "open_again", |len| len + 16),
    // A message with another tag is authenticated and no more.
    ("refuse", "open", |len| len + 16),
    // A length that is refused at once.
    ("copy", "seal", |_| u32::MAX as usize),
];

fn main() {
    let programs = Programs::load();
    let key = [7; 32];
    let mut rows = Vec::new();
    for len in [64, 1424] {
        let sealed = programs.seal(&key, 1, &vec![1; len]);
        for case in CASES {
            let mut message = sealed.clone();
            if case.0 == "refuse" {
                message[len] ^= 1;
            }
            rows.push((len, case, message, Vec::new()));
        }
    }
    let mut ghz = 0_f64;
    for _ in 0..ROUNDS {
        ghz = ghz.max(clock());
        for (len, (_, program, told), message, took) in &mut rows {
            let times = if *len > 1000 { 500 } else { 5000 };
            took.push(programs.run(program, &key, 1, message, told(*len), times).took.as_nanos() as f64);
        }
    }
    println!("a cycle is taken for 1/{ghz:.2} ns");
    println!("{:<8} {:>6} {:>9} {:>10} {:>14}", "what", "bytes", "best, ns", "middle, ns", "cycles a byte");
    for (len, (name, _, _), _, mut took) in rows {
        took.sort_by(f64::total_cmp);
        let (best, middle) = (took[0], took[ROUNDS / 2]);
        println!("{name:<8} {len:>6} {best:>9.0} {middle:>10.0} {:>14.2}", best * ghz / len as f64);
    }
}

/// How many cycles a nanosecond has, by a chain of steps of 1 cycle for the exclusive or and 3 for the multiplication.
fn clock() -> f64 {
    let turns = 50_000_u64;
    let start = Instant::now();
    let mut sum = 1_u64;
    for i in 0..turns {
        sum = (sum ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    std::hint::black_box(sum);
    4.0 * turns as f64 / start.elapsed().as_nanos() as f64
}

//! Nanoseconds per segment, for some lengths and sizes of batches.
//!
//! The backends take turns, so that a machine that slows down slows all of them; what is told is the median.

use aead::{Backend, OpenSegment, OpeningKey, SealSegment, SealingKey, TAG_LEN, counter_nonce};
use std::{hint::black_box, time::Instant};

const LENGTHS: [usize; 3] = [64, 576, 1420];
const BATCHES: [usize; 6] = [1, 4, 8, 16, 45, 64];

/// The head that a plane writes itself: an IPv4 and a TCP header.
const HEAD: usize = 40;

/// Segments of one turn, at least.
const SEGMENTS: usize = 1500;

/// Prints the table, and returns its cells as JSON.
pub fn measure(rounds: usize) -> Vec<String> {
    let backends: Vec<Backend> = Backend::all_available().collect();
    println!("\nNanoseconds per segment, medians of {rounds} rounds; how many times ring's speed that is.\n");
    print!("| bytes | batch |");
    for way in ["seal", "open"] {
        backends.iter().for_each(|backend| print!(" {way} {backend} |"));
    }
    println!("\n|--:|--:|{}", "--:|".repeat(2 * backends.len()));
    let mut json = Vec::new();
    for len in LENGTHS {
        for batch in BATCHES {
            let medians = medians(&backends, len, batch, rounds);
            print!("| {len} | {batch} |");
            for (way, medians) in ["seal", "open"].iter().zip(medians.chunks(backends.len())) {
                // The first one is ring.
                for (backend, ns) in backends.iter().zip(medians) {
                    let ratio = medians[0] / ns;
                    print!(" {ns:.1} ({ratio:.2}x) |");
                    json.push(format!(
                        r#"{{"what":"cost","way":"{way}","backend":"{backend}","bytes":{len},"batch":{batch},"ns_per_segment":{ns:.1},"times_ring":{ratio:.3}}}"#
                    ));
                }
            }
            println!();
        }
    }
    json
}

/// The medians of sealing by every backend, then of opening.
fn medians(backends: &[Backend], len: usize, batch: usize, rounds: usize) -> Vec<f64> {
    let key = [0x42; 32];
    let sealing: Vec<SealingKey> = backends.iter().filter_map(|b| SealingKey::with_backend(*b, false, &key)).collect();
    let opening: Vec<OpeningKey> = backends.iter().filter_map(|b| OpeningKey::with_backend(*b, false, &key)).collect();
    let body = vec![0x17; batch * (len - HEAD)];
    let mut outs = vec![0x29; batch * (len + TAG_LEN)];
    let mut turns = vec![Vec::with_capacity(rounds); 2 * backends.len()];
    let calls = SEGMENTS.div_ceil(batch);
    for _ in 0..rounds {
        for (i, key) in sealing.iter().enumerate() {
            let start = Instant::now();
            for _ in 0..calls {
                seal(key, &body, &mut outs, len);
            }
            turns[i].push(start.elapsed().as_secs_f64() * 1e9 / (calls * batch) as f64);
        }
        seal(&sealing[0], &body, &mut outs, len);
        let sealed = outs.clone();
        for (i, key) in opening.iter().enumerate() {
            let mut spent = 0.0;
            for _ in 0..calls {
                outs.copy_from_slice(&sealed);
                let start = Instant::now();
                assert_eq!(open(key, &mut outs, len), batch);
                spent += start.elapsed().as_secs_f64();
            }
            turns[backends.len() + i].push(spent * 1e9 / (calls * batch) as f64);
        }
    }
    turns.iter_mut().map(|turns| *turns.select_nth_unstable_by(rounds / 2, f64::total_cmp).1).collect()
}

fn seal(key: &SealingKey, body: &[u8], outs: &mut [u8], len: usize) {
    let bodies = body.chunks(len - HEAD);
    let mut batch: Vec<_> = outs
        .chunks_mut(len + TAG_LEN)
        .zip(bodies)
        .zip(0..)
        .map(|((out, body), counter)| SealSegment { nonce: counter_nonce(counter), aad: &[], head: HEAD, body, out })
        .collect();
    key.seal(black_box(&mut batch));
}

fn open(key: &OpeningKey, texts: &mut [u8], len: usize) -> usize {
    let mut batch: Vec<_> = texts
        .chunks_mut(len + TAG_LEN)
        .zip(0..)
        .map(|(text, counter)| OpenSegment { nonce: counter_nonce(counter), aad: &[], text, authentic: false })
        .collect();
    key.open(black_box(&mut batch))
}

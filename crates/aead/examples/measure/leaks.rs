//! Whether the time that sealing and opening take depends on what is secret, as `dudect` asks it (Reparaz, Balasch, Verbauwhede:
//! "Dude, is my code constant time?", 2017).
//!
//! Each test has two classes of inputs that must not be told apart by their times: a fixed text and random ones, a fixed key and
//! random ones, a tag that is wrong in its first byte and one that is wrong in its last. Which class is next is chosen at random,
//! both are prepared in the same way in the same memory, and Welch's t-test compares their means: of all times, and of those below
//! some percentiles, since the long ones are interruptions. The largest |t| counts. Below 4.5 nothing was found; above 10 the time
//! depends on the class; in between nobody knows, and more samples tell. With so many tests one in between happens now and then.
//!
//! That a right tag is told from a wrong one by time is no leak, as what is refused is not decrypted and its sender is not answered.
//!
//! The control compares 256 bytes one by one up to the first difference, and has to be found out.

use aead::{Backend, OpenSegment, OpeningKey, SealSegment, SealingKey, TAG_LEN, counter_nonce};
use std::{hint::black_box, time::Instant};

/// Below this, nothing was found; beyond [`CERTAIN`], something was.
const SUSPICIOUS: f64 = 4.5;
const CERTAIN: f64 = 10.0;

/// Bytes of a segment's text, and segments.
const SHAPES: [(usize, usize); 3] = [(64, 1), (64, 8), (1420, 4)];

/// The shares of the times, shortest first, that are looked at.
const CROPS: [f64; 5] = [0.5, 0.75, 0.9, 0.99, 1.0];

/// Prints the table; returns its rows as JSON, and whether all is well.
pub fn measure(samples: usize) -> (Vec<String>, Result<(), String>) {
    println!(
        "\nDoes the time depend on a secret? Largest |t| of {samples} samples in two classes: below {SUSPICIOUS} no sign of it, beyond \
         {CERTAIN} certain.\n\n| backend | bytes | batch | classes | t | |\n|---|--:|--:|---|--:|---|"
    );
    let mut table = Table { json: Vec::new(), found: Vec::new() };
    for backend in Backend::all_available() {
        for (len, batch) in SHAPES {
            let mut bench = Bench::new(backend, len, batch);
            table.add(backend.name(), len, batch, "sealing: fixed and random text", bench.seal(samples, Vary::Text));
            table.add(backend.name(), len, batch, "sealing: fixed and random key", bench.seal(samples, Vary::Key));
            table.add(backend.name(), len, batch, "opening: fixed and random text", bench.open(samples, Vary::Text));
            table.add(backend.name(), len, batch, "opening: fixed and random key", bench.open(samples, Vary::Key));
            table.add(
                backend.name(),
                len,
                batch,
                "opening: first and last byte of the tag wrong",
                bench.open(samples, Vary::Tag),
            );
        }
    }
    let found = std::mem::take(&mut table.found);
    let control = control(samples);
    table.add("control", 256, 1, "comparing: first and last byte different", control);
    let verdict = if control.abs() <= CERTAIN {
        Err(format!("the control was not found out (t = {control:.1}), so that leaks would not be: take more samples"))
    } else if found.is_empty() {
        Ok(())
    } else {
        Err(format!("the time depends on a secret: {}", found.join("; ")))
    };
    (table.json, verdict)
}

struct Table {
    json: Vec<String>,
    /// What is certain.
    found: Vec<String>,
}

impl Table {
    fn add(&mut self, backend: &str, len: usize, batch: usize, classes: &str, t: f64) {
        let verdict = match t.abs() {
            t if t > CERTAIN => "depends",
            t if t >= SUSPICIOUS => "unclear",
            _ => "no sign",
        };
        println!("| {backend} | {len} | {batch} | {classes} | {t:.1} | {verdict} |");
        self.json.push(format!(
            r#"{{"what":"leak","backend":"{backend}","bytes":{len},"batch":{batch},"classes":"{classes}","t":{t:.2},"verdict":"{verdict}"}}"#
        ));
        if t.abs() > CERTAIN {
            self.found.push(format!("{backend}, {batch} times {len} bytes, {classes}"));
        }
    }
}

/// What the two classes differ in.
#[derive(Clone, Copy, PartialEq)]
enum Vary {
    Text,
    Key,
    Tag,
}

/// Buffers of one shape, used again and again.
struct Bench {
    backend: Backend,
    len: usize,
    key: [u8; 32],
    text: Vec<u8>,
    /// The inputs of both classes for the next sample: a key, and texts.
    fixed: (Vec<u8>, Vec<u8>),
    random: (Vec<u8>, Vec<u8>),
    out: Vec<u8>,
    chance: Chance,
}

impl Bench {
    fn new(backend: Backend, len: usize, batch: usize) -> Self {
        let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
        let (mut key, mut text) = (vec![0; 32], vec![0; len * batch]);
        chance.fill(&mut key);
        chance.fill(&mut text);
        Self {
            backend,
            len,
            key: [0; 32],
            text: text.clone(),
            random: (key.clone(), text.clone()),
            fixed: (key, text),
            out: vec![0; (len + TAG_LEN) * batch],
            chance,
        }
    }

    /// Prepares a sample of one class; random inputs are made for either.
    fn prepare(&mut self, vary: Vary) -> bool {
        self.chance.fill(&mut self.random.0);
        self.chance.fill(&mut self.random.1);
        let class = self.chance.next() & 1 == 1;
        one_of(&mut self.key, &self.fixed.0, &self.random.0, class && vary == Vary::Key);
        one_of(&mut self.text, &self.fixed.1, &self.random.1, class && vary == Vary::Text);
        class
    }

    /// Seals what is prepared; the nanoseconds that it took.
    fn seal_once(&mut self) -> f64 {
        let key = SealingKey::with_backend(self.backend, true, &self.key).expect("only available ones are measured");
        let parts = self.out.chunks_mut(self.len + TAG_LEN).zip(self.text.chunks(self.len)).zip(0..);
        let mut batch: Vec<_> = parts
            .map(|((out, body), counter)| SealSegment { nonce: counter_nonce(counter), aad: &[], head: 0, body, out })
            .collect();
        time(|| key.seal(black_box(&mut batch)))
    }

    fn seal(&mut self, samples: usize, vary: Vary) -> f64 {
        largest_t((0..samples).map(|_| (self.prepare(vary), self.seal_once())).collect())
    }

    fn open(&mut self, samples: usize, vary: Vary) -> f64 {
        let mut all = Vec::with_capacity(samples);
        for _ in 0..samples {
            let class = self.prepare(vary);
            self.seal_once();
            if vary == Vary::Tag {
                let at = if class { 0 } else { TAG_LEN - 1 };
                self.out.chunks_mut(self.len + TAG_LEN).for_each(|text| text[self.len + at] ^= 0x55);
            }
            let key =
                OpeningKey::with_backend(self.backend, true, &self.key).expect("only available ones are measured");
            let parts = self.out.chunks_mut(self.len + TAG_LEN).zip(0..);
            let mut batch: Vec<_> = parts
                .map(|(text, counter)| OpenSegment { nonce: counter_nonce(counter), aad: &[], text, authentic: false })
                .collect();
            let mut authentic = 0;
            all.push((class, time(|| authentic = key.open(black_box(&mut batch)))));
            assert_eq!(authentic, if vary == Vary::Tag { 0 } else { batch.len() });
        }
        largest_t(all)
    }
}

/// Copies the first or the second. Both are read: what the cache has afterwards must not depend on the class.
fn one_of(out: &mut [u8], first: &[u8], second: &[u8], take_second: bool) {
    let mask = 0u8.wrapping_sub(black_box(u8::from(take_second)));
    for ((out, first), second) in out.iter_mut().zip(first).zip(second) {
        *out = (first & !mask) | (second & mask);
    }
}

/// What a comparison that stops early looks like.
fn control(samples: usize) -> f64 {
    let (mut chance, one, mut other) = (Chance(1), [7u8; 256], [7u8; 256]);
    let mut all = Vec::with_capacity(samples);
    for _ in 0..samples {
        let class = chance.next() & 1 == 1;
        other.fill(7);
        other[if class { 0 } else { 255 }] = 8;
        let (one, other) = (black_box(&one), black_box(&other));
        all.push((class, time(|| _ = black_box(one.iter().zip(other).position(|(a, b)| a != b)))));
    }
    largest_t(all)
}

fn time(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64
}

/// The t of largest amount, of all times and of the shortest ones.
fn largest_t(mut samples: Vec<(bool, f64)>) -> f64 {
    samples.sort_unstable_by(|a, b| a.1.total_cmp(&b.1));
    let t = |share: &f64| {
        // Whole times: what lies between two of them would go to the crop by class.
        let limit = samples[(samples.len() as f64 * share) as usize - 1].1;
        welch(samples.iter().take_while(|sample| sample.1 <= limit))
    };
    CROPS.iter().map(t).max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or_default()
}

/// Welch's t: the distance of the means in units of its own uncertainty.
fn welch<'a>(samples: impl Iterator<Item = &'a (bool, f64)>) -> f64 {
    // Count, mean, and squared deviations from it, of each class (Welford).
    let mut classes = [(0.0, 0.0, 0.0); 2];
    for (class, x) in samples {
        let (n, mean, squares) = &mut classes[usize::from(*class)];
        *n += 1.0;
        let off = x - *mean;
        *mean += off / *n;
        *squares += off * (x - *mean);
    }
    let [(n, mean, squares), (m, other, others)] = classes;
    if n < 2.0 || m < 2.0 {
        return 0.0;
    }
    let uncertainty = (squares / (n - 1.0) / n + others / (m - 1.0) / m).sqrt();
    if uncertainty > 0.0 { (mean - other) / uncertainty } else { 0.0 }
}

/// Numbers that have nothing to do with what is measured (xorshift64*).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        // The upper bits are the better ones.
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for four in bytes.chunks_mut(4) {
            four.copy_from_slice(&(self.next() as u32).to_le_bytes()[..four.len()]);
        }
    }
}

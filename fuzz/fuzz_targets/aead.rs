//! The AEAD: every backend seals and opens as `ring` does, batches of any mixture, and segments that were tampered with.

#![no_main]

use aead::{Backend, OpenSegment, OpeningKey, SealSegment, SealingKey, TAG_LEN, counter_nonce};
use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary, fuzz_target};

#[derive(Arbitrary, Debug)]
struct Input {
    key: [u8; 32],
    counter: u64,
    batch: Vec<Shape>,
    harms: Vec<(u8, Harm)>,
}

/// A segment before it is sealed: how long its parts are, and what is in them.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Shape {
    head: u8,
    body: u16,
    padding: u8,
    aad: u8,
    fill: u8,
}

/// What is done to a sealed segment on its way.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Harm {
    /// Anywhere.
    Flip(u16, u8),
    /// In the tag, so many bytes from its end.
    Tag(u8, u8),
    Cut(u16),
    Grow(u8),
}

/// As many segments as are taken of an input, and the longest body.
const MOST: usize = 80;
const LONGEST: u16 = 2100;

const AAD: [u8; 24] = [0xAA; 24];

impl Shape {
    fn head(self) -> usize {
        usize::from(self.head % 100)
    }

    fn body(self) -> usize {
        usize::from(self.body % LONGEST)
    }

    fn len(self) -> usize {
        self.head() + self.body() + usize::from(self.padding % 40) + TAG_LEN
    }

    /// Additional data is rare, as it ends a group.
    fn aad(self) -> &'static [u8] {
        &AAD[..usize::from(self.aad).saturating_sub(255 - AAD.len())]
    }

    fn filled(self, len: usize) -> Vec<u8> {
        match self.fill {
            0 | 0xFF => vec![self.fill; len],
            seed => (0..len).map(|i| (i as u8).wrapping_mul(seed) ^ (i >> 8) as u8).collect(),
        }
    }
}

fn seal(key: &SealingKey, first: u64, batch: &[Shape]) -> Vec<Vec<u8>> {
    let bodies: Vec<_> = batch.iter().map(|shape| shape.filled(shape.body())).collect();
    let mut outs: Vec<_> = batch.iter().map(|shape| shape.filled(shape.len())).collect();
    let parts = outs.iter_mut().zip(&bodies).zip(batch).zip(0..);
    let mut segments: Vec<_> = parts
        .map(|(((out, body), shape), i)| SealSegment {
            nonce: counter_nonce(first.wrapping_add(i)),
            aad: shape.aad(),
            head: shape.head(),
            body,
            out,
        })
        .collect();
    key.seal(&mut segments);
    outs
}

/// The plaintexts; none for what is not authentic.
fn open(key: &OpeningKey, first: u64, batch: &[Shape], mut texts: Vec<Vec<u8>>) -> Vec<Option<Vec<u8>>> {
    let mut segments: Vec<_> = texts
        .iter_mut()
        .zip(batch)
        .zip(0..)
        .map(|((text, shape), i)| OpenSegment {
            nonce: counter_nonce(first.wrapping_add(i)),
            aad: shape.aad(),
            text,
            authentic: i % 2 == 0,
        })
        .collect();
    let count = key.open(&mut segments);
    let opened: Vec<_> =
        segments.iter().map(|s| s.authentic.then(|| s.text[..s.text.len() - TAG_LEN].to_vec())).collect();
    assert_eq!(count, opened.iter().flatten().count());
    opened
}

fuzz_target!(|input: Input| {
    let Input { key, counter, mut batch, harms } = input;
    batch.truncate(MOST);
    let ring = Backend::Ring;
    let sealing = SealingKey::with_backend(ring, true, &key).expect("it is there on every machine");
    let opening = OpeningKey::with_backend(ring, true, &key).expect("it is there on every machine");
    let others: Vec<_> = Backend::all_available()
        .filter(|backend| *backend != ring)
        .flat_map(|backend| [true, false].map(|alone| (backend, alone)))
        .collect();

    let sealed = seal(&sealing, counter, &batch);
    for (backend, alone) in &others {
        let key = SealingKey::with_backend(*backend, *alone, &key).expect("it is available");
        assert!(seal(&key, counter, &batch) == sealed, "{backend}, alone: {alone}");
    }

    let mut texts = sealed.clone();
    for (which, harm) in harms {
        if batch.is_empty() {
            break;
        }
        let text = &mut texts[usize::from(which) % batch.len()];
        match harm {
            Harm::Flip(at, bit) if !text.is_empty() => {
                let at = usize::from(at) % text.len();
                text[at] ^= 1 << (bit % 8);
            }
            Harm::Tag(at, bit) if text.len() >= TAG_LEN => {
                let at = text.len() - 1 - usize::from(at) % TAG_LEN;
                text[at] ^= 1 << (bit % 8);
            }
            Harm::Flip(..) | Harm::Tag(..) => {}
            Harm::Cut(to) => text.truncate(usize::from(to) % (text.len() + 1)),
            Harm::Grow(by) => text.resize(text.len() + usize::from(by), by),
        }
    }
    let opened = open(&opening, counter, &batch, texts.clone());
    for ((opened, text), sealed) in opened.iter().zip(&texts).zip(&sealed) {
        assert_eq!(opened.is_some(), text == sealed, "what was changed is refused, and nothing else");
    }
    for (backend, alone) in &others {
        let key = OpeningKey::with_backend(*backend, *alone, &key).expect("it is available");
        assert!(open(&key, counter, &batch, texts.clone()) == opened, "{backend}, alone: {alone}");
    }
});

//! Every backend against `ring`, over batches of any shape.

mod common;

use aead::{KEY_LEN, OpenSegment, OpeningKey, SealSegment, SealingKey, TAG_LEN, counter_nonce};
use common::{RING, Way, others};
use proptest::prelude::*;

/// A segment before it is sealed, at some distance from an aligned address.
#[derive(Clone, Debug)]
struct Shape {
    head: usize,
    body: usize,
    padding: usize,
    aad: usize,
    offset: usize,
    fill: Fill,
}

#[derive(Clone, Copy, Debug)]
enum Fill {
    Zeros,
    Ones,
    Mixed(u64),
}

impl Shape {
    fn len(&self) -> usize {
        self.head + self.body + self.padding + TAG_LEN
    }
}

fn fill(kind: Fill, buffer: &mut [u8]) {
    match kind {
        Fill::Zeros => buffer.fill(0),
        Fill::Ones => buffer.fill(0xFF),
        Fill::Mixed(mut state) => {
            for byte in buffer {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                *byte = (state >> 56) as u8;
            }
        }
    }
}

/// A batch in memory: of each segment its body and its outgoing buffer, each with `offset` bytes before and some after.
struct Buffers {
    shapes: Vec<Shape>,
    bodies: Vec<Vec<u8>>,
    outs: Vec<Vec<u8>>,
}

const AAD: [u8; 40] = [0x77; 40];
const AFTER: usize = 70;

impl Buffers {
    fn new(shapes: &[Shape]) -> Self {
        let bodies = shapes.iter().map(|s| {
            let mut body = vec![0xB0; s.offset + s.body];
            fill(s.fill, &mut body[s.offset..]);
            body
        });
        let outs = shapes.iter().map(|s| {
            let mut out = vec![0xC0; s.offset + s.len() + AFTER];
            fill(s.fill, &mut out[s.offset..s.offset + s.head]);
            out
        });
        Self { shapes: shapes.to_vec(), bodies: bodies.collect(), outs: outs.collect() }
    }

    fn seal(&mut self, way: Way, key: &[u8; KEY_LEN], first: u64) {
        let parts = self.outs.iter_mut().zip(&self.bodies).zip(&self.shapes).zip(first..);
        let mut batch: Vec<_> = parts
            .map(|(((out, body), s), counter)| SealSegment {
                nonce: counter_nonce(counter),
                aad: &AAD[..s.aad],
                head: s.head,
                body: &body[s.offset..],
                out: &mut out[s.offset..s.offset + s.len()],
            })
            .collect();
        SealingKey::with_backend(way.backend, way.alone, key).expect("asked whether it is available").seal(&mut batch);
    }
}

/// Opens copies of sealed segments; what is not authentic is none.
fn open(way: Way, key: &[u8; KEY_LEN], first: u64, shapes: &[Shape], sealed: &[Vec<u8>]) -> Vec<Option<Vec<u8>>> {
    let mut texts: Vec<Vec<u8>> =
        sealed.iter().zip(shapes).map(|(t, s)| [&vec![0xD0; s.offset], &t[..]].concat()).collect();
    for text in &mut texts {
        text.extend([0xD1; AFTER]);
    }
    let mut batch: Vec<_> = texts
        .iter_mut()
        .zip(sealed)
        .zip(shapes)
        .zip(first..)
        .map(|(((text, sealed), s), counter)| OpenSegment {
            nonce: counter_nonce(counter),
            aad: &AAD[..s.aad],
            text: &mut text[s.offset..s.offset + sealed.len()],
            // The flag is an output: it must not survive from before.
            authentic: true,
        })
        .collect();
    let count =
        OpeningKey::with_backend(way.backend, way.alone, key).expect("asked whether it is available").open(&mut batch);
    let opened: Vec<_> = batch.iter().map(|s| s.authentic.then(|| s.text[..s.text.len() - TAG_LEN].to_vec())).collect();
    assert_eq!(count, opened.iter().flatten().count());
    for ((text, sealed), s) in texts.iter().zip(sealed).zip(shapes) {
        assert!(text[..s.offset].iter().all(|b| *b == 0xD0), "written before the text");
        assert!(text[s.offset + sealed.len()..].iter().all(|b| *b == 0xD1), "written behind the text");
    }
    opened
}

fn some_fill() -> impl Strategy<Value = Fill> {
    prop_oneof![Just(Fill::Zeros), Just(Fill::Ones), any::<u64>().prop_map(Fill::Mixed)]
}

fn shape() -> impl Strategy<Value = Shape> {
    let body = prop_oneof![0usize..80, 0usize..2000, Just(1420usize), (0usize..32).prop_map(|n| n * 64)];
    let aad = prop_oneof![20 => Just(0usize), 1 => 0usize..40];
    (0usize..100, body, 0usize..40, aad, 0usize..66, some_fill())
        .prop_map(|(head, body, padding, aad, offset, fill)| Shape { head, body, padding, aad, offset, fill })
}

/// Any mixture, or a run of equal segments with a shorter one at its end.
fn batch() -> impl Strategy<Value = Vec<Shape>> {
    let run = (shape(), 1usize..130, any::<prop::sample::Index>()).prop_map(|(shape, count, cut)| {
        let mut shapes = vec![shape.clone(); count];
        shapes[count - 1].body = cut.index(shape.body + 1);
        shapes
    });
    prop_oneof![prop::collection::vec(shape(), 1..130), prop::collection::vec(shape(), 1..20), run]
}

/// What is done to a sealed segment on its way.
#[derive(Clone, Debug)]
enum Harm {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 0u8..8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        1 => any::<prop::sample::Index>().prop_map(Harm::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn seal_and_open_as_ring_does(
        key in any::<[u8; KEY_LEN]>(),
        first in 0..u64::MAX - 200,
        shapes in batch(),
        harms in prop::collection::vec((any::<prop::sample::Index>(), harm()), 0..12),
    ) {
        let mut by_ring = Buffers::new(&shapes);
        by_ring.seal(RING, &key, first);
        for way in others() {
            let mut buffers = Buffers::new(&shapes);
            buffers.seal(way, &key, first);
            // Including what lies around the segments.
            prop_assert_eq!(&buffers.outs, &by_ring.outs);
        }
        let mut sealed: Vec<Vec<u8>> =
            by_ring.outs.iter().zip(&shapes).map(|(out, s)| out[s.offset..s.offset + s.len()].to_vec()).collect();
        for (which, harm) in harms {
            let text = &mut sealed[which.index(shapes.len())];
            match harm {
                Harm::Flip(at, bit) if !text.is_empty() => {
                    let at = at.index(text.len());
                    text[at] ^= 1 << bit;
                }
                Harm::Flip(..) => {}
                Harm::Cut(to) => text.truncate(to.index(text.len() + 1)),
            }
        }
        let expected = open(RING, &key, first, &shapes, &sealed);
        for way in others() {
            prop_assert_eq!(&open(way, &key, first, &shapes, &sealed), &expected);
        }
    }
}

/// Every length there is on a wire, alone and nine times, of which the ninth stands in a group of its own.
#[test]
fn every_length() {
    for body in 0..=2048 {
        let shape = Shape { head: 0, body, padding: 0, aad: 0, offset: body % 5, fill: Fill::Mixed(body as u64) };
        for shapes in [vec![shape.clone()], vec![shape; 9]] {
            let (key, first) = ([body as u8; KEY_LEN], body as u64);
            let mut by_ring = Buffers::new(&shapes);
            by_ring.seal(RING, &key, first);
            let sealed: Vec<Vec<u8>> =
                by_ring.outs.iter().zip(&shapes).map(|(out, s)| out[s.offset..s.offset + s.len()].to_vec()).collect();
            for way in others() {
                let mut buffers = Buffers::new(&shapes);
                buffers.seal(way, &key, first);
                assert!(buffers.outs == by_ring.outs, "{body} bytes, {} times, by {way}", shapes.len());
                let opened = open(way, &key, first, &shapes, &sealed);
                assert!(
                    opened
                        .iter()
                        .zip(&by_ring.bodies)
                        .all(|(text, body)| text.as_deref() == Some(&body[shapes[0].offset..])),
                    "{body} bytes, {} times, by {way}",
                    shapes.len()
                );
            }
        }
    }
}

/// Each bit of a segment with two chunks of Poly1305 and a part of a block.
#[test]
fn no_bit_may_change() {
    let shape = Shape { head: 3, body: 140, padding: 0, aad: 0, offset: 1, fill: Fill::Mixed(1) };
    let key = [0x31; KEY_LEN];
    let mut buffers = Buffers::new(std::slice::from_ref(&shape));
    buffers.seal(RING, &key, 7);
    let sealed = buffers.outs[0][shape.offset..shape.offset + shape.len()].to_vec();
    for way in others().chain([RING]) {
        let shapes = vec![shape.clone(); 16];
        for bit in 0..sealed.len() * 8 {
            // The segment under its own counter at one place of a batch; the others fail for their counters.
            let place = bit % 16;
            let mut texts = vec![sealed.clone(); 16];
            let opened = open(way, &key, 7 - (place as u64).min(7), &shapes, &texts);
            assert_eq!(opened.iter().flatten().count(), 1, "{way}");
            texts.iter_mut().for_each(|text| text[bit / 8] ^= 1 << (bit % 8));
            let opened = open(way, &key, 7 - (place as u64).min(7), &shapes, &texts);
            assert_eq!(opened, vec![None; 16], "{way}, bit {bit}");
        }
    }
}

/// A text that is not authentic must not lie there decrypted.
#[test]
fn what_is_not_authentic_is_not_left_behind() {
    for len in [40, 64, 100, 700] {
        let shape = Shape { head: 0, body: len, padding: 0, aad: 0, offset: 0, fill: Fill::Mixed(3) };
        let mut buffers = Buffers::new(&vec![shape; 16]);
        buffers.seal(RING, &[8; KEY_LEN], 0);
        for way in others().chain([RING]) {
            let mut texts: Vec<Vec<u8>> = buffers.outs.iter().map(|out| out[..len + TAG_LEN].to_vec()).collect();
            texts.iter_mut().for_each(|text| text[len] ^= 1);
            let nonces = (0..).map(counter_nonce);
            let segments = texts.iter_mut().zip(nonces);
            let mut batch: Vec<_> =
                segments.map(|(text, nonce)| OpenSegment { nonce, aad: &[], text, authentic: true }).collect();
            let count = OpeningKey::with_backend(way.backend, way.alone, &[8; KEY_LEN])
                .expect("asked for above")
                .open(&mut batch);
            assert_eq!(count, 0, "{way}");
            for (text, body) in texts.iter().zip(&buffers.bodies) {
                assert!(text[..len].windows(16).zip(body.windows(16)).all(|(a, b)| a != b), "{way}, {len} bytes");
            }
        }
    }
}

/// Poly1305 at its edges: ciphertext that is all ones or all zeros, under many keys, of every length around a chunk. The
/// text is found by opening what is wanted as ciphertext: the keystream comes from sealing zeros.
#[test]
fn ciphertext_of_ones_and_zeros() {
    for way in others() {
        for seed in 0..64u64 {
            let mut key = [0; KEY_LEN];
            fill(Fill::Mixed(seed), &mut key);
            for want in [0xFF, 0x00] {
                let lengths = (0..48).map(|i| (i * 23 + seed as usize * 7) % 1100);
                let shapes: Vec<Shape> = lengths
                    .map(|head| Shape { head, body: 0, padding: 0, aad: 0, offset: 0, fill: Fill::Zeros })
                    .collect();
                let mut wanted = Buffers::new(&shapes);
                wanted.seal(RING, &key, seed);
                for (out, s) in wanted.outs.iter_mut().zip(&shapes) {
                    out[..s.head].iter_mut().for_each(|byte| *byte ^= want);
                }
                let mut by_ring = Buffers { outs: wanted.outs.clone(), ..Buffers::new(&shapes) };
                by_ring.seal(RING, &key, seed);
                assert!(by_ring.outs.iter().zip(&shapes).all(|(out, s)| out[..s.head].iter().all(|b| *b == want)));
                wanted.seal(way, &key, seed);
                assert_eq!(wanted.outs, by_ring.outs, "{way}");
            }
        }
    }
}

/// Every length of a packet: eight of it, two of half of it, one that is a byte off.
#[test]
fn every_length_among_others() {
    let key = [0x5C; KEY_LEN];
    for len in 0..=2048usize {
        let shape = |len: usize| {
            let (head, fill) = (len.min(len / 10 + len % 7), Fill::Mixed(len as u64));
            let padding = (len - head).min(len % 3);
            Shape { head, body: len - head - padding, padding, aad: 0, offset: len % 5, fill }
        };
        let shapes = [vec![shape(len); 8], vec![shape(len / 2); 2], vec![shape(len.abs_diff(1)); 1]].concat();
        let mut by_ring = Buffers::new(&shapes);
        by_ring.seal(RING, &key, len as u64);
        let sealed: Vec<Vec<u8>> =
            by_ring.outs.iter().zip(&shapes).map(|(out, s)| out[s.offset..s.offset + s.len()].to_vec()).collect();
        let expected = open(RING, &key, len as u64, &shapes, &sealed);
        for way in others() {
            let mut buffers = Buffers::new(&shapes);
            buffers.seal(way, &key, len as u64);
            assert!(buffers.outs == by_ring.outs, "{way}, {len} bytes");
            assert!(open(way, &key, len as u64, &shapes, &sealed) == expected, "{way}, {len} bytes");
            assert_eq!(expected.iter().flatten().count(), shapes.len());
        }
    }
}

/// As long as this crate's fast paths go, and one beyond.
#[test]
fn long_texts() {
    let shapes: Vec<Shape> = [65_535, (1 << 20) - TAG_LEN, (1 << 20) - TAG_LEN + 1]
        .map(|body| Shape { head: 0, body, padding: 0, aad: 0, offset: 3, fill: Fill::Mixed(9) })
        .to_vec();
    let mut by_ring = Buffers::new(&shapes);
    by_ring.seal(RING, &[5; KEY_LEN], 0);
    for way in others() {
        let mut buffers = Buffers::new(&shapes);
        buffers.seal(way, &[5; KEY_LEN], 0);
        assert!(buffers.outs == by_ring.outs, "{way}");
    }
}

#[test]
#[should_panic]
fn a_buffer_too_small_is_refused() {
    let mut out = [0; 40];
    let mut batch = [SealSegment { nonce: counter_nonce(0), aad: &[], head: 0, body: &[1; 30], out: &mut out }];
    SealingKey::new(&[0; KEY_LEN]).seal(&mut batch);
}

//! The AEAD with AVX2: many segments at a time, in plain intrinsics.
//!
//! A batch is taken in groups of up to eight segments, so that a group's bytes stay in the cache between the cipher and the
//! authenticator. [`chacha`] computes eight blocks of any of the group's segments in one pass: first every segment's block 0, which
//! is the one-time key of its tag, then the blocks of text, segment after segment. [`poly1305`] takes four segments at a time, of
//! lengths as equal as the group has them. A group to open is authenticated first, and only what is authentic is decrypted.
//!
//! What this does not fit goes to `ring`: segments with additional data (WireGuard has none), ones too short for a tag, ones beyond
//! [`LONGEST`], and, unless told otherwise, what `ring` is the faster one for ([`cost`]): long segments, and one or two short ones.
//!
//! Nothing secret decides a branch or an address; lengths and what is authentic are no secrets. Keystream, one-time keys and powers
//! of r lie in one [`Scratch`], overwritten at the end of each call; copies in registers are outside its reach.

mod chacha;
mod poly1305;

use crate::{
    BatchAead, KEY_LEN, OpenSegment, SealSegment, TAG_LEN,
    ring_backend::RingKey,
    wipe::{Wiped, overwrite},
};
use chacha::{BLOCK, Keystream, LANES, Pass, Run};
use poly1305::{OneTimeKey, SEGMENTS, Secrets};
use std::arch::{
    asm,
    x86_64::{__m256i, _mm256_loadu_si256},
};
use subtle::ConstantTimeEq;

/// Segments of a group: their first blocks are one pass.
const GROUP: usize = LANES;

/// The longest text taken here; far beyond any packet, far below where a block's number would wrap.
const LONGEST: usize = 1 << 20;

/// Fewer segments than this are never worth it ([`pays`]), which need not be found out each time.
const FEWEST: usize = 3;

pub(crate) struct Avx2Key {
    key: Wiped<[u32; KEY_LEN / 4]>,
    ring: RingKey,
    alone: bool,
}

impl Avx2Key {
    /// Whether this machine can.
    pub(crate) fn available() -> bool {
        is_x86_feature_detected!("avx2")
    }

    /// A key, if this machine can use it; `alone` takes also what `ring` is the faster one for. The only place that makes one, and
    /// so the proof that the machine has the instructions.
    pub(crate) fn new(key: &[u8; KEY_LEN], alone: bool) -> Option<Self> {
        Self::available().then(|| {
            let mut words = Wiped::new([0; KEY_LEN / 4]);
            for (word, bytes) in words.iter_mut().zip(key.as_chunks().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            Self { key: words, ring: RingKey::new(key), alone }
        })
    }

    /// How many of a batch's first segments are a group, and whether it is for this backend; `lengths` are those of the segments
    /// with their tags, and none for one that does not fit.
    #[inline]
    fn group(&self, lengths: impl Iterator<Item = Option<usize>>) -> (usize, bool) {
        let mut group = [0; GROUP];
        let mut count = 0;
        for (place, len) in group.iter_mut().zip(lengths.map_while(|len| len)) {
            *place = len;
            count += 1;
        }
        if count == 0 {
            return (1, false);
        }
        if self.alone {
            return (count, true);
        }
        // Where the last four lanes of the authenticator would be mostly empty, the segments in them can be left for later.
        let whole = count / SEGMENTS * SEGMENTS;
        [count, whole]
            .into_iter()
            .find(|&count| count > 0 && pays(&group[..count]))
            .map_or((count, false), |n| (n, true))
    }
}

/// What `ring` and what this backend spend, in tenths of what a block of 64 bytes costs `ring`: fitted to measurements of 1 to 8
/// segments of 64 to 1420 bytes, in which it is off by a tenth at most.
mod cost {
    /// `ring`: a segment, and each block of its text.
    pub(super) const RING_SEGMENT: usize = 50;
    pub(super) const RING_BLOCK: usize = 10;
    /// Here: a group, each segment in it, a pass of the cipher, four segments in the authenticator, and two blocks of 16 bytes there.
    pub(super) const GROUP: usize = 30;
    pub(super) const SEGMENT: usize = 10;
    pub(super) const PASS: usize = 70;
    pub(super) const FOUR: usize = 20;
    pub(super) const STEP: usize = 7;
}

/// Whether this backend is the faster one for segments of these lengths.
#[inline]
fn pays(lengths: &[usize]) -> bool {
    let count = lengths.len();
    let blocks: usize = lengths.iter().map(|&len| text_blocks(len)).sum();
    let ring = count * cost::RING_SEGMENT + blocks * cost::RING_BLOCK;
    let cipher = cost::GROUP + count * cost::SEGMENT + (count + blocks).div_ceil(LANES) * cost::PASS;
    // Most often `ring` has won already.
    if cipher >= ring {
        return false;
    }
    let mut sorted = [0; GROUP];
    let sorted = &mut sorted[..count];
    sorted.copy_from_slice(lengths);
    if !sorted.is_sorted() {
        sorted.sort_unstable();
    }
    let steps = |four: &[usize]| four.last().map_or(0, |longest| longest.div_ceil(2 * TAG_LEN));
    cipher + sorted.chunks(SEGMENTS).map(|four| cost::FOUR + steps(four) * cost::STEP).sum::<usize>() < ring
}

/// The length of a segment with its tag, if it fits.
#[inline]
fn fitting(aad: &[u8], len: usize) -> Option<usize> {
    (aad.is_empty() && (TAG_LEN..=LONGEST).contains(&len)).then_some(len)
}

impl BatchAead for Avx2Key {
    fn seal(&self, mut batch: &mut [SealSegment<'_>]) {
        if batch.len() < FEWEST && !self.alone {
            return self.ring.seal(batch);
        }
        let mut scratch = None;
        while !batch.is_empty() {
            let (count, ours) = self.group(batch.iter().map(|s| fitting(s.aad, s.out.len())));
            let (group, rest) = batch.split_at_mut(count);
            if ours {
                // SAFETY: this key exists, so that the instructions do.
                unsafe { seal_group(&self.key, group, scratch.get_or_insert_with(Scratch::new)) };
            } else {
                self.ring.seal(group);
            }
            batch = rest;
        }
    }

    fn open(&self, mut batch: &mut [OpenSegment<'_>]) -> usize {
        if batch.len() < FEWEST && !self.alone {
            return self.ring.open(batch);
        }
        let mut scratch = None;
        let mut authentic = 0;
        while !batch.is_empty() {
            let (count, ours) = self.group(batch.iter().map(|s| fitting(s.aad, s.text.len())));
            let (group, rest) = batch.split_at_mut(count);
            authentic += if ours {
                // SAFETY: this key exists, so that the instructions do.
                unsafe { open_group(&self.key, group, scratch.get_or_insert_with(Scratch::new)) }
            } else {
                self.ring.open(group)
            };
            batch = rest;
        }
        authentic
    }
}

/// Blocks of keystream for the text of a segment of `len` bytes with its tag.
#[inline]
fn text_blocks(len: usize) -> usize {
    len.saturating_sub(TAG_LEN).div_ceil(BLOCK)
}

/// Everything secret that is held in memory during a call.
#[repr(C)]
struct Scratch {
    keystream: Keystream,
    secrets: Secrets,
    keys: [OneTimeKey; GROUP],
}

impl Scratch {
    #[inline]
    fn new() -> Self {
        // SAFETY: bytes and vectors of integers; zeros are valid for all of it.
        unsafe { std::mem::zeroed() }
    }
}

impl Drop for Scratch {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: bytes and vectors of integers without gaps; zeros are valid for all of it.
        unsafe { overwrite(self) };
    }
}

/// A walk over the blocks of a group, pass by pass.
struct Walk {
    count: usize,
    nonces: [[u32; 3]; GROUP],
    blocks: [u32; GROUP],
    segment: usize,
    block: u32,
}

impl Walk {
    #[inline]
    fn new<'a>(group: impl Iterator<Item = (&'a [u8; 12], usize)>) -> Self {
        let mut walk = Self { count: 0, nonces: [[0; 3]; GROUP], blocks: [0; GROUP], segment: 0, block: 1 };
        for (nonce, len) in group {
            for (word, bytes) in walk.nonces[walk.count].iter_mut().zip(nonce.as_chunks().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            walk.blocks[walk.count] = text_blocks(len) as u32;
            walk.count += 1;
        }
        walk
    }

    /// The first pass: block 0 of every segment, then blocks of text as far as there is room.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn first(&mut self, pass: &mut Pass) {
        pass.clear();
        for segment in 0..self.count {
            pass.push(segment, self.nonces[segment], 0, 1);
        }
        self.fill(pass);
    }

    /// The blocks of text that come next; no runs if there are none.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn next(&mut self, pass: &mut Pass) {
        pass.clear();
        self.fill(pass);
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn fill(&mut self, pass: &mut Pass) {
        while pass.free() > 0 && self.segment < self.count {
            let left = (self.blocks[self.segment] + 1).saturating_sub(self.block);
            if left == 0 {
                self.segment += 1;
                self.block = 1;
                continue;
            }
            let len = left.min(pass.free() as u32);
            pass.push(self.segment, self.nonces[self.segment], self.block, len as usize);
            self.block += len;
        }
    }

    /// Takes the text of a segment off the walk.
    #[inline]
    fn skip(&mut self, segment: usize) {
        self.blocks[segment] = 0;
    }
}

/// Where in a text of `len` bytes a run's blocks lie.
#[inline]
fn span(run: &Run, len: usize) -> (usize, usize) {
    let from = (run.block as usize - 1) * BLOCK;
    (from, len.min(from + run.len * BLOCK))
}

/// The keystream of a run.
#[inline]
fn stream<'a>(scratch: &'a Scratch, run: &Run) -> &'a [u8] {
    &scratch.keystream.0[run.lane * BLOCK..][..run.len * BLOCK]
}

/// The tags of a group's texts, four texts of similar lengths at a time. One copy of it for sealing and opening.
#[inline(never)]
#[target_feature(enable = "avx2")]
fn tags(texts: &[&[u8]], keys: &[OneTimeKey; GROUP], secrets: &mut Secrets) -> [[u8; TAG_LEN]; GROUP] {
    let order = by_length(texts);
    let mut tags = [[0; TAG_LEN]; GROUP];
    for four in order[..texts.len()].chunks(SEGMENTS) {
        // A lane without a segment does what the first one does, and nobody asks for its tag.
        let mut lanes = [four[0]; SEGMENTS];
        lanes[..four.len()].copy_from_slice(four);
        let [a, b, c, d] = lanes;
        let keys = [&keys[a], &keys[b], &keys[c], &keys[d]];
        let found = poly1305::tags(&keys, &[texts[a], texts[b], texts[c], texts[d]], secrets);
        for (i, tag) in four.iter().zip(found) {
            tags[*i] = tag;
        }
    }
    tags
}

/// The texts' places in the order of their lengths, at the array's start.
#[inline]
fn by_length(texts: &[&[u8]]) -> [usize; GROUP] {
    let mut order = [0, 1, 2, 3, 4, 5, 6, 7];
    if !texts.is_sorted_by_key(|text| text.len()) {
        order[..texts.len()].sort_unstable_by_key(|&i| texts[i].len());
    }
    order
}

#[target_feature(enable = "avx2")]
fn seal_group(key: &[u32; 8], group: &mut [SealSegment<'_>], scratch: &mut Scratch) {
    for segment in &*group {
        assert!(segment.head + segment.body.len() + TAG_LEN <= segment.out.len(), "the text and a tag fit the buffer");
    }
    let mut walk = Walk::new(group.iter().map(|s| (&s.nonce, s.out.len())));
    let mut pass = Pass::new();
    walk.first(&mut pass);
    while !pass.runs().is_empty() {
        pass.keystream(key, &mut scratch.keystream);
        for run in pass.runs() {
            if run.block == 0 {
                scratch.keys[run.segment] = *stream(scratch, run).first_chunk().expect("a block holds a key");
            } else {
                seal_run(&mut group[run.segment], run, stream(scratch, run));
            }
        }
        walk.next(&mut pass);
    }
    let mut texts = [&[][..]; GROUP];
    for (text, segment) in texts.iter_mut().zip(&*group) {
        *text = &segment.out[..segment.out.len() - TAG_LEN];
    }
    let tags = tags(&texts[..group.len()], &scratch.keys, &mut scratch.secrets);
    for (segment, tag) in group.iter_mut().zip(tags) {
        *segment.out.last_chunk_mut().expect("what is too short for a tag went to ring") = tag;
    }
}

/// Encrypts the run's part of a segment: some of it head, in place; some body, from where it lies; some zeros.
#[inline]
#[target_feature(enable = "avx2")]
fn seal_run(segment: &mut SealSegment<'_>, run: &Run, keystream: &[u8]) {
    let (from, to) = span(run, segment.out.len() - TAG_LEN);
    let body_end = segment.head + segment.body.len();
    let body_from = segment.head.clamp(from, to);
    let body_to = body_end.clamp(from, to);
    if from < body_from {
        chacha::xor(&mut segment.out[from..body_from], &keystream[..body_from - from]);
    }
    if body_from < body_to {
        chacha::xor_from(
            &mut segment.out[body_from..body_to],
            &segment.body[body_from - segment.head..body_to - segment.head],
            &keystream[body_from - from..body_to - from],
        );
    }
    if body_to < to {
        segment.out[body_to..to].copy_from_slice(&keystream[body_to - from..to - from]);
    }
}

#[target_feature(enable = "avx2")]
fn open_group(key: &[u32; 8], group: &mut [OpenSegment<'_>], scratch: &mut Scratch) -> usize {
    let mut walk = Walk::new(group.iter().map(|s| (&s.nonce, s.text.len())));
    let mut pass = Pass::new();
    walk.first(&mut pass);
    pass.keystream(key, &mut scratch.keystream);
    for run in pass.runs().iter().take_while(|run| run.block == 0) {
        scratch.keys[run.segment] = *stream(scratch, run).first_chunk().expect("a block holds a key");
    }
    let mut texts = [&[][..]; GROUP];
    for (text, segment) in texts.iter_mut().zip(&*group) {
        *text = &segment.text[..segment.text.len() - TAG_LEN];
    }
    let tags = tags(&texts[..group.len()], &scratch.keys, &mut scratch.secrets);
    let mut authentic = 0;
    for (i, (segment, tag)) in group.iter_mut().zip(tags).enumerate() {
        let given = segment.text.last_chunk().expect("what is too short for a tag went to ring");
        segment.authentic = u128::from_le_bytes(*given).ct_eq(&u128::from_le_bytes(tag)).into();
        authentic += usize::from(segment.authentic);
        if !segment.authentic {
            walk.skip(i);
        }
    }
    while !pass.runs().is_empty() {
        for run in pass.runs() {
            let segment = &mut group[run.segment];
            if run.block > 0 && segment.authentic {
                let (from, to) = span(run, segment.text.len() - TAG_LEN);
                chacha::xor(&mut segment.text[from..to], &stream(scratch, run)[..to - from]);
            }
        }
        walk.next(&mut pass);
        if !pass.runs().is_empty() {
            pass.keystream(key, &mut scratch.keystream);
        }
    }
    authentic
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: there are the 32 bytes of a vector; the load asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// The same vector, of which the compiler knows nothing any more.
#[inline]
#[target_feature(enable = "avx2")]
fn opaque(mut vector: __m256i) -> __m256i {
    // SAFETY: a comment, in which nothing happens.
    unsafe {
        asm!("/* {0} */", inout(ymm_reg) vector, options(pure, nomem, nostack, preserves_flags));
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`FEWEST`] says, and what the rule is for: many small ones are taken, long ones are not.
    #[test]
    fn what_pays() {
        for len in TAG_LEN..3000 {
            assert!((1..FEWEST).all(|count| !pays(&[len; GROUP][..count])), "{len}");
        }
        assert!(pays(&[64 + TAG_LEN; 4]) && pays(&[128 + TAG_LEN; GROUP]) && pays(&[64 + TAG_LEN; FEWEST]));
        assert!(!pays(&[1420 + TAG_LEN; GROUP]) && !pays(&[1000 + TAG_LEN; 4]));
    }
}

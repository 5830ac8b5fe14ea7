//! The AEAD with AVX-512 and its 52-bit multiplier: many segments at a time, in plain intrinsics.
//!
//! A batch is taken in groups of up to sixteen segments, so that a group's bytes stay in the cache between the cipher and
//! the authenticator. [`chacha`] computes sixteen blocks of any of the group's segments in one pass: first every segment's
//! block 0, which is the one-time key of its tag, then the blocks of text, segment after segment. [`poly1305`] takes eight
//! segments at a time. A group to open is authenticated first, and only what is authentic is decrypted.
//!
//! What this does not fit goes to the next best backend, AVX2 and at last `ring`: segments with additional data (WireGuard has
//! none), ones too short for a tag, ones beyond [`LONGEST`], and, unless told otherwise, groups so small that most lanes would run
//! empty.
//!
//! Nothing secret decides a branch or an address; lengths and what is authentic are no secrets. Keystream, one-time keys and
//! powers of r lie in one [`Scratch`], overwritten at the end of each call; copies in registers are outside its reach.

mod chacha;
mod poly1305;

use crate::{BatchAead, KEY_LEN, OpenSegment, SealSegment, TAG_LEN, avx2::Avx2Key, wipe::Wiped};
use chacha::{BLOCK, Keystream, Pass, Run};
use poly1305::{OneTimeKey, Powers, SEGMENTS};
use std::sync::atomic::{Ordering, compiler_fence};
use subtle::ConstantTimeEq;

/// Segments of a group.
const GROUP: usize = 16;

/// The longest text taken here; far beyond any packet, far below where a block's number would wrap.
const LONGEST: usize = 1 << 20;

/// Groups of less work than this are left to the lesser backend; the unit is what a block of text costs it. Measured where the two are
/// even, or a little above: 5 segments of 64 bytes, 4 of 128, 2 of 576, 1 of 1420.
const ENOUGH_WORK: usize = 28;

/// What `ring` spends on a segment besides its blocks of text.
const WORK_OF_A_SEGMENT: usize = 5;

pub(crate) struct Avx512Key {
    key: Wiped<[u32; KEY_LEN / 4]>,
    lesser: Avx2Key,
    leave_small_groups: bool,
}

impl Avx512Key {
    /// Whether this machine can.
    pub(crate) fn available() -> bool {
        Avx2Key::available()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512ifma")
    }

    /// A key that leaves small groups to the lesser backend, if this machine can use it.
    pub(crate) fn new(key: &[u8; KEY_LEN]) -> Option<Self> {
        Self::make(key, true)
    }

    /// A key that takes the smallest groups too.
    pub(crate) fn for_all_sizes(key: &[u8; KEY_LEN]) -> Option<Self> {
        Self::make(key, false)
    }

    /// The only place that makes a key, and so the proof that the machine has the instructions.
    fn make(key: &[u8; KEY_LEN], leave_small_groups: bool) -> Option<Self> {
        let lesser = Avx2Key::new(key, false)?;
        Self::available().then(|| {
            let mut words = Wiped::new([0; KEY_LEN / 4]);
            for (word, bytes) in words.iter_mut().zip(key.as_chunks().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            Self { key: words, lesser, leave_small_groups }
        })
    }

    /// Whether a group is for this backend; `lengths` are those of its segments with their tags.
    #[inline]
    fn takes(&self, lengths: impl Iterator<Item = usize>) -> bool {
        !self.leave_small_groups
            || lengths.map(|len| WORK_OF_A_SEGMENT + text_blocks(len)).sum::<usize>() >= ENOUGH_WORK
    }
}

impl BatchAead for Avx512Key {
    fn seal(&self, mut batch: &mut [SealSegment<'_>]) {
        let mut scratch = None;
        while !batch.is_empty() {
            let fitting = |s: &&SealSegment<'_>| s.aad.is_empty() && (TAG_LEN..=LONGEST).contains(&s.out.len());
            let count = batch.iter().take(GROUP).take_while(fitting).count();
            let (group, rest) = batch.split_at_mut(count.max(1));
            if count > 0 && self.takes(group.iter().map(|s| s.out.len())) {
                // SAFETY: this key exists, so that the instructions do.
                unsafe { seal_group(&self.key, group, scratch.get_or_insert_with(Scratch::new)) };
            } else {
                self.lesser.seal(group);
            }
            batch = rest;
        }
    }

    fn open(&self, mut batch: &mut [OpenSegment<'_>]) -> usize {
        let mut scratch = None;
        let mut authentic = 0;
        while !batch.is_empty() {
            let fitting = |s: &&OpenSegment<'_>| s.aad.is_empty() && (TAG_LEN..=LONGEST).contains(&s.text.len());
            let count = batch.iter().take(GROUP).take_while(fitting).count();
            let (group, rest) = batch.split_at_mut(count.max(1));
            authentic += if count > 0 && self.takes(group.iter().map(|s| s.text.len())) {
                // SAFETY: this key exists, so that the instructions do.
                unsafe { open_group(&self.key, group, scratch.get_or_insert_with(Scratch::new)) }
            } else {
                self.lesser.open(group)
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
    powers: Powers,
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
        const WORDS: usize = size_of::<Scratch>() / size_of::<u128>();
        const { assert!(WORDS * size_of::<u128>() == size_of::<Scratch>()) };
        let words = (&raw mut *self).cast::<u128>();
        for i in 0..WORDS {
            // SAFETY: i is below the size in words, the scratch is aligned to more than a word, and zeros are valid for
            // all of it. Volatile, so that the writes are not left out for lack of a reader.
            unsafe { words.add(i).write_volatile(0) };
        }
        compiler_fence(Ordering::SeqCst);
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
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    fn first(&mut self, pass: &mut Pass) {
        pass.clear();
        for segment in 0..self.count {
            pass.push(segment, self.nonces[segment], 0, 1);
        }
        self.fill(pass);
    }

    /// The next pass; without runs when the walk is over.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    fn next(&mut self, pass: &mut Pass) {
        pass.clear();
        self.fill(pass);
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
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
            let keystream = &scratch.keystream.0[run.lane * BLOCK..][..run.len * BLOCK];
            if run.block == 0 {
                scratch.keys[run.segment].copy_from_slice(&keystream[..32]);
            } else {
                seal_run(&mut group[run.segment], run, keystream);
            }
        }
        walk.next(&mut pass);
    }
    for (segments, keys) in group.chunks_mut(SEGMENTS).zip(scratch.keys.chunks(SEGMENTS)) {
        let count = segments.len();
        let mut tags = [[0; TAG_LEN]; SEGMENTS];
        let mut texts = [&[][..]; SEGMENTS];
        for (text, segment) in texts.iter_mut().zip(&*segments) {
            *text = &segment.out[..segment.out.len() - TAG_LEN];
        }
        poly1305::tags(&keys[..count], &texts[..count], &mut scratch.powers, &mut tags[..count]);
        for (segment, tag) in segments.iter_mut().zip(&tags) {
            let at = segment.out.len() - TAG_LEN;
            segment.out[at..].copy_from_slice(tag);
        }
    }
}

/// Encrypts the run's part of a segment: some of it head, in place; some body, from where it lies; some zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn open_group(key: &[u32; 8], group: &mut [OpenSegment<'_>], scratch: &mut Scratch) -> usize {
    let mut walk = Walk::new(group.iter().map(|s| (&s.nonce, s.text.len())));
    let mut pass = Pass::new();
    walk.first(&mut pass);
    pass.keystream(key, &mut scratch.keystream);
    for run in pass.runs().iter().take_while(|run| run.block == 0) {
        scratch.keys[run.segment].copy_from_slice(&scratch.keystream.0[run.lane * BLOCK..][..32]);
    }
    let mut authentic = 0;
    for (i, (segments, keys)) in group.chunks_mut(SEGMENTS).zip(scratch.keys.chunks(SEGMENTS)).enumerate() {
        let count = segments.len();
        let mut tags = [[0; TAG_LEN]; SEGMENTS];
        let mut texts = [&[][..]; SEGMENTS];
        for (text, segment) in texts.iter_mut().zip(&*segments) {
            *text = &segment.text[..segment.text.len() - TAG_LEN];
        }
        poly1305::tags(&keys[..count], &texts[..count], &mut scratch.powers, &mut tags[..count]);
        for (j, (segment, tag)) in segments.iter_mut().zip(&tags).enumerate() {
            let given = segment.text.last_chunk().expect("what is too short for a tag went to ring");
            segment.authentic = u128::from_le_bytes(*given).ct_eq(&u128::from_le_bytes(*tag)).into();
            authentic += usize::from(segment.authentic);
            if !segment.authentic {
                walk.skip(i * SEGMENTS + j);
            }
        }
    }
    while !pass.runs().is_empty() {
        for run in pass.runs() {
            let segment = &mut group[run.segment];
            if run.block > 0 && segment.authentic {
                let (from, to) = span(run, segment.text.len() - TAG_LEN);
                chacha::xor(&mut segment.text[from..to], &scratch.keystream.0[run.lane * BLOCK..][..to - from]);
            }
        }
        walk.next(&mut pass);
        if !pass.runs().is_empty() {
            pass.keystream(key, &mut scratch.keystream);
        }
    }
    authentic
}

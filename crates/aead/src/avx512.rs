//! The AEAD with AVX-512 and its 52-bit multiplier: many segments at a time, in plain intrinsics.
//!
//! [`chacha`] computes sixteen blocks in one pass. Which blocks of which segments, there are two ways. Segments of much the
//! same length go eight side by side, as [`columns`]: the tags are computed in the same go, a segment in each lane
//! ([`lanes`]). What is left over goes [`loose`]: its blocks fill passes one after the other, and of each segment eight
//! blocks at a time are authenticated ([`poly1305`]). For this the segments are sorted by their lengths; where their bytes
//! lie and in which order the caller has them matters to neither way.
//!
//! What this does not fit goes to the next best backend, AVX2 and at last `ring`: segments with additional data (WireGuard
//! has none), ones too short for a tag, ones beyond [`LONGEST`], and, unless told otherwise, so few that most lanes would run
//! empty.
//!
//! Nothing secret decides a branch or an address; lengths and what is authentic are no secrets. Keystream, one-time keys and
//! powers of r lie in one place for each way, overwritten at the end of it; copies in registers are outside its reach.

mod chacha;
mod columns;
mod lanes;
mod loose;
mod poly1305;
mod text;

use crate::{BatchAead, KEY_LEN, OpenSegment, SealSegment, TAG_LEN, avx2::Avx2Key, wipe::Wiped};
use arrayvec::ArrayVec;
use std::{
    arch::x86_64::*,
    ops::Range,
    sync::atomic::{Ordering, compiler_fence},
};
use text::Text;

/// Segments that are looked at together.
const ROUND: usize = 64;

/// The longest text taken here; far beyond any packet, far below where a block's number would wrap.
const LONGEST: usize = 1 << 20;

/// What a column costs besides the blocks of its longest text: in cycles, about, as all costs here.
const COLUMN: usize = 480;

/// What eight blocks side by side cost.
const EIGHT_BLOCKS: usize = 340;

/// What a loose segment costs besides its blocks.
const LOOSE: usize = 300;

/// What a block of a loose segment costs.
const LOOSE_BLOCK: usize = 48;

/// What a segment costs `ring` besides its blocks.
const RING: usize = 520;

/// What a block costs `ring`.
const RING_BLOCK: usize = 110;

/// Loose segments of less work than this are left to the lesser backend; the unit is what a block of text costs `ring`. Measured where the
/// two are even, or a little above: one of 1420 bytes, two of 576.
const ENOUGH_WORK: usize = 28;

/// As few segments make no column of small ones worth its while.
const FEW: usize = 2;

/// What `ring` spends on a segment besides its blocks, in the unit of [`ENOUGH_WORK`].
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

    /// Seals or opens what this backend is for. Tells of each text that it did whether it is authentic.
    ///
    /// # Safety
    /// The machine has the instructions: it does if this key exists.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    unsafe fn work<const SEAL: bool>(&self, texts: &mut [Text<'_>], mut tell: impl FnMut(&Text<'_>, bool)) {
        if !texts.is_sorted_by(|a, b| a.len >= b.len) {
            texts.sort_unstable_by_key(|text| std::cmp::Reverse(text.len));
        }
        let mut left_over = ArrayVec::<Text<'_>, ROUND>::new();
        let mut at = 0;
        while at < texts.len() {
            // As many columns as follow each other.
            let columns = texts[at..].chunks(lanes::COUNT).take_while(|texts| self.is_column(texts));
            let end = at + columns.map(<[_]>::len).sum::<usize>();
            if at < end {
                columns::work::<SEAL>(&self.key, &mut texts[at..end], &mut tell);
            }
            left_over.extend(texts.get(end).copied());
            at = end + 1;
        }
        for group in left_over.chunks_mut(loose::GROUP) {
            let work = group.iter().map(|text| WORK_OF_A_SEGMENT + text.blocks() as usize).sum::<usize>();
            if !self.leave_small_groups || work >= ENOUGH_WORK {
                loose::work::<SEAL>(&self.key, group, &mut tell);
            }
        }
    }

    /// Whether a batch of few segments goes to the lesser backend, looked at before anything is spent on them. `lengths` are those with
    /// tags.
    #[inline]
    fn leaves_few(&self, lengths: impl Iterator<Item = usize>) -> bool {
        let blocks = |len: usize| len.saturating_sub(TAG_LEN).div_ceil(chacha::BLOCK);
        self.leave_small_groups && lengths.map(|len| WORK_OF_A_SEGMENT + blocks(len)).sum::<usize>() < ENOUGH_WORK
    }

    /// Whether texts had better go side by side than each for itself; the first is the longest.
    #[inline]
    fn is_column(&self, texts: &[Text<'_>]) -> bool {
        let alone: usize = texts.iter().map(|text| self.cost_alone(text)).sum();
        COLUMN + EIGHT_BLOCKS * texts[0].blocks() as usize <= alone
    }

    /// What a text costs that is in no column.
    #[inline]
    fn cost_alone(&self, text: &Text<'_>) -> usize {
        let blocks = text.blocks() as usize;
        let loose = LOOSE + LOOSE_BLOCK * blocks;
        if self.leave_small_groups { loose.min(RING + RING_BLOCK * blocks) } else { loose }
    }
}

/// The runs of segments, of `count`, that are not in `done`.
fn not_done(done: u64, count: usize) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    std::iter::from_fn(move || {
        let start = (end..count).find(|i| done >> i & 1 == 0)?;
        end = (start..count).find(|i| done >> i & 1 == 1).unwrap_or(count);
        Some(start..end)
    })
}

/// Overwrites vectors that hold what is secret.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn wipe<T>(secret: &mut T) {
    const { assert!(size_of::<T>().is_multiple_of(64) && align_of::<T>() == 64) };
    let vectors = std::ptr::from_mut(secret).cast::<__m512i>();
    for i in 0..size_of::<T>() / 64 {
        // SAFETY: i is below the size in vectors, and zeros are valid for all that is given here. Volatile, so that the
        // writes are not left out for lack of a reader.
        unsafe { vectors.add(i).write_volatile(_mm512_setzero_si512()) };
    }
    compiler_fence(Ordering::SeqCst);
}

impl BatchAead for Avx512Key {
    fn seal(&self, batch: &mut [SealSegment<'_>]) {
        if batch.len() <= FEW && self.leaves_few(batch.iter().map(|s| s.out.len())) {
            return self.lesser.seal(batch);
        }
        for batch in batch.chunks_mut(ROUND) {
            let mut done = 0u64;
            let mut texts = ArrayVec::<_, ROUND>::new();
            for (segment, index) in batch.iter_mut().zip(0..) {
                if segment.aad.is_empty() && (TAG_LEN..=LONGEST).contains(&segment.out.len()) {
                    texts.push(Text::to_seal(segment, index));
                }
            }
            // SAFETY: this key exists.
            unsafe { self.work::<true>(&mut texts, |text, _| done |= 1 << text.index) };
            drop(texts);
            for left in not_done(done, batch.len()) {
                self.lesser.seal(&mut batch[left]);
            }
        }
    }

    fn open(&self, batch: &mut [OpenSegment<'_>]) -> usize {
        if batch.len() <= FEW && self.leaves_few(batch.iter().map(|s| s.text.len())) {
            return self.lesser.open(batch);
        }
        let mut count = 0;
        for batch in batch.chunks_mut(ROUND) {
            let (mut done, mut authentic) = (0u64, 0u64);
            let mut texts = ArrayVec::<_, ROUND>::new();
            for (segment, index) in batch.iter_mut().zip(0..) {
                if segment.aad.is_empty() && (TAG_LEN..=LONGEST).contains(&segment.text.len()) {
                    texts.push(Text::to_open(segment, index));
                }
            }
            let tell = |text: &Text<'_>, it_is| {
                done |= 1 << text.index;
                authentic |= u64::from(it_is) << text.index;
            };
            // SAFETY: this key exists.
            unsafe { self.work::<false>(&mut texts, tell) };
            drop(texts);
            for (i, segment) in batch.iter_mut().enumerate() {
                segment.authentic = authentic >> i & 1 == 1;
            }
            count += authentic.count_ones() as usize;
            for left in not_done(done, batch.len()) {
                count += self.lesser.open(&mut batch[left]);
            }
        }
        count
    }
}

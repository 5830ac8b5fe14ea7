//! Poly1305 of eight texts at once, one in each lane.
//!
//! Numbers are as in [`super::poly1305`]. The work is cut into steps, each about as long as it takes to do while a double
//! round of the cipher goes on: [`Steps`] collects what twice 64 bytes of eight texts ask for, and it is done during the ten
//! double rounds that follow, since the two wait for different things. There are two plans.
//! Where all texts go on, the accumulator and the first of four blocks are multiplied by r^4, and three blocks by r^3, r^2 and
//! r, with one carry for all. Elsewhere a step takes one block; lanes whose text has ended, or not come to its end where the
//! lengths are taken, are left as they are.

use super::poly1305::{Factor, Limbs, MASK_42, MASK_44, Product, add, multiply, split, transpose};
use crate::TAG_LEN;
use std::arch::x86_64::*;

/// How many lanes there are.
pub(super) const COUNT: usize = 8;

/// The state of eight authenticators.
pub(super) struct Lanes {
    /// r to r^4; only r if no text has more than 64 bytes.
    powers: [Factor; 4],
    s: [__m512i; 2],
    sum: Limbs,
}

impl Lanes {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    pub(super) fn new() -> Self {
        let zero = _mm512_setzero_si512();
        Self { powers: [Factor::new([zero; 3]); 4], s: [zero; 2], sum: [zero; 3] }
    }

    /// Begins anew, with the one-time keys that the rows begin with. `long` tells that some text has more than 64 bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    pub(super) fn begin(&mut self, rows: &[__m512i; COUNT], long: bool) {
        let mut words = *rows;
        transpose(&mut words);
        let [low, high, s_low, s_high, ..] = words;
        let r1 = clamped(low, high);
        self.powers[0] = Factor::new(r1);
        if long {
            let r2 = multiply(r1, &self.powers[0]);
            self.powers[1] = Factor::new(r2);
            self.powers[2] = Factor::new(multiply(r2, &self.powers[0]));
            self.powers[3] = Factor::new(multiply(r2, &self.powers[1]));
        }
        self.s = [s_low, s_high];
        self.sum = [_mm512_setzero_si512(); 3];
    }

    /// The tags, once all texts have ended.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    pub(super) fn tags(&self) -> [[u8; TAG_LEN]; COUNT] {
        let (mask_44, mask_42) = (_mm512_set1_epi64(MASK_44 as i64), _mm512_set1_epi64(MASK_42 as i64));
        let five = |x| _mm512_add_epi64(_mm512_slli_epi64::<2>(x), x);
        let [mut h0, mut h1, mut h2] = self.sum;
        // Only the second limb may be too large, by a bit. Once around: below 2^130 + 5.
        h2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(h1));
        h1 = _mm512_and_si512(h1, mask_44);
        h0 = _mm512_add_epi64(h0, five(_mm512_srli_epi64::<42>(h2)));
        h2 = _mm512_and_si512(h2, mask_42);
        h1 = _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(h0));
        h0 = _mm512_and_si512(h0, mask_44);
        h2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(h1));
        h1 = _mm512_and_si512(h1, mask_44);
        // With five added, it goes beyond 2^130 if it is not below the modulus: then it is that, without what goes beyond.
        let g0 = _mm512_add_epi64(h0, _mm512_set1_epi64(5));
        let g1 = _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(g0));
        let g2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(g1));
        let beyond = _mm512_cmpgt_epi64_mask(g2, mask_42);
        h0 = _mm512_mask_and_epi64(h0, beyond, g0, mask_44);
        h1 = _mm512_mask_and_epi64(h1, beyond, g1, mask_44);
        // What goes beyond is shifted out below.
        h2 = _mm512_mask_mov_epi64(h2, beyond, g2);
        let low = _mm512_or_si512(h0, _mm512_slli_epi64::<44>(h1));
        let high = _mm512_or_si512(_mm512_srli_epi64::<20>(h1), _mm512_slli_epi64::<24>(h2));
        let low = _mm512_add_epi64(low, self.s[0]);
        let carry = _mm512_cmplt_epu64_mask(low, self.s[0]);
        let high = _mm512_add_epi64(high, self.s[1]);
        let high = _mm512_mask_add_epi64(high, carry, high, _mm512_set1_epi64(1));
        let mut tags = [[0; TAG_LEN]; COUNT];
        let pairs = [_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high)];
        for (odd, pair) in pairs.iter().enumerate() {
            let quarters = [
                _mm512_castsi512_si128(*pair),
                _mm512_extracti32x4_epi32::<1>(*pair),
                _mm512_extracti32x4_epi32::<2>(*pair),
                _mm512_extracti32x4_epi32::<3>(*pair),
            ];
            for (i, quarter) in quarters.iter().enumerate() {
                // SAFETY: a tag is as long as what is stored; the store asks for no alignment.
                unsafe { _mm_storeu_si128(tags[2 * i + odd].as_mut_ptr().cast(), *quarter) };
            }
        }
        tags
    }
}

/// One block of each text.
#[derive(Clone, Copy)]
struct Block {
    low: __m512i,
    high: __m512i,
    /// All bits of the lanes that take it.
    takers: __m512i,
    /// Whose they are.
    slot: usize,
}

/// What is to be done in the next ten steps.
pub(super) struct Steps {
    blocks: [Block; 2 * BLOCKS],
    count: usize,
    /// Whether eight blocks are there that all lanes take, four of each of two times 64 bytes.
    even: bool,
    product: Product,
}

/// Blocks of 64 bytes, and one of lengths.
const BLOCKS: usize = 5;

impl Steps {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    pub(super) fn new() -> Self {
        let zero = _mm512_setzero_si512();
        let block = Block { low: zero, high: zero, takers: zero, slot: 0 };
        Self { blocks: [block; 2 * BLOCKS], count: 0, even: false, product: Product::new() }
    }

    /// Makes room for the next ten.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.count = 0;
        self.even = true;
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    fn push(&mut self, low: __m512i, high: __m512i, takers: __mmask8, slot: usize) {
        let takers = _mm512_maskz_set1_epi64(takers, -1);
        self.blocks[self.count] = Block { low, high, takers, slot };
        self.count += 1;
    }

    /// Takes 64 bytes of each text of a column, with zeros behind its end. `left` tells how many bytes of it there are from
    /// here on, and is negative for one that has ended; `first` tells that nothing was taken before.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    pub(super) fn take(&mut self, slot: usize, rows: [__m512i; COUNT], left: __m512i, lens: __m512i, first: bool) {
        let more_than = |bytes| _mm512_cmpgt_epi64_mask(left, _mm512_set1_epi64(bytes));
        let mut words = rows;
        transpose(&mut words);
        let pairs = words.as_chunks::<2>().0;
        let whole = more_than(64);
        if whole == !0 {
            for [low, high] in pairs {
                self.push(*low, *high, !0, slot);
            }
            return;
        }
        self.even = false;
        for (i, [low, high]) in pairs.iter().enumerate() {
            let takers = more_than(16 * i as i64);
            if takers == 0 {
                break;
            }
            self.push(*low, *high, takers, slot);
        }
        // The block of lengths: that of the additional data, which is none, then the text's.
        let ends = !whole & if first { !0 } else { more_than(0) };
        if ends != 0 {
            self.push(_mm512_setzero_si512(), lens, ends, slot);
        }
    }

    /// The step with this number, from 0 to 9.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    pub(super) fn step(&mut self, i: usize, lanes: &mut [Lanes; 2]) {
        if self.even && self.count == 8 {
            let (half, place) = (i / BLOCKS, i % BLOCKS);
            let slot = self.blocks[4 * half].slot & 1;
            let lanes = &mut lanes[slot];
            if place < 4 {
                let next = &self.blocks[4 * half + place];
                let mut text = block(next.low, next.high);
                if place == 0 {
                    self.product = Product::new();
                    text = add(text, lanes.sum);
                }
                self.product.add(text, &lanes.powers[3 - place]);
            } else {
                lanes.sum = self.product.carried();
            }
        } else if i < self.count {
            let next = &self.blocks[i];
            let lanes = &mut lanes[next.slot & 1];
            let sum = multiply(add(lanes.sum, block(next.low, next.high)), &lanes.powers[0]);
            for (old, new) in lanes.sum.iter_mut().zip(sum) {
                // Bit by bit, new where the first has ones, else old. With a mask it would become a store of some lanes, for
                // which the next step's load would have to wait until it reaches the cache.
                *old = _mm512_ternarylogic_epi64::<0xCA>(next.takers, new, *old);
            }
        }
    }
}

/// r, with the bits cleared that it must not have (RFC 8439, section 2.5).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
pub(super) fn clamped(low: __m512i, high: __m512i) -> Limbs {
    let low = _mm512_and_si512(low, _mm512_set1_epi64(0x0fff_fffc_0fff_ffff));
    split(low, _mm512_and_si512(high, _mm512_set1_epi64(0x0fff_fffc_0fff_fffc)))
}

/// A block of each text, with the bit that marks a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn block(low: __m512i, high: __m512i) -> Limbs {
    let [low, middle, high] = split(low, high);
    [low, middle, _mm512_or_si512(high, _mm512_set1_epi64(1 << 40))]
}

//! Poly1305 (RFC 8439, section 2.5) in eight lanes, with the 52-bit multiplier (IFMA).
//!
//! A number modulo 2^130 - 5 is three limbs of 44, 44 and 42 bits (here and there a little more), each limb of eight numbers
//! in one vector. Eight consecutive blocks of *one* segment stand in the lanes: a chunk. The accumulator is multiplied by
//! r^8 for each chunk that it takes, or by r^32 for four of them, which are multiplied by r^24, r^16, r^8 and 1 themselves:
//! one carry for all. After the last chunk each lane is multiplied by the power of r that its place asks for, and the lanes
//! are added up. For this the blocks are counted from the end: if the segment is not a whole number of chunks, the first
//! chunk begins with lanes of zero, which add nothing. The block of lengths ends the last chunk.
//!
//! The powers of r are worked out for eight *segments* at once, one in each lane; those up to r^8 are then transposed.
//!
//! Bounds: what [`Product::carried`] returns has limbs below 2^44, 2^45 and 2^42; a block adds less than 2^44, so that
//! factors stay below 2^46 and, times 20, below 2^50; the multiplier takes 52 bits. The halves of a product are below 2^52,
//! and a sum of four products below 2^56.

use super::{lanes::clamped, text::first_bytes};
use crate::TAG_LEN;
use std::arch::x86_64::*;

/// Segments of which the powers are worked out together.
pub(super) const SEGMENTS: usize = 8;

/// A one-time key: r, then s.
pub(super) type OneTimeKey = [u8; 32];

/// Bytes of a chunk, eight blocks.
const CHUNK: usize = 128;

const BLOCK: usize = 16;

pub(super) const MASK_44: u64 = (1 << 44) - 1;
pub(super) const MASK_42: u64 = (1 << 42) - 1;

/// Which block of a chunk a lane holds: the order in which unpacking two vectors leaves them.
const BLOCK_OF_LANE: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// Eight numbers.
pub(super) type Limbs = [__m512i; 3];

/// Room for the powers of r of eight segments.
#[repr(C)]
pub(super) struct Powers {
    /// Of each segment, r^8 to r in the order of the lanes.
    of_lanes: [Limbs; SEGMENTS],
    /// r^8, r^16, r^24 and r^32 of all segments side by side.
    of_chunks: [Factor; STRIDE],
}

/// The most chunks that are taken before a carry.
const STRIDE: usize = 4;

/// Eight numbers to multiply by: the limbs, and 20 times the second and third.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    limbs: Limbs,
    twenty: [__m512i; 2],
}

impl Factor {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    pub(super) fn new(limbs: Limbs) -> Self {
        Self { limbs, twenty: [times_20(limbs[1]), times_20(limbs[2])] }
    }

    /// That of one lane, in every lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    fn broadcast(&self, lane: usize) -> Self {
        let one = |vector: &__m512i| {
            // SAFETY: a vector is eight words, and whatever bits they have are words.
            let words: &[i64; 8] = unsafe { &*std::ptr::from_ref(vector).cast() };
            _mm512_set1_epi64(words[lane])
        };
        Self {
            limbs: [one(&self.limbs[0]), one(&self.limbs[1]), one(&self.limbs[2])],
            twenty: [one(&self.twenty[0]), one(&self.twenty[1])],
        }
    }
}

/// The tags of up to eight segments without additional data.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
pub(super) fn tags(keys: &[OneTimeKey], texts: &[&[u8]], powers: &mut Powers, tags: &mut [[u8; TAG_LEN]]) {
    let count = texts.len();
    assert!(count <= SEGMENTS && keys.len() == count && tags.len() == count);
    let most = texts.iter().map(|text| chunks(text.len())).max();
    powers_of_r(keys, most.unwrap_or(0), powers);
    for (lane, ((text, key), tag)) in texts.iter().zip(keys).zip(tags).enumerate() {
        *tag = finish(evaluate(powers, lane, text), key);
    }
}

/// How many chunks a text and its block of lengths make.
#[inline]
fn chunks(len: usize) -> usize {
    (len.div_ceil(BLOCK) + 1).div_ceil(8)
}

/// The powers of every key's r, as far as texts of up to `chunks` chunks need them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn powers_of_r(keys: &[OneTimeKey], chunks: usize, powers: &mut Powers) {
    let zero = _mm512_setzero_si512();
    // The keys side by side: quarter q of key i in row i, then of all keys in row q.
    let mut rows = [zero; 8];
    for (row, key) in rows.iter_mut().zip(keys) {
        // SAFETY: a one-time key is 32 bytes, which is what is loaded; the load asks for no alignment.
        *row = _mm512_zextsi256_si512(unsafe { _mm256_loadu_si256(key.as_ptr().cast()) });
    }
    transpose(&mut rows);
    let r1 = clamped(rows[0], rows[1]);
    let by_r1 = Factor::new(r1);
    let r2 = multiply(r1, &by_r1);
    let by_r2 = Factor::new(r2);
    let r3 = multiply(r2, &by_r1);
    let r4 = multiply(r2, &by_r2);
    let by_r4 = Factor::new(r4);
    let r5 = multiply(r1, &by_r4);
    let r6 = multiply(r2, &by_r4);
    let r7 = multiply(r3, &by_r4);
    let r8 = multiply(r4, &by_r4);
    let ascending = [r1, r2, r3, r4, r5, r6, r7, r8];
    for limb in 0..3 {
        let mut rows = [zero; 8];
        for lane in 0..8 {
            // The first block of a chunk is eight multiplications from the end, the last one.
            rows[lane] = ascending[7 - BLOCK_OF_LANE[lane]][limb];
        }
        transpose(&mut rows);
        for (segment, row) in powers.of_lanes.iter_mut().zip(rows) {
            segment[limb] = row;
        }
    }
    if chunks > 1 {
        let by_r8 = Factor::new(r8);
        powers.of_chunks[0] = by_r8;
        let mut power = r8;
        for of_chunk in powers.of_chunks.iter_mut().take(chunks - 1).skip(1) {
            power = multiply(power, &by_r8);
            *of_chunk = Factor::new(power);
        }
    }
}

/// The polynomial of a text, but for the sum over the lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn evaluate(powers: &Powers, lane: usize, text: &[u8]) -> Limbs {
    let len = text.len();
    let blocks = len.div_ceil(BLOCK) + 1;
    let mut left = chunks(len) - 1;
    let mut sum;
    if left == 0 {
        sum = part_of_chunk(text, blocks, len);
    } else {
        let blocks = blocks - 8 * left;
        let (first, mut rest) = text.split_at(blocks * BLOCK);
        sum = part_of_chunk(first, blocks, 0);
        while left > STRIDE {
            let now = (left - 1) % STRIDE + 1;
            let mut product = Product::new();
            product.add(sum, &powers.of_chunks[now - 1].broadcast(lane));
            for of_chunk in powers.of_chunks[..now - 1].iter().rev() {
                let (chunk, tail) = rest.split_first_chunk().expect("counted by `chunks`");
                product.add(whole_chunk(chunk), &of_chunk.broadcast(lane));
                rest = tail;
            }
            let (chunk, tail) = rest.split_first_chunk().expect("counted by `chunks`");
            sum = add(product.carried(), whole_chunk(chunk));
            rest = tail;
            left -= now;
        }
        let mut product = Product::new();
        product.add(sum, &powers.of_chunks[left - 1].broadcast(lane));
        for of_chunk in powers.of_chunks[..left - 1].iter().rev() {
            let (chunk, tail) = rest.split_first_chunk().expect("counted by `chunks`");
            product.add(whole_chunk(chunk), &of_chunk.broadcast(lane));
            rest = tail;
        }
        sum = add(product.carried(), part_of_chunk(rest, 8, len));
    }
    multiply(sum, &Factor::new(powers.of_lanes[lane]))
}

/// Eight whole blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn whole_chunk(chunk: &[u8; CHUNK]) -> Limbs {
    // SAFETY: the chunk is 128 bytes, twice what is loaded at a time; the loads ask for no alignment.
    let (first, second) = unsafe {
        (_mm512_loadu_si512(chunk.as_ptr().cast()), _mm512_loadu_si512(chunk.as_ptr().add(CHUNK / 2).cast()))
    };
    let [low, middle, high] = split(_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second));
    [low, middle, _mm512_or_si512(high, _mm512_set1_epi64(1 << 40))]
}

/// The last `blocks` blocks of a chunk; what `text` does not fill is zero. `length` stands in the chunk's end, in the upper
/// half of the block of lengths; the caller leaves that block free, or gives zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn part_of_chunk(text: &[u8], blocks: usize, length: usize) -> Limbs {
    const MARKED: [__mmask8; 9] = {
        let mut marked = [0; 9];
        let mut blocks = 0;
        while blocks < 9 {
            let mut lane = 0;
            while lane < 8 {
                if BLOCK_OF_LANE[lane] >= 8 - blocks {
                    marked[blocks] |= 1 << lane;
                }
                lane += 1;
            }
            blocks += 1;
        }
        marked
    };
    assert!(text.len() <= CHUNK && blocks <= 8);
    let (one, two) = text.split_at(text.len().min(CHUNK / 2));
    // SAFETY: the masks let through as many bytes as the halves hold; what they keep back is not touched.
    let (one, two) = unsafe {
        (
            _mm512_maskz_loadu_epi8(first_bytes(one.len()), one.as_ptr().cast()),
            _mm512_maskz_loadu_epi8(first_bytes(two.len()), two.as_ptr().cast()),
        )
    };
    // To the chunk's end, by two words for every block that is missing.
    let shift = 2 * (8 - blocks);
    let kept = 0xFFFFu32 << shift;
    let from = _mm512_sub_epi64(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7), _mm512_set1_epi64(shift as i64));
    let first = _mm512_maskz_permutex2var_epi64(kept as __mmask8, one, from, two);
    let from = _mm512_add_epi64(from, _mm512_set1_epi64(8));
    let second = _mm512_maskz_permutex2var_epi64((kept >> 8) as __mmask8, one, from, two);
    let second = _mm512_or_si512(second, _mm512_maskz_set1_epi64(0x80, length as i64));
    let [low, middle, high] = split(_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second));
    [low, middle, _mm512_or_si512(high, _mm512_maskz_set1_epi64(MARKED[blocks], 1 << 40))]
}

/// The limbs of eight numbers of 128 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
pub(super) fn split(low: __m512i, high: __m512i) -> Limbs {
    let mask = _mm512_set1_epi64(MASK_44 as i64);
    let (of_low, of_high) = (_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
    // (of_low | of_high) & mask
    let middle = _mm512_ternarylogic_epi64::<0xA8>(of_low, of_high, mask);
    [_mm512_and_si512(low, mask), middle, _mm512_srli_epi64::<24>(high)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
pub(super) fn add(a: Limbs, b: Limbs) -> Limbs {
    [_mm512_add_epi64(a[0], b[0]), _mm512_add_epi64(a[1], b[1]), _mm512_add_epi64(a[2], b[2])]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn times_20(x: __m512i) -> __m512i {
    _mm512_add_epi64(_mm512_slli_epi64::<4>(x), _mm512_slli_epi64::<2>(x))
}

/// The product in each lane, modulo 2^130 - 5, carried.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
pub(super) fn multiply(a: Limbs, b: &Factor) -> Limbs {
    let mut product = Product::new();
    product.add(a, b);
    product.carried()
}

/// A sum of products, not carried: for each limb the low 52 bits of its terms and the bits above them.
pub(super) struct Product {
    low: Limbs,
    high: Limbs,
}

impl Product {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    pub(super) fn new() -> Self {
        let zero = _mm512_setzero_si512();
        Self { low: [zero; 3], high: [zero; 3] }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    pub(super) fn add(&mut self, a: Limbs, b: &Factor) {
        let [r0, r1, r2] = b.limbs;
        let [t1, t2] = b.twenty;
        // Row k: what has the weight 2^(44 k), as limbs i and j with i + j = k, or i + j = k + 3 and a factor of 20,
        // because 2^132 = 4 * 2^130 is 20.
        let rows = [[r0, t2, t1], [r1, r0, t2], [r2, r1, r0]];
        for i in [2, 0, 1] {
            for (k, row) in rows.iter().enumerate() {
                self.low[k] = _mm512_madd52lo_epu64(self.low[k], a[i], row[i]);
                self.high[k] = _mm512_madd52hi_epu64(self.high[k], a[i], row[i]);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    pub(super) fn carried(&self) -> Limbs {
        // The high halves weigh 2^52 more, which is 2^8 in the next limb; beyond the last limb's 42 bits, 2^130 is 5.
        let (mask_44, mask_42) = (_mm512_set1_epi64(MASK_44 as i64), _mm512_set1_epi64(MASK_42 as i64));
        let [d0, low_1, low_2] = self.low;
        let [high_0, high_1, high_2] = self.high;
        let d1 = _mm512_add_epi64(_mm512_add_epi64(low_1, _mm512_slli_epi64::<8>(high_0)), _mm512_srli_epi64::<44>(d0));
        let d2 = _mm512_add_epi64(_mm512_add_epi64(low_2, _mm512_slli_epi64::<8>(high_1)), _mm512_srli_epi64::<44>(d1));
        let over = _mm512_add_epi64(_mm512_slli_epi64::<10>(high_2), _mm512_srli_epi64::<42>(d2));
        let over = _mm512_add_epi64(over, _mm512_slli_epi64::<2>(over));
        let d0 = _mm512_add_epi64(_mm512_and_si512(d0, mask_44), over);
        let d1 = _mm512_add_epi64(_mm512_and_si512(d1, mask_44), _mm512_srli_epi64::<44>(d0));
        [_mm512_and_si512(d0, mask_44), d1, _mm512_and_si512(d2, mask_42)]
    }
}

/// Adds the lanes up, reduces for good and adds s.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn finish(sum: Limbs, key: &OneTimeKey) -> [u8; TAG_LEN] {
    let mut h0 = _mm512_reduce_add_epi64(sum[0]) as u64;
    let mut h1 = _mm512_reduce_add_epi64(sum[1]) as u64;
    let mut h2 = _mm512_reduce_add_epi64(sum[2]) as u64;
    // Once around brings the number below 2^130 + 2^44, twice below 2^130.
    for _ in 0..2 {
        h1 += h0 >> 44;
        h0 &= MASK_44;
        h2 += h1 >> 44;
        h1 &= MASK_44;
        h0 += 5 * (h2 >> 42);
        h2 &= MASK_42;
    }
    h1 += h0 >> 44;
    h0 &= MASK_44;
    h2 += h1 >> 44;
    h1 &= MASK_44;
    // Less the modulus, if that leaves nothing negative.
    let g0 = h0 + 5;
    let g1 = h1 + (g0 >> 44);
    let g2 = h2 + (g1 >> 44);
    let take = 0u64.wrapping_sub(g2 >> 42);
    h0 = (h0 & !take) | (g0 & MASK_44 & take);
    h1 = (h1 & !take) | (g1 & MASK_44 & take);
    h2 = (h2 & !take) | (g2 & MASK_42 & take);
    let h = u128::from(h0) | u128::from(h1) << 44 | u128::from(h2) << 88;
    let s = u128::from_le_bytes(*key.last_chunk().expect("a one-time key is two halves"));
    h.wrapping_add(s).to_le_bytes()
}

/// Word j of row i to word i of row j.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
pub(super) fn transpose(rows: &mut [__m512i; 8]) {
    let r = *rows;
    let mut pairs = r;
    for i in 0..4 {
        pairs[2 * i] = _mm512_unpacklo_epi64(r[2 * i], r[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi64(r[2 * i], r[2 * i + 1]);
    }
    // Lane l of `pairs[2 i + odd]`: words 2 l + odd of rows 2 i and 2 i + 1.
    for odd in 0..2 {
        let [a, b, c, d] = [pairs[odd], pairs[2 + odd], pairs[4 + odd], pairs[6 + odd]];
        let (low_ab, high_ab) = (_mm512_shuffle_i64x2::<0x44>(a, b), _mm512_shuffle_i64x2::<0xEE>(a, b));
        let (low_cd, high_cd) = (_mm512_shuffle_i64x2::<0x44>(c, d), _mm512_shuffle_i64x2::<0xEE>(c, d));
        rows[odd] = _mm512_shuffle_i64x2::<0x88>(low_ab, low_cd);
        rows[2 + odd] = _mm512_shuffle_i64x2::<0xDD>(low_ab, low_cd);
        rows[4 + odd] = _mm512_shuffle_i64x2::<0x88>(high_ab, high_cd);
        rows[6 + odd] = _mm512_shuffle_i64x2::<0xDD>(high_ab, high_cd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avx512::Avx512Key;

    /// 2^130 - 5 in five words of 32 bits.
    const MODULUS: [u64; 5] = [0xFFFF_FFFB, 0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF, 3];

    fn less_modulus(a: [u64; 5]) -> [u64; 5] {
        let (mut out, mut borrow) = ([0; 5], 0);
        for i in 0..5 {
            let word = (1 << 32) + a[i] - MODULUS[i] - borrow;
            out[i] = word & 0xFFFF_FFFF;
            borrow = 1 - (word >> 32);
        }
        if borrow == 1 { a } else { out }
    }

    fn sum(a: [u64; 5], b: [u64; 5]) -> [u64; 5] {
        let (mut out, mut carry) = ([0; 5], 0);
        for i in 0..5 {
            let word = a[i] + b[i] + carry;
            out[i] = word & 0xFFFF_FFFF;
            carry = word >> 32;
        }
        less_modulus(out)
    }

    fn words(value: u128, top: u64) -> [u64; 5] {
        let word = |i: u32| (value >> (32 * i)) as u64 & 0xFFFF_FFFF;
        [word(0), word(1), word(2), word(3), top]
    }

    /// Poly1305 by doubling and adding, one bit of r after the other.
    fn plain(key: &OneTimeKey, text: &[u8]) -> [u8; TAG_LEN] {
        let (r, s) = key.split_at(16);
        let r = u128::from_le_bytes(r.try_into().unwrap()) & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
        let s = u128::from_le_bytes(s.try_into().unwrap());
        let mut padded = text.to_vec();
        padded.resize(text.len().next_multiple_of(BLOCK), 0);
        padded.extend(((text.len() as u128) << 64).to_le_bytes());
        let mut h = [0; 5];
        for block in padded.as_chunks().0 {
            h = sum(h, words(u128::from_le_bytes(*block), 1));
            let mut product = [0; 5];
            for bit in (0..128).rev() {
                product = sum(product, product);
                if r >> bit & 1 == 1 {
                    product = sum(product, h);
                }
            }
            h = product;
        }
        let h = (0..4).fold(0, |value, i| value | u128::from(h[i as usize]) << (32 * i));
        h.wrapping_add(s).to_le_bytes()
    }

    /// The numbers that carry most, and the results next to the modulus: r of all ones and of few bits, texts of all ones.
    #[test]
    fn tags_at_the_edges() {
        if !Avx512Key::available() {
            println!("not run: this machine has no AVX-512 with IFMA");
            return;
        }
        let ones = [0xFF; 32];
        let mut bits: [OneTimeKey; 7] = [[0; 32]; 7];
        for (i, key) in bits.iter_mut().enumerate() {
            key[[0, 0, 4, 8, 15, 5, 11][i]] = [1, 2, 0xFC, 0xFC, 0x0F, 0xF0, 0x0F][i];
            key[16..].fill(if i % 2 == 0 { 0xFF } else { 0 });
        }
        let keys = [ones, bits[0], bits[1], bits[2], bits[3], bits[4], bits[5], bits[6]];
        // SAFETY: vectors of integers; zeros are valid for all of it.
        let mut powers: Powers = unsafe { std::mem::zeroed() };
        for fill in [0xFF, 0xFB, 0x00, 0x80] {
            for step in 0..100 {
                // Sometimes as long as each other, sometimes not, and shifted from key to key.
                let texts: Vec<Vec<u8>> = (0..8).map(|i| vec![fill; step * 11 + step % 3 * i * 17]).collect();
                let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
                let mut found = [[0; TAG_LEN]; 8];
                let count = 1 + (step + 7) % 8;
                // SAFETY: the machine was asked above.
                unsafe { tags(&keys[..count], &texts[..count], &mut powers, &mut found[..count]) };
                for i in 0..count {
                    assert_eq!(found[i], plain(&keys[i], texts[i]), "key {i}, {} bytes of {fill:#x}", texts[i].len());
                }
            }
        }
    }
}

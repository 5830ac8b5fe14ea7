//! Poly1305 (RFC 8439, section 2.5) of four segments side by side.
//!
//! A number modulo 2^130 - 5 is five limbs of 26 bits (here and there a little more), each limb of four numbers in one vector of
//! 64-bit words, whose lower halves are what AVX2 multiplies. A lane is a segment. Two blocks of each are taken at a time: the
//! accumulator and the first are multiplied by r^2 and the second by r, with one carry for both, so that no power of r beyond the
//! second is ever needed, and short segments cost little more than their blocks.
//!
//! The lanes end together: a segment with fewer blocks than the longest begins with blocks of zero, without the bit that marks a
//! block, which leave its accumulator at zero.
//!
//! Bounds: what [`carried`] returns has limbs below 2^26 + 2^12; a block adds less than 2^26, so that factors stay below 2^27.1
//! and, times five, those of r below 2^28.4; ten products of them are below 2^59, and a word has 64 bits.

use super::{load, opaque};
use crate::TAG_LEN;
use std::{arch::x86_64::*, hint::black_box, ops::Range};

/// Segments side by side.
pub(super) const SEGMENTS: usize = 4;

/// A one-time key: r, then s.
pub(super) type OneTimeKey = [u8; 32];

const BLOCK: usize = 16;

const MASK: i64 = (1 << 26) - 1;

/// The bit above a block's 128, in the last limb.
const MARK: i64 = 1 << 24;

/// Four numbers.
type Limbs = [__m256i; 5];

/// Four numbers to multiply by: the limbs, and five times all but the first.
#[repr(C)]
struct Factor {
    limbs: Limbs,
    five: [__m256i; 4],
}

/// Room for what is secret: r, its square, and the sums.
#[repr(C)]
pub(super) struct Secrets {
    r1: Factor,
    r2: Factor,
    sums: Limbs,
}

/// The tags of up to four segments without additional data. The best lengths are equal ones.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn tags(
    keys: &[&OneTimeKey; SEGMENTS],
    texts: &[&[u8]; SEGMENTS],
    secrets: &mut Secrets,
) -> [[u8; TAG_LEN]; SEGMENTS] {
    let [low, high, ..] = transposed([load(keys[0]), load(keys[1]), load(keys[2]), load(keys[3])]);
    let r = split(
        _mm256_and_si256(low, _mm256_set1_epi64x(0x0fff_fffc_0fff_ffff)),
        _mm256_and_si256(high, _mm256_set1_epi64x(0x0fff_fffc_0fff_fffc)),
    );
    secrets.r1 = factor(r);
    let mut product = [_mm256_setzero_si256(); 5];
    add_product(&mut product, &r, &secrets.r1);
    secrets.r2 = factor(carried(product));
    secrets.sums = evaluate(texts, &secrets.r1, &secrets.r2);
    // SAFETY: five vectors are five times four words, and whatever bits they have are words.
    let sums: &[[u64; 4]; 5] = unsafe { &*(&raw const secrets.sums).cast() };
    let mut tags = [[0; TAG_LEN]; SEGMENTS];
    for (lane, (tag, key)) in tags.iter_mut().zip(keys).enumerate() {
        *tag = finish([sums[0][lane], sums[1][lane], sums[2][lane], sums[3][lane], sums[4][lane]], key);
    }
    tags
}

/// How many blocks a text and the block of lengths make.
#[inline]
fn blocks(text: &[u8]) -> usize {
    text.len().div_ceil(BLOCK) + 1
}

/// How the blocks of four texts stand beside each other.
struct Layout {
    /// The steps of all, in blocks.
    all: usize,
    /// How many blocks of nothing a lane begins with.
    missing: [usize; SEGMENTS],
    /// Between these every lane has whole blocks of text.
    whole: Range<usize>,
}

impl Layout {
    #[inline]
    fn new(texts: &[&[u8]; SEGMENTS]) -> Self {
        let counts = texts.map(blocks);
        let all = counts[0].max(counts[1]).max(counts[2]).max(counts[3]).next_multiple_of(2);
        let missing = counts.map(|count| all - count);
        let (mut from, mut to) = (0, all);
        for (text, missing) in texts.iter().zip(missing) {
            from = from.max(missing.next_multiple_of(2));
            to = to.min((missing + text.len() / BLOCK) & !1);
        }
        Self { all, missing, whole: from..to }
    }

    /// Two blocks of every lane, and where there are any.
    #[inline]
    fn rows(&self, texts: &[&[u8]; SEGMENTS], at: usize) -> ([[u8; 2 * BLOCK]; SEGMENTS], [[i64; SEGMENTS]; 2]) {
        let mut rows = [[0; 2 * BLOCK]; SEGMENTS];
        let mut marks = [[0; SEGMENTS]; 2];
        for (lane, row) in rows.iter_mut().enumerate() {
            for (half, block) in row.as_chunks_mut().0.iter_mut().enumerate() {
                if let Some(number) = (at + half).checked_sub(self.missing[lane]) {
                    *block = block_of(texts[lane], number);
                    marks[half][lane] = MARK;
                }
            }
        }
        (rows, marks)
    }

    /// What is left of the texts where all have whole blocks.
    #[inline]
    fn rests<'a>(&self, texts: &[&'a [u8]; SEGMENTS]) -> [&'a [u8]; SEGMENTS] {
        let mut rests = *texts;
        for (rest, missing) in rests.iter_mut().zip(self.missing) {
            *rest = &rest[(self.whole.start - missing) * BLOCK..];
        }
        rests
    }
}

/// The polynomials of the texts.
#[inline]
#[target_feature(enable = "avx2")]
fn evaluate(texts: &[&[u8]; SEGMENTS], r1: &Factor, r2: &Factor) -> Limbs {
    let layout = Layout::new(texts);
    let mut sum = [_mm256_setzero_si256(); 5];
    let mut at = 0;
    while at < layout.all {
        if at == layout.whole.start && !layout.whole.is_empty() {
            let [mut a, mut b, mut c, mut d] = layout.rests(texts);
            let marks = [_mm256_set1_epi64x(MARK); 2];
            while at < layout.whole.end {
                let mut rows = [_mm256_setzero_si256(); SEGMENTS];
                for (row, rest) in rows.iter_mut().zip([&mut a, &mut b, &mut c, &mut d]) {
                    let (pair, tail) = rest.split_first_chunk().expect("there are whole blocks in between");
                    *row = load(pair);
                    *rest = tail;
                }
                sum = step(sum, rows, marks, r1, r2);
                at += 2;
            }
        }
        let (rows, marks) = layout.rows(texts, at);
        let rows = [load(&rows[0]), load(&rows[1]), load(&rows[2]), load(&rows[3])];
        sum = step(sum, rows, [load_words(&marks[0]), load_words(&marks[1])], r1, r2);
        at += 2;
    }
    sum
}

/// A block of a text, filled up with zeros; the one behind the last is that of the lengths.
#[inline]
fn block_of(text: &[u8], number: usize) -> [u8; BLOCK] {
    let rest = text.get(number * BLOCK..).unwrap_or_default();
    if let Some(block) = rest.first_chunk() {
        return *block;
    }
    if rest.is_empty() {
        return ((text.len() as u128) << 64).to_le_bytes();
    }
    let mut block = [0; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    block
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_words(words: &[i64; SEGMENTS]) -> __m256i {
    _mm256_setr_epi64x(words[0], words[1], words[2], words[3])
}

/// Takes two blocks of each lane, which stand in rows.
#[inline]
#[target_feature(enable = "avx2")]
fn step(sum: Limbs, rows: [__m256i; SEGMENTS], marks: [__m256i; 2], r1: &Factor, r2: &Factor) -> Limbs {
    // The compiler is not to know where factors come from: where it sees that they are below 2^32, it takes the instruction that
    // multiplies 32 bits for one that multiplies 64, and writes that out.
    let (r1, r2) = (black_box(r1), black_box(r2));
    let [low_1, high_1, low_2, high_2] = transposed(rows);
    let (mut first, mut second) = (split(low_1, high_1), split(low_2, high_2));
    first[4] = _mm256_or_si256(first[4], marks[0]);
    second[4] = _mm256_or_si256(second[4], marks[1]);
    let mut product = [_mm256_setzero_si256(); 5];
    add_product(&mut product, &second, r1);
    for (limb, sum) in first.iter_mut().zip(sum) {
        *limb = opaque(_mm256_add_epi64(*limb, sum));
    }
    add_product(&mut product, &first, r2);
    carried(product)
}

#[inline]
#[target_feature(enable = "avx2")]
fn factor(limbs: Limbs) -> Factor {
    Factor { limbs, five: [times_5(limbs[1]), times_5(limbs[2]), times_5(limbs[3]), times_5(limbs[4])] }
}

#[inline]
#[target_feature(enable = "avx2")]
fn times_5(x: __m256i) -> __m256i {
    _mm256_add_epi64(x, _mm256_slli_epi64::<2>(x))
}

/// The limbs of four numbers of 128 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn split(low: __m256i, high: __m256i) -> Limbs {
    let mask = _mm256_set1_epi64x(MASK);
    let across = _mm256_or_si256(_mm256_srli_epi64::<52>(low), _mm256_slli_epi64::<12>(high));
    [
        _mm256_and_si256(low, mask),
        _mm256_and_si256(_mm256_srli_epi64::<26>(low), mask),
        _mm256_and_si256(across, mask),
        _mm256_and_si256(_mm256_srli_epi64::<14>(high), mask),
        _mm256_srli_epi64::<40>(high),
    ]
}

/// `sum += a * b` in each lane, modulo 2^130 - 5, not carried.
#[inline]
#[target_feature(enable = "avx2")]
fn add_product(sum: &mut Limbs, a: &Limbs, b: &Factor) {
    // Row k: what has the weight 2^(26 k), as limbs i and j with i + j = k, or i + j = k + 5 and a factor of five, because 2^130
    // is 5. Without loops, for which the compiler would copy the factors.
    let (r, f) = (&b.limbs, &b.five);
    macro_rules! row {
        ($k:literal: $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => {
            sum[$k] = _mm256_add_epi64(sum[$k], _mm256_mul_epu32(a[0], $a));
            sum[$k] = _mm256_add_epi64(sum[$k], _mm256_mul_epu32(a[1], $b));
            sum[$k] = _mm256_add_epi64(sum[$k], _mm256_mul_epu32(a[2], $c));
            sum[$k] = _mm256_add_epi64(sum[$k], _mm256_mul_epu32(a[3], $d));
            sum[$k] = _mm256_add_epi64(sum[$k], _mm256_mul_epu32(a[4], $e));
        };
    }
    row!(0: r[0], f[3], f[2], f[1], f[0]);
    row!(1: r[1], r[0], f[3], f[2], f[1]);
    row!(2: r[2], r[1], r[0], f[3], f[2]);
    row!(3: r[3], r[2], r[1], r[0], f[3]);
    row!(4: r[4], r[3], r[2], r[1], r[0]);
}

#[inline]
#[target_feature(enable = "avx2")]
fn carried(sum: Limbs) -> Limbs {
    let mask = _mm256_set1_epi64x(MASK);
    let [mut d0, mut d1, mut d2, mut d3, mut d4] = sum;
    macro_rules! carry {
        ($from:ident $to:ident) => {
            $to = _mm256_add_epi64($to, _mm256_srli_epi64::<26>($from));
            $from = _mm256_and_si256($from, mask);
        };
    }
    // Two chains side by side.
    carry!(d0 d1);
    carry!(d3 d4);
    carry!(d1 d2);
    d0 = _mm256_add_epi64(d0, times_5(_mm256_srli_epi64::<26>(d4)));
    d4 = _mm256_and_si256(d4, mask);
    carry!(d2 d3);
    carry!(d0 d1);
    carry!(d3 d4);
    [d0, d1, d2, d3, d4]
}

/// Reduces for good and adds s.
#[inline]
fn finish(limbs: [u64; 5], key: &OneTimeKey) -> [u8; TAG_LEN] {
    const MASK: u64 = (1 << 26) - 1;
    let [mut h0, mut h1, mut h2, mut h3, mut h4] = limbs;
    // Once around brings the number below 2^130 + 2^26, twice below 2^130.
    for _ in 0..2 {
        h1 += h0 >> 26;
        h2 += h1 >> 26;
        h3 += h2 >> 26;
        h4 += h3 >> 26;
        h0 = (h0 & MASK) + 5 * (h4 >> 26);
        (h1, h2, h3, h4) = (h1 & MASK, h2 & MASK, h3 & MASK, h4 & MASK);
    }
    h1 += h0 >> 26;
    h0 &= MASK;
    let low = u128::from(h0) + (u128::from(h1) << 26) + (u128::from(h2) << 52) + (u128::from(h3) << 78);
    // The number is low + h4 * 2^104; as 128 bits and two above them.
    let (h, over) = low.overflowing_add(u128::from(h4) << 104);
    let top = (h4 >> 24) + u64::from(over);
    // Less the modulus, if that leaves nothing negative: if five more reach 2^130.
    let (less, over) = h.overflowing_add(5);
    let take = 0u128.wrapping_sub(u128::from((top + u64::from(over)) >> 2));
    let h = (h & !take) | (less & take);
    let s = u128::from_le_bytes(*key.last_chunk().expect("a one-time key is two halves"));
    h.wrapping_add(s).to_le_bytes()
}

/// Word j of row i to word i of row j.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(rows: [__m256i; 4]) -> [__m256i; 4] {
    let [a, b, c, d] = rows;
    let (even_ab, odd_ab) = (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    let (even_cd, odd_cd) = (_mm256_unpacklo_epi64(c, d), _mm256_unpackhi_epi64(c, d));
    [
        _mm256_permute2x128_si256::<0x20>(even_ab, even_cd),
        _mm256_permute2x128_si256::<0x20>(odd_ab, odd_cd),
        _mm256_permute2x128_si256::<0x31>(even_ab, even_cd),
        _mm256_permute2x128_si256::<0x31>(odd_ab, odd_cd),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avx2::{Avx2Key, Scratch};
    use ::poly1305::{Poly1305, universal_hash::KeyInit};

    /// The tag as another implementation has it: of the text, filled up, and its length behind it.
    fn expected(key: &OneTimeKey, text: &[u8]) -> [u8; TAG_LEN] {
        let mut whole = text.to_vec();
        whole.resize(text.len().next_multiple_of(BLOCK), 0);
        whole.extend(((text.len() as u128) << 64).to_le_bytes());
        Poly1305::new(key.into()).compute_unpadded(&whole).into()
    }

    /// The numbers that carry most, and the results next to the modulus: r of all ones and of few bits, texts of all ones.
    #[test]
    fn tags_at_the_edges() {
        if !Avx2Key::available() {
            println!("not run: this machine has no AVX2");
            return;
        }
        let mut keys: [OneTimeKey; 8] = [[0; 32]; 8];
        keys[0] = [0xFF; 32];
        for (i, key) in keys.iter_mut().enumerate().skip(1) {
            key[[0, 0, 0, 4, 8, 15, 5, 11][i]] = [0, 1, 2, 0xFC, 0xFC, 0x0F, 0xF0, 0x0F][i];
            key[16..].fill(if i % 2 == 0 { 0xFF } else { 0 });
        }
        let mut scratch = Scratch::new();
        for fill in [0xFF, 0xFB, 0x00, 0x80] {
            for step in 0..100 {
                // Sometimes as long as each other, sometimes not, and shifted from key to key.
                let texts: Vec<Vec<u8>> = (0..4).map(|i| vec![fill; step * 11 + step % 3 * i * 17]).collect();
                let texts = [0, 1, 2, 3].map(|i| texts[i].as_slice());
                for keys in keys.as_chunks::<4>().0 {
                    // SAFETY: the machine was asked above.
                    let found = unsafe { tags(&keys.each_ref(), &texts, &mut scratch.secrets) };
                    for i in 0..4 {
                        assert_eq!(
                            found[i],
                            expected(&keys[i], texts[i]),
                            "key {i}, {} bytes of {fill:#x}",
                            texts[i].len()
                        );
                    }
                }
            }
        }
    }
}

//! Segments of much the same length, eight side by side: a column.
//!
//! A pass of [`chacha`] computes sixteen blocks: twice the same block of the eight texts of a column, or one of a column and
//! one of the next, so that no lane is idle between them. A column goes from its block 0, which gives the keys of the tags,
//! to the last block of its longest text; each block is turned and, during the next pass, authenticated by [`Lanes`], which
//! has a text in each lane. After the last block the tags come out together.
//!
//! So a text is decrypted before it is known to be authentic. If it is not, it is overwritten.

use super::{
    chacha::{self, Keystream, LANES},
    lanes::{COUNT, Lanes, Steps},
    text::Text,
    wipe,
};
use std::arch::x86_64::*;
use subtle::ConstantTimeEq;

/// What a column in work needs besides its texts.
pub(super) struct Column {
    /// The words of the nonces.
    nonces: [__m256i; 3],
    /// Bytes of each text.
    lens: __m512i,
    /// The last block.
    last: u32,
    /// The blocks that lie in the bodies of all texts wholly.
    whole: std::ops::Range<u32>,
}

impl Column {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    fn new(texts: &[Text<'_>]) -> Self {
        let (mut first, mut others, mut lens) = ([0; COUNT], [0; COUNT], [0; COUNT]);
        let mut whole = if texts.len() == COUNT { 0..u32::MAX } else { 0..0 };
        let mut last = 1;
        for (i, text) in texts.iter().enumerate() {
            (first[i], others[i], lens[i]) = (text.nonce.0 as i32, text.nonce.1 as i64, text.len as i64);
            let blocks = text.whole_blocks();
            whole = whole.start.max(blocks.start)..whole.end.min(blocks.end);
            last = last.max(text.blocks());
        }
        let [a, b, c, d, e, f, g, h] = others;
        let others = _mm512_setr_epi64(a, b, c, d, e, f, g, h);
        let [a, b, c, d, e, f, g, h] = lens;
        let lens = _mm512_setr_epi64(a, b, c, d, e, f, g, h);
        let [a, b, c, d, e, f, g, h] = first;
        let first = _mm256_setr_epi32(a, b, c, d, e, f, g, h);
        let high = _mm512_srli_epi64::<32>(others);
        Self { nonces: [first, _mm512_cvtepi64_epi32(others), _mm512_cvtepi64_epi32(high)], lens, last, whole }
    }
}

/// What is secret. Two columns are in work at most, the end of one and the beginning of the next.
#[repr(C)]
struct Secret {
    keystream: Keystream,
    lanes: [Lanes; 2],
}

/// Seals or opens the texts, of which each eight make a column; the last may be short of some. Tells of each whether it is
/// authentic.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
pub(super) fn work<const SEAL: bool>(key: &[u32; 8], texts: &mut [Text<'_>], tell: &mut impl FnMut(&Text<'_>, bool)) {
    let mut secret = Secret { keystream: Keystream::new(), lanes: [Lanes::new(), Lanes::new()] };
    let mut columns = [const { None::<Column> }; 2];
    let mut steps = Steps::new();
    let mut ended = None;
    let texts_count = texts.len();
    let count = texts_count.div_ceil(COUNT);
    let range = |column: usize| column * COUNT..texts_count.min((column + 1) * COUNT);
    let (mut column, mut block) = (0, 0);
    while column < count || ended.is_some() {
        // Which column, and which block of it, is on the lower eight lanes and on the upper eight.
        let mut halves = [None; 2];
        for half in &mut halves {
            if column == count {
                break;
            }
            let slot = &mut columns[column % 2];
            if block == 0 {
                *slot = Some(Column::new(&texts[range(column)]));
            }
            *half = Some((column, block));
            let last = slot.as_ref().map_or(0, |column| column.last);
            (column, block) = if block == last { (column + 1, 0) } else { (column, block + 1) };
        }
        if let [Some(lower), upper] = halves {
            let upper = upper.unwrap_or(lower);
            let of = |half: (usize, u32)| columns[half.0 % 2].as_ref().expect("made when its block 0 was reached");
            let (a, b) = (of(lower), of(upper));
            let side_by_side = |a, b| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b);
            let nonce = [0, 1, 2].map(|i| side_by_side(a.nonces[i], b.nonces[i]));
            let counter = side_by_side(_mm256_set1_epi32(lower.1 as i32), _mm256_set1_epi32(upper.1 as i32));
            let (keystream, lanes) = (&mut secret.keystream, &mut secret.lanes);
            chacha::blocks(key, counter, nonce, keystream, |i| steps.step(i, lanes));
        } else {
            (0..10).for_each(|i| steps.step(i, &mut secret.lanes));
        }
        steps.clear();
        if let Some(column) = ended.take() {
            finish::<SEAL>(&mut texts[range(column)], &secret.lanes[column % 2], tell);
        }
        for (half, keystream) in halves.iter().zip(secret.keystream.0.as_chunks::<{ LANES / 2 }>().0) {
            let Some((column, block)) = *half else { break };
            let Some(state) = &columns[column % 2] else { break };
            if block == 0 {
                secret.lanes[column % 2].begin(keystream, state.last > 1);
                continue;
            }
            let texts = &mut texts[range(column)];
            let at = i64::from(block - 1) * chacha::BLOCK as i64;
            let mut rows = [_mm512_setzero_si512(); COUNT];
            if state.whole.contains(&block)
                && let Some(texts) = texts.as_mut_array::<COUNT>()
            {
                for i in 0..COUNT {
                    // SAFETY: `whole` is what all texts have in common.
                    rows[i] = unsafe { texts[i].turn_whole::<SEAL>(block, keystream[i]) };
                }
            } else {
                for (i, text) in texts.iter_mut().enumerate() {
                    rows[i] = text.turn::<SEAL>(block, keystream[i]);
                }
            }
            let left = _mm512_sub_epi64(state.lens, _mm512_set1_epi64(at));
            steps.take(column % 2, rows, left, state.lens, block == 1);
            if block == state.last {
                ended = Some(column);
            }
        }
    }
    wipe(&mut secret);
}

/// Writes the tags of a column, or looks whether they are right.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn finish<const SEAL: bool>(texts: &mut [Text<'_>], lanes: &Lanes, tell: &mut impl FnMut(&Text<'_>, bool)) {
    for (text, tag) in texts.iter_mut().zip(lanes.tags()) {
        if SEAL {
            *text.tag() = tag;
            tell(text, true);
        } else {
            let given = u128::from_le_bytes(*text.tag());
            let authentic: bool = given.ct_eq(&u128::from_le_bytes(tag)).into();
            if !authentic {
                text.wipe();
            }
            tell(text, authentic);
        }
    }
}

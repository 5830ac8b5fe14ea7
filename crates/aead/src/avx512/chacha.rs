//! The ChaCha20 block function (RFC 8439, section 2.3), sixteen blocks at once.
//!
//! Word w of all sixteen blocks stands in one vector, so that a quarter round on four vectors is a quarter round of every
//! block. The blocks need nothing in common but the key: a [`Pass`] is put together from runs of blocks of as many texts
//! as it takes to fill the lanes. At the end the words are transposed, and a run's keystream lies in one piece.

use std::arch::x86_64::*;

/// Blocks of one pass.
pub(super) const LANES: usize = 16;

/// Bytes of one block.
pub(super) const BLOCK: usize = 64;

/// The keystream of one pass, a block of each lane.
pub(super) struct Keystream(pub(super) [__m512i; LANES]);

impl Keystream {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    pub(super) fn new() -> Self {
        Self([_mm512_setzero_si512(); LANES])
    }
}

/// Consecutive blocks of one text on consecutive lanes.
#[derive(Clone, Copy, Default)]
pub(super) struct Run {
    /// Whose.
    pub(super) text: usize,
    pub(super) block: u32,
    pub(super) lane: usize,
    pub(super) len: usize,
}

/// Which blocks the lanes are to compute.
pub(super) struct Pass {
    counter: __m512i,
    nonce: [__m512i; 3],
    runs: [Run; LANES],
    run_count: usize,
    lanes: usize,
}

impl Pass {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    pub(super) fn new() -> Self {
        let zero = _mm512_setzero_si512();
        Self { counter: zero, nonce: [zero; 3], runs: [Run::default(); LANES], run_count: 0, lanes: 0 }
    }

    /// Frees every lane.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.run_count = 0;
        self.lanes = 0;
    }

    /// Lanes that have nothing to compute yet.
    #[inline]
    pub(super) fn free(&self) -> usize {
        LANES - self.lanes
    }

    /// What the lanes compute.
    #[inline]
    pub(super) fn runs(&self) -> &[Run] {
        &self.runs[..self.run_count]
    }

    /// Gives `len` lanes to the blocks of `text` from `block` on. At most [`Self::free`], at least one.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    pub(super) fn push(&mut self, text: usize, nonce: [u32; 3], block: u32, len: usize) {
        debug_assert!((1..=self.free()).contains(&len));
        let lanes = (((1u32 << len) - 1) << self.lanes) as __mmask16;
        let iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let first = _mm512_set1_epi32(block.wrapping_sub(self.lanes as u32) as i32);
        self.counter = _mm512_mask_add_epi32(self.counter, lanes, iota, first);
        for (vector, word) in self.nonce.iter_mut().zip(nonce) {
            *vector = _mm512_mask_set1_epi32(*vector, lanes, word as i32);
        }
        self.runs[self.run_count] = Run { text, block, lane: self.lanes, len };
        self.run_count += 1;
        self.lanes += len;
    }

    /// Computes the blocks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    pub(super) fn keystream(&self, key: &[u32; 8], out: &mut Keystream) {
        blocks(key, self.counter, self.nonce, out, |_| ());
    }
}

/// Computes a block on each lane, with the lane's block counter and words of the nonce. After each of the ten double rounds
/// there is room for other work of about a quarter of its size.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
pub(super) fn blocks(
    key: &[u32; 8],
    counter: __m512i,
    nonce: [__m512i; 3],
    out: &mut Keystream,
    mut between: impl FnMut(usize),
) {
    let constant = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
    let mut state = [_mm512_setzero_si512(); 16];
    for i in 0..4 {
        state[i] = _mm512_set1_epi32(constant[i]);
    }
    for i in 0..8 {
        state[4 + i] = _mm512_set1_epi32(key[i] as i32);
    }
    state[12] = counter;
    state[13] = nonce[0];
    state[14] = nonce[1];
    state[15] = nonce[2];
    for i in 0..10 {
        double_round(&mut state);
        between(i);
    }
    for i in 0..4 {
        state[i] = _mm512_add_epi32(state[i], _mm512_set1_epi32(constant[i]));
    }
    for i in 0..8 {
        state[4 + i] = _mm512_add_epi32(state[4 + i], _mm512_set1_epi32(key[i] as i32));
    }
    state[12] = _mm512_add_epi32(state[12], counter);
    for i in 0..3 {
        state[13 + i] = _mm512_add_epi32(state[13 + i], nonce[i]);
    }
    transpose(&mut state);
    out.0 = state;
}

/// A column round and a diagonal round (RFC 8439, section 2.3), the four quarter rounds of each side by side. A variable for
/// each word and no loops: only so does the compiler keep the words in registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn double_round(state: &mut [__m512i; 16]) {
    let [mut a0, mut a1, mut a2, mut a3, mut b0, mut b1, mut b2, mut b3, ..] = *state;
    let [.., mut c0, mut c1, mut c2, mut c3, mut d0, mut d1, mut d2, mut d3] = *state;
    macro_rules! add_xor_turn {
        ($by:literal: $($sum:ident $with:ident $turned:ident),*) => {
            $($sum = _mm512_add_epi32($sum, $with);)*
            $($turned = _mm512_rol_epi32::<$by>(_mm512_xor_si512($turned, $sum));)*
        };
    }
    add_xor_turn!(16: a0 b0 d0, a1 b1 d1, a2 b2 d2, a3 b3 d3);
    add_xor_turn!(12: c0 d0 b0, c1 d1 b1, c2 d2 b2, c3 d3 b3);
    add_xor_turn!(8: a0 b0 d0, a1 b1 d1, a2 b2 d2, a3 b3 d3);
    add_xor_turn!(7: c0 d0 b0, c1 d1 b1, c2 d2 b2, c3 d3 b3);
    add_xor_turn!(16: a0 b1 d3, a1 b2 d0, a2 b3 d1, a3 b0 d2);
    add_xor_turn!(12: c2 d3 b1, c3 d0 b2, c0 d1 b3, c1 d2 b0);
    add_xor_turn!(8: a0 b1 d3, a1 b2 d0, a2 b3 d1, a3 b0 d2);
    add_xor_turn!(7: c2 d3 b1, c3 d0 b2, c0 d1 b3, c1 d2 b0);
    *state = [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3];
}

/// From word w of every block to every word of block b.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn transpose(v: &mut [__m512i; 16]) {
    // Four words of a block come together in 128 bits: of block 4 * lane + j in `v[4 * group + j]`.
    for group in v.as_chunks_mut::<4>().0 {
        let [a, b, c, d] = *group;
        let (low_ab, high_ab) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (low_cd, high_cd) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        group[0] = _mm512_unpacklo_epi64(low_ab, low_cd);
        group[1] = _mm512_unpackhi_epi64(low_ab, low_cd);
        group[2] = _mm512_unpacklo_epi64(high_ab, high_cd);
        group[3] = _mm512_unpackhi_epi64(high_ab, high_cd);
    }
    let q = *v;
    for j in 0..4 {
        let low_01 = _mm512_shuffle_i32x4::<0x44>(q[j], q[4 + j]);
        let high_01 = _mm512_shuffle_i32x4::<0xEE>(q[j], q[4 + j]);
        let low_23 = _mm512_shuffle_i32x4::<0x44>(q[8 + j], q[12 + j]);
        let high_23 = _mm512_shuffle_i32x4::<0xEE>(q[8 + j], q[12 + j]);
        v[j] = _mm512_shuffle_i32x4::<0x88>(low_01, low_23);
        v[4 + j] = _mm512_shuffle_i32x4::<0xDD>(low_01, low_23);
        v[8 + j] = _mm512_shuffle_i32x4::<0x88>(high_01, high_23);
        v[12 + j] = _mm512_shuffle_i32x4::<0xDD>(high_01, high_23);
    }
}

//! The ChaCha20 block function (RFC 8439, section 2.3), eight blocks at once.
//!
//! Word w of all eight blocks stands in one vector, so that a quarter round on four vectors is a quarter round of every block.
//! The blocks need nothing in common but the key: a [`Pass`] is put together from runs of blocks of as many segments as it takes
//! to fill the lanes. At the end the words are transposed, and a run's keystream lies in one piece.

use super::opaque;
use std::arch::x86_64::*;

/// Blocks of one pass.
pub(super) const LANES: usize = 8;

/// Bytes of one block.
pub(super) const BLOCK: usize = 64;

/// The keystream of one pass: that of a run starts at its lane.
#[repr(C, align(32))]
pub(super) struct Keystream(pub(super) [u8; LANES * BLOCK]);

/// Consecutive blocks of one segment on consecutive lanes.
#[derive(Clone, Copy, Default)]
pub(super) struct Run {
    pub(super) segment: usize,
    pub(super) block: u32,
    pub(super) lane: usize,
    pub(super) len: usize,
}

/// Which blocks the lanes are to compute.
pub(super) struct Pass {
    counter: __m256i,
    nonce: [__m256i; 3],
    runs: [Run; LANES],
    run_count: usize,
    lanes: usize,
}

impl Pass {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn new() -> Self {
        let zero = _mm256_setzero_si256();
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

    /// Gives `len` lanes to the blocks of `segment` from `block` on. At most [`Self::free`], at least one.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn push(&mut self, segment: usize, nonce: [u32; 3], block: u32, len: usize) {
        debug_assert!((1..=self.free()).contains(&len));
        // All lanes from here on: those behind the run are given to another one later, or not looked at.
        let iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let from_here = _mm256_cmpgt_epi32(iota, _mm256_set1_epi32(self.lanes as i32 - 1));
        let blocks = _mm256_add_epi32(iota, _mm256_set1_epi32(block.wrapping_sub(self.lanes as u32) as i32));
        self.counter = _mm256_blendv_epi8(self.counter, blocks, from_here);
        for (vector, word) in self.nonce.iter_mut().zip(nonce) {
            *vector = _mm256_blendv_epi8(*vector, _mm256_set1_epi32(word as i32), from_here);
        }
        self.runs[self.run_count] = Run { segment, block, lane: self.lanes, len };
        self.run_count += 1;
        self.lanes += len;
    }

    /// Computes the blocks. One copy of it for all who call.
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    pub(super) fn keystream(&self, key: &[u32; 8], out: &mut Keystream) {
        let constant = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
        let mut state = [_mm256_setzero_si256(); 16];
        for i in 0..4 {
            state[i] = _mm256_set1_epi32(constant[i]);
        }
        for i in 0..8 {
            state[4 + i] = _mm256_set1_epi32(key[i] as i32);
        }
        state[12] = self.counter;
        state[13] = self.nonce[0];
        state[14] = self.nonce[1];
        state[15] = self.nonce[2];
        let turns = Turns::new();
        for _ in 0..10 {
            double_round(&mut state, &turns);
        }
        for i in 0..4 {
            state[i] = _mm256_add_epi32(state[i], _mm256_set1_epi32(constant[i]));
        }
        for i in 0..8 {
            state[4 + i] = _mm256_add_epi32(state[4 + i], _mm256_set1_epi32(key[i] as i32));
        }
        state[12] = _mm256_add_epi32(state[12], self.counter);
        for i in 0..3 {
            state[13 + i] = _mm256_add_epi32(state[13 + i], self.nonce[i]);
        }
        let [front, back] = state.as_chunks::<8>().0 else { unreachable!("sixteen words are twice eight") };
        let (front, back) = (transposed(front), transposed(back));
        let halves = out.0.as_chunks_mut::<32>().0.as_chunks_mut::<2>().0;
        for (block, (front, back)) in halves.iter_mut().zip(front.iter().zip(&back)) {
            store(&mut block[0], *front);
            store(&mut block[1], *back);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(to: &mut [u8; 32], vector: __m256i) {
    // SAFETY: there is room for the 32 bytes of a vector; the store asks for no alignment.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), vector) };
}

/// A column round and a diagonal round (RFC 8439, section 2.3), the four quarter rounds of each side by side. A variable for
/// each word and no loops, so that the compiler need not keep the words in memory.
#[inline]
#[target_feature(enable = "avx2")]
fn double_round(state: &mut [__m256i; 16], turns: &Turns) {
    let [mut a0, mut a1, mut a2, mut a3, mut b0, mut b1, mut b2, mut b3, ..] = *state;
    let [.., mut c0, mut c1, mut c2, mut c3, mut d0, mut d1, mut d2, mut d3] = *state;
    macro_rules! add_xor_turn {
        (bytes $by:ident: $($sum:ident $with:ident $turned:ident),*) => {
            $($sum = _mm256_add_epi32($sum, $with);)*
            $($turned = _mm256_shuffle_epi8(_mm256_xor_si256($turned, $sum), turns.$by);)*
        };
        ($turn:ident: $($sum:ident $with:ident $turned:ident),*) => {
            $($sum = _mm256_add_epi32($sum, $with);)*
            $($turned = $turn(_mm256_xor_si256($turned, $sum));)*
        };
    }
    add_xor_turn!(bytes by_16: a0 b0 d0, a1 b1 d1, a2 b2 d2, a3 b3 d3);
    add_xor_turn!(turned_12: c0 d0 b0, c1 d1 b1, c2 d2 b2, c3 d3 b3);
    add_xor_turn!(bytes by_8: a0 b0 d0, a1 b1 d1, a2 b2 d2, a3 b3 d3);
    add_xor_turn!(turned_7: c0 d0 b0, c1 d1 b1, c2 d2 b2, c3 d3 b3);
    add_xor_turn!(bytes by_16: a0 b1 d3, a1 b2 d0, a2 b3 d1, a3 b0 d2);
    add_xor_turn!(turned_12: c2 d3 b1, c3 d0 b2, c0 d1 b3, c1 d2 b0);
    add_xor_turn!(bytes by_8: a0 b1 d3, a1 b2 d0, a2 b3 d1, a3 b0 d2);
    add_xor_turn!(turned_7: c2 d3 b1, c3 d0 b2, c0 d1 b3, c1 d2 b0);
    *state = [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3];
}

/// Where the bytes of a word turned left by 16 bits, and by 8, come from: whole bytes are cheapest moved as such.
struct Turns {
    by_16: __m256i,
    by_8: __m256i,
}

impl Turns {
    /// The compiler is not to know what is in them: it would take two instructions for one, such as to move the bytes of both sides
    /// of an exclusive or.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new() -> Self {
        let by_16 = _mm_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
        let by_8 = _mm_setr_epi8(3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14);
        Self { by_16: opaque(_mm256_broadcastsi128_si256(by_16)), by_8: opaque(_mm256_broadcastsi128_si256(by_8)) }
    }
}

/// Each word turned left by 12 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn turned_12(words: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_slli_epi32::<12>(words), _mm256_srli_epi32::<20>(words))
}

/// Each word turned left by 7 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn turned_7(words: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_slli_epi32::<7>(words), _mm256_srli_epi32::<25>(words))
}

/// From word w of every block to every word of block b.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(v: &[__m256i; 8]) -> [__m256i; 8] {
    let (p, q) = (quads([v[0], v[1], v[2], v[3]]), quads([v[4], v[5], v[6], v[7]]));
    [
        _mm256_permute2x128_si256::<0x20>(p[0], q[0]),
        _mm256_permute2x128_si256::<0x20>(p[1], q[1]),
        _mm256_permute2x128_si256::<0x20>(p[2], q[2]),
        _mm256_permute2x128_si256::<0x20>(p[3], q[3]),
        _mm256_permute2x128_si256::<0x31>(p[0], q[0]),
        _mm256_permute2x128_si256::<0x31>(p[1], q[1]),
        _mm256_permute2x128_si256::<0x31>(p[2], q[2]),
        _mm256_permute2x128_si256::<0x31>(p[3], q[3]),
    ]
}

/// Four words of a block come together in 128 bits: of blocks j and 4 + j in vector j.
#[inline]
#[target_feature(enable = "avx2")]
fn quads([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (low_ab, high_ab) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (low_cd, high_cd) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(low_ab, low_cd),
        _mm256_unpackhi_epi64(low_ab, low_cd),
        _mm256_unpacklo_epi64(high_ab, high_cd),
        _mm256_unpackhi_epi64(high_ab, high_cd),
    ]
}

/// `out = text ^ keystream`; the three are of one length.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn xor_from(out: &mut [u8], text: &[u8], keystream: &[u8]) {
    assert!(text.len() == out.len() && keystream.len() == out.len());
    let ((out, out_rest), (text, text_rest)) = (out.as_chunks_mut::<32>(), text.as_chunks::<32>());
    let (keystream, keystream_rest) = keystream.as_chunks::<32>();
    for ((out, text), keystream) in out.iter_mut().zip(text).zip(keystream) {
        *out = mixed(text, keystream);
    }
    let ((out, out_rest), (text, text_rest)) = (out_rest.as_chunks_mut::<4>(), text_rest.as_chunks::<4>());
    let (keystream, keystream_rest) = keystream_rest.as_chunks::<4>();
    for ((out, text), keystream) in out.iter_mut().zip(text).zip(keystream) {
        *out = mixed(text, keystream);
    }
    for ((out, text), keystream) in out_rest.iter_mut().zip(text_rest).zip(keystream_rest) {
        *out = text ^ keystream;
    }
}

/// `text ^= keystream`; both are of one length.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn xor(text: &mut [u8], keystream: &[u8]) {
    assert!(keystream.len() == text.len());
    let ((text, text_rest), (keystream, keystream_rest)) = (text.as_chunks_mut::<32>(), keystream.as_chunks::<32>());
    for (text, keystream) in text.iter_mut().zip(keystream) {
        *text = mixed(text, keystream);
    }
    let ((text, text_rest), (keystream, keystream_rest)) =
        (text_rest.as_chunks_mut::<4>(), keystream_rest.as_chunks::<4>());
    for (text, keystream) in text.iter_mut().zip(keystream) {
        *text = mixed(text, keystream);
    }
    for (text, keystream) in text_rest.iter_mut().zip(keystream_rest) {
        *text ^= keystream;
    }
}

/// So many bytes at once as one register holds, which the compiler sees.
#[inline]
#[target_feature(enable = "avx2")]
fn mixed<const N: usize>(a: &[u8; N], b: &[u8; N]) -> [u8; N] {
    let mut out = *a;
    for (out, b) in out.iter_mut().zip(b) {
        *out ^= b;
    }
    out
}

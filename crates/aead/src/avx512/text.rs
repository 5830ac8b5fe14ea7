//! A segment's text as the vector code sees it: two addresses and some lengths.
//!
//! Sealing and opening are the same to it. The text lies or goes to `out`, in blocks of 64 bytes; what is not yet there, the
//! body, is read from `from`; the tag follows the text.

use super::chacha::BLOCK;
use crate::{OpenSegment, SealSegment, TAG_LEN};
use std::{arch::x86_64::*, marker::PhantomData, ops::Range};

/// The text of one segment.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    out: *mut u8,
    /// Byte i of the text lies at `from + i`, if i is in the body. What is not need not be an address at all.
    from: *const u8,
    head: usize,
    body_end: usize,
    pub(super) len: usize,
    /// The nonce: its first word, and the other two as one number, little-endian.
    pub(super) nonce: (u32, u64),
    /// Which segment of the batch.
    pub(super) index: u8,
    borrowed: PhantomData<&'a mut [u8]>,
}

fn words(nonce: &[u8; 12]) -> (u32, u64) {
    let (first, others) = nonce.split_first_chunk().expect("a nonce is longer than a word");
    (u32::from_le_bytes(*first), u64::from_le_bytes(*others.first_chunk().expect("a nonce is three words")))
}

impl<'a> Text<'a> {
    /// That of a segment to seal; `out` has room for a tag, at least.
    #[inline]
    pub(super) fn to_seal(segment: &'a mut SealSegment<'_>, index: u8) -> Self {
        let (head, body_end) = (segment.head, segment.head.saturating_add(segment.body.len()));
        let len = segment.out.len() - TAG_LEN;
        assert!(head <= body_end && body_end <= len, "the text and a tag fit the buffer");
        let from = segment.body.as_ptr().wrapping_sub(head);
        let (out, nonce) = (segment.out.as_mut_ptr(), words(&segment.nonce));
        Self { out, from, head, body_end, len, nonce, index, borrowed: PhantomData }
    }

    /// That of a segment to open, which holds a tag, at least.
    #[inline]
    pub(super) fn to_open(segment: &'a mut OpenSegment<'_>, index: u8) -> Self {
        let len = segment.text.len() - TAG_LEN;
        let (out, nonce) = (segment.text.as_mut_ptr(), words(&segment.nonce));
        Self { out, from: out, head: 0, body_end: len, len, nonce, index, borrowed: PhantomData }
    }

    /// Blocks of keystream that it takes, the first for the tag's key not counted.
    #[inline]
    pub(super) fn blocks(&self) -> u32 {
        self.len.div_ceil(BLOCK) as u32
    }

    /// The text as it lies in `out`.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `to_seal` and `to_open` took both from one slice, borrowed for as long as this lives.
        unsafe { std::slice::from_raw_parts(self.out, self.len) }
    }

    /// Where the tag goes or lies.
    #[inline]
    pub(super) fn tag(&mut self) -> &mut [u8; TAG_LEN] {
        // SAFETY: the slice that `out` was taken from has a tag's length behind the text.
        unsafe { &mut *self.out.add(self.len).cast() }
    }

    /// Overwrites the text.
    pub(super) fn wipe(&mut self) {
        // SAFETY: as for `bytes`, and this is borrowed alone.
        unsafe { self.out.write_bytes(0, self.len) };
    }

    /// The blocks that lie in the body wholly.
    #[inline]
    pub(super) fn whole_blocks(&self) -> Range<u32> {
        1 + self.head.div_ceil(BLOCK) as u32..1 + (self.body_end / BLOCK) as u32
    }

    /// Turns a block, the first being 1, and returns it as it is encrypted, with zeros behind the text.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    pub(super) fn turn<const SEAL: bool>(&mut self, block: u32, keystream: __m512i) -> __m512i {
        let at = (block as usize - 1) * BLOCK;
        let until = |end: usize| first_bytes(end.saturating_sub(at).min(BLOCK));
        let in_text = until(self.len);
        let (in_head, in_body) =
            if SEAL { (until(self.head), until(self.body_end) & !until(self.head)) } else { (0, in_text) };
        let (out, from) = (self.out.wrapping_add(at), self.from.wrapping_add(at));
        // SAFETY: the masks let through what is in the head, which lies in `out`; what is in the body, which lies at `from`;
        // and what is in the text. What they keep back is not touched.
        unsafe {
            let before = if SEAL { _mm512_maskz_loadu_epi8(in_head, out.cast()) } else { _mm512_setzero_si512() };
            let before = _mm512_mask_loadu_epi8(before, in_body, from.cast());
            let after = _mm512_xor_si512(before, keystream);
            _mm512_mask_storeu_epi8(out.cast(), in_text, after);
            if SEAL { _mm512_maskz_mov_epi8(in_text, after) } else { before }
        }
    }

    /// The same of one of [`Self::whole_blocks`].
    ///
    /// # Safety
    /// It is one of them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    pub(super) unsafe fn turn_whole<const SEAL: bool>(&mut self, block: u32, keystream: __m512i) -> __m512i {
        let at = (block as usize - 1) * BLOCK;
        // SAFETY: a whole block of the body, says the caller, and so of the text too; no alignment is asked for.
        unsafe {
            let before = _mm512_loadu_si512(self.from.wrapping_add(at).cast());
            let after = _mm512_xor_si512(before, keystream);
            _mm512_storeu_si512(self.out.add(at).cast(), after);
            if SEAL { after } else { before }
        }
    }
}

/// A mask of the first `count` of 64 bytes.
#[inline]
pub(super) fn first_bytes(count: usize) -> __mmask64 {
    if count == 64 { !0 } else { (1 << count) - 1 }
}

//! Segments of any lengths, one after the other.
//!
//! A group's blocks fill the lanes of one pass after another: first every segment's block 0, which is the one-time key of its
//! tag, then the blocks of text, segment after segment. The group is so small that its bytes stay in the cache between the
//! cipher and the authenticator. To open, it is authenticated first, and only what is authentic is decrypted.

use super::{
    chacha::{Keystream, Pass},
    poly1305::{self, OneTimeKey, Powers, SEGMENTS},
    text::Text,
    wipe,
};
use crate::TAG_LEN;
use subtle::ConstantTimeEq;

/// Segments of a group, at most.
pub(super) const GROUP: usize = 16;

/// What is secret.
#[repr(C)]
struct Secret {
    keystream: Keystream,
    powers: Powers,
    keys: [OneTimeKey; GROUP],
}

/// A walk over the blocks of a group, pass by pass.
struct Walk {
    count: usize,
    nonces: [[u32; 3]; GROUP],
    blocks: [u32; GROUP],
    text: usize,
    block: u32,
}

impl Walk {
    #[inline]
    fn new(texts: &[Text<'_>]) -> Self {
        let mut walk = Self { count: texts.len(), nonces: [[0; 3]; GROUP], blocks: [0; GROUP], text: 0, block: 1 };
        for ((text, nonce), blocks) in texts.iter().zip(&mut walk.nonces).zip(&mut walk.blocks) {
            let (first, others) = text.nonce;
            *nonce = [first, others as u32, (others >> 32) as u32];
            *blocks = text.blocks();
        }
        walk
    }

    /// The first pass: block 0 of every segment, then blocks of text as far as there is room.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    fn first(&mut self, pass: &mut Pass) {
        pass.clear();
        for text in 0..self.count {
            pass.push(text, self.nonces[text], 0, 1);
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
        while pass.free() > 0 && self.text < self.count {
            let left = (self.blocks[self.text] + 1).saturating_sub(self.block);
            if left == 0 {
                self.text += 1;
                self.block = 1;
                continue;
            }
            let len = left.min(pass.free() as u32);
            pass.push(self.text, self.nonces[self.text], self.block, len as usize);
            self.block += len;
        }
    }

    /// Takes a text off the walk.
    #[inline]
    fn skip(&mut self, text: usize) {
        self.blocks[text] = 0;
    }
}

/// Seals or opens a group of at most [`GROUP`]. Tells of each text whether it is authentic.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
pub(super) fn work<const SEAL: bool>(key: &[u32; 8], texts: &mut [Text<'_>], tell: &mut impl FnMut(&Text<'_>, bool)) {
    // SAFETY: bytes and vectors of integers; zeros are valid for all of it.
    let mut secret: Secret = unsafe { std::mem::zeroed() };
    let mut walk = Walk::new(texts);
    let mut pass = Pass::new();
    walk.first(&mut pass);
    pass.keystream(key, &mut secret.keystream);
    for run in pass.runs().iter().take_while(|run| run.block == 0) {
        let block = &secret.keystream.0[run.lane];
        // SAFETY: a block is twice as long as a one-time key and any bytes are one.
        secret.keys[run.text] = unsafe { *std::ptr::from_ref(block).cast::<OneTimeKey>() };
    }
    let mut authentic = [SEAL; GROUP];
    if !SEAL {
        tags(texts, &mut secret, |i, text, tag| {
            authentic[i] = u128::from_le_bytes(*text.tag()).ct_eq(&u128::from_le_bytes(tag)).into();
            tell(text, authentic[i]);
            if !authentic[i] {
                walk.skip(i);
            }
        });
    }
    while !pass.runs().is_empty() {
        for run in pass.runs() {
            if run.block > 0 && authentic[run.text] {
                let text = &mut texts[run.text];
                let whole = text.whole_blocks();
                for (keystream, block) in secret.keystream.0[run.lane..][..run.len].iter().zip(run.block..) {
                    if whole.contains(&block) {
                        // SAFETY: just asked.
                        unsafe { text.turn_whole::<SEAL>(block, *keystream) };
                    } else {
                        text.turn::<SEAL>(block, *keystream);
                    }
                }
            }
        }
        walk.next(&mut pass);
        if !pass.runs().is_empty() {
            pass.keystream(key, &mut secret.keystream);
        }
    }
    if SEAL {
        tags(texts, &mut secret, |_, text, tag| {
            *text.tag() = tag;
            tell(text, true);
        });
    }
    wipe(&mut secret);
}

/// The tag of every text.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn tags(texts: &mut [Text<'_>], secret: &mut Secret, mut take: impl FnMut(usize, &mut Text<'_>, [u8; TAG_LEN])) {
    for (i, (texts, keys)) in texts.chunks_mut(SEGMENTS).zip(secret.keys.chunks(SEGMENTS)).enumerate() {
        let count = texts.len();
        let mut tags = [[0; TAG_LEN]; SEGMENTS];
        let mut bytes = [&[][..]; SEGMENTS];
        for (bytes, text) in bytes.iter_mut().zip(&*texts) {
            *bytes = text.bytes();
        }
        poly1305::tags(&keys[..count], &bytes[..count], &mut secret.powers, &mut tags[..count]);
        for (j, (text, tag)) in texts.iter_mut().zip(tags).enumerate() {
            take(i * SEGMENTS + j, text, tag);
        }
    }
}

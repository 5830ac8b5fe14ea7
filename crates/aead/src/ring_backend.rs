//! The AEAD by `ring`: one segment after the other, in hand-written assembly.

use crate::{BatchAead, KEY_LEN, OpenSegment, SealSegment, TAG_LEN, wipe::Wiped};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

pub(crate) struct RingKey(Wiped<LessSafeKey>);

impl RingKey {
    pub(crate) fn new(key: &[u8; KEY_LEN]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key of 32 bytes is the only length it takes");
        Self(Wiped::new(LessSafeKey::new(key)))
    }
}

impl BatchAead for RingKey {
    fn seal(&self, batch: &mut [SealSegment<'_>]) {
        for segment in batch {
            let (text, tag_out) = segment.out.split_at_mut(segment.out.len() - TAG_LEN);
            let padding = segment.head + segment.body.len();
            text[segment.head..padding].copy_from_slice(segment.body);
            text[padding..].fill(0);
            let nonce = Nonce::assume_unique_for_key(segment.nonce);
            let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(segment.aad), text);
            let tag = tag.expect("fails only beyond 2^38 bytes, which no buffer of ours holds");
            tag_out.copy_from_slice(tag.as_ref());
        }
    }

    fn open(&self, batch: &mut [OpenSegment<'_>]) -> usize {
        let mut authentic = 0;
        for segment in batch {
            let nonce = Nonce::assume_unique_for_key(segment.nonce);
            segment.authentic = self.0.open_in_place(nonce, Aad::from(segment.aad), segment.text).is_ok();
            authentic += usize::from(segment.authentic);
        }
        authentic
    }
}

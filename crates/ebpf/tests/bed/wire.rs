//! The other end, without programs: messages sealed and opened by `ring`, packets made by hand.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

fn key(bytes: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, bytes).unwrap())
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// A transport message with this payload, padding included.
pub fn seal(secret: &[u8; 32], index: u32, counter: u64, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![4, 0, 0, 0];
    message.extend(index.to_le_bytes());
    message.extend(counter.to_le_bytes());
    let mut text = payload.to_vec();
    key(secret).seal_in_place_append_tag(nonce(counter), Aad::empty(), &mut text).unwrap();
    message.extend(text);
    message
}

/// Receiver index, counter and payload of a transport message, if it is one and authentic.
pub fn open(secret: &[u8; 32], message: &[u8]) -> Option<(u32, u64, Vec<u8>)> {
    let index = u32::from_le_bytes(message.get(4..8)?.try_into().ok()?);
    let counter = u64::from_le_bytes(message.get(8..16)?.try_into().ok()?);
    if message[..4] != [4, 0, 0, 0] {
        return None;
    }
    let mut text = message[16..].to_vec();
    let plain = key(secret).open_in_place(nonce(counter), Aad::empty(), &mut text).ok()?;
    Some((index, counter, plain.to_vec()))
}

//! The symmetric half of Noise: a hash of all that was said, and a chain of keys from all that was agreed.
//!
//! As in the Noise specification, section 5.2, with BLAKE2s, HMAC and ChaCha20-Poly1305. Each key made here seals one
//! text only, so the nonce is always zero. What is kept wipes itself; what the hash function leaves on the stack of a call does not.

use blake2::digest::Mac;
use blake2::{Blake2s256, Blake2sMac, Digest};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, Tag};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::key::{PublicKey, SharedSecret};

/// Length of a hash, and of every key that is made of one.
pub(crate) const HASH_LEN: usize = 32;
const BLOCK_LEN: usize = 64;
const PROTOCOL: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";

/// The text did not authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// BLAKE2s-256 of the parts one after the other.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; HASH_LEN] {
    let mut state = Blake2s256::new();
    for part in parts {
        Digest::update(&mut state, part);
    }
    state.finalize().into()
}

/// Keyed BLAKE2s with 16 bytes of output, over the parts one after the other (whitepaper 5.4: MAC).
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    // BLAKE2s takes keys of up to 32 bytes; all of ours have 16 or 32.
    let mut state = <Blake2sMac<blake2::digest::consts::U16> as KeyInit>::new_from_slice(key)
        .expect("keys of up to 32 bytes are valid, and no other is used");
    for part in parts {
        Mac::update(&mut state, part);
    }
    state.finalize().into_bytes().into()
}

/// Keyed BLAKE2s with 32 bytes of output, over the parts one after the other.
pub(crate) fn keyed_hash(key: &[u8; HASH_LEN], parts: &[&[u8]]) -> [u8; HASH_LEN] {
    let mut state = <Blake2sMac<blake2::digest::consts::U32> as KeyInit>::new_from_slice(key)
        .expect("keys of up to 32 bytes are valid, and this has 32");
    for part in parts {
        Mac::update(&mut state, part);
    }
    state.finalize().into_bytes().into()
}

/// HMAC-BLAKE2s (RFC 2104), which unlike the keyed hash is what Noise's key derivation is defined with.
fn hmac(key: &[u8; HASH_LEN], parts: &[&[u8]]) -> Zeroizing<[u8; HASH_LEN]> {
    let mut pad = Zeroizing::new([0x36; BLOCK_LEN]);
    for (pad, key) in pad.iter_mut().zip(key) {
        *pad ^= key;
    }
    let mut inner = Blake2s256::new();
    Digest::update(&mut inner, pad.as_slice());
    for part in parts {
        Digest::update(&mut inner, part);
    }
    let inner = Zeroizing::new(<[u8; HASH_LEN]>::from(inner.finalize()));
    for pad in pad.iter_mut() {
        *pad ^= 0x36 ^ 0x5c;
    }
    Zeroizing::new(hash(&[pad.as_slice(), inner.as_slice()]))
}

/// `N` keys from a chaining key and an input (whitepaper 5.4: KDF_n).
fn derive<const N: usize>(chaining_key: &[u8; HASH_LEN], input: &[u8]) -> [Zeroizing<[u8; HASH_LEN]>; N] {
    let secret = hmac(chaining_key, &[input]);
    let mut keys: [Zeroizing<[u8; HASH_LEN]>; N] = std::array::from_fn(|_| Zeroizing::new([0; HASH_LEN]));
    for n in 0..N {
        let number = [n as u8 + 1];
        keys[n] = match n {
            0 => hmac(&secret, &[&number]),
            _ => hmac(&secret, &[keys[n - 1].as_slice(), &number]),
        };
    }
    keys
}

/// Hash, chaining key and the latest cipher key of a handshake.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct SymmetricState {
    hash: [u8; HASH_LEN],
    chaining_key: [u8; HASH_LEN],
    key: [u8; HASH_LEN],
}

impl SymmetricState {
    /// The state before the first message to the responder with that static key.
    pub(crate) fn new(prologue: &[u8], responder: &PublicKey) -> Self {
        let chaining_key = hash(&[PROTOCOL]);
        let mut state = Self { hash: chaining_key, chaining_key, key: [0; HASH_LEN] };
        state.mix_hash(prologue);
        state.mix_hash(responder.as_bytes());
        state
    }

    /// What both sides have hashed, if they have seen the same.
    #[cfg(test)]
    pub(crate) fn handshake_hash(&self) -> [u8; HASH_LEN] {
        self.hash
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    fn mix_key(&mut self, input: &[u8; 32]) {
        let [chaining_key, key] = derive(&self.chaining_key, input);
        self.chaining_key = *chaining_key;
        self.key = *key;
    }

    /// An ephemeral key; with preshared keys it goes into the chain too, so that no key depends on that secret alone.
    pub(crate) fn mix_ephemeral(&mut self, ephemeral: &PublicKey) {
        self.mix_hash(ephemeral.as_bytes());
        self.mix_key(ephemeral.as_bytes());
    }

    /// The result of a Diffie-Hellman.
    pub(crate) fn mix_shared(&mut self, shared: &SharedSecret) {
        self.mix_key(shared.as_bytes());
    }

    /// The preshared key, or zeros.
    pub(crate) fn mix_preshared(&mut self, preshared: &[u8; 32]) {
        let [chaining_key, hashed, key] = derive(&self.chaining_key, preshared);
        self.chaining_key = *chaining_key;
        self.mix_hash(hashed.as_slice());
        self.key = *key;
    }

    /// Seals `text` into `out`, which is longer by a tag.
    pub(crate) fn seal_and_hash(&mut self, text: &[u8], out: &mut [u8]) {
        let (body, tag) = out.split_at_mut(text.len());
        body.copy_from_slice(text);
        let sealed = ChaCha20Poly1305::new(&self.key.into())
            .encrypt_in_place_detached(&Nonce::default(), &self.hash, body)
            .expect("sealing fails only for texts of 256 GiB");
        tag.copy_from_slice(&sealed);
        self.mix_hash(out);
    }

    /// Opens `sealed` into `out`, which is shorter by a tag.
    pub(crate) fn open_and_hash(&mut self, sealed: &[u8], out: &mut [u8]) -> Result<(), NotAuthentic> {
        let (body, tag) = sealed.split_at(out.len());
        out.copy_from_slice(body);
        ChaCha20Poly1305::new(&self.key.into())
            .decrypt_in_place_detached(&Nonce::default(), &self.hash, out, Tag::from_slice(tag))
            .map_err(|_| NotAuthentic)?;
        self.mix_hash(sealed);
        Ok(())
    }

    /// The two transport keys: what the initiator seals with, then what the responder does.
    pub(crate) fn split(&self) -> (SharedSecret, SharedSecret) {
        let [first, second] = derive(&self.chaining_key, &[]);
        (SharedSecret::new(first), SharedSecret::new(second))
    }
}

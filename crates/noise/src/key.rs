//! Keys: what they are, and that they leave no trace.
//!
//! A [`PrivateKey`] is clamped when it is made, so that it reads back as it is used. Secrets wipe themselves when
//! dropped, are compared in constant time, and have no `Debug`. Text formats belong to `config`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes in each kind of key.
pub const KEY_LEN: usize = 32;

/// A peer's identity, a point on Curve25519.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// Any 32 bytes are a public key; those of low order are found out by [`PrivateKey::agree`].
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The key as it stands on the wire.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Debug for PublicKey {
    /// The first six letters of its base64, enough to tell peers apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = STANDARD_NO_PAD.encode(self.0);
        write!(f, "{}…", &text[..6])
    }
}

/// A Curve25519 secret, clamped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; KEY_LEN]);

impl PrivateKey {
    /// Clamps and keeps the bytes (RFC 7748, section 5).
    pub fn from_bytes(mut bytes: [u8; KEY_LEN]) -> Self {
        bytes[0] &= 248;
        bytes[31] = (bytes[31] & 127) | 64;
        let key = Self(bytes);
        bytes.zeroize();
        key
    }

    /// A new key from that source of randomness.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; KEY_LEN];
        rng.fill_bytes(&mut bytes);
        let key = Self::from_bytes(bytes);
        bytes.zeroize();
        key
    }

    /// The clamped bytes. Whoever copies them has a secret to wipe.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        let secret = x25519_dalek::StaticSecret::from(self.0);
        PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }

    /// X25519 with another's public key. `None` when the result is all zeros, that is when the other key is a point of
    /// low order: such a result is known to everybody.
    pub fn agree(&self, public: &PublicKey) -> Option<SharedSecret> {
        let secret = x25519_dalek::StaticSecret::from(self.0);
        let shared = secret.diffie_hellman(&x25519_dalek::PublicKey::from(public.0));
        shared.was_contributory().then(|| SharedSecret(Zeroizing::new(shared.to_bytes())))
    }
}

impl PartialEq for PrivateKey {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for PrivateKey {}

/// What two keys agree on, or a key derived from that.
#[derive(Clone)]
pub struct SharedSecret(Zeroizing<[u8; KEY_LEN]>);

impl SharedSecret {
    pub(crate) fn new(bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        Self(bytes)
    }

    /// The bytes. Whoever copies them has a secret to wipe.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

/// A symmetric key shared with one peer beforehand; all zeros, the default, means none.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; KEY_LEN]);

impl PresharedKey {
    /// Keeps the bytes.
    pub fn from_bytes(mut bytes: [u8; KEY_LEN]) -> Self {
        let key = Self(bytes);
        bytes.zeroize();
        key
    }

    /// A new key from that source of randomness.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; KEY_LEN];
        rng.fill_bytes(&mut bytes);
        Self::from_bytes(bytes)
    }

    /// The bytes. Whoever copies them has a secret to wipe.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Whether this is all zeros, in constant time.
    pub fn is_none(&self) -> bool {
        self.0.ct_eq(&[0; KEY_LEN]).into()
    }
}

impl PartialEq for PresharedKey {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for PresharedKey {}

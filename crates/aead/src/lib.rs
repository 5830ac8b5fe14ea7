//! ChaCha20-Poly1305 (RFC 8439) over batches of segments.
//!
//! The unit of work is a batch, because that is how the data planes meet packets: one super-packet is some 45 segments under
//! one key with consecutive nonces. A backend ([`Backend`], of [`BatchAead`]) is given all of them at once and may work on several
//! at a time: `avx512` and `avx2` do, where the machine can; [`ring_backend`] takes them one by one.
//!
//! Sealing is *out of place*: the plaintext of a segment is a head that the caller has already written at the start of the
//! outgoing buffer (inner headers, rewritten for each segment) and a body that still lies in the super-packet. The backend
//! brings the body over, pads with zeros and appends the tag. Opening is in place.
//!
//! Keys wipe themselves when dropped and never print.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod backend;
mod ring_backend;
mod wipe;

pub use backend::{Backend, BackendError};

/// Length of the Poly1305 tag in bytes (RFC 8439, section 2.8).
pub const TAG_LEN: usize = 16;

/// Length of a key in bytes.
pub const KEY_LEN: usize = 32;

/// A 96-bit nonce.
pub type Nonce = [u8; 12];

/// The nonce of a WireGuard transport message: 32 zero bits, then the counter, little-endian (whitepaper, section 5.4.6).
#[inline]
pub fn counter_nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// One segment to seal.
///
/// The plaintext is `out[..head]`, then `body`, then zeros up to `out.len() - TAG_LEN`; the tag fills the rest.
/// `out` must hold at least `head + body.len() + TAG_LEN` bytes.
pub struct SealSegment<'a> {
    /// Never the same twice under one key.
    pub nonce: Nonce,
    /// Authenticated, not encrypted. Empty for WireGuard.
    pub aad: &'a [u8],
    /// Bytes of plaintext that are in place at the start of `out`.
    pub head: usize,
    /// The plaintext that follows them.
    pub body: &'a [u8],
    /// Receives ciphertext and tag.
    pub out: &'a mut [u8],
}

/// One segment to open in place.
pub struct OpenSegment<'a> {
    /// The nonce under which it was sealed.
    pub nonce: Nonce,
    /// Authenticated, not encrypted. Empty for WireGuard.
    pub aad: &'a [u8],
    /// Ciphertext and tag; afterwards, if authentic, plaintext and a spent tag.
    pub text: &'a mut [u8],
    /// Set by [`OpeningKey::open`]. While false, what `text` holds must not be looked at.
    pub authentic: bool,
}

/// What an implementation of the AEAD is: one key, batches of segments.
trait BatchAead: Send + Sync {
    /// Seals every segment.
    fn seal(&self, batch: &mut [SealSegment<'_>]);
    /// Opens every segment, marks the authentic ones and returns how many there are.
    fn open(&self, batch: &mut [OpenSegment<'_>]) -> usize;
}

/// A key that seals.
pub struct SealingKey(Box<dyn BatchAead>);

/// A key that opens.
pub struct OpeningKey(Box<dyn BatchAead>);

impl SealingKey {
    /// Takes the key's bytes; the caller wipes its own copy. Of the backend that this process uses ([`Backend::chosen`]).
    pub fn new(key: &[u8; KEY_LEN]) -> Self {
        Self(backend::key_of_choice(key))
    }

    /// A key of `backend`, if this processor can use it. `alone`: for everything that the backend can do, not only what it is the
    /// faster one for. For tests and benchmarks.
    #[doc(hidden)]
    pub fn with_backend(backend: Backend, alone: bool, key: &[u8; KEY_LEN]) -> Option<Self> {
        backend.key(key, alone).map(Self)
    }

    /// Seals every segment of the batch.
    #[inline]
    pub fn seal(&self, batch: &mut [SealSegment<'_>]) {
        self.0.seal(batch);
    }
}

impl OpeningKey {
    /// Takes the key's bytes; the caller wipes its own copy. Of the backend that this process uses ([`Backend::chosen`]).
    pub fn new(key: &[u8; KEY_LEN]) -> Self {
        Self(backend::key_of_choice(key))
    }

    /// A key of `backend`, if this processor can use it. `alone`: for everything that the backend can do, not only what it is the
    /// faster one for. For tests and benchmarks.
    #[doc(hidden)]
    pub fn with_backend(backend: Backend, alone: bool, key: &[u8; KEY_LEN]) -> Option<Self> {
        backend.key(key, alone).map(Self)
    }

    /// Opens every segment of the batch in place, sets [`OpenSegment::authentic`] on each and returns how many are.
    #[inline]
    pub fn open(&self, batch: &mut [OpenSegment<'_>]) -> usize {
        self.0.open(batch)
    }
}

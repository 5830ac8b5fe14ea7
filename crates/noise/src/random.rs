//! Randomness that cannot be wound back.
//!
//! Every random byte of a device comes from one seed, so that a run can be repeated. Each draw makes a ChaCha20 generator
//! from the seed, takes a new seed from it first, and only then the bytes asked for: what the device keeps does not tell the ephemeral
//! keys of past handshakes. (What a draw leaves on the stack, until something else is written there, does.)

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::key::PrivateKey;

#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Randomness {
    seed: [u8; 32],
}

impl Randomness {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed }
    }

    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        let mut generator = ChaCha20Rng::from_seed(self.seed);
        generator.fill_bytes(&mut self.seed);
        generator.fill_bytes(out);
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    /// An ephemeral key.
    pub(crate) fn key(&mut self) -> PrivateKey {
        let mut bytes = self.bytes();
        let key = PrivateKey::from_bytes(bytes);
        bytes.zeroize();
        key
    }

    /// A time from zero to just below `limit`.
    pub(crate) fn below(&mut self, limit: Duration) -> Duration {
        let limit = limit.as_nanos() as u64;
        // 64 bits modulo less than 2^30: the bias is below one in 2^34.
        Duration::from_nanos(u64::from_le_bytes(self.bytes()) % limit)
    }
}

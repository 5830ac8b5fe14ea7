//! The handshake, Noise_IKpsk2: who says what, and what each side knows then.
//!
//! ```text
//! initiator → responder   e, es, s, ss, payload     (the payload is a timestamp)
//! initiator ← responder   e, ee, se, psk, payload   (the payload is empty)
//! ```
//!
//! The initiator goes from [`Initiator::write`] to [`Initiator::read`], which leaves it as it was when a forged
//! response fails, so that the true one still counts. The responder goes from [`Responder::read_static`], where it
//! learns who is asking, over [`Responder::read_payload`] to [`Responder::write`], all for one datagram, and keeps nothing. Both end with a
//! [`SymmetricState`] to split into transport keys. A Diffie-Hellman that comes to nothing but zeros is an error.
//!
//! The prologue, ephemeral keys and payloads are arguments, so that vectors published for the pattern run through here.

use crate::key::{PrivateKey, PublicKey, SharedSecret};
use crate::symmetric::{NotAuthentic, SymmetricState};

/// WireGuard's prologue (whitepaper 5.4: Identifier).
pub(crate) const PROLOGUE: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// A key of low order: nothing can be agreed with its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LowOrder;

/// Why a message could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    LowOrder,
    NotAuthentic,
}

impl From<NotAuthentic> for ReadError {
    fn from(_: NotAuthentic) -> Self {
        Self::NotAuthentic
    }
}

/// Our long-lived key pair.
pub(crate) struct Identity {
    pub private: PrivateKey,
    pub public: PublicKey,
}

impl Identity {
    pub(crate) fn new(private: PrivateKey) -> Self {
        let public = private.public();
        Self { private, public }
    }
}

/// The first message's fields as an initiator fills them.
pub(crate) struct InitiationOut<'a> {
    pub ephemeral: &'a mut [u8; 32],
    /// 32 bytes and a tag.
    pub sealed_static: &'a mut [u8],
    /// The payload and a tag.
    pub sealed_payload: &'a mut [u8],
}

/// An initiator that waits for its response.
pub(crate) struct Initiator {
    symmetric: SymmetricState,
    ephemeral: PrivateKey,
}

impl Initiator {
    /// Writes the first message to the owner of `remote`; `static_static` is what our identity and theirs agree on.
    pub(crate) fn write(
        prologue: &[u8],
        identity: &Identity,
        remote: &PublicKey,
        static_static: &SharedSecret,
        ephemeral: PrivateKey,
        payload: &[u8],
        out: InitiationOut<'_>,
    ) -> Result<Self, LowOrder> {
        let mut symmetric = SymmetricState::new(prologue, remote);
        let public = ephemeral.public();
        *out.ephemeral = *public.as_bytes();
        symmetric.mix_ephemeral(&public);
        symmetric.mix_shared(&ephemeral.agree(remote).ok_or(LowOrder)?);
        symmetric.seal_and_hash(identity.public.as_bytes(), out.sealed_static);
        symmetric.mix_shared(static_static);
        symmetric.seal_and_hash(payload, out.sealed_payload);
        Ok(Self { symmetric, ephemeral })
    }

    /// Reads the second message. Nothing changes if that fails.
    pub(crate) fn read(
        &self,
        identity: &Identity,
        preshared: &[u8; 32],
        ephemeral: &[u8; 32],
        sealed_payload: &[u8],
        payload: &mut [u8],
    ) -> Result<SymmetricState, ReadError> {
        let mut symmetric = self.symmetric.clone();
        let remote = PublicKey::from_bytes(*ephemeral);
        symmetric.mix_ephemeral(&remote);
        symmetric.mix_shared(&self.ephemeral.agree(&remote).ok_or(ReadError::LowOrder)?);
        symmetric.mix_shared(&identity.private.agree(&remote).ok_or(ReadError::LowOrder)?);
        symmetric.mix_preshared(preshared);
        symmetric.open_and_hash(sealed_payload, payload)?;
        Ok(symmetric)
    }
}

/// A responder in the middle of a first message, or done with it.
pub(crate) struct Responder {
    symmetric: SymmetricState,
    remote_ephemeral: PublicKey,
}

impl Responder {
    /// Reads the first message as far as the initiator's static key. It is not authentic before
    /// [`Responder::read_payload`] has succeeded.
    pub(crate) fn read_static(
        prologue: &[u8],
        identity: &Identity,
        ephemeral: &[u8; 32],
        sealed_static: &[u8],
    ) -> Result<(Self, PublicKey), ReadError> {
        let mut symmetric = SymmetricState::new(prologue, &identity.public);
        let remote_ephemeral = PublicKey::from_bytes(*ephemeral);
        symmetric.mix_ephemeral(&remote_ephemeral);
        symmetric.mix_shared(&identity.private.agree(&remote_ephemeral).ok_or(ReadError::LowOrder)?);
        let mut remote = [0; 32];
        symmetric.open_and_hash(sealed_static, &mut remote)?;
        Ok((Self { symmetric, remote_ephemeral }, PublicKey::from_bytes(remote)))
    }

    /// Reads the rest; `static_static` is what our identity and the initiator's agree on.
    pub(crate) fn read_payload(
        &mut self,
        static_static: &SharedSecret,
        sealed_payload: &[u8],
        payload: &mut [u8],
    ) -> Result<(), ReadError> {
        self.symmetric.mix_shared(static_static);
        Ok(self.symmetric.open_and_hash(sealed_payload, payload)?)
    }

    /// Writes the second message to the initiator with the static key `remote`.
    pub(crate) fn write(
        self,
        remote: &PublicKey,
        preshared: &[u8; 32],
        ephemeral: &PrivateKey,
        payload: &[u8],
        ephemeral_out: &mut [u8; 32],
        sealed_payload: &mut [u8],
    ) -> Result<SymmetricState, LowOrder> {
        let mut symmetric = self.symmetric;
        let public = ephemeral.public();
        *ephemeral_out = *public.as_bytes();
        symmetric.mix_ephemeral(&public);
        symmetric.mix_shared(&ephemeral.agree(&self.remote_ephemeral).ok_or(LowOrder)?);
        symmetric.mix_shared(&ephemeral.agree(remote).ok_or(LowOrder)?);
        symmetric.mix_preshared(preshared);
        symmetric.seal_and_hash(payload, sealed_payload);
        Ok(symmetric)
    }
}

#[cfg(test)]
#[path = "handshake/tests.rs"]
mod tests;

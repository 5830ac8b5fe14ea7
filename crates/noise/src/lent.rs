//! Memory that a data plane lends, and the sessions that one leaves to the next process.
//!
//! What changes while packets move, a peer's [`Notes`] and a session's [`Ledger`], lies where this crate puts it, unless a [`Lender`] has a better
//! place: memory that others see too, and that outlasts the process. Both sides change it by atomics only, so it does not matter which of them
//! handles a packet. What is lent goes back when the last holder drops it.
//!
//! A process that comes after another one that died gets what that left ([`Lender::inherited`]), if it is the same peer to the same us: both have
//! the same [`Tag`], a keyed hash over both static keys and the preshared key, which says nothing to whoever reads it there.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::activity::Notes;
use crate::index::PeerId;
use crate::key::{KEY_LEN, PresharedKey, PrivateKey, PublicKey};
use crate::ledger::Ledger;
use crate::message::TIMESTAMP_LEN;
use crate::symmetric::keyed_hash;

/// What a peer's sessions were agreed between: the same for two processes only if own key, peer's key and preshared key are.
pub type Tag = [u8; 32];

/// A TAI64N label, as in an initiation; big-endian, so that bytes compare as times do.
pub type Label = [u8; TIMESTAMP_LEN];

/// What [`Tag`]s are hashed with, so that they are not mistaken for anything else that this key authenticates.
const TAG_LABEL: &[u8] = b"wireloom tag of sessions, 1";

/// The tag of a peer.
pub(crate) fn tag(own: &PrivateKey, peer: &PublicKey, preshared: &PresharedKey) -> Tag {
    keyed_hash(own.as_bytes(), &[TAG_LABEL, peer.as_bytes(), preshared.as_bytes()])
}

/// A place in memory that a [`Lender`] lent. It goes back to the lender when this is dropped, by the drop of `memory`.
pub struct Lent<T> {
    slot: u32,
    memory: Box<dyn AsRef<T> + Send + Sync>,
}

impl<T> Lent<T> {
    /// Lends `memory`, which the lender knows by the number `slot`.
    pub fn new(slot: u32, memory: Box<dyn AsRef<T> + Send + Sync>) -> Self {
        Self { slot, memory }
    }

    /// The lender's number of it.
    pub fn slot(&self) -> u32 {
        self.slot
    }
}

impl<T> AsRef<T> for Lent<T> {
    #[inline]
    fn as_ref(&self) -> &T {
        (*self.memory).as_ref()
    }
}

/// Our own memory, or lent.
pub(crate) enum Memory<T> {
    Own(T),
    Lent(Lent<T>),
}

impl<T> Memory<T> {
    #[inline]
    pub(crate) fn get(&self) -> &T {
        match self {
            Self::Own(own) => own,
            Self::Lent(lent) => lent.as_ref(),
        }
    }
}

impl<T: Default> Default for Memory<T> {
    fn default() -> Self {
        Self::Own(T::default())
    }
}

/// A session that an earlier process left alive.
pub struct Inherited {
    /// What changes in it, as it was left. Its epoch is odd, and nobody else holds it.
    pub ledger: Lent<Ledger>,
    /// The key for what we send.
    pub sending: Zeroizing<[u8; KEY_LEN]>,
    /// The key for what we receive.
    pub receiving: Zeroizing<[u8; KEY_LEN]>,
    /// Whether it was sent with.
    pub is_current: bool,
}

/// Who has memory for what changes, and keeps what must outlast the process. Called by the [`Device`](crate::Device) alone, from whichever
/// thread drives it. None of the calls may call back.
pub trait Lender: Send + Sync {
    /// Memory for the notes of a new peer: that in which an earlier process left those of the peer with this tag, or else zeroed. `None`: the peer is
    /// not served, and none of the other calls is made for it. No tag: there is no private key yet. Comes before whatever else is told of
    /// the peer.
    fn notes(&self, peer: PeerId, tag: Option<&Tag>) -> Option<Lent<Notes>>;

    /// The peer's tag has changed, or there is none any more. A process that comes later must know the peer by the new one.
    fn retag(&self, peer: PeerId, tag: Option<&Tag>);

    /// Memory for a session of the peer. All of it is reset before it is used, but for epoch and peer, which are the lender's own. `None`: the
    /// session has its own, and the lender sees nothing of it.
    fn ledger(&self, peer: PeerId) -> Option<Lent<Ledger>>;

    /// The sessions that an earlier process left for the peer under the tag that [`Lender::notes`] was given. Handed out once: those that are
    /// not taken up are dropped at once, and the lender ends them then, as it does with any ledger that comes back.
    fn inherited(&self, peer: PeerId) -> Vec<Inherited>;

    /// The greatest label that was sent in an initiation, by this process or an earlier one.
    fn sent_label(&self) -> Option<Label>;

    /// An initiation with this label is about to leave; it is greater than any before.
    fn keep_sent_label(&self, label: &Label);

    /// The greatest label that an initiation of the peer's had, whichever process took it.
    fn received_label(&self, peer: PeerId) -> Option<Label>;

    /// An initiation of the peer's with this label was taken; it is greater than those before.
    fn keep_received_label(&self, peer: PeerId, label: &Label);
}

/// A lender, if there is one: none lends nothing.
#[derive(Clone, Default)]
pub(crate) struct Lending(pub Option<Arc<dyn Lender>>);

impl Lending {
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&dyn Lender) -> Option<T>) -> Option<T> {
        self.0.as_deref().and_then(question)
    }

    pub(crate) fn tell(&self, what: impl FnOnce(&dyn Lender)) {
        if let Some(lender) = self.0.as_deref() {
            what(lender);
        }
    }
}

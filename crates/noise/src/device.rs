//! A device (being filled in).
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::activity::Activity;
use crate::cookie::Mac1Checker;
use crate::event::Event;
use crate::index::PeerId;
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::session::Session;
use crate::time::{Instant, Now};

/// Why a peer could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddPeerError {
    /// The key is our own public key.
    #[error("this is the device's own public key")]
    OwnKey,
    /// There is a peer with this key.
    #[error("there is a peer with this key already")]
    Exists(PeerId),
    /// Four billion peers were added before.
    #[error("peer numbers are used up")]
    Full,
}

/// Why a datagram was dropped. Each is counted by the caller; none is worth more than a DEBUG log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Drop {
    /// The device is down.
    #[error("the device is down")]
    Down,
    /// The device has no private key.
    #[error("the device has no private key")]
    NoKey,
    /// No message of types 1 to 3, or of the wrong length.
    #[error("not a handshake message")]
    Malformed,
    /// Its mac1 does not belong to our public key.
    #[error("mac1 is invalid")]
    InvalidMac1,
    /// Under load: it had no valid cookie, and a cookie reply is its answer.
    #[error("a cookie reply was sent instead")]
    CookieSent,
    /// Under load: its source sends too many.
    #[error("its source exceeded its rate")]
    RateLimited,
    /// It did not decrypt.
    #[error("it did not authenticate")]
    NotAuthentic,
    /// It names a peer that we do not have.
    #[error("the peer is unknown")]
    UnknownPeer,
    /// It answers nothing that we asked.
    #[error("no handshake or session has this index")]
    UnknownIndex,
    /// Its timestamp is not newer than one that we have seen.
    #[error("the timestamp was seen before")]
    Replayed,
    /// The peer initiates too often.
    #[error("the peer initiates too often")]
    Flood,
    /// A cookie reply that we do not wait for.
    #[error("no cookie was asked for")]
    UnexpectedCookie,
}

struct Peer {
    key: PublicKey,
    psk: PresharedKey,
    activity: Arc<Activity>,
    persistent_keepalive: Option<Duration>,
    last_handshake: Option<Duration>,
}

/// One end of tunnels: an identity and its peers.
pub struct Device {
    key: Option<PrivateKey>,
    peers: BTreeMap<PeerId, Box<Peer>>,
    by_key: BTreeMap<PublicKey, PeerId>,
    next_peer: u32,
    events: VecDeque<Event>,
}

impl Device {
    /// A device that is down and has neither key nor peers. Every random byte that it uses comes from `seed`.
    pub fn new(_seed: [u8; 32]) -> Device {
        Device { key: None, peers: BTreeMap::new(), by_key: BTreeMap::new(), next_peer: 0, events: VecDeque::new() }
    }

    /// Takes another identity, or none.
    pub fn set_private_key(&mut self, _now: Now, key: Option<PrivateKey>) {
        self.key = key;
    }

    /// Our private key.
    pub fn private_key(&self) -> Option<&PrivateKey> {
        self.key.as_ref()
    }

    /// Our public key.
    pub fn public_key(&self) -> Option<PublicKey> {
        self.key.as_ref().map(PrivateKey::public)
    }

    /// Adds a peer.
    ///
    /// # Errors
    /// See [`AddPeerError`].
    pub fn add_peer(&mut self, _now: Now, key: PublicKey) -> Result<PeerId, AddPeerError> {
        let id = PeerId::from_u32(self.next_peer);
        self.next_peer += 1;
        self.peers.insert(
            id,
            Box::new(Peer {
                key,
                psk: PresharedKey::default(),
                activity: Arc::default(),
                persistent_keepalive: None,
                last_handshake: None,
            }),
        );
        self.by_key.insert(key, id);
        Ok(id)
    }

    /// Removes a peer.
    pub fn remove_peer(&mut self, _now: Now, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// The peer with this key.
    pub fn find_peer(&self, key: &PublicKey) -> Option<PeerId> {
        self.by_key.get(key).copied()
    }

    /// All peers, in the order in which they were added.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.peers.keys().copied()
    }

    /// A peer's key.
    pub fn peer_key(&self, peer: PeerId) -> Option<PublicKey> {
        self.peers.get(&peer).map(|peer| peer.key)
    }

    /// Sets or, with zeros, clears a peer's preshared key, from the next handshake on.
    pub fn set_preshared_key(&mut self, _now: Now, peer: PeerId, key: PresharedKey) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.psk = key;
        }
    }

    /// A peer's preshared key; zeros when there is none.
    pub fn preshared_key(&self, peer: PeerId) -> Option<&PresharedKey> {
        self.peers.get(&peer).map(|peer| &peer.psk)
    }

    /// Sets how often a packet is sent though there is nothing to say.
    pub fn set_persistent_keepalive(&mut self, _now: Now, peer: PeerId, interval: Option<Duration>) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.persistent_keepalive = interval;
        }
    }

    /// A peer's persistent keepalive interval.
    pub fn persistent_keepalive(&self, peer: PeerId) -> Option<Duration> {
        self.peers.get(&peer)?.persistent_keepalive
    }

    /// Where the data plane notes what it does for this peer.
    pub fn activity(&self, peer: PeerId) -> Option<Arc<Activity>> {
        self.peers.get(&peer).map(|peer| Arc::clone(&peer.activity))
    }

    /// When a handshake with this peer was last completed, since the Unix epoch.
    pub fn last_handshake(&self, peer: PeerId) -> Option<Duration> {
        self.peers.get(&peer)?.last_handshake
    }

    /// Takes the device up or down.
    pub fn set_up(&mut self, _now: Now, _up: bool) {}

    /// A checker of mac1 for other threads. It becomes useless when the private key changes.
    pub fn mac1_checker(&self) -> Option<Mac1Checker> {
        self.public_key().as_ref().map(Mac1Checker::new)
    }

    /// A datagram of types 1 to 3 came in from `src`.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn handle_datagram(
        &mut self,
        _now: Now,
        _src: SocketAddr,
        _bytes: &[u8],
        _under_load: bool,
    ) -> Result<(), Drop> {
        Ok(())
    }

    /// The data plane has something to send and no session to send it with.
    pub fn handle_session_wanted(&mut self, _now: Now, _peer: PeerId) {}

    /// `Session::rekey_due_on_send` or `rekey_due_on_receive` said so.
    pub fn handle_rekey_due(&mut self, _now: Now, _peer: PeerId) {}

    /// `Session::confirm` said so.
    pub fn handle_session_confirmed(&mut self, _now: Now, _session: &Session) {}

    /// An `Activity` said so.
    pub fn handle_activity(&mut self, _now: Now, _peer: PeerId) {}

    /// Does what is due.
    pub fn handle_timeout(&mut self, _now: Now) {}

    /// When `handle_timeout` must be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next thing to be done.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

//! A device as it is, and a change to one. Every text format spells one of these two.

use std::net::SocketAddr;
use std::time::Duration;

use inet::Cidr;
use noise::{PresharedKey, PrivateKey, PublicKey, Reception};

/// A device as it is: what a UAPI `get` tells and `show` prints.
#[derive(Default)]
pub struct Device {
    /// Its private key, if it has one and tells it.
    pub private_key: Option<PrivateKey>,
    /// Its public key, where it was asked without secrets.
    pub public_key: Option<PublicKey>,
    /// The UDP port; 0 while it has none.
    pub listen_port: u16,
    /// The mark of outgoing packets; 0 for none.
    pub fwmark: u32,
    /// The peers, in the order in which the device tells them.
    pub peers: Vec<Peer>,
}

impl Device {
    /// Its public key, told or derived.
    pub fn public_key(&self) -> Option<PublicKey> {
        self.public_key.or_else(|| self.private_key.as_ref().map(PrivateKey::public))
    }
}

/// A peer of a device, as it is.
pub struct Peer {
    /// Who it is.
    pub public_key: PublicKey,
    /// The preshared key, if one is set. Boxed, so that a list of peers that grows leaves no copies of keys behind.
    pub preshared_key: Option<Box<PresharedKey>>,
    /// Where it was last seen, or was said to be.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between persistent keepalives; 0 when they are off.
    pub persistent_keepalive: u16,
    /// The networks that are routed to it, in the device's order.
    pub allowed_ips: Vec<Cidr>,
    /// When the last handshake ended, since the Unix epoch.
    pub last_handshake: Option<Duration>,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
    /// How many of its data messages came, of those that it sent; told by a device of ours that was asked without secrets.
    pub reception: Option<Reception>,
}

impl Peer {
    /// A peer of which nothing is known but its key.
    pub fn new(public_key: PublicKey) -> Peer {
        Peer {
            public_key,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: 0,
            allowed_ips: Vec::new(),
            last_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
            reception: None,
        }
    }
}

/// A change to a device: what a UAPI `set` asks for. What is `None` stays as it is.
#[derive(Default)]
pub struct DeviceChange {
    /// The private key: `Some(None)` takes it away.
    pub private_key: Option<Option<PrivateKey>>,
    /// The UDP port; 0 for any.
    pub listen_port: Option<u16>,
    /// The mark of outgoing packets; 0 for none.
    pub fwmark: Option<u32>,
    /// Whether all peers are removed before those below are added.
    pub replace_peers: bool,
    /// Changes to peers, to be applied in this order; a peer may come twice.
    pub peers: Vec<PeerChange>,
}

/// A change to a peer, which is created if the device does not have it.
pub struct PeerChange {
    /// Which peer.
    pub public_key: PublicKey,
    /// Whether it is removed; the rest is then ignored.
    pub remove: bool,
    /// Whether nothing is done unless the peer is there already.
    pub update_only: bool,
    /// The preshared key; all zeros take it away. Boxed, so that a list of peers that grows leaves no copies of keys behind.
    pub preshared_key: Option<Box<PresharedKey>>,
    /// Where the peer is.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between persistent keepalives; 0 turns them off.
    pub persistent_keepalive: Option<u16>,
    /// Whether all allowed IPs are removed before those below are added.
    pub replace_allowed_ips: bool,
    /// Changes to the allowed IPs, to be applied in this order.
    pub allowed_ips: Vec<AllowedIpChange>,
}

impl PeerChange {
    /// A change that does no more than to have the peer.
    pub fn new(public_key: PublicKey) -> PeerChange {
        PeerChange {
            public_key,
            remove: false,
            update_only: false,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }
}

/// A change to the allowed IPs of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowedIpChange {
    /// The network is the peer's from now on, whoever had it.
    Add(Cidr),
    /// The network is the peer's no longer.
    Remove(Cidr),
}

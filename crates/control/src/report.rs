//! Telling what the device is: the reply to a get.
//!
//! It is written in pieces. The locks are held while one peer is looked at, and never while the client is written to, so
//! that neither a slow client nor 100,000 peers hold up anybody. A peer is told as it was at one moment; the device and the others
//! may have changed since.
//!
//! The text holds keys. It stays in one vector, which is wiped after each piece and grows only while it is empty.

use crate::device::Device;
use config::{device, key, uapi};
use noise::PeerId;
use std::io::{self, Write};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a piece.
const PIECE: usize = 32 * 1024;
/// More than a peer's lines take without its allowed IPs, and each of these, in bytes.
const PEER_MAX: usize = 512;
const ALLOWED_IP_MAX: usize = 64;

impl Device {
    /// Writes all that a get tells, device first, peers in the order in which they were added; the end is the caller's.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn report(&self, out: &mut impl Write) -> io::Result<()> {
        self.write(out, true)
    }

    /// The same without secrets, and with what came of each peer's messages.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn report_openly(&self, out: &mut impl Write) -> io::Result<()> {
        self.write(out, false)
    }

    fn write(&self, out: &mut impl Write, secrets: bool) -> io::Result<()> {
        let write_peer = if secrets { uapi::write_peer } else { uapi::write_peer_openly };
        let mut text = Zeroizing::new(Vec::with_capacity(PIECE));
        let (own, peers) = self.own(secrets);
        uapi::write_device(&mut text, &own);
        for peer in peers.into_iter().filter_map(|peer| self.peer(peer, secrets)) {
            let room = PEER_MAX + ALLOWED_IP_MAX * peer.allowed_ips.len();
            if text.len() + room > text.capacity() {
                out.write_all(&text)?;
                text.zeroize();
            }
            write_peer(&mut text, &peer);
        }
        out.write_all(&text)
    }

    /// The device itself, and who its peers are.
    fn own(&self, secrets: bool) -> (device::Device, Vec<PeerId>) {
        let _configuration = self.configuration();
        let state = self.state();
        let own = device::Device {
            private_key: state.noise.private_key().filter(|_| secrets).cloned(),
            public_key: if secrets { None } else { state.noise.public_key() },
            listen_port: state.port,
            fwmark: state.mark,
            peers: Vec::new(),
        };
        (own, state.noise.peers().collect())
    }

    /// A peer as it is; `None` when it has been removed meanwhile.
    fn peer(&self, id: PeerId, secrets: bool) -> Option<device::Peer> {
        let _configuration = self.configuration();
        let mut peer = {
            let state = self.state();
            let mut peer = device::Peer::new(state.noise.peer_key(id)?);
            if secrets {
                let key = state.noise.preshared_key(id).filter(|key| !key::is_zero(*key));
                peer.preshared_key = key.cloned().map(Box::new);
            } else {
                peer.reception = state.noise.reception(id);
            }
            peer.persistent_keepalive =
                state.noise.persistent_keepalive(id).map_or(0, |interval| interval.as_secs() as u16);
            peer.last_handshake = state.noise.last_handshake(id);
            peer
        };
        let traffic = self.plane.traffic(id);
        peer.rx_bytes = traffic.rx_bytes;
        peer.tx_bytes = traffic.tx_bytes;
        peer.endpoint = self.plane.endpoint(id).map(|endpoint| endpoint.addr);
        peer.allowed_ips = self.plane.allowed_ips(id);
        Some(peer)
    }
}

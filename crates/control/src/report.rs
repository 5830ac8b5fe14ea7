//! Telling what the device is: the reply to a get, in pieces, so that the lock is never held for long.

use crate::device::{Device, State};
use config::{device, key, uapi};
use noise::PeerId;
use std::io::{self, Write};

/// Peers that are told under one hold of the lock.
const CHUNK: usize = 100;

impl Device {
    /// Writes all that a get tells, device first, peers in the order in which they were added; the end is the caller's.
    pub fn report(&self, out: &mut impl Write) -> io::Result<()> {
        let mut text = zeroize::Zeroizing::new(Vec::new());
        let peers: Vec<PeerId> = {
            let state = self.lock();
            let own = device::Device {
                private_key: state.noise.private_key().cloned(),
                listen_port: state.port,
                fwmark: state.mark,
                peers: Vec::new(),
            };
            uapi::write_device(&mut text, &own);
            state.noise.peers().collect()
        };
        for chunk in peers.chunks(CHUNK) {
            {
                let state = self.lock();
                for peer in chunk.iter().filter_map(|&peer| self.peer(&state, peer)) {
                    uapi::write_peer(&mut text, &peer);
                }
            }
            out.write_all(&text)?;
            text.clear();
        }
        out.write_all(&text)
    }

    /// A peer as it is; `None` when it has been removed meanwhile.
    fn peer(&self, state: &State, id: PeerId) -> Option<device::Peer> {
        let traffic = self.plane.traffic(id);
        let preshared_key = state.noise.preshared_key(id).filter(|key| !key::is_zero(*key)).cloned();
        Some(device::Peer {
            public_key: state.noise.peer_key(id)?,
            preshared_key,
            endpoint: self.plane.endpoint(id).map(|endpoint| endpoint.addr),
            persistent_keepalive: state.noise.persistent_keepalive(id).map_or(0, |interval| interval.as_secs() as u16),
            allowed_ips: self.plane.allowed_ips(id),
            last_handshake: state.noise.last_handshake(id),
            rx_bytes: traffic.rx_bytes,
            tx_bytes: traffic.tx_bytes,
        })
    }
}

//! Applying a change from outside.
//!
//! In the kernel's order: mark, port, removal of all peers, private key, peers. What can fail (the port, the mark) comes first, so
//! that a change that is refused has changed nothing. Peers are applied a hundred at a time, and the lock is free in
//! between: timers and handshakes of a device with 100,000 peers do not wait for its configuration. A peer that a change does not
//! mention keeps its session and its counters.

use crate::device::{Device, State};
use config::{
    device::{AllowedIpChange, DeviceChange, PeerChange},
    uapi::Errno,
};
use inet::Endpoint;
use linux::udp::BindError;
use noise::{AddPeerError, Now, PeerId};
use plane::AllowedIpChange as RouteChange;
use std::time::Duration;

/// Peers that are applied under one hold of the lock.
const CHUNK: usize = 100;

impl Device {
    /// Applies a change.
    pub fn apply(&self, change: DeviceChange) -> Result<(), Errno> {
        self.change(None, |state, now| {
            self.apply_mark(state, change.fwmark)?;
            self.apply_port(state, change.listen_port)?;
            if change.replace_peers {
                let peers: Vec<PeerId> = state.noise.peers().collect();
                for peer in peers {
                    state.noise.remove_peer(now, peer);
                }
            }
            if let Some(key) = change.private_key {
                state.noise.set_private_key(now, key);
                self.publish_mac1(state);
                // The control thread has a checker of its own.
                self.wake.signal();
            }
            Ok::<(), Errno>(())
        })?;
        for chunk in change.peers.chunks(CHUNK) {
            self.change(None, |state, now| {
                let mut routes = Vec::new();
                for peer in chunk {
                    self.apply_peer(state, now, peer, &mut routes);
                }
                self.publish_routes(&mut routes);
            });
        }
        Ok(())
    }

    fn apply_mark(&self, state: &mut State, mark: Option<u32>) -> Result<(), Errno> {
        let Some(mark) = mark.filter(|mark| *mark != state.mark) else { return Ok(()) };
        if let Some(group) = &state.group {
            group.set_mark(mark).map_err(|error| Errno::from(&error))?;
        }
        state.mark = mark;
        Ok(())
    }

    fn apply_port(&self, state: &mut State, port: Option<u16>) -> Result<(), Errno> {
        let Some(port) = port.filter(|port| *port != state.port) else { return Ok(()) };
        if !state.up {
            state.port = port;
            return Ok(());
        }
        self.bind(state, port).map_err(|error| {
            log::error!("{error}");
            match error {
                BindError::InUse(_) => Errno::ADDRESS_IN_USE,
                BindError::Os { source, .. } => Errno::from(&source),
                BindError::Forbidden(_) | BindError::Mark(_) | BindError::NoFamily => Errno::IO,
            }
        })
    }

    fn apply_peer(&self, state: &mut State, now: Now, change: &PeerChange, routes: &mut Vec<RouteChange>) {
        let existing = state.noise.find_peer(&change.public_key);
        if change.remove {
            if let Some(peer) = existing {
                // The routes so far may name this peer, or be taken by it from another.
                self.publish_routes(routes);
                state.noise.remove_peer(now, peer);
                self.settle(state, None);
            }
            return;
        }
        let peer = match existing {
            Some(peer) => peer,
            None if change.update_only => return,
            None => match self.create_peer(state, now, change) {
                Some(peer) => peer,
                None => return,
            },
        };
        if let Some(key) = &change.preshared_key {
            state.noise.set_preshared_key(now, peer, key.clone());
        }
        if let Some(addr) = change.endpoint {
            self.plane.set_endpoint(peer, Some(Endpoint::new(addr)));
        }
        if change.replace_allowed_ips {
            routes.push(RouteChange::Clear(peer));
        }
        routes.extend(change.allowed_ips.iter().map(|change| match *change {
            AllowedIpChange::Add(prefix) => RouteChange::Insert(prefix, peer),
            AllowedIpChange::Remove(prefix) => RouteChange::Remove(prefix, peer),
        }));
        if let Some(seconds) = change.persistent_keepalive {
            let interval = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
            state.noise.set_persistent_keepalive(now, peer, interval);
        }
    }

    /// Adds a peer; our own key is passed over, as the kernel does.
    fn create_peer(&self, state: &mut State, now: Now, change: &PeerChange) -> Option<PeerId> {
        match state.noise.add_peer(now, change.public_key) {
            Ok(peer) => {
                self.plane.add_peer(peer, state.noise.activity(peer)?);
                Some(peer)
            }
            Err(AddPeerError::Exists(peer)) => Some(peer),
            Err(error) => {
                log::debug!("a peer was not added: {error}");
                None
            }
        }
    }

    fn publish_routes(&self, routes: &mut Vec<RouteChange>) {
        if !routes.is_empty() {
            self.plane.change_allowed_ips(routes);
            routes.clear();
        }
    }
}

//! Applying a change from outside.
//!
//! In the kernel's order: mark, port, removal of all peers, private key, peers. What can fail (the mark, the port) comes first, so
//! that a change that is refused has changed nothing else. The state is locked for one peer at a time, and its routes, which can be
//! many, are published outside of that lock: timers and handshakes of a device with 100,000 peers do not wait for its
//! configuration. A peer that a change does not mention keeps its session and its counters.

use crate::device::{Device, State};
use config::{
    device::{AllowedIpChange, DeviceChange, PeerChange},
    uapi::Errno,
};
use inet::Endpoint;
use linux::udp::BindError;
use noise::{AddPeerError, Now, PeerId, PresharedKey, PrivateKey, PublicKey};
use plane::AllowedIpChange as RouteChange;
use rustix::io::Errno as Os;
use std::time::Duration;

impl Device {
    /// Applies a change, and no other one meanwhile.
    ///
    /// # Errors
    /// The mark or the port was refused. What comes before it in the kernel's order has been applied.
    pub fn apply(&self, change: DeviceChange) -> Result<(), Errno> {
        let _configuration = self.configuration();
        let names_peers = change.replace_peers || !change.peers.is_empty();
        if let Some(mark) = change.fwmark {
            self.change(|state, _| self.apply_mark(state, mark))?;
        }
        if let Some(port) = change.listen_port {
            self.change(|state, _| self.apply_port(state, port))?;
        }
        if change.replace_peers {
            let peers: Vec<PeerId> = self.state().noise.peers().collect();
            for peer in peers {
                self.remove_peer(peer);
            }
        }
        if let Some(key) = change.private_key {
            self.change(|state, now| self.apply_private_key(state, now, key));
        }
        for peer in change.peers {
            self.apply_peer(peer);
        }
        // Without a private key nobody is known, and with it alone the peers are still to come.
        if names_peers && self.state().mac1.is_some() {
            self.plane.settled();
        }
        Ok(())
    }

    fn apply_mark(&self, state: &mut State, mark: u32) -> Result<(), Errno> {
        if mark == state.mark {
            return Ok(());
        }
        // What is sent under the new mark from an address that went with the old one's way would have the peer follow us to where no mark leads.
        self.plane.hold_sources(true);
        self.forget_sources(state);
        let changed = self.set_marks(state, mark);
        // Only now is it of use to ask for ways out anew.
        self.forget_sources(state);
        self.plane.hold_sources(false);
        changed
    }

    fn set_marks(&self, state: &mut State, mark: u32) -> Result<(), Errno> {
        if let Some(group) = &state.group
            && let Err(error) = group.set_mark(mark)
        {
            // Some sockets may have it: all of them get the old one back.
            if let Err(error) = group.set_mark(state.mark) {
                log::error!("the sockets have different marks: {error}");
            }
            return Err(Errno::from(&error));
        }
        state.mark = mark;
        Ok(())
    }

    fn apply_port(&self, state: &mut State, port: u16) -> Result<(), Errno> {
        if port == state.port && (state.group.is_some() || !state.up) {
            return Ok(());
        }
        if !state.up {
            state.port = port;
            return Ok(());
        }
        self.bind(state, port).map_err(|error| {
            log::debug!("{}", crate::Chain(&error));
            errno(&error)
        })
    }

    fn apply_private_key(&self, state: &mut State, now: Now, key: Option<PrivateKey>) {
        state.noise.set_private_key(now, key);
        state.mac1 = state.noise.mac1_checker();
        self.plane.set_mac1_checker(state.mac1.clone());
    }

    fn apply_peer(&self, change: PeerChange) {
        let PeerChange { public_key, preshared_key, endpoint, .. } = change;
        if change.remove {
            let peer = self.state().noise.find_peer(&public_key);
            return peer.into_iter().for_each(|peer| self.remove_peer(peer));
        }
        let peer = self.change(|state, now| {
            let peer = match state.noise.find_peer(&public_key) {
                None if change.update_only => return None,
                // The preshared key at once: what an earlier process left is known by it.
                None => self.add_peer(state, now, public_key, preshared_key.map(|key| *key).unwrap_or_default())?,
                Some(peer) => {
                    if let Some(key) = preshared_key {
                        state.noise.set_preshared_key(now, peer, *key);
                    }
                    peer
                }
            };
            if let Some(addr) = endpoint {
                self.plane.set_endpoint(peer, Some(Endpoint::new(addr)));
                state.noise.set_reachable(now, peer, true);
            }
            Some(peer)
        });
        let Some(peer) = peer else { return };
        let cleared = change.replace_allowed_ips.then_some(RouteChange::Clear(peer));
        let changed = change.allowed_ips.iter().map(|change| match *change {
            AllowedIpChange::Add(prefix) => RouteChange::Insert(prefix, peer),
            AllowedIpChange::Remove(prefix) => RouteChange::Remove(prefix, peer),
        });
        let routes: Vec<RouteChange> = cleared.into_iter().chain(changed).collect();
        // Most of what a synchronisation brings is there already.
        let current = || self.plane.allowed_ips(peer).into_iter().map(AllowedIpChange::Add);
        let is_new = !change.replace_allowed_ips || !current().eq(change.allowed_ips);
        if is_new && !routes.is_empty() {
            self.plane.change_allowed_ips(&routes);
        }
        // Last, because turning it on sends something.
        if let Some(seconds) = change.persistent_keepalive {
            let interval = Duration::from_secs(seconds.into());
            self.change(|state, now| state.noise.set_persistent_keepalive(now, peer, Some(interval)));
        }
    }

    /// Removes a peer: its routes, which can be many, before the state is locked.
    fn remove_peer(&self, peer: PeerId) {
        self.plane.change_allowed_ips(&[RouteChange::Clear(peer)]);
        self.change(|state, now| state.noise.remove_peer(now, peer));
    }

    /// Adds a peer. Our own key is passed over, as in the kernel.
    fn add_peer(&self, state: &mut State, now: Now, key: PublicKey, preshared: PresharedKey) -> Option<PeerId> {
        match state.noise.add_peer_with(now, key, preshared) {
            Ok(peer) => {
                self.plane.add_peer(peer, state.noise.activity(peer)?);
                if state.policy.iter().any(|rule| rule.peer == Some(key)) {
                    self.follow_peers(state);
                }
                // The data plane may know where it is from an earlier process.
                state.noise.set_reachable(now, peer, self.plane.endpoint(peer).is_some());
                Some(peer)
            }
            Err(AddPeerError::Exists(peer)) => Some(peer),
            Err(error) => {
                log::debug!("{key:?} was not added: {error}");
                None
            }
        }
    }
}

/// What a client hears of a port that could not be bound.
fn errno(error: &BindError) -> Errno {
    let os = |error: Os| Errno::new(error.raw_os_error()).unwrap_or(Errno::IO);
    match error {
        BindError::InUse(_) => Errno::ADDRESS_IN_USE,
        BindError::Forbidden(_) => os(Os::ACCESS),
        BindError::Mark(_) => os(Os::PERM),
        BindError::NoFamily => os(Os::AFNOSUPPORT),
        BindError::Os { source, .. } => Errno::from(source),
    }
}

//! The device: who locks what, and how the protocol's events are carried out.
//!
//! A device is *down* (no sockets, no sessions) or *up*. The link decides: when the interface is set up, the port is bound;
//! when it is set down, the sockets are closed. A port that is taken leaves the device up without sockets until another is set.

use inet::Endpoint;
use linux::{
    clock,
    poll::{BootTimer, EventFd},
    udp::{BindError, Outgoing, SendError, Socket, SocketGroup, UdpOptions},
};
use noise::{Destination, Event, Instant, Mac1Checker, Now, PeerId};
use plane::DataPlane;
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How a device is made.
pub struct DeviceConfig {
    /// How many workers want sockets.
    pub workers: usize,
    /// Whether the kernel may cut what we send.
    pub udp_gso: bool,
    /// Whether the kernel may coalesce what we receive.
    pub udp_gro: bool,
}

/// Why a device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The kernel gave no random bytes.
    #[error("the kernel has no random bytes: {0}")]
    Random(getrandom::Error),
    /// A timer or wake-up descriptor was refused.
    #[error("cannot make a timer: {0}")]
    Os(#[from] io::Error),
}

/// A WireGuard device.
pub struct Device {
    state: Mutex<State>,
    pub(crate) plane: Arc<dyn DataPlane>,
    /// Due when the protocol wants to be called.
    pub(crate) timer: BootTimer,
    /// Wakes the control thread: the sockets have changed.
    pub(crate) wake: EventFd,
    config: DeviceConfig,
}

/// What the lock guards.
pub(crate) struct State {
    pub(crate) noise: noise::Device,
    /// The port that was asked for; 0 for any.
    pub(crate) port: u16,
    pub(crate) mark: u32,
    pub(crate) up: bool,
    /// The sockets, while the device is up.
    pub(crate) group: Option<Arc<SocketGroup>>,
    /// For which time the timer is set.
    armed: Option<Instant>,
}

/// The datagram that is being handled: where it came from, and its bytes.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) from: Endpoint,
    pub(crate) len: u64,
}

/// Both clocks, now.
pub(crate) fn now() -> Now {
    Now { boot: Instant::from_nanos(clock::boot_nanos()), wall: clock::wall() }
}

impl Device {
    /// A device that is down, without key and peers.
    pub fn new(config: DeviceConfig, plane: Arc<dyn DataPlane>) -> Result<Self, DeviceError> {
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(DeviceError::Random)?;
        let state = State { noise: noise::Device::new(*seed), port: 0, mark: 0, up: false, group: None, armed: None };
        Ok(Self { state: Mutex::new(state), plane, timer: BootTimer::new()?, wake: EventFd::new()?, config })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held ends the process in a release build; a test has nothing to save.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the protocol's state, carries out what follows from it and sets the timer.
    pub(crate) fn change<T>(&self, origin: Option<Origin>, f: impl FnOnce(&mut State, Now) -> T) -> T {
        let mut state = self.lock();
        let result = f(&mut state, now());
        self.settle(&mut state, origin);
        result
    }

    /// Carries out the protocol's events and sets the timer.
    pub(crate) fn settle(&self, state: &mut State, origin: Option<Origin>) {
        while let Some(event) = state.noise.poll_event() {
            self.carry_out(state, event, origin);
        }
        let due = state.noise.poll_timeout();
        if due != state.armed {
            match self.timer.set(due.map(Instant::as_nanos)) {
                Ok(()) => state.armed = due,
                Err(error) => log::error!("the timer cannot be set: {error}"),
            }
        }
    }

    /// The timer fired: whatever it was set for has passed.
    pub(crate) fn timeout(&self) {
        self.timer.drain();
        self.change(None, |state, now| {
            state.armed = None;
            state.noise.handle_timeout(now);
        });
    }

    fn carry_out(&self, state: &State, event: Event, origin: Option<Origin>) {
        match event {
            Event::Transmit { to: Destination::Peer(peer), message } => self.transmit(state, peer, &message),
            Event::Transmit { to: Destination::Source, message } => {
                if let Some(origin) = origin {
                    // A reply to somebody unknown is a courtesy: if it cannot be sent, so be it.
                    let _ = send(state, origin.from, &message);
                }
            }
            Event::EndpointConfirmed { peer } => {
                if let Some(origin) = origin {
                    self.plane.set_endpoint(peer, Some(origin.from));
                    self.plane.count_handshake(peer, 0, origin.len);
                }
            }
            Event::SessionInstalled { session } => self.plane.install_session(session),
            Event::SessionCurrent { peer, session } => self.plane.set_current_session(peer, session),
            Event::SessionRetired { session } => self.plane.retire_session(&session),
            Event::KeepaliveDue { peer } => self.plane.send_keepalive(peer),
            Event::HandshakeAbandoned { peer } => self.plane.drop_waiting(peer),
            Event::SourceStale { peer } => self.plane.forget_source(peer),
            Event::PeerRemoved { peer } => self.plane.remove_peer(peer),
            // The enum may grow; what we do not know we cannot do.
            _ => log::error!("an event of the protocol was not understood"),
        }
    }

    /// Sends a handshake message to a peer's endpoint.
    fn transmit(&self, state: &State, peer: PeerId, message: &[u8]) {
        let Some(endpoint) = self.plane.endpoint(peer) else {
            return log::debug!("peer {}: no endpoint to send a handshake to", peer.as_u32());
        };
        let result = match send(state, endpoint, message) {
            Err(SendError::Invalid) if endpoint.source.is_some() => {
                self.plane.forget_source(peer);
                send(state, Endpoint { source: None, ..endpoint }, message)
            }
            result => result,
        };
        match result {
            Ok(()) => self.plane.count_handshake(peer, message.len() as u64, 0),
            Err(error) => log::debug!("peer {}: handshake not sent: {error}", peer.as_u32()),
        }
    }

    /// Tells the workers which handshake messages are meant for us, after the private key changed.
    pub(crate) fn publish_mac1(&self, state: &State) {
        self.plane.set_mac1_checker(state.noise.mac1_checker());
    }

    /// A checker of handshake messages, as of now.
    pub(crate) fn mac1_checker(&self) -> Option<Mac1Checker> {
        self.lock().noise.mac1_checker()
    }

    /// Binds the port that was asked for and hands the workers their sockets.
    pub(crate) fn bind(&self, state: &mut State, port: u16) -> Result<(), BindError> {
        let options = UdpOptions {
            mark: state.mark,
            gso: self.config.udp_gso,
            gro: self.config.udp_gro,
            ..UdpOptions::default()
        };
        let group = SocketGroup::bind(port, self.config.workers, &options)?;
        log::debug!("listening on UDP port {}", group.port);
        state.port = group.port;
        self.plane.set_sockets(Some(group.workers.clone()));
        state.group = Some(Arc::new(group));
        self.forget_sources(state);
        self.wake.signal();
        Ok(())
    }

    /// Closes all sockets.
    pub(crate) fn close(&self, state: &mut State) {
        self.plane.set_sockets(None);
        state.group = None;
        self.wake.signal();
    }

    fn forget_sources(&self, state: &State) {
        for peer in state.noise.peers() {
            self.plane.forget_source(peer);
        }
    }

    /// The sockets on which handshakes come, while there are any.
    pub(crate) fn sockets(&self) -> Option<Arc<SocketGroup>> {
        self.lock().group.clone()
    }

    /// The link was set up or down.
    pub(crate) fn set_up(&self, up: bool) {
        self.change(None, |state, now| {
            if state.up == up {
                return;
            }
            state.up = up;
            if up {
                if let Err(error) = self.bind(state, state.port) {
                    log::error!("{error}: set another listen port");
                }
                state.noise.set_up(now, true);
            } else {
                state.noise.set_up(now, false);
                // The sessions' ends before the sockets': nothing is sealed in between for nobody.
                while let Some(event) = state.noise.poll_event() {
                    self.carry_out(state, event, None);
                }
                self.close(state);
            }
        });
    }
}

/// Sends one datagram by the control socket of its family.
fn send(state: &State, to: Endpoint, bytes: &[u8]) -> Result<(), SendError> {
    let family = |socket: &&Socket| socket.is_v6() == to.addr.is_ipv6();
    let Some(socket) = state.group.as_ref().and_then(|group| group.control.iter().find(family)) else {
        return Err(SendError::Unreachable(rustix::io::Errno::AFNOSUPPORT.raw_os_error()));
    };
    match socket.send(&[Outgoing { to, ecn: 0, bytes, segment: None }]) {
        (1.., _) => Ok(()),
        (_, error) => Err(error.unwrap_or(SendError::WouldBlock)),
    }
}

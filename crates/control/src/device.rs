//! The device: who locks what, and how the protocol's events are carried out.
//!
//! A device is *down* (no sockets, no sessions) or *up*. The link decides: when the interface is set up, the port is bound;
//! when it is set down, the sockets are closed. A port that is taken leaves the device up without sockets until another is set.
//!
//! Two locks, in this order. The *configuration* belongs to one client at a time, for as long as its request takes. The
//! *state* is what the control thread needs too: it is held for one peer or one event, and whoever holds it carries out what
//! follows before letting go, so that the data plane and the network see everything in order.

use crate::lock::{Turnstile, lock};
use crate::sockets::send;
use crate::told::Told;
use crate::watchers::Watchers;
use config::policy::Rule;
use config::stats::{self, Stats};
use config::uapi::{PeerEvent, PeerEventKind};
use inet::Endpoint;
use linux::{
    clock,
    poll::{BootTimer, Epoll},
    udp::{SendError, SocketGroup},
};
use noise::{Destination, Event, Instant, Mac1Checker, Now, PeerId};
use plane::{ControlDrop, DataPlane};
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

/// Initiations and responses leave with the DSCP AF41 (the kernel's HANDSHAKE_DSCP), cookie replies and data with none.
const HANDSHAKE_CLASS: u8 = 0x88;

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
    /// A timer or a wait queue was refused.
    #[error("cannot make a timer: {0}")]
    Os(#[from] io::Error),
}

/// A WireGuard device.
pub struct Device {
    configuration: Mutex<()>,
    state: Turnstile<State>,
    pub(crate) plane: Arc<dyn DataPlane>,
    /// What the control thread waits for: here, because whoever binds sockets adds them.
    pub(crate) epoll: Epoll,
    /// Due when the protocol wants to be called.
    pub(crate) timer: BootTimer,
    /// When it was made.
    start: Instant,
    pub(crate) config: DeviceConfig,
    pub(crate) watchers: Watchers,
}

/// What the inner lock guards.
pub(crate) struct State {
    pub(crate) noise: noise::Device,
    /// For whom handshake messages must be meant; `None` without a private key.
    pub(crate) mac1: Option<Mac1Checker>,
    /// The port that was asked for, or was picked by the kernel; 0 for any.
    pub(crate) port: u16,
    pub(crate) mark: u32,
    pub(crate) up: bool,
    /// How many want it still: as good as down, but for the sockets.
    pub(crate) still: usize,
    /// The sockets, while the device is up.
    pub(crate) group: Option<SocketGroup>,
    /// What overflowed sockets that are closed by now, in datagrams.
    pub(crate) overflowed: u64,
    pub(crate) told: Told,
    /// What may pass.
    pub(crate) policy: Vec<Rule>,
    /// For which time the timer is set.
    armed: Option<Instant>,
}

/// The datagram that is being handled: where it came from, and how long it is.
#[derive(Clone, Copy)]
struct Origin {
    from: Endpoint,
    len: u64,
}

fn now() -> Now {
    Now { boot: boot(), wall: clock::wall() }
}

/// CLOCK_BOOTTIME, now.
pub(crate) fn boot() -> Instant {
    Instant::from_nanos(clock::boot_nanos())
}

impl Device {
    /// A device that is down, without key and peers.
    pub fn new(config: DeviceConfig, plane: Arc<dyn DataPlane>) -> Result<Self, DeviceError> {
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(DeviceError::Random)?;
        let mut noise = noise::Device::new(*seed);
        noise.set_lanes(config.workers);
        if let Some(lender) = plane.lender() {
            noise.set_lender(lender);
        }
        let state = State {
            noise,
            mac1: None,
            port: 0,
            mark: 0,
            up: false,
            still: 0,
            group: None,
            overflowed: 0,
            told: Told::default(),
            policy: Vec::new(),
            armed: None,
        };
        let (epoll, timer) = (Epoll::new()?, BootTimer::new()?);
        let (configuration, state, watchers) = (Mutex::new(()), Turnstile::new(state), Watchers::default());
        Ok(Self { configuration, state, plane, epoll, timer, start: boot(), config, watchers })
    }

    /// Keeps other clients from changing the configuration. Taken before the state.
    pub(crate) fn configuration(&self) -> MutexGuard<'_, ()> {
        lock(&self.configuration)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Changes the state, carries out what follows from it and sets the timer.
    pub(crate) fn change<T>(&self, f: impl FnOnce(&mut State, Now) -> T) -> T {
        let mut state = self.state();
        let result = f(&mut state, now());
        self.settle(&mut state, None);
        result
    }

    /// The same, and shows what follows before it is carried out.
    pub(crate) fn change_seeing<T>(&self, f: impl FnOnce(&mut State, Now) -> T, mut see: impl FnMut(&Event)) -> T {
        let mut state = self.state();
        let result = f(&mut state, now());
        while let Some(event) = state.noise.poll_event() {
            see(&event);
            self.carry_out(&mut state, event, None);
        }
        self.settle(&mut state, None);
        result
    }

    /// A handshake message came.
    pub(crate) fn handle_handshake(&self, from: Endpoint, message: &[u8], under_load: bool) {
        let mut state = self.state();
        match state.noise.handle_checked(now(), from.addr, message, under_load) {
            Ok(()) => state.told.received.count(message),
            Err(reason) => {
                log::trace!("a handshake message was dropped: {reason}");
                self.plane.count_control_drop(ControlDrop::Refused(reason));
            }
        }
        self.settle(&mut state, Some(Origin { from, len: message.len() as u64 }));
    }

    /// The timer fired: whatever it was set for has passed.
    pub(crate) fn handle_timeout(&self) {
        self.timer.drain();
        self.change(|state, now| {
            // Even if the next deadline is the same, because more was due at once than one call sees to.
            state.armed = None;
            state.noise.handle_timeout(now);
        });
    }

    /// The link was set up or down.
    pub(crate) fn set_up(&self, up: bool) {
        self.change(|state, now| {
            if state.up == up {
                return;
            }
            state.up = up;
            if up {
                if let Err(error) = self.bind(state, state.port) {
                    log::error!("{}: set another listen port", crate::Chain(&error));
                }
                state.noise.set_up(now, state.still == 0);
            } else {
                state.noise.set_up(now, false);
                // The sessions end before the sockets are closed, so that nothing is sealed in vain.
                self.settle(state, None);
                for peer in state.noise.peers() {
                    self.plane.drop_waiting(peer);
                }
                self.close(state);
            }
        });
    }

    /// Datagrams and packets dropped since the start, by reason: ours, and what the kernel dropped because we did not fetch it.
    pub(crate) fn drops(&self) -> Vec<(&'static str, u64)> {
        let overflowed = {
            let state = self.state();
            state.overflowed + state.group.as_ref().map_or(0, SocketGroup::overflowed)
        };
        let mut drops = self.plane.drops();
        drops.push(("socket-full", overflowed));
        drops
    }

    /// What the device has done since it was made.
    pub(crate) fn stats(&self) -> Stats {
        let (told, uptime) = (self.state().told, boot().saturating_since(self.start));
        let owned = |(name, count): (&str, u64)| (name.to_owned(), count);
        let batches = |it: plane::Batches| stats::Batches { packets: it.packets, bytes: it.bytes, sizes: it.sizes };
        let worker = |load: plane::WorkerLoad| stats::Worker {
            busy: load.busy,
            wakeups: load.wakeups,
            helped: load.helped,
            sent: batches(load.sent),
            received: batches(load.received),
        };
        Stats {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: std::process::id(),
            uptime,
            drops: self.drops().into_iter().map(owned).collect(),
            programs: self.plane.programs().into_iter().map(owned).collect(),
            handshakes: told.list().into_iter().map(owned).collect(),
            taken: self.plane.taken().map(|it| stats::Taken { sent: it.sent, received: it.received }),
            workers: self.plane.loads().into_iter().map(worker).collect(),
        }
    }

    /// Lets the kernel choose the source address of all peers again.
    pub(crate) fn forget_sources(&self, state: &State) {
        for peer in state.noise.peers() {
            self.plane.forget_source(peer);
        }
    }

    /// Carries out the protocol's events and sets the timer.
    fn settle(&self, state: &mut State, origin: Option<Origin>) {
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

    fn carry_out(&self, state: &mut State, event: Event, origin: Option<Origin>) {
        match event {
            Event::Transmit { to: Destination::Peer(peer), message } => self.transmit(state, peer, &message),
            Event::Transmit { to: Destination::Source, message } => {
                match origin.map(|origin| send(state, origin.from, 0, &message)) {
                    Some(Ok(())) => state.told.sent.count(&message),
                    Some(Err(error)) => log::debug!("a cookie was not sent: {error}"),
                    None => (),
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
            Event::HandshakeAbandoned { peer } => {
                state.told.abandoned += 1;
                self.plane.drop_waiting(peer);
                self.tell(state, peer, PeerEventKind::Abandoned);
            }
            Event::SourceStale { peer } => {
                state.told.unanswered += 1;
                self.plane.forget_source(peer);
            }
            Event::HandshakesFail { peer } => self.tell(state, peer, PeerEventKind::Failing),
            Event::HandshakeAnswered { peer } => self.tell(state, peer, PeerEventKind::Answered),
            Event::PeerRemoved { peer } => {
                self.plane.remove_peer(peer);
                self.follow_peers(state);
            }
            // The enum may grow; what we do not know we cannot do.
            _ => log::error!("an event of the protocol was not understood"),
        }
    }

    /// Tells those who watch.
    fn tell(&self, state: &State, peer: PeerId, kind: PeerEventKind) {
        if self.watchers.is_empty() {
            return;
        }
        if let Some(public_key) = state.noise.peer_key(peer) {
            let endpoint = self.plane.endpoint(peer).map(|endpoint| endpoint.addr);
            self.watchers.tell(&PeerEvent { kind, public_key, endpoint });
        }
    }

    /// Sends a handshake message to a peer's endpoint. That it could not be sent is no more than a loss on the way: the
    /// protocol tries again.
    fn transmit(&self, state: &mut State, peer: PeerId, message: &[u8]) {
        let Some(endpoint) = self.plane.endpoint(peer) else {
            return log::debug!("peer {}: no endpoint to send a handshake to", peer.as_u32());
        };
        let result = match send(state, endpoint, HANDSHAKE_CLASS, message) {
            Err(SendError::Invalid) if endpoint.source.is_some() => {
                self.plane.forget_source(peer);
                send(state, Endpoint { source: None, ..endpoint }, HANDSHAKE_CLASS, message)
            }
            result => result,
        };
        match result {
            Ok(()) => {
                state.told.sent.count(message);
                self.plane.count_handshake(peer, message.len() as u64, 0);
            }
            Err(error) => log::debug!("peer {}: handshake not sent: {error}", peer.as_u32()),
        }
    }
}

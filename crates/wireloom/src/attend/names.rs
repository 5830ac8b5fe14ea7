//! Endpoints that have names, resolved again when handshakes fail.
//!
//! Our devices tell when handshakes with a peer fail ([`PeerEvent`]). The kernel's and other programs' do not: with these, the peers are looked at every
//! half minute, and one to which something was sent, from which nothing came, and whose last handshake is too old for a session, is taken to fail. What
//! follows is decided in [`pursuit`](super::pursuit); here it is carried out.
//!
//! A lookup is a call of the C library that may take as long as it likes, so each has a thread, of which there are a few; what is too late counts as
//! no answer.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use config::device::{Device, DeviceChange, PeerChange};
use config::key;
use config::uapi::{PeerEvent, PeerEventKind};
use config::value::HostPort;
use linux::clock;
use linux::poll::{Event, EventFd, Interest};
use noise::PublicKey;

use super::process::{Duty, Watch};
use super::pursuit::{Pursuit, Step};
use super::{AttendError, Name, os};
use crate::{client, resolve};

/// Lookups at a time, those that are too late included.
const THREADS: usize = 8;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often devices are looked at that do not tell.
const LOOK: Duration = Duration::from_secs(30);
/// A session that is older is none: three minutes (REJECT_AFTER_TIME) at most, and a working one is replaced after two.
const TOO_OLD: Duration = Duration::from_secs(135);

/// The duty.
pub(super) struct Names {
    interface: String,
    peers: BTreeMap<PublicKey, Named>,
    /// Peers whose lookup waits for a thread.
    waiting: VecDeque<PublicKey>,
    /// Whose lookups are under way, since when.
    running: Vec<(PublicKey, Duration)>,
    answers: Arc<Answers>,
    /// When the device is looked at next, if it does not tell.
    look: Option<Duration>,
}

struct Named {
    endpoint: HostPort,
    pursuit: Pursuit,
    /// What was seen at the last look, of a device that does not tell.
    seen: Option<Seen>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    tx: u64,
    rx: u64,
    handshake: Option<Duration>,
}

/// What the threads have found.
struct Answers {
    found: Mutex<Vec<(PublicKey, Option<Vec<SocketAddr>>)>>,
    wake: EventFd,
}

impl Names {
    /// Takes the duty up, for a device that tells what happens to its peers, or does not.
    pub(super) fn new(interface: &str, names: Vec<Name>, tells: bool, watch: &Watch<'_>) -> Result<Names, AttendError> {
        let mut peers = BTreeMap::new();
        for Name { public_key, host, port } in names {
            let key = key::from_base64(public_key.as_bytes()).map_err(|_| AttendError::Key)?;
            let endpoint = HostPort { host, port };
            peers.insert(key, Named { endpoint, pursuit: Pursuit::default(), seen: None });
        }
        let answers = Answers { found: Mutex::default(), wake: EventFd::new().map_err(os("waiting"))? };
        watch.add(&answers.wake, 0, Interest::READ).map_err(os("waiting"))?;
        Ok(Names {
            interface: interface.to_owned(),
            peers,
            waiting: VecDeque::new(),
            running: Vec::new(),
            answers: Arc::new(answers),
            look: (!tells).then(|| now() + LOOK),
        })
    }

    fn take(&mut self, key: PublicKey, step: Step) {
        match step {
            Step::Stay => {}
            Step::LookUp => {
                self.waiting.push_back(key);
                self.start_lookups();
            }
            Step::Move(address) => self.move_to(key, address),
        }
    }

    /// Starts as many lookups as there may be.
    fn start_lookups(&mut self) {
        while Arc::strong_count(&self.answers) <= THREADS {
            let Some(key) = self.waiting.pop_front() else { return };
            let Some(named) = self.peers.get(&key) else { continue };
            let (endpoint, answers) = (named.endpoint.clone(), self.answers.clone());
            let lookup = thread::Builder::new().name("lookup".into()).spawn(move || {
                let found = resolve::addresses(&endpoint);
                if let Err(reason) = &found {
                    log::debug!("{endpoint} is not resolved: {reason}");
                }
                answers.found.lock().unwrap_or_else(PoisonError::into_inner).push((key, found.ok()));
                answers.wake.signal();
            });
            match lookup {
                Ok(_) => self.running.push((key, now())),
                Err(error) => {
                    log::warn!("{} cannot be resolved: {error}", named.endpoint);
                    self.looked_up(key, None);
                }
            }
        }
    }

    fn looked_up(&mut self, key: PublicKey, answer: Option<Vec<SocketAddr>>) {
        if let Some(named) = self.peers.get_mut(&key) {
            let step = named.pursuit.looked_up(now(), answer, chance());
            self.take(key, step);
        }
    }

    fn move_to(&mut self, key: PublicKey, address: SocketAddr) {
        let peer = PeerChange { update_only: true, endpoint: Some(address), ..PeerChange::new(key) };
        let change = DeviceChange { peers: vec![peer], ..DeviceChange::default() };
        let name = self.peers.get(&key).map(|named| named.endpoint.host.clone()).unwrap_or_default();
        match client::set(&self.interface, &change) {
            Ok(()) => {
                log::debug!("peer {}: does not answer, tried at {address} ({name})", key::to_base64(&key).as_str())
            }
            Err(error) => log::warn!("peer {} stays where it is: {error}", key::to_base64(&key).as_str()),
        }
    }

    /// Looks at all peers.
    fn look(&mut self) {
        let device = match client::get_openly(&self.interface) {
            Ok(device) => device,
            Err(error) => return log::debug!("the interface cannot be looked at: {error}"),
        };
        for (key, step) in self.compare(&device, clock::wall()) {
            self.take(key, step);
        }
    }

    /// What is to be done for whom, if the device is like that.
    fn compare(&mut self, device: &Device, wall: Duration) -> Vec<(PublicKey, Step)> {
        let mut steps = Vec::new();
        for peer in &device.peers {
            let Some(named) = self.peers.get_mut(&peer.public_key) else { continue };
            let seen = Seen { tx: peer.tx_bytes, rx: peer.rx_bytes, handshake: peer.last_handshake };
            let Some(before) = named.seen.replace(seen) else { continue };
            if seen.handshake != before.handshake || seen.rx != before.rx {
                named.pursuit.answers();
            } else if seen.tx > before.tx && seen.handshake.is_none_or(|at| wall.saturating_sub(at) > TOO_OLD) {
                steps.push((peer.public_key, named.pursuit.fails(now(), peer.endpoint)));
            }
        }
        steps
    }
}

impl Duty for Names {
    fn ready(&mut self, _: u32, _: Event, _: &Watch<'_>) {
        self.answers.wake.drain();
        let found = std::mem::take(&mut *self.answers.found.lock().unwrap_or_else(PoisonError::into_inner));
        for (key, answer) in found {
            // What was given up is not waited for any more.
            if let Some(at) = self.running.iter().position(|(running, _)| *running == key) {
                self.running.swap_remove(at);
                self.looked_up(key, answer);
            }
        }
        self.start_lookups();
    }

    fn heard(&mut self, event: &PeerEvent, _: &Watch<'_>) {
        let Some(named) = self.peers.get_mut(&event.public_key) else { return };
        match event.kind {
            PeerEventKind::Answered => named.pursuit.answers(),
            PeerEventKind::Failing | PeerEventKind::Abandoned => {
                let step = named.pursuit.fails(now(), event.endpoint);
                self.take(event.public_key, step);
            }
        }
    }

    fn deadline(&self) -> Option<u64> {
        let late = self.running.iter().map(|(_, since)| *since + PATIENCE).min();
        [late, self.look].into_iter().flatten().min().map(|at| at.as_nanos() as u64)
    }

    fn due(&mut self, _: u64, _: &Watch<'_>) {
        let now = now();
        let late: Vec<_> = self.running.extract_if(.., |(_, since)| *since + PATIENCE <= now).collect();
        for (key, _) in late {
            log::debug!("a name is not resolved in {} seconds", PATIENCE.as_secs());
            self.looked_up(key, None);
        }
        if self.look.is_some_and(|look| look <= now) {
            self.look = Some(now + LOOK);
            self.look();
        }
        self.start_lookups();
    }
}

/// Time since boot.
fn now() -> Duration {
    Duration::from_nanos(clock::boot_nanos())
}

/// From 0 to 1.
fn chance() -> f64 {
    let mut random = [0; 2];
    // Without chance it is the middle.
    match getrandom::fill(&mut random) {
        Ok(()) => f64::from(u16::from_ne_bytes(random)) / f64::from(u16::MAX),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::device::Peer;
    use linux::poll::Epoll;

    #[test]
    fn a_device_that_does_not_tell_is_looked_at() {
        let key = PublicKey::from_bytes([7; 32]);
        let name = Name { public_key: key::to_base64(&key).as_str().to_owned(), host: "localhost".to_owned(), port: 7 };
        let epoll = Epoll::new().unwrap();
        let mut names = Names::new("wg0", vec![name], false, &Watch::over(&epoll, 0)).unwrap();
        let mut look = |tx, rx, handshake: Option<u64>, wall: u64| {
            let mut peer = Peer::new(key);
            (peer.tx_bytes, peer.rx_bytes, peer.last_handshake) = (tx, rx, handshake.map(Duration::from_secs));
            let device = Device { peers: vec![peer], ..Device::default() };
            let steps = names.compare(&device, Duration::from_secs(wall));
            let pursuit = &mut names.peers.get_mut(&key).unwrap().pursuit;
            let (fails, asked) = (pursuit.is_failing(), !steps.is_empty());
            pursuit.looked_up(Duration::ZERO, None, 0.5);
            (asked, fails)
        };
        assert_eq!(look(148, 0, None, 1000), (false, false), "the first look tells nothing");
        assert_eq!(look(296, 0, None, 1030), (true, true), "asked, and never answered");
        assert_eq!(look(296, 0, None, 1060), (false, true), "nothing was sent");
        assert_eq!(look(400, 92, Some(1080), 1090), (false, false), "it answers");
        assert_eq!(look(500, 92, Some(1080), 1120), (false, false), "its session is good enough");
        assert_eq!(look(600, 92, Some(1080), 1216), (true, true), "it is not any more");
        assert_eq!(look(600, 93, Some(1080), 1246), (false, false), "something came");
    }
}

//! A rogue: a host that speaks WireGuard when it likes, and says anything else as well.
//!
//! It has a key, knows a victim's, and can do what any peer can: shake hands, seal data. What it makes it hands out as bytes, to be
//! changed, cut, repeated or sent as they are, one by one or in trains that the kernel joins. Nothing is sent by itself.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aead::{SealSegment, TAG_LEN, counter_nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use inet::{Endpoint, Source};
use linux::clock;
use linux::poll::{Epoll, Event as Ready, Interest};
use linux::udp::{Outgoing, Received, Socket, SocketGroup, UdpOptions};
use noise::limits::REKEY_TIMEOUT;
use noise::message::{MessageType, TRANSPORT_HEADER_LEN, write_transport_header};
use noise::{Device, Event, Instant, Now, PeerId, PrivateKey, PublicKey, Session};

use crate::{LabError, Namespace};

/// The longest datagram that it takes in.
const BUFFER: usize = 1 << 16;

/// A key as `wg` writes it.
pub fn base64(key: &PublicKey) -> String {
    STANDARD.encode(key.as_bytes())
}

/// A key that `wg` wrote; `None` if it is not one.
pub fn from_base64(text: &str) -> Option<PublicKey> {
    Some(PublicKey::from_bytes(STANDARD.decode(text).ok()?.try_into().ok()?))
}

/// A private key of this seed. Nobody trusts a rogue's keys, so anything will do.
pub fn private_key(seed: u64) -> PrivateKey {
    let mut bytes = [0x6b; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    PrivateKey::from_bytes(bytes)
}

/// One who knows a victim's public key, and has one of his own.
pub struct Mind {
    device: Device,
    victim: PeerId,
    public: PublicKey,
    /// By how much its clock is ahead: a rogue does not wait between two initiations, and so lets its own time pass.
    ahead: Duration,
    /// The session with the victim, once there is one.
    pub session: Option<Arc<Session>>,
    counter: u64,
    /// Cookies that it was sent, and took.
    pub cookies: usize,
}

impl Mind {
    /// With the private key of this seed. `None` if that is the victim's.
    pub fn new(seed: u64, victim: PublicKey) -> Option<Mind> {
        let private = private_key(seed);
        let public = private.public();
        let mut random = [0; 32];
        random[..8].copy_from_slice(&clock::boot_nanos().to_le_bytes());
        random[8..].copy_from_slice(&public.as_bytes()[8..]);
        let mut device = Device::new(random);
        let now = Now { boot: Instant::from_nanos(clock::boot_nanos()), wall: clock::wall() };
        device.set_private_key(now, Some(private));
        device.set_up(now, true);
        let victim = device.add_peer(now, victim).ok()?;
        Some(Mind { device, victim, public, ahead: Duration::ZERO, session: None, counter: 0, cookies: 0 })
    }

    /// The public key, as `wg` takes it.
    pub fn public_key(&self) -> String {
        base64(&self.public)
    }

    fn now(&self) -> Now {
        Now { boot: Instant::from_nanos(clock::boot_nanos()) + self.ahead, wall: clock::wall() }
    }

    /// A new initiation to the victim, newer than all before, with a cookie if one was heard lately.
    pub fn initiation(&mut self) -> Vec<u8> {
        self.ahead += REKEY_TIMEOUT;
        self.device.handle_rekey_due(self.now(), self.victim);
        self.settle().pop().unwrap_or_default()
    }

    /// Takes in what the victim sent, if it is part of a handshake. Whether it was believed.
    pub fn hear(&mut self, from: SocketAddr, message: &[u8]) -> bool {
        let believed = self.device.handle_datagram(self.now(), from, message, false).is_ok();
        self.cookies += usize::from(believed && MessageType::of(message) == Some(MessageType::CookieReply));
        self.settle();
        believed
    }

    /// The response to an initiation of the victim's; empty if that is not one.
    pub fn answer(&mut self, from: SocketAddr, initiation: &[u8]) -> Vec<u8> {
        let _ = self.device.handle_datagram(self.now(), from, initiation, false);
        self.settle().pop().unwrap_or_default()
    }

    fn settle(&mut self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        while let Some(event) = self.device.poll_event() {
            match event {
                Event::Transmit { message, .. } => out.push(message.to_vec()),
                Event::SessionInstalled { session } => {
                    self.session = Some(session);
                    self.counter = 0;
                }
                _ => (),
            }
        }
        out
    }

    /// The next data packet of the session, with this inside.
    ///
    /// # Panics
    /// Without a session.
    pub fn data(&mut self, inner: &[u8]) -> Vec<u8> {
        self.counter += 1;
        self.data_at(self.counter - 1, inner)
    }

    /// A data packet of the session with a number of one's own choice.
    ///
    /// # Panics
    /// Without a session.
    pub fn data_at(&self, counter: u64, inner: &[u8]) -> Vec<u8> {
        let session = self.session.as_ref().expect("a session, which the caller has made");
        let mut out = vec![0; TRANSPORT_HEADER_LEN + inner.len() + TAG_LEN];
        let (header, body) = out.split_at_mut(TRANSPORT_HEADER_LEN);
        write_transport_header(header, session.remote_index(), counter);
        let segment = SealSegment { nonce: counter_nonce(counter), aad: &[], head: 0, body: inner, out: body };
        session.sealing_key().seal(&mut [segment]);
        out
    }
}

/// A mind with a host to live on: a socket in a namespace.
pub struct Rogue {
    /// What it knows.
    pub mind: Mind,
    sockets: SocketGroup,
    epoll: Epoll,
    /// Where the victim is.
    pub victim: SocketAddr,
}

impl Rogue {
    /// One in `namespace`, whose victim is at this address and has this public key (base64).
    ///
    /// # Errors
    /// The key is not one, or there is no socket to be had.
    pub fn new(namespace: &Namespace, seed: u64, victim: SocketAddr, key: &str) -> Result<Rogue, LabError> {
        let unreadable = LabError::Unreadable { what: "a public key", text: key.to_owned() };
        let mind = from_base64(key).and_then(|key| Mind::new(seed, key)).ok_or(unreadable)?;
        let (sockets, epoll) = namespace.inside(|| {
            let options = UdpOptions { gro: false, ..UdpOptions::default() };
            let sockets = SocketGroup::bind(0, 0, &options).map_err(io::Error::other)?;
            let epoll = Epoll::new()?;
            for socket in &sockets.control {
                epoll.add(socket, 0, Interest::READ)?;
            }
            Ok((sockets, epoll))
        })?;
        Ok(Rogue { mind, sockets, epoll, victim })
    }

    /// The UDP port that it speaks from.
    pub fn port(&self) -> u16 {
        self.sockets.port
    }

    fn socket(&self) -> Result<&Socket, LabError> {
        let family = |socket: &&Socket| socket.is_v6() == self.victim.is_ipv6();
        let missing = || LabError::io("a rogue's socket")(io::ErrorKind::Unsupported.into());
        self.sockets.control.iter().find(family).ok_or_else(missing)
    }

    fn emit(&self, bytes: &[u8], source: Option<Source>, segment: Option<u16>) -> Result<(), LabError> {
        let to = Endpoint { addr: self.victim, source };
        let (_, error) = self.socket()?.send(&[Outgoing { to, class: 0, bytes, segment }]);
        error.map_or(Ok(()), |error| Err(LabError::io("a rogue's datagram")(io::Error::other(error))))
    }

    /// Sends one datagram to the victim.
    ///
    /// # Errors
    /// It could not be sent.
    pub fn send(&self, bytes: &[u8]) -> Result<(), LabError> {
        self.emit(bytes, None, None)
    }

    /// Sends datagrams in one train, which the victim's kernel hands over in one piece: all of one size, but the last, which may be shorter.
    ///
    /// # Errors
    /// It could not be sent.
    pub fn send_train(&self, bytes: &[u8], segment: u16) -> Result<(), LabError> {
        self.emit(bytes, None, Some(segment))
    }

    /// What comes next from the victim; `None` if nothing does within the time.
    pub fn receive(&self, limit: Duration) -> Option<Vec<u8>> {
        let socket = self.socket().ok()?;
        let mut buffer = vec![0; BUFFER];
        let deadline = std::time::Instant::now() + limit;
        loop {
            let mut received = [Received::default()];
            if let Ok(1..) = socket.recv(&mut [&mut buffer], &mut received) {
                buffer.truncate(received[0].len);
                return Some(buffer);
            }
            let left = deadline.checked_duration_since(std::time::Instant::now())?;
            self.epoll.wait(&mut [Ready::EMPTY], Some(left)).ok()?;
        }
    }

    /// Shakes hands with the victim, who must have our key, answering a cookie where one is asked for. A retry follows as soon as an answer
    /// is overdue: a rogue does not wait five seconds. How many initiations it took.
    ///
    /// # Errors
    /// [`LabError::TimedOut`].
    pub fn shake_hands(&mut self, attempts: usize, patience: Duration) -> Result<usize, LabError> {
        self.insist(attempts, patience, patience)
    }

    /// The same, repeating each initiation every `pause` until `patience` is over: on a way that loses most of what is sent, one of them arrives.
    ///
    /// # Errors
    /// [`LabError::TimedOut`].
    pub fn insist(&mut self, attempts: usize, patience: Duration, pause: Duration) -> Result<usize, LabError> {
        self.mind.session = None;
        for attempt in 1..=attempts {
            let initiation = self.mind.initiation();
            let cookies = self.mind.cookies;
            let deadline = std::time::Instant::now() + patience;
            // A cookie answers this initiation, and the next one bears it.
            while self.mind.cookies == cookies && std::time::Instant::now() < deadline {
                self.send(&initiation)?;
                while let Some(answer) = self.receive(pause) {
                    self.mind.hear(self.victim, &answer);
                    if self.mind.session.is_some() {
                        return Ok(attempt);
                    }
                }
            }
        }
        Err(LabError::TimedOut { what: "a rogue's handshake".to_owned(), after: patience * attempts as u32 })
    }
}

//! Devices on the loopback: when sockets are bound and closed, and handshakes from one to the other.

use super::{Ledger, device, report};
use crate::device::Device;
use crate::driver::token;
use crate::sockets::buffers;
use config::device::{DeviceChange, PeerChange};
use config::uapi::Errno;
use linux::poll::{Event, Interest};
use noise::{Drop, PeerId, PrivateKey};
use plane::{ControlDrop, HandshakeBytes};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

fn set_port(device: &Device, port: u16) -> Result<(), Errno> {
    device.apply(DeviceChange { listen_port: Some(port), ..DeviceChange::default() })
}

fn is_free(port: u16) -> bool {
    UdpSocket::bind(("0.0.0.0", port)).is_ok() && UdpSocket::bind(("::", port)).is_ok()
}

#[test]
fn sockets_come_and_go_with_the_link() {
    let (device, plane) = device();
    assert_eq!(report(&device).listen_port, 0);
    device.set_up(true);
    let port = report(&device).listen_port;
    assert!(port != 0 && !is_free(port), "a port was picked");
    assert_eq!(plane.with(|books| books.sockets.as_ref().map(Vec::len)), Some(1));
    // At once, several times: nothing of ours keeps the port.
    for _ in 0..3 {
        device.set_up(false);
        assert!(plane.with(|books| books.sockets.is_none()));
        assert!(is_free(port));
        device.set_up(true);
        assert_eq!(report(&device).listen_port, port, "the one that was picked before");
        assert!(!is_free(port));
    }
    device.set_up(false);
    assert!(is_free(port));
}

#[test]
fn another_port_is_bound_at_once_and_the_same_one_not_again() {
    let (device, plane) = device();
    device.set_up(true);
    let first = report(&device).listen_port;
    set_port(&device, 0).unwrap();
    let second = report(&device).listen_port;
    assert!(second != 0 && second != first);
    let rebound = plane.with(|books| books.rebound);
    set_port(&device, second).unwrap();
    assert_eq!(plane.with(|books| books.rebound), rebound);
    // There and back, as often as one likes.
    for port in [first, second, first] {
        set_port(&device, port).unwrap();
        assert_eq!(report(&device).listen_port, port);
        assert!(!is_free(port));
    }
    assert!(is_free(second));
}

#[test]
fn a_port_in_use_leaves_the_old_sockets_alone() {
    let (device, plane) = device();
    device.set_up(true);
    let port = report(&device).listen_port;
    let rebound = plane.with(|books| books.rebound);
    let other = UdpSocket::bind("0.0.0.0:0").unwrap();
    let taken = other.local_addr().unwrap().port();
    assert_eq!(set_port(&device, taken), Err(Errno::ADDRESS_IN_USE));
    assert_eq!(report(&device).listen_port, port);
    assert!(!is_free(port));
    assert_eq!(plane.with(|books| books.rebound), rebound);
    // If it was taken when the link came up, it can be tried again, or another one.
    device.set_up(false);
    set_port(&device, taken).unwrap();
    device.set_up(true);
    assert!(plane.with(|books| books.sockets.is_none()));
    assert_eq!(set_port(&device, taken), Err(Errno::ADDRESS_IN_USE));
    drop(other);
    set_port(&device, taken).unwrap();
    assert!(!is_free(taken));
}

/// One end: a device that is up, and what waits for it.
struct End {
    device: Arc<Device>,
    plane: Arc<Ledger>,
    private: PrivateKey,
    address: SocketAddr,
}

impl End {
    fn new(number: u8) -> End {
        let (device, plane) = device();
        device.epoll.add(&device.timer, token::TIMER, Interest::READ).unwrap();
        let private = PrivateKey::from_bytes([number; 32]);
        let key = Some(Some(private.clone()));
        device.apply(DeviceChange { private_key: key, ..DeviceChange::default() }).unwrap();
        device.set_up(true);
        let address = ([127, 0, 0, 1], report(&device).listen_port).into();
        End { device, plane, private, address }
    }

    fn peer_with(&self, other: &End, change: impl FnOnce(&mut PeerChange)) -> PeerId {
        let mut peer = PeerChange::new(other.private.public());
        change(&mut peer);
        self.device.apply(DeviceChange { peers: vec![peer], ..DeviceChange::default() }).unwrap();
        // What is due at once is the control thread's work.
        self.device.handle_timeout();
        self.device.state().noise.find_peer(&other.private.public()).unwrap()
    }

    /// Waits for datagrams and hands them to the protocol; how many there were.
    fn receive(&self, under_load: bool) -> usize {
        let mut messages = Vec::new();
        let mut events = [Event::EMPTY; 4];
        while messages.is_empty() {
            let events = self.device.epoll.wait(&mut events, Some(LIMIT)).unwrap();
            assert!(!events.is_empty(), "nothing came");
            for event in events {
                match event.token() {
                    token::TIMER => self.device.handle_timeout(),
                    _ => self.device.receive(&mut buffers(), |from, bytes| messages.push((from, bytes))),
                }
            }
        }
        for (from, bytes) in &messages {
            self.device.handle_handshake(*from, bytes, under_load);
        }
        messages.len()
    }

    /// What has been counted of handshakes, without zeros.
    fn counted(&self) -> Vec<String> {
        let told = self.device.stats().handshakes.into_iter().filter(|(_, count)| *count > 0);
        told.map(|(name, count)| format!("{name}={count}")).collect()
    }

    fn traffic(&self) -> (u64, u64) {
        let told = report(&self.device);
        (told.peers[0].tx_bytes, told.peers[0].rx_bytes)
    }
}

#[test]
fn a_handshake_ends_in_sessions_endpoints_and_counters() {
    let (left, right) = (End::new(1), End::new(2));
    let of_left = right.peer_with(&left, |_| {});
    // Turning it on wants a session, now.
    let of_right = left.peer_with(&right, |peer| {
        peer.endpoint = Some(right.address);
        peer.persistent_keepalive = Some(25);
    });
    assert_eq!(left.traffic(), (148, 0));
    assert_eq!(right.receive(false), 1);
    assert_eq!(right.traffic(), (92, 148));
    let endpoint = right.plane.entry(of_left, |entry| entry.endpoint).unwrap();
    assert_eq!(endpoint.addr, left.address);
    assert_eq!(endpoint.source.unwrap().ip, right.address.ip(), "answers come from where it was asked");
    assert_eq!(right.plane.with(|books| books.sessions.len()), 1);
    assert!(right.plane.entry(of_left, |entry| entry.current.is_none()), "not before it is confirmed");

    assert_eq!(left.receive(false), 1);
    assert_eq!(left.traffic(), (148, 92));
    assert!(left.plane.entry(of_right, |entry| entry.current.is_some() && entry.keepalives == 1));
    assert!(report(&left.device).peers[0].last_handshake.is_some());
    assert!(report(&right.device).peers[0].last_handshake.is_none());
    assert_eq!(left.counted(), ["initiations_sent=1", "responses_received=1"]);
    assert_eq!(right.counted(), ["initiations_received=1", "responses_sent=1"]);
    let stats = left.device.stats();
    assert_eq!((stats.process, stats.workers.len(), stats.workers[0].wakeups), (std::process::id(), 1, 7));
    let mut openly = Vec::new();
    right.device.report_openly(&mut openly).unwrap();
    openly.extend(config::uapi::reply_to_get(Ok(())).bytes());
    let openly = config::uapi::ReplyReader::new(&openly[..]).get(&config::address::NumericZones).unwrap();
    assert!(openly.private_key.is_none() && openly.public_key() == Some(right.private.public()));
    assert_eq!(openly.peers[0].reception, Some(noise::Reception::default()), "no data yet");
    assert!(!stats.uptime.is_zero() && stats.uptime < LIMIT * 3, "{:?}", stats.uptime);

    // A new port keeps the session and forgets our address; the end of the device ends both.
    set_port(&right.device, 0).unwrap();
    assert_eq!(right.plane.entry(of_left, |entry| entry.endpoint.unwrap().source), None);
    assert_eq!(right.plane.with(|books| books.sessions.len()), 1);
    left.device.set_up(false);
    assert!(left.plane.entry(of_right, |entry| entry.current.is_none() && entry.dropped > 0));
    assert_eq!(left.plane.with(|books| books.sessions.len()), 0);
    left.device.apply(DeviceChange { replace_peers: true, ..DeviceChange::default() }).unwrap();
    assert!(left.plane.with(|books| books.peers.is_empty()));
}

#[test]
fn a_peer_that_is_nowhere_is_asked_once_it_is_somewhere() {
    let (left, right) = (End::new(1), End::new(2));
    right.peer_with(&left, |_| {});
    left.peer_with(&right, |peer| peer.persistent_keepalive = Some(25));
    assert_eq!(left.device.state().noise.poll_timeout().map(|due| due > crate::device::boot()), Some(true));
    assert_eq!(left.traffic(), (0, 0));
    left.peer_with(&right, |peer| peer.endpoint = Some(right.address));
    assert_eq!(left.traffic(), (148, 0));
    assert_eq!(right.receive(false), 1);
}

#[test]
fn under_load_a_cookie_is_asked_for_and_nobody_roams_for_it() {
    let (left, right) = (End::new(1), End::new(2));
    right.peer_with(&left, |_| {});
    let of_right = left.peer_with(&right, |peer| {
        peer.endpoint = Some(right.address);
        peer.persistent_keepalive = Some(25);
    });
    assert_eq!(right.receive(true), 1);
    assert_eq!(right.traffic(), (0, 0), "it has proved nothing");
    assert_eq!(left.receive(false), 1);
    assert_eq!(left.traffic(), (148, 0));
    assert_eq!(left.plane.entry(of_right, |entry| entry.endpoint.unwrap().source), None);
}

#[test]
fn what_is_not_meant_for_us_is_not_queued() {
    let end = End::new(1);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut forged = [0; HandshakeBytes::MAX];
    forged[0] = 1;
    let mut data = [0; 64];
    data[0] = 4;
    let mut cookie = [0; 64];
    cookie[0] = 3;
    // A cookie reply has no mac1 to look at: it shows when the others have been passed over.
    for message in [&forged[..], &data, &[1; 3], &[0; 2000], &[], &cookie] {
        stranger.send_to(message, end.address).unwrap();
    }
    let mut queued = Vec::new();
    while queued.is_empty() {
        let mut events = [Event::EMPTY; 4];
        assert!(!end.device.epoll.wait(&mut events, Some(LIMIT)).unwrap().is_empty());
        end.device.receive(&mut buffers(), |from, bytes| queued.push((from, bytes)));
    }
    assert_eq!(queued.len(), 1);
    assert_eq!(&queued[0].1[..], cookie);
    assert_eq!(queued[0].0.addr, stranger.local_addr().unwrap());
    // The data went to a worker, which is not here.
    let refused = [Drop::InvalidMac1, Drop::Malformed, Drop::Malformed, Drop::Malformed].map(ControlDrop::Refused);
    assert_eq!(end.plane.with(|books| books.drops.clone()), refused);
}

#[test]
fn each_refused_handshake_is_counted() {
    let (left, right) = (End::new(1), End::new(2));
    left.peer_with(&right, |peer| {
        peer.endpoint = Some(right.address);
        peer.persistent_keepalive = Some(25);
    });
    assert_eq!(right.receive(false), 1);
    assert_eq!(right.plane.with(|books| books.drops.clone()), [ControlDrop::Refused(Drop::UnknownPeer)]);
    assert_eq!(right.device.drops(), [("of-control", 1), ("socket-full", 0)]);
}

#[test]
fn what_overflowed_a_socket_is_counted_beyond_its_end() {
    let end = End::new(1);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let overflowed = || end.device.drops().last().copied().unwrap().1;
    // Nobody fetches; a send on the loopback is in the other socket, or dropped, when it returns.
    for _ in 0..1_000_000 {
        stranger.send_to(&[0; 60_000], end.address).unwrap();
        if overflowed() == 100 {
            break;
        }
    }
    assert_eq!(overflowed(), 100);
    end.device.set_up(false);
    assert_eq!(overflowed(), 100);
}

//! Two data planes and the network between them: what comes out of one TUN went into the other, whatever happens on the way.
//!
//! The whole way of a packet is run: read from the TUN, admitted, cut, sealed, sent by a real UDP socket, received by another,
//! opened, checked, joined, written. Sockets that keep packets apart stand for the TUNs. Each datagram passes through the hands of
//! the network here, which loses, repeats, reorders and corrupts it, sends it from elsewhere, or invents it; devices begin
//! handshakes at any time, change keys, forget each other, and time passes. A peer that is itself hostile seals what it likes.
//!
//! What must hold: on the wire, headers are well-formed, padding is to 16 bytes, counters only grow; out of a TUN come only segments
//! that went into the other, no more often than they did, in order within a flow unless the network reordered, from sources that the
//! peer may use; all of them where nothing went wrong; and no job is ever lost (see `Hand::rest`).

#![no_main]

use inet::{
    Endpoint,
    ip::IpPacket,
    vnet::{self, VnetHeader},
};
use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary, fuzz_target};
use linux::{
    tun::Offloads,
    udp::{Received, SocketGroup, UdpOptions},
};
use noise::{Destination, Device, Event, Now, PeerId, PresharedKey, PrivateKey, Session, message};
use plane::{
    AllowedIpChange, DataPlane, PlaneEvent,
    userspace::{
        Helping, UserspaceConfig,
        hand::{self, Hand},
    },
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    net::{SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

// A folder, so that it is not taken for a target.
#[path = "pipeline/packet.rs"]
mod packet;

use packet::{Kind, cidr, cidr6, flow, normal, packet, segments};

const MTU: u32 = 1420;
const BUFFER: usize = 16 << 20;

#[derive(Arbitrary, Debug)]
enum Step {
    /// A packet for the TUN of an end; more steps may follow before the end looks at it.
    Packet {
        end: bool,
        v6: bool,
        flow: u8,
        kind: Kind,
        len: u16,
        ecn: u8,
    },
    /// Bytes for the TUN of an end, behind any header.
    Raw {
        end: bool,
        header: [u8; vnet::LEN],
        bytes: Vec<u8>,
    },
    /// An end does all that it can.
    Rest {
        end: bool,
    },
    /// So many of the datagrams of an end reach the other, as many at once as the kernel makes of them.
    Deliver {
        end: bool,
        count: u8,
    },
    Lose {
        end: bool,
        at: u8,
    },
    Repeat {
        end: bool,
        at: u8,
    },
    Swap {
        end: bool,
        a: u8,
        b: u8,
    },
    Corrupt {
        end: bool,
        at: u8,
        byte: u16,
        bit: u8,
    },
    Truncate {
        end: bool,
        at: u8,
        len: u16,
    },
    Replay {
        end: bool,
        which: u8,
    },
    Invent {
        end: bool,
        bytes: Vec<u8>,
    },
    /// What an end sends seems to come from another port from now on.
    Roam {
        end: bool,
    },
    /// An end seals what it likes, and not what its TUN gave.
    Hostile {
        end: bool,
        plaintext: Vec<u8>,
    },
    HostilePacket {
        end: bool,
        v6: bool,
        flow: u8,
        kind: Kind,
        len: u16,
        source: u8,
    },
    Pass {
        millis: u16,
        seconds: u8,
    },
    Rekey {
        end: bool,
    },
    Preshared {
        end: bool,
        psk: u8,
    },
    Identity {
        end: bool,
        n: u8,
    },
    Up {
        end: bool,
        up: bool,
    },
    Mtu {
        end: bool,
        mtu: u16,
    },
    /// The other is no peer any more, or is one again.
    Peer {
        end: bool,
        known: bool,
    },
    Allowed {
        end: bool,
        any: bool,
    },
}

/// One end.
struct End {
    number: usize,
    hand: Hand,
    /// Our side of what stands for its TUN.
    tun: OwnedFd,
    header: bool,
    group: SocketGroup,
    /// Where the network takes what it sends, and from where it sends what is for this end: the other end's two addresses.
    towards: [UdpSocket; 2],
    device: Device,
    peer: Option<PeerId>,
    current: Option<Arc<Session>>,
    /// What it sent that is under way.
    under_way: VecDeque<Vec<u8>>,
    recorded: Vec<Vec<u8>>,
    /// The next counter of each receiver index that it sends to.
    counters: HashMap<u32, u64>,
    /// Which of the other end's addresses the other end sends from now.
    roamed: usize,
    mtu: usize,
    /// What went into its TUN and has not come out of the other: segments, and their numbers.
    books: HashMap<Vec<u8>, VecDeque<u64>>,
    /// The last number that came out of the other's TUN, by flow.
    flows: HashMap<Vec<u8>, u64>,
    written: u64,
    reordered: bool,
}

/// Both ends, which outlive a run: their buffers and sockets are what takes time to make.
struct World {
    ends: [End; 2],
    /// Nothing has happened that loses packets.
    lossless: bool,
}

fn private(n: usize) -> PrivateKey {
    PrivateKey::from_bytes([n as u8 + 1; 32])
}

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a socket pair");
    for fd in [&pair.0, &pair.1] {
        let _ = sockopt::set_socket_send_buffer_size_force(fd, BUFFER)
            .or_else(|_| sockopt::set_socket_send_buffer_size(fd, BUFFER));
    }
    pair
}

fn middle() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_nonblocking(true).expect("a socket option");
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, BUFFER));
    socket
}

fn now() -> Now {
    let boot = hand::now();
    Now { boot, wall: Duration::from_secs(1_700_000_000) + Duration::from_nanos(boot.as_nanos()) }
}

impl End {
    fn new(number: usize, offloads: Offloads) -> Self {
        let (tun, theirs) = pair();
        let (busy_poll, helping) = (Duration::ZERO, Helping::Never);
        let config = UserspaceConfig { offloads, udp_gso: offloads.vnet, mtu: MTU, busy_poll, helping };
        let mut hand = Hand::new(theirs, config).expect("a data plane");
        let group = SocketGroup::bind(0, 1, &UdpOptions::default()).expect("sockets");
        hand.take_sockets(group.workers[0].clone());
        Self {
            number,
            hand,
            tun,
            header: offloads.vnet,
            group,
            towards: [middle(), middle()],
            device: Device::new([0; 32]),
            peer: None,
            current: None,
            under_way: VecDeque::new(),
            recorded: Vec::new(),
            counters: HashMap::new(),
            roamed: 0,
            mtu: MTU as usize,
            books: HashMap::new(),
            flows: HashMap::new(),
            written: 0,
            reordered: false,
        }
    }

    /// Begins a run: a new device that knows the other, and nothing of the last run.
    fn begin(&mut self) {
        self.forget();
        self.drain();
        let now = now();
        self.device = Device::new([self.number as u8; 32]);
        self.device.set_private_key(now, Some(private(self.number)));
        self.device.set_up(now, true);
        self.hand.set_mac1_checker(self.device.mac1_checker());
        self.hand.set_mtu(MTU);
        (self.mtu, self.roamed, self.written, self.reordered) = (MTU as usize, 0, 0, false);
        self.under_way.clear();
        self.recorded.clear();
        self.counters.clear();
        self.books.clear();
        self.flows.clear();
        self.meet();
    }

    fn meet(&mut self) {
        let other = 1 - self.number;
        let Ok(peer) = self.device.add_peer(now(), private(other).public()) else { return };
        self.hand.add_peer(peer, self.device.activity(peer).expect("the peer that was just added"));
        self.hand.set_endpoint(peer, Some(Endpoint::new(self.towards[0].local_addr().expect("a bound socket"))));
        self.peer = Some(peer);
        self.allow(false);
    }

    /// What the peer may use: its own two addresses, or all of them.
    fn allow(&mut self, any: bool) {
        let Some(peer) = self.peer else { return };
        let other = 1 - self.number as u8;
        let cidrs = if any { [cidr([0; 4], 0), cidr6(0, 0)] } else { [cidr([10, 0, 0, other], 32), cidr6(other, 128)] };
        let mut changes = vec![AllowedIpChange::Clear(peer)];
        changes.extend(cidrs.map(|cidr| AllowedIpChange::Insert(cidr, peer)));
        self.hand.change_allowed_ips(&changes);
    }

    fn forget(&mut self) {
        if let Some(peer) = self.peer.take() {
            self.device.remove_peer(now(), peer);
            self.carry_out(None);
            self.hand.rest();
        }
    }

    /// Throws away whatever is still in a socket.
    fn drain(&mut self) {
        self.hand.rest();
        let mut buffer = [0; 1 << 16];
        while rustix::net::recv(&self.tun, &mut buffer[..], RecvFlags::DONTWAIT).is_ok() {}
        for socket in &self.towards {
            while socket.recv(&mut buffer).is_ok() {}
        }
        for socket in &self.group.control {
            while socket.recv(&mut [&mut buffer[..]], &mut [Received::default()]).is_ok() {}
        }
        while self.hand.poll_event().is_some() {}
    }

    /// Does what the device wants done, as control does.
    fn carry_out(&mut self, source: Option<Endpoint>) {
        for count in 0.. {
            let Some(event) = self.device.poll_event() else { break };
            assert!(count < 1000, "events without end");
            match event {
                Event::Transmit { message, to: Destination::Peer(_) | Destination::Source } => {
                    self.check_wire(&message);
                    self.under_way.push_back(message.to_vec());
                }
                Event::EndpointConfirmed { peer } => self.hand.set_endpoint(peer, source),
                Event::SessionInstalled { session } => self.hand.install_session(session),
                Event::SessionCurrent { peer, session } => {
                    self.current = session.clone();
                    self.hand.set_current_session(peer, session);
                }
                Event::SessionRetired { session } => self.hand.retire_session(&session),
                Event::KeepaliveDue { peer } => self.hand.send_keepalive(peer),
                Event::HandshakeAbandoned { peer } => self.hand.drop_waiting(peer),
                Event::SourceStale { peer } => self.hand.forget_source(peer),
                Event::PeerRemoved { peer } => {
                    self.current = None;
                    self.hand.remove_peer(peer);
                }
                _ => (),
            }
        }
    }

    /// Handles what the control socket and the data plane have for control. Returns whether there was anything.
    fn control(&mut self) -> bool {
        let mut some = false;
        let mut buffer = [0; 1 << 16];
        for socket in self.group.control.clone() {
            let mut received = [Received::default()];
            while socket.recv(&mut [&mut buffer[..]], &mut received).is_ok() {
                some = true;
                let from = Endpoint { addr: received[0].from, source: received[0].source };
                for bytes in buffer[..received[0].len].chunks(received[0].segment) {
                    let _ = self.device.handle_datagram(now(), from.addr, bytes, false);
                    self.carry_out(Some(from));
                }
            }
        }
        while let Some(event) = self.hand.poll_event() {
            some = true;
            let mut source = None;
            match event {
                PlaneEvent::SessionWanted(peer) => self.device.handle_session_wanted(now(), peer),
                PlaneEvent::RekeyDue(peer) => self.device.handle_rekey_due(now(), peer),
                PlaneEvent::SessionConfirmed(session) => self.device.handle_session_confirmed(now(), &session),
                PlaneEvent::Activity(peer) => self.device.handle_activity(now(), peer),
                PlaneEvent::Handshake { from, bytes } => {
                    let _ = self.device.handle_datagram(now(), from.addr, &bytes, false);
                    source = Some(from);
                }
                PlaneEvent::TunGone(error) => panic!("the TUN has gone: {error}"),
            }
            self.carry_out(source);
        }
        // As if the way out were never the way in.
        if let Some(endpoint) = self.peer.and_then(|peer| self.hand.endpoint(peer))
            && let (Some(peer), Some(_)) = (self.peer, endpoint.source)
        {
            self.hand.refuse_source(peer, endpoint, 0);
            assert!(self.hand.refused_sources(peer).len() <= 4);
        }
        some
    }

    /// Does all that there is to do, and takes what was sent.
    fn rest(&mut self) {
        for _ in 0..100 {
            self.hand.rest();
            let some = self.control();
            self.collect();
            if !some {
                return;
            }
        }
        panic!("control and data plane never fall silent");
    }

    fn collect(&mut self) {
        let mut buffer = [0; 1 << 16];
        for n in 0..2 {
            while let Ok(len) = self.towards[n].recv(&mut buffer) {
                self.check_wire(&buffer[..len]);
                self.under_way.push_back(buffer[..len].to_vec());
            }
        }
    }

    /// What anybody on the way may see of a message.
    fn check_wire(&mut self, bytes: &[u8]) {
        assert_eq!(bytes[1..4], [0; 3], "reserved bytes");
        match (bytes[0], bytes.len()) {
            (1, 148) | (2, 92) | (3, 64) => (),
            (4, 32..) => {
                let header = message::parse_transport_header(bytes).expect("a transport message");
                let next = self.counters.entry(header.receiver.as_u32()).or_default();
                let counter = header.counter.as_u64();
                assert!(counter >= *next, "counter {counter} after {next}");
                *next = counter + 1;
                let inner = bytes.len() - 32;
                assert!(inner.is_multiple_of(16) || inner >= self.mtu.min(1280), "{inner} bytes are not padded");
            }
            (kind, len) => panic!("type {kind} with {len} bytes"),
        }
        if self.recorded.len() < 64 {
            self.recorded.push(bytes.to_vec());
        }
    }

    /// Puts a packet (virtio header first) into the TUN, and its segments into the books.
    fn write(&mut self, packet: &[u8]) {
        let input = if self.header { packet } else { &packet[vnet::LEN..] };
        if rustix::net::send(&self.tun, input, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_err() {
            return;
        }
        let header = if self.header { VnetHeader::parse(packet) } else { Ok(VnetHeader::default()) };
        let Ok(header) = header else { return };
        for segment in segments(&header, &packet[vnet::LEN..]).unwrap_or_default() {
            self.enter(segment, true);
        }
    }

    fn enter(&mut self, segment: Vec<u8>, in_order: bool) {
        self.written += 1;
        // Number 0 stands for what need not be in order.
        self.books.entry(segment).or_default().push_back(if in_order { self.written } else { 0 });
    }

    /// Seals a plaintext of the caller's, past everything that the data plane would see to.
    fn seal(&mut self, plaintext: &[u8]) {
        let Some(session) = self.current.clone() else { return };
        let Ok(counter) = session.reserve(hand::now(), 1) else { return };
        let mut bytes = vec![0; message::TRANSPORT_MIN_LEN + plaintext.len()];
        let (header, out) = bytes.split_at_mut(message::TRANSPORT_HEADER_LEN);
        message::write_transport_header(header, session.remote_index(), counter);
        let nonce = aead::counter_nonce(counter);
        session.sealing_key().seal(&mut [aead::SealSegment { nonce, aad: &[], head: 0, body: plaintext, out }]);
        session.release(counter, 1);
        self.counters.insert(session.remote_index().as_u32(), counter + 1);
        self.under_way.push_back(bytes);
        if let Ok(packet) = IpPacket::parse(plaintext) {
            self.enter(normal(packet.bytes()), false);
        }
    }
}

impl World {
    fn new(offloads: Offloads) -> Self {
        Self { ends: [0, 1].map(|n| End::new(n, offloads)), lossless: true }
    }

    /// Carries datagrams of `from` to the other end.
    fn deliver(&mut self, from: usize, count: usize) {
        let (sender, receiver) = {
            let [a, b] = &mut self.ends;
            if from == 0 { (a, b) } else { (b, a) }
        };
        let to = SocketAddr::from(([127, 0, 0, 1], receiver.group.port));
        let mut left = count.min(sender.under_way.len());
        while left > 0 {
            // No more at once than the sockets hold.
            for bytes in sender.under_way.drain(..left.min(256)) {
                receiver.towards[sender.roamed].send_to(&bytes, to).expect("loopback takes it");
            }
            left -= left.min(256);
            receiver.rest();
            self_check(sender, receiver);
        }
    }

    fn rest(&mut self, end: usize) {
        self.ends[end].rest();
        let [a, b] = &mut self.ends;
        self_check(a, b);
        self_check(b, a);
    }

    /// Lets everything arrive.
    fn finish(&mut self) {
        for _ in 0..100 {
            for end in 0..2 {
                self.rest(end);
            }
            if self.ends.iter().all(|end| end.under_way.is_empty()) {
                return;
            }
            for end in 0..2 {
                self.deliver(end, usize::MAX);
            }
        }
        panic!("the two never fall silent");
    }
}

/// Reads what came out of the receiver's TUN and strikes it from the sender's books.
fn self_check(sender: &mut End, receiver: &mut End) {
    let mut buffer = [0; vnet::LEN + (1 << 16)];
    while let Ok((len, _)) = rustix::net::recv(&receiver.tun, &mut buffer[..], RecvFlags::DONTWAIT) {
        let (header, packet) = match receiver.header {
            true => (VnetHeader::parse(&buffer[..len]).expect("a virtio header"), &buffer[vnet::LEN..len]),
            false => (VnetHeader::default(), &buffer[..len]),
        };
        let segments = segments(&header, packet).expect("what comes out can be cut");
        for segment in segments {
            let source = IpPacket::parse(&segment).expect("what comes out is a packet").src();
            let allowed = receiver.peer.map(|peer| receiver.hand.allowed_ips(peer)).unwrap_or_default();
            assert!(allowed.iter().any(|cidr| cidr.contains(source)), "{source} is not the peer's");
            let numbers = sender
                .books
                .get_mut(&segment)
                .unwrap_or_else(|| panic!("never went in, or came out before: {segment:?}"));
            let flow = flow(&segment);
            let last = sender.flows.get(&flow).copied().unwrap_or_default();
            let at = numbers.iter().position(|&number| number == 0 || number > last || sender.reordered);
            let number = at.and_then(|at| numbers.remove(at)).expect("in order within its flow");
            if numbers.is_empty() {
                sender.books.remove(&segment);
            }
            sender.flows.insert(flow, number.max(last));
        }
    }
}

fn run(world: &mut World, steps: Vec<Step>) {
    for end in 0..2 {
        world.ends[end].begin();
    }
    // A session, so that not each run has to find out how to make one.
    let peer = world.ends[0].peer.expect("both know each other");
    world.ends[0].device.handle_session_wanted(now(), peer);
    world.ends[0].carry_out(None);
    world.finish();
    assert!(world.ends.iter().all(|end| end.current.is_some()), "a handshake makes a session");
    world.lossless = true;

    for step in steps.into_iter().take(48) {
        world.lossless &=
            matches!(step, Step::Packet { .. } | Step::Rest { .. } | Step::Deliver { .. } | Step::Roam { .. });
        world.step(step);
    }
    world.finish();
    for end in &world.ends {
        assert!(!world.lossless || end.books.is_empty(), "{} segments are lost", end.books.len());
    }
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Packet { end, v6, flow, mut kind, len, ecn } => {
                let end = &mut self.ends[usize::from(end)];
                if !end.header {
                    kind = if matches!(kind, Kind::Tcp | Kind::Tso(_)) { Kind::Tcp } else { Kind::Udp };
                }
                let bytes = packet(end.number as u8, v6, flow, kind, len, ecn, end.written);
                end.write(&bytes);
            }
            Step::Raw { end, header, bytes } => {
                let all = [&header[..], &bytes].concat();
                if all.len() < vnet::LEN + (1 << 16) {
                    self.ends[usize::from(end)].write(&all);
                }
            }
            Step::Rest { end } => self.rest(usize::from(end)),
            Step::Deliver { end, count } => self.deliver(usize::from(end), count.into()),
            Step::Lose { end, at } => {
                let under_way = &mut self.ends[usize::from(end)].under_way;
                under_way.remove(usize::from(at) % under_way.len().max(1));
            }
            Step::Repeat { end, at } => {
                let under_way = &mut self.ends[usize::from(end)].under_way;
                under_way.extend(under_way.get(usize::from(at) % under_way.len().max(1)).cloned());
                self.ends[usize::from(end)].reordered = true;
            }
            Step::Swap { end, a, b } => {
                let end = &mut self.ends[usize::from(end)];
                if !end.under_way.is_empty() {
                    let len = end.under_way.len();
                    end.under_way.swap(usize::from(a) % len, usize::from(b) % len);
                    end.reordered = true;
                }
            }
            Step::Corrupt { end, at, byte, bit } => {
                let under_way = &mut self.ends[usize::from(end)].under_way;
                let at = usize::from(at) % under_way.len().max(1);
                if let Some(bytes) = under_way.get_mut(at).filter(|bytes| !bytes.is_empty()) {
                    let byte = usize::from(byte) % bytes.len();
                    bytes[byte] ^= 1 << (bit % 8);
                }
            }
            Step::Truncate { end, at, len } => {
                let under_way = &mut self.ends[usize::from(end)].under_way;
                let at = usize::from(at) % under_way.len().max(1);
                if let Some(bytes) = under_way.get_mut(at) {
                    bytes.truncate(len.into());
                }
            }
            Step::Replay { end, which } => {
                let end = &mut self.ends[usize::from(end)];
                let which = usize::from(which) % end.recorded.len().max(1);
                end.under_way.extend(end.recorded.get(which).cloned());
                end.reordered = true;
            }
            Step::Invent { end, mut bytes } => {
                let sender = &mut self.ends[usize::from(end)];
                bytes.truncate(2000);
                sender.under_way.push_back(bytes);
            }
            Step::Roam { end } => self.ends[usize::from(end)].roamed ^= 1,
            Step::Hostile { end, plaintext } => {
                if plaintext.len() < 60_000 {
                    self.ends[usize::from(end)].seal(&plaintext);
                }
            }
            Step::HostilePacket { end, v6, flow, kind, len, source } => {
                let end = &mut self.ends[usize::from(end)];
                let kind = if matches!(kind, Kind::Tcp | Kind::Tso(_)) { Kind::Tcp } else { Kind::Udp };
                let bytes = packet(source % 3, v6, flow, kind, len, 1, end.written);
                end.seal(&bytes[vnet::LEN..]);
            }
            Step::Pass { millis, seconds } => {
                hand::pass(Duration::from_millis(millis.into()) + Duration::from_secs(seconds.into()));
                for end in &mut self.ends {
                    for _ in 0..8 {
                        if end.device.poll_timeout().is_none_or(|due| due > hand::now()) {
                            break;
                        }
                        end.device.handle_timeout(now());
                        end.carry_out(None);
                    }
                }
            }
            Step::Rekey { end } => {
                let end = &mut self.ends[usize::from(end)];
                if let Some(peer) = end.peer {
                    end.device.handle_rekey_due(now(), peer);
                    end.carry_out(None);
                }
            }
            Step::Preshared { end, psk } => {
                let end = &mut self.ends[usize::from(end)];
                if let Some(peer) = end.peer {
                    end.device.set_preshared_key(now(), peer, PresharedKey::from_bytes([psk % 2; 32]));
                }
            }
            Step::Identity { end, n } => {
                let end = &mut self.ends[usize::from(end)];
                end.device.set_private_key(now(), Some(private(usize::from(n % 3))));
                end.hand.set_mac1_checker(end.device.mac1_checker());
                if end.peer.is_some_and(|peer| end.device.peer_key(peer).is_none()) {
                    end.peer = None;
                }
                end.carry_out(None);
            }
            Step::Up { end, up } => {
                let end = &mut self.ends[usize::from(end)];
                end.device.set_up(now(), up);
                end.carry_out(None);
            }
            Step::Mtu { end, mtu } => {
                let end = &mut self.ends[usize::from(end)];
                let mtu = mtu.clamp(1280, 9000);
                end.mtu = end.mtu.min(mtu.into());
                end.hand.set_mtu(mtu.into());
            }
            Step::Peer { end, known } => {
                let end = &mut self.ends[usize::from(end)];
                match known {
                    true => end.meet(),
                    false => end.forget(),
                }
            }
            Step::Allowed { end, any } => self.ends[usize::from(end)].allow(any),
        }
    }
}

thread_local! {
    static WORLDS: RefCell<[World; 2]> = RefCell::new([
        World::new(Offloads { vnet: true, csum: true, tso: true, uso: true }),
        World::new(Offloads::default()),
    ]);
}

fuzz_target!(|input: (bool, Vec<Step>)| {
    let (plain, steps) = input;
    WORLDS.with_borrow_mut(|worlds| run(&mut worlds[usize::from(plain)], steps));
});

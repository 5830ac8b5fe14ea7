//! The other end, without programs: messages sealed and opened by `ring`, packets made by hand.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use inet::{Endpoint, checksum, ip::IpPacket};
use lab::{Namespace, wait_for};
use linux::udp::{Outgoing, Received, Socket, SocketGroup, UdpOptions};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, eth, recv, socket_with, sockopt};

fn key(bytes: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, bytes).unwrap())
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// A transport message with this payload, padding included.
pub fn seal(secret: &[u8; 32], index: u32, counter: u64, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![4, 0, 0, 0];
    message.extend(index.to_le_bytes());
    message.extend(counter.to_le_bytes());
    let mut text = payload.to_vec();
    key(secret).seal_in_place_append_tag(nonce(counter), Aad::empty(), &mut text).unwrap();
    message.extend(text);
    message
}

/// Receiver index, counter and payload of a transport message, if it is one and authentic.
pub fn open(secret: &[u8; 32], message: &[u8]) -> Option<(u32, u64, Vec<u8>)> {
    let index = u32::from_le_bytes(message.get(4..8)?.try_into().ok()?);
    let counter = u64::from_le_bytes(message.get(8..16)?.try_into().ok()?);
    if message[..4] != [4, 0, 0, 0] {
        return None;
    }
    let mut text = message[16..].to_vec();
    let plain = key(secret).open_in_place(nonce(counter), Aad::empty(), &mut text).ok()?;
    Some((index, counter, plain.to_vec()))
}

/// An IP packet with a UDP datagram in it, checksums and all.
pub fn udp_packet(from: SocketAddr, to: SocketAddr, class: u8, payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len();
    let mut udp = Vec::new();
    udp.extend(from.port().to_be_bytes());
    udp.extend(to.port().to_be_bytes());
    udp.extend((len as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let sum = checksum::finish_udp(checksum::sum(&udp, checksum::pseudo_header(from.ip(), to.ip(), 17, len)));
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    ip_packet(from.ip(), to.ip(), class, 17, &udp)
}

/// An IP packet with a TCP header and no data in it.
pub fn tcp_packet(from: SocketAddr, to: SocketAddr, seq: u32, ack: u32, flags: u8, options: &[u8]) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(from.port().to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    tcp.extend(seq.to_be_bytes());
    tcp.extend(ack.to_be_bytes());
    tcp.extend([(((20 + options.len()) / 4) << 4) as u8, flags, 0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend(options);
    let sum = checksum::finish(checksum::sum(&tcp, checksum::pseudo_header(from.ip(), to.ip(), 6, tcp.len())));
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    ip_packet(from.ip(), to.ip(), 0, 6, &tcp)
}

/// An IP packet around this.
pub fn ip_packet(from: IpAddr, to: IpAddr, class: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet.extend([0x45, class]);
            packet.extend((20 + payload.len() as u16).to_be_bytes());
            packet.extend([0x12, 0x34, 0, 0, 64, protocol, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            let sum = checksum::finish(checksum::sum(&packet, 0));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet.extend([0x60 | class >> 4, class << 4, 0, 0]);
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        _ => panic!("two families"),
    }
    packet.extend(payload);
    packet
}

/// With zeros up to a multiple of 16.
pub fn padded(packet: &[u8]) -> Vec<u8> {
    let mut padded = packet.to_vec();
    padded.resize(packet.len().next_multiple_of(16), 0);
    padded
}

/// Whether all checksums of an IP packet with TCP or UDP are right.
pub fn checksums_are_right(packet: &[u8]) -> bool {
    let ip = IpPacket::parse(packet).unwrap();
    let transport = ip.transport().unwrap();
    let header = packet[0] >> 4 == 6 || checksum::finish(checksum::sum(&packet[..ip.header_len()], 0)) == 0;
    let segment = &ip.bytes()[transport.offset..];
    let pseudo = checksum::pseudo_header(ip.src(), ip.dst(), transport.protocol, segment.len());
    header && checksum::finish(checksum::sum(segment, pseudo)) == 0
}

/// UDP sockets of a host, for both families.
pub struct Sockets(SocketGroup);

impl Sockets {
    pub fn bind(namespace: &Namespace, port: u16) -> Sockets {
        let options = UdpOptions { gro: false, ..UdpOptions::default() };
        let group = namespace.inside(|| SocketGroup::bind(port, 0, &options).map_err(std::io::Error::other));
        Sockets(group.unwrap())
    }

    fn of(&self, v6: bool) -> &Socket {
        self.0.control.iter().find(|socket| socket.is_v6() == v6).unwrap()
    }

    /// Sends a datagram, or (`segment`) a run of them.
    pub fn send(&self, to: SocketAddr, class: u8, bytes: &[u8], segment: Option<u16>) {
        let to = Endpoint { addr: to, source: None };
        let (sent, error) = self.of(to.addr.is_ipv6()).send(&[Outgoing { to, class, bytes, segment }]);
        assert!(sent == 1 && error.is_none(), "{error:?}");
    }

    /// The next datagram, with its ECN bits, if one comes in time.
    pub fn receive(&self, v6: bool, limit: Duration) -> Option<(Vec<u8>, Received)> {
        let (mut buffer, mut received) = (vec![0; 1 << 16], [Received::default()]);
        let look = || match self.of(v6).recv(&mut [&mut buffer], &mut received) {
            Ok(1..) => Ok(Some(())),
            _ => Ok(None),
        };
        wait_for("a datagram", limit, look).ok()?;
        buffer.truncate(received[0].len);
        Some((buffer, received[0]))
    }
}

/// What comes in by a host's interfaces, byte for byte.
pub struct Observer(OwnedFd);

impl Observer {
    pub fn new(namespace: &Namespace) -> Observer {
        let open = || {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(eth::ALL))?;
            sockopt::set_socket_recv_buffer_size_force(&socket, 16 << 20)?;
            Ok(socket)
        };
        Observer(namespace.inside(open).unwrap())
    }

    /// Waits for exactly these bytes. An Ethernet frame never equals an IP packet.
    pub fn expect(&self, what: &str, packet: &[u8]) {
        let mut frame = vec![0; 1 << 17];
        let mut others = Vec::new();
        let look = || {
            while let Ok((_, len)) = recv(&self.0, &mut frame[..], RecvFlags::DONTWAIT) {
                if &frame[..len] == packet {
                    return Ok(Some(()));
                }
                others.push(hex::encode(&frame[..len]));
            }
            Ok(None)
        };
        if let Err(error) = wait_for(what, crate::bed::LIMIT, look) {
            panic!("{error}: expected {}, heard {others:#?}", hex::encode(packet));
        }
    }
}

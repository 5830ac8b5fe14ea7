//! An eavesdropper: every UDP datagram that a host sends or receives, as it is on its wires.
//!
//! A packet socket (AF_PACKET) listens on all interfaces of a namespace; its buffer in the kernel holds what it heard until it is
//! asked. What a host sends is heard after it was cut into frames, what it receives after the kernel joined some: so to hear
//! each datagram alone, ask its sender.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, eth, recv, socket_with, sockopt};

use crate::{LabError, Namespace};

/// Bytes that may wait in the kernel.
const BUFFER: usize = 64 << 20;
const ETHERNET: usize = 14;
const UDP: u8 = 17;

/// A UDP datagram as it was heard.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The link address that it was sent from.
    pub link: [u8; 6],
    /// Who sent it.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// Its IP header, IPv6 extension headers not included: a datagram behind some is not heard.
    pub ip: Vec<u8>,
    /// Its UDP header.
    pub udp: [u8; 8],
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Heard {
    /// Whether its UDP checksum is there and right.
    pub fn checksum_is_right(&self) -> bool {
        let mut sum = u32::from(UDP) + (8 + self.payload.len()) as u32;
        let addresses = if self.ip[0] >> 4 == 4 { &self.ip[12..20] } else { &self.ip[8..40] };
        for part in [addresses, &self.udp, &self.payload] {
            let words = part.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from));
            sum += words.sum::<u32>();
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        self.udp[6..8] != [0, 0] && sum == 0xffff
    }

    /// Reads an Ethernet frame; `None` of what is not a whole UDP datagram.
    fn parse(frame: &[u8]) -> Option<Heard> {
        let packet = frame.get(ETHERNET..)?;
        let (ip, from, to): (_, IpAddr, IpAddr) = match frame[12..14] {
            [0x08, 0x00] => {
                let len = usize::from(*packet.first()? & 0xf) * 4;
                let ip = packet.get(..len)?;
                let fragment = u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & 0x3fff != 0;
                if fragment || *ip.get(9)? != UDP {
                    return None;
                }
                let address =
                    |at| ip.get(at..at + 4)?.try_into().ok().map(|octets: [u8; 4]| Ipv4Addr::from(octets).into());
                (ip, address(12)?, address(16)?)
            }
            [0x86, 0xdd] => {
                let ip = packet.get(..40)?;
                if ip[6] != UDP {
                    return None;
                }
                let address =
                    |at| ip.get(at..at + 16)?.try_into().ok().map(|octets: [u8; 16]| Ipv6Addr::from(octets).into());
                (ip, address(8)?, address(24)?)
            }
            _ => return None,
        };
        let udp: [u8; 8] = *packet.get(ip.len()..)?.first_chunk()?;
        let word = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        let payload = packet.get(ip.len() + 8..ip.len() + usize::from(word(4)))?;
        Some(Heard {
            link: *frame[6..].first_chunk()?,
            from: SocketAddr::new(from, word(0)),
            to: SocketAddr::new(to, word(2)),
            ip: ip.to_vec(),
            udp,
            payload: payload.to_vec(),
        })
    }
}

/// Listens in on a namespace from its making on.
pub struct Capture {
    socket: OwnedFd,
}

impl Capture {
    /// Starts to listen.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn start(namespace: &Namespace) -> Result<Capture, LabError> {
        let socket = namespace.inside(|| {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(eth::ALL))?;
            sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)?;
            Ok(socket)
        })?;
        Ok(Capture { socket })
    }

    /// The UDP datagrams heard since the last call, in order.
    pub fn heard(&self) -> Vec<Heard> {
        let (mut frame, mut heard) = (vec![0; 1 << 17], Vec::new());
        while let Ok((_, len)) = recv(&self.socket, &mut frame[..], RecvFlags::DONTWAIT) {
            heard.extend(Heard::parse(&frame[..len.min(frame.len())]));
        }
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_taken_apart() {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 31, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0xca, 0x6c, 0, 53, 0, 11, 0, 0, 1, 2, 3, 0, 0, 0]);
        let mut heard = Heard::parse(&frame).unwrap();
        assert_eq!((heard.from.to_string(), heard.to.to_string()), ("10.0.0.1:51820".into(), "10.0.0.2:53".into()));
        assert_eq!(heard.payload, [1, 2, 3], "without the frame's padding");
        assert!(!heard.checksum_is_right(), "there is none");
        let right = (0..=u16::MAX).filter(|sum| {
            heard.udp[6..8].copy_from_slice(&sum.to_be_bytes());
            heard.checksum_is_right()
        });
        assert_eq!(right.count(), 1);
        for len in 0..frame.len() - 3 {
            assert!(Heard::parse(&frame[..len.max(14)]).is_none(), "{len} bytes");
        }
    }
}

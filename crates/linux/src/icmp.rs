//! Raw sockets, for ICMP errors of our own.
//!
//! An error about an inner packet comes from an address of ours. Written to the TUN, a packet from such an address would be
//! a martian to the kernel, so errors go out as packets of this host, which the kernel delivers or routes to whoever sent
//! the inner packet.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use rustix::net::SendFlags;

use crate::steward::{Kind, Task, obtain};
use crate::sys::check;

/// Sends whole IP packets of either family. Never waits.
#[derive(Debug)]
pub struct RawSockets {
    v4: Option<OwnedFd>,
    /// Missing where the system has no IPv6.
    v6: Option<OwnedFd>,
}

/// Sends a packet as [`RawSockets`] would that are opened in this network namespace, and leaves no socket there.
pub fn send_in(netns: BorrowedFd<'_>, packet: &[u8], to: IpAddr) -> io::Result<()> {
    let kind = if to.is_ipv4() { Kind::Raw4 } else { Kind::Raw6 };
    send(&obtain(Task::Open(kind), netns)?, packet, to)
}

fn send(fd: &OwnedFd, packet: &[u8], to: IpAddr) -> io::Result<()> {
    rustix::net::sendto(fd, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &SocketAddr::new(to, 0))?;
    Ok(())
}

impl RawSockets {
    /// Sockets in a network namespace. Takes CAP_NET_RAW, and for another namespace than the thread's CAP_SYS_ADMIN: the
    /// steward's, or ours. An error only when neither family can be had.
    pub fn open_in(netns: BorrowedFd<'_>) -> io::Result<RawSockets> {
        let open = |kind| obtain(Task::Open(kind), netns);
        match (open(Kind::Raw4), open(Kind::Raw6)) {
            (Err(error), Err(_)) => Err(error),
            (v4, v6) => Ok(RawSockets { v4: v4.ok(), v6: v6.ok() }),
        }
    }

    /// Sends a packet, IP header and all, to its destination.
    pub fn send(&self, packet: &[u8], to: IpAddr) -> io::Result<()> {
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        send(socket.as_ref().ok_or(io::ErrorKind::Unsupported)?, packet, to)
    }
}

/// A raw socket whose packets bring their IP header along, as those of IPPROTO_RAW do, and which receives nothing.
pub(crate) fn open(family: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: a plain system call.
    let fd = check(unsafe { libc::socket(family, kind, libc::IPPROTO_RAW) })?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Monitor;
    use crate::netns;
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
    use std::os::fd::AsFd;
    use std::time::Duration;

    /// A UDP packet with its IP header; IPv4 needs no UDP checksum, IPv6 does.
    fn udp(ip: IpAddr, port: u16) -> Vec<u8> {
        let udp = |checksum: [u8; 2]| {
            let [high, low] = port.to_be_bytes();
            [0, 9, high, low, 0, 10, checksum[0], checksum[1], b'h', b'i']
        };
        match ip {
            IpAddr::V4(ip) => {
                let mut packet = vec![0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0];
                packet.extend([ip.octets(), ip.octets()].concat());
                packet.extend(udp([0, 0]));
                packet
            }
            IpAddr::V6(ip) => {
                let mut packet = vec![0x60, 0, 0, 0, 0, 10, 17, 64];
                packet.extend([ip.octets(), ip.octets()].concat());
                let words = packet[8..40]
                    .chunks(2)
                    .chain(udp([0, 0]).chunks(2).collect::<Vec<_>>())
                    .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
                    .sum::<u32>()
                    + 17
                    + 10;
                let folded = (words & 0xffff) + (words >> 16);
                let sum = !((folded & 0xffff) + (folded >> 16)) as u16;
                packet.extend(udp(sum.to_be_bytes()));
                packet
            }
        }
    }

    #[test]
    fn a_packet_of_ours_reaches_ourselves() {
        std::thread::spawn(|| {
            netns::unshare().expect("netns");
            Monitor::open(1).expect("lo").set_up(1, true).expect("up");
            let here = netns::current().expect("netns");
            let raw = RawSockets::open_in(here.as_fd()).expect("raw sockets");
            for ip in [Ipv4Addr::LOCALHOST.into(), IpAddr::from(Ipv6Addr::LOCALHOST)] {
                let receiver = UdpSocket::bind((ip, 0)).expect("receiver");
                receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
                let port = receiver.local_addr().expect("address").port();
                for sent in [raw.send(&udp(ip, port), ip), send_in(here.as_fd(), &udp(ip, port), ip)] {
                    sent.expect("sent");
                    let mut buffer = [0; 16];
                    assert_eq!(receiver.recv(&mut buffer).expect("received"), 2, "{ip}");
                    assert_eq!(&buffer[..2], b"hi");
                }
            }
        })
        .join()
        .expect("the test's thread");
    }
}

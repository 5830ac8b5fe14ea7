//! Raw sockets, for ICMP errors of our own.
//!
//! An error about an inner packet comes from an address of ours. Written to the TUN, a packet from such an address would be
//! a martian to the kernel, so errors go out as packets of this host, which the kernel delivers or routes to whoever sent
//! the inner packet.
//!
//! From which address of ours, the kernel decides, as it does for errors of its own: the one that goes with the way to the sender. For
//! IPv4 it fills in a source that is left unspecified. For IPv6 it does so only where it makes the whole header.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::net::SendFlags;

use crate::steward::{Kind, Task, obtain};
use crate::sys::{check, set_option};

/// Sends ICMP errors of either family. Never waits.
#[derive(Debug)]
pub struct RawSockets {
    v4: Option<OwnedFd>,
    /// Missing where the system has no IPv6.
    v6: Option<OwnedFd>,
}

/// Sends an error as [`RawSockets`] would that are opened in this network namespace, and leaves no socket there.
pub fn send_in(netns: BorrowedFd<'_>, packet: &[u8], to: IpAddr) -> io::Result<()> {
    let kind = if to.is_ipv4() { Kind::Raw4 } else { Kind::Raw6 };
    send(&obtain(Task::Open(kind), netns)?, packet, to)
}

/// Length of an IPv6 header.
const HEADER_V6: usize = 40;

fn send(fd: &OwnedFd, packet: &[u8], to: IpAddr) -> io::Result<()> {
    let packet = if to.is_ipv4() { packet } else { packet.get(HEADER_V6..).ok_or(io::ErrorKind::InvalidInput)? };
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

    /// Sends a packet, IP header and all, to its destination. Of an IPv6 header the kernel makes another one, and it sums up the ICMPv6.
    pub fn send(&self, packet: &[u8], to: IpAddr) -> io::Result<()> {
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        send(socket.as_ref().ok_or(io::ErrorKind::Unsupported)?, packet, to)
    }
}

/// A raw socket that receives nothing. Of IPv4, packets bring their header along, as those of IPPROTO_RAW do; of IPv6 it is for ICMPv6.
pub(crate) fn open(family: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let protocol = if family == libc::AF_INET { libc::IPPROTO_RAW } else { libc::IPPROTO_ICMPV6 };
    // SAFETY: a plain system call.
    let fd = check(unsafe { libc::socket(family, kind, protocol) })?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    if family == libc::AF_INET6 {
        // A bit for each type: none passes.
        set_option(fd.as_fd(), libc::IPPROTO_ICMPV6, ICMP6_FILTER, &[u32::MAX; 8])?;
    }
    Ok(fd)
}

/// linux/icmpv6.h
pub(crate) const ICMP6_FILTER: libc::c_int = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Monitor;
    use crate::netns;
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
    use std::time::Duration;

    /// "Port unreachable" about a datagram between two ports of this host, from nobody.
    fn error(ip: IpAddr, from: u16, to: u16) -> Vec<u8> {
        let udp = [from.to_be_bytes(), to.to_be_bytes(), [0, 8], [0, 0]].concat();
        match ip {
            IpAddr::V4(ip) => {
                let header = |protocol, len: u8, source: Ipv4Addr| {
                    let start = [0x45, 0, 0, len, 0, 0, 0, 0, 64, protocol, 0, 0];
                    [&start[..], &source.octets(), &ip.octets()].concat()
                };
                let mut icmp = [vec![3, 3, 0, 0, 0, 0, 0, 0], header(17, 28, ip), udp].concat();
                let words = icmp.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u32>();
                let folded = (words & 0xffff) + (words >> 16);
                let sum = !((folded & 0xffff) + (folded >> 16)) as u16;
                icmp[2..4].copy_from_slice(&sum.to_be_bytes());
                [header(1, 56, Ipv4Addr::UNSPECIFIED), icmp].concat()
            }
            IpAddr::V6(ip) => {
                let header = |protocol, len: u8, source: Ipv6Addr| {
                    [&[0x60, 0, 0, 0, 0, len, protocol, 64][..], &source.octets(), &ip.octets()].concat()
                };
                let icmp = [vec![1, 4, 0, 0, 0, 0, 0, 0], header(17, 8, ip), udp].concat();
                [header(58, 56, Ipv6Addr::UNSPECIFIED), icmp].concat()
            }
        }
    }

    #[test]
    fn an_error_of_ours_reaches_ourselves() {
        std::thread::spawn(|| {
            netns::unshare().expect("netns");
            Monitor::open(1).expect("lo").set_up(1, true).expect("up");
            let here = netns::current().expect("netns");
            let raw = RawSockets::open_in(here.as_fd()).expect("raw sockets");
            for ip in [Ipv4Addr::LOCALHOST.into(), IpAddr::from(Ipv6Addr::LOCALHOST)] {
                let (sender, other) =
                    (UdpSocket::bind((ip, 0)).expect("sender"), UdpSocket::bind((ip, 0)).expect("other"));
                sender.connect(other.local_addr().expect("address")).expect("connected");
                sender.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
                let port = |socket: &UdpSocket| socket.local_addr().expect("address").port();
                let packet = error(ip, port(&sender), port(&other));
                for own in [true, false] {
                    let sent = if own { raw.send(&packet, ip) } else { send_in(here.as_fd(), &packet, ip) };
                    sent.expect("sent");
                    let told = sender.recv(&mut [0; 16]).expect_err("told");
                    assert_eq!(told.kind(), io::ErrorKind::ConnectionRefused, "{ip}");
                }
                assert!(raw.send(&packet[..7], ip).is_err(), "{ip}");
            }
        })
        .join()
        .expect("the test's thread");
    }
}

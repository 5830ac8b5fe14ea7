//! Raw sockets, for ICMP errors of our own, and for hearing those that say that a datagram was too big.
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
    if family == libc::AF_INET {
        return raw(family, libc::IPPROTO_RAW);
    }
    let fd = raw(family, libc::IPPROTO_ICMPV6)?;
    // A bit for each type: none passes.
    set_option(fd.as_fd(), libc::IPPROTO_ICMPV6, ICMP6_FILTER, &[u32::MAX; 8])?;
    Ok(fd)
}

fn raw(family: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: a plain system call.
    let fd = check(unsafe { libc::socket(family, kind, protocol) })?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sockets that hear, of all ICMP, that a datagram was too big for its path. The kernel writes that down by itself, and tells nobody who does not send by
/// a connected socket.
#[derive(Debug)]
pub struct TooBig {
    sockets: Vec<OwnedFd>,
}

impl TooBig {
    /// Sockets in the thread's network namespace. Takes CAP_NET_RAW. An error only when neither family can be had.
    pub fn open() -> io::Result<TooBig> {
        // A bit for each type that does not pass: all but "destination unreachable", and "packet too big".
        let v4 = raw(libc::AF_INET, libc::IPPROTO_ICMP)
            .and_then(|fd| set_option(fd.as_fd(), SOL_RAW, ICMP_FILTER, &!(1u32 << 3)).map(|()| fd));
        let v6 = raw(libc::AF_INET6, libc::IPPROTO_ICMPV6).and_then(|fd| {
            let types = [!(1u32 << 2), u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX];
            set_option(fd.as_fd(), libc::IPPROTO_ICMPV6, ICMP6_FILTER, &types).map(|()| fd)
        });
        match (v4, v6) {
            (Err(error), Err(_)) => Err(error),
            (v4, v6) => Ok(TooBig { sockets: [v4, v6].into_iter().flatten().collect() }),
        }
    }

    /// The descriptors: readable when something was reported.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }

    /// Reads what was reported. Whether a UDP datagram from this port was among it: whose, everybody can say.
    pub fn drain(&self, port: u16) -> bool {
        let (mut ours, mut report) = (false, [0; 256]);
        for socket in &self.sockets {
            for _ in 0..REPORTS {
                match rustix::net::recv(socket, &mut report[..], rustix::net::RecvFlags::DONTWAIT) {
                    Ok((len, _)) => ours |= quoted_port(&report[..len]) == Some(port),
                    Err(rustix::io::Errno::INTR) => (),
                    Err(_) => break,
                }
            }
        }
        ours
    }
}

/// Reports of each family that are read in one go.
const REPORTS: usize = 64;
/// linux/icmp.h
const SOL_RAW: libc::c_int = 255;
const ICMP_FILTER: libc::c_int = 1;

/// The port from which the UDP datagram came that a report quotes as too big. Of IPv4 the report has its IP header before it, of IPv6 it has none.
fn quoted_port(report: &[u8]) -> Option<u16> {
    let quoted = match report.first()? {
        2 => report.get(8..)?,
        first => {
            let icmp = report.get(usize::from(first & 0xf) * 4..)?;
            if icmp.get(..2)? != [3, 4] {
                return None;
            }
            icmp.get(8..)?
        }
    };
    let (protocol, len) = match quoted.first()? >> 4 {
        4 => (quoted.get(9)?, usize::from(quoted[0] & 0xf) * 4),
        _ => (quoted.get(6)?, 40),
    };
    let port = quoted.get(len..len + 2)?;
    (i32::from(*protocol) == libc::IPPROTO_UDP).then(|| u16::from_be_bytes([port[0], port[1]]))
}

/// linux/icmpv6.h
pub(crate) const ICMP6_FILTER: libc::c_int = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_report_the_port_is_read_that_it_quotes() {
        let udp = [0xca, 0x6c, 0, 9, 0, 8, 0, 0];
        let mut v4 = [0; 20];
        (v4[0], v4[9]) = (0x45, 17);
        let mut v6 = [0; 40];
        (v6[0], v6[6]) = (0x60, 17);
        let too_big_4 = [&v4[..], &[3, 4, 0, 0, 0, 0, 5, 0], &v4, &udp].concat();
        let too_big_6 = [&[2, 0, 0, 0, 0, 0, 5, 0][..], &v6, &udp].concat();
        for report in [&too_big_4, &too_big_6] {
            assert_eq!(quoted_port(report), Some(51_820));
            for len in 0..report.len() - 6 {
                assert_eq!(quoted_port(&report[..len]), None, "{len}");
            }
        }
        let mut unreachable = too_big_4;
        unreachable[21] = 3;
        assert_eq!(quoted_port(&unreachable), None);
        let mut tcp = too_big_6;
        tcp[8 + 6] = 6;
        assert_eq!(quoted_port(&tcp), None);
    }
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

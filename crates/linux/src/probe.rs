//! Trying out what the kernel and the network do, without changing anything: for finding faults.
//!
//! - [`udp_offloads`]: which super-packets of UDP the kernel can send and receive;
//! - [`TunProbe`]: what it does for a TUN, tried in a network namespace made for that;
//! - [`takes_xdp`]: which interfaces' drivers take XDP programs;
//! - [`clock_is_synchronised`]: whether somebody keeps the clock right;
//! - [`knock`]: whether a datagram to somewhere is refused, by the network or by our own firewall;
//! - [`Pinger`]: whether packets of a size come back from an address behind an interface, whole.

use std::collections::BTreeMap;
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::netlink::{Connection, DUMP, Request, find};
use crate::netns;
use crate::sys::{check, int_option, kernel_at_least, set_int};
use crate::tun::{self, Offloads, TunError};
use crate::udp::bind_any;

/// The offloads of UDP sockets that [`crate::udp`] would use here: sending super-packets, and receiving them.
pub fn udp_offloads() -> io::Result<(bool, bool)> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| UdpSocket::bind(("::1", 0)))?;
    let send = int_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
    let receive = kernel_at_least(5, 12) && set_int(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
    Ok((send, receive))
}

/// What the kernel did for a TUN.
#[derive(Debug)]
pub struct TunProbe {
    /// The offloads that it granted.
    pub offloads: Offloads,
    /// Whether it has several queues.
    pub queues: bool,
    /// Whether flows can be sent to queues by a program of ours.
    pub steering: io::Result<()>,
    /// Whether a program of ours can bound its queues.
    pub bound: io::Result<()>,
}

impl TunProbe {
    /// Makes a TUN in a new network namespace, tries it, and takes both away again. Takes CAP_SYS_ADMIN and CAP_NET_ADMIN.
    pub fn run() -> Result<TunProbe, TunError> {
        let work = || {
            netns::unshare().map_err(|source| TunError::Os { what: "making a network namespace", source })?;
            let mut tun = tun::create("probe%d", 2, Offloads::ALL)?;
            let steering = tun.queues[0].set_steering_by_flow();
            let bound = tun.bound_queues();
            Ok(TunProbe { offloads: tun.offloads, queues: tun.queues.len() > 1, steering, bound })
        };
        // The namespace is the thread's, and ends with it.
        let result = std::thread::scope(|scope| scope.spawn(work).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Of each interface of this network namespace, by its index, whether its driver takes XDP programs (the kernel's `netdev` family, Linux 6.3).
///
/// # Errors
/// `NotFound` where the kernel does not tell.
pub fn takes_xdp() -> io::Result<BTreeMap<u32, bool>> {
    // linux/netdev.h: NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, NETDEV_A_DEV_XDP_FEATURES, NETDEV_XDP_ACT_BASIC.
    const DEV_GET: u8 = 1;
    const INDEX: u16 = 1;
    const FEATURES: u16 = 3;
    const BASIC: u64 = 1;
    let mut generic = Connection::generic()?;
    let family = generic.family("netdev")?;
    let header = [DEV_GET, 1, 0, 0];
    let mut request = Request::new(family, DUMP, 0, &header).finish();
    let mut told = BTreeMap::new();
    generic.exchange(&mut request, &mut vec![0; 64 << 10], |message| {
        let Some(body) = message.body.get(header.len()..) else { return Ok(()) };
        let index = find(body, INDEX).and_then(|index| index.try_into().ok()).map(u32::from_ne_bytes);
        let features = find(body, FEATURES).and_then(|features| features.try_into().ok()).map(u64::from_ne_bytes);
        if let (Some(index), Some(features)) = (index, features) {
            told.insert(index, features & BASIC != 0);
        }
        Ok(())
    })?;
    Ok(told)
}

/// Whether the kernel takes its clock to be right, because somebody (NTP) tells it so.
pub fn clock_is_synchronised() -> io::Result<bool> {
    // SAFETY: plain data, for which zeros are valid: they ask for nothing to be changed.
    let mut state: libc::timex = unsafe { zeroed() };
    // SAFETY: the kernel writes one `timex` to the address.
    let clock = check(unsafe { libc::adjtimex(&mut state) })?;
    Ok(clock != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0)
}

/// Sends a datagram of one byte, which is no message of WireGuard's and is ignored there, and waits for whoever refuses it. `Ok` where nobody did.
/// A mark takes CAP_NET_ADMIN.
pub fn knock(to: SocketAddr, mark: u32, patience: Duration) -> io::Result<()> {
    // Bound to no port that a peer knows us by.
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    if mark != 0 {
        set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_MARK, mark.cast_signed())?;
    }
    // Also what the kernel takes for passing, such as that a host is not there.
    let (level, option) = match to {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    set_int(socket.as_fd(), level, option, 1)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(&[0])?;
    match socket.recv(&mut [0; 1]) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(()),
        other => other.map(drop),
    }
}

/// Bytes of an ICMP echo's header.
const ECHO: usize = 8;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const REQUEST: (u8, u8) = (8, 128);
const REPLY: (u8, u8) = (0, 129);

/// Pings one address by one interface, with packets that may not be fragmented.
#[derive(Debug)]
pub struct Pinger {
    fd: OwnedFd,
    to: SocketAddr,
    /// A raw socket hears the echoes of others too, and of IPv4 the header.
    raw: bool,
    identity: u16,
    sequence: u16,
}

impl Pinger {
    /// Opens a socket for it: that for pings where the system lets us have one, or else a raw one, which takes CAP_NET_RAW.
    pub fn open(interface: &str, to: IpAddr) -> io::Result<Pinger> {
        let (family, protocol) = match to {
            IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP),
            IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
        };
        let open = |kind| {
            // SAFETY: a plain system call.
            let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
            // SAFETY: the descriptor was just made and belongs to nobody else.
            Ok::<_, io::Error>(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let (fd, raw) = match open(libc::SOCK_DGRAM) {
            Ok(fd) => (fd, false),
            Err(_) => (open(libc::SOCK_RAW)?, true),
        };
        rustix::net::sockopt::set_socket_timeout(
            &fd,
            rustix::net::sockopt::Timeout::Send,
            Some(Duration::from_secs(1)),
        )?;
        if raw && to.is_ipv6() {
            // Nothing else is summed up for us.
            let _ = set_int(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_CHECKSUM, 2);
        }
        bind_to(&fd, interface)?;
        // Neither cut nor kept back by what the kernel has learnt of the path.
        match to {
            IpAddr::V4(_) => {
                set_int(fd.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
            }
            IpAddr::V6(_) => {
                set_int(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
                set_int(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1)?;
            }
        }
        bind_any(fd.as_fd(), to.is_ipv6(), 0).or_else(|error| if raw { Ok(()) } else { Err(error) })?;
        let identity = std::process::id() as u16;
        Ok(Pinger { fd, to: SocketAddr::new(to, 0), raw, identity, sequence: 0 })
    }

    /// Bytes of the shortest packet.
    pub fn least(&self) -> usize {
        ECHO + if self.to.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER }
    }

    /// Sends a packet of so many bytes, IP header included, and waits for the answer: how long it took, or `None` where none of that size came.
    /// An error where it cannot be sent: EMSGSIZE for one that the interface does not take.
    pub fn ping(&mut self, size: usize, patience: Duration) -> io::Result<Option<Duration>> {
        self.sequence = self.sequence.wrapping_add(1);
        let len = ECHO + size.saturating_sub(self.least());
        let mut packet = vec![0; len];
        packet[0] = if self.to.is_ipv4() { REQUEST.0 } else { REQUEST.1 };
        packet[4..6].copy_from_slice(&self.identity.to_be_bytes());
        packet[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        if self.to.is_ipv4() {
            let sum = !inet::checksum::fold(inet::checksum::sum(&packet, 0));
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        let start = Instant::now();
        rustix::net::sendto(&self.fd, &packet, rustix::net::SendFlags::NOSIGNAL, &self.to)?;
        let mut buffer = vec![MaybeUninit::<u8>::uninit(); 64 * 1024];
        while let Some(left) = patience.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            rustix::net::sockopt::set_socket_timeout(&self.fd, rustix::net::sockopt::Timeout::Recv, Some(left))?;
            let ((heard, _), _, from) =
                match rustix::net::recvfrom(&self.fd, &mut buffer[..], rustix::net::RecvFlags::empty()) {
                    Ok(heard) => heard,
                    Err(rustix::io::Errno::AGAIN) => return Ok(None),
                    // What somebody on the way has to say of it, or a signal.
                    Err(_) => continue,
                };
            let is_his =
                from.is_some_and(|from| SocketAddr::try_from(from).is_ok_and(|from| from.ip() == self.to.ip()));
            if is_his && self.answers(heard, len) {
                return Ok(Some(start.elapsed()));
            }
        }
        Ok(None)
    }

    fn answers(&self, heard: &[u8], len: usize) -> bool {
        // A socket for pings has an identity of its own, that the kernel puts in.
        let identity = self.raw.then_some(self.identity);
        match self.to {
            SocketAddr::V4(_) => is_answer(heard, self.raw, REPLY.0, identity, self.sequence, len),
            SocketAddr::V6(_) => is_answer(heard, false, REPLY.1, identity, self.sequence, len),
        }
    }
}

/// Whether this is the answer to the ping of this number, of this length; `header` where an IPv4 header precedes it.
fn is_answer(heard: &[u8], header: bool, kind: u8, identity: Option<u16>, sequence: u16, len: usize) -> bool {
    let skip = match heard.first() {
        Some(first) if header => usize::from(first & 0xf) * 4,
        _ => 0,
    };
    let Some(echo) = heard.get(skip..).filter(|echo| echo.len() == len && len >= ECHO) else { return false };
    let is = |at: usize, number: u16| echo[at..at + 2] == number.to_be_bytes();
    echo[0] == kind && identity.is_none_or(|identity| is(4, identity)) && is(6, sequence)
}

fn bind_to(fd: &OwnedFd, interface: &str) -> io::Result<()> {
    let len = interface.len() as libc::socklen_t;
    // SAFETY: the name is readable for its length.
    let rc = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, interface.as_ptr().cast(), len)
    };
    check(rc).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernel_is_tried() {
        assert!(udp_offloads().is_ok());
        assert!(clock_is_synchronised().is_ok());
        let probe = TunProbe::run().unwrap();
        assert!(probe.offloads.vnet && probe.queues);
    }

    #[test]
    fn the_loopback_takes_no_xdp_in_its_driver() {
        match takes_xdp() {
            Ok(told) => assert_eq!(told.get(&1), Some(&false)),
            // Before Linux 6.3.
            Err(error) => assert!(error.kind() == io::ErrorKind::NotFound && !kernel_at_least(6, 3), "{error}"),
        }
    }

    #[test]
    fn a_port_that_nobody_has_refuses() {
        let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(knock(address, 0, Duration::from_millis(50)).is_ok());
        drop(listener);
        // The kernel bounds how many refusals it sends in a second, whoever they are for.
        let refused = (0..100).find_map(|_| knock(address, 0, Duration::from_millis(200)).err()).unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    proptest! {
        #[test]
        fn only_the_answer_is_taken_for_one(
            junk in prop::collection::vec(any::<u8>(), 0..64), header in any::<bool>(), identity in any::<u16>(), sequence in any::<u16>()
        ) {
            let _ = is_answer(&junk, header, 0, Some(identity), sequence, junk.len());
            let mut echo = vec![0; 20];
            echo[4..6].copy_from_slice(&identity.to_be_bytes());
            echo[6..8].copy_from_slice(&sequence.to_be_bytes());
            let whole = if header { [vec![0x46; 24], echo].concat() } else { echo };
            let is = |identity, sequence, len| is_answer(&whole, header, 0, identity, sequence, len);
            prop_assert!(is(Some(identity), sequence, 20) && is(None, sequence, 20));
            prop_assert!(!is(Some(!identity), sequence, 20) && !is(None, !sequence, 20) && !is(None, sequence, 21));
        }
    }

    #[test]
    fn loopback_answers_pings_up_to_its_size() {
        for to in ["127.0.0.1", "::1"] {
            let mut pinger = Pinger::open("lo", to.parse().unwrap()).unwrap();
            for size in [pinger.least(), 100, 1500, 20_001] {
                assert!(pinger.ping(size, Duration::from_secs(5)).unwrap().is_some(), "{to} {size}");
            }
            // Its MTU is 65,536, so that IP itself is the bound.
            assert!(pinger.ping(66_000, Duration::from_secs(5)).is_err(), "{to}");
        }
        assert!(Pinger::open("no-such", "127.0.0.1".parse().unwrap()).is_err());
    }
}

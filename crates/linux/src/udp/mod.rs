//! The outer UDP sockets: one port, a socket for control and one for each worker, in each address family.
//!
//! The control socket binds plainly, so that a second daemon on the port is refused (EADDRINUSE); only then is SO_REUSEPORT set
//! on it, and the workers' sockets join the port. A small program in classic BPF then sends each datagram to a socket: data
//! (type 4) to the worker that the low byte of the receiver index names, so that a session keeps its core, and everything else
//! to control. The program sees the first segment of a coalesced (GRO) run only, and is attached after the workers joined, so
//! that now and then a handshake message reaches a worker, and data reaches control: neither may rely on its absence.
//!
//! **All sockets of a group have the same options**, control too: the kernel decides whether to coalesce a flow before it has the
//! packet to run the program on, by a socket that it picks by hash, which may be any of them.
//!
//! **Fragmentation.** Outer IPv4 packets carry no DF bit, and outer IPv6 packets may be fragmented by this host, as the kernel's
//! WireGuard does it (`udp_tunnel_xmit_skb` with df = 0, `ignore_df` for IPv6): a datagram that is too large for the path arrives in
//! fragments, rather than not at all in the many networks where the ICMP error gets lost. So IP_MTU_DISCOVER is
//! IP_PMTUDISC_DONT. What the kernel learned of a path's MTU it still heeds: there it fragments here, and it refuses to cut a
//! super-packet into segments that would not fit ([`SendError::TooLarge`]), which the caller then sends one by one.
//!
//! IPv6 flow labels stay zero, as the kernel's WireGuard leaves them: they would tell its packets from ours.
//!
//! UDP checksums stay on: packets without one are not coalesced by the receiver, and IPv6 requires them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::steward::{self, Task};
use crate::sys::{check, int_option, kernel_at_least, set_int, set_option};

mod address;
mod control;
mod socket;

pub use socket::{Outgoing, Received, SendError, Socket};

/// What the control messages of a received datagram say, for the fuzz targets: source, ECN bits, segment size.
#[cfg(fuzzing)]
pub fn read_control(bytes: &[u8]) -> (Option<inet::Source>, u8, Option<usize>) {
    let control::Received { source, ecn, segment } = control::read(bytes);
    (source, ecn, segment)
}

// linux/in6.h
const IPV6_AUTOFLOWLABEL: libc::c_int = 70;

/// The most messages that one system call takes; a longer slice takes several.
pub const BATCH: usize = 32;

/// The most segments that each kernel with UDP_SEGMENT takes in one send (later ones take 128).
pub const SEGMENTS_MAX: usize = 64;

/// How often another port is tried, when the one that was free for IPv4 is taken for IPv6.
const PORT_ATTEMPTS: usize = 32;

/// How the sockets are to be.
#[derive(Clone, Debug)]
pub struct UdpOptions {
    /// The firewall mark of what is sent (SO_MARK); zero is none.
    pub mark: u32,
    /// Send super-packets (UDP_SEGMENT), where the kernel can.
    pub gso: bool,
    /// Receive super-packets (UDP_GRO), where the kernel can do so without error (Linux 5.12).
    pub gro: bool,
    /// Bytes to ask for in each direction. The system's limit is passed where the privilege is there, and applies where not.
    pub buffer: usize,
}

impl Default for UdpOptions {
    fn default() -> UdpOptions {
        UdpOptions { mark: 0, gso: true, gro: true, buffer: 7 << 20 }
    }
}

/// Why the sockets could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program, or another device of ours, has the port.
    #[error("UDP port {0} is in use")]
    InUse(u16),
    /// A port below 1024, or a policy of the system's.
    #[error("not allowed to bind UDP port {0}")]
    Forbidden(u16),
    /// The mark cannot be set without CAP_NET_ADMIN.
    #[error("not allowed to set the firewall mark {0:#x}: run as root or with CAP_NET_ADMIN")]
    Mark(u32),
    /// The system has neither IPv4 nor IPv6.
    #[error("this system has neither IPv4 nor IPv6")]
    NoFamily,
    /// Another system call failed.
    #[error("{what} failed")]
    Os {
        /// What was attempted.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

fn os(what: &'static str) -> impl FnOnce(io::Error) -> BindError {
    move |source| BindError::Os { what, source }
}

/// All sockets of a device. They belong to the network namespace of the thread that bound them.
#[derive(Debug)]
pub struct SocketGroup {
    /// The port, in host byte order; the same for both families.
    pub port: u16,
    /// The control sockets: IPv4 and IPv6, as far as the system has them.
    pub control: Vec<Socket>,
    /// The sockets of each worker, likewise.
    pub workers: Vec<Vec<Socket>>,
}

impl SocketGroup {
    /// Binds the port (0: any that is free for both families) for control and for `workers` workers.
    pub fn bind(port: u16, workers: usize, options: &UdpOptions) -> Result<SocketGroup, BindError> {
        let mut attempts = if port == 0 { PORT_ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            match SocketGroup::bind_once(port, workers, options) {
                Err(BindError::InUse(_)) if attempts > 0 => (),
                other => return other,
            }
        }
    }

    fn bind_once(mut port: u16, workers: usize, options: &UdpOptions) -> Result<SocketGroup, BindError> {
        let mut control = Vec::new();
        for v6 in [false, true] {
            if let Some(socket) = open(v6, options)?
                && let Some(bound) = bind_plainly(&socket, port)?
            {
                port = bound;
                control.push(socket);
            }
        }
        if control.is_empty() {
            return Err(BindError::NoFamily);
        }
        let mut all = Vec::with_capacity(workers);
        for first in &control {
            if workers > 0 {
                set_int(first.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).map_err(os("SO_REUSEPORT"))?;
            }
        }
        for _ in 0..workers {
            let mut sockets = Vec::with_capacity(control.len());
            for first in &control {
                // The family was there a moment ago.
                let socket = open(first.is_v6(), options)?.ok_or(BindError::NoFamily)?;
                set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).map_err(os("SO_REUSEPORT"))?;
                bind(&socket, port).map_err(os("joining the UDP port"))?;
                sockets.push(socket);
            }
            all.push(sockets);
        }
        if workers > 0 {
            for first in &control {
                steer(first.as_fd(), workers as u32).map_err(os("SO_ATTACH_REUSEPORT_CBPF"))?;
            }
        }
        Ok(SocketGroup { port, control, workers: all })
    }

    /// Datagrams that the kernel dropped because a socket's buffer was full.
    pub fn overflowed(&self) -> u64 {
        self.control.iter().chain(self.workers.iter().flatten()).map(|socket| u64::from(socket.overflowed())).sum()
    }

    /// Changes the firewall mark of all sockets in the group, and so of their clones; zero removes it.
    pub fn set_mark(&self, mark: u32) -> io::Result<()> {
        self.control.iter().chain(self.workers.iter().flatten()).try_for_each(|socket| socket.set_mark(mark))
    }
}

/// A socket with its options set, not yet bound; `None` where the system does not have the family.
fn open(v6: bool, options: &UdpOptions) -> Result<Option<Socket>, BindError> {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: a plain system call.
    let fd = match check(unsafe { libc::socket(family, kind, 0) }) {
        // SAFETY: the descriptor was just made and belongs to nobody else.
        Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd) },
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
        Err(error) => return Err(os("opening a UDP socket")(error)),
    };
    configure(fd.as_fd(), v6, options)?;
    let gso = options.gso && int_option(fd.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
    if options.gro && kernel_at_least(5, 12) {
        // A kernel that knows the version but not the option gives plain datagrams.
        let _ = set_int(fd.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1);
    }
    let socket = Socket::new(fd, v6, gso);
    if options.mark != 0 {
        socket.set_mark(options.mark).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => BindError::Mark(options.mark),
            _ => os("SO_MARK")(error),
        })?;
    }
    Ok(Some(socket))
}

fn configure(fd: BorrowedFd<'_>, v6: bool, options: &UdpOptions) -> Result<(), BindError> {
    if v6 {
        let set = |option, value| set_int(fd, libc::IPPROTO_IPV6, option, value);
        set(libc::IPV6_V6ONLY, 1).map_err(os("IPV6_V6ONLY"))?;
        set(libc::IPV6_RECVPKTINFO, 1).map_err(os("IPV6_RECVPKTINFO"))?;
        set(libc::IPV6_RECVTCLASS, 1).map_err(os("IPV6_RECVTCLASS"))?;
        set(libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT).map_err(os("IPV6_MTU_DISCOVER"))?;
        // Where it cannot be set, labels tell flows apart, and nothing else is different.
        let _ = set(IPV6_AUTOFLOWLABEL, 0);
    } else {
        let set = |option, value| set_int(fd, libc::IPPROTO_IP, option, value);
        set(libc::IP_PKTINFO, 1).map_err(os("IP_PKTINFO"))?;
        set(libc::IP_RECVTOS, 1).map_err(os("IP_RECVTOS"))?;
        set(libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT).map_err(os("IP_MTU_DISCOVER"))?;
    }
    // The kernel doubles the number, for its own overhead.
    let bytes = libc::c_int::try_from(options.buffer).unwrap_or(libc::c_int::MAX / 2);
    for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        if steward::perform(Task::Buffer { option: force, bytes }, fd).is_err() {
            set_int(fd, libc::SOL_SOCKET, plain, bytes).map_err(os("SO_RCVBUF or SO_SNDBUF"))?;
        }
    }
    Ok(())
}

/// Binds a control socket; its port, or `None` where the family is switched off.
fn bind_plainly(socket: &Socket, port: u16) -> Result<Option<u16>, BindError> {
    match bind(socket, port) {
        Ok(()) => Ok(Some(local_port(socket.as_fd()).map_err(os("getsockname"))?)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EADDRINUSE) => Err(BindError::InUse(port)),
            Some(libc::EACCES | libc::EPERM) => Err(BindError::Forbidden(port)),
            Some(libc::EADDRNOTAVAIL) if socket.is_v6() => Ok(None),
            _ => Err(os("binding the UDP port")(error)),
        },
    }
}

/// Binds a socket. A port below 1024 takes a privilege.
fn bind(socket: &Socket, port: u16) -> io::Result<()> {
    match bind_any(socket.as_fd(), socket.is_v6(), port) {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            steward::perform(Task::Bind { v6: socket.is_v6(), port }, socket.as_fd()).map(drop)
        }
        other => other,
    }
}

pub(crate) fn bind_any(fd: BorrowedFd<'_>, v6: bool, port: u16) -> io::Result<()> {
    let any = if v6 {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
    } else {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
    };
    let (address, len) = address::encode(&any);
    // SAFETY: the address is readable for the length given.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) }).map(drop)
}

fn local_port(fd: BorrowedFd<'_>) -> io::Result<u16> {
    let mut address = address::EMPTY;
    let mut len = address::LEN;
    // SAFETY: the kernel writes at most `len` bytes to the address, which has that size.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut address).cast(), &mut len) })?;
    address::decode(&address).map(|a| a.port()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Attaches the program that chooses the socket, by its place in the order in which they were bound.
fn steer(fd: BorrowedFd<'_>, workers: u32) -> io::Result<()> {
    // Offsets count from the UDP payload. A load beyond its end makes the result 0, which is control.
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const MODULO: u16 = (libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K) as u16;
    const ADD: u16 = (libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const RETURN_RESULT: u16 = (libc::BPF_RET | libc::BPF_A) as u16;
    const DATA: u32 = 4;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(LOAD_BYTE, 0, 0, 0),
        step(JUMP_IF_EQUAL, 1, 0, DATA),
        step(RETURN, 0, 0, 0),
        // The receiver index is little-endian: its low byte comes first.
        step(LOAD_BYTE, 0, 0, 4),
        step(MODULO, 0, 0, workers),
        step(ADD, 0, 0, 1),
        step(RETURN_RESULT, 0, 0, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // The kernel copies the program that this points to during the call.
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

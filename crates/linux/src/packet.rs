//! Packet sockets: what goes through an interface, in both directions, as the kernel sees it.
//!
//! A socket hears IP packets, behind the header of their link, of one interface or of all in its network namespace; of all, only the
//! UDP datagrams of one port of ours, which a program in classic BPF picks out before anything is copied. It is told what to hear before
//! it hears anything, so that no other packet is ever in its buffer.
//!
//! A packet may be a super-packet, which the kernel has not cut yet or has joined already. [`Heard::vnet`] is then what says
//! how it is cut (as on a TUN); before Linux 6.2, which cannot say so of UDP, nothing is said of any.

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::sys::{check, kernel_at_least, set_int, set_option};

/// Bytes of the header that [`Heard::vnet`] holds.
pub const VNET_LEN: usize = 10;

// linux/if_packet.h
const PACKET_HOST: u32 = 0;
const PACKET_OUTGOING: u32 = 4;
// linux/filter.h
const SKF_NET_OFF: u32 = -0x10_0000_i32 as u32;
const SKF_AD_OFF: u32 = -0x1000_i32 as u32;
const SKF_AD_PROTOCOL: u32 = SKF_AD_OFF;
const SKF_AD_PKTTYPE: u32 = SKF_AD_OFF + 4;
const IPV4: u32 = libc::ETH_P_IP as u32;
const IPV6: u32 = libc::ETH_P_IPV6 as u32;
const UDP: u32 = libc::IPPROTO_UDP as u32;

/// What a socket hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// All IP packets of the interface with this index.
    Interface(u32),
    /// The UDP datagrams of all interfaces that come to this port or leave from it. Of those in fragments only the first, since the others do not
    /// say whose they are.
    Port(u16),
}

/// A packet that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Where in the buffer it begins: behind the header of the link.
    pub start: usize,
    /// Its length in bytes, from there. The buffer holds its beginning, if that is more than it has.
    pub len: usize,
    /// The index of the interface that it went through.
    pub interface: u32,
    /// Whether it was sent by this host, and did not come from outside.
    pub outgoing: bool,
    /// When, since the Unix epoch.
    pub at: Duration,
    /// The virtio-net header, where the kernel can say so (see the module).
    pub vnet: Option<[u8; VNET_LEN]>,
}

/// What has become of the packets that a socket should have heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that it was given.
    pub heard: u64,
    /// Those for which its buffer had no room.
    pub dropped: u64,
}

/// A packet socket. Non-blocking.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    vnet: bool,
    counts: Counts,
}

impl PacketSocket {
    /// Opens one in the calling thread's network namespace, with a buffer of so many bytes as far as that is allowed. Takes CAP_NET_RAW.
    pub fn open(listen: Listen, buffer: usize) -> io::Result<PacketSocket> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: a plain system call. With protocol 0 the socket hears nothing yet.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let vnet = kernel_at_least(6, 2) && set_int(fd.as_fd(), libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1).is_ok();
        set_int(fd.as_fd(), libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        set_int(fd.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        let bytes = libc::c_int::try_from(buffer).unwrap_or(libc::c_int::MAX / 2);
        if set_int(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
            set_int(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)?;
        }
        let (interface, mut program) = match listen {
            Listen::Interface(index) => (index, any_ip()),
            Listen::Port(port) => (0, datagrams_of(port.into())),
        };
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // The kernel copies the program that this points to during the call.
        set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        // SAFETY: plain data, for which zeros are valid.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = interface.cast_signed();
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is readable for the length given.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) })?;
        Ok(PacketSocket { fd, vnet, counts: Counts::default() })
    }

    /// Has the interface with this index take what is not for it as long as the socket is there. To a tunnel that makes no difference but that everybody can see
    /// that somebody listens, by which those know who would take packets past the place where they are heard.
    pub fn announce(&self, interface: u32) -> io::Result<()> {
        // SAFETY: plain data, for which zeros are valid.
        let mut request: libc::packet_mreq = unsafe { zeroed() };
        request.mr_ifindex = interface.cast_signed();
        request.mr_type = libc::PACKET_MR_PROMISC as u16;
        set_option(self.fd.as_fd(), libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
    }

    /// The next packet. `WouldBlock` when there is none; ENETDOWN, once, when the one interface was set down or has gone.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Heard> {
        let mut header = [0; VNET_LEN];
        let header_len = if self.vnet { VNET_LEN } else { 0 };
        let mut vectors = [
            libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: header_len },
            libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() },
        ];
        // Two headers, a timestamp and what is told of the packet take 72 bytes; aligned as headers have to be.
        let mut beside = [0u64; 16];
        // SAFETY: plain data, for which zeros are valid.
        let mut from: libc::sockaddr_ll = unsafe { zeroed() };
        // SAFETY: as above.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_iov = vectors.as_mut_ptr();
        message.msg_iovlen = vectors.len() as _;
        message.msg_control = beside.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&beside) as _;
        // SAFETY: what the message points to is exclusively ours and writable for the lengths given until the call returns.
        let len = check(unsafe { libc::recvmsg(self.fd.as_raw_fd(), &mut message, libc::MSG_TRUNC) } as libc::c_int)?;
        let beside = Beside::read(&message);
        // Where the checksum begins counts from the header of the link.
        let checksum = u16::from_ne_bytes([header[6], header[7]]).saturating_sub(beside.network);
        header[6..8].copy_from_slice(&checksum.to_ne_bytes());
        let start = usize::from(beside.network);
        Ok(Heard {
            start,
            len: (len as usize).saturating_sub(header_len + start),
            interface: from.sll_ifindex.cast_unsigned(),
            outgoing: u32::from(from.sll_pkttype) == PACKET_OUTGOING,
            at: beside.at.unwrap_or_else(crate::clock::wall),
            vnet: self.vnet.then_some(header),
        })
    }

    /// What has become of all packets so far.
    pub fn counts(&mut self) -> io::Result<Counts> {
        let mut counts = MaybeUninit::<[u32; 2]>::zeroed();
        let mut len = size_of::<[u32; 2]>() as libc::socklen_t;
        // SAFETY: the kernel writes a `struct tpacket_stats`, two numbers of 32 bits, and at most `len` bytes.
        let (rc, counts) = unsafe {
            let (fd, to) = (self.fd.as_raw_fd(), counts.as_mut_ptr().cast());
            (libc::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, to, &mut len), counts.assume_init())
        };
        check(rc)?;
        // Each time it is asked, the kernel begins anew.
        let [all, dropped] = counts.map(u64::from);
        self.counts.heard += all.saturating_sub(dropped);
        self.counts.dropped += dropped;
        Ok(self.counts)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What the kernel tells beside a packet.
#[derive(Default)]
struct Beside {
    /// When it came.
    at: Option<Duration>,
    /// How far behind the start its IP header is.
    network: u16,
}

impl Beside {
    fn read(message: &libc::msghdr) -> Beside {
        let mut told = Beside::default();
        // SAFETY: the kernel has filled in the control buffer that the message still points to, and says how much of it.
        let mut at = unsafe { libc::CMSG_FIRSTHDR(message) };
        // SAFETY: null, or a header that the kernel has written within the control buffer, as each of those that follow it.
        while let Some(header) = unsafe { at.as_ref() } {
            // SAFETY: as above; what follows the header is within the buffer too.
            let data = unsafe { libc::CMSG_DATA(header) };
            match (header.cmsg_level, header.cmsg_type) {
                (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS) => {
                    // SAFETY: a message of this kind holds a `timespec`.
                    let time = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                    let (seconds, nanos) = (time.tv_sec.try_into().ok(), time.tv_nsec.try_into().ok());
                    told.at = seconds.zip(nanos).map(|(seconds, nanos)| Duration::new(seconds, nanos));
                }
                (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                    // SAFETY: a message of this kind holds a `tpacket_auxdata`.
                    told.network = unsafe { data.cast::<libc::tpacket_auxdata>().read_unaligned() }.tp_net;
                }
                _ => (),
            }
            // SAFETY: both come from the kernel's answer, as above.
            at = unsafe { libc::CMSG_NXTHDR(message, at) };
        }
        told
    }
}

// Programs in classic BPF. Offsets of bytes and halves count from the IP header; words are what the kernel knows of the packet.
/// What is kept: all of it.
const KEEP: u32 = u32::MAX;
const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const HALF_AT_X: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
const X_IS_HEADER_LEN: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const X_IS: u32 = libc::BPF_LDX | libc::BPF_IMM;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const GO: u32 = libc::BPF_JMP | libc::BPF_JA;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// A step of a program: code, argument, and of a jump the numbers of the steps to which it leads if so and if not.
type Step = (u32, u32, usize, usize);

/// As the kernel takes it: there, a jump says how many steps it passes over.
fn assemble(steps: &[Step]) -> Vec<libc::sock_filter> {
    let step = |(at, &(code, k, yes, no)): (usize, &Step)| {
        let over = |target: usize| target.saturating_sub(at + 1) as u8;
        let k = match code {
            GO => over(yes).into(),
            BYTE | HALF | HALF_AT_X | X_IS_HEADER_LEN => k.wrapping_add(SKF_NET_OFF),
            _ => k,
        };
        let (jt, jf) = if matches!(code, EQUAL | ANY_BIT) { (over(yes), over(no)) } else { (0, 0) };
        libc::sock_filter { code: code as u16, jt, jf, k }
    };
    steps.iter().enumerate().map(step).collect()
}

/// Whatever is IP.
fn any_ip() -> Vec<libc::sock_filter> {
    assemble(&[
        (WORD, SKF_AD_PROTOCOL, 0, 0),
        (EQUAL, IPV4, 3, 2),
        (EQUAL, IPV6, 3, 4),
        (RETURN, KEEP, 0, 0),
        (RETURN, 0, 0, 0),
    ])
}

/// The datagrams from this port that this host sends, and those to it that come to this host.
fn datagrams_of(port: u32) -> Vec<libc::sock_filter> {
    const DROP: usize = 27;
    const FRAGMENT: u32 = libc::IPPROTO_FRAGMENT as u32;
    assemble(&[
        (WORD, SKF_AD_PROTOCOL, 0, 0),
        (EQUAL, IPV4, 2, 8),
        // IPv4: UDP, and no fragment but the first.
        (BYTE, 9, 0, 0),
        (EQUAL, UDP, 4, DROP),
        (HALF, 6, 0, 0),
        (ANY_BIT, 0x1fff, DROP, 6),
        (X_IS_HEADER_LEN, 0, 0, 0),
        (GO, 0, 19, 0),
        // 8: IPv6, with no other header before that of UDP than that of a first fragment.
        (EQUAL, IPV6, 9, DROP),
        (BYTE, 6, 0, 0),
        (EQUAL, UDP, 11, 13),
        (X_IS, 40, 0, 0),
        (GO, 0, 19, 0),
        (EQUAL, FRAGMENT, 14, DROP),
        (BYTE, 40, 0, 0),
        (EQUAL, UDP, 16, DROP),
        (HALF, 42, 0, 0),
        (ANY_BIT, 0xfff8, DROP, 18),
        (X_IS, 48, 0, 0),
        // 19: X is where the header of UDP begins.
        (WORD, SKF_AD_PKTTYPE, 0, 0),
        (EQUAL, PACKET_OUTGOING, 21, 23),
        (HALF_AT_X, 0, 0, 0),
        (EQUAL, port, 26, DROP),
        (EQUAL, PACKET_HOST, 24, DROP),
        (HALF_AT_X, 2, 0, 0),
        (EQUAL, port, 26, DROP),
        (RETURN, KEEP, 0, 0),
        (RETURN, 0, 0, 0),
    ])
}

//! One UDP socket: datagrams in and out, many at a time, with what goes along with them.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use inet::{Endpoint, Source};

use super::control::{self, Writer};
use super::{BATCH, address};
use crate::steward::{self, Task};
use crate::sys::{check, int_option, int_options};

/// A socket of one address family. Non-blocking.
///
/// A clone is the same socket, so that whoever keeps the group can change its mark while a worker uses it. It is closed, and
/// its port free, when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Socket {
    fd: Arc<OwnedFd>,
    v6: bool,
    gso: bool,
}

/// A datagram that came, or a run of them that the kernel coalesced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Bytes in the buffer.
    pub len: usize,
    /// The size of each datagram of the run, of which the last may be shorter; `len` when there is only one. Never 0, even of an empty
    /// datagram, so that a buffer can always be cut into chunks of it.
    pub segment: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// The address of ours that it was sent to, and the interface that it came in by.
    pub source: Option<Source>,
    /// The ECN bits of its IP header. Datagrams with different ones are never coalesced.
    pub ecn: u8,
}

impl Default for Received {
    fn default() -> Received {
        Received { len: 0, segment: 1, from: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0), source: None, ecn: 0 }
    }
}

/// A datagram to send, or a run of them for the kernel to cut.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    /// Where to, and from which address and interface of ours, if that matters.
    pub to: Endpoint,
    /// Its traffic class (the TOS byte of IPv4): DSCP, and ECN in the two lowest bits.
    pub class: u8,
    /// The bytes.
    pub bytes: &'a [u8],
    /// Cut the bytes into datagrams of this size, the last of which may be shorter: at most [`super::SEGMENTS_MAX`].
    pub segment: Option<u16>,
}

/// Why a datagram was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// The socket's buffer is full: wait until it is writable.
    #[error("the socket's buffer is full")]
    WouldBlock,
    /// EMSGSIZE: a segment does not fit the path, or a datagram is larger than IP can carry.
    #[error("the datagram is too large")]
    TooLarge,
    /// EINVAL, ENODEV, EADDRNOTAVAIL, and what would be `Unreachable` of a datagram with a source: the source address or the
    /// interface has gone. Clear the source and try again. Before Linux 6.14 EINVAL is also the answer to a segment that does not
    /// fit the path: if it stays after the source was cleared, send the segments one by one.
    #[error("the source address or the segment size is not valid here")]
    Invalid,
    /// EIO: the route's device cannot do UDP_SEGMENT (no checksum offload, or IPsec).
    #[error("the device cannot cut datagrams")]
    NoOffload,
    /// There is no way there now, whatever the source: the errno.
    #[error("the destination is unreachable (errno {0})")]
    Unreachable(i32),
    /// EPERM, EACCES: a firewall or a policy refused it.
    #[error("sending was refused by a firewall or a policy")]
    Forbidden,
    /// Anything else: the errno. ENOBUFS and ENOMEM are passing.
    #[error("sending failed (errno {0})")]
    Other(i32),
}

impl SendError {
    fn from_errno(errno: i32) -> SendError {
        match errno {
            libc::EAGAIN => SendError::WouldBlock,
            libc::EMSGSIZE => SendError::TooLarge,
            libc::EINVAL | libc::ENODEV | libc::EADDRNOTAVAIL => SendError::Invalid,
            libc::EIO => SendError::NoOffload,
            libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::ECONNREFUSED
            | libc::ENONET => SendError::Unreachable(errno),
            libc::EPERM | libc::EACCES => SendError::Forbidden,
            other => SendError::Other(other),
        }
    }
}

/// The headers of a batch: an entry for each message, on the stack. Nothing is written before it is used, since a batch is
/// often of one message only.
struct Headers {
    messages: [MaybeUninit<libc::mmsghdr>; BATCH],
    vectors: [MaybeUninit<libc::iovec>; BATCH],
    addresses: [MaybeUninit<address::Raw>; BATCH],
    controls: [MaybeUninit<control::Buffer>; BATCH],
}

impl Headers {
    fn new() -> Headers {
        Headers {
            messages: [const { MaybeUninit::uninit() }; BATCH],
            vectors: [const { MaybeUninit::uninit() }; BATCH],
            addresses: [const { MaybeUninit::uninit() }; BATCH],
            controls: [const { MaybeUninit::uninit() }; BATCH],
        }
    }

    /// Fills in entry `i`. The pointers are to the other arrays of `self`, which must not move until the call is done.
    fn set(
        &mut self,
        i: usize,
        (base, len): (*mut u8, usize),
        (address, address_len): (address::Raw, libc::socklen_t),
        control_len: usize,
    ) {
        let vector = self.vectors[i].write(libc::iovec { iov_base: base.cast(), iov_len: len });
        // SAFETY: all-zero bytes are a valid `mmsghdr` (null pointers, zero lengths).
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        message.msg_hdr.msg_name = std::ptr::from_mut(self.addresses[i].write(address)).cast();
        message.msg_hdr.msg_namelen = address_len;
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
        if control_len > 0 {
            message.msg_hdr.msg_control = self.controls[i].as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = control_len as _;
        }
        self.messages[i].write(message);
    }
}

impl Socket {
    pub(super) fn new(fd: OwnedFd, v6: bool, gso: bool) -> Socket {
        Socket { fd: Arc::new(fd), v6, gso }
    }

    /// Whether it is an IPv6 socket (which has nothing to do with IPv4), or an IPv4 one.
    pub fn is_v6(&self) -> bool {
        self.v6
    }

    /// Whether it takes [`Outgoing::segment`].
    pub fn gso(&self) -> bool {
        self.gso
    }

    /// The firewall mark of what is sent.
    pub fn mark(&self) -> io::Result<u32> {
        int_option(self.as_fd(), libc::SOL_SOCKET, libc::SO_MARK).map(i32::cast_unsigned)
    }

    /// The port that it is bound to.
    pub fn port(&self) -> io::Result<u16> {
        super::local_port(self.as_fd())
    }

    /// Sets the firewall mark of what is sent; zero removes it.
    pub fn set_mark(&self, mark: u32) -> io::Result<()> {
        steward::perform(Task::Mark(mark), self.as_fd()).map(drop)
    }

    /// Datagrams that the kernel dropped because they did not fit the receive buffer, since the socket was made (modulo 2^32).
    pub fn overflowed(&self) -> u32 {
        // `SK_MEMINFO_DROPS` of linux/sock_diag.h. A kernel before 4.12 does not tell.
        const DROPS: usize = 8;
        int_options::<{ DROPS + 1 }>(self.as_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO)
            .map_or(0, |info| info[DROPS].cast_unsigned())
    }

    /// Takes what has come, one datagram or coalesced run per buffer, at most [`BATCH`] of them; says how many. `WouldBlock`
    /// when nothing has. What is larger than its buffer is cut off, and so will not authenticate: 64 KiB are always enough.
    pub fn recv(&self, bufs: &mut [&mut [u8]], out: &mut [Received]) -> io::Result<usize> {
        #[cfg(feature = "modelled")]
        if let Some(calls) = crate::modelled::calls() {
            return calls.recv(self.as_fd(), bufs, out);
        }
        let count = bufs.len().min(out.len()).min(BATCH);
        if count == 0 {
            return Ok(0);
        }
        let mut headers = Headers::new();
        for (i, buffer) in bufs[..count].iter_mut().enumerate() {
            let into = (buffer.as_mut_ptr(), buffer.len());
            headers.set(i, into, (address::EMPTY, address::LEN), control::CAPACITY);
        }
        // SAFETY: the first `count` headers were filled in above; what they point to (the buffers, and the other arrays of
        // `headers`, which is not moved) is exclusively ours and writable for the lengths given until the call returns.
        let received = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                headers.messages.as_mut_ptr().cast(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let received = check(received)? as usize;
        for (i, out) in out[..received].iter_mut().enumerate() {
            // SAFETY: `set` wrote both, and the kernel updated them.
            let (message, from) =
                unsafe { (headers.messages[i].assume_init_ref(), headers.addresses[i].assume_init_ref()) };
            let control_len: usize = message.msg_hdr.msg_controllen as _;
            let control_len = control_len.min(control::CAPACITY);
            // SAFETY: of the control buffer the kernel initialised as many bytes as it says.
            let control = unsafe { std::slice::from_raw_parts(headers.controls[i].as_ptr().cast::<u8>(), control_len) };
            let beside = control::read(control);
            let len = message.msg_len as usize;
            *out = Received {
                len,
                segment: beside.segment.unwrap_or(len).max(1),
                from: address::decode(from).unwrap_or(Received::default().from),
                source: beside.source,
                ecn: beside.ecn,
            };
        }
        Ok(received)
    }

    /// Sends the datagrams in order, until one is refused: how many were sent, and why the next one was not. Those behind it
    /// have not been tried.
    ///
    /// Each destination, and source, must be of the socket's family. `segment` needs [`Socket::gso`].
    pub fn send(&self, sends: &[Outgoing<'_>]) -> (usize, Option<SendError>) {
        #[cfg(feature = "modelled")]
        if let Some(calls) = crate::modelled::calls() {
            return calls.send(self.as_fd(), sends);
        }
        let mut sent = 0;
        while sent < sends.len() {
            let batch = &sends[sent..sends.len().min(sent + BATCH)];
            match self.send_batch(batch) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(libc::EIO);
                    let mut reason = SendError::from_errno(errno);
                    // Newer kernels say ENETUNREACH of a source address that has gone. Without it we shall know.
                    if matches!(reason, SendError::Unreachable(_)) && batch[0].to.source.is_some() {
                        reason = SendError::Invalid;
                    }
                    return (sent, Some(reason));
                }
            }
        }
        (sent, None)
    }

    /// One system call. When the kernel refuses a message that is not the first, it says only how many went before; the
    /// next call then tells the reason.
    fn send_batch(&self, batch: &[Outgoing<'_>]) -> io::Result<usize> {
        let mut headers = Headers::new();
        for (i, send) in batch.iter().enumerate() {
            let mut writer = Writer::new(headers.controls[i].write(control::Buffer::EMPTY));
            if let Some(segment) = send.segment
                && usize::from(segment) < send.bytes.len()
            {
                writer.segment(segment);
            }
            if send.class != 0 {
                writer.class(self.v6, send.class);
            }
            if let Some(source) = &send.to.source {
                writer.source(source);
            }
            let control_len = writer.len();
            // The kernel only reads the bytes; `iovec` has no form that says so.
            let from = (send.bytes.as_ptr().cast_mut(), send.bytes.len());
            headers.set(i, from, address::encode(&send.to.addr), control_len);
        }
        // SAFETY: the first `batch.len()` headers were filled in above; what they point to (the bytes, and the other arrays
        // of `headers`, which is not moved) is readable for the lengths given until the call returns.
        let sent = unsafe {
            libc::sendmmsg(
                self.fd.as_raw_fd(),
                headers.messages.as_mut_ptr().cast(),
                batch.len() as libc::c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        check(sent).map(|count| count as usize)
    }
}

/// Anything stands for an IPv4 socket whose calls are modelled.
#[cfg(feature = "modelled")]
impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Socket {
        Socket::new(fd, false, true)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

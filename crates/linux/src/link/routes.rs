//! The ways out of this network namespace: whether they may have changed, and by which interface one leads.
//!
//! Only of IPv4, where the kernel's WireGuard looks at it too (`send4` in `socket.c`).

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::message::{LINK, Messages, Request, find, u32_at};
use super::{Requests, direct, open_requests, socket};

// linux/rtnetlink.h
pub(super) const RTMGRP_IPV4_RULE: libc::c_int = 0x80;
pub(super) const RTA_DST: u16 = 1;
pub(super) const RTA_SRC: u16 = 2;
pub(super) const RTA_OIF: u16 = 4;
pub(super) const RTA_MARK: u16 = 16;
pub(super) const RTA_IP_PROTO: u16 = 27;
pub(super) const RTA_SPORT: u16 = 28;
pub(super) const RTA_DPORT: u16 = 29;
/// Length of `struct rtmsg`.
pub(super) const ROUTE: usize = 12;
/// Datagrams of reports that are read in one go: whoever changes routes all the time does not keep us from all else.
const REPORTS: usize = 64;

/// Routes and rules of the namespace that it was opened in. Its descriptor is readable when they may have changed.
#[derive(Debug)]
pub struct Routes {
    reports: OwnedFd,
}

impl Routes {
    /// Starts to listen.
    pub fn open() -> io::Result<Routes> {
        // An interface that is set down takes its routes along without a report of theirs.
        let groups = libc::RTMGRP_IPV4_ROUTE | RTMGRP_IPV4_RULE | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_LINK;
        Ok(Routes { reports: socket(groups as u32, libc::SOCK_NONBLOCK)? })
    }

    /// Whether any may have changed since the last call. Reads some reports; while there are more, the descriptor stays readable.
    pub fn changed(&mut self) -> bool {
        let (mut changed, mut buffer) = (false, [0; 8192]);
        for _ in 0..REPORTS {
            match rustix::net::recv(&self.reports, &mut buffer[..], rustix::net::RecvFlags::DONTWAIT) {
                Ok((len, _)) => changed |= Messages(&buffer[..len]).any(|message| matters(message.kind, message.body)),
                Err(rustix::io::Errno::INTR) => (),
                // Reports were lost.
                Err(rustix::io::Errno::NOBUFS) => changed = true,
                Err(_) => break,
            }
        }
        changed
    }
}

/// By which interfaces datagrams leave the namespace that it was opened in.
#[derive(Debug)]
pub struct Exits {
    requests: Requests,
}

impl Exits {
    /// No interface has this index.
    pub const NOWHERE: u32 = 0;

    /// Makes a socket to ask by.
    pub fn open() -> io::Result<Exits> {
        Ok(Exits { requests: Requests::over(open_requests()?) })
    }

    /// The interface by which a UDP datagram with this mark leaves, from this address and port of ours; [`Exits::NOWHERE`] when the
    /// address is none of ours.
    ///
    /// # Errors
    /// There is no way out, or the kernel could not be asked.
    pub fn interface(&mut self, source: SocketAddrV4, to: SocketAddrV4, mark: u32) -> io::Result<u32> {
        let mut from = |ip| self.leaves(ip, source.port(), to, mark);
        match from(Some(*source.ip())) {
            // An address that is not ours, as older kernels say it.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Exits::NOWHERE),
            // As newer ones do, or there is no way from anywhere.
            Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => {
                from(None).map(|_| Exits::NOWHERE).map_err(|_| error)
            }
            told => told,
        }
    }

    fn leaves(&mut self, from: Option<Ipv4Addr>, port: u16, to: SocketAddrV4, mark: u32) -> io::Result<u32> {
        let mut header = [0; ROUTE];
        header[..3].copy_from_slice(&[libc::AF_INET as u8, 32, if from.is_some() { 32 } else { 0 }]);
        let mut request = Request::new(libc::RTM_GETROUTE, libc::NLM_F_REQUEST as u16, 0, &header)
            .attribute(RTA_DST, &to.ip().octets())
            .attribute(RTA_MARK, &mark.to_ne_bytes())
            .attribute(RTA_IP_PROTO, &[libc::IPPROTO_UDP as u8])
            .attribute(RTA_SPORT, &port.to_be_bytes())
            .attribute(RTA_DPORT, &to.port().to_be_bytes());
        if let Some(from) = from {
            request.put(RTA_SRC, &from.octets());
        }
        let mut interface = None;
        self.requests.exchange(request, direct, |_, body| {
            let value = body.get(ROUTE..).and_then(|attributes| find(attributes, RTA_OIF));
            interface = value.and_then(|value| u32_at(value, 0));
            true
        })?;
        interface.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl AsFd for Routes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reports.as_fd()
    }
}

/// Of an interface only whether it is up: nothing else that is reported of one moves a route by itself, and there may be many such reports.
fn matters(kind: u16, body: &[u8]) -> bool {
    let changed_flags = u32_at(body, LINK - 4).unwrap_or_default();
    kind != libc::RTM_NEWLINK || changed_flags & libc::IFF_UP as u32 != 0
}

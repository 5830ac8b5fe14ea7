//! Network interfaces, by rtnetlink: what happens to the one that we run, and the few settings that we make.
//!
//! A [`Monitor`] follows one interface by its index, which outlives a change of name. It compares what the kernel reports with
//! what it knew, and says what is different; when the kernel had to drop reports (ENOBUFS), it asks for the whole state and
//! compares that. The settings go over a second socket, so that answers and reports do not mix.
//!
//! The interface may be moved to another network namespace while it runs. Here it is then [`LinkEvent::Removed`], while the
//! TUN's queue is still attached: the caller asks the queue where it went and follows it there, [`Monitor::follow`].
//!
//! A namespace lives as long as a socket in it, or a descriptor of it. One that we only follow an interface into must be able to
//! end, and the interface with it: its reports come by a socket at home that hears of all namespaces that have a number
//! there (NETLINK_LISTEN_ALL_NSID), and for each request a socket is made in it and closed again.

use std::collections::VecDeque;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use crate::steward::{Kind, Task, obtain, perform};
use crate::sys::{check, set_int};
use crate::{netns, tun};

mod hops;
pub(crate) mod message;
mod routes;
mod spread;
mod ways;
use message::{Attributes, LINK, Messages, Request, find, link_header, u32_at};
pub use routes::{Exits, Routes};
pub use spread::spread_flows;
#[cfg(fuzzing)]
pub use ways::read_ways;
pub use ways::{Changes, Interface, Way, Ways};

// linux/if_link.h
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_GSO_MAX_SEGS: u16 = 40;
const IFLA_GSO_MAX_SIZE: u16 = 41;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_TUN_NUM_QUEUES: u16 = 8;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
/// IPv6 makes no address up (IN6_ADDR_GEN_MODE_NONE).
const ADDR_GEN_NONE: u8 = 1;
// linux/net_namespace.h
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// Length of `struct rtgenmsg`, as attributes follow it.
const GENERIC: usize = 4;
/// Leave the statistics out of the answer (RTEXT_FILTER_SKIP_STATS).
const SKIP_STATS: u32 = 8;

/// The state of an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkState {
    /// Its name.
    pub name: String,
    /// Whether it is administratively up (IFF_UP).
    pub up: bool,
    /// Its MTU, in bytes.
    pub mtu: u32,
}

/// What happened to the interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkEvent {
    /// It was set up.
    Up,
    /// It was set down.
    Down,
    /// Its MTU changed, to this many bytes.
    Mtu(u32),
    /// Its name changed, to this.
    Renamed(String),
    /// It is not in this network namespace any more: removed, or moved to another. The last event.
    Removed,
}

/// Follows one interface. Its descriptor is readable when there may be an event: take them all, as an iterator.
#[derive(Debug)]
pub struct Monitor {
    reports: OwnedFd,
    place: Place,
    index: u32,
    known: LinkState,
    events: VecDeque<LinkEvent>,
    gone: bool,
    buffer: Box<[u8]>,
}

/// Where the interface is.
#[derive(Debug)]
enum Place {
    /// At home, or where the thread was that opened the monitor.
    Here(Mutex<Requests>),
    /// In the namespace that this device is in, which has this number at home.
    There(tun::Queue, i32),
}

impl Place {
    fn ask<T>(&self, question: impl FnOnce(&mut Requests) -> io::Result<T>) -> io::Result<T> {
        match self {
            // A panic in the middle of a request leaves answers behind, which the next one skips by their sequence number.
            Place::Here(requests) => question(&mut requests.lock().unwrap_or_else(PoisonError::into_inner)),
            Place::There(queue, _) => {
                let socket = obtain(Task::Open(Kind::Requests), queue.netns()?.as_fd())?;
                question(&mut Requests::over(socket))
            }
        }
    }
}

impl Monitor {
    /// Follows an interface of the calling thread's network namespace. `NotFound` or ENODEV when there is none.
    pub fn open(index: u32) -> io::Result<Monitor> {
        let place = Place::Here(Mutex::new(Requests::over(open_requests()?)));
        Monitor::over(open_reports()?, place, Target::Index(index))
    }

    fn over(reports: OwnedFd, place: Place, target: Target<'_>) -> io::Result<Monitor> {
        // First the reports, then the state: what changes in between is reported, and then found to be known already.
        let (index, known) = place.ask(|requests| requests.find(target))?;
        let buffer = vec![0; 32 * 1024].into_boxed_slice();
        Ok(Monitor { reports, place, index, known, events: VecDeque::new(), gone: false, buffer })
    }

    /// Follows a TUN device to wherever it is now: its index may have changed on the way. `home` is the namespace that the process
    /// lives in. Takes CAP_NET_ADMIN and, away from home, CAP_SYS_ADMIN and CAP_NET_BROADCAST: the steward's, or ours.
    pub fn follow(queue: &tun::Queue, home: BorrowedFd<'_>) -> io::Result<Monitor> {
        let (netns, name) = (queue.netns()?, queue.name()?);
        let open = |kind, netns: BorrowedFd<'_>| obtain(Task::Open(kind), netns);
        let mut requests = Requests::over(open(Kind::Requests, home)?);
        if netns::same(netns.as_fd(), home)? {
            let place = Place::Here(Mutex::new(requests));
            return Monitor::over(open(Kind::Reports, home)?, place, Target::Name(&name));
        }
        let reports = open(Kind::ReportsFrom, netns.as_fd())?;
        let number = requests.number_of(netns.as_fd())?.ok_or(io::ErrorKind::NotFound)?;
        Monitor::over(reports, Place::There(queue.try_clone()?, number), Target::Name(&name))
    }

    /// The index of the interface that is followed.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The state as of the events taken so far.
    pub fn known(&self) -> &LinkState {
        &self.known
    }

    /// The state of an interface, asked of the kernel. ENODEV when there is none.
    pub fn state(&self, index: u32) -> io::Result<LinkState> {
        self.place.ask(|requests| requests.state(index))
    }

    /// Sets an interface up or down.
    pub fn set_up(&self, index: u32, up: bool) -> io::Result<()> {
        let flags = if up { libc::IFF_UP as u32 } else { 0 };
        let header = link_header(index, flags, libc::IFF_UP as u32);
        self.place.ask(|requests| requests.change(&header, &[]))
    }

    /// Sets the MTU, in bytes.
    pub fn set_mtu(&self, index: u32, mtu: u32) -> io::Result<()> {
        self.place.ask(|requests| requests.change(&link_header(index, 0, 0), &[(IFLA_MTU, mtu)]))
    }

    /// Makes an interface say nothing by itself, as the kernel's WireGuard makes its own (wg_setup and wg_open in its device.c): it
    /// is not for multicast, has no IPv6 address that nobody gave it, so that nothing asks for routers through the tunnel, and
    /// who is forwarded back into it is not told of a shorter way. For the last, IPv4 has a setting of the whole namespace too.
    ///
    /// # Errors
    /// The first that came. All is tried; a system without IPv6, or with `/proc/sys` read-only, has no more to set.
    pub fn set_silent(&self, index: u32) -> io::Result<()> {
        let header = link_header(index, 0, libc::IFF_MULTICAST as u32);
        let multicast = self.place.ask(|requests| requests.change(&header, &[]));
        let mut request = change(&link_header(index, 0, 0), &[]);
        let (families, v6) = (request.open_nest(IFLA_AF_SPEC), request.open_nest(libc::AF_INET6 as u16));
        request.put(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_NONE]);
        request.close(v6);
        request.close(families);
        let addresses = self.place.ask(|requests| requests.exchange(request, direct, |_, _| false));
        let redirects = ["all", &self.known.name].map(|name| {
            std::fs::write(std::path::Path::new("/proc/sys/net/ipv4/conf").join(name).join("send_redirects"), "0")
        });
        [multicast, addresses].into_iter().chain(redirects).collect()
    }

    /// Sets how large the super-packets may be that the kernel hands to the interface: in bytes, and in segments.
    pub fn set_gso_max(&self, index: u32, size: u32, segments: u32) -> io::Result<()> {
        let attributes = [(IFLA_GSO_MAX_SIZE, size), (IFLA_GSO_MAX_SEGS, segments)];
        self.place.ask(|requests| requests.tune(index, &attributes))
    }

    /// Sets the length of the interface's own queue, in (super-)packets. While there is traffic, packets are lost by it: for the start.
    pub fn set_txqueuelen(&self, index: u32, packets: u32) -> io::Result<()> {
        self.place.ask(|requests| requests.change(&link_header(index, 0, 0), &[(IFLA_TXQLEN, packets)]))
    }

    /// Takes in what the kernel reported; whether there was anything.
    fn receive(&mut self) -> bool {
        let (received, number) = match receive_report(self.reports.as_fd(), &mut self.buffer) {
            Ok(received) => received,
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => return true,
                Some(libc::ENOBUFS) => {
                    // Those that were not lost are older than the state that is asked for now. More do not come until these are read.
                    while receive_report(self.reports.as_fd(), &mut self.buffer).is_ok() {}
                    self.resynchronise();
                    return true;
                }
                Some(libc::EAGAIN) => return false,
                _ => {
                    log::warn!("link reports cannot be read: {error}");
                    return false;
                }
            },
        };
        if matches!(self.place, Place::There(_, ours) if number != Some(ours)) {
            return true;
        }
        let buffer = std::mem::take(&mut self.buffer);
        for message in Messages(&buffer[..received]) {
            self.take(message.kind, message.body);
        }
        self.buffer = buffer;
        true
    }

    fn take(&mut self, kind: u16, body: &[u8]) {
        if self.gone || u32_at(body, 4) != Some(self.index) {
            return;
        }
        match kind {
            libc::RTM_NEWLINK => {
                if let Some(state) = parse_link(body) {
                    self.compare(state);
                }
            }
            libc::RTM_DELLINK => self.removed(),
            _ => (),
        }
    }

    fn compare(&mut self, state: LinkState) {
        if state.name != self.known.name {
            self.events.push_back(LinkEvent::Renamed(state.name.clone()));
        }
        if state.mtu != self.known.mtu {
            self.events.push_back(LinkEvent::Mtu(state.mtu));
        }
        if state.up != self.known.up {
            self.events.push_back(if state.up { LinkEvent::Up } else { LinkEvent::Down });
        }
        self.known = state;
    }

    fn removed(&mut self) {
        self.gone = true;
        self.events.push_back(LinkEvent::Removed);
    }

    /// Reports were lost: whatever they said shows in the state.
    fn resynchronise(&mut self) {
        if self.gone {
            return;
        }
        match self.state(self.index) {
            Ok(state) => self.compare(state),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => self.removed(),
            Err(error) => log::warn!("the link's state cannot be read: {error}"),
        }
    }
}

/// The events that have come; `None` when there are no more for now.
impl Iterator for Monitor {
    type Item = LinkEvent;

    fn next(&mut self) -> Option<LinkEvent> {
        while self.events.is_empty() {
            if !self.receive() {
                return None;
            }
        }
        self.events.pop_front()
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reports.as_fd()
    }
}

/// How many queues of a multi-queue TUN device are attached to a program, in the thread's network namespace; `None` when the
/// interface is something else, or does not say.
pub(crate) fn tun_queues(name: &str) -> io::Result<Option<u32>> {
    let mut value = name.as_bytes().to_vec();
    value.push(0);
    let mut queues = None;
    let request = Request::new(libc::RTM_GETLINK, libc::NLM_F_REQUEST as u16, 0, &link_header(0, 0, 0))
        .attribute(IFLA_IFNAME, &value);
    Requests::over(open_requests()?).exchange(request, direct, |kind, body| {
        if kind == libc::RTM_NEWLINK {
            queues = parse_tun_queues(body);
        }
        kind == libc::RTM_NEWLINK
    })?;
    Ok(queues)
}

/// Reads a datagram of reports in every way that there is, for the fuzz targets. Returns how many messages it held.
#[cfg(fuzzing)]
pub fn read_reports(bytes: &[u8]) -> usize {
    let read = |message: message::Message<'_>| (parse_link(message.body), parse_tun_queues(message.body));
    Messages(bytes).map(read).count()
}

fn parse_tun_queues(body: &[u8]) -> Option<u32> {
    let info = find(body.get(LINK..)?, IFLA_LINKINFO)?;
    if find(info, IFLA_INFO_KIND)?.split(|b| *b == 0).next()? != b"tun" {
        return None;
    }
    let queues = find(find(info, IFLA_INFO_DATA)?, IFLA_TUN_NUM_QUEUES)?;
    u32_at(queues, 0)
}

/// Which interface is meant.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    Index(u32),
    Name(&'a str),
}

fn parse_link(body: &[u8]) -> Option<LinkState> {
    let flags = u32_at(body, 8)?;
    let attributes = body.get(LINK..)?;
    let name = find(attributes, IFLA_IFNAME)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    Some(LinkState {
        name: String::from_utf8_lossy(name).into_owned(),
        up: flags & libc::IFF_UP as u32 != 0,
        mtu: u32_at(find(attributes, IFLA_MTU)?, 0)?,
    })
}

/// A socket for requests, in the thread's network namespace.
pub(crate) fn open_requests() -> io::Result<OwnedFd> {
    socket(0, 0)
}

/// One for what happens to links. Non-blocking.
pub(crate) fn open_reports() -> io::Result<OwnedFd> {
    socket(libc::RTMGRP_LINK as u32, libc::SOCK_NONBLOCK)
}

/// One that hears of all namespaces with a number in the thread's, and of the thread's own; and a number for this one, if it
/// has none.
pub(crate) fn open_reports_from(netns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let reports = open_reports()?;
    set_int(reports.as_fd(), libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID, 1)?;
    let mut requests = Requests::over(open_requests()?);
    if requests.number_of(netns)?.is_none() {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let request = Request::new(libc::RTM_NEWNSID, flags, 0, &[0; GENERIC])
            .attribute(NETNSA_NSID, &(-1i32).to_ne_bytes())
            .attribute(NETNSA_FD, &netns.as_raw_fd().to_ne_bytes());
        match requests.exchange(request, direct, |_, _| false) {
            // Somebody else was faster.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => (),
            other => other?,
        }
    }
    Ok(reports)
}

/// A report, and the number of the network namespace that it is from; a socket that hears of one namespace says none.
fn receive_report(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<i32>)> {
    // A control message with an int, which is 24 bytes at most.
    let mut beside = [0u64; 3];
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero bytes are a valid `msghdr` (null pointers, zero lengths).
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &mut vector;
    message.msg_iovlen = 1;
    message.msg_control = beside.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&beside) as _;
    // SAFETY: the message points to the buffer and to `beside`, both writable for the lengths given until the call returns.
    let len = check(unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) } as libc::c_int)?;
    // SAFETY: null, or the start of `beside`, which is aligned for it and of which the kernel has written a whole header.
    let header = unsafe { libc::CMSG_FIRSTHDR(&message) };
    // SAFETY: as above; and where the kernel names this kind, an int follows the header within `beside`.
    let number = unsafe {
        let kind = header.as_ref().map(|header| (header.cmsg_level, header.cmsg_type));
        (kind == Some((libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID)))
            .then(|| libc::CMSG_DATA(header).cast::<i32>().read_unaligned())
    };
    Ok((len as usize, number))
}

/// Whether the bytes are one request, to change the size of a link's super-packets and nothing else.
pub(crate) fn is_tuning(request: &[u8]) -> bool {
    let mut messages = Messages(request);
    let Some(message) = messages.next() else { return false };
    let Some((header, attributes)) = message.body.split_at_checked(LINK) else { return false };
    let tuning = |kind| [IFLA_GSO_MAX_SIZE, IFLA_GSO_MAX_SEGS].contains(&kind);
    let bytes =
        Attributes(attributes).map(|(kind, value)| if tuning(kind) { 4 + value.len() } else { 0 }).sum::<usize>();
    message.kind == libc::RTM_SETLINK
        // The family, and neither flags nor a mask of them; and no byte that was not looked at.
        && header[..4] == [0; 4]
        && header[8..] == [0; 8]
        && bytes == attributes.len()
        && messages.0.is_empty()
}

fn socket(groups: u32, flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: plain system calls; the address is readable for the length given, and the descriptor is new and ours.
    unsafe {
        let fd =
            check(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC | flags, libc::NETLINK_ROUTE))?;
        let fd = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_nl = zeroed();
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = groups;
        check(libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_nl>() as libc::socklen_t,
        ))?;
        Ok(fd)
    }
}

fn change(header: &[u8; LINK], attributes: &[(u16, u32)]) -> Request {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    let start = Request::new(libc::RTM_SETLINK, flags, 0, header);
    attributes.iter().fold(start, |request, (kind, value)| request.attribute(*kind, &value.to_ne_bytes()))
}

/// Sends by this process itself: what takes no privilege, or is done before it is given up.
pub(crate) fn direct(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    rustix::net::send(socket, bytes, rustix::net::SendFlags::empty())?;
    Ok(())
}

/// The socket for questions and settings.
#[derive(Debug)]
pub(crate) struct Requests {
    socket: OwnedFd,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl Requests {
    pub(crate) fn over(socket: OwnedFd) -> Requests {
        Requests { socket, sequence: 0, buffer: vec![0; 32 * 1024].into_boxed_slice() }
    }

    /// Sends a request by `send`, and gives each answer to `take` until that returns true, or the kernel says that it was the last.
    pub(crate) fn exchange(
        &mut self,
        request: Request,
        send: impl FnOnce(BorrowedFd<'_>, &[u8]) -> io::Result<()>,
        mut take: impl FnMut(u16, &[u8]) -> bool,
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = request.finish();
        bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        send(self.socket.as_fd(), &bytes)?;
        loop {
            let (len, _) = match rustix::net::recv(&self.socket, &mut self.buffer[..], rustix::net::RecvFlags::empty())
            {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            for message in Messages(&self.buffer[..len]) {
                if message.sequence != self.sequence {
                    continue;
                }
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => {
                        // The first field is a negative errno; zero is an acknowledgement.
                        return match u32_at(message.body, 0).map(|e| e as i32) {
                            Some(0) => Ok(()),
                            Some(error) => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
                            None => Err(io::ErrorKind::InvalidData.into()),
                        };
                    }
                    _ if take(message.kind, message.body) => return Ok(()),
                    _ => (),
                }
            }
        }
    }

    /// The number that another network namespace has in this one, if it has one.
    fn number_of(&mut self, netns: BorrowedFd<'_>) -> io::Result<Option<i32>> {
        let request = Request::new(libc::RTM_GETNSID, libc::NLM_F_REQUEST as u16, 0, &[0; GENERIC])
            .attribute(NETNSA_FD, &netns.as_raw_fd().to_ne_bytes());
        let mut number = None;
        self.exchange(request, direct, |_, body| {
            let value = body.get(GENERIC..).and_then(|attributes| find(attributes, NETNSA_NSID));
            number = value.and_then(|value| u32_at(value, 0)).map(|value| value as i32);
            true
        })?;
        Ok(number.filter(|number| *number >= 0))
    }

    fn state(&mut self, index: u32) -> io::Result<LinkState> {
        Ok(self.find(Target::Index(index))?.1)
    }

    /// The index and the state of an interface.
    pub(crate) fn find(&mut self, target: Target<'_>) -> io::Result<(u32, LinkState)> {
        let (index, name) = match target {
            Target::Index(index) => (index, None),
            Target::Name(name) => (0, Some([name.as_bytes(), &[0]].concat())),
        };
        let mut request = Request::new(libc::RTM_GETLINK, libc::NLM_F_REQUEST as u16, 0, &link_header(index, 0, 0))
            .attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        if let Some(name) = name {
            request = request.attribute(IFLA_IFNAME, &name);
        }
        let mut found = None;
        self.exchange(request, direct, |kind, body| {
            if kind == libc::RTM_NEWLINK {
                found = u32_at(body, 4).zip(parse_link(body));
            }
            kind == libc::RTM_NEWLINK
        })?;
        found.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn change(&mut self, header: &[u8; LINK], attributes: &[(u16, u32)]) -> io::Result<()> {
        self.exchange(change(header, attributes), direct, |_, _| false)
    }

    /// A change that is made while traffic flows, by whoever has the privilege then.
    fn tune(&mut self, index: u32, attributes: &[(u16, u32)]) -> io::Result<()> {
        let send = |socket: BorrowedFd<'_>, bytes: &[u8]| perform(Task::SetLink(bytes), socket).map(drop);
        self.exchange(change(&link_header(index, 0, 0), attributes), send, |_, _| false)
    }
}

/// A request that passes [`is_tuning`].
#[cfg(test)]
pub(crate) fn tuning_for_test() -> Vec<u8> {
    change(&link_header(7, 0, 0), &[(IFLA_GSO_MAX_SIZE, 62_000), (IFLA_GSO_MAX_SEGS, 45)]).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_size_of_super_packets_is_tuning() {
        assert!(is_tuning(&tuning_for_test()));
        let header = link_header(7, 0, 0);
        for other in [
            change(&header, &[(IFLA_MTU, 1280)]).finish(),
            change(&header, &[(IFLA_GSO_MAX_SEGS, 45), (IFLA_MTU, 1280)]).finish(),
            change(&header, &[(IFLA_TXQLEN, 128)]).finish(),
            change(&link_header(7, 1, 1), &[(IFLA_GSO_MAX_SEGS, 45)]).finish(),
            Request::new(libc::RTM_DELLINK, 5, 0, &header).attribute(IFLA_GSO_MAX_SEGS, &[0; 4]).finish(),
            [tuning_for_test(), change(&header, &[(IFLA_MTU, 1280)]).finish()].concat(),
            [tuning_for_test(), vec![0; 4]].concat(),
            tuning_for_test()[..24].to_vec(),
            Vec::new(),
        ] {
            assert!(!is_tuning(&other), "{other:?}");
        }
    }
}

//! The steward: a process of its own that holds the privileges, so that the one that holds the keys and reads what strangers
//! send has none.
//!
//! It is forked at the start, before there is a key, a thread or an interface. It knows a handful of [`Task`]s, each a system call
//! or two upon a descriptor that it is handed (SCM_RIGHTS), and does nothing else: it reads no file and no packet, and its
//! own capabilities and system calls are cut down to these tasks. It ends when the other process does, and only then; but where that has left
//! in its keeping what goes on without a daemon, it stays for as long as that does, and gives it to the next (`steward/estate.rs`).
//!
//! ```text
//!   daemon ── task and a descriptor ──▶ steward: carries it out
//!          ◀── errno, or a new descriptor ──
//! ```
//!
//! Without a steward ([`start`] was not called) the calling process carries out its tasks itself, as far as it may.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    sockopt::{Timeout, set_socket_timeout},
};
use rustix::thread::CapabilitySet;

use crate::bpf::hook::{self, Hook};
use crate::sys::{check, set_int};
use crate::unix::SocketFile;
use crate::{capabilities, icmp, link, memory, netns, process, sandbox, udp};

mod charge;
mod estate;

use charge::{Charge, take_charge};
use estate::Vigil;
pub(crate) use estate::{DECLINED, END, PROOF, Place, TAKEN, wipe};
pub use estate::{QUEUE, Terms};

/// The steward, as the other process knows it.
struct Steward {
    /// Where it is reached.
    socket: OwnedFd,
    /// It did not answer. What it says later would be taken for the answer to another question, so it is asked no more.
    lost: bool,
}

static STEWARD: OnceLock<Mutex<Steward>> = OnceLock::new();

/// How long an answer is waited for. What takes longest is a lock that all changes of links in the
/// system share.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a task at most: a path is the longest.
const TASK_MAX: usize = 4096 + 8;

/// What the steward keeps: to mark packets, for large buffers, the interface's settings and its namespace; for ICMP errors; for
/// ports below 1024; and, to make sockets in a namespace that the interface was moved to, the one that `setns` takes, and to hear
/// of it from home, that for broadcasts.
const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_BROADCAST)
    .union(CapabilitySet::SYS_ADMIN);

/// A kind of socket that is made in a network namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Netlink, for questions and settings.
    Requests,
    /// Netlink, for what happens to links.
    Reports,
    /// The same of another namespace, but living at home.
    ReportsFrom,
    /// Raw, IPv4.
    Raw4,
    /// Raw, ICMPv6.
    Raw6,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Requests, Kind::Reports, Kind::ReportsFrom, Kind::Raw4, Kind::Raw6];

    /// Makes one for this namespace in that of the calling thread: the same, but for reports from there.
    fn open(self, netns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        match self {
            Kind::Requests => link::open_requests(),
            Kind::Reports => link::open_reports(),
            Kind::ReportsFrom => link::open_reports_from(netns),
            Kind::Raw4 => icmp::open(libc::AF_INET),
            Kind::Raw6 => icmp::open(libc::AF_INET6),
        }
    }
}

/// What takes a privilege. Each is done upon a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Task<'a> {
    /// Bind a UDP socket to a port, on all addresses.
    Bind { v6: bool, port: u16 },
    /// Set a UDP socket's firewall mark.
    Mark(u32),
    /// Set the size of a UDP socket's buffer, beyond the system's limit: SO_RCVBUFFORCE or SO_SNDBUFFORCE, and bytes.
    Buffer { option: i32, bytes: i32 },
    /// The network namespace of a TUN's queue.
    Netns,
    /// A socket in this network namespace.
    Open(Kind),
    /// Send a change of the size of a link's super-packets, by a socket for requests.
    SetLink(&'a [u8]),
    /// Put a program on an interface of the namespace that the steward lives in.
    Attach { hook: Hook, interface: u32, handle: u32 },
    /// Take one away that was put there: a filter. Of another it had a copy of the link, and lets go of it.
    Detach { hook: Hook, interface: u32, handle: u32 },
    /// Take one over, with its link or as a filter, that the steward of an earlier daemon had; and with it perhaps the discipline, which it had made.
    TakeOver { hook: Hook, interface: u32, handle: u32, made: bool },
}

impl<'a> Task<'a> {
    fn encode(self) -> (u8, [u8; 8], &'a [u8]) {
        let pair = |a: u32, b: u32| (u64::from(a) << 32 | u64::from(b)).to_be_bytes();
        match self {
            Task::Bind { v6, port } => (0, pair(v6.into(), port.into()), &[]),
            Task::Mark(mark) => (1, pair(0, mark), &[]),
            Task::Buffer { option, bytes } => (2, pair(option.cast_unsigned(), bytes.cast_unsigned()), &[]),
            Task::Netns => (3, [0; 8], &[]),
            Task::Open(kind) => (4, pair(0, kind as u32), &[]),
            Task::SetLink(request) => (5, [0; 8], request),
            Task::Attach { hook, interface, handle } => (ATTACH + hook as u8, pair(interface, handle), &[]),
            Task::Detach { hook, interface, handle } => (DETACH + hook as u8, pair(interface, handle), &[]),
            Task::TakeOver { hook, interface, handle, made } => {
                let first = if made { TAKE_OVER_MADE } else { TAKE_OVER };
                (first + hook as u8, pair(interface, handle), &[])
            }
        }
    }

    /// The task that these bytes are, if it is one that the steward may be given.
    fn decode(bytes: &'a [u8]) -> Option<Task<'a>> {
        let (&[tag, a0, a1, a2, a3, b0, b1, b2, b3], rest) = bytes.split_first_chunk()?;
        let (a, b) = (u32::from_be_bytes([a0, a1, a2, a3]), u32::from_be_bytes([b0, b1, b2, b3]));
        let task = match tag {
            0 => Task::Bind { v6: a != 0, port: b.try_into().ok()? },
            1 => Task::Mark(b),
            2 => Task::Buffer { option: a.cast_signed(), bytes: b.cast_signed() },
            3 => Task::Netns,
            4 => Task::Open(*Kind::ALL.get(b as usize)?),
            5 => Task::SetLink(rest),
            _ => {
                let (interface, handle) = (a, b);
                let hook = *Hook::ALL.get(usize::from(tag % HOOKS))?;
                match tag - tag % HOOKS {
                    ATTACH => Task::Attach { hook, interface, handle },
                    DETACH => Task::Detach { hook, interface, handle },
                    TAKE_OVER => Task::TakeOver { hook, interface, handle, made: false },
                    TAKE_OVER_MADE => Task::TakeOver { hook, interface, handle, made: true },
                    _ => return None,
                }
            }
        };
        match task {
            Task::Buffer { option, .. } if ![libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE].contains(&option) => None,
            Task::SetLink(request) if !link::is_tuning(request) => None,
            task => Some(task),
        }
    }

    /// Whether it is about programs on interfaces.
    fn is_of_programs(self) -> bool {
        matches!(self, Task::Attach { .. } | Task::Detach { .. } | Task::TakeOver { .. })
    }

    /// Carries it out. `open` makes a socket in a namespace.
    fn carry_out(
        self,
        on: BorrowedFd<'_>,
        open: impl FnOnce(BorrowedFd<'_>, Kind) -> io::Result<OwnedFd>,
    ) -> io::Result<Option<OwnedFd>> {
        match self {
            Task::Bind { v6, port } => udp::bind_any(on, v6, port).map(|()| None),
            Task::Mark(mark) => set_int(on, libc::SOL_SOCKET, libc::SO_MARK, mark.cast_signed()).map(|()| None),
            Task::Buffer { option, bytes } => set_int(on, libc::SOL_SOCKET, option, bytes).map(|()| None),
            Task::Netns => {
                // SAFETY: this ioctl takes no argument and returns a new descriptor, which belongs to nobody else.
                let netns =
                    unsafe { OwnedFd::from_raw_fd(check(libc::ioctl(on.as_raw_fd(), libc::TUNGETDEVNETNS as _))?) };
                Ok(Some(netns))
            }
            Task::Open(kind) => open(on, kind).map(Some),
            Task::SetLink(request) => {
                rustix::net::send(on, request, SendFlags::empty())?;
                Ok(None)
            }
            Task::Attach { hook, interface, handle } => hook::attach(on, hook, interface, handle),
            Task::Detach { hook, interface, handle } => hook::detach(hook, interface, handle).map(|()| None),
            Task::TakeOver { hook, interface, made, .. } => {
                if made {
                    hook::take_over(hook, interface);
                }
                Ok(None)
            }
        }
    }
}

/// Does what takes a privilege: by the steward, or without one in this process.
pub(crate) fn perform(task: Task<'_>, on: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    match STEWARD.get() {
        None => task.carry_out(on, |netns, kind| match kind {
            Kind::ReportsFrom => kind.open(netns),
            _ => netns::run_in(netns, || kind.open(netns)),
        }),
        Some(steward) => {
            let (tag, numbers, rest) = task.encode();
            ask(steward, &[&[tag], &numbers, rest], Some(on))
        }
    }
}

/// The same, of a task that has a new descriptor as its result.
pub(crate) fn obtain(task: Task<'_>, on: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    perform(task, on)?.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The first of so many tags, of which a hook has one.
const ATTACH: u8 = HOOKS;
const DETACH: u8 = 2 * HOOKS;
const TAKE_OVER: u8 = 3 * HOOKS;
const TAKE_OVER_MADE: u8 = 4 * HOOKS;
const HOOKS: u8 = 10;

const ENTRUST: u8 = 100;
const REMOVE: u8 = 101;
const ENTRUST_KEPT: u8 = 102;
const KEEP: u8 = 103;
const AWAIT: u8 = 104;
const WHOLE: u8 = 105;
const FAREWELL: u8 = 106;

/// Leaves the removal of this socket's file to the steward, or of none. It will never remove another: the first call counts,
/// whether it succeeds or not. So make it before anybody else could.
///
/// When the other process dies without asking for it, the steward removes the file all the same; but not where it is `kept`, since somebody
/// else has the socket too.
pub fn entrust(path: Option<&Path>, kept: bool) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let Some(steward) = STEWARD.get() else { return Ok(()) };
    let path = path.map_or(&[][..], |path| path.as_os_str().as_bytes());
    ask(steward, &[&[if kept { ENTRUST_KEPT } else { ENTRUST }], path], None).map(drop)
}

/// Has the steward remove the file that it was entrusted with, if that is still the same.
pub(crate) fn remove_entrusted() {
    // What cannot be removed stays, as without a steward.
    let _ = STEWARD.get().map(|steward| ask(steward, &[&[REMOVE]], None));
}

/// Whether there is a steward.
pub fn is_there() -> bool {
    STEWARD.get().is_some()
}

/// Leaves a copy of a descriptor with the steward, under this name, for a successor of this process. Nothing where there is none.
pub fn keep(name: &str, fd: impl AsFd) -> io::Result<()> {
    let Some(steward) = STEWARD.get() else { return Ok(()) };
    ask(steward, &[&[KEEP], name.as_bytes()], Some(fd.as_fd())).map(drop)
}

/// Has the steward wait for a successor at this socket, of which the file is at `path`.
pub(crate) fn await_successor(path: &Path, socket: &OwnedFd) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let Some(steward) = STEWARD.get() else { return Ok(()) };
    ask(steward, &[&[AWAIT], path.as_os_str().as_bytes()], Some(socket.as_fd())).map(drop)
}

/// All that a successor needs is with the steward: if this process dies from here on, the steward keeps it.
pub fn is_whole(terms: &Terms) -> io::Result<()> {
    let Some(steward) = STEWARD.get() else { return Ok(()) };
    ask(steward, &[&[WHOLE], &terms.encode()], None).map(drop)
}

/// This process ends because it is meant to: nothing is kept, and nothing taken over any more.
pub fn farewell() {
    // One that does not answer keeps nothing, either.
    let _ = STEWARD.get().map(|steward| ask(steward, &[&[FAREWELL]], None));
}

fn ask(steward: &Mutex<Steward>, parts: &[&[u8]], on: Option<BorrowedFd<'_>>) -> io::Result<Option<OwnedFd>> {
    let mut steward = steward.lock().unwrap_or_else(PoisonError::into_inner);
    let lost = || io::Error::new(io::ErrorKind::BrokenPipe, "the steward, which has the privileges, does not answer");
    if steward.lost {
        return Err(lost());
    }
    let answer = match send(&steward.socket, parts, on) {
        // It was not sent: the next may be.
        Err(error) if ![Some(libc::EPIPE), Some(libc::ECONNRESET)].contains(&error.raw_os_error()) => {
            return Err(error);
        }
        sent => sent.and_then(|()| answer(&steward.socket)),
    };
    match answer {
        Ok((0, descriptor)) => Ok(descriptor),
        Ok((errno, _)) => Err(io::Error::from_raw_os_error(errno)),
        Err(error) => {
            steward.lost = true;
            log::error!("{}, and whatever takes one fails from now on ({error})", lost());
            Err(lost())
        }
    }
}

/// The steward's next answer: an errno, or zero. An error when there is none.
fn answer(from: &OwnedFd) -> io::Result<(i32, Option<OwnedFd>)> {
    let mut errno = [0; 4];
    match receive(from, &mut errno)? {
        (4, descriptor) => Ok((i32::from_ne_bytes(errno), descriptor)),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

pub(crate) fn send(to: &OwnedFd, parts: &[&[u8]], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    send_with(to, parts, descriptor, SendFlags::empty())
}

/// The same, or EAGAIN where there is no room.
pub(crate) fn send_at_once(to: &OwnedFd, part: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    send_with(to, &[part], descriptor, SendFlags::DONTWAIT)
}

fn send_with(to: &OwnedFd, parts: &[&[u8]], descriptor: Option<BorrowedFd<'_>>, flags: SendFlags) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        // There is room for one.
        beside.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    sendmsg(to, &parts, &mut beside, SendFlags::NOSIGNAL | flags)?;
    Ok(())
}

pub(crate) fn receive(from: &OwnedFd, into: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(into)];
    let received = loop {
        match recvmsg(from, parts, &mut beside, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => (),
            other => break other?,
        }
    };
    let descriptor = beside.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok((received.bytes, descriptor))
}

/// Forks the steward off, for the rest of this process's life. Call it once, while there is one thread and nothing secret.
///
/// It belongs to the network namespace of the calling thread, and blocks the signals that this process blocks. Returns once it
/// has given up all that it does not need; an error when it could not. With `programs` it will put eBPF programs on interfaces, too.
pub fn start(programs: bool) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    // SAFETY: there is one thread, so the child has a complete copy of a consistent process.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        let _ = serve(&theirs, programs);
        // SAFETY: ends this process at once: nothing that it inherited is to be flushed or dropped by it.
        unsafe { libc::_exit(0) }
    }
    // So that its end would be heard of.
    drop(theirs);
    match answer(&socket)? {
        (0, _) => log::debug!("process {pid} is the steward, for what takes a privilege"),
        (errno, _) => return Err(io::Error::from_raw_os_error(errno)),
    }
    STEWARD.set(Mutex::new(Steward { socket, lost: false })).map_err(|_| io::ErrorKind::AlreadyExists.into())
}

/// The steward's life.
fn serve(socket: &OwnedFd, programs: bool) -> io::Result<()> {
    let settled = netns::current().and_then(|home| settle(socket, &home, programs).map(|vigil| (home, vigil)));
    send(socket, &[&errno(&settled).to_ne_bytes()], None)?;
    let (home, vigil) = settled?;
    let mut charge = Charge::default();
    let end = obey(socket, &home, programs, &mut charge);
    let kept = vigil.map_or(estate::End::Over, |vigil| charge.estate.keep(&vigil));
    if kept == estate::End::Taken {
        return end;
    }
    // The daemon had no time to ask for it. But where another has the interface, what has the name now is that one's, even if it should have the number of
    // the one that was.
    charge.file.iter().filter(|_| !charge.kept && kept != estate::End::Declined).for_each(SocketFile::remove);
    charge.estate.listener.iter().for_each(|(_, file)| file.remove());
    for Place { hook, interface, handle, .. } in charge.estate.places.drain(..) {
        // What is not there any more has gone with its interface.
        let _ = hook::detach(hook, interface, handle);
    }
    if kept != estate::End::Open {
        // No program is on its way any more that could find half of it.
        charge.estate.wipe();
    }
    end
}

/// Carries out tasks until the other process has ended. Things are kept for one with `programs` alone.
fn obey(socket: &OwnedFd, home: &OwnedFd, programs: bool, charge: &mut Charge) -> io::Result<()> {
    let mut sealed = false;
    let mut bytes = [0; TASK_MAX];
    loop {
        let (len, descriptor) = receive(socket, &mut bytes)?;
        let result = match (&bytes[..len], descriptor) {
            ([], _) => return Ok(()),
            ([tag @ KEEP..=FAREWELL, rest @ ..], fd) if programs => charge.keep(*tag, rest, fd).map(|()| None),
            (task, Some(on)) => match Task::decode(task) {
                Some(task) if task.is_of_programs() && !(programs && charge.allows(task, home)) => {
                    Err(rustix::io::Errno::PERM.into())
                }
                Some(task) => {
                    let done = task.carry_out(on.as_fd(), |netns, kind| open_away(home, netns, kind));
                    if let Ok(made) = &done {
                        charge.note(task, on, made.as_ref());
                    }
                    done
                }
                None => Err(io::Error::from_raw_os_error(libc::EPERM)),
            },
            ([tag @ (ENTRUST | ENTRUST_KEPT), path @ ..], None) if !sealed => {
                sealed = true;
                take_charge(path).map(|file| {
                    (charge.file, charge.kept) = (file, *tag == ENTRUST_KEPT);
                    None
                })
            }
            ([REMOVE], None) => {
                charge.file.take().iter().for_each(SocketFile::remove);
                Ok(None)
            }
            _ => Err(io::Error::from_raw_os_error(libc::EPERM)),
        };
        let errno = errno(&result);
        let descriptor = result.ok().flatten();
        send(socket, &[&errno.to_ne_bytes()], descriptor.as_ref().map(OwnedFd::as_fd))?;
    }
}

fn errno<T>(result: &io::Result<T>) -> i32 {
    result.as_ref().err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO))
}

/// Leaves everything of the process that it was copied from but the socket, and all rights but its own. With `programs` it may have to do without
/// the daemon one day, and gets what it takes for that.
fn settle(socket: &OwnedFd, home: &OwnedFd, programs: bool) -> io::Result<Option<Vigil>> {
    rustix::thread::set_name(c"wl-steward")?;
    std::env::set_current_dir("/")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    let ours = [socket.as_raw_fd(), home.as_raw_fd()];
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| *fd > 2 && !ours.contains(fd)) {
        // SAFETY: whoever owns it in this copy of the process is never run again, nor dropped.
        unsafe { libc::close(fd) };
    }
    // `null` is among them.
    std::mem::forget(null);
    memory::hide()?;
    process::no_dump()?;
    capabilities::keep_only(KEPT)?;
    let vigil = programs.then(Vigil::new).transpose()?;
    sandbox::enter(sandbox::Role::Steward { programs });
    Ok(vigil)
}

/// Makes a socket in another namespace, and comes home. There is one thread.
fn open_away(home: &OwnedFd, netns: BorrowedFd<'_>, kind: Kind) -> io::Result<OwnedFd> {
    if kind == Kind::ReportsFrom || netns::same(netns, home.as_fd())? {
        return kind.open(netns);
    }
    netns::enter(netns)?;
    let socket = kind.open(netns);
    // Away from home there is nothing that it could be asked for: it ends.
    if netns::enter(home.as_fd()).is_err() {
        std::process::abort();
    }
    socket
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_read_as_it_was_written_and_nothing_else_is_one() {
        let tuning = link::tuning_for_test();
        for task in [
            Task::Bind { v6: true, port: 53 },
            Task::Bind { v6: false, port: 65_535 },
            Task::Mark(u32::MAX),
            Task::Buffer { option: libc::SO_RCVBUFFORCE, bytes: 7 << 20 },
            Task::Netns,
            Task::Open(Kind::Requests),
            Task::Open(Kind::Reports),
            Task::Open(Kind::ReportsFrom),
            Task::Open(Kind::Raw4),
            Task::Open(Kind::Raw6),
            Task::SetLink(&tuning),
            Task::Attach { hook: Hook::Xdp, interface: 7, handle: u32::MAX },
            Task::Attach { hook: Hook::FilterEgress, interface: 7, handle: 9 },
            Task::Detach { hook: Hook::FilterIngress, interface: 8, handle: 9 },
            Task::TakeOver { hook: Hook::TcxIngress, interface: 8, handle: 9, made: false },
            Task::TakeOver { hook: Hook::FilterEgress, interface: 8, handle: 9, made: true },
        ] {
            let (tag, numbers, rest) = task.encode();
            let bytes = [&[tag], &numbers[..], rest].concat();
            assert_eq!(Task::decode(&bytes), Some(task));
            for bytes in [&bytes[..8], &[&[99], &bytes[1..]].concat()] {
                assert_eq!(Task::decode(bytes), None);
            }
        }
        let (tag, numbers, _) = Task::Buffer { option: libc::SO_MARK, bytes: 1 }.encode();
        assert_eq!(Task::decode(&[&[tag], &numbers[..]].concat()), None);
        let (tag, ..) = Task::SetLink(&[]).encode();
        assert_eq!(Task::decode(&[&[tag; 9][..], &tuning[..tuning.len() - 1]].concat()), None);
    }
}

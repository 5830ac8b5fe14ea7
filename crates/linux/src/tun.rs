//! The TUN device: where inner packets come from and go to.
//!
//! A device has one queue for each worker. Each packet is preceded by a virtio-net header of [`VNET_LEN`] bytes (where
//! `Offloads::vnet` says so), in which the kernel describes a super-packet that it did not cut, or a checksum that it did
//! not complete, and in which we describe the same to it. What the kernel may hand us in that way is negotiated at
//! creation, from the most to the least; see [`Offloads`].
//!
//! A device lives as long as one of its queues, unless it was made persistent by somebody else. Once it is removed, or while
//! it is being moved to another network namespace, its queues answer with an error: [`Queue::is_attached`] tells the two apart.

use std::ffi::CString;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::steward::{self, Task};
use crate::sys::check;
use crate::{link, netns};
use bound::Bound;

mod bound;
mod bpf;
mod steering;

pub use bound::{BYTES as BOUND_BYTES, EACH as BOUND_EACH, PACKETS as BOUND_PACKETS};

/// Bytes of the virtio-net header in front of each packet.
pub const VNET_LEN: usize = 10;

/// The longest name of an interface, in bytes (IFNAMSIZ less the zero).
pub const NAME_MAX: usize = libc::IFNAMSIZ - 1;

/// The most queues that the kernel gives to one device (MAX_TAP_QUEUES).
pub const QUEUES_MAX: usize = 256;

/// Offloads of the inner side: what is wished for, and in [`Tun::offloads`] what the kernel granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offloads {
    /// A virtio-net header precedes each packet, in both directions. Without it there are none of the others.
    pub vnet: bool,
    /// Packets may come with a checksum to be completed.
    pub csum: bool,
    /// TCP super-packets may come, of IPv4 and IPv6, with congestion marks (CWR) too.
    pub tso: bool,
    /// UDP super-packets may come (Linux 6.2), and may be written.
    pub uso: bool,
}

impl Offloads {
    /// Everything there is.
    pub const ALL: Offloads = Offloads { vnet: true, csum: true, tso: true, uso: true };
}

/// Why a TUN device could not be made or taken over.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The name is not one that the kernel takes.
    #[error(
        "'{0}' is no name for an interface: 1 to 15 bytes, without '/', ':' or white space, and neither '.' nor '..'"
    )]
    Name(String),
    /// A number of queues out of range.
    #[error("{0} queues were asked for: a TUN device has 1 to {max}", max = QUEUES_MAX)]
    Queues(usize),
    /// The kernel has no TUN driver, or the container was not given the device.
    #[error(
        "/dev/net/tun is missing: load the driver with 'modprobe tun', or give the container the device (--device /dev/net/tun)"
    )]
    NoDriver,
    /// CAP_NET_ADMIN is missing.
    #[error("not allowed to create a TUN device: run as root or with CAP_NET_ADMIN")]
    Forbidden,
    /// Somebody else has the device open.
    #[error("the interface {0} is in use by another program")]
    InUse(String),
    /// There is an interface of that name which is no TUN device.
    #[error("the interface {0} exists already and is not a TUN device")]
    NotTun(String),
    /// The inherited descriptor is no TUN device, or one that we cannot work with (a TAP, or with packet information).
    #[error("the descriptor is not a TUN device without packet information (IFF_TUN | IFF_NO_PI)")]
    Descriptor,
    /// Another system call failed.
    #[error("{what} failed")]
    Os {
        /// What was attempted.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

fn os(what: &'static str) -> impl FnOnce(io::Error) -> TunError {
    move |source| TunError::Os { what, source }
}

/// A TUN device.
#[derive(Debug)]
pub struct Tun {
    /// Its name, as the kernel chose it where `%d` was asked for.
    pub name: String,
    /// Its interface index, in the network namespace that it is in.
    pub index: u32,
    /// Its queues: as many as were asked for, or one where the device (made by somebody else) has only one.
    pub queues: Vec<Queue>,
    /// What the kernel granted.
    pub offloads: Offloads,
}

/// One queue of a TUN device. Non-blocking.
#[derive(Debug)]
pub struct Queue {
    fd: OwnedFd,
    bound: Option<Bound>,
}

/// Creates a device, or takes over a persistent one of that name that nobody uses. It is down and has no address.
///
/// `name` may contain `%d` once, for which the kernel takes the first free number.
pub fn create(name: &str, queues: usize, want: Offloads) -> Result<Tun, TunError> {
    let name = CheckedName::new(name)?;
    if !(1..=QUEUES_MAX).contains(&queues) {
        return Err(TunError::Queues(queues));
    }
    let first = Queue::open()?;
    let features = first.features().map_err(os("TUNGETFEATURES"))?;
    let vnet = want.vnet && features & libc::IFF_VNET_HDR != 0;
    let mut flags = libc::IFF_TUN | libc::IFF_NO_PI;
    if vnet {
        flags |= libc::IFF_VNET_HDR;
    }
    if features & libc::IFF_MULTI_QUEUE != 0 {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let (name, flags) = attach_first(&first, &name, flags)?;
    let mut all = vec![first];
    if flags & libc::IFF_MULTI_QUEUE != 0 {
        for _ in 1..queues {
            let next = Queue::open()?;
            next.attach(&name, flags).map_err(os("adding a TUN queue"))?;
            all.push(next);
        }
    }
    let offloads = negotiate(&all[0], Offloads { vnet, ..want })?;
    let index = all[0].index().map_err(os("finding the TUN's index"))?;
    Ok(Tun { name: name.0, index, queues: all, offloads })
}

/// Takes over a TUN descriptor that was inherited (`WG_TUN_FD`), as a device of one queue.
///
/// Its name and its virtio-net header are as its maker chose: where it has none, there are no offloads.
pub fn from_fd(fd: OwnedFd, want: Offloads) -> Result<Tun, TunError> {
    let queue = Queue::from(fd);
    let (name, flags) = queue.identity().map_err(|_| TunError::Descriptor)?;
    if flags & libc::IFF_TUN == 0 || flags & libc::IFF_NO_PI == 0 {
        return Err(TunError::Descriptor);
    }
    let modes = rustix::fs::fcntl_getfl(&queue.fd).map_err(|e| os("F_GETFL")(e.into()))?;
    rustix::fs::fcntl_setfl(&queue.fd, modes | OFlags::NONBLOCK).map_err(|e| os("F_SETFL")(e.into()))?;
    let vnet = flags & libc::IFF_VNET_HDR != 0;
    let offloads = if vnet { negotiate(&queue, Offloads { vnet, ..want })? } else { Offloads::default() };
    let index = queue.index().map_err(os("finding the TUN's index"))?;
    Ok(Tun { name, index, queues: vec![queue], offloads })
}

/// Takes over all the queues of a device that [`create`] made, in the order in which it made them, from a process that has ended or is about
/// to. They carry on as if it had made them itself: call [`Queue::set_steering_by_flow`] and [`Tun::bound_queues`] again, since what
/// the other process had there counts for itself alone and is taken away.
pub fn take_over(fds: Vec<OwnedFd>, want: Offloads) -> Result<Tun, TunError> {
    let mut fds = fds.into_iter();
    let mut tun = from_fd(fds.next().ok_or(TunError::Queues(0))?, want)?;
    for fd in fds {
        let queue = Queue::from(fd);
        match queue.identity() {
            Ok((name, _)) if name == tun.name => tun.queues.push(queue),
            _ => return Err(TunError::Descriptor),
        }
    }
    // What it let in, and nobody counted out, would keep all else from coming in.
    let _ = tun.queues[0].ioctl_int(libc::TUNSETFILTEREBPF, -1);
    Ok(tun)
}

impl Tun {
    /// Bounds what waits in each queue by its bytes, and so by time, by a program of ours in the kernel. Set the interface's queue
    /// to [`BOUND_PACKETS`] before there is traffic, so that it holds what the program lets in. From here on each queue has to be
    /// read by the one `Queue` that is here, and by no clone of it.
    ///
    /// # Errors
    /// The kernel or a container's policy has no eBPF, or the device will outlive us, and the program with it. Then nothing has changed.
    pub fn bound_queues(&mut self) -> io::Result<()> {
        let first = &self.queues[0];
        let (_, flags) = first.identity()?;
        if flags & libc::IFF_PERSIST != 0 {
            return Err(io::Error::other("the interface will outlive this program"));
        }
        let (program, bounds) = bound::load(self.queues.len(), if self.offloads.vnet { VNET_LEN } else { 0 })?;
        first.ioctl_int(libc::TUNSETFILTEREBPF, program.as_raw_fd())?;
        for (queue, bound) in self.queues.iter_mut().zip(bounds) {
            queue.bound = Some(bound);
        }
        Ok(())
    }
}

/// A name that the kernel will take, or a pattern of one.
#[derive(Debug)]
struct CheckedName(String);

impl CheckedName {
    fn new(name: &str) -> Result<CheckedName, TunError> {
        let byte_is_bad = |b: u8| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace() || b == 0x0b;
        let percent_is_bad = match name.split_once('%') {
            None => false,
            Some((_, rest)) => !rest.starts_with('d') || rest.contains('%'),
        };
        if name.is_empty()
            || name.len() > NAME_MAX
            || name == "."
            || name == ".."
            || name.bytes().any(byte_is_bad)
            || percent_is_bad
        {
            return Err(TunError::Name(name.to_owned()));
        }
        Ok(CheckedName(name.to_owned()))
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: an `ifreq` is plain data, for which zeros are valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.0.bytes()) {
            *to = from as libc::c_char;
        }
        request
    }
}

fn name_of(request: &libc::ifreq) -> String {
    let bytes: Vec<u8> = request.ifr_name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Makes the device with its first queue. Returns its name, and the flags that it has.
///
/// A multi-queue device could be joined while another program runs it, so one that exists is only taken over when it has no
/// queue attached; a single-queue one the kernel itself refuses.
fn attach_first(queue: &Queue, name: &CheckedName, flags: libc::c_int) -> Result<(CheckedName, libc::c_int), TunError> {
    let exists = match queue.attach(name, flags | libc::IFF_TUN_EXCL) {
        Ok(name) => return Ok((name, flags)),
        Err(error) => error,
    };
    match exists.raw_os_error() {
        Some(libc::EBUSY) => (),
        Some(libc::EPERM) => return Err(TunError::Forbidden),
        // The kernel says so of a name that it would not take for a TUN in the first place.
        Some(libc::EINVAL) => return Err(TunError::Name(name.0.clone())),
        _ => return Err(os("creating the TUN device")(exists)),
    }
    let attached = link::tun_queues(&name.0).map_err(os("looking at the TUN device"))?;
    if attached.is_some_and(|count| count > 0) {
        return Err(TunError::InUse(name.0.clone()));
    }
    let mut last = exists;
    for flags in [flags, flags & !libc::IFF_MULTI_QUEUE] {
        match queue.attach(name, flags) {
            Ok(name) => {
                // One of ours may be bound to it, that counts for readers that are gone. Kernels before 4.16 have none.
                let _ = queue.ioctl_int(libc::TUNSETFILTEREBPF, -1);
                return Ok((name, flags));
            }
            Err(error) => last = error,
        }
    }
    Err(match last.raw_os_error() {
        Some(libc::EBUSY) => TunError::InUse(name.0.clone()),
        Some(libc::EINVAL) => TunError::NotTun(name.0.clone()),
        Some(libc::EPERM) => TunError::Forbidden,
        _ => os("taking over the TUN device")(last),
    })
}

/// Asks for the offloads, the most first. They are the device's, whichever queue they are set on.
fn negotiate(queue: &Queue, want: Offloads) -> Result<Offloads, TunError> {
    if !want.vnet {
        return Ok(Offloads::default());
    }
    queue.ioctl_int(libc::TUNSETVNETHDRSZ, VNET_LEN as libc::c_int).map_err(os("TUNSETVNETHDRSZ"))?;
    // Segmentation needs the checksum offload, since each segment gets a checksum of its own.
    let csum = Offloads { vnet: true, csum: want.csum, ..Offloads::default() };
    let tso = Offloads { tso: want.csum && want.tso, ..csum };
    let uso = Offloads { uso: want.csum && want.uso, ..tso };
    for offloads in [uso, tso, csum] {
        if queue.set_offloads(offloads).is_ok() {
            return Ok(offloads);
        }
    }
    let none = Offloads { vnet: true, ..Offloads::default() };
    queue.set_offloads(none).map_err(os("TUNSETOFFLOAD"))?;
    Ok(none)
}

impl Queue {
    fn open() -> Result<Queue, TunError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match rustix::fs::open("/dev/net/tun", flags, Mode::empty()) {
            Ok(fd) => Ok(Queue::from(fd)),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NXIO | rustix::io::Errno::NODEV) => {
                Err(TunError::NoDriver)
            }
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => Err(TunError::Forbidden),
            Err(error) => Err(os("opening /dev/net/tun")(error.into())),
        }
    }

    /// Reads one packet, virtio-net header first. `WouldBlock` when there is none; another error (EBADFD) when the device
    /// has gone. A packet that is larger than the buffer is cut off.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(feature = "modelled")]
        if let Some(calls) = crate::modelled::calls() {
            return calls.read(self.as_fd(), buffer);
        }
        self.counted(rustix::io::read(&self.fd, buffer))
    }

    /// Reads one packet into several buffers, as `read` does.
    pub fn read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.counted(rustix::io::readv(&self.fd, buffers))
    }

    #[inline]
    fn counted(&self, read: rustix::io::Result<usize>) -> io::Result<usize> {
        match (&self.bound, read) {
            (Some(bound), Ok(len)) => bound.took(len),
            (Some(bound), Err(rustix::io::Errno::AGAIN)) => bound.found_empty(),
            _ => (),
        }
        Ok(read?)
    }

    /// Writes one packet, virtio-net header first, from at most 1024 pieces. All or nothing.
    ///
    /// Errors: `EINVAL` of a header that does not fit the packet, `EIO` of a device that is down, EBADFD of one that has gone.
    pub fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        #[cfg(feature = "modelled")]
        if let Some(calls) = crate::modelled::calls() {
            return calls.write(self.as_fd(), pieces);
        }
        rustix::io::writev(&self.fd, pieces)?;
        Ok(())
    }

    /// Another descriptor of the same queue.
    pub fn try_clone(&self) -> io::Result<Queue> {
        Ok(Queue::from(self.fd.try_clone()?))
    }

    /// Whether the device still exists, in whichever network namespace.
    pub fn is_attached(&self) -> bool {
        self.identity().is_ok()
    }

    /// The name that the device has now, in whichever network namespace.
    pub fn name(&self) -> io::Result<String> {
        Ok(self.identity()?.0)
    }

    /// The network namespace that the device is in now. Before Linux 5.2 (no such ioctl) and without CAP_NET_ADMIN there (the
    /// steward's, or ours), it is an error.
    pub fn netns(&self) -> io::Result<OwnedFd> {
        steward::obtain(Task::Netns, self.as_fd())
    }

    /// The device's interface index, in the network namespace that it is in now: one that was inherited may be elsewhere. To
    /// look there takes CAP_SYS_ADMIN, so this is for the start.
    pub fn index(&self) -> io::Result<u32> {
        let name = self.name()?;
        match (netns::current(), self.netns()) {
            (Ok(here), Ok(there)) if !netns::same(here.as_fd(), there.as_fd())? => {
                netns::run_in(there.as_fd(), || index_of(&name))
            }
            // It is here, or nobody lets us know.
            _ => index_of(&name),
        }
    }

    /// Sends each flow (addresses, protocol, ports) to one queue for good, by a program of ours.
    ///
    /// Without it the kernel sends a flow to the queue that last *wrote* a packet of the same flow, which moves flows from worker
    /// to worker in mid-stream and so can reorder them. Counts for the whole device. An error where the kernel or a
    /// container's policy has no eBPF; then nothing has changed.
    pub fn set_steering_by_flow(&self) -> io::Result<()> {
        let program = steering::load()?;
        self.ioctl_int(libc::TUNSETSTEERINGEBPF, program.as_raw_fd())
    }

    /// Goes back to the kernel's own steering.
    pub fn set_steering_off(&self) -> io::Result<()> {
        self.ioctl_int(libc::TUNSETSTEERINGEBPF, -1)
    }

    fn features(&self) -> io::Result<libc::c_int> {
        let mut features: libc::c_uint = 0;
        // SAFETY: the kernel writes one `unsigned int` to the address.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNGETFEATURES as _, &raw mut features) })?;
        Ok(features as libc::c_int)
    }

    fn attach(&self, name: &CheckedName, flags: libc::c_int) -> io::Result<CheckedName> {
        let mut request = name.request();
        // All the flags fit 16 bits; the topmost of them is the sign.
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: the kernel reads and writes one `ifreq` at the address.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) })?;
        Ok(CheckedName(name_of(&request)))
    }

    /// Name and flags of the device.
    fn identity(&self) -> io::Result<(String, libc::c_int)> {
        // SAFETY: an `ifreq` is plain data, for which zeros are valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one `ifreq` to the address.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNGETIFF as _, &raw mut request) })?;
        // SAFETY: TUNGETIFF fills in the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        Ok((name_of(&request), libc::c_int::from(flags as u16)))
    }

    /// The index of the device in the network namespace `home`, in which `socket` is; none while it is elsewhere.
    pub(crate) fn index_at(&self, home: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> io::Result<Option<u32>> {
        // SAFETY: an `ifreq` is plain data, for which zeros are valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one `ifreq` to the address.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNGETIFF as _, &raw mut request) })?;
        if !netns::same(self.netns()?.as_fd(), home)? {
            return Ok(None);
        }
        // SAFETY: the kernel reads the name of one `ifreq` at the address, which the last call has written, and writes to it.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX as _, &raw mut request) })?;
        // SAFETY: SIOCGIFINDEX fills in the index.
        Ok(u32::try_from(unsafe { request.ifr_ifru.ifru_ifindex }).ok())
    }

    fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        let mut flags = 0;
        if offloads.csum {
            flags |= libc::TUN_F_CSUM;
        }
        if offloads.tso {
            flags |= libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        }
        if offloads.uso {
            flags |= libc::TUN_F_USO4 | libc::TUN_F_USO6;
        }
        // SAFETY: this ioctl takes its flags by value.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(flags)) })
            .map(drop)
    }

    fn ioctl_int<R>(&self, request: R, value: libc::c_int) -> io::Result<()>
    where
        R: Into<u64>,
    {
        // SAFETY: the requests that are passed here read one `int` from the address.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), request.into() as _, &raw const value) }).map(drop)
    }
}

/// A queue as it is, with no bound of ours. (For the fuzz targets a socket that keeps packets apart stands for a TUN.)
impl From<OwnedFd> for Queue {
    fn from(fd: OwnedFd) -> Queue {
        Queue { fd, bound: None }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The index of an interface by name, in the network namespace of the calling thread.
fn index_of(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the name ends with a zero and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        for good in ["wg0", "a", "wg-quick_1.2", "fifteen-bytes-x", "wg%d", "é"] {
            assert!(CheckedName::new(good).is_ok(), "{good}");
        }
        for bad in
            ["", ".", "..", "a/b", "a b", "a\tb", "a\n", "a\x0bb", "a:b", "sixteen-bytes-xx", "%", "%s", "%d%d", "a\0b"]
        {
            assert!(CheckedName::new(bad).is_err(), "{bad:?}");
        }
    }
}

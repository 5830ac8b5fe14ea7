//! What stands for the kernel while the data plane is measured: packets without end on one side, a count of them on the other.
//!
//! Each call copies the same bytes as the kernel would, and then spins until it has taken as long as the kernel's was measured to
//! take. A queue or a socket is a [`Port`]; an event counter takes the place of its descriptor, readable while the port is on.

use super::{
    costs::{Cost, Costs},
    packets::Shape,
};
use arc_swap::ArcSwap;
use inet::vnet;
use linux::{
    modelled::Calls,
    udp::{Outgoing, Received, SendError},
};
use noise::Session;
use plane::{DataPlane, userspace::Userspace};
use rustix::event::{EventfdFlags, eventfd};
use std::{
    cell::RefCell,
    io::{self, ErrorKind, IoSlice},
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, LazyLock, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

/// The ports, by their descriptors.
static PORTS: LazyLock<ArcSwap<Vec<Option<Arc<Port>>>>> = LazyLock::new(|| ArcSwap::from_pointee(Vec::new()));

thread_local! {
    /// Where the bytes of a send or a write go.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 1 << 18]);
}

/// Datagrams as they are on the wire, and the size of each but the last.
pub type Run = (Vec<u8>, usize);

/// Where the peer is.
pub fn endpoint() -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), 51820).into()
}

/// What a port gives to who reads from it.
pub enum Feed {
    /// Nothing ever.
    Nothing,
    /// One packet again and again, with a number in it; so many at most.
    Packets { packet: Vec<u8>, number: AtomicU32, left: AtomicUsize },
    /// Sealed datagrams.
    Lap(Arc<Lap>),
}

/// What one direction of a port has moved.
#[derive(Default)]
#[repr(align(128))]
pub struct Moved {
    /// Bytes of inner packets.
    pub bytes: AtomicU64,
    /// Inner packets.
    pub packets: AtomicU64,
    /// Nanoseconds in calls.
    pub nanos: AtomicU64,
    pub calls: AtomicU64,
}

impl Moved {
    fn add(&self, bytes: usize, packets: usize, start: Instant) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.packets.fetch_add(packets as u64, Relaxed);
        self.nanos.fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
        self.calls.fetch_add(1, Relaxed);
    }
}

/// A queue of the TUN, or a socket.
pub struct Port {
    shape: Shape,
    costs: Costs,
    feed: Feed,
    on: AtomicBool,
    /// The descriptor that wakes a worker.
    wake: OwnedFd,
    pub incoming: Moved,
    pub outgoing: Moved,
    /// Where sealed datagrams are kept, if they are.
    pub kept: Option<Mutex<Vec<Run>>>,
    /// The number of the last packet that was written: within a lap they must grow.
    last: AtomicU32,
}

impl Port {
    pub fn new(shape: Shape, costs: Costs, feed: Feed, keep: bool) -> Arc<Self> {
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("an event counter");
        Arc::new(Self {
            shape,
            costs,
            feed,
            on: AtomicBool::new(false),
            wake,
            incoming: Moved::default(),
            outgoing: Moved::default(),
            kept: keep.then(Mutex::default),
            last: AtomicU32::new(0),
        })
    }

    /// Registers the port; the descriptor that is to stand for it.
    pub fn open(self: &Arc<Self>) -> OwnedFd {
        let fd = self.wake.try_clone().expect("a descriptor");
        let mut ports = Vec::clone(&PORTS.load());
        let at = fd.as_raw_fd() as usize;
        ports.resize(ports.len().max(at + 1), None);
        ports[at] = Some(self.clone());
        PORTS.store(Arc::new(ports));
        fd
    }

    /// From now on it gives what it has, if it has something.
    pub fn start(&self) {
        if !matches!(self.feed, Feed::Nothing) {
            self.on.store(true, Relaxed);
            rustix::io::write(&self.wake, &1u64.to_ne_bytes()).expect("an event counter");
        }
    }

    /// From now on it gives nothing.
    pub fn stop(&self) {
        self.on.store(false, Relaxed);
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    fn check_order(&self, number: u32) {
        let last = self.last.swap(number, Relaxed);
        let grows = number.wrapping_sub(last) < u32::MAX / 2;
        assert!(grows || number == 0, "packet {number} came behind {last}");
    }
}

/// Forgets all ports.
pub fn close_all() {
    PORTS.store(Arc::default());
}

/// Sealed datagrams of one session, which are opened again and again: each time with the same keys in a new session, as if none
/// had been seen.
pub struct Lap {
    runs: Arc<Vec<Run>>,
    at: AtomicUsize,
    /// Bytes given so far.
    fed: AtomicU64,
    sessions: Mutex<Vec<Arc<Session>>>,
    plane: OnceLock<Arc<Userspace>>,
    /// There was no session left.
    pub exhausted: AtomicBool,
}

impl Lap {
    /// `sessions` are all alike.
    pub fn new(runs: Arc<Vec<Run>>, sessions: Vec<Arc<Session>>) -> Arc<Self> {
        Arc::new(Self {
            runs,
            at: AtomicUsize::new(0),
            fed: AtomicU64::new(0),
            sessions: Mutex::new(sessions),
            plane: OnceLock::new(),
            exhausted: AtomicBool::new(false),
        })
    }

    /// The plane that opens it, and has the first session.
    pub fn enter(&self, plane: &Arc<Userspace>) {
        let _ = self.plane.set(plane.clone());
    }

    /// The next datagrams; at the end, and as long as some are still being opened, there are none.
    fn next(&self) -> Option<&Run> {
        if self.at.load(Relaxed) >= self.runs.len() {
            self.begin_again()?;
        }
        let run = self.runs.get(self.at.fetch_add(1, Relaxed))?;
        self.fed.fetch_add(run.0.len() as u64, Relaxed);
        Some(run)
    }

    /// Whether all that was given has been opened and accounted for.
    pub fn is_done(&self) -> bool {
        let sessions = self.sessions.lock().expect("nobody panics with it");
        let peer = sessions.first().map(|session| session.peer());
        let opened = self.plane.get().zip(peer).map(|(plane, peer)| plane.traffic(peer).rx_bytes);
        opened.is_none_or(|opened| opened == self.fed.load(Relaxed))
    }

    fn begin_again(&self) -> Option<()> {
        let plane = self.plane.get()?;
        let mut sessions = self.sessions.try_lock().ok()?;
        if self.at.load(Relaxed) < self.runs.len() {
            return Some(());
        }
        let peer = sessions.first()?.peer();
        if plane.traffic(peer).rx_bytes != self.fed.load(Relaxed) {
            return None;
        }
        if sessions.len() == 1 {
            self.exhausted.store(true, Relaxed);
            return None;
        }
        plane.install_session(sessions.pop()?);
        self.at.store(0, Relaxed);
        Some(())
    }
}

/// The kernel's stand-in.
pub struct Modelled;

fn with<R>(fd: BorrowedFd<'_>, f: impl FnOnce(&Port) -> R) -> R {
    let ports = PORTS.load();
    let port = ports.get(fd.as_raw_fd() as usize).and_then(Option::as_ref);
    f(port.expect("each queue and each socket is a port"))
}

/// Goes on until a call that began at `start` has taken as long as it costs.
fn spend(start: Instant, cost: Cost, bytes: usize) {
    let cost = cost.of(bytes);
    while start.elapsed() < cost {
        std::hint::spin_loop();
    }
}

fn copy<'a>(pieces: impl Iterator<Item = &'a [u8]>) {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut rest = &mut scratch[..];
        for piece in pieces {
            let (to, behind) = rest.split_at_mut(piece.len());
            to.copy_from_slice(piece);
            rest = behind;
        }
        std::hint::black_box(scratch);
    });
}

impl Calls for Modelled {
    fn read(&self, queue: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
        with(queue, |port| {
            let start = Instant::now();
            let Feed::Packets { packet, number, left } = &port.feed else { return Err(ErrorKind::WouldBlock.into()) };
            if !port.on.load(Relaxed) || left.load(Relaxed) == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            // One worker reads from a queue.
            left.store(left.load(Relaxed) - 1, Relaxed);
            let this = number.load(Relaxed);
            number.store(this.wrapping_add(port.shape.step()), Relaxed);
            buffer[..packet.len()].copy_from_slice(packet);
            let at = vnet::LEN + port.shape.number_at();
            buffer[at..at + 4].copy_from_slice(&this.to_be_bytes());
            spend(start, port.costs.read, packet.len());
            port.incoming.add(packet.len() - vnet::LEN, 1, start);
            Ok(packet.len())
        })
    }

    fn write(&self, queue: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        with(queue, |port| {
            let start = Instant::now();
            copy(pieces.iter().map(|piece| &**piece));
            let at = vnet::LEN + port.shape.number_at();
            let (number, len) = SCRATCH.with_borrow(|scratch| {
                let number = [scratch[at], scratch[at + 1], scratch[at + 2], scratch[at + 3]];
                (u32::from_be_bytes(number), pieces.iter().map(|piece| piece.len()).sum::<usize>())
            });
            port.check_order(number);
            spend(start, port.costs.write, len);
            port.outgoing.add(len, 1, start);
            Ok(())
        })
    }

    fn recv(&self, socket: BorrowedFd<'_>, bufs: &mut [&mut [u8]], out: &mut [Received]) -> io::Result<usize> {
        with(socket, |port| {
            let start = Instant::now();
            let Feed::Lap(lap) = &port.feed else { return Err(ErrorKind::WouldBlock.into()) };
            let (mut count, mut bytes, mut packets) = (0, 0, 0);
            for (buffer, out) in bufs.iter_mut().zip(out) {
                let next = if port.on.load(Relaxed) { lap.next() } else { None };
                let Some((run, stride)) = next else { break };
                let call = Instant::now();
                buffer[..run.len()].copy_from_slice(run);
                *out = Received { len: run.len(), segment: *stride, from: endpoint(), source: None, ecn: 0 };
                spend(call, port.costs.recv, run.len());
                let (inner, datagrams) = Shape::inner(run.len(), *stride);
                (count, bytes, packets) = (count + 1, bytes + inner, packets + datagrams);
            }
            if count == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            port.incoming.add(bytes, packets, start);
            Ok(count)
        })
    }

    fn send(&self, socket: BorrowedFd<'_>, sends: &[Outgoing<'_>]) -> (usize, Option<SendError>) {
        with(socket, |port| {
            let start = Instant::now();
            let (mut bytes, mut packets) = (0, 0);
            for send in sends {
                let (call, len) = (Instant::now(), send.bytes.len());
                copy(std::iter::once(send.bytes));
                spend(call, port.costs.send, len);
                let stride = send.segment.map_or(len, usize::from);
                let (inner, datagrams) = Shape::inner(len, stride);
                (bytes, packets) = (bytes + inner, packets + datagrams);
                if let Some(kept) = &port.kept {
                    kept.lock().expect("nobody panics with it").push((send.bytes.to_vec(), stride));
                }
            }
            port.outgoing.add(bytes, packets, start);
            (sends.len(), None)
        })
    }
}

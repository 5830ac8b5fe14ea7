//! The data path allocates nothing: two data planes in this process, real TUN devices and UDP sockets, TCP as super-packets and
//! small UDP packets both ways, and an allocator that counts whatever the workers ask of it once they have warmed up.
//!
//! What a thread needs at its first packet (its place in the session table's and the routes' bookkeeping) is taken during the
//! warm-up, which runs under a session in each worker's lane, so that each worker has sealed, opened, sent and written.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

use inet::{Cidr, Endpoint};
use lab::Namespace;
use linux::{
    clock,
    tun::{self, Offloads},
    udp::{SocketGroup, UdpOptions},
};
use noise::{Destination, Device, Event, Instant, Now, PeerId, PrivateKey, Session};
use plane::{
    AllowedIpChange, DataPlane,
    userspace::{Helping, Userspace, UserspaceConfig},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    backtrace::Backtrace,
    cell::Cell,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// Each plane's workers.
const WORKERS: usize = 2;
/// Bytes of TCP in each direction, and exchanges of small packets, while nothing may be allocated.
const STEADY: Amount = Amount { tcp: 48 << 20, rounds: 200 };
/// The same before.
const WARM: Amount = Amount { tcp: 8 << 20, rounds: 40 };
/// Small packets of an exchange that are under way at a time.
const BURST: usize = 32;
const MTU: u32 = 1420;
/// The bound of any single wait.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy)]
struct Amount {
    tcp: usize,
    rounds: usize,
}

/// Hands everything on to the system's allocator, and counts while it is watched.
struct Counting;

static WATCHED: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static FIRST: Mutex<Option<String>> = Mutex::new(None);

thread_local! {
    /// Of the threads that make traffic and stand for control, which are no data path.
    static EXEMPT: Cell<bool> = const { Cell::new(false) };
}

fn note() {
    if WATCHED.load(Relaxed) && !EXEMPT.try_with(Cell::get).unwrap_or(true) && COUNT.fetch_add(1, Relaxed) == 0 {
        EXEMPT.set(true);
        let name = thread::current().name().unwrap_or_default().to_owned();
        *FIRST.lock().unwrap() = Some(format!("{name}: {}", Backtrace::force_capture()));
        EXEMPT.set(false);
    }
}

// SAFETY: each call is handed on as it is to an allocator that makes the same promises; counting touches none of the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: as above.
        unsafe { System.realloc(start, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One end: a data plane between a TUN in a namespace of its own and sockets in the one that both share.
struct End {
    inner: Namespace,
    address: Ipv4Addr,
    outer: SocketAddr,
    plane: Userspace,
}

impl End {
    fn new(number: u8, outer: &Namespace) -> Self {
        let inner = Namespace::new().unwrap();
        let tun = inner.inside(|| tun::create("wla", WORKERS, Offloads::ALL).map_err(std::io::Error::other)).unwrap();
        assert!(tun.offloads.tso, "without it there are no super-packets");
        tun.queues[0].set_steering_by_flow().unwrap();
        let address = Ipv4Addr::new(10, 77, 0, number);
        inner.ip(&["address", "add", &format!("{address}/24"), "dev", "wla"]).unwrap();
        inner.ip(&["link", "set", "wla", "mtu", &MTU.to_string(), "up"]).unwrap();
        let (busy_poll, helping) = (Duration::ZERO, Helping::Willing);
        let config = UserspaceConfig { offloads: tun.offloads, udp_gso: true, mtu: MTU, busy_poll, helping };
        let plane = Userspace::start(tun.queues, config).unwrap();
        let bind = || SocketGroup::bind(0, WORKERS, &UdpOptions::default()).map_err(std::io::Error::other);
        let group = outer.inside(bind).unwrap();
        plane.set_sockets(Some(group.workers));
        Self { inner, address, outer: (Ipv4Addr::LOCALHOST, group.port).into(), plane }
    }

    fn meet(&self, peer: PeerId, other: &End) {
        self.plane.add_peer(peer, Arc::default());
        self.plane.set_endpoint(peer, Some(Endpoint::new(other.outer)));
        let cidr = Cidr::new(other.address.into(), 32).unwrap();
        self.plane.change_allowed_ips(&[AllowedIpChange::Insert(cidr, peer)]);
    }
}

/// Shakes hands until both receiver indices lie in the lane.
fn sessions(ends: &[End; 2], lane: usize) -> [Arc<Session>; 2] {
    let now = Now { boot: Instant::from_nanos(clock::boot_nanos()), wall: clock::wall() };
    let in_lane = |session: &Session| session.local_index().as_u32().to_le_bytes()[0] as usize % WORKERS == lane;
    let mut seeds = (lane as u8 * 100..).take(100);
    seeds.by_ref().find_map(|seed| shake(ends, now, seed).filter(|both| both.iter().all(|it| in_lane(it)))).unwrap()
}

fn shake(ends: &[End; 2], now: Now, seed: u8) -> Option<[Arc<Session>; 2]> {
    let keys = [[seed.wrapping_mul(2) | 1; 32], [seed.wrapping_mul(2) | 0x80; 32]].map(PrivateKey::from_bytes);
    let publics = [keys[0].public(), keys[1].public()];
    let mut devices = [Device::new([seed; 32]), Device::new([!seed; 32])];
    let mut peers = Vec::new();
    for (n, (device, key)) in devices.iter_mut().zip(keys).enumerate() {
        device.set_private_key(now, Some(key));
        device.set_up(now, true);
        peers.push(device.add_peer(now, publics[1 - n]).unwrap());
    }
    let mut installed: [Option<Arc<Session>>; 2] = [None, None];
    devices[0].handle_session_wanted(now, peers[0]);
    for turn in [0, 1, 0] {
        while let Some(event) = devices[turn].poll_event() {
            match event {
                Event::Transmit { to: Destination::Peer(_), message } => {
                    devices[1 - turn].handle_datagram(now, ends[turn].outer, &message, false).unwrap();
                }
                Event::SessionInstalled { session } => installed[turn] = Some(session),
                _ => (),
            }
        }
    }
    let [a, b] = installed;
    Some([a?, b?])
}

/// Sends so much both ways, TCP and small UDP at the same time, while this thread hears the planes as control does. Allocations are
/// counted, if they are, once all sockets and threads are there.
fn exchange(ends: &[End; 2], amount: Amount, watch: bool) {
    let ready = Barrier::new(2 * 4 + 1);
    let run = &|traffic: &dyn Fn()| {
        EXEMPT.set(true);
        ready.wait();
        ready.wait();
        traffic();
    };
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (from, to) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
            let listener = to.inner.inside(|| TcpListener::bind((to.address, 0))).unwrap();
            let there = listener.local_addr().unwrap();
            let out = from.inner.inside(|| TcpStream::connect_timeout(&there, LIMIT)).unwrap();
            let into = listener.accept().unwrap().0;
            threads.push(scope.spawn(move || run(&|| write_all(&out, amount.tcp))));
            threads.push(scope.spawn(move || run(&|| read_all(&into, amount.tcp))));
            let echo = to.inner.inside(|| UdpSocket::bind((to.address, 0))).unwrap();
            let asking = from.inner.inside(|| UdpSocket::bind((from.address, 0))).unwrap();
            asking.connect(echo.local_addr().unwrap()).unwrap();
            echo.connect(asking.local_addr().unwrap()).unwrap();
            threads.push(scope.spawn(move || run(&|| answer(&echo, amount.rounds))));
            threads.push(scope.spawn(move || run(&|| ask(&asking, amount.rounds))));
        }
        // Once all of them have started, and so are exempt: the start of a thread allocates.
        ready.wait();
        WATCHED.store(watch, Relaxed);
        ready.wait();
        while threads.iter().any(|thread| !thread.is_finished()) {
            for end in ends {
                while end.plane.poll_event().is_some() {}
            }
            thread::sleep(Duration::from_millis(2));
        }
        WATCHED.store(false, Relaxed);
    });
}

fn write_all(mut stream: &TcpStream, mut left: usize) {
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    let bytes = vec![0x5a; 1 << 16];
    while left > 0 {
        left -= stream.write(&bytes[..left.min(bytes.len())]).unwrap();
    }
}

fn read_all(mut stream: &TcpStream, mut left: usize) {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut bytes = vec![0; 1 << 16];
    while left > 0 {
        let len = stream.read(&mut bytes).unwrap();
        assert!(len > 0 && bytes[..len].iter().all(|byte| *byte == 0x5a));
        left -= len;
    }
}

/// Sends bursts and waits for all of each to come back: so few are under way that no queue overflows.
fn ask(socket: &UdpSocket, rounds: usize) {
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut bytes = [0; 64];
    for _ in 0..rounds {
        (0..BURST).for_each(|_| assert_eq!(socket.send(&bytes).unwrap(), 64));
        (0..BURST).for_each(|_| assert_eq!(socket.recv(&mut bytes).unwrap(), 64));
    }
}

fn answer(socket: &UdpSocket, rounds: usize) {
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut bytes = [0; 64];
    for _ in 0..rounds * BURST {
        let len = socket.recv(&mut bytes).unwrap();
        socket.send(&bytes[..len]).unwrap();
    }
}

#[test]
fn moving_packets_allocates_nothing() {
    EXEMPT.set(true);
    lab::require_root().unwrap();
    let outer = Namespace::new().unwrap();
    let ends = [End::new(1, &outer), End::new(2, &outer)];
    let mut peers = [PeerId::from_u32(0); 2];
    for lane in 0..WORKERS {
        let sessions = sessions(&ends, lane);
        for n in [0, 1] {
            peers[n] = sessions[n].peer();
            if lane == 0 {
                ends[n].meet(peers[n], &ends[1 - n]);
            }
            ends[n].plane.install_session(sessions[n].clone());
        }
        for (end, session) in ends.iter().zip(sessions) {
            end.plane.set_current_session(session.peer(), Some(session));
        }
        exchange(&ends, WARM, false);
    }
    let sent = || [0, 1].map(|n| ends[n].plane.traffic(peers[n]).tx_bytes);
    let before = sent();
    exchange(&ends, STEADY, true);
    for (before, after) in before.into_iter().zip(sent()) {
        let moved = after - before;
        assert!(moved > STEADY.tcp as u64, "only {moved} bytes went through the plane");
    }
    let (count, first) = (COUNT.load(Relaxed), FIRST.lock().unwrap().take());
    assert_eq!(count, 0, "allocations; the first:\n{}", first.unwrap_or_default());
}

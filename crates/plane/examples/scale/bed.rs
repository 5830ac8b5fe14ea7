//! A data plane with modelled ports around it, and one measurement of it.

use super::{
    calls::{self, Feed, Lap, Moved, Port, Run, endpoint},
    costs::Costs,
    packets::Shape,
};
use inet::{Cidr, Endpoint};
use linux::{
    clock,
    tun::{Offloads, Queue},
    udp::Socket,
};
use noise::{Destination, Device, Event, Instant, Now, PeerId, PrivateKey, Session};
use plane::{
    AllowedIpChange, DataPlane,
    userspace::{Helping, Userspace, UserspaceConfig},
};
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_gettime},
};
use std::{
    collections::HashSet,
    fs,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    thread::sleep,
    time::Duration,
};

/// Bytes on the wire of a lap.
const LAP: usize = 32 << 20;
/// How often a lap may be begun anew in one measurement.
const LAPS: usize = 24;
/// Before it is measured.
const WARM_UP: Duration = Duration::from_millis(60);
/// The bound of what should be over at once.
const LIMIT: Duration = Duration::from_secs(5);

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Seal,
    Open,
    Both,
}

impl Way {
    pub const ALL: [Way; 3] = [Way::Seal, Way::Open, Way::Both];

    pub fn name(self) -> &'static str {
        match self {
            Way::Seal => "seal",
            Way::Open => "open",
            Way::Both => "both",
        }
    }
}

/// Whose packets they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Each worker has a tunnel of its own.
    Tunnels,
    /// One tunnel and one flow: one worker has it, the others are idle.
    Elephant,
    /// One tunnel, of which each worker has a flow to seal. What is to be opened comes to one worker, as it does from the kernel.
    Flows,
}

impl Load {
    pub const ALL: [Load; 3] = [Load::Tunnels, Load::Elephant, Load::Flows];

    pub fn name(self) -> &'static str {
        match self {
            Load::Tunnels => "tunnels",
            Load::Elephant => "elephant",
            Load::Flows => "flows",
        }
    }

    /// Of which tunnel this worker's queue has packets, if any.
    fn at_queue(self, worker: usize) -> Option<usize> {
        match self {
            Load::Tunnels => Some(worker),
            Load::Elephant => (worker == 0).then_some(0),
            Load::Flows => Some(0),
        }
    }

    /// Of which tunnel its socket has datagrams.
    fn at_socket(self, worker: usize) -> Option<usize> {
        if self == Load::Tunnels { Some(worker) } else { (worker == 0).then_some(0) }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub shape: Shape,
    pub way: Way,
    pub load: Load,
    pub workers: usize,
}

/// What was found.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub seconds: f64,
    /// CPU time of the process, in seconds.
    pub cpu: f64,
    /// Inner bytes and packets.
    pub bytes: u64,
    pub packets: u64,
    /// Seconds in calls that read, in those that send, and in those that write to the TUN.
    pub reading: f64,
    pub sending_udp: f64,
    pub sending_tun: f64,
    /// Packets that the plane dropped.
    pub lost: u64,
}

/// Our address in the tunnels, and the address of a tunnel's other end.
fn inner(tunnel: Option<usize>) -> Ipv4Addr {
    tunnel.map_or(Ipv4Addr::new(10, 0, 0, 1), |tunnel| Ipv4Addr::new(10, 1, tunnel as u8, 1))
}

/// Sessions with so many peers, ours and theirs; the same keys and indices each time. They are made in an hour's time, so that
/// none is too old for a measurement.
fn sessions(peers: usize) -> Vec<(Arc<Session>, Arc<Session>)> {
    let boot = Instant::from_nanos(clock::boot_nanos() + 3_600_000_000_000);
    let now = Now { boot, wall: Duration::from_secs(1_700_000_000) };
    let key = PrivateKey::from_bytes([0x42; 32]);
    let public = key.public();
    let mut ours = Device::new([1; 32]);
    ours.set_private_key(now, Some(key));
    ours.set_up(now, true);
    let shake = |n: usize| {
        let key = PrivateKey::from_bytes([n as u8 + 1; 32]);
        let id = ours.add_peer(now, key.public()).expect("another peer");
        let mut theirs = Device::new([n as u8 + 2; 32]);
        theirs.set_private_key(now, Some(key));
        theirs.set_up(now, true);
        theirs.add_peer(now, public).expect("a peer");
        ours.handle_session_wanted(now, id);
        let (mut mine, mut other) = (None, None);
        for turn in [true, false, true] {
            let (device, answerer) = if turn { (&mut ours, &mut theirs) } else { (&mut theirs, &mut ours) };
            while let Some(event) = device.poll_event() {
                match event {
                    Event::Transmit { to: Destination::Peer(_), message } => {
                        answerer.handle_datagram(now, endpoint(), &message, false).expect("a handshake");
                    }
                    Event::SessionInstalled { session } if turn => mine = Some(session),
                    Event::SessionInstalled { session } => other = Some(session),
                    _ => (),
                }
            }
        }
        (mine.expect("a session"), other.expect("a session"))
    };
    (0..peers).map(shake).collect()
}

/// A plane, its ports, and the processors that its workers are on.
struct Bed {
    plane: Arc<Userspace>,
    queues: Vec<Arc<Port>>,
    sockets: Vec<Arc<Port>>,
}

impl Bed {
    fn new(queues: Vec<Arc<Port>>, sockets: Vec<Arc<Port>>) -> Self {
        let before = workers();
        let offloads = Offloads { vnet: true, csum: true, tso: true, uso: true };
        let config = UserspaceConfig {
            offloads,
            udp_gso: true,
            mtu: 1420,
            busy_poll: Duration::ZERO,
            helping: Helping::Willing,
        };
        let queue_fds = queues.iter().map(|port| Queue::from(port.open())).collect();
        let plane = Arc::new(Userspace::start(queue_fds, config).expect("a data plane"));
        let sockets_of = |port: &Arc<Port>| vec![Socket::from(port.open())];
        plane.set_sockets(Some(sockets.iter().map(sockets_of).collect()));
        let cpus = cpus();
        for (thread, number) in workers().difference(&before) {
            let mut set = CpuSet::new();
            set.set(cpus[number % cpus.len()]);
            sched_setaffinity(Pid::from_raw(*thread), &set).expect("a thread of ours can be pinned");
        }
        Self { plane, queues, sockets }
    }

    fn meet(&self, tunnel: usize, session: &Arc<Session>) -> PeerId {
        let peer = session.peer();
        self.plane.add_peer(peer, Arc::default());
        self.plane.set_endpoint(peer, Some(Endpoint::new(endpoint())));
        let cidr = Cidr::new(inner(Some(tunnel)).into(), 32).expect("a network");
        self.plane.change_allowed_ips(&[AllowedIpChange::Insert(cidr, peer)]);
        self.plane.install_session(session.clone());
        self.plane.set_current_session(peer, Some(session.clone()));
        peer
    }

    fn ports(&self) -> impl Iterator<Item = &Arc<Port>> {
        self.queues.iter().chain(&self.sockets)
    }

    /// How many packets were dropped; says why.
    fn lost(&self) -> u64 {
        let lost: Vec<_> = self.plane.drops().into_iter().filter(|(_, count)| *count > 0).collect();
        if !lost.is_empty() {
            eprintln!("lost: {lost:?}");
        }
        lost.into_iter().map(|(_, count)| count).sum()
    }
}

/// The processors that we may use.
pub fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(None).expect("our own processors");
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// The threads of all planes, each with its number.
fn workers() -> HashSet<(i32, usize)> {
    let tasks = fs::read_dir("/proc/self/task").expect("our own threads").flatten();
    tasks
        .filter_map(|task| {
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            let number = name.trim().strip_prefix("worker-")?.parse().ok()?;
            Some((task.file_name().to_str()?.parse().ok()?, number))
        })
        .collect()
}

/// What there is to open: a lap of each tunnel, in each shape.
pub struct Stock(Vec<[Arc<Vec<Run>>; 2]>);

impl Stock {
    /// Lets the far end of each tunnel seal one.
    pub fn new(tunnels: usize, costs: Costs) -> Self {
        let sessions = sessions(tunnels);
        let seal = |tunnel: usize| Shape::ALL.map(|shape| Arc::new(seal(&sessions[tunnel].1, shape, tunnel, costs)));
        Self((0..tunnels).map(seal).collect())
    }
}

fn seal(session: &Arc<Session>, shape: Shape, tunnel: usize, costs: Costs) -> Vec<Run> {
    let packet = shape.packet(inner(Some(tunnel)), inner(None), 0);
    let count = LAP / (packet.len() + 32);
    let feed = Feed::Packets { packet, number: AtomicU32::new(0), left: AtomicUsize::new(count) };
    let queue = Port::new(shape, costs, feed, false);
    let socket = Port::new(shape, costs, Feed::Nothing, true);
    let bed = Bed::new(vec![queue], vec![socket]);
    // The far end's tunnel leads to us.
    let peer = bed.meet(tunnel, session);
    let cidr = Cidr::new(inner(None).into(), 32).expect("a network");
    bed.plane.change_allowed_ips(&[AllowedIpChange::Insert(cidr, peer)]);
    bed.queues[0].start();
    let packets = |port: &Moved| port.packets.load(Relaxed);
    let each = if shape == Shape::Super { super::packets::SEGMENTS } else { 1 };
    let over = wait(|| packets(&bed.sockets[0].outgoing) == (count * each) as u64);
    bed.plane.shutdown();
    assert!(bed.lost() == 0 && over, "a lap is never sealed");
    let kept = bed.sockets[0].kept.as_ref().expect("it was to keep them");
    let runs = std::mem::take(&mut *kept.lock().expect("the worker has ended"));
    calls::close_all();
    runs
}

/// Waits for something that is soon over; whether it is.
fn wait(mut over: impl FnMut() -> bool) -> bool {
    let start = std::time::Instant::now();
    while !over() {
        if start.elapsed() > LIMIT {
            return false;
        }
        sleep(Duration::from_millis(1));
    }
    true
}

/// Where all ports stand.
struct Mark {
    at: std::time::Instant,
    cpu: f64,
    bytes: u64,
    packets: u64,
    reading: u64,
    sending_udp: u64,
    sending_tun: u64,
}

impl Mark {
    fn of(bed: &Bed, way: Way) -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let sum = |ports: &[Arc<Port>], value: &dyn Fn(&Port) -> u64| ports.iter().map(|port| value(port)).sum::<u64>();
        // What is sealed counts where it leaves, what is opened where it comes in: there, datagrams can be told apart.
        let counted = |value: &dyn Fn(&Moved) -> u64| {
            let sealed = if way == Way::Open { 0 } else { sum(&bed.sockets, &|port| value(&port.outgoing)) };
            sealed + if way == Way::Seal { 0 } else { sum(&bed.sockets, &|port| value(&port.incoming)) }
        };
        let came = |port: &Port| port.incoming.nanos.load(Relaxed);
        let left = |port: &Port| port.outgoing.nanos.load(Relaxed);
        Self {
            at: std::time::Instant::now(),
            cpu: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            bytes: counted(&|moved| moved.bytes.load(Relaxed)),
            packets: counted(&|moved| moved.packets.load(Relaxed)),
            reading: sum(&bed.queues, &came) + sum(&bed.sockets, &came),
            sending_udp: sum(&bed.sockets, &left),
            sending_tun: sum(&bed.queues, &left),
        }
    }
}

/// Measures a case for so long.
pub fn measure(case: Case, stock: &Stock, costs: Costs, time: Duration) -> Sample {
    let Case { shape, way, load, workers } = case;
    let tunnels = if load == Load::Tunnels { workers } else { 1 };
    let mut spare: Vec<Vec<Arc<Session>>> = vec![Vec::new(); tunnels];
    let rounds = if way == Way::Seal { 1 } else { LAPS };
    for _ in 0..rounds {
        for (spare, (ours, _)) in spare.iter_mut().zip(sessions(tunnels)) {
            spare.push(ours);
        }
    }
    // The last session is the plane's first.
    let first: Vec<_> = spare.iter_mut().map(|spare| spare[0].clone()).collect();
    let laps: Vec<_> = (spare.into_iter().enumerate())
        .map(|(tunnel, spare)| Lap::new(stock.0[tunnel][usize::from(shape == Shape::Small)].clone(), spare))
        .collect();
    let queue = |worker: usize| {
        let feed = match load.at_queue(worker).filter(|_| way != Way::Open) {
            Some(tunnel) => {
                let packet = shape.packet(inner(None), inner(Some(tunnel)), worker as u16);
                Feed::Packets { packet, number: AtomicU32::new(0), left: AtomicUsize::new(usize::MAX) }
            }
            None => Feed::Nothing,
        };
        Port::new(shape, costs, feed, false)
    };
    let socket = |worker: usize| {
        let feed = match load.at_socket(worker).filter(|_| way != Way::Seal) {
            Some(tunnel) => Feed::Lap(laps[tunnel].clone()),
            None => Feed::Nothing,
        };
        Port::new(shape, costs, feed, false)
    };
    let bed = Bed::new((0..workers).map(queue).collect(), (0..workers).map(socket).collect());
    for (tunnel, session) in first.iter().enumerate() {
        bed.meet(tunnel, session);
        laps[tunnel].enter(&bed.plane);
    }
    bed.ports().for_each(|port| port.start());
    sleep(WARM_UP);
    let before = Mark::of(&bed, way);
    sleep(time);
    let after = Mark::of(&bed, way);
    bed.ports().for_each(|port| port.stop());
    if way != Way::Seal {
        let over = wait(|| laps.iter().all(|lap| lap.is_done()));
        assert!(over || bed.lost() > 0, "what is under way is never opened");
        assert!(!laps.iter().any(|lap| lap.exhausted.load(Relaxed)), "there were too few sessions for so long a time");
    }
    bed.plane.shutdown();
    let lost = bed.lost();
    calls::close_all();
    Sample {
        seconds: (after.at - before.at).as_secs_f64(),
        cpu: after.cpu - before.cpu,
        bytes: after.bytes - before.bytes,
        packets: after.packets - before.packets,
        reading: (after.reading - before.reading) as f64 / 1e9,
        sending_udp: (after.sending_udp - before.sending_udp) as f64 / 1e9,
        sending_tun: (after.sending_tun - before.sending_tun) as f64 / 1e9,
        lost,
    }
}

//! What the system calls cost on this machine: done for real, in a network namespace of our own, and timed.
//!
//! Each kind is timed with a super-packet (or a run of datagrams as long) and with something small, and taken to be linear in the
//! bytes. What is read was written on another processor, where there is one, and what is sent or written is taken on the other, so
//! that no call finds its bytes in the cache because it has just put them there. A send goes over loopback and includes the way
//! into the receiving socket; a write to the TUN includes the way into a local socket. On a real link the first is a driver's work
//! and is less.

use super::packets::{LARGE, SEGMENTS, SMALL};
use linux::{
    netns,
    tun::{self, Offloads, Queue},
    udp::{Outgoing, Received, Socket, SocketGroup, UdpOptions},
};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::{
    io::IoSlice,
    process::Command,
    time::{Duration, Instant},
};

/// How often each call is made in a row, and how many such rows the median is taken from.
const ROW: usize = 16;
const ROWS: usize = 61;
/// Inner packets of a run of small datagrams.
const RUN: usize = 64;

/// Nanoseconds, of which some are for each call and some for each byte.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub call: f64,
    pub byte: f64,
}

impl Cost {
    /// The line through two points, of bytes and nanoseconds.
    fn through((few, short): (usize, f64), (many, long): (usize, f64)) -> Self {
        let byte = ((long - short) / (many - few) as f64).max(0.0);
        Self { call: (short - byte * few as f64).max(0.0), byte }
    }

    pub fn of(&self, bytes: usize) -> Duration {
        Duration::from_nanos((self.call + self.byte * bytes as f64) as u64)
    }
}

/// What each kind costs.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    pub read: Cost,
    pub write: Cost,
    pub recv: Cost,
    pub send: Cost,
}

fn ip(line: &str) {
    let status = Command::new("ip").args(line.split(' ')).status();
    assert!(status.is_ok_and(|status| status.success()), "`ip {line}` failed");
}

/// Moves this thread into a namespace of its own and measures. Needs root.
pub fn measure() -> Costs {
    netns::unshare().expect("a network namespace: are we root?");
    ip("link set lo up");
    let tun = tun::create("wlcost", 1, Offloads::ALL).expect("a TUN device");
    assert!(tun.offloads.uso, "this kernel has no UDP super-packets: too old to be measured like this");
    ip("link set wlcost addrgenmode none mtu 1420 up");
    ip("address add 10.99.0.1/24 dev wlcost");
    let bind = || SocketGroup::bind(0, 1, &UdpOptions::default()).expect("sockets");
    let (near, far) = (bind(), bind());
    let v4 = |group: &SocketGroup| group.workers[0].iter().find(|it| !it.is_v6()).cloned().expect("IPv4");
    let (near_socket, far_socket) = (v4(&near), v4(&far));
    let to = |ip: [u8; 4], port| inet::Endpoint::new((ip, port).into());
    let loopback = to([127, 0, 0, 1], far.port);
    let (large, small) = (LARGE + 32, SMALL + 32);
    let [many, few] = [(large, SEGMENTS), (small, RUN)].map(|(stride, count)| {
        let (sent, received) = udp(&near_socket, &far_socket, loopback, stride, count);
        ((stride * count, sent), (stride * count, received))
    });
    let through_tun = to([10, 99, 0, 2], 9999);
    let [big, tiny] = [((LARGE - 28) * SEGMENTS, Some((LARGE - 28) as u16)), (SMALL - 28, None)]
        .map(|(bytes, segment)| tun_calls(&near_socket, &tun.queues[0], through_tun, bytes, segment));
    Costs {
        read: Cost::through((SMALL, tiny.0), (big.2, big.0)),
        write: Cost::through((SMALL, tiny.1), (big.2, big.1)),
        recv: Cost::through(few.1, many.1),
        send: Cost::through(few.0, many.0),
    }
}

/// Does something on another processor than this thread's, and waits for it.
fn aside<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    let cpus = super::bed::cpus();
    pin(&cpus[..1]);
    let other = std::thread::scope(|scope| {
        let there = || {
            pin(cpus.get(1..2).unwrap_or(&cpus[..1]));
            f()
        };
        scope.spawn(there).join()
    });
    pin(&cpus);
    other.expect("what is done aside succeeds")
}

fn pin(cpus: &[usize]) {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    sched_setaffinity(None, &set).expect("our own processors");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds of each call, of a row that has just been made.
fn each(start: Instant) -> f64 {
    start.elapsed().as_nanos() as f64 / ROW as f64
}

/// A row of sends.
fn send(from: &Socket, to: inet::Endpoint, bytes: &[u8], segment: Option<u16>) {
    for _ in 0..ROW {
        assert_eq!(from.send(&[Outgoing { to, class: 0, bytes, segment }]), (1, None));
    }
}

/// Receives a row of them.
fn receive(at: &Socket, buffers: &mut [Vec<u8>; 4], len: usize) {
    let mut left = ROW;
    while left > 0 {
        let mut received = [Received::default(); 4];
        let mut slices = buffers.each_mut().map(|buffer| &mut buffer[..]);
        let got = at.recv(&mut slices, &mut received).expect("what was sent");
        assert!(received[..got].iter().all(|it| it.len == len), "loopback did not keep the run whole");
        left -= got;
    }
}

/// A send of so many datagrams and its receive, in nanoseconds.
fn udp(from: &Socket, at: &Socket, to: inet::Endpoint, stride: usize, count: usize) -> (f64, f64) {
    // The type and the index of a data message, by which the receiving socket is chosen.
    let mut bytes = vec![0; stride * count];
    bytes.chunks_mut(stride).for_each(|datagram| datagram[0] = 4);
    let mut buffers = [(); 4].map(|()| vec![0; 1 << 16]);
    let (mut sends, mut receives) = (Vec::new(), Vec::new());
    for _ in 0..ROWS {
        let start = Instant::now();
        send(from, to, &bytes, Some(stride as u16));
        sends.push(each(start));
        aside(|| receive(at, &mut buffers, bytes.len()));
        aside(|| send(from, to, &bytes, Some(stride as u16)));
        let start = Instant::now();
        receive(at, &mut buffers, bytes.len());
        receives.push(each(start));
    }
    (median(sends), median(receives))
}

/// A read from the TUN and a write of the same, in nanoseconds, and the bytes of it.
fn tun_calls(
    socket: &Socket,
    queue: &Queue,
    to: inet::Endpoint,
    bytes: usize,
    segment: Option<u16>,
) -> (f64, f64, usize) {
    let mut bytes = vec![0; bytes];
    bytes.chunks_mut(segment.map_or(usize::MAX, usize::from)).for_each(|datagram| datagram[0] = 4);
    let mut buffer = vec![0; 1 << 17];
    let (mut reads, mut writes, mut len) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROWS {
        aside(|| send(socket, to, &bytes, segment));
        let start = Instant::now();
        for _ in 0..ROW {
            len = queue.read(&mut buffer).expect("what was sent");
        }
        reads.push(each(start));
        assert_eq!(len, tun::VNET_LEN + 28 + bytes.len(), "the TUN did not keep the packet whole");
        // Back to where it came from: addresses and ports change places, which no checksum notices.
        let ip = &mut buffer[tun::VNET_LEN..len];
        let (from, to): ([u8; 4], [u8; 4]) = (ip[12..16].try_into().expect("4"), ip[16..20].try_into().expect("4"));
        ip[12..16].copy_from_slice(&to);
        ip[16..20].copy_from_slice(&from);
        let (source, port): ([u8; 2], [u8; 2]) = (ip[20..22].try_into().expect("2"), ip[22..24].try_into().expect("2"));
        ip[20..22].copy_from_slice(&port);
        ip[22..24].copy_from_slice(&source);
        let start = Instant::now();
        for _ in 0..ROW {
            queue.write_vectored(&[IoSlice::new(&buffer[..len])]).expect("a packet for a local socket");
        }
        writes.push(each(start));
        let came = aside(|| {
            let (mut scratch, mut came) = (vec![0; 1 << 16], 0);
            while let Ok(got) = socket.recv(&mut [&mut scratch], &mut [Received::default()]) {
                came += got;
            }
            came
        });
        assert!(came > 0, "what was written reached no socket");
    }
    (median(reads), median(writes), len)
}

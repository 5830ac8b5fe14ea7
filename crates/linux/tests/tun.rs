//! TUN devices against the real kernel: their names and owners, and real TCP and UDP through two of them.

mod common;

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use common::{LONG, Room, in_new_netns, ip, once_free};
use linux::link::Monitor;
use linux::poll::{Epoll, Event, EventFd, Interest};
use linux::tun::{self, Offloads, Queue, Tun, TunError, VNET_LEN};
use linux::udp::{Outgoing, Received, SocketGroup, UdpOptions};

fn create(name: &str, queues: usize) -> Result<Tun, TunError> {
    tun::create(name, queues, Offloads::ALL)
}

#[test]
fn a_pattern_is_filled_in_and_a_name_is_had_once() {
    in_new_netns(|| {
        let first = create("wl%d", 2).expect("first");
        let second = create("wl%d", 1).expect("second");
        assert_eq!((first.name.as_str(), second.name.as_str()), ("wl0", "wl1"));
        assert_eq!((first.queues.len(), second.queues.len()), (2, 1));
        assert_ne!(first.index, second.index);
        assert_eq!(second.queues[0].index().expect("index"), second.index);
        // Though another queue could be attached to it.
        assert!(matches!(create("wl0", 1), Err(TunError::InUse(name)) if name == "wl0"));
        assert!(matches!(create("lo", 1), Err(TunError::NotTun(name)) if name == "lo"));
        assert!(matches!(create("a b", 1), Err(TunError::Name(_))));
        assert!(matches!(create("wl9", 0), Err(TunError::Queues(0))));
        assert!(matches!(create("wl9", 257), Err(TunError::Queues(257))));
        drop(first);
        assert_eq!(once_free(|| create("wl0", 1)).name, "wl0");
    });
}

#[test]
fn a_persistent_device_is_taken_over_unless_it_is_in_use() {
    in_new_netns(|| {
        ip("tuntap add many0 mode tun multi_queue");
        let many = create("many0", 3).expect("take over");
        assert_eq!((many.name.as_str(), many.queues.len()), ("many0", 3));
        assert!(matches!(create("many0", 1), Err(TunError::InUse(_))));
        let index = many.index;
        drop(many);
        assert_eq!(once_free(|| create("many0", 2)).index, index, "it has stayed");
        ip("tuntap add one0 mode tun");
        let one = create("one0", 3).expect("take over");
        assert_eq!(one.queues.len(), 1);
        assert!(matches!(create("one0", 1), Err(TunError::InUse(_))));
        ip("tuntap add tap0 mode tap multi_queue");
        assert!(matches!(create("tap0", 1), Err(TunError::NotTun(_))));
    });
}

#[test]
fn an_inherited_descriptor_is_taken_as_it_is() {
    in_new_netns(|| {
        for offered in [Offloads::ALL, Offloads::default()] {
            let made = tun::create("wl%d", 1, offered).expect("made");
            let fd: OwnedFd = made.queues[0].as_fd().try_clone_to_owned().expect("duplicate");
            rustix::fs::fcntl_setfl(&fd, rustix::fs::OFlags::empty()).expect("blocking");
            let taken = tun::from_fd(fd, Offloads::ALL).expect("taken");
            assert_eq!((taken.name, taken.index), (made.name, made.index));
            assert_eq!(taken.queues.len(), 1);
            assert_eq!(taken.offloads, made.offloads);
            assert_eq!(taken.offloads.vnet, offered.vnet);
            let error = taken.queues[0].read(&mut [0; 2048]).expect_err("nothing to read");
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
        let (not_a_tun, _) = std::os::unix::net::UnixStream::pair().expect("pair");
        let error = tun::from_fd(not_a_tun.into(), Offloads::ALL).expect_err("no TUN");
        assert!(matches!(error, TunError::Descriptor));
    });
}

#[test]
fn an_inherited_device_is_known_by_its_index_over_there() {
    in_new_netns(|| {
        let room = Room::new();
        // So that the index there is one that nothing has here.
        let queue = room.run(|| {
            ip("link add one0 type veth peer name two0");
            create("wl0", 1).expect("tun")
        });
        let index = queue.index;
        let fd = queue.queues[0].as_fd().try_clone_to_owned().expect("duplicate");
        assert_eq!(tun::from_fd(fd, Offloads::ALL).expect("taken").index, index);
    });
}

#[test]
fn offloads_are_granted_down_to_what_is_wished_for() {
    in_new_netns(|| {
        let all = create("wl%d", 1).expect("tun").offloads;
        assert!(all.vnet && all.csum && all.tso);
        let nothing = tun::create("wl%d", 1, Offloads::default()).expect("tun").offloads;
        assert_eq!(nothing, Offloads::default());
        for (want, granted) in [
            (Offloads { uso: false, ..Offloads::ALL }, Offloads { uso: false, ..all }),
            // Segmentation without checksums cannot be.
            (Offloads { csum: false, ..Offloads::ALL }, Offloads { vnet: true, ..Offloads::default() }),
            (Offloads { vnet: false, ..Offloads::ALL }, Offloads::default()),
        ] {
            assert_eq!(tun::create("wl%d", 1, want).expect("tun").offloads, granted);
        }
    });
}

/// A device that is up, with an address and a route for the rest of its net.
fn configured(queues: usize, offloads: Offloads, address: &str) -> Tun {
    let tun = tun::create("wl%d", queues, offloads).expect("tun");
    ip(&format!("address add {address}/24 dev {}", tun.name));
    let monitor = Monitor::open(tun.index).expect("monitor");
    monitor.set_mtu(tun.index, 1420).expect("mtu");
    monitor.set_up(tun.index, true).expect("up");
    tun
}

/// Reads the next IPv4 packet of any queue: which queue, and its bytes.
fn next_packet(tun: &Tun) -> (usize, Vec<u8>) {
    let epoll = Epoll::new().expect("epoll");
    for (i, queue) in tun.queues.iter().enumerate() {
        epoll.add(queue, i as u64, Interest::READ).expect("add");
    }
    loop {
        let mut events = [Event::EMPTY; 1];
        let ready = epoll.wait(&mut events, Some(LONG)).expect("wait");
        let queue = ready.first().expect("a packet").token() as usize;
        let (mut head, mut packet) = ([0; VNET_LEN], vec![0; 65_536]);
        let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut packet)];
        let len = tun.queues[queue].read_vectored(&mut parts).expect("read");
        packet.truncate(len - VNET_LEN);
        // The kernel announces itself by IPv6 when a device comes up.
        if packet[0] >> 4 == 4 {
            return (queue, packet);
        }
    }
}

#[test]
fn a_packet_goes_out_and_an_answer_comes_in() {
    in_new_netns(|| {
        let tun = configured(1, Offloads::ALL, "10.9.0.1");
        let socket = UdpSocket::bind("10.9.0.1:7777").expect("bind");
        socket.set_read_timeout(Some(LONG)).expect("timeout");
        socket.send_to(b"ping", "10.9.0.2:8888").expect("send");
        let (_, mut packet) = next_packet(&tun);
        assert_eq!(&packet[12..20], [10, 9, 0, 1, 10, 9, 0, 2]);
        assert_eq!(&packet[28..], b"ping");
        // Turned around, and without a UDP checksum, which IPv4 allows.
        packet.copy_within(12..16, 16);
        packet[12..16].copy_from_slice(&[10, 9, 0, 2]);
        packet.copy_within(20..22, 22);
        packet[20..22].copy_from_slice(&8888u16.to_be_bytes());
        packet[26..28].fill(0);
        packet[28..].copy_from_slice(b"pong");
        let (head, body) = packet.split_at(20);
        let pieces = [IoSlice::new(&[0; VNET_LEN]), IoSlice::new(head), IoSlice::new(body)];
        tun.queues[0].write_vectored(&pieces).expect("write");
        let mut answer = [0; 16];
        let (len, from) = socket.recv_from(&mut answer).expect("recv");
        assert_eq!((&answer[..len], from), (&b"pong"[..], "10.9.0.2:8888".parse().expect("address")));
        let error = tun.queues[0].write_vectored(&[IoSlice::new(&[0; 4])]).expect_err("no header");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    });
}

#[test]
fn a_removed_device_answers_with_an_error() {
    in_new_netns(|| {
        let tun = configured(2, Offloads::ALL, "10.9.0.1");
        let epoll = Epoll::new().expect("epoll");
        epoll.add(&tun.queues[1], 1, Interest::READ | Interest::EDGE).expect("add");
        assert!(tun.queues.iter().all(Queue::is_attached));
        ip(&format!("link delete {}", tun.name));
        assert!(!tun.queues.iter().any(Queue::is_attached));
        let mut events = [Event::EMPTY; 1];
        let ready = epoll.wait(&mut events, Some(LONG)).expect("wait");
        assert!(ready[0].closed() && ready[0].readable());
        for queue in &tun.queues {
            let error = queue.read(&mut [0; 64]).expect_err("gone");
            assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
            let error = queue.write_vectored(&[IoSlice::new(&[0; 64])]).expect_err("gone");
            assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
        }
    });
}

/// What a flow looks like to the device: which queue each of its packets comes out of.
fn queues_of(tun: &Tun, socket: &UdpSocket, to: SocketAddr) -> Vec<usize> {
    (0..4)
        .map(|_| {
            socket.send_to(b"x", to).expect("send");
            next_packet(tun).0
        })
        .collect()
}

/// How many packets can be read from a queue until it is empty, or at most so many.
fn drain(queue: &Queue, most: usize) -> usize {
    let mut buffer = vec![0; VNET_LEN + 65_536];
    (0..most).take_while(|_| queue.read(&mut buffer).is_ok()).count()
}

#[test]
fn a_bounded_queue_holds_so_many_bytes() {
    in_new_netns(|| {
        let mut tun = configured(2, Offloads::ALL, "10.9.1.1");
        // Nothing but what is sent below.
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", tun.name), "1").expect("no IPv6");
        tun.queues[0].set_steering_by_flow().expect("steering");
        tun.bound_queues().expect("bound");
        let monitor = Monitor::open(tun.index).expect("monitor");
        monitor.set_txqueuelen(tun.index, tun::BOUND_PACKETS).expect("length");
        for queue in &tun.queues {
            drain(queue, usize::MAX);
        }
        let socket = UdpSocket::bind("10.9.1.1:0").expect("socket");
        let send = |len: usize, count: usize| {
            for _ in 0..count {
                socket.send_to(&vec![7; len], "10.9.1.2:9").expect("send");
            }
        };
        send(64, 1);
        let queue = tun.queues.iter().find(|queue| drain(queue, usize::MAX) == 1).expect("a queue");
        let cost = |len: usize| len + 28 + tun::BOUND_EACH as usize;
        let fit = |len: usize| (tun::BOUND_BYTES as usize).div_ceil(cost(len));
        for len in [64, 1300, 0, 600] {
            send(len, 3 * fit(len));
            assert_eq!(drain(queue, usize::MAX), fit(len), "{len}");
        }
        assert!(fit(0) <= tun::BOUND_PACKETS as usize);
        // As much as is taken finds room again, but for what is not yet counted out.
        send(1300, 2 * fit(1300));
        assert_eq!(drain(queue, 200), 200);
        send(1300, 2 * fit(1300));
        let left = drain(queue, usize::MAX);
        assert!((fit(1300) - 10..=fit(1300)).contains(&left), "{left}");
        // Small packets that leave no more room than for one of them do not keep out a large one.
        send(0, fit(0) - 1);
        assert!((fit(0) - 1) * cost(0) + cost(1300) > tun::BOUND_BYTES as usize);
        send(1300, 1);
        send(0, 5);
        assert_eq!(drain(queue, usize::MAX), fit(0));
        // What the kernel lost after it was let in does not count for ever.
        monitor.set_txqueuelen(tun.index, 5).expect("short");
        send(64, fit(64));
        assert_eq!(drain(queue, usize::MAX), 5);
        monitor.set_txqueuelen(tun.index, tun::BOUND_PACKETS).expect("length");
        send(64, 2 * fit(64));
        assert_eq!(drain(queue, usize::MAX), fit(64));
    });
}

#[test]
fn a_device_that_stays_is_not_bounded() {
    in_new_netns(|| {
        ip("tuntap add many0 mode tun multi_queue");
        assert!(create("many0", 2).expect("take over").bound_queues().is_err());
    });
}

/// As when somebody made it persistent while it was ours: its reader has gone, and nobody counts out any more.
#[test]
fn a_bound_does_not_outlive_its_reader() {
    in_new_netns(|| {
        let mut tun = configured(1, Offloads::ALL, "10.9.1.1");
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", tun.name), "1").expect("no IPv6");
        tun.bound_queues().expect("bound");
        let monitor = Monitor::open(tun.index).expect("monitor");
        monitor.set_txqueuelen(tun.index, tun::BOUND_PACKETS).expect("length");
        // SAFETY: this ioctl takes a number by value.
        let made = unsafe { libc::ioctl(tun.queues[0].as_fd().as_raw_fd(), libc::TUNSETPERSIST as _, 1) };
        assert_eq!(made, 0);
        let socket = UdpSocket::bind("10.9.1.1:0").expect("socket");
        let send = |count: usize| {
            for _ in 0..count {
                // While the device has no reader, there is no way.
                let _ = socket.send_to(&[7; 1300], "10.9.1.2:9");
            }
        };
        let most = tun::BOUND_BYTES as usize / 1300;
        send(most);
        let (name, index) = (tun.name.clone(), tun.index);
        drop(tun);
        let tun = once_free(|| create(&name, 1));
        assert_eq!(tun.index, index, "it has stayed");
        let start = std::time::Instant::now();
        while drain(&tun.queues[0], 1) == 0 {
            assert!(start.elapsed() < LONG, "nothing gets through");
            send(1);
            std::thread::yield_now();
        }
        drain(&tun.queues[0], usize::MAX);
        send(most);
        assert_eq!(drain(&tun.queues[0], usize::MAX), most);
    });
}

/// Writes a packet of the flow in the other direction to a queue, by which the kernel's own steering learns.
fn write_back(queue: &Queue, from_port: u16, to_port: u16) {
    let mut packet = [0; VNET_LEN + 29];
    let ip = &mut packet[VNET_LEN..];
    ip[0] = 0x45;
    ip[3] = 29;
    ip[8] = 64;
    ip[9] = 17;
    ip[12..20].copy_from_slice(&[10, 9, 0, 2, 10, 9, 0, 1]);
    let sum: u32 = ip[..20].chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
    ip[10..12].copy_from_slice(&(!((sum >> 16) + (sum & 0xffff)) as u16).to_be_bytes());
    ip[20..22].copy_from_slice(&from_port.to_be_bytes());
    ip[22..24].copy_from_slice(&to_port.to_be_bytes());
    ip[25] = 9;
    queue.write_vectored(&[IoSlice::new(&packet)]).expect("write");
}

#[test]
fn steering_by_flow_keeps_a_flow_whoever_writes() {
    in_new_netns(|| {
        let tun = configured(4, Offloads::ALL, "10.9.0.1");
        if let Err(error) = tun.queues[0].set_steering_by_flow() {
            // As a container's policy may have it: then nothing is steered, and that is all.
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            return;
        }
        let mut used = [false; 4];
        for flow in 0..24 {
            let socket = UdpSocket::bind("10.9.0.1:0").expect("bind");
            let to = SocketAddr::from((Ipv4Addr::new(10, 9, 0, 2), 9000 + flow));
            let first = queues_of(&tun, &socket, to);
            let port = socket.local_addr().expect("address").port();
            for queue in &tun.queues {
                write_back(queue, to.port(), port);
            }
            let queue = first[0];
            assert!(first.iter().chain(&queues_of(&tun, &socket, to)).all(|q| *q == queue));
            used[queue] = true;
        }
        assert_eq!(used, [true; 4], "24 flows meet all of 4 queues");
        tun.queues[0].set_steering_off().expect("off");
    });
}

/// What a relay between two devices saw.
#[derive(Default, Debug)]
struct Seen {
    tcp: usize,
    udp: usize,
    largest: usize,
}

/// Carries packets from each device to the other, with their headers as they are, until told to stop.
fn relay(a: &Queue, b: &Queue, stop: &EventFd) -> Seen {
    let epoll = Epoll::new().expect("epoll");
    for (token, fd) in [a.as_fd(), b.as_fd(), stop.as_fd()].into_iter().enumerate() {
        epoll.add(fd, token as u64, Interest::READ).expect("add");
    }
    let mut seen = Seen::default();
    let mut buffer = vec![0; 70_000];
    loop {
        let mut events = [Event::EMPTY; 3];
        for event in epoll.wait(&mut events, Some(LONG)).expect("wait") {
            let (from, to) = match event.token() {
                0 => (a, b),
                1 => (b, a),
                _ => return seen,
            };
            while let Ok(len) = from.read(&mut buffer) {
                match buffer[1] & 0x7f {
                    1 | 4 => seen.tcp += 1,
                    5 => seen.udp += 1,
                    _ => (),
                }
                seen.largest = seen.largest.max(len);
                to.write_vectored(&[IoSlice::new(&buffer[..len])]).expect("write");
            }
        }
    }
}

/// Two rooms with a device each, and a relay between them, while `work` runs.
fn between_rooms(offloads: Offloads, work: impl FnOnce(&Room, &Room)) -> (Seen, Offloads) {
    let (left, right) = (Room::new(), Room::new());
    let a = left.run(move || configured(1, offloads, "10.9.0.1"));
    let b = right.run(move || configured(1, offloads, "10.9.0.2"));
    let granted = a.offloads;
    let stop = Arc::new(EventFd::new().expect("event"));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || relay(&a.queues[0], &b.queues[0], &stopped));
    work(&left, &right);
    stop.signal();
    (thread.join().expect("relay"), granted)
}

fn transfer(left: &Room, right: &Room) {
    const TOTAL: usize = 8 << 20;
    let listener = right.run(|| TcpListener::bind("10.9.0.2:5001").expect("listen"));
    let sender = left.run(|| {
        let mut stream = TcpStream::connect("10.9.0.2:5001").expect("connect");
        std::thread::spawn(move || {
            let data: Vec<u8> = (0..TOTAL).map(|i| (i % 251) as u8).collect();
            stream.write_all(&data).expect("write");
        })
    });
    let (mut stream, _) = listener.accept().expect("accept");
    let mut data = Vec::new();
    stream.read_to_end(&mut data).expect("read");
    sender.join().expect("sender");
    assert_eq!(data.len(), TOTAL);
    assert!(data.iter().enumerate().all(|(i, b)| *b == (i % 251) as u8));
}

#[test]
fn tcp_crosses_in_super_packets() {
    let (seen, granted) = between_rooms(Offloads::ALL, transfer);
    assert!(granted.tso);
    assert!(seen.tcp > 0 && seen.largest > 16_000, "{seen:?}");
}

#[test]
fn tcp_crosses_without_offloads_too() {
    let plain = Offloads { vnet: true, ..Offloads::default() };
    let (seen, _) = between_rooms(plain, transfer);
    assert_eq!((seen.tcp, seen.largest), (0, VNET_LEN + 1420), "{seen:?}");
}

#[test]
fn a_udp_super_packet_crosses_as_the_kernel_can() {
    let (seen, granted) = between_rooms(Offloads::ALL, |left, right| {
        let options = UdpOptions { buffer: 1 << 20, ..UdpOptions::default() };
        let receiver = right.run({
            let options = options.clone();
            move || SocketGroup::bind(6001, 0, &options).expect("bind")
        });
        let bytes: Vec<u8> = (0..30 * 1300 + 50).map(|i| (i / 1300) as u8).collect();
        left.run({
            let bytes = bytes.clone();
            move || {
                let group = SocketGroup::bind(0, 0, &options).expect("bind");
                let send = Outgoing {
                    to: SocketAddr::from((Ipv4Addr::new(10, 9, 0, 2), 6001)).into(),
                    class: 0,
                    bytes: &bytes,
                    segment: Some(1300),
                };
                assert_eq!(group.control[0].send(&[send]), (1, None));
            }
        });
        let mut got = Vec::new();
        let mut buffer = vec![0; 65_536];
        while got.len() < bytes.len() {
            assert!(common::readable(&receiver.control[0]), "{} bytes came", got.len());
            let mut out = [Received::default()];
            let _ = receiver.control[0].recv(&mut [&mut buffer], &mut out).expect("recv");
            assert_eq!(out[0].segment.min(1300), out[0].segment);
            got.extend_from_slice(&buffer[..out[0].len]);
        }
        assert!(got == bytes);
    });
    if granted.uso {
        assert_eq!(seen.udp, 1, "{seen:?}");
        assert!(seen.largest > 39_000, "{seen:?}");
    } else {
        assert_eq!(seen.udp, 0, "{seen:?}");
    }
}

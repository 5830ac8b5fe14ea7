//! The UDP sockets against the real kernel: who gets the port, who gets which datagram, and what goes along with it.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use common::{LOOPBACK, add_v6, in_new_netns, ip, once_free, readable, readable_now};
use inet::{Endpoint, Source};
use linux::link::Monitor;
use linux::udp::{BATCH, BindError, Outgoing, Received, SendError, Socket, SocketGroup, UdpOptions};

fn options() -> UdpOptions {
    UdpOptions { buffer: 1 << 20, ..UdpOptions::default() }
}

fn bind(workers: usize) -> SocketGroup {
    SocketGroup::bind(0, workers, &options()).expect("bind")
}

fn local(socket: &Socket, port: u16) -> SocketAddr {
    if socket.is_v6() { (Ipv6Addr::LOCALHOST, port).into() } else { (Ipv4Addr::LOCALHOST, port).into() }
}

fn plain(to: SocketAddr, bytes: &[u8]) -> Outgoing<'_> {
    Outgoing { to: Endpoint::new(to), class: 0, bytes, segment: None }
}

/// One datagram, or coalesced run, and what went along.
fn receive(socket: &Socket) -> (Vec<u8>, Received) {
    assert!(readable(socket), "nothing came");
    let mut buffer = vec![0; 65_536];
    let mut out = [Received::default()];
    let count = socket.recv(&mut [&mut buffer], &mut out).expect("recv");
    assert_eq!(count, 1);
    buffer.truncate(out[0].len);
    (buffer, out[0])
}

#[test]
fn both_families_have_the_same_port_and_nobody_else_gets_it() {
    in_new_netns(|| {
        let group = bind(2);
        assert_ne!(group.port, 0);
        assert_eq!(group.control.iter().map(Socket::is_v6).collect::<Vec<_>>(), [false, true]);
        assert_eq!(group.workers.len(), 2);
        assert!(group.workers.iter().all(|w| w.len() == 2));
        let port = group.port;
        let again = SocketGroup::bind(port, 2, &options());
        assert!(matches!(again, Err(BindError::InUse(p)) if p == port), "{again:?}");
        for any in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
            let error = UdpSocket::bind((any, port)).expect_err("in use");
            assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        }
        drop(group);
        once_free(|| SocketGroup::bind(port, 2, &options()));
    });
}

#[test]
fn a_port_that_one_family_lacks_is_not_chosen() {
    in_new_netns(|| {
        // Two ports to choose from, one of them taken in IPv6.
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40001").expect("sysctl");
        let _taken = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 40_000)).expect("bind");
        for _ in 0..10 {
            assert_eq!(once_free(|| SocketGroup::bind(0, 1, &options())).port, 40_001);
        }
        let _also = once_free(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 40_001)));
        assert!(matches!(SocketGroup::bind(0, 1, &options()), Err(BindError::InUse(_))));
    });
}

#[test]
fn handshakes_go_to_control_and_data_to_the_worker_of_its_index() {
    in_new_netns(|| {
        const WORKERS: usize = 3;
        let group = bind(WORKERS);
        for (family, control) in group.control.iter().enumerate() {
            let to = local(control, group.port);
            // Several senders, so that a choice by hash would show.
            for _ in 0..8 {
                let any = local(control, 0);
                let sender = UdpSocket::bind(any).expect("sender");
                for kind in [0u8, 1, 2, 3, 5, 255] {
                    sender.send_to(&[kind, 0, 0, 0, 1, 0, 0, 0], to).expect("send");
                    assert_eq!(receive(control).0[0], kind);
                }
                // Too short to have an index.
                for runt in [&[][..], &[4], &[4, 0, 0, 0]] {
                    sender.send_to(runt, to).expect("send");
                    assert_eq!(receive(control).0, runt);
                }
                for low in [0u8, 1, 2, 3, 100, 254, 255] {
                    let data = [4, 0, 0, 0, low, 0xa5, 0x5a, 0x77, 1, 2, 3, 4];
                    sender.send_to(&data, to).expect("send");
                    let worker = usize::from(low) % WORKERS;
                    assert_eq!(receive(&group.workers[worker][family]).0, data);
                }
            }
            let all = group.control.iter().chain(group.workers.iter().flatten());
            assert!(all.into_iter().all(|s| !readable_now(s)));
        }
    });
}

#[test]
fn without_workers_control_gets_everything() {
    in_new_netns(|| {
        let group = bind(0);
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("sender");
        sender.send_to(&[4; 32], (Ipv4Addr::LOCALHOST, group.port)).expect("send");
        assert_eq!(receive(&group.control[0]).0, [4; 32]);
    });
}

#[test]
fn source_and_ecn_go_both_ways() {
    in_new_netns(|| {
        ip("address add 127.9.9.9/32 dev lo");
        add_v6("fd09::9/128", "lo");
        let (a, b) = (bind(0), bind(0));
        let ours: [IpAddr; 2] = ["127.9.9.9".parse().expect("v4"), "fd09::9".parse().expect("v6")];
        for (family, ip) in ours.into_iter().enumerate() {
            for ecn in 0..4 {
                let source = Source { ip, ifindex: LOOPBACK };
                let mut send = plain(local(&b.control[family], b.port), b"hello");
                send.to.source = Some(source);
                send.class = ecn;
                assert_eq!(a.control[family].send(&[send]), (1, None));
                let (bytes, received) = receive(&b.control[family]);
                assert_eq!(bytes, b"hello");
                assert_eq!(received.from, SocketAddr::new(ip, a.port));
                assert_eq!((received.ecn, received.segment), (ecn, 5));
                let loopback = local(&b.control[family], 0).ip();
                assert_eq!(received.source, Some(Source { ip: loopback, ifindex: LOOPBACK }));
                // And back to where it came from, from where it arrived.
                let mut reply = plain(received.from, b"bye");
                reply.to.source = received.source;
                assert_eq!(b.control[family].send(&[reply]), (1, None));
                let (_, back) = receive(&a.control[family]);
                assert_eq!(back.source, Some(source));
                assert_eq!(back.from.ip(), loopback);
            }
        }
    });
}

#[test]
fn link_local_addresses_keep_their_scope() {
    in_new_netns(|| {
        add_v6("fe80::9/64", "lo");
        let (a, b) = (bind(0), bind(0));
        let ip: Ipv6Addr = "fe80::9".parse().expect("address");
        let scoped = |port| SocketAddr::V6(SocketAddrV6::new(ip, port, 0, LOOPBACK));
        assert_eq!(a.control[1].send(&[plain(scoped(b.port), b"x")]), (1, None));
        let (_, received) = receive(&b.control[1]);
        assert_eq!(received.from, scoped(a.port));
        let mut reply = plain(received.from, b"y");
        reply.to.source = received.source;
        assert_eq!(b.control[1].send(&[reply]), (1, None));
        assert_eq!(receive(&a.control[1]).0, b"y");
    });
}

#[test]
fn more_than_a_batch_goes_in_order() {
    in_new_netns(|| {
        const COUNT: usize = 2 * BATCH + 5;
        let (a, b) = (bind(0), bind(0));
        for family in 0..2 {
            let to = local(&b.control[family], b.port);
            let bytes: Vec<[u8; 1]> = (0..COUNT as u8).map(|i| [i]).collect();
            let sends: Vec<_> = bytes.iter().map(|b| plain(to, b)).collect();
            assert_eq!(a.control[family].send(&sends), (COUNT, None));
            let mut buffers = vec![[0u8; 2048]; COUNT];
            let mut bufs: Vec<&mut [u8]> = buffers.iter_mut().map(|b| &mut b[..]).collect();
            let mut out = vec![Received::default(); COUNT];
            let mut counts = Vec::new();
            let mut got = Vec::new();
            while got.len() < COUNT {
                let count = b.control[family].recv(&mut bufs, &mut out).expect("recv");
                got.extend((0..count).map(|i| (bufs[i][0], out[i].len)));
                counts.push(count);
            }
            assert_eq!(counts, [BATCH, BATCH, 5]);
            assert!(got.iter().enumerate().all(|(i, got)| *got == (i as u8, 1)));
            let error = b.control[family].recv(&mut bufs, &mut out).expect_err("empty");
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        }
    });
}

/// 45 segments of 1452 bytes, numbered, the last of them shorter.
fn super_packet() -> Vec<u8> {
    (0..44 * 1452 + 700).map(|i| (i / 1452) as u8).collect()
}

#[test]
fn a_super_packet_arrives_whole_or_in_its_segments() {
    in_new_netns(|| {
        let sender = bind(0);
        let whole = bind(2);
        let pieces = SocketGroup::bind(0, 0, &UdpOptions { gro: false, ..options() }).expect("bind");
        let mut bytes = super_packet();
        // To worker 1, all of it: the program sees the first segment.
        bytes[..8].copy_from_slice(&[4, 0, 0, 0, 1, 0, 0, 0]);
        for family in 0..2 {
            let from = &sender.control[family];
            assert!(from.gso());
            let mut send = plain(local(from, whole.port), &bytes);
            send.segment = Some(1452);
            assert_eq!(from.send(&[send]), (1, None));
            let (got, received) = receive(&whole.workers[1][family]);
            assert_eq!((received.len, received.segment), (bytes.len(), 1452));
            assert!(got == bytes);

            send.to = Endpoint::new(local(from, pieces.port));
            assert_eq!(from.send(&[send]), (1, None));
            for chunk in bytes.chunks(1452) {
                let (got, received) = receive(&pieces.control[family]);
                assert!(got == chunk);
                assert_eq!(received.segment, chunk.len());
            }
            // A segment as large as all of it is no cutting, and not an error.
            let mut one = plain(local(from, pieces.port), &bytes[..100]);
            one.segment = Some(100);
            assert_eq!(from.send(&[one]), (1, None));
            assert_eq!(receive(&pieces.control[family]).1.segment, 100);
        }
    });
}

#[test]
fn options_that_are_off_are_off() {
    in_new_netns(|| {
        let group = SocketGroup::bind(0, 1, &UdpOptions { gso: false, ..options() }).expect("bind");
        assert!(group.control.iter().chain(&group.workers[0]).all(|s| !s.gso()));
    });
}

#[test]
fn an_empty_datagram_has_a_segment_to_divide_by() {
    in_new_netns(|| {
        let group = bind(1);
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("sender");
        sender.send_to(&[], (Ipv4Addr::LOCALHOST, group.port)).expect("send");
        let (_, received) = receive(&group.control[0]);
        assert_eq!((received.len, received.segment), (0, 1));
    });
}

#[test]
fn what_does_not_fit_the_buffer_is_cut_off() {
    in_new_netns(|| {
        let group = bind(0);
        let bytes = super_packet();
        let mut send = plain((Ipv4Addr::LOCALHOST, group.port).into(), &bytes);
        send.segment = Some(1452);
        assert_eq!(group.control[0].send(&[send]), (1, None));
        assert!(readable(&group.control[0]));
        let (mut buffer, mut out) = ([0; 2000], [Received::default()]);
        let count = group.control[0].recv(&mut [&mut buffer], &mut out).expect("recv");
        assert_eq!((count, out[0].len, out[0].segment), (1, 2000, 1452));
    });
}

#[test]
fn large_datagrams_are_fragmented_not_refused() {
    in_new_netns(|| {
        let monitor = Monitor::open(LOOPBACK).expect("monitor");
        monitor.set_mtu(LOOPBACK, 1500).expect("mtu");
        let (a, b) = (bind(0), bind(0));
        let bytes = super_packet();
        for family in 0..2 {
            let to = local(&b.control[family], b.port);
            assert_eq!(a.control[family].send(&[plain(to, &bytes[..5000])]), (1, None));
            assert!(receive(&b.control[family]).0 == bytes[..5000]);
            // But a super-packet is not cut into segments that would be fragmented.
            let mut send = plain(to, &bytes[..10_000]);
            send.segment = Some(2000);
            let (sent, error) = a.control[family].send(&[plain(to, b"first"), send, plain(to, b"third")]);
            assert_eq!(sent, 1);
            // EINVAL up to Linux 6.13.
            assert!(matches!(error, Some(SendError::TooLarge | SendError::Invalid)), "{error:?}");
            assert_eq!(receive(&b.control[family]).0, b"first");
            assert!(!readable_now(&b.control[family]));
            // Larger than IP can carry.
            let huge = vec![0; 66_000];
            assert_eq!(a.control[family].send(&[plain(to, &huge)]), (0, Some(SendError::TooLarge)));
        }
    });
}

#[test]
fn a_source_that_has_gone_is_invalid() {
    in_new_netns(|| {
        let group = bind(0);
        for (family, gone) in ["10.99.0.1", "fd99::1"].into_iter().enumerate() {
            let socket = &group.control[family];
            let mut send = plain(local(socket, group.port), b"x");
            send.to.source = Some(Source { ip: gone.parse().expect("address"), ifindex: LOOPBACK });
            assert_eq!(socket.send(&[send]), (0, Some(SendError::Invalid)), "{gone}");
            // An interface that has gone does not matter while the address is ours.
            send.to.source = Some(Source { ip: local(socket, 0).ip(), ifindex: 4711 });
            assert_eq!(socket.send(&[send]), (1, None));
            send.to.source = None;
            assert_eq!(socket.send(&[send]), (1, None));
        }
    });
}

#[test]
fn no_route_is_unreachable() {
    in_new_netns(|| {
        let group = bind(0);
        for (family, nowhere) in ["192.0.2.1:9", "[2001:db8::1]:9"].into_iter().enumerate() {
            let send = plain(nowhere.parse().expect("address"), b"x");
            let (sent, error) = group.control[family].send(&[send]);
            assert_eq!((sent, error), (0, Some(SendError::Unreachable(libc::ENETUNREACH))));
        }
    });
}

#[test]
fn a_full_buffer_would_block() {
    in_new_netns(|| {
        // What waits for a neighbour that does not answer stays in the sender's buffer.
        ip("link add one0 type veth peer name two0");
        ip("link set one0 up");
        ip("link set two0 up");
        ip("address add 10.9.0.1/24 dev one0");
        let group = SocketGroup::bind(0, 0, &UdpOptions { buffer: 20_000, ..options() }).expect("bind");
        let bytes = [0; 1400];
        let sends = [plain("10.9.0.2:9".parse().expect("address"), &bytes); 200];
        let (sent, error) = group.control[0].send(&sends);
        assert!(sent > 0 && sent < 200, "{sent}");
        assert_eq!(error, Some(SendError::WouldBlock));
    });
}

#[test]
fn the_mark_is_on_what_is_sent() {
    in_new_netns(|| {
        ip("rule add fwmark 7 prohibit priority 0");
        ip("-6 rule add fwmark 7 prohibit priority 0");
        ip("rule del table local");
        ip("rule add table local priority 1");
        ip("-6 rule del table local");
        ip("-6 rule add table local priority 1");
        let group = SocketGroup::bind(0, 1, &UdpOptions { mark: 7, ..options() }).expect("bind");
        for (mark, expected) in
            [(7, (0, Some(SendError::Forbidden))), (0, (1, None)), (7, (0, Some(SendError::Forbidden))), (8, (1, None))]
        {
            group.set_mark(mark).expect("mark");
            for socket in group.control.iter().chain(group.workers.iter().flatten()) {
                let to = local(socket, group.port);
                assert_eq!(socket.send(&[plain(to, b"x")]), expected, "{mark} {to}");
            }
        }
        // The one that it is bound with counts before any other is set.
        let group = SocketGroup::bind(0, 0, &UdpOptions { mark: 7, ..options() }).expect("bind");
        let to = local(&group.control[0], group.port);
        assert_eq!(group.control[0].send(&[plain(to, b"x")]), (0, Some(SendError::Forbidden)));
    });
}

#[test]
fn where_ipv6_is_off_there_is_ipv4() {
    in_new_netns(|| {
        // Without the family at all (ipv6.disable=1) the socket fails, which needs another boot; without addresses it binds.
        ip("-6 address flush dev lo");
        let group = bind(1);
        let to = (Ipv4Addr::LOCALHOST, group.port).into();
        assert_eq!(group.control[0].send(&[plain(to, b"x")]), (1, None));
        assert_eq!(receive(&group.control[0]).0, b"x");
    });
}

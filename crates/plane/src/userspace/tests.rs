//! A batch's whole way without the kernel: admitted, cut, sealed in runs, opened as the kernel would hand it over.

use super::{
    inbound::Inbound,
    outbound::{BUSY_WAIT, HOLDING_WAIT, Outbound},
    peer::Peer,
    pool::Pool,
    shared::{Shared, now},
    writer::{Writer, WriterParts},
};
use crate::ring::Committer;
use inet::{
    Endpoint,
    ip::IpPacket,
    vnet::{Gso, LEN, VnetHeader},
};
use linux::{tun::Offloads, udp::Received};
use noise::{Destination, Device, Event, Now, PeerId, PrivateKey, Session};
use proptest::prelude::*;
use std::{net::SocketAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

const MTU: usize = 1420;

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, n], 51820))
}

/// Both ends of a session, by a real handshake; the first one began it.
fn session(seed: u8) -> (Arc<Session>, Arc<Session>) {
    let now = Now { boot: now(), wall: Duration::from_secs(1_700_000_000) };
    let keys = [1, 2].map(|n| PrivateKey::from_bytes([seed.wrapping_mul(2) + n; 32]));
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
                    devices[1 - turn].handle_datagram(now, address(turn as u8 + 1), &message, false).unwrap();
                }
                Event::SessionInstalled { session } => installed[turn] = Some(session),
                _ => (),
            }
        }
    }
    let [a, b] = installed;
    (a.unwrap(), b.unwrap())
}

/// One end's view of a peer with a session.
fn peer(shared: &Shared, id: u32, session: &Arc<Session>) -> Arc<Peer> {
    let peer = Arc::new(Peer::new(PeerId::from_u32(id), Arc::default()));
    peer.set_endpoint(Some(Endpoint::new(address(9))), |_| unreachable!("no source"));
    peer.current.store(Some(session.clone()));
    shared.insert_peer(peer.clone());
    peer
}

/// An IPv4 UDP datagram that carries its number.
fn plain(number: u32, len: usize) -> Vec<u8> {
    let mut packet = vec![0; LEN + 28 + 4 + len];
    let total = packet.len() - LEN;
    let ip = &mut packet[LEN..];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    ip[8] = 64;
    ip[9] = 17;
    ip[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    ip[24..26].copy_from_slice(&(total as u16 - 20).to_be_bytes());
    ip[28..32].copy_from_slice(&number.to_be_bytes());
    packet
}

/// An IPv4 TCP super-packet, whose sequence number is its number.
fn tcp(number: u32, payload: usize, size: u16) -> Vec<u8> {
    let header = VnetHeader {
        needs_csum: true,
        gso: Gso::TcpV4,
        hdr_len: 40,
        gso_size: size,
        csum_start: 20,
        csum_offset: 16,
        ..VnetHeader::default()
    };
    let mut packet = vec![0x77; LEN + 40 + payload];
    let total = packet.len() - LEN;
    packet[..LEN].copy_from_slice(&header.to_bytes());
    let ip = &mut packet[LEN..LEN + 40];
    ip.fill(0);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    ip[8] = 64;
    ip[9] = 6;
    ip[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    ip[24..28].copy_from_slice(&number.to_be_bytes());
    ip[32] = 0x50;
    ip[33] = 0x10;
    packet
}

/// Admits a packet; false when the job is full.
fn admit(job: &mut Outbound, packet: &[u8], peer: &Arc<Peer>) -> bool {
    let Some(room) = job.room() else { return false };
    room[..packet.len()].copy_from_slice(packet);
    job.admit(packet.len(), peer, super::worker::segments(packet));
    true
}

/// What the owner of a ring and whoever claims the job do with it.
fn seal(job: &mut Outbound, shared: &Shared) {
    job.reserve(shared, || false);
    job.seal(shared);
}

/// The plaintexts of everything in the job's runs, as the peer opens them. Each run is a receive, and says so by its ECN bits; what
/// is short travels in the job before it.
fn open(job: &Outbound, shared: &Shared) -> Vec<Vec<u8>> {
    let mut plaintexts = Vec::new();
    let (runs, output) = job.sealed();
    let mut jobs: Vec<(Inbound, Vec<usize>)> = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        assert!(run.len <= 65_507 && run.count <= 64);
        assert_eq!(run.count, run.len.div_ceil(run.stride));
        let mut inbound = Inbound::new().unwrap();
        inbound.buffer()[..run.len].copy_from_slice(&output[run.at..run.at + run.len]);
        let ecn = number as u8 % 4;
        inbound.take(Received { len: run.len, segment: run.stride, ecn, ..Received::default() });
        let absorbed = jobs.last_mut().is_some_and(|(last, counts)| {
            let absorbed = last.absorb(&inbound);
            if absorbed {
                counts.push(run.count);
            }
            absorbed
        });
        if !absorbed {
            jobs.push((inbound, vec![run.count]));
        }
    }
    let mut first = 0;
    for (inbound, counts) in &mut jobs {
        inbound.open(shared);
        let (received, parts, opened, bytes) = inbound.parts();
        assert_eq!(parts.iter().map(|part| part.count).sum::<usize>(), opened.len());
        assert_eq!((received.len(), opened.len()), (counts.len(), counts.iter().sum()));
        for (receive, &count) in counts.iter().enumerate() {
            assert_eq!(opened.iter().filter(|opened| opened.receive == receive).count(), count);
            assert_eq!(usize::from(received[receive].ecn), (first + receive) % 4);
        }
        first += counts.len();
        plaintexts.extend(opened.iter().map(|opened| bytes[opened.at..opened.at + opened.len].to_vec()));
    }
    plaintexts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever a job holds comes out at the other end once, whole, in order within each peer, and fits the MTU.
    #[test]
    fn a_batch_keeps_its_packets_and_their_order(
        shapes in prop::collection::vec((0u32..3, prop_oneof![
            (0usize..1300).prop_map(|len| (len, 0u16)),
            (1usize..50_000, 900u16..1380).prop_map(|(payload, size)| (payload, size)),
        ]), 1..40),
    ) {
        let shared = Shared::new(1, MTU as u32).unwrap();
        let far = Shared::new(1, MTU as u32).unwrap();
        let mut peers = Vec::new();
        for id in 0..3 {
            let (ours, theirs) = session(id as u8);
            peers.push(peer(&shared, id, &ours));
            peer(&far, theirs.peer().as_u32(), &theirs);
            far.install(theirs);
        }
        let mut job = Outbound::new().unwrap();
        let mut expected: Vec<Vec<(u32, usize)>> = vec![Vec::new(); 3];
        for (number, &(id, (len, size))) in shapes.iter().enumerate() {
            let number = number as u32 * 100_000;
            let packet = if size == 0 { plain(number, len) } else { tcp(number, len, size) };
            if !admit(&mut job, &packet, &peers[id as usize]) {
                break;
            }
            if size == 0 {
                expected[id as usize].push((number, 32 + len));
            } else {
                let size = usize::from(size);
                expected[id as usize].extend((0..len.div_ceil(size)).map(|i| {
                    (number + (i * size) as u32, 40 + size.min(len - i * size))
                }));
            }
        }
        seal(&mut job, &shared);
        let mut came = Vec::new();
        for plaintext in open(&job, &far) {
            prop_assert!(plaintext.len() <= MTU && (plaintext.len() % 16 == 0 || plaintext.len() == MTU));
            let packet = IpPacket::parse(&plaintext).unwrap();
            let at = if packet.protocol() == 17 { 28 } else { 24 };
            let number = u32::from_be_bytes(plaintext[at..at + 4].try_into().unwrap());
            prop_assert!(plaintext[packet.total_len()..].iter().all(|&byte| byte == 0), "padding is zeros");
            came.push((number, packet.total_len()));
        }
        // Runs are sealed peer by peer, in the order in which the peers first appear.
        let mut order: Vec<u32> = Vec::new();
        for (id, _) in &shapes {
            if !order.contains(id) {
                order.push(*id);
            }
        }
        let expected: Vec<_> = order.iter().flat_map(|&id| expected[id as usize].clone()).collect();
        prop_assert_eq!(came, expected);
        prop_assert!(shared.drops.list().iter().all(|(_, count)| *count == 0));
    }

    /// Bytes from anywhere never open, and never panic.
    #[test]
    fn garbage_does_not_open(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        segment in 1usize..3000,
        header in any::<bool>(),
    ) {
        let shared = Shared::new(1, MTU as u32).unwrap();
        let (_, theirs) = session(7);
        peer(&shared, theirs.peer().as_u32(), &theirs);
        shared.install(theirs.clone());
        let mut bytes = bytes;
        if header && bytes.len() >= 16 {
            noise::message::write_transport_header(&mut bytes[..16], theirs.local_index(), 5);
        }
        let mut inbound = Inbound::new().unwrap();
        inbound.buffer()[..bytes.len()].copy_from_slice(&bytes);
        inbound.take(Received { len: bytes.len(), segment, ..Received::default() });
        inbound.open(&shared);
        prop_assert!(inbound.parts().2.is_empty());
    }
}

/// A super-packet of equal segments is one run, and so one send.
#[test]
fn a_super_packet_is_one_send() {
    let shared = Shared::new(1, MTU as u32).unwrap();
    let (ours, _) = session(1);
    let peer = peer(&shared, 0, &ours);
    let mut job = Outbound::new().unwrap();
    assert!(admit(&mut job, &tcp(0, 44 * 1368 + 100, 1368), &peer));
    seal(&mut job, &shared);
    let (runs, _) = job.sealed();
    assert_eq!(runs.len(), 1);
    assert_eq!((runs[0].count, runs[0].stride), (45, 16 + 1408 + 16));
}

/// Small packets that queued up leave together when their sizes allow.
#[test]
fn plain_packets_of_one_size_are_one_send() {
    let shared = Shared::new(1, MTU as u32).unwrap();
    let (ours, _) = session(1);
    let peer = peer(&shared, 0, &ours);
    let mut job = Outbound::new().unwrap();
    for number in 0..50 {
        assert!(admit(&mut job, &plain(number, 64), &peer));
    }
    seal(&mut job, &shared);
    assert_eq!(job.sealed().0.iter().map(|run| run.count).collect::<Vec<_>>(), [50]);
}

/// Short receives share a job, as long as there is room for their bytes, their datagrams and what came with them; long ones do not.
#[test]
fn short_receives_share_a_job() {
    let receive = |len: usize, segment: usize| {
        let mut job = Inbound::new().unwrap();
        job.take(Received { len, segment, ..Received::default() });
        job
    };
    let mut job = receive(60_000, 1452);
    assert!(job.absorb(&receive(1400, 1400)) && job.absorb(&receive(4096, 1452)));
    assert!(!job.absorb(&receive(100, 100)), "more than the buffer holds");
    let mut job = receive(100, 100);
    assert!(!job.absorb(&receive(5000, 1452)), "not short");
    assert_eq!((0..20).filter(|_| job.absorb(&receive(0, 1))).count(), 15);
    let mut job = receive(64 * 48, 48);
    assert!(job.absorb(&receive(64 * 48, 48)) && !job.absorb(&receive(48, 48)), "129 datagrams");
}

/// A keepalive is a header and a tag, and no data.
#[test]
fn a_keepalive_is_empty() {
    let (shared, far) = (Shared::new(1, MTU as u32).unwrap(), Shared::new(1, MTU as u32).unwrap());
    let (ours, theirs) = session(1);
    let near = peer(&shared, 0, &ours);
    peer(&far, theirs.peer().as_u32(), &theirs);
    far.install(theirs);
    let mut job = Outbound::new().unwrap();
    job.admit_keepalive(&near);
    seal(&mut job, &shared);
    assert_eq!((job.sealed().0[0].len, job.sealed().0[0].data), (32, false));
    assert_eq!(open(&job, &far), [Vec::<u8>::new()]);
}

/// No two datagrams of a session carry the same counter, however many jobs seal at once.
#[test]
fn counters_are_used_once() {
    let shared = Arc::new(Shared::new(1, MTU as u32).unwrap());
    let (ours, _) = session(1);
    let peer = peer(&shared, 0, &ours);
    let seal = || {
        let (shared, peer) = (shared.clone(), peer.clone());
        std::thread::spawn(move || {
            let mut counters = Vec::new();
            for round in 0..20 {
                let mut job = Outbound::new().unwrap();
                for number in 0..40 {
                    admit(&mut job, &plain(number, (number as usize * round) % 200), &peer);
                }
                seal(&mut job, &shared);
                let (runs, output) = job.sealed();
                for run in runs {
                    for datagram in output[run.at..run.at + run.len].chunks(run.stride) {
                        counters.push(u64::from_le_bytes(datagram[8..16].try_into().unwrap()));
                    }
                }
                job.release();
            }
            counters
        })
    };
    let threads = [seal(), seal(), seal()];
    let mut counters: Vec<u64> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    counters.sort_unstable();
    assert!(counters.windows(2).all(|pair| pair[0] < pair[1]), "a counter twice");
    // A thread that is kept from running for long may cost the others packets, but never a counter.
    let dropped: u64 = shared.drops.list().iter().map(|(_, count)| count).sum();
    assert_eq!(counters.len() as u64 + dropped, 2400);
}

/// However many peers wait for counters, the job waits once, and briefly when others may wait for what it holds.
#[test]
fn a_job_waits_once_for_counters() {
    let shared = Shared::new(1, MTU as u32).unwrap();
    for (free, wait) in [(false, BUSY_WAIT), (true, HOLDING_WAIT)] {
        let mut job = Outbound::new().unwrap();
        for id in 0..5 {
            let (ours, _) = session(id as u8);
            let peer = peer(&shared, id, &ours);
            if id > 0 || !free {
                while ours.reserve(now(), 64).is_ok() {}
            }
            job.admit_keepalive(&peer);
        }
        let before = shared.drops.list().iter().map(|(_, count)| count).sum::<u64>();
        let mut waits = 0;
        job.reserve(&shared, || {
            waits += 1;
            std::thread::sleep(wait);
            false
        });
        assert!(waits <= 1, "{waits}");
        let dropped = shared.drops.list().iter().map(|(_, count)| count).sum::<u64>() - before;
        assert_eq!(dropped, if free { 4 } else { 5 });
    }
}

/// Who went elsewhere.
#[derive(Default)]
struct Watcher(std::sync::Mutex<Vec<PeerId>>);

impl crate::Observer for Watcher {
    fn endpoint_moved(&self, peer: PeerId) {
        self.0.lock().unwrap().push(peer);
    }

    fn session_confirmed(&self, _: PeerId, _: &Session) {}
}

/// The peer is where its newest packet came from, though a late one came after it and in the same job.
#[test]
fn a_late_packet_does_not_hide_where_the_newest_came_from() {
    let (shared, far) = (Shared::new(1, MTU as u32).unwrap(), Arc::new(Shared::new(1, MTU as u32).unwrap()));
    let (ours, theirs) = session(1);
    let watcher = Arc::new(Watcher::default());
    far.set_observer(watcher.clone());
    let near = peer(&shared, 0, &ours);
    let known = peer(&far, theirs.peer().as_u32(), &theirs);
    let id = theirs.peer();
    far.install(theirs);
    let mut job = Outbound::new().unwrap();
    for _ in 0..3 {
        job.admit_keepalive(&near);
    }
    seal(&mut job, &shared);
    let datagrams: Vec<_> = job.sealed().1[..96].chunks(32).collect();
    let receive = |datagram: &[u8], from: u8| {
        let mut job = Box::new(Inbound::new().unwrap());
        job.buffer()[..32].copy_from_slice(datagram);
        job.take(Received { len: 32, segment: 32, from: address(from), ..Received::default() });
        job
    };
    let mut inbound = receive(datagrams[1], 8);
    assert!(inbound.absorb(&receive(datagrams[0], 9)));
    inbound.open(&far);
    assert_eq!(inbound.parts().1.len(), 1);
    let (tun, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let mut writer = Writer::new(WriterParts {
        shared: far.clone(),
        worker: 0,
        queue: Arc::new(OwnedFd::from(tun).into()),
        offloads: Offloads::default(),
        pool: Pool::new(1, Inbound::new).unwrap(),
        ring: 4,
    });
    writer.take(inbound);
    assert_eq!(known.endpoint().map(|endpoint| endpoint.addr), Some(address(8)));
    let mut again = receive(datagrams[2], 8);
    again.open(&far);
    writer.take(again);
    assert_eq!(*watcher.0.lock().unwrap(), [id], "who watches hears of it once");
}

/// A tunnel in this tunnel may use the same receiver index, if its ends count them up: only what goes where we sent it is ours.
#[test]
fn only_what_we_sent_to_the_peers_endpoint_is_looped() {
    let (ours, _) = session(1);
    let mut packet = plain(0, 40).split_off(LEN);
    let message = noise::message::TRANSPORT_HEADER_LEN;
    noise::message::write_transport_header(&mut packet[28..28 + message], ours.remote_index(), 7);
    packet[22..24].copy_from_slice(&51820u16.to_be_bytes());
    let looped = |packet: &[u8], endpoint: &str| super::worker::is_looped(packet, &ours, endpoint.parse().unwrap());
    assert!(looped(&packet, "10.0.0.2:51820"));
    assert!(!looped(&packet, "10.0.0.2:51821") && !looped(&packet, "10.0.0.3:51820"));
    packet[32] ^= 1;
    assert!(!looped(&packet, "10.0.0.2:51820"), "another session's");
    assert!(!looped(&packet[..27], "10.0.0.2:51820"));
}

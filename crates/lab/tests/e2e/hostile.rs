//! What no peer would send: cut, stretched, flipped, repeated, reflected. Each datagram is dropped, for the right reason and
//! counted once; the tunnel beside it notices nothing, and nothing grows.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use lab::rogue::Rogue;
use lab::{End, Endpoints, Gso, Outer, System, Tunnel, TunnelSpec, run_checked, usage, wait_for, wait_until};

use crate::common::{LIMIT, SOON, check_pings, our_tunnel, spec, wireloom};
use crate::engines::each_engine;

each_engine!(
    every_type_in_every_length,
    every_bit_of_a_data_packet_and_every_replay,
    trains_of_anything,
    trains_of_several_kinds,
    what_is_reflected_is_nobodys,
);

/// What a daemon has dropped, by reason, as `wireloom show` tells.
pub fn drops(interface: &str) -> BTreeMap<String, u64> {
    listed(interface).into_iter().collect()
}

fn listed(interface: &str) -> Vec<(String, u64)> {
    let System::Wireloom(program, _) = wireloom() else { unreachable!("that is what it is") };
    let mut command = std::process::Command::new(program);
    let text = run_checked(command.args(["show", interface, "drops"]), LIMIT).unwrap();
    let line = |line: &str| {
        let (reason, count) = line.split_once('\t').unwrap();
        (reason.to_owned(), count.parse().unwrap())
    };
    text.lines().map(line).collect()
}

/// Reasons that concern what the host itself sends: its own chatter may add to them at any time.
const OUTBOUND: [&str; 3] = ["no-route", "no-endpoint", "no-session"];

/// A tunnel, and a rogue on the left host that is a peer of the right end.
struct Stage {
    tunnel: Tunnel,
    rogue: Rogue,
    before: BTreeMap<String, u64>,
    memory: u64,
}

/// So many datagrams leave at once. All queues on the way have room for as many, and they are no load yet.
const BURST: usize = 100;

/// The rogue's address inside.
const INSIDE: [u8; 4] = [10, 77, 0, 9];

impl Stage {
    fn new(spec: &TunnelSpec) -> Stage {
        let tunnel = spec.build().unwrap();
        check_pings(&tunnel.left, &tunnel.right);
        let right = &tunnel.right;
        let rogue = Rogue::new(tunnel.left.namespace(), 7, right.endpoint(spec.outer), &right.keys.public).unwrap();
        let key = rogue.mind.public_key();
        right.daemon.set(&["peer", &key, "allowed-ips", "10.77.0.9/32"]).unwrap();
        let memory = usage::memory(right.daemon.process.id()).unwrap().resident;
        let before = drops(&right.daemon.interface);
        Stage { tunnel, rogue, before, memory }
    }

    fn right(&self) -> &End {
        &self.tunnel.right
    }

    /// Sends them, [`BURST`] at a time. All but `taken` of them are dropped, before more are sent than that.
    #[track_caller]
    fn send_all<T: AsRef<[u8]>>(&self, datagrams: impl Iterator<Item = T>, taken: u64) {
        for (sent, bytes) in (1..).zip(datagrams) {
            self.rogue.send(bytes.as_ref()).unwrap();
            if sent % BURST == 0 {
                self.wait_for_drops(sent as u64 - taken);
            }
        }
    }

    /// Waits until at least so many were dropped since the last look.
    #[track_caller]
    fn wait_for_drops(&self, count: u64) {
        let sum = |drops: &BTreeMap<String, u64>| -> u64 {
            drops.iter().filter(|(reason, _)| !OUTBOUND.contains(&reason.as_str())).map(|(_, count)| count).sum()
        };
        let wanted = sum(&self.before) + count;
        let what = format!("{count} datagrams to be dropped");
        wait_until(&what, SOON, || sum(&self.right().daemon.drops().unwrap()) >= wanted).unwrap();
    }

    /// Waits until exactly this was dropped since the last look, and nothing else.
    #[track_caller]
    fn expect(&mut self, expected: &[(&str, u64)]) {
        let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
        for (reason, count) in expected.iter().filter(|(_, count)| *count > 0) {
            assert!(self.before.contains_key(*reason), "{reason} is not a reason");
            *wanted.entry((*reason).to_owned()).or_default() += count;
        }
        let mut seen = BTreeMap::new();
        let reached = wait_until("what was sent to be dropped", SOON, || {
            let now = drops(&self.right().daemon.interface);
            seen = (now.iter().filter(|(reason, _)| !OUTBOUND.contains(&reason.as_str())))
                .map(|(reason, count)| (reason.clone(), count - self.before[reason]))
                .filter(|(_, count)| *count > 0)
                .collect();
            seen.values().sum::<u64>() >= wanted.values().sum()
        });
        assert!(reached.is_ok() && seen == wanted, "{seen:?} instead of {wanted:?}");
        self.before = drops(&self.right().daemon.interface);
    }

    /// The tunnel is as it was, nothing more was dropped, and memory is what it was but for buffers that are of one size.
    #[track_caller]
    fn conclude(mut self) {
        check_pings(&self.tunnel.left, &self.tunnel.right);
        check_pings(&self.tunnel.right, &self.tunnel.left);
        self.expect(&[]);
        let memory = usage::memory(self.right().daemon.process.id()).unwrap().resident;
        assert!(memory < self.memory + 8 * 1024, "{} KiB grew to {memory}", self.memory);
    }
}

/// Why a datagram is dropped that says nothing sensible beyond its first four bytes.
fn reason(bytes: &[u8]) -> &'static str {
    match (bytes.first_chunk::<4>(), bytes.len()) {
        (Some([1, 0, 0, 0]), 148) | (Some([2, 0, 0, 0]), 92) => "handshake-mac1",
        (Some([3, 0, 0, 0]), 64) => "handshake-unknown-index",
        (Some([4, 0, 0, 0]), 32..) => "unknown-index",
        _ => "outer-malformed",
    }
}

fn tally<'a>(datagrams: impl Iterator<Item = &'a [u8]>) -> Vec<(&'static str, u64)> {
    let mut tally: BTreeMap<&str, u64> = BTreeMap::new();
    datagrams.for_each(|bytes| *tally.entry(reason(bytes)).or_default() += 1);
    tally.into_iter().collect()
}

#[test]
fn the_reasons_are_those_of_the_page() {
    let tunnel = our_tunnel();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/drops.md");
    let page = fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let told: Vec<_> = rows.map(|row| row.split_once('`').unwrap().0.to_owned()).collect();
    let listed: Vec<_> = listed(&tunnel.right.daemon.interface).into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(listed, told);
}

fn every_type_in_every_length() {
    for outer in [Outer::V4, Outer::V6] {
        let mut stage = Stage::new(&TunnelSpec { outer, ..spec() });
        for head in [[0; 4], [1, 0, 0, 0], [2, 0, 0, 0], [3, 0, 0, 0], [4, 0, 0, 0], [5, 0, 0, 0]] {
            let mut bytes = vec![0x5a; 65_000];
            bytes[..4].copy_from_slice(&head);
            // The longest leave in fragments.
            let lengths: Vec<usize> = (0..=2048).chain([9000, 65_000]).collect();
            stage.send_all(lengths.iter().map(|&len| &bytes[..len]), 0);
            stage.expect(&tally(lengths.iter().map(|&len| &bytes[..len])));
        }
        // The three bytes behind the type are reserved, and zero.
        for (kind, len) in [(1, 148), (2, 92), (3, 64), (4, 96)] {
            for at in 1..4 {
                for bit in 0..8 {
                    let mut bytes = vec![0; len];
                    bytes[0] = kind;
                    bytes[at] = 1 << bit;
                    stage.rogue.send(&bytes).unwrap();
                }
            }
        }
        stage.expect(&[("outer-malformed", 4 * 24)]);
        stage.conclude();
    }
}

/// All that differ from it in one bit, in the order of its bytes.
fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..bytes.len() * 8).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    })
}

#[test]
fn every_bit_of_an_initiation() {
    let mut stage = Stage::new(&spec());
    let initiation = stage.rogue.mind.initiation();
    stage.send_all(flips(&initiation), 1);
    // Without load nobody looks at the last 16 bytes, mac2: the first of them is taken, the rest repeat it.
    stage.expect(&[("outer-malformed", 32), ("handshake-mac1", 128 * 8), ("handshake-replayed", 127)]);
    let response = stage.rogue.receive(SOON).unwrap();
    // The response is good for one handshake, and comes back to us as nobody's.
    assert!(stage.rogue.mind.hear(stage.rogue.victim, &response));
    assert!(stage.rogue.receive(Duration::from_millis(200)).is_none(), "one answer to all of them");
    for _ in 0..100 {
        stage.rogue.send(&initiation).unwrap();
    }
    stage.expect(&[("handshake-replayed", 100)]);
    stage.conclude();
}

fn every_bit_of_a_data_packet_and_every_replay() {
    let mut stage = Stage::new(&spec());
    assert_eq!(stage.rogue.shake_hands(5, SOON).unwrap(), 1);
    let inner = ping_from(INSIDE, stage.right());
    let keepalive = stage.rogue.mind.data(&[]);
    stage.rogue.send(&keepalive).unwrap();
    let data = stage.rogue.mind.data(&inner);
    stage.send_all(flips(&data), 0);
    let behind = (data.len() as u64 - 8) * 8;
    stage.expect(&[("outer-malformed", 32), ("unknown-index", 32), ("not-authentic", behind)]);
    // The flips have used up nothing: the true one is new, and answered.
    stage.rogue.send(&data).unwrap();
    let answer = stage.rogue.receive(SOON).unwrap();
    assert_eq!(answer[0], 4, "an echo reply");
    stage.send_all((0..100).flat_map(|_| [&data, &keepalive]), 0);
    stage.expect(&[("replayed", 200)]);
    // Too late to tell, and beyond what any session counts.
    let mind = &stage.rogue.mind;
    let mut beyond = mind.data_at(3, &inner);
    beyond[8..16].fill(0xff);
    for bytes in [mind.data_at(20_000, &[]), mind.data_at(2, &inner), mind.data_at(20_000 - 8193, &inner), beyond] {
        stage.rogue.send(&bytes).unwrap();
    }
    stage.expect(&[("replayed", 3)]);
    // Authentic, and still not to be let in.
    let mind = &mut stage.rogue.mind;
    let foreign = ping_from([10, 77, 0, 1], &stage.tunnel.right);
    let mut short = inner.clone();
    short[2..4].copy_from_slice(&1000_u16.to_be_bytes());
    let bad = [mind.data_at(20_001, &foreign), mind.data_at(20_002, &[0; 16]), mind.data_at(20_003, &short)];
    bad.iter().for_each(|bytes| stage.rogue.send(bytes).unwrap());
    stage.expect(&[("source-not-allowed", 1), ("content-malformed", 2)]);
    stage.conclude();
}

/// An ICMP echo request to the end's inner address.
fn ping_from(source: [u8; 4], to: &End) -> Vec<u8> {
    let mut packet = vec![0; 48];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&48_u16.to_be_bytes());
    packet[8..10].copy_from_slice(&[64, 1]);
    packet[12..16].copy_from_slice(&source);
    packet[16..20].copy_from_slice(&to.v4.octets());
    packet[20] = 8;
    let sum = |bytes: &[u8]| -> [u8; 2] {
        let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
    };
    let head = sum(&packet[..20]);
    packet[10..12].copy_from_slice(&head);
    let body = sum(&packet[20..]);
    packet[22..24].copy_from_slice(&body);
    packet
}

fn what_is_reflected_is_nobodys() {
    // Only the right end knows where to call.
    let mut stage = Stage::new(&TunnelSpec { endpoints: Endpoints::OnlyLeft, ..spec() });
    // Our response and our data.
    let initiation = stage.rogue.mind.initiation();
    stage.rogue.send(&initiation).unwrap();
    let response = stage.rogue.receive(SOON).unwrap();
    assert_eq!((response[0], response.len()), (2, 92));
    stage.rogue.mind.hear(stage.rogue.victim, &response);
    let ping = stage.rogue.mind.data(&ping_from(INSIDE, &stage.tunnel.right));
    stage.rogue.send(&ping).unwrap();
    let data = stage.rogue.receive(SOON).unwrap();
    assert_eq!(data[0], 4);
    for bytes in [&response, &data] {
        stage.rogue.send(bytes).unwrap();
    }
    stage.expect(&[("handshake-mac1", 1), ("unknown-index", 1)]);
    // Our initiation: the right end has a peer that never answers but by an echo.
    let mute = Rogue::new(stage.tunnel.left.namespace(), 8, stage.rogue.victim, &stage.right().keys.public).unwrap();
    let endpoint = format!("{}:{}", stage.tunnel.left.port.v4, mute.port());
    let key = mute.mind.public_key();
    let peer = ["peer", &key, "allowed-ips", "10.77.0.8/32", "endpoint", &endpoint, "persistent-keepalive", "30"];
    stage.right().daemon.set(&peer).unwrap();
    let initiation = mute.receive(SOON).unwrap();
    assert_eq!((initiation[0], initiation.len()), (1, 148));
    mute.send(&initiation).unwrap();
    stage.expect(&[("handshake-mac1", 1)]);
    // A cookie that was never asked for, to the index of that handshake, and one to nobody.
    let mut cookie = [0x33; 64];
    cookie[..4].copy_from_slice(&[3, 0, 0, 0]);
    mute.send(&cookie).unwrap();
    cookie[4..8].copy_from_slice(&initiation[4..8]);
    mute.send(&cookie).unwrap();
    stage.expect(&[("handshake-unknown-index", 1), ("handshake-not-authentic", 1)]);
    stage.right().daemon.set(&["peer", &key, "remove"]).unwrap();
    stage.conclude();
}

fn trains_of_anything() {
    for gso in [Gso::Through, Gso::Off] {
        let mut stage = Stage::new(&TunnelSpec { gso, ..spec() });
        let message = |kind: u8, len: usize| {
            let mut bytes = [&[kind, 0, 0, 0], &[0x77; 2000][..]].concat();
            bytes.truncate(len);
            bytes
        };
        let mut trains: Vec<(Vec<u8>, usize)> = Vec::new();
        for (kind, len) in [(1, 148), (2, 92), (3, 64), (4, 80), (0, 148)] {
            for tail in [0, 1, len / 2, len - 1] {
                trains.push(([message(kind, len).repeat(20), message(kind, len)[..tail].to_vec()].concat(), len));
            }
        }
        // Odd sizes, the smallest, and the most that one send carries.
        for len in [1, 3, 33, 1021, 1452] {
            trains.push((message(4, len).repeat(60.min(65_000 / len)), len));
        }
        let mut sent = 0;
        for (bytes, segment) in &trains {
            stage.rogue.send_train(bytes, *segment as u16).unwrap();
            sent += bytes.len().div_ceil(*segment) as u64;
            stage.wait_for_drops(sent);
        }
        stage.expect(&tally(trains.iter().flat_map(|(bytes, segment)| bytes.chunks(*segment))));
        stage.conclude();
    }
}

fn trains_of_several_kinds() {
    let mut stage = Stage::new(&spec());
    assert_eq!(stage.rogue.shake_hands(5, SOON).unwrap(), 1);
    let message = |kind: u8| {
        let mut bytes = vec![0x77; 148];
        bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
        bytes
    };
    // A train goes where its first datagram belongs. A worker takes what else is in it for what it is.
    let good = stage.rogue.mind.data(&[0; 148 - 32]);
    let train = [good, message(1), message(9), message(4), message(3)].concat();
    stage.rogue.send_train(&train, 148).unwrap();
    let expected = [("content-malformed", 1), ("handshake-mac1", 1), ("outer-malformed", 2), ("unknown-index", 1)];
    stage.expect(&expected);
    // Control has a worker open data that came to it so.
    let good = stage.rogue.mind.data(&[0; 148 - 32]);
    stage.rogue.send_train(&[message(1), good, message(9), message(1)].concat(), 148).unwrap();
    stage.expect(&[("content-malformed", 1), ("handshake-mac1", 2), ("outer-malformed", 1)]);
    stage.conclude();
}

#[test]
fn strangers_and_peers_without_the_preshared_key() {
    let mut stage = Stage::new(&spec());
    let mut stranger =
        Rogue::new(stage.tunnel.left.namespace(), 9, stage.rogue.victim, &stage.right().keys.public).unwrap();
    for _ in 0..50 {
        let initiation = stranger.mind.initiation();
        stranger.send(&initiation).unwrap();
    }
    stage.expect(&[("handshake-unknown-peer", 50)]);
    // The right end calls, and the answer is made without the preshared key that it has.
    let preshared = lab::wg::preshared_key().unwrap();
    let key = stranger.mind.public_key();
    let endpoint = format!("{}:{}", stage.tunnel.left.port.v4, stranger.port());
    let mut peer = vec!["peer", &key, "allowed-ips", "10.77.0.8/32", "endpoint", &endpoint];
    let path = preshared.path();
    peer.extend(["preshared-key", &path, "persistent-keepalive", "30"]);
    stage.right().daemon.set(&peer).unwrap();
    let initiation = stranger.receive(SOON).unwrap();
    let response = stranger.mind.answer(stranger.victim, &initiation);
    stranger.send(&response).unwrap();
    stage.expect(&[("handshake-not-authentic", 1)]);
    stage.right().daemon.set(&["peer", &key, "remove"]).unwrap();
    stage.conclude();
}

#[test]
fn a_device_without_a_key_counts_as_well() {
    let mut stage = Stage::new(&spec());
    stage.right().daemon.set(&["private-key", "/dev/null"]).unwrap();
    let initiation = stage.rogue.mind.initiation();
    stage.rogue.send(&initiation).unwrap();
    let counted = wait_for("the initiation to be dropped", SOON, || {
        let now = drops(&stage.right().daemon.interface);
        Ok((now["no-private-key"] > stage.before["no-private-key"]).then_some(()))
    });
    // Once or twice: the left end may have called as well.
    counted.unwrap();
}

#[test]
fn an_endless_configuration_takes_a_bounded_share_of_memory() {
    /// What all clients may make a daemon hold, with what a vector takes that grows.
    const BUDGET: u64 = 512 * 1024;
    /// What the allocator may keep of it, in KiB.
    const LEFT: u64 = 64 * 1024;
    let tunnel = our_tunnel();
    let right = &tunnel.right;
    let id = right.daemon.process.id();
    let peer = format!("public_key={:064x}\n", 1);
    for piece in [peer.clone(), "allowed_ip=10.0.0.0/8\n".to_owned()] {
        // Two at once: the second finds less.
        let clients = [0, 1].map(|_| {
            let (path, text) = (lab::socket_path(&right.daemon.interface), piece.repeat(20_000));
            let start = format!("set=1\n{peer}");
            std::thread::spawn(move || {
                let mut stream = UnixStream::connect(path).unwrap();
                stream.write_all(start.as_bytes()).unwrap();
                (0..1000).any(|_| stream.write_all(text.as_bytes()).is_err())
            })
        });
        // Others are served meanwhile.
        assert_eq!(right.daemon.status().unwrap().peers.len(), 1);
        for client in clients {
            assert!(client.join().unwrap(), "it was never cut off");
        }
    }
    assert_eq!(right.daemon.status().unwrap().peers.len(), 1, "nothing of it was applied");
    let settled = || usage::memory(id).unwrap().resident < LEFT;
    let given_back = wait_until("the memory to be given back", SOON, settled);
    let memory = usage::memory(id).unwrap();
    assert!(given_back.is_ok() && memory.peak < BUDGET, "{memory:?}");
    check_pings(&tunnel.left, right);
}

//! The engine whose programs run in the kernel, when its daemon dies: the tunnel goes on, and the next daemon takes it up where it is.
//! (What `wireloom up` makes of that is in `restart_up`, what lasts until the keys are too old in `across_a_kill`.)

use std::collections::HashSet;
use std::fs;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use lab::capture::{Capture, Heard};
use lab::traffic::{Conversation, Service};
use lab::wg::{KeyPair, SecretFile};
use lab::{Daemon, End, Outer, Tunnel, ping, wait_until};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::common::{LIMIT, SOON, Stream, spec, wait_for_ping, wait_until_carried, wireloom};

const ENGINE: [&str; 2] = ["--engine", "ebpf"];

/// For how long there is no daemon at the least, where there is to be none for some time.
const GONE: Duration = Duration::from_secs(2);

/// One whose pings are the programs' alone.
pub fn tunnel() -> Tunnel {
    let mut spec = spec();
    spec.arguments = ENGINE.to_vec();
    let mut tunnel = spec.build().unwrap();
    wait_until_carried(&tunnel.left, &mut tunnel.right);
    tunnel
}

/// The daemon's only child.
pub fn steward(end: &End) -> Pid {
    let id = end.daemon.process.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    Pid::from_raw(children.trim().parse().expect("one child, the steward")).unwrap()
}

pub fn kill(end: &mut End) {
    end.daemon.process.signal(Signal::KILL);
    end.daemon.process.wait(LIMIT).unwrap();
}

/// Starts another daemon for the same interface.
pub fn start(end: &mut End) {
    start_with(end, &ENGINE);
}

fn start_with(end: &mut End, arguments: &[&str]) {
    let (namespace, interface) = (end.daemon.namespace.clone(), end.daemon.interface.clone());
    let mut command = wireloom().command(&namespace, &interface).unwrap();
    command.args(arguments);
    let next = Daemon::start(&mut command, &namespace, &interface).unwrap();
    // Dropping the one before would take away what is the next one's now.
    std::mem::forget(std::mem::replace(&mut end.daemon, next));
}

/// By one change, and with no endpoint: where the peer is the daemon has from the one before.
fn configure(end: &End, other: &End, preshared: Option<&SecretFile>) {
    let allowed = format!("{}/32,{}/128", other.v4, other.v6);
    let (key, port) = (end.keys.private.path(), end.listen_port.to_string());
    let preshared = preshared.map(SecretFile::path);
    let mut arguments = vec!["private-key", &key, "listen-port", &port, "peer", &other.keys.public];
    arguments.extend(["allowed-ips", &allowed]);
    if let Some(path) = &preshared {
        arguments.extend(["preshared-key", path]);
    }
    end.daemon.set(&arguments).unwrap();
}

pub fn heir(end: &End) -> std::path::PathBuf {
    format!("/run/wireloom/{}.heir", end.daemon.interface).into()
}

pub fn has_interface(end: &End) -> bool {
    end.namespace().ip(&["link", "show", "dev", &end.daemon.interface]).is_ok()
}

/// What an end itself has sent.
fn sent(capture: &Capture, end: &End) -> Vec<Heard> {
    capture.heard().into_iter().filter(|heard| heard.from.port() == end.listen_port).collect()
}

pub fn answers(from: &End, to: &End, patience: &str) -> bool {
    ping::once(from.namespace(), to.v4.into(), &["-W", patience]).unwrap().status.success()
}

/// The number of the map with the sessions' keys.
pub fn keys_map(end: &End) -> u32 {
    let folder = fs::read_dir(format!("/proc/{}/fdinfo", end.daemon.process.id())).unwrap();
    // One may be closed meanwhile.
    let texts = folder.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap_or_default());
    let number = |text: String| text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse::<u32>().ok());
    let is_keys = |number: &u32| {
        let shown = end.namespace().run("bpftool", &["-j", "map", "show", "id", &number.to_string()]).unwrap();
        serde_json::from_str::<serde_json::Value>(&shown).unwrap()["name"] == "keys"
    };
    texts.filter_map(number).find(is_keys).expect("one of its maps is `keys`")
}

/// How many sessions have keys, of what `bpftool -j map dump` says of the map. A value begins with the two keys.
pub fn keys_in(dump: &str) -> usize {
    let dump: serde_json::Value = serde_json::from_str(dump).unwrap();
    let entries = dump.as_array().unwrap();
    assert!(entries.len() >= 4, "{} entries", entries.len());
    let key = |entry: &serde_json::Value| entry["value"].as_array().unwrap()[..64].iter().any(|byte| byte != "0x00");
    entries.iter().filter(|entry| key(entry)).count()
}

/// How many sessions have keys in the kernel.
pub fn keys_of(end: &End) -> usize {
    let map = keys_map(end).to_string();
    keys_in(&end.namespace().run("bpftool", &["-j", "map", "dump", "id", &map]).unwrap())
}

#[test]
fn nothing_is_lost_while_the_daemon_is_killed_and_started_again() {
    let mut tunnel = tunnel();
    let (left, right) = (&tunnel.left, &mut tunnel.right);
    let captures = [left.namespace(), right.namespace()].map(|host| Capture::start(host).unwrap());
    let since = |from: &End, to: &End| from.peer(to).unwrap().handshake;
    let before = [since(left, right), since(right, left)];
    let pings = ping::start(left.namespace(), right.v4.into(), 1000, "0.01").unwrap();
    for _ in 0..2 {
        kill(right);
        // It goes on while there is no daemon at all.
        assert!((0..20).all(|_| answers(left, right, "1")));
        start(right);
        assert!((0..5).all(|_| answers(left, right, "1")), "as long as nobody says who the peers are");
        configure(right, left, None);
    }
    let pings = ping::collect(pings, LIMIT).unwrap();
    assert_eq!((pings.sent, pings.received), (1000, 1000));
    assert_eq!([since(left, right), since(right, left)], before, "it is the same session");
    let said = [sent(&captures[0], left), sent(&captures[1], right)];
    for messages in &said {
        let mut nonces = HashSet::new();
        for message in messages {
            assert_eq!(message.payload[0], 4, "no handshake");
            assert!(nonces.insert(message.payload[4..16].to_vec()), "a nonce is used twice");
        }
        assert!(nonces.len() >= 1000, "{}", nonces.len());
    }
    // What was taken by the daemon before is not taken again by this one.
    let replayed = || right.daemon.drops().unwrap()["replayed"];
    let socket = left.namespace().inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let (recorded, count) = (&said[0][10], replayed());
    socket.send_to(&recorded.payload, recorded.to).unwrap();
    wait_until("the repetition to be refused", SOON, || replayed() == count + 1).unwrap();
    let endpoint = right.daemon.status().unwrap().peer(&left.keys.public).unwrap().endpoint;
    assert_ne!(endpoint, Some(socket.local_addr().unwrap()), "and believed in nothing");
}

#[test]
fn streams_live_through_one_death_after_another() {
    let mut tunnel = tunnel();
    let (left, right) = (&mut tunnel.left, &mut tunnel.right);
    let since = |from: &End, to: &End| from.peer(to).unwrap().handshake;
    let before = [since(left, right), since(right, left)];
    // As long as it may ever take; it is ended.
    let stream = Stream::start(left, right, 120);
    let mut tcp = Conversation::start(left.namespace(), right.v4.into(), 50_000, Duration::from_millis(20)).unwrap();
    tcp.wait_for(5, LIMIT).unwrap();
    let mut without = 0;
    for at in 0..3 {
        let (end, other) = if at % 2 == 0 { (&mut *right, &*left) } else { (&mut *left, &*right) };
        kill(end);
        let (killed, rounds) = (Instant::now(), tcp.rounds());
        tcp.wait_for(10, LIMIT).unwrap();
        wait_until("some time to pass", LIMIT, || killed.elapsed() > GONE).unwrap();
        without += tcp.rounds() - rounds;
        start(end);
        tcp.wait_for(3, LIMIT).unwrap();
        configure(end, other, None);
        tcp.wait_for(3, LIMIT).unwrap();
    }
    assert!(tcp.end(LIMIT).unwrap() > without && without >= 30, "{without} rounds of TCP without a daemon");
    // What was with a daemon in the moment of its death.
    let outcome = stream.end(15);
    assert!(outcome.sent > 3 * 200, "{outcome:?}");
    assert_eq!([since(left, right), since(right, left)], before, "it is the same session");
}

/// Where the daemon's own threads move the packets, the interface goes with it. Yet the connection is the kernel's, and lives on with the next interface.
#[test]
fn tcp_goes_on_in_a_new_session_where_the_interface_went_with_its_daemon() {
    let mut tunnel = spec().build().unwrap();
    let (left, right) = (&tunnel.left, &mut tunnel.right);
    let _service = Service::start(right.namespace()).unwrap();
    let mut tcp = Conversation::start(left.namespace(), right.v4.into(), 50_000, Duration::from_millis(20)).unwrap();
    tcp.wait_for(3, LIMIT).unwrap();
    kill(right);
    wait_until("the interface to go", SOON, || !has_interface(right)).unwrap();
    let rounds = tcp.rounds();
    start_with(right, &[]);
    right.bring_up(1420).unwrap();
    // It has to begin: the peer does not know that its session is nobody's any more.
    right.add_peer(left, Some(left.endpoint(Outer::V4)), None).unwrap();
    wait_for_ping(right, left);
    tcp.wait_for(3, LIMIT).unwrap();
    assert!(tcp.end(LIMIT).unwrap() > rounds);
}

/// A successor at the right end with one key other than before takes up nothing; what was there is wiped, and all begins anew.
fn begins_anew(change: impl FnOnce(&mut End) -> Option<SecretFile>) {
    let mut tunnel = tunnel();
    let (left, right) = (&tunnel.left, &mut tunnel.right);
    let before = left.peer(right).unwrap().handshake;
    assert!(keys_of(right) > 0);
    let old = right.keys.public.clone();
    kill(right);
    start(right);
    assert!(answers(left, right, "1"), "as long as nobody says who it is");
    assert!(keys_of(right) > 0);
    let preshared = change(right);
    configure(right, left, preshared.as_ref());
    wait_until("the session to end", SOON, || !answers(left, right, "1")).unwrap();
    wait_until("its keys to be wiped", SOON, || keys_of(right) == 0).unwrap();
    assert_eq!(right.peer(left).unwrap().handshake, 0);
    left.daemon.set(&["peer", &old, "remove"]).unwrap();
    left.add_peer(right, Some(right.endpoint(Outer::V4)), preshared.as_ref()).unwrap();
    wait_for_ping(left, right);
    assert!(left.peer(right).unwrap().handshake >= before && keys_of(right) > 0);
}

#[test]
fn sessions_of_another_preshared_key_are_not_taken_over() {
    begins_anew(|_| Some(lab::wg::preshared_key().unwrap()));
}

#[test]
fn sessions_of_another_private_key_are_not_taken_over() {
    begins_anew(|right| {
        right.keys = KeyPair::generate().unwrap();
        None
    });
}

#[test]
fn a_peer_that_moves_while_there_is_no_daemon_is_followed_by_the_next_one() {
    let mut tunnel = tunnel();
    let (left, right) = (&mut tunnel.left, &mut tunnel.right);
    let before = left.peer(right).unwrap().handshake;
    let at = right.peer(left).unwrap().endpoint;
    kill(right);
    assert!(answers(left, right, "1"));
    left.listen_port += 100;
    left.daemon.set(&["listen-port", &left.listen_port.to_string()]).unwrap();
    // That it is the same peer only a daemon finds out: programs believe nobody who says so.
    assert!((0..3).all(|_| !answers(left, right, "0.3")));
    start(right);
    configure(right, left, None);
    wait_until("an answer to where the peer is now", SOON, || answers(left, right, "1")).unwrap();
    let moved = right.peer(left).unwrap();
    assert_eq!(moved.endpoint, Some(left.endpoint(Outer::V4)));
    assert_ne!(moved.endpoint, at);
    assert_eq!([moved.handshake, left.peer(right).unwrap().handshake], [before; 2], "it is the same session");
    // And its programs do it alone again, as soon as they know where the peer is now.
    wait_until_carried(left, right);
    kill(right);
    assert!((0..5).all(|_| answers(left, right, "1")));
}

#[test]
fn what_a_killed_daemon_left_goes_with_its_interface_or_its_keeper() {
    let mut tunnel = tunnel();
    let (left, right) = (&tunnel.left, &mut tunnel.right);
    let keeper = steward(right);
    kill(right);
    wait_until("an answer without a daemon", SOON, || answers(left, right, "1")).unwrap();
    wait_until("the keeper to wait for a successor", SOON, || heir(right).exists()).unwrap();
    right.namespace().ip(&["link", "delete", &right.daemon.interface]).unwrap();
    wait_until("the keeper to end", SOON, || test_kill_process(keeper).is_err()).unwrap();
    assert!(!heir(right).exists() && !lab::socket_path(&right.daemon.interface).exists());
    let attached = right.namespace().run("bpftool", &["net"]).unwrap();
    assert!(!attached.contains("wl_"), "{attached}");
    // The next one begins anew; and is killed together with its steward.
    start(right);
    right.bring_up(1420).unwrap();
    right.add_peer(left, Some(left.endpoint(lab::Outer::V4)), None).unwrap();
    wait_for_ping(right, left);
    let keeper = steward(right);
    kill_process(keeper, Signal::KILL).unwrap();
    kill(right);
    wait_until("the interface to go", SOON, || !has_interface(right)).unwrap();
    start(right);
    right.bring_up(1420).unwrap();
    right.add_peer(left, Some(left.endpoint(lab::Outer::V4)), None).unwrap();
    wait_for_ping(right, left);
}

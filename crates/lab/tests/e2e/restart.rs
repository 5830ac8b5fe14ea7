//! The engine whose programs run in the kernel, when its daemon dies: the tunnel goes on, and the next daemon takes it up where it is.

use std::collections::HashSet;
use std::net::UdpSocket;

use lab::capture::{Capture, Heard};
use lab::wg::SecretFile;
use lab::{Daemon, End, Tunnel, ping, wait_until};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::common::{LIMIT, SOON, spec, wait_for_ping, wireloom};

const ENGINE: [&str; 2] = ["--engine", "ebpf"];

fn tunnel() -> Tunnel {
    let mut spec = spec();
    spec.arguments = ENGINE.to_vec();
    let mut tunnel = spec.build().unwrap();
    let (left, right) = (&mut tunnel.left, &mut tunnel.right);
    wait_for_ping(left, right);
    wait_until("the programs to carry pings alone", SOON, || {
        let stop = |end: &mut End, signal| end.daemon.process.signal(signal);
        stop(right, Signal::STOP);
        let carried = answers(left, right, "1");
        stop(right, Signal::CONT);
        carried
    })
    .unwrap();
    tunnel
}

/// The daemon's only child.
fn steward(end: &End) -> Pid {
    let id = end.daemon.process.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    Pid::from_raw(children.trim().parse().expect("one child, the steward")).unwrap()
}

fn kill(end: &mut End) {
    end.daemon.process.signal(Signal::KILL);
    end.daemon.process.wait(LIMIT).unwrap();
}

/// Starts another daemon for the same interface.
fn start(end: &mut End) {
    let (namespace, interface) = (end.daemon.namespace.clone(), end.daemon.interface.clone());
    let mut command = wireloom().command(&namespace, &interface).unwrap();
    command.args(ENGINE);
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

fn heir(end: &End) -> std::path::PathBuf {
    format!("/run/wireloom/{}.heir", end.daemon.interface).into()
}

fn has_interface(end: &End) -> bool {
    end.namespace().ip(&["link", "show", "dev", &end.daemon.interface]).is_ok()
}

/// What an end itself has sent.
fn sent(capture: &Capture, end: &End) -> Vec<Heard> {
    capture.heard().into_iter().filter(|heard| heard.from.port() == end.listen_port).collect()
}

fn answers(from: &End, to: &End, patience: &str) -> bool {
    ping::once(from.namespace(), to.v4.into(), &["-W", patience]).unwrap().status.success()
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
fn sessions_of_another_preshared_key_are_not_taken_over() {
    let mut tunnel = tunnel();
    let (left, right) = (&tunnel.left, &mut tunnel.right);
    kill(right);
    start(right);
    assert!(answers(left, right, "1"));
    configure(right, left, Some(&lab::wg::preshared_key().unwrap()));
    wait_until("the session to end", SOON, || !answers(left, right, "1")).unwrap();
    assert_eq!(right.peer(left).unwrap().handshake, 0);
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

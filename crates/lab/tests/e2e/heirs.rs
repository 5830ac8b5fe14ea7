//! What a killed daemon left, and those that come for it and are not the one: a start that fails, a daemon of the same name elsewhere, a daemon that lives.

use std::net::TcpListener;
use std::path::PathBuf;

use lab::{End, Namespace, Outer, Tunnel, ping, wait_until};
use rustix::process::Signal;

use crate::common::{LIMIT, SOON, spec, wait_for_ping, wait_until_carried, wireloom};

fn tunnel(hooks: &'static [&'static str]) -> Tunnel {
    let mut spec = spec();
    spec.arguments = [&["--engine", "ebpf"], hooks].concat();
    let mut tunnel = spec.build().unwrap();
    let (left, right) = (&mut tunnel.left, &mut tunnel.right);
    wait_until_carried(left, right);
    right.daemon.process.signal(Signal::KILL);
    right.daemon.process.wait(LIMIT).unwrap();
    wait_until("the keeper to wait for a successor", SOON, || heir(right).exists()).unwrap();
    tunnel
}

fn answers(from: &End, to: &End) -> bool {
    ping::once(from.namespace(), to.v4.into(), &["-W", "1"]).unwrap().status.success()
}

/// What stands at the end's interfaces, by whatever hook.
fn attached(end: &End) -> String {
    let tc = |device: &str, side| end.namespace().run("tc", &["filter", "show", "dev", device, side]).unwrap();
    let underlay = end.port.interface.as_str();
    let (tunnel, net) = (end.daemon.interface.as_str(), end.namespace().run("bpftool", &["net"]).unwrap());
    net + &tc(underlay, "ingress") + &tc(tunnel, "egress")
}

/// Where the peer is the daemon has from the one before, or hears from the peer.
fn configure(end: &End, other: &End) {
    let (key, port, allowed) = (end.keys.private.path(), end.listen_port.to_string(), format!("{}/32", other.v4));
    let peer = ["peer", &other.keys.public, "allowed-ips", &allowed];
    end.daemon.set(&[&["private-key", &key, "listen-port", &port][..], &peer].concat()).unwrap();
}

fn heir(end: &End) -> PathBuf {
    format!("/run/wireloom/{}.heir", end.daemon.interface).into()
}

#[test]
fn a_start_that_fails_leaves_everything_as_it_was() {
    // By links and by filters.
    for hooks in [&[][..], &["--hooks", "filter"]] {
        let mut tunnel = tunnel(hooks);
        let (left, right) = (&tunnel.left, &mut tunnel.right);
        let before = attached(right);
        let taken = right.namespace().inside(|| TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = taken.local_addr().unwrap().to_string();
        for _ in 0..2 {
            let mut command = wireloom().command(right.namespace(), &right.daemon.interface).unwrap();
            command.args(["--engine", "ebpf", "--metrics", &port]).args(hooks);
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains("in use"), "{said}");
            assert!((0..5).all(|_| answers(left, right)));
            assert_eq!(attached(right), before);
            assert!(heir(right).exists());
        }
        drop(taken);
        // The next one that can carries on.
        let (namespace, interface) = (right.daemon.namespace.clone(), right.daemon.interface.clone());
        let mut command = wireloom().command(&namespace, &interface).unwrap();
        command.args(["--engine", "ebpf"]).args(hooks);
        let next = lab::Daemon::start(&mut command, &namespace, &interface).unwrap();
        std::mem::forget(std::mem::replace(&mut right.daemon, next));
        assert!(answers(left, right), "as long as nobody says who the peers are");
        configure(right, left);
        assert!((0..5).all(|_| answers(left, right)));
        assert_ne!(right.peer(left).unwrap().handshake, 0, "it is the same session");
    }
}

#[test]
fn what_another_daemon_of_the_name_has_left_is_left_alone() {
    let mut tunnel = tunnel(&["--hooks", "filter"]);
    let (left, right) = (&tunnel.left, &mut tunnel.right);
    let elsewhere = Namespace::new().unwrap();
    let mut command = wireloom().command(&elsewhere, &right.daemon.interface).unwrap();
    command.args(["--engine", "ebpf"]).env("LOG_LEVEL", "debug");
    let before = std::fs::metadata(heir(right)).unwrap();
    let other = lab::Daemon::start(&mut command, &elsewhere, &right.daemon.interface).unwrap();
    let after = std::fs::metadata(heir(right)).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&before), std::os::unix::fs::MetadataExt::ino(&after));
    assert!(answers(left, right));
    drop(other);
    assert!(heir(right).exists() && answers(left, right));
    // One of the place that has no programs: none are left that would let anything past it.
    let (namespace, interface) = (right.daemon.namespace.clone(), right.daemon.interface.clone());
    let mut command = wireloom().command(&namespace, &interface).unwrap();
    let next = lab::Daemon::start(command.args(["--engine", "userspace"]), &namespace, &interface).unwrap();
    std::mem::forget(std::mem::replace(&mut right.daemon, next));
    wait_until("the programs to go", SOON, || !attached(right).contains("wl_") && !heir(right).exists()).unwrap();
    assert!(!answers(left, right));
    configure(right, left);
    let endpoint = left.endpoint(Outer::V4).to_string();
    right.daemon.set(&["peer", &left.keys.public, "endpoint", &endpoint]).unwrap();
    wait_for_ping(right, left);
}

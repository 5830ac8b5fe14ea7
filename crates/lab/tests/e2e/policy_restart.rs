//! The rules of a daemon that dies hold until the next one's do: nothing passes against either, not for a moment.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lab::{Daemon, End, ping, wait_until};
use rustix::process::Signal;

use crate::common::{LIMIT, SOON, spec, wait_for_ping, wait_until_carried, wireloom};

/// Where datagrams go that a rule for everybody takes, and that a rule for the peer takes.
const PORTS: [u16; 2] = [7100, 7101];

/// Datagrams to both ports of the other end, a thousand in a second, while it lives.
struct Flood {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(from: &End, to: &End) -> Flood {
        let socket = from.namespace().inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ended, to) = (sent.clone(), stop.clone(), to.v4);
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                for port in PORTS {
                    // What cannot be sent just now is not received either.
                    let _ = socket.send_to(b"forbidden", (to, port));
                }
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Flood { sent, stop, thread: Some(thread) }
    }

    /// Waits until so many more have been sent.
    fn wait(&self, more: u64) {
        let until = self.sent.load(Ordering::Relaxed) + more;
        wait_until("datagrams to be sent", LIMIT, || self.sent.load(Ordering::Relaxed) >= until).unwrap();
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn kill(end: &mut End) {
    end.daemon.process.signal(Signal::KILL);
    end.daemon.process.wait(LIMIT).unwrap();
}

/// Starts another daemon for the same interface.
fn start(end: &mut End, arguments: &[&str]) {
    let (namespace, interface) = (end.daemon.namespace.clone(), end.daemon.interface.clone());
    let mut command = wireloom().command(&namespace, &interface).unwrap();
    command.args(["--engine", "ebpf"]).args(arguments);
    let next = Daemon::start(&mut command, &namespace, &interface).unwrap();
    // Dropping the one before would take away what is the next one's now.
    std::mem::forget(std::mem::replace(&mut end.daemon, next));
}

fn configure(end: &End, other: &End) {
    let (allowed, key, port) = (format!("{}/32", other.v4), end.keys.private.path(), end.listen_port.to_string());
    let device = ["private-key", &key, "listen-port", &port];
    let peer = ["peer", &other.keys.public, "allowed-ips", &allowed];
    end.daemon.set(&[device, peer].concat()).unwrap();
}

fn policy(end: &End, file: &str) {
    let program = wireloom().program().unwrap().display().to_string();
    end.namespace().run(&program, &["policy", &end.daemon.interface, file]).unwrap();
}

fn answers(from: &End, to: &End) -> bool {
    ping::once(from.namespace(), to.v4.into(), &["-W", "2"]).unwrap().status.success()
}

#[test]
fn no_packet_passes_against_the_rules_while_one_daemon_follows_another() {
    let mut spec = spec();
    spec.arguments = vec!["--engine", "ebpf"];
    let mut tunnel = spec.build().unwrap();
    let (left, right) = (&tunnel.left, &mut tunnel.right);
    wait_for_ping(left, right);
    let heard = PORTS.map(|port| {
        let socket = right.namespace().inside(|| UdpSocket::bind((right.v4, port))).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    });
    let passed = |socket: &UdpSocket| socket.recv(&mut [0; 64]).is_ok();
    let check = |when: &str| {
        for (socket, port) in heard.iter().zip(PORTS) {
            assert!(!passed(socket), "{when}: a datagram to {port} has passed");
        }
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    let [all, peers] = PORTS;
    let rules = format!("drop in proto=udp dport={all}\ndrop in peer={} proto=udp dport={peers}\n", left.keys.public);
    std::fs::write(file.path(), rules).unwrap();
    let path = file.path().to_str().unwrap();
    policy(right, path);
    // The programs carry it alone, so that they go on without a daemon.
    wait_until_carried(left, right);
    let flood = Flood::start(left, right);
    flood.wait(100);
    check("before");
    // One that is told the rules at its start, and one that is told before it has peers, as `up` does it.
    for at_start in [true, false] {
        kill(right);
        assert!(answers(left, right), "it goes on");
        flood.wait(100);
        check("without a daemon");
        let arguments = ["--policy", path];
        start(right, &arguments[..if at_start { 2 } else { 0 }]);
        flood.wait(100);
        assert!(answers(left, right), "as long as nobody says who the peers are");
        check("before it is configured");
        if !at_start {
            policy(right, path);
            flood.wait(100);
            check("when it has the rules and no peers");
        }
        configure(right, left);
        flood.wait(100);
        assert!(answers(left, right));
        check("when it is configured");
    }
    // Who is configured without any has none.
    kill(right);
    start(right, &[]);
    flood.wait(100);
    check("before it is configured without rules");
    configure(right, left);
    for socket in &heard {
        wait_until("datagrams to pass", SOON, || passed(socket)).unwrap();
    }
}

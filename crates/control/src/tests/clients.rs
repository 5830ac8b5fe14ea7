//! Clients of the configuration socket, over a real one.

use super::{device, report};
use crate::device::Device;
use crate::uapi::Server;
use config::uapi::{PeerEvent, PeerEventKind};
use linux::unix::Listener;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const KEY: &str = "b111111111111111111111111111111111111111111111111111111111111111";

/// So long a test waits for what must come, before it fails.
const LIMIT: Duration = Duration::from_secs(20);

struct Served {
    device: Arc<Device>,
    path: PathBuf,
    // Dropped in this order.
    _server: Server,
    _folder: tempfile::TempDir,
}

fn serve() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wg0.sock");
    let (device, _) = device();
    let server = Server::start(Listener::bind(&path).unwrap(), device.clone()).unwrap();
    Served { device, path, _server: server, _folder: folder }
}

impl Served {
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }
}

/// Sends a request, and reads up to the empty line.
fn ask(stream: &mut UnixStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    while !reply.ends_with("\n\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        reply.push(char::from(byte[0]));
    }
    reply
}

/// What one request on a connection of its own is answered, and whether it may go on.
fn refused(served: &Served, request: &str) -> (String, bool) {
    let mut stream = served.connect();
    let reply = ask(&mut stream, request);
    stream.write_all(b"get=1\n\n").ok();
    let goes_on = stream.read(&mut [0]).is_ok_and(|len| len == 1);
    (reply, goes_on)
}

#[test]
fn a_connection_serves_several_requests() {
    let served = serve();
    let mut stream = served.connect();
    assert_eq!(ask(&mut stream, "get=1\n\n"), "errno=0\n\n");
    let set = format!("set=1\nlisten_port=7\nfwmark=8\npublic_key={KEY}\nallowed_ip=10.0.0.0/8\n\n");
    assert_eq!(ask(&mut stream, &set), "errno=0\n\n");
    let expected = format!(
        "listen_port=7\nfwmark=8\npublic_key={KEY}\npreshared_key={:0>64}\nprotocol_version=1\n\
         last_handshake_time_sec=0\nlast_handshake_time_nsec=0\ntx_bytes=0\nrx_bytes=0\n\
         persistent_keepalive_interval=0\nallowed_ip=10.0.0.0/8\nerrno=0\n\n",
        ""
    );
    assert_eq!(ask(&mut stream, "get=1\n\n"), expected);
    // Two at once are answered one after the other.
    stream.write_all(b"get=1\n\nset=1\nlisten_port=9\n\nget=1\n\n").unwrap();
    assert_eq!(ask(&mut stream, ""), expected);
    assert_eq!(ask(&mut stream, ""), "errno=0\n\n");
    assert_eq!(ask(&mut stream, ""), expected.replace("listen_port=7", "listen_port=9"));
}

#[test]
fn the_reply_to_a_set_comes_in_one_piece() {
    let served = serve();
    let mut stream = served.connect();
    stream.write_all(b"set=1\nlisten_port=7\n\n").unwrap();
    let mut reply = [0; 32];
    let len = stream.read(&mut reply).unwrap();
    assert_eq!(&reply[..len], b"errno=0\n\n");
}

#[test]
fn a_refused_set_has_changed_nothing() {
    let served = serve();
    for (request, reply, goes_on) in [
        (format!("set=1\nlisten_port=7\npublic_key={KEY}\nallowed_ip=nonsense\n\n"), "errno=-22\n\n", true),
        ("set=1\nlisten_port=7\nno_such_key=1\n\n".to_owned(), "errno=-22\n\n", true),
        ("set=1\nlisten_port=7\nnonsense\n\n".to_owned(), "errno=-71\n\n", true),
        ("get=1\nlisten_port=7\n\n".to_owned(), "errno=22\n\n", true),
        ("put=1\n\n".to_owned(), "errno=-71\n\n", false),
        (format!("set=1\nlisten_port=7\n{}", "x".repeat(600)), "errno=-71\n\n", false),
    ] {
        assert_eq!(refused(&served, &request), (reply.to_owned(), goes_on), "{request}");
        let told = report(&served.device);
        assert_eq!((told.listen_port, told.peers.len()), (0, 0), "{request}");
    }
    // Whoever hangs up in the middle has said nothing.
    let mut stream = served.connect();
    stream.write_all(b"set=1\nlisten_port=7\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert_eq!((reply.as_str(), report(&served.device).listen_port), ("errno=-71\n\n", 0));
}

#[test]
fn a_port_in_use_is_told_to_the_client() {
    let served = serve();
    served.device.set_up(true);
    let taken = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut stream = served.connect();
    let before = report(&served.device).listen_port;
    assert_eq!(ask(&mut stream, &format!("set=1\nlisten_port={port}\n\n")), "errno=-98\n\n");
    assert_eq!(report(&served.device).listen_port, before);
    served.device.set_up(false);
}

#[test]
fn clients_that_stall_hold_up_nobody() {
    let served = serve();
    // One in the middle of a request, and one that asked for more than a socket holds and does not read.
    let mut half = served.connect();
    half.write_all(b"set=1\nlisten_port=7\n").unwrap();
    let mut set = String::from("set=1\n");
    for number in 0..5000 {
        set += &format!("public_key={number:0>64}\n");
    }
    assert_eq!(ask(&mut served.connect(), &(set + "\n")), "errno=0\n\n");
    let mut deaf = served.connect();
    deaf.write_all(b"get=1\n\n").unwrap();
    let mut first = [0; 8];
    deaf.read_exact(&mut first).unwrap();
    // It has begun, and cannot end.
    let mut third = served.connect();
    assert_eq!(ask(&mut third, "set=1\nreplace_peers=true\nfwmark=5\n\n"), "errno=0\n\n");
    assert_eq!(ask(&mut third, "get=1\n\n"), "fwmark=5\nerrno=0\n\n");
    assert_eq!(ask(&mut half, "\n"), "errno=0\n\n");
    assert_eq!(ask(&mut third, "get=1\n\n"), "listen_port=7\nfwmark=5\nerrno=0\n\n");
}

#[test]
fn the_client_that_is_silent_longest_makes_room() {
    let served = serve();
    let mut clients: Vec<_> = (0..32).map(|_| served.connect()).collect();
    for client in &mut clients {
        assert_eq!(ask(client, "get=1\n\n"), "errno=0\n\n");
    }
    // The first has said something since.
    assert_eq!(ask(&mut clients[0], "get=1\n\n"), "errno=0\n\n");
    assert_eq!(ask(&mut served.connect(), "get=1\n\n"), "errno=0\n\n");
    assert_eq!(clients[1].read(&mut [0; 1]).unwrap(), 0, "it is hung up on");
    for number in (2..32).chain([0]) {
        assert_eq!(ask(&mut clients[number], "get=1\n\n"), "errno=0\n\n", "client {number}");
    }
}

#[test]
fn a_thousand_connections_are_thirty_two() {
    // Both ends of the connections are ours: with what else this process holds they may be more descriptors than one gets unasked.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let served = serve();
    let threads = || {
        let names = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let is_client = |task: &std::fs::DirEntry| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "uapi-client")
        };
        names.filter(is_client).count()
    };
    let mut crowd = Vec::new();
    for number in 0..1000 {
        let mut client = served.connect();
        // Half of them in the middle of a request; whoever has been hung up on already does not hear it.
        let _ = client.write_all(if number % 2 == 0 { b"set=1\nlisten_port=7\n" } else { b"" });
        crowd.push(client);
        if number % 100 == 0 {
            assert_eq!(ask(&mut served.connect(), "get=1\n\n"), "errno=0\n\n");
        }
    }
    assert_eq!(ask(&mut served.connect(), "get=1\n\n"), "errno=0\n\n");
    // Other tests of this process have clients of their own, a few.
    assert!(threads() < 32 * 4, "{} threads", threads());
    assert_eq!(report(&served.device).listen_port, 0);
}

#[test]
fn a_request_comes_byte_by_byte() {
    let served = serve();
    let mut stream = served.connect();
    for byte in b"set=1\nlisten_port=7\n\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(ask(&mut stream, ""), "errno=0\n\n");
    assert_eq!(report(&served.device).listen_port, 7);
}

#[test]
fn a_client_that_hangs_up_in_the_middle_of_a_reply_ends_nothing() {
    let served = serve();
    let set: String = (0..5000).map(|number| format!("public_key={number:0>64}\n")).collect();
    assert_eq!(ask(&mut served.connect(), &format!("set=1\n{set}\n")), "errno=0\n\n");
    for _ in 0..50 {
        let mut stream = served.connect();
        stream.write_all(b"get=1\n\n").unwrap();
        stream.read_exact(&mut [0; 100]).unwrap();
    }
    assert!(ask(&mut served.connect(), "get=1\n\n").ends_with("\nerrno=0\n\n"));
}

#[test]
fn what_never_ends_is_ended() {
    let served = serve();
    let endless = |piece: &[u8]| -> String {
        let mut stream = served.connect();
        let piece = piece.repeat((1 << 20) / piece.len());
        // Far more than is taken: it is cut off while it talks.
        let cut = (0..400).any(|_| stream.write_all(&piece).is_err());
        assert!(cut, "400 MB were taken");
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        String::from_utf8(reply).unwrap()
    };
    for piece in ["x", "\n"] {
        // The answer may be lost with the connection, if it is cut off while we write.
        assert!(["errno=-71\n\n", ""].contains(&endless(piece.as_bytes()).as_str()));
    }
    let mut stream = served.connect();
    stream.write_all(b"set=1\n").unwrap();
    let line = format!("public_key={KEY}\n").repeat(10_000);
    assert!((0..600).any(|_| stream.write_all(line.as_bytes()).is_err()), "450 MB were taken");
    assert_eq!(report(&served.device).peers.len(), 0);
    assert_eq!(ask(&mut served.connect(), "get=1\n\n"), "errno=0\n\n");
}

#[test]
fn the_socket_goes_with_the_server() {
    let Served { path, _server, _folder, .. } = serve();
    drop(_server);
    assert!(!path.exists());
    assert!(UnixStream::connect(path).is_err());
}

#[test]
fn a_watcher_takes_no_place_and_hears_of_its_peers_only() {
    let served = serve();
    let other = KEY.replace('1', "2");
    let mut named = served.connect();
    assert_eq!(ask(&mut named, &format!("watch=1\npublic_key={KEY}\n\n")), "errno=0\n\n");
    let mut all = served.connect();
    assert_eq!(ask(&mut all, "watch=1\n\n"), "errno=0\n\n");
    // As many others as there are places, and more.
    let mut clients: Vec<_> = (0..40).map(|_| served.connect()).collect();
    assert_eq!(ask(clients.last_mut().unwrap(), "get=1\n\n"), "errno=0\n\n");
    let tell = |key: &str| {
        let public_key = config::key::from_hex(key.as_bytes()).unwrap();
        served.device.watchers.tell(&PeerEvent { kind: PeerEventKind::Failing, public_key, endpoint: None });
    };
    tell(&other);
    tell(KEY);
    assert_eq!(ask(&mut named, ""), format!("event=failing\npublic_key={KEY}\n\n"));
    assert_eq!(ask(&mut all, ""), format!("event=failing\npublic_key={other}\n\n"));
    assert_eq!(ask(&mut all, ""), format!("event=failing\npublic_key={KEY}\n\n"));
}

#[test]
fn watchers_are_bounded_and_who_does_not_read_is_cut_off() {
    let served = serve();
    let watch = || {
        let mut stream = served.connect();
        let answer = ask(&mut stream, "watch=1\n\n");
        (stream, answer)
    };
    let mut watchers: Vec<_> = (0..8).map(|_| watch()).collect();
    assert!(watchers.iter().all(|(_, answer)| answer == "errno=0\n\n"));
    let (mut refused, answer) = watch();
    assert_eq!(answer, "errno=16\n\n");
    assert_eq!(ask(&mut refused, "get=1\n\n"), "errno=0\n\n", "the connection goes on");
    watchers.pop();
    assert_eq!(watch().1, "errno=0\n\n", "in the place of one who has gone");
    // Nobody reads any more, and the device is held up by nobody.
    let public_key = config::key::from_hex(KEY.as_bytes()).unwrap();
    let mut told = 0;
    while !served.device.watchers.is_empty() {
        served.device.watchers.tell(&PeerEvent { kind: PeerEventKind::Failing, public_key, endpoint: None });
        told += 1;
        assert!(told < 100_000, "what waits is bounded");
    }
    assert!(told > 10, "{told}");
    let mut rest = Vec::new();
    watchers[0].0.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"\n\n"), "whole events");
}

#[test]
fn a_device_is_still_as_long_as_who_asked_for_it_is_there() {
    let served = serve();
    let key = |digit: &str| digit.repeat(64);
    let set = format!("set=1\nprivate_key={}\npublic_key={KEY}\nendpoint=127.0.0.1:9\n\n", key("8"));
    assert_eq!(ask(&mut served.connect(), &set), "errno=0\n\n");
    served.device.set_up(true);
    let peer = served.device.state().noise.peers().next().unwrap();
    let initiations = || {
        served.device.change(|state, now| state.noise.handle_session_wanted(now, peer));
        report(&served.device).peers[0].tx_bytes
    };
    let mut one = served.connect();
    assert_eq!(ask(&mut one, "wipe=1\n\n"), "errno=0\n\n");
    assert_eq!(ask(&mut one, "wipe=1\n\n"), "errno=0\n\n", "again is no more");
    let mut other = served.connect();
    assert_eq!(ask(&mut other, "wipe=1\n\n"), "errno=0\n\n");
    assert_eq!(initiations(), 0);
    drop(one);
    let still = || served.device.state().still;
    let wait = |expected| {
        let start = std::time::Instant::now();
        while still() != expected {
            assert!(start.elapsed() < LIMIT, "{} hold it still", still());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    wait(1);
    assert_eq!(initiations(), 0, "there is another");
    // The link goes down and up meanwhile.
    served.device.set_up(false);
    served.device.set_up(true);
    assert_eq!(initiations(), 0);
    drop(other);
    wait(0);
    assert_eq!(initiations(), 148);
}

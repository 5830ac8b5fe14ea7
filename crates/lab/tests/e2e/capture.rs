//! `wireloom capture`: what is in the file, whose it is, what ends it, and what it refuses.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use lab::traffic::{Service, exchange_tcp};
use lab::{End, Finished, Process, ping, run, run_checked, wait_until};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::common::{LIMIT, check_pings, our_tunnel, wireloom};
use crate::engines::each_engine_untaken;

each_engine_untaken!(
    what_is_inside_and_what_is_outside_is_captured_in_both_directions,
    super_packets_are_cut_and_the_count_is_kept,
    keys_are_in_it_when_they_are_asked_for_aloud,
);

/// A packet of a file.
struct Packet {
    interface: usize,
    nanos: u64,
    outgoing: bool,
    bytes: Vec<u8>,
}

/// What a file holds.
#[derive(Default)]
struct Contents {
    interfaces: Vec<String>,
    packets: Vec<Packet>,
    keys: Vec<String>,
    statistics: Vec<(u64, u64)>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

/// The options at the end of a block, which end with that of code 0 and nothing behind it.
fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut options = Vec::new();
    loop {
        let (code, len) = (half(bytes, 0), usize::from(half(bytes, 2)));
        if code == 0 {
            assert_eq!((len, bytes.len()), (0, 4));
            return options;
        }
        options.push((code, bytes[4..4 + len].to_vec()));
        bytes = &bytes[4 + len.next_multiple_of(4)..];
    }
}

/// Reads a file strictly: every length, padding and reference has to be right.
fn read(path: &Path) -> Contents {
    let bytes = fs::read(path).unwrap();
    let (mut rest, mut contents) = (&bytes[..], Contents::default());
    assert_eq!((word(rest, 0), word(rest, 8)), (0x0a0d_0d0a, 0x1a2b_3c4d));
    while !rest.is_empty() {
        let (kind, len) = (word(rest, 0), word(rest, 4) as usize);
        assert!(len.is_multiple_of(4) && len >= 12 && word(rest, len - 4) as usize == len, "{kind:#x}: {len}");
        let body = &rest[8..len - 4];
        rest = &rest[len..];
        match kind {
            0x0a0d_0d0a => {
                assert_eq!((half(body, 4), half(body, 6)), (1, 0));
                assert!(options(&body[16..]).iter().any(|(code, text)| *code == 4 && text.starts_with(b"wireloom ")));
            }
            1 => {
                assert_eq!(half(body, 0), 101);
                let options = options(&body[8..]);
                let name = options.iter().find(|(code, _)| *code == 2).unwrap();
                assert!(options.contains(&(9, vec![9])), "nanoseconds");
                contents.interfaces.push(String::from_utf8(name.1.clone()).unwrap());
            }
            6 => {
                let (kept, whole) = (word(body, 12) as usize, word(body, 16) as usize);
                assert_eq!(kept, whole);
                let padded = kept.next_multiple_of(4);
                assert!(body[20 + kept..20 + padded].iter().all(|byte| *byte == 0));
                let outgoing = match &options(&body[20 + padded..])[..] {
                    [(2, flags)] if *flags == [1, 0, 0, 0] => false,
                    [(2, flags)] if *flags == [2, 0, 0, 0] => true,
                    other => panic!("{other:?}"),
                };
                let interface = word(body, 0) as usize;
                assert!(interface < contents.interfaces.len());
                let nanos = u64::from(word(body, 4)) << 32 | u64::from(word(body, 8));
                contents.packets.push(Packet { interface, nanos, outgoing, bytes: body[20..20 + kept].to_vec() });
            }
            5 => {
                let number = |of| {
                    let options = options(&body[12..]);
                    let (_, value) = options.iter().find(|(code, _)| *code == of).unwrap();
                    u64::from_le_bytes(value[..].try_into().unwrap())
                };
                contents.statistics.push((number(4), number(5)));
            }
            10 => {
                assert!(contents.packets.is_empty());
                assert_eq!(body[..4], *b"LKGW");
                let len = word(body, 4) as usize;
                contents.keys.push(String::from_utf8(body[8..8 + len].to_vec()).unwrap());
            }
            other => panic!("a block of type {other:#x}"),
        }
    }
    contents
}

/// Starts a capture on the interface of `end`, and waits until it listens.
fn start(end: &End, args: &[&str], file: &Path) -> Process {
    let mut command = end.namespace().command(wireloom().program().unwrap());
    command.args(["capture", &end.daemon.interface]).args(args).arg(file);
    let mut process = Process::spawn(&mut command).unwrap();
    process.wait_for_output("capturing ", LIMIT).unwrap();
    process
}

/// Ends it by a signal, and takes what it said.
fn stop(mut process: Process) -> Finished {
    process.signal(Signal::INT);
    let finished = process.finish(LIMIT).unwrap();
    assert!(finished.status.success() && finished.stderr.contains("(interrupted)"), "{}", finished.log());
    finished
}

/// Runs one to its end, and takes what it said.
fn attempt(end: &End, args: &[&str], file: &Path) -> Finished {
    let mut command = end.namespace().command(wireloom().program().unwrap());
    run(command.args(["capture", &end.daemon.interface]).args(args).arg(file), LIMIT).unwrap()
}

/// What tcpdump makes of it: a line for each packet.
fn tcpdump(file: &Path) -> Vec<String> {
    let mut command = std::process::Command::new("tcpdump");
    // As ourselves: it would become another user, who may not read the file.
    let text = run_checked(command.args(["-n", "-v", "-Z", "root", "-r"]).arg(file), LIMIT).unwrap();
    // With -v, what belongs to a packet is indented.
    text.lines().filter(|line| !line.starts_with([' ', '\t'])).map(str::to_owned).collect()
}

fn scratch() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("wg.pcapng");
    (folder, file)
}

fn capabilities_of(process: &Process) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    status.lines().filter(|line| line.starts_with("Cap")).map(|line| line.split('\t').next_back().unwrap()).collect()
}

fn what_is_inside_and_what_is_outside_is_captured_in_both_directions() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let ((_inside, inside), (_outside, outside)) = (scratch(), scratch());
    let before = std::time::SystemTime::now();
    let (plain, outer) = (start(left, &["--plain"], &inside), start(left, &["--outer"], &outside));
    // All is open: nothing more takes a privilege.
    for process in [&plain, &outer] {
        assert!(capabilities_of(process).chars().all(|digit| digit == '0'), "{}", capabilities_of(process));
    }
    for address in right.inner() {
        ping::ping(left.namespace(), address, 5, "0.05", LIMIT).unwrap();
    }
    let said = [stop(plain), stop(outer)];
    for (said, file) in said.iter().zip([&inside, &outside]) {
        let contents = read(file);
        let count = contents.packets.len();
        assert!(said.stderr.contains(&format!("{count} packets in ")), "{}", said.stderr);
        assert!(said.stderr.contains("; 0 more were dropped"), "{}", said.stderr);
        assert_eq!(contents.statistics.len(), 1);
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600);
        let earliest = before.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        for packet in &contents.packets {
            assert!((earliest..earliest + 120_000_000_000).contains(&packet.nanos), "{}", packet.nanos);
        }
        assert!(contents.packets.is_sorted_by_key(|packet| packet.nanos));
        assert_eq!(tcpdump(file).len(), count);
        // Of the keys there is no trace.
        let (bytes, keys) =
            (fs::read(file).unwrap(), [left, right].map(|end| fs::read(end.keys.private.path()).unwrap()));
        for key in keys {
            let text = key.trim_ascii();
            let raw = BASE64.decode(text).unwrap();
            assert!(!bytes.windows(text.len()).any(|part| part == text) && !bytes.windows(32).any(|part| part == raw));
        }
        assert!(contents.keys.is_empty());
    }

    let inner = read(&inside);
    assert_eq!(inner.interfaces, [left.daemon.interface.as_str()]);
    let pings = |outgoing: bool, version: u8, kind: u8| {
        let at = if version == 4 { 20 } else { 40 };
        let is = |packet: &&Packet| {
            (packet.outgoing, packet.bytes[0] >> 4, packet.bytes[at]) == (outgoing, version, kind)
                && packet.bytes.len() == at + 64
        };
        inner.packets.iter().filter(is).count()
    };
    assert_eq!([pings(true, 4, 8), pings(false, 4, 0), pings(true, 6, 128), pings(false, 6, 129)], [5; 4]);

    let sealed = read(&outside);
    assert_eq!(sealed.interfaces, [left.port.interface.as_str()]);
    let datagrams = |outgoing: bool| {
        let is = |packet: &&Packet| {
            let (from, to) = (&packet.bytes[20..22], &packet.bytes[22..24]);
            let ours = if outgoing { from } else { to };
            packet.outgoing == outgoing && ours == left.listen_port.to_be_bytes() && packet.bytes[28] == 4
        };
        sealed.packets.iter().filter(is).count()
    };
    // Ten pings and ten answers; a keepalive may be among them.
    assert!(datagrams(true) >= 10 && datagrams(false) >= 10);
    let handshakes = sealed.packets.iter().filter(|packet| packet.bytes[28] != 4).count();
    assert_eq!(datagrams(true) + datagrams(false) + handshakes, sealed.packets.len());
    assert!(sealed.packets.iter().all(|packet| packet.interface == 0));
}

fn super_packets_are_cut_and_the_count_is_kept() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let ((_inside, inside), (_outside, outside)) = (scratch(), scratch());
    let plain = start(left, &["--plain", "--count", "1500"], &inside);
    let outer = start(left, &["--outer", "--count", "1500"], &outside);
    let _service = Service::start(right.namespace()).unwrap();
    exchange_tcp(left.namespace(), right.v4.into(), 8_000_000, LIMIT).unwrap();
    for (capture, file, mtu) in [(plain, &inside, 1420), (outer, &outside, 1500)] {
        let finished = capture.finish(LIMIT).unwrap();
        assert!(finished.stderr.contains("(as many packets as were to be captured)"), "{}", finished.log());
        let contents = read(file);
        assert_eq!(contents.packets.len(), 1500);
        let longest = contents.packets.iter().map(|packet| packet.bytes.len()).max().unwrap();
        assert!((1000..=mtu).contains(&longest), "{longest}");
        for packet in &contents.packets {
            let length = u16::from_be_bytes([packet.bytes[2], packet.bytes[3]]);
            assert_eq!((packet.bytes[0], usize::from(length)), (0x45, packet.bytes.len()));
        }
        let lines = tcpdump(file);
        assert_eq!(lines.len(), 1500);
        let mut command = std::process::Command::new("tcpdump");
        let text = run_checked(command.args(["-n", "-v", "-Z", "root", "-r"]).arg(file), LIMIT).unwrap();
        let bad: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("incorrect") || line.contains("bad cksum") || line.contains("bad udp"))
            .collect();
        assert!(bad.is_empty(), "{} of 1500, such as {}", bad.len(), bad[0]);
    }
}

#[test]
fn bytes_and_seconds_are_bounds_too() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let ((_short, short), (_brief, brief)) = (scratch(), scratch());
    let by_size = start(left, &["--plain", "--size", "8K"], &short);
    let by_time = start(left, &["--plain", "--seconds", "1"], &brief);
    let finished = by_time.finish(LIMIT).unwrap();
    assert!(finished.status.success() && finished.stderr.contains("(the time is over)"), "{}", finished.log());
    assert!(finished.stderr.contains(" packets in 1."), "{}", finished.log());
    read(&brief);
    ping::ping(left.namespace(), right.v4.into(), 80, "0.01", LIMIT).unwrap();
    let finished = by_size.finish(LIMIT).unwrap();
    assert!(finished.stderr.contains("(the file is as long as it may be)"), "{}", finished.log());
    let contents = read(&short);
    let len = fs::metadata(&short).unwrap().len();
    assert!((8192 - 256..=8192).contains(&len) && contents.packets.len() > 40, "{len}");
    // When the interface goes, there is nothing more to come.
    let (_gone, gone) = scratch();
    let capture = start(left, &["--plain"], &gone);
    left.namespace().ip(&["link", "set", &left.daemon.interface, "down"]).unwrap();
    let finished = capture.finish(LIMIT).unwrap();
    assert!(finished.stderr.contains("(the interface was set down or removed)"), "{}", finished.log());
    read(&gone);
}

#[test]
fn no_file_of_another_is_written_to() {
    let tunnel = our_tunnel();
    let left = &tunnel.left;
    let (folder, file) = scratch();
    let refuses = |args: &[&str], file: &Path, why: &str| {
        let finished = attempt(left, args, file);
        assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(1), ""), "{}", finished.log());
        assert!(finished.stderr.lines().count() == 1 && finished.stderr.contains(why), "{}", finished.stderr);
    };
    fs::write(&file, "precious").unwrap();
    refuses(&["--plain"], &file, "exists already");
    let (to_file, to_nothing) = (folder.path().join("link"), folder.path().join("dangling"));
    symlink(&file, &to_file).unwrap();
    symlink(folder.path().join("nothing"), &to_nothing).unwrap();
    refuses(&["--plain"], &to_file, "exists already");
    refuses(&["--outer"], &to_nothing, "exists already");
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    assert!(!folder.path().join("nothing").exists());
    refuses(&["--plain"], &folder.path().join("no/such/folder"), "cannot make");
    refuses(&[], &folder.path().join("new"), "<--plain|--outer>");
    refuses(&["--plain", "--outer"], &folder.path().join("new"), "cannot be used with");
    refuses(&["--plain", "--count", "0"], &folder.path().join("new"), "--count");
    refuses(&["--plain", "--size", "12"], &folder.path().join("new"), "at least 4096");
    // In another network namespace there is no such interface; nothing is left behind.
    let mut command = tunnel.right.namespace().command(wireloom().program().unwrap());
    let elsewhere = folder.path().join("elsewhere");
    let finished = run(command.args(["capture", &left.daemon.interface, "--plain"]).arg(&elsewhere), LIMIT).unwrap();
    assert!(finished.stderr.contains("is not in this network namespace"), "{}", finished.log());
    assert!(!elsewhere.exists() && !folder.path().join("new").exists());
    // Its datagrams are where its daemon is, from wherever it is asked.
    let mut command = tunnel.right.namespace().command(wireloom().program().unwrap());
    let outer = folder.path().join("outer");
    let mut capture = Process::spawn(command.args(["capture", &left.daemon.interface, "--outer"]).arg(&outer)).unwrap();
    capture.wait_for_output("capturing ", LIMIT).unwrap();
    check_pings(left, &tunnel.right);
    stop(capture);
    let contents = read(&outer);
    let sent = |packet: &&Packet| packet.outgoing && packet.bytes[20..22] == left.listen_port.to_be_bytes();
    assert!(contents.packets.iter().any(|packet| sent(&packet)));
}

fn keys_are_in_it_when_they_are_asked_for_aloud() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    let psk = lab::wg::preshared_key().unwrap();
    left.daemon.set(&["peer", &right.keys.public, "preshared-key", &psk.path()]).unwrap();
    let (_folder, file) = scratch();
    let finished = attempt(left, &["--plain", "--seconds", "1", "--include-keys"], &file);
    assert!(finished.status.success() && finished.stderr.contains("warning: the file holds the private key"));
    let key = |path: String| fs::read_to_string(path).unwrap().trim().to_owned();
    let expected = format!(
        "LOCAL_STATIC_PRIVATE_KEY = {}\nREMOTE_STATIC_PUBLIC_KEY = {}\nPRESHARED_KEY = {}\n",
        key(left.keys.private.path()),
        right.keys.public,
        key(psk.path())
    );
    assert_eq!(read(&file).keys, [expected]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    // They count, too.
    for n in 0..70 {
        let key = lab::wg::KeyPair::generate().unwrap().public;
        left.daemon.set(&["peer", &key, "allowed-ips", &format!("10.9.0.{n}/32")]).unwrap();
    }
    let (_folder, file) = scratch();
    let finished = attempt(left, &["--plain", "--size", "4096", "--include-keys"], &file);
    assert!(finished.stderr.contains("alone are longer than --size allows"), "{}", finished.log());
    assert!(!file.exists());
}

#[test]
fn it_can_be_read_along() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let script = format!(
        "{} capture {} --plain - | tcpdump -n -l -Z root -c 4 -r -",
        wireloom().program().unwrap().display(),
        left.daemon.interface
    );
    let mut pipe = Process::spawn(left.namespace().command("sh").args(["-c", &script])).unwrap();
    pipe.wait_for_output("capturing ", LIMIT).unwrap();
    wait_until("tcpdump to have seen enough", Duration::from_secs(30), || {
        ping::once(left.namespace(), right.v4.into(), &["-W", "1"]).unwrap();
        pipe.status().is_some()
    })
    .unwrap();
    let log = pipe.log();
    assert!(pipe.stdout().matches("ICMP echo").count() == 4 && log.contains("has seen enough"), "{log}");
}

//! The attendant: what it may do, when it ends, and how it finds peers again by their names.
//!
//! Names are in a file that stands in the place of `/etc/hosts` in a mount namespace of the attendant's own, and nobody else is asked.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::{
    End, Finished, Gso, Hook, Link, Namespace, Outer, System, Tap, ping, unique_interface, wait_for, wait_until,
};
use tempfile::TempDir;

use crate::common::{LIMIT, SOON, check_pings, ends, introduce, ip, keep_addresses, our_tunnel, wireloom};

/// Until it is told that handshakes fail it takes three of them, and the next one goes to where the name says: 20 seconds, and some more on a machine that
/// does much else.
const FOUND: Duration = Duration::from_secs(60);

/// A host's own names, and the file of the peer that has one.
struct Names {
    folder: TempDir,
}

impl Names {
    fn new(peer: &End, host: &str, port: u16) -> Names {
        let folder = TempDir::new().unwrap();
        let file = format!(
            "[Interface]\nAddress = 10.77.0.1/24\n[Peer]\nPublicKey = {}\nEndpoint = {host}:{port}\n",
            peer.keys.public
        );
        fs::write(folder.path().join("peers.conf"), file).unwrap();
        fs::write(folder.path().join("nsswitch.conf"), "hosts: files\n").unwrap();
        fs::write(folder.path().join("hosts"), "").unwrap();
        Names { folder }
    }

    /// What the names stand for from now on. The file stays the same one, since others see it in another place.
    fn say(&self, lines: &[String]) {
        fs::write(self.folder.path().join("hosts"), lines.join("\n") + "\n").unwrap();
    }

    /// A command of ours on the host of `end`, where these names are known.
    fn command(&self, end: &End, args: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        let script = "mount --bind \"$0/hosts\" /etc/hosts && mount --bind \"$0/nsswitch.conf\" /etc/nsswitch.conf && exec \"$@\"";
        command
            .args(["--mount", "ip", "netns", "exec", end.namespace().name(), "sh", "-c", script])
            .arg(self.folder.path());
        command.arg(wireloom().program().unwrap()).args(args);
        command
    }

    /// Has the interface attended to.
    fn attend(&self, end: &End) {
        let file = self.folder.path().join("peers.conf");
        let mut command = self.command(end, &["attend", &end.daemon.interface, "--file", file.to_str().unwrap()]);
        lab::run_checked(&mut command, LIMIT).unwrap();
    }
}

/// The process that attends to an interface, if there is one.
fn attendant(interface: &str) -> Option<u32> {
    let is_it = |pid: &u32| {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let line = read("cmdline");
        read("comm") == b"wl-attendant\n" && line.split(|&byte| byte == 0).any(|word| word == interface.as_bytes())
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.into_iter().find(is_it)
}

fn place(interface: &str) -> std::path::PathBuf {
    Path::new("/run/wireloom").join(format!("{interface}.attendant"))
}

fn attend(namespace: &Namespace, args: &[&str]) -> Finished {
    let System::Wireloom(program, _) = wireloom() else { unreachable!("it is ours") };
    lab::run(namespace.command(program).arg("attend").args(args), LIMIT).unwrap()
}

/// A ping is sent again and again until one comes back, from the address where the peer is then.
#[track_caller]
fn wait_until_found(from: &End, to: &End) {
    let what = format!("{} to be found", to.v4);
    wait_until(&what, FOUND, || {
        ping::once(from.namespace(), to.v4.into(), &["-W", "1"]).is_ok_and(|finished| finished.status.success())
    })
    .unwrap();
}

#[test]
fn it_has_no_privilege_and_ends_with_the_interface() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    let interface = &left.daemon.interface;
    assert_eq!(attendant(interface), None, "nothing was asked for");
    let names = Names::new(right, "peer.test", right.listen_port);
    names.attend(left);
    let first = attendant(interface).unwrap();
    let status = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    for line in [
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
    // Another takes its place, and without anything to do there is none.
    names.attend(left);
    let second = attendant(interface).unwrap();
    assert_ne!(first, second);
    assert!(attend(left.namespace(), &[interface]).status.success());
    wait_until("it to end", SOON, || attendant(interface).is_none()).unwrap();
    assert!(!place(interface).exists());
    names.attend(left);
    assert!(place(interface).exists());
    ip(left, &format!("link delete {interface}"));
    wait_until("it to end with the interface", SOON, || attendant(interface).is_none() && !place(interface).exists())
        .unwrap();
    // Where there is no such interface it says so, and of one of another kind as well.
    for (interface, expected) in [
        ("wl-none0", "wireloom: there is no interface 'wl-none0' to attend to"),
        ("lo", "wireloom: interface 'lo' is not WireGuard's, expected one that `wireloom show interfaces` lists"),
    ] {
        for duty in [&["--wipe-on-suspend"][..], &["--metrics", "9586"]] {
            let told = attend(left.namespace(), &[&[interface], duty].concat());
            assert_eq!((told.status.code(), told.log().trim()), (Some(1), expected));
        }
    }
    let told =
        attend(left.namespace(), &["wl-none0", "--file", names.folder.path().join("peers.conf").to_str().unwrap()]);
    assert_eq!(
        (told.status.code(), told.log().trim()),
        (Some(1), "wireloom: there is no interface 'wl-none0' to attend to")
    );
}

#[test]
fn a_peer_that_moved_is_found_by_its_name() {
    let [a, b] = [(); 2].map(|()| Namespace::new().unwrap());
    let link = Link::new(&a, &b, Gso::Through).unwrap();
    let (left, right) = ends(&link.left, &link.right);
    introduce(&left, &right, Outer::V4);
    let names = Names::new(&right, "peer.test", right.listen_port);
    names.say(&[format!("{} peer.test", link.right.v4)]);
    names.attend(&left);
    check_pings(&left, &right);

    // It moves, and its name with it. That it is quiet is why it cannot be followed as one that roams.
    let (elsewhere, _) = link.spare_addresses(9);
    link.right.remove_addresses().unwrap();
    link.right.add_addresses(elsewhere, link.right.v6).unwrap();
    names.say(&[format!("{elsewhere} peer.test")]);
    keep_addresses(&left);
    for state in ["down", "up"] {
        ip(&left, &format!("link set {} {state}", left.daemon.interface));
    }
    wait_until_found(&left, &right);
    let found = left.peer(&right).unwrap().endpoint.unwrap();
    assert_eq!(found, (elsewhere, right.listen_port).into());
    // Who is well is not touched, whatever the name says.
    names.say(&["192.0.2.1 peer.test".to_owned()]);
    check_pings(&left, &right);
    assert_eq!(left.peer(&right).unwrap().endpoint, Some(found));
}

#[test]
fn where_one_family_leads_nowhere_the_other_is_tried() {
    let [a, b] = [(); 2].map(|()| Namespace::new().unwrap());
    let link = Link::new(&a, &b, Gso::Through).unwrap();
    let (left, right) = ends(&link.left, &link.right);
    introduce(&left, &right, Outer::V4);
    let names = Names::new(&right, "peer.test", right.listen_port);
    names.say(&[format!("{} peer.test", link.right.v6), format!("{} peer.test", link.right.v4)]);
    // By name, as `wg` and `up` would: IPv6 has a route, and so comes first.
    let endpoint = format!("peer.test:{}", right.listen_port);
    let set = ["set", &left.daemon.interface, "peer", &right.keys.public, "endpoint", &endpoint];
    lab::run_checked(&mut names.command(&left, &set), LIMIT).unwrap();
    assert!(left.peer(&right).unwrap().endpoint.unwrap().is_ipv6());
    let dead = Tap::new(&b, Hook::Incoming, "meta nfproto ipv6 meta l4proto udp", "drop").unwrap();
    names.attend(&left);
    wait_until_found(&left, &right);
    assert_eq!(left.peer(&right).unwrap().endpoint, Some(right.endpoint(Outer::V4)));
    assert!(dead.packets().unwrap() > 0, "the other family was tried first");
}

#[test]
fn who_watches_is_told_over_a_real_socket() {
    use std::io::{Read, Write};
    let [a, b] = [(); 2].map(|()| Namespace::new().unwrap());
    let link = Link::new(&a, &b, Gso::Through).unwrap();
    let (left, right) = ends(&link.left, &link.right);
    introduce(&left, &right, Outer::V4);
    let mut socket = std::os::unix::net::UnixStream::connect(lab::socket_path(&left.daemon.interface)).unwrap();
    socket.write_all(b"watch=1\n\n").unwrap();
    socket.set_read_timeout(Some(FOUND)).unwrap();
    let mut told = String::new();
    let mut read_to = |what: &str| {
        wait_for(what, FOUND, || {
            let mut piece = [0; 512];
            let len = match socket.read(&mut piece) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(None),
                read => read.unwrap(),
            };
            assert!(len > 0, "it hung up: {told}");
            told.push_str(&String::from_utf8_lossy(&piece[..len]));
            Ok(told.contains(what).then(|| told.clone()))
        })
        .unwrap()
    };
    read_to("errno=0\n\n");
    // Nothing comes through, and then everything.
    let dead = Tap::new(&b, Hook::Incoming, "udp dport 51822", "drop").unwrap();
    let pings = ping::start_patiently(left.namespace(), right.v4.into(), 30, "1").unwrap();
    let failing = read_to("event=failing\n");
    assert!(!failing.contains("answered"), "{failing}");
    dead.remove().unwrap();
    let told = read_to("event=answered\n");
    assert!(told.contains(&format!("endpoint={}\n", right.endpoint(Outer::V4))), "{told}");
    drop(pings);
}

#[test]
fn up_has_names_attended_to_and_down_ends_it() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    let names = Names::new(right, "peer.test", right.listen_port);
    names.say(&[format!("{} peer.test", right.port.v4)]);
    let interface = unique_interface();
    let path = names.folder.path().join(format!("{interface}.conf"));
    let key = fs::read_to_string(left.keys.private.path()).unwrap();
    let file = fs::read_to_string(names.folder.path().join("peers.conf")).unwrap();
    fs::write(&path, file.replace("[Interface]", &format!("[Interface]\nPrivateKey = {}", key.trim()))).unwrap();
    let path = path.to_str().unwrap();
    let plan = lab::run_checked(&mut names.command(left, &["up", "--dry-run", path]), LIMIT).unwrap();
    assert!(plan.contains(&format!("wireloom attend {interface} --file {path}\n")), "{plan}");
    assert_eq!(attendant(&interface), None, "it was only asked what would be");
    lab::run_checked(&mut names.command(left, &["up", path]), LIMIT).unwrap();
    assert!(attendant(&interface).is_some());
    lab::run_checked(&mut names.command(left, &["down", path]), LIMIT).unwrap();
    wait_until("it to end", SOON, || attendant(&interface).is_none() && !place(&interface).exists()).unwrap();
    // Without names there is nothing to attend to.
    let text = fs::read_to_string(path).unwrap().replace("peer.test", "192.0.2.1");
    fs::write(path, text).unwrap();
    lab::run_checked(&mut names.command(left, &["up", path]), LIMIT).unwrap();
    assert_eq!(attendant(&interface), None);
    lab::run_checked(&mut names.command(left, &["down", path]), LIMIT).unwrap();
}

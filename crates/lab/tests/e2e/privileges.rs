//! What a running daemon may do, and what could be read of it: little, and nothing. All of it is read back from `/proc`, of a
//! daemon that has carried traffic, was reconfigured, and goes on.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;

use lab::traffic::{Service, exchange_tcp};
use lab::{
    Daemon, End, Engine, Namespace, Process, TunnelSpec, run, run_checked, socket_path, unique_interface, wait_until,
};

use crate::common::{BYTES, LIMIT, SOON, check_pings, our_tunnel, spec, wait_for_ping, wireloom};
use crate::engines::{each_engine, each_engine_untaken, engine};

each_engine!(
    no_thread_has_a_privilege,
    an_interface_that_moves_to_another_namespace_is_followed,
    no_key_is_in_memory_that_could_be_dumped,
    without_the_sandbox_it_keeps_everything,
);

each_engine_untaken!(nobody_else_may_look_at_it);

/// CAP_NET_BIND_SERVICE, CAP_NET_BROADCAST, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN.
const STEWARD: &str = "0000000000203c00";
const NONE: &str = "0000000000000000";

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A field of a `status` file.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {status}")).trim()
}

/// The process that holds the privileges for this one.
fn steward(pid: u32) -> Option<u32> {
    read(&format!("/proc/{pid}/task/{pid}/children")).trim().parse().ok()
}

#[track_caller]
fn check_confined(status: &str, capabilities: &str) {
    for set in ["CapEff", "CapPrm"] {
        assert_eq!(field(status, set), capabilities, "{status}");
    }
    for set in ["CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(field(status, set), NONE, "{status}");
    }
    assert_eq!(field(status, "NoNewPrivs"), "1", "{status}");
    assert_eq!(field(status, "Seccomp"), "2", "{status}");
}

/// Of each thread of the daemon, and of its steward.
#[track_caller]
fn check_privileges(daemon: &Daemon) {
    let pid = daemon.process.id();
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        // A client's thread may end meanwhile.
        let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else { continue };
        check_confined(&status, NONE);
        threads += 1;
    }
    assert!(threads >= 3, "control, a worker, the configuration socket: {threads}");
    let steward = steward(pid).expect("a steward");
    let status = read(&format!("/proc/{steward}/status"));
    assert_eq!((field(&status, "Name"), field(&status, "Threads")), ("wl-steward", "1"));
    check_confined(&status, STEWARD);
    // It has the socket by which it is reached, and its namespace, and no other descriptor once it is done with its last task; but
    // for what it keeps of an eBPF daemon: the queues, maps, programs and links.
    let kept = |target: &String| {
        engine() == Engine::Ebpf && ["anon_inode", "/dev/net/tun"].iter().any(|kind| target.starts_with(kind))
    };
    let mut open = Vec::new();
    let done = wait_until("nothing but its own descriptors", SOON, || {
        open = fs::read_dir(format!("/proc/{steward}/fd"))
            .unwrap()
            // One that is closed meanwhile cannot be read.
            .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
            .map(|target| target.display().to_string())
            .filter(|target| target != "/dev/null" && !kept(target))
            .map(|target| target.split(':').next().unwrap().to_owned())
            .collect();
        open.sort();
        if engine() == Engine::Ebpf {
            // For what it keeps it has the namespace of the interface as well, and a socket at which a successor may ask.
            open.dedup();
        }
        open == ["net", "socket"]
    });
    assert!(done.is_ok(), "{open:?}");
}

/// Pings and TCP, in both families. No UDP: how much of it a busy machine loses is not what is asked here.
#[track_caller]
fn carry(from: &End, to: &End) {
    check_pings(from, to);
    let _service = Service::start(to.namespace()).unwrap();
    for address in to.inner() {
        exchange_tcp(from.namespace(), address, BYTES, LIMIT).unwrap();
    }
}

/// Changes that take a privilege, each seen to work.
fn reconfigure(one: &End, other: &End, port: &str) {
    one.daemon.set(&["listen-port", port, "fwmark", "0x77"]).unwrap();
    let status = one.daemon.status().unwrap();
    assert_eq!((status.port.to_string().as_str(), status.fwmark), (port, 0x77));
    check_pings(one, other);
    one.daemon.set(&["fwmark", "0"]).unwrap();
    check_pings(other, one);
}

fn no_thread_has_a_privilege() {
    let tunnel = TunnelSpec { arguments: vec!["--workers", "2"], ..spec() }.build().unwrap();
    carry(&tunnel.left, &tunnel.right);
    check_privileges(&tunnel.left.daemon);
    reconfigure(&tunnel.left, &tunnel.right, "601");
    carry(&tunnel.right, &tunnel.left);
    // The name of an interface is asked of the kernel.
    let stranger = lab::wg::KeyPair::generate().unwrap().public;
    tunnel.left.daemon.set(&["peer", &stranger, "endpoint", "[fe80::9%lo]:9"]).unwrap();
    let shown = lab::wg::show(&tunnel.left.daemon.interface).unwrap();
    assert!(shown.contains("[fe80::9%lo]:9"), "{shown}");
    check_privileges(&tunnel.left.daemon);
}

fn an_interface_that_moves_to_another_namespace_is_followed() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let elsewhere = Namespace::new().unwrap();
    let interface = &left.daemon.interface;
    left.namespace().ip(&["link", "set", interface, "netns", elsewhere.name()]).unwrap();
    elsewhere.ip(&["address", "add", &format!("{}/24", left.v4), "dev", interface]).unwrap();
    elsewhere.ip(&["link", "set", interface, "up", "mtu", "1400"]).unwrap();
    let arrives = || {
        let ping = lab::ping::once(&elsewhere, right.v4.into(), &["-W", "1"]);
        ping.is_ok_and(|finished| finished.status.success())
    };
    wait_until("a ping from the other namespace", SOON, arrives).unwrap();
    // Our settings followed, the raw sockets too: a packet that is for no peer is answered with an error.
    wait_until("the settings of the super-packets", SOON, || {
        let shown = elsewhere.ip(&["-d", "link", "show", interface]).unwrap();
        let segments = if engine() == Engine::Ebpf { 12 } else { 45 };
        shown.contains("qlen 1947") && shown.contains(&format!("gso_max_segs {segments} "))
    })
    .unwrap();
    let stranger = lab::ping::once(&elsewhere, "10.77.0.99".parse().unwrap(), &["-W", "5"]).unwrap();
    assert!(stranger.log().contains("Destination Host Unreachable"), "{stranger:?}");
    // The outer side stays where it was.
    left.daemon.set(&["listen-port", "602", "fwmark", "0x78"]).unwrap();
    wait_until("a ping after the change", SOON, arrives).unwrap();
    check_privileges(&left.daemon);
    elsewhere.ip(&["link", "delete", interface]).unwrap();
    let mut daemon = tunnel.left.daemon;
    let status = daemon.process.wait(SOON).unwrap();
    assert!(status.success(), "{status}: {}", daemon.process.log());
}

fn without_the_sandbox_it_keeps_everything() {
    let tunnel = TunnelSpec { arguments: vec!["--no-sandbox"], ..spec() }.build().unwrap();
    reconfigure(&tunnel.left, &tunnel.right, "603");
    let pid = tunnel.left.daemon.process.id();
    let status = read(&format!("/proc/{pid}/status"));
    assert_eq!(field(&status, "Seccomp"), "0");
    assert_ne!(field(&status, "CapEff"), NONE);
    assert_eq!(steward(pid), None);
}

#[test]
fn the_steward_ends_with_the_daemon_and_not_before() {
    use rustix::process::{Pid, Signal, kill_process};
    let tunnel = our_tunnel();
    let mut daemon = tunnel.left.daemon;
    let steward = steward(daemon.process.id()).expect("a steward");
    for signal in [Signal::INT, Signal::TERM] {
        kill_process(Pid::from_raw(steward.cast_signed()).unwrap(), signal).unwrap();
    }
    daemon.set(&["listen-port", "604"]).unwrap();
    let socket = socket_path(&daemon.interface);
    assert!(socket.exists());
    daemon.process.signal(Signal::KILL);
    daemon.process.wait(SOON).unwrap();
    wait_until("the steward to end", SOON, || !daemon.namespace.pids().contains(&steward)).unwrap();
    assert!(!socket.exists(), "it tidies up");
}

/// A mapping of a process, by its lines in `smaps`.
struct Mapping {
    text: String,
    start: u64,
    len: usize,
}

impl Mapping {
    /// Those that can be written to, private or shared.
    fn writable(pid: u32) -> Vec<Mapping> {
        let smaps = read(&format!("/proc/{pid}/smaps"));
        let mut mappings: Vec<Mapping> = Vec::new();
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let ends = range.map(|(from, to)| (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16)));
            match (ends, mappings.last_mut()) {
                (Some((Ok(start), Ok(end))), _) => {
                    mappings.push(Mapping { text: line.to_owned(), start, len: (end - start) as usize });
                }
                (_, Some(mapping)) => mapping.text.extend(["\n", line]),
                (_, None) => panic!("{line}"),
            }
        }
        mappings.retain(|mapping| mapping.flag("wr"));
        mappings
    }

    fn flag(&self, flag: &str) -> bool {
        self.text.lines().any(|line| line.starts_with("VmFlags:") && line.split(' ').any(|f| f == flag))
    }

    fn bytes(&self, pid: u32) -> Vec<u8> {
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let mut bytes = vec![0; self.len];
        // Reserved pages that nobody may touch lie between; what cannot be read holds nothing.
        for (number, page) in bytes.chunks_mut(4096).enumerate() {
            let _ = memory.read_exact_at(page, self.start + number as u64 * 4096);
        }
        bytes
    }
}

/// The 32 bytes of a key file.
fn key(path: &str) -> Vec<u8> {
    let text =
        run_checked(Command::new("sh").args(["-c", &format!("base64 -d '{path}' | od -An -v -tx1")]), LIMIT).unwrap();
    let bytes: Vec<u8> = text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    assert_eq!(bytes.len(), 32);
    bytes
}

fn no_key_is_in_memory_that_could_be_dumped() {
    let tunnel = TunnelSpec { preshared: true, arguments: vec!["--workers", "2"], ..spec() }.build().unwrap();
    check_pings(&tunnel.left, &tunnel.right);
    let pid = tunnel.left.daemon.process.id();
    let keys = [key(&tunnel.left.keys.private.path()), key(&tunnel.preshared.as_ref().unwrap().path())];
    let mut found = [0; 2];
    for mapping in Mapping::writable(pid) {
        let hidden = mapping.flag("dd");
        // The heap in which the C library keeps its bookkeeping grows by itself; ours is another. All else has the mark.
        assert!(hidden || mapping.text.contains("[heap]"), "{}", mapping.text);
        let bytes = mapping.bytes(pid);
        for (key, found) in keys.iter().zip(&mut found) {
            let here = bytes.windows(32).filter(|window| window == key).count();
            assert!(here == 0 || hidden, "a key in {}", mapping.text);
            *found += here;
        }
    }
    assert!(found.iter().all(|found| *found > 0), "where are the keys? {found:?}");
    // The one that has the privileges never saw them.
    let steward = steward(pid).expect("a steward");
    for mapping in Mapping::writable(steward) {
        let bytes = mapping.bytes(steward);
        assert!(!keys.iter().any(|key| bytes.windows(32).any(|window| window == key)), "{}", mapping.text);
    }
}

fn nobody_else_may_look_at_it() {
    let tunnel = our_tunnel();
    let pid = tunnel.left.daemon.process.id();
    let steward = steward(pid).expect("a steward");
    for pid in [pid, steward] {
        let limits = read(&format!("/proc/{pid}/limits"));
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
        assert_eq!(read(&format!("/proc/{pid}/coredump_filter")).trim(), "00000000");
    }
    // Somebody with the same user and no more rights than it has itself may look at a process, unless that is not dumpable.
    let bare = ["--bounding-set=-all", "--inh-caps=-all"];
    let other = Process::spawn(Command::new("setpriv").args(bare).args(["sleep", "600"])).unwrap();
    let looks = |pid: u32| {
        let look = ["--", "cat", &format!("/proc/{pid}/maps")].map(str::to_owned);
        run(Command::new("setpriv").args(bare).args(look), LIMIT).unwrap().status.success()
    };
    wait_until("the other to be seen", SOON, || looks(other.id())).unwrap();
    assert!(!looks(pid) && !looks(steward));
}

/// Runs the binary, in a place that everybody can reach, as a user of no rights but these.
fn as_nobody(namespace: &Namespace, folder: &tempfile::TempDir, capabilities: &str) -> Command {
    let program = folder.path().join("wireloom");
    fs::copy(wireloom().program().unwrap(), &program).unwrap();
    for path in [folder.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = namespace.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all,+net_admin"]);
    command.args([format!("--inh-caps=-all{capabilities}"), format!("--ambient-caps=-all{capabilities}")]);
    command.arg(program);
    command
}

#[test]
fn without_rights_it_says_so_in_one_line() {
    let (namespace, folder) = (Namespace::new().unwrap(), tempfile::tempdir().unwrap());
    let finished = run(as_nobody(&namespace, &folder, "").args(["run", "-f", &unique_interface()]), LIMIT).unwrap();
    assert!(!finished.status.success(), "{finished:?}");
    let lines: Vec<_> = finished.stderr.lines().collect();
    assert!(matches!(lines[..], [line] if line.contains("CAP_NET_ADMIN")), "{finished:?}");
}

#[test]
fn the_right_to_configure_networks_is_enough() {
    let mut tunnel = our_tunnel();
    let namespace = tunnel.left.namespace().clone();
    let (interface, folder) = (unique_interface(), tempfile::tempdir().unwrap());
    // The folder of the sockets is root's, and often the TUN driver too: whoever is not root gets both open.
    fs::create_dir_all("/var/run/wireguard").unwrap();
    let inner = as_nobody(&namespace, &folder, ",+net_admin");
    let mut command = Command::new(inner.get_program());
    let mut arguments: Vec<_> = inner.get_args().map(std::ffi::OsStr::to_owned).collect();
    let place = arguments.iter().position(|argument| argument == "setpriv").unwrap() + 3;
    let socket = [socket_path(&interface).into()];
    let hand_over = ["sh", "-c", r#"chown 65534 "$0" && exec "$@""#].map(Into::into);
    let tun = ["perl", "-e", crate::lifecycle::WITH_TUN, "0x1001", &interface].map(Into::into);
    let open = ["perl", "-e", crate::lifecycle::WITH_SOCKET].map(Into::into);
    arguments.splice(place..place, open.into_iter().chain(socket.clone()).chain(hand_over).chain(socket).chain(tun));
    command.args(arguments).args(["run", "-f", &interface]);
    tunnel.left.daemon = Daemon::start(&mut command, &namespace, &interface).unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    left.bring_up(1420).unwrap();
    left.add_peer(right, Some(right.endpoint(lab::Outer::V4)), None).unwrap();
    wait_for_ping(left, right);
    left.daemon.set(&["fwmark", "0x79"]).unwrap();
    wait_for_ping(left, right);
    let status = read(&format!("/proc/{}/status", left.daemon.process.id()));
    assert_eq!((field(&status, "CapPrm"), field(&status, "Seccomp")), (NONE, "2"));
    let status = read(&format!("/proc/{}/status", steward(left.daemon.process.id()).expect("a steward")));
    assert_eq!((field(&status, "CapPrm"), field(&status, "Seccomp")), ("0000000000001000", "2"));
}

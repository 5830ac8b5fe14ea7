//! `wireloom reload`: an interface ends as its file says, and what stays does not notice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use lab::wg::{KeyPair, PeerStatus};
use lab::{Finished, Gso, Link, Namespace, Process, ping, run, unique_interface, wait_until, wg};
use tempfile::TempDir;

use crate::common::{LIMIT, SOON, our_command};
use crate::engines::{count_taken, each_engine, each_engine_untaken};

each_engine!(what_stays_does_not_notice_a_reload);
each_engine_untaken!(the_rules_are_those_of_the_policys_file_after_a_reload);

const OTHER: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

/// A host whose interface is brought up from a file.
struct Host {
    interface: String,
    namespace: Namespace,
    folder: TempDir,
    keys: KeyPair,
}

impl Host {
    fn new(namespace: Namespace) -> Host {
        let folder = tempfile::tempdir().unwrap();
        Host { interface: unique_interface(), namespace, folder, keys: KeyPair::generate().unwrap() }
    }

    fn file(&self) -> String {
        self.folder.path().join(format!("{}.conf", self.interface)).display().to_string()
    }

    /// The file with these settings, and these peers.
    fn write(&self, settings: &str, peers: &str) {
        let private = fs::read_to_string(self.keys.private.path()).unwrap();
        fs::write(self.file(), format!("[Interface]\nPrivateKey = {private}\n{settings}\n{peers}")).unwrap();
        fs::set_permissions(self.file(), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = our_command(&self.namespace);
        command.args(words).arg(self.file());
        command
    }

    #[track_caller]
    fn run(&self, words: &[&str]) -> Finished {
        run(&mut self.command(words), LIMIT).unwrap().checked().unwrap()
    }

    /// What `reload` says that it changes.
    #[track_caller]
    fn reload(&self) -> Vec<String> {
        let dry = self.run(&["reload", "--dry-run"]).stdout;
        let told = self.run(&["reload"]).stderr;
        let lines: Vec<String> = told.lines().filter_map(|line| line.strip_prefix("[#] ")).map(str::to_owned).collect();
        // It does what it said that it would do.
        assert_eq!(dry.lines().collect::<Vec<_>>(), lines);
        lines
    }

    fn peer(&self, key: &str) -> PeerStatus {
        wg::status(&self.interface).unwrap().peer(key).unwrap().clone()
    }

    /// All that a file decides.
    fn state(&self) -> Vec<String> {
        let ip = |words: &str| self.namespace.ip(&words.split(' ').collect::<Vec<_>>()).unwrap();
        let mut state = ["-br address", "-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all"]
            .map(ip)
            .concat();
        state += &ip(&format!("link show dev {}", self.interface))
            .split_whitespace()
            .skip_while(|word| *word != "mtu")
            .take(2)
            .collect::<Vec<_>>()
            .join(" ");
        let mut lines: Vec<String> = state
            .lines()
            .filter(|line| !line.contains("fe80") && !line.contains("ff00::/8"))
            .map(str::to_owned)
            .collect();
        lines.sort();
        let status = wg::status(&self.interface).unwrap();
        let mut peers: Vec<String> = status
            .peers
            .into_iter()
            .map(|mut peer| {
                peer.allowed_ips.sort();
                format!("{} {:?} {:?} {}", peer.public_key, peer.endpoint, peer.allowed_ips, peer.keepalive)
            })
            .collect();
        peers.sort();
        lines.extend(peers);
        lines.push(format!("{:#x} {}", status.fwmark, status.port));
        lines
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Also of a test that has failed: a daemon of `up` runs on by itself.
        let _ = run(&mut self.command(&["down"]), LIMIT);
    }
}

fn what_stays_does_not_notice_a_reload() {
    let (left, right) = (Host::new(Namespace::new().unwrap()), Host::new(Namespace::new().unwrap()));
    let link = Link::new(&left.namespace, &right.namespace, Gso::Off).unwrap();
    let peer = |other: &Host, rest: &str| format!("[Peer]\nPublicKey = {}\n{rest}\n", other.keys.public);
    let endpoint = format!("AllowedIPs = 10.66.0.2/32\nEndpoint = {}:51821", link.right.v4);
    let settings = "Address = 10.66.0.1/24\nListenPort = 51820";
    left.write(settings, &peer(&right, &endpoint));
    right.write("Address = 10.66.0.2/24\nListenPort = 51821", &peer(&left, "AllowedIPs = 10.66.0.1/32"));
    left.run(&["up"]);
    right.run(&["up"]);
    let there = right.keys.public.clone();
    let answers =
        || ping::once(&left.namespace, [10, 66, 0, 2].into(), &["-W", "2"]).is_ok_and(|it| it.status.success());
    wait_until("a ping", SOON, answers).unwrap();
    assert_eq!(left.reload(), [""; 0]);
    // The other end moves, and we learn it.
    wg::set(&right.interface, &["listen-port", "51899"]).unwrap();
    let moved = || {
        let _ = ping::once(&right.namespace, [10, 66, 0, 1].into(), &["-W", "1"]);
        left.peer(&there).endpoint.is_some_and(|at| at.port() == 51899)
    };
    wait_until("the peer to be seen elsewhere", SOON, moved).unwrap();

    let before = left.peer(&there);
    let series = ping::start_patiently(&left.namespace, [10, 66, 0, 2].into(), 400, "0.01").unwrap();
    let other = format!("[Peer]\nPublicKey = {OTHER}\nAllowedIPs = 10.70.0.0/16\n");
    let more = format!("{settings}\nAddress = 10.68.0.1/32\nMTU = 1300");
    for _ in 0..3 {
        left.write(&more, &(peer(&right, &endpoint.replace("/32", "/32, 10.69.0.0/16")) + &other));
        assert_eq!(
            left.reload(),
            [
                format!("wireloom set {} peer {there} allowed-ips +10.69.0.0/16", left.interface),
                format!("wireloom set {} peer {OTHER} allowed-ips +10.70.0.0/16", left.interface),
                format!("ip -4 address add 10.68.0.1/32 dev {}", left.interface),
                format!("ip link set mtu 1300 dev {}", left.interface),
                format!("ip -4 route add 10.69.0.0/16 dev {}", left.interface),
                format!("ip -4 route add 10.70.0.0/16 dev {}", left.interface),
            ]
        );
        left.write(&format!("{settings}\nMTU = 1420"), &peer(&right, &endpoint));
        assert_eq!(left.reload().len(), 6);
    }
    let trips = ping::collect(series, LIMIT).unwrap();
    assert_eq!(trips.received, 400, "{trips:?}");
    let after = left.peer(&there);
    assert_eq!((after.handshake, after.endpoint), (before.handshake, before.endpoint));
    assert!(after.received > before.received + 400 * 84 && after.sent > before.sent + 400 * 84, "{before:?} {after:?}");
    // An endpoint that the file changes counts.
    left.write(&format!("{settings}\nMTU = 1420"), &peer(&right, &endpoint.replace("51821", "51899")));
    assert_eq!(left.reload(), [""; 0], "it is there already");
    left.write(&format!("{settings}\nMTU = 1420"), &peer(&right, &endpoint));
    assert_eq!(
        left.reload(),
        [format!("wireloom set {} peer {there} endpoint {}:51821", left.interface, link.right.v4)]
    );
    count_taken(&left.interface);
}

fn the_rules_are_those_of_the_policys_file_after_a_reload() {
    let host = Host::new(Namespace::new().unwrap());
    let policy = host.folder.path().join("policy").display().to_string();
    let rules = || {
        let mut command = our_command(&host.namespace);
        let told = run(command.args(["policy", &host.interface]), LIMIT).unwrap().checked().unwrap().stdout;
        told.lines().filter_map(|line| line.split('\t').next_back()).map(str::to_owned).collect::<Vec<_>>()
    };
    host.write("Address = 10.0.0.1/24", &format!("[Peer]\nPublicKey = {OTHER}\nAllowedIPs = 10.0.0.2/32\n"));
    fs::write(&policy, "drop out proto=tcp\n").unwrap();
    host.run(&["up", "--policy", &policy]);
    assert_eq!(host.reload(), [""; 0]);
    // The same in other words is no change, so that what has been counted stays.
    fs::write(&policy, "# mail\ndrop   proto=tcp out\n").unwrap();
    assert_eq!(host.reload(), [""; 0]);
    let text = format!("limit 1mbit in peer={OTHER}\ndrop out\n");
    fs::write(&policy, &text).unwrap();
    assert_eq!(host.reload(), [format!("wireloom policy {} {policy}", host.interface)]);
    assert_eq!(rules(), text.lines().collect::<Vec<_>>());
    assert_eq!(host.reload(), [""; 0]);
    // A file that is wrong changes nothing, of the other file neither.
    fs::write(&policy, "drop everything\n").unwrap();
    host.write("Address = 10.9.0.1/24", "");
    let refused = run(&mut host.command(&["reload"]), LIMIT).unwrap();
    assert_eq!((refused.status.code(), refused.stderr.lines().count()), (Some(1), 1), "{}", refused.log());
    assert!(refused.stderr.contains(":1: 'everything' means nothing"), "{}", refused.stderr);
    assert_eq!(rules(), text.lines().collect::<Vec<_>>());
    assert!(host.namespace.ip(&["-br", "address"]).unwrap().contains("10.0.0.1/24"));
}

#[test]
fn a_reload_ends_where_an_up_would_have() {
    let host = Host::new(Namespace::new().unwrap());
    host.namespace.ip(&["link", "add", "eth5", "type", "veth", "peer", "name", "far"]).unwrap();
    host.namespace.ip(&["address", "add", "192.0.2.5/24", "dev", "eth5"]).unwrap();
    host.namespace.ip(&["link", "set", "eth5", "up"]).unwrap();
    let key = KeyPair::generate().unwrap().public;
    let base = "ListenPort = 51820\nMTU = 1400\n";
    let files = [
        (
            format!("{base}Address = 10.0.0.1/24, fd00::1/64"),
            format!("[Peer]\nPublicKey = {key}\nAllowedIPs = 10.0.0.0/24, 10.9.0.0/16"),
        ),
        (
            format!("{base}Address = 10.0.0.1/24"),
            format!(
                "[Peer]\nPublicKey = {key}\nAllowedIPs = 0.0.0.0/0, ::/0\n[Peer]\nPublicKey = {OTHER}\nEndpoint = 192.0.2.7:1\nAllowedIPs = fd01::/64"
            ),
        ),
        (
            format!("{base}Address = 10.0.0.1/24\nFwMark = 7"),
            format!("[Peer]\nPublicKey = {key}\nAllowedIPs = ::/0, 10.9.0.0/16"),
        ),
        (format!("{base}Table = 77"), format!("[Peer]\nPublicKey = {key}\nAllowedIPs = 0.0.0.0/0, 10.9.0.0/16")),
        (
            format!("{base}Table = off"),
            format!("[Peer]\nPublicKey = {OTHER}\nAllowedIPs = 0.0.0.0/0\nPersistentKeepalive = 7"),
        ),
    ];
    let fresh: Vec<Vec<String>> = files
        .iter()
        .map(|(settings, peers)| {
            host.write(settings, peers);
            host.run(&["up"]);
            let state = host.state();
            host.run(&["down"]);
            state
        })
        .collect();
    let nothing = host.namespace.ip(&["rule"]).unwrap();
    host.write(&files[0].0, &files[0].1);
    host.run(&["up"]);
    // Somebody else's, which stays.
    host.namespace.ip(&["address", "add", "203.0.113.1/32", "dev", &host.interface]).unwrap();
    host.namespace.ip(&["route", "add", "198.51.100.0/24", "dev", &host.interface]).unwrap();
    for at in [1, 2, 1, 3, 0, 4, 2, 0, 3, 4, 1, 0] {
        host.write(&files[at].0, &files[at].1);
        assert!(!host.reload().is_empty(), "{at}");
        let mut state = host.state();
        let others =
            state.iter().filter(|line| line.contains("203.0.113.1/32") || line.contains("198.51.100.0/24")).count();
        assert_eq!(others, 2, "{at}: {state:#?}");
        let strip = |line: &String| line.replace(" 203.0.113.1/32", "").replace("  ", " ").trim_end().to_owned();
        state.retain(|line| !line.contains("198.51.100.0/24") && !line.starts_with("local 203.0.113.1"));
        let mut state: Vec<String> = state.iter().map(strip).collect();
        let mut expected: Vec<String> = fresh[at].iter().map(strip).collect();
        state
            .iter_mut()
            .chain(&mut expected)
            .for_each(|line| *line = line.split_whitespace().collect::<Vec<_>>().join(" "));
        assert_eq!(state, expected, "file {at}");
        let again = host.run(&["reload"]);
        assert!(again.stderr.contains("nothing differs"), "{at}: {}", again.stderr);
    }
    host.run(&["down"]);
    assert_eq!(host.namespace.ip(&["rule"]).unwrap(), nothing);
}

#[test]
fn guards_follow_and_the_kill_switch_is_never_gone() {
    let host = Host::new(Namespace::new().unwrap());
    let key = KeyPair::generate().unwrap().public;
    let all = format!("[Peer]\nPublicKey = {key}\nAllowedIPs = 0.0.0.0/0, ::/0");
    let files = [
        ("Address = 10.1.0.1/24, 10.0.0.1/24, fd00::1/64", all.clone()),
        ("Address = 10.1.0.1/24, 10.0.0.2/24, fd00::1/64", all.clone()),
        ("Address = 10.1.0.1/24, 10.0.0.2/24, fd00::1/64\nFwMark = 9", all.clone()),
        // Without a default route the switch needs a mark all the same.
        ("Address = 10.1.0.1/24, 10.0.0.2/24", all.replace("0.0.0.0/0, ::/0", "10.9.0.0/16")),
        // With its last IPv4 address an interface loses all routes of IPv4.
        ("Address = 10.3.0.1/24, fd00::1/64", all.clone()),
    ];
    let write = |at: usize| host.write(&format!("MTU = 1400\n{}", files[at].0), &files[at].1);
    let rules = || {
        let text = host.namespace.run("nft", &["-s", "list", "ruleset"]).unwrap();
        let mut tables: Vec<String> = text.split_inclusive("\n}\n").map(str::to_owned).collect();
        tables.retain(|table| !table.contains("sentinel"));
        tables.sort();
        (tables, wg::status(&host.interface).unwrap().fwmark)
    };
    let fresh: Vec<_> = (0..files.len())
        .map(|at| {
            write(at);
            host.run(&["up", "--kill-switch"]);
            let rules = rules();
            host.run(&["down"]);
            rules
        })
        .collect();
    assert_ne!(fresh[0], fresh[1]);
    assert_ne!(fresh[3].1, 0);

    write(0);
    host.run(&["up", "--kill-switch"]);
    let mut monitor = Process::spawn(host.namespace.command("nft").arg("monitor")).unwrap();
    let sentinel = |name: &str| {
        let _ = host.namespace.run("nft", &["add", "table", "ip", name]);
        host.namespace.run("nft", &["delete", "table", "ip", name]).unwrap();
    };
    let listens = || {
        sentinel("sentinel-first");
        monitor.stdout().contains("sentinel-first")
    };
    wait_until("the monitor to listen", SOON, listens).unwrap();
    for at in [1, 4, 2, 3, 0, 3, 2, 0, 4, 1] {
        write(at);
        assert!(!host.reload().is_empty(), "{at}");
        assert_eq!(rules(), fresh[at], "file {at}");
        let again = host.run(&["reload"]);
        assert!(again.stderr.contains("nothing differs"), "{at}: {}", again.stderr);
    }
    sentinel("sentinel-last");
    monitor.wait_for_output("delete table ip sentinel-last", SOON).unwrap();
    // The end of each transaction is told.
    let text = monitor.stdout();
    monitor.stop();
    let name = format!("table inet wireloom-kill-{}", host.interface);
    let replaced: Vec<&str> =
        text.split("# new generation").filter(|part| part.contains(&format!("delete {name}"))).collect();
    assert!(replaced.len() >= 4, "{text}");
    assert!(replaced.iter().all(|part| part.contains(&format!("add {name}"))), "{text}");

    // Hooks are told of, and not run.
    let hook = host.folder.path().join("ran");
    host.write(&format!("MTU = 1400\n{}\nPostUp = touch {}", files[1].0, hook.display()), &files[1].1);
    let told = host.run(&["reload"]).stderr;
    assert!(told.contains("PostUp differs") && told.lines().count() == 1, "{told}");
    assert!(!hook.exists());
    host.run(&["down"]);
    assert_eq!(host.namespace.run("nft", &["list", "ruleset"]).unwrap(), "");
}

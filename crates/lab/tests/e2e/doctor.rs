//! `wireloom doctor`: each fault made for real and told, and nothing told of a tunnel that is well.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use lab::{End, Finished, Hook, Namespace, Tap, Tunnel, TunnelSpec, run, run_checked, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{LIMIT, SOON, check_pings, ip, our_tunnel, spec, wait_for_ping, wireloom};
use crate::engines::{each_engine, each_engine_untaken};

each_engine!(
    of_a_healthy_tunnel_there_is_no_fault_and_nothing_changes,
    large_packets_that_vanish_are_found_by_size,
    an_endpoint_in_its_own_tunnel_is_found,
    a_strict_filter_against_answers_is_found,
);

each_engine_untaken!(an_interface_in_another_namespace_than_its_daemon_is_looked_at_from_either);

/// What it says of a subject: identifier, level, and both sentences.
struct Told(Vec<(String, String, String)>, Finished);

impl Told {
    fn of(level: &str, told: &Told) -> Vec<String> {
        told.0.iter().filter(|(_, of, _)| of == level).map(|(id, ..)| id.clone()).collect()
    }

    fn faults(&self) -> Vec<String> {
        Told::of("fault", self)
    }

    fn text(&self, id: &str) -> &str {
        &self.0.iter().find(|(known, ..)| known == id).unwrap_or_else(|| panic!("no {id}: {}", self.1.log())).2
    }

    fn has(&self, id: &str) -> bool {
        self.0.iter().any(|(known, ..)| known == id)
    }
}

fn ask(command: &mut Command) -> Told {
    let finished = run(command, LIMIT).unwrap();
    let json: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{}", finished.log()));
    let word = |finding: &Value, of: &str| finding[of].as_str().unwrap().to_owned();
    let findings = json["findings"].as_array().unwrap().iter();
    let told = Told(
        findings
            .map(|finding| {
                let [what, remedy] = ["what", "remedy"].map(|of| word(finding, of));
                assert!(what.ends_with('.') && (remedy.is_empty() || remedy.ends_with('.')), "{what} {remedy}");
                (word(finding, "id"), word(finding, "level"), format!("{what} {remedy}"))
            })
            .collect(),
        finished,
    );
    let faults = told.faults().len();
    assert_eq!((json["faults"].as_u64(), told.1.status.code()), (Some(faults as u64), Some(i32::from(faults > 0))));
    told
}

fn doctor(namespace: &Namespace, subject: &str) -> Told {
    let mut command = namespace.command(wireloom().program().unwrap());
    ask(command.args(["doctor", "--json"]).args((!subject.is_empty()).then_some(subject)))
}

fn of(end: &End) -> Told {
    doctor(end.namespace(), &end.daemon.interface)
}

/// A tunnel that works.
fn healthy() -> Tunnel {
    let tunnel = our_tunnel();
    check_pings(&tunnel.left, &tunnel.right);
    tunnel
}

/// All that `ip` and `nft` tell of a host.
fn state(namespace: &Namespace) -> String {
    let ip = [&["-d", "address"][..], &["route", "show", "table", "all"], &["rule"], &["-6", "rule"]];
    let told = ip.map(|args| namespace.ip(args).unwrap()).concat();
    told + &namespace.run("nft", &["list", "ruleset"]).unwrap()
}

fn of_a_healthy_tunnel_there_is_no_fault_and_nothing_changes() {
    let tunnel = healthy();
    let left = &tunnel.left;
    let settled = || !state(left.namespace()).contains("tentative");
    wait_until("addresses to be nobody else's", SOON, settled).unwrap();
    let before = state(left.namespace());
    let told = of(left);
    assert_eq!(told.faults(), [""; 0], "{}", told.1.log());
    assert!(!told.has("allowed-ip-not-routed") && !told.has("drops"), "{}", told.1.log());
    for well in [
        "kernel",
        "tun",
        "ebpf",
        "ebpf-engine",
        "udp-offloads",
        "processor",
        "endpoint-way",
        "path-inside",
        "handshake",
    ] {
        assert!(told.has(well), "{well}: {}", told.1.log());
    }
    assert!(told.text("path-inside").contains("1420 bytes"));
    assert_eq!(state(left.namespace()), before);
    // For people.
    let mut command = left.namespace().command(wireloom().program().unwrap());
    let text = run_checked(command.args(["doctor", &left.daemon.interface]), LIMIT).unwrap();
    assert!(text.lines().any(|line| line.starts_with("ok      tun: ")), "{text}");
    assert!(text.lines().last().unwrap().starts_with("no faults, "), "{text}");
}

fn large_packets_that_vanish_are_found_by_size() {
    let tunnel = TunnelSpec { switched: true, ..spec() }.build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let rule = format!("udp dport {} meta length gt 1300", right.listen_port);
    let hole = Tap::on_wire(&left.port, &rule, "drop").unwrap();
    let told = of(left);
    assert_eq!(told.faults(), ["mtu-black-hole"], "{}", told.1.log());
    // 1232 bytes are padded to as many, and 60 are around them; 1233 to 1248.
    assert!(told.text("mtu-black-hole").contains("up to 1232 bytes"), "{}", told.1.log());
    assert!(told.text("mtu-black-hole").contains(&format!("`ip link set {} mtu 1232`", left.daemon.interface)));
    assert!(hole.packets().unwrap() > 0);
    // What it says to do helps.
    ip(left, &format!("link set {} mtu 1232", left.daemon.interface));
    assert_eq!(of(left).faults(), [""; 0]);
    // It can be seen before anything is sent, where the way out is known to be narrow.
    ip(left, &format!("link set {} mtu 1420", left.daemon.interface));
    hole.remove().unwrap();
    ip(left, &format!("link set {} mtu 1400", left.port.interface));
    assert!(of(left).text("mtu-too-large").contains("mtu 1340"));
}

fn an_endpoint_in_its_own_tunnel_is_found() {
    let tunnel = healthy();
    let (left, right) = (&tunnel.left, &tunnel.right);
    ip(left, &format!("route add {}/32 dev {}", right.port.v4, left.daemon.interface));
    let told = of(left);
    assert_eq!(told.faults(), ["endpoint-loop"], "{}", told.1.log());
    assert!(told.text("endpoint-loop").contains(&right.port.v4.to_string()));
    ip(left, &format!("route del {}/32 dev {}", right.port.v4, left.daemon.interface));
    wait_for_ping(left, right);
    assert_eq!(of(left).faults(), [""; 0]);
}

#[test]
fn a_wrong_key_is_found() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    let other = lab::wg::KeyPair::generate().unwrap();
    left.daemon.set(&["peer", &right.keys.public, "remove"]).unwrap();
    let (allowed, endpoint) = (format!("{}/32", right.v4), right.endpoint(lab::Outer::V4).to_string());
    left.daemon.set(&["peer", &other.public, "allowed-ips", &allowed, "endpoint", &endpoint]).unwrap();
    let told = of(left);
    assert_eq!(told.faults(), ["handshake-none"], "{}", told.1.log());
    assert!(told.has("path-inside-unknown"));
    // The other end tells that somebody calls with our key.
    assert!(of(right).text("drops").contains("handshake-"), "{}", told.1.log());
}

fn a_strict_filter_against_answers_is_found() {
    // The endpoint is behind a router, and all traffic goes into the tunnel, as wg-quick does it.
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    let interface = &left.daemon.interface;
    right.namespace().ip(&["address", "add", "203.0.113.1/32", "dev", "lo"]).unwrap();
    ip(left, &format!("route add default via {}", right.port.v4));
    let endpoint = format!("203.0.113.1:{}", right.listen_port);
    let peer = ["peer", &right.keys.public, "endpoint", &endpoint, "allowed-ips", "0.0.0.0/0,::/0"];
    left.daemon.set(&[&["fwmark", "51820"][..], &peer].concat()).unwrap();
    ip(left, &format!("route add default dev {interface} table 51820"));
    ip(left, "rule add not fwmark 51820 table 51820");
    ip(left, "rule add table main suppress_prefixlength 0");
    let set = |value: &str| {
        for of in ["all", &left.port.interface] {
            left.namespace().set_sysctl(&format!("net/ipv4/conf/{of}/rp_filter"), value).unwrap();
        }
    };
    set("1");
    let told = of(left);
    assert_eq!(told.faults(), ["rp-filter", "handshake-none"], "{}", told.1.log());
    assert!(told.text("rp-filter").contains(&left.port.interface));
    set("2");
    wait_for_ping(left, right);
    let told = of(left);
    assert_eq!(told.faults(), [""; 0], "{}", told.1.log());
    // Without the rules all that is sealed would go into the tunnel.
    ip(left, "rule del not fwmark 51820 table 51820");
    ip(left, &format!("route replace default dev {interface}"));
    assert!(of(left).faults().contains(&"endpoint-loop".to_owned()));
}

fn an_interface_in_another_namespace_than_its_daemon_is_looked_at_from_either() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    let (inside, interface) = (Namespace::new().unwrap(), &left.daemon.interface);
    ip(left, &format!("link set {interface} netns {}", inside.name()));
    inside.ip(&["address", "add", &format!("{}/24", left.v4), "dev", interface]).unwrap();
    inside.ip(&["link", "set", interface, "up"]).unwrap();
    left.daemon.set(&["peer", &right.keys.public, "allowed-ips", &format!("{}/32", right.v4)]).unwrap();
    // There is no way to the endpoint there, and none is needed.
    let told = doctor(&inside, interface);
    assert_eq!(told.faults(), [""; 0], "{}", told.1.log());
    assert!(told.text("endpoint-way").contains(&left.port.interface) && told.has("path-inside"), "{}", told.1.log());
    let told = of(left);
    assert_eq!(told.faults(), [""; 0], "{}", told.1.log());
    assert!(told.text("unseen").contains("not in this network namespace") && told.has("endpoint-way"));
}

#[test]
fn an_endpoint_that_cannot_be_reached_is_found() {
    let tunnel = healthy();
    let (left, right) = (&tunnel.left, &tunnel.right);
    // Our own firewall.
    let rule = format!("udp dport {}", right.listen_port);
    let wall = Tap::new(left.namespace(), Hook::Outgoing, &rule, "drop").unwrap();
    let told = of(left);
    assert!(told.has("endpoint-blocked") && told.1.status.code() == Some(1), "{}", told.1.log());
    wall.remove().unwrap();
    // Nobody listens.
    let key = &right.keys.public;
    left.daemon.set(&["peer", key, "endpoint", &format!("{}:9", right.port.v4)]).unwrap();
    assert!(of(left).text("endpoint-unreachable").contains("Nobody listens there"));
    // No host is there.
    let (nobody, _) = tunnel.link.spare_addresses(99);
    left.daemon.set(&["peer", key, "endpoint", &format!("{nobody}:9")]).unwrap();
    let told = of(left);
    assert!(told.has("endpoint-unreachable") || told.has("endpoint-way"), "{}", told.1.log());
    // No way there.
    left.daemon.set(&["peer", key, "endpoint", "192.0.2.1:9"]).unwrap();
    assert!(of(left).has("endpoint-no-route"));
    // Nothing at all goes through an interface that is down.
    ip(left, &format!("link set {} down", left.daemon.interface));
    assert!(of(left).has("interface-down"));
}

fn write(folder: &Path, name: &str, text: &str, mode: u32) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn mistakes_in_a_file_are_found() {
    let (tunnel, folder) = (our_tunnel(), TempDir::new().unwrap());
    let host = tunnel.left.namespace();
    let gateway: IpAddr = tunnel.right.port.v4.into();
    let ours = fs::read_to_string(tunnel.left.keys.private.path()).unwrap();
    let (ours, own, other) = (ours.trim(), &tunnel.left.keys.public, &tunnel.right.keys.public);
    let third = lab::wg::KeyPair::generate().unwrap().public;

    let good = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.1.0.2/24, fd01::2/64\n[Peer]\nPublicKey = {other}\nEndpoint = {gateway}:{}\n\
         AllowedIPs = 10.1.0.0/24, fd01::/64\nPersistentKeepalive = 25\n",
        fs::read_to_string(lab::wg::KeyPair::generate().unwrap().private.path()).unwrap().trim(),
        tunnel.right.listen_port
    );
    let told = doctor(host, &write(folder.path(), "good.conf", &good, 0o600));
    let warnings: Vec<String> = Told::of("warning", &told).into_iter().filter(|id| id != "resolver-none").collect();
    assert_eq!((told.faults(), warnings), (vec![], vec![]), "{}", told.1.log());

    let bad = format!(
        "[Interface]\nPrivateKey = {ours}\nAddress = 10.1.0.2/24, 10.9.0.1/24\nListenPort = 53\n\
         [Peer]\nPublicKey = {own}\nAllowedIPs = 10.1.0.0/24, {gateway}/8\nEndpoint = {gateway}:{}\n\
         [Peer]\nPublicKey = {other}\nAllowedIPs = 10.1.0.0/24, 10.1.0.2/32, fd00::/64\nEndpoint = nowhere.invalid:1\nPresharedKey = {}\n\
         [Peer]\nPublicKey = {third}\n[Peer]\nPublicKey = {third}\nAllowedIPs = 0.0.0.0/0\n\
         [Peer]\nPublicKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nAllowedIPs = {gateway}/30\n",
        tunnel.right.listen_port, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    );
    let told = doctor(host, &write(folder.path(), "bad.conf", &bad, 0o644));
    let expected = [
        ("fault", "key-is-ours"),
        ("fault", "key-unusable"),
        ("fault", "allowed-ip-twice"),
        ("fault", "address-is-peers"),
        ("fault", "endpoint-unresolved"),
        ("fault", "endpoint-covered"),
        ("warning", "file-readable"),
        ("warning", "host-bits"),
        ("warning", "peer-twice"),
        ("warning", "preshared-key-zero"),
        ("warning", "allowed-ips-missing"),
        ("warning", "address-family-missing"),
        ("warning", "ipv6-leak"),
        ("warning", "private-key-shared"),
        ("warning", "network-clash"),
        ("note", "port-privileged"),
        ("note", "allowed-ip-within"),
    ];
    for (level, id) in expected {
        assert!(Told::of(level, &told).contains(&id.to_owned()), "{level} {id}: {}", told.1.log());
    }
    // Secrets are not told.
    assert!(!told.1.log().contains(ours));

    let narrow = good.replace("10.1.0.2/24", "10.9.0.2/24");
    let told = doctor(host, &write(folder.path(), "narrow.conf", &narrow, 0o600));
    assert!(told.faults().is_empty() && told.text("subnet-unreachable").contains("10.9.0.0/24"), "{}", told.1.log());

    let told = doctor(host, &write(folder.path(), "odd.conf", "[Interface]\nPrivateKay = x\n", 0o600));
    assert_eq!(told.faults(), ["file-invalid"]);
    assert!(told.text("file-invalid").contains("odd.conf:2: "), "{}", told.1.log());
    let told = doctor(host, &write(folder.path(), "empty.conf", "", 0o600));
    assert_eq!(told.faults(), ["private-key-missing"]);
    assert!(told.has("no-peers") && told.has("no-address"));

    // What is no subject is one line, and another exit code.
    for subject in ["/no/such.conf", "no-such-device", "a name with spaces"] {
        let mut command = host.command(wireloom().program().unwrap());
        let finished = run(command.args(["doctor", subject]), LIMIT).unwrap();
        assert_eq!((finished.status.code(), finished.stderr.lines().count()), (Some(2), 1), "{}", finished.log());
    }
}

#[test]
fn an_ordinary_user_is_told_what_could_not_be_seen() {
    use std::os::unix::fs::PermissionsExt;
    let (namespace, folder) = (Namespace::new().unwrap(), TempDir::new().unwrap());
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("wireloom");
    fs::copy(wireloom().program().unwrap(), &program).unwrap();
    let mut command = namespace.command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program).args(["doctor", "--json"]);
    let told = ask(&mut command);
    assert_eq!(told.faults(), [""; 0], "{}", told.1.log());
    assert!(told.has("unseen") && told.has("udp-offloads") && !told.has("tun"), "{}", told.1.log());
    // An interface that it may not ask is no reason to say nothing.
    let daemon = wireloom().start(&namespace).unwrap();
    let user = |words: &[&str]| {
        let mut command = namespace.command("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program).args(words);
        command
    };
    let told = ask(&mut user(&["doctor", "--json", &daemon.interface]));
    assert!(
        told.has("udp-offloads") && told.1.stdout.contains("does not tell this user of itself"),
        "{}",
        told.1.log()
    );
    // Whatever else is asked says what would be right.
    let conf = format!("./{}.conf", daemon.interface);
    let file = folder.path().join("new");
    for words in [
        &["show", &daemon.interface][..],
        &["top", "--once", &daemon.interface],
        &["capture", "--plain", &daemon.interface, file.to_str().unwrap()],
        &["attend", "--metrics", "9586", &daemon.interface],
        &["save", &conf],
    ] {
        let finished = run(&mut user(words), LIMIT).unwrap();
        let told = finished.stderr.trim_end();
        assert!(finished.status.code() == Some(1) && told.lines().count() == 1, "{words:?}: {}", finished.log());
        assert!(told.contains("expected") && told.contains("sudo"), "{words:?}: {told}");
    }
}

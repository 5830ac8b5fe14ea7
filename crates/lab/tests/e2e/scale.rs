//! A hundred thousand peers: configured, shown, synchronised, and coming back all at once. Correctness and memory are asserted,
//! speed is not (`cargo xtask bench peers` measures it); the bounds are those of a machine that does much else.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Command;

use lab::crowd::{self, Role};
use lab::{Daemon, End, Gso, Link, Namespace, ping, run_checked, usage, wait_until, wg};
use tempfile::NamedTempFile;

use super::common::{LIMIT, SOON, check_pings, wireloom};
use crate::engines::each_engine_untaken;

each_engine_untaken!(peers_that_reconnect_all_at_once_are_all_served);

const PEERS: u32 = 100_000;

/// The budget of a peer with two allowed IPs and an endpoint, in bytes of resident memory; twice what was measured.
const BYTES_PER_PEER: u64 = 2800;

/// The same of its session.
const BYTES_PER_SESSION: u64 = 5700;

/// A private key, base64: any will do.
const KEY: &str = "QEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEA=";

/// A public key from a number. It need not have a private key: nobody shakes hands here.
fn number_key(number: u32) -> String {
    let mut bytes = [0x41; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    crowd::key_text(&noise::PublicKey::from_bytes(bytes))
}

/// A file for `setconf`, with so many peers, of which every hundredth is `moved`.
fn configuration(peers: u32, moved: bool) -> NamedTempFile {
    let mut text = format!("[Interface]\nPrivateKey = {KEY}\nListenPort = 50031\n");
    for number in 0..peers {
        let (v4, v6) = crowd::inside(number);
        let port = 1000 + u32::from(moved && number % 100 == 0);
        let key = number_key(number);
        let _ =
            write!(text, "\n[Peer]\nPublicKey = {key}\nAllowedIPs = {v4}/32, {v6}/128\nEndpoint = 192.0.2.1:{port}\n");
    }
    file(&text)
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// What a tool says: `wg`, or our own binary, which takes the same words.
fn tool(ours: bool, args: &[&str]) -> String {
    let program = if ours { wireloom().program().unwrap() } else { "wg".into() };
    run_checked(Command::new(program).args(args), LIMIT).unwrap()
}

fn resident(daemon: &Daemon) -> u64 {
    usage::memory(daemon.process.id()).unwrap().resident * 1024
}

#[test]
fn a_hundred_thousand_peers_are_configured_shown_and_synchronised() {
    let daemon = wireloom().start(&Namespace::new().unwrap()).unwrap();
    daemon.up().unwrap();
    let interface = daemon.interface.as_str();
    let (all, moved, none) = (configuration(PEERS, false), configuration(PEERS, true), configuration(0, false));
    let with = |ours, verb, file: &NamedTempFile| tool(ours, &[verb, interface, file.path().to_str().unwrap()]);
    let empty = resident(&daemon);

    with(false, "setconf", &all);
    let each = (resident(&daemon) - empty) / u64::from(PEERS);
    assert!(each < BYTES_PER_PEER, "{each} bytes for each peer");
    // Both tools show the same, to the byte.
    let dump = tool(true, &["show", interface, "dump"]);
    assert!(dump == tool(false, &["show", interface, "dump"]), "the dumps differ");
    assert!(tool(true, &["show", interface]) == tool(false, &["show", interface]), "the shows differ");
    let conf = tool(true, &["showconf", interface]);
    assert!(conf == tool(false, &["showconf", interface]), "the files differ");
    // And it is what was set.
    let told = daemon.status().unwrap();
    assert_eq!(told.peers.len(), PEERS as usize);
    for number in [0, 1, 65_536, PEERS - 1] {
        let peer = told.peer(&number_key(number)).unwrap();
        let (v4, v6) = crowd::inside(number);
        assert_eq!(peer.allowed_ips, [format!("{v4}/32"), format!("{v6}/128")]);
        assert_eq!(peer.endpoint, Some("192.0.2.1:1000".parse().unwrap()));
    }

    let dump_of = || tool(true, &["show", interface, "dump"]);
    with(true, "syncconf", &file(&conf));
    assert!(dump_of() == dump, "nothing was to change");
    with(true, "syncconf", &moved);
    let changed = dump_of().lines().zip(dump.lines()).filter(|(new, old)| new != old).count();
    assert_eq!(changed, PEERS as usize / 100);
    with(true, "syncconf", &none);
    assert_eq!(dump_of().lines().count(), 1);
    with(true, "setconf", &all);
    assert!(dump_of() == dump, "our own setconf sets the same");
}

#[test]
fn one_peer_has_130_560_allowed_ips() {
    let daemon = wireloom().start(&Namespace::new().unwrap()).unwrap();
    daemon.up().unwrap();
    let interface = daemon.interface.as_str();
    let mut networks = BTreeSet::new();
    for a in 0..=254 {
        for b in 0..=255 {
            networks.insert(format!("{a}.{b}.0.0/24"));
            networks.insert(format!("{a:x}:{b:x}::/64"));
        }
    }
    assert_eq!(networks.len(), 130_560);
    let list: Vec<_> = networks.iter().map(String::as_str).collect();
    let key = number_key(1);
    let text =
        format!("[Interface]\nPrivateKey = {KEY}\n\n[Peer]\nPublicKey = {key}\nAllowedIPs = {}\n", list.join(", "));
    tool(false, &["setconf", interface, file(&text).path().to_str().unwrap()]);
    for ours in [false, true] {
        let told = tool(ours, &["show", interface, "allowed-ips"]);
        let (peer, told) = told.trim_end().split_once('\t').unwrap();
        assert_eq!(peer, key);
        let told: BTreeSet<_> = told.split(' ').map(str::to_owned).collect();
        assert!(told.len() == networks.len() && told.is_superset(&canonical(&networks)), "what is shown differs");
    }
}

/// The networks as addresses are written.
fn canonical(networks: &BTreeSet<String>) -> BTreeSet<String> {
    let address = |network: &String| {
        let (address, len) = network.split_once('/').unwrap();
        format!("{}/{len}", address.parse::<std::net::IpAddr>().unwrap())
    };
    networks.iter().map(address).collect()
}

/// A daemon in front of a crowd of which it does not know anybody yet, and a neighbour with a tunnel to it.
struct Hub {
    crowd: Namespace,
    /// Where the crowd reaches the hub.
    address: SocketAddr,
    hub: End,
    neighbour: End,
}

impl Hub {
    fn new() -> Hub {
        let [a, b, c] = [(); 3].map(|()| Namespace::new().unwrap());
        let to_crowd = Link::new(&a, &b, Gso::Through).unwrap();
        let to_neighbour = Link::new(&a, &c, Gso::Through).unwrap();
        crowd::settle(&to_crowd).unwrap();
        let end = |namespace, port, host| {
            let end = End::new(wireloom().start(namespace).unwrap(), port, host).unwrap();
            end.bring_up(1420).unwrap();
            end
        };
        let hub = end(&a, &to_neighbour.left, 1);
        let neighbour = end(&c, &to_neighbour.right, 2);
        hub.add_peer(&neighbour, Some(neighbour.endpoint(lab::Outer::V4)), None).unwrap();
        neighbour.add_peer(&hub, Some(hub.endpoint(lab::Outer::V4)), None).unwrap();
        check_pings(&neighbour, &hub);
        Hub { crowd: b, address: (to_crowd.left.v4, hub.listen_port).into(), hub, neighbour }
    }

    fn add(&self, peers: &str) {
        let file = file(peers);
        tool(true, &["addconf", &self.hub.daemon.interface, file.path().to_str().unwrap()]);
    }

    /// Starts a crowd that outlasts everything that is waited for here.
    fn start(&self, members: u32, role: Role) -> lab::Process {
        crowd::start(&self.crowd, self.address, &self.hub.keys.public, members, role, 3 * LIMIT).unwrap()
    }

    /// Waits for the crowd's end, and tells what came of it. Meanwhile the neighbour's tunnel works.
    fn finish(&self, crowd: lab::Process) -> crowd::Outcome {
        let series = ping::start(self.neighbour.namespace(), self.hub.v4.into(), 20, "0.2").unwrap();
        let trips = ping::collect(series, LIMIT).unwrap();
        assert!(trips.received >= 15, "{trips:?}");
        crowd::finish(crowd, 4 * LIMIT).unwrap()
    }

    fn agreed(&self) -> usize {
        let told: wg::Status = self.hub.daemon.status().unwrap();
        told.peers.iter().filter(|peer| peer.handshake > 0).count()
    }
}

fn peers_that_reconnect_all_at_once_are_all_served() {
    const MEMBERS: u32 = 3000;
    let hub = Hub::new();
    let before = resident(&hub.hub.daemon);
    hub.add(&crowd::peers(0..MEMBERS, |_| String::new()));
    let outcome = hub.finish(hub.start(MEMBERS, Role::Initiate));
    assert_eq!(outcome.agreed, MEMBERS, "{outcome:?}");
    wait_until("all to be shown as connected", SOON, || hub.agreed() == MEMBERS as usize + 1).unwrap();
    let each = resident(&hub.hub.daemon).saturating_sub(before) / u64::from(MEMBERS);
    assert!(each < BYTES_PER_PEER + BYTES_PER_SESSION, "{each} bytes for each peer");
}

#[test]
fn peers_that_are_called_all_at_once_all_answer() {
    const MEMBERS: u32 = 3000;
    let hub = Hub::new();
    let crowd = hub.start(MEMBERS, Role::Respond);
    // One that is nowhere among each ten: it costs no handshakes.
    let more = |member| match member % 11 {
        10 => "PersistentKeepalive = 25\n".to_owned(),
        _ => crowd::endpoint_line(member) + "PersistentKeepalive = 25\n",
    };
    hub.add(&crowd::peers(0..MEMBERS, more));
    let somewhere = (0..MEMBERS).filter(|member| member % 11 != 10).count();
    wait_until("those to connect of whom it is known where they are", LIMIT, || hub.agreed() == somewhere + 1).unwrap();
    let rest = (0..MEMBERS).filter(|member| member % 11 == 10);
    for member in rest.clone().take(3) {
        let key = crowd::key_text(&crowd::private_key(member).public());
        let endpoint = format!("{}:{}", crowd::outside(member), crowd::PORT);
        hub.hub.daemon.set(&["peer", &key, "endpoint", &endpoint]).unwrap();
    }
    wait_until("who was nowhere to connect, too", LIMIT, || hub.agreed() == somewhere + 4).unwrap();
    hub.add(&crowd::peers(rest.skip(3), crowd::endpoint_line));
    let outcome = hub.finish(crowd);
    assert_eq!(outcome.agreed, MEMBERS, "{outcome:?}");
}

/// A file by the name of an interface that nobody has, in a folder that goes with it, and a namespace to bring it up in.
fn file_for_up(text: &str) -> (Namespace, tempfile::TempDir, String, String) {
    let (folder, interface) = (tempfile::tempdir().unwrap(), lab::unique_interface());
    let path = folder.path().join(format!("{interface}.conf"));
    std::fs::write(&path, text).unwrap();
    (Namespace::new().unwrap(), folder, interface, path.to_str().unwrap().to_owned())
}

fn inside(namespace: &Namespace, args: &[&str]) -> String {
    run_checked(namespace.command(wireloom().program().unwrap()).args(args), LIMIT).unwrap()
}

#[test]
fn a_hundred_thousand_peers_come_up_with_their_routes_and_go() {
    let text = std::fs::read_to_string(configuration(PEERS, false).path()).unwrap();
    let text = text.replacen("ListenPort = 50031\n", "Address = 10.9.0.1/24, fd09::1/64\n", 1);
    let (namespace, _folder, interface, file) = file_for_up(&text);
    inside(&namespace, &["up", &file]);
    let dump = inside(&namespace, &["show", &interface, "dump"]);
    assert_eq!(dump.lines().count(), PEERS as usize + 1);
    // A route to each, of each family, as the kernel has them.
    for (family, own) in [("-4", 1), ("-6", 1)] {
        let routes = namespace.ip(&[family, "route", "show", "dev", &interface, "table", "main"]).unwrap();
        assert_eq!(routes.lines().count(), PEERS as usize + own, "{family}");
    }
    let (v4, v6) = crowd::inside(PEERS - 1);
    for address in [v4.to_string(), v6.to_string()] {
        let way = namespace.ip(&["route", "get", &address]).unwrap();
        assert!(way.contains(&interface), "{way}");
    }
    inside(&namespace, &["down", &file]);
    assert!(!lab::socket_path(&interface).exists());
    assert_eq!(namespace.ip(&["-4", "route", "show"]).unwrap(), "");
}

#[test]
fn one_peer_comes_up_with_routes_to_130_560_networks() {
    // None of them is a default route; that of the tunnel's own address is left to the kernel.
    let pairs = (0..255).flat_map(|a| (0..256).map(move |b| format!("{a}.{b}.0.0/24, {a:x}:{b:x}::/64")));
    let list = pairs.collect::<Vec<_>>().join(", ");
    let key = number_key(1);
    let text = format!(
        "[Interface]\nPrivateKey = {KEY}\nAddress = 10.9.0.1/32\n\n[Peer]\nPublicKey = {key}\nAllowedIPs = {list}\n"
    );
    let (namespace, _folder, interface, file) = file_for_up(&text);
    inside(&namespace, &["up", &file]);
    let told = inside(&namespace, &["show", &interface, "allowed-ips"]);
    assert_eq!(told.split_whitespace().count(), 130_560 + 1);
    for (family, network) in [("-4", "10.9.0.0/24"), ("-6", "fe:ff::/64")] {
        let routes = namespace.ip(&[family, "route", "show", "dev", &interface, "table", "main"]).unwrap();
        assert_eq!(routes.lines().count(), 65_280, "{family}");
        assert!(routes.contains(network), "{family} {network}");
    }
    // Beside them, the same without.
    inside(&namespace, &["down", &file]);
    std::fs::write(&file, text.replacen("Address", "Table = off\nAddress", 1)).unwrap();
    inside(&namespace, &["up", &file]);
    assert_eq!(namespace.ip(&["route", "show", "dev", &interface]).unwrap(), "");
    assert_eq!(inside(&namespace, &["show", &interface, "allowed-ips"]), told);
    inside(&namespace, &["down", &file]);
}

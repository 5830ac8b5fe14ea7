//! `wireloom up --kill-switch`: only the tunnel may carry traffic, whatever happens to the tunnel.
//!
//! The world counts what comes to it in clear: everything but the tunnel's own datagrams and what the link itself needs. That it would notice is
//! shown each time before the switch is there and after it has gone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use lab::{Daemon, Gso, Link, Namespace, ping, wait_until};
use rustix::net::{self, AddressFamily, SendFlags, SocketType, ipproto};
use rustix::process::{Pid, Signal, kill_process};

use crate::bed::{Bed, INTERFACE, failed, succeeded};
use crate::common::{SOON, wireloom};
use crate::engines::each_engine;

each_engine!(
    nothing_leaves_but_by_the_tunnel_even_when_its_daemon_dies,
    a_switch_goes_with_down_when_nothing_else_is_left,
    a_tunnel_to_one_network_shuts_out_all_others,
    what_is_forwarded_is_held_as_well,
    the_link_itself_stays_up,
);

/// Inside of the tunnel, at its other end.
const FAR: [&str; 2] = ["10.9.0.1", "fd09::1"];

/// The world's own addresses, on the link to it.
const NEXT: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// Beyond the world, where the default routes lead.
const BEYOND: [&str; 2] = ["198.51.100.7", "2001:db8:9::7"];

const EVERYTHING: &str = "0.0.0.0/0, ::/0";

/// What the world counts.
const CLEAR: &str = "table inet seen {\n chain seen {\n type filter hook prerouting priority -500\n iifname != \"eth0\" return\n \
    udp dport 51821 return\n icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld2-listener-report } return\n \
    counter\n }\n}\n";

/// A host with a tunnel to the world.
struct Scene {
    bed: Bed,
    _peer: Daemon,
    file: String,
}

impl Scene {
    /// The host's file is there, and the world's end of the tunnel is up.
    #[track_caller]
    fn new(allowed: &str, endpoint: &str) -> Scene {
        let bed = Bed::new();
        let peer = wireloom().start(&bed.world).unwrap();
        let key = |command: &str| bed.sh(command).trim().to_owned();
        let (ours, theirs) = (key("wg genkey"), key("wg genkey"));
        let public = |private: &str| key(&format!("echo {private} | wg pubkey"));
        let endpoint = SocketAddr::new(endpoint.parse().unwrap(), 51821);
        let file = format!(
            "[Interface]\nPrivateKey = {ours}\nAddress = 10.9.0.2/24, fd09::2/64\n\
             [Peer]\nPublicKey = {}\nAllowedIPs = {allowed}\nEndpoint = {endpoint}\n",
            public(&theirs)
        );
        bed.configure(&file);
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), &theirs).unwrap();
        let (secret, public) = (secret.path().to_str().unwrap(), public(&ours));
        let peers = ["peer", &public, "allowed-ips", "0.0.0.0/0,::/0"];
        peer.set(&[&["listen-port", "51821", "private-key", secret][..], &peers].concat()).unwrap();
        peer.up().unwrap();
        for address in ["10.9.0.1/24", "fd09::1/64"] {
            bed.world.ip(&["address", "add", address, "dev", &peer.interface, "nodad"]).unwrap();
        }
        bed.world.run("nft", &[CLEAR]).unwrap();
        Scene { bed, _peer: peer, file }
    }

    /// How many packets have come to the world in clear so far.
    #[track_caller]
    fn clear(&self) -> u64 {
        let text = self.bed.world.run("nft", &["list", "table", "inet", "seen"]).unwrap();
        let count = text.split_once("counter packets ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        count.unwrap_or_else(|| panic!("{text}"))
    }

    /// How many come of all that a host might try: UDP and TCP to anywhere, and pings that are bound to the interface of the link.
    #[track_caller]
    fn leaks(&self) -> u64 {
        let before = self.clear();
        let tries = || {
            for address in NEXT.iter().chain(&BEYOND) {
                let address: IpAddr = address.parse().unwrap();
                let to = SocketAddr::new(address, 4444);
                let any: IpAddr =
                    if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                // What comes of it is for the world to tell.
                let _ = UdpSocket::bind((any, 0))?.send_to(b"in clear", to);
                let _ = TcpStream::connect_timeout(&to, Duration::from_millis(50));
            }
            Ok(())
        };
        self.bed.namespace.inside(tries).unwrap();
        for address in NEXT.iter().chain(&BEYOND) {
            let _ = ping::once(&self.bed.namespace, address.parse().unwrap(), &["-I", "eth0", "-W", "0.1"]).unwrap();
        }
        self.clear() - before
    }

    #[track_caller]
    fn up(&self) {
        succeeded(self.bed.wireloom(&["up", "--kill-switch", INTERFACE]));
    }

    /// Whether the tunnel carries pings of both families.
    #[track_caller]
    fn check_tunnel(&self) {
        for address in FAR {
            let reached = || {
                let once = ping::once(&self.bed.namespace, address.parse().unwrap(), &["-W", "1"]);
                once.is_ok_and(|finished| finished.status.success())
            };
            wait_until(&format!("a ping to {address}"), SOON, reached).unwrap();
            // The first few are the daemon's, whatever the engine.
            let more = ping::ping(&self.bed.namespace, address.parse().unwrap(), 10, "0.01", SOON).unwrap();
            assert!(more.received >= 8, "{address}: {more:?}");
        }
    }

    /// Ends the daemon as a crash would.
    #[track_caller]
    fn kill_daemon(&self) {
        let is_daemon = |pid: &u32| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            ["run", INTERFACE].iter().all(|word| line.split('\0').any(|there| there == *word))
        };
        let daemons: Vec<u32> = self.bed.namespace.pids().into_iter().filter(is_daemon).collect();
        assert!(!daemons.is_empty(), "{:?}", self.bed.processes());
        for pid in daemons {
            let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
        }
        self.bed.wait_until_idle().unwrap();
        let gone = || self.bed.namespace.ip(&["link", "show", "dev", INTERFACE]).is_err();
        wait_until("the interface to go with its daemon", SOON, gone).unwrap();
    }

    fn stands(&self) -> bool {
        self.bed.sh("nft list tables").contains("wireloom-kill-wg0")
    }
}

fn nothing_leaves_but_by_the_tunnel_even_when_its_daemon_dies() {
    let scene = Scene::new(EVERYTHING, NEXT[0]);
    let before = scene.bed.state();
    assert!(scene.leaks() >= 12, "three kinds to four addresses, and answers to none");

    scene.up();
    scene.check_tunnel();
    assert_eq!(scene.leaks(), 0, "{}", scene.bed.state().part("firewall"));

    scene.kill_daemon();
    assert_eq!(scene.leaks(), 0, "without its daemon");

    // Behind the switch it comes up again,
    scene.up();
    scene.check_tunnel();
    assert_eq!(scene.leaks(), 0);

    // or not, and then the switch stands all the same.
    scene.kill_daemon();
    scene.bed.configure(&scene.file.replace("[Peer]", "PostUp = false\n[Peer]"));
    let why = failed(scene.bed.wireloom(&["up", "--kill-switch", INTERFACE]));
    assert!(why.contains("PostUp hook failed"), "{why}");
    assert!(scene.stands());
    assert_eq!(scene.leaks(), 0, "after it could not be brought up again");

    succeeded(scene.bed.wireloom(&["down", INTERFACE]));
    scene.bed.configure(&scene.file);
    before
        .without(&["wireguard/wg0.conf"])
        .assert_same(&scene.bed.state().without(&["wireguard/wg0.conf"]), "after down");
    assert!(scene.leaks() >= 12, "and all is as it was");
}

fn a_switch_goes_with_down_when_nothing_else_is_left() {
    let scene = Scene::new(EVERYTHING, NEXT[1]);
    let before = scene.bed.state();
    scene.up();
    scene.check_tunnel();
    succeeded(scene.bed.wg_quick("down"));
    scene.bed.wait_until_idle().unwrap();
    assert!(scene.stands(), "wg-quick knows nothing of it");
    assert_eq!(scene.leaks(), 0);
    succeeded(scene.bed.wireloom(&["down", INTERFACE]));
    before.assert_same(&scene.bed.state(), "after down");
    // And where even the journal is lost.
    scene.up();
    scene.kill_daemon();
    scene.bed.sh("rm -r /run/wireloom");
    succeeded(scene.bed.wireloom(&["down", INTERFACE]));
    assert!(!scene.stands());
    assert!(failed(scene.bed.wireloom(&["down", INTERFACE])).contains("is not up"));
}

fn a_tunnel_to_one_network_shuts_out_all_others() {
    let scene = Scene::new("10.9.0.0/24, fd09::/64", NEXT[1]);
    scene.up();
    scene.check_tunnel();
    assert_eq!(scene.leaks(), 0);
    scene.kill_daemon();
    assert_eq!(scene.leaks(), 0);
    succeeded(scene.bed.wireloom(&["down", INTERFACE]));
    assert!(scene.leaks() >= 12);
}

fn what_is_forwarded_is_held_as_well() {
    let scene = Scene::new(EVERYTHING, NEXT[0]);
    let lan = Namespace::new().unwrap();
    let link = Link::new(&scene.bed.namespace, &lan, Gso::Through).unwrap();
    for (path, value) in [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")] {
        scene.bed.namespace.set_sysctl(path, value).unwrap();
    }
    // Forwarding hosts take no default route from others, and ours was set by hand.
    lan.ip(&["route", "add", "default", "via", &link.left.v4.to_string()]).unwrap();
    lan.ip(&["-6", "route", "add", "default", "via", &link.left.v6.to_string()]).unwrap();
    let leaks = || {
        let before = scene.clear();
        for address in NEXT.iter().chain(&BEYOND) {
            let _ = ping::once(&lan, address.parse().unwrap(), &["-W", "0.3"]).unwrap();
        }
        lan.inside(|| pretend(BEYOND)).unwrap();
        scene.clear() - before
    };
    assert!(leaks() >= 7);
    scene.up();
    scene.check_tunnel();
    assert_eq!(leaks(), 0);
    scene.kill_daemon();
    assert_eq!(leaks(), 0);
    succeeded(scene.bed.wireloom(&["down", INTERFACE]));
    assert!(leaks() >= 7);
}

/// Sends what a host itself may send past a kill switch: DHCP, DHCPv6, and a multicast listener report, which has a hop limit of 1 once it is forwarded.
fn pretend(to: [&str; 2]) -> std::io::Result<()> {
    let [v4, v6] = to;
    UdpSocket::bind("0.0.0.0:68")?.send_to(b"a lease, please", format!("{v4}:67"))?;
    UdpSocket::bind("[::]:546")?.send_to(b"a lease, please", format!("[{v6}]:547"))?;
    let raw = net::socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6))?;
    net::sockopt::set_ipv6_unicast_hops(&raw, Some(2))?;
    let report = [&[131, 0, 0, 0, 0, 0, 0, 0][..], &[0xff; 16]].concat();
    net::sendto(&raw, &report, SendFlags::empty(), &SocketAddr::new(v6.parse().unwrap(), 0))?;
    Ok(())
}

#[test]
fn a_second_switch_is_refused() {
    let scene = Scene::new(EVERYTHING, NEXT[0]);
    scene.up();
    scene.bed.write("/etc/wireguard/wg1.conf", 0o600, &scene.file.replace("10.9.0.2/24, fd09::2/64", "10.8.0.2/24"));
    let before = scene.bed.state();
    let why = failed(scene.bed.wireloom(&["up", "--kill-switch", "wg1"]));
    let expected = "the kill switch of 'wg0' stands, and would let nothing out by another tunnel; expected `wireloom down wg0` first";
    assert!(why.contains(expected), "{why}");
    before.assert_same(&scene.bed.state(), &why);
    scene.check_tunnel();
}

fn the_link_itself_stays_up() {
    for endpoint in NEXT {
        let scene = Scene::new(EVERYTHING, endpoint);
        scene.up();
        scene.check_tunnel();
        // The neighbour has to be found again.
        scene.bed.namespace.ip(&["neighbour", "flush", "dev", "eth0"]).unwrap();
        scene.check_tunnel();
        let before = scene.clear();
        let ask = || UdpSocket::bind("0.0.0.0:68")?.send_to(b"a lease, please", "192.0.2.1:67").map(drop);
        scene.bed.namespace.inside(ask).unwrap();
        assert_eq!(scene.clear() - before, 1, "DHCP");
        let ask = || UdpSocket::bind("0.0.0.0:69")?.send_to(b"a lease, please", "192.0.2.1:67").map(drop);
        assert!(scene.bed.namespace.inside(ask).is_err(), "not from another port");
    }
}

//! The files of systemd-networkd and NetworkManager: what goes out comes back, and what does not is told.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

use std::fmt::Write;

use config::foreign::{Exported, Imported};
use config::networkd::{self, Network};
use config::quick::{self, KernelTables, Quick};
use config::value::NoServices;
use config::{nm, print};
use proptest::prelude::*;

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const OTHER: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
const SECRET: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

fn parse(text: &str) -> Quick {
    quick::parse(text.as_bytes(), &NoServices, &KernelTables).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// With what is lost of both files, that of the `.netdev` first.
fn from_networkd(netdev: &str, network: &str) -> Imported {
    let network =
        Network::parse(network.as_bytes(), &KernelTables).unwrap_or_else(|error| panic!("{error}: {network}"));
    let lost = network.lost().to_vec();
    let mut imported = networkd::import(netdev.as_bytes(), Some(network), &NoServices, &KernelTables)
        .unwrap_or_else(|error| panic!("{error}: {netdev}"));
    imported.lost.extend(lost);
    imported
}

fn from_nm(text: &str) -> Imported {
    nm::import(text.as_bytes(), &NoServices).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn lost<T: ToString>(lost: &[T]) -> Vec<String> {
    lost.iter().map(T::to_string).collect()
}

fn texts(exported: &Exported) -> Vec<&str> {
    exported.files.iter().map(|file| file.text.as_str()).collect()
}

/// A file in wg-quick's words, as it is printed.
#[derive(Debug, Clone)]
struct Made {
    v4: usize,
    v6: usize,
    dns: [bool; 2],
    search: Vec<&'static str>,
    mtu: Option<u32>,
    table: &'static str,
    save: bool,
    key_file: bool,
    port: Option<u16>,
    mark: Option<u32>,
    peers: Vec<MadePeer>,
}

#[derive(Debug, Clone)]
struct MadePeer {
    key: u8,
    psk: bool,
    networks: Vec<&'static str>,
    endpoint: Option<&'static str>,
    keepalive: Option<u16>,
}

fn made() -> impl Strategy<Value = Made> {
    let search = prop::collection::vec(prop::sample::select(vec!["corp.example", "lan", "~home"]), 0..2);
    let peer = (
        any::<u8>(),
        any::<bool>(),
        prop::collection::vec(
            prop::sample::select(vec![
                "10.0.0.0/8",
                "0.0.0.0/0",
                "::/0",
                "fd00::/64",
                "192.0.2.1/32",
                "2001:db8::1/128",
            ]),
            0..4,
        ),
        prop::option::of(prop::sample::select(vec!["192.0.2.1:7", "[2001:db8::1]:51820", "vpn.example.com:51820"])),
        prop::option::of(1..=65535_u16),
    )
        .prop_map(|(key, psk, networks, endpoint, keepalive)| MadePeer { key, psk, networks, endpoint, keepalive });
    (
        (0..3_usize, 0..3_usize, any::<[bool; 2]>(), search, prop::option::of(1280..=9000_u32)),
        prop::sample::select(vec!["auto", "off", "77"]),
        (any::<bool>(), any::<bool>(), prop::option::of(1..=65535_u16), prop::sample::select(vec![None, Some(0xca6c)])),
        prop::collection::vec(peer, 0..4),
    )
        .prop_map(|((v4, v6, dns, search, mtu), table, (save, key_file, port, mark), mut peers)| {
            peers.sort_by_key(|peer| peer.key);
            peers.dedup_by_key(|peer| peer.key);
            Made { v4, v6, dns, search, mtu, table, save, key_file, port, mark, peers }
        })
}

impl Made {
    fn text(&self) -> String {
        let mut text = "[Interface]\n".to_owned();
        for at in 0..self.v4 {
            writeln!(text, "Address = 10.{at}.0.1/24").unwrap();
        }
        for at in 0..self.v6 {
            writeln!(text, "Address = fd00:{at}::1/64").unwrap();
        }
        let servers = [(self.dns[0], "10.0.0.53"), (self.dns[1], "fd00::53")];
        let servers: Vec<&str> = servers.iter().filter(|(is_there, _)| *is_there).map(|(_, server)| *server).collect();
        let dns = [servers, self.search.clone()].concat().join(", ");
        if !dns.is_empty() {
            writeln!(text, "DNS = {dns}").unwrap();
        }
        if let Some(mtu) = self.mtu {
            writeln!(text, "MTU = {mtu}").unwrap();
        }
        writeln!(text, "Table = {}\nSaveConfig = {}\nPreDown = echo %i", self.table, self.save).unwrap();
        match self.key_file {
            true => writeln!(text, "PostUp = wg set %i private-key /etc/wireguard/%i.key").unwrap(),
            false => writeln!(text, "PrivateKey = {SECRET}").unwrap(),
        }
        if let Some(port) = self.port {
            writeln!(text, "ListenPort = {port}").unwrap();
        }
        if let Some(mark) = self.mark {
            writeln!(text, "FwMark = {mark}").unwrap();
        }
        for peer in &self.peers {
            writeln!(text, "[Peer]\nPublicKey = {}", public(peer.key)).unwrap();
            if peer.psk {
                writeln!(text, "PresharedKey = {KEY}").unwrap();
            }
            if !peer.networks.is_empty() {
                writeln!(text, "AllowedIPs = {}", peer.networks.join(",")).unwrap();
            }
            if let Some(endpoint) = peer.endpoint {
                writeln!(text, "Endpoint = {endpoint}").unwrap();
            }
            if let Some(seconds) = peer.keepalive {
                writeln!(text, "PersistentKeepalive = {seconds}").unwrap();
            }
        }
        text
    }

    fn has(&self, network: &str) -> bool {
        self.peers.iter().any(|peer| peer.networks.contains(&network))
    }

    fn routes(&self, v4: bool) -> bool {
        self.peers.iter().any(|peer| peer.networks.iter().any(|network| network.contains('.') == v4))
    }

    /// What must come back of it by way of networkd.
    fn by_networkd(&self) -> Made {
        let mut back = self.clone();
        if self.dns == [false; 2] {
            back.search.clear();
        }
        if self.table == "auto" && (self.has("0.0.0.0/0") || self.has("::/0")) {
            back.mark = Some(self.mark.unwrap_or(51820));
        }
        back.save = false;
        back
    }

    /// What must come back of it by way of NetworkManager.
    fn by_nm(&self) -> Made {
        let mut back = self.clone();
        back.dns = [self.dns[0] && self.v4 > 0, self.dns[1] && self.v6 > 0];
        if back.dns == [false; 2] {
            back.search.clear();
        }
        if self.table == "77" && self.v4 == 0 && self.v6 == 0 && !self.routes(false) {
            back.table = "auto";
        }
        (back.save, back.key_file) = (false, false);
        back
    }
}

fn public(seed: u8) -> String {
    let key = noise::PublicKey::from_bytes([seed; 32]);
    config::key::to_base64(&key).to_string()
}

/// The file without the hooks that run something, printed.
fn printed(quick: &Quick) -> String {
    print::whole(quick).lines().filter(|line| !line.starts_with("PreDown = echo")).collect::<Vec<_>>().join("\n")
}

fn without_repeats(quick: &mut Quick) {
    for peer in &mut quick.device.peers {
        let mut seen = Vec::new();
        peer.allowed_ips.retain(|change| {
            !seen.contains(change) && {
                seen.push(*change);
                true
            }
        });
    }
    let mut seen = Vec::new();
    quick.search.retain(|domain| {
        !seen.contains(domain) && {
            seen.push(domain.clone());
            true
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_printed_reads_back(made in made()) {
        let mut quick = parse(&made.text());
        without_repeats(&mut quick);
        let text = print::whole(&quick);
        prop_assert_eq!(&*print::whole(&parse(&text)), &*text);
    }

    #[test]
    fn what_goes_to_networkd_comes_back(made in made()) {
        let exported = networkd::export("wg0", &parse(&made.text()));
        let [netdev, network] = texts(&exported)[..] else { panic!("two files") };
        let mut back = from_networkd(netdev, network);
        without_repeats(&mut back.quick);
        let mut expected = parse(&made.by_networkd().text());
        without_repeats(&mut expected);
        // The file has got its name by then.
        let expected = printed(&expected).replace("%i.key", "wg0.key");
        prop_assert_eq!(printed(&back.quick), expected, "{}\n{}", netdev, network);
        prop_assert_eq!((back.interface.as_str(), lost(&back.lost)), ("wg0", Vec::new()));
        prop_assert!(exported.lost.iter().any(|lost| lost.to_string().starts_with("PreDown = 'echo %i'")));
        prop_assert_eq!(exported.lost.iter().any(|lost| lost.to_string().starts_with("SaveConfig")), made.save);
    }

    #[test]
    fn what_goes_to_network_manager_comes_back(mut made in made()) {
        made.key_file = false;
        let exported = nm::export("wg0", &parse(&made.text()));
        let [text] = texts(&exported)[..] else { panic!("one file") };
        let mut back = from_nm(text);
        without_repeats(&mut back.quick);
        let mut expected = parse(&made.by_nm().text());
        without_repeats(&mut expected);
        prop_assert_eq!(printed(&back.quick), printed(&expected), "{}", text);
        prop_assert_eq!((back.interface.as_str(), lost(&back.lost)), ("wg0", Vec::new()));
    }

    #[test]
    fn any_lines_are_a_file_or_one_line_of_error(lines in prop::collection::vec(line(), 0..16)) {
        let text = lines.join("\n");
        let told = [
            Network::parse(text.as_bytes(), &KernelTables).err(),
            networkd::import(text.as_bytes(), None, &NoServices, &KernelTables).err(),
            nm::import(text.as_bytes(), &NoServices).err(),
        ];
        for error in told.into_iter().flatten() {
            prop_assert!(error.line >= 1 && error.line <= lines.len().max(1), "{}", error);
            prop_assert!(!error.to_string().chars().any(char::is_control), "{}", error);
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Network::parse(&bytes, &KernelTables);
        let _ = networkd::import(&bytes, None, &NoServices, &KernelTables);
        let _ = nm::import(&bytes, &NoServices);
    }
}

/// A line that stands in one of these files, or nearly.
fn line() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "[NetDev]",
        "Name=wg0",
        "Kind=wireguard",
        "MTUBytes=1400",
        "[WireGuard]",
        "PrivateKeyFile=/a",
        "ListenPort=auto",
        "FirewallMark=7",
        "RouteTable=main",
        "[WireGuardPeer]",
        "AllowedIPs=10.0.0.0/8, ::/0",
        "Endpoint=a:1",
        "[Match]",
        "[Network]",
        "Address=10.0.0.1/8",
        "DNS=1.1.1.1#x 2.2.2.2",
        "Domains=~. a",
        "[Route]",
        "Destination=::/0",
        "Table=7",
        "[RoutingPolicyRule]",
        "InvertRule=yes",
        "SuppressPrefixLength=0",
        "[connection]",
        "type=wireguard",
        "interface-name=wg0",
        "[wireguard]",
        "private-key-flags=1",
        "peer-routes=false",
        "[ipv4]",
        "[ipv6]",
        "address1=10.0.0.1/24,10.0.0.2",
        "dns=1.1.1.1;",
        "dns-search=~;a;",
        "route-table=7",
        "method=manual",
        "",
        "[wireguard-peer.xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=]",
        "allowed-ips=10.0.0.0/8;::/0;",
        "PublicKey=xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    ])
    .prop_map(str::to_owned);
    prop_oneof![8 => known, 1 => "[A-Za-z-]{0,12}[= ]?[ -~é\\\\]{0,12}"]
}

#[test]
fn a_road_warrior_in_networkds_words() {
    let text = format!(
        "[Interface]\nAddress = 10.0.0.2/24, fd00::2/64\nDNS = 10.0.0.1, corp.example\nMTU = 1380\nPrivateKey = {SECRET}\n\
         PostUp = iptables -A FORWARD -i %i -j ACCEPT\nPostUp = wg set %i peer {KEY} preshared-key /etc/wireguard/psk\n\
         [Peer]\nPublicKey = {KEY}\nAllowedIPs = 0.0.0.0/0, 10.0.0.0/8, ::/0\nEndpoint = vpn.example.com:51820\nPersistentKeepalive = 25\n"
    );
    let exported = networkd::export("wg0", &parse(&text));
    let netdev = format!(
        "[NetDev]\nName=wg0\nKind=wireguard\nMTUBytes=1380\n\n[WireGuard]\nPrivateKey={SECRET}\nFirewallMark=51820\nRouteTable=off\n\n\
         [WireGuardPeer]\nPublicKey={KEY}\nPresharedKeyFile=/etc/wireguard/psk\nAllowedIPs=0.0.0.0/0,10.0.0.0/8,::/0\n\
         Endpoint=vpn.example.com:51820\nPersistentKeepalive=25\n"
    );
    let network = "[Match]\nName=wg0\n\n[Network]\nAddress=10.0.0.2/24\nAddress=fd00::2/64\nDNS=10.0.0.1\nDomains=corp.example ~.\n\
        DNSDefaultRoute=yes\n\n[Route]\nDestination=0.0.0.0/0\nTable=51820\n\n[Route]\nDestination=10.0.0.0/8\n\n\
        [Route]\nDestination=::/0\nTable=51820\n\n[RoutingPolicyRule]\nFamily=both\nTable=254\nSuppressPrefixLength=0\nPriority=32764\n\n\
        [RoutingPolicyRule]\nFamily=both\nFirewallMark=51820\nInvertRule=yes\nTable=51820\nPriority=32765\n";
    assert_eq!(texts(&exported), [&netdev, network]);
    let names: Vec<_> = exported.files.iter().map(|file| (file.name.as_str(), file.secret)).collect();
    assert_eq!(names, [("50-wg0.netdev", true), ("50-wg0.network", false)]);
    let told = lost(&exported.lost);
    assert!(told[0].starts_with("PostUp = 'iptables -A FORWARD -i %i -j ACCEPT': networkd runs no"), "{told:?}");
    assert!(told[1].starts_with("a default route: "), "{told:?}");
    assert_eq!(told.len(), 2);
}

#[test]
fn a_road_warrior_in_network_managers_words() {
    let text = format!(
        "[Interface]\nAddress = 10.0.0.2/24\nDNS = 10.0.0.1, fd00::1\nMTU = 1380\nFwMark = 0xca6c\nListenPort = 51820\nPrivateKey = {SECRET}\n\
         [Peer]\nPublicKey = {KEY}\nPresharedKey = {OTHER}\nAllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = [2001:db8::1]:51820\n"
    );
    let exported = nm::export("wg0", &parse(&text));
    let expected = format!(
        "[connection]\nid=wg0\ntype=wireguard\ninterface-name=wg0\n\n[wireguard]\nfwmark=51820\nlisten-port=51820\nmtu=1380\nprivate-key={SECRET}\n\n\
         [wireguard-peer.{KEY}]\nendpoint=[2001:db8::1]:51820\npreshared-key={OTHER}\npreshared-key-flags=0\nallowed-ips=0.0.0.0/0;::/0;\n\n\
         [ipv4]\naddress1=10.0.0.2/24\ndns=10.0.0.1;\ndns-priority=-50\ndns-search=~;\nmethod=manual\n\n[ipv6]\nmethod=link-local\n"
    );
    assert_eq!(texts(&exported), [expected]);
    let told = lost(&exported.lost);
    assert!(told[0].starts_with("DNS = fd00::1: NetworkManager takes no server"), "{told:?}");
    assert!(told[1].starts_with("AllowedIPs = ::/0: the interface gets a link-local"), "{told:?}");
    assert_eq!(told.len(), 2);
}

#[test]
fn peers_that_come_twice_are_one() {
    let text = format!(
        "[Interface]\nPrivateKey = {SECRET}\n[Peer]\nPublicKey = {KEY}\nAllowedIPs = 10.0.0.0/8\nEndpoint = 192.0.2.1:1\n\
         [Peer]\nPublicKey = {OTHER}\n[Peer]\nPublicKey = {KEY}\nAllowedIPs = +10.1.0.0/16, -10.0.0.0/8, +::1\nPersistentKeepalive = 7\n"
    );
    let exported = networkd::export("wg0", &parse(&text));
    let peers = format!(
        "[WireGuardPeer]\nPublicKey={KEY}\nAllowedIPs=10.1.0.0/16,::1/128\nEndpoint=192.0.2.1:1\nPersistentKeepalive=7\n\n\
         [WireGuardPeer]\nPublicKey={OTHER}\n"
    );
    assert!(texts(&exported)[0].ends_with(&peers), "{}", texts(&exported)[0]);
}

#[test]
fn tables_of_networkd_are_those_of_wg_quick_or_told() {
    let table = |netdev: &str, network: &str| {
        let netdev = format!("[NetDev]\nName=wg0\nKind=wireguard\n[WireGuard]\nPrivateKey={SECRET}\n{netdev}");
        let imported = from_networkd(&netdev, network);
        (imported.quick.table.to_string(), lost(&imported.lost).join("; "))
    };
    let peer = |networks: &str| format!("[WireGuardPeer]\nPublicKey={KEY}\nAllowedIPs={networks}\n");
    let plain = peer("10.0.0.0/8");
    let is = |table: &str| (table.to_owned(), String::new());
    assert_eq!(table(&plain, ""), is("off"));
    assert_eq!(table(&format!("RouteTable=main\n{plain}"), ""), is("auto"));
    assert_eq!(table(&format!("RouteTable=off\n{plain}"), "[Route]\nDestination=10.0.0.0/8\nScope=link"), is("auto"));
    assert_eq!(table(&plain, "[Route]\nDestination=10.0.0.0/8\nTable=9"), is("9"));
    assert_eq!(table(&format!("{plain}RouteTable=local"), ""), is("255"));
    // Without rules to keep it apart, a default route in the main table is only that.
    assert_eq!(table(&format!("RouteTable=254\n{}", peer("0.0.0.0/0")), ""), is("254"));
    let routes = "the routes are not those of wg-quick";
    let told = |netdev: &str, network: &str| {
        let (table, lost) = table(netdev, network);
        assert!(table == "auto" && lost.contains(routes), "{table}: {lost}");
        lost
    };
    told(&plain, "[Route]\nDestination=10.1.0.0/16");
    told(&format!("RouteTable=7\n{plain}{}", peer("::/64").replace(KEY, OTHER) + "RouteTable=8"), "");
    assert!(told(&plain, "[Route]\nDestination=10.0.0.0/8\nGateway=10.0.0.1").contains("3: 'Gateway' of ['Route']"));
    let rules = "[RoutingPolicyRule]\nTable=main\nSuppressPrefixLength=0\n[RoutingPolicyRule]\nFirewallMark=8\nInvertRule=yes\nTable=7\n";
    told(&format!("FirewallMark=7\n{}", peer("::/0")), &format!("[Route]\nDestination=::/0\nTable=7\n{rules}"));
    let rules = rules.replace("=8", "=0x7");
    assert_eq!(
        table(&format!("FirewallMark=7\n{}", peer("::/0")), &format!("[Route]\nDestination=::/0\nTable=7\n{rules}")),
        is("auto")
    );
}

#[test]
fn what_wg_quick_cannot_say_is_told() {
    let netdev = format!(
        "# of a guide\n[NetDev]\nName = wg0\nKind = wireguard\nDescription = mine\nMACAddress=00:11:22:33:44:55\n[WireGuard]\n\
         PrivateKeyFile = /etc/wg key\nListenPort=51820\n\n[WireGuardPeer]\nPublicKey = {KEY}\nPresharedKeyFile=/etc/psk\n\
         AllowedIPs = 10.0.0.0/8\nAllowedIPs = fd00::/64\nRouteMetric=5\n"
    );
    let network = "[Match]\nName=wg0\nType=wireguard\n[Network]\nAddress=10.0.0.1/24\nDHCP=no\nDNS=10.0.0.53 10.0.0.54:5353\n\
        [Address]\nAddress=fd00::1/64\nLabel=x\n[CAN]\n";
    let imported = from_networkd(&netdev, network);
    assert_eq!(
        lost(&imported.lost),
        [
            "5: 'Description' of ['NetDev'] has no counterpart in wg-quick",
            "6: 'MACAddress' of ['NetDev'] has no counterpart in wg-quick",
            "8: the path '/etc/wg key' cannot stand in a command of wg-quick's",
            "16: 'RouteMetric' of ['WireGuardPeer'] has no counterpart in wg-quick",
            "3: 'Type' of ['Match'] has no counterpart in wg-quick",
            "6: 'DHCP' of ['Network'] has no counterpart in wg-quick",
            "7: DNS='10.0.0.54:5353' has no counterpart in wg-quick",
            "10: 'Label' of ['Address'] has no counterpart in wg-quick",
            "11: ['CAN'] has no counterpart in wg-quick",
            "the DNS servers are for some names only: with wg-quick they are asked for all",
        ]
    );
    let expected = format!(
        "[Interface]\nAddress = 10.0.0.1/24\nAddress = fd00::1/64\nDNS = 10.0.0.53\nTable = off\nPostUp = wg set %i peer {KEY} preshared-key /etc/psk\n\
         ListenPort = 51820\n\n[Peer]\nPublicKey = {KEY}\nAllowedIPs = 10.0.0.0/8, fd00::/64\n"
    );
    assert_eq!(*print::whole(&imported.quick), expected);

    let text = format!(
        "[connection]\nid=Home\nuuid=1\ntype=wireguard\ninterface-name=wg0\nautoconnect=false\n[wireguard]\nprivate-key-flags=1\n\
         [wireguard-peer.{KEY}]\nallowed-ips=10.0.0.0/8;\n[ipv4]\naddress1=10.0.0.1/24,10.0.0.2\nmethod=auto\nroute1=10.9.0.0/16\ndns=1.1.1.1;\n\
         [ipv6]\naddr-gen-mode=default\nmethod=disabled\nroute-table=7\n[proxy]\n"
    );
    let imported = from_nm(&text);
    assert_eq!(
        lost(&imported.lost),
        [
            "6: 'autoconnect' of ['connection'] has no counterpart in wg-quick",
            "8: private-key is kept elsewhere than in the file, by its flags: put it in by hand",
            "12: gateway='10.0.0.2' has no counterpart in wg-quick",
            "13: method='auto' has no counterpart in wg-quick",
            "14: 'route1' of ['ipv4'] has no counterpart in wg-quick",
            "the DNS servers are for some names only: with wg-quick they are asked for all",
        ]
    );
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let netdev = "[NetDev]\nName=wg0\nKind=wireguard\n[WireGuard]\n";
    let wrong = [
        (format!("{netdev}PrivateKey=x"), "5: the private key is not a key"),
        (format!("{netdev}[WireGuardPeer]\nEndpoint=a:1"), "5: the peer has no public key"),
        (format!("{netdev}ListenPort=65536"), "5: listen port '65536' is not one"),
        (format!("{netdev}RouteTable=vpn"), "5: RouteTable='vpn' cannot be, expected"),
        (format!("{netdev}FirewallMark=-1"), "5: mark '-1' is not one"),
        ("[NetDev]\nName=a/b\nKind=wireguard".to_owned(), "2: Name='a/b' cannot be, expected"),
        ("[NetDev]\nKind=wireguard".to_owned(), "1: the file does not name its interface, expected Name="),
        ("[NetDev]\nName=br0\nKind=bridge".to_owned(), "1: the file is not of a WireGuard interface, expected Kind="),
    ];
    for (text, expected) in wrong {
        let told = networkd::import(text.as_bytes(), None, &NoServices, &KernelTables).err().unwrap().to_string();
        assert!(told.starts_with(expected), "{told}");
    }
    for (text, expected) in [
        ("[Network]\nAddress=x", "2: Address='x' cannot be, expected an address"),
        ("[Route]\nDestination=x", "2: Destination='x' cannot be"),
        ("[Link]\nMTUBytes=1", "2: MTUBytes='1' cannot be"),
    ] {
        let told = Network::parse(text.as_bytes(), &KernelTables).err().unwrap().to_string();
        assert!(told.starts_with(expected), "{told}");
    }
    let nm = "[connection]\ntype=wireguard\ninterface-name=wg0\n";
    for (text, expected) in [
        (format!("{nm}[wireguard]\nprivate-key=x"), "5: the private key is not a key"),
        (format!("{nm}[wireguard-peer.x]"), "4: the public key is not a key"),
        (format!("{nm}[ipv4]\naddress1=fd00::1/64"), "5: address='fd00::1/64' cannot be"),
        ("[connection]\ntype=vpn".to_owned(), "1: the file is not of a WireGuard interface, expected type="),
    ] {
        let told = nm::import(text.as_bytes(), &NoServices).err().unwrap().to_string();
        assert!(told.starts_with(expected), "{told}");
    }
}

/// What `nmcli` of NetworkManager 1.42.4 (Debian 12) makes of an export, read and written by its own code:
///
/// ```text
/// wireloom export --format networkmanager TABLE.conf | nmcli --offline connection modify connection.uuid 11111111-2222-3333-4444-555555555555
/// ```
///
/// where the file was called `wg0.conf`.
const NMCLI: [(&str, &str); 3] = [
    (include_str!("networkmanager/auto.conf"), include_str!("networkmanager/auto.nmconnection")),
    (include_str!("networkmanager/off.conf"), include_str!("networkmanager/off.nmconnection")),
    (include_str!("networkmanager/77.conf"), include_str!("networkmanager/77.nmconnection")),
];

#[test]
fn network_manager_reads_what_is_exported_and_we_what_it_writes() {
    // It puts peers, and the settings of a section, into an order of its own, and adds what is its own.
    let sorted = |text: &str| {
        let mut sections: Vec<Vec<String>> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if line.starts_with('[') {
                sections.push(vec![line.to_owned()]);
            } else if !line.starts_with("uuid=") && line != "addr-gen-mode=default" {
                sections.last_mut().unwrap().push(line.to_owned());
            }
        }
        sections.iter_mut().for_each(|section| section[1..].sort());
        sections.retain(|section| section[0] != "[proxy]");
        sections.sort();
        sections
    };
    for (conf, theirs) in NMCLI {
        let quick = parse(conf);
        let exported = nm::export("wg0", &quick);
        let [ours] = texts(&exported)[..] else { panic!("one file") };
        assert_eq!(sorted(ours), sorted(theirs));
        let back = from_nm(theirs);
        assert_eq!((lost(&back.lost), back.interface.as_str()), (Vec::new(), "wg0"));
        assert_eq!(*print::whole(&back.quick), *print::whole(&quick));
    }
}

//! The plan, for files of all kinds.

use config::quick::{KernelTables, parse};
use config::value::Services;
use proptest::prelude::*;

use super::*;

struct NoServices;

impl Services for NoServices {
    fn port(&self, _: &str) -> Option<u16> {
        None
    }
}

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

fn read(text: &str) -> Quick {
    parse(text.as_bytes(), &NoServices, &KernelTables).unwrap()
}

fn planned(text: &str, facts: &Facts) -> Vec<Step> {
    let place = Place { interface: "wg0".parse().unwrap(), file: "/etc/wireguard/wg0.conf".into() };
    up(&place, read(text), &options(None, false), facts)
}

fn options(netns: Option<&str>, kill_switch: bool) -> Options {
    Options {
        engine: Engine::Userspace,
        netns: netns.map(str::to_owned),
        wipe_on_suspend: false,
        metrics: Vec::new(),
        kill_switch,
        policy: None,
    }
}

fn lines(text: &str) -> Vec<String> {
    planned(text, &Facts { free_table: 51822, path_mtu: Some(1400) }).iter().flat_map(Step::describe).collect()
}

fn peer(allowed: &str) -> String {
    format!("[Peer]\nPublicKey = {KEY}\nAllowedIPs = {allowed}\n")
}

#[test]
fn the_order_is_wg_quicks() {
    let text = format!(
        "[Interface]\nAddress = 10.0.0.1/24, fd00::1/64, 192.0.2.1\n{}",
        peer("10.0.0.7/32, 10.0.0.0/8, fd00::/64, fd01::/48, 0.0.0.0/0, ::/0, 192.0.2.1/32, 10.1.0.0/16, 10.2.0.0/16")
    );
    let expected = "\
        wireloom run wg0
        wireloom setconf wg0 <(wireloom strip /etc/wireguard/wg0.conf)
        ip -4 address add 10.0.0.1/24 dev wg0
        ip -6 address add fd00::1/64 dev wg0
        ip -4 address add 192.0.2.1/32 dev wg0
        ip link set mtu 1320 up dev wg0
        ip -6 route add fd01::/48 dev wg0
        ip -4 route add 192.0.2.1/32 dev wg0
        ip -4 route add 10.2.0.0/16 dev wg0
        ip -4 route add 10.1.0.0/16 dev wg0
        ip -4 route add 10.0.0.0/8 dev wg0
        wireloom set wg0 fwmark 51822
        ip -6 route add ::/0 dev wg0 table 51822
        ip -6 rule add not fwmark 51822 table 51822
        ip -6 rule add table main suppress_prefixlength 0
        ip -4 route add 0.0.0.0/0 dev wg0 table 51822
        ip -4 rule add not fwmark 51822 table 51822
        ip -4 rule add table main suppress_prefixlength 0";
    let core = |line: &String| ["wireloom ", "ip "].iter().any(|program| line.starts_with(program));
    let found: Vec<String> = lines(&text).into_iter().filter(core).collect();
    assert_eq!(found, expected.lines().map(str::trim).collect::<Vec<_>>());
}

#[test]
fn what_is_around_has_its_place() {
    let text = format!(
        "[Interface]\nAddress = 10.0.0.1/24\nPreUp = first %i\nPostUp = last %i\nPostUp = very last\nPreDown = no\n{}",
        peer("0.0.0.0/0, ::/0, 10.3.0.0/16")
    );
    let place = Place { interface: "wg0".parse().unwrap(), file: "/etc/wireguard/wg0.conf".into() };
    let options = |netns| options(netns, true);
    let facts = Facts { free_table: 51822, path_mtu: None };
    let kinds = |netns, text: &str| -> Vec<&str> {
        let steps = up(&place, read(text), &options(netns), &facts);
        let kind = |step: &Step| match step {
            Step::Link(_) => "link",
            Step::Policy(_) => "policy",
            Step::Configure(_) => "configure",
            Step::Addresses(_) => "address",
            Step::Activate(_) => "activate",
            Step::Mark(_) => "mark",
            Step::Routes(_) => "routes",
            Step::Rule(_) => "rule",
            Step::Dns(_) => "dns",
            Step::SourceValidMark(_) => "setting",
            Step::LeakTable(_) => "table",
            Step::KillSwitch(_) => "switch",
            Step::Hook(_) => "hook",
            Step::Attend(_) => "attend",
        };
        steps.iter().map(kind).collect()
    };
    let end = ["routes", "rule", "rule", "table", "routes", "rule", "rule", "setting", "table", "hook", "hook"];
    let start = ["hook", "link", "configure", "mark", "switch", "address", "activate", "routes"];
    assert_eq!(kinds(None, &text), [&start[..], &end].concat());
    // Elsewhere the switch needs no mark, and names are asked in a file of the namespace's, whoever looks after those of this machine.
    let start = ["hook", "link", "configure", "switch", "address", "activate", "dns", "routes", "mark"];
    let named = text.replace("PreDown = no", "DNS = 10.0.0.53");
    assert_eq!(kinds(Some("blue"), &named), [&start[..], &end].concat());
    let hooks = lines(&text).into_iter().filter(|line| line.contains("first") || line.contains("last"));
    assert_eq!(hooks.collect::<Vec<_>>(), ["first wg0", "last wg0", "very last"]);
}

#[test]
fn tables_and_marks_are_the_files() {
    let marked = format!("[Interface]\nFwMark = 7\n{}", peer("0.0.0.0/0"));
    let found = lines(&marked);
    assert!(found.contains(&"ip -4 route add 0.0.0.0/0 dev wg0 table 7".to_owned()), "{found:?}");
    assert!(!found.iter().any(|line| line.contains("set wg0 fwmark")), "{found:?}");
    let numbered = format!("[Interface]\nAddress = 10.0.0.1/8\nTable = 5\n{}", peer("0.0.0.0/0, 10.0.0.0/8"));
    let found: Vec<String> =
        lines(&numbered).into_iter().filter(|line| line.contains("rout") || line.contains("rule")).collect();
    assert_eq!(found, ["ip -4 route add 10.0.0.0/8 dev wg0 table 5", "ip -4 route add 0.0.0.0/0 dev wg0 table 5"]);
    let off = format!("[Interface]\nTable = off\n{}", peer("0.0.0.0/0, 10.0.0.0/8"));
    assert!(!lines(&off).iter().any(|line| line.contains("rout") || line.contains("rule")));
}

#[test]
fn the_mtu_is_the_files_or_the_paths_or_what_ipv6_takes() {
    let mtu = |text: &str, path_mtu| {
        let steps = planned(text, &Facts { free_table: 1, path_mtu });
        steps.iter().find_map(|step| if let Step::Activate(step) = step { Some((step.mtu, step.least)) } else { None })
    };
    assert_eq!(mtu("[Interface]\nMTU = 99\n", Some(1400)), Some((99, None)));
    assert_eq!(mtu("[Interface]\n", Some(1400)), Some((1320, Some(68))));
    assert_eq!(mtu("[Interface]\n", None), Some((1420, Some(68))));
    assert_eq!(mtu("[Interface]\n", Some(100)), Some((68, Some(68))));
    assert_eq!(mtu("[Interface]\nAddress = fd00::1\n", Some(1300)), Some((1280, Some(1280))));
    assert_eq!(mtu(&format!("[Interface]\n{}", peer("::/0")), Some(1300)), Some((1280, Some(1280))));
}

/// A network that is one of few, so that they meet.
fn network() -> impl Strategy<Value = Cidr> {
    let v4 = (0u32..4, 0u8..=32).prop_map(|(n, len)| Cidr::new(IpAddr::V4((0x0a00_0000 + (n << 22)).into()), len));
    let v6 = (0u128..4, 0u8..=128).prop_map(|(n, len)| Cidr::new(IpAddr::V6(((0xfd << 120) + (n << 100)).into()), len));
    prop_oneof![v4, v6].prop_map(Option::unwrap)
}

proptest! {
    #[test]
    fn each_network_is_routed_once_and_the_longest_first(
        allowed in prop::collection::vec(prop::collection::vec(network(), 0..6), 0..4),
        addresses in prop::collection::vec(network(), 0..3),
        table in prop_oneof![Just("auto"), Just("off"), Just("77")],
        mark in prop::option::of(1u32..9),
    ) {
        let mut text = "[Interface]\n".to_owned();
        for address in &addresses {
            text += &format!("Address = {address}\n");
        }
        text += &format!("Table = {table}\n");
        if let Some(mark) = mark {
            text += &format!("FwMark = {mark}\n");
        }
        for (at, list) in allowed.iter().enumerate() {
            let key = KEY.replacen("TIB", &format!("TI{at}"), 1);
            text += &format!("[Peer]\nPublicKey = {key}\n");
            for network in list {
                text += &format!("AllowedIPs = {network}\n");
            }
        }
        let wanted: BTreeSet<Cidr> = allowed.iter().flatten().copied().collect();
        let steps = planned(&text, &Facts { free_table: 51820, path_mtu: None });
        prop_assert!(matches!(&steps[0], Step::Link(_)));
        let mut routes: Vec<(Cidr, u32)> = Vec::new();
        let mut rules = Vec::new();
        for step in &steps {
            match step {
                Step::Routes(step) => routes.extend(step.networks.iter().map(|network| (*network, step.table))),
                Step::Rule(rule) => rules.push((rule.v6, rule.mark)),
                _ => {}
            }
        }
        prop_assert!(routes.is_sorted_by_key(|(network, _)| Reverse(network.prefix_len())));
        let routed: BTreeSet<Cidr> = routes.iter().map(|(network, _)| *network).collect();
        prop_assert_eq!(routed.len(), routes.len());
        match table {
            "off" => prop_assert!(routes.is_empty() && rules.is_empty()),
            "77" => {
                prop_assert_eq!(&routed, &wanted);
                prop_assert!(rules.is_empty() && routes.iter().all(|(_, table)| *table == 77));
            }
            _ => {
                // What has no route has an address whose network covers it.
                for network in wanted.difference(&routed) {
                    let cover = |address: &Cidr| address.contains(network.addr()) && address.prefix_len() <= network.prefix_len();
                    prop_assert!(network.prefix_len() > 0 && addresses.iter().any(cover), "{}", network);
                }
                prop_assert!(routed.is_subset(&wanted));
                let own = mark.unwrap_or(51820);
                for (network, table) in &routes {
                    prop_assert_eq!(*table, if network.prefix_len() == 0 { own } else { MAIN });
                }
                let ends: Vec<bool> = routes.iter().filter(|(_, table)| *table == own).map(|(network, _)| network.addr().is_ipv6()).collect();
                let expected: Vec<_> = ends.iter().flat_map(|v6| [(*v6, Some(own)), (*v6, None)]).collect();
                prop_assert_eq!(rules, expected);
            }
        }
    }
}

//! `wireloom up` and `down` beside Debian's wg-quick: the same file, brought up by either, makes the same host; and what one brought up the other takes down.
//!
//! Each has a bed of its own, and in it the same files under the same names, so that the states can be compared to the letter. The device is in both
//! what wg-quick takes: the kernel's where it has one, and ours where not.

use crate::bed::{Bed, HOOKS, INTERFACE, State, succeeded};

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    WgQuick,
    Wireloom,
}

use By::{WgQuick, Wireloom};

/// Keys are from wg(8).
const DEVICE: &str = "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\nListenPort = 51820\n";
const PEER: &str = "[Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n";
const PEER_TWO: &str = "[Peer]\nPublicKey = TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=\n";

/// wg-quick leaves it as it has set it, and we put it back.
const LEFT: &str = "all/src_valid_mark";

fn file(interface: &str, peer: &str) -> String {
    format!("{DEVICE}{interface}\n{PEER}{peer}\n")
}

fn up(bed: &Bed, by: By) -> State {
    match by {
        WgQuick => succeeded(bed.wg_quick("up")),
        Wireloom => succeeded(bed.wireloom(&["up", "--engine", "auto", INTERFACE])),
    };
    bed.state()
}

fn down(bed: &Bed, by: By) -> State {
    match by {
        WgQuick => succeeded(bed.wg_quick("down")),
        Wireloom => succeeded(bed.wireloom(&["down", INTERFACE])),
    };
    bed.wait_until_idle().unwrap();
    bed.state()
}

/// Brings each file up by both, compares, and takes it down again: by who brought it up, and by the other.
fn compare(files: &[(&str, String)]) {
    let beds = [(Bed::new(), WgQuick), (Bed::new(), Wireloom)];
    for (what, text) in files {
        for takes_down in [|by| by, |by| if by == WgQuick { Wireloom } else { WgQuick }] {
            let mut states = Vec::new();
            for (bed, by) in &beds {
                bed.configure(text);
                let before = bed.state();
                states.push((bed, before, up(bed, *by), bed.sh(&format!("wg showconf {INTERFACE}"))));
            }
            let [(_, _, theirs, their_device), (_, _, ours, our_device)] = &states[..] else { unreachable!() };
            theirs.comparable().assert_same(&ours.comparable(), what);
            assert_eq!(their_device, our_device, "{what}");
            for ((bed, by), (_, before, ..)) in beds.iter().zip(&states) {
                let other = takes_down(*by);
                let after = down(bed, other);
                let what = format!("{what}: up by {by:?}, down by {other:?}");
                if (*by, other) == (Wireloom, Wireloom) {
                    before.assert_same(&after, &what);
                } else {
                    before.without(&[LEFT]).assert_same(&after.without(&[LEFT]), &what);
                }
                bed.sh(&format!("echo 0 > /proc/sys/net/ipv4/conf/{LEFT}"));
            }
        }
    }
}

#[test]
fn addresses_and_routes_are_the_same() {
    let named = |what, interface: &str, peer: &str| (what, file(interface, peer));
    compare(&[
        named("one address", "Address = 10.9.0.1/24", "AllowedIPs = 10.9.0.2/32\nEndpoint = 192.0.2.1:51821"),
        named(
            "many addresses",
            "Address = 10.9.0.1/24, fd09::1/64\nAddress = 10.9.0.7, 10.8.0.1/16,fd08::1\nMTU = 1380",
            "AllowedIPs = 10.9.0.0/24, 10.9.0.9/32, 10.10.0.0/16, 10.10.3.0/24, fd09::/64, fd10::/32, fd10::9/128\n\
             Endpoint = [2001:db8::1]:51821",
        ),
        named("halves", "Address = 10.9.0.1/32", "AllowedIPs = 0.0.0.0/1, 128.0.0.0/1, ::/1, 8000::/1"),
        (
            "two peers",
            file(
                "Address = 10.9.0.1/24\nTable = auto",
                &format!(
                    "AllowedIPs = 10.20.0.0/16\nEndpoint = 192.0.2.1:51821\n{PEER_TWO}AllowedIPs = 10.20.5.0/24, 172.31.0.0/16"
                ),
            ),
        ),
        named("no address", "", "AllowedIPs = 10.11.0.0/16, fd11::/48\nPersistentKeepalive = 25"),
    ]);
}

#[test]
fn tables_and_marks_are_the_same() {
    let both = "AllowedIPs = 0.0.0.0/0, ::/0, 10.11.0.0/16\nEndpoint = 192.0.2.1:51821";
    let addresses = "Address = 10.9.0.1/24, fd09::1/64";
    let named = |what, interface: &str, peer: &str| (what, file(&format!("{addresses}\n{interface}"), peer));
    compare(&[
        named("no table", "Table = off\nFwMark = 0x77", both),
        named("a table of its own", "Table = 1234", both),
        named("a mark and a table of its own", "Table = 1234\nFwMark = 0x77", both),
        named("a mark", "FwMark = 0x77", "AllowedIPs = 10.11.0.0/16"),
    ]);
}

#[test]
fn default_routes_are_the_same() {
    let endpoint = "Endpoint = 192.0.2.1:51821";
    compare(&[
        ("IPv4", file("Address = 10.9.0.1/24, 10.9.1.1/32", &format!("AllowedIPs = 0.0.0.0/0\n{endpoint}"))),
        ("IPv6", file("Address = fd09::1/64, fd08::1/128", &format!("AllowedIPs = ::/0\n{endpoint}"))),
        (
            "both",
            file(
                "Address = 10.9.0.1/24, fd09::1/64",
                &format!("AllowedIPs = 0.0.0.0/0, ::/0, 10.12.0.0/16\n{endpoint}"),
            ),
        ),
        (
            "both, with a mark",
            file(
                "Address = 10.9.0.1/24, fd09::1/64\nFwMark = 0x1234",
                &format!("AllowedIPs = ::/0, 0.0.0.0/0\n{endpoint}"),
            ),
        ),
        ("of the wrong family", file("Address = 10.9.0.1/24", &format!("AllowedIPs = ::/0\n{endpoint}"))),
    ]);
}

#[test]
fn iptables_serves_where_there_is_no_nft() {
    let rules = |bed: &Bed| bed.sh("iptables-save | grep -v '^#'; ip6tables-save | grep -v '^#'");
    let text = file("Address = 10.9.0.1/24, 10.9.1.1/32, fd09::1/64", "AllowedIPs = 0.0.0.0/0, ::/0");
    let beds = [(Bed::new(), WgQuick, Wireloom), (Bed::new(), Wireloom, WgQuick)];
    for order in [0, 1] {
        let saved = beds.each_ref().map(|(bed, by, other)| {
            bed.configure(&text);
            if order == 0 {
                bed.hide(&["nft"]);
            }
            let (by, other) = if order == 0 { (*by, *other) } else { (*by, *by) };
            up(bed, by);
            let saved = rules(bed);
            down(bed, other);
            let left = rules(bed);
            assert!(!left.contains("wg-quick(8)"), "up by {by:?}, down by {other:?}: {left}");
            // Ours knows that there is something left to put back.
            let _ = bed.wireloom(&["down", INTERFACE]);
            saved
        });
        assert_eq!(saved[0].matches("wg-quick(8) rule for wg0").count(), 7, "{}", saved[0]);
        assert_eq!(saved[0], saved[1]);
    }
}

#[test]
fn a_table_in_use_is_passed_over() {
    let beds = [(Bed::new(), WgQuick), (Bed::new(), Wireloom)];
    let states: Vec<State> = beds
        .iter()
        .map(|(bed, by)| {
            bed.configure(&file("Address = 10.9.0.1/24", "AllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.1:51821"));
            bed.sh("ip -6 route add unreachable fd99::/64 table 51820; ip route add 10.99.0.0/16 dev eth0 table 51821");
            let state = up(bed, *by);
            assert!(state.part("IPv4 rules").contains("not from all fwmark 0xca6e lookup 51822"), "{by:?}");
            state
        })
        .collect();
    states[0].comparable().assert_same(&states[1].comparable(), "tables in use");
}

#[test]
fn path_mtu_is_the_same() {
    let beds = [(Bed::new(), WgQuick), (Bed::new(), Wireloom)];
    let text = file("Address = 10.9.0.1/24", "AllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.1:51821");
    for (set_up, mtu) in [("ip link set eth0 mtu 1400", 1320), ("ip route add 192.0.2.1/32 dev eth0 mtu 1300", 1220)] {
        let states: Vec<State> = beds
            .iter()
            .map(|(bed, by)| {
                bed.configure(&text);
                bed.sh(set_up);
                let state = up(bed, *by);
                let line = state.part("addresses").lines().find(|line| line.contains(INTERFACE)).unwrap().to_owned();
                assert!(line.contains(&format!(" mtu {mtu} ")), "{by:?}: {line}");
                down(bed, *by);
                state
            })
            .collect();
        states[0].comparable().without(&[LEFT]).assert_same(&states[1].comparable().without(&[LEFT]), set_up);
    }
}

#[test]
fn hooks_run_when_and_as_wg_quick_runs_them() {
    let look = |when: &str| {
        // Only the first and the last of these have something to look at each time.
        let looks =
            ["ip -br address show %i", "wg show %i fwmark", "cat /etc/resolv.conf", "ip -4 rule", "nft list tables"];
        let looks = looks.map(|look| format!("{look} || echo none")).join("; ");
        format!(
            "{when} = (echo {when} %i $INTERFACE $(basename $CONFIG_FILE); env | grep -vE '^(PATH|SHLVL|PWD|OLDPWD|_)='; {looks}) >> {HOOKS} 2>&1\n\
             {when} = cat <(echo second of {when}) >> {HOOKS}; [[ %i == @(wg*) ]]\n"
        )
    };
    let hooks: String = ["PostUp", "PreUp", "PreDown", "PostDown"].map(look).concat();
    let peer = "AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = 192.0.2.1:51821";
    let text = file(&format!("Address = 10.9.0.1/24, fd09::1/64\n{hooks}"), peer);
    let logs = [WgQuick, Wireloom].map(|by| {
        let bed = Bed::new();
        bed.configure(&text);
        up(&bed, by);
        down(&bed, by);
        bed.sh(&format!("cat {HOOKS}"))
    });
    assert!(logs[0].contains("second of PostDown"), "{}", logs[0]);
    assert_eq!(logs[0], logs[1]);
}

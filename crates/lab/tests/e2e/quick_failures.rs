//! `wireloom up` that fails, at each of its steps and for each reason that there is, leaves the host as it was: its network, its firewall, its
//! settings, its files and its processes.

use std::net::{Ipv4Addr, UdpSocket};

use lab::{Process, run, wait_until};

use crate::bed::{Bed, INTERFACE, failed, succeeded};
use crate::common::{LIMIT, wireloom};

/// Of everything something: two families, default routes, DNS, hooks.
const FILE: &str = "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\nListenPort = 51820\n\
    Address = 10.9.0.1/24, fd09::1/64\nDNS = 10.9.0.53, corp.example\n\
    PreUp = true\nPostUp = true %i\nPreDown = true\nPostDown = true\n\
    [Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n\
    AllowedIPs = 0.0.0.0/0, ::/0, 10.11.0.0/16\nEndpoint = 192.0.2.1:51821\n";

/// More steps than there are.
const MOST: usize = 60;

#[test]
fn a_failure_at_any_step_leaves_the_host_as_it_was() {
    let bed = Bed::new();
    bed.configure(FILE);
    let before = bed.state();
    for options in [&[][..], &["--kill-switch"]] {
        let mut at = 1;
        loop {
            let number = at.to_string();
            let finished = bed.wireloom(&[&["up", "--fail-at", &number][..], options, &[INTERFACE]].concat());
            if finished.status.success() {
                break;
            }
            let why = failed(finished);
            assert!(why.ends_with("; what was done before is undone"), "{why}");
            bed.wait_until_idle().unwrap();
            before.assert_same(&bed.state(), &format!("after step {at} has failed"));
            assert!(!bed.has_journal(), "step {at}");
            at += 1;
            assert!(at < MOST);
        }
        // The link, the keys, an address each, up, DNS, and for each family what a default route takes: that many at least can fail.
        assert!(at > 14, "{at} steps");
        succeeded(bed.wireloom(&["down", INTERFACE]));
        bed.wait_until_idle().unwrap();
        before.assert_same(&bed.state(), "after down");
    }
}

/// Brings `text` up in vain, after `set_up` has been done to the host; the last line that it says, and the host is as it was.
#[track_caller]
fn fails(bed: &Bed, text: &str, options: &[&str]) -> String {
    bed.configure(text);
    let before = bed.state();
    let why = failed(bed.wireloom(&[&["up"][..], options, &[INTERFACE]].concat()));
    bed.wait_until_idle().unwrap();
    before.assert_same(&bed.state(), &why);
    assert!(!bed.has_journal());
    why
}

#[test]
fn that_nobody_can_be_told_stops_nothing_half_way() {
    let bed = Bed::new();
    bed.configure(FILE);
    let before = bed.state();
    let program = wireloom().program().unwrap();
    let program = program.display();
    // One whose reader has gone, and one that is full.
    for heard_by in ["2>&1 | head -n 1", "2>/dev/full"] {
        for (verb, is_up) in [("up", true), ("down", false)] {
            let said = bed
                .sh(&format!("{{ {program} {verb} {INTERFACE}; echo $? > /mnt/status; }} {heard_by}; cat /mnt/status"));
            assert!(said.ends_with("0\n"), "{verb} {heard_by}: {said}");
            assert_eq!(bed.has_journal(), is_up, "{verb} {heard_by}");
            if is_up {
                let rules = bed.sh("ip rule; ip -6 rule; nft list tables; cat /etc/resolv.conf");
                assert!(
                    rules.matches("suppress_prefixlength 0").count() == 2 && rules.contains("10.9.0.53"),
                    "{rules}"
                );
            }
        }
        bed.wait_until_idle().unwrap();
        before.assert_same(&bed.state(), heard_by);
    }
    let mut dry = bed.command("sh");
    dry.args(["-c", &format!("{program} up --dry-run {INTERFACE} >/dev/full")]);
    let why = failed(run(&mut dry, LIMIT).unwrap());
    assert_eq!(why, "wireloom: cannot write to standard output: No space left on device (os error 28)");
}

#[test]
fn an_mtu_that_keeps_ipv6_away_is_told() {
    let bed = Bed::new();
    let why = fails(&bed, &FILE.replace("DNS =", "MTU = 1000\nDNS ="), &[]);
    let line = "/etc/wireguard/wg0.conf:5: MTU 1000 is too small for IPv6, expected 1280 or more, or no IPv6 in Address and AllowedIPs";
    assert_eq!(why, format!("wireloom: {line}"));
}

#[test]
fn tunnels_that_come_at_once_and_go_in_any_order_leave_nothing() {
    let bed = Bed::new();
    let program = wireloom().program().unwrap();
    let program = program.display();
    // Each with a table of its own, which they would not choose apart.
    let file = FILE.replace("Address =", "FwMark = 0x77\nAddress =").replace("DNS =", "#");
    bed.configure(&file);
    bed.write(
        "/etc/wireguard/wg1.conf",
        0o600,
        &file
            .replace("51820", "51830")
            .replace("fd09:", "fd08:")
            .replace("10.9.", "10.8.")
            .replace("10.11.", "10.12.")
            .replace("0x77", "0x78"),
    );
    let before = bed.state();
    for [first, last] in [["wg0", "wg1"], ["wg1", "wg0"], ["wg0", "wg1"]] {
        bed.sh(&format!("{program} up wg0 & one=$!; {program} up wg1; wait $one"));
        assert_eq!(bed.sh("ip rule; ip -6 rule").matches("suppress_prefixlength 0").count(), 4);
        bed.sh(&format!("{program} down {first}"));
        assert_eq!(bed.sh("ip rule; ip -6 rule").matches("suppress_prefixlength 0").count(), 2);
        bed.sh(&format!("{program} down {last}"));
        bed.wait_until_idle().unwrap();
        before.assert_same(&bed.state(), &format!("{first} went before {last}"));
    }
}

#[test]
fn a_port_in_use_is_told() {
    let bed = Bed::new();
    let _taken = bed.namespace.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 51820))).unwrap();
    let why = fails(&bed, FILE, &[]);
    assert!(why.contains("Address already in use") || why.contains("in use"), "{why}");
}

#[test]
fn an_address_that_the_kernel_refuses_is_told() {
    let bed = Bed::new();
    bed.namespace.set_sysctl("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    let why = fails(&bed, FILE, &[]);
    assert!(why.contains("ip -6 address add fd09::1/64 dev wg0"), "{why}");
}

#[test]
fn a_route_that_is_there_already_is_told() {
    let bed = Bed::new();
    bed.namespace.ip(&["route", "add", "10.11.0.0/16", "dev", "eth0"]).unwrap();
    let why = fails(&bed, FILE, &[]);
    assert_eq!(why.matches("ip -4 route add 10.11.0.0/16 dev wg0").count(), 1, "{why}");
}

#[test]
fn hooks_that_fail_are_told() {
    let bed = Bed::new();
    for when in ["PreUp", "PostUp"] {
        let text = FILE.replace("PreUp = true", &format!("{when} = echo %i says >&2; exit 9"));
        bed.configure(&text);
        let why = fails(&bed, &text, &[]);
        assert!(why.contains(&format!("{when} hook failed (exit status: 9)")), "{why}");
    }
}

#[test]
fn a_firewall_that_refuses_is_told() {
    let bed = Bed::new();
    // A table of that name which belongs to somebody who lives.
    let mut owner = bed.command("sh");
    owner.args(["-c", "(echo 'add table ip wg-quick-wg0 { flags owner; }'; sleep 60) | nft -i"]);
    let _owner = Process::spawn(&mut owner).unwrap();
    let there = || bed.state().part("firewall").contains("flags owner");
    wait_until("the table of another", LIMIT, there).unwrap();
    bed.configure(FILE);
    let before = bed.state();
    let why = failed(bed.wireloom(&["up", INTERFACE]));
    assert!(why.contains("nft failed") && why.contains("Operation not permitted"), "{why}");
    before.assert_same(&bed.state(), &why);
}

#[test]
fn that_there_is_no_firewall_is_told() {
    let bed = Bed::new();
    bed.configure(FILE);
    let before = bed.state();
    bed.hide(&["nft"]);
    let why = failed(bed.wireloom(&["up", "--kill-switch", INTERFACE]));
    assert!(why.contains("there is no nft here, expected it in PATH: it is in the package nftables"), "{why}");
    bed.hide(&["iptables-restore", "ip6tables-restore"]);
    let why = failed(bed.wireloom(&["up", INTERFACE]));
    assert!(why.contains("there is no nft here"), "{why}");
    bed.wait_until_idle().unwrap();
    bed.sh("umount /usr/sbin; umount /usr/sbin");
    before.assert_same(&bed.state(), "without nft");
}

#[test]
fn a_resolvconf_that_refuses_is_told() {
    let bed = Bed::new();
    bed.write("/mnt/bin/resolvconf", 0o755, "#!/bin/sh\n[ $1 = -d ] || { echo no room >&2; exit 3; }\n");
    let why = fails(&bed, FILE, &[]);
    assert!(why.contains("resolvconf failed (exit status: 3): no room"), "{why}");
}

#[test]
fn a_resolv_conf_that_cannot_be_replaced_is_told() {
    let bed = Bed::new();
    bed.configure(FILE);
    let before = bed.state();
    bed.sh("mount --bind /etc /etc; mount -o remount,bind,ro /etc");
    let why = failed(bed.wireloom(&["up", INTERFACE]));
    assert!(why.contains("cannot replace /etc/resolv.conf: Read-only file system"), "{why}");
    bed.wait_until_idle().unwrap();
    bed.sh("umount /etc");
    before.assert_same(&bed.state(), &why);
}

#[test]
fn an_interface_that_is_there_is_left_alone() {
    let bed = Bed::new();
    bed.namespace.ip(&["tuntap", "add", INTERFACE, "mode", "tun"]).unwrap();
    let why = fails(&bed, FILE, &[]);
    assert!(why.contains("exists already"), "{why}");
}

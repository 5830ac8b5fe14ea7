//! All that `wg` prints of a device, and that we print the same: shapes that are told in a way of their own, and devices made up at
//! random, always of the same seed.
//!
//! Debian's `wg` is of 2021, and where a later release mended it we follow the later one. What that is, here: before the endpoints of
//! *all* interfaces it prints each interface's name once, not in each line.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

mod common;

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use common::{Host, WIRELOOM, said};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

const FIELDS: [&str; 12] = [
    "public-key",
    "private-key",
    "listen-port",
    "fwmark",
    "peers",
    "preshared-keys",
    "endpoints",
    "allowed-ips",
    "latest-handshakes",
    "persistent-keepalive",
    "transfer",
    "dump",
];

/// What the environment may say of how to show.
const STYLES: [&str; 12] = [
    "",
    "WG_COLOR_MODE=always",
    "WG_COLOR_MODE=never",
    "WG_COLOR_MODE=auto",
    "WG_COLOR_MODE=",
    "WG_COLOR_MODE=ALWAYS",
    "WG_HIDE_KEYS=always",
    "WG_HIDE_KEYS=never",
    "WG_HIDE_KEYS=",
    "WG_HIDE_KEYS=Never",
    "WG_COLOR_MODE=always WG_HIDE_KEYS=never",
    "WG_COLOR_MODE=never WG_HIDE_KEYS=never",
];

/// Lengths of time around each unit, in seconds.
fn times() -> Vec<u64> {
    let (minute, hour, day, year) = (60, 3600, 86_400, 365 * 86_400);
    let mut times = vec![0, 1, 2, year + day + hour + minute + 1, 2 * (year + day + hour + minute + 1), 50 * year];
    for unit in [minute, hour, day, year] {
        times.extend([unit - 1, unit, unit + 1, unit + 2, 2 * unit - 1, 2 * unit, 2 * unit + 1]);
    }
    times
}

/// Amounts around each unit and around the digits that are rounded, in bytes.
fn amounts() -> Vec<u64> {
    let mut amounts = vec![0, 1, 1029, 5248, 123_456_789, u64::MAX - 1, u64::MAX];
    for unit in [10, 20, 30, 40, 50, 60, 63] {
        let unit = 1_u64 << unit;
        amounts.extend([unit - 1, unit, unit + 1, unit + unit / 200, unit + unit / 8, unit / 2 * 3, unit - unit / 200]);
    }
    amounts
}

fn hex(seed: u64) -> String {
    (0..4).fold(String::new(), |mut text, at| {
        let _ = write!(text, "{:016x}", seed.wrapping_add(at).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        text
    })
}

fn peer(seed: u64, lines: &str) -> String {
    format!("public_key={}\n{lines}", hex(seed))
}

/// Devices that each have something of their own, by name.
fn shapes() -> Vec<(&'static str, String)> {
    let private = format!("private_key={}6a\n", "a8".repeat(31));
    let list = |values: Vec<String>| -> String {
        values.into_iter().enumerate().map(|(at, lines)| peer(at as u64, &lines)).collect()
    };
    let endpoints = [
        "192.0.2.1:51820",
        "0.0.0.0:0",
        "255.255.255.255:65535",
        "[::]:1",
        "[::1]:1",
        "[2001:db8::1]:51820",
        "[2001:db8:0:0:1::]:2",
        "[::ffff:192.0.2.1]:5",
        "[::192.0.2.1]:6",
        "[::0.0.2.1]:7",
        "[64:ff9b::192.0.2.1]:8",
        "[fe80::1%1]:2",
        "[fe80::1%lo]:3",
        "[fe80::1%99]:4",
        "[fe80::1]:4",
        "[ff02::1%1]:9",
        "[ff01::1%1]:9",
        "[ff05::1%1]:9",
        "[2001:db8::1%1]:9",
        "[febf::1%1]:9",
    ];
    let networks = [
        "10.0.0.0/8",
        "0.0.0.0/0",
        "192.0.2.1/32",
        "::/0",
        "::1.2.3.4/128",
        "::1/128",
        "::ffff:1.2.3.4/128",
        "2001:db8:0:0:1::/80",
        "fe80::/10",
        "::ffff:0:0/96",
        "1:0:0:2::/64",
        "1:0:2:0:3:0:4:0/127",
        "0:1::/32",
    ];
    let everything: String = networks.iter().map(|network| format!("allowed_ip={network}\n")).collect();
    let many: String =
        (0..4000_u32).map(|at| format!("allowed_ip={}/32\n", Ipv4Addr::from(0x0a00_0000 + at))).collect();
    vec![
        ("new", String::new()),
        ("key-alone", private.clone()),
        ("port-alone", "listen_port=51820\n".to_owned()),
        ("mark-alone", "fwmark=4294967295\n".to_owned()),
        ("zeros", "listen_port=0\nfwmark=0\n".to_owned()),
        ("no-peers", format!("{private}listen_port=65535\nfwmark=1\n")),
        ("no-key", format!("listen_port=1\n{}", peer(1, ""))),
        ("bare-peer", format!("{private}{}", peer(7, ""))),
        (
            "psk",
            format!(
                "{private}{}{}",
                peer(1, &format!("preshared_key={}\n", hex(2))),
                peer(3, &format!("preshared_key={}\n", "0".repeat(64)))
            ),
        ),
        ("endpoints", list(endpoints.iter().map(|endpoint| format!("endpoint={endpoint}\n")).collect())),
        ("networks", list(networks.iter().map(|network| format!("allowed_ip={network}\n")).collect())),
        ("all-networks", peer(5, &everything)),
        ("many", peer(6, &many)),
        (
            "keepalives",
            list(
                [0, 1, 2, 25, 59, 60, 61, 3600, 3661, 65535]
                    .iter()
                    .map(|s| format!("persistent_keepalive_interval={s}\n"))
                    .collect(),
            ),
        ),
        // The age 0 is a second that is not told of: the sign is what makes an age.
        (
            "ages",
            list(
                times()
                    .iter()
                    .filter(|&&age| age > 0)
                    .map(|age| format!("last_handshake_time_sec=-{age}\nlast_handshake_time_nsec=5\n"))
                    .collect(),
            ),
        ),
        (
            "same-age",
            list(
                (0..9)
                    .map(|at| format!("last_handshake_time_sec=1000\nlast_handshake_time_nsec={}\n", at % 3))
                    .collect(),
            ),
        ),
        (
            "odd-ages",
            list(
                ["0\nlast_handshake_time_nsec=7", "4000000000", "9223372036854775807", "1"]
                    .iter()
                    .map(|at| format!("last_handshake_time_sec={at}\n"))
                    .collect(),
            ),
        ),
        ("received", list(amounts().iter().map(|bytes| format!("rx_bytes={bytes}\ntx_bytes=0\n")).collect())),
        ("sent", list(amounts().iter().map(|bytes| format!("rx_bytes=0\ntx_bytes={bytes}\n")).collect())),
        ("unknown-lines", format!("colour=blue\n{}", peer(1, "protocol_version=1\nmood=good\n"))),
        ("twice", format!("{}{}", peer(1, "allowed_ip=10.0.0.0/8\n"), peer(1, "allowed_ip=::/0\n"))),
        ("upper-case", format!("private_key={}\npublic_key={}\n", "A8".repeat(31) + "6A", "AB".repeat(32))),
    ]
}

#[test]
fn every_shape_in_every_form() {
    let host = Host::new();
    let shapes = shapes();
    let mut lines = Vec::new();
    for (name, text) in &shapes {
        host.serve(name, &format!("{text}errno=0\n\n"), "");
        for style in STYLES.iter().take(if text.len() < 10_000 { STYLES.len() } else { 2 }) {
            lines.push(format!("{style} show {name}"));
        }
        lines.push(format!("showconf {name}"));
        lines.extend(FIELDS.iter().map(|field| format!("show {name} {field}")));
    }
    lines.extend(
        ["show", "show all", "show interfaces", "WG_COLOR_MODE=always WG_HIDE_KEYS=never show all"].map(str::to_owned),
    );
    lines.extend(FIELDS.iter().filter(|&&field| field != "endpoints").map(|field| format!("show all {field}")));
    assert_eq!(host.differences(&lines), "");
}

#[test]
fn the_endpoints_of_all_interfaces_have_the_name_in_each_line() {
    let host = Host::new();
    for (name, text) in shapes() {
        host.serve(name, &format!("{text}errno=0\n\n"), "");
    }
    let (mut by_the_manual, mut by_wg) = (String::new(), String::new());
    for name in said(&host.wg(&["show", "interfaces"])).1.split_whitespace() {
        let one = said(&host.wg(&["show", name, "endpoints"])).1;
        by_the_manual.extend(one.lines().map(|line| format!("{name}\t{line}\n")));
        by_wg += &format!("{name}\t{one}");
    }
    assert_ne!(by_the_manual, by_wg);
    assert!(said(&host.wireloom(&["show", "all", "endpoints"])) == (Some(0), by_the_manual));
    assert!(said(&host.wg(&["show", "all", "endpoints"])) == (Some(0), by_wg));
}

#[test]
fn on_a_terminal_there_are_colours() {
    let host = Host::new();
    let (_, text) = shapes().pop().unwrap();
    host.serve("wg0", &format!("{text}errno=0\n\n"), "");
    let on_a_terminal = |program: &str, env: &[(&str, &str)]| {
        let output = host.run(env, &["script", "-qec", &format!("{program} show wg0"), "/dev/null"], "");
        said(&output)
    };
    for (env, coloured) in [
        (&[][..], true),
        (&[("WG_COLOR_MODE", "auto")], true),
        (&[("WG_COLOR_MODE", "never")], false),
        (&[("WG_COLOR_MODE", "no")], true),
    ] {
        let ours = on_a_terminal(WIRELOOM, env);
        assert_eq!(ours, on_a_terminal("wg", env), "{env:?}");
        assert_eq!(ours.1.contains('\x1b'), coloured, "{env:?}");
    }
}

/// An address whose text has runs of zeros here and there.
fn ipv6() -> impl Strategy<Value = Ipv6Addr> {
    let group = prop_oneof![3 => Just(0_u16), 1 => any::<u16>(), 1 => Just(1), 1 => Just(0xffff)];
    let head = prop_oneof![Just(0_u16), Just(0xfe80), Just(0xff02), Just(0x2001), any::<u16>()];
    (head, proptest::array::uniform7(group))
        .prop_map(|(head, [a, b, c, d, e, f, g])| Ipv6Addr::new(head, a, b, c, d, e, f, g))
}

fn endpoint() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just(String::new()),
        2 => (any::<Ipv4Addr>(), any::<u16>()).prop_map(|(ip, port)| format!("endpoint={ip}:{port}\n")),
        3 => (ipv6(), any::<u16>()).prop_map(|(ip, port)| format!("endpoint=[{ip}]:{port}\n")),
        1 => (ipv6(), 1..4_u32, any::<u16>()).prop_map(|(ip, zone, port)| format!("endpoint=[{ip}%{zone}]:{port}\n")),
    ]
}

fn network() -> impl Strategy<Value = String> {
    prop_oneof![
        (any::<Ipv4Addr>(), 0..=32_u32).prop_map(|(ip, len)| {
            format!("allowed_ip={}/{len}\n", Ipv4Addr::from(ip.to_bits() & u32::MAX.checked_shl(32 - len).unwrap_or(0)))
        }),
        (ipv6(), 0..=128_u32).prop_map(|(ip, len)| {
            format!(
                "allowed_ip={}/{len}\n",
                Ipv6Addr::from(ip.to_bits() & u128::MAX.checked_shl(128 - len).unwrap_or(0))
            )
        }),
    ]
}

fn number(name: &'static str, odd: Vec<u64>, most: u64) -> impl Strategy<Value = String> {
    let value = prop_oneof![proptest::sample::select(odd), 0..=most, (0..64_u32).prop_map(move |bits| most >> bits)];
    proptest::option::of(value)
        .prop_map(move |value| value.map_or_else(String::new, |value| format!("{name}={value}\n")))
}

fn hex_key(name: &'static str) -> impl Strategy<Value = String> {
    let bytes = prop_oneof![6 => any::<[u8; 32]>(), 1 => Just([0; 32]), 1 => Just([255; 32])];
    bytes.prop_map(move |bytes| {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{name}={digits}\n")
    })
}

fn any_peer() -> impl Strategy<Value = String> {
    let handshake = prop_oneof![
        Just(String::new()),
        proptest::sample::select(times()).prop_map(|age| format!("last_handshake_time_sec=-{}\n", age + 1)),
        (0..5_000_000_000_u64, 0..3_u32)
            .prop_map(|(at, nanos)| format!("last_handshake_time_sec={at}\nlast_handshake_time_nsec={nanos}\n")),
    ];
    let psk = proptest::option::of(hex_key("preshared_key")).prop_map(Option::unwrap_or_default);
    let networks = proptest::collection::vec(network(), 0..8).prop_map(|lines| lines.concat());
    let keepalive = number("persistent_keepalive_interval", vec![0, 1, 59, 60, 61, 3600], 65535);
    (
        hex_key("public_key"),
        psk,
        endpoint(),
        handshake,
        number("rx_bytes", amounts(), u64::MAX),
        number("tx_bytes", amounts(), u64::MAX),
        keepalive,
        networks,
    )
        .prop_map(|(key, psk, endpoint, handshake, rx, tx, keepalive, networks)| {
            [key, psk, endpoint, handshake, tx, rx, keepalive, networks].concat()
        })
}

fn any_device() -> impl Strategy<Value = String> {
    // Clamped, as devices tell it.
    let private = proptest::option::of(any::<[u8; 32]>()).prop_map(|bytes| {
        bytes.map_or_else(String::new, |mut bytes| {
            bytes[0] &= 248;
            bytes[31] = bytes[31] & 127 | 64;
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("private_key={digits}\n")
        })
    });
    let port = number("listen_port", vec![0, 1, 51820, 65535], 65535);
    let mark = number("fwmark", vec![0, 1, 0xca6c], u64::from(u32::MAX));
    let peers = proptest::collection::vec(any_peer(), 0..6).prop_map(|peers| peers.concat());
    (private, port, mark, peers)
        .prop_map(|(private, port, mark, peers)| [private, port, mark, peers, "errno=0\n\n".to_owned()].concat())
}

#[test]
fn any_device_is_shown_as_wg_shows_it() {
    let host = Host::new();
    let mut runner = TestRunner::deterministic();
    let mut lines = Vec::new();
    let mut devices = Vec::new();
    for at in 0..100 {
        let text = any_device().new_tree(&mut runner).unwrap().current();
        host.serve(&format!("d{at}"), &text, "");
        let style = STYLES[at % STYLES.len()];
        lines.extend([format!("{style} show d{at}"), format!("showconf d{at}")]);
        devices.push(text);
    }
    lines.extend(FIELDS.iter().filter(|&&field| field != "endpoints").map(|field| format!("show all {field}")));
    lines.push("show all".to_owned());
    let told = host.differences(&lines);
    if !told.is_empty() {
        let at = told.find(" d").and_then(|at| told[at + 2..].split(':').next()?.parse::<usize>().ok());
        panic!("{told}\n{}", at.map_or("", |at| devices[at].as_str()));
    }
}

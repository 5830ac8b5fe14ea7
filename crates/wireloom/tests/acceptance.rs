//! What people write oddly: `wg` and `wireloom` take the same of it, and send the device the same; where they do not, it says why.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

mod common;

use std::fs;

use common::{Host, Requests, WIRELOOM, complaint};

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const PSK: &str = "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=";
const SECRET: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
/// The same key with a bit set that none of its 32 bytes has.
const LOOSE: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dh=";

/// How the two programs compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Both take it and send the same.
    Taken,
    /// Both take it; we cut off the host bits before it is sent, `wg` leaves that to the device.
    Cut,
    /// Both refuse it.
    Refused,
    /// Only we refuse it: `wg` takes it for something that was hardly meant.
    OnlyWe,
    /// Only we take it: `wg` does so since 2022 or later.
    NewerWg,
}
use Verdict::{Cut, NewerWg, OnlyWe, Refused, Taken};

/// Runs both programs over all cases, each on a device of its own. `command` makes the words of case N.
fn check(host: &Host, cases: &[(String, Verdict)], command: impl Fn(usize) -> String) {
    let devices: Vec<Requests> =
        (0..cases.len()).map(|at| host.serve(&format!("c{at}"), "errno=0\n\n", "errno=0\n\n")).collect();
    let script: String = (0..cases.len())
        .map(|at| format!("wg {0} 2> /dev/null; theirs=$?; \"$W\" {0} 2> /dev/null; echo $theirs $?\n", command(at)))
        .collect();
    let output = host.run(&[("W", WIRELOOM), ("WG_ENDPOINT_RESOLUTION_RETRIES", "0")], &["bash", "-c", &script], "");
    let codes = String::from_utf8(output.stdout).unwrap();
    assert_eq!(codes.lines().count(), cases.len());
    let mut wrong = String::new();
    for (((text, expected), requests), codes) in cases.iter().zip(&devices).zip(codes.lines()) {
        let requests = requests.lock().unwrap();
        // Who refuses has sent nothing.
        let found = match (codes, &requests[..]) {
            ("1 1", []) => Refused,
            ("0 0", [wg, ours]) if same(wg, ours) => Taken,
            ("0 0", [wg, ours]) if same(&without_host_bits(wg), ours) => Cut,
            ("0 1", [_]) => OnlyWe,
            ("1 0", [_]) => NewerWg,
            more => {
                wrong += &cut(&format!("{text:?} is sent in two ways: {more:?}"));
                continue;
            }
        };
        if found != *expected {
            wrong += &cut(&format!("{text:?} is {found:?}, expected {expected:?}: {requests:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The networks of these tests without their host bits.
fn without_host_bits(request: &str) -> String {
    request
        .replace("10.0.0.1/8\n", "10.0.0.0/8\n")
        .replace("fe80::1/64\n", "fe80::/64\n")
        .replace("::ffff:1.2.3.4/96\n", "::ffff:0.0.0.0/96\n")
}

/// A line that a person can read.
fn cut(line: &str) -> String {
    line.chars().take(400).chain(['\n']).collect()
}

/// Whether two requests are the same but for the zone, which is a number in what we send.
fn same(wg: &str, ours: &str) -> bool {
    wg.replace("%lo]", "%1]") == ours
}

/// Cases of a file.
fn files() -> Vec<(String, Verdict)> {
    let interface = |line: &str| format!("[Interface]\n{line}\n");
    let peer = |line: &str| format!("[Peer]\nPublicKey = {KEY}\n{line}\n");
    let mut cases = Vec::new();
    let mut add = |verdict, text: String| cases.push((text, verdict));

    // The form of the file.
    for text in [
        "",
        "\n\n\n",
        "# nothing",
        "#\n#",
        " \t\n",
        "[Interface]",
        "[Interface]\n[Interface]\n",
        "\0",
        "[Interface]\0rest",
        "\r\n",
    ] {
        add(Taken, text.to_owned());
    }
    for text in [
        "x",
        "=",
        "a=b",
        "[",
        "]",
        "[]",
        "[Interface",
        "Interface]",
        "[Interfaces]",
        "[Peers]",
        "[Interface]x",
        "[[Interface]]",
        ";",
        "; comment",
        "// x",
    ] {
        add(Refused, text.to_owned());
    }
    add(Refused, format!("\u{feff}[Interface]\nPrivateKey = {SECRET}\n"));
    add(Refused, "[\u{406}nterface]\n".to_owned());
    add(Refused, "\u{a0}[Interface]\n".to_owned());
    add(
        Taken,
        format!(
            "[Interface]\r\nPrivateKey = {SECRET}\r\nListenPort = 5\r\n[Peer]\r\nPublicKey = {KEY}\r\nAllowedIPs = ::/0\r\n"
        ),
    );
    add(Taken, format!("[Interface]\nPrivateKey = {SECRET}\n[Peer]\nPublicKey = {KEY}\nAllowedIPs = ::/0"));
    add(
        Taken,
        format!(
            "[interface]\nPRIVATEKEY = {SECRET}\nlistenPORT = 5\nfwMARK = OFF\n[pEER]\npublickey = {KEY}\nALLOWEDips = ::/0\npersistentKEEPALIVE = oFF\n"
        ),
    );
    add(Taken, format!("[ Inter face ]\nPri vateKey = {}\n[P e e r]\nPub\tlicKey={KEY}\n", SECRET.replace('5', "5 ")));
    add(Taken, format!("[Interface] # me\nListenPort = 5 # 6\nPrivateKey = {SECRET}#x\n"));
    add(Refused, "[Interface]\nListenPort # = 5\n".to_owned());
    add(
        Taken,
        format!("[Interface]\nListenPort = 5\n[Peer]\nPublicKey = {KEY}\n[Interface]\nListenPort = 6\nFwMark = 7\n"),
    );
    add(
        Taken,
        format!(
            "[Interface]\nListenPort = 5\nListenPort = 6\nFwMark = 1\nFwMark = off\n{}{}",
            peer("AllowedIPs = ::/0"),
            peer("AllowedIPs = 10.0.0.0/8")
        ),
    );
    add(Refused, format!("{}[Peer]\nAllowedIPs = ::/0\n", peer("")));
    add(Refused, format!("[Peer]\n[Interface]\nPrivateKey = {SECRET}\n"));
    add(Refused, format!("[Peer]\nPublicKey = {KEY}\nListenPort = 5\n"));
    add(Refused, format!("[Interface]\nPublicKey = {KEY}\n"));
    add(Taken, format!("[Peer]\nAllowedIPs = ::/0\nPublicKey = {KEY}\nPublicKey = {PSK}\n"));
    add(Taken, format!("[Interface]\nListenPort = 5\0 and more\n{}", peer("")));
    add(Taken, format!("[Interface]\nListenPort = 5 #{}\n", "x".repeat(1_000_000)));
    add(Taken, format!("[Interface]\nListenPort = {}5\n", " ".repeat(1_000_000)));
    add(Taken, peer(&format!("AllowedIPs = {}", vec!["10.0.0.0/8"; 20_000].join(", "))));
    add(Refused, interface(&"x".repeat(1_000_000)));
    add(Taken, interface("ListenPort = 5\u{b}\u{c}"));
    for key in [
        "Address = 10.0.0.1/24",
        "DNS = 1.1.1.1",
        "MTU = 1420",
        "Table = off",
        "SaveConfig = true",
        "PostUp = true",
        "Nonsense = 1",
    ] {
        add(Refused, interface(key));
        add(Refused, peer(key));
    }

    // Values that cannot be, or can.
    for name in ["ListenPort", "FwMark", "PrivateKey"] {
        for line in [
            name.to_owned(),
            format!("{name} ="),
            format!("{name} = # x"),
            format!("{name}: 5"),
            format!("{name} == 5"),
        ] {
            add(Refused, interface(&line));
        }
    }
    for name in ["PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive"] {
        for line in [
            name.to_owned(),
            format!("{name} ="),
            format!("{name} = # x"),
            format!("{name}: 5"),
            format!("{name} = \u{fc}"),
        ] {
            add(Refused, peer(&line));
        }
    }
    for (verdict, values) in [
        (Taken, &["0", "1", "65535", "007", "5 1 8 2 0", "domain", "ntp", "isakmp"][..]),
        (Refused, &["0x50", "-1", "5x", "x", "5.0", "65535;", "no-such-service", "off", "any"]),
        // The C library takes the lower 16 bits, and a sign.
        (OnlyWe, &["65536", "70000", "4294967296", "+5"]),
    ] {
        values.iter().for_each(|value| add(verdict, interface(&format!("ListenPort = {value}"))));
    }
    for (verdict, values) in [
        (
            Taken,
            &["0", "off", "OFF", "1", "0x0", "0x1", "0xffffffff", "0xFFFFFFFF", "4294967295", "007", "0x00000000001"][..],
        ),
        (
            Refused,
            &[
                "0x",
                "0X1",
                "x1",
                "-1",
                "+1",
                "0x100000000",
                "4294967296",
                "on",
                "0b1",
                "1e3",
                "0x-1",
                "0xg",
                "99999999999999999999",
            ],
        ),
    ] {
        values.iter().for_each(|value| add(verdict, interface(&format!("FwMark = {value}"))));
    }
    for (verdict, values) in [
        (Taken, &["0", "off", "oFf", "1", "25", "65535", "00025", "2 5"][..]),
        (Refused, &["65536", "-1", "+25", "0x19", "on", "25s", "1.5", "99999999999999999999"]),
    ] {
        values.iter().for_each(|value| add(verdict, peer(&format!("PersistentKeepalive = {value}"))));
    }
    let long = format!("{}=", "A".repeat(44));
    let short = format!("{}=", "A".repeat(42));
    let zeros = format!("{}=", "A".repeat(43));
    for key in [
        LOOSE,
        &KEY[..43],
        &KEY.replace('=', "=="),
        &long,
        &short,
        &KEY.replace('B', "-"),
        &KEY.replace('=', "A"),
        &KEY.replace('5', "\u{fc}"),
        "x",
        &format!("\"{KEY}\""),
        &format!("{KEY},"),
    ] {
        add(Refused, interface(&format!("PrivateKey = {key}")));
        add(Refused, peer(&format!("PresharedKey = {key}")));
        add(Refused, format!("[Peer]\nPublicKey = {key}\n"));
    }
    add(Taken, interface(&format!("PrivateKey = {zeros}")));
    add(Taken, peer(&format!("PresharedKey = {zeros}")));
    add(Taken, format!("[Peer]\nPublicKey = {zeros}\n"));
    for (verdict, values) in [
        (
            Taken,
            &[
                "10.0.0.0/8",
                "10.0.0.1",
                "0.0.0.0/0",
                "255.255.255.255/32",
                "10.0.0.0/08",
                "::",
                "::/0",
                "::1",
                "2001:DB8::/32",
                "::1.2.3.4",
                "1:2:3:4:5:6:7:8",
                "10.0.0.0/8,::/0",
                " 10.0.0.0 / 8 , :: / 0 ",
                "1:2:3:4:5:6:1.2.3.4",
            ][..],
        ),
        (
            Refused,
            &[
                "10.0.0.0/33",
                "10.0.0.0/",
                "10.0.0.0/-1",
                "10.0.0.0/+8",
                "10.0.0.0/8/8",
                "10.0.0.0/255.0.0.0",
                "10.0.0/8",
                "10/8",
                "010.0.0.0/8",
                "0x0a.0.0.0/8",
                "256.0.0.0",
                "1.2.3.4.5",
                "::/129",
                "::/",
                "1::2::3",
                "1:2:3:4:5:6:7",
                "1:2:3:4:5:6:7:8:9",
                "12345::",
                ":::",
                "fe80::1%lo/64",
                "[::1]/128",
                "::g",
                "10.0.0.0/8,",
                ",10.0.0.0/8",
                "10.0.0.0/8,,::/0",
                ",",
                "10.0.0.0/8;::/0",
                "any",
                "off",
                "(none)",
                "1:2:3:4:5:6:7::8",
                "1.2.3.4::",
                "::1.2.3",
                "::1.2.3.256",
                "10.0.0.0/4294967304",
                "10.0.0.0/0x8",
                "/8",
                "/",
            ],
        ),
        (Cut, &["10.0.0.1/8", "fe80::1/64", "::ffff:1.2.3.4/96"]),
        (NewerWg, &["+10.0.0.0/8", "-10.0.0.0/8", "+10.0.0.0/8,::/0", "10.0.0.0/8,-::/0", "+10.0.0.1/8"]),
        (Refused, &["+", "-", "++10.0.0.0/8", "--::/0", "+-::/0", "~::/0", "10.0.0.0+/8"]),
    ] {
        values.iter().for_each(|value| add(verdict, peer(&format!("AllowedIPs = {value}"))));
    }
    add(Taken, peer("AllowedIPs = ::/0\nAllowedIPs = 10.0.0.0/8\nAllowedIPs = ::/0"));
    add(NewerWg, peer("AllowedIPs = +::/0\nAllowedIPs = 10.0.0.0/8"));
    add(NewerWg, peer("AllowedIPs = 10.0.0.0/8\nAllowedIPs = -::/0"));
    for (verdict, values) in [
        (
            Taken,
            &[
                "192.0.2.1:5",
                "192.0.2.1:0",
                "192.0.2.1:65535",
                "192.0.2.1:005",
                "[2001:db8::1]:5",
                "2001:db8::1:5",
                "[192.0.2.1]:5",
                "[::1]:domain",
                "192.0.2.1:domain",
                "localhost:5",
                "LocalHost:5",
                "[fe80::1%lo]:5",
                "[fe80::1%1]:5",
                "fe80::1%1:5",
                "[fe80::1]:5",
                "[::ffff:192.0.2.1]:5",
                "127.1:5",
                "2130706433:5",
                "0x7f.1:5",
                "0300.0.2.1:5",
                "192.0.2.1 : 5",
                "[2001:db8::1%7]:5",
            ][..],
        ),
        (
            Refused,
            &[
                "192.0.2.1",
                ":5",
                "[::1]",
                "[::1]5",
                "[::1]:",
                "[::1",
                "::1]:5",
                "[]:5",
                "192.0.2.1:",
                "host name.invalid:5",
                "192.0.2.1:5x",
                "192.0.2.1:-1",
                "192.0.2.1:no-such-service",
                "[::1]:5:6x",
                "[::1:5",
                "name.invalid:5",
                "256.0.0.1:5",
                "[fe80::1%nowhere]:5",
                "[::g]:5",
                "-:5",
                "192.0.2.1/32:5",
                "https://192.0.2.1:5",
                "192.0.2.1:0x5",
            ],
        ),
        (OnlyWe, &["192.0.2.1:65536", "192.0.2.1:70000", "192.0.2.1:+5", "[::1]:4294967301"]),
    ] {
        values.iter().for_each(|value| add(verdict, peer(&format!("Endpoint = {value}"))));
    }
    cases
}

#[test]
fn files_that_wg_takes_are_taken() {
    let host = Host::new();
    let cases = files();
    for (at, (text, _)) in cases.iter().enumerate() {
        fs::write(host.folder().join(format!("{at}.conf")), text).unwrap();
    }
    let folder = host.folder().display().to_string();
    check(&host, &cases, |at| format!("setconf c{at} {folder}/{at}.conf"));
}

#[test]
fn words_that_wg_takes_are_taken() {
    let host = Host::new();
    let file = |name: &str, text: &str| {
        let path = host.folder().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let secret = file("secret", SECRET);
    let spaced = file("spaced", &format!("{SECRET} \n\t\r\n"));
    let empty = file("empty", "");
    let mut cases: Vec<(String, Verdict)> = Vec::new();
    let mut add = |verdict, line: String| cases.push((line, verdict));
    for (name, text) in [
        ("before", format!(" {SECRET}")),
        ("twice", format!("{SECRET}\n{SECRET}\n")),
        ("cut", SECRET[..43].to_owned()),
        ("line", "\n".to_owned()),
        ("loose", LOOSE.to_owned()),
        ("nul", format!("{SECRET}\0")),
        ("mark", format!("\u{feff}{SECRET}")),
        ("comment", format!("{SECRET} # mine")),
    ] {
        add(Refused, format!("private-key {}", file(name, &text)));
        add(Refused, format!("peer {KEY} preshared-key {}", file(name, &text)));
    }
    for path in [&secret, &spaced, &empty, "/dev/null"] {
        add(Taken, format!("private-key {path}"));
        add(Taken, format!("peer {KEY} preshared-key {path}"));
    }
    for path in ["/none", "/", "''", SECRET] {
        add(Refused, format!("private-key {path}"));
        add(Refused, format!("peer {KEY} preshared-key {path}"));
    }
    for line in [
        "listen-port 5",
        "listen-port 5 listen-port 6",
        "listen-port domain",
        "fwmark 0x5 listen-port 5",
        "fwmark off",
        "fwmark OFF",
        "peer KEY",
        "peer KEY remove",
        "peer KEY remove remove",
        "peer KEY remove endpoint 192.0.2.1:5",
        "peer KEY endpoint 192.0.2.1:5 remove",
        "peer KEY allowed-ips ''",
        "peer KEY allowed-ips '  '",
        "peer KEY allowed-ips ' 10.0.0.0/8 , ::/0 '",
        "peer KEY allowed-ips ::/0 allowed-ips 10.0.0.1",
        "peer KEY allowed-ips '' allowed-ips ::/0",
        "peer KEY persistent-keepalive 25 persistent-keepalive off",
        "peer KEY peer KEY",
        "peer KEY endpoint [::1]:5 endpoint 192.0.2.1:5",
        "peer KEY endpoint [fe80::1%lo]:5",
        "peer KEY endpoint 127.1:domain",
    ] {
        add(Taken, line.replace("KEY", KEY));
    }
    for line in [
        "x",
        "''",
        "--",
        "listen-port",
        "listen-port ''",
        "Listen-Port 5",
        "listen_port 5",
        "listenport 5",
        "--listen-port 5",
        "fwmark",
        "fwmark ''",
        "fwmark ' 5'",
        "private-key",
        "peer",
        "peer ''",
        "peer x",
        "peer remove",
        "remove",
        "endpoint 192.0.2.1:5",
        "allowed-ips ::/0",
        "persistent-keepalive 5",
        "preshared-key /dev/null",
        "peer KEY x",
        "peer KEY listen-port 5",
        "peer KEY fwmark 5",
        "peer KEY private-key /dev/null",
        "peer KEY endpoint",
        "peer KEY endpoint ''",
        "peer KEY allowed-ips",
        "peer KEY persistent-keepalive",
        "peer KEY persistent-keepalive ''",
        "peer KEY preshared-key",
        "peer KEY allowed-ips ::/0,",
        "peer KEY allowed-ips '::/0 10.0.0.0/8'",
        "peer KEY allowed-ips ::/0 10.0.0.0/8",
        "peer KEY endpoint ' '",
        "peer ' KEY'",
        "peer KEY persistent-keepalive ' 5'",
        "peer KEY remove x",
        "listen-port 5 6",
        "peer KEY endpoint '192.0.2.1 :5x'",
    ] {
        add(Refused, line.replace("KEY", KEY));
    }
    for line in [
        "listen-port 70000",
        "listen-port ' 5'",
        "listen-port +5",
        "peer KEY endpoint 192.0.2.1:70000",
        "peer KEY endpoint '192.0.2.1: 5'",
    ] {
        add(OnlyWe, line.replace("KEY", KEY));
    }
    for line in ["peer KEY allowed-ips +::/0", "peer KEY allowed-ips -10.0.0.0/8,+::/0"] {
        add(NewerWg, line.replace("KEY", KEY));
    }
    let lines: Vec<String> = cases.iter().map(|(line, _)| line.clone()).collect();
    check(&host, &cases, |at| format!("set c{at} {}", lines[at]));
}

#[test]
fn the_number_of_retries_is_read_as_wg_reads_it() {
    let host = Host::new();
    let requests = host.serve("wg0", "errno=0\n\n", "errno=0\n\n");
    for (retries, taken) in [
        (Some("0"), true),
        (Some("15"), true),
        (Some("2147483647"), true),
        (Some("infinity"), true),
        (Some(""), true),
        (Some("007"), true),
        (None, true),
        (Some("2147483648"), false),
        (Some("-1"), false),
        (Some("Infinity"), false),
        (Some("infinite"), false),
        (Some("1s"), false),
        (Some("0x5"), false),
        (Some("99999999999999999999"), false),
    ] {
        for program in ["wg", WIRELOOM] {
            let env: Vec<_> = retries.iter().map(|&retries| ("WG_ENDPOINT_RESOLUTION_RETRIES", retries)).collect();
            // Even an address is not looked at while the variable says nothing.
            let words = [program, "set", "wg0", "peer", KEY, "endpoint", "192.0.2.1:5"];
            let output = host.run(&env, &words, "");
            assert_eq!(output.status.code(), Some(if taken { 0 } else { 1 }), "{program} {retries:?}: {output:?}");
            assert_eq!(requests.lock().unwrap().drain(..).count(), usize::from(taken));
            if !taken && program == WIRELOOM {
                let expected =
                    format!("WG_ENDPOINT_RESOLUTION_RETRIES is '{}', expected a number or infinity", retries.unwrap());
                assert_eq!(complaint(&output), expected);
            }
        }
    }
}

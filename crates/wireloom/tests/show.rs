//! `wireloom show` and `showconf` print what `wg` prints, to the byte, of the same device.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

mod common;

use std::os::unix::net::UnixListener;
use std::time::SystemTime;

use common::{Host, WIRELOOM, complaint, said};

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

/// A device of many peers: each time, amount, endpoint and network that is printed in a way of its own.
fn busy() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut text = format!("private_key={}\nlisten_port=51820\nfwmark=51820\n", "a8".repeat(31) + "6a");
    let endpoints = [
        "192.0.2.1:51820",
        "[2001:db8::1]:1",
        "[fe80::1%1]:2",
        "[fe80::1%lo]:3",
        "[fe80::1%99]:4",
        "[::ffff:192.0.2.1]:5",
        "",
    ];
    let ages = [1, 59, 60, 61, 3600, 3661, 86_400, 90_061, 31_536_000, 99_999_999, 100, 100];
    let amounts = [
        (0, 0),
        (0, 1),
        (1023, 1024),
        (1029, 1536),
        (5248, 1_048_575),
        (1 << 20, 1 << 30),
        (1_u64 << 40, u64::MAX),
        (123_456_789, 9),
    ];
    let networks = [
        "10.0.0.0/8",
        "0.0.0.0/0",
        "::/0",
        "::1.2.3.4/128",
        "::1/128",
        "::ffff:1.2.3.4/128",
        "2001:db8:0:0:1::/80",
        "fe80::/10",
    ];
    for peer in 0..24_usize {
        text += &format!("public_key={:064x}\n", (peer as u128 + 1) * 0x0123_4567_89ab_cdef);
        let psk = if peer % 3 == 0 { "0" } else { "5" };
        text += &format!("preshared_key={}\nprotocol_version=1\n", psk.repeat(64));
        if !endpoints[peer % endpoints.len()].is_empty() {
            text += &format!("endpoint={}\n", endpoints[peer % endpoints.len()]);
        }
        let at = match peer {
            12 => now + 1000,
            13.. if peer % 2 == 0 => 0,
            _ => now - ages[peer % ages.len()],
        };
        let (rx, tx) = amounts[peer % amounts.len()];
        text += &format!("last_handshake_time_sec={at}\nlast_handshake_time_nsec={}\n", if at == 0 { 0 } else { peer });
        text += &format!(
            "tx_bytes={tx}\nrx_bytes={rx}\npersistent_keepalive_interval={}\n",
            [0, 1, 25, 60, 65535][peer % 5]
        );
        for network in networks.iter().take(peer % (networks.len() + 1)) {
            text += &format!("allowed_ip={network}\n");
        }
    }
    text + "errno=0\n\n"
}

/// Compares the two commands. Ours runs before and after `wg`: when both say the same, no second passed that is told of.
fn same(host: &Host, env: &[(&str, &str)], words: &[&str]) {
    for _ in 0..20 {
        let before = host.run(env, &[&[WIRELOOM], words].concat(), "");
        let wg = host.run(env, &[&["wg"], words].concat(), "");
        let after = host.run(env, &[&[WIRELOOM], words].concat(), "");
        if said(&before) == said(&after) {
            assert_eq!(said(&before), said(&wg), "{words:?} with {env:?}");
            return;
        }
    }
    panic!("{words:?}: no two runs within a second");
}

#[test]
fn one_interface_as_wg_shows_it() {
    let host = Host::new();
    host.serve("wg-busy", &busy(), "errno=0\n\n");
    let text = said(&host.wireloom(&["show", "wg-busy"])).1;
    assert!(
        text.starts_with("interface: wg-busy\n") && text.contains("%lo]:3\n") && text.contains("(hidden)"),
        "{text}"
    );
    same(&host, &[], &["show", "wg-busy"]);
    same(&host, &[("WG_COLOR_MODE", "always")], &["show", "wg-busy"]);
    same(&host, &[("WG_COLOR_MODE", "always"), ("WG_HIDE_KEYS", "never")], &["show", "wg-busy"]);
    same(&host, &[("WG_COLOR_MODE", "never"), ("WG_HIDE_KEYS", "always")], &["show", "wg-busy"]);
    same(&host, &[("WG_COLOR_MODE", "auto"), ("WG_HIDE_KEYS", "")], &["show", "wg-busy"]);
    same(&host, &[], &["showconf", "wg-busy"]);
    for field in FIELDS {
        same(&host, &[], &["show", "wg-busy", field]);
    }
}

#[test]
fn several_interfaces_as_wg_shows_them() {
    let host = Host::new();
    same(&host, &[], &["show"]);
    same(&host, &[], &["show", "interfaces"]);
    host.serve("wg-busy", &busy(), "errno=0\n\n");
    host.serve("wg-new", "errno=0\n\n", "errno=0\n\n");
    host.serve(
        "x",
        "listen_port=1\npublic_key=11111111111111111111111111111111111111111111111111111111111111ff\nerrno=0\n\n",
        "",
    );
    for words in [
        &["show"][..],
        &["show", "all"],
        &["show", "interfaces"],
        &["show", "wg-new"],
        &["show", "wg-new", "dump"],
        &["showconf", "x"],
    ] {
        same(&host, &[], words);
    }
    for field in FIELDS.into_iter().filter(|&field| field != "endpoints") {
        same(&host, &[], &["show", "all", field]);
    }
    // Here older versions of wg print the interface's name once only, which is not what wg(8) says.
    let all = said(&host.wireloom(&["show", "all", "endpoints"])).1;
    let busy = said(&host.wireloom(&["show", "wg-busy", "endpoints"])).1;
    assert_eq!(busy.lines().count(), 24);
    assert!(busy.lines().all(|line| all.contains(&format!("wg-busy\t{line}\n"))), "{all}");
}

#[test]
fn drops_are_shown_by_reason() {
    let host = Host::new();
    host.serve("ours", "drop_no-route=0\ndrop_replayed=18446744073709551615\nerrno=0\n\n", "");
    let expected = "no-route\t0\nreplayed\t18446744073709551615\n";
    assert_eq!(said(&host.wireloom(&["show", "ours", "drops"])), (Some(0), expected.to_owned()));
    host.serve("other", "errno=-71\n\n", "");
    assert_eq!(
        complaint(&host.wireloom(&["show", "other", "drops"])),
        "interface 'other' is run by a program that does not tell what it drops, expected one of `wireloom run`"
    );
    let all = host.wireloom(&["show", "all", "drops"]);
    assert_eq!(all.status.code(), Some(0));
    assert_eq!(String::from_utf8(all.stdout).unwrap(), "ours\tno-route\t0\nours\treplayed\t18446744073709551615\n");
    assert_eq!(String::from_utf8(all.stderr).unwrap().lines().count(), 1);
    host.serve("babbles", "drop_replayed=many\nerrno=0\n\n", "");
    assert!(complaint(&host.wireloom(&["show", "babbles", "drops"])).contains("a count of drops that is not one"));
}

#[test]
fn a_dead_socket_is_no_interface() {
    let host = Host::new();
    drop(UnixListener::bind(host.folder().join("gone.sock")).unwrap());
    std::fs::write(host.folder().join("file.sock"), "").unwrap();
    host.serve("alive", "errno=0\n\n", "errno=0\n\n");
    assert_eq!(said(&host.wireloom(&["show", "interfaces"])), (Some(0), "alive\n".to_owned()));
    assert!(host.folder().join("gone.sock").exists(), "a client removed a socket that a starting daemon may have made");
    assert_eq!(
        complaint(&host.wireloom(&["show", "gone"])),
        "no interface 'gone' runs here, expected one that `wireloom show interfaces` lists"
    );
}

#[test]
fn what_cannot_be_shown_is_told_in_one_line() {
    let host = Host::new();
    host.serve("refuses", "errno=1\n\n", "");
    host.serve("babbles", "hello\n\n", "");
    let cases = [
        (&["show", "refuses"][..], "interface 'refuses': Operation not permitted"),
        (&["show", "babbles"], "interface 'babbles': the device's reply has a line without '='"),
        (&["showconf", "none"], "no interface 'none' runs here, expected one that `wireloom show interfaces` lists"),
        (
            &["show", "lo"],
            "interface 'lo' is not WireGuard's, or its daemon has gone, expected one that `wireloom show interfaces` lists",
        ),
        (
            &["show", "../x"],
            "'../x' is not the name of an interface, expected 1 to 15 characters without white space, '/', ':' and '%'",
        ),
        (
            &["show", "interfaces", "dump"],
            "show interfaces takes no field, expected `show all` or `show INTERFACE` before 'dump'",
        ),
    ];
    for (words, expected) in cases {
        assert_eq!(complaint(&host.wireloom(words)), expected);
    }
    let unknown = complaint(&host.wireloom(&["show", "refuses", "keys"]));
    assert!(unknown.starts_with("invalid value 'keys' for '[FIELD]' [possible values: public-key, "), "{unknown}");
    // One that cannot be shown does not hide the others.
    host.serve("alive", "errno=0\n\n", "");
    let all = host.wireloom(&["show"]);
    assert_eq!((all.status.code(), String::from_utf8(all.stderr).unwrap().lines().count()), (Some(0), 2));
    assert!(String::from_utf8(all.stdout).unwrap().contains("interface: alive\n"));
}

/// What `--json` prints, read.
fn json(host: &Host, env: &[(&str, &str)], words: &[&str]) -> serde_json::Value {
    let (code, text) = said(&host.run(env, &[&[WIRELOOM], words].concat(), ""));
    assert_eq!(code, Some(0));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn json_tells_what_the_other_forms_tell_and_hides_keys() {
    let host = Host::new();
    host.serve("wg-busy", &busy(), "errno=0\n\n");
    host.serve("wg-new", "errno=0\n\n", "");
    let dump = said(&host.wireloom(&["show", "wg-busy", "dump"])).1;
    let hidden = json(&host, &[], &["show", "wg-busy", "--json"]);
    let open = json(&host, &[("WG_HIDE_KEYS", "never")], &["show", "wg-busy", "--json"]);
    for (told, keys) in [(&hidden, false), (&open, true)] {
        assert_eq!(told["schema"], 1);
        let interface = &told["interfaces"][0];
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::Null => "(none)".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let shown = |secret: &str| if keys || secret == "(none)" { secret.to_owned() } else { "(hidden)".to_owned() };
        let mut lines = dump.lines();
        let own: Vec<_> = lines.next().unwrap().split('\t').collect();
        assert_eq!(text(&interface["private_key"]), shown(own[0]));
        assert_eq!((text(&interface["public_key"]), text(&interface["listen_port"])), (own[1].into(), own[2].into()));
        assert_eq!(interface["fwmark"], 51820);
        let peers = interface["peers"].as_array().unwrap();
        assert_eq!(peers.len(), 24);
        for (peer, line) in peers.iter().zip(lines) {
            let fields: Vec<_> = line.split('\t').collect();
            assert_eq!((text(&peer["public_key"]), text(&peer["preshared_key"])), (fields[0].into(), shown(fields[1])));
            assert_eq!(text(&peer["endpoint"]), fields[2]);
            let networks: Vec<_> = peer["allowed_ips"].as_array().unwrap().iter().map(text).collect();
            assert_eq!(if networks.is_empty() { "(none)".to_owned() } else { networks.join(",") }, fields[3]);
            assert_eq!(peer["latest_handshake"].as_u64().unwrap_or(0).to_string(), fields[4]);
            assert_eq!((text(&peer["rx_bytes"]), text(&peer["tx_bytes"])), (fields[5].into(), fields[6].into()));
            assert_eq!(text(&peer["persistent_keepalive"]).replace("(none)", "off"), fields[7]);
        }
        let secrets: Vec<_> = dump.split_whitespace().filter(|word| word.ends_with('=')).collect();
        let private = secrets[0];
        assert_eq!(told.to_string().contains(private), keys);
    }
    let all = json(&host, &[], &["show", "all", "--json"]);
    let all = all["interfaces"].as_array().unwrap();
    let of = |name: &str| all.iter().find(|interface| interface["name"] == name).unwrap();
    // A handshake that is told as an age was at another second by then.
    assert_eq!((all.len(), of("wg-busy")["peers"].as_array().unwrap().len()), (2, 24));
    assert!(of("wg-new")["private_key"].is_null());
    assert_eq!(json(&Host::new(), &[], &["show", "--json"])["interfaces"].as_array().unwrap().len(), 0);
}

#[test]
fn json_is_refused_where_it_is_not_there() {
    let host = Host::new();
    assert_eq!(
        complaint(&host.wireloom(&["show", "interfaces", "--json"])),
        "show interfaces has no form in JSON, expected `show all --json`"
    );
    let both = complaint(&host.wireloom(&["show", "wg0", "dump", "--json"]));
    assert!(both.starts_with("the argument '[FIELD]' cannot be used with '--json'"), "{both}");
    assert_eq!(
        complaint(&host.wireloom(&["show", "wg0", "--json"])),
        "no interface 'wg0' runs here, expected one that `wireloom show interfaces` lists"
    );
}

#[test]
fn top_without_a_terminal_says_what_takes_none() {
    let host = Host::new();
    assert_eq!(complaint(&host.wireloom(&["top"])), "no interface runs here, expected one that `wireloom run` makes");
    host.serve("wg-busy", &busy(), "errno=0\n\n");
    assert_eq!(
        complaint(&host.wireloom(&["top", "wg-busy"])),
        "there is no terminal here, expected one on standard input and output, or `wireloom top --once`"
    );
    let once = said(&host.wireloom(&["top", "--interval", "0.1", "--once"]));
    assert_eq!(once.0, Some(0));
    assert!(
        once.1.starts_with("wg-busy · run by another program · port 51820 · 24 peers\nin 0 b/s, out 0 b/s\n"),
        "{}",
        once.1
    );
    assert_eq!(once.1.lines().count(), 2 + 1 + 25);
    for bad in ["0", "0.09", "3601", "NaN", "-1", "x"] {
        let told = complaint(&host.wireloom(&["top", &format!("--interval={bad}")]));
        assert!(told.contains("expected a number of seconds from 0.1 to 3600"), "{told}");
    }
}

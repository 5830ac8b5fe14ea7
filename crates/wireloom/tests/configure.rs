//! `set`, `setconf`, `addconf` and `syncconf` send a device what `wg` sends it.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

mod common;

use std::fs;

use common::{Host, complaint, said};

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const OTHER: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
const SECRET: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

/// A device of two peers, `KEY` with everything and `OTHER` with nothing.
const DEVICE: &str = "listen_port=1\nfwmark=2\n\
    public_key=c53201039adba14be71f886da1d8dbe9eebded08cb111b75340078999aa9f038\n\
    preshared_key=c809f3e5317e9575c9b5ed78b638b7ce530dabe85ddab614220241801ddf0669\n\
    endpoint=192.0.2.1:5\npersistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\n\
    public_key=4eb32f4a83f88d842563a448cc181bb2c42a637bf12363e2fb2ef594e5965d7d\nerrno=0\n\n";

/// The device without what only newer versions of `wg syncconf` take away: the preshared key and the keepalive of `KEY`.
fn bare() -> String {
    let is_kept = |line: &&str| !line.starts_with("preshared_key") && !line.starts_with("persistent_keepalive");
    DEVICE.split_inclusive('\n').filter(is_kept).collect()
}

/// What the device was sent by one command line of each program.
fn sent(host: &Host, device: &str, words: &[&str]) -> (String, String) {
    let requests = host.serve(device, &bare(), "errno=0\n\n");
    let words: Vec<&str> = words.iter().map(|&word| if word == "DEVICE" { device } else { word }).collect();
    for output in [host.wg(&words), host.wireloom(&words)] {
        assert_eq!(said(&output), (Some(0), String::new()), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 2, "{words:?}");
    (requests[0].clone(), requests[1].clone())
}

#[test]
fn settings_are_sent_as_wg_sends_them() {
    let host = Host::new();
    let secret = host.folder().join("secret");
    fs::write(&secret, format!("{SECRET}\n \n")).unwrap();
    let secret = secret.to_str().unwrap();
    let zeros = host.folder().join("zeros");
    fs::write(&zeros, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    let zeros = zeros.to_str().unwrap();
    let lines: [&[&str]; 14] = [
        &["listen-port", "51820"],
        &["listen-port", "0", "fwmark", "off"],
        &["fwmark", "0xCA6C", "private-key", secret],
        &["fwmark", "4294967295", "private-key", "/dev/null"],
        &["private-key", zeros],
        &["peer", KEY],
        &["peer", KEY, "remove"],
        &["peer", KEY, "remove", "allowed-ips", "::/0", "peer", OTHER],
        &[
            "listen-port",
            "7",
            "peer",
            KEY,
            "preshared-key",
            secret,
            "endpoint",
            "192.0.2.1:5",
            "persistent-keepalive",
            "65535",
        ],
        &["peer", KEY, "preshared-key", "/dev/null", "persistent-keepalive", "off", "endpoint", "[2001:db8::1]:5"],
        &["peer", KEY, "allowed-ips", "10.0.0.0/8, 192.0.2.1 ,::/0,2001:db8::1"],
        &["peer", KEY, "allowed-ips", ""],
        &["peer", KEY, "allowed-ips", "1.2.3.4", "allowed-ips", "::1.2.3.4", "peer", OTHER, "endpoint", "localhost:7"],
        &["peer", KEY, "endpoint", "[fe80::1%1]:5"],
    ];
    for (at, line) in lines.iter().enumerate() {
        let (wg, ours) = sent(&host, &format!("set{at}"), &[&["set", "DEVICE"], *line].concat());
        // A zone is a number in what we send.
        assert_eq!(ours, wg.replace("%lo", "%1"), "{line:?}");
    }
}

#[test]
fn single_allowed_ips_come_and_go() {
    let host = Host::new();
    let requests = host.serve("wg0", DEVICE, "errno=0\n\n");
    let set = |list| {
        assert_eq!(said(&host.wireloom(&["set", "wg0", "peer", KEY, "allowed-ips", list])), (Some(0), String::new()))
    };
    set("+10.0.0.0/8,-::/0");
    set("10.0.0.1/8");
    let lines: Vec<String> =
        requests.lock().unwrap().iter().map(|text| text.split_once("f038\n").unwrap().1.to_owned()).collect();
    assert_eq!(
        lines,
        ["allowed_ip=10.0.0.0/8\nallowed_ip=-::/0\n\n", "replace_allowed_ips=true\nallowed_ip=10.0.0.0/8\n\n"]
    );
}

#[test]
fn files_are_sent_as_wg_sends_them() {
    let host = Host::new();
    let file = host.folder().join("file.conf");
    let peer = format!("[Peer]\nPublicKey = {KEY}\n");
    let other = format!(
        "[peer]\npublickey={OTHER}\nAllowedIPs = 1.2.3.4, ::/0\nAllowedIPs=10.0.0.0/8\nEndpoint = 192.0.2.7:7\n"
    );
    let files = [
        String::new(),
        format!(
            "[Interface]\nPrivateKey = {SECRET}\nListenPort = 51820 # where\nFwMark = 0x7\n\n{peer}PresharedKey = {SECRET}\n"
        ),
        format!("{peer}PersistentKeepalive = off\n{other}"),
        format!("[Interface]\nFwMark=off\n{other}"),
        "[Interface]\nListenPort = 0\nPrivateKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned(),
        peer.clone(),
    ];
    for (at, text) in files.iter().enumerate() {
        fs::write(&file, text).unwrap();
        for verb in ["setconf", "addconf", "syncconf"] {
            let (wg, ours) = sent(&host, &format!("{verb}{at}"), &[verb, "DEVICE", file.to_str().unwrap()]);
            assert_eq!(ours, wg, "{verb} {text}");
        }
    }
}

#[test]
fn syncconf_takes_away_what_the_file_does_not_say() {
    let host = Host::new();
    let requests = host.serve("wg0", DEVICE, "errno=0\n\n");
    let text = format!("[Peer]\nPublicKey={KEY}\n");
    let output = host.run(&[], &[common::WIRELOOM, "syncconf", "wg0", "/dev/stdin"], &text);
    assert_eq!(said(&output), (Some(0), String::new()));
    let expected = format!(
        "set=1\nprivate_key={zeros}\nlisten_port=0\nfwmark=0\n\
         public_key=4eb32f4a83f88d842563a448cc181bb2c42a637bf12363e2fb2ef594e5965d7d\nremove=true\n\
         public_key=c53201039adba14be71f886da1d8dbe9eebded08cb111b75340078999aa9f038\npreshared_key={zeros}\n\
         persistent_keepalive_interval=0\nreplace_allowed_ips=true\n\n",
        zeros = "0".repeat(64)
    );
    assert_eq!(*requests.lock().unwrap(), [expected]);
}

#[test]
fn what_a_device_refuses_is_told_whichever_sign_it_has() {
    let host = Host::new();
    for (name, reply) in [("minus", "errno=-98\n\n"), ("plus", "errno=98\n\n")] {
        host.serve(name, DEVICE, reply);
        let expected = format!("interface '{name}': Address already in use");
        assert_eq!(complaint(&host.wireloom(&["set", name, "listen-port", "1"])), expected);
    }
}

#[test]
fn mistakes_are_told_in_one_line_and_nothing_is_sent() {
    let host = Host::new();
    let requests = host.serve("wg0", DEVICE, "errno=0\n\n");
    let file = host.folder().join("bad");
    fs::write(&file, format!("{SECRET}x\n")).unwrap();
    let file = file.to_str().unwrap();
    let conf = host.folder().join("bad.conf");
    fs::write(&conf, "[Interface]\nPrivateKey = secret\n").unwrap();
    let conf = conf.to_str().unwrap();
    let not_a_key = "not a key, expected 44 characters of base64 as `wg genkey` prints them";
    let cases: [(&[&str], String); 13] = [
        (&["mtu", "1"], "set: 'mtu' is not a setting here, expected listen-port, fwmark, private-key or peer".to_owned()),
        (&["listen-port"], "set: listen-port stands at the end, expected a port after it".to_owned()),
        (&["listen-port", "70000"], "set: listen port '70000' is not one, expected a number from 0 to 65535 or the name of a UDP service".to_owned()),
        (&["fwmark", "-1"], "set: mark '-1' is not one, expected off, a number, or 0x and hexadecimal digits, of 32 bits".to_owned()),
        (&["private-key", "/none"], "cannot read /none: No such file or directory (os error 2)".to_owned()),
        (&["private-key", file], format!("{file}: {not_a_key}")),
        (&["peer", "x"], format!("set: peer 'x': {not_a_key}")),
        (&["peer", KEY, "preshared-key", "/"], "cannot read /: Is a directory (os error 21)".to_owned()),
        (
            &["peer", KEY, "listen-port", "1"],
            "set: 'listen-port' is not a setting here, expected remove, preshared-key, endpoint, persistent-keepalive, allowed-ips or peer"
                .to_owned(),
        ),
        (
            &["peer", KEY, "endpoint", "192.0.2.1"],
            "set: endpoint '192.0.2.1' has no proper port, expected HOST:PORT, the port from 0 to 65535 or the name of a UDP service".to_owned(),
        ),
        (
            &["peer", KEY, "allowed-ips", "10.0.0.0/33"],
            "set: allowed IP '10.0.0.0/33' has no proper prefix length, expected 0 to 32 for IPv4 and 0 to 128 for IPv6".to_owned(),
        ),
        (
            &["peer", KEY, "persistent-keepalive", "x"],
            "set: persistent keepalive 'x' is not one, expected off or seconds from 0 to 65535".to_owned(),
        ),
        (&["peer"], "set: peer stands at the end, expected a public key after it".to_owned()),
    ];
    for (words, expected) in cases {
        assert_eq!(complaint(&host.wireloom(&[&["set", "wg0"], words].concat())), expected);
    }
    assert_eq!(
        complaint(&host.wireloom(&["setconf", "wg0", conf])),
        format!("{conf}:2: the private key is {not_a_key}")
    );
    assert_eq!(
        complaint(&host.wireloom(&["setconf", "wg0", "/none"])),
        "cannot read /none: No such file or directory (os error 2)"
    );
    let usage = complaint(&host.wireloom(&["set", "wg0"]));
    assert!(
        usage.contains(
            "required arguments were not provided: <SETTINGS>...; expected: wireloom set INTERFACE [listen-port PORT]"
        ),
        "{usage}"
    );
    let name = complaint(&host.wireloom(&["set", "a/b", "listen-port", "1"]));
    assert!(name.contains("'a/b'") && name.contains("expected 1 to 15 characters"), "{name}");
    assert!(requests.lock().unwrap().is_empty());
}

#[test]
fn a_name_that_does_not_exist_is_told_at_once() {
    let host = Host::new();
    host.serve("wg0", DEVICE, "errno=0\n\n");
    let words = [common::WIRELOOM, "set", "wg0", "peer", KEY, "endpoint", "name.invalid:5"];
    let told = complaint(&host.run(&[("WG_ENDPOINT_RESOLUTION_RETRIES", "0")], &words, ""));
    assert!(told.starts_with("cannot resolve endpoint 'name.invalid:5': "), "{told}");
    let told = complaint(&host.run(&[("WG_ENDPOINT_RESOLUTION_RETRIES", "some")], &words, ""));
    assert_eq!(told, "WG_ENDPOINT_RESOLUTION_RETRIES is 'some', expected a number or infinity");
}

#[test]
fn of_a_hundred_thousand_peers_a_reload_sends_the_one_that_differs() {
    use std::fmt::Write;
    const PEERS: u32 = 100_000;
    let host = Host::new();
    let key = |at: u32| noise::PublicKey::from_bytes(std::array::from_fn(|n| (at >> (n % 4 * 8)) as u8 | 1));
    let (mut device, mut text) = ("listen_port=1\n".to_owned(), "[Interface]\nListenPort = 1\n".to_owned());
    let mut seen = std::collections::HashSet::new();
    for at in (0..).map(|at| at * 2) {
        let key = key(at * 0x0101 + at);
        if !seen.insert(key) {
            continue;
        }
        if seen.len() > PEERS as usize {
            break;
        }
        let number = seen.len();
        let network = format!("10.{}.{}.{}/32", number >> 16, number >> 8 & 255, number & 255);
        let endpoint = format!("192.0.2.1:{}", number % 60000 + 1);
        write!(device, "public_key={}\nendpoint={endpoint}\nallowed_ip={network}\n", config::key::to_hex(&key))
            .unwrap();
        let keepalive = if number == 77_777 { "PersistentKeepalive = 25\n" } else { "" };
        let public = config::key::to_base64(&key);
        write!(text, "[Peer]\nPublicKey = {public}\nEndpoint = {endpoint}\nAllowedIPs = {network}\n{keepalive}")
            .unwrap();
    }
    let interface = format!("wlr{}", std::process::id());
    let requests = host.serve(&interface, &format!("{device}errno=0\n\n"), "errno=0\n\n");
    let file = host.folder().join(format!("{interface}.conf"));
    fs::write(&file, text).unwrap();
    let output = host.wireloom(&["reload", file.to_str().unwrap()]);
    assert_eq!(said(&output), (Some(0), String::new()), "{}", String::from_utf8_lossy(&output.stderr));
    let requests = requests.lock().unwrap();
    let lines: Vec<&str> = requests[0].lines().collect();
    assert_eq!((requests.len(), lines.len()), (1, 4), "{:.300}", requests[0]);
    assert!(
        lines[0] == "set=1" && lines[1].starts_with("public_key=") && lines[2] == "persistent_keepalive_interval=25"
    );
}

//! The INI files: read as `wg setconf` reads them, refused with the line and with what was expected.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

mod common;

use common::{Links, device, show};
use config::device::{AllowedIpChange, Device, Peer};
use config::file::{self, File};
use config::show;
use config::value::{HostPort, NoServices, Services};
use proptest::prelude::*;

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

fn parse(text: &str) -> File {
    file::parse(text.as_bytes(), &NoServices).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(text: &str) -> String {
    match file::parse(text.as_bytes(), &NoServices) {
        Ok(_) => panic!("not refused: {text}"),
        Err(error) => error.to_string(),
    }
}

/// The device that a file makes of nothing, where its endpoints are addresses.
fn built(file: File) -> Device {
    let peers = file.peers.into_iter().map(|from| {
        let mut peer = Peer::new(from.public_key);
        peer.preshared_key = from.preshared_key;
        peer.persistent_keepalive = from.persistent_keepalive.unwrap_or(0);
        peer.endpoint =
            from.endpoint.map(|endpoint| config::address::parse_endpoint(&endpoint.to_string(), &Links).unwrap());
        peer.allowed_ips = from
            .allowed_ips
            .iter()
            .map(|change| match change {
                AllowedIpChange::Add(cidr) | AllowedIpChange::Remove(cidr) => *cidr,
            })
            .collect();
        peer
    });
    Device {
        private_key: file.private_key.flatten(),
        listen_port: file.listen_port.unwrap_or(0),
        fwmark: file.fwmark.unwrap_or(0),
        peers: peers.collect(),
        ..Device::default()
    }
}

proptest! {
    #[test]
    fn what_showconf_prints_reads_back(mut device in device()) {
        for peer in &mut device.0.peers {
            (peer.last_handshake, peer.rx_bytes, peer.tx_bytes) = (None, 0, 0);
        }
        let mut text = Vec::new();
        show::conf(&mut text, &device, &Links).unwrap();
        let file = file::parse(&text, &NoServices).unwrap();
        prop_assert!(file.warnings.is_empty());
        prop_assert_eq!(show(&built(file)), show(&device));
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = file::parse(&bytes, &NoServices);
    }

    #[test]
    fn almost_files_do_no_harm_and_errors_are_one_line(lines in proptest::collection::vec(line(), 0..20)) {
        if let Err(error) = file::parse(lines.join("\n").as_bytes(), &NoServices) {
            prop_assert!((1..=lines.len()).contains(&error.line));
            prop_assert!(!error.to_string().contains(char::is_control));
        }
    }
}

fn line() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "PrivateKey",
        "listenport",
        "FWMARK",
        "Public Key",
        "PresharedKey",
        "AllowedIPs",
        "Endpoint",
        "PersistentKeepalive",
        "Address",
        "",
    ]);
    let value = prop_oneof![
        Just(KEY.to_owned()),
        "[0-9]{0,6}",
        "[+-]?[0-9]{1,3}(\\.[0-9]{1,3}){3}(/[0-9]{1,3})?(, *)?",
        "\\[?[0-9a-f:%]{0,12}\\]?:[0-9]{0,6}",
        "\\PC{0,20}",
        Just("off".to_owned()),
        "[\\x00-\\x1f]{0,4}",
    ];
    prop_oneof![
        1 => Just("[Interface]".to_owned()), 2 => Just(" [peer] # one".to_owned()), 1 => "\\PC{0,20}",
        8 => (name, value).prop_map(|(name, value)| format!("{name} = {value}")),
    ]
}

#[test]
fn everything_that_a_file_can_say() {
    let file = parse(&format!(
        "# a comment\n[INTERFACE]\nprivatekey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk= # mine\r\n Listen Port = 51 820\nFwMark=0xCa6c\n\n\
         [Peer]\nPublicKey={KEY}\nPresharedKey = {KEY}\nEndpoint = test.wireguard.com:18981\nAllowedIPs = 10.192.122.3/32, 10.192.124.1/24,fd00::1\n\
         \tAllowedIPs = 0.0.0.0/0\nPersistentKeepalive = off\n[Interface]\nFwMark = 7\n[peer]\nPublicKey = {KEY}\nAllowedIPs = 1.2.3.4, -::/0\n\
         Endpoint = [fe80::1%eth0]:1"
    ));
    assert_eq!(
        config::key::to_base64(file.private_key.flatten().as_ref().unwrap()).as_str(),
        "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
    );
    assert_eq!((file.listen_port, file.fwmark), (Some(51820), Some(7)));
    let [first, second] = &file.peers[..] else { panic!("{} peers", file.peers.len()) };
    assert_eq!(config::key::to_base64(first.preshared_key.as_deref().unwrap()).as_str(), KEY);
    assert_eq!(first.endpoint, Some(HostPort { host: "test.wireguard.com".to_owned(), port: 18981 }));
    assert_eq!(first.persistent_keepalive, Some(0));
    let text = |changes: &[AllowedIpChange]| {
        changes
            .iter()
            .map(|change| match change {
                AllowedIpChange::Add(cidr) => format!("+{}/{}", cidr.addr(), cidr.prefix_len()),
                AllowedIpChange::Remove(cidr) => format!("-{}/{}", cidr.addr(), cidr.prefix_len()),
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(text(&first.allowed_ips), ["+10.192.122.3/32", "+10.192.124.0/24", "+fd00::1/128", "+0.0.0.0/0"]);
    assert!(first.replace_allowed_ips && !second.replace_allowed_ips);
    assert_eq!(text(&second.allowed_ips), ["+1.2.3.4/32", "-::/0"]);
    assert_eq!(second.endpoint.as_ref().unwrap().to_string(), "[fe80::1%eth0]:1");
    assert_eq!(second.persistent_keepalive, None);
    let [warning] = &file.warnings[..] else { panic!("{:?}", file.warnings) };
    assert_eq!(
        (warning.line, warning.to_string().as_str()),
        (11, "allowed IP '10.192.124.1/24' has host bits, which are ignored")
    );
}

#[test]
fn an_empty_file_says_nothing_and_zeros_take_the_key_away() {
    let file = parse("");
    assert!(file.private_key.is_none() && file.listen_port.is_none() && file.peers.is_empty());
    assert!(parse("[Interface]\nPrivateKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").private_key == Some(None));
}

#[test]
fn errors_tell_the_line_and_what_was_expected() {
    let peer = format!("[Peer]\nPublicKey={KEY}\n");
    let cases = [
        ("ListenPort=1", "1: key 'ListenPort' stands before any section, expected [Interface] or [Peer] first"),
        ("\n[Interfaces]", "2: section '[Interfaces]' is unknown, expected [Interface] or [Peer]"),
        (
            "[Interface]\nAddress = 10.0.0.1/8",
            "2: key 'Address' is for wg-quick, expected PrivateKey, ListenPort or FwMark",
        ),
        (
            "[Interface]\nPublicKey = x",
            "2: key 'PublicKey' is unknown in [Interface], expected PrivateKey, ListenPort or FwMark",
        ),
        (
            "[Interface]\nListenPort",
            "2: a line that is neither a section nor an assignment, expected [SECTION] or KEY = VALUE",
        ),
        ("[Interface]\nListenPort =  # none", "2: key 'ListenPort' has no value, expected one after '='"),
        (
            "[Interface]\nListenPort = 65536",
            "2: listen port '65536' is not one, expected a number from 0 to 65535 or the name of a UDP service",
        ),
        (
            "[Interface]\nFwMark = 0x",
            "2: mark '0x' is not one, expected off, a number, or 0x and hexadecimal digits, of 32 bits",
        ),
        (
            "[Interface]\nFwMark = 0x100000000",
            "2: mark '0x100000000' is not one, expected off, a number, or 0x and hexadecimal digits, of 32 bits",
        ),
        (
            "[Interface]\nPrivateKey = secret",
            "2: the private key is not a key, expected 44 characters of base64 as `wg genkey` prints them",
        ),
        (
            "\n\n[Peer]\nAllowedIPs = ::/0\n[Interface]",
            "3: the peer has no public key, expected PublicKey = … in this section",
        ),
        ("[Peer]\n[Peer]", "1: the peer has no public key, expected PublicKey = … in this section"),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(text), expected);
    }
    let in_peer = [
        ("AllowedIPs =", "3: key 'AllowedIPs' has no value, expected one after '='"),
        (
            "AllowedIPs = 10.0.0.0/8,",
            "3: allowed IP '' has no address, expected one such as 192.0.2.0/24 or 2001:db8::/32",
        ),
        (
            "AllowedIPs = 10.0.0.0/33",
            "3: allowed IP '10.0.0.0/33' has no proper prefix length, expected 0 to 32 for IPv4 and 0 to 128 for IPv6",
        ),
        (
            "AllowedIPs = ::/",
            "3: allowed IP '::/' has no proper prefix length, expected 0 to 32 for IPv4 and 0 to 128 for IPv6",
        ),
        (
            "Endpoint = host",
            "3: endpoint 'host' has no proper port, expected HOST:PORT, the port from 0 to 65535 or the name of a UDP service",
        ),
        ("Endpoint = :5", "3: endpoint ':5' has no host, expected HOST:PORT, an IPv6 address in brackets"),
        ("Endpoint = [::1:5", "3: endpoint '[::1:5' has no closing bracket, expected [IPV6]:PORT"),
        (
            "Endpoint = [::1]5",
            "3: endpoint '[::1]5' has no proper port, expected HOST:PORT, the port from 0 to 65535 or the name of a UDP service",
        ),
        (
            "PersistentKeepalive = 65536",
            "3: persistent keepalive '65536' is not one, expected off or seconds from 0 to 65535",
        ),
        (
            "PersistentKeepalive = on",
            "3: persistent keepalive 'on' is not one, expected off or seconds from 0 to 65535",
        ),
        (
            "ListenPort = 1",
            "3: key 'ListenPort' is unknown in [Peer], expected PublicKey, PresharedKey, AllowedIPs, Endpoint or PersistentKeepalive",
        ),
        (
            "or = 1",
            "3: key 'or' is unknown in [Peer], expected PublicKey, PresharedKey, AllowedIPs, Endpoint or PersistentKeepalive",
        ),
    ];
    for (line, expected) in in_peer {
        assert_eq!(refusal(&format!("{peer}{line}")), expected);
    }
    assert_eq!(
        file::parse(b"[Interface]\nFwMark=\xff", &NoServices).err().unwrap().to_string(),
        "2: key 'FwMark' has a value that is not text, expected UTF-8"
    );
}

#[test]
fn no_error_tells_a_secret() {
    let secret = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk";
    for text in [
        format!("[Interface]\nPrivateKey={secret}"),
        format!("[Interface]\nPrivatKey={secret}="),
        format!("[Interface]\nPrivateKey:{secret}"),
        format!("[Peer]\nPublicKey={KEY}\nPresharedKey={secret}"),
        format!("[Peer]\nPublicKey={KEY}\nPreshardKey={secret}="),
    ] {
        assert!(!refusal(&text).contains(&secret[..10]), "{}", refusal(&text));
    }
}

/// Knows one service.
struct Domain;

impl Services for Domain {
    fn port(&self, name: &str) -> Option<u16> {
        assert!(name.contains(|c: char| c.is_ascii_alphabetic()), "{name} is no name");
        (name == "domain").then_some(53)
    }
}

#[test]
fn ports_may_have_names() {
    let text = format!("[Interface]\nListenPort = domain\n[Peer]\nPublicKey = {KEY}\nEndpoint = [::1]:domain\n");
    let file = file::parse(text.as_bytes(), &Domain).unwrap();
    assert_eq!(file.listen_port, Some(53));
    assert_eq!(file.peers[0].endpoint.as_ref().unwrap().port, 53);
    for port in ["gopher", "70000", "-1", "+5", ""] {
        assert!(file::parse(format!("[Interface]\nListenPort = {port}\n").as_bytes(), &Domain).is_err(), "{port}");
    }
}

#[test]
fn a_byte_order_mark_is_told_by_its_name() {
    assert_eq!(
        refusal("\u{feff}[Interface]\n"),
        "1: the file begins with a byte order mark, expected text without one"
    );
}

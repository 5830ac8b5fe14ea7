//! What `show` prints, spelled out. That `wg` prints the same of the same socket is a test of the command line.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

mod common;

use std::time::Duration;

use common::Links;
use config::device::{Device, Peer};
use config::show::{self, FIELDS, Field, Style};
use noise::{PresharedKey, PrivateKey, PublicKey};

fn sample() -> Device {
    let mut old = Peer::new(PublicKey::from_bytes([1; 32]));
    old.preshared_key = Some(Box::new(PresharedKey::from_bytes([9; 32])));
    old.endpoint = Some("[fe80::1%7]:51820".parse().unwrap());
    old.persistent_keepalive = 25;
    old.allowed_ips =
        ["10.0.0.0/8", "::1.2.3.4/128", "::/0"].map(|text| config::address::parse_cidr(text).unwrap().0).to_vec();
    old.last_handshake = Some(Duration::new(1_000_000, 1));
    (old.rx_bytes, old.tx_bytes) = (1023, 1 << 40);
    let never = Peer::new(PublicKey::from_bytes([2; 32]));
    let mut new = Peer::new(PublicKey::from_bytes([3; 32]));
    new.endpoint = Some("192.0.2.1:7".parse().unwrap());
    new.last_handshake = Some(Duration::new(1_000_063, 0));
    (new.rx_bytes, new.tx_bytes) = (0, 1_234_567);
    let private_key = Some(PrivateKey::from_bytes([7; 32]));
    Device { private_key, public_key: None, listen_port: 51820, fwmark: 0xca6c, peers: vec![old, never, new] }
}

fn pretty(device: &Device, colour: bool, show_keys: bool, now: u64) -> String {
    let mut out = Vec::new();
    let style = Style { colour, show_keys, now: Duration::from_secs(now), zones: &Links };
    show::pretty(&mut out, "wg0", device, &style).unwrap();
    String::from_utf8(out).unwrap()
}

fn field(device: &Device, name: Option<&str>, field: &str) -> String {
    let mut out = Vec::new();
    show::field(&mut out, name, device, field.parse().unwrap(), &Links).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn for_people() {
    let expected = "interface: wg0\n  public key: PUBLIC\n  private key: (hidden)\n  listening port: 51820\n  fwmark: 0xca6c\n\n\
        peer: AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n  endpoint: 192.0.2.1:7\n  allowed ips: (none)\n  latest handshake: Now\n  \
        transfer: 0 B received, 1.18 MiB sent\n\n\
        peer: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n  preshared key: (hidden)\n  endpoint: [fe80::1%eth7]:51820\n  \
        allowed ips: 10.0.0.0/8, ::1.2.3.4/128, ::/0\n  latest handshake: 1 minute, 3 seconds ago\n  \
        transfer: 1023 B received, 1.00 TiB sent\n  persistent keepalive: every 25 seconds\n\n\
        peer: AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n  allowed ips: (none)\n";
    assert_eq!(pretty(&sample(), false, false, 1_000_063), expected.replace("PUBLIC", &public()));
    assert_eq!(pretty(&Device::default(), false, false, 0), "interface: wg0\n");
}

fn public() -> String {
    field(&sample(), None, "public-key").trim_end().to_owned()
}

#[test]
fn colours_and_keys_are_shown_when_asked_for() {
    let text = pretty(&sample(), true, true, 1_000_000);
    assert!(
        text.starts_with("\x1b[0m\x1b[32m\x1b[1minterface\x1b[0m: \x1b[32mwg0\x1b[0m\n  \x1b[1mpublic key\x1b[0m: "),
        "{text}"
    );
    assert!(text.contains("\n  \x1b[1mpreshared key\x1b[0m: CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\n"), "{text}");
    assert!(text.contains(": 10.0.0.0\x1b[36m/\x1b[0m8, "), "{text}");
    assert!(
        text.contains(
            "latest handshake\x1b[0m: (\x1b[31mSystem clock wound backward; connection problems may ensue.\x1b[0m)\n"
        ),
        "{text}"
    );
    assert!(text.contains(": 1023 \x1b[36mB\x1b[0m received, 1.00 \x1b[36mTiB\x1b[0m sent\n"), "{text}");
    // Without colours it is the same text.
    let mut plain = text.clone();
    for code in ["0", "1", "31", "32", "33", "36"] {
        plain = plain.replace(&format!("\x1b[{code}m"), "");
    }
    assert_eq!(plain, pretty(&sample(), false, true, 1_000_000));
}

#[test]
fn times_in_words() {
    let cases = [
        (1, "1 second"),
        (60, "1 minute"),
        (3601, "1 hour, 1 second"),
        (2 * 86400 + 2 * 3600 + 120 + 2, "2 days, 2 hours, 2 minutes, 2 seconds"),
        (365 * 86400, "1 year"),
        (2 * 365 * 86400 + 86400, "2 years, 1 day"),
    ];
    for (seconds, words) in cases {
        let text = pretty(&sample(), false, false, 1_000_063 + seconds);
        assert!(text.contains(&format!("latest handshake: {words} ago\n")), "{text}");
    }
}

#[test]
fn bytes_in_units() {
    let cases = [
        (1, "1 B"),
        (1024, "1.00 KiB"),
        (1024 * 1024 - 1, "1024.00 KiB"),
        (1536, "1.50 KiB"),
        (1 << 30, "1.00 GiB"),
        ((1 << 40) - 1, "1024.00 GiB"),
        (u64::MAX, "16777216.00 TiB"),
        (1029, "1.00 KiB"),
        (5 * 1024 + 128, "5.12 KiB"), // a tie goes to the even digit
    ];
    for (bytes, words) in cases {
        let mut device = sample();
        device.peers[2].rx_bytes = bytes;
        let text = pretty(&device, false, false, 0);
        assert!(text.contains(&format!("transfer: {words} received, 1.18 MiB sent")), "{bytes}: {text}");
    }
}

#[test]
fn for_scripts() {
    let device = sample();
    let [one, two, three] = [
        "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
        "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
        "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=",
    ];
    let psk = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
    let private = "AAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHB0c=";
    let public = public();
    let cases = [
        ("private-key", format!("{private}\n")),
        ("listen-port", "51820\n".to_owned()),
        ("fwmark", "0xca6c\n".to_owned()),
        ("peers", format!("{one}\n{two}\n{three}\n")),
        ("preshared-keys", format!("{one}\t{psk}\n{two}\t(none)\n{three}\t(none)\n")),
        ("endpoints", format!("{one}\t[fe80::1%eth7]:51820\n{two}\t(none)\n{three}\t192.0.2.1:7\n")),
        ("allowed-ips", format!("{one}\t10.0.0.0/8 ::1.2.3.4/128 ::/0\n{two}\t(none)\n{three}\t(none)\n")),
        ("latest-handshakes", format!("{one}\t1000000\n{two}\t0\n{three}\t1000063\n")),
        ("transfer", format!("{one}\t1023\t1099511627776\n{two}\t0\t0\n{three}\t0\t1234567\n")),
        ("persistent-keepalive", format!("{one}\t25\n{two}\toff\n{three}\toff\n")),
        (
            "dump",
            format!(
                "{private}\t{public}\t51820\t0xca6c\n\
                 {one}\t{psk}\t[fe80::1%eth7]:51820\t10.0.0.0/8,::1.2.3.4/128,::/0\t1000000\t1023\t1099511627776\t25\n\
                 {two}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n{three}\t(none)\t192.0.2.1:7\t(none)\t1000063\t0\t1234567\toff\n"
            ),
        ),
    ];
    for (name, expected) in &cases {
        assert_eq!(field(&device, None, name), *expected, "{name}");
        let of_all: String = expected.lines().map(|line| format!("wg0\t{line}\n")).collect();
        assert_eq!(field(&device, Some("wg0"), name), of_all, "{name}");
    }
    assert_eq!(FIELDS.len(), cases.len() + 1); // public-key stands in the others
    let nothing = Device::default();
    assert_eq!(field(&nothing, None, "dump"), "(none)\t(none)\t0\toff\n");
    assert_eq!(field(&nothing, None, "public-key"), "(none)\n");
    assert_eq!(field(&nothing, Some("wg0"), "peers"), "");
    assert!("keys".parse::<Field>().is_err());
}

#[test]
fn as_a_file() {
    let mut out = Vec::new();
    show::conf(&mut out, &sample(), &Links).unwrap();
    let expected = "[Interface]\nListenPort = 51820\nFwMark = 0xca6c\nPrivateKey = AAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHB0c=\n\n\
        [Peer]\nPublicKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\nPresharedKey = CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\n\
        AllowedIPs = 10.0.0.0/8, ::1.2.3.4/128, ::/0\nEndpoint = [fe80::1%eth7]:51820\nPersistentKeepalive = 25\n\n\
        [Peer]\nPublicKey = AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n\n\
        [Peer]\nPublicKey = AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\nEndpoint = 192.0.2.1:7\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    let mut out = Vec::new();
    show::conf(&mut out, &Device::default(), &Links).unwrap();
    assert_eq!(out, b"[Interface]\n\n");
}

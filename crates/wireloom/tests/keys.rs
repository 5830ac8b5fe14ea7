//! `genkey`, `genpsk` and `pubkey`, side by side with those of `wg`; and what the program says of itself.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use common::{Host, WIRELOOM, complaint, said};

fn line(text: String) -> String {
    let text = text.strip_suffix('\n').unwrap().to_owned();
    assert_eq!(text.len(), 44);
    text
}

#[test]
fn keys_are_those_that_wg_would_make() {
    let host = Host::new();
    let secret = line(said(&host.wireloom(&["genkey"])).1);
    assert_ne!(secret, line(said(&host.wireloom(&["genkey"])).1));
    // Clamped: the lowest three bits and the highest are clear, the second highest is set.
    let key: noise::PrivateKey = config::key::from_base64(secret.as_bytes()).unwrap();
    assert_eq!(config::key::to_base64(&key).as_str(), secret);
    // A preshared key is not clamped: in one of so many some of those bits differ.
    let psks: Vec<String> = (0..20).map(|_| line(said(&host.wireloom(&["genpsk"])).1)).collect();
    let clamped = |text: &String| {
        let key: noise::PrivateKey = config::key::from_base64(text.as_bytes()).unwrap();
        config::key::to_base64(&key).as_str() == text
    };
    assert!(!psks.iter().all(clamped));

    for secret in [secret.as_str(), psks[0].as_str(), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] {
        for end in ["", "\n", " \n\t\r\n"] {
            let input = format!("{secret}{end}");
            let ours = host.run(&[], &[WIRELOOM, "pubkey"], &input);
            assert_eq!(said(&ours), said(&host.run(&[], &["wg", "pubkey"], &input)));
            assert_eq!(ours.status.code(), Some(0));
        }
    }
    for input in [
        "",
        "short",
        &secret[..43],
        &format!("{secret}x"),
        &format!(" {secret}"),
        &format!("{secret}{}", " ".repeat(9999)),
    ] {
        let told = complaint(&host.run(&[], &[WIRELOOM, "pubkey"], input));
        assert_eq!(told, "standard input: not a key, expected 44 characters of base64 as `wg genkey` prints them");
    }
}

#[test]
fn a_key_in_a_file_that_everybody_can_read_is_warned_of() {
    let host = Host::new();
    for (mode, warned) in [(0o600, false), (0o640, false), (0o604, true), (0o666, true)] {
        let path = host.folder().join(format!("{mode:o}"));
        let file = File::create(&path).unwrap();
        file.set_permissions(PermissionsExt::from_mode(mode)).unwrap();
        let output = Command::new(WIRELOOM).arg("genkey").stdout(file).output().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().len(), 45);
        let file = File::create(&path).unwrap();
        let wg = Command::new("wg").arg("genkey").stdout(file).output().unwrap();
        assert_eq!(String::from_utf8(output.stderr.clone()).unwrap(), String::from_utf8(wg.stderr).unwrap());
        assert_eq!(!output.stderr.is_empty(), warned, "{mode:o}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(WIRELOOM).arg("genkey").stdout(full).output().unwrap();
    assert_eq!(complaint(&output), "cannot write to standard output: No space left on device (os error 28)");
}

#[test]
fn help_starts_with_what_it_does_and_examples() {
    let host = Host::new();
    let (code, text) = said(&host.wireloom(&["--help"]));
    assert_eq!(code, Some(0));
    assert!(text.starts_with("Wireloom runs WireGuard interfaces"), "{text}");
    assert!(text.find("wireloom genkey").unwrap() < text.find("Usage:").unwrap(), "{text}");
    for command in ["run", "show", "showconf", "set", "setconf", "addconf", "syncconf", "genkey", "genpsk", "pubkey"] {
        assert!(text.contains(&format!("\n  {command} ")), "{command}: {text}");
        assert_eq!(said(&host.wireloom(&[command, "--help"])).0, Some(0));
    }
    assert_eq!(host.wireloom(&[]).status.code(), Some(1));
    assert_eq!(said(&host.wireloom(&["--version"])), (Some(0), format!("wireloom {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn what_is_typed_wrongly_is_told_in_one_line() {
    let host = Host::new();
    let cases = [
        (&["show", "wg0", "dump", "x"][..], "unexpected argument 'x' found; expected: wireloom show "),
        (
            &["showconf"],
            "the following required arguments were not provided: <INTERFACE>; expected: wireloom showconf <INTERFACE>",
        ),
        (&["genkey", "x"], "unexpected argument 'x' found; expected: wireloom genkey"),
        (&["run", "--workers", "0", "wg0"], "invalid value '0' for '--workers <N>': "),
        (&["run", "--mtu", "67", "wg0"], "invalid value '67' for '--mtu <BYTES>': "),
        (&["shwo", "wg0"], "unrecognized subcommand 'shwo'"),
    ];
    for (words, expected) in cases {
        let told = complaint(&host.wireloom(words));
        assert!(told.starts_with(expected), "{told}");
    }
}

#[test]
fn under_the_name_of_wg_it_takes_the_words_of_wg() {
    let host = Host::new();
    let link = host.folder().join("wg");
    symlink(WIRELOOM, &link).unwrap();
    host.serve("alive", "errno=0\n\n", "");
    assert_eq!(said(&host.run(&[], &[link.to_str().unwrap()], "")), (Some(0), "interface: alive\n".to_owned()));
}

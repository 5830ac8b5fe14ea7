//! Command lines that are wrong, or only ask, under the name of `wg`: the exit code and standard output are those of `wg`.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

mod common;

use std::os::unix::fs::symlink;

use common::{Host, WIRELOOM, said};

/// A host with a device `wg0`, another that refuses, and our program under the name of `wg`.
fn host() -> (Host, String) {
    let host = Host::new();
    host.serve("wg0", "listen_port=5\nerrno=0\n\n", "errno=0\n\n");
    host.serve("refuses", "errno=1\n\n", "errno=-1\n\n");
    let link = host.folder().join("wg");
    symlink(WIRELOOM, &link).unwrap();
    let link = link.to_str().unwrap().to_owned();
    (host, link)
}

#[test]
fn what_wg_refuses_ends_as_with_wg() {
    let (host, ours) = host();
    let lines: [&[&str]; 52] = [
        &["foo"],
        &[""],
        &["-x"],
        &["SHOW"],
        &["sho"],
        &["show-conf"],
        &["wg0"],
        &["-f", "wg0"],
        &["help", "me", "please"],
        &["show", "none"],
        &["show", "none", "dump"],
        &["show", ""],
        &["show", "-v"],
        &["show", "ALL"],
        &["show", "wg0", "keys"],
        &["show", "wg0", "Dump"],
        &["show", "wg0", ""],
        &["show", "wg0", "dump", "x"],
        &["show", "wg0", "dump", "dump"],
        &["show", "all", "keys"],
        &["show", "interfaces", "dump"],
        &["show", "interfaces", "x"],
        &["show", "refuses"],
        &["show", "refuses", "dump"],
        &["show", "lo"],
        &["show", "../wg0"],
        &["show", "a/b"],
        &["show", "a-name-that-is-far-too-long"],
        &["showconf"],
        &["showconf", "none"],
        &["showconf", "all"],
        &["showconf", "refuses"],
        &["showconf", "wg0", "x"],
        &["set"],
        &["set", "wg0"],
        &["set", "none", "listen-port", "5"],
        &["set", "refuses", "listen-port", "5"],
        &["setconf"],
        &["setconf", "wg0"],
        &["setconf", "wg0", "/none"],
        &["setconf", "wg0", "/dev/null", "x"],
        &["setconf", "none", "/dev/null"],
        &["setconf", "refuses", "/dev/null"],
        &["addconf", "wg0"],
        &["addconf", "none", "/dev/null"],
        &["syncconf", "wg0"],
        &["syncconf", "none", "/dev/null"],
        &["syncconf", "refuses", "/dev/null"],
        &["genkey", "x"],
        &["genpsk", "x"],
        &["pubkey", "x"],
        &["pubkey"],
    ];
    for line in lines {
        let wg = said(&host.wg(line));
        let output = host.run(&[], &[&[ours.as_str()], line].concat(), "");
        assert_eq!(said(&output), wg, "{line:?}");
        assert_eq!(wg, (Some(1), String::new()), "{line:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.starts_with("wireloom: ") && told.lines().count() == 1, "{line:?}: {told}");
    }
}

#[test]
fn questions_are_answered() {
    let (host, ours_link) = host();
    let ask = |line: &[&str]| (said(&host.wg(line)), said(&host.run(&[], &[&[ours_link.as_str()], line].concat(), "")));
    for line in [&["--help"][..], &["-h"], &["help"]] {
        let (wg, ours) = ask(line);
        assert_eq!((wg.0, ours.0), (Some(0), Some(0)), "{line:?}");
        for command in ["show", "showconf", "set", "setconf", "addconf", "syncconf", "genkey", "genpsk", "pubkey"] {
            assert!(wg.1.contains(&format!("  {command}: ")), "{line:?}: {}", wg.1);
            assert!(ours.1.contains(&format!("\n  {command} ")), "{line:?}: {}", ours.1);
        }
    }
    for line in [&["--version"][..], &["-v"], &["version"]] {
        let (wg, ours) = ask(line);
        assert_eq!((wg.0, ours), (Some(0), (Some(0), format!("wireloom {}\n", env!("CARGO_PKG_VERSION")))), "{line:?}");
    }
    for line in [&["show", "--help"][..], &["show", "-h"], &["show", "help"]] {
        let (wg, ours) = ask(line);
        assert_eq!((wg.0, ours.0), (Some(0), Some(0)), "{line:?}");
        assert!(ours.1.contains("Usage: wg show "), "{line:?}: {}", ours.1);
    }
    // Here `wg` takes the question for a mistake: it prints how the command is used, and fails. To ask is no mistake.
    for command in ["showconf", "set", "setconf", "addconf", "syncconf", "genkey", "genpsk", "pubkey"] {
        let (wg, ours) = ask(&[command, "--help"]);
        assert_eq!((wg, ours.0), ((Some(1), String::new()), Some(0)), "{command}");
        let usage = ours.1.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap();
        assert_eq!(usage.split(' ').nth(1), Some(command));
        let by_name = said(&host.run(&[], &[ours_link.as_str(), "help", command], ""));
        assert_eq!(by_name, ours, "{command}");
    }
}

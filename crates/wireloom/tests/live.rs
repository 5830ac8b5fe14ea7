//! A device of another make, configured by `wireloom`: what goes in comes out, and `wg` sees the same.
//!
//! Needs wireguard-go, and `/dev/net/tun`; without them it fails.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

mod common;

use common::{Host, WIRELOOM};

/// Starts the device, configures it from a file, and compares; each step fails the script. Lines are sorted, since this device tells
/// its peers in another order each time.
const SCRIPT: &str = r#"
set -eu
ip link set lo up
WG_PROCESS_FOREGROUND=1 LOG_LEVEL=silent wireguard-go weave0 & daemon=$!
trap 'kill $daemon 2>/dev/null; wait $daemon || true' EXIT
tries=0
until [ "$("$W" show interfaces)" = weave0 ]; do
    tries=$((tries + 1)); [ $tries -lt 100 ] || { echo "wireguard-go did not start" >&2; exit 1; }; sleep 0.05
done
"$W" setconf weave0 /dev/stdin
same() { "$W" "$@" | sort > ours; wg "$@" | sort > theirs; cmp ours theirs; }
same showconf weave0
same show weave0
same show all dump
"$W" show all dump | sort > before
"$W" showconf weave0 > conf
"$W" syncconf weave0 conf
"$W" show all dump | sort > after
cmp before after
"$W" set weave0 listen-port 0 peer TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0= remove
"$W" show weave0 peers
if "$W" set weave0 listen-port 5 fwmark 1 private-key /dev/null peer AAAA; then exit 1; fi
cat conf
"#;

#[test]
fn wireguard_go_is_configured_and_shown() {
    let conf = "[Interface]\nListenPort = 51820\nFwMark = 0xca6c\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n\n\
        [Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nPresharedKey = gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=\n\
        AllowedIPs = 10.192.122.3/32, 10.192.124.0/24\nEndpoint = 192.95.5.67:1234\n\n\
        [Peer]\nPublicKey = TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=\nAllowedIPs = 10.192.122.4/32, 192.168.0.0/16, ::1.2.3.4/128\n\
        Endpoint = [2607:5300:60:6b0::c05f:543]:2468\nPersistentKeepalive = 25\n";
    let host = Host::new();
    let script = format!("cd {}; W={WIRELOOM}; {SCRIPT}", host.folder().display());
    let output = host.run(&[], &["sh", "-c", &script], conf);
    let text = String::from_utf8(output.stdout).unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}{told}");
    assert!(
        told.ends_with(
            "wireloom: set: peer 'AAAA': not a key, expected 44 characters of base64 as `wg genkey` prints them\n"
        ),
        "{told}"
    );
    let (peers, shown) = text.split_once('\n').unwrap();
    assert_eq!(peers, "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=");
    let sections = |text: &str| {
        let mut sections: Vec<String> = text.split("\n\n").map(|section| section.trim().to_owned()).collect();
        sections.sort();
        sections
    };
    assert_eq!(sections(shown), sections(conf));
}

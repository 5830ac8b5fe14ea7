//! The files of systemd-networkd: a `.netdev`, which makes the interface, and a `.network`, which gives it addresses, routes and names
//! (systemd.netdev(5), systemd.network(5)).
//!
//! [`export`] writes both, [`import`] reads them. Routes to the allowed IPs are `RouteTable=` where they all go to one table. Where there
//! is a default route, which wg-quick keeps out of the main table, the routes are spelt out in the `.network`, and the two rules with
//! them: first the main table but its default routes, then the tunnel's table for what does not carry the tunnel's own mark. Their order
//! is told by numbers, since networkd adds rules in any order. A hook that only gives the device a key from a file, of which wg-quick(8)
//! tells, is `PrivateKeyFile=` or `PresharedKeyFile=`, and the other way round.

mod parse;

use std::fmt::Write;

use noise::PublicKey;
use zeroize::Zeroizing;

use crate::address::{CidrText, IpText};
use crate::file::FilePeer;
use crate::foreign::{
    DEFAULT_MARK, Exported, ExportedFile, KeyFrom, Lost, MAIN, joined, key_from, lost_hooks, merged, networks, room,
};
use crate::key;
use crate::quick::{Quick, Table, expand};
use crate::value::Quoted;

pub use parse::{Network, import};

const PROGRAM: &str = "networkd";
/// The priority of the rule for all routes of the main table but the default ones; the kernel's own rule for that table has 32766.
const RULE_MAIN: u32 = 32764;
/// The priority of the rule for the table of the tunnel.
const RULE_TUNNEL: u32 = 32765;

/// The two files for an interface of this name.
pub fn export(interface: &str, quick: &Quick) -> Exported {
    let peers = merged(&quick.device.peers);
    let mut lost = lost_hooks(quick, PROGRAM, |command| key_from(command).is_some());
    if quick.save_config {
        lost.push(Lost::SaveConfig(PROGRAM));
    }
    let own_table = own_table(quick, &peers);
    if own_table.is_some() {
        lost.push(Lost::LeakTable);
    }
    let netdev = netdev(interface, quick, &peers, own_table, &mut lost);
    let network = network(interface, quick, &peers, own_table, &mut lost);
    let file = |end, text, secret| ExportedFile { name: format!("50-{interface}.{end}"), text, secret };
    Exported { files: vec![file("netdev", netdev, true), file("network", network, false)], lost }
}

/// The table of the default routes, where they have one of their own; it is the mark, too.
fn own_table(quick: &Quick, peers: &[FilePeer]) -> Option<u32> {
    let has_default = peers.iter().flat_map(networks).any(|cidr| cidr.prefix_len() == 0);
    let mark = quick.device.fwmark.filter(|mark| *mark != 0).unwrap_or(DEFAULT_MARK);
    (has_default && quick.table == Table::Auto).then_some(mark)
}

fn netdev(
    interface: &str,
    quick: &Quick,
    peers: &[FilePeer],
    own_table: Option<u32>,
    lost: &mut Vec<Lost>,
) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(room(peers)));
    let out = &mut *text;
    // Writing to a String does not fail, here and below.
    let _ = writeln!(out, "[NetDev]\nName={interface}\nKind=wireguard");
    if let Some(mtu) = quick.mtu {
        let _ = writeln!(out, "MTUBytes={mtu}");
    }
    let _ = writeln!(out, "\n[WireGuard]");
    let files: Vec<KeyFrom<'_>> = quick.post_up.iter().filter_map(|command| key_from(command)).collect();
    let from_file = files.iter().rev().find_map(|file| match file {
        KeyFrom::Private(path) => Some(path),
        KeyFrom::Preshared(..) => None,
    });
    if let Some(path) = from_file {
        let _ = writeln!(out, "PrivateKeyFile={}", expand(path, interface));
    } else if let Some(private) = quick.device.private_key.as_ref().and_then(Option::as_ref) {
        let _ = writeln!(out, "PrivateKey={}", key::to_base64(private));
    } else {
        lost.push(Lost::NoPrivateKey(PROGRAM));
    }
    if let Some(port) = quick.device.listen_port.filter(|port| *port != 0) {
        let _ = writeln!(out, "ListenPort={port}");
    }
    if let Some(mark) = own_table.or(quick.device.fwmark).filter(|mark| *mark != 0) {
        let _ = writeln!(out, "FirewallMark={mark}");
    }
    let _ = match quick.table {
        Table::Number(number) => writeln!(out, "RouteTable={number}"),
        Table::Auto if own_table.is_none() => writeln!(out, "RouteTable=main"),
        // Nowhere, or one by one in the .network.
        Table::Auto | Table::Off => writeln!(out, "RouteTable=off"),
    };
    for peer in peers {
        write_peer(out, peer, interface, &files);
    }
    text
}

fn write_peer(out: &mut String, peer: &FilePeer, interface: &str, files: &[KeyFrom<'_>]) {
    let _ = writeln!(out, "\n[WireGuardPeer]\nPublicKey={}", key::to_base64(&peer.public_key));
    let is_ours = |text: &str| key::from_base64::<PublicKey>(text.as_bytes()).is_ok_and(|key| key == peer.public_key);
    let from_file = files.iter().rev().find_map(|file| match file {
        KeyFrom::Preshared(key, path) if is_ours(key) => Some(path),
        _ => None,
    });
    if let Some(path) = from_file {
        let _ = writeln!(out, "PresharedKeyFile={}", expand(path, interface));
    } else if let Some(psk) = peer.preshared_key.as_deref() {
        let _ = writeln!(out, "PresharedKey={}", key::to_base64(psk));
    }
    if !peer.allowed_ips.is_empty() {
        let _ = writeln!(out, "AllowedIPs={}", joined(networks(peer), ","));
    }
    if let Some(endpoint) = &peer.endpoint {
        let _ = writeln!(out, "Endpoint={endpoint}");
    }
    if let Some(seconds) = peer.persistent_keepalive.filter(|seconds| *seconds != 0) {
        let _ = writeln!(out, "PersistentKeepalive={seconds}");
    }
}

fn network(
    interface: &str,
    quick: &Quick,
    peers: &[FilePeer],
    own_table: Option<u32>,
    lost: &mut Vec<Lost>,
) -> Zeroizing<String> {
    let mut out = String::new();
    let _ = writeln!(out, "[Match]\nName={interface}\n\n[Network]");
    for address in &quick.addresses {
        let _ = writeln!(out, "Address={address}");
    }
    for &server in &quick.dns {
        let _ = writeln!(out, "DNS={}", IpText(server));
    }
    if quick.dns.is_empty() {
        lost.extend(quick.search.iter().map(|domain| Lost::SearchAlone(Quoted::new(domain))));
    } else {
        // `~.`: these servers are asked for all names, and no others are.
        let domains: Vec<&str> = quick.search.iter().map(String::as_str).chain(["~."]).collect();
        let _ = writeln!(out, "Domains={}\nDNSDefaultRoute=yes", domains.join(" "));
    }
    if let Some(own_table) = own_table {
        let (mut v4, mut v6) = (false, false);
        for cidr in peers.iter().flat_map(networks) {
            let _ = writeln!(out, "\n[Route]\nDestination={}", CidrText(cidr));
            if cidr.prefix_len() == 0 {
                let _ = writeln!(out, "Table={own_table}");
                *(if cidr.addr().is_ipv4() { &mut v4 } else { &mut v6 }) = true;
            }
        }
        let family = if v4 && v6 {
            "both"
        } else if v6 {
            "ipv6"
        } else {
            "ipv4"
        };
        let _ = writeln!(
            out,
            "\n[RoutingPolicyRule]\nFamily={family}\nTable={MAIN}\nSuppressPrefixLength=0\nPriority={RULE_MAIN}\n\n\
             [RoutingPolicyRule]\nFamily={family}\nFirewallMark={own_table}\nInvertRule=yes\nTable={own_table}\nPriority={RULE_TUNNEL}"
        );
    }
    Zeroizing::new(out)
}

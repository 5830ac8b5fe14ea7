//! The keyfiles of NetworkManager, `NAME.nmconnection` (nm-settings-keyfile(5)).
//!
//! [`export`] writes one, [`import`] reads one. Most of wg-quick is there: routes to the allowed IPs unless `peer-routes` is false, default
//! routes in a table of their own with the same rules (`ip4-auto-default-route`, on by default), servers that are asked for all names (`~`, and a
//! negative priority). A family in which the interface has no address is off, and then it has neither routes nor servers: IPv6 gets a
//! link-local address where there are routes to be made.

mod parse;

use std::fmt::Write;
use std::net::IpAddr;

use zeroize::Zeroizing;

use crate::address::IpText;
use crate::foreign::{Exported, ExportedFile, Lost, joined, lost_hooks, merged, networks, room};
use crate::key;
use crate::quick::{Quick, Table};
use crate::value::Quoted;

pub use parse::import;

const PROGRAM: &str = "NetworkManager";
/// Servers of a connection with a negative priority are asked alone; NetworkManager's own import of wg-quick's files takes this one.
const DNS_PRIORITY: i32 = -50;

/// The file for an interface of this name.
pub fn export(interface: &str, quick: &Quick) -> Exported {
    let peers = merged(&quick.device.peers);
    let mut lost = lost_hooks(quick, PROGRAM, |_| false);
    if quick.save_config {
        lost.push(Lost::SaveConfig(PROGRAM));
    }
    let mut text = Zeroizing::new(String::with_capacity(room(&peers)));
    let out = &mut *text;
    // Writing to a String does not fail, here and below.
    let _ = writeln!(out, "[connection]\nid={interface}\ntype=wireguard\ninterface-name={interface}\n\n[wireguard]");
    let device = &quick.device;
    if let Some(mark) = device.fwmark.filter(|mark| *mark != 0) {
        let _ = writeln!(out, "fwmark={mark}");
    }
    if let Table::Number(_) = quick.table {
        // All routes go to that table, and no rules lead there.
        let _ = writeln!(out, "ip4-auto-default-route=0\nip6-auto-default-route=0");
    }
    if let Some(port) = device.listen_port.filter(|port| *port != 0) {
        let _ = writeln!(out, "listen-port={port}");
    }
    if let Some(mtu) = quick.mtu {
        let _ = writeln!(out, "mtu={mtu}");
    }
    if quick.table == Table::Off {
        let _ = writeln!(out, "peer-routes=false");
    }
    match device.private_key.as_ref().and_then(Option::as_ref) {
        Some(private) => {
            let _ = writeln!(out, "private-key={}", key::to_base64(private));
        }
        None => lost.push(Lost::NoPrivateKey(PROGRAM)),
    }
    for peer in &peers {
        let _ = writeln!(out, "\n[wireguard-peer.{}]", key::to_base64(&peer.public_key));
        if let Some(endpoint) = &peer.endpoint {
            let _ = writeln!(out, "endpoint={endpoint}");
        }
        if let Some(psk) = peer.preshared_key.as_deref() {
            let _ = writeln!(out, "preshared-key={}\npreshared-key-flags=0", key::to_base64(psk));
        }
        if let Some(seconds) = peer.persistent_keepalive.filter(|seconds| *seconds != 0) {
            let _ = writeln!(out, "persistent-keepalive={seconds}");
        }
        if !peer.allowed_ips.is_empty() {
            let _ = writeln!(out, "allowed-ips={};", joined(networks(peer), ";"));
        }
    }
    if quick.dns.is_empty() {
        lost.extend(quick.search.iter().map(|domain| Lost::SearchAlone(Quoted::new(domain))));
    }
    for v4 in [true, false] {
        let routed = || peers.iter().flat_map(networks).filter(move |cidr| cidr.addr().is_ipv4() == v4);
        let is_routed = quick.table != Table::Off && routed().next().is_some();
        write_family(out, quick, v4, is_routed);
        let has_address = quick.addresses.iter().any(|address| address.ip.is_ipv4() == v4);
        if !has_address {
            lost.extend(quick.dns.iter().filter(|ip| ip.is_ipv4() == v4).map(|&ip| Lost::Dns(ip)));
            // A few of them tell what it is about.
            let some = joined(routed().take(3), ", ") + if routed().nth(3).is_some() { ", …" } else { "" };
            match v4 {
                _ if !is_routed => {}
                true => lost.push(Lost::NoAddress(some)),
                false => lost.push(Lost::LinkLocal(some)),
            }
        }
    }
    let file = ExportedFile { name: format!("{interface}.nmconnection"), text, secret: true };
    Exported { files: vec![file], lost }
}

/// Writes what is about one family.
fn write_family(out: &mut String, quick: &Quick, v4: bool, is_routed: bool) {
    let _ = writeln!(out, "\n[{}]", if v4 { "ipv4" } else { "ipv6" });
    let addresses: Vec<_> = quick.addresses.iter().filter(|address| address.ip.is_ipv4() == v4).collect();
    for (at, address) in addresses.iter().enumerate() {
        let _ = writeln!(out, "address{}={address}", at + 1);
    }
    let method = match (addresses.is_empty(), v4) {
        (false, _) => "manual",
        (true, false) if is_routed => "link-local",
        (true, _) => "disabled",
    };
    let servers: Vec<&IpAddr> = quick.dns.iter().filter(|ip| ip.is_ipv4() == v4 && !addresses.is_empty()).collect();
    if !servers.is_empty() {
        let servers: String = servers.iter().map(|ip| format!("{};", IpText(**ip))).collect();
        let search: String = quick.search.iter().map(|domain| format!("{domain};")).collect();
        let _ = writeln!(out, "dns={servers}\ndns-priority={DNS_PRIORITY}\ndns-search=~;{search}");
    }
    let _ = writeln!(out, "method={method}");
    if let Table::Number(number) = quick.table
        && method != "disabled"
    {
        let _ = writeln!(out, "route-table={number}");
    }
}

//! Prints wg-quick's files.
//!
//! In the order of `wg-quick save`: what only wg-quick knows first, then the device, then its peers.

use std::fmt::Write;

use zeroize::Zeroizing;

use crate::foreign::{joined, networks, room};
use crate::key;
use crate::quick::{Quick, Table};

/// Prints a whole file. Peers are printed with the allowed IPs that they have; that some are to be taken away is not.
pub fn whole(quick: &Quick) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(room(&quick.device.peers)));
    let out = &mut *text;
    out.push_str("[Interface]\n");
    keys(out, quick);
    let device = &quick.device;
    // Writing to a String does not fail, here and below.
    if let Some(port) = device.listen_port.filter(|port| *port != 0) {
        let _ = writeln!(out, "ListenPort = {port}");
    }
    if let Some(mark) = device.fwmark.filter(|mark| *mark != 0) {
        let _ = writeln!(out, "FwMark = {mark:#x}");
    }
    if let Some(Some(private)) = &device.private_key {
        let _ = writeln!(out, "PrivateKey = {}", key::to_base64(private));
    }
    for peer in &device.peers {
        let _ = writeln!(out, "\n[Peer]\nPublicKey = {}", key::to_base64(&peer.public_key));
        if let Some(psk) = peer.preshared_key.as_deref().filter(|psk| !key::is_zero(*psk)) {
            let _ = writeln!(out, "PresharedKey = {}", key::to_base64(psk));
        }
        if networks(peer).next().is_some() {
            let _ = writeln!(out, "AllowedIPs = {}", joined(networks(peer), ", "));
        }
        if let Some(endpoint) = &peer.endpoint {
            let _ = writeln!(out, "Endpoint = {endpoint}");
        }
        if let Some(seconds) = peer.persistent_keepalive.filter(|seconds| *seconds != 0) {
            let _ = writeln!(out, "PersistentKeepalive = {seconds}");
        }
    }
    text
}

/// Prints what `[Interface]` has beyond the device.
pub fn keys(out: &mut String, quick: &Quick) {
    for address in &quick.addresses {
        let _ = writeln!(out, "Address = {address}");
    }
    let servers: Vec<String> = quick
        .dns
        .iter()
        .map(|ip| crate::address::IpText(*ip).to_string())
        .chain(quick.search.iter().cloned())
        .collect();
    if !servers.is_empty() {
        let _ = writeln!(out, "DNS = {}", servers.join(", "));
    }
    if let Some(mtu) = quick.mtu {
        let _ = writeln!(out, "MTU = {mtu}");
    }
    if quick.table != Table::Auto {
        let _ = writeln!(out, "Table = {}", quick.table);
    }
    if quick.save_config {
        let _ = writeln!(out, "SaveConfig = true");
    }
    hooks(out, quick);
}

/// Prints the hooks.
pub fn hooks(out: &mut String, quick: &Quick) {
    let hooks = [
        ("PreUp", &quick.pre_up),
        ("PostUp", &quick.post_up),
        ("PreDown", &quick.pre_down),
        ("PostDown", &quick.post_down),
    ];
    for (name, commands) in hooks {
        for command in commands {
            let _ = writeln!(out, "{name} = {command}");
        }
    }
}

//! Writing requests and replies.
//!
//! What may hold a key is written into a vector of the caller's, which should wipe it; room for the keys is reserved ahead where
//! it is known, so that no copy stays behind when the vector grows.

use std::io::Write;

use zeroize::Zeroizing;

use super::Errno;
use crate::address::{CidrText, EndpointText, NumericZones};
use crate::device::{AllowedIpChange, Device, DeviceChange, Peer, PeerChange};
use crate::key;
use crate::policy::{Rule, RuleCount};
use crate::stats::Stats;

// Writing to a vector cannot fail.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {{
        let _ = writeln!($out, $($arg)*);
    }};
}

/// The device's own lines of the reply to a get; the peers follow by [`write_peer`], [`reply_to_get`] ends it.
pub fn write_device(out: &mut Vec<u8>, device: &Device) {
    out.reserve(DEVICE_ROOM);
    if let Some(private) = &device.private_key {
        line!(out, "private_key={}", key::to_hex(private));
    }
    if let Some(public) = &device.public_key {
        line!(out, "own_public_key={}", key::to_hex(public));
    }
    if device.listen_port != 0 {
        line!(out, "listen_port={}", device.listen_port);
    }
    if device.fwmark != 0 {
        line!(out, "fwmark={}", device.fwmark);
    }
}

/// The lines of one peer in the reply to a get.
///
/// A zone is written as a number: the client may live in another network namespace, where the name means nothing. A handshake at a
/// full second is told one nanosecond late, because clients take zero nanoseconds for "never".
pub fn write_peer(out: &mut Vec<u8>, peer: &Peer) {
    out.reserve(PEER_ROOM + peer.allowed_ips.len() * ALLOWED_IP_ROOM);
    line!(out, "public_key={}", key::to_hex(&peer.public_key));
    match peer.preshared_key.as_deref() {
        Some(psk) => line!(out, "preshared_key={}", key::to_hex(psk)),
        None => line!(out, "preshared_key={:0>64}", ""),
    }
    write_open(out, peer);
}

/// The same without its preshared key, and with what came of its messages.
pub fn write_peer_openly(out: &mut Vec<u8>, peer: &Peer) {
    line!(out, "public_key={}", key::to_hex(&peer.public_key));
    write_open(out, peer);
    if let Some(reception) = peer.reception {
        line!(out, "rx_expected_packets={}", reception.sent);
        line!(out, "rx_packets={}", reception.arrived);
    }
}

/// What is not secret of a peer.
fn write_open(out: &mut Vec<u8>, peer: &Peer) {
    line!(out, "protocol_version=1");
    if let Some(endpoint) = peer.endpoint {
        line!(out, "endpoint={}", EndpointText(endpoint, &NumericZones));
    }
    let (seconds, nanos) = peer.last_handshake.map_or((0, 0), |at| (at.as_secs(), at.subsec_nanos().max(1)));
    line!(out, "last_handshake_time_sec={seconds}");
    line!(out, "last_handshake_time_nsec={nanos}");
    line!(out, "tx_bytes={}", peer.tx_bytes);
    line!(out, "rx_bytes={}", peer.rx_bytes);
    line!(out, "persistent_keepalive_interval={}", peer.persistent_keepalive);
    for &network in &peer.allowed_ips {
        line!(out, "allowed_ip={}", CidrText(network));
    }
}

/// The lines of the reply to a question for drops; [`reply_to_get`] ends it.
pub fn write_drops(out: &mut Vec<u8>, drops: &[(&str, u64)]) {
    for (reason, packets) in drops {
        line!(out, "drop_{reason}={packets}");
    }
}

/// The lines of the reply to a question for the device's work; [`reply_to_get`] ends it.
pub fn write_stats(out: &mut Vec<u8>, stats: &Stats) {
    line!(out, "version={}", stats.version);
    line!(out, "process={}", stats.process);
    line!(out, "uptime_nanos={}", stats.uptime.as_nanos());
    for (reason, packets) in &stats.drops {
        line!(out, "drop_{reason}={packets}");
    }
    for (name, count) in &stats.programs {
        line!(out, "program_{name}={count}");
    }
    for (name, count) in &stats.handshakes {
        line!(out, "handshake_{name}={count}");
    }
    if let Some(taken) = &stats.taken {
        line!(out, "taken_sent={}", taken.sent);
        line!(out, "taken_received={}", taken.received);
    }
    for (number, worker) in stats.workers.iter().enumerate() {
        line!(out, "worker={number}");
        line!(out, "busy_nanos={}", worker.busy.as_nanos());
        line!(out, "wakeups={}", worker.wakeups);
        line!(out, "helped={}", worker.helped);
        for (way, batches) in [("tx", &worker.sent), ("rx", &worker.received)] {
            line!(out, "{way}_packets={}", batches.packets);
            line!(out, "{way}_bytes={}", batches.bytes);
            line!(out, "{way}_batches={}", batches.sizes.map(|count| count.to_string()).join(","));
        }
    }
}

/// The lines of the reply to a question for the policy; [`reply_to_get`] ends it.
pub fn write_policy(out: &mut Vec<u8>, rules: &[(Rule, RuleCount)]) {
    for (rule, count) in rules {
        line!(out, "rule={rule}");
        line!(out, "rule_packets={}", count.packets);
        line!(out, "rule_bytes={}", count.bytes);
        line!(out, "rule_dropped={}", count.dropped);
    }
}

/// The end of the reply to a get; in case of an error it is the whole of it.
pub fn reply_to_get(result: Result<(), Errno>) -> String {
    format!("errno={}\n\n", result.err().map_or(0, Errno::number))
}

/// The reply to a set. To be written at once: some clients read once.
pub fn reply_to_set(result: Result<(), Errno>) -> String {
    format!("errno={}\n\n", result.err().map_or(0, |errno| -errno.number()))
}

/// The request for everything about a device.
pub fn write_get() -> &'static [u8] {
    b"get=1\n\n"
}

/// The request for everything about a device but its secrets.
pub fn write_get_peers() -> &'static [u8] {
    b"get=peers\n\n"
}

/// The request for what was dropped.
pub fn write_get_drops() -> &'static [u8] {
    b"get=drops\n\n"
}

/// The request for the device's work.
pub fn write_get_stats() -> &'static [u8] {
    b"get=stats\n\n"
}

/// The request for the policy.
pub fn write_get_policy() -> &'static [u8] {
    b"get=policy\n\n"
}

/// The request to put these rules in the place of all that there are.
pub fn write_set_policy(rules: &[Rule]) -> Vec<u8> {
    let out = &mut b"set=policy\n".to_vec();
    for rule in rules {
        line!(out, "rule={rule}");
    }
    line!(out, "");
    std::mem::take(out)
}

/// The request to end all sessions and to keep still.
pub fn write_wipe() -> &'static [u8] {
    b"wipe=1\n\n"
}

/// The request for a change.
pub fn write_set(change: &DeviceChange) -> Zeroizing<Vec<u8>> {
    let room = |peer: &PeerChange| PEER_ROOM + peer.allowed_ips.len() * ALLOWED_IP_ROOM;
    let out = &mut Zeroizing::new(Vec::with_capacity(DEVICE_ROOM + change.peers.iter().map(room).sum::<usize>()));
    line!(out, "set=1");
    match &change.private_key {
        Some(Some(private)) => line!(out, "private_key={}", key::to_hex(private)),
        Some(None) => line!(out, "private_key={:0>64}", ""),
        None => {}
    }
    if let Some(port) = change.listen_port {
        line!(out, "listen_port={port}");
    }
    if let Some(fwmark) = change.fwmark {
        line!(out, "fwmark={fwmark}");
    }
    if change.replace_peers {
        line!(out, "replace_peers=true");
    }
    for peer in &change.peers {
        write_peer_change(out, peer);
    }
    line!(out, "");
    std::mem::take(out)
}

fn write_peer_change(out: &mut Vec<u8>, peer: &PeerChange) {
    line!(out, "public_key={}", key::to_hex(&peer.public_key));
    if peer.update_only {
        line!(out, "update_only=true");
    }
    if peer.remove {
        line!(out, "remove=true");
        return;
    }
    if let Some(psk) = peer.preshared_key.as_deref() {
        line!(out, "preshared_key={}", key::to_hex(psk));
    }
    if let Some(endpoint) = peer.endpoint {
        line!(out, "endpoint={}", EndpointText(endpoint, &NumericZones));
    }
    if let Some(seconds) = peer.persistent_keepalive {
        line!(out, "persistent_keepalive_interval={seconds}");
    }
    if peer.replace_allowed_ips {
        line!(out, "replace_allowed_ips=true");
    }
    for change in &peer.allowed_ips {
        match *change {
            AllowedIpChange::Add(network) => line!(out, "allowed_ip={}", CidrText(network)),
            AllowedIpChange::Remove(network) => line!(out, "allowed_ip=-{}", CidrText(network)),
        }
    }
}

// Upper bounds in bytes of what is written for a device, a peer without its allowed IPs, and an allowed IP.
const DEVICE_ROOM: usize = 256;
const PEER_ROOM: usize = 512;
const ALLOWED_IP_ROOM: usize = 64;

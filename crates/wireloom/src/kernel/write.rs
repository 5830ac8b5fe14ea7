//! A change as WG_CMD_SET_DEVICE messages (linux/wireguard.h), as many as it takes.
//!
//! A message holds [`ROOM`] bytes at most, so a change of many peers or allowed IPs is cut: the first message has what concerns the
//! device; a peer that is cut goes on in the next message with its public key and the allowed IPs that are left, and nothing
//! there replaces what the first part has done. The kernel applies message by message, so that a refusal in the middle leaves the part
//! before it applied: so it is with `wg`, too.

use std::net::{IpAddr, SocketAddr};

use config::device::{AllowedIpChange, DeviceChange, PeerChange};
use config::key::KEY_LEN;
use inet::Cidr;
use linux::netlink::{ACKNOWLEDGE, Request, with_nul};
use zeroize::Zeroizing;

use super::attribute::{allowed_ip, device, peer};
use super::{AF_INET, AF_INET6, SET_DEVICE, header};

/// Bytes of a message at most. An attribute of peers is told by 16 bits, and cannot hold more than 64 KiB.
pub const ROOM: usize = 32 * 1024;
/// What a peer takes at most, without its allowed IPs.
const PEER: usize = 256;
/// What an allowed IP takes at most, with what surrounds it.
const ALLOWED_IP: usize = 64;

/// The messages of a change, one after the other.
pub struct SetMessages<'a> {
    family: u16,
    interface: &'a str,
    change: &'a DeviceChange,
    /// Where the next message starts: at this peer, and this allowed IP of it.
    peer: usize,
    allowed_ip: usize,
    started: bool,
}

impl<'a> SetMessages<'a> {
    /// The messages that make `change` on `interface`; `family` is the number of the netlink family.
    pub fn new(family: u16, interface: &'a str, change: &'a DeviceChange) -> SetMessages<'a> {
        SetMessages { family, interface, change, peer: 0, allowed_ip: 0, started: false }
    }

    /// Writes peers until the message is full.
    fn peers(&mut self, to: &mut Request) {
        let nest = to.open_nest(device::PEERS);
        while let Some(change) = self.change.peers.get(self.peer)
            && to.size() + PEER + ALLOWED_IP <= ROOM
        {
            let whole = to.open_nest(0);
            to.put(peer::PUBLIC_KEY, change.public_key.as_bytes());
            write_flags(to, change, self.allowed_ip > 0);
            if self.allowed_ip == 0 && !change.remove {
                write_settings(to, change);
            }
            let allowed_ips: &[_] = if change.remove { &[] } else { &change.allowed_ips };
            let left = &allowed_ips[self.allowed_ip..];
            if !left.is_empty() {
                let list = to.open_nest(peer::ALLOWED_IPS);
                for change in left {
                    if to.size() + ALLOWED_IP > ROOM {
                        break;
                    }
                    write_allowed_ip(to, *change);
                    self.allowed_ip += 1;
                }
                to.close(list);
            }
            to.close(whole);
            if self.allowed_ip < allowed_ips.len() {
                break;
            }
            self.peer += 1;
            self.allowed_ip = 0;
        }
        to.close(nest);
    }
}

impl Iterator for SetMessages<'_> {
    /// A whole message, which holds keys.
    type Item = Zeroizing<Vec<u8>>;

    fn next(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        if self.started && self.peer == self.change.peers.len() {
            return None;
        }
        let mut message = Request::with_capacity(ROOM, self.family, ACKNOWLEDGE, 0, &header(SET_DEVICE))
            .attribute(device::NAME, &with_nul(self.interface));
        if !self.started {
            write_device(&mut message, self.change);
        }
        if !self.change.peers.is_empty() {
            self.peers(&mut message);
        }
        self.started = true;
        Some(Zeroizing::new(message.finish()))
    }
}

fn write_device(to: &mut Request, change: &DeviceChange) {
    match &change.private_key {
        Some(Some(key)) => to.put(device::PRIVATE_KEY, key.as_bytes()),
        Some(None) => to.put(device::PRIVATE_KEY, &[0; KEY_LEN]),
        None => {}
    }
    if let Some(port) = change.listen_port {
        to.put(device::LISTEN_PORT, &port.to_ne_bytes());
    }
    if let Some(mark) = change.fwmark {
        to.put(device::FWMARK, &mark.to_ne_bytes());
    }
    if change.replace_peers {
        to.put(device::FLAGS, &device::REPLACE_PEERS.to_ne_bytes());
    }
}

/// `goes_on` is for the further parts of a peer that was cut.
fn write_flags(to: &mut Request, change: &PeerChange, goes_on: bool) {
    let mut flags = 0;
    for (flag, wanted) in [
        (peer::REMOVE_ME, change.remove),
        (peer::REPLACE_ALLOWED_IPS, change.replace_allowed_ips && !change.remove && !goes_on),
        (peer::UPDATE_ONLY, change.update_only),
    ] {
        if wanted {
            flags |= flag;
        }
    }
    if flags != 0 {
        to.put(peer::FLAGS, &u32::to_ne_bytes(flags));
    }
}

fn write_settings(to: &mut Request, change: &PeerChange) {
    if let Some(psk) = change.preshared_key.as_deref() {
        to.put(peer::PRESHARED_KEY, psk.as_bytes());
    }
    if let Some(endpoint) = change.endpoint {
        write_endpoint(to, endpoint);
    }
    if let Some(seconds) = change.persistent_keepalive {
        to.put(peer::KEEPALIVE, &seconds.to_ne_bytes());
    }
}

/// As a `struct sockaddr_in` or `struct sockaddr_in6`.
fn write_endpoint(to: &mut Request, endpoint: SocketAddr) {
    let port = endpoint.port().to_be_bytes();
    match endpoint {
        SocketAddr::V4(v4) => {
            let address = [&AF_INET.to_ne_bytes()[..], &port, &v4.ip().octets(), &[0; 8]].concat();
            to.put(peer::ENDPOINT, &address);
        }
        SocketAddr::V6(v6) => {
            let (flow, scope) = (v6.flowinfo().to_be_bytes(), v6.scope_id().to_ne_bytes());
            let address = [&AF_INET6.to_ne_bytes()[..], &port, &flow, &v6.ip().octets(), &scope].concat();
            to.put(peer::ENDPOINT, &address);
        }
    }
}

fn write_allowed_ip(to: &mut Request, change: AllowedIpChange) {
    let (AllowedIpChange::Add(network) | AllowedIpChange::Remove(network)) = change;
    let nest = to.open_nest(0);
    write_network(to, network);
    if matches!(change, AllowedIpChange::Remove(_)) {
        // Since Linux 6.16; an older kernel refuses the message.
        to.put(allowed_ip::FLAGS, &allowed_ip::REMOVE_ME.to_ne_bytes());
    }
    to.close(nest);
}

fn write_network(to: &mut Request, network: Cidr) {
    match network.addr() {
        IpAddr::V4(ip) => {
            to.put(allowed_ip::FAMILY, &AF_INET.to_ne_bytes());
            to.put(allowed_ip::ADDRESS, &ip.octets());
        }
        IpAddr::V6(ip) => {
            to.put(allowed_ip::FAMILY, &AF_INET6.to_ne_bytes());
            to.put(allowed_ip::ADDRESS, &ip.octets());
        }
    }
    to.put(allowed_ip::PREFIX_LEN, &[network.prefix_len()]);
}

//! The kernel's answers to WG_CMD_GET_DEVICE (linux/wireguard.h) put together to a device.
//!
//! They come in several messages. The first tells about the device; each has peers; a peer that does not fit goes on in the next
//! message, with its public key and further allowed IPs, and is put together with what came before it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use config::device::{Device, Peer};
use config::key::{self, Key};
use inet::Cidr;
use linux::netlink::Attributes;
use noise::{PresharedKey, PrivateKey, PublicKey};

use super::attribute::{allowed_ip, device, peer};
use super::{AF_INET, AF_INET6, HEADER};

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Adds what one message tells, after its netlink header, to `to`.
pub fn message(to: &mut Device, body: &[u8]) -> Result<(), Malformed> {
    let attributes = body.get(HEADER..).ok_or(Malformed("a message without a header"))?;
    for (kind, value) in Attributes(attributes) {
        match kind {
            device::PRIVATE_KEY => {
                let raw: PresharedKey = read_key(value)?;
                to.private_key = (!key::is_zero(&raw)).then(|| PrivateKey::from_bytes(*raw.as_bytes()));
            }
            device::LISTEN_PORT => to.listen_port = u16::from_ne_bytes(exact(value, "a port that is not one")?),
            device::FWMARK => to.fwmark = u32::from_ne_bytes(exact(value, "a mark that is not one")?),
            device::PEERS => Attributes(value).try_for_each(|(_, value)| read_peer(&mut to.peers, value))?,
            _ => {}
        }
    }
    Ok(())
}

fn read_peer(peers: &mut Vec<Peer>, attributes: &[u8]) -> Result<(), Malformed> {
    let public_key = linux::netlink::find(attributes, peer::PUBLIC_KEY).ok_or(Malformed("a peer without a key"))?;
    let public_key: PublicKey = read_key(public_key)?;
    if peers.last().is_none_or(|last| last.public_key != public_key) {
        peers.push(Peer::new(public_key));
    }
    let Some(to) = peers.last_mut() else { return Ok(()) }; // not reached: there is one now
    for (kind, value) in Attributes(attributes) {
        match kind {
            peer::PRESHARED_KEY => {
                let psk: PresharedKey = read_key(value)?;
                to.preshared_key = (!key::is_zero(&psk)).then(|| Box::new(psk));
            }
            peer::ENDPOINT => to.endpoint = read_endpoint(value),
            peer::KEEPALIVE => {
                to.persistent_keepalive = u16::from_ne_bytes(exact(value, "a keepalive interval that is not one")?);
            }
            peer::LAST_HANDSHAKE => to.last_handshake = read_time(value)?,
            peer::RX_BYTES => to.rx_bytes = u64::from_ne_bytes(exact(value, "a byte count that is not one")?),
            peer::TX_BYTES => to.tx_bytes = u64::from_ne_bytes(exact(value, "a byte count that is not one")?),
            peer::ALLOWED_IPS => {
                for (_, value) in Attributes(value) {
                    to.allowed_ips.push(read_network(value).ok_or(Malformed("an allowed IP that is not one"))?);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn exact<const N: usize>(value: &[u8], what: &'static str) -> Result<[u8; N], Malformed> {
    value.try_into().map_err(|_| Malformed(what))
}

fn read_key<K: Key>(value: &[u8]) -> Result<K, Malformed> {
    Ok(K::from_key_bytes(exact(value, "a key that is not one")?))
}

/// A `struct sockaddr_in` or `struct sockaddr_in6`; any other is no endpoint.
fn read_endpoint(value: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(value.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(value.get(2..4)?.try_into().ok()?);
    match (family, value.len()) {
        (AF_INET, 16) => Some((Ipv4Addr::from(<[u8; 4]>::try_from(&value[4..8]).ok()?), port).into()),
        (AF_INET6, 28) => {
            let flow = u32::from_be_bytes(value[4..8].try_into().ok()?);
            let ip = Ipv6Addr::from(<[u8; 16]>::try_from(&value[8..24]).ok()?);
            let scope = u32::from_ne_bytes(value[24..28].try_into().ok()?);
            Some(SocketAddrV6::new(ip, port, flow, scope).into())
        }
        _ => None,
    }
}

/// A `struct __kernel_timespec`; zero is never.
fn read_time(value: &[u8]) -> Result<Option<Duration>, Malformed> {
    const WRONG: &str = "a handshake time that is not one";
    let [seconds, nanos] = [&value[..value.len().min(8)], &value[value.len().min(8)..]];
    let seconds = u64::try_from(i64::from_ne_bytes(exact(seconds, WRONG)?)).map_err(|_| Malformed(WRONG))?;
    let nanos = u32::try_from(i64::from_ne_bytes(exact(nanos, WRONG)?)).map_err(|_| Malformed(WRONG))?;
    let at = Duration::new(seconds, nanos.min(999_999_999));
    Ok((!at.is_zero()).then_some(at))
}

fn read_network(attributes: &[u8]) -> Option<Cidr> {
    let value = |kind| linux::netlink::find(attributes, kind);
    let address = value(allowed_ip::ADDRESS)?;
    let ip: IpAddr = match u16::from_ne_bytes(value(allowed_ip::FAMILY)?.try_into().ok()?) {
        AF_INET => <[u8; 4]>::try_from(address).ok()?.into(),
        AF_INET6 => <[u8; 16]>::try_from(address).ok()?.into(),
        _ => return None,
    };
    let [len] = value(allowed_ip::PREFIX_LEN)?.try_into().ok()?;
    Cidr::new(ip, len)
}

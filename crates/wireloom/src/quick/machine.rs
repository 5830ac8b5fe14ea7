//! What the machine is like before anything is done: the facts that a plan needs.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use linux::rt::{Family, MAIN, Rt, RtError};

/// The first table that is tried for default routes, as with wg-quick.
const FIRST_TABLE: u32 = 51820;

/// What a packet is longer by in the tunnel, in bytes: IPv6, UDP, and what WireGuard adds, rounded up.
const OVERHEAD: u32 = 80;

/// What is taken for the MTU of a path of which nothing is known, in bytes.
const ETHERNET: u32 = 1500;

/// The least MTU that IPv6 works with, in bytes (RFC 8200).
pub const IPV6_LEAST: u32 = 1280;

/// The least MTU that IPv4 works with, in bytes (RFC 791).
pub const IPV4_LEAST: u32 = 68;

/// What a plan needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// A routing table with nothing in it, for default routes.
    pub free_table: u32,
    /// The least MTU of the ways to the endpoints in bytes, as far as they are known yet.
    pub path_mtu: Option<u32>,
}

/// The first table from 51820 in which there are no routes.
pub fn free_table(rt: &mut Rt) -> Result<u32, RtError> {
    let mut table = FIRST_TABLE;
    loop {
        let [v4, v6] = Family::ALL.map(|family| rt.routes(family, Some(table)));
        if v4?.is_empty() && v6?.is_empty() {
            return Ok(table);
        }
        table += 1;
    }
}

/// The least MTU of the ways to these addresses in bytes; where there is none, that of the default route, if there is one.
pub fn path_mtu(rt: &mut Rt, endpoints: &[SocketAddr], mark: u32) -> Result<Option<u32>, RtError> {
    let mut seen: HashMap<IpAddr, Option<u32>> = HashMap::new();
    for endpoint in endpoints {
        let scope = match endpoint {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => Some(v6.scope_id()),
            _ => None,
        };
        // One that no way leads to now says nothing.
        seen.entry(endpoint.ip()).or_insert_with(|| rt.path_to(endpoint.ip(), mark, scope).ok().map(|path| path.mtu));
    }
    if let Some(least) = seen.into_values().flatten().filter(|mtu| *mtu > 0).min() {
        return Ok(Some(least));
    }
    for family in Family::ALL {
        for route in rt.routes(family, Some(MAIN))?.into_iter().filter(|route| route.len == 0) {
            let device = route.device.map(|index| rt.link_at(index)).transpose()?.flatten();
            if let Some(mtu) = route.mtu.or(device.map(|link| link.mtu)) {
                return Ok(Some(mtu));
            }
        }
    }
    Ok(None)
}

/// The MTU of an interface whose datagrams take a path of this MTU, both in bytes; at least `least`, even if the datagrams are then cut.
pub fn inner_mtu(path: Option<u32>, least: u32) -> u32 {
    path.unwrap_or(ETHERNET).saturating_sub(OVERHEAD).max(least)
}

//! Routes, and the way that a packet would take.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};

use super::socket::{CREATE, EXCLUSIVE, REPLACE};
use super::{Family, Rt, RtError};

/// The number of the main table.
pub const MAIN: u32 = 254;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// It is sent.
    Unicast,
    /// It is for this host.
    Local,
    /// It is refused: `blackhole`, `unreachable`, `prohibit`.
    Refused,
    /// Something else: broadcast, multicast, `throw`.
    Other,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The network that it leads to.
    pub to: IpAddr,
    /// How many bits the network has.
    pub len: u8,
    /// The table that it is in.
    pub table: u32,
    /// The interface that it leaves by; of several next hops, the first one's.
    pub device: Option<u32>,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The address that packets without one of their own get.
    pub source: Option<IpAddr>,
    /// Its priority among routes to the same network, the lower the better.
    pub metric: Option<u32>,
    /// The MTU that it was given.
    pub mtu: Option<u32>,
    /// What it does.
    pub kind: RouteKind,
}

impl Route {
    /// A route to a network that is reached by an interface.
    pub fn by(device: u32, to: IpAddr, len: u8, table: u32) -> Route {
        let (gateway, source, metric, mtu) = (None, None, None, None);
        Route { to, len, table, device: Some(device), gateway, source, metric, mtu, kind: RouteKind::Unicast }
    }
}

/// The way that a packet to an address would take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The route that is taken; its network is the address that was asked for.
    pub route: Route,
    /// The longest packet that gets through as far as is known, in bytes: what the route says, what was learnt of the path, or else what the
    /// interface takes.
    pub mtu: u32,
}

impl Rt {
    /// The routes of a family, in one table or in all.
    pub fn routes(&mut self, family: Family, table: Option<u32>) -> Result<Vec<Route>, RtError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family.number();
        if let Some(table) = table {
            message.header.table = short(table);
            message.attributes.push(RouteAttribute::Table(table));
        }
        let listed = self.socket.list(&RouteNetlinkMessage::GetRoute(message), |answer| match answer.message()? {
            RouteNetlinkMessage::NewRoute(message) => from_message(&message),
            _ => None,
        });
        match listed {
            // There is no such table, and so nothing in it.
            Err(error) if table.is_some() && error.is_absent() => Ok(Vec::new()),
            listed => {
                let mut routes = listed?;
                routes.retain(|route| table.is_none_or(|table| route.table == table));
                Ok(routes)
            }
        }
    }

    /// Adds a route. EEXIST where there is one to the same network with the same metric.
    pub fn add_route(&mut self, route: &Route) -> Result<(), RtError> {
        self.socket.change(RouteNetlinkMessage::NewRoute(to_message(route, true)), CREATE | EXCLUSIVE)
    }

    /// Adds many routes, hundreds with each system call.
    ///
    /// # Errors
    /// Which one was refused first, counted from 0; some of those that follow it may be there all the same.
    pub fn add_routes<'a>(&mut self, routes: impl IntoIterator<Item = &'a Route>) -> Result<(), (usize, RtError)> {
        let messages = routes.into_iter().map(|route| RouteNetlinkMessage::NewRoute(to_message(route, true)));
        self.socket.change_all(messages, CREATE | EXCLUSIVE)
    }

    /// Adds a route, or changes the one to the same network with the same metric.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), RtError> {
        self.socket.change(RouteNetlinkMessage::NewRoute(to_message(route, true)), CREATE | REPLACE)
    }

    /// Deletes a route: the first in its table that is as far as said here.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), RtError> {
        self.socket.change(RouteNetlinkMessage::DelRoute(to_message(route, false)), 0)
    }

    /// Deletes many routes.
    ///
    /// # Errors
    /// As [`add_routes`](Rt::add_routes).
    pub fn delete_routes<'a>(&mut self, routes: impl IntoIterator<Item = &'a Route>) -> Result<(), (usize, RtError)> {
        let messages = routes.into_iter().map(|route| RouteNetlinkMessage::DelRoute(to_message(route, false)));
        self.socket.change_all(messages, 0)
    }

    /// The way to an address, for packets with this mark. `device` is the interface that it must leave by, as link-local addresses need
    /// it. Refused where there is no way.
    pub fn path_to(&mut self, to: IpAddr, mark: u32, device: Option<u32>) -> Result<Path, RtError> {
        let mut message = RouteMessage::default();
        message.header.address_family = Family::of(to).number();
        message.header.destination_prefix_length = Family::of(to).bits();
        if to.is_ipv4() {
            // Which table it is from; of IPv6 the kernel says so anyway, and refuses the flag.
            message.header.flags = RouteFlags::LookupTable;
        }
        message.attributes.push(RouteAttribute::Destination(to.into()));
        message.attributes.extend(device.map(RouteAttribute::Oif));
        if mark != 0 {
            message.attributes.push(RouteAttribute::Mark(mark));
        }
        let mut route = None;
        self.socket.ask(RouteNetlinkMessage::GetRoute(message), 0, |answer| {
            if let Some(RouteNetlinkMessage::NewRoute(message)) = answer.message() {
                route = from_message(&message);
            }
        })?;
        let route = route.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
        let mtu = match (route.mtu, route.device) {
            (Some(mtu), _) => mtu,
            (None, Some(device)) => self.link_at(device)?.map_or(0, |link| link.mtu),
            (None, None) => 0,
        };
        Ok(Path { route, mtu })
    }
}

/// A table's number as the header has it, which has room for the first 255; the attribute says the rest.
fn short(table: u32) -> u8 {
    u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC)
}

/// As iproute2 says it: what is reached without a next hop is on the link, and whoever typed it is not a daemon.
fn to_message(route: &Route, new: bool) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = Family::of(route.to).number();
    header.destination_prefix_length = route.len;
    header.table = short(route.table);
    header.scope = match (new, route.to, route.gateway) {
        (true, IpAddr::V4(_), None) => RouteScope::Link,
        (false, IpAddr::V4(_), _) => RouteScope::NoWhere,
        _ => RouteScope::Universe,
    };
    if new {
        header.protocol = RouteProtocol::Boot;
        header.kind = RouteType::Unicast;
    }
    let attributes = &mut message.attributes;
    if route.len > 0 {
        attributes.push(RouteAttribute::Destination(route.to.into()));
    }
    attributes.push(RouteAttribute::Table(route.table));
    attributes.extend(route.device.map(RouteAttribute::Oif));
    attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    message
}

fn from_message(message: &RouteMessage) -> Option<Route> {
    let family = Family::from_number(message.header.address_family)?;
    let nowhere = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let kind = match message.header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => RouteKind::Refused,
        _ => RouteKind::Other,
    };
    let mut route = Route {
        len: message.header.destination_prefix_length,
        device: None,
        kind,
        ..Route::by(0, nowhere, 0, u32::from(message.header.table))
    };
    take(&mut route, &message.attributes);
    Some(route)
}

fn take(route: &mut Route, attributes: &[RouteAttribute]) {
    for attribute in attributes {
        match attribute {
            RouteAttribute::Destination(to) => route.to = ip(to).unwrap_or(route.to),
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Oif(index) => route.device = Some(*index),
            RouteAttribute::Gateway(to) => route.gateway = ip(to),
            RouteAttribute::PrefSource(from) => route.source = ip(from),
            RouteAttribute::Priority(metric) => route.metric = Some(*metric),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::MultiPath(hops) => {
                if let (None, Some(hop)) = (route.device, hops.first()) {
                    route.device = Some(hop.interface_index);
                    take(route, &hop.attributes);
                }
            }
            _ => {}
        }
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            to: IpAddr, len in 1u8..=128, table in 1u32.., device: u32, hop: bool,
            metric in prop::option::of(any::<u32>()), mtu in prop::option::of(1u32..),
        ) {
            let (gateway, len) = (hop.then_some(to), len.min(Family::of(to).bits()));
            let route = Route { gateway, metric, mtu, source: gateway, ..Route::by(device, to, len, table) };
            prop_assert_eq!(from_message(&to_message(&route, true)), Some(route));
        }
    }
}

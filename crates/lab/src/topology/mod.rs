//! Where systems are compared: the hosts, the links between them, and which tunnels there are to be.
//!
//! Two gateways, [`Side::Left`] and [`Side::Right`], are joined by a link that tunnels have to cross; it is all that there is of a
//! [`Shape::Pair`], whose traffic begins and ends on the gateways themselves. In a [`Shape::Four`] there are a source before the left and a drain
//! behind the right one, and the gateways only forward, each flow by a tunnel of its own, as in the measurements that this is to repeat.
//!
//! Tunnel `n` is known by numbers alone: [`Way`] says which addresses belong to it. A topology is made for one system, which adds its interfaces to it,
//! and goes with that system; so nothing of one can be left for the next.

mod four;

use std::net::Ipv4Addr;

use crate::{Gso, LabError, Link, Namespace, Port};

/// How many tunnels there can be at most: each has a network of the size of a /24, by one byte of its addresses.
pub const TUNNELS_MAX: u32 = 250;

/// Which hosts there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Two gateways and a link.
    Pair,
    /// Source, gateway, gateway, drain, and three links.
    Four,
}

impl Shape {
    /// For tables and file names.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Pair => "pair",
            Shape::Four => "four",
        }
    }
}

/// One of the two gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that the traffic comes to first.
    Left,
    /// The other.
    Right,
}

impl Side {
    /// Both.
    pub const BOTH: [Side; 2] = [Side::Left, Side::Right];

    /// For file names and messages.
    pub fn name(self) -> &'static str {
        match self {
            Side::Left => "left",
            Side::Right => "right",
        }
    }

    /// The one across the link.
    pub fn other(self) -> Side {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

/// What to build.
#[derive(Clone, Copy, Debug)]
pub struct TopologySpec {
    /// Which hosts.
    pub shape: Shape,
    /// How many tunnels there will be, 1 to [`TUNNELS_MAX`].
    pub tunnels: u32,
    /// Whether segmentation offloads reach through the link between the gateways.
    pub gso: Gso,
    /// The MTU of the link between the gateways, in bytes.
    pub link_mtu: u32,
    /// The MTU inside the tunnels, in bytes.
    pub mtu: u32,
}

impl TopologySpec {
    /// The usual one: a link of 1500 bytes that each datagram crosses alone, and 1420 bytes inside.
    pub fn new(shape: Shape, tunnels: u32) -> TopologySpec {
        TopologySpec { shape, tunnels, gso: Gso::Off, link_mtu: 1500, mtu: 1420 }
    }

    /// Builds it, ready for a system to add its tunnels.
    ///
    /// # Errors
    /// Whatever stood in the way; what was made until then is taken away.
    ///
    /// # Panics
    /// No tunnels, or more than there can be.
    pub fn build(&self) -> Result<Topology, LabError> {
        assert!((1..=TUNNELS_MAX).contains(&self.tunnels), "{} tunnels", self.tunnels);
        let (left, right) = (Namespace::new()?, Namespace::new()?);
        let middle = Link::new(&left, &right, self.gso)?;
        for port in [&middle.left, &middle.right] {
            port.namespace.ip(&["link", "set", &port.interface, "mtu", &self.link_mtu.to_string()])?;
        }
        let ways = (1..=self.tunnels).map(|number| Way::new(self.shape, number)).collect();
        let mut topology = Topology { spec: *self, middle, ways, outer: None };
        if self.shape == Shape::Four {
            topology.outer = Some(four::extend(&topology)?);
        }
        Ok(topology)
    }
}

/// The addresses of one tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Its number, from 1.
    pub number: u32,
    /// The left gateway's address inside it.
    pub left: Ipv4Addr,
    /// The right gateway's.
    pub right: Ipv4Addr,
    /// Where its traffic begins: at the left gateway, or at the source.
    pub source: Ipv4Addr,
    /// Where its traffic ends: at the right gateway, or at the drain.
    pub drain: Ipv4Addr,
}

impl Way {
    fn new(shape: Shape, number: u32) -> Way {
        // There are no more than TUNNELS_MAX.
        let n = u8::try_from(number).unwrap_or(u8::MAX);
        let address = |network, host| Ipv4Addr::new(10, network, n, host);
        match shape {
            Shape::Pair => {
                let (left, right) = (address(77, 1), address(77, 2));
                Way { number, left, right, source: left, drain: right }
            }
            // A gateway has an address in each network that it is the gateway of.
            Shape::Four => {
                let (left, right) = (address(78, 254), address(79, 254));
                Way { number, left, right, source: address(78, 1), drain: address(79, 1) }
            }
        }
    }

    /// A gateway's address inside the tunnel.
    pub fn gateway(&self, side: Side) -> Ipv4Addr {
        match side {
            Side::Left => self.left,
            Side::Right => self.right,
        }
    }

    /// Where the traffic of this side is at home: a gateway, or the host behind it.
    pub fn end(&self, side: Side) -> Ipv4Addr {
        match side {
            Side::Left => self.source,
            Side::Right => self.drain,
        }
    }

    /// The network that is reached through the tunnel at this side: the gateway alone, or the one that it is the gateway of. Address and length of the prefix.
    pub fn network(&self, side: Side) -> (Ipv4Addr, u8) {
        let (gateway, end) = (self.gateway(side), self.end(side));
        match gateway == end {
            true => (gateway, 32),
            false => (Ipv4Addr::from_bits(gateway.to_bits() & 0xffff_ff00), 24),
        }
    }

    /// The same as it is usually written.
    pub fn prefix(&self, side: Side) -> String {
        let (address, length) = self.network(side);
        format!("{address}/{length}")
    }
}

/// The hosts and links that a system is set up on.
#[derive(Debug)]
pub struct Topology {
    /// What it was made from.
    pub spec: TopologySpec,
    /// The link between the gateways.
    pub middle: Link,
    /// The tunnels that there are to be.
    pub ways: Vec<Way>,
    /// The links to the source and to the drain, if there are any.
    outer: Option<[Link; 2]>,
}

impl Topology {
    /// A gateway's end of the link between the two.
    pub fn port(&self, side: Side) -> &Port {
        match side {
            Side::Left => &self.middle.left,
            Side::Right => &self.middle.right,
        }
    }

    /// A gateway.
    pub fn gateway(&self, side: Side) -> &Namespace {
        &self.port(side).namespace
    }

    /// The host where the traffic of a side is at home: the gateway, or the one behind it.
    pub fn end(&self, side: Side) -> &Namespace {
        match (&self.outer, side) {
            (None, _) => self.gateway(side),
            (Some([source, _]), Side::Left) => &source.left.namespace,
            (Some([_, drain]), Side::Right) => &drain.right.namespace,
        }
    }

    /// All hosts, from the source to the drain.
    pub fn hosts(&self) -> Vec<&Namespace> {
        let mut hosts = vec![self.gateway(Side::Left), self.gateway(Side::Right)];
        if self.outer.is_some() {
            hosts.insert(0, self.end(Side::Left));
            hosts.push(self.end(Side::Right));
        }
        hosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tunnel_has_addresses_of_its_own() {
        for shape in [Shape::Pair, Shape::Four] {
            let ways: Vec<Way> = (1..=TUNNELS_MAX).map(|number| Way::new(shape, number)).collect();
            let networks: Vec<String> = ways.iter().flat_map(|way| Side::BOTH.map(|side| way.prefix(side))).collect();
            let different: std::collections::BTreeSet<&String> = networks.iter().collect();
            assert_eq!(networks.len(), different.len());
        }
        let four = Way::new(Shape::Four, 7);
        assert_eq!(
            (four.prefix(Side::Right).as_str(), four.right.to_string().as_str()),
            ("10.79.7.0/24", "10.79.7.254")
        );
        assert_eq!(Way::new(Shape::Pair, 7).prefix(Side::Left), "10.77.7.1/32");
    }
}

//! Four hosts: source, gateway, gateway, drain. The two in the middle forward, and each flow has a tunnel of its own.
//!
//! The source has one address for each tunnel and so has the drain; who sends to the drain's `n`th address comes from the source's `n`th by itself. The
//! source knows the MTU inside the tunnels beforehand, as a host of a network with such a gateway is told by it; otherwise each flow's first packets
//! would be lost to finding it out.

use super::{Side, Topology, Way};
use crate::{Gso, LabError, Link, Namespace, Port};

/// Adds source and drain to two gateways, with their addresses and routes; which tunnel leads where the gateways learn from the system.
pub(super) fn extend(topology: &Topology) -> Result<[Link; 2], LabError> {
    let (source, drain) = (Namespace::new()?, Namespace::new()?);
    // They are not what is measured: their super-packets may arrive whole.
    let before = Link::new(&source, topology.gateway(Side::Left), Gso::Through)?;
    let behind = Link::new(topology.gateway(Side::Right), &drain, Gso::Through)?;
    for gateway in Side::BOTH.map(|side| topology.gateway(side)) {
        gateway.set_sysctl("net/ipv4/ip_forward", "1")?;
    }
    let mtu = topology.spec.mtu.to_string();
    for way in &topology.ways {
        connect(&before.left, &before.right, way, Side::Left, &mtu)?;
        connect(&behind.right, &behind.left, way, Side::Right, &mtu)?;
    }
    Ok([before, behind])
}

/// Gives a host its address of a tunnel, and tells both it and its gateway the way.
fn connect(host: &Port, gateway: &Port, way: &Way, side: Side, mtu: &str) -> Result<(), LabError> {
    let (own, far) = (way.end(side).to_string(), way.end(side.other()).to_string());
    let ip = |port: &Port, args: &[&str]| port.namespace.ip(args).map(drop);
    ip(host, &["addr", "add", &format!("{own}/32"), "dev", &host.interface])?;
    ip(gateway, &["route", "add", &own, "via", &host.v4.to_string(), "dev", &gateway.interface])?;
    let via = gateway.v4.to_string();
    ip(host, &["route", "add", &far, "via", &via, "dev", &host.interface, "src", &own, "mtu", mtu])
}

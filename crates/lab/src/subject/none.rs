//! No tunnel: what hosts and links can do by themselves. It is the measure of all others, and no competitor.

use super::{Meter, Missing, Place, Protocol, Subject, Versions, Works};
use crate::topology::{Side, Topology};
use crate::{Counters, LabError};

/// The link between the gateways, bare. Its packets are as large as the link takes, whatever the MTU of tunnels.
#[derive(Clone, Copy, Debug)]
pub struct NoTunnel;

impl Subject for NoTunnel {
    fn slug(&self) -> &str {
        "none"
    }

    fn name(&self) -> &str {
        "no tunnel"
    }

    fn protocol(&self) -> Protocol {
        Protocol::Nothing
    }

    fn place(&self) -> Place {
        Place::Nowhere
    }

    fn cipher(&self) -> &str {
        ""
    }

    fn available(&self) -> Result<Versions, Missing> {
        Ok(Versions::default())
    }

    fn build(&self, works: &mut Works) -> Result<Box<dyn Meter>, LabError> {
        let ports = Side::BOTH.map(|side| works.topology().port(side).clone());
        works.mtu_is(works.topology().spec.link_mtu);
        works.go();
        for way in works.topology().ways.clone() {
            for (side, port) in Side::BOTH.into_iter().zip(&ports) {
                let (own, via) = (way.gateway(side).to_string(), works.topology().port(side.other()).v4.to_string());
                works.ip(side, &["addr", "add", &format!("{own}/32"), "dev", &port.interface])?;
                let far = way.prefix(side.other());
                works.ip(side, &["route", "add", &far, "via", &via, "dev", &port.interface, "src", &own])?;
            }
        }
        Ok(Box::new(OneLink))
    }
}

/// All ways are one here.
struct OneLink;

impl Meter for OneLink {
    fn carried(&self, topology: &Topology, _number: u32) -> Result<u64, LabError> {
        let port = topology.port(Side::Right);
        Ok(Counters::of(&port.namespace, &port.interface)?.received_bytes)
    }
}

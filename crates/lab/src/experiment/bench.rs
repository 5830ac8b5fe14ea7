//! A system set up somewhere, and what is known of it by then.

use std::cell::Cell;
use std::net::IpAddr;

use super::Effort;
use crate::subject::{self, Live, Subject};
use crate::{Gso, LabError, Namespace, Shape, Side, TopologySpec, usage};

/// Room for whatever a system puts around a packet, in bytes.
const OVERHEAD: u32 = 80;

/// Where a measurement happens, in the order in which a round visits them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// One tunnel between two hosts.
    Tunnel,
    /// So many tunnels between the gateways of four hosts.
    Gateways(u32),
    /// One tunnel that nothing has been done with.
    Fresh,
    /// One tunnel with another MTU, in bytes.
    Mtu(u32),
    /// One tunnel that is held to some processors.
    Held,
    /// One tunnel, and a crowd that calls one of its ends.
    Storm,
    /// One tunnel, of which one end has so many peers.
    Peers(u32),
    /// One tunnel with nothing to do, beside those of all other systems.
    Quiet,
}

impl Site {
    /// The hosts and links.
    pub(super) fn topology(self) -> TopologySpec {
        match self {
            Site::Gateways(tunnels) => TopologySpec::new(Shape::Four, tunnels),
            Site::Mtu(mtu) => TopologySpec { mtu, link_mtu: mtu + OVERHEAD, ..TopologySpec::new(Shape::Pair, 1) },
            _ => TopologySpec::new(Shape::Pair, 1),
        }
    }

    /// Seconds that it takes to set a system up there and to take it away.
    pub(super) fn seconds(self) -> f64 {
        match self {
            Site::Gateways(tunnels) => 0.5 + 0.1 * f64::from(tunnels),
            // The start is what is measured there.
            Site::Fresh => 0.0,
            // With the flood that warms it.
            _ => 0.6,
        }
    }
}

/// A system at a site.
pub(super) struct Bench<'a> {
    /// What was set up, unless a measurement has taken it down.
    pub live: Option<Live>,
    /// How thoroughly is measured.
    pub effort: &'a Effort,
    /// The memory of the right end before anything was done, in KiB.
    pub idle: u64,
    /// Whether it has carried a load already: the first one finds cold caches, pools and threads.
    pub warm: Cell<bool>,
    /// The busy share of each processor, where the tunnels here have carried traffic already.
    pub busy: Option<Vec<f64>>,
}

impl<'a> Bench<'a> {
    /// Sets it up.
    pub fn new(subject: &dyn Subject, site: Site, link: Gso, effort: &'a Effort) -> Result<Bench<'a>, LabError> {
        let spec = TopologySpec { gso: link, ..site.topology() };
        let live = subject::set_up(subject, spec.build()?)?;
        let mut bench = Bench { live: Some(live), effort, idle: 0, warm: Cell::new(false), busy: None };
        bench.idle = bench.resident()?;
        Ok(bench)
    }

    /// What was set up.
    ///
    /// # Errors
    /// It has been taken down.
    pub fn live(&self) -> Result<&Live, LabError> {
        self.live.as_ref().ok_or(LabError::Down)
    }

    /// Where traffic begins, where it ends, and the address there by the first tunnel.
    pub fn ends(&self) -> Result<(&Namespace, &Namespace, IpAddr), LabError> {
        let live = self.live()?;
        let way = live.ways().first().ok_or(LabError::Lacking { what: "tunnel".to_owned() })?;
        Ok((live.topology.end(Side::Left), live.topology.end(Side::Right), way.drain.into()))
    }

    /// The memory of all processes at the right end in KiB, and of the BPF maps that they have open.
    pub fn resident(&self) -> Result<u64, LabError> {
        let pids = self.live()?.pids_at(Side::Right);
        let processes: u64 = pids.iter().map(|pid| usage::proportional(*pid)).sum::<Result<_, _>>()?;
        Ok(processes + usage::maps(pids))
    }
}

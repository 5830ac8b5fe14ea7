//! The experiments: what is done to a system under test to find out what the catalogue asks.
//!
//! `evaluation::catalogue` says what each experiment asks and in which metrics it answers; here is how each of them is measured, one in a file. An [`Effort`] says how
//! thoroughly; [`plan`] makes the list of measurements from it, and cuts it to a time that is given; a [`Campaign`] goes through the list, round by round.
//!
//! A measurement happens at a [`Site`], which is a system set up on hosts of some shape. Measurements at the same site share what was set up, as long as it lives:
//! a round goes from site to site, and at each from system to system, so that what is compared was measured as close together as can be.

mod bench;
mod campaign;
mod cores;
mod effort;
mod first_byte;
mod flood;
mod handshakes;
mod latency;
mod latency_loaded;
mod load;
mod memory;
mod mtu;
mod peers;
mod plan;
mod recovery;
mod scaling;
mod sizes;
mod start;
mod streams;
mod tunnels;
mod wakeups;
mod wireguard;

use evaluation::Record;

use crate::subject::{Place, Protocol, Subject};
use crate::{Gso, LabError};

use bench::Bench;
pub use bench::Site;
pub use campaign::{Campaign, CampaignError, Outcome, Progress};
pub use effort::Effort;
pub use plan::{Planned, plan, plan_within};

/// One experiment, as it is measured.
trait Experiment: Sync {
    /// Its name in the catalogue.
    fn slug(&self) -> &'static str;

    /// Whether it can ask this system anything.
    fn suits(&self, _subject: &dyn Subject) -> bool {
        true
    }

    /// The values of its axis. An experiment without an axis has one, which means nothing.
    fn points(&self, _effort: &Effort) -> Vec<f64> {
        vec![0.0]
    }

    /// The kinds of links that it tells apart, if it does: throughput alone. All else is measured where each datagram crosses alone.
    fn links(&self, _effort: &Effort) -> Vec<Gso> {
        Vec::new()
    }

    /// Where it is measured.
    fn site(&self, x: f64, effort: &Effort) -> Site;

    /// Seconds that one point takes, beside setting up.
    fn seconds(&self, x: f64, effort: &Effort) -> f64;

    /// Measures one point and enters what was found into its record.
    fn measure(&self, bench: &mut Bench<'_>, x: f64, record: Record) -> Result<Record, LabError>;
}

/// All of them, in the order in which they are measured at a site: what disturbs the others comes last.
static ALL: [&dyn Experiment; 16] = [
    &latency::Latency,
    &streams::Streams,
    &latency_loaded::LatencyLoaded,
    &sizes::Sizes,
    &flood::Flood,
    &memory::Memory,
    &first_byte::FirstByte,
    &recovery::Recovery,
    &tunnels::Tunnels,
    &cores::Cores,
    &start::Start,
    &mtu::Mtu,
    &scaling::Scaling,
    &handshakes::Handshakes,
    &peers::Peers,
    &wakeups::Wakeups,
];

/// Whether a system has processes whose memory and wake-ups are its own.
fn has_processes(subject: &dyn Subject) -> bool {
    match subject.place() {
        Place::Nowhere => false,
        Place::Module | Place::BuiltIn => subject.protocol() != Protocol::WireGuard,
        Place::Ebpf | Place::Userspace => true,
    }
}

fn is_wireguard(subject: &dyn Subject) -> bool {
    subject.protocol() == Protocol::WireGuard
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use evaluation::catalogue;

    use super::*;

    #[test]
    fn the_catalogue_is_measured_and_nothing_else() {
        let measured: BTreeSet<&str> = ALL.iter().map(|it| it.slug()).collect();
        let asked: BTreeSet<&str> =
            catalogue::EXPERIMENTS.iter().filter(|it| !it.derived()).map(|it| it.slug).collect();
        assert_eq!(measured, asked);
        assert_eq!(measured.len(), ALL.len());
    }
}

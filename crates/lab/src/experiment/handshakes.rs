//! Handshakes per second: a crowd of clients calls one end, a few of them at any time, each as soon as one before it has agreed. What is lost would be tried
//! again only after 5 s, which is over then: so the figure is what the end can do, and not how long clients wait. The crowd speaks WireGuard alone, and it has the machine to share with what it calls.

use std::net::SocketAddr;
use std::time::Duration;

use evaluation::Record;
use evaluation::catalogue::PROCESSORS;

use super::bench::{Bench, Site};
use super::wireguard::Interface;
use super::{Effort, Experiment, is_wireguard};
use crate::crowd::{self, Outcome, Role};
use crate::subject::Subject;
use crate::{Gso, LabError, Link, Namespace, Side};

/// How long they call at most: less than the 5 s after which they would repeat what was lost.
const LIMIT: Duration = Duration::from_secs(3);

pub(super) struct Handshakes;

impl Experiment for Handshakes {
    fn slug(&self) -> &'static str {
        "handshakes"
    }

    fn suits(&self, subject: &dyn Subject) -> bool {
        is_wireguard(subject)
    }

    fn site(&self, _x: f64, _effort: &Effort) -> Site {
        Site::Storm
    }

    fn seconds(&self, _x: f64, effort: &Effort) -> f64 {
        1.0 + (f64::from(effort.members) / 500.0).min(LIMIT.as_secs_f64())
    }

    fn measure(&self, bench: &mut Bench<'_>, _x: f64, record: Record) -> Result<Record, LabError> {
        let live = bench.live()?;
        let (hub, server) = (live.topology.gateway(Side::Right), Interface::of(live, Side::Right)?);
        let port = server.status()?.port;
        // What the other end knows: not every one of them tells its own key.
        let known = Interface::of(live, Side::Left)?.status()?.peers.into_iter().next();
        let key = known.ok_or(LabError::Lacking { what: "peer".to_owned() })?.public_key;
        let clients = Namespace::new()?;
        let link = Link::new(hub, &clients, Gso::Through)?;
        crowd::settle(&link)?;
        server.add(&crowd::peers(0..bench.effort.members, |_| String::new()))?;
        let address = SocketAddr::from((link.left.v4, port));
        let process = crowd::start(&clients, address, &key, bench.effort.members, Role::InTurn, LIMIT)?;
        let outcome = crowd::finish(process, LIMIT + Duration::from_secs(20))?;
        Ok(record.with("handshakes", rate(&outcome)?).with(PROCESSORS.key, outcome.busy))
    }
}

/// By when 99 in a hundred had agreed, for the last ones may only have lost a packet; or how many had in all of the time.
fn rate(outcome: &Outcome) -> Result<f64, LabError> {
    let Outcome { members, agreed, most, .. } = *outcome;
    let enough = 0.99 * f64::from(members);
    match f64::from(agreed) {
        agreed if agreed >= enough && most > 0.0 => Ok(enough / most),
        agreed if agreed > 0.0 => Ok(agreed / LIMIT.as_secs_f64()),
        _ => Err(LabError::FewConnected { agreed, members, within: LIMIT }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_those_who_agreed() {
        let outcome = |agreed, most| Outcome { members: 1000, agreed, most, ..Outcome::default() };
        assert_eq!(rate(&outcome(1000, 0.5)).unwrap(), 1980.0);
        // `most` is the last one's then.
        assert_eq!(rate(&outcome(300, 2.5)).unwrap(), 100.0);
        assert!(rate(&outcome(0, 0.0)).unwrap_err().to_string().contains("only 0 of 1000"));
    }
}

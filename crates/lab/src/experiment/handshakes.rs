//! Handshakes per second: a crowd of clients calls one end at one moment. The crowd speaks WireGuard alone, and it has the machine to share with what it calls.

use std::net::SocketAddr;
use std::time::Duration;

use evaluation::Record;
use evaluation::catalogue::PROCESSORS;

use super::bench::{Bench, Site};
use super::wireguard::Interface;
use super::{Effort, Experiment, is_wireguard};
use crate::crowd::{self, Outcome, Role};
use crate::subject::Subject;
use crate::usage::Window;
use crate::{Gso, LabError, Link, Namespace, Side};

/// Until when all have to have agreed.
const LIMIT: Duration = Duration::from_secs(60);

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
        1.0 + f64::from(effort.members) / 150.0
    }

    fn measure(&self, bench: &mut Bench<'_>, _x: f64, record: Record) -> Result<Record, LabError> {
        let live = bench.live()?;
        let (hub, server) = (live.topology.gateway(Side::Right), Interface::of(live, Side::Right)?);
        let port = server.status()?.port;
        // What the other end knows: not every one of them tells its own key.
        let known = Interface::of(live, Side::Left)?.status()?.peers.into_iter().next();
        let key = known.ok_or(LabError::Unreadable { what: "a peer", text: "there is none".to_owned() })?.public_key;
        let clients = Namespace::new()?;
        let link = Link::new(hub, &clients, Gso::Through)?;
        crowd::settle(&link)?;
        server.add(&crowd::peers(0..bench.effort.members, |_| String::new()))?;
        let address = SocketAddr::from((link.left.v4, port));
        let window = Window::open()?;
        let process = crowd::start(&clients, address, &key, bench.effort.members, Role::Initiate, LIMIT)?;
        let outcome = crowd::finish(process, LIMIT + Duration::from_secs(20))?;
        let busy = window.close()?.iter().sum();
        Ok(record.with("handshakes", rate(&outcome)?).with(PROCESSORS.key, busy))
    }
}

/// By when 99 in a hundred had agreed: the last ones may only have lost a packet, and try again after seconds.
fn rate(outcome: &Outcome) -> Result<f64, LabError> {
    let Outcome { members, agreed, most, .. } = *outcome;
    if f64::from(agreed) < 0.99 * f64::from(members) || most <= 0.0 {
        let text = format!("only {agreed} of {members} clients could connect within {} s", LIMIT.as_secs());
        return Err(LabError::Unreadable { what: "a rate of handshakes", text });
    }
    Ok(0.99 * f64::from(members) / most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_those_who_agreed() {
        let outcome = |agreed, most| Outcome { members: 1000, agreed, most, ..Outcome::default() };
        assert_eq!(rate(&outcome(1000, 0.5)).unwrap(), 1980.0);
        assert!(rate(&outcome(900, 0.0)).unwrap_err().to_string().contains("only 900 of 1000"));
        assert!(rate(&outcome(1000, 0.0)).is_err());
    }
}

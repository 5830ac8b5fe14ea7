//! A device that runs: its state, its handshakes, and what it drops.

use std::time::Duration;

use linux::clock;

use super::finding::{Kind, Report};
use super::subject::{Peer, Subject};
use crate::client;

/// What each reason of a drop means, and what to do.
const DROPS: &str = include_str!("../../../../docs/drops.md");
/// A session lasts as long (REJECT_AFTER_TIME), and a handshake is tried every five seconds of it once there is something to send.
const SESSION: Duration = Duration::from_secs(180);

/// What its interface is like, before it is tried.
pub fn state(subject: &Subject, report: &mut Report) {
    if subject.link.as_ref().is_some_and(|link| !link.up) {
        report.add(
            Kind::InterfaceDown,
            format!("{} is set down: nothing goes through it.", subject.name),
            format!("`ip link set {} up`.", subject.name),
        );
    }
    if subject.link.is_none() {
        report.add(
            Kind::Unseen,
            format!(
                "{} is not in this network namespace, and so its addresses, routes and paths cannot be looked at.",
                subject.name
            ),
            format!("`ip netns exec NAME wireloom doctor {}`, where it is.", subject.name),
        );
    }
}

/// That it cannot be asked by who asks.
pub fn unseen(name: &str, report: &mut Report) {
    report.add(
        Kind::Unseen,
        format!("{name} runs, but does not tell this user of itself, and so only the machine was looked at."),
        format!("`sudo wireloom doctor {name}`."),
    );
}

/// Its handshakes, after it was tried: `subject` is as it is now.
pub fn handshakes(subject: &Subject, report: &mut Report) {
    if subject.link.as_ref().is_some_and(|link| !link.up) {
        return;
    }
    let now = clock::wall();
    // Of several peers some may be travelling, and not be there now.
    let alone = subject.peers.iter().filter(|peer| peer.endpoint.is_some()).count() == 1;
    for peer in &subject.peers {
        handshake(peer, alone, now, report);
    }
}

fn handshake(peer: &Peer, alone: bool, now: Duration, report: &mut Report) {
    let name = &peer.name;
    let (_, sent) = peer.transfer;
    let age = match peer.handshake {
        Some(at) if at > now + Duration::from_secs(1) => {
            report.add(
                Kind::ClockWentBack,
                format!("The last handshake with peer {name} was in the future, by this machine's clock: the clock went back, and peers take our handshakes for repeated ones."),
                "Set the clock right; peers that have seen the later time answer again once it is past.",
            );
            return;
        }
        Some(at) => Some(now.saturating_sub(at)),
        None => None,
    };
    match (age, peer.endpoint.is_some()) {
        (Some(age), _) if age <= SESSION => {
            report.ok(Kind::Handshake, format!("There is a session with peer {name}, from a handshake {} seconds ago.", age.as_secs()));
        }
        // Something waits to be sent, and so a handshake is being tried.
        (Some(age), true) if peer.keepalive > 0 || (alone && sent > 0) => report.add(
            Kind::HandshakeOld,
            format!("The last handshake with peer {name} was {} seconds ago, and no new one gets through.", age.as_secs()),
            "See whether the other end runs, and whether its address, port, and the keys of both ends are still the same.",
        ),
        (None, true) if sent > 0 => report.add(
            Kind::HandshakeNone,
            format!("There has never been a handshake with peer {name}, though {sent} bytes were sent to it."),
            "See whether both ends have each other's public key and the same preshared key, whether the endpoint is right, and whether a firewall drops its port.",
        ),
        (None, true) => report.add(
            Kind::HandshakeIdle,
            format!("There has never been a handshake with peer {name}, and nothing was sent to it."),
            "Send something to one of its allowed IPs.",
        ),
        (Some(age), true) => report.add(
            Kind::HandshakeIdle,
            format!("The last handshake with peer {name} was {} seconds ago.", age.as_secs()),
            "Nothing, if it is not there now; otherwise send something to one of its allowed IPs.",
        ),
        (_, _) => report.add(
            Kind::HandshakeIdle,
            format!("Peer {name} has {}, and without an endpoint only it can begin.", match age {
                Some(age) => format!("not been heard of for {} seconds", age.as_secs()),
                None => "never called".to_owned(),
            }),
            "Nothing, if it is not there now; otherwise look there.",
        ),
    }
}

/// What it has dropped, if it tells.
pub fn drops(subject: &Subject, report: &mut Report) {
    let Ok(drops) = client::drops(&subject.name) else { return };
    let trouble =
        report.kinds().any(|kind| matches!(kind, Kind::HandshakeNone | Kind::HandshakeOld | Kind::HandshakeIdle));
    for (reason, count) in drops.iter().filter(|(_, count)| *count > 0) {
        let Some((what, remedy)) = advice(reason) else { continue };
        // Every healthy device has these; where a handshake is missed, they may be a part of it.
        if remedy.starts_with("Nothing") && !(trouble && reason.starts_with("handshake-")) {
            continue;
        }
        report.add(Kind::Drops, format!("{} has dropped {count} packets ({reason}): {what}", subject.name), remedy);
    }
}

/// What the manual says of a reason.
fn advice(reason: &str) -> Option<(&'static str, &'static str)> {
    let row = DROPS.lines().find_map(|line| line.strip_prefix("| `")?.strip_prefix(reason)?.strip_prefix("` | "))?;
    row.strip_suffix(" |")?.split_once(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use noise::PublicKey;

    fn found(age: Option<i64>, endpoint: bool, keepalive: u16, sent: u64) -> &'static str {
        found_beside(true, age, endpoint, keepalive, sent)
    }

    fn found_beside(alone: bool, age: Option<i64>, endpoint: bool, keepalive: u16, sent: u64) -> &'static str {
        let now = Duration::from_secs(1_000_000);
        let peer = Peer {
            endpoint: endpoint.then(|| "192.0.2.1:1".to_owned()),
            keepalive,
            transfer: (0, sent),
            handshake: age.map(|age| Duration::from_secs(1_000_000_u64.saturating_add_signed(-age))),
            ..Peer::new(PublicKey::from_bytes([7; 32]))
        };
        let mut report = Report::default();
        handshake(&peer, alone, now, &mut report);
        report.kinds().next().unwrap().id()
    }

    #[test]
    fn handshakes_are_judged_by_age_and_by_what_was_tried() {
        assert_eq!(found(Some(5), true, 0, 9), "handshake");
        assert_eq!(found(Some(180), false, 0, 9), "handshake");
        assert_eq!(found(Some(181), true, 0, 9), "handshake-old");
        assert_eq!(found(Some(181), true, 25, 0), "handshake-old");
        assert_eq!(found(Some(181), false, 0, 9), "handshake-idle");
        assert_eq!(found_beside(false, Some(181), true, 0, 9), "handshake-idle");
        assert_eq!(found_beside(false, Some(181), true, 25, 9), "handshake-old");
        assert_eq!(found(None, true, 0, 148), "handshake-none");
        assert_eq!(found(None, true, 0, 0), "handshake-idle");
        assert_eq!(found(None, false, 0, 0), "handshake-idle");
        assert_eq!(found(Some(-5), true, 0, 9), "clock-went-back");
    }

    #[test]
    fn the_manual_has_advice_for_drops() {
        let (what, remedy) = advice("source-not-allowed").unwrap();
        assert!(what.starts_with("The peer sent from") && remedy.starts_with("Add the address"), "{what} {remedy}");
        assert!(advice("replayed").unwrap().1.starts_with("Nothing"));
        assert_eq!(advice("no-such"), None);
    }
}

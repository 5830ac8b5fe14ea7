//! The rules that packets are held against, with whose they are; what each has taken; and what a limit remembers.
//!
//! While there are none a packet costs one load. Rules are replaced as a whole: a packet is judged by the old ones or by the new ones,
//! and by its first segment's headers if it is a super-packet. It is judged when it comes: what waits for a session has been.
//! Another data plane that judges packets too lends the words that its limits remember in, so that what is limited is limited
//! for both together.

pub use inet::policy::RuleCount;

use arc_swap::ArcSwapOption;
use inet::policy::{Action, Direction, Flow, Matching};
use noise::{Instant, PeerId};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Whose packets a rule takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of all peers.
    Anybody,
    /// One peer's.
    Peer(PeerId),
    /// Those of somebody who is no peer now: none.
    Nobody,
}

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerRule {
    /// Whose packets it takes.
    pub whose: Whose,
    /// Which of them.
    pub matching: Matching,
    /// What becomes of them.
    pub action: Action,
}

/// The word that a limit remembers in: see [`inet::policy::Limit::admits`].
pub type Bucket = Box<dyn AsRef<AtomicU64> + Send + Sync>;

struct Own(AtomicU64);

impl AsRef<AtomicU64> for Own {
    fn as_ref(&self) -> &AtomicU64 {
        &self.0
    }
}

/// A word of our own.
pub fn own_bucket() -> Bucket {
    Box::new(Own(AtomicU64::new(0)))
}

/// What a rule has taken, and what its limit remembers. It stays when the rule is told of other peers.
struct Cell {
    until: Bucket,
    packets: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
}

struct Rules(Box<[(PeerRule, Arc<Cell>)]>);

/// A packet, as far as rules look at it.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Whose it is.
    pub peer: PeerId,
    /// Which way it goes.
    pub direction: Direction,
    /// What its headers say.
    pub flow: Flow,
    /// How many packets it stands for.
    pub packets: u32,
    /// Their bytes together.
    pub bytes: u32,
}

/// The rules in force.
#[derive(Default)]
pub struct Policy {
    in_force: AtomicBool,
    rules: ArcSwapOption<Rules>,
}

impl Policy {
    /// Whether there are any.
    #[inline]
    pub fn in_force(&self) -> bool {
        self.in_force.load(Ordering::Acquire)
    }

    /// Whether the packet may pass. Counts it where it belongs.
    pub fn permits(&self, now: Instant, subject: &Subject) -> bool {
        let rules = self.rules.load();
        let Some(Rules(rules)) = rules.as_deref() else { return true };
        let Subject { peer, direction, flow, packets, bytes } = subject;
        let takes = |rule: &PeerRule| {
            let his = match rule.whose {
                Whose::Anybody => true,
                Whose::Peer(whose) => whose == *peer,
                Whose::Nobody => false,
            };
            his && rule.matching.takes(*direction, flow)
        };
        let Some((rule, cell)) = rules.iter().find(|(rule, _)| takes(rule)) else { return true };
        let permitted = match rule.action {
            Action::Pass => true,
            Action::Drop => false,
            Action::Limit(limit) => limit.admits((*cell.until).as_ref(), now.as_nanos(), *packets, *bytes),
        };
        cell.packets.fetch_add((*packets).into(), Ordering::Relaxed);
        cell.bytes.fetch_add((*bytes).into(), Ordering::Relaxed);
        if !permitted {
            cell.dropped.fetch_add((*packets).into(), Ordering::Relaxed);
        }
        permitted
    }

    /// Puts these rules in the place of all. If they are not `fresh` they are those that there were, of other peers, and go on counting;
    /// else `lend` gives each (by its number) the word that its limit remembers in.
    pub fn set(&self, rules: &[PeerRule], fresh: bool, mut lend: impl FnMut(usize) -> Bucket) {
        let old: Option<Arc<Rules>> = self.rules.load_full().filter(|_| !fresh);
        let count = || AtomicU64::new(0);
        let mut cell = |number: usize| match old.as_ref().and_then(|old| old.0.get(number)) {
            Some((_, cell)) => cell.clone(),
            None => Arc::new(Cell { until: lend(number), packets: count(), bytes: count(), dropped: count() }),
        };
        let new: Box<[_]> = rules.iter().enumerate().map(|(number, rule)| (*rule, cell(number))).collect();
        let in_force = !new.is_empty();
        // A packet that sees them in force finds them.
        if in_force {
            self.rules.store(Some(Arc::new(Rules(new))));
        }
        self.in_force.store(in_force, Ordering::Release);
        if !in_force {
            self.rules.store(None);
        }
    }

    /// What each has taken, in order.
    pub fn counts(&self) -> Vec<RuleCount> {
        let rules = self.rules.load();
        let told = |cell: &Cell| RuleCount {
            packets: cell.packets.load(Ordering::Relaxed),
            bytes: cell.bytes.load(Ordering::Relaxed),
            dropped: cell.dropped.load(Ordering::Relaxed),
        };
        rules.iter().flat_map(|rules| &rules.0).map(|(_, cell)| told(cell)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inet::policy::{Limit, Unit};
    use std::num::NonZeroU64;

    fn rule(whose: Whose, direction: Option<Direction>, action: Action) -> PeerRule {
        PeerRule { whose, matching: Matching { direction, ..Matching::default() }, action }
    }

    fn subject(peer: u32, direction: Direction) -> Subject {
        let flow = Flow {
            source: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2".parse().unwrap(),
            protocol: Some(1),
            ports: None,
        };
        Subject { peer: PeerId::from_u32(peer), direction, flow, packets: 2, bytes: 100 }
    }

    #[test]
    fn the_first_rule_that_takes_a_packet_decides_and_counts_it() {
        let (policy, now) = (Policy::default(), Instant::from_nanos(1 << 40));
        assert!(!policy.in_force() && policy.permits(now, &subject(1, Direction::In)));
        let his = Whose::Peer(PeerId::from_u32(1));
        let rules = [
            rule(Whose::Nobody, None, Action::Drop),
            rule(his, Some(Direction::In), Action::Pass),
            rule(Whose::Anybody, Some(Direction::In), Action::Drop),
        ];
        policy.set(&rules, true, |_| own_bucket());
        assert!(policy.in_force() && policy.permits(now, &subject(1, Direction::In)));
        assert!(!policy.permits(now, &subject(2, Direction::In)));
        assert!(policy.permits(now, &subject(2, Direction::Out)), "what no rule takes passes");
        let count = |packets, bytes, dropped| RuleCount { packets, bytes, dropped };
        assert_eq!(policy.counts(), [count(0, 0, 0), count(2, 100, 0), count(2, 100, 2)]);
        policy.set(&[], true, |_| own_bucket());
        assert!(!policy.in_force() && policy.permits(now, &subject(2, Direction::In)));
    }

    #[test]
    fn rules_of_other_peers_go_on_counting_and_limiting() {
        let (policy, now) = (Policy::default(), Instant::from_nanos(1 << 40));
        let limit = Limit { per_second: NonZeroU64::MIN, unit: Unit::Packets, burst: Limit::BURST };
        let rules = |whose| [rule(whose, None, Action::Limit(limit))];
        let (one, two) = (Whose::Peer(PeerId::from_u32(1)), Whose::Peer(PeerId::from_u32(2)));
        policy.set(&rules(one), true, |_| own_bucket());
        assert!(policy.permits(now, &subject(1, Direction::In)) && !policy.permits(now, &subject(1, Direction::In)));
        policy.set(&rules(two), false, |_| unreachable!("it has a word"));
        assert!(policy.permits(now, &subject(1, Direction::In)), "no longer his");
        assert!(!policy.permits(now, &subject(2, Direction::In)), "the limit is the rule's");
        assert_eq!(policy.counts(), [RuleCount { packets: 6, bytes: 300, dropped: 4 }]);
        policy.set(&rules(two), true, |_| own_bucket());
        assert!(policy.permits(now, &subject(2, Direction::In)));
        assert_eq!(policy.counts(), [RuleCount { packets: 2, bytes: 100, dropped: 0 }]);
    }
}

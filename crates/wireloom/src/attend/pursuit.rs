//! Where to look for a peer that does not answer: which of its name's addresses is next, and when the name is asked for again.
//!
//! A peer is *well* until its device says that handshakes with it fail. Then each further word of that is a step: the name is *looked up*, unless that was
//! done a moment ago, and the peer is *moved* to the address to try next. A handshake that succeeds makes it well again, whoever began it, and all is
//! forgotten. Who is well is never touched.
//!
//! First of all come addresses that the name did not have before, since names change when hosts move. Then the other address family, since that one of
//! them leads nowhere is the commonest trouble of all; then whatever is left, in the order of the system's resolver. When all have been tried it begins
//! anew. A name that cannot be resolved leaves the addresses that it had before: its server may be behind the very tunnel that does not work.
//!
//! Lookups are spaced ever further, so that a peer that is off costs the name servers next to nothing, and not all at the same moment.

use std::net::SocketAddr;
use std::time::Duration;

/// The time to the second lookup; then it doubles.
const FIRST: Duration = Duration::from_secs(15);
/// The longest time between two lookups, less what is left to chance.
const LONGEST: Duration = Duration::from_secs(300);

/// What to do for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Stay,
    /// Look its name up, and tell the answer.
    LookUp,
    /// Have the device send there.
    Move(SocketAddr),
}

/// One peer's.
#[derive(Debug, Default)]
pub(super) struct Pursuit {
    failing: bool,
    looking: bool,
    /// Where the device sends to, as far as is known.
    at: Option<SocketAddr>,
    /// The name's addresses, as of the last lookup that had an answer.
    known: Vec<SocketAddr>,
    /// Those that have not answered since the peer was well.
    tried: Vec<SocketAddr>,
    /// Lookups since the peer was well.
    lookups: u32,
    /// When the name may be looked up next, in time since boot.
    not_before: Duration,
}

impl Pursuit {
    /// Handshakes with the peer fail, at this endpoint.
    pub(super) fn fails(&mut self, now: Duration, at: Option<SocketAddr>) -> Step {
        self.failing = true;
        self.at = at;
        if let Some(at) = at.filter(|at| !self.tried.contains(at)) {
            self.tried.push(at);
        }
        if self.looking {
            return Step::Stay;
        }
        if now < self.not_before {
            return self.next(&[]);
        }
        self.looking = true;
        Step::LookUp
    }

    /// The lookup has this answer; none if there was no answer or the name has no address. `chance` is from 0 to 1, of which one half changes nothing.
    pub(super) fn looked_up(&mut self, now: Duration, answer: Option<Vec<SocketAddr>>, chance: f64) -> Step {
        self.looking = false;
        let pause = FIRST.saturating_mul(1 << self.lookups.min(8)).min(LONGEST);
        self.not_before = now + pause.mul_f64(0.75 + chance / 2.0);
        self.lookups += 1;
        let Some(answer) = answer.filter(|answer| !answer.is_empty()) else { return self.next(&[]) };
        let before = std::mem::replace(&mut self.known, answer);
        // Of the first answer it is not known what is new.
        let new: Vec<_> = match before.is_empty() {
            true => Vec::new(),
            false => self.known.iter().copied().filter(|address| !before.contains(address)).collect(),
        };
        // A host that moved away and came back is worth another try.
        self.tried.retain(|tried| !new.contains(tried));
        self.next(&new)
    }

    /// A handshake has succeeded.
    pub(super) fn answers(&mut self) {
        let (known, looking) = (std::mem::take(&mut self.known), self.looking);
        *self = Pursuit { known, looking, ..Pursuit::default() };
    }

    /// Whether the peer does not answer.
    #[cfg(test)]
    pub(super) fn is_failing(&self) -> bool {
        self.failing
    }

    fn next(&mut self, new: &[SocketAddr]) -> Step {
        if !self.failing {
            return Step::Stay;
        }
        let is_known = self.at.is_some_and(|at| self.known.contains(&at));
        let choose = |tried: &[SocketAddr]| {
            let candidates = self.known.iter().filter(|&address| Some(*address) != self.at && !tried.contains(address));
            // Of equals the first. Where the peer is elsewhere than its name says, the resolver's order is all there is to go by.
            let same_family =
                |address: &SocketAddr| is_known && self.at.is_some_and(|at| at.is_ipv4() == address.is_ipv4());
            candidates.copied().min_by_key(|address| (!new.contains(address), same_family(address)))
        };
        let chosen = choose(&self.tried).or_else(|| choose(&[]).inspect(|_| self.tried.clear()));
        match chosen {
            Some(address) => {
                self.at = Some(address);
                Step::Move(address)
            }
            None => Step::Stay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVEN: f64 = 0.5;

    fn v4(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 51820))
    }

    fn v6(last: u16) -> SocketAddr {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 51820))
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A peer that fails at `at`, whose name has these addresses.
    fn lost(at: SocketAddr, answer: &[SocketAddr]) -> (Pursuit, Step) {
        let mut pursuit = Pursuit::default();
        assert_eq!(pursuit.fails(secs(0), Some(at)), Step::LookUp);
        let step = pursuit.looked_up(secs(0), Some(answer.to_vec()), EVEN);
        (pursuit, step)
    }

    #[test]
    fn a_changed_address_comes_first() {
        assert_eq!(lost(v4(1), &[v4(2)]).1, Step::Move(v4(2)));
        assert_eq!(lost(v4(1), &[v4(2), v6(2)]).1, Step::Move(v4(2)), "the resolver's order");
        // Known before, and now the name has another one as well.
        let (mut pursuit, step) = lost(v4(1), &[v4(1), v6(1)]);
        assert_eq!(step, Step::Move(v6(1)));
        assert_eq!(pursuit.fails(secs(60), Some(v6(1))), Step::LookUp);
        assert_eq!(pursuit.looked_up(secs(60), Some(vec![v4(1), v6(1), v6(9)]), EVEN), Step::Move(v6(9)));
    }

    #[test]
    fn then_the_other_family_then_the_rest_and_then_from_the_beginning() {
        let all = [v6(1), v6(2), v4(1), v4(2)];
        let (mut pursuit, step) = lost(v6(1), &all);
        let mut moves = vec![step];
        for second in 1..=4 {
            let Step::Move(at) = moves[moves.len() - 1] else { panic!("{moves:?}") };
            moves.push(pursuit.fails(secs(second), Some(at)));
        }
        assert_eq!(moves, [v4(1), v6(2), v4(2), v6(1), v4(1)].map(Step::Move));
    }

    #[test]
    fn with_one_address_there_is_nowhere_to_go() {
        let (mut pursuit, step) = lost(v4(1), &[v4(1)]);
        assert_eq!(step, Step::Stay);
        assert_eq!(pursuit.fails(secs(1), Some(v4(1))), Step::Stay);
        assert_eq!(lost(v4(1), &[]).1, Step::Stay);
    }

    #[test]
    fn without_an_answer_what_was_known_is_tried() {
        let (mut pursuit, _) = lost(v4(1), &[v4(1), v4(2)]);
        assert_eq!(pursuit.fails(secs(100), Some(v4(2))), Step::LookUp);
        assert_eq!(pursuit.looked_up(secs(100), None, EVEN), Step::Move(v4(1)));
    }

    #[test]
    fn who_is_well_is_left_alone() {
        let mut pursuit = Pursuit::default();
        assert_eq!(pursuit.fails(secs(0), Some(v4(1))), Step::LookUp);
        pursuit.answers();
        assert_eq!(pursuit.looked_up(secs(1), Some(vec![v4(2)]), EVEN), Step::Stay, "it came back meanwhile");
        assert!(!pursuit.is_failing());
        // It roamed, and fails there: back to where its name says.
        assert_eq!(pursuit.fails(secs(600), Some(v4(77))), Step::LookUp);
        assert_eq!(pursuit.looked_up(secs(600), Some(vec![v4(2)]), EVEN), Step::Move(v4(2)));
    }

    #[test]
    fn lookups_are_spaced_ever_further_up_to_five_minutes() {
        for (chance, factor) in [(0.0, 0.75), (0.5, 1.0), (1.0, 1.25)] {
            let (mut pursuit, mut at) = (Pursuit::default(), Vec::new());
            for second in 0..2000 {
                if pursuit.fails(secs(second), Some(v4(1))) == Step::LookUp {
                    at.push(second);
                    assert_eq!(pursuit.fails(secs(second), Some(v4(1))), Step::Stay, "one at a time");
                    pursuit.looked_up(secs(second), Some(vec![v4(1)]), chance);
                }
            }
            let gaps: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let expected = [15, 30, 60, 120, 240, 300, 300].map(|gap: u64| (gap as f64 * factor).ceil() as u64);
            assert_eq!(gaps[..expected.len().min(gaps.len())], expected[..expected.len().min(gaps.len())]);
            assert!(gaps.len() >= 6);
            pursuit.answers();
            assert_eq!(pursuit.fails(secs(2000), Some(v4(1))), Step::LookUp, "at once after it was well");
        }
    }
}

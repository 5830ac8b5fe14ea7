//! The rules that say what may pass: kept by the peers' keys, told to the data plane by the peers that there are.
//!
//! A rule may name a peer that is not here yet, or no longer: it takes nothing then. Whenever a peer comes or goes the rules are told anew,
//! before anything else is done for one that comes; they go on counting.

use crate::device::{Device, State};
use config::policy::{Rule, RuleCount};
use plane::policy::{PeerRule, Whose};

impl Device {
    /// Puts these rules in the place of all.
    pub fn set_policy(&self, rules: Vec<Rule>) {
        let _configuration = self.configuration();
        let mut state = self.state();
        state.policy = rules;
        self.tell_policy(&state, true);
    }

    /// The rules in force, and what each has taken.
    pub(crate) fn policy(&self) -> Vec<(Rule, RuleCount)> {
        let _configuration = self.configuration();
        let rules = self.state().policy.clone();
        rules.into_iter().zip(self.plane.policy()).collect()
    }

    /// Peers have come or gone.
    pub(crate) fn follow_peers(&self, state: &State) {
        if state.policy.iter().any(|rule| rule.peer.is_some()) {
            self.tell_policy(state, false);
        }
    }

    fn tell_policy(&self, state: &State, fresh: bool) {
        let whose = |rule: &Rule| match rule.peer {
            None => Whose::Anybody,
            Some(key) => state.noise.find_peer(&key).map_or(Whose::Nobody, Whose::Peer),
        };
        let told = |rule: &Rule| PeerRule { whose: whose(rule), matching: rule.matching, action: rule.action };
        let rules: Vec<PeerRule> = state.policy.iter().map(told).collect();
        self.plane.set_policy(&rules, fresh);
    }
}

//! The policy's maps: rules as the programs read them, what each has taken, and the words that limits remember in, which userspace is lent.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use linux::bpf::Map;
use noise::PeerId;
use plane::policy::{Bucket, PeerRule, RuleCount, own_bucket};

use crate::layout::Device;
use crate::maps::{Mapping, Word};
use crate::policy::{COUNT_LEN, RULE_LEN, RULES_MAX, Sets, sum};

/// The maps `rules`, `rule_counts` and `rule_buckets`.
pub struct Rules {
    rules: Map,
    counts: Map,
    buckets: Arc<Mapping<Word>>,
    /// What is in force; nothing before the first time.
    sets: Mutex<Option<Sets>>,
}

/// A word of a cell's.
struct Lent {
    buckets: Arc<Mapping<Word>>,
    cell: u32,
}

impl AsRef<AtomicU64> for Lent {
    fn as_ref(&self) -> &AtomicU64 {
        // There is one for each cell, which `Rules::new` has seen; the first stands in for what cannot be.
        &self.buckets.get(self.cell).unwrap_or(self.buckets.first()).0
    }
}

impl Rules {
    /// The maps of these descriptors.
    ///
    /// # Errors
    /// They have another layout.
    pub fn new(rules: Map, counts: Map, buckets: Mapping<Word>) -> io::Result<Rules> {
        let cells = 2 * RULES_MAX as u32;
        let fits = rules.sizes() == (4, RULE_LEN) && counts.sizes().1 == COUNT_LEN * counts.parts();
        if !fits || [rules.entries(), counts.entries(), buckets.len()] != [cells; 3] {
            return Err(io::Error::other("a map has another layout than this program"));
        }
        Ok(Rules { rules, counts, buckets: Arc::new(buckets), sets: Mutex::default() })
    }

    /// Puts rules in force, as [`plane::DataPlane::set_policy`] says. What `slot` does not know the programs do not serve.
    ///
    /// # Errors
    /// A map refused them; then those before are in force.
    pub fn set(
        &self,
        device: &Device,
        rules: &[PeerRule],
        fresh: bool,
        slot: impl Fn(PeerId) -> Option<u32>,
    ) -> io::Result<()> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        // What another process left is in force until we have our own.
        let mut next = sets.unwrap_or_else(|| Sets::of_word(device.policy.load(Ordering::Acquire)));
        let put = |number: u32, rule: &[u8; RULE_LEN]| self.rules.update(&number.to_ne_bytes(), rule);
        let zeros = vec![0; self.counts.sizes().1];
        let empty = |cell: u32| {
            self.counts.update(&cell.to_ne_bytes(), &zeros)?;
            self.buckets.zero(cell);
            Ok(())
        };
        let written = next.write(rules, fresh, slot, put, empty)?;
        device.policy.store(written.word, Ordering::Release);
        *sets = Some(next);
        Ok(())
    }

    /// A rule as the programs read it, by its number in the map.
    #[cfg(test)]
    pub(crate) fn rule(&self, number: u32) -> io::Result<[u8; RULE_LEN]> {
        let mut rule = [0; RULE_LEN];
        self.rules.lookup(&number.to_ne_bytes(), &mut rule).map(|()| rule)
    }

    /// The word that the limit of this rule, by its number, remembers in.
    pub fn lend(&self, number: usize) -> Bucket {
        let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        match sets.and_then(|sets| sets.cells().nth(number)) {
            Some(cell) => Box::new(Lent { buckets: self.buckets.clone(), cell }),
            None => own_bucket(),
        }
    }

    /// What the programs' rules have taken, in order.
    pub fn counts(&self) -> Vec<RuleCount> {
        let sets = *self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shares = vec![0; self.counts.sizes().1];
        let mut count = |cell: u32| match self.counts.lookup(&cell.to_ne_bytes(), &mut shares) {
            Ok(()) => sum(&shares),
            Err(_) => RuleCount::default(),
        };
        sets.iter().flat_map(Sets::cells).map(&mut count).collect()
    }
}

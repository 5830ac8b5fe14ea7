//! A set of numbers of which most follow each other: counters and the like. Each takes little more than a bit, and a gap nothing.

use std::collections::HashMap;

/// The words of a page, of 64 numbers each.
const WORDS: usize = 64;

/// The set.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    pages: HashMap<u64, Box<[u64; WORDS]>>,
    len: u64,
}

impl Numbers {
    /// Puts a number in; whether it was not there yet.
    pub fn insert(&mut self, number: u64) -> bool {
        let page = self.pages.entry(number / (64 * WORDS as u64)).or_insert_with(|| Box::new([0; WORDS]));
        let word = &mut page[(number / 64) as usize % WORDS];
        let bit = 1 << (number % 64);
        let new = *word & bit == 0;
        *word |= bit;
        self.len += u64::from(new);
        new
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_new_once() {
        let mut numbers = Numbers::default();
        assert!(numbers.is_empty());
        let all: Vec<u64> = (0..10_000).chain([u64::MAX, u64::MAX - 1, 1 << 40, (1 << 40) + 4096]).collect();
        assert!(all.iter().all(|number| numbers.insert(*number)));
        assert!(!all.iter().any(|number| numbers.insert(*number)));
        assert_eq!(numbers.len(), all.len() as u64);
        assert!(numbers.insert(10_000));
    }
}

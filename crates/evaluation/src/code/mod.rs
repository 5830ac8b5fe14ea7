//! How much code has to be trusted: that of a system itself, and what seals its packets and agrees on its keys.
//!
//! The two are told apart since systems draw the line elsewhere: one brings its ciphers, another has them of a library, a third of the kernel. So what is
//! compared is the sum, or the first alone, and never the one of these with the other of those.

mod lines;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use lines::count as count_lines;

/// The code that packets meet, part by part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// What was counted.
    pub parts: Vec<CodePart>,
    /// What has to be known of it besides, in words; may be empty.
    #[serde(default)]
    pub remark: String,
}

/// Lines of code of one origin, without comments, blank lines and tests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodePart {
    /// Which part, in words.
    pub what: String,
    /// Of what, with its version.
    pub of: String,
    /// Whether it is ciphers, hashes, curves, random numbers, or a protocol for keys that a library brings.
    #[serde(default)]
    pub cryptography: bool,
    /// Lines by language.
    pub lines: BTreeMap<String, u64>,
}

impl CodePart {
    /// Of all languages.
    pub fn total(&self) -> u64 {
        self.lines.values().fold(0, |sum, lines| sum.saturating_add(*lines))
    }
}

impl Code {
    /// Lines of the system itself.
    pub fn own(&self) -> u64 {
        self.sum(|part| !part.cryptography)
    }

    /// Lines with its cryptography.
    pub fn total(&self) -> u64 {
        self.sum(|_| true)
    }

    fn sum(&self, which: impl Fn(&CodePart) -> bool) -> u64 {
        self.parts.iter().filter(|part| which(part)).fold(0, |sum, part| sum.saturating_add(part.total()))
    }

    /// Lines by language, its cryptography among them.
    pub fn languages(&self) -> BTreeMap<&str, u64> {
        let mut all: BTreeMap<&str, u64> = BTreeMap::new();
        for (language, lines) in self.parts.iter().flat_map(|part| &part.lines) {
            let sum = all.entry(language).or_default();
            *sum = sum.saturating_add(*lines);
        }
        all
    }
}

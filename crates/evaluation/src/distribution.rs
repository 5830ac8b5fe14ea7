//! A whole distribution of times, not only a few of its points.
//!
//! Times are told apart as an HdrHistogram of nanoseconds with three digits does, up to a minute, and lie in memory as they do in the file: as a list of
//! values with their counts, which any reader can use without a decoder. So a file takes no more memory than in proportion to its size, however many
//! distributions it has.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest time it can tell from longer ones.
const MOST: u64 = 60_000_000_000;
/// How many entries a list may have: more than the histogram has buckets.
const ENTRIES: usize = 40_000;

/// Which times are one: of this histogram only the buckets' bounds are used.
static BUCKETS: LazyLock<Histogram<u8>> = LazyLock::new(|| {
    // Fails only where the bounds are the wrong way round or the digits above five.
    Histogram::new_with_bounds(1, MOST, 3).expect("constant bounds")
});

/// Times and how often each was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// The longest nanoseconds of a bucket, and how many times fell into it.
    counts: BTreeMap<u64, u64>,
}

impl Distribution {
    /// An empty one.
    pub fn new() -> Distribution {
        Distribution::default()
    }

    /// Enters a time. Those beyond a minute count as a minute, and nothing as a nanosecond.
    pub fn record(&mut self, time: Duration) {
        self.enter(u64::try_from(time.as_nanos()).unwrap_or(MOST), 1);
    }

    fn enter(&mut self, nanoseconds: u64, count: u64) {
        if count > 0 {
            let bucket = BUCKETS.highest_equivalent(nanoseconds.clamp(1, MOST)).min(MOST);
            let sum = self.counts.entry(bucket).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Distribution) {
        for (nanoseconds, count) in &other.counts {
            self.enter(*nanoseconds, *count);
        }
    }

    /// How many times were entered.
    pub fn len(&self) -> u64 {
        self.counts.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The time in seconds that a share of all, 0 to 1, did not exceed; none of an empty one.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let rank = (share * self.len() as f64).ceil() as u64;
        let mut below = 0_u64;
        let reaches = |(nanoseconds, count): (&u64, &u64)| {
            below = below.saturating_add(*count);
            (below >= rank).then_some(*nanoseconds as f64 / 1e9)
        };
        self.counts.iter().find_map(reaches)
    }
}

/// As it lies in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// Pairs of nanoseconds and a count.
    nanoseconds: Vec<(u64, u64)>,
}

impl Serialize for Distribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        List { nanoseconds: self.counts.iter().map(|(nanoseconds, count)| (*nanoseconds, *count)).collect() }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Distribution {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Distribution, D::Error> {
        use serde::de::Error;
        let list = List::deserialize(deserializer)?.nanoseconds;
        if list.len() > ENTRIES {
            return Err(D::Error::custom(format!("a distribution of {} values (at most {ENTRIES})", list.len())));
        }
        let mut it = Distribution::new();
        let mut total = 0_u64;
        for (nanoseconds, count) in list {
            // The histogram rounds a value up to the end of its bucket, which lies beyond the limit for the last.
            if nanoseconds == 0 || nanoseconds > MOST {
                return Err(D::Error::custom(format!("a time of {nanoseconds} ns (1 to {MOST})")));
            }
            total = total
                .checked_add(count)
                .filter(|total| *total <= 1 << 53)
                .ok_or_else(|| D::Error::custom("more times in a distribution than can be counted"))?;
            it.enter(nanoseconds, count);
        }
        Ok(it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_quantiles() {
        let mut it = Distribution::new();
        assert_eq!((it.quantile(0.5), it.len()), (None, 0));
        for micros in 1..=1000 {
            it.record(Duration::from_micros(micros));
        }
        let near = |share: f64, micros: f64| {
            let found = it.quantile(share).unwrap() * 1e6;
            assert!((found / micros - 1.0).abs() < 2e-3, "{share}: {found}");
        };
        near(0.5, 500.0);
        near(0.99, 990.0);
        near(1.0, 1000.0);
    }

    #[test]
    fn comes_back_from_the_file() {
        let mut it = Distribution::new();
        for time in [Duration::ZERO, Duration::from_nanos(1_234_567), Duration::from_secs(3600)] {
            it.record(time);
            it.record(time);
        }
        let text = serde_json::to_string(&it).unwrap();
        let back: Distribution = serde_json::from_str(&text).unwrap();
        assert_eq!((back.len(), &back), (6, &it), "{text}");
        let mut twice = back.clone();
        twice.add(&it);
        assert_eq!(twice.len(), 12);
        assert!(twice != it);
    }

    #[test]
    fn many_take_little_memory() {
        // As dense histograms they would be 22 GB.
        let many: Vec<Distribution> = (0..100_000)
            .map(|_| serde_json::from_str(r#"{"nanoseconds":[[1000,1],[60000000000,1]]}"#).unwrap())
            .collect();
        assert!(many.iter().all(|it| it.counts.len() == 2 && it.len() == 2));
    }

    #[test]
    fn refuses_what_cannot_be() {
        for (text, said) in [
            (r#"{"nanoseconds":[[0,1]]}"#, "a time of 0 ns"),
            (r#"{"nanoseconds":[[60000000001,1]]}"#, "a time of 60000000001 ns"),
            (r#"{"nanoseconds":[[1,9007199254740992],[2,1]]}"#, "more times"),
            (r#"{"nanoseconds":[[1,18446744073709551615]]}"#, "more times"),
            (r#"{"seconds":[]}"#, "unknown field"),
        ] {
            let error = serde_json::from_str::<Distribution>(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}

//! A whole distribution of times, not only a few of its points.
//!
//! In memory it is an HdrHistogram of nanoseconds with three digits, up to a minute; in the file it is a list of values with their
//! counts, which any reader can use without a decoder. Reading such a list takes no more memory than the histogram's fixed size.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest time it can tell from longer ones.
const MOST: u64 = 60_000_000_000;
/// How many entries a list may have: more than the histogram has buckets.
const ENTRIES: usize = 40_000;

/// Times and how often each was seen.
#[derive(Clone, Debug)]
pub struct Distribution(Histogram<u64>);

impl Distribution {
    /// An empty one.
    pub fn new() -> Distribution {
        // Fails only where the bounds are the wrong way round or the digits above five.
        Distribution(Histogram::new_with_bounds(1, MOST, 3).expect("constant bounds"))
    }

    /// Enters a time. Those beyond a minute count as a minute, and nothing as a nanosecond.
    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(MOST).clamp(1, MOST));
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Distribution) {
        for (nanoseconds, count) in other.entries() {
            self.0.saturating_record_n(nanoseconds, count);
        }
    }

    /// How many times were entered.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time in seconds that a share of all, 0 to 1, did not exceed; none of an empty one.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        (!self.is_empty()).then(|| self.0.value_at_quantile(share) as f64 / 1e9)
    }

    /// The arithmetic mean in seconds; none of an empty one.
    pub fn mean(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.0.mean() / 1e9)
    }

    /// Nanoseconds and how often, from the shortest.
    fn entries(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter_recorded().map(|it| (it.value_iterated_to().min(MOST), it.count_at_value()))
    }
}

impl Default for Distribution {
    fn default() -> Distribution {
        Distribution::new()
    }
}

impl PartialEq for Distribution {
    fn eq(&self, other: &Distribution) -> bool {
        self.entries().eq(other.entries())
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
        List { nanoseconds: self.entries().collect() }.serialize(serializer)
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
            it.0.saturating_record_n(nanoseconds, count);
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
        assert_eq!((it.quantile(0.5), it.mean(), it.len()), (None, None, 0));
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
        assert!((it.mean().unwrap() * 1e6 / 500.5 - 1.0).abs() < 2e-3);
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

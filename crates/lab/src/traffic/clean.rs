//! Clean rates: how many datagrams a second pass with hardly any loss, found by halving what is between too few and too many.

use std::time::Duration;

use crate::LabError;

/// Up to this share of lost datagrams a rate counts as clean.
pub const CLEAN: f64 = 0.01;
/// How long each rate is to be tried.
pub const PROBE: Duration = Duration::from_millis(400);
/// So much of a rate has to be sent for it to count at all.
const REACHED: f64 = 0.95;
/// A loss up to this may be due to what else the machine does in that moment, and the rate gets a second try.
const DOUBTFUL: f64 = 0.1;
/// Between these rates, in datagrams a second, the clean one is looked for.
const RATES: (f64, f64) = (4e3, 1e6);

/// What came of a rate that was tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Nearly all of it arrived: so many datagrams a second.
    Clean(f64),
    /// Somewhat too few did.
    Doubtful,
    /// The system cannot, or the sender could not.
    Unclean,
}

impl Verdict {
    /// Of a rate, what was sent and what arrived of it, all in datagrams a second.
    pub fn of(rate: f64, offered: f64, arrived: f64) -> Verdict {
        let loss = 1.0 - arrived / offered.max(1e-9);
        match offered >= rate * REACHED {
            true if loss <= CLEAN => Verdict::Clean(arrived),
            true if loss <= DOUBTFUL => Verdict::Doubtful,
            _ => Verdict::Unclean,
        }
    }
}

/// The highest clean rate between 4000 and a million datagrams a second, 0 where none is: what arrived of it. Each of `probes` takes the root of the ratio
/// of the lowest rate that is not clean to the highest that is; the eighth makes a difference of 2 %.
///
/// # Errors
/// Those of `try_rate`.
pub fn highest(probes: u32, mut try_rate: impl FnMut(f64) -> Result<Verdict, LabError>) -> Result<f64, LabError> {
    let (mut low, mut high) = RATES;
    let mut best = 0.0;
    for _ in 0..probes {
        let middle = (low * high).sqrt();
        match twice(|| try_rate(middle))? {
            Verdict::Clean(arrived) => (low, best) = (middle, arrived),
            _ => high = middle,
        }
    }
    Ok(best)
}

/// A second look at what is in doubt.
///
/// # Errors
/// Those of `look`.
pub fn twice(mut look: impl FnMut() -> Result<Verdict, LabError>) -> Result<Verdict, LabError> {
    match look()? {
        Verdict::Doubtful => look(),
        verdict => Ok(verdict),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clean_rate_is_found() {
        for limit in [3e3, 5e3, 75e3, 149e3, 990e3] {
            let found = highest(8, |rate| Ok(Verdict::of(rate, rate, rate.min(limit)))).unwrap();
            if limit < RATES.0 {
                assert_eq!(found, 0.0);
            } else {
                assert!((limit * 0.975..=limit).contains(&found), "{found} of {limit}");
            }
        }
    }

    #[test]
    fn what_is_in_doubt_is_tried_twice() {
        let mut tries = 0;
        let found = highest(8, |rate| {
            if rate > 100e3 {
                return Ok(Verdict::Unclean);
            }
            tries += 1;
            Ok(if tries % 2 == 0 { Verdict::Clean(rate) } else { Verdict::Doubtful })
        });
        assert!(found.unwrap() > 97e3 && tries > 0 && tries % 2 == 0, "{tries}");
        let failed = highest(8, |_| Err(LabError::Interrupted));
        assert!(matches!(failed, Err(LabError::Interrupted)));
    }

    #[test]
    fn a_rate_that_was_not_reached_does_not_count() {
        assert_eq!(Verdict::of(100.0, 94.0, 94.0), Verdict::Unclean);
        assert_eq!(Verdict::of(100.0, 100.0, 99.5), Verdict::Clean(99.5));
        assert_eq!(Verdict::of(100.0, 100.0, 95.0), Verdict::Doubtful);
    }
}

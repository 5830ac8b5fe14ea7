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
/// The first step away from the rate that was expected.
const STEP: f64 = 1.15;
/// Between these rates, in datagrams a second, the clean one is looked for.
const RATES: (f64, f64) = (4e3, 1e6);

/// What came of a rate that was tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Nearly all of it arrived: so many datagrams a second.
    Clean(f64),
    /// Somewhat too few did.
    Doubtful,
    /// The system cannot.
    Unclean,
    /// The sender could not.
    Unsent,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    /// The highest clean rate: what arrived of it, in datagrams a second; 0 where none was.
    pub rate: f64,
    /// By which factor the next higher rate that was tried and was not clean is higher than this one.
    pub factor: f64,
    /// Whether that one could not be sent, or none was tried: then the system may be able to do more.
    pub bounded: bool,
}

impl Verdict {
    /// Of a rate, what was sent and what arrived of it, all in datagrams a second.
    pub fn of(rate: f64, offered: f64, arrived: f64) -> Verdict {
        let loss = 1.0 - arrived / offered.max(1e-9);
        match offered >= rate * REACHED {
            true if loss <= CLEAN => Verdict::Clean(arrived),
            true if loss <= DOUBTFUL => Verdict::Doubtful,
            true => Verdict::Unclean,
            false => Verdict::Unsent,
        }
    }
}

/// Looks for the highest clean rate between 4000 and a million datagrams a second, with so many `probes`: first around the rate that is `expected`, in steps
/// that grow, until one is clean and another is not; then each takes the root of their ratio. Where nothing is expected, it begins in the middle.
///
/// # Errors
/// Those of `try_rate`.
pub fn highest(
    probes: u32,
    expected: Option<f64>,
    mut try_rate: impl FnMut(f64) -> Result<Verdict, LabError>,
) -> Result<Found, LabError> {
    let (mut low, mut high) = RATES;
    let (mut best, mut bounded) = (0.0, true);
    let mut next = expected.map_or((low * high).sqrt(), |rate| rate.clamp(low * STEP, high / STEP));
    let mut step = if expected.is_some() { STEP } else { high / low };
    for _ in 0..probes {
        match twice(|| try_rate(next))? {
            Verdict::Clean(arrived) => (low, best) = (next, arrived),
            verdict => (high, bounded) = (next, verdict == Verdict::Unsent),
        }
        let middle = (low * high).sqrt();
        next = match (low == RATES.0, high == RATES.1) {
            (true, _) => (high / step).max(middle),
            (_, true) => (low * step).min(middle),
            _ => middle,
        };
        step *= step;
    }
    Ok(Found { rate: best, factor: high / low, bounded: bounded && best > 0.0 })
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
            let found = highest(8, None, |rate| Ok(Verdict::of(rate, rate, rate.min(limit)))).unwrap();
            if limit < RATES.0 {
                assert_eq!((found.rate, found.bounded), (0.0, false));
            } else {
                assert!(
                    (limit / found.factor..=limit).contains(&found.rate) && found.factor < 1.025,
                    "{found:?} of {limit}"
                );
            }
        }
    }

    #[test]
    fn what_is_expected_saves_probes() {
        for (limit, expected) in [(75e3, 80e3), (75e3, 60e3), (149e3, 220e3), (30e3, 31e3)] {
            let found = highest(6, Some(expected), |rate| Ok(Verdict::of(rate, rate, rate.min(limit)))).unwrap();
            assert!(
                (limit / found.factor..=limit).contains(&found.rate) && found.factor < 1.05,
                "{found:?} of {limit}"
            );
        }
        // However wrong it is.
        let found = highest(12, Some(900e3), |rate| Ok(Verdict::of(rate, rate, rate.min(5e3)))).unwrap();
        assert!((4.8e3..=5e3).contains(&found.rate), "{found:?}");
    }

    #[test]
    fn a_rate_that_the_sender_bounds_is_told() {
        let sender = |rate: f64| Ok(Verdict::of(rate, rate.min(200e3), rate.min(200e3)));
        assert!(highest(8, None, sender).unwrap().bounded);
        assert!(highest(8, None, |rate| Ok(Verdict::of(rate, rate, rate))).unwrap().bounded);
        assert!(!highest(8, None, |rate| Ok(Verdict::of(rate, rate, rate.min(200e3)))).unwrap().bounded);
    }

    #[test]
    fn what_is_in_doubt_is_tried_twice() {
        let mut tries = 0;
        let found = highest(8, None, |rate| {
            if rate > 100e3 {
                return Ok(Verdict::Unclean);
            }
            tries += 1;
            Ok(if tries % 2 == 0 { Verdict::Clean(rate) } else { Verdict::Doubtful })
        });
        assert!(found.unwrap().rate > 97e3 && tries > 0 && tries % 2 == 0, "{tries}");
        let failed = highest(8, None, |_| Err(LabError::Interrupted));
        assert!(matches!(failed, Err(LabError::Interrupted)));
    }

    #[test]
    fn a_rate_that_was_not_reached_does_not_count() {
        assert_eq!(Verdict::of(100.0, 94.0, 94.0), Verdict::Unsent);
        assert_eq!(Verdict::of(100.0, 100.0, 99.5), Verdict::Clean(99.5));
        assert_eq!(Verdict::of(100.0, 100.0, 95.0), Verdict::Doubtful);
    }
}

//! Middles, intervals and ratios of a few measurements.
//!
//! Measurements of a machine are few and anything but normal: now and then one is far off because something else ran. So everything
//! here is about medians, and nothing is assumed of how values are spread.
//!
//! An interval says where the median lies, and goes from one of the sorted values to another as far from the other end (H. David,
//! H. Nagaraja, "Order Statistics", 2003, section 7.1). Each value falls on either side of the median like a coin, so how sure that is is known
//! exactly for every number of values: from the `k`th least to the `k`th most of `n` it is `1 − 2 P(B < k)` with `B` heads among `n`.
//! The narrowest that is 95 % sure is taken; with five values and fewer there is none, and it goes from the least to the most: 93.75 % with
//! five, 87.5 % with four, 75 % with three. There is no chance in it: the same values give the same interval.

use std::collections::BTreeMap;

/// How sure an interval is to be, where there are values enough.
const SURE: f64 = 0.95;

/// The middle of some values, and where the true middle may lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The lower end.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// The upper end.
    pub high: f64,
    /// Of how many values.
    pub count: usize,
    /// How sure the interval is, 0 to 1: 0 with one value, which says nothing about others.
    pub confidence: f64,
}

impl Estimate {
    /// That of some values in any order; none of none.
    pub fn of(values: &[f64]) -> Option<Estimate> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (out, confidence) = width(sorted.len())?;
        let median = sorted_quantile(&sorted, 0.5)?;
        let (low, high) = (sorted[out], sorted[sorted.len() - 1 - out]);
        Some(Estimate { low, median, high, count: sorted.len(), confidence })
    }

    /// Whether both intervals have a value in common.
    pub fn overlaps(&self, other: &Estimate) -> bool {
        self.low <= other.high && other.low <= self.high
    }
}

/// How many of `count` values are left out of their interval at each end, and how sure it is; none of none.
pub fn width(count: usize) -> Option<(usize, f64)> {
    // The chance that the median lies below the least, above which `out` values are left out, and the same at the other end.
    let mut term = 0.5_f64.powi(i32::try_from(count).ok().filter(|count| *count > 0)?);
    let mut tail = term;
    let mut out = 0;
    let mut confidence = (1.0 - 2.0 * tail).max(0.0);
    // For so many that the chance of a single one underflows, the sum starts beyond what a number can hold: the least to the most.
    while term > 0.0 {
        term *= (count - out) as f64 / (out + 1) as f64;
        tail += term;
        if 1.0 - 2.0 * tail < SURE {
            break;
        }
        out += 1;
        confidence = 1.0 - 2.0 * tail;
    }
    Some((out, confidence))
}

/// The chance that the intervals of so many values and so many others have nothing in common although all are of the same kind.
pub fn apart(one: usize, other: usize) -> f64 {
    let (Some((left, _)), Some((right, _))) = (width(one), width(other)) else { return 1.0 };
    // All orders of both are as likely. The upper end of the first lies below the lower end of the second, which is the `at`th, where at least
    // `least` of the first are below that.
    let below = |n: usize, m: usize, least: usize, at: usize| -> f64 {
        (least..=n).map(|j| (choose(j + at - 1, j) + choose(n - j + m - at, n - j) - choose(n + m, n)).exp()).sum()
    };
    below(one, other, one - left, right + 1) + below(other, one, other - right, left + 1)
}

/// The logarithm of in how many ways some can be chosen of some.
fn choose(of: usize, some: usize) -> f64 {
    (1..=some.min(of - some)).map(|i| ((of + 1 - i) as f64 / i as f64).ln()).sum()
}

/// The middle of some values in any order.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The value that a share of all, 0 to 1, lies below: between two of them in proportion (R. Hyndman, Y. Fan, "Sample Quantiles in
/// Statistical Packages", 1996, definition 7, as R and NumPy have it).
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted_quantile(&sorted, share)
}

fn sorted_quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = share.clamp(0.0, 1.0) * last as f64;
    let (below, part) = (at.floor() as usize, at.fract());
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    // Both may be infinite, and nothing lies between.
    Some(if part == 0.0 || low == high { low } else { low + (high - low) * part })
}

/// What one has for each of another in each round that has both, and the middle of that. `one` and `other` are values by round, from 0 up and
/// maybe infinite. Of two that are equal each has one for one, be they nothing; of nothing any other has infinitely many.
pub fn paired(one: &[(u32, f64)], other: &[(u32, f64)]) -> Option<Estimate> {
    let others: BTreeMap<u32, f64> = other.iter().copied().collect();
    let ratio = |(round, value): &(u32, f64)| {
        let other = others.get(round)?;
        Some(if value == other { 1.0 } else { value / other })
    };
    Estimate::of(&one.iter().filter_map(ratio).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::{RngCore, SeedableRng};

    use super::*;

    fn near(found: f64, known: f64, within: f64) {
        assert!((found - known).abs() <= within, "{found} for {known}");
    }

    /// Lifetimes of mice: Efron and Tibshirani, table 2.1.
    const TREATED: [f64; 7] = [94.0, 197.0, 16.0, 38.0, 99.0, 141.0, 23.0];
    const CONTROL: [f64; 9] = [52.0, 104.0, 146.0, 10.0, 51.0, 30.0, 40.0, 27.0, 46.0];

    #[test]
    fn quantiles_are_those_of_others() {
        assert_eq!((median(&TREATED), median(&CONTROL), median(&[])), (Some(94.0), Some(46.0), None));
        // R's `quantile(mtcars$mpg)`: 10.400 15.425 19.200 22.800 33.900.
        let mpg = [
            21.0, 21.0, 22.8, 21.4, 18.7, 18.1, 14.3, 24.4, 22.8, 19.2, 17.8, 16.4, 17.3, 15.2, 10.4, 10.4, 14.7, 32.4,
            30.4, 33.9, 21.5, 15.5, 15.2, 13.3, 19.2, 27.3, 26.0, 30.4, 15.8, 19.7, 15.0, 21.4,
        ];
        for (share, known) in [(0.0, 10.4), (0.25, 15.425), (0.5, 19.2), (0.75, 22.8), (1.0, 33.9)] {
            near(quantile(&mpg, share).unwrap(), known, 1e-9);
        }
    }

    /// For one to fifteen values, by hand from Pascal's triangle: how many are left out at each end, and of `2^(n-1)` how many cases miss.
    #[test]
    fn intervals_are_as_sure_as_they_say() {
        let known = [
            (0, 1),
            (0, 1),
            (0, 1),
            (0, 1),
            (0, 1),
            (0, 1),
            (0, 1),
            (0, 1),
            (1, 10),
            (1, 11),
            (1, 12),
            (2, 79),
            (2, 92),
            (2, 106),
            (3, 576),
        ];
        for (at, (out, missed)) in known.into_iter().enumerate() {
            let count = at + 1;
            let sure = 1.0 - f64::from(missed) / 2_f64.powi(at as i32);
            let found = width(count).unwrap();
            assert_eq!(found.0, out, "{count}");
            near(found.1, sure, 1e-12);
            assert!(count < 6 || found.1 >= 0.95, "{count}: {found:?}");
            let values: Vec<f64> = (0..count).map(|value| value as f64).collect();
            let estimate = Estimate::of(&values).unwrap();
            assert_eq!((estimate.low, estimate.high), (out as f64, (at - out) as f64));
            near(estimate.confidence, sure, 1e-12);
        }
        let percent: Vec<_> = (5..=9).map(|count| format!("{:.1}", width(count).unwrap().1 * 100.0)).collect();
        assert_eq!(percent, ["93.8", "96.9", "98.4", "99.2", "96.1"]);
        // R's `qbinom(0.025, 99, 0.5)` is 40.
        assert_eq!(width(99).unwrap().0, 39);
        assert_eq!(width(0), None);
        let found = Estimate::of(&TREATED).unwrap();
        assert_eq!((found.low, found.median, found.high, found.count), (16.0, 94.0, 197.0, 7));
    }

    /// Two of three lie apart in 2 of 20 orders, of five in 2 of 252.
    #[test]
    fn chance_alone_parts_few() {
        near(apart(3, 3), 0.1, 1e-12);
        near(apart(5, 5), 2.0 / 252.0, 1e-12);
        near(apart(1, 2), 2.0 / 3.0, 1e-12);
        // By drawing, where values are left out at the ends.
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut some = |count: usize| -> Estimate {
            Estimate::of(&(0..count).map(|_| random.next_u64() as f64).collect::<Vec<_>>()).unwrap()
        };
        let hits = (0..200_000).filter(|_| !some(9).overlaps(&some(10))).count();
        near(hits as f64 / 200_000.0, apart(9, 10), 5e-4);
    }

    #[test]
    fn few_values_promise_little() {
        assert_eq!(Estimate::of(&[]), None);
        let one = Estimate::of(&[4.0]).unwrap();
        assert_eq!((one.low, one.high, one.confidence), (4.0, 4.0, 0.0));
        let three = Estimate::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((three.low, three.median, three.high, three.confidence), (1.0, 2.0, 3.0, 0.75));
        assert_eq!(Estimate::of(&[5.0, 4.0, 3.0, 2.0, 1.0]).unwrap().confidence, 0.9375);
    }

    /// The intervals hold what they promise: of many samples, the share whose interval has the true median.
    #[test]
    fn intervals_cover_the_truth() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        for count in 2..=15 {
            let trials = 4000;
            let sure = width(count).unwrap().1;
            let hits = (0..trials)
                .filter(|_| {
                    // Skewed, as times are: e^u, whose median is e^0.5.
                    let values: Vec<f64> =
                        (0..count).map(|_| (random.next_u64() as f64 / u64::MAX as f64).exp()).collect();
                    let it = Estimate::of(&values).unwrap();
                    (it.low..=it.high).contains(&0.5_f64.exp())
                })
                .count();
            // Four times what chance makes of so many trials.
            near(hits as f64 / f64::from(trials), sure, 4.0 * (sure * (1.0 - sure) / f64::from(trials)).sqrt());
        }
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let one = [(1, 9.0), (2, 7.0), (3, 8.0), (5, 1.0)];
        let found = paired(&one, &[(3, 2.0), (1, 1.0), (4, 1.0)]).unwrap();
        // 9/1 and 8/2: 2, 4 and 5 are only in one.
        assert_eq!((found.low, found.median, found.high, found.count), (4.0, 6.5, 9.0, 2));
        assert_eq!(paired(&one, &[]), None);
    }

    #[test]
    fn nothing_and_what_has_no_end_have_their_place() {
        let ratio = |one: f64, other: f64| paired(&[(1, one)], &[(1, other)]).unwrap().median;
        assert_eq!((ratio(0.0, 0.0), ratio(3.0, 0.0), ratio(0.0, 3.0)), (1.0, f64::INFINITY, 0.0));
        let end = f64::INFINITY;
        assert_eq!((ratio(end, end), ratio(end, 2.0), ratio(2.0, end)), (1.0, end, 0.0));
        let found = Estimate::of(&[end, 1.0, end, end]).unwrap();
        assert_eq!((found.low, found.median, found.high), (1.0, end, end));
    }
}

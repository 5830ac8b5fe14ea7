//! Middles, intervals and ratios of a few measurements.
//!
//! Measurements of a machine are few and anything but normal: now and then one is far off because something else ran. So everything
//! here is about medians, and nothing is assumed of how values are spread.
//!
//! An interval says where the median lies. With six values and more it is the percentile bootstrap (B. Efron, R. Tibshirani, "An
//! Introduction to the Bootstrap", 1993, chapter 13) at 95 %. With fewer a bootstrap promises too much, and the interval goes from the
//! least to the most: the median lies outside only if all values fell on one side of it, which is known exactly, `2^(1-n)`: 93.75 % for
//! five values, 75 % for three. Chance is drawn from a seed, so the same run gives the same report.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// Resamples of a bootstrap.
pub const RESAMPLES: usize = 2000;
/// From how many values on the bootstrap is used.
const ENOUGH: usize = 6;

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
    pub fn of(values: &[f64], seed: u64) -> Option<Estimate> {
        let middle = median(values)?;
        let count = values.len();
        if count < ENOUGH {
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let confidence = 1.0 - 0.5_f64.powi(count as i32 - 1);
            return Some(Estimate { low, median: middle, high, count, confidence });
        }
        let mut draw = Draw::new(seed);
        let mut medians: Vec<f64> =
            (0..RESAMPLES).filter_map(|_| median(&draw.some(count).map(|at| values[at]).collect::<Vec<_>>())).collect();
        medians.sort_by(f64::total_cmp);
        let (low, high) = (sorted_quantile(&medians, 0.025)?, sorted_quantile(&medians, 0.975)?);
        Some(Estimate { low, median: middle, high, count, confidence: 0.95 })
    }

    /// Whether both intervals have a value in common.
    pub fn overlaps(&self, other: &Estimate) -> bool {
        self.low <= other.high && other.low <= self.high
    }
}

/// Draws with replacement, the same for the same seed.
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// From a seed.
    pub fn new(seed: u64) -> Draw {
        Draw(ChaCha8Rng::seed_from_u64(seed))
    }

    /// As many as there are, each one of them.
    pub fn some(&mut self, count: usize) -> impl Iterator<Item = usize> + '_ {
        // The high half of the product is below `count`, and even but for one part in 2^64.
        (0..count).map(move |_| ((u128::from(self.0.next_u64()) * count as u128) >> 64) as usize)
    }
}

/// A seed of its own for each of several things with names (FNV-1a).
pub fn seed(base: u64, names: &[&str]) -> u64 {
    let mut hash = base ^ 0xcbf2_9ce4_8422_2325;
    for byte in names.iter().flat_map(|name| name.bytes().chain([0xff])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    hash
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
    Some(if part == 0.0 { low } else { low + (high - low) * part })
}

/// What one has for each of another in each round that has both, and the middle of that. `one` and `other` are values by round.
pub fn paired<'a>(one: impl IntoIterator<Item = &'a (u32, f64)>, other: &[(u32, f64)], seed: u64) -> Option<Estimate> {
    let ratio = |(round, value): &(u32, f64)| {
        let (_, other) = other.iter().find(|(at, _)| at == round)?;
        (*other > 0.0).then(|| value / other)
    };
    Estimate::of(&one.into_iter().filter_map(ratio).collect::<Vec<_>>(), seed)
}

#[cfg(test)]
mod tests {
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

    /// Their table 2.2: the standard error of the mean of the treated is 23.36 and that of the median 37.83, with resamples without
    /// end.
    #[test]
    fn resamples_spread_as_published() {
        let mut draw = Draw::new(1);
        let (mut means, mut medians) = (Vec::new(), Vec::new());
        for _ in 0..40_000 {
            let some: Vec<_> = draw.some(TREATED.len()).map(|at| TREATED[at]).collect();
            means.push(some.iter().sum::<f64>() / some.len() as f64);
            medians.push(median(&some).unwrap());
        }
        let spread = |list: &[f64]| {
            let mean = list.iter().sum::<f64>() / list.len() as f64;
            (list.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / list.len() as f64).sqrt()
        };
        near(spread(&means), 23.36, 0.25);
        near(spread(&medians), 37.83, 0.4);
    }

    /// The bootstrap's distribution of the median of seven is known exactly: the chance that it is the least is 1.0 %, that it is one of
    /// the least two 10.8 %. So 2.5 % lie below the second, at either side.
    #[test]
    fn the_interval_is_the_one_that_can_be_reckoned() {
        let found = Estimate::of(&TREATED, 3).unwrap();
        assert_eq!((found.low, found.median, found.high), (23.0, 94.0, 141.0));
        assert_eq!((found.count, found.confidence), (7, 0.95));
        assert_eq!(Estimate::of(&TREATED, 3), Some(found));
    }

    #[test]
    fn few_values_promise_little() {
        assert_eq!(Estimate::of(&[], 1), None);
        let one = Estimate::of(&[4.0], 1).unwrap();
        assert_eq!((one.low, one.high, one.confidence), (4.0, 4.0, 0.0));
        let three = Estimate::of(&[3.0, 1.0, 2.0], 1).unwrap();
        assert_eq!((three.low, three.median, three.high, three.confidence), (1.0, 2.0, 3.0, 0.75));
        assert_eq!(Estimate::of(&[5.0, 4.0, 3.0, 2.0, 1.0], 1).unwrap().confidence, 0.9375);
    }

    /// The intervals hold what they promise: of many samples, the share whose interval has the true median.
    #[test]
    fn intervals_cover_the_truth() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        for (count, least, most) in [(3, 0.70, 0.80), (5, 0.91, 0.965), (9, 0.90, 0.99), (15, 0.90, 0.99)] {
            let trials = 600;
            let hits = (0..trials)
                .filter(|trial| {
                    // Skewed, as times are: e^u, whose median is e^0.5.
                    let values: Vec<f64> =
                        (0..count).map(|_| (random.next_u64() as f64 / u64::MAX as f64).exp()).collect();
                    let it = Estimate::of(&values, *trial).unwrap();
                    (it.low..=it.high).contains(&0.5_f64.exp())
                })
                .count();
            let share = hits as f64 / trials as f64;
            assert!((least..=most).contains(&share), "{count}: {share}");
        }
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let one = [(1, 9.0), (2, 7.0), (3, 8.0), (5, 1.0)];
        let other = [(3, 2.0), (1, 1.0), (4, 1.0), (2, 0.0)];
        let found = paired(&one, &other, 1).unwrap();
        // 9/1 and 8/2: round 2 divides by nothing, 4 and 5 are only in one.
        assert_eq!((found.low, found.median, found.high, found.count), (4.0, 6.5, 9.0, 2));
        assert_eq!(paired(&one, &[], 1), None);
        assert_ne!(seed(1, &["ab", "c"]), seed(1, &["a", "bc"]));
    }
}

//! Where a value lies between two ends, and which round numbers lie between.

use crate::unit::{Unit, plain};

/// From one end to the other, in equal steps or in equal factors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    low: f64,
    high: f64,
    log: bool,
    /// How many base units a mark's number counts.
    size: f64,
}

/// More marks than this no scale has.
const MARKS: u32 = 20;
/// Values that differ by this much are drawn in equal factors.
const WIDE: f64 = 40.0;

impl Scale {
    /// From zero to a round number that none of the values exceeds.
    pub fn linear(values: impl Iterator<Item = f64>, size: f64) -> Scale {
        let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        let step = step(most / size) * size;
        let high = if most > 0.0 { (most / step).ceil() * step } else { size };
        // Values near the end of what a number holds.
        let high = if high.is_finite() { high } else { f64::MAX };
        Scale { low: 0.0, high, log: false, size }
    }

    /// In equal factors, around all values above zero.
    pub fn log(values: impl Iterator<Item = f64>, size: f64) -> Scale {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (size, size * 10.0);
        }
        // A little room, so that nothing lies on the frame.
        let room = ((high / low).powf(0.04)).max(1.05);
        Scale { low: low / room, high: high * room, log: true, size }
    }

    /// Of a picture's upward side: in equal factors where the values are far apart, else from zero. Also the unit's name.
    pub fn of(values: &[f64], unit: Unit) -> (Scale, &'static str) {
        let values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        let most = values.iter().copied().fold(0.0, f64::max);
        let least = values.iter().copied().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
        let (size, name) = unit.scale(most);
        if most / least > WIDE {
            // In the middle of both, so that neither end has long numbers.
            let (size, name) = unit.scale((most * least).sqrt());
            return (Scale::log(values.iter().copied(), size), name);
        }
        (Scale::linear(values.iter().copied(), size), name)
    }

    /// In equal factors, exactly from one end to the other.
    pub fn exactly(low: f64, high: f64, log: bool) -> Scale {
        Scale { low, high, log, size: 1.0 }
    }

    /// Where a value lies, 0 to 1; what is outside lies on the end.
    pub fn part(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) }
    }

    /// The highest value.
    pub fn high(&self) -> f64 {
        self.high
    }

    /// Round values with their numbers.
    pub fn marks(&self) -> Vec<(f64, String)> {
        let (low, high) = (self.low / self.size, self.high / self.size);
        let values: Vec<f64> = if self.log {
            let decades = (high / low).log10();
            let steps: &[f64] = match decades {
                wide if wide > 3.2 => &[1.0],
                some if some > 0.9 => &[1.0, 2.0, 5.0],
                _ => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
            };
            // No number has powers beyond these; the ends may be zero or infinite.
            let power = |value: f64| (value.clamp(-308.0, 308.0)) as i32;
            let powers = power(low.log10().floor())..=power(high.log10().ceil());
            let all = powers.flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
            all.filter(|value| (low..=high).contains(value)).collect()
        } else {
            let step = step(high);
            // Five or so, whatever the numbers are.
            (0..=((high / step).round() as u32).min(MARKS)).map(|number| f64::from(number) * step).collect()
        };
        values.into_iter().map(|value| (value * self.size, plain(value))).collect()
    }
}

/// Between marks, so that there are four or five up to a value.
fn step(most: f64) -> f64 {
    if most <= 0.0 || !most.is_finite() {
        return 1.0;
    }
    let unit = 10_f64.powf((most / 5.0).log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|step| step * unit)
        .find(|step| most / step <= 5.0 + 1e-9)
        .unwrap_or(unit * 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(scale: &Scale) -> Vec<String> {
        scale.marks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn marks_are_round_and_few() {
        let linear = |most: f64, size: f64| numbers(&Scale::linear([most].into_iter(), size));
        assert_eq!(linear(9.6e9, 1e9), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(linear(1.1, 1.0), ["0", "0.25", "0.5", "0.75", "1", "1.25"]);
        assert_eq!(linear(0.0, 1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        let log = |low: f64, high: f64| numbers(&Scale::log([low, high].into_iter(), 1.0));
        assert_eq!(log(1.0, 1e5), ["1", "10", "100", "1000", "10000", "100000"]);
        assert_eq!(log(12.0, 240.0), ["20", "50", "100", "200"]);
        assert_eq!(log(30.0, 60.0), ["30", "40", "50", "60"]);
    }

    #[test]
    fn no_value_makes_marks_without_end() {
        for most in [1.79e308, 1e18, 1e-300, f64::MIN_POSITIVE] {
            assert!(Scale::linear([most].into_iter(), 1e9).marks().len() <= 21, "{most}");
            assert!(Scale::log([1e-300, most].into_iter(), 1.0).marks().len() < 1000, "{most}");
        }
        let (scale, _) = Scale::of(&[1.0, f64::INFINITY], Unit::Count);
        assert_eq!((scale.high(), scale.part(f64::INFINITY)), (1.0, 1.0));
    }

    #[test]
    fn values_lie_between_the_ends() {
        let scale = Scale::linear([8.0].into_iter(), 1.0);
        assert_eq!((scale.part(0.0), scale.part(4.0), scale.part(99.0)), (0.0, 0.5, 1.0));
        let scale = Scale::exactly(1.0, 64.0, true);
        assert_eq!((scale.part(8.0), scale.part(0.0)), (0.5, 0.0));
        assert_eq!(Scale::of(&[1.0, 100.0], Unit::Count).0.part(0.0), 0.0);
        assert!(Scale::of(&[], Unit::Count).0.part(1.0).is_finite());
    }
}

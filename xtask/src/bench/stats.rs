//! Middles and spreads of a handful of figures.

use serde_json::{Value, json};

/// What the rounds found of one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The least.
    pub low: f64,
    /// The middle.
    pub median: f64,
    /// The most.
    pub high: f64,
    /// Of how many.
    pub count: usize,
}

impl Spread {
    /// That of a list, in any order; none of an empty one.
    pub fn of(list: &[f64]) -> Option<Spread> {
        let median = median(list.to_vec())?;
        let low = list.iter().copied().fold(f64::INFINITY, f64::min);
        let high = list.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some(Spread { low, median, high, count: list.len() })
    }

    /// `median (low–high)`, or the one figure that there is.
    pub fn text(&self, digits: usize) -> String {
        let Spread { low, median, high, count } = *self;
        if count < 2 {
            format!("{median:.digits$}")
        } else {
            format!("{median:.digits$} ({low:.digits$}–{high:.digits$})")
        }
    }

    /// For the JSON.
    pub fn json(&self) -> Value {
        json!({ "median": self.median, "min": self.low, "max": self.high, "count": self.count })
    }
}

/// The middle of a list, in any order.
pub fn median(mut list: Vec<f64>) -> Option<f64> {
    list.sort_by(f64::total_cmp);
    let middle = list.len() / 2;
    let upper = *list.get(middle)?;
    if list.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*list.get(middle.checked_sub(1)?)?, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn spreads() {
        assert_eq!(Spread::of(&[]), None);
        let spread = Spread::of(&[3.0, 1.0, 2.25]).unwrap();
        assert_eq!(spread, Spread { low: 1.0, median: 2.25, high: 3.0, count: 3 });
        assert_eq!(spread.text(1), "2.2 (1.0–3.0)");
        assert_eq!(Spread::of(&[7.0]).unwrap().text(0), "7");
        assert_eq!(spread.json()["max"], 3.0);
    }
}

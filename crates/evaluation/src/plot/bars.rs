//! Bars from left to right, each below its name and its figure.

use std::fmt::Write;

use super::{LETTER, Scale, Style, WIDTH, cut, escape, picture, stroke, text};
use crate::catalogue::Metric;
use crate::statistics::Estimate;
use crate::unit::named;
use crate::verdict::figure;

/// Height of a bar with what stands above it.
const ROW: f64 = 34.0;
const TOP: f64 = 20.0;

/// One system's bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// How it is drawn.
    pub style: Style,
    /// Its name.
    pub name: String,
    /// How long.
    pub estimate: Estimate,
}

/// Draws a metric of several systems, all from zero.
pub fn bars(title: &str, metric: &Metric, bars: &[Bar]) -> String {
    // What was lost has no end, and would leave no unit to tell the others in.
    let ends = bars.iter().flat_map(|bar| [bar.estimate.high, bar.estimate.median]);
    let values: Vec<f64> = ends.filter(|value| value.is_finite()).collect();
    let (size, unit) = metric.unit.scale(values.iter().copied().fold(0.0, f64::max));
    let scale = Scale::linear(values.into_iter(), size);
    let mut out = String::new();
    text(&mut out, 2.0, 13.0, "start", &named(metric.name, unit));
    for (number, bar) in bars.iter().enumerate() {
        let top = TOP + ROW * number as f64;
        let figure = figure(metric, &bar.estimate);
        let room = WIDTH - 4.0 - (figure.chars().count() + 2) as f64 * LETTER;
        // Writing to a string cannot fail.
        let _ = writeln!(out, "<g class=\"{}\"><title>{}</title>", bar.style.class(), escape(&bar.name));
        text(&mut out, 2.0, top + 12.0, "start", &cut(&bar.name, room));
        text(&mut out, WIDTH - 2.0, top + 12.0, "end", &figure);
        let x = |value: f64| 2.0 + scale.part(value) * (WIDTH - 6.0);
        let (zero, end) = (x(0.0), x(bar.estimate.median));
        let _ = writeln!(
            out,
            "<rect class=\"bar\" x=\"{zero:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"10\"/>",
            top + 17.0,
            (end - zero).max(1.0)
        );
        if bar.estimate.count > 1 {
            let middle = top + 22.0;
            let (low, high) = (x(bar.estimate.low), x(bar.estimate.high));
            stroke(&mut out, "error", (low, middle), (high, middle));
            stroke(&mut out, "error", (low, middle - 3.0), (low, middle + 3.0));
            stroke(&mut out, "error", (high, middle - 3.0), (high, middle + 3.0));
        }
        out.push_str("</g>\n");
    }
    picture(TOP + ROW * bars.len() as f64, title, &out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::P99;

    #[test]
    fn what_has_no_end_does_not_decide_about_the_unit() {
        let bar = |name: &str, high| Bar {
            style: Style { number: 0, ours: false },
            name: name.to_owned(),
            estimate: Estimate { low: 1e-4, median: 2e-4, high, count: 3, confidence: 0.75 },
        };
        let drawn = bars("a title", &P99, &[bar("a", 4e-4), bar("b", f64::INFINITY)]);
        assert!(drawn.contains("99th percentile, µs") && !drawn.contains("NaN"), "{drawn}");
    }
}

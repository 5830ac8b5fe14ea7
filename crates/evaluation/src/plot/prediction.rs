//! What a model says of more processors: its curve, its error bars as a band, what was measured, and what linear growth would be.

use std::fmt::Write;

use super::{Frame, Scale, Style, joined, picture};
use crate::catalogue::Metric;
use crate::model::{Model, Point};
use crate::unit::named;

/// Draws one system's model. The predictions are what the band is drawn through, so they begin at one processor.
pub fn prediction(title: &str, metric: &Metric, style: Style, model: &Model, measured: &[Point]) -> String {
    let far = model.predictions.iter().map(|it| it.processors).fold(1.0, f64::max);
    let near = model.predictions.iter().map(|it| it.processors).fold(far, f64::min);
    let highs = model
        .predictions
        .iter()
        .map(|it| it.bars.map_or(it.throughput, |bars| bars.1))
        .chain(measured.iter().map(|point| point.throughput));
    let most = highs.fold(0.0, f64::max);
    let (size, unit) = metric.unit.scale(most);
    // From zero, always: how wide the band is against what it is about is what matters.
    let y = Scale::linear([most].into_iter(), size);
    let frame = Frame { x: Scale::exactly(near * 0.93, far * 1.04, true), y };
    let mut out = String::new();
    let doublings = std::iter::successors(Some(1.0), |n| Some(n * 2.0)).take_while(|n| *n <= far);
    let marks: Vec<_> = doublings.filter(|n| *n >= near).map(|n| (n, n.to_string())).collect();
    frame.draw(&mut out, &named(metric.name, unit), "processors", &marks);
    let at = |n: f64, value: f64| (frame.x(n), frame.y(value));
    let bars = || model.predictions.iter().filter_map(|it| Some((it.processors, it.bars?)));
    let mut band: Vec<_> = bars().map(|(n, (_, high))| at(n, high)).collect();
    let lows: Vec<_> = bars().map(|(n, (low, _))| at(n, low)).collect();
    band.extend(lows.into_iter().rev());
    let curve: Vec<_> = model.predictions.iter().map(|it| at(it.processors, it.throughput)).collect();
    let top = frame.y.high();
    let linear = (0..=60).map(|step| near * (far / near).powf(f64::from(step) / 60.0));
    let linear: Vec<_> = linear
        .map(|n| (n, model.fit.gamma * n))
        .filter(|(_, value)| *value <= top)
        .map(|(n, value)| at(n, value))
        .collect();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "<polyline class=\"ideal\" points=\"{}\"/>", joined(&linear));
    let _ = writeln!(out, "<g class=\"{}\">", style.class());
    if !band.is_empty() {
        let _ = writeln!(out, "<polygon class=\"band\" points=\"{}\"/>", joined(&band));
    }
    let _ = writeln!(out, "<polyline class=\"line\" points=\"{}\"/>", joined(&curve));
    for point in measured {
        let (x, y) = at(point.processors, point.throughput);
        out.push_str(&style.mark(x, y));
    }
    out.push_str("</g>\n");
    picture(Frame::HEIGHT, title, &out)
}

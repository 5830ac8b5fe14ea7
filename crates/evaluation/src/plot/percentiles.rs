//! Whole distributions of times: the share of all that was slower, in equal factors to the right, and how slow, in equal factors upwards.
//!
//! So the middle half, where nearly everything happens, has the left third, and the slowest few, which people notice, the rest.

use std::fmt::Write;

use super::{Frame, Scale, Style, joined, picture};
use crate::distribution::Distribution;
use crate::unit::Unit;

/// One system's distribution.
#[derive(Clone, Debug)]
pub struct Curve<'a> {
    /// How it is drawn.
    pub style: Style,
    /// What was seen.
    pub times: &'a Distribution,
    /// Of how many that were sent: what is not among the times was lost, and slower than anything.
    pub sent: u64,
}

/// A quantile is told only where so many lie beyond it.
pub const BEYOND: u64 = 10;
/// Of fewer not even the median can be told.
pub const FEWEST: u64 = 2 * BEYOND;

impl Curve<'_> {
    /// The time that a share of all that were sent did not exceed, where it can be told.
    fn at(&self, share: f64) -> Option<f64> {
        quantile(self.times, self.sent, share)
    }
}

/// The time in seconds that a share of all that were sent did not exceed; none where fewer than ten lie beyond it, or it was lost.
pub fn quantile(times: &Distribution, sent: u64, share: f64) -> Option<f64> {
    let (back, sent) = (times.len() as f64, sent.max(times.len()) as f64);
    let beyond = sent * (1.0 - share);
    let told = beyond >= BEYOND as f64 - 1e-6 && share * sent <= back;
    told.then(|| times.quantile(share * sent / back)).flatten()
}

/// How far to the right a share lies: one for each nine, with the median at 0.3.
fn nines(share: f64) -> f64 {
    -(1.0 - share).log10()
}

/// Draws distributions over each other.
pub fn percentiles(title: &str, curves: &[Curve<'_>]) -> String {
    // A curve ends where ten packets are all that is left, or what was lost begins.
    let end = |curve: &Curve<'_>| {
        let sent = curve.sent.max(FEWEST) as f64;
        let lost = (1.0 - curve.times.len() as f64 / sent).max(0.0);
        nines(1.0 - (BEYOND as f64 / sent).max(lost)).clamp(0.0, 6.0)
    };
    let far = curves.iter().map(end).fold(1.0, f64::max);
    let path = |curve: &Curve<'_>| -> Vec<(f64, f64)> {
        let steps = 120;
        let at = |step: u32| end(curve) * f64::from(step) / f64::from(steps);
        let point = |at: f64| Some((at, curve.at(1.0 - 10_f64.powf(-at))?));
        (0..=steps).filter_map(|step| point(at(step))).collect()
    };
    let paths: Vec<_> = curves.iter().map(path).collect();
    let values: Vec<f64> = paths.iter().flatten().map(|(_, time)| *time).collect();
    let most = values.iter().copied().fold(0.0, f64::max);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let (size, unit) = Unit::Seconds.scale(if most > 0.0 { (most * least).sqrt() } else { 1e-6 });
    let frame = Frame { x: Scale::exactly(0.0, far, false), y: Scale::log(values.iter().copied(), size) };
    let mut out = String::new();
    let marks: Vec<(f64, String)> =
        [(0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99"), (0.99999, "99.999")]
            .into_iter()
            .map(|(share, label)| (nines(share), label.to_owned()))
            .filter(|(at, _)| *at <= far + 1e-9)
            .collect();
    frame.draw(&mut out, &format!("round trip, {unit}"), "per cent of packets that were faster", &marks);
    for (curve, path) in curves.iter().zip(&paths) {
        let path: Vec<_> = path.iter().map(|(at, time)| (frame.x(*at), frame.y(*time))).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "<g class=\"{}\">", curve.style.class());
        let _ = writeln!(out, "<polyline class=\"line\" points=\"{}\"{}/>", joined(&path), curve.style.dashes());
        // Marks where people look: the median and each nine.
        for (at, _) in marks.iter().filter(|(at, _)| *at <= end(curve) + 1e-9) {
            if let Some(time) = curve.at(1.0 - 10_f64.powf(-at)) {
                out.push_str(&curve.style.mark(frame.x(*at), frame.y(time)));
            }
        }
        out.push_str("</g>\n");
    }
    picture(Frame::HEIGHT, title, &out)
}

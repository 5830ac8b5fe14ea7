//! Lines along an axis, with an interval around each point.

use std::fmt::Write;

use super::{Frame, Scale, Style, joined, picture, stroke};
use crate::catalogue::{Axis, Metric};
use crate::statistics::Estimate;
use crate::unit::{named, plain};

/// One system's line.
#[derive(Clone, Debug)]
pub struct Line {
    /// How it is drawn.
    pub style: Style,
    /// From left to right.
    pub points: Vec<(f64, Estimate)>,
}

/// Draws a metric along an axis.
pub fn lines(title: &str, axis: &Axis, metric: &Metric, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let mut xs: Vec<f64> = all().map(|(x, _)| *x).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let values: Vec<f64> = all().flat_map(|(_, it)| [it.low, it.median, it.high]).collect();
    let (y, unit) = Scale::of(&values, metric.unit);
    let (first, last) = (xs.first().copied().unwrap_or(0.0), xs.last().copied().unwrap_or(1.0));
    // Doublings look even only in equal factors.
    let log = first > 0.0 && (axis.log || last / first >= 16.0);
    let x = if log { Scale::log(xs.iter().copied(), 1.0) } else { Scale::linear(xs.iter().copied(), 1.0) };
    let frame = Frame { x, y };
    let (size, axis_unit) = axis.unit.scale(last);
    let marks: Vec<_> = xs.iter().map(|x| (*x, plain(x / size))).collect();
    let across = named(axis.name, axis_unit);
    let mut out = String::new();
    frame.draw(&mut out, &named(metric.name, unit), &across, &marks);
    for line in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "<g class=\"{}\">", line.style.class());
        let path: Vec<_> = line.points.iter().map(|(x, it)| (frame.x(*x), frame.y(it.median))).collect();
        let _ = writeln!(out, "<polyline class=\"line\" points=\"{}\"{}/>", joined(&path), line.style.dashes());
        for (x, it) in &line.points {
            if it.count > 1 {
                stroke(&mut out, "whisker", (frame.x(*x), frame.y(it.low)), (frame.x(*x), frame.y(it.high)));
            }
            out.push_str(&line.style.mark(frame.x(*x), frame.y(it.median)));
        }
        out.push_str("</g>\n");
    }
    picture(Frame::HEIGHT, title, &out)
}

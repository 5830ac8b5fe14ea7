//! Tables of figures: what the pictures show, with numbers.

use std::fmt::Write;

use crate::analysis::{Analysis, Panel, Point, Series};
use crate::catalogue::{Better, Metric};
use crate::plot::{self, escape};
use crate::statistics::Estimate;
use crate::unit::{Unit, named};

/// A panel's figures: along the axis for each metric, or all metrics side by side where there is no axis.
pub fn tables(out: &mut String, analysis: &Analysis<'_>, panel: &Panel<'_>) {
    let measured = |metric: &&Metric| {
        panel.series.iter().flat_map(|series| &series.points).any(|it| it.estimate(metric).is_some())
    };
    let metrics: Vec<&Metric> = analysis.experiment.metrics.iter().filter(measured).collect();
    match analysis.experiment.axis {
        Some(axis) => {
            let mut xs: Vec<f64> =
                panel.series.iter().flat_map(|series| series.points.iter().map(|point| point.x)).collect();
            xs.sort_by(f64::total_cmp);
            xs.dedup();
            for metric in metrics {
                let (size, unit) = scale(panel, metric);
                let heads: Vec<_> = xs.iter().map(|x| axis.unit.chosen(*x)).collect();
                let caption = format!("{}, by {}", named(metric.name, unit), axis.name);
                begin(out, &caption, &heads);
                for series in &panel.series {
                    let cells = xs.iter().map(|x| cell(series.at(*x), metric, size));
                    row(out, series, cells);
                }
                out.push_str("</tbody></table></div>\n");
            }
        }
        None => {
            let scales: Vec<_> = metrics.iter().map(|metric| scale(panel, metric)).collect();
            let mut heads: Vec<_> =
                metrics.iter().zip(&scales).map(|(metric, (_, unit))| named(metric.name, unit)).collect();
            let timed = panel.series.iter().flat_map(|series| &series.points).any(|point| point.latency().is_some());
            if timed {
                heads.extend(["99.9 %".to_owned(), "slowest".to_owned(), "packets".to_owned()]);
            }
            begin(out, "", &heads);
            for series in &panel.series {
                let point = series.points.first();
                let mut cells: Vec<_> =
                    metrics.iter().zip(&scales).map(|(metric, (size, _))| cell(point, metric, *size)).collect();
                if timed {
                    cells.extend(tail(point));
                }
                row(out, series, cells.into_iter());
            }
            out.push_str("</tbody></table></div>\n");
        }
    }
}

/// The far end of a distribution: a percentile only where enough lie beyond it to tell it from the slowest.
fn tail(point: Option<&Point<'_>>) -> [String; 3] {
    let Some((times, sent)) = point.and_then(|point| Some((point.latency()?, point.sent()))) else {
        return ["–", "–", "–"].map(str::to_owned);
    };
    let text = |seconds: Option<f64>| seconds.map_or("–".to_owned(), |seconds| Unit::Seconds.text(seconds));
    let slowest = if sent > times.len() { "lost".to_owned() } else { text(times.quantile(1.0)) };
    [text(plot::quantile(&times, sent, 0.999)), slowest, sent.to_string()]
}

/// One for a whole table, so that its numbers can be compared at a glance.
fn scale(panel: &Panel<'_>, metric: &Metric) -> (f64, &'static str) {
    let points = panel.series.iter().flat_map(|series| &series.points);
    let mut medians: Vec<f64> = points.filter_map(|point| Some(point.estimate(metric)?.median)).collect();
    medians.retain(|value| value.is_finite());
    medians.sort_by(f64::total_cmp);
    metric.unit.scale(medians.get(medians.len() / 2).copied().unwrap_or(0.0))
}

fn cell(point: Option<&Point<'_>>, metric: &Metric, size: f64) -> String {
    match point.map(|point| (point.estimate(metric), point.failures.is_empty())) {
        Some((Some(estimate), _)) => {
            let bound = match (point.is_some_and(|point| point.bounded(metric)), metric.better) {
                (false, _) => "",
                (true, Better::Less) => "≤ ",
                (true, _) => "≥ ",
            };
            format!("{bound}{}", figure(metric, &estimate, size))
        }
        Some((None, false)) => "failed".to_owned(),
        _ => "–".to_owned(),
    }
}

fn figure(metric: &Metric, estimate: &Estimate, size: f64) -> String {
    let number = |value: f64| metric.unit.number(value / size);
    if estimate.low.is_infinite() {
        return "lost".to_owned();
    }
    if estimate.count < 2 {
        return number(estimate.median);
    }
    format!(
        "{} <span class=\"range\">({}–{})</span>",
        number(estimate.median),
        number(estimate.low),
        number(estimate.high)
    )
}

fn begin(out: &mut String, caption: &str, heads: &[String]) {
    out.push_str("<div class=\"scroll\"><table class=\"figures\">");
    if !caption.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(out, "<caption>{}</caption>", escape(caption));
    }
    out.push_str("<thead><tr><th scope=\"col\">system</th>");
    for head in heads {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(head));
    }
    out.push_str("</tr></thead><tbody>\n");
}

fn row(out: &mut String, series: &Series<'_>, cells: impl Iterator<Item = String>) {
    let class = if series.ours { " class=\"ours-name\"" } else { "" };
    let emulated = if series.emulated() { " (emulated)" } else { "" };
    // What has to be known of it stands among the systems.
    let caveat = if series.caveat.is_empty() { "" } else { " <a href=\"#systems\">*</a>" };
    // Writing to a string cannot fail.
    let _ = write!(out, "<tr><th scope=\"row\"{class}>{}{emulated}{caveat}</th>", escape(series.title));
    for cell in cells {
        let _ = write!(out, "<td>{cell}</td>");
    }
    out.push_str("</tr>\n");
}

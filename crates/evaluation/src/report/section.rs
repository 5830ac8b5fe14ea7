//! One experiment's part of the page: question, answer, pictures, numbers.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::table;
use crate::analysis::{Analysis, Panel, Series};
use crate::catalogue::{Better, Metric};
use crate::model::{self, Model};
use crate::plot::{self, Bar, Curve, Line, Loads, Style, escape};
use crate::run::Run;
use crate::unit::{digits, named};
use crate::verdict::Verdict;

/// For how many processors the table has what the model says.
pub(super) const FAR: [f64; 5] = [4.0, 8.0, 16.0, 32.0, 64.0];
/// What goes without a tunnel is left out of a picture where it is so many times the most of all others: they would be a line at
/// its foot.
const DWARFS: f64 = 2.5;

/// Writes it.
pub fn section(out: &mut String, run: &Run, analysis: &Analysis<'_>, verdict: &Verdict) {
    let experiment = analysis.experiment;
    // Writing to a string cannot fail.
    let _ = writeln!(out, "<section id=\"{}\"><h2>{}</h2>", experiment.slug, escape(experiment.title));
    let _ = writeln!(out, "<p class=\"question\">{}</p>", escape(experiment.question));
    let mut how = experiment.method.to_owned();
    if !analysis.common.is_empty() {
        let _ = write!(how, " In all: {}.", analysis.common.join(", "));
    }
    match experiment.thesis {
        "" => {}
        one if !one.contains(',') => how.push_str(&format!(" Answers figure {one} of the thesis.")),
        more => how.push_str(&format!(" Answers figures {more} of the thesis.")),
    }
    let _ = writeln!(out, "<p class=\"faint\">{}</p>", escape(&how));
    for (panel, answer) in analysis.panels.iter().zip(&verdict.answers) {
        if !panel.name.is_empty() {
            let _ = writeln!(out, "<h3>{}</h3>", escape(&panel.name));
        }
        out.push_str("<div class=\"verdict\">");
        for sentence in &answer.sentences {
            let _ = write!(out, "<p>{}</p>", escape(sentence));
        }
        out.push_str("</div>\n");
        pictures(out, run, analysis, panel);
        if experiment.slug == "scaling" {
            models(out, run, panel, experiment.main());
        }
        out.push_str("<div class=\"tables\">\n");
        table::tables(out, analysis, panel);
        out.push_str("</div>\n");
    }
    out.push_str("</section>\n");
}

/// What a system is drawn like, the same everywhere.
fn style(run: &Run, slug: &str) -> Style {
    let number = run.order().iter().position(|it| *it == slug).unwrap_or(0);
    Style { number, ours: run.systems.get(slug).is_some_and(|system| system.ours) }
}

fn legend(out: &mut String, run: &Run, series: &[&Series<'_>]) {
    out.push_str("<ul class=\"legend\">");
    for it in series {
        let class = if it.ours { " class=\"ours-name\"" } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(out, "<li{class}>{}{}</li>", style(run, it.slug).swatch(), escape(it.title));
    }
    out.push_str("</ul>\n");
}

fn pictures(out: &mut String, run: &Run, analysis: &Analysis<'_>, panel: &Panel<'_>) {
    let experiment = analysis.experiment;
    // What was emulated has no place in a picture of speed.
    let shown: Vec<&Series<'_>> =
        panel.series.iter().filter(|series| !(experiment.speed && series.emulated())).collect();
    if experiment.slug == "cores" {
        return cores(out, run, panel, &shown, experiment.main());
    }
    let mut figures = String::new();
    let mut lines = false;
    // The first metric, and others that are good or bad in themselves.
    for metric in experiment
        .metrics
        .iter()
        .enumerate()
        .filter(|(at, it)| *at == 0 || it.better != Better::Neither)
        .map(|(_, it)| it)
    {
        let (some, left_out) = fitting(&shown, metric);
        // Nothing lost anywhere needs no picture.
        let nothing = |series: &&Series<'_>| {
            series.points.iter().filter_map(|point| point.estimate(metric)).all(|it| it.high == 0.0)
        };
        if !std::ptr::eq(metric, experiment.main()) && some.iter().all(nothing) {
            continue;
        }
        let several =
            some.iter().any(|series| series.points.iter().filter(|point| point.estimate(metric).is_some()).count() > 1);
        let xs: BTreeSet<u64> = some.iter().flat_map(|series| &series.points).map(|it| it.x.to_bits()).collect();
        let apart = xs.len() > 1;
        let title = format!("{}: {}", experiment.title, metric.name);
        let drawn = if let (Some(axis), true) = (experiment.axis, several) {
            let line = |series: &&Series<'_>| Line {
                style: style(run, series.slug),
                points: series
                    .points
                    .iter()
                    .filter_map(|point| Some((point.x, point.estimate(metric)?)))
                    .filter(|(_, it)| it.median.is_finite())
                    .collect(),
            };
            let all: Vec<Line> = some.iter().map(line).filter(|line| !line.points.is_empty()).collect();
            lines |= !all.is_empty();
            (!all.is_empty()).then(|| plot::lines(&title, &axis, metric, &all))
        } else {
            let bar = |series: &&Series<'_>| {
                let (x, estimate) = series.points.iter().find_map(|point| Some((point.x, point.estimate(metric)?)))?;
                // Where each has but one value, and not the same, it stands beside the name.
                let place = experiment.axis.filter(|_| apart).map(|axis| format!(", {}", axis.unit.chosen(x)));
                let name = format!("{}{}", series.title, place.unwrap_or_default());
                Some(Bar { style: style(run, series.slug), name, estimate })
            };
            let all: Vec<Bar> = some.iter().filter_map(bar).collect();
            (!all.is_empty()).then(|| plot::bars(&title, metric, &all))
        };
        if let Some(drawn) = drawn {
            let caption =
                left_out.map(|text| format!("<figcaption>{}</figcaption>", escape(&text))).unwrap_or_default();
            let _ = writeln!(figures, "<figure>{drawn}{caption}</figure>");
        }
    }
    let times = shown.iter().filter_map(|series| {
        let point = series.points.first()?;
        Some((series.slug, point.latency()?, point.sent()))
    });
    let times: Vec<_> = times.filter(|(.., sent)| *sent >= plot::FEWEST).collect();
    if !times.is_empty() && experiment.axis.is_none() {
        let curves: Vec<Curve<'_>> =
            times.iter().map(|(slug, times, sent)| Curve { style: style(run, slug), times, sent: *sent }).collect();
        let drawn = plot::percentiles(&format!("{}: all times", experiment.title), &curves);
        let _ = writeln!(figures, "<figure>{drawn}</figure>");
        lines = true;
    }
    if lines {
        legend(out, run, &shown);
    }
    let _ = writeln!(out, "<div class=\"plots\">{figures}</div>");
}

/// Those that fit into one picture, and what is said of those that do not.
fn fitting<'a, 'b>(shown: &[&'b Series<'a>], metric: &Metric) -> (Vec<&'b Series<'a>>, Option<String>) {
    let most = |series: &Series<'_>| {
        let medians = series.points.iter().filter_map(|point| Some(point.estimate(metric)?.median));
        medians.filter(|value| value.is_finite()).fold(0.0, f64::max)
    };
    let rivals = shown.iter().filter(|series| !series.reference).map(|series| most(series)).fold(0.0, f64::max);
    let dwarfs = |series: &&&Series<'_>| series.reference && rivals > 0.0 && most(series) > rivals * DWARFS;
    let out = shown
        .iter()
        .find(dwarfs)
        .map(|series| format!("{} is beyond the picture: up to {}.", series.title, metric.unit.text(most(series))));
    (shown.iter().filter(|series| !dwarfs(series)).copied().collect(), out)
}

fn cores(out: &mut String, run: &Run, panel: &Panel<'_>, shown: &[&Series<'_>], metric: &Metric) {
    let loads = |series: &&Series<'_>| Loads {
        style: style(run, series.slug),
        name: series.title.to_owned(),
        shares: series.points.iter().filter_map(|point| Some((point.x, point.estimate(metric)?.median))).collect(),
    };
    let rows: Vec<Loads> = shown.iter().map(loads).filter(|row| !row.shares.is_empty()).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<div class=\"plots\"><figure>{}</figure></div>",
        plot::cores(&format!("Busy processors {}", panel.name), &rows)
    );
}

/// A system's points as the model takes them.
fn points(series: &Series<'_>, metric: &Metric) -> Vec<model::Point> {
    let of = |point: &crate::analysis::Point<'_>| -> Vec<model::Point> {
        let processors = point.x;
        point
            .values(metric)
            .into_iter()
            .map(|(round, throughput)| model::Point { round, processors, throughput })
            .collect()
    };
    series.points.iter().flat_map(of).collect()
}

/// The model of a system with its predictions, or none where it cannot be fitted or was emulated.
pub(super) fn fitted(series: &Series<'_>, metric: &Metric, at: &[f64]) -> Option<Model> {
    let points = points(series, metric);
    if series.emulated() || series.reference {
        return None;
    }
    Model::new(&points, at)
}

fn models(out: &mut String, run: &Run, panel: &Panel<'_>, metric: &Metric) {
    // Eight steps to each doubling, so that those of the table are among them exactly.
    let curve: Vec<f64> = (0..=48).map(|step| 2_f64.powf(f64::from(step) / 8.0)).collect();
    let told = panel.series.iter().filter_map(|series| Some((series, fitted(series, metric, &curve)?)));
    let told: Vec<_> = told.collect();
    if told.is_empty() {
        return;
    }
    out.push_str("<h3>Beyond this machine: a model, no measurement</h3>\n");
    let warnings: BTreeSet<String> = told.iter().filter_map(|(_, model)| model.warning()).collect();
    for warning in warnings {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "<p class=\"warn\"><strong>{}</strong></p>", escape(&warning));
    }
    out.push_str(
        "<p class=\"faint\">Marks are measurements, the line is the model fitted to them, the band its error bars where the rounds bear \
         any, the dots what linear growth would be.</p><div class=\"plots\">",
    );
    for (series, model) in &told {
        let title = format!("{}: model", series.title);
        let picture = plot::prediction(&title, metric, style(run, series.slug), model, &points(series, metric));
        // Writing to a string cannot fail.
        let _ = writeln!(out, "<figure><figcaption>{}</figcaption>{picture}</figure>", escape(series.title));
    }
    let most = told.iter().flat_map(|(_, model)| &model.predictions).map(|it| it.throughput).fold(0.0, f64::max);
    let (size, unit) = metric.unit.scale(most);
    let heads: String = FAR.iter().map(|n| format!("<th scope=\"col\">{n}</th>")).collect();
    let _ = writeln!(
        out,
        "</div><div class=\"scroll\"><table class=\"figures\"><caption>predicted {} by processors</caption><thead><tr><th>system</th>\
         <th scope=\"col\">α, %</th>{heads}</tr></thead><tbody>",
        named(metric.name, unit)
    );
    let range = |middle: f64, bars: Option<(f64, f64)>, size: f64| {
        let bars = bars.map(|(low, high)| {
            format!(" <span class=\"range\">({}–{})</span>", digits(low / size), digits(high / size))
        });
        format!("<td>{}{}</td>", digits(middle / size), bars.unwrap_or_default())
    };
    for (series, model) in &told {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(series.title));
        out.push_str(&range(model.fit.alpha, model.alpha, 0.01));
        for it in model.predictions.iter().filter(|it| FAR.contains(&it.processors)) {
            out.push_str(&range(it.throughput, it.bars, size));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n<p>What has to hold for this:</p><ul>");
    let mut assumptions: Vec<String> = told.iter().flat_map(|(_, model)| model.assumptions()).collect();
    let mut seen = BTreeSet::new();
    assumptions.retain(|line| seen.insert(line.clone()));
    for line in assumptions {
        let _ = write!(out, "<li>{}</li>", escape(&line));
    }
    out.push_str("</ul>\n");
}

//! Answers in plain words, drawn from the figures by rules.
//!
//! - Two systems differ where the interval of their ratios, taken round by round, leaves out 1, in three rounds or more. Where it does not, no
//!   difference can be shown. Without rounds in common their intervals are held against each other.
//! - Fewer than three rounds bear no verdict: the figures are told, and that they are too few.
//! - Nothing is said of the speed of what was emulated.
//! - No tunnel is no rival: it is what the others are held against.
//! - The best is the one with the best median; all that cannot be told from it share its place.

use crate::analysis::{Analysis, Panel, Point, Series};
use crate::catalogue::{Axis, Better, Metric};
use crate::statistics::Estimate;
use crate::unit::{Unit, digits};

/// From how many rounds on a difference may be claimed.
pub const ROUNDS: usize = 3;
/// From how many rounds on an interval is as sure as is usual.
const SURE: usize = 5;

/// The answer to an experiment's question.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// One for each panel.
    pub answers: Vec<Answer>,
}

/// The answer of one panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The panel's name.
    pub panel: String,
    /// The best, and those that cannot be told from it; none where nothing may be said.
    pub best: Vec<String>,
    /// In sentences.
    pub sentences: Vec<String>,
}

/// How two differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Difference {
    /// One has this for each of the other's, and the interval leaves out 1.
    Shown(Estimate),
    /// The interval holds 1.
    None(Estimate),
    /// They share no rounds, but their intervals lie apart, or do not.
    Unpaired(bool),
    /// There are too few rounds to tell.
    TooFew,
}

/// How two points differ in a metric.
pub fn difference(one: &Point<'_>, other: &Point<'_>, metric: &Metric) -> Difference {
    match one.ratio(other, metric) {
        Some(ratio) if ratio.count < ROUNDS => Difference::TooFew,
        Some(ratio) if ratio.low > 1.0 || ratio.high < 1.0 => Difference::Shown(ratio),
        Some(ratio) => Difference::None(ratio),
        None => match (one.estimate(metric), other.estimate(metric)) {
            (Some(one), Some(other)) if one.count >= ROUNDS && other.count >= ROUNDS => {
                Difference::Unpaired(!one.overlaps(&other))
            }
            _ => Difference::TooFew,
        },
    }
}

impl Verdict {
    /// Of an experiment.
    pub fn of(analysis: &Analysis<'_>) -> Verdict {
        let answers = analysis.panels.iter().map(|panel| match analysis.experiment.slug {
            "cores" => spread(panel, analysis.experiment.main()),
            _ => answer(panel, analysis),
        });
        Verdict { answers: answers.collect() }
    }
}

/// Who is best, by how much, and how it goes along the axis.
fn answer(panel: &Panel<'_>, analysis: &Analysis<'_>) -> Answer {
    let experiment = analysis.experiment;
    let metric = experiment.main();
    let mut sentences = Vec::new();
    let quiet = |series: &&Series<'_>| experiment.speed && series.emulated();
    let emulated: Vec<_> = panel.series.iter().filter(quiet).map(|series| series.title).collect();
    let rivals: Vec<&Series<'_>> = panel.series.iter().filter(|series| !quiet(series) && !series.reference).collect();
    let mut best = Vec::new();
    if let Some((x, entrants)) = reference(&rivals, metric, experiment.near) {
        let place = experiment.axis.map(|axis| format!(" at {}", at(axis, x)));
        best = rank(&entrants, metric, &place.unwrap_or_default(), &mut sentences);
        if let Some(axis) = experiment.axis {
            growth(&rivals, metric, axis, &mut sentences);
        }
        held(panel, x, metric, &entrants, &mut sentences);
    }
    if !emulated.is_empty() {
        sentences.push(format!("Emulated, so nothing is said about speed: {}.", list(&emulated)));
    }
    let failed: Vec<_> = panel.series.iter().filter(|series| failed(series)).map(|series| series.title).collect();
    if !failed.is_empty() {
        sentences.push(format!("Could not be measured: {}.", list(&failed)));
    }
    if sentences.is_empty() {
        sentences.push("Nothing was measured that could be compared.".to_owned());
    }
    Answer { panel: panel.name.clone(), best, sentences }
}

/// Whether nothing of a system was measured.
fn failed(series: &Series<'_>) -> bool {
    series.points.iter().all(|point| point.records.is_empty())
}

/// Where along the axis the rivals meet: the farthest value, or the nearest, that most of them have, and who is there.
fn reference<'a>(
    rivals: &[&'a Series<'a>],
    metric: &Metric,
    near: bool,
) -> Option<(f64, Vec<(&'a Series<'a>, &'a Point<'a>)>)> {
    let mut xs: Vec<f64> = rivals.iter().flat_map(|series| series.points.iter().map(|point| point.x)).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let there = |x: f64| -> Vec<_> {
        let each = rivals.iter().filter_map(|series| Some((*series, series.at(x)?)));
        each.filter(|(_, point)| point.estimate(metric).is_some()).collect()
    };
    if near {
        xs.reverse();
    }
    // Of equally many the last.
    xs.into_iter().map(|x| (x, there(x))).filter(|(_, them)| !them.is_empty()).max_by_key(|(_, them)| them.len())
}

/// Tells who leads, and who is how far behind. The leaders' names.
fn rank(
    entrants: &[(&Series<'_>, &Point<'_>)],
    metric: &Metric,
    place: &str,
    sentences: &mut Vec<String>,
) -> Vec<String> {
    let mut order: Vec<_> =
        entrants.iter().filter_map(|(series, point)| Some((*series, *point, point.estimate(metric)?))).collect();
    order.sort_by(|one, other| match metric.better {
        Better::Less => one.2.median.total_cmp(&other.2.median),
        Better::More | Better::Neither => other.2.median.total_cmp(&one.2.median),
    });
    let Some(((first, point, estimate), rest)) = order.split_first() else { return Vec::new() };
    let rounds = order.iter().map(|(_, _, estimate)| estimate.count).min().unwrap_or(0);
    let figure = |estimate: &Estimate| figure(metric, estimate);
    if rounds < ROUNDS {
        let all: Vec<_> = order.iter().map(|(series, _, it)| format!("{} {}", series.title, figure(it))).collect();
        sentences.push(format!(
            "Too few rounds ({rounds}) for a verdict. Measured{place}, {}: {}.",
            metric.name,
            all.join("; ")
        ));
        return Vec::new();
    }
    if rest.is_empty() {
        sentences.push(format!("Only {} was measured{place}: {} {}.", first.title, metric.name, figure(estimate)));
        return Vec::new();
    }
    let (mut equal, mut behind, mut few) = (Vec::new(), Vec::new(), Vec::new());
    for (series, other, other_estimate) in rest {
        let (value, middle) = (figure(other_estimate), metric.unit.text(other_estimate.median));
        match difference(point, other, metric) {
            Difference::Shown(ratio) => {
                behind.push(format!("{} {}, at {middle}", series.title, times(metric, &ratio)));
            }
            Difference::Unpaired(true) => behind.push(format!("{} at {middle}, in other rounds", series.title)),
            Difference::None(_) | Difference::Unpaired(false) => equal.push((series.title, value)),
            Difference::TooFew => few.push(series.title),
        }
    }
    let most = if metric.better == Better::Less { "Lowest" } else { "Highest" };
    sentences.push(format!("{most} {}{place}: {}, {}.", metric.name, first.title, figure(estimate)));
    if !equal.is_empty() {
        let equal: Vec<_> = equal.iter().map(|(title, value)| format!("{title} ({value})")).collect();
        let equal: Vec<_> = equal.iter().map(String::as_str).collect();
        sentences.push(format!("No difference to it can be shown for {}.", list(&equal)));
    }
    if !behind.is_empty() {
        sentences.push(format!("Behind by a factor, round by round: {}.", behind.join("; ")));
    }
    if !few.is_empty() {
        sentences.push(format!("Too few rounds in common with it to tell: {}.", list(&few)));
    }
    if rounds < SURE {
        let sure = 100.0 * (1.0 - 0.5_f64.powi(rounds as i32 - 1));
        sentences.push(format!("With {rounds} rounds the intervals are only {sure:.0} % sure."));
    }
    let mut leaders = vec![first.title.to_owned()];
    leaders.extend(equal.iter().map(|(title, _)| (*title).to_owned()));
    leaders
}

/// How each goes from the first to the last value of the axis.
fn growth(rivals: &[&Series<'_>], metric: &Metric, axis: Axis, sentences: &mut Vec<String>) {
    let (mut grows, mut falls, mut same) = (Vec::new(), Vec::new(), Vec::new());
    let mut span = None;
    for series in rivals {
        let some: Vec<_> = series.points.iter().filter(|point| !point.records.is_empty()).collect();
        let (Some(first), Some(last)) = (some.first(), some.last()) else { continue };
        if first.x == last.x {
            continue;
        }
        // Only those that go the same way are told in one sentence.
        if *span.get_or_insert((first.x, last.x)) != (first.x, last.x) {
            continue;
        }
        match difference(last, first, metric) {
            Difference::Shown(ratio) if ratio.median > 1.0 => {
                grows.push(format!("{} {}", series.title, interval(&ratio)))
            }
            Difference::Shown(ratio) => falls.push(format!("{} {}", series.title, interval(&ratio))),
            Difference::None(_) => same.push(series.title),
            Difference::Unpaired(_) | Difference::TooFew => {}
        }
    }
    let Some((from, to)) = span else { return };
    let (from, to) = (axis.unit.chosen(from), axis.unit.chosen(to));
    let way = if axis.unit == Unit::Count {
        format!("From {from} to {to} {}", axis.name)
    } else {
        format!("From {from} to {to} ({})", axis.name)
    };
    let mut parts = Vec::new();
    if !grows.is_empty() {
        parts.push(format!("grows, to so many times: {}", grows.join(", ")));
    }
    if !falls.is_empty() {
        parts.push(format!("falls, to so many times: {}", falls.join(", ")));
    }
    if !same.is_empty() {
        parts.push(format!("no change can be shown: {}", list(&same)));
    }
    if !parts.is_empty() {
        sentences.push(format!("{way}, {} {}.", metric.name, parts.join("; ")));
    }
}

/// What is left of what goes without a tunnel.
fn held(
    panel: &Panel<'_>,
    x: f64,
    metric: &Metric,
    entrants: &[(&Series<'_>, &Point<'_>)],
    sentences: &mut Vec<String>,
) {
    let reference = panel.series.iter().find(|series| series.reference).and_then(|series| series.at(x));
    let Some(estimate) = reference.and_then(|point| point.estimate(metric)) else { return };
    if estimate.count >= ROUNDS && !entrants.is_empty() {
        sentences.push(format!("Without a tunnel it is {}.", figure(metric, &estimate)));
    }
}

/// Whether one processor stops the others.
fn spread(panel: &Panel<'_>, metric: &Metric) -> Answer {
    let mut sentences = Vec::new();
    for series in panel.series.iter().filter(|series| !series.emulated()) {
        let loads: Vec<_> = series.points.iter().filter_map(|point| Some((point.x, point.estimate(metric)?))).collect();
        let Some((core, most)) = loads.iter().max_by(|one, other| one.1.median.total_cmp(&other.1.median)) else {
            continue;
        };
        let others: Vec<f64> = loads.iter().filter(|(it, _)| it != core).map(|(_, load)| load.median).collect();
        let mean = others.iter().sum::<f64>() / others.len().max(1) as f64;
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let text = if others.is_empty() {
            format!("has one processor, {} busy", percent(most.median))
        } else if most.median >= 0.9 && mean < 0.6 {
            format!(
                "is stopped by processor {core}, {} busy, while the others are {}",
                percent(most.median),
                percent(mean)
            )
        } else if most.median >= 0.9 && mean >= 0.9 {
            format!("uses them all: {} the busiest, {} the others", percent(most.median), percent(mean))
        } else {
            format!("has processor {core} busiest with {}, the others {}", percent(most.median), percent(mean))
        };
        sentences.push(format!("{} {text}.", series.title));
    }
    if sentences.is_empty() {
        sentences.push("Nothing was measured that could be compared.".to_owned());
    }
    Answer { panel: panel.name.clone(), best: Vec::new(), sentences }
}

/// `9.04 Gb/s (8.81–9.30)`, or the one figure that there is.
pub fn figure(metric: &Metric, estimate: &Estimate) -> String {
    let text = metric.unit.text(estimate.median);
    if estimate.count < 2 {
        return text;
    }
    let (size, _) = metric.unit.scale(estimate.median);
    format!("{text} ({}–{})", digits(estimate.low / size), digits(estimate.high / size))
}

/// `1.90 (1.80–2.00)`.
pub fn interval(ratio: &Estimate) -> String {
    format!("{} ({}–{})", digits(ratio.median), digits(ratio.low), digits(ratio.high))
}

/// By what factor the first is better: more than 1 whichever way is better.
fn times(metric: &Metric, ratio: &Estimate) -> String {
    match metric.better {
        Better::Less => {
            let turned =
                Estimate { low: 1.0 / ratio.high, median: 1.0 / ratio.median, high: 1.0 / ratio.low, ..*ratio };
            interval(&turned)
        }
        Better::More | Better::Neither => interval(ratio),
    }
}

/// `4 tunnels`, `UDP payload 64 B`.
fn at(axis: Axis, x: f64) -> String {
    let value = axis.unit.chosen(x);
    if axis.unit == Unit::Count { format!("{value} {}", axis.name) } else { format!("{} {value}", axis.name) }
}

/// `a, b and c`.
pub fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

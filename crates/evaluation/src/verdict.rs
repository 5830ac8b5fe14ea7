//! Answers in plain words, drawn from the figures by rules.
//!
//! - Two systems differ where the interval of their ratios, taken round by round, leaves out 1, in three rounds or more. Where it does not, no
//!   difference can be shown. Without rounds in common their intervals are held against each other.
//! - Fewer than three rounds bear no verdict: the figures are told, and that they are too few. Who has too few is told apart and spoils no other's.
//! - What was found in steps differs only where the interval lies more than a step from 1, and what the sender bounded is behind nobody.
//! - Where one of two is nothing, or was lost, there is no factor, but one may still be behind.
//! - Nothing is said of the speed of what was emulated.
//! - No tunnel is no rival: it is what the others are held against.
//! - The best is the one with the best median; all that cannot be told from it share its place.

use crate::analysis::{Analysis, Panel, Point, Series};
use crate::catalogue::{Axis, Better, Metric};
use crate::statistics::{self, Estimate};
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
    /// How many comparisons it was drawn from.
    pub tally: Tally,
}

/// How many comparisons were made, so that it can be told how many of their claims chance alone would make.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Pairs that were compared.
    pub pairs: usize,
    /// Of how many a difference is claimed.
    pub claims: usize,
    /// Of how many it would be on average if there were none: an upper bound, for steps make claims rarer.
    pub chance: f64,
}

impl Tally {
    /// With another's.
    #[must_use]
    pub fn and(self, other: Tally) -> Tally {
        Tally {
            pairs: self.pairs + other.pairs,
            claims: self.claims + other.claims,
            chance: self.chance + other.chance,
        }
    }

    fn count(&mut self, difference: &Difference, one: &Point<'_>, other: &Point<'_>) {
        let (claimed, chance) = match difference {
            Difference::Shown(ratio) => (true, 1.0 - ratio.confidence),
            Difference::None(ratio) => (false, 1.0 - ratio.confidence),
            Difference::Unpaired(claimed) => (*claimed, statistics::apart(one.records.len(), other.records.len())),
            Difference::TooFew => return,
        };
        self.pairs += 1;
        self.claims += usize::from(claimed);
        self.chance += chance;
    }

    /// In a sentence; none where nothing was compared.
    pub fn sentence(&self) -> Option<String> {
        if self.pairs == 0 {
            return None;
        }
        Some(format!(
            "Of {} comparisons {} claim a difference; if there were none at all, chance alone would make about {} claim one.",
            self.pairs,
            self.claims,
            if self.chance < 0.95 { format!("{:.1}", self.chance) } else { format!("{:.0}", self.chance) }
        ))
    }
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

/// What is carried of a rate that was tried is up to one in a hundred less, so steps are that much wider.
const SLACK: f64 = 1.01;

/// How two points differ in a metric.
pub fn difference(one: &Point<'_>, other: &Point<'_>, metric: &Metric) -> Difference {
    let step = one.resolution(metric).max(other.resolution(metric));
    let step = if step > 1.0 { step * SLACK } else { 1.0 };
    // What the sender bounded can do more than was seen, so it is behind nothing.
    let better = |point: &Point<'_>, more: bool| !point.bounded(metric) || more == (metric.better != Better::Less);
    match one.ratio(other, metric) {
        Some(ratio) if ratio.count < ROUNDS => Difference::TooFew,
        Some(ratio) if ratio.low > step && better(one, true) && better(other, false) => Difference::Shown(ratio),
        Some(ratio) if ratio.high < 1.0 / step && better(one, false) && better(other, true) => Difference::Shown(ratio),
        Some(ratio) => Difference::None(ratio),
        None => match (one.estimate(metric), other.estimate(metric)) {
            (Some(this), Some(that)) if this.count >= ROUNDS && that.count >= ROUNDS => {
                let more = this.low > that.high * step && better(one, true) && better(other, false);
                let less = this.high * step < that.low && better(one, false) && better(other, true);
                Difference::Unpaired(more || less)
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
    let (mut best, mut tally) = (Vec::new(), Tally::default());
    if let Some((x, entrants)) = reference(&rivals, metric, experiment.near) {
        let place = experiment.axis.map(|axis| format!(" at {}", at(axis, x)));
        best = rank(&entrants, metric, &place.unwrap_or_default(), &mut sentences, &mut tally);
        if let Some(axis) = experiment.axis {
            growth(&rivals, metric, axis, &mut sentences, &mut tally);
        }
        held(panel, x, metric, &entrants, &mut sentences);
    }
    if !emulated.is_empty() {
        sentences.push(format!("Emulated, so nothing is said about speed: {}.", list(&emulated)));
    }
    let known = rivals.iter().filter(|series| !series.caveat.is_empty() && !failed(series));
    let known: Vec<_> = known.map(|series| series.title).collect();
    if !known.is_empty() {
        sentences.push(format!("What has to be known before this is quoted stands at the top: {}.", list(&known)));
    }
    let failed: Vec<_> = panel.series.iter().filter(|series| failed(series)).map(|series| series.title).collect();
    if !failed.is_empty() {
        sentences.push(format!("Could not be measured: {}.", list(&failed)));
    }
    if sentences.is_empty() {
        sentences.push("Nothing was measured that could be compared.".to_owned());
    }
    Answer { panel: panel.name.clone(), best, sentences, tally }
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
    tally: &mut Tally,
) -> Vec<String> {
    let mut order: Vec<_> =
        entrants.iter().filter_map(|(series, point)| Some((*series, *point, point.estimate(metric)?))).collect();
    order.sort_by(|one, other| match metric.better {
        Better::Less => one.2.median.total_cmp(&other.2.median),
        Better::More | Better::Neither => other.2.median.total_cmp(&one.2.median),
    });
    let told = |all: &[(&Series<'_>, &Point<'_>, Estimate)]| {
        let each = all.iter().map(|(series, point, it)| format!("{} {}", series.title, of(metric, point, it)));
        each.collect::<Vec<_>>().join("; ")
    };
    let rounds = order.iter().map(|(_, _, estimate)| estimate.count).max().unwrap_or(0);
    if rounds < ROUNDS {
        if !order.is_empty() {
            sentences.push(format!(
                "Too few rounds ({rounds}) for a verdict. Measured{place}, {}: {}.",
                metric.name,
                told(&order)
            ));
        }
        return Vec::new();
    }
    // One that fails now and then is no reason to say nothing of the others.
    let (order, scarce): (Vec<_>, Vec<_>) = order.into_iter().partition(|(_, _, estimate)| estimate.count >= ROUNDS);
    let scarce = (!scarce.is_empty()).then(|| format!("Too few rounds to be ranked: {}.", told(&scarce)));
    let Some(((first, point, estimate), rest)) = order.split_first() else { return Vec::new() };
    if rest.is_empty() {
        let only = of(metric, point, estimate);
        sentences.push(format!("Only {} was measured{place} often enough: {} {only}.", first.title, metric.name));
        sentences.extend(scarce);
        return Vec::new();
    }
    let (mut equal, mut behind, mut beyond, mut few) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut least = estimate.count;
    for (series, other, value) in rest {
        let middle = middle(metric, value.median);
        let found = difference(point, other, metric);
        tally.count(&found, point, other);
        match found {
            Difference::Shown(ratio) if has_factor(&ratio) => {
                least = least.min(ratio.count);
                behind.push(format!("{} {}, at {middle}", series.title, times(metric, &ratio)));
            }
            Difference::Shown(ratio) => {
                least = least.min(ratio.count);
                beyond.push(format!("{} at {middle}", series.title));
            }
            Difference::Unpaired(true) => beyond.push(format!("{} at {middle}, in other rounds", series.title)),
            Difference::None(_) | Difference::Unpaired(false) => equal.push((series.title, of(metric, other, value))),
            Difference::TooFew => few.push(series.title),
        }
    }
    let most = if metric.better == Better::Less { "Lowest" } else { "Highest" };
    sentences.push(format!("{most} {}{place}: {}, {}.", metric.name, first.title, of(metric, point, estimate)));
    if !equal.is_empty() {
        let equal: Vec<_> = equal.iter().map(|(title, value)| format!("{title} ({value})")).collect();
        let equal: Vec<_> = equal.iter().map(String::as_str).collect();
        sentences.push(format!("No difference to it can be shown for {}.", list(&equal)));
    }
    if !behind.is_empty() {
        sentences.push(format!("Behind by a factor, round by round: {}.", behind.join("; ")));
    }
    if !beyond.is_empty() {
        sentences.push(format!("Behind, where no factor can be told: {}.", beyond.join("; ")));
    }
    if !few.is_empty() {
        sentences.push(format!("Too few rounds in common with it to tell: {}.", list(&few)));
    }
    sentences.extend(scarce);
    let step = order.iter().map(|(_, point, _)| point.resolution(metric)).fold(1.0, f64::max);
    if step > 1.0 {
        sentences
            .push(format!("It is known no finer than by a factor of {step:.2}; within that nothing is told apart."));
    }
    if least < SURE {
        let (_, sure) = statistics::width(least).unwrap_or_default();
        sentences.push(format!("With {least} rounds the intervals are only {} sure.", percent(sure)));
    }
    let mut leaders = vec![first.title.to_owned()];
    leaders.extend(equal.iter().map(|(title, _)| (*title).to_owned()));
    leaders
}

/// `93.75 %` is written `93.8 %`, and `75.0 %` is `75 %`.
pub fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

/// Whether a ratio is one that can be told as a number.
fn has_factor(ratio: &Estimate) -> bool {
    ratio.low > 0.0 && ratio.high.is_finite()
}

/// How each goes from the first to the last value of the axis.
fn growth(rivals: &[&Series<'_>], metric: &Metric, axis: Axis, sentences: &mut Vec<String>, tally: &mut Tally) {
    let (mut grows, mut falls, mut same) = (Vec::new(), Vec::new(), Vec::new());
    let ends = |series: &&&Series<'_>| {
        let some = || series.points.iter().filter(|point| point.estimate(metric).is_some());
        let (first, last) = (some().next()?.x, some().next_back()?.x);
        (first < last).then_some((first, last))
    };
    let spans: Vec<_> = rivals.iter().filter_map(|series| ends(&series)).collect();
    // Only those that go the same way are told in one sentence: the way that most of them go, of equally many the longest.
    let often = |span: &(f64, f64)| spans.iter().filter(|other| *other == span).count();
    let commonest = spans.iter().max_by(|one, other| {
        let length = |span: &(f64, f64)| span.1 - span.0;
        often(one).cmp(&often(other)).then(length(one).total_cmp(&length(other)))
    });
    let Some(&(from, to)) = commonest else { return };
    let mut other_ways = Vec::new();
    for series in rivals {
        match ends(&series) {
            Some(span) if span == (from, to) => {}
            Some(_) => {
                other_ways.push(series.title);
                continue;
            }
            None => continue,
        }
        let (Some(first), Some(last)) = (series.at(from), series.at(to)) else { continue };
        let found = difference(last, first, metric);
        tally.count(&found, last, first);
        match found {
            Difference::Shown(ratio) if has_factor(&ratio) && ratio.median > 1.0 => {
                grows.push(format!("{} {}", series.title, interval(&ratio)))
            }
            Difference::Shown(ratio) if has_factor(&ratio) => {
                falls.push(format!("{} {}", series.title, interval(&ratio)))
            }
            Difference::Shown(ratio) => {
                let ends = [first, last].map(|it| it.estimate(metric).map_or(0.0, |it| it.median));
                let text = format!("{} from {} to {}", series.title, middle(metric, ends[0]), middle(metric, ends[1]));
                if ratio.median > 1.0 { grows.push(text) } else { falls.push(text) }
            }
            Difference::None(_) => same.push(series.title),
            Difference::Unpaired(_) | Difference::TooFew => {}
        }
    }
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
    if !other_ways.is_empty() && !parts.is_empty() {
        parts.push(format!("not measured at both ends: {}", list(&other_ways)));
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

/// Whether one processor stops the others. Points are processors from the busiest of each round to the idlest.
fn spread(panel: &Panel<'_>, metric: &Metric) -> Answer {
    let mut sentences = Vec::new();
    for series in panel.series.iter().filter(|series| !series.emulated() && !series.reference) {
        let loads: Vec<_> = series.points.iter().filter_map(|point| point.estimate(metric)).collect();
        let Some((most, others)) = loads.split_first() else { continue };
        let load = |it: &Estimate| {
            let range =
                if it.count < 2 { String::new() } else { format!(" ({:.0}–{:.0})", it.low * 100.0, it.high * 100.0) };
            format!("{:.0} %{range}", it.median * 100.0)
        };
        let mean = others.iter().map(|load| load.median).sum::<f64>() / others.len().max(1) as f64;
        let mean = (others.len() > 1).then(|| format!("{:.0} % on average", mean * 100.0));
        let rest = match others {
            [] => String::new(),
            [one] => format!(", the other {}", load(one)),
            [next, ..] => format!(", the next {}, all others {}", load(next), mean.unwrap_or_default()),
        };
        let busy = format!("the busiest processor {}{rest}", load(most));
        // Said only where it was so in every round that bears the interval.
        let stopped = most.low >= 0.9 && others.iter().all(|load| load.high < 0.6) && !others.is_empty();
        let all = loads.iter().all(|load| load.low >= 0.9);
        let text = match most.count {
            few if few < ROUNDS => format!("{busy}; too few rounds ({few}) to say more"),
            _ if stopped => format!("one processor stops the others: {busy}"),
            _ if all => format!("all are used: {busy}"),
            _ => busy,
        };
        sentences.push(format!("{}: {text}.", series.title));
    }
    if sentences.is_empty() {
        sentences.push("Nothing was measured that could be compared.".to_owned());
    }
    Answer { panel: panel.name.clone(), best: Vec::new(), sentences, tally: Tally::default() }
}

/// A point's figure, with what bounds it.
fn of(metric: &Metric, point: &Point<'_>, estimate: &Estimate) -> String {
    let text = figure(metric, estimate);
    match (point.bounded(metric), metric.better) {
        (false, _) => text,
        (true, Better::Less) => format!("{text} or less, the sender was the bound"),
        (true, _) => format!("{text} or more, the sender was the bound"),
    }
}

/// A value that may be infinite: of times those are what was lost.
fn middle(metric: &Metric, value: f64) -> String {
    if value.is_finite() { metric.unit.text(value) } else { "what was lost".to_owned() }
}

/// `9.04 Gb/s (8.81–9.30)`, or the one figure that there is.
pub fn figure(metric: &Metric, estimate: &Estimate) -> String {
    let text = middle(metric, estimate.median);
    if estimate.count < 2 || !estimate.low.is_finite() {
        return text;
    }
    let (size, _) = metric.unit.scale(if estimate.median.is_finite() { estimate.median } else { estimate.low });
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
    match axis.unit {
        Unit::Count if x == 1.0 => format!("{value} {}", one(axis.name)),
        Unit::Count => format!("{value} {}", axis.name),
        _ => format!("{} {value}", axis.name),
    }
}

/// `TCP stream in one tunnel` of `TCP streams in one tunnel`: the first plural is what is counted.
fn one(name: &str) -> String {
    let mut counted = false;
    let word = |word| match str::strip_suffix(word, 's') {
        Some(single) if !std::mem::replace(&mut counted, true) => single,
        _ => word,
    };
    name.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// `a, b and c`.
pub fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::EXPERIMENTS;

    #[test]
    fn one_of_what_is_counted_is_told_as_one() {
        let axes = || EXPERIMENTS.iter().filter_map(|it| it.axis);
        let told = |key: &str, x| at(axes().find(|it| it.key == key).unwrap(), x);
        assert_eq!(told("streams", 1.0), "1 TCP stream in one tunnel");
        assert_eq!(told("streams", 8.0), "8 TCP streams in one tunnel");
        assert_eq!([told("tunnels", 1.0), told("workers", 1.0)], ["1 tunnel", "1 processor"]);
        assert_eq!(told("peers", 1.0), "1 peer of one server");
    }
}

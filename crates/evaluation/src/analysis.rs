//! A run as questions see it: each experiment in panels, each panel with a series for each system, each series with points.
//!
//! What is varied along the axis makes the points; every other parameter and label makes panels, such as one for each kind of link.
//! What is the same in all records of an experiment is told once.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalogue::{Experiment, LOST, Metric};
use crate::caveat::caveat;
use crate::distribution::Distribution;
use crate::record::Record;
use crate::run::Run;
use crate::statistics::{Estimate, paired};

/// An experiment's part of a run.
#[derive(Debug)]
pub struct Analysis<'a> {
    /// Of what.
    pub experiment: &'static Experiment,
    /// What all its records have in common, such as `mtu 1420`.
    pub common: Vec<String>,
    /// One for each combination of what they do not.
    pub panels: Vec<Panel<'a>>,
}

/// What was measured under the same conditions.
#[derive(Debug)]
pub struct Panel<'a> {
    /// The conditions; empty where there is only one panel.
    pub name: String,
    /// In the order of the run's systems.
    pub series: Vec<Series<'a>>,
}

/// One system in one panel.
#[derive(Debug)]
pub struct Series<'a> {
    /// Its name in records.
    pub slug: &'a str,
    /// Its name for people.
    pub title: &'a str,
    /// Whether it is what this project makes.
    pub ours: bool,
    /// Whether it is no tunnel at all: what all others are held against, and no rival of theirs.
    pub reference: bool,
    /// What has to be known before its figures are quoted; may be empty.
    pub caveat: String,
    /// By the axis, from left to right; one point where there is none.
    pub points: Vec<Point<'a>>,
}

/// One system under one condition, in several rounds.
#[derive(Debug)]
pub struct Point<'a> {
    /// The axis' value; 0 without an axis.
    pub x: f64,
    /// Records of the rounds that did not fail.
    pub records: Vec<&'a Record>,
    /// Why others failed.
    pub failures: Vec<&'a str>,
}

impl<'a> Analysis<'a> {
    /// Of one experiment; none where the run has nothing of it.
    pub fn of(run: &'a Run, experiment: &'static Experiment) -> Option<Analysis<'a>> {
        let records: Vec<_> = run.records.iter().filter(|record| record.experiment == experiment.source).collect();
        if !records.iter().any(|record| has(record, experiment)) {
            return None;
        }
        let conditions: Vec<_> = records.iter().map(|record| conditions(record, experiment)).collect();
        let mut values: BTreeMap<&str, BTreeSet<Option<&str>>> = BTreeMap::new();
        let keys: BTreeSet<&str> = conditions.iter().flat_map(|it| it.keys().map(String::as_str)).collect();
        for key in keys {
            values.insert(key, conditions.iter().map(|it| it.get(key).map(String::as_str)).collect());
        }
        let common = |key: &str| values.get(key).is_none_or(|values| values.len() < 2);
        let told = conditions.first().into_iter().flatten().filter(|(key, _)| common(key));
        let told = told.map(|(key, value)| format!("{key} {value}")).collect();
        let name = |at: usize| -> String {
            let different = conditions[at].iter().filter(|(key, _)| !common(key));
            different.map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", ")
        };
        let mut panels: BTreeMap<String, BTreeMap<&str, Vec<&Record>>> = BTreeMap::new();
        for (at, record) in records.iter().enumerate() {
            panels.entry(name(at)).or_default().entry(&record.system).or_default().push(record);
        }
        let order = run.order();
        let panels = panels.into_iter().map(|(name, mut systems)| {
            let known = order.iter().filter_map(|slug| Some((*slug, systems.remove(slug)?)));
            Panel { series: known.map(|(slug, records)| series(run, experiment, slug, &records)).collect(), name }
        });
        let panels = panels.filter(|panel| panel.series.iter().any(|series| !series.points.is_empty()));
        Some(Analysis { experiment, common: told, panels: panels.collect() })
    }

    /// Of all experiments that the run has something of, in the catalogue's order.
    pub fn all(run: &'a Run) -> Vec<Analysis<'a>> {
        crate::catalogue::EXPERIMENTS.iter().filter_map(|experiment| Analysis::of(run, experiment)).collect()
    }
}

/// Whether a record has, or failed to have, what an experiment looks at.
fn has(record: &Record, experiment: &Experiment) -> bool {
    record.failure.is_some() || record.metric(experiment.main().key).is_some()
}

/// Where along the axis each record stands. Which processor of a machine is the busiest is chance and another in each round, so processors are
/// told apart by how busy they were within their round: 1 for the busiest.
fn places<'a>(experiment: &Experiment, records: &[&'a Record]) -> Vec<(f64, &'a Record)> {
    if experiment.slug != "cores" {
        let x = |record: &Record| experiment.axis.and_then(|axis| record.x.get(axis.key)).copied().unwrap_or(0.0);
        return records.iter().map(|record| (x(record), *record)).collect();
    }
    let mut rounds: BTreeMap<u32, Vec<&Record>> = BTreeMap::new();
    for record in records {
        rounds.entry(record.round).or_default().push(record);
    }
    let busy = |record: &Record| record.metric(experiment.main().key).unwrap_or(-1.0);
    let ranked = rounds.into_values().flat_map(|mut round| {
        round.sort_by(|one, other| busy(other).total_cmp(&busy(one)));
        (1..).map(f64::from).zip(round)
    });
    ranked.collect()
}

/// All that tells a record from others but the system and the axis.
fn conditions(record: &Record, experiment: &Experiment) -> BTreeMap<String, String> {
    let axis = experiment.axis.map(|axis| axis.key);
    let numbers = record.x.iter().filter(|(key, _)| Some(key.as_str()) != axis);
    let numbers = numbers.map(|(key, value)| (key.clone(), value.to_string()));
    numbers.chain(record.labels.iter().map(|(key, value)| (format!("{key}:"), value.clone()))).collect()
}

fn series<'a>(run: &'a Run, experiment: &'static Experiment, slug: &'a str, records: &[&'a Record]) -> Series<'a> {
    // A run that was checked has every system that its records name.
    let system = run.systems.get(slug);
    let mut points: BTreeMap<u64, Point<'a>> = BTreeMap::new();
    let records: Vec<_> = records.iter().copied().filter(|record| has(record, experiment)).collect();
    for (x, record) in places(experiment, &records) {
        // Numbers from 0 up are in the same order as their bits.
        let point = points.entry((x + 0.0).to_bits()).or_insert(Point { x, records: Vec::new(), failures: Vec::new() });
        match &record.failure {
            Some(failure) => point.failures.push(failure),
            None => point.records.push(record),
        }
    }
    Series {
        slug,
        title: system.map_or(slug, |system| if system.title.is_empty() { slug } else { &system.title }),
        ours: system.is_some_and(|system| system.ours),
        reference: system.is_some_and(|system| system.protocol == "none"),
        caveat: system.map(|system| caveat(slug, system)).unwrap_or_default(),
        points: points.into_values().collect(),
    }
}

impl Series<'_> {
    /// Whether nothing may be said of its speed.
    pub fn emulated(&self) -> bool {
        self.points.iter().flat_map(|point| &point.records).any(|record| record.emulated)
    }

    /// The point of a value of the axis.
    pub fn at(&self, x: f64) -> Option<&Point<'_>> {
        self.points.iter().find(|point| point.x == x)
    }
}

impl Point<'_> {
    /// A metric by round.
    pub fn values(&self, metric: &Metric) -> Vec<(u32, f64)> {
        self.records.iter().filter_map(|record| Some((record.round, record.metric(metric.key)?))).collect()
    }

    /// A metric over the rounds.
    pub fn estimate(&self, metric: &Metric) -> Option<Estimate> {
        let values: Vec<_> = self.values(metric).into_iter().map(|(_, value)| value).collect();
        Estimate::of(&values)
    }

    /// What it has for each of another's, within rounds.
    pub fn ratio(&self, other: &Point<'_>, metric: &Metric) -> Option<Estimate> {
        paired(&self.values(metric), &other.values(metric))
    }

    /// The factor by which a metric's values may differ although what was measured does not: 1 where its search has no steps.
    pub fn resolution(&self, metric: &Metric) -> f64 {
        self.records.iter().filter_map(|record| record.resolution.get(metric.key)).copied().fold(1.0, f64::max)
    }

    /// Whether what makes the traffic set the bound of a metric in any round.
    pub fn bounded(&self, metric: &Metric) -> bool {
        self.records.iter().any(|record| record.bounded.contains(metric.key))
    }

    /// How many packets all times of all rounds are of, those included that were lost.
    pub fn sent(&self) -> u64 {
        let sent = |record: &&Record| {
            let back = record.latency.as_ref().map_or(0, Distribution::len) as f64;
            let lost = record.metrics.get(LOST.key).copied().unwrap_or(0.0);
            if lost < 1.0 { (back / (1.0 - lost)).round() as u64 } else { 0 }
        };
        self.records.iter().map(sent).sum()
    }

    /// All times of all rounds.
    pub fn latency(&self) -> Option<Distribution> {
        let mut all = Distribution::new();
        for latency in self.records.iter().filter_map(|record| record.latency.as_ref()) {
            all.add(latency);
        }
        (!all.is_empty()).then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;
    use crate::run::{Machine, System};

    fn run() -> Run {
        let mut run = Run::new("r", 0, 1, Machine { processors: 2, ..Machine::default() });
        run.systems.insert("a".to_owned(), System { title: "A".to_owned(), ours: true, ..System::default() });
        run.systems.insert("n".to_owned(), System { protocol: "none".to_owned(), ..System::default() });
        for (round, system, link, streams, bits) in [
            (1, "a", "gso", 8.0, 9e9),
            (1, "a", "gso", 1.0, 8e9),
            (2, "a", "gso", 1.0, 6e9),
            (1, "n", "gso", 1.0, 5e10),
            (1, "a", "plain", 1.0, 1e9),
        ] {
            let record = Record::new("streams", system, round, 0).at("streams", streams).at("mtu", 1420.0);
            run.records.push(record.labelled("link", link).with("throughput", bits).with("processors", 2.0));
        }
        let mut failed = Record::new("streams", "a", 3, 0).at("streams", 1.0).at("mtu", 1420.0).labelled("link", "gso");
        failed.failure = Some("it said no".to_owned());
        run.records.push(failed);
        run
    }

    /// The one that does all the work is not the same in every round.
    #[test]
    fn processors_are_told_apart_by_how_busy_they_are() {
        let mut run = run();
        for (round, busy) in [(1, [0.99, 0.2]), (2, [0.3, 0.98]), (3, [0.97, 0.1])] {
            for (core, busy) in busy.into_iter().enumerate() {
                run.records.push(Record::new("cores", "a", round, 0).at("core", core as f64).with("busy", busy));
            }
        }
        assert_eq!(run.fault(), None);
        let found = Analysis::of(&run, catalogue::find("cores").unwrap()).unwrap();
        let medians: Vec<_> = found.panels[0].series[0]
            .points
            .iter()
            .map(|point| (point.x, point.estimate(found.experiment.main()).unwrap().median))
            .collect();
        assert_eq!(medians, [(1.0, 0.98), (2.0, 0.2)]);
    }

    #[test]
    fn records_become_panels_series_and_points() {
        let run = run();
        assert_eq!(run.fault(), None);
        let all = Analysis::all(&run);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].common, ["mtu 1420"]);
        let names: Vec<_> = all[0].panels.iter().map(|panel| panel.name.as_str()).collect();
        assert_eq!(names, ["link: gso", "link: plain"]);
        let [ours, none] = &all[0].panels[0].series[..] else { panic!("{all:?}") };
        assert_eq!((ours.title, ours.ours, none.title, none.reference), ("A", true, "n", true));
        assert_eq!(ours.points.iter().map(|point| point.x).collect::<Vec<_>>(), [1.0, 8.0]);
        let point = ours.at(1.0).unwrap();
        let found = point.estimate(&catalogue::THROUGHPUT).unwrap();
        assert_eq!((found.low, found.median, found.high, point.failures.len()), (6e9, 7e9, 8e9, 1));
        // Only round 1 has both.
        let ratio = ours.at(8.0).unwrap().ratio(point, &catalogue::THROUGHPUT).unwrap();
        assert_eq!((ratio.median, ratio.count), (9.0 / 8.0, 1));
        assert_eq!(point.estimate(&catalogue::PER_PROCESSOR).unwrap().median, 3.5e9);
    }
}

//! One measurement: what was done to which system, and what came of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::catalogue::{self, LOST, PER_PROCESSOR, PERCENTILES, PROCESSORS, THROUGHPUT};
use crate::distribution::Distribution;

/// What no figure exceeds in its base unit.
const MOST: f64 = 1e18;
/// Seconds that a measurement may have taken: a month.
const LONGEST: f64 = 31.0 * 86_400.0;
/// Rounds that a run may have.
const ROUNDS: u32 = 10_000;

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The experiment's name in the [`catalogue`].
    pub experiment: String,
    /// The system's name in [`Run::systems`](crate::Run::systems).
    pub system: String,
    /// Values of the axis and of anything else that is a number, in base units: `streams` 4, `mtu` 1420.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub x: BTreeMap<String, f64>,
    /// What else tells two measurements of one experiment apart: `link` `gso`, `gateway` `gw1`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// In which round, counted from 1: what shares a round was measured close together, and is compared pair by pair.
    pub round: u32,
    /// What was found, in base units, by the metric's key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// All times that were seen, where the experiment is about times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Distribution>,
    /// By the metric's key: the factor, 1 or more, by which a figure differs from the next that could have been found, where the search
    /// for it has steps. No difference is claimed within one step.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resolution: BTreeMap<String, f64>,
    /// Keys of metrics that what makes the traffic set the bound of, and not the system: it can do at least this.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub bounded: BTreeSet<String>,
    /// Processors' worth of other work that was seen on the machine just before or meanwhile, where it was enough to spoil a figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disturbed: Option<f64>,
    /// Whether the processor that it ran on was emulated: then it tells that a thing works, and nothing about its speed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emulated: bool,
    /// When it began, in seconds since 1970.
    pub when: u64,
    /// How long it took in seconds, with all that came before and after.
    pub took: f64,
    /// Why there is no figure, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Record {
    /// A record without any figures yet.
    pub fn new(experiment: &str, system: &str, round: u32, when: u64) -> Record {
        Record {
            experiment: experiment.to_owned(),
            system: system.to_owned(),
            x: BTreeMap::new(),
            labels: BTreeMap::new(),
            round,
            metrics: BTreeMap::new(),
            latency: None,
            resolution: BTreeMap::new(),
            bounded: BTreeSet::new(),
            disturbed: None,
            emulated: false,
            when,
            took: 0.0,
            failure: None,
        }
    }

    /// With a value of the axis, or of another parameter.
    #[must_use]
    pub fn at(mut self, key: &str, value: f64) -> Record {
        self.x.insert(key.to_owned(), value);
        self
    }

    /// With what else tells it apart.
    #[must_use]
    pub fn labelled(mut self, key: &str, value: &str) -> Record {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With a figure in base units.
    #[must_use]
    pub fn with(mut self, key: &str, value: f64) -> Record {
        self.metrics.insert(key.to_owned(), value);
        self
    }

    /// With a whole distribution of times of which none was lost, and the median and the 99th percentile of it as figures.
    #[must_use]
    pub fn timed(self, times: Distribution) -> Record {
        let all = times.len();
        self.echoed(times, all)
    }

    /// With the times of what came back of so many that were sent, the share that did not, and percentiles of all that were sent: what was
    /// lost counts as slower than anything, so where more than one in a hundred was lost there is no 99th percentile.
    #[must_use]
    pub fn echoed(mut self, times: Distribution, sent: u64) -> Record {
        let (back, sent) = (times.len() as f64, sent.max(times.len()) as f64);
        if sent > 0.0 {
            self.metrics.insert(LOST.key.to_owned(), 1.0 - back / sent);
        }
        for (key, share) in PERCENTILES {
            // Of all that were sent, so many have to be at most as slow.
            let needed = share * sent;
            if needed <= back
                && let Some(seconds) = times.quantile(needed / back)
            {
                self.metrics.insert(key.to_owned(), seconds);
            }
        }
        self.latency = Some(times);
        self
    }

    /// With the step factor of a metric's search: see [`Record::resolution`].
    #[must_use]
    pub fn resolved(mut self, key: &str, factor: f64) -> Record {
        self.resolution.insert(key.to_owned(), factor);
        self
    }

    /// With a metric that the sender bounded: see [`Record::bounded`].
    #[must_use]
    pub fn bounded(mut self, key: &str) -> Record {
        self.bounded.insert(key.to_owned());
        self
    }

    /// A figure, if the measurement has it and did not fail. Throughput per busy processor is reckoned. A percentile that fell among what
    /// was lost is infinite.
    pub fn metric(&self, key: &str) -> Option<f64> {
        if self.failure.is_some() {
            return None;
        }
        if let Some(value) = self.metrics.get(key) {
            return Some(*value);
        }
        if key == PER_PROCESSOR.key {
            let (bits, busy) = (self.metrics.get(THROUGHPUT.key)?, self.metrics.get(PROCESSORS.key)?);
            return (*busy > 0.0).then(|| bits / busy);
        }
        if let Some((_, share)) = PERCENTILES.iter().find(|(percentile, _)| *percentile == key) {
            let lost = self.metrics.get(LOST.key)?;
            return (*lost > 1.0 - share).then_some(f64::INFINITY);
        }
        None
    }

    /// What tells it from all others of a run but its round.
    pub fn place(&self) -> Place {
        let x = self.x.iter().map(|(key, value)| (key.clone(), (value + 0.0).to_bits())).collect();
        Place { experiment: self.experiment.clone(), system: self.system.clone(), x, labels: self.labels.clone() }
    }

    /// What is wrong with it, if anything is.
    pub(crate) fn fault(&self) -> Option<String> {
        let Some(experiment) = catalogue::find(&self.experiment) else {
            let known: Vec<_> = catalogue::EXPERIMENTS.iter().filter(|it| !it.derived()).map(|it| it.slug).collect();
            return Some(format!("no experiment is named {:?} (there are {})", self.experiment, known.join(", ")));
        };
        if experiment.derived() {
            return Some(format!(
                "{:?} has no records of its own, it reads those of {:?}",
                self.experiment, experiment.source
            ));
        }
        if self.round == 0 || self.round > ROUNDS {
            return Some(format!("round {}, and rounds are counted from 1 to {ROUNDS}", self.round));
        }
        if let Some(axis) = experiment.axis
            && !self.x.contains_key(axis.key)
        {
            return Some(format!("{:?} needs {:?} in x", self.experiment, axis.key));
        }
        let mut numbers = self.x.iter().chain(&self.metrics);
        if let Some((key, value)) = numbers.find(|(_, value)| !(0.0..=MOST).contains(*value)) {
            return Some(format!("{key:?} is {value}, which is no number from 0 to {MOST:e}"));
        }
        if let Some((key, factor)) = self.resolution.iter().find(|(_, factor)| !(1.0..=1e6).contains(*factor)) {
            return Some(format!("{key:?} is resolved to a factor of {factor}, which is not 1 to 1000000"));
        }
        if let Some(processors) = self.disturbed.filter(|it| !(0.0..=1e6).contains(it)) {
            return Some(format!("disturbed by {processors} processors' worth of work, which is not 0 to 1000000"));
        }
        if !(0.0..=LONGEST).contains(&self.took) {
            return Some(format!("took {} s, which is no time from 0 to {LONGEST} s", self.took));
        }
        if self.latency.is_some() && !catalogue::has_times(&self.experiment) {
            return Some(format!("{:?} is not about times, and has a distribution of them", self.experiment));
        }
        let keys = self.metrics.keys().chain(self.resolution.keys()).chain(&self.bounded);
        if let Some(key) = keys.into_iter().find(|key| catalogue::metric_of(&self.experiment, key).is_none()) {
            let sources = catalogue::EXPERIMENTS.iter().filter(|it| it.source == self.experiment);
            let known: Vec<_> = sources.flat_map(|it| it.metrics).map(|metric| metric.key).collect();
            return Some(format!("{:?} has no metric {key:?} (it has {})", self.experiment, known.join(", ")));
        }
        if self.failure.is_none() && self.metrics.is_empty() {
            return Some("neither a figure nor a failure".to_owned());
        }
        None
    }
}

/// What tells measurements of a run apart, but for the round.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The experiment.
    pub experiment: String,
    /// The system.
    pub system: String,
    /// The parameters, as bits: numbers from 0 up are in the same order as their bits (and adding 0 takes the sign off -0).
    x: BTreeMap<String, u64>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

impl Place {
    /// A parameter.
    pub fn x(&self, key: &str) -> Option<f64> {
        self.x.get(key).copied().map(f64::from_bits)
    }

    /// All parameters.
    pub fn xs(&self) -> impl Iterator<Item = (&str, f64)> {
        self.x.iter().map(|(key, bits)| (key.as_str(), f64::from_bits(*bits)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn times(count: u64) -> Distribution {
        let mut times = Distribution::new();
        for micros in 1..=count {
            times.record(Duration::from_micros(micros));
        }
        times
    }

    #[test]
    fn what_was_lost_is_slower_than_anything() {
        let near = |found: Option<f64>, micros: f64| {
            let found = found.unwrap() * 1e6;
            assert!((found / micros - 1.0).abs() < 2e-3, "{found} for {micros}");
        };
        let record = Record::new("latency", "a", 1, 0).echoed(times(995), 1000);
        assert!((record.metric("lost").unwrap() - 0.005).abs() < 1e-12);
        // The 990th of 1000 that were sent, not the 985th that 99 % of those that came back are.
        near(record.metric("p50"), 500.0);
        near(record.metric("p99"), 990.0);
        let record = Record::new("latency", "a", 1, 0).echoed(times(193), 195);
        near(record.metric("p50"), 98.0);
        assert_eq!((record.metric("p99"), record.metrics.get("p99")), (Some(f64::INFINITY), None));
        assert_eq!(record.fault(), None);
        let record = Record::new("latency", "a", 1, 0).echoed(times(4), 10);
        assert_eq!(record.metric("p50"), Some(f64::INFINITY));
        // Nothing was lost, or it was never told: a run of before.
        assert_eq!(Record::new("latency", "a", 1, 0).timed(times(10)).metric("lost"), Some(0.0));
        assert_eq!(Record::new("latency", "a", 1, 0).with("p50", 1.0).metric("p99"), None);
        // More answers than requests are not fewer than nothing lost.
        assert_eq!(Record::new("latency", "a", 1, 0).echoed(times(10), 5).metric("lost"), Some(0.0));
    }

    #[test]
    fn steps_and_bounds_are_of_metrics_that_there_are() {
        let record = Record::new("sizes", "a", 1, 0).at("size", 64.0).with("packets", 1e5);
        assert_eq!(record.clone().resolved("packets", 1.19).bounded("packets").fault(), None);
        assert!(record.clone().resolved("packets", 0.5).fault().unwrap().contains("factor of 0.5"));
        assert!(record.clone().resolved("pakets", 1.5).fault().unwrap().contains("no metric \"pakets\""));
        assert!(record.clone().bounded("pakets").fault().unwrap().contains("no metric \"pakets\""));
        assert!(Record { disturbed: Some(-1.0), ..record }.fault().unwrap().contains("disturbed by -1"));
    }
}

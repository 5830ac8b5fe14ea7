//! One measurement: what was done to which system, and what came of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::catalogue::{self, PER_PROCESSOR, PROCESSORS, THROUGHPUT};
use crate::distribution::Distribution;

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

    /// With a whole distribution of times, and the median and the 99th percentile of it as figures.
    #[must_use]
    pub fn timed(mut self, times: Distribution) -> Record {
        for (key, share) in [("p50", 0.5), ("p99", 0.99)] {
            if let Some(seconds) = times.quantile(share) {
                self.metrics.insert(key.to_owned(), seconds);
            }
        }
        self.latency = Some(times);
        self
    }

    /// A figure, if the measurement has it and did not fail. Throughput per busy processor is reckoned.
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
        if self.round == 0 {
            return Some("rounds are counted from 1".to_owned());
        }
        if let Some(axis) = experiment.axis
            && !self.x.contains_key(axis.key)
        {
            return Some(format!("{:?} needs {:?} in x", self.experiment, axis.key));
        }
        let mut numbers = self.x.iter().chain(&self.metrics);
        if let Some((key, value)) = numbers.find(|(_, value)| !value.is_finite() || **value < 0.0) {
            return Some(format!("{key:?} is {value}, which is no number from 0 up"));
        }
        if !self.took.is_finite() || self.took < 0.0 {
            return Some(format!("took {} s, which is no time", self.took));
        }
        if let Some(key) = self.metrics.keys().find(|key| catalogue::metric_of(&self.experiment, key).is_none()) {
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

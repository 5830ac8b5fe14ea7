//! What is to be measured, and what of it is still missing: so a run is resumed.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{Place, Record};
use crate::run::Run;

/// What is to be measured.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In the order in which it is measured within a round.
    pub steps: Vec<Step>,
    /// How often.
    pub rounds: u32,
}

/// One measurement of each round.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The experiment.
    pub experiment: String,
    /// The system.
    pub system: String,
    /// Parameters, as in a [`Record`].
    pub x: BTreeMap<String, f64>,
    /// Labels, as in a [`Record`].
    pub labels: BTreeMap<String, String>,
    /// Seconds that it is expected to take, where nothing was measured yet.
    pub seconds: f64,
}

/// A measurement that is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Todo<'a> {
    /// Which.
    pub step: &'a Step,
    /// In which round.
    pub round: u32,
}

impl Step {
    /// A step without parameters.
    pub fn new(experiment: &str, system: &str, seconds: f64) -> Step {
        Step {
            experiment: experiment.to_owned(),
            system: system.to_owned(),
            x: BTreeMap::new(),
            labels: BTreeMap::new(),
            seconds,
        }
    }

    /// An empty record of it.
    pub fn record(&self, round: u32, when: u64) -> Record {
        let mut record = Record::new(&self.experiment, &self.system, round, when);
        record.x.clone_from(&self.x);
        record.labels.clone_from(&self.labels);
        record
    }

    fn place(&self) -> Place {
        self.record(1, 0).place()
    }
}

impl Plan {
    /// What a run lacks, round by round: so a run that is stopped has whole rounds. A failure counts as measured unless it is to be
    /// tried `again`.
    pub fn missing(&self, run: &Run, again: bool) -> Vec<Todo<'_>> {
        let done = run.records.iter().filter(|record| !again || record.failure.is_none());
        let done: BTreeSet<_> = done.map(|record| (record.place(), record.round)).collect();
        let places: Vec<_> = self.steps.iter().map(|step| (step, step.place())).collect();
        let each = (1..=self.rounds).flat_map(|round| places.iter().map(move |(step, place)| (*step, place, round)));
        each.filter(|(_, place, round)| !done.contains(&((*place).clone(), *round)))
            .map(|(step, _, round)| Todo { step, round })
            .collect()
    }

    /// Seconds that a step will take: as long as the same took of the same system so far, or of any system, or as the plan says. What failed took its time, too,
    /// and may do so again.
    pub fn expected(&self, run: &Run, step: &Step) -> f64 {
        Seen::of(run).expected(step)
    }

    /// Seconds that what is missing will take, each as [`Plan::expected`] has it.
    pub fn estimate(&self, run: &Run, again: bool) -> f64 {
        let seen = Seen::of(run);
        self.missing(run, again).iter().map(|todo| seen.expected(todo.step)).sum()
    }
}

/// How long measurements took: their sum and number, by what was measured.
struct Seen {
    /// Of one system.
    own: BTreeMap<Place, (f64, f64)>,
    /// The same of any.
    any: BTreeMap<Place, (f64, f64)>,
}

impl Seen {
    fn of(run: &Run) -> Seen {
        let mut seen = Seen { own: BTreeMap::new(), any: BTreeMap::new() };
        for record in &run.records {
            let place = record.place();
            // One that could not even be set up tells nothing of others.
            let any = record.failure.is_none().then(|| (&mut seen.any, of_any(place.clone())));
            for (times, place) in any.into_iter().chain([(&mut seen.own, place)]) {
                let (sum, count) = times.entry(place).or_default();
                *sum += record.took;
                *count += 1.0;
            }
        }
        seen
    }

    fn expected(&self, step: &Step) -> f64 {
        let place = step.place();
        let took = self.own.get(&place).or_else(|| self.any.get(&of_any(place)));
        took.map_or(step.seconds, |(sum, count)| sum / count)
    }
}

fn of_any(mut place: Place) -> Place {
    place.system.clear();
    place
}

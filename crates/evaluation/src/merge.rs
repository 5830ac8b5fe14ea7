//! Several runs of one machine as one: what was measured on different days, or of different systems.
//!
//! Rounds are what is compared pair by pair, so rounds of different runs stay different: those of the second begin where those of the first
//! end. What was measured on different machines, or by different settings, is never one run.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::EvaluationError;
use crate::record::Record;
use crate::run::Run;
use crate::time::stamp;

/// Puts runs together, in the order in which they are given.
///
/// # Errors
/// There is none, two are of different machines, settings or versions of one system, or both have one and the same measurement.
pub fn merge(runs: &[Run]) -> Result<Run, EvaluationError> {
    let Some((first, rest)) = runs.split_first() else {
        return Err(EvaluationError::Invalid { place: "merge".to_owned(), what: "no run was named".to_owned() });
    };
    let mut all = first.clone();
    for run in rest {
        let refuse = |why: String| EvaluationError::Merge { one: all.id.clone(), other: run.id.clone(), why };
        if !all.machine.is_same(&run.machine) {
            return Err(refuse(format!("measured on {}, and on {}", all.machine.line(), run.machine.line())));
        }
        if let Some((key, one, other)) = different(&all.settings, &run.settings) {
            return Err(refuse(format!("{key} is {one} in one and {other} in the other")));
        }
        for (name, system) in &run.systems {
            if let Some(known) = all.systems.get(name).filter(|known| known.version != system.version) {
                let (one, other) = (&known.version, &system.version);
                return Err(refuse(format!("{name} is {one:?} in one and {other:?} in the other")));
            }
        }
        // In which round a record stands says nothing here: merging moves it.
        let moment = |record: &Record| (record.place(), record.when, record.took.to_bits());
        let known: BTreeSet<_> = all.records.iter().map(moment).collect();
        if let Some(record) = run.records.iter().find(|record| known.contains(&moment(record))) {
            return Err(refuse(format!(
                "both have the same measurement, {} of {} at {}",
                record.experiment,
                record.system,
                stamp(record.when)
            )));
        }
        let last = all.records.iter().map(|record| record.round).max().unwrap_or(0);
        let shifted = run.records.iter().cloned().map(|mut record| {
            record.round = record.round.saturating_add(last);
            record
        });
        all.records.extend(shifted);
        all.id = format!("{} + {}", all.id, run.id);
        for (name, system) in &run.systems {
            let before = all.systems.insert(name.clone(), system.clone()).unwrap_or_default();
            // What was counted in one and not in the other is known all the same.
            if let Some(system) = all.systems.get_mut(name) {
                system.code = system.code.take().or(before.code);
                system.configuration_lines = system.configuration_lines.or(before.configuration_lines);
                system.steps = system.steps.or(before.steps);
            }
        }
        all.missing.extend(run.missing.clone());
        // They do not depend on a round: what was looked at last stands.
        for (name, kernel) in &run.kernels {
            let known = all.kernels.get(name);
            let better = known
                .is_none_or(|known| (kernel.failure.is_none(), kernel.when) >= (known.failure.is_none(), known.when));
            if better {
                all.kernels.insert(name.clone(), kernel.clone());
            }
        }
        all.code.extend(run.code.clone());
        all.started = all.started.min(run.started);
    }
    // What is missing is called by its title, what is there by its name in records.
    let systems = &all.systems;
    all.code.retain(|title, _| systems.values().all(|system| system.title != *title));
    all.missing.retain(|name, _| !systems.iter().any(|(slug, system)| slug == name || system.title == *name));
    match all.fault() {
        None => Ok(all),
        Some(what) => Err(EvaluationError::Invalid { place: all.id.clone(), what }),
    }
}

/// The first setting that both have, and have differently. How often is no matter: rounds stay rounds.
fn different<'a>(
    one: &'a BTreeMap<String, String>,
    other: &'a BTreeMap<String, String>,
) -> Option<(&'a str, &'a str, &'a str)> {
    let both = one.iter().filter(|(key, _)| *key != "rounds");
    both.filter_map(|(key, value)| Some((key.as_str(), value.as_str(), other.get(key)?.as_str())))
        .find(|(_, one, other)| one != other)
}

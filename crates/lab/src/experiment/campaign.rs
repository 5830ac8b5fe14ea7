//! Going through a plan: what is missing from a run is measured, record by record, each of them kept at once.
//!
//! What goes wrong is a record too, with the reason in place of a figure, and the next measurement goes on, on a system that was set up anew: what a failure has left
//! would spoil the next. The wish to stop and a file that cannot be written end it, and so does the end of the time that was given, in the middle of a measurement if
//! need be; what was set up goes by then like everything else.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use evaluation::{EvaluationError, Record, Run, Step};

use super::bench::{Bench, Site};
use super::plan::{self, Planned};
use super::wakeups;
use crate::interrupt::stopped;
use crate::subject::Subject;
use crate::{Gso, LabError, Until, machine};

/// Why a run was not finished.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// The person asked us to stop, or nothing at all can be made here.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// What was measured could not be kept.
    #[error(transparent)]
    Kept(#[from] EvaluationError),
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Measurements that were made.
    pub measured: usize,
    /// Those of them that failed.
    pub failed: usize,
    /// Measurements that were left, because the time was over.
    pub left: usize,
}

/// Where it stands, before each measurement.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// What is measured now.
    pub step: &'a Step,
    /// In which round.
    pub round: u32,
    /// Measurements of the plan that are in the run.
    pub done: usize,
    /// All of the plan.
    pub of: usize,
    /// How long the rest will take, so far as can be told.
    pub left: Duration,
}

/// What is to be measured with what, and who is told.
pub struct Campaign<'a> {
    /// The systems, by whose slugs the plan calls them.
    pub subjects: &'a [&'a dyn Subject],
    /// What is to be measured.
    pub planned: &'a Planned,
    /// When it has to be over: what goes beyond is broken off and counts as left.
    pub deadline: Option<Instant>,
    /// Keeps the run after each measurement.
    pub keep: &'a mut dyn FnMut(&Run) -> Result<(), EvaluationError>,
    /// Is told what comes next.
    pub tell: &'a mut dyn FnMut(&Progress<'_>),
}

/// Measurements of one system at one site.
struct Group {
    round: u32,
    site: Site,
    link: Gso,
    system: usize,
    steps: Vec<Step>,
    /// Processors that something else kept busy before, where that was too much.
    disturbed: Option<f64>,
}

impl Campaign<'_> {
    /// Measures what the run lacks.
    ///
    /// # Errors
    /// The wish to stop, or that the run cannot be kept.
    pub fn go(&mut self, run: &mut Run) -> Result<Outcome, CampaignError> {
        let mut outcome = Outcome::default();
        let until = Until::new(self.deadline);
        let ended = self.all(run, &mut outcome);
        drop(until);
        match ended {
            Err(CampaignError::Lab(LabError::TimeOver)) | Ok(()) => {
                outcome.left = self.planned.plan.missing(run, false).len();
                Ok(outcome)
            }
            Err(error) => Err(error),
        }
    }

    fn all(&mut self, run: &mut Run, outcome: &mut Outcome) -> Result<(), CampaignError> {
        let mut groups = self.groups(run).into_iter().peekable();
        let (mut place, mut disturbed) = (None, None);
        while let Some(mut group) = groups.next() {
            // Nothing of ours runs between two sites, so that whoever is busy then is somebody else.
            if place.replace((group.round, group.site)) != Some((group.round, group.site)) {
                disturbed = machine::disturbed()?;
            }
            group.disturbed = disturbed;
            if group.site == Site::Quiet {
                let mut all = vec![group];
                while let Some(group) = groups.next_if(|it| it.site == Site::Quiet && it.round == all[0].round) {
                    all.push(group);
                }
                self.quiet(run, &all, outcome)?;
            } else {
                self.group(run, &group, outcome)?;
            }
        }
        Ok(())
    }

    /// What is missing, site by site within a round. Each round begins with another system, so that none is always the first after a pause.
    fn groups(&self, run: &Run) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for todo in self.planned.plan.missing(run, false) {
            let Some((experiment, x)) = plan::of(todo.step) else { continue };
            let Some(system) = self.subjects.iter().position(|it| it.slug() == todo.step.system) else { continue };
            let (round, site, link) = (todo.round, experiment.site(x, &self.planned.effort), plan::link(todo.step));
            match groups.last_mut() {
                Some(last) if (last.round, last.site, last.link, last.system) == (round, site, link, system) => {
                    last.steps.push(todo.step.clone());
                }
                _ => groups.push(Group { round, site, link, system, steps: vec![todo.step.clone()], disturbed: None }),
            }
        }
        let count = self.subjects.len().max(1);
        let turn = |group: &Group| (group.system + count - (group.round as usize - 1) % count) % count;
        // They are in the order of rounds and sites already.
        groups.sort_by_key(|group| (group.round, group.site, group.link, turn(group)));
        groups
    }

    fn group(&mut self, run: &mut Run, group: &Group, outcome: &mut Outcome) -> Result<(), CampaignError> {
        let (subject, effort) = (self.subjects[group.system], &self.planned.effort);
        let mut bench: Option<Bench<'_>> = None;
        // Why it could not be set up: it would not the next time either.
        let mut hopeless: Option<String> = None;
        for step in &group.steps {
            if self.is_late(self.planned.plan.expected(run, step)) {
                continue;
            }
            self.tell_of(run, step, group.round);
            let (when, began) = (now(), Instant::now());
            let mut record = step.record(group.round, when);
            record.disturbed = group.disturbed;
            if bench.is_none() && hopeless.is_none() {
                match Bench::new(subject, group.site, group.link, effort) {
                    Ok(fresh) => {
                        describe(run, group.site, subject.slug(), &fresh);
                        bench = Some(fresh);
                    }
                    Err(error) => hopeless = Some(reason(error)?),
                }
            }
            record = match (&mut bench, &hopeless) {
                (Some(bench), _) => finished(measure(step, bench, record.clone()), record)?,
                (None, why) => {
                    record.failure = Some(format!("it could not be set up: {}", why.as_deref().unwrap_or_default()));
                    record
                }
            };
            let failed = record.failure.is_some();
            self.keep(run, record, began.elapsed(), outcome)?;
            // What was taken down on purpose is set up again for the next, and so is what a failure may have left in any state.
            if failed || bench.as_ref().is_some_and(|bench| bench.live.is_none()) {
                bench = None;
            }
        }
        Ok(())
    }

    /// All systems at once, each in its own namespaces.
    fn quiet(&mut self, run: &mut Run, groups: &[Group], outcome: &mut Outcome) -> Result<(), CampaignError> {
        let steps = || groups.iter().flat_map(|group| group.steps.iter().map(move |step| (group, step)));
        let seconds: f64 = steps().map(|(_, step)| self.planned.plan.expected(run, step)).sum();
        if self.is_late(seconds.max(wakeups::SECONDS)) {
            return Ok(());
        }
        let (when, began) = (now(), Instant::now());
        let mut benches = Vec::new();
        for (group, step) in steps() {
            self.tell_of(run, step, group.round);
            benches.push(Bench::new(self.subjects[group.system], group.site, group.link, &self.planned.effort));
            if let Some(why) = stopped() {
                return Err(why.into());
            }
        }
        let lives: Vec<_> = benches.iter().filter_map(|bench| bench.as_ref().ok()?.live.as_ref()).collect();
        let mut watched = wakeups::watch(&lives)?.into_iter();
        let count = u32::try_from(benches.len().max(1)).unwrap_or(u32::MAX);
        for ((group, step), bench) in steps().zip(benches) {
            let mut record = step.record(group.round, when);
            record.disturbed = group.disturbed;
            let found = bench.and_then(|_| watched.next().unwrap_or(Err(LabError::Interrupted)));
            let record = finished(found.map(|wakeups| record.clone().with("wakeups", wakeups)), record)?;
            self.keep(run, record, began.elapsed() / count, outcome)?;
        }
        Ok(())
    }

    fn is_late(&self, seconds: f64) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() + Duration::from_secs_f64(seconds) > deadline)
    }

    fn tell_of(&mut self, run: &Run, step: &Step, round: u32) {
        let plan = &self.planned.plan;
        let of = plan.steps.len() * plan.rounds as usize;
        let done = of - plan.missing(run, false).len();
        let left = Duration::from_secs_f64(plan.estimate(run, false).max(0.0));
        (self.tell)(&Progress { step, round, done, of, left });
    }

    fn keep(
        &mut self,
        run: &mut Run,
        mut record: Record,
        took: Duration,
        outcome: &mut Outcome,
    ) -> Result<(), CampaignError> {
        record.took = took.as_secs_f64();
        outcome.measured += 1;
        outcome.failed += usize::from(record.failure.is_some());
        run.records.push(record);
        (self.keep)(run)?;
        Ok(())
    }
}

fn measure(step: &Step, bench: &mut Bench<'_>, record: Record) -> Result<Record, LabError> {
    match plan::of(step) {
        Some((experiment, x)) => experiment.measure(bench, x, record),
        None => Err(LabError::Lacking { what: format!("experiment {:?}", step.experiment) }),
    }
}

/// A record in any case, except that nobody wants one any more.
fn finished(measured: Result<Record, LabError>, mut without: Record) -> Result<Record, LabError> {
    match measured {
        Ok(record) if record.metrics.values().all(|value| value.is_finite() && *value >= 0.0) => return Ok(record),
        Ok(record) => without.failure = Some(format!("figures that cannot be: {:?}", record.metrics)),
        Err(error) => without.failure = Some(reason(error)?),
    }
    Ok(without)
}

/// What to keep of an error in place of a figure; the wish to stop is none, nor is the end of the time, and whatever fails after either fails because of it.
fn reason(error: LabError) -> Result<String, LabError> {
    if let Some(why) = stopped() {
        return Err(why);
    }
    match error {
        LabError::Interrupted | LabError::TimeOver | LabError::NotRoot => Err(error),
        other => Ok(other.line()),
    }
}

/// Enters what one tunnel took to configure, once it is known.
fn describe(run: &mut Run, site: Site, slug: &str, bench: &Bench<'_>) {
    if let (Site::Tunnel | Site::Fresh, Some(live)) = (site, &bench.live) {
        let (lines, steps) = (live.configuration.lines, live.configuration.steps());
        if let Some(system) = run.systems.get_mut(slug) {
            system.configuration_lines = Some(lines);
            system.steps = Some(steps);
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Effort, plan};
    use crate::subject;
    use evaluation::Machine;

    #[test]
    fn each_round_begins_with_another_system() {
        let all = subject::all();
        let subjects: Vec<&dyn Subject> = all.iter().map(|it| &**it).take(3).collect();
        let planned = plan(&subjects, &["latency".to_owned(), "streams".to_owned()], &Effort::quick(), 4);
        let campaign = Campaign {
            subjects: &subjects,
            planned: &planned,
            deadline: None,
            keep: &mut |_| Ok(()),
            tell: &mut |_| (),
        };
        let run = Run::new("r", 0, 1, Machine { processors: 1, ..Machine::default() });
        let groups: Vec<_> =
            campaign.groups(&run).iter().map(|group| (group.round, group.system, group.steps.len())).collect();
        // A latency and two numbers of streams each.
        let round = |number, [a, b, c]: [usize; 3]| [(number, a, 3), (number, b, 3), (number, c, 3)];
        let expected = [round(1, [0, 1, 2]), round(2, [1, 2, 0]), round(3, [2, 0, 1]), round(4, [0, 1, 2])].concat();
        assert_eq!(groups, expected);
    }

    #[test]
    fn what_cannot_be_is_no_figure() {
        let record = || Record::new("latency", "x", 1, 0);
        let found = finished(Ok(record().with("p50", f64::NAN)), record()).unwrap();
        assert!(found.metrics.is_empty() && found.failure.unwrap().starts_with("figures that cannot be"));
        let found = finished(Err(LabError::Told(3)), record()).unwrap();
        assert_eq!(found.failure.as_deref(), Some("failed before step 3, as it was told to"));
        assert!(finished(Err(LabError::Interrupted), record()).is_err());
        assert_eq!(finished(Ok(record().with("p50", 1.0)), record()).unwrap().metric("p50"), Some(1.0));
    }
}

//! Two runs side by side: what became of each figure from one to the other.
//!
//! They were measured at different times, so nothing is paired: a figure has changed where the two intervals have nothing in
//! common, each of five rounds or more: of two times three rounds of one and the same thing one in ten lies apart by chance, of two times five one in
//! 126. How many that makes of all figures is said. Where the machines differ that is said first, and a change may be the machine's.

use std::fmt::Write;

use crate::analysis::Analysis;
use crate::catalogue::{Better, Metric};
use crate::kernel::GuestKernel;
use crate::run::Run;
use crate::statistics::{self, Estimate};
use crate::text::is_wild;
use crate::verdict::figure;

/// From how many rounds of both on a change may be claimed.
pub const ROUNDS: usize = 5;
/// What is carried of a rate that was tried is up to one in a hundred less.
const SLACK: f64 = 1.01;

/// What became of one figure.
#[derive(Clone, Debug)]
pub struct Change {
    /// The experiment's title.
    pub experiment: &'static str,
    /// The system's title in the second run, and where it was measured.
    pub place: String,
    /// The metric.
    pub metric: &'static Metric,
    /// In the first run.
    pub before: Estimate,
    /// In the second.
    pub after: Estimate,
    /// The factor by which both may differ although nothing did, because they were searched for in steps.
    pub step: f64,
}

/// What can be said of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It became better.
    Better,
    /// It became worse.
    Worse,
    /// It became different, and neither is better.
    Other,
    /// No difference can be shown.
    Same,
    /// Too few rounds to tell.
    TooFew,
}

impl Change {
    /// What can be said of it.
    pub fn course(&self) -> Course {
        if self.before.count < ROUNDS || self.after.count < ROUNDS {
            return Course::TooFew;
        }
        let step = if self.step > 1.0 { self.step * SLACK } else { 1.0 };
        let (before, after) = (&self.before, &self.after);
        if before.overlaps(after) || (before.low <= after.high * step && after.low <= before.high * step) {
            return Course::Same;
        }
        match (self.metric.better, self.after.median > self.before.median) {
            (Better::Neither, _) => Course::Other,
            (Better::More, true) | (Better::Less, false) => Course::Better,
            (Better::More, false) | (Better::Less, true) => Course::Worse,
        }
    }
}

/// Everything that both runs have, in the order of the report. Speed that was emulated in either is left out.
pub fn compare(before: &Run, after: &Run) -> Vec<Change> {
    let old = Analysis::all(before);
    let mut changes = Vec::new();
    for new in Analysis::all(after) {
        let Some(old) = old.iter().find(|old| old.experiment.slug == new.experiment.slug) else { continue };
        for panel in &new.panels {
            let Some(other) = old.panels.iter().find(|other| other.name == panel.name) else { continue };
            for series in &panel.series {
                let Some(other) = other.series.iter().find(|other| other.slug == series.slug) else { continue };
                if new.experiment.speed && (series.emulated() || other.emulated()) {
                    continue;
                }
                for point in &series.points {
                    let Some(other) = other.at(point.x) else { continue };
                    for metric in new.experiment.metrics {
                        // What the sender bounded tells nothing of the system.
                        if point.bounded(metric) || other.bounded(metric) {
                            continue;
                        }
                        let (Some(before), Some(after)) = (other.estimate(metric), point.estimate(metric)) else {
                            continue;
                        };
                        let x =
                            new.experiment.axis.map(|axis| format!(", {} {}", axis.name, axis.unit.chosen(point.x)));
                        let panel = if panel.name.is_empty() { String::new() } else { format!(", {}", panel.name) };
                        let place = format!("{}{}{panel}", series.title, x.unwrap_or_default());
                        let step = point.resolution(metric).max(other.resolution(metric));
                        changes.push(Change { experiment: new.experiment.title, place, metric, before, after, step });
                    }
                }
            }
        }
    }
    changes
}

/// What became of kernels that both have looked at in guests: what they are and weigh, which is the same each time that somebody looks, and so any change is
/// one. Nothing is said of what was timed in an emulator.
fn kernels(before: &Run, after: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, new) in &after.kernels {
        let Some(old) = before.kernels.get(name) else { continue };
        for (what, old, new) in [
            ("release", &old.release, &new.release),
            ("WireGuard", &old.place, &new.place),
            ("failure", &text(&old.failure), &text(&new.failure)),
        ] {
            if old != new {
                lines.push(format!("{name}, {what}: {old} became {new}"));
            }
        }
        let memory = |it: &GuestKernel| it.memory_with_needed.or_else(|| it.growth.map(|it| it.memory()));
        for (what, old, new) in [
            ("file of the module", old.file, new.file),
            ("memory with all that it needs", memory(old), memory(new)),
            ("what it adds to the compressed image", old.growth.map(|it| it.image), new.growth.map(|it| it.image)),
        ] {
            if let (Some(old), Some(new)) = (old, new)
                && old != new
            {
                lines.push(format!("{name}, {what}: {old} B became {new} B"));
            }
        }
    }
    lines
}

fn text(failure: &Option<String>) -> String {
    failure.clone().unwrap_or_else(|| "none".to_owned())
}

/// The comparison for a terminal: what became worse first, then what became better, and how much of the rest there is.
pub fn comparison(before: &Run, after: &Run) -> String {
    let changes = compare(before, after);
    let mut out = format!("from {} to {}\n", before.id, after.id);
    if !before.machine.is_same(&after.machine) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "The machines differ, so a change may be theirs:\n  {}\n  {}",
            before.machine.line(),
            after.machine.line()
        );
    }
    for name in after.order() {
        let versions = (before.systems.get(name).map(|it| &it.version), after.systems.get(name).map(|it| &it.version));
        if let (Some(old), Some(new)) = versions
            && old != new
        {
            let _ = writeln!(out, "{name}: {old} became {new}");
        }
    }
    for (course, title) in [(Course::Worse, "Worse"), (Course::Better, "Better"), (Course::Other, "Different")] {
        let some: Vec<_> = changes.iter().filter(|change| change.course() == course).collect();
        if some.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\n{title}:");
        for it in some {
            let (before, after) = (figure(it.metric, &it.before), figure(it.metric, &it.after));
            let factor = it.after.median / it.before.median;
            // Of nothing, or of what was lost, there is no factor.
            let factor = if factor > 0.0 && factor.is_finite() {
                format!(", {} times", crate::unit::digits(factor))
            } else {
                String::new()
            };
            let _ =
                writeln!(out, "  {}: {}, {}: {before} became {after}{factor}", it.experiment, it.place, it.metric.name);
        }
    }
    let kernels = kernels(before, after);
    if !kernels.is_empty() {
        let _ = writeln!(out, "\nKernels in guests:");
        for line in kernels {
            let _ = writeln!(out, "  {line}");
        }
    }
    let count = |course: Course| changes.iter().filter(|change| change.course() == course).count();
    let (same, few) = (count(Course::Same), count(Course::TooFew));
    let _ = writeln!(out, "\nNo difference can be shown in {same} of {} figures.", changes.len());
    let told = changes.iter().filter(|change| change.course() != Course::TooFew);
    let chance: f64 = told.map(|it| statistics::apart(it.before.count, it.after.count)).sum();
    if same < changes.len() - few {
        let _ = writeln!(
            out,
            "If nothing had changed, chance alone would make about {chance:.1} of {} look so.",
            changes.len() - few
        );
    }
    if few > 0 {
        let _ = writeln!(out, "Too few rounds to tell in {few} (it takes {ROUNDS} in both).");
    }
    out.chars().filter(|c| !is_wild(*c) || *c == '\n').collect()
}

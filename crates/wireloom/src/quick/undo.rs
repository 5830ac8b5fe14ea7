//! Taking steps back: each of them, whatever happens to the others.

use super::error::QuickError;
use super::journal::Journal;
use super::step::{Stage, Step};

/// Takes all steps of a journal back, in the given order; what cannot be is told, stays in the journal, and is counted.
pub fn all(journal: &mut Journal, stage: &Stage, order: Order) -> Result<usize, QuickError> {
    let steps = std::mem::take(&mut journal.steps);
    let mut left = Vec::new();
    let (late, early): (Vec<Step>, Vec<Step>) =
        steps.into_iter().partition(|step| order == Order::LinkFirst && step.outlives_link());
    for step in early.into_iter().rev().chain(late.into_iter().rev()) {
        if order == Order::Reverse && step.outlives_failure() {
            left.push(step);
            continue;
        }
        if let Err(error) = step.undo(stage) {
            eprintln!("wireloom: cannot undo '{}': {error}", step.describe().join("; "));
            left.push(step);
        }
    }
    left.reverse();
    journal.steps = left;
    let failed = |source| QuickError::Journal { path: super::journal::FOLDER.into(), source };
    if journal.steps.is_empty() {
        Journal::remove(&journal.interface).map_err(failed)?;
    } else {
        journal.write().map_err(failed)?;
    }
    Ok(journal.steps.len())
}

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// In reverse.
    Reverse,
    /// In reverse, but for what stays until the interface is gone.
    LinkFirst,
}

//! The answers for a terminal.

use std::fmt::Write;

use super::trust;
use crate::analysis::Analysis;
use crate::run::Run;
use crate::time::stamp;
use crate::verdict::{ROUNDS, Verdict};

/// Headings and sentences, no line wider than `width` unless a word is.
pub fn summary(run: &Run, width: usize) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ =
        writeln!(out, "{}", wrapped(&format!("{}, {}: {}", run.id, stamp(run.started), run.machine.line()), width, ""));
    for line in reservations(run) {
        let _ = writeln!(out, "\n{}", wrapped(&line, width, ""));
    }
    for analysis in Analysis::all(run) {
        let _ = writeln!(out, "\n{}", analysis.experiment.title);
        for answer in Verdict::of(&analysis).answers {
            let indent = if answer.panel.is_empty() {
                "  "
            } else {
                let _ = writeln!(out, "  {}:", clean(&answer.panel));
                "    "
            };
            for sentence in &answer.sentences {
                let _ = writeln!(out, "{}", wrapped(sentence, width, indent));
            }
        }
    }
    let kernels = super::kernels::lines(run);
    if !kernels.is_empty() {
        let _ = writeln!(out, "\nKernels in guests");
        for line in kernels {
            let _ = writeln!(out, "{}", wrapped(&line, width, "  "));
        }
    }
    let code = trust::sentences(run);
    if !code.is_empty() {
        out.push_str("\nCode to be trusted\n");
        for sentence in code {
            let _ = writeln!(out, "{}", wrapped(&sentence, width, "  "));
        }
    }
    out
}

/// What speaks against the figures.
pub fn reservations(run: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    let rounds = run.records.iter().map(|record| record.round).max().unwrap_or(0);
    if !run.records.is_empty() && (rounds as usize) < ROUNDS {
        lines.push(format!("Too few rounds ({rounds}) for figures to quote."));
    }
    let failed = run.records.iter().filter(|record| record.failure.is_some()).count();
    if failed > 0 {
        lines.push(format!("{failed} of {} measurements failed.", run.records.len()));
    }
    lines
}

/// Without what would move the terminal's cursor: names come from files.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let mut out = String::new();
    let mut line = indent.to_owned();
    for word in clean(text).split_whitespace() {
        let empty = line.trim().is_empty();
        if !empty && line.chars().count() + 1 + word.chars().count() > width {
            out.push_str(&line);
            out.push('\n');
            line = format!("{indent}  {word}");
        } else {
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    out + &line
}

//! The answers for a terminal.

use std::fmt::Write;

use super::section::{FAR, fitted};
use super::trust;
use crate::analysis::{Analysis, Panel};
use crate::catalogue::Metric;
use crate::caveat::{absent, known};
use crate::run::Run;
use crate::text::one_line;
use crate::time::stamp;
use crate::unit::{digits, named};
use crate::verdict::{ROUNDS, Tally, Verdict};

/// Headings and sentences, no line wider than `width` unless a word is.
pub fn summary(run: &Run, width: usize) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ =
        writeln!(out, "{}", wrapped(&format!("{}, {}: {}", run.id, stamp(run.started), run.machine.line()), width, ""));
    for line in reservations(run) {
        let _ = writeln!(out, "\n{}", wrapped(&line, width, ""));
    }
    let mut tally = Tally::default();
    for analysis in Analysis::all(run) {
        let _ = writeln!(out, "\n{}", analysis.experiment.title);
        for (answer, panel) in Verdict::of(&analysis).answers.into_iter().zip(&analysis.panels) {
            tally = tally.and(answer.tally);
            let indent = if answer.panel.is_empty() {
                "  "
            } else {
                let _ = writeln!(out, "  {}:", one_line(&answer.panel));
                "    "
            };
            for sentence in &answer.sentences {
                let _ = writeln!(out, "{}", wrapped(sentence, width, indent));
            }
            if analysis.experiment.slug == "scaling" {
                for line in predicted(panel, analysis.experiment.main()) {
                    let _ = writeln!(out, "{}", wrapped(&line, width, indent));
                }
            }
        }
    }
    if let Some(line) = tally.sentence() {
        let _ = writeln!(out, "\n{}", wrapped(&line, width, ""));
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

/// What the model says of more processors, what speaks against it first, and what it assumes last.
fn predicted(panel: &Panel<'_>, metric: &Metric) -> Vec<String> {
    let told = panel.series.iter().filter_map(|series| Some((series.title, fitted(series, metric, &FAR)?)));
    let told: Vec<_> = told.collect();
    let mut lines = vec!["Beyond this machine, a model and no measurement:".to_owned()];
    let add = |lines: &mut Vec<String>, line: String| {
        if !lines.contains(&line) {
            lines.push(line);
        }
    };
    for (_, model) in &told {
        model.warning().into_iter().for_each(|line| add(&mut lines, line));
    }
    for (title, model) in &told {
        let most = model.predictions.iter().map(|it| it.throughput).fold(0.0, f64::max);
        let (size, unit) = metric.unit.scale(most);
        let each = model.predictions.iter().map(|it| {
            let bars = it.bars.map(|(low, high)| format!(" ({}–{})", digits(low / size), digits(high / size)));
            format!("{} {}{}", it.processors, digits(it.throughput / size), bars.unwrap_or_default())
        });
        let each: Vec<_> = each.collect();
        lines.push(format!("{title}, {} by processors: {}.", named(metric.name, unit), each.join(", ")));
    }
    for (_, model) in &told {
        model.assumptions().into_iter().for_each(|line| add(&mut lines, line));
    }
    if told.is_empty() { Vec::new() } else { lines }
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
    let disturbed: Vec<f64> = run.records.iter().filter_map(|record| record.disturbed).collect();
    if !disturbed.is_empty() {
        lines.push(format!(
            "The machine had other work beside {} of {} measurements, up to {} processors' worth: do not quote these figures.",
            disturbed.len(),
            run.records.len(),
            digits(disturbed.iter().copied().fold(0.0, f64::max))
        ));
    }
    lines.extend(absent(run));
    lines.extend(known(run));
    lines
}

fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let mut out = String::new();
    let mut line = indent.to_owned();
    for word in text.split_whitespace().map(one_line) {
        let empty = line.trim().is_empty();
        if !empty && line.chars().count() + 1 + word.chars().count() > width {
            out.push_str(&line);
            out.push('\n');
            line = format!("{indent}  {word}");
        } else {
            if !empty {
                line.push(' ');
            }
            line.push_str(&word);
        }
    }
    out + &line
}

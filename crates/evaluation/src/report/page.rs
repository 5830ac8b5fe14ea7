//! The page: what was found first, then each experiment, then how.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::section::section;
use super::{criteria, kernels, trust};
use crate::analysis::Analysis;
use crate::caveat::caveat;
use crate::plot::escape;
use crate::run::Run;
use crate::time::stamp;
use crate::verdict::{ROUNDS, Tally, Verdict};

const STYLE: &str = include_str!("style.css");

/// The whole report, one file without anything from elsewhere.
pub fn html(run: &Run) -> String {
    let all: Vec<_> = Analysis::all(run).into_iter().map(|it| (Verdict::of(&it), it)).collect();
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, \
         initial-scale=1\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style></head>\n<body>\n<header><h1>{title}</h1>\n",
        title = escape(&format!("Tunnels compared: {}", run.id))
    );
    let _ = writeln!(out, "<p>{}</p>", escape(&run.machine.line()));
    let _ = writeln!(
        out,
        "<p class=\"faint\">Measured {}; {} measurements of {} systems.</p></header>",
        stamp(run.started),
        run.records.len(),
        run.systems.len()
    );
    reservations(&mut out, run);
    glance(&mut out, &all);
    for (verdict, analysis) in &all {
        section(&mut out, run, analysis, verdict);
    }
    kernels::section(&mut out, run);
    trust::section(&mut out, run);
    criteria::section(&mut out);
    systems(&mut out, run);
    let tally =
        all.iter().flat_map(|(verdict, _)| &verdict.answers).fold(Tally::default(), |sum, it| sum.and(it.tally));
    method(&mut out, run, tally);
    data(&mut out, run);
    out.push_str("</body></html>\n");
    out
}

/// What speaks against the figures, before anyone reads them.
fn reservations(out: &mut String, run: &Run) {
    for line in super::summary::reservations(run) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "<p class=\"warn\"><strong>{}</strong></p>", escape(&line));
    }
}

fn glance(out: &mut String, all: &[(Verdict, Analysis<'_>)]) {
    if all.is_empty() {
        return;
    }
    out.push_str("<section id=\"glance\"><h2>At a glance</h2>\n");
    out.push_str("<p class=\"faint\">Who leads, and who cannot be told from the leader. The sentences, pictures and numbers are below.</p>\n");
    out.push_str(
        "<div class=\"scroll\"><table class=\"prose\"><thead><tr><th>question</th><th>best</th></tr></thead><tbody>\n",
    );
    for (verdict, analysis) in all {
        let experiment = analysis.experiment;
        let each = verdict.answers.iter().map(|answer| {
            let panel = if answer.panel.is_empty() { String::new() } else { format!("{}: ", answer.panel) };
            let best = match (&answer.best[..], experiment.slug) {
                ([], "cores") => "see below".to_owned(),
                ([], _) => "no verdict".to_owned(),
                (best, _) => best.join("; "),
            };
            escape(&format!("{panel}{best}"))
        });
        let each = each.collect::<Vec<_>>().join("<br>");
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "<tr><td><a href=\"#{}\">{}</a></td><td>{each}</td></tr>",
            experiment.slug,
            escape(experiment.question)
        );
    }
    out.push_str("</tbody></table></div></section>\n");
}

fn systems(out: &mut String, run: &Run) {
    out.push_str("<section id=\"systems\"><h2>Systems</h2>\n<div class=\"scroll\"><table class=\"prose\"><thead><tr><th>system</th>");
    out.push_str(
        "<th>version</th><th>protocol</th><th>sealed by</th><th>carried by</th><th>to be known</th></tr></thead><tbody>\n",
    );
    for slug in run.order() {
        let Some(it) = run.systems.get(slug) else { continue };
        let title = if it.title.is_empty() { slug } else { &it.title };
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\"{}>{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            if it.ours { " class=\"ours-name\"" } else { "" },
            escape(title),
            escape(&it.version),
            escape(&it.protocol),
            escape(&it.cipher),
            escape(&it.carrier),
            escape(&caveat(slug, it))
        );
    }
    out.push_str("</tbody></table></div>\n");
    if !run.missing.is_empty() {
        out.push_str("<p>Not there, so not measured:</p><ul>");
        for (system, install) in &run.missing {
            let _ = write!(out, "<li>{}: <code>{}</code></li>", escape(system), escape(install));
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</section>\n");
}

/// How sure intervals are, for the numbers of rounds that the run has.
fn sure(run: &Run) -> String {
    let most = run.records.iter().map(|record| record.round as usize).max().unwrap_or(0).clamp(ROUNDS, 15);
    let each = (ROUNDS..=most.max(6)).rev().filter_map(|rounds| {
        let (_, confidence) = crate::statistics::width(rounds)?;
        Some(format!("{} with {rounds} rounds", crate::verdict::percent(confidence)))
    });
    each.collect::<Vec<_>>().join(", ")
}

fn method(out: &mut String, run: &Run, tally: Tally) {
    out.push_str("<section id=\"method\"><h2>Method</h2>\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<p>All ran on one machine, in network namespaces joined by virtual cables, so processors and memory are shared by both ends \
         and by what makes the traffic. In each round every system is measured once, one after the other, so what they are compared \
         by was measured minutes apart; ratios are taken within a round and only then is their median taken.</p>\n\
         <p>A figure is the median of the rounds. In brackets stands an interval from one of the sorted rounds to another that holds the true \
         median, of a ratio as of any other figure: the narrowest that is at least 95 % sure, or from the least to the most where the rounds are \
         too few for that. How sure it is is known exactly: {sure}. A difference is claimed only from {ROUNDS} rounds on, and only where the \
         interval of the ratios leaves out 1, by more than a step where the figure was searched for in steps. Where it does not, no difference \
         can be shown; that does not mean that there is none. {chance}</p>\n\
         <p>Emulated processors tell that something works, never how fast. Percentiles of latency are of all packets that were sent; those \
         that were lost are slower than anything (∞). Beyond the 99th, of all rounds together, they are told only where ten packets or more lie \
         beyond them.</p>",
        sure = sure(run),
        chance = tally.sentence().unwrap_or_default()
    );
    let mut rounds: BTreeMap<&str, u32> = BTreeMap::new();
    for record in &run.records {
        let most = rounds.entry(&record.experiment).or_default();
        *most = record.round.max(*most);
    }
    let rounds: Vec<_> = rounds.into_iter().map(|(experiment, most)| format!("{experiment} {most}")).collect();
    let _ = writeln!(out, "<p>Rounds: {}. Seed: {}.</p>", escape(&rounds.join(", ")), run.seed);
    if !run.command.is_empty() {
        let _ = writeln!(out, "<p>Command: <code>{}</code></p>", escape(&run.command));
    }
    if !run.settings.is_empty() {
        out.push_str("<ul>");
        for (key, value) in &run.settings {
            let _ = write!(out, "<li>{}: {}</li>", escape(key), escape(value));
        }
        out.push_str("</ul>\n");
    }
    let failed: Vec<_> = run.records.iter().filter_map(|record| Some((record, record.failure.as_ref()?))).collect();
    if !failed.is_empty() {
        let _ = writeln!(out, "<h3>What failed</h3><ul>");
        for (record, failure) in failed {
            let x: Vec<_> = record.x.iter().map(|(key, value)| format!(" {key} {value}")).collect();
            let line =
                format!("{}, {}{}, round {}: {failure}", record.system, record.experiment, x.join(""), record.round);
            let _ = write!(out, "<li>{}</li>", escape(&line));
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</section>\n");
}

/// The run itself, so that the page alone is enough to reckon again.
fn data(out: &mut String, run: &Run) {
    // In a script of a type that no browser runs; `<` is written so that nothing in it can end it.
    let text = run.line().replace('<', "\\u003c");
    let _ = writeln!(
        out,
        "<section id=\"data\"><h2>Raw data</h2><p>Every measurement is in this file, as JSON in the element <code>#run</code> at its end, in base \
         units (bit/s, s, bytes), and so are the whole distributions of times.</p></section>\n\
         <script type=\"application/json\" id=\"run\">{text}</script>"
    );
}

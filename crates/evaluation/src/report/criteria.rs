//! The page's part that no stopwatch measures.

use std::fmt::Write;

use crate::criteria::{COLLECTED, PROOFS, TIMINGS, WAYS, WEAKNESSES};
use crate::plot::escape;

/// Writes it.
pub fn section(out: &mut String) {
    out.push_str("<section id=\"criteria\"><h2>What no stopwatch measures</h2>\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<p class=\"faint\">The tables below are the same for every run. Each row was looked up on {COLLECTED} in the document that is named \
         beside it, or in a copy that an archive or a mirror had of it, which may be older. They are not complete: that more was found in \
         one than in another says how hard people looked, too, and a system without a row is not one without a weakness.</p>"
    );
    let rows = WAYS.iter().map(|it| [it.name, it.memory, it.update, it.platforms, it.source]);
    table(
        out,
        "Memory safety, updates, platforms",
        ["way", "memory safety", "a new version takes", "runs on", "source"],
        rows,
    );
    let rows = WEAKNESSES.iter().map(|it| [it.id, it.system, it.published, it.what, it.source]);
    table(out, "Known weaknesses", ["number", "in", "published", "what", "source"], rows);
    table(
        out,
        "What is proved of the protocols",
        ["protocol", "what", "source"],
        PROOFS.iter().map(|it| [it.protocol, it.what, it.source]),
    );
    table(out, "Constant time", ["of", "evidence", "source"], TIMINGS.iter().map(|it| [it.of, it.evidence, it.source]));
    out.push_str("</section>\n");
}

/// A table of words.
pub(super) fn table<const N: usize, T: AsRef<str>>(
    out: &mut String,
    title: &str,
    heads: [&str; N],
    rows: impl Iterator<Item = [T; N]>,
) {
    // Writing to a string cannot fail.
    let _ = write!(out, "<h3>{}</h3><div class=\"scroll\"><table class=\"prose\"><thead><tr>", escape(title));
    for head in heads {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(head));
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td>{}</td>", escape(cell.as_ref()));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

//! The page's part about what a tunnel takes to set up, and what of it has to be trusted.

use std::fmt::Write;

use super::criteria::table;
use crate::code::{Code, CodePart};
use crate::plot::escape;
use crate::run::{Run, System};

/// Writes it, where anything of it is known.
pub fn section(out: &mut String, run: &Run) {
    let systems: Vec<&System> = run.order().into_iter().filter_map(|slug| run.systems.get(slug)).collect();
    let counted = counted(run);
    let configured: Vec<_> = systems
        .iter()
        .filter_map(|system| Some((*system, system.configuration_lines?, system.steps?)))
        .filter(|(system, ..)| system.protocol != "none")
        .collect();
    if counted.is_empty() && configured.is_empty() {
        return;
    }
    out.push_str("<section id=\"trust\"><h2>What it takes, and what is trusted</h2>\n");
    if !configured.is_empty() {
        out.push_str(
            "<p class=\"faint\">For one tunnel between two hosts, both ends together, counted while the lab set it up. Lines are those of \
             files and neither empty nor comments; keys and certificates in files of their own are no lines. A step is a file to be written or a command to be \
             typed, the making of keys among them. What only the lab needs, to keep out of the machine's way, is left out.</p>\n",
        );
        let rows = configured
            .iter()
            .map(|(system, lines, steps)| [system.title.clone(), lines.to_string(), steps.to_string()]);
        table(out, "From an installed system to a tunnel", ["system", "lines of configuration", "steps"], rows);
    }
    if !counted.is_empty() {
        trusted(out, &counted);
    }
    out.push_str("</section>\n");
}

/// The code of systems, least first: each once with the names of all whose code is the same, measured or not.
fn counted(run: &Run) -> Vec<(String, &Code)> {
    let measured = run.order().into_iter().filter_map(|slug| run.systems.get(slug));
    let measured = measured.filter_map(|system| Some((system.title.clone(), system.code.as_ref()?)));
    let others = run.code.iter().map(|(title, code)| (format!("{title} (not measured)"), code));
    let mut all: Vec<(String, &Code)> = Vec::new();
    for (title, code) in measured.chain(others) {
        match all.iter_mut().find(|(_, known)| *known == code) {
            Some((titles, _)) => titles.extend(["; ", &title]),
            None => all.push((title, code)),
        }
    }
    all.sort_by_key(|(_, code)| code.total());
    all
}

fn trusted(out: &mut String, ordered: &[(String, &Code)]) {
    out.push_str(
        "<p class=\"faint\">Lines of source without comments, blank lines and tests, for Linux on x86-64: what packets meet on their way, \
         and what agrees on keys and takes the configuration. <em>Of its own</em> is the system itself, in whose parts of the kernel it may lie. \
         <em>With cryptography</em> adds the ciphers, hashes, curves and random numbers, and where a library brings the protocol for keys, \
         that library's part: TLS and certificates for OpenVPN. Of libraries and of the kernel only the files that hold these are counted; where assembly \
         is generated, what generates it is. Left out of all alike are the language's runtime and library (of C, Rust and Go), libraries for \
         general use, the rest of the kernel (its network stack, TUN, the verifier of eBPF), and the programs that people type commands to. Authors write \
         more or less into a line, so only a difference of several times says something.</p>\n",
    );
    let rows = ordered.iter().map(|(title, code)| {
        let each: Vec<_> = code.languages().iter().map(|(language, lines)| format!("{language} {lines}")).collect();
        [title.clone(), code.own().to_string(), code.total().to_string(), each.join(", ")]
    });
    table(
        out,
        "Code to be trusted, in lines, least with its cryptography first",
        ["system", "of its own", "with cryptography", "by language"],
        rows,
    );
    // Each part once, though several systems have it.
    let mut parts: Vec<(&CodePart, Vec<&str>)> = Vec::new();
    for (title, code) in ordered {
        for part in &code.parts {
            match parts.iter_mut().find(|(known, _)| *known == part) {
                Some((_, systems)) => systems.push(title),
                None => parts.push((part, vec![title])),
            }
        }
    }
    let rows = parts.iter().map(|(part, systems)| {
        let kind = if part.cryptography { "cryptography" } else { "its own" };
        [part.what.clone(), part.of.clone(), part.total().to_string(), kind.to_owned(), systems.join("; ")]
    });
    table(out, "What exactly was counted", ["part", "of", "lines", "as", "in"], rows);
    for (title, code) in ordered.iter().filter(|(_, code)| !code.remark.is_empty()) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "<p class=\"faint\">{}: {}.</p>", escape(title), escape(&code.remark));
    }
}

/// The same in lines for a terminal: who has least.
pub fn sentences(run: &Run) -> Vec<String> {
    let each = counted(run).into_iter().map(|(title, code)| {
        format!("{}: {} lines of its own, {} with its cryptography.", title, code.own(), code.total())
    });
    each.collect()
}

//! `lab code`: how much code of each system has to be trusted, counted in its sources and entered in a run.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::Args;
use evaluation::{Code, CodePart, Run};
use lab::machine;
use lab::subject;
use lab::trusted::{Counter, OwnCode};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{LaboratoryError, REPORT, print, run_file, write_report};
use crate::error::Error;

/// Counted when this was built.
mod built {
    include!(concat!(env!("OUT_DIR"), "/code.rs"));
}

/// Of what code is counted, and where the numbers go.
#[derive(Args)]
pub struct CodeArgs {
    /// The systems, measured or not; all, if not said
    #[arg(value_name = "SYSTEM")]
    systems: Vec<String>,
    /// The run that the numbers are entered in, or its folder; they are only told, if not said
    #[arg(long, short, value_name = "RUN")]
    out: Option<PathBuf>,
}

/// What a system is called, what it is for people, and on what release of Linux it is.
struct Asked {
    slug: String,
    title: String,
    release: String,
}

/// Counts, tells, and enters.
pub fn code(args: &CodeArgs) -> Result<(), Error> {
    let file = args.out.as_deref().map(run_file);
    let mut run = file.as_deref().map(Run::load).transpose().map_err(LaboratoryError::from)?;
    let asked = asked(args, run.as_ref())?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, lab::interrupt_flag()).map_err(LaboratoryError::Signals)?;
    }
    let mut counter = Counter::new(own());
    let mut teller = Teller { terminal: io::stderr().is_terminal(), last: String::new() };
    let (mut found, mut failed) = (Vec::new(), 0);
    for it in asked {
        let counted = counter.code(&it.slug, &it.release, &mut |what, come, all| teller.tell(what, come, all));
        teller.end();
        match counted {
            Ok(None) => {}
            Ok(Some(code)) => {
                // At once: what comes later may fail.
                if let (Some(run), Some(file)) = (&mut run, &file) {
                    enter(run, &it, &code);
                    run.save(file).map_err(LaboratoryError::from)?;
                }
                found.push((it, code));
            }
            Err(_) if lab::interrupted() => break,
            Err(error) => {
                failed += 1;
                eprintln!("{} was not counted: {}", it.slug, error.line());
            }
        }
    }
    let mut text = table(&found);
    if let (Some(run), Some(file)) = (&run, &file) {
        let page = file.with_file_name(REPORT);
        write_report(run, &page)?;
        let _ = writeln!(text, "\nEntered in {}; the report is in {}", file.display(), page.display());
    }
    print(&text)?;
    match (failed, lab::interrupted()) {
        (0, false) => Ok(()),
        (_, true) => Err(LaboratoryError::from(lab::LabError::Interrupted).into()),
        (failed, _) => Err(LaboratoryError::Uncounted { failed, of: failed + found.len() }.into()),
    }
}

/// Enters what an earlier count has left in the cache, for systems that have no number yet. Returns those that have none still.
pub fn enter_cached(run: &mut Run) -> Vec<String> {
    let counter = Counter::new(own());
    let kernel = run.machine.kernel.clone();
    let mut without = Vec::new();
    for (slug, system) in &mut run.systems {
        if !Counter::knows(slug) {
            continue;
        }
        if let Some(code) = counter.cached(slug, release(slug, &system.version, &kernel)) {
            system.code = Some(code);
        } else if system.code.is_none() {
            without.push(slug.clone());
        }
    }
    without
}

fn enter(run: &mut Run, it: &Asked, code: &Code) {
    match run.systems.get_mut(&it.slug) {
        Some(system) => system.code = Some(code.clone()),
        None => drop(run.code.insert(it.title.clone(), code.clone())),
    }
}

/// The kernel that carries a system: its own, where its version is one, otherwise the machine's.
fn release<'a>(slug: &str, version: &'a str, machine: &'a str) -> &'a str {
    let is_kernel = slug == "kernel" || slug.starts_with("kernel-");
    let own = version.split([',', ' ']).next().filter(|it| is_kernel && it.starts_with(|c: char| c.is_ascii_digit()));
    own.unwrap_or(machine)
}

fn asked(args: &CodeArgs, run: Option<&Run>) -> Result<Vec<Asked>, LaboratoryError> {
    let all = subject::all();
    let kernel = run.map_or_else(|| machine::describe().kernel, |run| run.machine.kernel.clone());
    let measured =
        run.into_iter().flat_map(|run| run.order().into_iter().filter_map(|slug| Some((slug, run.systems.get(slug)?))));
    let mut known: Vec<Asked> = measured
        .map(|(slug, system)| Asked {
            slug: slug.to_owned(),
            title: system.title.clone(),
            release: release(slug, &system.version, &kernel).to_owned(),
        })
        .collect();
    for it in &all {
        if known.iter().all(|other| other.slug != it.slug()) {
            known.push(Asked { slug: it.slug().to_owned(), title: it.name().to_owned(), release: kernel.clone() });
        }
    }
    if let Some(name) = args.systems.iter().find(|name| known.iter().all(|it| it.slug != **name)) {
        let known: Vec<_> = known.iter().map(|it| it.slug.as_str()).collect();
        return Err(LaboratoryError::Unknown { kind: "system", name: name.clone(), known: known.join(", ") });
    }
    let is_asked =
        |it: &Asked| Counter::knows(&it.slug) && (args.systems.is_empty() || args.systems.contains(&it.slug));
    Ok(known.into_iter().filter(is_asked).collect())
}

/// What this program is made of.
fn own() -> OwnCode {
    let part = |(what, _, cryptography, lines): &built::Part| CodePart {
        what: (*what).to_owned(),
        of: concat!("wireloom ", env!("CARGO_PKG_VERSION")).to_owned(),
        cryptography: *cryptography,
        lines: lines.iter().map(|(language, count)| ((*language).to_owned(), *count)).collect(),
    };
    let (ebpf, always): (Vec<_>, Vec<_>) = built::PARTS.iter().partition(|(_, ebpf, ..)| *ebpf);
    OwnCode {
        always: always.into_iter().map(part).collect(),
        ebpf: ebpf.into_iter().map(part).collect(),
        crates: built::CRATES.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect(),
    }
}

fn table(found: &[(Asked, Code)]) -> String {
    if found.is_empty() {
        return String::new();
    }
    let wide = found.iter().map(|(it, _)| it.title.chars().count()).max().unwrap_or_default();
    let mut text = format!("{:wide$}  {:>10}  {:>17}\n", "lines of code", "of its own", "with cryptography");
    for (it, code) in found {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:wide$}  {:>10}  {:>17}", it.title, code.own(), code.total());
    }
    text
}

/// Says what is being fetched: on a terminal in one line that changes, elsewhere once for each source.
struct Teller {
    terminal: bool,
    last: String,
}

impl Teller {
    fn tell(&mut self, what: &str, come: u64, all: u64) {
        let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        let text = match (self.terminal, all) {
            (true, 1..) => format!("fetching {what}: {} of {} MB", megabytes(come), megabytes(all)),
            _ => format!("fetching {what}"),
        };
        if text == self.last {
            return;
        }
        match self.terminal {
            true => eprint!("\r\x1b[2K{text}"),
            false => eprintln!("{text}"),
        }
        self.last = text;
    }

    fn end(&mut self) {
        if self.terminal && !self.last.is_empty() {
            eprint!("\r\x1b[2K");
        }
        self.last.clear();
    }
}

/// What to type for those that have no number.
pub fn hint(without: &[String], folder: &Path) -> String {
    format!("No code was counted of {}; `wireloom lab code --out {}` does.\n", without.join(", "), folder.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_was_counted_when_this_was_built() {
        let own = own();
        let lines = |parts: &[CodePart], cryptography: bool| -> u64 {
            parts.iter().filter(|part| part.cryptography == cryptography).map(CodePart::total).sum()
        };
        // Far from it by no honest change.
        assert!((10_000..60_000).contains(&lines(&own.always, false)), "{}", lines(&own.always, false));
        assert!((500..10_000).contains(&lines(&own.always, true)));
        assert!((1000..20_000).contains(&lines(&own.ebpf, false)));
        assert!((100..5000).contains(&lines(&own.ebpf, true)));
        assert!(own.ebpf.iter().any(|part| part.lines.contains_key("C")));
        assert!(own.crates.iter().any(|(name, version)| name == "ring" && version.contains('.')));
    }

    #[test]
    fn systems_are_asked_for_whether_they_were_measured_or_not() {
        let machine = evaluation::Machine { processors: 1, kernel: "6.1.1".to_owned(), ..Default::default() };
        let mut run = Run::new("r", 0, 0, machine);
        for slug in ["none", "boringtun", "kernel"] {
            run.systems.insert(slug.to_owned(), evaluation::System::default());
        }
        let args = |names: &[&str]| CodeArgs { systems: names.iter().map(|it| (*it).to_owned()).collect(), out: None };
        let slugs = |names: &[&str], run: Option<&Run>| -> Vec<String> {
            asked(&args(names), run).unwrap().into_iter().map(|it| it.slug).collect()
        };
        // Those of the run first; and without a tunnel there is nothing to trust.
        let all = slugs(&[], Some(&run));
        assert_eq!(all[..2], ["boringtun", "kernel"]);
        assert!(all.len() > 8 && !all.contains(&"none".to_owned()));
        assert_eq!(slugs(&["gotatun"], Some(&run)), ["gotatun"]);
        assert_eq!(slugs(&[], None).len(), all.len());
        let error = asked(&args(&["tinc"]), Some(&run)).map(drop).unwrap_err().to_string();
        assert!(
            error.starts_with("there is no system \"tinc\", expected some of boringtun, kernel, none, "),
            "{error}"
        );
        let asked =
            |slug: &str| Asked { slug: slug.to_owned(), title: format!("title of {slug}"), release: String::new() };
        enter(&mut run, &asked("kernel"), &Code::default());
        enter(&mut run, &asked("gotatun"), &Code::default());
        assert!(run.systems["kernel"].code.is_some() && run.code.contains_key("title of gotatun"));
    }

    #[test]
    fn a_system_is_on_the_kernel_that_carries_it() {
        assert_eq!(release("kernel", "6.1.9, kernel module", "6.18.1"), "6.1.9");
        assert_eq!(release("kernel", "", "6.18.1"), "6.18.1");
        assert_eq!(release("strongswan-aes", "5.9.8", "6.18.1"), "6.18.1");
    }
}

//! `wireloom lab`: tunnels compared on this machine, and what was found told, compared and put together.
//!
//! The crates `lab` and `evaluation` do all of it; here are the words for it ([`run`] for the one that measures, [`kernel`] for guests). A run lies in a folder as `run.json`, which is
//! written anew after each measurement, and beside it `report.html`. Wherever a file is asked for, its folder will do.

mod code;
mod kernel;
mod progress;
mod run;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use evaluation::{EvaluationError, Run, catalogue, compare, merge, report, whole};
use lab::{LabError, subject};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::Error;
use kernel::KernelCommand;
pub use run::MeasureArgs;

/// The run in its folder.
const RUN: &str = "run.json";
/// What is told of it.
const REPORT: &str = "report.html";

/// What the lab is to do.
#[derive(Args)]
pub struct LabArgs {
    #[command(subcommand)]
    command: LabCommand,
}

/// The commands of the lab.
#[derive(Subcommand)]
enum LabCommand {
    /// Measure, and report what was found
    Run(MeasureArgs),
    /// List the systems, with the command that installs what is missing, and the experiments
    List,
    /// Kernels that this machine does not run, in guests: list, fetch, build and weigh them
    #[command(subcommand)]
    Kernel(KernelCommand),
    /// Count the code of each system that has to be trusted, in its sources
    ///
    /// Sources are taken from where this Debian takes its packages, and crates by cargo; both are kept in the user's cache, and so are the numbers, which
    /// later runs have from there. Nothing is installed and nothing of the system's apt is changed.
    Code(code::CodeArgs),
    /// Tell what a run found, here and as a page
    Report {
        /// The run, or its folder
        file: PathBuf,
        /// Where the page goes; beside the run, if not said
        #[arg(long, short)]
        out: Option<PathBuf>,
    },
    /// Tell what became better or worse from one run to another
    Compare {
        /// The first run, or its folder
        before: PathBuf,
        /// The second
        after: PathBuf,
    },
    /// Put runs of one machine together, as rounds of one
    Merge {
        /// The runs, or their folders
        #[arg(required = true, num_args = 2.., value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Where the whole goes, which must not exist yet
        #[arg(long, short)]
        out: PathBuf,
    },
}

/// Why the lab did not do it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum LaboratoryError {
    #[error("{}", .0.line())]
    Lab(LabError),
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    #[error("there is no {kind} {name:?}, expected some of {known}")]
    Unknown { kind: &'static str, name: String, known: String },
    #[error("{name} is not here, {what}, expected `{install}` before")]
    NotHere { name: String, what: String, install: String },
    #[error("{program} is not installed, expected `apt-get install {package}` before")]
    Program { program: &'static str, package: &'static str },
    #[error(
        "none of these systems can be asked for any of these experiments, expected some that `wireloom lab list` has"
    )]
    Nothing,
    #[error(
        "{} is there already, expected --resume to go on with it, or another folder with --out", path.display()
    )]
    Occupied { path: PathBuf },
    #[error("{} is there already, expected a name where there is nothing", path.display())]
    Exists { path: PathBuf },
    #[error("{} cannot be resumed, {why}", path.display())]
    Unlike { path: PathBuf, why: String },
    #[error("{name} could not be weighed: {why}")]
    Weighing { name: &'static str, why: String },
    #[error("{failed} of {of} systems were not counted; what was counted stays")]
    Uncounted { failed: usize, of: usize },
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("interrupted after {done} of {of} measurements, which are in {}; `--resume` goes on", folder.display())]
    Interrupted { done: usize, of: usize, folder: PathBuf },
}

impl From<LabError> for LaboratoryError {
    fn from(error: LabError) -> LaboratoryError {
        LaboratoryError::Lab(error)
    }
}

/// Does what was typed.
pub fn laboratory(args: LabArgs) -> Result<(), Error> {
    match args.command {
        LabCommand::Run(args) => run::run(args),
        LabCommand::List => list(),
        LabCommand::Kernel(command) => kernel::kernel(command),
        LabCommand::Code(args) => code::code(&args),
        LabCommand::Report { file, out } => {
            let path = run_file(&file);
            let run = Run::load(&path).map_err(LaboratoryError::from)?;
            let out = out.unwrap_or_else(|| path.with_file_name(REPORT));
            write_report(&run, &out)?;
            print(&format!("{}\nThe whole report is in {}\n", report::summary(&run, width()), out.display()))
        }
        LabCommand::Compare { before, after } => {
            let load = |path: &Path| Run::load(&run_file(path)).map_err(LaboratoryError::from);
            print(&compare::comparison(&load(&before)?, &load(&after)?))
        }
        LabCommand::Merge { files, out } => {
            if out.exists() {
                return Err(LaboratoryError::Exists { path: out }.into());
            }
            let runs: Result<Vec<_>, _> = files.iter().map(|file| Run::load(&run_file(file))).collect();
            let mut whole = merge::merge(&runs.map_err(LaboratoryError::from)?).map_err(LaboratoryError::from)?;
            whole.id = name_of(&out);
            whole.save(&out).map_err(LaboratoryError::from)?;
            print(&format!("{} measurements are in {}\n", whole.records.len(), out.display()))
        }
    }
}

fn list() -> Result<(), Error> {
    let all = subject::all();
    let wide = |names: &mut dyn Iterator<Item = usize>| names.max().unwrap_or_default();
    let slug = wide(&mut all.iter().map(|it| it.slug().len()));
    let mut text = "Systems:\n".to_owned();
    for it in &all {
        let what = match it.available() {
            Ok(versions) => {
                let versions: Vec<_> = versions.0.iter().map(|(_, version)| version.as_str()).collect();
                let place = [it.protocol().name(), it.place().name()].join(", ");
                [place, versions.join("; ")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
            }
            Err(missing) => format!("not here: {missing}"),
        };
        text += &format!("  {:slug$}  {what}\n", it.slug());
    }
    text += "\nExperiments:\n";
    let slug = wide(&mut catalogue::EXPERIMENTS.iter().map(|it| it.slug.len()));
    for it in &catalogue::EXPERIMENTS {
        let from = if it.derived() { format!(" (measured by {})", it.source) } else { String::new() };
        text += &format!("  {:slug$}  {}{from}\n", it.slug, it.question);
    }
    print(&text)
}

/// A run by the name of its file or its folder.
fn run_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(RUN) } else { path.to_owned() }
}

/// The last part of a path that says something, without what a file's name ends in.
fn name_of(path: &Path) -> String {
    let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    whole.file_stem().map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Has the usual signals be a wish to stop.
fn heed_signals() -> Result<(), LaboratoryError> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, lab::interrupt_flag()).map_err(LaboratoryError::Signals)?;
    }
    Ok(())
}

/// Writes the page, at once or not at all.
fn write_report(run: &Run, path: &Path) -> Result<(), LaboratoryError> {
    let failed = |source| LaboratoryError::File { path: path.to_owned(), source };
    whole::write(path, &report::html(run)).map_err(failed)
}

/// Columns of the terminal, as far as the shell tells.
fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    columns.unwrap_or(100).clamp(40, 160)
}

fn print(text: &str) -> Result<(), Error> {
    io::stdout().write_all(text.as_bytes()).map_err(Error::Output)
}

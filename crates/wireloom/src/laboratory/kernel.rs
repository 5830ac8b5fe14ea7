//! `lab kernel`: kernels that this machine does not run, in guests: which there are, how they come here, and what their WireGuard weighs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use evaluation::{GuestKernel, Run, report};
use lab::guest::{Stage, build};
use lab::subject::weigh;
use lab::{Image, Kernel, LabError, Series, helper, machine};

use super::progress::Line;
use super::{LaboratoryError, REPORT, RUN, heed_signals, name_of, print, width, write_report};
use crate::error::Error;

/// What booting and weighing a kernel takes on a busy machine; seldom so much.
pub const WEIGHING: Duration = Duration::from_secs(60);

/// What is to be done with kernels.
#[derive(Subcommand)]
pub enum KernelCommand {
    /// List the kernels for guests: those that are here, and the command that fetches or builds each of the others
    List,
    /// Download Debian's kernel of a series, which is unpacked and not installed
    Fetch {
        /// Such as 6.12
        #[arg(value_name = "SERIES")]
        series: Series,
    },
    /// Compile a kernel with WireGuard built in, of Debian's sources: it takes some ten minutes, and 3 GB meanwhile
    Build {
        /// Of which sources
        #[arg(long, value_name = "SERIES", default_value = "6.12")]
        series: Series,
    },
    /// Boot kernels in guests, have their WireGuard carry checked bytes, and tell what it weighs and what an update costs
    Weigh {
        /// Such as 6.12 or built-in-6.12; all that are here, if not said
        #[arg(value_name = "KERNEL")]
        kernels: Vec<Kernel>,
        /// The run, or its folder, that it is kept in; made if it is not there
        #[arg(long, short, value_name = "RUN")]
        out: Option<PathBuf>,
    },
}

/// Does what was typed.
pub fn kernel(command: KernelCommand) -> Result<(), Error> {
    match command {
        KernelCommand::List => print(&list()),
        KernelCommand::Fetch { series } => {
            heed_signals()?;
            let image = match Kernel::Debian(series).image() {
                Ok(image) => image,
                Err(_) => fetch(series).map_err(LaboratoryError::from)?,
            };
            print(&format!("Linux {} is in {}\n", image.release, image.folder().display()))
        }
        KernelCommand::Build { series } => {
            heed_signals()?;
            let mut line = Line::new();
            let built = build(series, &mut |stage| line.tell(&stage.what, &told(stage)));
            line.end();
            let image = built.map_err(LaboratoryError::from)?;
            print(&built_text(&image))
        }
        KernelCommand::Weigh { kernels, out } => weigh_some(kernels, out),
    }
}

fn fetch(series: Series) -> Result<Image, LabError> {
    let package = Image::find_package(series)?;
    eprintln!("downloading the package {} (about 30 MB, to unpack and not to install)", package.name);
    package.fetch()
}

fn told(stage: &Stage) -> String {
    let seconds = stage.elapsed.as_secs();
    let files = stage.files.map_or_else(String::new, |(done, of)| format!(", file {done} of about {}", of.max(done)));
    format!("[{}:{:02}] {}{files}", seconds / 60, seconds % 60, stage.what)
}

fn built_text(image: &Image) -> String {
    let mut text = format!("Linux {} is in {}\n", image.release, image.folder().display());
    if let Some(sizes) = image.sizes {
        let (with, without, more) = (sizes.with, sizes.without, sizes.growth());
        text += "                     with WireGuard     without       adds\n";
        for (name, with, without, more) in [
            ("compressed image", with.image, without.image, more.image),
            ("code and constants", with.text, without.text, more.text),
            ("data", with.data, without.data, more.data),
            ("data of zeros", with.bss, without.bss, more.bss),
        ] {
            text += &format!("{name:<19}{with:>14} B{without:>10} B{more:>9} B\n");
        }
    }
    text
}

fn list() -> String {
    let wide = Kernel::EVERY.iter().map(|it| it.name().len()).max().unwrap_or_default();
    let line = |kernel: Kernel| {
        let what = match kernel.image() {
            Ok(image) => {
                let size = fs::metadata(image.vmlinuz()).map_or(0, |it| it.len()) as f64 / 1e6;
                let place = match kernel {
                    Kernel::Debian(_) => "WireGuard is a module",
                    Kernel::BuiltIn(_) => "WireGuard is built in",
                };
                format!("here: Linux {}, {place}, {size:.1} MB compressed", image.release)
            }
            Err(_) => {
                let needs = match kernel {
                    Kernel::Debian(_) => "downloads 30 MB",
                    Kernel::BuiltIn(_) => {
                        "downloads 150 MB, needs 3 GB meanwhile, takes some ten minutes on two processors"
                    }
                };
                format!("not here: `{}` ({needs})", kernel.command())
            }
        };
        format!("  {:wide$}  {what}\n", kernel.name())
    };
    let lines: String = Kernel::EVERY.into_iter().map(line).collect();
    format!("Kernels for guests:\n{lines}")
}

fn weigh_some(mut kernels: Vec<Kernel>, out: Option<PathBuf>) -> Result<(), Error> {
    if kernels.is_empty() {
        kernels = here();
    }
    let path = out.map(|out| if out.extension().is_some() { out } else { out.join(RUN) });
    let mut run = match &path {
        Some(path) if path.exists() => opened(path)?,
        Some(path) => started(path),
        None => started(Path::new(RUN)),
    };
    // Before anything takes its time.
    for kernel in &kernels {
        kernel.image().map_err(|_| LaboratoryError::NotHere {
            name: kernel.name().to_owned(),
            what: "it is not in the cache".to_owned(),
            install: kernel.command().to_owned(),
        })?;
    }
    if kernels.is_empty() {
        let install = Kernel::V6_12.command().to_owned();
        return Err(LaboratoryError::NotHere {
            name: "a kernel".to_owned(),
            what: "none is in the cache".to_owned(),
            install,
        }
        .into());
    }
    lab::require_root().map_err(LaboratoryError::from)?;
    heed_signals()?;
    let _helper = helper::Link::new().map_err(LaboratoryError::from)?;
    let mut failed = None;
    for kernel in kernels {
        let kept = weighed(kernel)?;
        if let Some(why) = &kept.failure {
            failed = Some(LaboratoryError::Weighing { name: kernel.name(), why: why.clone() });
        }
        run.kernels.insert(kernel.name().to_owned(), kept);
        if let Some(path) = &path {
            save(&run, path)?;
        }
    }
    if let Some(path) = &path {
        write_report(&run, &path.with_file_name(REPORT))?;
    } else {
        run.records.clear();
    }
    let alone = Run { records: Vec::new(), ..run };
    print(&report::summary(&alone, width()))?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Those that are here.
pub fn here() -> Vec<Kernel> {
    Kernel::EVERY.into_iter().filter(|kernel| kernel.image().is_ok()).collect()
}

/// One kernel, or why it could not be looked at; that somebody wants to stop is no property of it.
fn weighed(kernel: Kernel) -> Result<GuestKernel, LaboratoryError> {
    eprintln!("booting {} in an emulated machine", kernel.name());
    let when = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match weigh(kernel) {
        Ok(weight) => Ok(weight.record(when)),
        Err(error) if lab::interrupted() => Err(error.into()),
        Err(error) => {
            let release = kernel.image().map(|image| image.release).unwrap_or_default();
            Ok(GuestKernel { release, emulated: true, when, failure: Some(error.line()), ..GuestKernel::default() })
        }
    }
}

/// At the end of a run: the kernels that are here and of which it knows nothing yet, as long as there is time; and the commands for the others.
pub fn complete(run: &mut Run, path: &Path, deadline: Option<Instant>) -> Result<(), LaboratoryError> {
    for kernel in Kernel::EVERY {
        let Ok(image) = kernel.image() else {
            eprintln!("not looked at in a guest: {} (`{}`)", kernel.name(), kernel.command());
            continue;
        };
        if run.kernels.get(kernel.name()).is_some_and(|known| known.failure.is_none() && known.release == image.release)
        {
            continue;
        }
        if deadline.is_some_and(|deadline| deadline.saturating_duration_since(Instant::now()) < WEIGHING) {
            eprintln!(
                "not looked at in a guest, because there is no time: {} (`wireloom lab kernel weigh {0}`)",
                kernel.name()
            );
            continue;
        }
        let kept = weighed(kernel)?;
        run.kernels.insert(kernel.name().to_owned(), kept);
        run.save(path)?;
    }
    Ok(())
}

/// A run that is there, if it is of this machine.
fn opened(path: &Path) -> Result<Run, LaboratoryError> {
    let run = Run::load(path)?;
    let here = machine::describe();
    if run.machine != here {
        let why = format!("it was measured on another machine: {}, expected {}", run.machine.line(), here.line());
        return Err(LaboratoryError::Unlike { path: path.to_owned(), why });
    }
    Ok(run)
}

fn started(path: &Path) -> Run {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut run = Run::new(&name_of(folder), now, now, machine::describe());
    run.command = "wireloom lab kernel weigh".to_owned();
    run
}

fn save(run: &Run, path: &Path) -> Result<(), LaboratoryError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|source| LaboratoryError::File { path: folder.to_owned(), source })?;
    Ok(run.save(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_says_since_when_and_how_far() {
        let stage =
            Stage { what: "compiling it".to_owned(), files: Some((812, 1700)), elapsed: Duration::from_secs(252) };
        assert_eq!(told(&stage), "[4:12] compiling it, file 812 of about 1700");
        let more = Stage { files: Some((1801, 1700)), ..stage.clone() };
        assert_eq!(told(&more), "[4:12] compiling it, file 1801 of about 1801");
        assert_eq!(told(&Stage { files: None, elapsed: Duration::ZERO, ..stage }), "[0:00] compiling it");
    }
}

//! Compiles a kernel with WireGuard built in, of Debian's sources.
//!
//! The sources are those of the package `linux-source-SERIES`, which Debian makes of the same source package as its images, with its patches; apt fetches
//! and verifies it. They are unpacked beside the place where the kernel is to be, compiled without WireGuard and then with it (which compiles no more than
//! what differs), and what building it in adds is kept with the kernel. Sources and objects are then removed. Only what is whole is moved to its place; what
//! a build that was killed has left the next one removes.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::apt::{Apt, DOWNLOAD_LIMIT, first_error};
use super::configuration;
use super::image::{Image, copy, only_file, write};
use super::kernel::{Kernel, Series};
use super::sizes::{Size, Sizes};
use crate::{LabError, Process, run_checked, wait_for};

/// What compiles it, and the package that has it.
const PROGRAMS: [(&str, &str); 10] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("tar", "tar"),
];

/// What is no program: the library that objtool reads objects by, and what programs are compiled with.
const FILES: [(&str, &str); 2] = [("/usr/include/gelf.h", "libelf-dev"), ("/usr/include/stdio.h", "libc6-dev")];

/// Bytes on the disk: 1.7 GB of sources, objects, and the package.
const SPACE: u64 = 3_000_000_000;

/// How long unpacking may take, or another command that is not the compiler.
const LIMIT: Duration = Duration::from_secs(900);

/// How long a kernel may take to compile, on a machine that does much else.
const COMPILE_LIMIT: Duration = Duration::from_secs(4 * 3600);

/// How often is told how far the compiler is.
const TELL: Duration = Duration::from_secs(1);

/// Where a build stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// What is done at the moment, in words.
    pub what: String,
    /// Files that were compiled, where something compiles, and how many there were the last time that somebody looked: not quite the same in each version.
    pub files: Option<(usize, usize)>,
    /// Time since the beginning.
    pub elapsed: Duration,
}

/// Files that 6.12.117 compiles without WireGuard, and those that differ with it.
const FILES_WITHOUT: usize = 1230;
const FILES_WITH: usize = 450;

/// Makes a kernel with WireGuard built in; one that is here and is configured like that stays. `tell` is told where it stands, each second while it compiles.
///
/// # Errors
/// [`LabError::Packages`] with what has to be installed before; [`LabError::NotBuilt`] with what apt or the compiler said; [`LabError::Interrupted`].
pub fn build(series: Series, tell: &mut dyn FnMut(&Stage)) -> Result<Image, LabError> {
    let kernel = Kernel::BuiltIn(series);
    if let Ok(image) = kernel.image() {
        return Ok(image);
    }
    let refuse = |reason: String| LabError::NotBuilt { kernel: kernel.name(), reason };
    if !cfg!(target_arch = "x86_64") {
        return Err(refuse(
            "guests are emulated machines of x86-64, expected such a processor to compile on".to_owned(),
        ));
    }
    tools()?;
    let place = kernel.folder();
    let parent = place.parent().unwrap_or(Path::new("/")).to_owned();
    fs::create_dir_all(&parent).map_err(LabError::io(parent.display().to_string()))?;
    let lock = parent.join(format!("{}.lock", kernel.name()));
    let lock = File::create(&lock).map_err(LabError::io(lock.display().to_string()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(refuse("another process is building it".to_owned())),
        Err(TryLockError::Error(source)) => return Err(LabError::io("the lock of a kernel")(source)),
    }
    let here =
        rustix::fs::statvfs(&parent).map_err(|error| LabError::io(parent.display().to_string())(error.into()))?;
    let free = here.f_bavail.saturating_mul(here.f_frsize);
    if free < SPACE {
        let (free, parent) = (free / 1_000_000, parent.display());
        return Err(refuse(format!("{free} MB are free in {parent}, expected {} MB", SPACE / 1_000_000)));
    }
    let folder = Scratch::new(parent.join(format!("{}.part", kernel.name())))?;
    let mut work = Work { series, folder: &folder.0, began: Instant::now(), tell };
    let made = work.all().and_then(|made| {
        let _ = fs::remove_dir_all(&place);
        fs::rename(&made, &place).map_err(LabError::io(place.display().to_string()))
    });
    // Those are 80,000 files, which a busy disk needs a while for; and somebody may be waiting after Ctrl-C.
    work.say("taking sources and objects away");
    drop(folder);
    made?;
    kernel.image()
}

/// Whether everything is here that compiles a kernel.
fn tools() -> Result<(), LabError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let programs = PROGRAMS.iter().filter(|(program, _)| !here(program));
    let files = FILES.iter().filter(|(file, _)| !Path::new(file).exists());
    let packages: Vec<&str> = programs.chain(files).map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    Err(LabError::Packages { packages: packages.join(" ") })
}

/// A folder that goes when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Scratch, LabError> {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(LabError::io(path.display().to_string())(error));
            }
            _ => {}
        }
        fs::create_dir(&path).map_err(LabError::io(path.display().to_string()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays the next build removes.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One build, in a folder of its own.
struct Work<'a> {
    series: Series,
    folder: &'a Path,
    began: Instant,
    tell: &'a mut dyn FnMut(&Stage),
}

impl Work<'_> {
    /// From the download to the folder that can be moved.
    fn all(&mut self) -> Result<PathBuf, LabError> {
        let sources = self.sources()?;
        let without = self.compile(&sources, false)?;
        let with = self.compile(&sources, true)?;
        let made = self.made()?;
        copy(&self.image(), &made.join("vmlinuz"))?;
        write(&made.join("order"), "")?;
        write(&made.join("sizes"), &Sizes { with, without }.text())?;
        write(&made.join("wanted"), &configuration::text(true))?;
        let release = self.out().join("include/config/kernel.release");
        let release = fs::read_to_string(&release).map_err(LabError::io(release.display().to_string()))?;
        // Last, since it is what tells that all is there.
        write(&made.join("release"), &release)?;
        Ok(made)
    }

    fn say(&mut self, what: &str) {
        (self.tell)(&Stage { what: what.to_owned(), files: None, elapsed: self.began.elapsed() });
    }

    fn refuse(&self, reason: String) -> LabError {
        LabError::NotBuilt { kernel: Kernel::BuiltIn(self.series).name(), reason }
    }

    /// Fetches and unpacks the sources.
    fn sources(&mut self) -> Result<PathBuf, LabError> {
        let name = format!("linux-source-{}", self.series.name());
        self.say(&format!("downloading Debian's package {name}, about 150 MB"));
        let (apt, name) =
            Apt::search(self.series, &name, |names| names.lines().find(|line| *line == name).map(str::to_owned))?;
        let mut command = apt.command("apt-get");
        command.args(["-q", "download", &name]).current_dir(self.folder);
        run_checked(&mut command, DOWNLOAD_LIMIT).map_err(|failure| match failure {
            LabError::Failed { output, .. } => {
                self.refuse(format!("{}; new lists of packages may help: `apt-get update`", first_error(&output)))
            }
            other => other,
        })?;
        self.say("unpacking it");
        let deb = only_file(self.folder, |file| file.ends_with(".deb"))?;
        let (package, tree) = (self.folder.join("package"), self.folder.join("tree"));
        self.run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&package))?;
        fs::remove_file(&deb).map_err(LabError::io(deb.display().to_string()))?;
        let archive = only_file(&package.join("usr/src"), |file| file.starts_with("linux-source-"))?;
        fs::create_dir(&tree).map_err(LabError::io(tree.display().to_string()))?;
        self.run(Command::new("tar").arg("-C").arg(&tree).arg("-xf").arg(&archive))?;
        fs::remove_file(&archive).map_err(LabError::io(archive.display().to_string()))?;
        only_file(&tree, |_| true)
    }

    /// Configures and compiles, and tells what came out.
    fn compile(&mut self, sources: &Path, wireguard: bool) -> Result<Size, LabError> {
        let with = if wireguard { "with" } else { "without" };
        self.say(&format!("configuring it {with} WireGuard"));
        let answers = self.folder.join("answers");
        write(&answers, &configuration::text(wireguard))?;
        let mut command = self.make(sources);
        command.arg("allnoconfig").env("KCONFIG_ALLCONFIG", &answers);
        self.run(&mut command)?;
        let config = self.out().join(".config");
        let config = fs::read_to_string(&config).map_err(LabError::io(config.display().to_string()))?;
        if let Some(lost) = configuration::lost(&config, wireguard) {
            return Err(self.refuse(format!("these sources do not take {lost}")));
        }
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let mut command = self.make(sources);
        command.arg(format!("-j{jobs}")).arg("bzImage");
        let process = Process::spawn(&mut command)?;
        self.attend(
            process,
            &format!("compiling it {with} WireGuard"),
            if wireguard { FILES_WITH } else { FILES_WITHOUT },
        )?;
        let image = self.image();
        let bytes = fs::metadata(&image).map_err(LabError::io(image.display().to_string()))?.len();
        // All of the kernel before its sections are laid out: what is laid out is filled up to pages of 2 MiB.
        Size::of(bytes, &self.run(Command::new("size").arg(self.out().join("vmlinux.o")).env("LC_ALL", "C"))?)
    }

    /// Waits for the compiler, and ends it and all that it has started when it is not to go on.
    fn attend(&mut self, mut process: Process, what: &str, of: usize) -> Result<(), LabError> {
        let mut told: Option<Instant> = None;
        let ended = wait_for(what, COMPILE_LIMIT, || {
            if told.is_none_or(|then| then.elapsed() >= TELL) {
                let files = Some((compiled(&process.stdout()), of));
                (self.tell)(&Stage { what: what.to_owned(), files, elapsed: self.began.elapsed() });
                told = Some(Instant::now());
            }
            Ok(process.status())
        });
        match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(self.refuse(complaint(&process.stderr()))),
            Err(error) => {
                process.stop_group();
                Err(error)
            }
        }
    }

    /// A command that is expected to succeed. What it said otherwise is told by its last line.
    fn run(&self, command: &mut Command) -> Result<String, LabError> {
        run_checked(command, LIMIT).map_err(|failure| match failure {
            LabError::Failed { output, .. } => self.refuse(complaint(&output)),
            other => other,
        })
    }

    /// Make, the same whatever the environment says, and ended when we are.
    fn make(&self, sources: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "make", "-C"]).arg(sources);
        command.arg(format!("O={}", self.out().display()));
        for name in
            ["MAKEFLAGS", "MFLAGS", "ARCH", "CROSS_COMPILE", "LLVM", "KCFLAGS", "KCPPFLAGS", "KAFLAGS", "LOCALVERSION"]
        {
            command.env_remove(name);
        }
        // The same sources make the same bytes.
        let stamp = "Thu Jan  1 00:00:00 UTC 1970";
        for (name, value) in
            [("KBUILD_BUILD_TIMESTAMP", stamp), ("KBUILD_BUILD_USER", "lab"), ("KBUILD_BUILD_HOST", "lab")]
        {
            command.env(name, value);
        }
        command.env("LC_ALL", "C");
        command
    }

    fn out(&self) -> PathBuf {
        self.folder.join("out")
    }

    fn image(&self) -> PathBuf {
        self.out().join("arch/x86/boot/bzImage")
    }

    fn made(&self) -> Result<PathBuf, LabError> {
        let made = self.folder.join("made");
        fs::create_dir(&made).map_err(LabError::io(made.display().to_string()))?;
        Ok(made)
    }
}

/// How many files make has compiled, by what it said.
fn compiled(said: &str) -> usize {
    said.lines().filter(|line| ["CC", "AS"].contains(&line.split_whitespace().next().unwrap_or_default())).count()
}

/// The line that matters of what a failed command said: the first that tells of an error which is not make's about another make, or else the last.
fn complaint(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let error = lines.iter().find(|line| line.contains("rror: ") || line.contains("No space left"));
    let error = error.or_else(|| lines.iter().find(|line| line.contains("***") && !line.contains("] Error ")));
    error.or(lines.last()).map_or_else(|| "it said nothing".to_owned(), |line| (*line).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_was_compiled() {
        let said = "  HOSTCC  scripts/basic/fixdep\n  CC      init/main.o\n  AS      arch/x86/entry/entry.o\n  AR      init/built-in.a\n  CC      a.o\n";
        assert_eq!(compiled(said), 3);
        assert_eq!(compiled(""), 0);
    }

    #[test]
    fn tells_the_line_that_matters() {
        let said = "In file included from a.c:1:\n/usr/include/b.h:3:10: fatal error: gelf.h: No such file or directory\n\
                    make[3]: *** [scripts/Makefile:1: a.o] Error 1\nmake: *** [Makefile:2: b] Error 2\n";
        assert_eq!(complaint(said), "/usr/include/b.h:3:10: fatal error: gelf.h: No such file or directory");
        let said = "make[1]: *** No rule to make target 'x'.  Stop.\nmake: *** [Makefile:2: b] Error 2\n";
        assert_eq!(complaint(said), "make[1]: *** No rule to make target 'x'.  Stop.");
        assert_eq!(complaint("zstd: error 25\n\n"), "zstd: error 25");
        assert_eq!(complaint("\n"), "it said nothing");
    }

    #[test]
    fn what_a_killed_build_has_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("built-in-6.12.part");
        fs::create_dir_all(path.join("out")).unwrap();
        let scratch = Scratch::new(path.clone()).unwrap();
        assert!(path.is_dir() && !path.join("out").exists());
        drop(scratch);
        assert!(!path.exists());
    }
}

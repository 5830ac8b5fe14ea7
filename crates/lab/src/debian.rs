//! A small Debian of the same release as this machine, as files: what a package is installed into, and what a guest with systemd boots.
//!
//! Setup makes it once, with debootstrap, and keeps it as an archive in the user's cache, without what no test looks at (documents,
//! translations, lists of packages). [`Debian::unpack`] gives a copy of one's own, which goes when it is dropped.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::namespace::scratch_folder;
use crate::system::cache_folder;
use crate::{Finished, LabError, run, run_checked};

/// What is in it, besides what makes a Debian. A change of it makes another archive.
const PACKAGES: [&str; 5] = ["systemd-sysv", "iproute2", "iputils-ping", "nftables", "libelf1"];

/// What is taken out again.
const NEEDLESS: [&str; 8] = [
    "usr/share/doc",
    "usr/share/i18n",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/zoneinfo",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
];

/// How long it may take to make; a minute on a machine with nothing else to do.
const MAKE_LIMIT: Duration = Duration::from_secs(900);

/// How long anything else may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A Debian in a folder. Dropping it removes it.
pub struct Debian {
    folder: TempDir,
}

impl Debian {
    /// Whether the archive has been made.
    pub fn is_fetched() -> bool {
        archive().is_ok_and(|archive| archive.exists())
    }

    /// Makes the archive. Returns where it is.
    ///
    /// # Errors
    /// What debootstrap said, or where packages come from cannot be told.
    pub fn fetch() -> Result<PathBuf, LabError> {
        let archive = archive()?;
        let parent = archive.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(LabError::io(parent.display().to_string()))?;
        let scratch = tempfile::tempdir_in(parent).map_err(LabError::io("a folder for a Debian"))?;
        let (tree, made) = (scratch.path().join("tree"), scratch.path().join("tar"));
        let codename = codename()?;
        let include = format!("--include={}", PACKAGES.join(","));
        // What it mounts is seen by nobody else, and goes with it.
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "debootstrap", "--variant=minbase", &include]);
        command.arg(&codename).arg(&tree).arg(mirror(&codename)?);
        run_checked(command.env("PATH", path()), MAKE_LIMIT)?;
        for name in NEEDLESS {
            empty(&tree.join(name))
                .or_else(|error| match error.kind() {
                    io::ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                })
                .map_err(LabError::io(format!("{name} in a new Debian")))?;
        }
        let mut command = Command::new("tar");
        command.args(["--numeric-owner", "-C"]).arg(&tree).arg("-cf").arg(&made).arg(".");
        run_checked(&mut command, LIMIT)?;
        // Whoever was quicker has made the same.
        fs::rename(&made, &archive).map_err(LabError::io(archive.display().to_string()))?;
        Ok(archive)
    }

    /// A fresh one.
    ///
    /// # Errors
    /// [`LabError::Missing`] without setup.
    pub fn unpack() -> Result<Debian, LabError> {
        let archive = archive()?;
        if !archive.exists() {
            let program = archive.display().to_string();
            return Err(LabError::Missing { program, hint: "`cargo xtask setup` makes it" });
        }
        let folder = scratch_folder("a folder for a Debian")?;
        run_checked(
            Command::new("tar").args(["--numeric-owner", "-xpC"]).arg(folder.path()).arg("-f").arg(&archive),
            LIMIT,
        )?;
        Ok(Debian { folder })
    }

    /// Where its root is.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Runs one of its programs, with it as the whole file system, to its end; what that was is for the caller to judge.
    ///
    /// # Errors
    /// It could not be started, or took too long.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<Finished, LabError> {
        let mut command = Command::new("chroot");
        command.arg(self.root()).arg(program).args(args);
        command.env("PATH", path()).env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        run(&mut command, LIMIT)
    }

    /// Copies a file of this machine into it, with its mode. `to` begins at its root.
    ///
    /// # Errors
    /// The file system's.
    pub fn copy(&self, from: &Path, to: &str) -> Result<(), LabError> {
        let path = self.root().join(to.trim_start_matches('/'));
        let parent = path.parent().unwrap_or(self.root());
        let copied = fs::create_dir_all(parent).and_then(|()| fs::copy(from, &path));
        copied.map(drop).map_err(LabError::io(format!("copying {} to {to}", from.display())))
    }

    /// The paths of all that is in it, from its root.
    ///
    /// # Errors
    /// The file system's.
    pub fn files(&self) -> Result<BTreeSet<PathBuf>, LabError> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.root().to_owned()];
        while let Some(folder) = folders.pop() {
            let read = || LabError::io(folder.display().to_string());
            for entry in fs::read_dir(&folder).map_err(read())? {
                let entry = entry.map_err(read())?;
                if entry.file_type().map_err(read())?.is_dir() {
                    folders.push(entry.path());
                }
                let path = entry.path();
                found.insert(path.strip_prefix(self.root()).unwrap_or(&path).to_owned());
            }
        }
        Ok(found)
    }
}

/// Empties a folder, which stays.
fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

/// Where the programs of an administrator are, too.
fn path() -> &'static str {
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

fn archive() -> Result<PathBuf, LabError> {
    Ok(cache_folder().join("debian").join(format!("{}+{}.tar", codename()?, PACKAGES.join("+"))))
}

/// This machine's release, such as `bookworm`.
pub(crate) fn codename() -> Result<String, LabError> {
    let text = fs::read_to_string("/etc/os-release").map_err(LabError::io("/etc/os-release"))?;
    match text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")) {
        Some(codename) => Ok(codename.trim_matches('"').to_owned()),
        None => Err(LabError::Unreadable { what: "the release of this Debian", text }),
    }
}

/// Where this machine takes the packages of `codename` from.
pub(crate) fn mirror(codename: &str) -> Result<String, LabError> {
    let suites = suites()?;
    let text = suites.iter().map(|(mirror, suite)| format!("{mirror} {suite}\n")).collect();
    let mirror = suites.into_iter().find_map(|(mirror, suite)| (suite == codename).then_some(mirror));
    mirror.ok_or(LabError::Unreadable { what: "where this Debian takes its packages from", text })
}

/// The suites of Debian that this machine takes packages of, each with where from: the release, its updates, its security's.
pub(crate) fn suites() -> Result<Vec<(String, String)>, LabError> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages", "Origin: Debian"]);
    let targets = run_checked(&mut targets, LIMIT)?;
    let pairs = targets.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.map(|(mirror, suite)| (mirror.to_owned(), suite.to_owned())).collect())
}

//! Source packages of Debian, in the user's cache: what a kernel is built from, and what code is counted in.
//!
//! Apt fetches them with lists of its own, so that nothing of the system's apt is changed and a system without `deb-src` lines will do. They
//! are taken from where this system takes its packages, and from the backports of its release; apt holds the lists against Debian's keys, and each file
//! against the lists. A package lies in a folder named after its version, which is made beside its place and then moved there: one that is
//! there is whole, and is never fetched again.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::Process;
use crate::system::cache_folder;
use crate::{LabError, debian, run, run_checked, wait_for};

/// How long the lists may take, and how long a package may.
const LISTS_LIMIT: Duration = Duration::from_secs(300);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(3600);

/// How long unpacking may take; a kernel is 80,000 files.
const UNPACK_LIMIT: Duration = Duration::from_secs(1800);

/// How long anything else may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Which version of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version<'a> {
    /// The greatest that there is.
    Newest,
    /// The greatest whose number begins so, with a dot or a hyphen behind: `6.12`.
    Series(&'a str),
    /// This one.
    Exactly(&'a str),
}

impl Version<'_> {
    fn is(self, version: &str) -> bool {
        match self {
            Version::Newest => true,
            Version::Series(series) => version.strip_prefix(series).is_some_and(|rest| rest.starts_with(['.', '-'])),
            Version::Exactly(wanted) => version == wanted,
        }
    }

    fn words(self) -> String {
        match self {
            Version::Newest => "in any version".to_owned(),
            Version::Series(series) => format!("of the series {series}"),
            Version::Exactly(version) => format!("in version {version}"),
        }
    }
}

/// A source package that is in the cache: a `.dsc` and what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The package's name, such as `linux`.
    pub package: String,
    /// Its version as Debian writes it.
    pub version: String,
    /// Where its files are.
    pub folder: PathBuf,
}

/// How much of a package is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All that it is built from, Debian's patches included.
    Whole,
    /// What its authors published, as Debian keeps it, without Debian's patches: enough to look at.
    Upstream,
}

impl Source {
    /// Linux as Debian ships it, of a series such as `6.12`. Some series have a package of their own.
    ///
    /// # Errors
    /// As [`Source::fetch`].
    pub fn linux(series: &str, extent: Extent, tell: &mut dyn FnMut(u64, u64)) -> Result<Source, LabError> {
        Source::fetch(&["linux", &format!("linux-{series}")], Version::Series(series), extent, tell)
    }

    /// The same, if it is in the cache.
    pub fn linux_cached(series: &str, extent: Extent) -> Option<Source> {
        Source::cached(&["linux", &format!("linux-{series}")], Version::Series(series), extent)
    }

    /// The greatest version that is in the cache and wanted, of any of these packages.
    pub fn cached(packages: &[&str], wanted: Version<'_>, extent: Extent) -> Option<Source> {
        cached_in(&place(), packages, wanted, extent)
    }

    /// Downloads the greatest version that is wanted, of any of these packages, unless the cache has one that is. A version that is listed
    /// and no longer there gives way to the next. `tell` is told how many bytes have come, and how many there are in all.
    ///
    /// # Errors
    /// There is none, or what apt said.
    pub fn fetch(
        packages: &[&str],
        wanted: Version<'_>,
        extent: Extent,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<Source, LabError> {
        let place = place();
        fs::create_dir_all(&place).map_err(LabError::io(place.display().to_string()))?;
        // One at a time, so that nobody downloads what another is about to have.
        let lock = fs::File::create(place.join("lock")).and_then(|file| file.lock().map(|()| file));
        let _lock = lock.map_err(LabError::io("the lock of the folder of sources"))?;
        if let Some(source) = cached_in(&place, packages, wanted, extent) {
            return Ok(source);
        }
        let lists = Lists::fetch()?;
        let mut found = lists.find(packages)?;
        found.retain(|listed| wanted.is(&listed.version));
        found.sort_by(|a, b| compare(&b.version, &a.version));
        found.dedup();
        let mut error = LabError::NoSource { packages: packages.join(", "), version: wanted.words() };
        for listed in found {
            match lists.download(&listed, &place, extent, tell) {
                // Gone from where packages are taken, as happens between two updates of a mirror.
                Err(LabError::Failed { command, status, output }) if output.contains("404") => {
                    error = LabError::Failed { command, status, output };
                }
                other => return other,
            }
        }
        Err(error)
    }

    /// Unpacks it as Debian builds it, with its patches, into a folder that does not exist yet.
    ///
    /// # Errors
    /// dpkg-source is missing, or what it said.
    pub fn unpack(&self, into: &Path) -> Result<(), LabError> {
        // The signature of who made the package is no matter here: apt has held the files against Debian's own lists.
        let mut command = Command::new("dpkg-source");
        command.args(["--no-check", "--extract"]).arg(self.file(|name| name.ends_with(".dsc"))?).arg(into);
        run_checked(&mut command, UNPACK_LIMIT).map(drop).map_err(|error| match error {
            LabError::Missing { program, .. } => {
                LabError::Missing { program, hint: "`apt-get install dpkg-dev` installs it" }
            }
            other => other,
        })
    }

    /// Unpacks some of what its authors published into a folder that exists: the files and folders with these paths from the top of it.
    ///
    /// # Errors
    /// One of them is not in it, or what tar said.
    pub fn unpack_upstream(&self, paths: &[String], into: &Path) -> Result<(), LabError> {
        let tar = self.file(|name| name.contains(".orig.tar.") && !name.ends_with(".asc"))?;
        // All lies in one folder, whose name changes with the version; and what `*` stands for ends at a slash.
        let mut command = Command::new("tar");
        command.args(["--no-same-owner", "--strip-components=1", "--wildcards", "--no-wildcards-match-slash"]);
        command.arg("-C").arg(into).arg("-xf").arg(tar).args(paths.iter().map(|path| format!("*/{path}")));
        let finished = run(&mut command, UNPACK_LIMIT)?;
        if finished.status.success() {
            return Ok(());
        }
        // The names alone are longer than anyone reads.
        let output = finished.stderr.lines().next().unwrap_or_default().to_owned();
        let command = format!("tar -x from the source of {} {}", self.package, self.version);
        Err(LabError::Failed { command, status: finished.status, output })
    }

    fn file(&self, is_it: fn(&str) -> bool) -> Result<PathBuf, LabError> {
        let entries = fs::read_dir(&self.folder).map_err(LabError::io(self.folder.display().to_string()))?;
        let found = entries.flatten().find(|entry| is_it(&entry.file_name().to_string_lossy()));
        let text = format!("{}, which lacks a file", self.folder.display());
        found.map(|entry| entry.path()).ok_or(LabError::Unreadable { what: "a source package", text })
    }
}

/// Lists of source packages, gone when dropped.
struct Lists {
    options: Vec<String>,
    _folder: tempfile::TempDir,
}

/// What lists say of a package.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    package: String,
    version: String,
    bytes: u64,
}

impl Lists {
    fn fetch() -> Result<Lists, LabError> {
        let codename = debian::codename()?;
        let mut text = format!("deb-src {} {codename}-backports main\n", debian::mirror(&codename)?);
        for (mirror, suite) in debian::suites()? {
            text += &format!("deb-src {mirror} {suite} main\n");
        }
        let kept = tempfile::tempdir().map_err(LabError::io("a folder for apt's lists"))?;
        let folder = kept.path();
        let failed = || LabError::io("a folder for apt's lists");
        fs::write(folder.join("sources.list"), text).map_err(failed())?;
        fs::create_dir_all(folder.join("lists/partial")).map_err(failed())?;
        let mut options = Vec::new();
        for setting in [
            // Apt fetches as a user of its own by default, who may not write to our folders.
            "APT::Sandbox::User=root".to_owned(),
            format!("Dir::Etc::sourcelist={}", folder.join("sources.list").display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={}", folder.join("lists").display()),
            format!("Dir::Cache={}", folder.display()),
            "Acquire::Languages=none".to_owned(),
            // A list that could not be fetched is an error and not a warning.
            "APT::Update::Error-Mode=any".to_owned(),
        ] {
            options.extend(["-o".to_owned(), setting]);
        }
        let lists = Lists { options, _folder: kept };
        let mut update = lists.command("apt-get");
        let update = run(update.args(["-q", "update"]), LISTS_LIMIT)?;
        if !update.status.success() {
            let output = first_error(&update.log());
            return Err(LabError::Failed { command: "apt-get update".to_owned(), status: update.status, output });
        }
        Ok(lists)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }

    /// Downloads a package and puts it in its place.
    fn download(
        &self,
        listed: &Listed,
        place: &Path,
        extent: Extent,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<Source, LabError> {
        let folder = place.join(format!("{}_{}", listed.package, listed.version));
        // On the same file system, so that the result can be moved.
        let scratch = tempfile::tempdir_in(place).map_err(LabError::io("a folder for the download"))?;
        let download = scratch.path().join("files");
        fs::create_dir(&download).map_err(LabError::io("a folder for the download"))?;
        // Apt leaves alone what it finds to be right: the tar of the same version, for one.
        for file in fs::read_dir(&folder).into_iter().flatten().flatten() {
            fs::hard_link(file.path(), download.join(file.file_name()))
                .map_err(LabError::io("a folder for the download"))?;
        }
        let name = format!("{}={}", listed.package, listed.version);
        let mut command = self.command("apt-get");
        command.args(["-q", "source", "--download-only", "--only-source"]);
        command.args((extent == Extent::Upstream).then_some("--tar-only")).arg(&name).current_dir(&download);
        let mut process = Process::spawn(&mut command)?;
        let status = wait_for(&format!("the source package {name}"), DOWNLOAD_LIMIT, || {
            tell(bytes_in(&download).min(listed.bytes), listed.bytes);
            Ok(process.status())
        })?;
        if !status.success() {
            let output = first_error(&process.log());
            return Err(LabError::Failed { command: format!("apt-get source {name}"), status, output });
        }
        // What is there is less than what has been made.
        let _ = fs::remove_dir_all(&folder);
        fs::rename(&download, &folder).map_err(LabError::io(folder.display().to_string()))?;
        Ok(Source { package: listed.package.clone(), version: listed.version.clone(), folder })
    }

    /// All versions of these packages; one that is in none of the lists is no error as long as there are others.
    fn find(&self, packages: &[&str]) -> Result<Vec<Listed>, LabError> {
        let found = run(self.command("apt-cache").args(["showsrc", "--only-source"]).args(packages), LIMIT)?;
        Ok(listed(&found.stdout))
    }
}

/// What `apt-cache showsrc` says, paragraph by paragraph.
fn listed(text: &str) -> Vec<Listed> {
    text.split("\n\n")
        .filter_map(|paragraph| {
            let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            let sums = paragraph.split_once("\nChecksums-Sha256:")?.1.lines().skip(1);
            let sizes = sums.take_while(|line| line.starts_with(' ')).filter_map(|line| {
                let size: Option<u64> = line.split_whitespace().nth(1)?.parse().ok();
                size
            });
            let (package, version) = (field("Package")?.to_owned(), field("Version")?.to_owned());
            Some(Listed { package, version, bytes: sizes.sum() })
        })
        .collect()
}

fn cached_in(place: &Path, packages: &[&str], wanted: Version<'_>, extent: Extent) -> Option<Source> {
    let found = fs::read_dir(place).ok()?.flatten().filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let (package, version) = name.split_once('_')?;
        let is_it = packages.contains(&package) && wanted.is(version);
        let mut files = fs::read_dir(entry.path()).ok()?.flatten();
        // The upstream part alone has no description.
        let is_whole =
            extent == Extent::Upstream || files.any(|file| file.path().extension().is_some_and(|it| it == "dsc"));
        (is_it && is_whole).then(|| Source {
            package: package.to_owned(),
            version: version.to_owned(),
            folder: entry.path(),
        })
    });
    found.max_by(|a, b| compare(&a.version, &b.version))
}

/// As Debian orders versions.
fn compare(a: &str, b: &str) -> Ordering {
    let says = |relation: &str| {
        let compared = run(Command::new("dpkg").args(["--compare-versions", a, relation, b]), LIMIT);
        compared.is_ok_and(|finished| finished.status.success())
    };
    match (says("gt"), says("lt")) {
        (true, _) => Ordering::Greater,
        (_, true) => Ordering::Less,
        _ => Ordering::Equal,
    }
}

/// Apt says much when it fails, and what matters in a line that begins with `E:`.
fn first_error(text: &str) -> String {
    let found = text.lines().find_map(|line| line.strip_prefix("E: "));
    found.unwrap_or(text).trim().to_owned()
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

fn place() -> PathBuf {
    cache_folder().join("sources")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_it_reads() {
        let text = "Package: linux\nVersion: 6.1.192-2\nFiles:\n 00 1 a.dsc\nChecksums-Sha256:\n 0a 100 a.dsc\n 0b 23 b.tar.xz\nHomepage: x\n\n\
                    Package: linux-6.12\nBinary: a\nVersion: 6.12.1-1\nChecksums-Sha256:\n 0c 7 c\n\n";
        let of =
            |package: &str, version: &str, bytes| Listed { package: package.into(), version: version.into(), bytes };
        assert_eq!(listed(text), [of("linux", "6.1.192-2", 123), of("linux-6.12", "6.12.1-1", 7)]);
        assert_eq!(listed("N: Unable to locate\n"), []);
        assert_eq!(first_error("Reading\nErr:1 x\nE: Failed to fetch y\nE: z"), "Failed to fetch y");
    }

    #[test]
    fn finds_what_has_been_fetched() {
        let place = tempfile::tempdir().unwrap();
        for name in [
            "linux_6.1.99-1",
            "linux_6.1.100-1~bpo12+1",
            "linux-6.12_6.12.3-1",
            "linux_6.12.2-1",
            "lock",
            "openvpn_2.6.14-0",
        ] {
            fs::create_dir(place.path().join(name)).unwrap();
        }
        let found =
            |packages: &[&str], wanted| Some(cached_in(place.path(), packages, wanted, Extent::Upstream)?.version);
        assert_eq!(found(&["linux"], Version::Series("6.1")).as_deref(), Some("6.1.100-1~bpo12+1"));
        assert_eq!(found(&["linux", "linux-6.12"], Version::Series("6.12")).as_deref(), Some("6.12.3-1"));
        assert_eq!(found(&["linux"], Version::Exactly("6.1.99-1")).as_deref(), Some("6.1.99-1"));
        assert_eq!(found(&["openvpn"], Version::Newest).as_deref(), Some("2.6.14-0"));
        assert_eq!(found(&["openvpn"], Version::Exactly("2.6")), None);
        assert_eq!(found(&["strongswan"], Version::Newest), None);
        let whole = || cached_in(place.path(), &["openvpn"], Version::Newest, Extent::Whole);
        assert_eq!(whole(), None);
        fs::write(place.path().join("openvpn_2.6.14-0/openvpn_2.6.14-0.dsc"), "").unwrap();
        assert!(whole().is_some());
    }
}

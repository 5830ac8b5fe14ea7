//! The code that has to be trusted, counted in the sources of each system.
//!
//! [`selection`] says which files those are. A [`Counter`] takes sources from Debian and from the registry of crates, unpacks what is to be counted, and keeps
//! the numbers in the user's cache, so that another run has them without any source. What is ours is counted when this program is built, and handed in:
//! an installed program has no sources beside it, and those of another version would not be its own.

mod crates;
mod paths;
mod selection;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use evaluation::{Code, CodePart, count_lines};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::system::cache_folder;
use crate::{Extent, LabError, Source, Version, run};
use selection::{Origin, Selection};

/// Another number for another way to count lines.
const EDITION: u32 = 1;

/// The series of Linux whose source Debian has, and that guests boot.
const SERIES: [&str; 2] = ["6.1", "6.12"];

/// How long asking for a package's version may take.
const LIMIT: Duration = Duration::from_secs(30);

/// What is ours.
#[derive(Clone, Debug, Default)]
pub struct OwnCode {
    /// Of all ways to run it.
    pub always: Vec<CodePart>,
    /// With programs in the kernel.
    pub ebpf: Vec<CodePart>,
    /// The crates of cryptography that it asks for, each with its version.
    pub crates: Vec<(String, String)>,
}

/// Counts, and remembers.
pub struct Counter {
    own: OwnCode,
    place: PathBuf,
    /// What has been unpacked, with what it is.
    trees: BTreeMap<(Origin, &'static str), (TempDir, String)>,
}

/// What the cache holds.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// What was asked for: which files, of which version, counted how.
    asked: String,
    part: CodePart,
}

impl Counter {
    /// With what is ours.
    pub fn new(own: OwnCode) -> Counter {
        Counter { own, place: cache_folder().join("code"), trees: BTreeMap::new() }
    }

    /// Whether a system of this slug has any code.
    pub fn knows(slug: &str) -> bool {
        selection::of(slug).is_some()
    }

    /// The code of a system, so far as the cache has it whole. `release` is that of the kernel that carries it.
    pub fn cached(&self, slug: &str, release: &str) -> Option<Code> {
        let series = series_for(release);
        let parts = selection::of(slug)?.into_iter().map(|it| self.kept(it, series)).collect::<Option<Vec<_>>>()?;
        Some(self.whole(slug, release, parts))
    }

    /// The code of a system. Sources that the cache lacks are downloaded; `tell` is told which, how many bytes have come, and how many there are in all, if
    /// that is known.
    ///
    /// # Errors
    /// A source cannot be had, or is not arranged as it was.
    pub fn code(
        &mut self,
        slug: &str,
        release: &str,
        tell: &mut dyn FnMut(&str, u64, u64),
    ) -> Result<Option<Code>, LabError> {
        let Some(selections) = selection::of(slug) else { return Ok(None) };
        let series = series_for(release);
        let mut parts = Vec::new();
        for selection in selections {
            parts.push(match self.kept(selection, series) {
                Some(part) => part,
                None => self.count(selection, series, tell)?,
            });
        }
        Ok(Some(self.whole(slug, release, parts)))
    }

    /// With what is ours, and what is to be known of it.
    fn whole(&self, slug: &str, release: &str, others: Vec<CodePart>) -> Code {
        let mut parts = Vec::new();
        if is_ours(slug) {
            parts.extend(self.own.always.iter().cloned());
            if slug == "wireloom-ebpf" {
                parts.extend(self.own.ebpf.iter().cloned());
            }
        }
        parts.extend(others);
        let series = series_for(release);
        let in_kernel = selection::of(slug).into_iter().flatten().any(|it| it.origin == Origin::Linux);
        let remark = match in_kernel && !is_of(release, series) {
            true => format!(
                "Linux {release}, which carries it, is no kernel of Debian's whose source could be had, and the series {series} was counted in its place"
            ),
            false => String::new(),
        };
        Code { parts, remark }
    }

    fn count(
        &mut self,
        selection: &'static Selection,
        series: &'static str,
        tell: &mut dyn FnMut(&str, u64, u64),
    ) -> Result<CodePart, LabError> {
        let (of, lines) = match selection.origin {
            Origin::Linux | Origin::Debian(..) => {
                let (tree, of) = self.unpacked(selection.origin, series, tell)?;
                (of.clone(), count_in(tree.path(), selection, of)?)
            }
            Origin::Crate(name, version, features) => {
                tell("the crates", 0, 0);
                crates::count(selection, &crates::line(name, version, features))?
            }
            Origin::OurCrates => {
                tell("the crates", 0, 0);
                let lines = self.own.crates.iter().map(|(name, version)| crates::line(name, version, ""));
                crates::count(selection, &lines.collect::<String>())?
            }
        };
        let part = CodePart { what: selection.what.to_owned(), of, cryptography: selection.cryptography, lines };
        let kept = Kept { asked: self.asked(selection, series), part };
        let file = self.file(selection, series);
        let failed = || LabError::io(file.display().to_string());
        fs::create_dir_all(&self.place).map_err(failed())?;
        let text = serde_json::to_string_pretty(&kept).map_err(std::io::Error::other).map_err(failed())?;
        // Beside it first: another may be reading.
        let beside = tempfile::NamedTempFile::new_in(&self.place).map_err(failed())?;
        fs::write(beside.path(), text).map_err(failed())?;
        beside.persist(&file).map_err(|error| failed()(error.error))?;
        Ok(kept.part)
    }

    /// What is counted of an origin, unpacked, and what it is.
    fn unpacked(
        &mut self,
        origin: Origin,
        series: &'static str,
        tell: &mut dyn FnMut(&str, u64, u64),
    ) -> Result<&(TempDir, String), LabError> {
        let key = (origin, if origin == Origin::Linux { series } else { "" });
        let entry = match self.trees.entry(key) {
            Entry::Occupied(entry) => return Ok(entry.into_mut()),
            Entry::Vacant(entry) => entry,
        };
        let source = fetch(origin, series, tell)?;
        let tree = tempfile::tempdir().map_err(LabError::io("a folder for sources"))?;
        let paths = selection::ALL.iter().filter(|it| it.origin == origin).flat_map(|it| it.paths);
        source.unpack_upstream(&paths::to_unpack(&paths.copied().collect::<Vec<_>>()), tree.path())?;
        let name = if origin == Origin::Linux { "Linux" } else { &source.package };
        let of = format!("{name} {}, by Debian's source package {}", upstream(&source.version), source.version);
        Ok(entry.insert((tree, of)))
    }

    fn kept(&self, selection: &Selection, series: &str) -> Option<CodePart> {
        let text = fs::read_to_string(self.file(selection, series)).ok()?;
        let kept: Kept = serde_json::from_str(&text).ok()?;
        (kept.asked == self.asked(selection, series)).then_some(kept.part)
    }

    fn file(&self, selection: &Selection, series: &str) -> PathBuf {
        let series = if selection.origin == Origin::Linux { format!("-{series}") } else { String::new() };
        self.place.join(format!("{}{series}.json", selection.id))
    }

    /// What a number answers to: it is good for as long as this stays the same.
    fn asked(&self, selection: &Selection, series: &str) -> String {
        let mut hasher = DefaultHasher::new();
        format!("{selection:?}").hash(&mut hasher);
        (EDITION, paths::OTHER_PROCESSORS).hash(&mut hasher);
        crates::rules(&mut hasher);
        let version = match selection.origin {
            Origin::Linux => series.to_owned(),
            Origin::Debian(_, package) => installed(package).unwrap_or_default(),
            Origin::Crate(_, version, _) => version.to_owned(),
            Origin::OurCrates => {
                self.own.crates.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(" ")
            }
        };
        format!("{version}; {:016x}", hasher.finish())
    }
}

fn is_ours(slug: &str) -> bool {
    slug == "wireloom" || slug.starts_with("wireloom-")
}

/// The source of an origin: of the version that is installed, where that can be had, of the greatest otherwise.
fn fetch(origin: Origin, series: &str, tell: &mut dyn FnMut(&str, u64, u64)) -> Result<Source, LabError> {
    let Origin::Debian(package, installed_as) = origin else {
        return Source::linux(series, Extent::Upstream, &mut |come, all| tell("the source of Linux", come, all));
    };
    let what = format!("the source of {package}");
    let mut told = |come: u64, all: u64| tell(&what, come, all);
    let exactly = installed(installed_as);
    let exactly = exactly.map(|it| Source::fetch(&[package], Version::Exactly(&it), Extent::Upstream, &mut told));
    match exactly {
        Some(Ok(source)) => Ok(source),
        Some(Err(LabError::Interrupted)) => Err(LabError::Interrupted),
        _ => Source::fetch(&[package], Version::Newest, Extent::Upstream, &mut told),
    }
}

/// The version of the source of a package that is installed here.
fn installed(package: &str) -> Option<String> {
    let said = run(Command::new("dpkg-query").args(["-W", "-f", "${source:Version}", package]), LIMIT).ok()?;
    (said.status.success() && !said.stdout.is_empty()).then_some(said.stdout)
}

/// A version of Debian without what is Debian's in it.
fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, version)| version);
    version.rsplit_once('-').map_or(version, |(version, _)| version)
}

/// The first two numbers of a kernel's release.
fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn is_of(release: &str, series: &str) -> bool {
    numbers(release) == numbers(series)
}

/// The series to count for a kernel of this release: its own if Debian has it, otherwise the last before it.
fn series_for(release: &str) -> &'static str {
    let before = SERIES.into_iter().rfind(|it| numbers(it) <= numbers(release));
    before.unwrap_or(SERIES[0])
}

/// Lines of a selection in a tree; each of its paths has to be there.
fn count_in(tree: &Path, selection: &Selection, of: &str) -> Result<BTreeMap<String, u64>, LabError> {
    let mut seen = vec![false; selection.paths.len()];
    let lines = count_lines(tree, &mut |file| {
        let places = paths::places(selection.paths, selection.without, file);
        places.iter().for_each(|at| seen[*at] = true);
        !places.is_empty()
    });
    let lines = lines.map_err(LabError::io("an unpacked source"))?;
    match seen.iter().position(|seen| !seen) {
        None => Ok(lines),
        Some(at) => {
            let text = format!("{of}, which has no {} any more", selection.paths[at]);
            Err(LabError::Unreadable { what: "what was to be counted", text })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(what: &str, lines: u64) -> CodePart {
        CodePart { what: what.to_owned(), lines: [("Rust".to_owned(), lines)].into(), ..CodePart::default() }
    }

    #[test]
    fn a_kernel_is_counted_by_its_series_or_the_last_before_it() {
        for (release, series) in [
            ("6.1.0-56-cloud-amd64", "6.1"),
            ("6.12.95", "6.12"),
            ("6.18.44-x", "6.12"),
            ("6.6.1", "6.1"),
            ("5.10.0", "6.1"),
            ("", "6.1"),
        ] {
            assert_eq!(series_for(release), series, "{release}");
        }
        assert!(is_of("6.1.0-56-cloud-amd64", "6.1") && !is_of("6.12.9", "6.1"));
        assert_eq!(upstream("1:0.25.0-1~bpo12+1"), "0.25.0");
    }

    #[test]
    fn counts_what_is_selected_and_misses_what_is_gone() {
        let tree = tempfile::tempdir().unwrap();
        for file in ["net/a.c", "net/b.h", "net/arm/b.c", "net/c-armv8.pl", "other/d.c", "net/selftest/e.c"] {
            let path = tree.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "int a; // told\n\nint b;\n").unwrap();
        }
        let mut selection = Selection {
            id: "x",
            origin: Origin::Linux,
            what: "it",
            cryptography: false,
            paths: &["net/a.c", "net/b.c|net/b.h"],
            without: &[],
        };
        let lines = |selection: &Selection| count_in(tree.path(), selection, "x 1");
        assert_eq!(lines(&selection).unwrap()["C"], 4);
        selection.paths = &["net/"];
        assert_eq!(lines(&selection).unwrap()["C"], 6);
        selection.without = &["net/arm/*"];
        assert_eq!(lines(&selection).unwrap()["C"], 4);
        selection.paths = &["net/", "gone/*.c"];
        assert!(lines(&selection).unwrap_err().to_string().ends_with("x 1, which has no gone/*.c any more"));
    }

    #[test]
    fn what_was_counted_is_kept_until_something_else_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let crates = vec![("ring".to_owned(), "1".to_owned())];
        let own = OwnCode { always: vec![part("a", 10)], ebpf: vec![part("b", 5)], crates };
        let mut counter = Counter { place: folder.path().to_owned(), ..Counter::new(own) };
        assert_eq!(counter.cached("wireloom", "6.1"), None);
        let [selection] = selection::of("wireloom").unwrap()[..] else { panic!() };
        let mut kept = Kept { asked: counter.asked(selection, "6.1"), part: part("c", 1) };
        kept.part.cryptography = true;
        fs::write(counter.file(selection, "6.1"), serde_json::to_string(&kept).unwrap()).unwrap();
        let sums = |code: Code| (code.own(), code.total());
        assert_eq!(counter.cached("wireloom", "6.1").map(sums), Some((10, 11)));
        assert_eq!(counter.cached("wireloom-ebpf", "6.1").map(sums), Some((15, 16)));
        assert_eq!(counter.cached("none", "6.1"), None);
        counter.own.crates[0].1 = "2".to_owned();
        assert_eq!(counter.cached("wireloom", "6.1"), None);
    }

    #[test]
    fn a_kernel_that_was_not_counted_itself_is_named() {
        let counter = Counter::new(OwnCode::default());
        let remark = |slug, release| counter.whole(slug, release, Vec::new()).remark;
        assert!(
            remark("kernel", "6.18.44").starts_with("Linux 6.18.44, ")
                && remark("kernel", "6.18.44").contains("series 6.12 ")
        );
        assert_eq!(remark("kernel", "6.12.9"), "");
        assert_eq!(remark("boringtun", "6.18.44"), "");
    }
}

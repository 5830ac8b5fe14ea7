//! Apt with lists of one's own, so that the backports of this release are searched and fetched from without a change to the system's.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::kernel::Series;
use crate::{LabError, debian, run_checked};

/// How long a download may take.
pub(super) const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);

/// How long a look into the lists may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Apt with a choice of lists.
pub(super) struct Apt {
    options: Vec<String>,
    /// Keeps the lists that are not the system's.
    _lists: Option<tempfile::TempDir>,
}

impl Apt {
    /// What `pick` takes of the names of packages that begin with `prefix`: first among what this system's suites have, then in its backports, of
    /// which only apt's list is fetched, into a folder of its own. Nothing of the system's apt is changed.
    pub(super) fn search(
        series: Series,
        prefix: &str,
        pick: impl Fn(&str) -> Option<String>,
    ) -> Result<(Apt, String), LabError> {
        let none = |reason: String| LabError::NoKernel { series: series.name(), reason };
        let names = |apt: &Apt| run_checked(apt.command("apt-cache").args(["pkgnames", prefix]), LIMIT);
        let mut apt = Apt::system();
        if let Some(name) = pick(&names(&apt)?) {
            return Ok((apt, name));
        }
        apt = Apt::backports().map_err(|failure| none(first_error(&failure.to_string())))?;
        match pick(&names(&apt)?) {
            Some(name) => Ok((apt, name)),
            None => Err(none("neither the suites of this system nor their backports have it".to_owned())),
        }
    }

    /// With the system's own.
    fn system() -> Apt {
        // Apt fetches as a user of its own by default, who may not write to our folders.
        Apt { options: vec!["-o".into(), "APT::Sandbox::User=root".into()], _lists: None }
    }

    /// The backports of this release, from where the system takes its packages.
    fn backports() -> Result<Apt, LabError> {
        let codename = debian::codename()?;
        let mirror = debian::mirror(&codename)?;
        let lists = tempfile::tempdir().map_err(LabError::io("a folder for apt's lists"))?;
        let folder = lists.path();
        let source = format!("deb {mirror} {codename}-backports main\n");
        let list = folder.join("sources.list");
        fs::write(&list, source).map_err(LabError::io(list.display().to_string()))?;
        fs::create_dir_all(folder.join("lists/partial")).map_err(LabError::io("a folder for apt's lists"))?;
        let mut apt = Apt::system();
        for setting in [
            format!("Dir::Etc::sourcelist={}", folder.join("sources.list").display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={}", folder.join("lists").display()),
            format!("Dir::Cache={}", folder.display()),
            "Acquire::Languages=none".to_owned(),
            // A list that could not be fetched is an error and not a warning.
            "APT::Update::Error-Mode=any".to_owned(),
        ] {
            apt.options.extend(["-o".to_owned(), setting]);
        }
        run_checked(apt.command("apt-get").args(["-q", "update"]), DOWNLOAD_LIMIT)?;
        apt._lists = Some(lists);
        Ok(apt)
    }

    /// One of apt's programs, with these lists.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }
}

/// Apt says much when it fails, and what matters in a line that begins with `E:`.
pub(super) fn first_error(text: &str) -> String {
    let found = text.lines().find_map(|line| line.split_once("E: ")).map_or(text, |(_, error)| error);
    found.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_why_apt_failed() {
        let text = "`apt-get update` failed (exit status: 100): E: Failed to fetch x\nE: Some index files\nErr:1 x";
        assert_eq!(first_error(text), "Failed to fetch x");
        assert_eq!(first_error("apt-get is missing"), "apt-get is missing");
    }
}

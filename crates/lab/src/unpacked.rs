//! Debian packages that tests use without installing them, because that would change the machine: those that take over its name resolution.
//!
//! Each is downloaded by apt, unpacked into the user's cache once, and put over the files of a mount namespace by whoever uses it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::system::cache_folder;
use crate::{LabError, run_checked};

/// How long a download may take.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);

/// A package that is unpacked and not installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpacked {
    /// Debian's resolvconf.
    Resolvconf,
    /// The other program of that name.
    Openresolv,
    /// The name service of systemd, and a third program of that name.
    Resolved,
}

impl Unpacked {
    /// All of them.
    pub const ALL: [Unpacked; 3] = [Unpacked::Resolvconf, Unpacked::Openresolv, Unpacked::Resolved];

    /// The package's name.
    pub fn name(self) -> &'static str {
        match self {
            Unpacked::Resolvconf => "resolvconf",
            Unpacked::Openresolv => "openresolv",
            Unpacked::Resolved => "systemd-resolved",
        }
    }

    /// Where its files are, as below `/`.
    ///
    /// # Errors
    /// [`LabError::Missing`] when it has not been fetched.
    pub fn folder(self) -> Result<PathBuf, LabError> {
        let folder = place(self);
        if folder.is_dir() {
            return Ok(folder);
        }
        let program = format!("the package {} in {}", self.name(), folder.display());
        Err(LabError::Missing { program, hint: "`cargo xtask setup` downloads it" })
    }

    /// Downloads and unpacks it. One that is there stays as it is.
    ///
    /// # Errors
    /// What apt or dpkg said.
    pub fn fetch(self) -> Result<PathBuf, LabError> {
        if let Ok(folder) = self.folder() {
            return Ok(folder);
        }
        let place = place(self);
        let parent = cache_folder().join("packages");
        fs::create_dir_all(&parent).map_err(LabError::io(parent.display().to_string()))?;
        // On the same file system, so that the result can be moved.
        let scratch = tempfile::tempdir_in(&parent).map_err(LabError::io("a folder for the download"))?;
        let mut download = Command::new("apt-get");
        // Apt fetches as a user of its own by default, who may not write to our folders.
        download.args(["-q", "-o", "APT::Sandbox::User=root", "download", self.name()]).current_dir(scratch.path());
        run_checked(&mut download, DOWNLOAD_LIMIT)?;
        let tree = scratch.path().join("tree");
        let script = format!("dpkg-deb -x '{}'/*.deb '{}'", scratch.path().display(), tree.display());
        run_checked(Command::new("sh").args(["-c", &script]), DOWNLOAD_LIMIT)?;
        match fs::rename(&tree, &place) {
            // Another has been quicker.
            Err(_) if place.is_dir() => Ok(place),
            moved => moved.map(|()| place).map_err(LabError::io("the unpacked package")),
        }
    }
}

fn place(package: Unpacked) -> PathBuf {
    cache_folder().join("packages").join(package.name())
}

//! Whether a Debian package is what it should be: it is installed in a small Debian of its own, looked at there, upgraded, removed and
//! purged, and then nothing of it is left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lab::{Debian, Finished};

use crate::deb;
use crate::error::Failure;

/// Where it lies in the small Debian.
const DEB: &str = "/root/wireloom.deb";

/// What dpkg and systemd write for themselves.
const THEIRS: [&str; 4] = ["var/lib/dpkg", "var/log", "var/cache", "run/systemd"];

/// Checks a package that [`deb::build`] made of `program`.
pub fn check(deb: &Path, program: &Path) -> Result<(), Failure> {
    let bytes = || fs::read(deb).map_err(Failure::io(deb.display().to_string()));
    let first = bytes()?;
    deb::build(program)?;
    expect(first == bytes()?, || "built twice it is not the same".to_owned())?;
    println!("{}: {} kB, and the same when built again.", deb.display(), first.len() / 1000);

    let debian = Debian::unpack()?;
    debian.copy(deb, DEB)?;
    let before = files(&debian)?;
    quietly(debian.run("dpkg", &["-i", DEB])?)?;
    let added = files(&debian)?.difference(&before).count();

    let version = quietly(debian.run("wireloom", &["--version"])?)?;
    let expected = format!("wireloom {}", env!("CARGO_PKG_VERSION"));
    expect(version.trim() == expected, || format!("--version says {version:?}, expected {expected:?}"))?;
    for page in ["wireloom.1.gz", "wireloom-run.1.gz"] {
        let text = quietly(debian.run("gzip", &["-dc", &format!("/usr/share/man/man1/{page}")])?)?;
        expect(text.contains(".TH "), || format!("{page} is no manual page"))?;
    }
    let damaged = quietly(debian.run("dpkg", &["--verify", "wireloom"])?)?;
    expect(damaged.is_empty(), || format!("files differ from what was packed: {damaged}"))?;

    let unit = "wireloom@wg0.service";
    // Pages of the manual are not to be read by `man`, which is not there.
    let said = debian.run("systemd-analyze", &["verify", "--man=no", unit])?.checked()?.log();
    expect(said.is_empty(), || format!("systemd says of the unit: {}", said.trim()))?;
    let exposure = debian.run("systemd-analyze", &["security", "--offline=yes", "--no-pager", unit])?.checked()?.log();
    let exposure = exposure.lines().last().unwrap_or_default().trim_start_matches(|c: char| !c.is_alphabetic());
    println!("{exposure}");

    quietly(debian.run("dpkg", &["-i", DEB])?)?;
    quietly(debian.run("dpkg", &["-r", "wireloom"])?)?;
    let gone = debian.root().join("usr/bin/wireloom");
    expect(!gone.exists(), || "the program is there after the package was removed".to_owned())?;
    quietly(debian.run("dpkg", &["-P", "wireloom"])?)?;
    let after = files(&debian)?;
    let changed: Vec<_> = after.symmetric_difference(&before).map(|path| path.display().to_string()).collect();
    expect(changed.is_empty(), || {
        format!("after a purge these are more, or fewer, than before: {}", changed.join(", "))
    })?;
    println!("Installed ({added} files and folders), upgraded, removed and purged: nothing is left.");
    Ok(())
}

fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::Package(what())) }
}

/// What a command printed that was to succeed with nothing to complain of.
fn quietly(finished: Finished) -> Result<String, Failure> {
    let finished = finished.checked()?;
    expect(finished.stderr.is_empty(), || format!("`{}` says: {}", finished.command, finished.stderr.trim()))?;
    Ok(finished.stdout)
}

/// What there is that a package could have left.
fn files(debian: &Debian) -> Result<BTreeSet<PathBuf>, Failure> {
    let mut files = debian.files()?;
    files.retain(|path| !THEIRS.iter().any(|folder| path.starts_with(folder)));
    Ok(files)
}

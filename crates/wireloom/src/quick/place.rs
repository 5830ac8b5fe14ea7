//! Where the file of an interface is, and what its name is.
//!
//! A word that could be an interface's name is one, and its file is in `/etc/wireguard`. Anything else is the path of a file, whose name up
//! to `.conf` is the interface's. So far as wg-quick has it; and where `wg0.conf` is no file in `/etc/wireguard/wg0.conf.conf`
//! but one in the current folder, that one is meant.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use config::quick::{self, Quick};
use zeroize::Zeroizing;

use super::QuickError;
use super::tables::SystemTables;
use crate::conf;
use crate::error::Error;
use crate::interface::InterfaceName;
use crate::resolve::SystemServices;

const FOLDER: &str = "/etc/wireguard";
const ENDING: &str = ".conf";

/// An interface and its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Whose name the file has.
    pub interface: InterfaceName,
    /// The file, by its absolute path without links.
    pub file: PathBuf,
}

impl Place {
    /// Finds the file that a word means.
    ///
    /// # Errors
    /// [`QuickError::NoFile`], [`QuickError::FileName`], or that it cannot be looked at.
    pub fn find(word: &str) -> Result<Place, Error> {
        let path = path_of(word);
        let interface = interface_of(&path).ok_or_else(|| QuickError::FileName(path.clone()))?;
        match fs::canonicalize(&path) {
            Ok(file) => Ok(Place { interface, file }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(QuickError::NoFile { path, interface: interface.to_string() }.into())
            }
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// What the file says. What is doubtful about it is told on standard error.
    pub fn read(&self) -> Result<Quick, Error> {
        let text = self.text()?;
        let quick = quick::parse(&text, &SystemServices, &SystemTables).map_err(|error| Error::File {
            path: self.file.clone(),
            line: error.line,
            problem: error.problem,
        })?;
        for warning in &quick.warnings {
            eprintln!("wireloom: {}:{}: {warning}", self.file.display(), warning.line);
        }
        for warning in &quick.device.warnings {
            eprintln!("wireloom: {}:{}: {warning}", self.file.display(), warning.line);
        }
        Ok(quick)
    }

    /// The file's text, keys and all. That others may read it is told.
    pub fn text(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let text = conf::read(&self.file)?;
        if for_all(&self.file) && self.file.parent().is_some_and(for_all) {
            eprintln!("wireloom: warning: {} is world accessible, expected mode 600", self.file.display());
        }
        Ok(text)
    }
}

/// Whether others than owner and group may do something with it.
fn for_all(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o007 != 0)
}

/// The interface that a word is about, whether there is such a file or not.
pub fn interface_of_word(word: &str) -> Result<InterfaceName, Error> {
    let path = path_of(word);
    Ok(interface_of(&path).ok_or(QuickError::FileName(path))?)
}

/// Whether a word is the name of an interface alone, and says nothing of a file.
pub fn is_bare(word: &str) -> bool {
    is_name(word) && path_of(word).starts_with(FOLDER)
}

fn path_of(word: &str) -> PathBuf {
    if !is_name(word) {
        return PathBuf::from(word);
    }
    let path = Path::new(FOLDER).join(format!("{word}{ENDING}"));
    let here = PathBuf::from(word);
    if word.ends_with(ENDING) && !path.exists() && here.exists() { here } else { path }
}

fn interface_of(path: &Path) -> Option<InterfaceName> {
    let name = path.file_name()?.to_str()?.strip_suffix(ENDING)?;
    if is_name(name) { name.parse().ok() } else { None }
}

/// The names that wg-quick takes: fewer than the kernel does.
fn is_name(word: &str) -> bool {
    let proper = |b: u8| b.is_ascii_alphanumeric() || b"_=+.-".contains(&b);
    (1..=15).contains(&word.len()) && word.bytes().all(proper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_files_as_with_wg_quick() {
        for (word, path, interface) in [
            ("wg0", "/etc/wireguard/wg0.conf", Some("wg0")),
            ("my.vpn+1", "/etc/wireguard/my.vpn+1.conf", Some("my.vpn+1")),
            ("./wg0.conf", "./wg0.conf", Some("wg0")),
            ("/tmp/a.b.conf", "/tmp/a.b.conf", Some("a.b")),
            ("fifteen-letters", "/etc/wireguard/fifteen-letters.conf", Some("fifteen-letters")),
            ("sixteen--letters", "sixteen--letters", None),
            ("/etc/wireguard/sixteen--letters.conf", "/etc/wireguard/sixteen--letters.conf", None),
            ("/tmp/wg0", "/tmp/wg0", None),
            ("/tmp/.conf", "/tmp/.conf", None),
            ("/tmp/wg 0.conf", "/tmp/wg 0.conf", None),
            ("wg0.conf", "/etc/wireguard/wg0.conf.conf", Some("wg0.conf")),
        ] {
            assert_eq!(path_of(word), Path::new(path), "{word}");
            assert_eq!(interface_of(&path_of(word)).map(|name| name.to_string()).as_deref(), interface, "{word}");
        }
    }

    #[test]
    fn a_file_is_found_by_links_too_and_told_when_it_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("wg7.conf"), folder.path().join("other.conf"));
        let missing = Place::find(file.to_str().unwrap()).unwrap_err().to_string();
        assert!(missing.contains("wg7.conf") && missing.contains("there is no file"), "{missing}");
        fs::write(&file, "[Interface]\nMTU = 1400\n").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let place = Place::find(link.to_str().unwrap()).unwrap();
        assert_eq!((place.interface.as_str(), &place.file), ("other", &fs::canonicalize(&file).unwrap()));
        assert_eq!(place.read().unwrap().mtu, Some(1400));
    }
}

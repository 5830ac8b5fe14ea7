//! The journal: what `up` has done, for whoever takes it back.
//!
//! One file for each interface, in a folder that only root can read; there are no keys in it. A step is written down before it is applied,
//! and again with its notes when it was. The file is replaced as a whole each time, so that it makes sense whenever the machine
//! stops; it does not outlive a boot, as what it tells of does not.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::QuickError;
use super::engine::Engine;
use super::home;
use super::plan::Options;
use super::said::Said;
use super::step::Step;

/// Where the journals are.
pub const FOLDER: &str = "/run/wireloom";

/// What was done.
#[derive(Debug, Serialize, Deserialize)]
pub struct Journal {
    /// The interface.
    pub interface: String,
    /// The file with its settings.
    pub file: PathBuf,
    /// What moves its packets.
    pub engine: Engine,
    /// The namespace that it was put into, as `ip netns` names it.
    pub netns: Option<String>,
    /// The namespace in which the command was given: its device and inode.
    pub home: (u64, u64),
    /// What was asked for besides the file; not known of what wg-quick has brought up.
    #[serde(default)]
    pub options: Option<Options>,
    /// The steps, in the order in which they were applied; the last one perhaps not.
    pub steps: Vec<Step>,
}

/// The right to bring an interface up or down, for as long as it lives.
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes it, at once or not at all.
    pub fn take(interface: &str) -> Result<Lock, QuickError> {
        let path = Path::new(FOLDER).join(format!("{interface}.lock"));
        let failed = |source| QuickError::Journal { path: path.clone(), source };
        make_folder().map_err(failed)?;
        loop {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(QuickError::Busy(interface.to_owned())),
                taken => taken.map_err(|error| failed(error.into()))?,
            }
            let lock = Lock { file, path: path.clone() };
            if lock.is_current() {
                return Ok(lock);
            }
            // Whoever had it has just removed it, and somebody else may make it again.
        }
    }

    /// Whether the file is still the one that others find.
    fn is_current(&self) -> bool {
        let there = fs::metadata(&self.path).map(|about| (about.dev(), about.ino()));
        matches!((there, numbers(&self.file)), (Ok(there), Ok(ours)) if there == ours)
    }
}

impl Drop for Lock {
    /// The file goes while the lock is held: nobody takes the one that is about to go for the one that counts.
    fn drop(&mut self) {
        if self.is_current() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The file, or namespace, of a descriptor by numbers: of its device and its inode.
pub fn numbers(netns: impl AsFd) -> io::Result<(u64, u64)> {
    let about = File::from(netns.as_fd().try_clone_to_owned()?).metadata()?;
    Ok((about.dev(), about.ino()))
}

fn path(interface: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{interface}.json"))
}

fn make_folder() -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(FOLDER)
}

impl Journal {
    /// That of an interface, if there is one of a network namespace that there still is.
    ///
    /// # Errors
    /// [`QuickError::Journal`], [`QuickError::JournalText`].
    pub fn read(interface: &str) -> Result<Option<Journal>, QuickError> {
        let path = path(interface);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(QuickError::Journal { path, source }),
            Ok(text) => {
                let read = serde_json::from_slice::<Journal>(&text);
                let journal = read.map_err(|source| QuickError::JournalText { path, source })?;
                // With its namespace, all that it tells of has gone.
                Ok(Some(journal).filter(|journal| home::lives(journal.home)))
            }
        }
    }

    /// Takes the kill switch out, as one that stands and is to stand on.
    pub fn keep_kill_switch(&mut self) -> Option<Step> {
        let mut kept = None;
        for step in std::mem::take(&mut self.steps) {
            match step {
                Step::KillSwitch(switch) => kept = Some(Step::KillSwitch(switch.left_standing())),
                other => self.steps.push(other),
            }
        }
        kept
    }

    /// Writes it in place of what was there.
    pub fn write(&self) -> io::Result<()> {
        make_folder()?;
        let path = path(&self.interface);
        let new = path.with_extension("json.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        fs::rename(&new, &path)
    }

    /// Takes it away: there is nothing left to take back.
    pub fn remove(interface: &str) -> io::Result<()> {
        Said::forget(interface)?;
        match fs::remove_file(path(interface)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

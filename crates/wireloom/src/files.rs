//! Files with keys in them: made new, or put in place of others, whole or not at all.
//!
//! A new file is readable by its owner only while it is written, and nothing that is there already is written to, be it a link. One that
//! takes another's place is written beside it (`NAME.tmp`) and synchronised before it is renamed: a full disk, a signal or a power cut leave the one or the
//! other. What a killed command left beside it is removed by the next, while the folder is locked.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner.
    Owner,
    /// Its owner, and the group of this number.
    Group(u32),
    /// All.
    All,
}

/// Makes a file that is not there yet.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`], or what else the system says; no part of the file is left then.
pub fn create(path: &Path, text: &[u8], readers: Readers) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let file = options.open(path)?;
    write(&file, text, readers).inspect_err(|_| {
        // Half a file is of no use to anybody; that it cannot be removed either, nobody needs to know on top.
        let _ = fs::remove_file(path);
    })
}

/// Puts a file in the place of what is there, if anything is.
///
/// # Errors
/// What the system says; what was there is as it was then.
pub fn replace(path: &Path, text: &[u8], readers: Readers) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let lock = File::open(folder)?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".tmp");
    let new = folder.join(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    create(&new, text, readers)?;
    fs::rename(&new, path).inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })?;
    // The name, too, is to survive a power cut.
    lock.sync_all()
}

fn write(mut file: &File, text: &[u8], readers: Readers) -> io::Result<()> {
    file.write_all(text)?;
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::Group(group) => {
            fchown(file, None, Some(group))?;
            0o640
        }
        Readers::All => 0o644,
    };
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Makes a folder for files with keys, if it is not there.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// The number of a group of this system.
pub fn group(name: &str) -> Option<u32> {
    let groups = fs::read_to_string(PathBuf::from("/etc/group")).ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_is_there_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a"), folder.path().join("b"));
        create(&file, b"one", Readers::Owner).unwrap();
        assert_eq!((mode(&file), fs::read(&file).unwrap()), (0o600, b"one".to_vec()));
        std::os::unix::fs::symlink(folder.path().join("c"), &link).unwrap();
        for path in [&file, &link] {
            let error = create(path, b"two", Readers::Owner).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        assert!(fs::read(&file).unwrap() == b"one" && !folder.path().join("c").exists());
    }

    #[test]
    fn a_file_takes_the_place_of_another_with_what_was_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wg0.conf");
        fs::write(&file, "old").unwrap();
        fs::write(folder.path().join("wg0.conf.tmp"), "left by somebody").unwrap();
        replace(&file, b"new", Readers::Group(rustix::process::getegid().as_raw())).unwrap();
        assert_eq!((mode(&file), fs::read(&file).unwrap()), (0o640, b"new".to_vec()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_leaves_what_was_there() {
        // Writing to it fails as on a full disk.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert!(write(&full, b"new", Readers::Owner).is_err());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wg0.conf");
        fs::write(&file, "old").unwrap();
        // A folder where the new file would be cannot be removed as a file, as little as written to.
        fs::create_dir(folder.path().join("wg0.conf.tmp")).unwrap();
        assert!(replace(&file, b"new", Readers::Owner).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"old");
    }
}

//! Files that are there whole or not at all.
//!
//! The text goes to a file beside it that nobody else can have made, which then takes the name: who may write to the folder can lay nothing in the way that
//! root would write through, and a run that is stopped in the middle keeps what it had.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes a file, at once or not at all.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As readable as any new file: the mask of the process takes off what it takes off.
    let open = Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().prefix(".wireloom-").permissions(open).tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The name is only kept once the folder is.
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_is_written_through_what_lies_there() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("run.json"), folder.path().join("other"));
        fs::write(&other, "kept").unwrap();
        for name in ["run.json", "run.json.part"] {
            symlink(&other, folder.path().join(name)).unwrap();
        }
        write(&path, "new").unwrap();
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), fs::read_to_string(&other).unwrap().as_str()),
            ("new", "kept")
        );
        assert!(!path.is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o600, 0o600);
        // And nothing else is left.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        assert!(write(&folder.path().join("none/run.json"), "new").is_err());
    }
}

//! Whether a network namespace is still somebody's.
//!
//! Journals go by the interface's name, and other namespaces have interfaces of that name, too. So each notes the namespace in which the command
//! was given. One of a namespace that is no more tells of nothing that could be taken back.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Whether there is still a namespace of this device and inode: one with a name or a process.
pub fn lives(home: (u64, u64)) -> bool {
    let is_it = |path: PathBuf| fs::metadata(path).is_ok_and(|about| (about.dev(), about.ino()) == home);
    let entries =
        |folder: &str| fs::read_dir(Path::new(folder)).into_iter().flatten().flatten().map(|entry| entry.path());
    // Our own is nearly always the one.
    is_it("/proc/thread-self/ns/net".into())
        || entries("/run/netns").any(is_it)
        || entries("/proc").map(|process| process.join("ns/net")).any(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quick::journal::numbers;
    use linux::netns;

    #[test]
    fn a_namespace_lives_as_long_as_somebody_is_in_it() {
        let here = numbers(netns::current().unwrap()).unwrap();
        assert!(lives(here));
        assert!(!lives((here.0, here.1.wrapping_add(1 << 40))));
    }
}

//! The names of routing tables, as iproute2 keeps them.

use std::fs;
use std::path::{Path, PathBuf};

use config::quick::{KernelTables, Tables};

/// Where they are: the administrator's come first.
const FOLDERS: [&str; 2] = ["/etc/iproute2", "/usr/share/iproute2"];

/// The names that this system knows.
pub struct SystemTables;

impl Tables for SystemTables {
    fn number(&self, name: &str) -> Option<u32> {
        let listed = FOLDERS.iter().flat_map(|folder| files(Path::new(folder)));
        listed
            .filter_map(|path| find(&fs::read_to_string(path).ok()?, name))
            .next()
            .or_else(|| KernelTables.number(name))
    }
}

/// `rt_tables`, and `*.conf` in `rt_tables.d`, in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut more: Vec<PathBuf> = fs::read_dir(folder.join("rt_tables.d"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    more.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    more.sort();
    more.insert(0, folder.join("rt_tables"));
    more
}

/// The number before a name, in lines of both; `#` begins a comment.
fn find(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let number = words.next()?;
        let number = match number.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        (words.next() == Some(name)).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found() {
        let text = "# reserved\n255 local\n254\tmain # the main one\n0x10 sixteen\nodd\n7\n";
        assert_eq!(find(text, "main"), Some(254));
        assert_eq!(find(text, "sixteen"), Some(16));
        assert_eq!(find(text, "reserved"), None);
        assert_eq!(find(text, "none"), None);
        assert_eq!(SystemTables.number("local"), Some(255));
        assert_eq!(SystemTables.number("no-such-table"), None);
    }
}

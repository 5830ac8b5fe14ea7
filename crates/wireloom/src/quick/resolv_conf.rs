//! `/etc/resolv.conf`, replaced while a tunnel is up, for machines on which nobody looks after it.
//!
//! What there is to remember is in the folder of the file itself, and so survives whatever happens to us: the former file, under its own inode, is kept as
//! `resolv.conf.before-IF`, and ours tells in its first line whose it is. A symbolic link is kept as the link that it is. The new file comes
//! into its place by a rename, and the former one comes back by another: at each moment there is one or the other, and what comes back is what was
//! there, with its time and its attributes.
//!
//! Where the file is a mount of its own, as in containers, it cannot be renamed: then its text is replaced, and brought back from a copy.
//!
//! Whoever has changed the file meanwhile wins: it stays as it is. If that was a tunnel brought up later, then what *it* will bring back is ours, and takes
//! over what we would have brought back.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file of this machine.
pub const FILE: &str = "/etc/resolv.conf";

/// How often one tunnel's file may have come over another's, when the file of before all of them is looked for.
const DEPTH: usize = 100;

/// What stands between the file's name and the interface's in the name of what was there before.
const BEFORE: &str = ".before-";

/// Why the file could not be replaced, or not be brought back.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ResolvConfError {
    #[error("cannot replace {}: {source}", path.display())]
    Replace { path: PathBuf, source: io::Error },
    #[error("cannot bring back {}: {source}", path.display())]
    Restore { path: PathBuf, source: io::Error },
}

/// A `resolv.conf` that is a tunnel's for a while.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResolvConf {
    path: PathBuf,
    /// Where the former file is kept.
    kept: PathBuf,
    interface: String,
    text: String,
}

impl ResolvConf {
    /// The file of this machine, or that of a network namespace's name, with these servers and search domains. Nothing is changed yet.
    pub fn new(interface: &str, netns: Option<&str>, servers: &[IpAddr], search: &[String]) -> ResolvConf {
        let (path, kept) = match netns {
            None => (FILE.into(), beside(Path::new(FILE), BEFORE, interface)),
            // Not next to it: `ip netns exec` takes whatever is in that folder for a file to put into /etc.
            Some(name) => (
                Path::new("/etc/netns").join(name).join("resolv.conf"),
                format!("/etc/netns/.{name}-resolv.conf{BEFORE}{interface}").into(),
            ),
        };
        let text = text(interface, servers, search);
        ResolvConf { path, kept, interface: interface.to_owned(), text }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts our file into its place.
    ///
    /// # Errors
    /// What the file system says; nothing has changed then.
    pub fn apply(&mut self) -> Result<(), ResolvConfError> {
        self.replace().map_err(|source| ResolvConfError::Replace { path: self.path.clone(), source })
    }

    /// Brings back what was there, unless somebody else has changed it meanwhile.
    ///
    /// # Errors
    /// What the file system says.
    pub fn undo(&self) -> Result<(), ResolvConfError> {
        self.restore().map_err(|source| ResolvConfError::Restore { path: self.path.clone(), source })
    }

    fn replace(&mut self) -> io::Result<()> {
        if let Some(folder) = self.path.parent()
            && !folder.exists()
        {
            let made: Vec<_> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
            fs::create_dir_all(folder)?;
            // For the last of the tunnels that have their file there, whichever that is.
            let names: String = made.iter().map(|folder| format!("{}\n", folder.display())).collect();
            fs::write(made_file(folder), names)?;
        }
        let result = self.keep().and_then(|renamed| if renamed { self.rename_over() } else { self.write_over() });
        if result.is_err() && !self.is_ours() {
            // What failed says more than that this could not be tidied up.
            let _ = fs::remove_file(&self.kept);
            self.remove_folder();
        }
        result
    }

    /// Keeps what is there. Says whether it can be replaced by a rename.
    fn keep(&self) -> io::Result<bool> {
        if self.is_ours() {
            // A machine that lost power, or a daemon that was killed, left it so: what was before us is kept already.
            return Ok(!is_mount(&self.path));
        }
        absent_is_fine(fs::remove_file(&self.kept))?;
        match fs::hard_link(&self.path, &self.kept) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            // A mount of its own; or a file system without hard links, where a copy serves as well.
            Err(_) => {
                fs::copy(&self.path, &self.kept)?;
                Ok(false)
            }
        }
    }

    fn rename_over(&self) -> io::Result<()> {
        let new = beside(&self.path, ".new-", &self.interface);
        absent_is_fine(fs::remove_file(&new))?;
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
            // Whatever our mask is: everybody resolves names.
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            file.write_all(self.text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
    }

    fn write_over(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).truncate(true).open(&self.path)?;
        file.write_all(self.text.as_bytes())?;
        file.sync_all()
    }

    fn restore(&self) -> io::Result<()> {
        let kept = fs::symlink_metadata(&self.kept);
        if !is_text(&self.path, &self.text) {
            return self.give_way(kept);
        }
        match kept {
            Ok(_) => match fs::rename(&self.kept, &self.path) {
                Err(error) if matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::CrossesDevices) => {
                    io::copy(
                        &mut File::open(&self.kept)?,
                        &mut OpenOptions::new().write(true).truncate(true).open(&self.path)?,
                    )?;
                    fs::remove_file(&self.kept)
                }
                result => result,
            },
            // There was none.
            Err(error) if error.kind() == ErrorKind::NotFound => fs::remove_file(&self.path),
            Err(error) => Err(error),
        }?;
        self.remove_folder();
        Ok(())
    }

    /// What is there is not ours: somebody else's, or what was there before.
    fn give_way(&self, kept: io::Result<fs::Metadata>) -> io::Result<()> {
        if let Some(heir) = self.heir()? {
            return match kept {
                Ok(_) => fs::rename(&self.kept, heir),
                Err(_) => fs::remove_file(heir),
            };
        }
        let Ok(kept) = kept else {
            return Ok(());
        };
        let untouched =
            fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == (kept.dev(), kept.ino()));
        if !untouched {
            eprintln!("wireloom: {} was changed by somebody else meanwhile, and stays as it is", self.path.display());
        }
        fs::remove_file(&self.kept)
    }

    /// What a tunnel that came later has kept of ours.
    fn heir(&self) -> io::Result<Option<PathBuf>> {
        let own = self.kept.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (Some(folder), Some(prefix)) = (self.kept.parent(), own.strip_suffix(&self.interface)) else {
            return Ok(None);
        };
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            entries => entries?,
        };
        let mut files = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        Ok(files.find(|entry| is_text(&entry.path(), &self.text)).map(|entry| entry.path()))
    }

    /// Whether this interface has made what is there, whatever it says otherwise.
    fn is_ours(&self) -> bool {
        let Some(first) = self.text.lines().next() else {
            return false;
        };
        is_file(&self.path) && fs::read_to_string(&self.path).is_ok_and(|text| text.lines().next() == Some(first))
    }

    fn remove_folder(&self) {
        let Some(folder) = self.path.parent() else { return };
        let Ok(made) = fs::read_to_string(made_file(folder)) else { return };
        if self.path.exists() {
            return;
        }
        // What others have put there meanwhile stays.
        let mut gone = fs::remove_dir(folder).is_ok();
        let _ = fs::remove_file(made_file(folder));
        for folder in made.lines().skip(1) {
            gone = gone && fs::remove_dir(folder).is_ok();
        }
    }
}

/// Brings back what was there before tunnels that are no more, as after a power cut: their servers would be asked in vain. `is_up` says whether an interface
/// still is one that `down` will see to.
///
/// # Errors
/// What the file system says.
pub fn bring_back_lost(path: &Path, is_up: impl Fn(&str) -> bool) -> Result<(), ResolvConfError> {
    for _ in 0..DEPTH {
        let text = if is_file(path) { fs::read_to_string(path).unwrap_or_default() } else { String::new() };
        let Some(interface) = maker(&text).filter(|interface| !is_up(interface)).map(str::to_owned) else { break };
        eprintln!(
            "wireloom: {interface} has left its name servers in {}: what was there before is brought back",
            path.display()
        );
        let kept = beside(path, BEFORE, &interface);
        ResolvConf { path: path.to_owned(), kept, interface, text }.undo()?;
    }
    Ok(())
}

/// The tunnel whose file this is, by its first line.
fn maker(text: &str) -> Option<&str> {
    let name = text.lines().next()?.strip_prefix(FIRST[0])?.strip_suffix(FIRST[1])?;
    (!name.is_empty() && !name.contains(['/', ' '])).then_some(name)
}

/// What the first line has around the interface's name.
const FIRST: [&str; 2] = ["# Made by `wireloom up`; `wireloom down ", "` brings back what was here."];

/// What the file says.
fn text(interface: &str, servers: &[IpAddr], search: &[String]) -> String {
    let mut text = format!("{}{interface}{}\n", FIRST[0], FIRST[1]);
    text.extend(servers.iter().map(|server| format!("nameserver {server}\n")));
    if !search.is_empty() {
        text += &format!("search {}\n", search.join(" "));
    }
    text
}

/// The name servers that a `resolv.conf` lists, read as the C library does: the address is the word after a `nameserver` at the start of a line.
pub fn servers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let rest = line.strip_prefix("nameserver")?;
        rest.starts_with([' ', '\t']).then(|| rest.split_whitespace().next())?
    })
}

/// Where it is noted which folders were made for a folder to be there, from the innermost.
fn made_file(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    folder.with_file_name(format!(".{name}-made"))
}

fn beside(path: &Path, between: &str, interface: &str) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(format!("{between}{interface}"));
    path.with_file_name(name)
}

/// Whether the path is a file, and no link to one.
fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
}

fn is_text(path: &Path, text: &str) -> bool {
    is_file(path) && fs::read(path).is_ok_and(|bytes| bytes == text.as_bytes())
}

/// Whether another file system is mounted there, or the same one once more: no name beside it can be given to what is mounted.
fn is_mount(path: &Path) -> bool {
    let probe = beside(path, ".new-", "mount");
    let linked = fs::hard_link(path, &probe);
    if linked.is_ok() {
        let _ = fs::remove_file(&probe);
    }
    linked.is_err_and(|error| error.kind() == ErrorKind::CrossesDevices)
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    /// A folder in the place of /etc.
    struct Etc(TempDir);

    impl Etc {
        fn new() -> Etc {
            Etc(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("resolv.conf")
        }

        fn tunnel(&self, interface: &str, server: &str) -> ResolvConf {
            let text = text(interface, &[server.parse().unwrap()], &[]);
            let kept = beside(&self.path(), BEFORE, interface);
            ResolvConf { path: self.path(), kept, interface: interface.to_owned(), text }
        }

        fn read(&self) -> String {
            fs::read_to_string(self.path()).unwrap()
        }

        /// All that is there: names, inodes and times.
        fn state(&self) -> Vec<(OsString, u64, i64, u32)> {
            let entries = fs::read_dir(self.0.path()).unwrap().flatten();
            let mut state: Vec<_> = entries
                .map(|entry| {
                    let meta = fs::symlink_metadata(entry.path()).unwrap();
                    (entry.file_name(), meta.ino(), meta.mtime_nsec(), meta.mode())
                })
                .collect();
            state.sort();
            state
        }
    }

    #[test]
    fn a_file_comes_back_as_the_very_same() {
        let etc = Etc::new();
        fs::write(etc.path(), "nameserver 192.0.2.1\n").unwrap();
        let before = etc.state();
        let mut tunnel = etc.tunnel("wg0", "10.0.0.53");
        tunnel.apply().unwrap();
        assert_eq!(servers(&etc.read()).collect::<Vec<_>>(), ["10.0.0.53"]);
        tunnel.undo().unwrap();
        assert_eq!(etc.state(), before);
        tunnel.undo().unwrap();
        assert_eq!(etc.state(), before, "undone twice");
    }

    #[test]
    fn none_becomes_none_again() {
        let etc = Etc::new();
        let mut tunnel = etc.tunnel("wg0", "10.0.0.53");
        tunnel.apply().unwrap();
        assert!(etc.path().exists());
        tunnel.undo().unwrap();
        assert_eq!(etc.state(), []);
    }

    #[test]
    fn a_link_stays_a_link() {
        for target in ["elsewhere", "nowhere/at/all"] {
            let etc = Etc::new();
            fs::write(etc.0.path().join("elsewhere"), "nameserver 192.0.2.1\n").unwrap();
            symlink(target, etc.path()).unwrap();
            let before = etc.state();
            let mut tunnel = etc.tunnel("wg0", "10.0.0.53");
            tunnel.apply().unwrap();
            assert!(is_file(&etc.path()));
            assert_eq!(fs::read_to_string(etc.0.path().join("elsewhere")).unwrap(), "nameserver 192.0.2.1\n");
            tunnel.undo().unwrap();
            assert_eq!(etc.state(), before);
            assert_eq!(fs::read_link(etc.path()).unwrap(), Path::new(target));
        }
    }

    #[test]
    fn who_changed_it_meanwhile_wins() {
        let etc = Etc::new();
        fs::write(etc.path(), "nameserver 192.0.2.1\n").unwrap();
        let mut tunnel = etc.tunnel("wg0", "10.0.0.53");
        tunnel.apply().unwrap();
        fs::write(etc.path(), "nameserver 192.0.2.2\n").unwrap();
        let theirs = etc.state().pop();
        tunnel.undo().unwrap();
        assert_eq!(etc.read(), "nameserver 192.0.2.2\n");
        assert_eq!(etc.state().len(), 1, "{theirs:?} alone");
    }

    #[test]
    fn tunnels_may_end_in_any_order() {
        for first_comes_first in [true, false] {
            for existed in [true, false] {
                let etc = Etc::new();
                if existed {
                    fs::write(etc.path(), "nameserver 192.0.2.1\n").unwrap();
                }
                let before = etc.state();
                let mut one = etc.tunnel("wg0", "10.0.0.53");
                let mut two = etc.tunnel("wg1", "10.0.1.53");
                one.apply().unwrap();
                two.apply().unwrap();
                let (first, last) = if first_comes_first { (&one, &two) } else { (&two, &one) };
                first.undo().unwrap();
                assert_eq!(etc.read(), last.text);
                last.undo().unwrap();
                assert_eq!(etc.state(), before);
            }
        }
    }

    #[test]
    fn one_that_was_killed_is_made_good_by_the_next() {
        for existed in [true, false] {
            let etc = Etc::new();
            if existed {
                fs::write(etc.path(), "nameserver 192.0.2.1\n").unwrap();
            }
            let before = etc.state();
            etc.tunnel("wg0", "10.0.0.53").apply().unwrap();
            // With other servers, and none the wiser.
            let mut next = etc.tunnel("wg0", "10.0.0.54");
            next.apply().unwrap();
            assert_eq!(servers(&etc.read()).collect::<Vec<_>>(), ["10.0.0.54"]);
            next.undo().unwrap();
            assert_eq!(etc.state(), before);
        }
    }

    #[test]
    fn what_a_power_cut_has_left_is_brought_back() {
        for existed in [true, false] {
            let etc = Etc::new();
            if existed {
                fs::write(etc.path(), "nameserver 192.0.2.1\n").unwrap();
            }
            let before = etc.state();
            etc.tunnel("wg0", "10.0.0.53").apply().unwrap();
            etc.tunnel("wg1", "10.0.1.53").apply().unwrap();
            let both = etc.state();
            bring_back_lost(&etc.path(), |_| true).unwrap();
            assert_eq!(etc.state(), both, "of tunnels that are up");
            bring_back_lost(&etc.path(), |_| false).unwrap();
            assert_eq!(etc.state(), before);
            bring_back_lost(&etc.path(), |_| false).unwrap();
            assert_eq!(etc.state(), before, "of nobody");
        }
    }

    #[test]
    fn a_folder_is_made_and_goes_again() {
        let etc = Etc::new();
        let mut tunnel = etc.tunnel("wg0", "10.0.0.53");
        tunnel.path = etc.0.path().join("space/resolv.conf");
        tunnel.apply().unwrap();
        assert!(tunnel.path.exists());
        tunnel.undo().unwrap();
        assert_eq!(etc.state(), []);
        // With the one above it, and for two, whichever ends first.
        for first_comes_first in [true, false] {
            let tunnels = ["wg0", "wg1"].map(|interface| {
                let mut tunnel = etc.tunnel(interface, if interface == "wg0" { "10.0.0.53" } else { "10.0.1.53" });
                tunnel.path = etc.0.path().join("netns/blue/resolv.conf");
                tunnel.kept = etc.0.path().join(format!("netns/.blue-resolv.conf.before-{interface}"));
                tunnel.apply().unwrap();
                tunnel
            });
            let [one, two] = &tunnels;
            let (first, last) = if first_comes_first { (one, two) } else { (two, one) };
            first.undo().unwrap();
            assert!(last.path.exists());
            last.undo().unwrap();
            assert_eq!(etc.state(), []);
        }
        // Nothing can be made in a file.
        tunnel.path = etc.0.path().join("file/resolv.conf");
        fs::write(etc.0.path().join("file"), "").unwrap();
        let before = etc.state();
        let text = tunnel.apply().unwrap_err().to_string();
        assert!(text.starts_with("cannot replace /") && text.contains("file/resolv.conf: "), "{text}");
        assert_eq!(etc.state(), before);
    }

    #[test]
    fn servers_are_read_as_the_c_library_does() {
        let text = "# nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver\t::1 more\n nameserver 192.0.2.3\nnameservers x\nnameserver\n";
        assert_eq!(servers(text).collect::<Vec<_>>(), ["192.0.2.2", "::1"]);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(?s).{0,300}") {
            prop_assert!(servers(&text).all(|server| !server.is_empty() && !server.contains(char::is_whitespace)));
        }

        #[test]
        fn what_we_write_is_read(addresses in proptest::collection::vec(any::<IpAddr>(), 0..5), search in proptest::collection::vec("[a-z.]{1,9}", 0..3)) {
            let text = text("wg0", &addresses, &search);
            let read: Vec<IpAddr> = servers(&text).map(|server| server.parse().unwrap()).collect();
            prop_assert_eq!(read, addresses);
        }
    }
}

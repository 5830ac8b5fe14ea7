//! A network namespace: one host of the lab.
//!
//! Names are `wl-PID-N` after the process that made them, so that parallel test processes never meet and a later process can
//! tell what a killed one has left. Handles are shared; the namespace goes with the last of them, together with whatever still
//! runs inside: all of that is ours, since nobody else knows the name.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::{LabError, run_checked};

/// Where `ip netns` keeps its names.
const FOLDER: &str = "/run/netns";

/// How the folders of [`scratch_folder`] begin, in the folder for temporary files.
const SCRATCH: &str = "wireloom-lab-";

/// How long an `ip` command may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// How often a namespace is deleted until it is gone, and how long between.
const REMOVALS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// `ip netns add` mounts its folder on first use, which two at once would both try.
static MAKING: Mutex<()> = Mutex::new(());

static SWEEP: Once = Once::new();

/// A network namespace, shared by its handles and deleted with the last.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
}

impl Namespace {
    /// Makes a namespace with its loopback up.
    ///
    /// # Errors
    /// [`LabError::NotRoot`], or what `ip` said.
    pub fn new() -> Result<Namespace, LabError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        require_root()?;
        SWEEP.call_once(sweep);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wl-{}-{n}", std::process::id());
        // Before it is there: a command that is stopped half way may have made it.
        let namespace = Namespace(Arc::new(Inner { name }));
        {
            let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
            run_checked(Command::new("ip").args(["netns", "add", namespace.name()]), LIMIT)?;
        }
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// A command that will run inside. It gets SIGTERM when the thread that starts it ends, so that even a killed test leaves no
    /// process: start long-lived ones from a thread that lives as long.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name()]).args(["setpriv", "--pdeathsig", "TERM"]).arg(program);
        command
    }

    /// Runs `ip ARGS` inside and takes what it prints.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn ip(&self, args: &[&str]) -> Result<String, LabError> {
        run_checked(Command::new("ip").args(["-n", self.name()]).args(args), LIMIT)
    }

    /// Runs a program inside to its end and takes what it prints.
    ///
    /// # Errors
    /// It failed, or took too long.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String, LabError> {
        run_checked(self.command(program).args(args), LIMIT)
    }

    /// Sets a sysctl of the namespace, given as a path below `/proc/sys`.
    ///
    /// # Errors
    /// The kernel does not have it or refuses the value.
    pub fn set_sysctl(&self, path: &str, value: &str) -> Result<(), LabError> {
        let script = format!("echo {value} > /proc/sys/{path}");
        self.run("sh", &["-c", &script]).map(drop)
    }

    /// Does something inside, in a thread of its own: sockets that it opens stay inside for as long as they live.
    ///
    /// # Errors
    /// The namespace cannot be entered, or what `f` says.
    pub fn inside<T: Send>(&self, f: impl FnOnce() -> std::io::Result<T> + Send) -> Result<T, LabError> {
        let enter = || -> std::io::Result<T> {
            let namespace = fs::File::open(Path::new(FOLDER).join(self.name()))?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            f()
        };
        let result = thread::scope(|scope| scope.spawn(enter).join());
        let panicked = || std::io::Error::other("it panicked");
        result.unwrap_or_else(|_| Err(panicked())).map_err(LabError::io(format!("inside {}", self.name())))
    }

    /// The ids of the processes that live inside.
    pub fn pids(&self) -> Vec<u32> {
        pids(self.name())
    }

    /// One counter of `/proc/net/{snmp,netstat,snmp6}` inside, such as `("snmp", "Ip", "FragCreates")`; snmp6 has no groups.
    ///
    /// # Errors
    /// [`LabError::Unreadable`] when there is no such counter.
    pub fn counter(&self, file: &str, group: &str, name: &str) -> Result<u64, LabError> {
        let text = self.run("cat", &[&format!("/proc/net/{file}")])?;
        find_counter(&text, group, name).ok_or(LabError::Unreadable {
            what: "a network counter",
            text: format!("/proc/net/{file}: {group} {name}"),
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Checks that we may make namespaces.
///
/// # Errors
/// [`LabError::NotRoot`].
pub fn require_root() -> Result<(), LabError> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(LabError::NotRoot) }
}

/// A folder for files of this process, which goes with its handle, or is swept when the process was killed.
pub(crate) fn scratch_folder(what: &str) -> Result<TempDir, LabError> {
    let prefix = format!("{SCRATCH}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().map_err(LabError::io(what))
}

/// Deletes the namespaces, control sockets and folders of processes of ours that are no more. Those of a living process stay.
pub fn sweep() {
    for name in names_in(FOLDER) {
        if owner(&name, "wl-", '-').is_some_and(is_gone) {
            remove(&name);
        }
    }
    for name in names_in("/var/run/wireguard") {
        if owner(&name, "wl", 'x').is_some_and(is_gone) {
            let _ = fs::remove_file(Path::new("/var/run/wireguard").join(name));
        }
    }
    let temporary = std::env::temp_dir();
    for name in names_in(&temporary) {
        if owner(&name, SCRATCH, '-').is_some_and(is_gone) {
            let _ = fs::remove_dir_all(temporary.join(name));
        }
    }
}

fn names_in(folder: impl AsRef<Path>) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The process id in a name such as `wl-PID-N`.
fn owner(name: &str, prefix: &str, separator: char) -> Option<u32> {
    let (pid, _) = name.strip_prefix(prefix)?.split_once(separator)?;
    pid.parse().ok()
}

fn is_gone(pid: u32) -> bool {
    !Path::new("/proc").join(pid.to_string()).exists()
}

fn pids(namespace: &str) -> Vec<u32> {
    run_quietly(&["netns", "pids", namespace]).lines().filter_map(|line| line.trim().parse().ok()).collect()
}

fn remove(namespace: &str) {
    for pid in pids(namespace) {
        if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    // A signal to all of our group may reach the command before it has left the group, and what was just killed inside may still hold the name.
    for _ in 0..REMOVALS {
        run_quietly(&["netns", "delete", namespace]);
        if !Path::new(FOLDER).join(namespace).exists() {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// `ip` for cleaning up: also while we are being interrupted, and with nobody to hear of a failure. In a process group of its own, since the
/// terminal sends a second Ctrl-C to all of ours.
fn run_quietly(args: &[&str]) -> String {
    Command::new("ip")
        .args(args)
        .process_group(0)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

/// Finds a counter in the two-line form (`Ip: names`, `Ip: values`) or in the plain one (`name value`).
fn find_counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut words = line.split_whitespace();
        let first = words.next()?;
        if first == name {
            return words.next()?.parse().ok();
        }
        if first.strip_suffix(':') == Some(group) {
            let values = lines.next()?;
            if let Some(at) = words.position(|word| word == name) {
                return values.split_whitespace().nth(at + 1)?.parse().ok();
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms_of_counters() {
        let snmp = "Ip: Forwarding FragCreates\nIp: 1 7\nUdp: InDatagrams\nUdp: 9\n";
        assert_eq!(find_counter(snmp, "Ip", "FragCreates"), Some(7));
        assert_eq!(find_counter(snmp, "Udp", "InDatagrams"), Some(9));
        assert_eq!(find_counter(snmp, "Udp", "FragCreates"), None);
        assert_eq!(find_counter("Ip6FragCreates   \t3\n", "", "Ip6FragCreates"), Some(3));
    }

    #[test]
    fn knows_whose_a_name_is() {
        assert_eq!(owner("wl-123-4", "wl-", '-'), Some(123));
        assert_eq!(owner("wl123x4.sock", "wl", 'x'), Some(123));
        assert_eq!(owner("wlan0", "wl", 'x'), None);
        assert_eq!(owner("other", "wl-", '-'), None);
        assert!(!is_gone(std::process::id()));
    }
}

//! What a service asks, and whom: systemd, whether it is to be started again; the daemon, whether it is well; this program, to look at the file
//! again.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use linux::unix;

use super::keeper::end_child;
use super::this_program;

/// How long systemd may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether we were told to end in order to be started again. Where nobody can say, we were not.
pub fn is_restart() -> bool {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(unit) = unit_of(&groups) else { return false };
    let mut command = Command::new("systemctl");
    command.args(["list-jobs", "--plain", "--no-legend", "--no-pager", unit]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else { return false };
    let start = Instant::now();
    while let Ok(None) = child.try_wait() {
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut jobs = String::new();
    let read = child.stdout.take().map(|mut stdout| stdout.read_to_string(&mut jobs));
    read.is_some_and(|read| read.is_ok()) && will_start(&jobs, unit)
}

/// The service that a process belongs to, by its `/proc/PID/cgroup`.
fn unit_of(groups: &str) -> Option<&str> {
    // Each line is NUMBER:CONTROLLERS:PATH.
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.filter_map(|path| path.rsplit('/').next()).find(|part| part.ends_with(".service"))
}

/// Whether one of these jobs, as `systemctl list-jobs` prints them, will start the unit when it has stopped.
fn will_start(jobs: &str, unit: &str) -> bool {
    let mut jobs = jobs.lines().map(|line| line.split_whitespace().skip(1));
    jobs.any(|mut job| job.next() == Some(unit) && matches!(job.next(), Some("restart" | "try-restart")))
}

/// Whether the daemon answers a request within this time. It changes nothing, but takes all locks that a change does.
pub fn answers(interface: &str, within: Duration) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(unix::socket_path(interface))?;
        stream.set_read_timeout(Some(within))?;
        stream.set_write_timeout(Some(within))?;
        stream.write_all(b"set=1\n\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"errno=0")
    };
    ask().unwrap_or(false)
}

/// `wireloom reload` beside us: names that have to be resolved may take it as long as they like. What goes wrong it tells itself.
#[derive(Default)]
pub struct Reload(Option<Child>);

impl Reload {
    /// Applies what differs between the file and the interface.
    pub fn start(&mut self, what: &str) {
        self.end();
        match this_program().args(["reload", what]).stdin(Stdio::null()).spawn() {
            Ok(child) => self.0 = Some(child),
            Err(error) => eprintln!("wireloom: cannot look at the file again: {error}"),
        }
    }

    /// Ends one that is still at it.
    fn end(&mut self) {
        if let Some(child) = self.0.take() {
            end_child(child);
        }
    }
}

impl Drop for Reload {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_last_part_of_the_path() {
        let both = "1:name=systemd:/system.slice/system-wireloom.slice/wireloom@wg0.service\n0::/\n";
        assert_eq!(unit_of(both), Some("wireloom@wg0.service"));
        let template = r"0::/system.slice/system-wireloom.slice/wireloom@my\x2dvpn.service";
        assert_eq!(unit_of(template), Some(r"wireloom@my\x2dvpn.service"));
        for none in ["0::/user.slice/user-0.slice/session-1.scope\n", "0::/\n", "", "0:x"] {
            assert_eq!(unit_of(none), None, "{none}");
        }
    }

    #[test]
    fn a_restart_is_told_from_a_stop() {
        let jobs = "123 wireloom@wg0.service restart running\n124 other.service stop waiting\n";
        assert!(will_start(jobs, "wireloom@wg0.service"));
        assert!(!will_start(jobs, "other.service"));
        assert!(!will_start("No jobs running.\n", "wireloom@wg0.service"));
        assert!(!will_start("1 wireloom@wg0.service stop running\n", "wireloom@wg0.service"));
    }
}

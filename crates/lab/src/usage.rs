//! What a process and the machine have used: CPU time and memory, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::{LabError, run_checked};

/// Clock ticks per second in `/proc`.
static TICKS: LazyLock<u64> = LazyLock::new(|| {
    run_checked(Command::new("getconf").arg("CLK_TCK"), Duration::from_secs(30))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .filter(|&ticks| ticks > 0)
        .unwrap_or(100)
});

/// The CPU time, user and system, that all threads of a process have used.
///
/// # Errors
/// There is no such process.
pub fn process_cpu(pid: u32) -> Result<Duration, LabError> {
    let text = read(&format!("/proc/{pid}/stat"))?;
    parse_process_cpu(&text).map(from_ticks).ok_or(LabError::Unreadable { what: "the CPU time of a process", text })
}

/// The CPU time that the whole machine has not spent idling since it started, over all its processors.
///
/// Taken as what is left over from the idle time, which the kernel measures: what it counts as busy it only samples, at each
/// tick, and a virtual machine misses ticks. What the hypervisor took away counts as busy.
///
/// # Errors
/// `/proc/stat` or `/proc/uptime` cannot be read.
pub fn machine_cpu() -> Result<Duration, LabError> {
    let uptime = read("/proc/uptime")?;
    let stat = read("/proc/stat")?;
    parse_machine_cpu(&uptime, &stat, *TICKS)
        .ok_or(LabError::Unreadable { what: "the CPU time of the machine", text: format!("{uptime}{stat}") })
}

/// The time that each processor has idled since the machine started.
///
/// # Errors
/// `/proc/stat` cannot be read.
pub fn idle() -> Result<Vec<Duration>, LabError> {
    let text = read("/proc/stat")?;
    match parse_idle(&text) {
        Some(idle) if !idle.is_empty() => Ok(idle.into_iter().map(from_ticks).collect()),
        _ => Err(LabError::Unreadable { what: "the idle time of processors", text }),
    }
}

/// A span of time in which processors are watched.
pub struct Window {
    began: Instant,
    idle: Vec<Duration>,
}

impl Window {
    /// From here.
    ///
    /// # Errors
    /// As [`idle`].
    pub fn open() -> Result<Window, LabError> {
        Ok(Window { idle: idle()?, began: Instant::now() })
    }

    /// To here: the busy share of each processor.
    ///
    /// # Errors
    /// As [`idle`].
    pub fn close(self) -> Result<Vec<f64>, LabError> {
        let (now, elapsed) = (idle()?, self.began.elapsed().as_secs_f64().max(1e-9));
        let each = now.iter().zip(&self.idle);
        Ok(each.map(|(after, before)| share(after.saturating_sub(*before).as_secs_f64(), elapsed)).collect())
    }
}

/// Idle times are counted in hundredths of a second, so that one may seem longer than the span that it is from.
fn share(idle: f64, elapsed: f64) -> f64 {
    (1.0 - idle / elapsed).clamp(0.0, 1.0)
}

/// The resident memory of a process in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// At its highest.
    pub peak: u64,
}

/// Reads the resident memory of a process.
///
/// # Errors
/// There is no such process.
pub fn memory(pid: u32) -> Result<Memory, LabError> {
    let text = read(&format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    match (field("VmRSS:"), field("VmHWM:")) {
        (Some(resident), Some(peak)) => Ok(Memory { resident, peak }),
        _ => Err(LabError::Unreadable { what: "the memory of a process", text }),
    }
}

/// The memory of a process in KiB, of what it shares with others only its part; all that is resident, where the kernel does not tell that.
///
/// # Errors
/// There is no such process.
pub fn proportional(pid: u32) -> Result<u64, LabError> {
    let told = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok().and_then(|text| parse_proportional(&text));
    told.map_or_else(|| Ok(memory(pid)?.resident), Ok)
}

/// What the kernel holds for the BPF maps that these processes have open, in KiB: each once, however many have it.
pub fn maps(pids: &[u32]) -> u64 {
    let mut found = BTreeMap::new();
    for pid in pids {
        let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
        found.extend(entries.filter_map(|entry| parse_map(&fs::read_to_string(entry.path()).ok()?)));
    }
    found.values().sum::<u64>() / 1024
}

/// How often the threads of a process have gone to sleep so far: an idle one does not, because it sleeps already.
///
/// # Errors
/// There is no such process.
pub fn sleeps(pid: u32) -> Result<u64, LabError> {
    let folder = format!("/proc/{pid}/task");
    let mut sum = 0;
    for task in fs::read_dir(&folder).map_err(LabError::io(&folder))?.flatten() {
        let text = read(&task.path().join("status").to_string_lossy())?;
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
            .and_then(|count| count.trim().parse::<u64>().ok());
        sum += count.ok_or(LabError::Unreadable { what: "the context switches of a thread", text })?;
    }
    Ok(sum)
}

fn read(path: &str) -> Result<String, LabError> {
    fs::read_to_string(path).map_err(LabError::io(path))
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / *TICKS)
}

/// utime + stime. The command name, which may hold anything, is in parentheses: counting starts after the last one.
fn parse_process_cpu(text: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The time since the start, once for each processor, less what they idled (and idled waiting for a disk).
fn parse_machine_cpu(uptime: &str, stat: &str, ticks: u64) -> Option<Duration> {
    let up: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let mut lines = stat.lines();
    let fields: Vec<u64> =
        lines.next()?.strip_prefix("cpu ")?.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let [_user, _nice, _system, idle, iowait, ..] = fields[..] else {
        return None;
    };
    let processors = lines.take_while(|line| line.starts_with("cpu")).count();
    let idle = (idle + iowait) as f64 / ticks as f64;
    Duration::try_from_secs_f64((up * processors as f64 - idle).max(0.0)).ok()
}

fn parse_proportional(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The number of a map, and its bytes.
fn parse_map(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok();
    Some((field("map_id:")?, field("memlock:")?))
}

/// What each processor idled, and idled waiting for a disk, in ticks.
fn parse_idle(stat: &str) -> Option<Vec<u64>> {
    let lines = stat.lines().skip(1).take_while(|line| line.starts_with("cpu"));
    lines
        .map(|line| {
            let mut fields = line.split_whitespace().skip(4);
            let (idle, waiting): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            Some(idle + waiting)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cpu_times() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 23 0 0 20";
        assert_eq!(parse_process_cpu(stat), Some(123));
        let lines = "cpu  1 2 4 300 50 8 16 5 0 0\ncpu0 1\ncpu1 1\nintr 5\n";
        let busy = parse_machine_cpu("10.25 3.00\n", lines, 100);
        assert_eq!(busy, Some(Duration::from_millis(17_000)));
        assert_eq!(parse_machine_cpu("10.25 3.00\n", "intr 5\n", 100), None);
        let lines = "cpu  1 2 4 300 50 8\ncpu0 1 1 2 100 20 4\ncpu1 0 1 2 200 30 4\nintr 5\n";
        assert_eq!(parse_idle(lines), Some(vec![120, 230]));
        assert_eq!(parse_idle("cpu 1\ncpu0 1\n"), None);
    }

    #[test]
    fn reads_what_is_shared() {
        assert_eq!(parse_proportional("55d0-7ff0 ---p 0 00:00 0 [rollup]\nRss:  900 kB\nPss:   512 kB\n"), Some(512));
        assert_eq!(parse_map("pos:\t0\nmap_type:\t2\nmemlock:\t8192\nmap_id:\t17\n"), Some((17, 8192)));
        assert_eq!(parse_map("pos:\t0\nmemlock:\t8192\nprog_id:\t3\n"), None);
        assert!(proportional(std::process::id()).unwrap() > 100);
    }

    #[test]
    fn knows_this_process() {
        let pid = std::process::id();
        let memory = memory(pid).unwrap();
        assert!(memory.resident > 100 && memory.peak >= memory.resident);
        process_cpu(pid).unwrap();
        machine_cpu().unwrap();
        assert!(!idle().unwrap().is_empty());
        sleeps(pid).unwrap();
    }

    #[test]
    fn shares_stay_within_their_bounds() {
        assert_eq!([share(0.25, 1.0), share(1.01, 1.0), share(0.0, 1.0)], [0.75, 0.0, 1.0]);
    }

    #[test]
    fn this_machine_has_processors_to_watch() {
        let window = Window::open().unwrap();
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        let busy = window.close().unwrap();
        // On a machine with much else to do, this thread may have waited; then something else was busy.
        assert!(!busy.is_empty() && busy.iter().sum::<f64>() > 0.2, "{busy:?}");
    }
}

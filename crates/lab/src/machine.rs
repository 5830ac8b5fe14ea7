//! The machine that is measured on: what it is, and whether it has anything else to do.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use evaluation::Machine;

use crate::interrupt::stopped;
use crate::{LabError, run, usage};

/// The instructions that cryptography makes a difference by, as `/proc/cpuinfo` calls them; and `hypervisor`, which says that the
/// processors may be somebody else's at times.
const FEATURES: [&str; 6] = ["avx2", "avx512f", "avx512ifma", "aes", "sha_ni", "hypervisor"];

/// How long it is watched for other work, and how many busy processors are worth a warning.
const WATCH: Duration = Duration::from_millis(250);
const BUSY: f64 = 0.25;

/// What the figures depend on.
pub fn describe() -> Machine {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |line: &str| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok();
    let read = |path: &str| fs::read_to_string(Path::new(path)).unwrap_or_default();
    let release = read("/etc/os-release");
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or_default();
    Machine {
        cpu: field(&cpu, "model name").unwrap_or("unknown").to_owned(),
        processors: thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        features: features(&cpu).into_iter().map(str::to_owned).collect(),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        memory: memory.lines().find_map(kib).unwrap_or_default() * 1024,
        arch: env::consts::ARCH.to_owned(),
        distribution: name.trim_matches('"').to_owned(),
        virtualisation: virtualisation(),
        governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").trim().to_owned(),
    }
}

/// How many processors are busy while we do nothing, and what to say of it where that is too many.
///
/// # Errors
/// The kernel does not tell.
pub fn others() -> Result<(f64, Option<String>), LabError> {
    let busy = look()?;
    Ok((busy, warning(busy)))
}

/// The numbers of the processors that we may run on, as the kernel counts them; all that there are, where it does not say.
pub fn allowed() -> Vec<usize> {
    let count = || thread::available_parallelism().map_or(1, |count| count.get());
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|number| set.is_set(*number)).collect(),
        Err(_) => (0..count()).collect(),
    }
}

/// Whether so many busy processors spoil what is measured beside them.
pub fn is_busy(busy: f64) -> bool {
    busy > BUSY
}

/// How many processors something else keeps busy, where that is enough to spoil figures. What goes on only for a moment, such as the end of
/// what was measured last, is waited for.
///
/// # Errors
/// The kernel does not tell, or the wish to stop.
pub fn disturbed() -> Result<Option<f64>, LabError> {
    let mut least = f64::INFINITY;
    for _ in 0..4 {
        if let Some(why) = stopped() {
            return Err(why);
        }
        least = least.min(look()?);
        if !is_busy(least) {
            return Ok(None);
        }
    }
    Ok(Some(least))
}

/// How many processors are busy for a while.
fn look() -> Result<f64, LabError> {
    let (before, began) = (usage::machine_cpu()?, Instant::now());
    thread::sleep(WATCH);
    Ok((usage::machine_cpu()?.saturating_sub(before)).as_secs_f64() / began.elapsed().as_secs_f64())
}

fn warning(busy: f64) -> Option<String> {
    is_busy(busy).then(|| format!("something else keeps {busy:.1} processors busy"))
}

/// What systemd knows of it, where there is systemd.
fn virtualisation() -> String {
    let said = run(Command::new("systemd-detect-virt").arg("--vm"), Duration::from_secs(5));
    let name = said.map(|finished| finished.stdout.trim().to_owned()).unwrap_or_default();
    if name == "none" { String::new() } else { name }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(": ")?.1)
}

fn features(cpu: &str) -> Vec<&'static str> {
    let all: Vec<_> = field(cpu, "flags").unwrap_or_default().split(' ').collect();
    FEATURES.into_iter().filter(|feature| all.contains(feature)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_it_reads() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 1 GHz\nflags\t\t: fpu avx2 avx512ifma avx512_bf16\n";
        assert_eq!(field(text, "model name"), Some("A CPU @ 1 GHz"));
        assert_eq!(features(text), ["avx2", "avx512ifma"]);
        assert_eq!(features(""), [""; 0]);
    }

    #[test]
    fn knows_where_it_may_run() {
        let allowed = allowed();
        assert!(!allowed.is_empty() && allowed.len() <= usage::idle().unwrap().len(), "{allowed:?}");
    }

    #[test]
    fn describes_this_one() {
        let machine = describe();
        assert!(machine.processors >= 1 && machine.memory > 1 << 20, "{machine:?}");
        assert!(machine.line().contains("Linux ") && !machine.kernel.is_empty(), "{}", machine.line());
    }

    #[test]
    fn warns_of_a_busy_machine() {
        assert_eq!(warning(0.1), None);
        assert!(warning(1.0).unwrap().contains("1.0 processors"));
        assert!(others().unwrap().0 >= 0.0);
    }
}

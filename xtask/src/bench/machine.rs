//! The machine that is measured on: what it is, and whether it has anything else to do.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs, thread};

use lab::{LabError, run_checked, usage};
use serde_json::{Value, json};

/// The instructions that cryptography makes a difference by, as `/proc/cpuinfo` calls them; and `hypervisor`, which says that the
/// processors may be somebody else's at times.
const FLAGS: [&str; 6] = ["avx2", "avx512f", "avx512ifma", "aes", "sha_ni", "hypervisor"];

/// How long it is watched for other work, and how many busy processors are worth a warning.
const WATCH: Duration = Duration::from_millis(400);
const BUSY: f64 = 0.25;

/// What the figures depend on.
pub fn describe() -> Value {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let governor = Path::new("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |line: &str| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<f64>().ok();
    json!({
        "cpu": field(&cpu, "model name").unwrap_or("unknown"),
        "cores": thread::available_parallelism().map_or(1, |count| count.get()),
        "flags": flags(&cpu),
        "governor": fs::read_to_string(governor).ok().map(|text| text.trim().to_owned()),
        "memory_gib": memory.lines().find_map(kib).map(|kib| (kib / 1024.0 / 1024.0).round()),
        "arch": env::consts::ARCH,
        "kernel": said(Command::new("uname").arg("-r")),
    })
}

/// The same in one line.
pub fn line(machine: &Value) -> String {
    let flags: Vec<_> = machine["flags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!(
        "{}, {} processors ({}), {} GiB, Linux {} on {}, governor {}",
        machine["cpu"].as_str().unwrap_or("unknown"),
        machine["cores"],
        flags.join(" "),
        machine["memory_gib"],
        machine["kernel"].as_str().unwrap_or("unknown"),
        machine["arch"].as_str().unwrap_or("unknown"),
        machine["governor"].as_str().unwrap_or("not to be seen"),
    )
}

/// Now, in UTC, as it stands in names of files.
pub fn now() -> String {
    said(Command::new("date").args(["-u", "+%Y%m%dT%H%M%SZ"]))
}

/// How many processors are busy while we do nothing, and what to say of it where that is too many.
///
/// # Errors
/// The kernel does not tell.
pub fn others() -> Result<(f64, Option<String>), LabError> {
    let before = usage::machine_cpu()?;
    thread::sleep(WATCH);
    let busy = (usage::machine_cpu()?.saturating_sub(before)).as_secs_f64() / WATCH.as_secs_f64();
    Ok((busy, warning(busy)))
}

/// Whether so many busy processors spoil what is measured beside them.
pub fn is_busy(busy: f64) -> bool {
    busy > BUSY
}

fn warning(busy: f64) -> Option<String> {
    is_busy(busy).then(|| format!("something else keeps {busy:.1} processors busy"))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(": ")?.1)
}

fn flags(cpu: &str) -> Vec<&'static str> {
    let all: Vec<_> = field(cpu, "flags").unwrap_or_default().split(' ').collect();
    FLAGS.into_iter().filter(|flag| all.contains(flag)).collect()
}

/// What a small command says; nothing, if it cannot.
fn said(command: &mut Command) -> String {
    run_checked(command, Duration::from_secs(5)).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_it_reads() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 1 GHz\nflags\t\t: fpu avx2 avx512ifma avx512_bf16\n";
        assert_eq!(field(text, "model name"), Some("A CPU @ 1 GHz"));
        assert_eq!(flags(text), ["avx2", "avx512ifma"]);
        assert_eq!(flags(""), [""; 0]);
    }

    #[test]
    fn describes_this_one() {
        let machine = describe();
        assert!(machine["cores"].as_u64().unwrap() >= 1);
        assert!(line(&machine).contains("Linux "), "{}", line(&machine));
        assert_eq!(now().len(), "20261121T120000Z".len());
    }

    #[test]
    fn warns_of_a_busy_machine() {
        assert_eq!(warning(0.1), None);
        assert!(warning(1.0).unwrap().contains("1.0 processors"));
        assert!(others().unwrap().0 >= 0.0);
    }
}

//! The machine that is measured on, as the files of the benchmarks have it: `lab::machine` knows it.

use std::process::Command;
use std::time::Duration;

use lab::run_checked;
use serde_json::{Value, json};

pub use lab::machine::{is_busy, others};

/// What the figures depend on.
pub fn describe() -> Value {
    let it = lab::machine::describe();
    json!({
        "cpu": it.cpu,
        "cores": it.processors,
        "flags": it.features,
        "governor": (!it.governor.is_empty()).then_some(it.governor),
        "memory_gib": (it.memory as f64 / f64::from(1 << 30)).round(),
        "arch": it.arch,
        "kernel": it.kernel,
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
    let said = run_checked(Command::new("date").args(["-u", "+%Y%m%dT%H%M%SZ"]), Duration::from_secs(5));
    said.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_this_one() {
        let machine = describe();
        assert!(machine["cores"].as_u64().unwrap() >= 1);
        assert!(line(&machine).contains("Linux "), "{}", line(&machine));
        assert_eq!(now().len(), "20261121T120000Z".len());
    }
}

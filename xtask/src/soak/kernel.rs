//! What is in the kernel of eBPF: maps and programs, by their ids, as `bpftool` lists them.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::{LabError, run_checked};
use serde_json::Value;

/// How long what has no user any more may take to go.
const LIMIT: Duration = Duration::from_secs(10);

/// All there are: kind and id, and how a person knows them.
pub type Objects = BTreeMap<(&'static str, u64), String>;

/// Lists them.
///
/// # Errors
/// `bpftool` is missing or says nothing readable.
pub fn objects() -> Result<Objects, LabError> {
    let mut objects = Objects::new();
    for kind in ["map", "prog", "link"] {
        let text = run_checked(Command::new("bpftool").args(["-j", kind, "show"]), Duration::from_secs(30))?;
        let unreadable = || LabError::Unreadable { what: "the list of bpftool", text: text.clone() };
        let list: Value = serde_json::from_str(&text).map_err(|_| unreadable())?;
        for object in list.as_array().ok_or_else(unreadable)? {
            let id = object["id"].as_u64().ok_or_else(unreadable)?;
            let name = object["name"].as_str().or(object["type"].as_str()).unwrap_or_default();
            objects.insert((kind, id), format!("{kind} {id} ({name})"));
        }
    }
    Ok(objects)
}

/// Waits until nothing is there that was not `before`; what is there nevertheless, after a while.
///
/// # Errors
/// As [`objects`].
pub fn wait_for_end(before: &Objects) -> Result<Vec<String>, LabError> {
    let start = Instant::now();
    let mut new = objects()?;
    new.retain(|id, _| !before.contains_key(id));
    loop {
        // `bpftool` itself loads something each time, which is another one each time.
        let now = objects()?;
        new.retain(|id, _| now.contains_key(id));
        if new.is_empty() || start.elapsed() > LIMIT {
            return Ok(new.into_values().collect());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

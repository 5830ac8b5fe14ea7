//! A table of figures of several kinds, which grows while it is measured: a row for each that is told, a column for each system.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::cargo::target_folder;
use crate::error::Failure;

/// What was measured, by what it is and of whom.
#[derive(Default)]
pub struct Figures(Vec<(String, BTreeMap<&'static str, String>)>);

impl Figures {
    /// Says a figure, and keeps it.
    pub fn enter(&mut self, system: &'static str, what: impl Into<String>, value: String) {
        let what = what.into();
        println!("    {system}: {what}: {value}");
        match self.0.iter_mut().find(|(name, _)| *name == what) {
            Some((_, values)) => drop(values.insert(system, value)),
            None => self.0.push((what, BTreeMap::from([(system, value)]))),
        }
    }

    /// The table, with these systems as columns.
    pub fn markdown(&self, systems: &[&'static str]) -> String {
        let mut out = format!("| | {} |\n|---|{}\n", systems.join(" | "), "--:|".repeat(systems.len()));
        for (what, values) in &self.0 {
            let cells: Vec<_> = systems.iter().map(|system| values.get(system).map_or("–", String::as_str)).collect();
            // Writing to a string cannot fail.
            let _ = writeln!(out, "| {what} | {} |", cells.join(" | "));
        }
        out
    }

    /// Writes them to `target/bench/NAME.json`, with the machine that they are of, and says so.
    pub fn save(self, name: &str, peers: u32) -> Result<(), Failure> {
        let folder = target_folder()?.join("bench");
        fs::create_dir_all(&folder).map_err(Failure::io(folder.display().to_string()))?;
        let path = folder.join(format!("{name}.json"));
        let figures: BTreeMap<_, _> = self.0.into_iter().collect();
        let document = json!({ "machine": super::machine::describe(), "peers": peers, "figures": figures });
        fs::write(&path, format!("{document:#}\n")).map_err(Failure::io(path.display().to_string()))?;
        println!("The numbers are in {}", path.display());
        Ok(())
    }
}

/// A time as it stands in a table.
pub fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Memory as it stands in a table, given in KiB.
pub fn mib(kib: u64) -> String {
    format!("{:.0} MiB", kib as f64 / 1024.0)
}

//! What was measured, as a table for people and as JSON for everything else.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use lab::{Gso, System, run_checked};
use serde_json::{Value, json};

use super::measure::Plan;
use super::net::Subject;
use crate::cargo::target_folder;
use crate::error::Failure;

/// The columns: heading, the metrics in it, and how many digits they get after the point.
const COLUMNS: [(&str, &[&str], usize); 8] = [
    ("TCP 1 / 4 / 8 streams, Gb/s", &["tcp1_gbps", "tcp4_gbps", "tcp8_gbps"], 2),
    ("CPU-s/GB, machine / daemons", &["cpu_s_per_gb", "daemon_s_per_gb"], 2),
    ("UDP 64 B clean, kpps", &["udp64_clean_kpps"], 0),
    ("flood, sent / arrived", &["udp64_sent_kpps", "udp64_flood_kpps"], 0),
    ("UDP 1300 B clean, flood arrived, kpps", &["udp1300_clean_kpps", "udp1300_flood_kpps"], 0),
    ("RTT p50 / p99, µs", &["idle_p50_us", "idle_p99_us"], 0),
    ("under load", &["loaded_p50_us", "loaded_p99_us"], 0),
    ("RSS, MiB", &["rss_mib"], 1),
];

/// Metrics of which the ratio to boringtun is stated.
const RATIOS: [(&str, &str); 5] = [
    ("tcp1_gbps", "TCP, one stream"),
    ("tcp8_gbps", "TCP, eight streams"),
    ("cpu_s_per_gb", "CPU time of the machine per GB"),
    ("udp64_clean_kpps", "UDP 64 B, clean"),
    ("loaded_p50_us", "round trip under load"),
];

/// What one pass found, by metric.
pub struct Sample {
    system: &'static str,
    link: &'static str,
    run: u32,
    values: BTreeMap<&'static str, f64>,
    /// Measurements that could not be taken.
    pub failures: usize,
}

impl Sample {
    /// An empty one.
    pub fn new(system: &'static str, link: &'static str, run: u32) -> Sample {
        Sample { system, link, run, values: BTreeMap::new(), failures: 0 }
    }

    /// Enters a value, if there is one.
    pub fn enter(&mut self, metric: &'static str, value: Option<f64>) {
        if let Some(value) = value {
            self.values.insert(metric, value);
        }
    }

    /// Enters a value unless a larger one is there.
    pub fn enter_larger(&mut self, metric: &'static str, value: f64) {
        let entry = self.values.entry(metric).or_insert(value);
        *entry = entry.max(value);
    }

    /// A line of progress.
    pub fn line(&self) -> String {
        let cells = COLUMNS
            .iter()
            .map(|(heading, metrics, digits)| format!("{heading}: {}", cell(&self.values, metrics, *digits)));
        cells.collect::<Vec<_>>().join("; ")
    }

    fn json(&self) -> Value {
        json!({
            "system": self.system,
            "link": self.link,
            "run": self.run,
            "failures": self.failures,
            "values": self.values,
        })
    }
}

/// Everything that was measured, and on what.
pub struct Report {
    machine: Value,
    settings: Value,
    versions: Vec<(&'static str, String)>,
    systems: Vec<&'static str>,
    links: Vec<&'static str>,
    samples: Vec<Sample>,
}

impl Report {
    /// Gathers what there is to say besides the samples.
    pub fn new(
        ours: &System,
        subjects: &[Subject],
        links: &[Gso],
        plan: &Plan,
        runs: u32,
        samples: Vec<Sample>,
    ) -> Report {
        let versions = subjects
            .iter()
            .filter_map(|subject| {
                let version = subject.system(ours)?.version().ok()?;
                Some((subject.name(), version))
            })
            .collect();
        Report {
            machine: machine(),
            settings: json!({
                "runs": runs,
                "tcp_seconds": plan.seconds,
                "flood_seconds": plan.flood,
                "pings": plan.pings,
                "mtu": 1420,
                "congestion_control": "cubic",
            }),
            versions,
            systems: subjects.iter().map(|subject| subject.name()).collect(),
            links: links.iter().map(|gso| gso.name()).collect(),
            samples,
        }
    }

    /// The median of a metric over the runs.
    fn medians(&self, link: &str, system: &str) -> BTreeMap<&'static str, f64> {
        let mut lists: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        for sample in &self.samples {
            if sample.link == link && sample.system == system {
                for (&metric, &value) in &sample.values {
                    lists.entry(metric).or_default().push(value);
                }
            }
        }
        lists.into_iter().filter_map(|(metric, list)| Some((metric, median(list)?))).collect()
    }

    /// Ours divided by boringtun's, metric by metric.
    fn ratios(&self, link: &str) -> BTreeMap<&'static str, f64> {
        let ours = self.medians(link, Subject::Wireloom.name());
        let theirs = self.medians(link, Subject::Boringtun.name());
        RATIOS
            .iter()
            .filter_map(|&(metric, _)| {
                let (ours, theirs) = (ours.get(metric)?, theirs.get(metric)?);
                (*theirs > 0.0).then(|| (metric, ours / theirs))
            })
            .collect()
    }

    /// One table for each link, and the ratios.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        for &link in &self.links {
            let title = match link {
                "gso" => "Link that passes GSO super-packets whole",
                _ => "Link that each datagram crosses alone",
            };
            let headings: Vec<_> = COLUMNS.iter().map(|(heading, ..)| *heading).collect();
            // Writing to a string cannot fail.
            let _ = writeln!(out, "### {title}\n\n| system | {} |", headings.join(" | "));
            let _ = writeln!(out, "|---|{}", "--:|".repeat(COLUMNS.len()));
            for &system in &self.systems {
                let medians = self.medians(link, system);
                let cells: Vec<_> =
                    COLUMNS.iter().map(|(_, metrics, digits)| cell(&medians, metrics, *digits)).collect();
                let _ = writeln!(out, "| {system} | {} |", cells.join(" | "));
            }
            let ratios = self.ratios(link);
            let stated: Vec<_> = RATIOS
                .iter()
                .filter_map(|(metric, name)| Some(format!("{name} {:.2}x", ratios.get(metric)?)))
                .collect();
            if !stated.is_empty() {
                let _ = writeln!(out, "\nOurs to boringtun's: {}.", stated.join("; "));
            }
            out.push('\n');
        }
        out
    }

    /// Writes the JSON below the target folder and tells where.
    pub fn save(&self) -> Result<PathBuf, Failure> {
        let folder = target_folder()?.join("bench");
        fs::create_dir_all(&folder).map_err(Failure::io(folder.display().to_string()))?;
        let when = said(Command::new("date").args(["-u", "+%Y%m%dT%H%M%SZ"]));
        let per_link = |f: &dyn Fn(&str) -> Value| -> Value {
            self.links.iter().map(|&link| (link.to_owned(), f(link))).collect()
        };
        let medians = per_link(&|link| {
            self.systems.iter().map(|&system| (system.to_owned(), json!(self.medians(link, system)))).collect()
        });
        let document = json!({
            "when": when,
            "machine": self.machine,
            "settings": self.settings,
            "versions": self.versions.iter().cloned().collect::<BTreeMap<_, _>>(),
            "medians": medians,
            "ratios_to_boringtun": per_link(&|link| json!(self.ratios(link))),
            "samples": self.samples.iter().map(Sample::json).collect::<Vec<_>>(),
        });
        let path = folder.join(format!("bench-{when}.json"));
        let text = format!("{document:#}\n");
        fs::write(&path, text).map_err(Failure::io(path.display().to_string()))?;
        Ok(path)
    }
}

/// The values of a column, `–` for what could not be measured.
fn cell(values: &BTreeMap<&'static str, f64>, metrics: &[&str], digits: usize) -> String {
    let cells = metrics.iter().map(|metric| match values.get(metric) {
        Some(value) => format!("{value:.digits$}"),
        None => "–".to_owned(),
    });
    cells.collect::<Vec<_>>().join(" / ")
}

/// The middle of a list, in any order.
pub fn median(mut list: Vec<f64>) -> Option<f64> {
    list.sort_by(f64::total_cmp);
    let middle = list.len() / 2;
    let upper = *list.get(middle)?;
    if list.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*list.get(middle.checked_sub(1)?)?, upper))
}

/// What the numbers depend on.
pub fn machine() -> Value {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    json!({
        "cpu": model,
        "cores": std::thread::available_parallelism().map_or(1, |n| n.get()),
        "arch": env::consts::ARCH,
        "kernel": said(Command::new("uname").arg("-r")),
    })
}

/// What a small command says; nothing, if it cannot.
fn said(command: &mut Command) -> String {
    run_checked(command, Duration::from_secs(5)).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn a_table_with_ratios_and_gaps() {
        let sample = |system, run, gbps: Option<f64>| {
            let mut sample = Sample::new(system, "gso", run);
            sample.enter("tcp1_gbps", gbps);
            sample.enter_larger("rss_mib", 2.0);
            sample.enter_larger("rss_mib", 1.0);
            sample
        };
        let report = Report {
            machine: Value::Null,
            settings: Value::Null,
            versions: Vec::new(),
            systems: vec!["wireloom", "boringtun"],
            links: vec!["gso"],
            samples: vec![
                sample("wireloom", 1, Some(9.0)),
                sample("boringtun", 1, Some(1.0)),
                sample("wireloom", 2, Some(7.0)),
                sample("boringtun", 2, None),
                sample("wireloom", 3, Some(8.0)),
            ],
        };
        let table = report.markdown();
        assert!(table.contains("| wireloom | 8.00 / – / – |"), "{table}");
        assert!(table.contains("| 2.0 |"), "{table}");
        assert!(table.contains("TCP, one stream 8.00x"), "{table}");
    }
}

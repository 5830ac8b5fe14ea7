//! What was measured, as tables for people, as JSON for everything else, and as a picture.
//!
//! Each figure is the median of the rounds with the least and the most. Ratios are taken within each round, where both had the same
//! machine a minute apart, and then the median of those.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::machine;
use super::plot::{self, Bars, Panel};
use super::sample::{METRICS, Metric, Sample};
use super::stats::Spread;
use super::subject::{BORINGTUN, NO_TUNNEL, OURS};
use crate::error::Failure;

/// What the newest wireguard-go (May 2025) did in one TCP stream for each Gb/s of boringtun 0.7.1, by link: measured by the same steps
/// on a machine with two Zen 5 processors, 4.18 to 0.80 and 3.30 to 0.79 Gb/s. It is in no registry that `setup` could take it from.
const PUBLISHED: [(&str, f64); 2] = [("gso", 5.2), ("no-gso", 4.2)];

/// Everything that was measured, and on what.
pub struct Report {
    /// When it began.
    pub when: String,
    /// The command line.
    pub command: String,
    /// What [`machine::describe`] says.
    pub machine: Value,
    /// How it was measured.
    pub settings: Value,
    /// What each system says of its version.
    pub versions: Vec<(String, String)>,
    /// The subjects' names, in the order of the table.
    pub systems: Vec<String>,
    /// The links' names.
    pub links: Vec<&'static str>,
    /// How often both daemons of a quiet tunnel woke up in ten seconds, where that was measured.
    pub wakeups: Vec<(String, u64)>,
    /// Every pass.
    pub samples: Vec<Sample>,
}

impl Report {
    fn values(&self, link: &str, system: &str, key: &str) -> BTreeMap<u32, f64> {
        let of = self.samples.iter().filter(|sample| sample.link == link && sample.system == system);
        of.filter_map(|sample| Some((sample.round, *sample.values.get(key)?))).collect()
    }

    /// A metric over the rounds.
    pub fn spread(&self, link: &str, system: &str, key: &str) -> Option<Spread> {
        Spread::of(&self.values(link, system, key).into_values().collect::<Vec<_>>())
    }

    /// What one has for each of another, over the rounds in which both have it.
    pub fn ratio(&self, link: &str, one: &str, other: &str, key: &str) -> Option<Spread> {
        let others = self.values(link, other, key);
        let both = self.values(link, one, key).into_iter().filter_map(|(round, value)| {
            let other = *others.get(&round)?;
            (other > 0.0).then(|| value / other)
        });
        Spread::of(&both.collect::<Vec<_>>())
    }

    /// A table for each link, ratios, and what to know about them.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "`{}`, {}\n\n{}\n", self.command, self.when, machine::line(&self.machine));
        for (name, version) in &self.versions {
            let _ = writeln!(out, "- {name}: {version}");
        }
        for &link in &self.links {
            let _ = writeln!(out, "\n### {}\n", title(link));
            self.table(&mut out, &self.systems, |metric, system| {
                Some(self.spread(link, system, metric.key)?.text(metric.digits))
            });
            self.ratios(&mut out, link);
            self.published(&mut out, link);
        }
        if !self.wakeups.is_empty() {
            let each: Vec<_> = self.wakeups.iter().map(|(name, count)| format!("{name} {count}")).collect();
            let _ = writeln!(out, "\nWake-ups of both daemons in 10 s of a quiet tunnel: {}.", each.join(", "));
        }
        for line in self.reservations() {
            let _ = writeln!(out, "\n**{line}**");
        }
        out
    }

    /// Metrics by columns, without rows that have nothing.
    fn table(&self, out: &mut String, columns: &[String], cell: impl Fn(&Metric, &str) -> Option<String>) {
        let _ = writeln!(out, "| | {} |\n|---|{}", columns.join(" | "), "--:|".repeat(columns.len()));
        for metric in &METRICS {
            let cells: Vec<_> = columns.iter().map(|column| cell(metric, column)).collect();
            if cells.iter().any(Option::is_some) {
                let cells: Vec<_> = cells.into_iter().map(|cell| cell.unwrap_or("–".to_owned())).collect();
                let _ = writeln!(out, "| {} | {} |", metric.label, cells.join(" | "));
            }
        }
    }

    fn ratios(&self, out: &mut String, link: &str) {
        let others: Vec<_> = self.systems.iter().filter(|name| *name != OURS && *name != NO_TUNNEL).cloned().collect();
        if others.is_empty() || !self.systems.iter().any(|name| name == OURS) {
            return;
        }
        let _ = writeln!(out, "\nOurs for one of theirs, round by round:\n");
        self.table(out, &others, |metric, other| {
            let ratio = self.ratio(link, OURS, other, metric.key).filter(|_| metric.shown)?;
            Some(ratio.text(2))
        });
    }

    fn published(&self, out: &mut String, link: &str) {
        let newest = |name: &String| name != "wireguard-go" && name.contains("wireguard-go");
        let published = PUBLISHED.iter().find(|(name, _)| *name == link).map(|(_, ratio)| *ratio);
        if let Some(published) = published
            && let Some(ours) = self.ratio(link, OURS, BORINGTUN, "tcp1_gbps")
            && !self.systems.iter().any(newest)
        {
            let _ = writeln!(
                out,
                "\nThe newest wireguard-go was not measured here (`--impl` adds it). Published for it, by this harness on another \
                 machine: {published:.1} times boringtun in one TCP stream. Ours is {:.1} times boringtun here, and so {:.1} times \
                 the newest wireguard-go if the published ratio held on this machine.",
                ours.median,
                ours.median / published
            );
        }
    }

    /// What speaks against the figures.
    fn reservations(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let rounds = self.samples.iter().map(|sample| sample.round).max().unwrap_or(0);
        if rounds < 3 {
            lines.push(format!("Too few rounds ({rounds}) for figures to quote."));
        }
        let busy = |sample: &&Sample| sample.values.get("busy_before").is_some_and(|busy| machine::is_busy(*busy));
        match self.samples.iter().filter(busy).count() {
            0 => (),
            count => lines.push(format!(
                "The machine had other work before {count} of {} passes: do not quote these figures.",
                self.samples.len()
            )),
        }
        for sample in &self.samples {
            let place = format!("{}, {}, round {}", sample.system, sample.link, sample.round);
            lines.extend(sample.failures.iter().map(|failure| format!("Not measured: {place}: {failure}")));
        }
        lines
    }

    /// Everything, for machines.
    pub fn json(&self) -> Value {
        let by_system = |link: &str, of: &dyn Fn(&str, &Metric) -> Option<Spread>| -> Value {
            let system = |system: &String| {
                let values = METRICS.iter().filter_map(|metric| Some((metric.key, of(system, metric)?.json())));
                (system.clone(), json!(values.collect::<BTreeMap<_, _>>()))
            };
            json!({ link: self.systems.iter().map(system).collect::<BTreeMap<_, _>>() })
        };
        let merge = |of: &dyn Fn(&str, &str, &Metric) -> Option<Spread>| -> Value {
            let mut all = json!({});
            for &link in &self.links {
                all[link] = by_system(link, &|system, metric| of(link, system, metric))[link].take();
            }
            all
        };
        json!({
            "when": self.when,
            "command": self.command,
            "machine": self.machine,
            "settings": self.settings,
            "versions": self.versions.iter().cloned().collect::<BTreeMap<_, _>>(),
            "metrics": METRICS.iter().map(|metric| (metric.key, metric.label)).collect::<BTreeMap<_, _>>(),
            "spreads": merge(&|link, system, metric| self.spread(link, system, metric.key)),
            "ours_for_one_of_theirs": merge(&|link, system, metric| {
                self.ratio(link, OURS, system, metric.key).filter(|_| system != OURS)
            }),
            "published_wireguard_go_to_boringtun": PUBLISHED.iter().copied().collect::<BTreeMap<_, _>>(),
            "wakeups_in_10_s": self.wakeups.iter().cloned().collect::<BTreeMap<_, _>>(),
            "samples": self.samples.iter().map(Sample::json).collect::<Vec<_>>(),
        })
    }

    /// A panel for each metric that is shown, with a bar for each system and link. Without a tunnel there is no bar: it would dwarf all
    /// others.
    pub fn svg(&self) -> String {
        let systems: Vec<_> = self.systems.iter().filter(|name| *name != NO_TUNNEL).cloned().collect();
        let panel = |metric: &Metric| {
            let series = self.links.iter().map(|&link| {
                let bars = systems.iter().map(|system| self.spread(link, system, metric.key));
                (title(link).to_owned(), bars.collect())
            });
            let bars = Bars { groups: systems.clone(), series: series.collect(), digits: metric.digits };
            Panel::Bars { title: metric.label.to_owned(), bars }
        };
        let panels: Vec<_> = METRICS.iter().filter(|metric| metric.shown).map(panel).collect();
        plot::svg(&format!("{}, {}", self.when, machine::line(&self.machine)), &panels)
    }

    /// Writes all three into a folder and tells where.
    pub fn save(&self, folder: &Path) -> Result<[PathBuf; 3], Failure> {
        fs::create_dir_all(folder).map_err(Failure::io(folder.display().to_string()))?;
        let write = |kind: &str, text: String| -> Result<PathBuf, Failure> {
            let path = folder.join(format!("bench-{}.{kind}", self.when));
            fs::write(&path, text).map_err(Failure::io(path.display().to_string()))?;
            Ok(path)
        };
        Ok([write("md", self.markdown())?, write("json", format!("{:#}\n", self.json()))?, write("svg", self.svg())?])
    }
}

fn title(link: &str) -> &'static str {
    match link {
        "gso" => "Link that passes GSO super-packets whole",
        _ => "Link that each datagram crosses alone",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three rounds of two systems, of which one fails once.
    fn report(systems: &[&str]) -> Report {
        let mut samples = Vec::new();
        for (round, ours, theirs) in [(1, 9.0, Some(1.0)), (2, 7.0, None), (3, 8.0, Some(2.0))] {
            let mut sample = Sample::new(OURS, "gso", round);
            sample.enter("tcp1_gbps", Some(ours));
            sample.enter("rss_mib", Some(4.25));
            samples.push(sample);
            let mut sample = Sample::new(BORINGTUN, "gso", round);
            sample.enter("tcp1_gbps", theirs);
            if theirs.is_none() {
                sample.failures.push("TCP: it said no".to_owned());
            }
            samples.push(sample);
        }
        Report {
            when: "20261121T120000Z".to_owned(),
            command: "cargo xtask bench".to_owned(),
            machine: machine::describe(),
            settings: json!({ "rounds": 3 }),
            versions: vec![(OURS.to_owned(), "wireloom 1 <&>".to_owned())],
            systems: systems.iter().map(|&name| name.to_owned()).collect(),
            links: vec!["gso"],
            wakeups: vec![(OURS.to_owned(), 0)],
            samples,
        }
    }

    #[test]
    fn tables_with_spreads_ratios_and_gaps() {
        let text = report(&[OURS, BORINGTUN]).markdown();
        for line in [
            "`cargo xtask bench`, 20261121T120000Z",
            "| | wireloom | boringtun |",
            "| TCP, 1 stream, Gb/s | 8.00 (7.00–9.00) | 1.50 (1.00–2.00) |",
            "| RSS of a daemon after load, MiB | 4.2 (4.2–4.2) | – |",
            // 9/1 and 8/2; the round that failed counts for nothing.
            "| TCP, 1 stream, Gb/s | 6.50 (4.00–9.00) |",
            "Wake-ups of both daemons in 10 s of a quiet tunnel: wireloom 0.",
            "**Not measured: boringtun, gso, round 2: TCP: it said no**",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in:\n{text}");
        }
        assert!(text.contains("5.2 times boringtun"), "{text}");
        assert!(text.contains("Ours is 6.5 times boringtun here, and so 1.2 times"), "{text}");
        assert!(!text.contains("do not quote") && !text.contains("UDP"), "{text}");
    }

    #[test]
    fn what_was_measured_is_not_taken_from_elsewhere() {
        let text = report(&[OURS, BORINGTUN, "newest wireguard-go"]).markdown();
        assert!(!text.contains("Published"), "{text}");
        // Without boringtun there is nothing to relate it to.
        let mut report = report(&[OURS]);
        report.samples.retain(|sample| sample.system == OURS);
        assert!(!report.markdown().contains("Published"));
    }

    #[test]
    fn what_speaks_against_it_is_said() {
        let mut report = report(&[OURS, BORINGTUN]);
        report.samples.truncate(3);
        report.samples[0].enter("busy_before", Some(1.5));
        let text = report.markdown();
        assert!(text.contains("Too few rounds (2)") && text.contains("before 1 of 3 passes"), "{text}");
    }

    #[test]
    fn files_are_read_back() {
        let report = report(&[OURS, BORINGTUN, NO_TUNNEL]);
        let folder = tempfile::tempdir().unwrap();
        let [md, json, svg] = report.save(&folder.path().join("a/b")).unwrap();
        assert_eq!(fs::read_to_string(md).unwrap(), report.markdown());
        let read: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
        assert_eq!(read, report.json());
        let spread = &read["spreads"]["gso"]["wireloom"]["tcp1_gbps"];
        assert_eq!(*spread, json!({ "median": 8.0, "min": 7.0, "max": 9.0, "count": 3 }));
        assert_eq!(read["ours_for_one_of_theirs"]["gso"]["boringtun"]["tcp1_gbps"]["median"], 6.5);
        assert_eq!(read["samples"].as_array().map(Vec::len), Some(6));
        let svg = fs::read_to_string(svg).unwrap();
        let picture = roxmltree::Document::parse(&svg).unwrap();
        let texts: Vec<_> = picture.descendants().filter_map(|node| node.text()).collect();
        assert!(
            texts.contains(&"TCP, 1 stream, Gb/s") && texts.contains(&"8.00") && !texts.contains(&NO_TUNNEL),
            "{texts:?}"
        );
    }
}

//! What one pass found, by metric, and what is known of each metric.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A row of the table.
pub struct Metric {
    /// Its name in samples and in the JSON.
    pub key: &'static str,
    /// Its name for people, with the unit.
    pub label: &'static str,
    /// Digits behind the point.
    pub digits: usize,
    /// Where it has a place in the plots and in the table of ratios.
    pub shown: bool,
}

/// All of them, in the order of the table.
pub const METRICS: [Metric; 25] = [
    metric("tcp1_gbps", "TCP, 1 stream, Gb/s", 2, true),
    metric("tcp4_gbps", "TCP, 4 streams, Gb/s", 2, true),
    metric("tcp8_gbps", "TCP, 8 streams, Gb/s", 2, true),
    metric("cpu_s_per_gb", "CPU-s/GB of 1 stream, whole machine", 2, true),
    metric("daemon_s_per_gb", "CPU-s/GB of 1 stream, both daemons", 2, false),
    metric("udp64_clean_kpps", "UDP 64 B clean, kpps", 0, true),
    metric("udp64_flood_kpps", "UDP 64 B flood, arrived, kpps", 0, true),
    metric("udp64_sent_kpps", "UDP 64 B flood, sent, kpps", 0, false),
    metric("iperf64_clean_kpps", "UDP 64 B clean, by iperf3, kpps", 0, false),
    metric("iperf64_flood_kpps", "UDP 64 B flood, by iperf3, arrived, kpps", 0, false),
    metric("iperf64_sent_kpps", "UDP 64 B flood, by iperf3, sent, kpps", 0, false),
    metric("udp1300_clean_kpps", "UDP 1300 B clean, kpps", 0, true),
    metric("udp1300_flood_kpps", "UDP 1300 B flood, arrived, kpps", 0, true),
    metric("udp1300_sent_kpps", "UDP 1300 B flood, sent, kpps", 0, false),
    metric("iperf1300_flood_kpps", "UDP 1300 B flood, by iperf3, arrived, kpps", 0, false),
    metric("iperf1300_sent_kpps", "UDP 1300 B flood, by iperf3, sent, kpps", 0, false),
    metric("late", "datagrams out of order or twice, of all in batches", 0, false),
    metric("idle_p50_us", "RTT idle, p50, µs", 0, true),
    metric("idle_p99_us", "RTT idle, p99, µs", 0, false),
    metric("loaded_p50_us", "RTT beside 1 TCP stream, p50, µs", 0, true),
    metric("loaded_p99_us", "RTT beside 1 TCP stream, p99, µs", 0, true),
    metric("loaded_gbps", "that TCP stream meanwhile, Gb/s", 2, false),
    metric("rss_mib", "RSS of a daemon after load, MiB", 1, true),
    metric("taken_percent", "packets that programs in the kernel took, %", 1, false),
    metric("busy_before", "processors that others kept busy before", 2, false),
];

const fn metric(key: &'static str, label: &'static str, digits: usize, shown: bool) -> Metric {
    Metric { key, label, digits, shown }
}

/// What one pass found.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The subject's name.
    pub system: String,
    /// The link's name.
    pub link: &'static str,
    /// In which round, counted from 1.
    pub round: u32,
    /// The figures, by the metric's key.
    pub values: BTreeMap<&'static str, f64>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
}

impl Sample {
    /// An empty one.
    pub fn new(system: &str, link: &'static str, round: u32) -> Sample {
        Sample { system: system.to_owned(), link, round, values: BTreeMap::new(), failures: Vec::new() }
    }

    /// Enters a value, if there is one.
    pub fn enter(&mut self, key: &'static str, value: Option<f64>) {
        debug_assert!(METRICS.iter().any(|metric| metric.key == key), "{key} is in no table");
        if let Some(value) = value {
            self.values.insert(key, value);
        }
    }

    /// Adds to a value.
    pub fn add(&mut self, key: &'static str, value: f64) {
        let sum = self.values.get(key).unwrap_or(&0.0) + value;
        self.enter(key, Some(sum));
    }

    /// A line of progress.
    pub fn line(&self) -> String {
        let of = |metric: &Metric| {
            let value = self.values.get(metric.key)?;
            Some(format!("{} {value:.*}", metric.label, metric.digits))
        };
        METRICS.iter().filter(|metric| metric.shown).filter_map(of).collect::<Vec<_>>().join("; ")
    }

    /// For the JSON.
    pub fn json(&self) -> Value {
        json!({
            "system": self.system,
            "link": self.link,
            "round": self.round,
            "failures": self.failures,
            "values": self.values,
        })
    }
}

//! Round trips, by the system's `ping`.

use std::net::IpAddr;
use std::time::Duration;

use crate::{Finished, LabError, Namespace, Process, run};

/// The outcome of a series of pings.
#[derive(Clone, Debug, Default)]
pub struct RoundTrips {
    /// How many were sent.
    pub sent: u64,
    /// How many came back.
    pub received: u64,
    /// The times in microseconds, sorted.
    pub micros: Vec<f64>,
}

impl RoundTrips {
    /// The time that a share of the round trips (0.5 for the median) stayed below, in microseconds.
    pub fn percentile(&self, share: f64) -> Option<f64> {
        let last = self.micros.len().checked_sub(1)?;
        let at = (last as f64 * share).round() as usize;
        self.micros.get(at.min(last)).copied()
    }
}

/// Starts a series of `count` pings, `interval` seconds apart.
///
/// # Errors
/// `ping` could not be started.
pub fn start(from: &Namespace, to: IpAddr, count: u32, interval: &str) -> Result<Process, LabError> {
    start_waiting(from, to, count, interval, "2")
}

/// The same, with time for a handshake that has to be repeated before anything is answered.
///
/// # Errors
/// As [`start`].
pub fn start_patiently(from: &Namespace, to: IpAddr, count: u32, interval: &str) -> Result<Process, LabError> {
    start_waiting(from, to, count, interval, "15")
}

/// `wait` are the seconds that `ping` stays where nothing has been answered at all.
fn start_waiting(from: &Namespace, to: IpAddr, count: u32, interval: &str, wait: &str) -> Result<Process, LabError> {
    let count = count.to_string();
    Process::spawn(from.command("ping").args(["-n", "-c", &count, "-i", interval, "-W", wait, &to.to_string()]))
}

/// Pings `count` times, `interval` seconds apart, and waits at most `limit`.
///
/// # Errors
/// `ping` could not be run or said nothing readable; lost pings are no error here.
pub fn ping(from: &Namespace, to: IpAddr, count: u32, interval: &str, limit: Duration) -> Result<RoundTrips, LabError> {
    collect(start(from, to, count, interval)?, limit)
}

/// Waits for a series to end and reads it.
///
/// # Errors
/// As [`ping`].
pub fn collect(series: Process, limit: Duration) -> Result<RoundTrips, LabError> {
    let finished = series.finish(limit)?;
    parse(&finished.stdout).ok_or(LabError::Unreadable { what: "the pings", text: finished.log() })
}

/// One ping with more options, such as a size or `-M do`; the outcome is for the caller to judge.
///
/// # Errors
/// `ping` could not be run.
pub fn once(from: &Namespace, to: IpAddr, options: &[&str]) -> Result<Finished, LabError> {
    let mut command = from.command("ping");
    command.args(["-n", "-c", "1", "-W", "10"]).args(options).arg(to.to_string());
    run(&mut command, Duration::from_secs(60))
}

fn parse(text: &str) -> Option<RoundTrips> {
    let summary = text.lines().find(|line| line.contains("packets transmitted"))?;
    let mut numbers = summary.split(", ").filter_map(|part| part.split_whitespace().next()?.parse().ok());
    let (sent, received) = (numbers.next()?, numbers.next()?);
    let mut micros: Vec<f64> = text
        .lines()
        .filter_map(|line| {
            let (_, time) = line.split_once("time=")?;
            let millis: f64 = time.split_whitespace().next()?.parse().ok()?;
            Some(millis * 1000.0)
        })
        .collect();
    micros.sort_by(f64::total_cmp);
    Some(RoundTrips { sent, received, micros })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_series() {
        let text = "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n\
            64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.300 ms\n\
            64 bytes from 10.0.0.1: icmp_seq=2 ttl=64 time=0.100 ms\n\
            64 bytes from 10.0.0.1: icmp_seq=3 ttl=64 time=0.200 ms\n\n\
            --- 10.0.0.1 ping statistics ---\n\
            4 packets transmitted, 3 received, 25% packet loss, time 31ms\n";
        let trips = parse(text).unwrap();
        assert_eq!((trips.sent, trips.received), (4, 3));
        assert_eq!(trips.micros, [100.0, 200.0, 300.0]);
        assert_eq!(trips.percentile(0.5), Some(200.0));
        assert_eq!(trips.percentile(0.99), Some(300.0));
        assert_eq!(RoundTrips::default().percentile(0.5), None);
    }

    #[test]
    fn reads_a_series_with_errors() {
        let text = "--- x ---\n2 packets transmitted, 0 received, +2 errors, 100% packet loss\n";
        let trips = parse(text).unwrap();
        assert_eq!((trips.sent, trips.received), (2, 0));
        assert!(parse("ping: unknown host").is_none());
    }
}

//! Recovery from loss of the path: the link is set down and up again under echo requests; from then to the first answer to one that was sent after.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evaluation::Record;
use rustix::process::Signal;

use super::bench::{Bench, Site};
use super::{Effort, Experiment};
use crate::subject::{Protocol, Subject};
use crate::{LabError, Process, Side, interrupted, wait_for};

/// Seconds between two echo requests, as long as they are answered.
const INTERVAL: &str = "0.002";
/// How fine the figure is: `ping` waits for so many seconds where no answer comes.
const STEP: f64 = 0.01;
/// How long it is waited for: some begin a new session only after a while.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Recovery;

impl Experiment for Recovery {
    fn slug(&self) -> &'static str {
        "recovery"
    }

    fn points(&self, effort: &Effort) -> Vec<f64> {
        effort.outages.iter().copied().map(f64::from).collect()
    }

    fn suits(&self, subject: &dyn Subject) -> bool {
        // The bare link's own routes go with it, and nothing brings them back.
        subject.protocol() != Protocol::Nothing
    }

    fn site(&self, _x: f64, _effort: &Effort) -> Site {
        Site::Tunnel
    }

    fn seconds(&self, x: f64, _effort: &Effort) -> f64 {
        x + 0.1
    }

    fn measure(&self, bench: &mut Bench<'_>, x: f64, record: Record) -> Result<Record, LabError> {
        let (from, _, address) = bench.ends()?;
        let port = bench.live()?.topology.port(Side::Left);
        let mut command = from.command("ping");
        command.args(["-n", "-D", "-i", INTERVAL, &address.to_string()]);
        let mut series = Process::spawn(&mut command)?;
        series.wait_for_output("time=", LIMIT)?;
        port.namespace.ip(&["link", "set", &port.interface, "down"])?;
        let outage = pass(Duration::from_secs_f64(x));
        port.namespace.ip(&["link", "set", &port.interface, "up"])?;
        // From here: what it takes to start a command is none of the system's.
        let back = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        outage?;
        let first = wait_for("traffic to flow again", LIMIT, || Ok(first_answer(&series.stdout(), back)));
        series.signal(Signal::INT);
        let took = (first? - back).max(0.001);
        Ok(record.with("recovery", took).resolved("recovery", 1.0 + STEP / took))
    }
}

/// Waits, as long as nobody wants to stop.
fn pass(time: Duration) -> Result<(), LabError> {
    let end = std::time::Instant::now() + time;
    while std::time::Instant::now() < end {
        if interrupted() {
            return Err(LabError::Interrupted);
        }
        thread::sleep(Duration::from_millis(20).min(end.saturating_duration_since(std::time::Instant::now())));
    }
    Ok(())
}

/// When the first answer came to what was sent after a moment, in seconds since 1970: `[1795310000.123456] 64 bytes from … time=0.1 ms`.
fn first_answer(text: &str, after: f64) -> Option<f64> {
    text.lines().find_map(|line| {
        let (stamp, rest) = line.strip_prefix('[')?.split_once(']')?;
        let came: f64 = stamp.parse().ok()?;
        let (_, time) = rest.split_once("time=")?;
        let millis: f64 = time.split_whitespace().next()?.parse().ok()?;
        (came - millis / 1000.0 >= after).then_some(came)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_only_if_its_question_came_after() {
        let text = "PING 10.77.1.2 (10.77.1.2) 56(84) bytes of data.\n\
            [100.500000] 64 bytes from 10.77.1.2: icmp_seq=1 ttl=64 time=0.2 ms\n\
            ping: sendmsg: Network is unreachable\n\
            [103.000000] 64 bytes from 10.77.1.2: icmp_seq=9 ttl=64 time=2500 ms\n\
            [103.002000] 64 bytes from 10.77.1.2: icmp_seq=99 ttl=64 time=1.0 ms\n\
            [103.004000] 64 bytes from 10.77.1.2: icmp_seq=100 ttl=64 time=1.0 ms\n";
        assert_eq!(first_answer(text, 102.9), Some(103.002));
        assert_eq!(first_answer(text, 104.0), None);
    }
}

//! Loads: TCP through some tunnels at once, and what that takes of the machine.

use std::thread;
use std::time::{Duration, Instant};

use evaluation::Record;
use evaluation::catalogue::{COST, PROCESSORS, THROUGHPUT};

use super::bench::Bench;
use crate::iperf::{Load, start_all};
use crate::{LabError, Side, usage};

/// How long after its start a load is under way, and how long before its end it still is.
const RISE: Duration = Duration::from_millis(300);
const FALL: Duration = Duration::from_millis(100);

/// What came of a load.
pub(super) struct Carried {
    /// Payload that arrived, in bits per second.
    bits: f64,
    /// The same in bytes, in all.
    bytes: f64,
    /// Seconds of processor time of the whole machine, from beginning to end.
    busy: f64,
    /// The busy share of each processor while the load was under way.
    pub processors: Vec<f64>,
}

impl Carried {
    /// Enters it.
    pub fn enter(&self, record: Record) -> Record {
        record
            .with(THROUGHPUT.key, self.bits)
            .with(COST.key, self.busy / self.bytes.max(1.0))
            .with(PROCESSORS.key, self.processors.iter().sum())
    }
}

/// TCP through all tunnels at once, in so many streams each.
pub(super) fn tcp(bench: &Bench<'_>, streams: u32) -> Result<Carried, LabError> {
    let live = bench.live()?;
    let (from, to) = (live.topology.end(Side::Left), live.topology.end(Side::Right));
    let addresses: Vec<_> = live.ways().iter().map(|way| way.drain.into()).collect();
    let before = usage::machine_cpu()?;
    let runs = start_all(from, to, &addresses, Load::Tcp { streams }, bench.effort.seconds)?;
    thread::sleep(RISE);
    let window = Window::open()?;
    thread::sleep(Duration::from_secs(bench.effort.seconds.into()).saturating_sub(RISE + FALL));
    let processors = window.close()?;
    let (mut bits, mut bytes) = (0.0, 0.0);
    for run in runs {
        let run = run.tcp()?;
        bits += run.gigabits() * 1e9;
        bytes += run.bytes as f64;
    }
    let busy = usage::machine_cpu()?.saturating_sub(before).as_secs_f64();
    if bytes == 0.0 {
        return Err(LabError::Unreadable { what: "traffic", text: "nothing arrived".to_owned() });
    }
    Ok(Carried { bits, bytes, busy, processors })
}

/// A span of time in which processors are watched.
pub(super) struct Window {
    began: Instant,
    idle: Vec<Duration>,
}

impl Window {
    /// From here.
    pub fn open() -> Result<Window, LabError> {
        Ok(Window { idle: usage::idle()?, began: Instant::now() })
    }

    /// To here: the busy share of each processor.
    pub fn close(self) -> Result<Vec<f64>, LabError> {
        let (idle, elapsed) = (usage::idle()?, self.began.elapsed().as_secs_f64().max(1e-9));
        let each = idle.iter().zip(&self.idle);
        Ok(each.map(|(after, before)| share(after.saturating_sub(*before).as_secs_f64(), elapsed)).collect())
    }
}

/// Idle times are counted in hundredths of a second, so that one may seem longer than the span that it is from.
fn share(idle: f64, elapsed: f64) -> f64 {
    (1.0 - idle / elapsed).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stay_within_their_bounds() {
        assert_eq!([share(0.25, 1.0), share(1.01, 1.0), share(0.0, 1.0)], [0.75, 0.0, 1.0]);
    }

    #[test]
    fn this_machine_has_processors_to_watch() {
        let window = Window::open().unwrap();
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        let busy = window.close().unwrap();
        // On a machine with much else to do, this thread may have waited; then something else was busy.
        assert!(!busy.is_empty() && busy.iter().sum::<f64>() > 0.2, "{busy:?}");
    }
}

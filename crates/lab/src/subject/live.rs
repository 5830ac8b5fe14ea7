//! Tunnels that are up, and what it took to get there.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Meter;
use crate::topology::{Side, Topology, Way};
use crate::{Daemon, LabError, Namespace, Process, usage};

/// What a person would have had to write and type for the tunnels, both gateways together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Files.
    pub files: u32,
    /// Lines of them that are neither empty, a comment, nor a brace alone.
    pub lines: u32,
    /// Bytes of those lines.
    pub bytes: u64,
    /// Commands typed.
    pub commands: u32,
}

impl Configuration {
    /// Files written and commands typed.
    pub fn steps(&self) -> u32 {
        self.files + self.commands
    }

    pub(super) fn add_file(&mut self, text: &str) {
        let lines = || {
            text.lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with('#') && !matches!(*line, "{" | "}"))
        };
        self.files += 1;
        self.lines += u32::try_from(lines().count()).unwrap_or(u32::MAX);
        self.bytes += lines().map(|line| line.len() as u64 + 1).sum::<u64>();
    }
}

/// Programs that the lab has started one after the other while a system came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    /// `ip`, which enters a host itself.
    pub ip: u32,
    /// Programs inside a host.
    pub inside: u32,
}

impl Starts {
    /// What it takes to start as many that do nothing: the median of a few of each kind.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn empty(&self, host: &Namespace) -> Result<Duration, LabError> {
        let ip = median(|| host.ip(&["link", "show", "dev", "lo"]).map(drop))?;
        let inside = median(|| host.run("true", &[]).map(drop))?;
        Ok(ip * self.ip + inside * self.inside)
    }
}

fn median(mut run: impl FnMut() -> Result<(), LabError>) -> Result<Duration, LabError> {
    let mut times = [Duration::ZERO; 7];
    for time in &mut times {
        let began = Instant::now();
        run()?;
        *time = began.elapsed();
    }
    times.sort();
    Ok(times[times.len() / 2])
}

/// What a system consists of while it runs.
pub(super) enum Part {
    /// A daemon of WireGuard.
    Daemon(Box<Daemon>),
    /// Any other process.
    Process(Box<Process>),
}

/// A system with its tunnels up. Dropping it ends and takes away all of it, and the topology with it.
pub struct Live {
    /// The hosts and the ways.
    pub topology: Topology,
    /// The time from the start of the first of its processes, or from the making of its first interface, until each tunnel had answered; keys and files had
    /// been made before. What the lab itself takes to start programs is in it.
    pub start_up: Duration,
    /// The programs that the lab started meanwhile.
    pub starts: Starts,
    /// The MTU inside the tunnels in bytes: the one that was asked for, if the system can be told it.
    pub mtu: u32,
    /// What it took.
    pub configuration: Configuration,
    pub(super) pids: [Vec<u32>; 2],
    pub(super) meter: Box<dyn Meter>,
    pub(super) parts: Parts,
    pub(super) _folder: TempDir,
}

impl Live {
    /// The tunnels.
    pub fn ways(&self) -> &[Way] {
        &self.topology.ways
    }

    /// The ids of its processes at both gateways, for accounts of time and memory. A system in the kernel may have none.
    pub fn pids(&self) -> Vec<u32> {
        self.pids.concat()
    }

    /// Those at one gateway.
    pub fn pids_at(&self, side: Side) -> &[u32] {
        match side {
            Side::Left => &self.pids[0],
            Side::Right => &self.pids[1],
        }
    }

    /// The CPU time that its processes have used since they started.
    ///
    /// # Errors
    /// One of them has ended.
    pub fn cpu(&self) -> Result<Duration, LabError> {
        self.pids().into_iter().map(usage::process_cpu).sum()
    }

    /// The resident memory of its processes in KiB.
    ///
    /// # Errors
    /// One of them has ended.
    pub fn resident(&self) -> Result<u64, LabError> {
        self.pids().into_iter().map(|pid| Ok(usage::memory(pid)?.resident)).sum()
    }

    /// Bytes that have come out of tunnel `number` (from 1) at the right end, as the system or its interface counts them.
    ///
    /// # Errors
    /// The system does not say.
    pub fn carried(&self, number: u32) -> Result<u64, LabError> {
        self.meter.carried(&self.topology, number)
    }

    /// Whether all of its processes still run.
    ///
    /// # Errors
    /// [`LabError::Died`] with what the first that does not has said.
    pub fn check(&mut self) -> Result<(), LabError> {
        self.parts.check()
    }
}

/// The parts of a system; the last comes down first.
#[derive(Default)]
pub(super) struct Parts(pub(super) Vec<Part>);

impl Parts {
    /// Whether all processes still run.
    pub(super) fn check(&mut self) -> Result<(), LabError> {
        for part in &mut self.0 {
            let process = match part {
                Part::Daemon(daemon) => &mut daemon.process,
                Part::Process(process) => process,
            };
            if let Some(status) = process.status() {
                return Err(process.died(status));
            }
        }
        Ok(())
    }

    /// The last lines that each has said.
    pub(super) fn log(&self) -> String {
        let of = |part: &Part| {
            let process = match part {
                Part::Daemon(daemon) => &daemon.process,
                Part::Process(process) => process,
            };
            let log = process.log();
            let lines: Vec<&str> = log.lines().collect();
            format!("--- {} ---\n{}\n", process.name(), lines[lines.len().saturating_sub(20)..].join("\n"))
        };
        self.0.iter().map(of).collect()
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_something_counts() {
        let mut configuration = Configuration::default();
        configuration.add_file("# a comment\n\n[Interface]\n  ListenPort = 7\n  }\n");
        configuration.add_file("x");
        assert_eq!(configuration, Configuration { files: 2, lines: 3, bytes: 12 + 15 + 2, commands: 0 });
        assert_eq!(configuration.steps(), 2);
    }
}

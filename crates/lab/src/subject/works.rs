//! What set-ups are made with: files, commands and processes on the two gateways, each of them a step.
//!
//! Steps are numbered from 1 in the order in which they are taken, and works that were told to fail before one do so there. All that a step makes is held
//! here from the moment that it is made: whenever works are dropped, by whatever error, it goes.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::live::Starts;
use super::live::{Part, Parts};
use super::{Configuration, Live, Meter};
use crate::namespace::scratch_folder;
use crate::topology::{Side, Topology};
use crate::{Daemon, LabError, Namespace, Process, System, run, run_checked, wait_for};

/// How long a command may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// How long it may take until the tunnels answer. A handshake that is lost is repeated after 5 s by most, and emulated or busy machines are slow.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A system being set up.
pub struct Works {
    // In this order they go.
    parts: Parts,
    topology: Topology,
    folder: TempDir,
    configuration: Configuration,
    step: u32,
    fault: Option<u32>,
    began: Option<Instant>,
    starts: Starts,
    mtu: u32,
}

impl Works {
    pub(super) fn new(topology: Topology, fault: Option<u32>) -> Result<Works, LabError> {
        Ok(Works {
            mtu: topology.spec.mtu,
            parts: Parts::default(),
            topology,
            folder: scratch_folder("a folder for a system under test")?,
            configuration: Configuration::default(),
            step: 0,
            fault,
            began: None,
            starts: Starts::default(),
        })
    }

    /// The hosts and the tunnels that there are to be.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// A gateway.
    pub fn gateway(&self, side: Side) -> Namespace {
        self.topology.gateway(side).clone()
    }

    /// The folder that holds the files of this system, on both gateways the same.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Says that another step begins.
    ///
    /// # Errors
    /// [`LabError::Told`] if it is the one to fail before.
    pub fn step(&mut self) -> Result<(), LabError> {
        self.step += 1;
        if self.fault == Some(self.step) { Err(LabError::Told(self.step)) } else { Ok(()) }
    }

    /// Writes a file of the configuration, for root only.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn file(&mut self, name: &str, text: &str) -> Result<PathBuf, LabError> {
        self.step()?;
        self.configuration.add_file(text);
        self.lab_file(name, text)
    }

    /// Writes a file that only the lab needs: one that tells a program to keep off the places where this machine has its own.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn lab_file(&mut self, name: &str, text: &str) -> Result<PathBuf, LabError> {
        let path = self.folder.path().join(name);
        let written = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        written
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(LabError::io(path.display().to_string()))?;
        Ok(path)
    }

    /// Counts a command that a person would type and that the lab does in its own way.
    ///
    /// # Errors
    /// As [`Works::step`].
    pub fn typed(&mut self) -> Result<(), LabError> {
        self.step()?;
        self.configuration.commands += 1;
        Ok(())
    }

    /// Runs a command on a gateway to its end and takes what it prints.
    ///
    /// # Errors
    /// What it said.
    pub fn command(&mut self, side: Side, program: impl AsRef<OsStr>, args: &[&str]) -> Result<String, LabError> {
        self.typed()?;
        self.starts.inside += self.counted();
        run_checked(self.topology.gateway(side).command(program).args(args), LIMIT)
    }

    /// Runs `ip` on a gateway.
    ///
    /// # Errors
    /// What it said.
    pub fn ip(&mut self, side: Side, args: &[&str]) -> Result<(), LabError> {
        self.typed()?;
        self.starts.ip += self.counted();
        self.topology.gateway(side).ip(args).map(drop)
    }

    /// Says that keys and files are there and that the time of the start counts from here; what comes later is part of it.
    pub fn go(&mut self) {
        self.began.get_or_insert_with(Instant::now);
    }

    /// 1 while the time of the start counts.
    fn counted(&self) -> u32 {
        u32::from(self.began.is_some())
    }

    /// Starts a process, whose command was made for one of the gateways, and holds it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self, command: &mut Command) -> Result<&mut Process, LabError> {
        self.typed()?;
        self.go();
        self.starts.inside += self.counted();
        let process = Process::spawn(command)?;
        self.parts.0.push(Part::Process(Box::new(process)));
        match self.parts.0.last_mut() {
            Some(Part::Process(process)) => Ok(process),
            // It has just been put there.
            _ => unreachable!("the last part is the process"),
        }
    }

    /// Starts a daemon of WireGuard on a gateway, waits until it answers, and holds it. Returns the name of its interface.
    ///
    /// # Errors
    /// It is missing, ended early, or took too long.
    pub fn daemon(
        &mut self,
        side: Side,
        system: &System,
        adjust: impl FnOnce(&mut Command),
    ) -> Result<String, LabError> {
        self.typed()?;
        self.go();
        self.starts.inside += self.counted();
        let daemon: Daemon = system.start_with(self.topology.gateway(side), adjust)?;
        let interface = daemon.interface.clone();
        self.parts.0.push(Part::Daemon(Box::new(daemon)));
        Ok(interface)
    }

    /// Gives an interface a gateway's address inside a tunnel, brings it up, and routes what lies at the other end into it.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn connect(&mut self, side: Side, number: u32, interface: &str) -> Result<(), LabError> {
        let way = self.topology.ways[number as usize - 1];
        let mtu = self.topology.spec.mtu.to_string();
        self.ip(side, &["addr", "add", &format!("{}/32", way.gateway(side)), "dev", interface])?;
        self.ip(side, &["link", "set", "dev", interface, "mtu", &mtu, "up"])?;
        self.ip(side, &["route", "add", &way.prefix(side.other()), "dev", interface])
    }

    /// Says that the MTU inside is another than the one that was asked for, since this system has no other.
    pub fn mtu_is(&mut self, bytes: u32) {
        self.mtu = bytes;
    }

    /// Whether all that was started still runs.
    ///
    /// # Errors
    /// [`LabError::Died`] with what the first that does not has said.
    pub fn check(&mut self) -> Result<(), LabError> {
        self.parts.check()
    }

    /// Waits until each tunnel has carried a packet there and one back.
    pub(super) fn finish(mut self, meter: Box<dyn Meter>) -> Result<Live, LabError> {
        self.go();
        self.step()?;
        self.wait_for_answers()?;
        // The echo request that was answered.
        self.starts.inside += u32::try_from(self.topology.ways.len()).unwrap_or(u32::MAX);
        let start_up = self.began.map(|began| began.elapsed()).unwrap_or_default();
        // Nothing but this system runs on the gateways yet.
        let pids = Side::BOTH.map(|side| self.topology.gateway(side).pids());
        Ok(Live {
            topology: self.topology,
            start_up,
            starts: self.starts,
            mtu: self.mtu,
            configuration: self.configuration,
            pids,
            meter,
            parts: self.parts,
            _folder: self.folder,
        })
    }

    fn wait_for_answers(&mut self) -> Result<(), LabError> {
        let from = self.topology.end(Side::Left).clone();
        for number in 0..self.topology.ways.len() {
            let way = self.topology.ways[number];
            let (source, drain) = (way.source.to_string(), way.drain.to_string());
            let what = format!("{drain} to answer {source} through tunnel {}", way.number);
            // Before its interface is there, a tunnel is not even asked.
            let answer = wait_for(&what, ANSWER_LIMIT, || {
                let mut command = from.command("ping");
                command.args(["-n", "-q", "-c", "1", "-i", "0.01", "-w", "10", "-I", &source, &drain]);
                let answered = run(&mut command, LIMIT)?.status.success();
                // What has ended says more than that nobody answers.
                self.parts.check()?;
                Ok(answered.then_some(()))
            });
            answer.map_err(|error| match error {
                LabError::TimedOut { what, after } => {
                    LabError::TimedOut { what: format!("{what}; they said:\n{}", self.parts.log()), after }
                }
                other => other,
            })?;
        }
        Ok(())
    }
}

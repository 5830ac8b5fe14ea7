//! A step: something that `up` does, and that `down` or a failure takes back.
//!
//! Each has a line that says what it does, as a person would type it. It is applied once, and notes in itself what undoing it needs. Undoing
//! is right for a step that was never applied, was applied in part, or is undone already.
//!
//! What is with the interface (its addresses, routes, keys) goes with it: only the first step, [`Link`], has to take that away.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::attend::Attend;
use super::configure::{Configure, ConfigureError, Mark};
use super::dns::{Dns, DnsError};
use super::firewall::{FirewallError, KillSwitch, LeakTable};
use super::hook::{Hook, HookError, When};
use super::link::{Link, LinkError};
use super::network::{Activate, Addresses, NetworkError, Routes, Rule};
use super::policy::{Policy, PolicyError};
use super::sysctl::{SourceValidMark, SysctlError};
use crate::attend::AttendError;

/// A step.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// The interface is made, and put where it belongs.
    Link(Link),
    /// It is given rules that say what may pass.
    Policy(Policy),
    /// It is given its keys and peers.
    Configure(Configure),
    /// It is given an address.
    Addresses(Addresses),
    /// It is given an MTU, and set up.
    Activate(Activate),
    /// Its own datagrams are marked.
    Mark(Mark),
    /// Routes lead to it.
    Routes(Routes),
    /// A rule chooses among tables.
    Rule(Rule),
    /// A process attends to it.
    Attend(Attend),
    /// Names are asked of its servers.
    Dns(Dns),
    /// The mark of a datagram counts when its answer is looked at.
    SourceValidMark(SourceValidMark),
    /// Its addresses are out of others' reach, and its mark is kept.
    LeakTable(LeakTable),
    /// Nothing leaves by another way.
    KillSwitch(KillSwitch),
    /// A command of the file's is run.
    Hook(Hook),
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum StepError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Configure(#[from] ConfigureError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Attend(#[from] AttendError),
    #[error(transparent)]
    Dns(#[from] DnsError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error("cannot write the journal {path}: {source}", path = super::journal::FOLDER)]
    Journal { source: std::io::Error },
    #[error("interrupted")]
    Interrupted,
    #[error("it was to fail here")]
    Injected,
}

/// What the steps of one interface share while they are applied or undone.
pub struct Stage {
    /// The interface.
    pub interface: String,
    /// The namespace in which the command was given, where the sockets of the device stay. The thread itself is in that of the interface
    /// once there is one.
    pub home: OwnedFd,
    /// Whether somebody has interrupted.
    pub interrupted: Arc<AtomicBool>,
    /// Where the peers are, known once the device is configured.
    pub endpoints: Vec<SocketAddr>,
    /// The mark of the device's own datagrams; 0 for none.
    pub mark: u32,
    /// The UDP port that the file has; 0 for any.
    pub port: u16,
}

impl Stage {
    /// Fails once somebody has interrupted.
    pub fn check(&self) -> Result<(), StepError> {
        if self.interrupted.load(Ordering::Relaxed) { Err(StepError::Interrupted) } else { Ok(()) }
    }
}

impl Step {
    /// What it does, in lines as a person would type them.
    pub fn describe(&self) -> Vec<String> {
        match self {
            Step::Link(step) => step.describe(),
            Step::Policy(step) => vec![step.describe()],
            Step::Configure(step) => vec![step.describe()],
            Step::Addresses(step) => step.describe(),
            Step::Activate(step) => vec![step.describe()],
            Step::Mark(step) => vec![step.describe()],
            Step::Routes(step) => step.describe(),
            Step::Rule(step) => vec![step.describe()],
            Step::Attend(step) => vec![step.describe()],
            Step::Dns(step) => vec![step.describe()],
            Step::SourceValidMark(step) => vec![step.describe()],
            Step::LeakTable(step) => vec![step.describe()],
            Step::KillSwitch(step) => vec![step.describe()],
            Step::Hook(step) => vec![step.describe()],
        }
    }

    /// Notes what undoing it will need, before anything is done.
    pub fn prepare(&mut self) -> Result<(), StepError> {
        match self {
            Step::Rule(step) => step.prepare()?,
            Step::SourceValidMark(step) => step.prepare()?,
            _ => {}
        }
        Ok(())
    }

    /// Does it.
    pub fn apply(&mut self, stage: &mut Stage) -> Result<(), StepError> {
        match self {
            Step::Link(step) => step.apply()?,
            Step::Policy(step) => step.apply()?,
            Step::Configure(step) => step.apply(stage)?,
            Step::Addresses(step) => step.apply()?,
            Step::Activate(step) => step.apply(stage)?,
            Step::Mark(step) => step.apply()?,
            Step::Routes(step) => step.apply(stage)?,
            Step::Rule(step) => step.apply()?,
            Step::Attend(step) => step.apply(stage)?,
            Step::Dns(step) => step.apply()?,
            Step::SourceValidMark(step) => step.apply()?,
            Step::LeakTable(step) => step.apply()?,
            Step::KillSwitch(step) => step.apply()?,
            Step::Hook(step) => step.apply()?,
        }
        Ok(())
    }

    /// Takes it back.
    pub fn undo(&self, stage: &Stage) -> Result<(), StepError> {
        match self {
            Step::Link(step) => step.undo(stage)?,
            Step::Rule(step) => step.undo()?,
            Step::Attend(step) => step.undo()?,
            Step::Dns(step) => step.undo()?,
            Step::SourceValidMark(step) => step.undo()?,
            Step::LeakTable(step) => step.undo()?,
            Step::KillSwitch(step) => step.undo()?,
            // What it has done is for another hook to undo.
            Step::Hook(_) => {}
            // They go with the interface.
            Step::Policy(_)
            | Step::Configure(_)
            | Step::Addresses(_)
            | Step::Activate(_)
            | Step::Mark(_)
            | Step::Routes(_) => {}
        }
        Ok(())
    }

    /// Whether both do the same, whatever they have noted when they were applied. Only what may be there as long as the interface is can be the same.
    pub fn same(&self, other: &Step) -> bool {
        match (self, other) {
            (Step::Rule(step), Step::Rule(other)) => step.v6 == other.v6 && step.mark == other.mark,
            (Step::Dns(step), Step::Dns(other)) => step.same(other),
            (Step::SourceValidMark(_), Step::SourceValidMark(_)) => true,
            (Step::LeakTable(step), Step::LeakTable(other)) => step.same(other),
            (Step::KillSwitch(step), Step::KillSwitch(other)) => step.same(other),
            _ => false,
        }
    }

    /// Whether applying it puts it into the place of the other, which need not be undone.
    pub fn replaces(&self, other: &Step) -> bool {
        match (self, other) {
            (Step::Dns(step), Step::Dns(other)) => step.replaces(other),
            (Step::LeakTable(step), Step::LeakTable(other)) => step.replaces(other),
            (Step::KillSwitch(_), Step::KillSwitch(_)) => true,
            _ => false,
        }
    }

    /// Whether it is done inside of the namespace that the interface is put into.
    pub fn is_inside(&self) -> bool {
        match self {
            Step::Link(_) => false,
            Step::Attend(step) => step.is_inside(),
            // There is no interface yet, which could be anywhere.
            Step::Hook(hook) => hook.when != When::PreUp,
            // The file is in a folder that has the namespace's name.
            Step::Dns(_) => false,
            _ => true,
        }
    }

    /// Whether `down` takes it back when the interface is gone: what keeps traffic from going astray stays until then.
    pub fn outlives_link(&self) -> bool {
        matches!(self, Step::LeakTable(_) | Step::KillSwitch(_))
    }

    /// Whether a failure does not take it back: it was there before.
    pub fn outlives_failure(&self) -> bool {
        matches!(self, Step::KillSwitch(switch) if switch.stood())
    }
}

//! Keys and peers once more: for a daemon that has taken over an interface which is up. And its attendant, which has ended with the service.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::net::sockopt::socket_peercred;
use rustix::process::{Signal, kill_process};

use linux::heir::{self, Heritage};
use linux::rt::Rt;
use linux::{netns, unix};

use super::configure::{Configure, Endpoints, Mark};
use super::engine::Engine;
use super::error::QuickError;
use super::journal::{FOLDER, Journal};
use super::link::{Link, open_netns};
use super::place::Place;
use super::said::Said;
use super::step::{Stage, Step, StepError};
use crate::attend::{Duties, Name};
use crate::difference::Known;
use crate::error::Error;

/// How long what was left may take to go, once it has ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gives the device of `journal` the keys and peers that its file has now, and the mark that it had. What belongs to the interface itself is left
/// as it is. Names that are not known and cannot be resolved are tried again until it is `interrupted`.
pub fn configure_again(journal: &mut Journal, interrupted: &Arc<AtomicBool>) -> Result<(), Error> {
    configure_from(journal, &Known::new(), interrupted)
}

/// The same for a device that may know better where its peers are, but for those of which the file said something else `before`.
fn configure_from(journal: &mut Journal, before: &Known, interrupted: &Arc<AtomicBool>) -> Result<(), Error> {
    let quick = place(journal)?.read()?;
    let interface = journal.interface.clone();
    let again = |source: StepError| QuickError::Again { interface: interface.clone(), source: Box::new(source) };
    let mut stage = stage(&interface, interrupted)?;
    let names = Duties::names(&quick.device);
    let known = journal.steps.iter().find_map(|step| match step {
        Step::Configure(configure) => Some(&configure.endpoints),
        _ => None,
    });
    let none = Endpoints::new();
    let mut configure = Configure::new(&interface, &journal.file.to_string_lossy(), quick.device);
    // The rules first, as `up` did it: what has no keys lets nothing pass.
    for step in &journal.steps {
        if let Step::Policy(policy) = step {
            policy.apply().map_err(|error| again(error.into()))?;
        }
    }
    let left_out =
        configure.apply_known(known.unwrap_or(&none), before, &mut stage).map_err(|error| again(error.into()))?;
    configure.apply_unchanged(left_out.unchanged).map_err(|error| again(error.into()))?;
    for step in &journal.steps {
        if let Step::Mark(noted) = step {
            let mut mark = Mark { interface: interface.clone(), mark: noted.mark };
            mark.apply().map_err(|error| again(error.into()))?;
        }
    }
    configure.apply_late(left_out.unknown, &stage).map_err(|error| again(error.into()))?;
    for step in &mut journal.steps {
        if let Step::Configure(noted) = step {
            noted.endpoints = std::mem::take(&mut configure.endpoints);
        }
    }
    journal.write().map_err(|source| QuickError::Journal { path: FOLDER.into(), source })?;
    attend(journal, &stage, &names)
}

/// Whether the daemon of this interface has died, and what it left is kept for another one.
pub fn is_orphan(journal: &Journal) -> bool {
    journal.engine == Engine::Ebpf && is_kept(&journal.interface)
}

/// Whether nobody answers for an interface, but somebody keeps what its daemon has left.
pub fn is_kept(interface: &str) -> bool {
    let answers = UnixStream::connect(unix::socket_path(interface)).is_ok();
    // Who kept it may be dead too, and its socket is all that there is.
    !answers && Heritage::find(&heir::path(interface)).is_ok_and(|left| left.is_some())
}

/// Starts a daemon that carries on with what one that died has left. All else that belongs to the interface is there. False if that has just ended, and
/// the interface with it.
pub fn carry_on(journal: &mut Journal, interrupted: &Arc<AtomicBool>) -> Result<bool, Error> {
    let link = Link::new(&journal.interface, journal.engine, journal.netns.as_deref());
    let policy = journal.steps.iter().find_map(|step| match step {
        Step::Policy(policy) => Some(policy.file.as_path()),
        _ => None,
    });
    if let Err(error) = link.run_as_successor(policy) {
        let start = Instant::now();
        // Who kept it says that it has ended a moment before the interface goes.
        while !is_orphan(journal) && start.elapsed() < PATIENCE {
            if !has_link(journal) {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let interface = journal.interface.clone();
        return Err(QuickError::Again { interface, source: Box::new(error.into()) }.into());
    }
    let before = Said::before(&journal.interface).map(|said| said.known()).unwrap_or_default();
    configure_from(journal, &before, interrupted).map(|()| true).inspect_err(|_| let_die(&journal.interface))
}

/// Ends a daemon that carries on with something and could not be configured, as the one before it ended: what was left is kept again, and the next `up`
/// finds it as this one did. Alive it would be an interface that is up already, without keys.
fn let_die(interface: &str) {
    let daemon =
        UnixStream::connect(unix::socket_path(interface)).ok().and_then(|stream| socket_peercred(&stream).ok());
    if let Some(daemon) = daemon
        && let Err(error) = kill_process(daemon.pid, Signal::KILL)
    {
        eprintln!("wireloom: {interface}: its daemon cannot be ended: {error}");
    }
}

/// Whether the kernel still has the interface, where it was put.
pub fn has_link(journal: &Journal) -> bool {
    let look = || Ok(Rt::open()?.link(&journal.interface).is_ok_and(|link| link.is_some()));
    let there = match &journal.netns {
        Some(netns) => open_netns(netns).and_then(|there| netns::run_in(there.as_fd(), look)),
        None => look(),
    };
    there.unwrap_or(false)
}

/// Has the kernel's interface attended to again. It has itself never ended.
pub fn attend_again(journal: &Journal, interrupted: &Arc<AtomicBool>) -> Result<(), Error> {
    if !journal.steps.iter().any(|step| matches!(step, Step::Attend(_))) {
        return Ok(());
    }
    let names = Duties::names(&place(journal)?.read()?.device);
    attend(journal, &stage(&journal.interface, interrupted)?, &names)
}

fn attend(journal: &Journal, stage: &Stage, names: &[Name]) -> Result<(), Error> {
    for step in &journal.steps {
        let Step::Attend(noted) = step else { continue };
        let started = match &journal.netns {
            Some(name) if step.is_inside() => {
                let there = open_netns(name).map_err(|source| QuickError::Netns { name: name.clone(), source })?;
                netns::run_in(there.as_fd(), || Ok(noted.again(stage, names))).map_err(Error::Links)?
            }
            _ => noted.again(stage, names),
        };
        let interface = journal.interface.clone();
        started.map_err(|error| QuickError::Again { interface, source: Box::new(error.into()) })?;
    }
    Ok(())
}

fn place(journal: &Journal) -> Result<Place, Error> {
    Ok(Place { interface: super::interface_of_word(&journal.interface)?, file: journal.file.clone() })
}

fn stage(interface: &str, interrupted: &Arc<AtomicBool>) -> Result<Stage, Error> {
    let home = netns::current().map_err(Error::Links)?;
    let (interface, interrupted) = (interface.to_owned(), Arc::clone(interrupted));
    Ok(Stage { interface, home, interrupted, endpoints: Vec::new(), mark: 0, port: 0 })
}

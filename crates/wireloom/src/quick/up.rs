//! `wireloom up`.

use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use config::quick::Quick;
use linux::netns;
use linux::rt::Rt;

use super::again;
use super::engine::{self, Choice, Engine, Wish};
use super::error::QuickError;
use super::journal::{self, Journal, Lock};
use super::link::{Starter, open_netns};
use super::machine::{self, Facts};
use super::network::NetworkError;
use super::place::Place;
use super::plan::{self, Options};
use super::reload;
use super::resolv_conf;
use super::step::{Stage, Step, StepError};
use super::undo::{self, Order};
use crate::error::Error;
use crate::metrics::Place as Metrics;
use crate::policy;
use crate::resolve::{Resolver, resolve_once};
use crate::service;

/// What to bring up, and how.
#[derive(Args)]
pub struct UpArgs {
    /// The interface, whose file is /etc/wireguard/NAME.conf, or a file
    #[arg(value_name = "NAME|FILE")]
    pub what: String,
    /// Whose WireGuard moves the packets; our own, if not said
    #[arg(long, value_name = "ENGINE", value_enum)]
    pub engine: Option<Wish>,
    /// The network namespace to put the interface into, as `ip netns` names it; its sockets stay in this one
    #[arg(long, value_name = "NAME")]
    pub netns: Option<String>,
    /// Stay, and take the interface down on SIGINT or SIGTERM; for service managers
    #[arg(short, long, conflicts_with = "dry_run")]
    pub foreground: bool,
    /// Wipe session keys before the machine sleeps: logind tells, and waits for it
    #[arg(long)]
    pub wipe_on_suspend: bool,
    /// Serve metrics for Prometheus, at a port of the loopback (9586), an address (192.0.2.1:9586) or a socket (unix:/PATH)
    #[arg(long, value_name = "PORT|ADDRESS|unix:PATH")]
    pub metrics: Vec<Metrics>,
    /// Let nothing leave this machine but through the tunnel, until `wireloom down`, even if the tunnel ends
    #[arg(long)]
    pub kill_switch: bool,
    /// The file with the rules that say what may pass, as `wireloom policy` takes it
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Fail before this step, counted from 1; for tests
    #[arg(long, value_name = "N", hide = true)]
    pub fail_at: Option<usize>,
}

impl UpArgs {
    /// The engine that is asked for: here, or else in the file, or else by the environment.
    fn wish(&self, quick: Option<&Quick>) -> Result<Option<Wish>, QuickError> {
        match self.engine.or_else(|| quick?.engine.map(Wish::from)) {
            None => Wish::of_environment(),
            wish => Ok(wish),
        }
    }

    fn options(&self, choice: &Choice) -> Options {
        Options {
            engine: choice.engine,
            netns: self.netns.clone(),
            wipe_on_suspend: self.wipe_on_suspend,
            metrics: self.metrics.clone(),
            kill_switch: self.kill_switch,
            // As it is found from anywhere; a path that cannot be made one is told of when it is read.
            policy: self.policy.as_deref().map(|file| std::path::absolute(file).unwrap_or_else(|_| file.to_owned())),
        }
    }

    /// Whether the interface that `journal` tells of was brought up from the same file and with the same options.
    pub fn match_those_of(&self, journal: &Journal) -> bool {
        let Ok(place) = Place::find(&self.what) else { return false };
        let quick = place.read().ok();
        let choice = self.wish(quick.as_ref()).and_then(|wish| Choice::make(wish, engine::kernel_has_one)).ok();
        let options = choice.map(|choice| self.options(&choice));
        options.is_some() && options == journal.options && place.file == journal.file
    }
}

/// Brings an interface up, wholly or not at all; and stays, if that is asked for.
pub fn up(args: &UpArgs) -> Result<(), Error> {
    if args.foreground { service::run(args) } else { bring_up(args, None) }
}

/// Brings an interface up. A daemon is started by `starter`, if there is one.
pub fn bring_up(args: &UpArgs, starter: Option<Starter>) -> Result<(), Error> {
    let place = Place::find(&args.what)?;
    let quick = place.read()?;
    quick.check().map_err(|error| Error::File {
        path: place.file.clone(),
        line: error.line,
        problem: error.problem,
    })?;
    let interface = place.interface.to_string();
    let home = netns::current().map_err(Error::Links)?;
    let inside = args.netns.as_deref().map(open).transpose()?;
    let choice = Choice::make(args.wish(Some(&quick))?, engine::kernel_has_one)?;
    let options = args.options(&choice);
    if let Some(file) = &options.policy {
        if choice.engine == Engine::Kernel {
            return Err(QuickError::NoPolicy.into());
        }
        // What is wrong with it is told before anything is done.
        policy::read(file)?;
    }
    if args.dry_run {
        let facts = look(&quick, inside.as_ref(), true)?;
        let mut text = format!("# {interface}: {choice}\n");
        for step in plan::up(&place, quick, &options, &facts) {
            say(&step, args.netns.as_deref(), |line| text += &format!("{line}\n"));
        }
        return std::io::stdout().write_all(text.as_bytes()).map_err(Error::Output);
    }
    privileged("up")?;
    let interrupted = watch()?;
    let _lock = Lock::take(&interface)?;
    if starter.is_none()
        && let Some(mut journal) = Journal::read(&interface)?
        && Some(journal.home) == journal::numbers(&home).ok()
        && again::is_orphan(&journal)
        && args.match_those_of(&journal)
    {
        eprintln!("wireloom: {interface}: its daemon has ended; another one carries on");
        if again::carry_on(&mut journal, &interrupted)? {
            // What has changed in the file meanwhile, of all that is around the device.
            return reload::follow(&place, quick, false);
        }
        eprintln!("wireloom: {interface}: what it had left has ended meanwhile; all is made anew");
    }
    let keep = |journal: &Journal| args.kill_switch && journal.netns == args.netns;
    let kept = clear(&interface, &home, inside.as_ref(), keep)?;
    let facts = look(&quick, inside.as_ref(), false)?;
    eprintln!("wireloom: {interface}: {choice}");
    let mut steps = plan::up(&place, quick, &options, &facts);
    for step in &mut steps {
        if let Step::Link(link) = step {
            link.starter = starter.clone();
        }
    }
    let home_numbers = journal::numbers(&home).map_err(Error::Links)?;
    let mut stage = Stage { interface: interface.clone(), home, interrupted, endpoints: Vec::new(), mark: 0, port: 0 };
    let mut journal = Journal {
        interface,
        file: place.file,
        engine: choice.engine,
        netns: options.netns.clone(),
        home: home_numbers,
        options: Some(options),
        steps: kept.into_iter().collect(),
    };
    apply(steps, &mut journal, &mut stage, args.fail_at)
}

/// How often a step is tried again that others come in the way of.
const TRIES: usize = 100;

/// Applies the steps, or none of them.
fn apply(steps: Vec<Step>, journal: &mut Journal, stage: &mut Stage, fail_at: Option<usize>) -> Result<(), Error> {
    let netns = journal.netns.clone();
    let mut done = Ok(());
    for (at, step) in steps.into_iter().enumerate() {
        let what = step.describe().first().cloned().unwrap_or_default();
        done = one(step, journal, stage, fail_at == Some(at + 1), netns.as_deref()).map_err(|source| (what, source));
        if done.is_err() {
            break;
        }
    }
    // Interrupted in the last step.
    let done = done.and_then(|()| stage.check().map_err(|source| (stage.interface.clone(), source)));
    let Err((what, source)) = done else { return Ok(()) };
    // One of many in a step says itself which it is.
    let what =
        if matches!(source, StepError::Network(NetworkError::One { .. })) { stage.interface.clone() } else { what };
    if let Err(error) = undo::all(journal, stage, Order::Reverse) {
        eprintln!("wireloom: {error}");
    }
    Err(QuickError::Step { what, source: Box::new(source) }.into())
}

fn one(step: Step, journal: &mut Journal, stage: &mut Stage, fail: bool, netns: Option<&str>) -> Result<(), StepError> {
    stage.check()?;
    if fail {
        return Err(StepError::Injected);
    }
    say(&step, netns, |line| eprintln!("[#] {line}"));
    let at = journal.steps.len();
    journal.steps.push(step);
    carry_out(journal, at, stage)
}

/// Applies the step of a journal that is at this place, which is in the file with all that undoing it takes before anything is done.
pub fn carry_out(journal: &mut Journal, at: usize, stage: &mut Stage) -> Result<(), StepError> {
    let written = |journal: &Journal| journal.write().map_err(|source| StepError::Journal { source });
    let mut tries = 0;
    let applied = loop {
        journal.steps[at].prepare()?;
        written(journal)?;
        match journal.steps[at].apply(stage) {
            // Another that is brought up at the same time was faster.
            Err(StepError::Network(NetworkError::Taken)) if tries < TRIES => tries += 1,
            applied => break applied,
        }
    };
    // Also when it failed: a part of it may have been done.
    let noted = written(journal);
    applied.and(noted)
}

/// Says what a step does, as it would be typed here.
pub fn say(step: &Step, netns: Option<&str>, mut line: impl FnMut(&str)) {
    for text in step.describe() {
        match netns {
            Some(netns) if step.is_inside() => line(&format!("ip netns exec {netns} {text}")),
            _ => line(&text),
        }
    }
}

/// Fails for who may not do it anyway, before anything is tried.
pub fn privileged(command: &'static str) -> Result<(), QuickError> {
    use linux::capabilities::CapabilitySet;
    let effective = rustix::thread::capabilities(None).map(|sets| sets.effective);
    let may = effective.is_ok_and(|effective| effective.contains(CapabilitySet::NET_ADMIN));
    if may { Ok(()) } else { Err(QuickError::NotRoot(command)) }
}

/// A namespace by its name.
pub fn open(name: &str) -> Result<OwnedFd, QuickError> {
    open_netns(name).map_err(|source| QuickError::Netns { name: name.to_owned(), source })
}

/// Notices interrupts from here on, instead of ending by them.
fn watch() -> Result<Arc<AtomicBool>, QuickError> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).map_err(QuickError::Signals)?;
    }
    Ok(interrupted)
}

/// Sees to it that nothing is there of that name: what an interface has left that ended otherwise is taken back, but for a kill switch where there is to be one
/// again in the same place, so that there is no moment without it.
fn clear(
    interface: &str,
    home: &OwnedFd,
    inside: Option<&OwnedFd>,
    keep: impl Fn(&Journal) -> bool,
) -> Result<Option<Step>, Error> {
    let journal = Journal::read(interface)?;
    let here = journal::numbers(home).map_err(Error::Links)?;
    if journal.as_ref().is_some_and(|journal| journal.home != here) {
        return Err(QuickError::Elsewhere(interface.to_owned()).into());
    }
    let put = journal.as_ref().and_then(|journal| journal.netns.as_deref()).and_then(|netns| open_netns(netns).ok());
    for place in [Some(home), inside, put.as_ref()].into_iter().flatten() {
        let there = netns::run_in(place.as_fd(), || Ok(Rt::open()?.link(interface)));
        if there.map_err(Error::Links)?.map_err(QuickError::Look)?.is_some() {
            return Err(match journal {
                Some(_) => QuickError::IsUp(interface.to_owned()),
                None => QuickError::Exists(interface.to_owned()),
            }
            .into());
        }
    }
    let mut kept = None;
    if let Some(mut journal) = journal {
        eprintln!("wireloom: {interface} has ended without `wireloom down`: what it has left is taken back first");
        let mut stage = Stage {
            interface: interface.to_owned(),
            home: home.try_clone().map_err(Error::Links)?,
            interrupted: Arc::default(),
            endpoints: Vec::new(),
            mark: 0,
            port: 0,
        };
        if keep(&journal) {
            kept = journal.keep_kill_switch();
        }
        undo_there(&mut journal, &mut stage)?;
        if let Some(step) = kept {
            journal.steps = vec![step];
            let failed = |source| QuickError::Journal { path: journal::FOLDER.into(), source };
            journal.write().map_err(failed)?;
            kept = journal.steps.pop();
        }
    }
    // Names are asked for before the tunnel is there: by servers that only a tunnel leads to, they never are.
    let is_up = |interface: &str| !matches!(Journal::read(interface), Ok(None));
    resolv_conf::bring_back_lost(Path::new(resolv_conf::FILE), is_up).map_err(QuickError::Names)?;
    Ok(kept)
}

/// Takes a journal back from inside of its namespace, in a thread of its own. A namespace that is gone took all with it.
fn undo_there(journal: &mut Journal, stage: &mut Stage) -> Result<(), Error> {
    let place = match journal.netns.as_deref().map(open_netns) {
        Some(Ok(place)) => place,
        Some(Err(_)) => {
            journal.steps.retain(|step| !step.is_inside());
            stage.home.try_clone().map_err(Error::Links)?
        }
        None => stage.home.try_clone().map_err(Error::Links)?,
    };
    let stage = &*stage;
    let left =
        netns::run_in(place.as_fd(), || Ok(undo::all(journal, stage, Order::LinkFirst))).map_err(Error::Links)??;
    if left > 0 {
        return Err(QuickError::Left { interface: journal.interface.clone(), left }.into());
    }
    Ok(())
}

/// The facts: of the table where the routes will be, of the ways to the endpoints here.
fn look(quick: &Quick, inside: Option<&OwnedFd>, names: bool) -> Result<Facts, Error> {
    let mut rt = Rt::open().map_err(Error::Links)?;
    let endpoints: Vec<SocketAddr> = quick
        .device
        .peers
        .iter()
        .filter_map(|peer| peer.endpoint.as_ref())
        .filter_map(|endpoint| if names { resolve_once(endpoint) } else { Resolver::literal(endpoint) })
        .collect();
    let mark = quick.device.fwmark.unwrap_or(0);
    let path_mtu = machine::path_mtu(&mut rt, &endpoints, mark).map_err(QuickError::Look)?;
    let free_table = match inside {
        Some(inside) => {
            netns::run_in(inside.as_fd(), || Ok(machine::free_table(&mut Rt::open()?))).map_err(Error::Links)?
        }
        None => machine::free_table(&mut rt),
    };
    Ok(Facts { free_table: free_table.map_err(QuickError::Look)?, path_mtu })
}

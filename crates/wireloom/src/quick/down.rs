//! `wireloom down`.

use std::os::fd::AsFd;
use std::sync::Arc;

use clap::Args;
use config::device::Device;
use config::quick::Quick;
use inet::Cidr;
use linux::netns;
use linux::rt::Rt;

use super::again;
use super::engine::Engine;
use super::error::QuickError;
use super::firewall::KillSwitch;
use super::hook::When;
use super::journal::{self, Journal, Lock};
use super::link::open_netns;
use super::place::{self, Place};
use super::plan;
use super::save;
use super::step::{Stage, Step};
use super::undo::{self, Order};
use super::up::{open, privileged, say};
use crate::attend;
use crate::client;
use crate::error::Error;

/// What to take down.
#[derive(Args)]
pub struct DownArgs {
    /// The interface, whose file is /etc/wireguard/NAME.conf, or a file
    #[arg(value_name = "NAME|FILE")]
    pub what: String,
    /// The network namespace that the interface is in, if it was not `wireloom up` that put it there
    #[arg(long, value_name = "NAME")]
    pub netns: Option<String>,
}

/// How an interface is taken down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manner {
    /// A hook that fails, or a file that cannot be written, stops nothing: the interface goes in any case. It is told at the end.
    pub regardless: bool,
    /// Its kill switch stands on.
    pub keep_kill_switch: bool,
}

/// Takes an interface down, and with it all that belongs to it.
pub fn down(args: &DownArgs) -> Result<(), Error> {
    take_down(args, Manner::default())
}

/// Takes an interface down, in some manner.
pub fn take_down(args: &DownArgs, manner: Manner) -> Result<(), Error> {
    let interface = place::interface_of_word(&args.what)?.to_string();
    privileged("down")?;
    let _lock = Lock::take(&interface)?;
    let home = netns::current().map_err(Error::Links)?;
    let noted = Journal::read(&interface)?;
    if noted.as_ref().is_some_and(|journal| Some(journal.home) != journal::numbers(&home).ok()) {
        return Err(QuickError::Elsewhere(interface).into());
    }
    let place = find(&args.what, noted.as_ref())?;
    let quick = match place.as_ref().map(Place::read).transpose() {
        // What was noted is enough for all but what the file alone knows.
        Err(error) if noted.is_some() => {
            eprintln!("wireloom: no hooks are run, and nothing is saved: {error}");
            Some(Quick::default())
        }
        read => read?,
    };
    let put = noted.as_ref().and_then(|journal| journal.netns.clone()).or_else(|| args.netns.clone());
    match (&put, &noted) {
        (None, _) => {}
        (Some(netns), None) => netns::enter(open(netns)?.as_fd()).map_err(Error::Links)?,
        // Where it is gone, all that was in it is, too.
        (Some(netns), Some(_)) => {
            if let Ok(there) = open_netns(netns) {
                netns::enter(there.as_fd()).map_err(Error::Links)?;
            }
        }
    }
    let device = client::get(&interface);
    let answers = device.is_ok();
    // It is, too, where its daemon has died and others keep it.
    let is_there = answers || Rt::open().is_ok_and(|mut rt| rt.link(&interface).is_ok_and(|link| link.is_some()));
    let is_left = !answers && is_there && again::is_kept(&interface);
    let mut journal = match (noted, device) {
        (Some(journal), _) => journal,
        (None, Err(_)) if !is_left => return switch_off(interface),
        (None, device) => {
            // Of one that was left nobody can ask anything more; but nobody has noted rules of it either.
            let (mark, networks) = device.map(|device| (device.fwmark, networks_of(&device))).unwrap_or_default();
            let engine = if linux::unix::socket_path(&interface).exists() { Engine::Userspace } else { Engine::Kernel };
            Journal {
                interface: interface.clone(),
                file: place.as_ref().map(|place| place.file.clone()).unwrap_or_default(),
                engine,
                netns: put.clone(),
                home: journal::numbers(&home).map_err(Error::Links)?,
                options: None,
                steps: plan::derived(
                    &interface,
                    engine,
                    put.as_deref(),
                    quick.as_ref().unwrap_or(&Quick::default()),
                    mark,
                    &networks,
                ),
            }
        }
    };
    let quick = quick.unwrap_or_else(|| {
        eprintln!("wireloom: {} is not there any more: no hooks are run", journal.file.display());
        Quick::default()
    });
    let mut stage = Stage {
        interface: interface.clone(),
        home,
        interrupted: Arc::default(),
        endpoints: Vec::new(),
        mark: 0,
        port: 0,
    };
    // Without the interface its commands would fail, and what is left could not be taken down.
    let before = match &place {
        Some(place) if is_there => before_the_end(place, &quick, &mut stage, answers),
        _ => Ok(()),
    };
    if before.is_err() && !manner.regardless {
        return before;
    }
    let kept = if manner.keep_kill_switch { journal.keep_kill_switch() } else { None };
    let left = undo::all(&mut journal, &stage, Order::LinkFirst)?;
    // Whoever started one, or killed it: without the interface it has nothing to attend to.
    let unattended = attend::end(&interface);
    if let Some(kept) = kept {
        journal.steps.insert(0, kept);
        journal.write().map_err(|source| QuickError::Journal { path: journal::FOLDER.into(), source })?;
    }
    if let Some(place) = &place {
        run(plan::hooks(place, When::PostDown, &quick.post_down), &mut stage)?;
    }
    if left > 0 {
        return Err(QuickError::Left { interface, left }.into());
    }
    unattended?;
    before
}

fn networks_of(device: &Device) -> Vec<Cidr> {
    device.peers.iter().flat_map(|peer| peer.allowed_ips.iter().copied()).collect()
}

/// What the file wants while the interface is still there, whether its device `answers` or not.
fn before_the_end(place: &Place, quick: &Quick, stage: &mut Stage, answers: bool) -> Result<(), Error> {
    run(plan::hooks(place, When::PreDown, &quick.pre_down), stage)?;
    if quick.save_config && !answers {
        eprintln!("wireloom: {}: nothing is saved, since its daemon has ended", place.interface);
    } else if quick.save_config {
        eprintln!("[#] wireloom save {}", place.file.display());
        save::save_here(place, quick)?;
    }
    Ok(())
}

/// Runs hooks, up to one that fails.
fn run(hooks: Vec<Step>, stage: &mut Stage) -> Result<(), QuickError> {
    for mut hook in hooks {
        say(&hook, None, |line| eprintln!("[#] {line}"));
        let what = hook.describe().join("; ");
        hook.apply(stage).map_err(|source| QuickError::Hook { what, source: Box::new(source) })?;
    }
    Ok(())
}

/// Of an interface of which nothing is known: there may still be its kill switch, which outlives everything else.
fn switch_off(interface: String) -> Result<(), Error> {
    // Where there is no nft there is none.
    if !KillSwitch::stands(&interface).unwrap_or(false) {
        return Err(QuickError::NotUp(interface).into());
    }
    let switch = KillSwitch::new(&interface, None).left_standing();
    let what = switch.describe();
    switch.undo().map_err(|source| QuickError::Hook { what, source: Box::new(source.into()) })?;
    Ok(())
}

/// The file: the one that is meant, or, by the name alone, the one that the interface was brought up from. None where that is gone.
pub fn find(word: &str, journal: Option<&Journal>) -> Result<Option<Place>, Error> {
    let noted = journal.filter(|journal| !journal.file.as_os_str().is_empty());
    let noted =
        |interface| noted.map(|journal| journal.file.exists().then(|| Place { interface, file: journal.file.clone() }));
    if place::is_bare(word)
        && let Some(found) = noted(place::interface_of_word(word)?)
    {
        return Ok(found);
    }
    match Place::find(word) {
        Err(Error::Quick(QuickError::NoFile { path, interface })) => match noted(place::interface_of_word(word)?) {
            Some(found) => Ok(found),
            None => Err(QuickError::NoFile { path, interface }.into()),
        },
        found => found.map(Some),
    }
}

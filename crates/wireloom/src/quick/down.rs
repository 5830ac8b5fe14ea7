//! `wireloom down`.

use std::os::fd::AsFd;
use std::sync::Arc;

use clap::Args;
use config::quick::{Quick, Table};
use inet::Cidr;
use linux::netns;

use super::engine::Engine;
use super::error::QuickError;
use super::journal::{self, Journal, Lock};
use super::link::open_netns;
use super::place::{self, Place};
use super::plan;
use super::step::Stage;
use super::undo::{self, Order};
use super::up::{open, privileged};
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

/// Takes an interface down, and with it all that belongs to it.
pub fn down(args: &DownArgs) -> Result<(), Error> {
    let interface = place::interface_of_word(&args.what)?.to_string();
    privileged("down")?;
    let _lock = Lock::take(&interface)?;
    let home = netns::current().map_err(Error::Links)?;
    let noted = Journal::read(&interface)?;
    if noted.as_ref().is_some_and(|journal| Some(journal.home) != journal::numbers(&home).ok()) {
        return Err(QuickError::Elsewhere(interface).into());
    }
    let place = find(&args.what, noted.as_ref())?;
    let quick = place.as_ref().map(Place::read).transpose()?;
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
    let mut journal = match (noted, device) {
        (Some(journal), _) => journal,
        (None, Err(_)) => return Err(QuickError::NotUp(interface).into()),
        (None, Ok(device)) => {
            let networks: Vec<Cidr> = device.peers.iter().flat_map(|peer| peer.allowed_ips.iter().copied()).collect();
            let engine = if linux::unix::socket_path(&interface).exists() { Engine::Userspace } else { Engine::Kernel };
            let table = quick.as_ref().map_or(Table::Auto, |quick| quick.table);
            Journal {
                interface: interface.clone(),
                file: place.as_ref().map(|place| place.file.clone()).unwrap_or_default(),
                engine,
                netns: put.clone(),
                home: journal::numbers(&home).map_err(Error::Links)?,
                steps: plan::derived(&interface, engine, put.as_deref(), table, device.fwmark, &networks),
            }
        }
    };
    let quick = quick.unwrap_or_else(|| {
        eprintln!("wireloom: {} is not there any more: no hooks are run", journal.file.display());
        Quick::default()
    });
    // PreDown, SaveConfig
    let _ = &quick.pre_down;
    let stage =
        Stage { interface: interface.clone(), home, interrupted: Arc::default(), endpoints: Vec::new(), mark: 0 };
    let left = undo::all(&mut journal, &stage, Order::LinkFirst)?;
    // PostDown
    if left > 0 { Err(QuickError::Left { interface, left }.into()) } else { Ok(()) }
}

/// The file: the one that is meant, or the one that the interface was brought up from. None where that is gone.
fn find(word: &str, journal: Option<&Journal>) -> Result<Option<Place>, Error> {
    match (Place::find(word), journal) {
        (Ok(place), _) => Ok(Some(place)),
        (Err(Error::Quick(QuickError::NoFile { .. })), Some(journal)) => {
            let interface = place::interface_of_word(word)?;
            Ok(journal.file.exists().then(|| Place { interface, file: journal.file.clone() }))
        }
        (Err(error), _) => Err(error),
    }
}

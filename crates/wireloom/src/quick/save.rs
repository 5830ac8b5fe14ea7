//! `wireloom strip`, and `wireloom save`: the file of an interface without what is not `wg`'s, and the interface written into its file.

use std::io::{self, Write};
use std::os::fd::AsFd;

use config::quick::{Address, Quick, strip as strip_text};
use config::save::{Running, Saved};
use linux::netns;
use linux::rt::Rt;

use super::down;
use super::error::QuickError;
use super::journal::Journal;
use super::link::open_netns;
use super::place::{self, Place};
use super::up::privileged;
use crate::client;
use crate::error::Error;
use crate::files::{self, Readers};
use crate::zones::SystemZones;

/// Prints the part of a file that `wireloom setconf` takes.
pub fn strip(what: &str) -> Result<(), Error> {
    let text = strip_text(&Place::find(what)?.text()?);
    let mut out = io::stdout().lock();
    out.write_all(&text).and_then(|()| out.flush()).map_err(Error::Output)
}

/// Writes what runs into the file.
pub fn save(what: &str) -> Result<(), Error> {
    privileged("save")?;
    let journal = Journal::read(place::interface_of_word(what)?.as_str())?;
    let place = match down::find(what, journal.as_ref())? {
        Some(place) => place,
        None => Place::find(what)?,
    };
    let quick = place.read()?;
    match journal.and_then(|journal| journal.netns) {
        None => save_here(&place, &quick),
        Some(name) => {
            let inside = open_netns(&name).map_err(|source| QuickError::Netns { name, source })?;
            netns::run_in(inside.as_fd(), || Ok(save_here(&place, &quick))).map_err(Error::Links)?
        }
    }
}

/// Writes what runs in this network namespace into the file, which says `quick` now. It is replaced as a whole, or stays what it is.
pub fn save_here(place: &Place, quick: &Quick) -> Result<(), Error> {
    let interface = place.interface.as_str();
    let device = client::get(interface)?;
    let mut rt = Rt::open().map_err(Error::Links)?;
    let link = rt.link(interface).map_err(QuickError::Look)?;
    let link = link.ok_or_else(|| QuickError::NotUp(interface.to_owned()))?;
    let addresses = rt.addresses(Some(link.index)).map_err(QuickError::Look)?;
    let addresses: Vec<Address> = addresses
        .into_iter()
        .map(|address| Address { ip: address.ip, len: address.len })
        // The kernel makes one itself, which nobody wrote.
        .filter(|address| quick.addresses.contains(address) || !is_link_local(address))
        .collect();
    let old = place.text()?;
    let running = Running { addresses: &addresses, mtu: link.mtu, device: &device, zones: &SystemZones::open() };
    let Saved { text, lost } = config::save::save(&old, quick, &running).map_err(Error::Output)?;
    let file = &place.file;
    files::replace(file, &text, Readers::Owner).map_err(|source| QuickError::Save { path: file.clone(), source })?;
    if lost > 0 {
        eprintln!("wireloom: {}: {lost} lines of comments went with the peers that they were about", file.display());
    }
    Ok(())
}

fn is_link_local(address: &Address) -> bool {
    matches!(address.ip, std::net::IpAddr::V6(ip) if ip.is_unicast_link_local())
}

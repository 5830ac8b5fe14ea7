//! What a daemon leaves to the next: its maps, with peers and sessions, and the programs in their places.
//!
//! The next one has its own programs, perhaps of a newer version, over the same maps. The old ones stay where they are, with the rules that they were
//! given, until somebody has said who the peers are; then the new ones take their places, one by one and with no moment between two of them. So it is, too,
//! where the maps are of another version, and the new ones have maps of their own: sessions end by that, and nothing else is different.

use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};
use std::{io, mem};

use linux::bpf::{Attached, Map};
use linux::heir::{Claim, Heritage};
use linux::steward::{self, Terms};
use noise::Ledger;
use noise::limits::REJECT_AFTER_TIME;

use crate::layout::{Device, LAYOUT};
use crate::maps::MapFds;
use crate::object::{Capacity, LoadError, Loaded, load, load_over};

/// What maps are kept as, each with its name.
const MAP: &str = "map-";

/// What an earlier daemon left, and a new one works with.
pub struct Left {
    pub(crate) places: Vec<Attached>,
    /// Whether it is the new one's already: if that fails before, nothing is to have changed.
    pub(crate) claim: Claim,
}

/// Leaves copies of the maps with the steward. What is put in a place is there anyway.
///
/// # Errors
/// The steward does not take one.
pub fn keep(loaded: &Loaded) -> io::Result<()> {
    let mut maps = MapFds::NAMES.iter().zip(&loaded.maps.all);
    maps.try_for_each(|(name, fd)| steward::keep(&format!("{MAP}{name}"), fd))
}

/// How the steward sees how old sessions are.
pub fn terms() -> Terms {
    let at = |name: &str| {
        let field = Ledger::FIELDS.iter().find(|(field, _)| *field == name);
        field.map_or(0, |(_, at)| *at as u32)
    };
    let (sessions, keys) = (format!("{MAP}ledgers"), format!("{MAP}keys"));
    Terms { sessions, keys, epoch_at: at("epoch"), created_at: at("created"), life: REJECT_AFTER_TIME }
}

/// Loads our programs over the maps that were left; or, where these are of no use, over new ones, but for the places of those that were left all the same.
///
/// # Errors
/// They cannot be loaded. Nothing has changed then.
pub fn take_over(object: &[u8], capacity: Capacity, heritage: &mut Heritage) -> Result<(Loaded, Left), LoadError> {
    let loaded = match over_maps(object, capacity, heritage) {
        Ok(loaded) => loaded,
        Err(error) => {
            log::warn!("the sessions of an earlier daemon are not taken over: {error}");
            load(object, capacity)?
        }
    };
    Ok((loaded, Left { places: mem::take(&mut heritage.places), claim: heritage.token() }))
}

/// An error where there are no maps, or of another version, or the programs do not fit them.
fn over_maps(object: &[u8], capacity: Capacity, heritage: &mut Heritage) -> Result<Loaded, LoadError> {
    let os = |what: &str| {
        let what = what.to_owned();
        move |source| LoadError::Os { what, source }
    };
    let mut all = Vec::new();
    for name in MapFds::NAMES {
        let missing = || io::Error::other(format!("there is no {name}"));
        all.push(heritage.remove(&format!("{MAP}{name}")).ok_or_else(missing).map_err(os("taking over maps"))?);
    }
    check_layout(&all[0]).map_err(os("taking over maps"))?;
    let maps =
        MapFds { all: all.try_into().map_err(|_| io::ErrorKind::NotFound.into()).map_err(os("taking over maps"))? };
    load_over(object, capacity, maps)
}

fn check_layout(device: &OwnedFd) -> io::Result<()> {
    let map = Map::from_fd(device.as_fd().try_clone_to_owned()?)?;
    let mut value = vec![0; map.sizes().1];
    map.lookup(&0u32.to_ne_bytes(), &mut value)?;
    let layout = value.get(offset_of!(Device, layout)..).and_then(|bytes| bytes.first_chunk());
    match layout.map(|bytes| u32::from_ne_bytes(*bytes)) {
        Some(LAYOUT) => Ok(()),
        other => Err(io::Error::other(format!("they are of layout {}, expected {LAYOUT}", other.unwrap_or(0)))),
    }
}

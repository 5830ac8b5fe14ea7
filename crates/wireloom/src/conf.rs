//! `setconf`, `addconf`, `syncconf`: configuration from a file.
//!
//! `setconf` replaces everything: what the file does not say is taken away. `addconf` changes what the file says and adds its
//! peers. `syncconf` ends where `setconf` does, but peers that stay keep their sessions: it asks the device first and
//! removes only those that the file does not have.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use config::device::{Device, DeviceChange, PeerChange};
use config::file;
use noise::PublicKey;
use zeroize::Zeroizing;

use crate::cli::ConfArgs;
use crate::client;
use crate::error::Error;
use crate::resolve::{Resolver, SystemServices};

/// The longest file that is read, in bytes: as long as the longest request.
const LONGEST: u64 = 256 << 20;

/// What becomes of what the file does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is taken away, and all peers start anew.
    Set,
    /// It stays.
    Add,
    /// It is taken away.
    Sync,
}

/// Configures an interface from a file.
pub fn apply(args: &ConfArgs, mode: Mode) -> Result<(), Error> {
    let text = read(&args.file)?;
    let file = file::parse(&text, &SystemServices).map_err(|error| Error::File {
        path: args.file.clone(),
        line: error.line,
        problem: error.problem,
    })?;
    for warning in &file.warnings {
        eprintln!("wireloom: {}:{}: {warning}", args.file.display(), warning.line);
    }
    let mut change = change(file, mode, &mut Resolver::default())?;
    if mode == Mode::Sync && !change.peers.is_empty() {
        sync(&mut change, &client::get(args.interface.as_str())?);
    }
    client::set(args.interface.as_str(), &change)
}

/// Reads a file that may hold keys.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Taken at once where the length is known, so that no copies of keys are left behind by a vector that grew.
    let len = file.metadata().map_err(failed)?.len().min(LONGEST);
    let room = usize::try_from(len).unwrap_or(0).max(64 * 1024) + 1;
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    file.take(LONGEST + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > LONGEST {
        return Err(Error::TooLong { path: path.to_owned(), limit: LONGEST });
    }
    Ok(text)
}

/// The change that makes a device what the file says, on the way of `setconf` or of `addconf`.
pub fn change(file: file::File, mode: Mode, resolver: &mut Resolver) -> Result<DeviceChange, Error> {
    let mut peers = Vec::with_capacity(file.peers.len());
    for from in file.peers {
        peers.push(PeerChange {
            preshared_key: from.preshared_key,
            endpoint: from.endpoint.map(|endpoint| resolver.resolve(&endpoint)).transpose()?,
            persistent_keepalive: from.persistent_keepalive,
            replace_allowed_ips: from.replace_allowed_ips,
            allowed_ips: from.allowed_ips,
            ..PeerChange::new(from.public_key)
        });
    }
    let (private_key, listen_port, fwmark) = (file.private_key, file.listen_port, file.fwmark);
    Ok(match mode {
        Mode::Add => DeviceChange { private_key, listen_port, fwmark, replace_peers: false, peers },
        Mode::Set | Mode::Sync => DeviceChange {
            private_key: Some(private_key.flatten()),
            listen_port: Some(listen_port.unwrap_or(0)),
            fwmark: Some(fwmark.unwrap_or(0)),
            replace_peers: true,
            peers,
        },
    })
}

/// Makes a change that replaces all peers into one that touches only those in which `device` differs.
fn sync(change: &mut DeviceChange, device: &Device) {
    if device.peers.is_empty() {
        return;
    }
    change.replace_peers = false;
    let listed: HashMap<PublicKey, usize> =
        change.peers.iter().enumerate().map(|(at, peer)| (peer.public_key, at)).collect();
    let mut gone = Vec::new();
    for peer in &device.peers {
        let Some(&at) = listed.get(&peer.public_key) else {
            gone.push(PeerChange { remove: true, ..PeerChange::new(peer.public_key) });
            continue;
        };
        // What a peer has and the file does not say must be said: an omission would leave it.
        let change = &mut change.peers[at];
        if peer.preshared_key.is_some() && change.preshared_key.is_none() {
            change.preshared_key = Some(Box::default());
        }
        if peer.persistent_keepalive != 0 && change.persistent_keepalive.is_none() {
            change.persistent_keepalive = Some(0);
        }
    }
    // Removed first, so that their allowed IPs are free when others take them.
    change.peers.splice(0..0, gone);
}

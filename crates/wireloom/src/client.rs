//! Speaking to a device as `wg` does: through its socket, or else by netlink to the kernel's ([`kernel`]).
//!
//! One connection for each request. A socket that nobody answers is a device that has gone; it is left for the daemon to clear away,
//! because a daemon that is just starting looks the same from here.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::device::{AllowedIpChange, Device, DeviceChange};
use config::policy::{Rule, RuleCount};
use config::stats::Stats;
use config::uapi::{self, EventReader, ReplyError, ReplyReader};
use noise::PublicKey;

use crate::error::Error;
use crate::kernel::{self, KernelError};
use crate::zones::SystemZones;

const FOLDER: &str = "/var/run/wireguard";
/// How long a device may take for an answer. It is long because a hundred thousand peers take time.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long it may take to answer that it is watched, which takes no time.
const ATTENTION: Duration = Duration::from_secs(5);

/// Everything about a device.
pub fn get(interface: &str) -> Result<Device, Error> {
    let Some(stream) = request(interface, uapi::write_get())? else {
        return kernel::get(interface).map_err(|error| refused(interface, error));
    };
    ReplyReader::new(stream).get(&SystemZones::open()).map_err(|error| failed(interface, error))
}

/// Everything about a device but its secrets, where it tells that apart; else with them.
pub fn get_openly(interface: &str) -> Result<Device, Error> {
    let Some(stream) = request(interface, uapi::write_get_peers())? else { return get(interface) };
    match ReplyReader::new(stream).get(&SystemZones::open()) {
        // Others refuse the request, or hang up at once.
        Err(ReplyError::Refused(_) | ReplyError::CutOff) => get(interface),
        told => told.map_err(|error| failed(interface, error)),
    }
}

/// A connection on which a device tells what happens to these peers; `None` if it is one that does not.
pub fn watch(interface: &str, keys: &[PublicKey]) -> Result<Option<EventReader<UnixStream>>, Error> {
    let Some(stream) = request(interface, &uapi::write_watch(keys))? else { return Ok(None) };
    stream.set_read_timeout(Some(ATTENTION)).map_err(|error| failed(interface, ReplyError::Io(error)))?;
    let mut events = EventReader::new(stream);
    match events.answer() {
        Ok(()) => Ok(Some(events)),
        Err(ReplyError::Refused(_) | ReplyError::CutOff) => Ok(None),
        Err(error) => Err(failed(interface, error)),
    }
}

/// Has a device end all its sessions and wipe their keys, and keep still as long as the connection is open. Only ours do.
pub fn wipe(interface: &str) -> Result<UnixStream, Error> {
    let Some(stream) = request(interface, uapi::write_wipe())? else {
        return Err(Error::NoInterface(interface.to_owned()));
    };
    ReplyReader::new(&stream).set().map_err(|error| match error {
        // Others do not know the word.
        ReplyError::CutOff => failed(interface, ReplyError::Malformed("no answer to a wipe")),
        error => failed(interface, error),
    })?;
    Ok(stream)
}

/// What a device has dropped, by reason. Only ours tell.
pub fn drops(interface: &str) -> Result<Vec<(String, u64)>, Error> {
    let Some(stream) = request(interface, uapi::write_get_drops())? else {
        // The kernel's devices do not; whether it is one is told by the kernel.
        kernel::get(interface).map_err(|error| refused(interface, error))?;
        return Err(Error::NoDrops(interface.to_owned()));
    };
    ReplyReader::new(stream).drops().map_err(|error| match error {
        // Others refuse the request, or hang up at once.
        ReplyError::Refused(_) | ReplyError::CutOff => Error::NoDrops(interface.to_owned()),
        error => failed(interface, error),
    })
}

/// The rules that say what may pass a device, and what each has taken. Only ours have any.
pub fn policy(interface: &str) -> Result<Vec<(Rule, RuleCount)>, Error> {
    let stream = policy_request(interface, uapi::write_get_policy())?;
    ReplyReader::new(stream).policy().map_err(|error| no_policy(interface, error))
}

/// Puts these rules in the place of all that say what may pass a device.
pub fn set_policy(interface: &str, rules: &[Rule]) -> Result<(), Error> {
    let stream = policy_request(interface, &uapi::write_set_policy(rules))?;
    ReplyReader::new(stream).set().map_err(|error| no_policy(interface, error))
}

fn policy_request(interface: &str, text: &[u8]) -> Result<UnixStream, Error> {
    match request(interface, text)? {
        Some(stream) => Ok(stream),
        None => {
            // The kernel's devices have none; whether it is one is told by the kernel.
            kernel::get(interface).map_err(|error| refused(interface, error))?;
            Err(Error::NoPolicy(interface.to_owned()))
        }
    }
}

fn no_policy(interface: &str, error: ReplyError) -> Error {
    match error {
        // Others refuse the request, or hang up at once.
        ReplyError::Refused(_) | ReplyError::CutOff => Error::NoPolicy(interface.to_owned()),
        error => failed(interface, error),
    }
}

/// What a device tells of its work; `None` if it is the kernel's, or another program's.
pub fn stats(interface: &str) -> Result<Option<(Stats, Engine)>, Error> {
    let Some(stream) = request(interface, uapi::write_get_stats())? else { return Ok(None) };
    let from = linux::unix::peer_process(&stream);
    match ReplyReader::new(stream).stats() {
        // One that answers everything alike.
        Ok(stats) if stats.version.is_empty() => Ok(None),
        Ok(stats) => {
            // Only where both mean the same process is its number one of ours: else it lives in another namespace, or was handed its socket.
            let process = from.filter(|from| *from == stats.process);
            Ok(Some((stats, Engine::Wireloom { process })))
        }
        // Others refuse the request, or hang up at once.
        Err(ReplyError::Refused(_) | ReplyError::CutOff) => Ok(None),
        Err(error) => Err(failed(interface, error)),
    }
}

/// What runs a device that tells nothing of its work.
pub fn engine_of(interface: &str) -> Engine {
    if is_socket(&PathBuf::from(format!("{FOLDER}/{interface}.sock"))) { Engine::Userspace } else { Engine::Kernel }
}

/// What runs a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// We do.
    Wireloom {
        /// The number of the process, where it is one here.
        process: Option<u32>,
    },
    /// Another program in user space.
    Userspace,
    /// The kernel.
    Kernel,
}

impl Engine {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Wireloom { .. } => "wireloom",
            Engine::Userspace => "userspace",
            Engine::Kernel => "kernel",
        }
    }
}

/// Changes a device.
pub fn set(interface: &str, change: &DeviceChange) -> Result<(), Error> {
    let Some(stream) = request(interface, &uapi::write_set(change))? else {
        return kernel::set(interface, change).map_err(|error| match error {
            KernelError::Refused(error) if error.kind() == io::ErrorKind::InvalidInput && takes_away(change) => {
                Error::OldKernel(interface.to_owned())
            }
            error => refused(interface, error),
        });
    };
    ReplyReader::new(stream).set().map_err(|error| failed(interface, error))
}

/// The devices, as `wg` has them: the kernel's, then those that answer on a socket, in the folder's order.
pub fn interfaces() -> Result<Vec<String>, Error> {
    let mut names = kernel::interfaces().map_err(Error::Links)?;
    let unreadable = |source| Error::Folder { folder: FOLDER, source };
    let entries = match fs::read_dir(FOLDER) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        entries => entries.map_err(unreadable)?,
    };
    for entry in entries {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".sock")) else { continue };
        if !name.is_empty() && is_socket(&entry.path()) && answers(&entry.path()) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Whether there is a socket at `path`; `wg` follows links, and so do we.
fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

/// Whether the socket is a device's: one that refuses is nobody's, one that we may not open is somebody's.
fn answers(path: &Path) -> bool {
    !matches!(UnixStream::connect(path), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Sends a request; `None` where nobody has the socket.
fn request(interface: &str, text: &[u8]) -> Result<Option<UnixStream>, Error> {
    let path = PathBuf::from(format!("{FOLDER}/{interface}.sock"));
    let mut stream = match UnixStream::connect(&path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(Error::NoRight { path }),
        stream => stream.map_err(|source| Error::Connect { path, source })?,
    };
    let io_failed = |error| failed(interface, ReplyError::Io(error));
    stream.set_read_timeout(Some(PATIENCE)).map_err(io_failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(io_failed)?;
    stream.write_all(text).map_err(io_failed)?;
    Ok(Some(stream))
}

/// Whether single allowed IPs are to go.
fn takes_away(change: &DeviceChange) -> bool {
    let mut changes = change.peers.iter().flat_map(|peer| &peer.allowed_ips);
    changes.any(|change| matches!(change, AllowedIpChange::Remove(_)))
}

/// Why the kernel has no answer for an interface that has no socket either.
fn refused(interface: &str, error: KernelError) -> Error {
    let interface = interface.to_owned();
    match error {
        KernelError::NotWireGuard if Path::new("/sys/class/net").join(&interface).exists() => Error::NotOurs(interface),
        KernelError::NotWireGuard | KernelError::NoInterface => Error::NoInterface(interface),
        KernelError::Refused(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Error::NoRightOfKernel(interface)
        }
        KernelError::Malformed(what) => Error::Request { interface, source: ReplyError::Malformed(what) },
        KernelError::Refused(error) => Error::Request { interface, source: ReplyError::Refused((&error).into()) },
    }
}

fn failed(interface: &str, source: ReplyError) -> Error {
    let interface = interface.to_owned();
    match source {
        ReplyError::Io(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Error::Silent { interface, seconds: PATIENCE.as_secs() }
        }
        source => Error::Request { interface, source },
    }
}

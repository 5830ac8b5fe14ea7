//! Speaking to a device through its socket, as `wg` does.
//!
//! One connection for each request. A socket that nobody answers is a device that has gone; it is left for the daemon to clear away,
//! because a daemon that is just starting looks the same from here.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::device::{Device, DeviceChange};
use config::uapi::{self, ReplyError, ReplyReader};

use crate::error::Error;
use crate::zones::SystemZones;

const FOLDER: &str = "/var/run/wireguard";
/// How long a device may take for an answer. It is long because a hundred thousand peers take time.
const PATIENCE: Duration = Duration::from_secs(120);

/// Everything about a device.
pub fn get(interface: &str) -> Result<Device, Error> {
    let stream = request(interface, uapi::write_get())?;
    ReplyReader::new(stream).get(&SystemZones::open()).map_err(|error| failed(interface, error))
}

/// What a device has dropped, by reason. Only ours tell.
pub fn drops(interface: &str) -> Result<Vec<(String, u64)>, Error> {
    let stream = request(interface, uapi::write_get_drops())?;
    ReplyReader::new(stream).drops().map_err(|error| match error {
        // Others refuse the request, or hang up at once.
        ReplyError::Refused(_) | ReplyError::CutOff => Error::NoDrops(interface.to_owned()),
        error => failed(interface, error),
    })
}

/// Changes a device.
pub fn set(interface: &str, change: &DeviceChange) -> Result<(), Error> {
    let stream = request(interface, &uapi::write_set(change))?;
    ReplyReader::new(stream).set().map_err(|error| failed(interface, error))
}

/// The devices that answer, in the folder's order, as `wg` has them.
pub fn interfaces() -> Result<Vec<String>, Error> {
    let unreadable = |source| Error::Folder { folder: FOLDER, source };
    let entries = match fs::read_dir(FOLDER) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unreadable)?,
    };
    let mut names = Vec::new();
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

fn request(interface: &str, text: &[u8]) -> Result<UnixStream, Error> {
    let path = PathBuf::from(format!("{FOLDER}/{interface}.sock"));
    let mut stream = UnixStream::connect(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => absent(interface),
        _ => Error::Connect { path, source },
    })?;
    let io_failed = |error| failed(interface, ReplyError::Io(error));
    stream.set_read_timeout(Some(PATIENCE)).map_err(io_failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(io_failed)?;
    stream.write_all(text).map_err(io_failed)?;
    Ok(stream)
}

/// Why an interface has no socket.
fn absent(interface: &str) -> Error {
    let interface = interface.to_owned();
    match fs::read_to_string(format!("/sys/class/net/{interface}/uevent")) {
        Ok(about) if about.lines().any(|line| line == "DEVTYPE=wireguard") => Error::Kernel(interface),
        Ok(_) => Error::NotOurs(interface),
        Err(_) => Error::NoInterface(interface),
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

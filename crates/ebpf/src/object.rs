//! The object: opened, set up for this machine, and loaded by libbpf.
//!
//! All of libbpf's work is done in [`load`], at the start, while the process may still do everything. What is left of it are descriptors.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use libbpf_rs::btf::{Btf, types};
use libbpf_rs::{ErrorKind, MapCore, ObjectBuilder, OpenObject, PrintLevel};

use linux::icmp::TooBig;
use noise::limits::{
    KEEPALIVE_TIMEOUT, REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME, REKEY_TIMEOUT,
};

use crate::maps::MapFds;

/// What is loaded, and for how many.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Peers that the programs serve; more are left to userspace.
    pub peers: u32,
    /// Allowed IPs of each family.
    pub allowed_ips: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { peers: 1024, allowed_ips: 65_536 }
    }
}

/// Sessions for each peer: one that is sent with, the one before, the next, and one whose slot rests.
const SESSIONS: u32 = 4;

/// The programs.
#[derive(Debug)]
pub struct Programs {
    /// TC, for what leaves by the tunnel's interface.
    pub egress: OwnedFd,
    /// TC, for what comes in by an underlay.
    pub ingress: OwnedFd,
    /// XDP, for what comes in by an underlay, and the program at TC to which it hands what it opened.
    pub xdp: Option<(OwnedFd, OwnedFd)>,
    /// Starts the timer that wipes a session's keys.
    pub arm: Option<OwnedFd>,
}

/// What was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// Its maps.
    pub maps: MapFds,
    /// Its programs.
    pub programs: Programs,
    /// Reports that datagrams were too big for their path, if they may be heard.
    pub too_big: Option<TooBig>,
}

/// Why the programs cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Capabilities are missing, or a container's policy is against it.
    #[error("not allowed to load eBPF programs: that takes root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN")]
    Forbidden,
    /// The kernel does not describe its types.
    #[error("this kernel has no BTF (/sys/kernel/btf/vmlinux): the eBPF engine takes one with CONFIG_DEBUG_INFO_BTF")]
    NoBtf,
    /// The kernel is too old.
    #[error("the eBPF engine takes Linux 6.1 or newer, and this is {0}")]
    Old(String),
    /// The verifier does not take a program.
    #[error(
        "the kernel's verifier does not take the program {program}: {reason} (LOG_LEVEL=debug shows all that it says)"
    )]
    Refused {
        /// The program's name.
        program: String,
        /// What the verifier says last.
        reason: String,
    },
    /// Something else.
    #[error("{what}: {source}")]
    Os {
        /// What was attempted.
        what: String,
        /// The error.
        source: io::Error,
    },
}

/// What libbpf and the verifier say while one object is loaded.
static SAID: Mutex<String> = Mutex::new(String::new());

fn said() -> std::sync::MutexGuard<'static, String> {
    SAID.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(what: impl Into<String>) -> impl FnOnce(libbpf_rs::Error) -> LoadError {
    let what = what.into();
    move |error| LoadError::Os { what, source: io::Error::other(error.to_string()) }
}

/// Loads the programs and makes their maps. Takes all privileges that there are for it.
///
/// # Errors
/// What is missing, in one line.
pub fn load(object: &[u8], capacity: Capacity) -> Result<Loaded, LoadError> {
    load_with(object, capacity, None)
}

/// The same over maps that are there already.
///
/// # Errors
/// As there.
pub fn load_over(object: &[u8], capacity: Capacity, maps: MapFds) -> Result<Loaded, LoadError> {
    load_with(object, capacity, Some(maps))
}

fn load_with(object: &[u8], capacity: Capacity, maps: Option<MapFds>) -> Result<Loaded, LoadError> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if !release_at_least(&release, (6, 1)) {
        return Err(LoadError::Old(release));
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(LoadError::NoBtf);
    }
    said().clear();
    let before = libbpf_rs::set_print(Some((PrintLevel::Debug, |_, text| said().push_str(&text))));
    let loaded = open_and_load(object, capacity, maps.as_ref());
    libbpf_rs::set_print(before);
    let said = std::mem::take(&mut *said());
    if loaded.is_err() {
        said.lines().for_each(|line| log::debug!("libbpf: {line}"));
    }
    loaded.map_err(|error| match error {
        Stopped::Loading(ErrorKind::PermissionDenied, _) if !said.contains("BEGIN PROG LOAD LOG") => {
            LoadError::Forbidden
        }
        Stopped::Loading(_, error) => refused(&said).unwrap_or_else(|| failed("loading the eBPF programs")(error)),
        Stopped::Otherwise(error) => error,
    })
}

enum Stopped {
    Loading(ErrorKind, libbpf_rs::Error),
    Otherwise(LoadError),
}

impl From<LoadError> for Stopped {
    fn from(error: LoadError) -> Self {
        Stopped::Otherwise(error)
    }
}

/// The program that was refused, and the last thing that the verifier said of it.
fn refused(said: &str) -> Option<LoadError> {
    let (before, log) = said.split_once("-- BEGIN PROG LOAD LOG --")?;
    let program = before.rsplit("prog '").next()?.split('\'').next()?;
    let log = log.split("-- END PROG LOAD LOG --").next()?;
    let mut lines = log.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("processed "));
    Some(LoadError::Refused { program: program.to_owned(), reason: lines.next_back()?.to_owned() })
}

fn open_and_load(object: &[u8], capacity: Capacity, maps: Option<&MapFds>) -> Result<Loaded, Stopped> {
    let mut open = ObjectBuilder::default().open_memory(object).map_err(failed("reading the eBPF object"))?;
    size(&mut open, capacity, maps)?;
    set_limits(&mut open, object)?;
    let loaded = open.load().map_err(|error| Stopped::Loading(error.kind(), error))?;
    let copy = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned().map_err(|source| LoadError::Os { what: "copying a descriptor".to_owned(), source })
    };
    let map = |name: &str| match loaded.maps().find(|map| map.name() == name) {
        Some(map) => copy(map.as_fd()),
        None => Err(missing(name)),
    };
    let program =
        |name: &str| loaded.progs().find(|program| program.name() == name).map(|p| copy(p.as_fd())).transpose();
    let needed = |name: &str| program(name)?.ok_or_else(|| missing(name));
    let mut all = Vec::new();
    for name in MapFds::NAMES {
        all.push(map(name)?);
    }
    let all = all.try_into().map_err(|_| missing("a map"))?;
    let programs = Programs {
        egress: needed("wl_egress")?,
        ingress: needed("wl_ingress")?,
        xdp: program("wl_xdp")?.zip(program("wl_hand_over")?),
        arm: program("wl_arm")?,
    };
    let too_big = TooBig::open().inspect_err(|error| log::info!("a path that shrinks is noticed late: {error}")).ok();
    Ok(Loaded { maps: MapFds { all }, programs, too_big })
}

fn missing(name: &str) -> LoadError {
    LoadError::Os { what: "reading the eBPF object".to_owned(), source: io::Error::other(format!("it has no {name}")) }
}

/// Makes the maps as large as they are to be, or has those used that are there.
fn size(open: &mut OpenObject, capacity: Capacity, maps: Option<&MapFds>) -> Result<(), LoadError> {
    let processors = libbpf_rs::num_possible_cpus().map_err(failed("counting the processors"))?;
    for mut map in open.maps_mut() {
        let there = MapFds::NAMES.iter().position(|name| map.name().to_str() == Some(name));
        if let Some((at, maps)) = there.zip(maps) {
            map.reuse_fd(maps.all[at].as_fd()).map_err(failed("using a map that is there"))?;
            continue;
        }
        let entries = match map.name().to_str() {
            Some("peers" | "traffic") => capacity.peers,
            Some("ledgers" | "keys" | "sessions") => capacity.peers * SESSIONS,
            Some("allowed4" | "allowed6") => capacity.allowed_ips,
            Some("supers") => processors as u32,
            _ => continue,
        };
        map.set_max_entries(entries).map_err(failed("sizing a map"))?;
    }
    Ok(())
}

/// The protocol's limits as the programs call them: nanoseconds, and numbers of messages.
fn limits() -> [(&'static str, u64); 5] {
    let nanos = |time: Duration| time.as_nanos() as u64;
    [
        ("wl_rekey_after_time", nanos(REKEY_AFTER_TIME)),
        ("wl_reject_after_time", nanos(REJECT_AFTER_TIME)),
        ("wl_rekey_on_receive_after", nanos(REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT)),
        ("wl_rekey_after_messages", REKEY_AFTER_MESSAGES),
        ("wl_reject_after_messages", REJECT_AFTER_MESSAGES),
    ]
}

/// Writes the protocol's limits to where the programs have their constants.
fn set_limits(open: &mut OpenObject, object: &[u8]) -> Result<(), LoadError> {
    let places = constants(object)?;
    let mut maps = open.maps_mut();
    let Some(mut map) = maps.find(|map| map.name().to_str().is_some_and(|name| name.ends_with(".rodata"))) else {
        return Err(missing(".rodata"));
    };
    let Some(bytes) = map.initial_value_mut() else { return Err(missing(".rodata")) };
    for (name, value) in limits() {
        let at =
            places.iter().find(|(constant, _)| constant == name).map(|(_, at)| *at).ok_or_else(|| missing(name))?;
        bytes.get_mut(at..at + 8).ok_or_else(|| missing(name))?.copy_from_slice(&value.to_ne_bytes());
    }
    Ok(())
}

/// The constants of an object, by name: where they lie in its `.rodata`, in bytes.
fn constants(object: &[u8]) -> Result<Vec<(String, usize)>, LoadError> {
    let btf = Btf::from_raw("wireloom", object).map_err(failed("reading the types of the eBPF object"))?;
    let Some(section) = btf.as_ref().and_then(|btf| btf.type_by_name::<types::DataSec<'_>>(".rodata")) else {
        return Err(missing(".rodata"));
    };
    let variable = |info: types::VarSecInfo| {
        let variable = btf.as_ref()?.type_by_id::<types::Var<'_>>(info.ty)?;
        Some((variable.name()?.to_str()?.to_owned(), info.offset as usize))
    };
    Ok(section.iter().filter_map(variable).collect())
}

fn release_at_least(release: &str, wanted: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    numbers.next().zip(numbers.next()).is_some_and(|running: (u32, u32)| running >= wanted)
}

/// The structs of an object, by name: their sizes, and their fields' names and offsets in bytes.
#[cfg(test)]
pub(crate) fn structs(object: &[u8]) -> std::collections::HashMap<String, (usize, Vec<(String, usize)>)> {
    let btf = Btf::from_raw("wireloom", object).unwrap().unwrap();
    let text = |name: Option<&std::ffi::OsStr>| name.unwrap_or_default().to_string_lossy().into_owned();
    let fields = |of: &types::Struct<'_>| {
        let offset = |attr| match attr {
            types::MemberAttr::Normal { offset } | types::MemberAttr::BitField { offset, .. } => offset as usize / 8,
        };
        of.iter().map(|member| (text(member.name), offset(member.attr))).collect()
    };
    use libbpf_rs::btf::HasSize;
    let all = btf.type_by_kind::<types::Struct<'_>>();
    all.map(|of| (text(of.name()), (of.size(), fields(&of)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_verifier_says_last_is_told() {
        let said = "libbpf: prog 'wl_egress': BPF program load failed: -EACCES\nlibbpf: prog 'wl_egress': -- BEGIN PROG LOAD LOG --\n\
                    0: R1=ctx()\nR2 invalid mem access 'scalar'\nprocessed 12 insns (limit 1000000)\n-- END PROG LOAD LOG --\n";
        let told = refused(said).unwrap().to_string();
        assert!(told.contains("the program wl_egress: R2 invalid mem access 'scalar' ("), "{told}");
        assert!(refused("libbpf: something else").is_none());
    }

    #[test]
    fn the_limits_have_their_places() {
        let places = constants(crate::OBJECT).unwrap();
        for (name, _) in limits() {
            assert!(places.iter().any(|(constant, _)| constant == name), "{name} in {places:?}");
        }
    }

    #[test]
    fn releases_are_compared() {
        assert!(release_at_least("6.1.0-18-amd64", (6, 1)) && release_at_least("7.0", (6, 1)));
        assert!(!release_at_least("5.15.0", (6, 1)) && !release_at_least("nonsense", (6, 1)));
    }
}

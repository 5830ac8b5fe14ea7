//! `net.ipv4.conf.all.src_valid_mark`, which the default route by way of a mark needs.
//!
//! With it the reverse path filter looks a packet's source up with the packet's mark: an answer to a marked datagram of the tunnel came by a way that only
//! the mark leads to. All tunnels of a network namespace share the setting, and so does whoever else marks packets. `down` puts the former
//! value back unless another tunnel still needs it, which its table in the firewall tells; a value that was 1 before is never touched.

use std::fs;
use std::io;

use linux::netns;
use serde::{Deserialize, Serialize};

use super::firewall;
use super::journal::{self, Journal};
use super::step::Step;

/// The interfaces that there are journals of.
fn interfaces() -> impl Iterator<Item = String> {
    let files = fs::read_dir(journal::FOLDER).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
}

/// The value.
fn now() -> Result<String, SysctlError> {
    Ok(fs::read_to_string(PATH).map_err(SysctlError)?.trim().to_owned())
}

const PATH: &str = "/proc/sys/net/ipv4/conf/all/src_valid_mark";

/// Why the setting could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot set net.ipv4.conf.all.src_valid_mark: {0}")]
pub struct SysctlError(io::Error);

/// The setting made 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceValidMark {
    interface: String,
    /// What it was, where that was changed, by this tunnel or by one before it.
    before: Option<String>,
    /// The network namespace that it is about, by its device and inode.
    #[serde(default)]
    space: Option<(u64, u64)>,
}

impl SourceValidMark {
    /// The setting for this interface, not made yet.
    pub fn new(interface: &str) -> SourceValidMark {
        SourceValidMark { interface: interface.to_owned(), before: None, space: None }
    }

    /// As a person would type it.
    pub fn describe(&self) -> String {
        "sysctl -q net.ipv4.conf.all.src_valid_mark=1".to_owned()
    }

    /// Notes what it is, or what it was before another tunnel set it: the last of them that ends puts that back.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn prepare(&mut self) -> Result<(), SysctlError> {
        let value = now()?;
        self.space = netns::current().and_then(journal::numbers).ok();
        self.before = if value == "1" { self.inherited() } else { Some(value) };
        Ok(())
    }

    /// Sets it, unless it is set: in many a container it can be read only.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn apply(&mut self) -> Result<(), SysctlError> {
        if now()? == "1" {
            return Ok(());
        }
        fs::write(PATH, "1").map_err(|error| {
            // Nothing was changed that could be put back.
            self.before = None;
            SysctlError(error)
        })
    }

    /// What another tunnel of the same namespace has noted.
    fn inherited(&self) -> Option<String> {
        let names = interfaces().filter(|name| *name != self.interface);
        let mut steps = names.filter_map(|name| Journal::read(&name).ok().flatten()).flat_map(|journal| journal.steps);
        steps.find_map(|step| match step {
            Step::SourceValidMark(other) if other.space.is_some() && other.space == self.space => other.before,
            _ => None,
        })
    }

    /// Puts the former value back, unless another tunnel has a default route as well.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn undo(&self) -> Result<(), SysctlError> {
        match &self.before {
            Some(value) if !firewall::others_route_by_mark(&self.interface) => {
                fs::write(PATH, value).map_err(SysctlError)
            }
            _ => Ok(()),
        }
    }
}

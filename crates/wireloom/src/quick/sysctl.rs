//! `net.ipv4.conf.all.src_valid_mark`, which the default route by way of a mark needs.
//!
//! With it the reverse path filter looks a packet's source up with the packet's mark: an answer to a marked datagram of the tunnel came by a way that only
//! the mark leads to. All tunnels of a network namespace share the setting, and so does whoever else marks packets. `down` puts the former
//! value back unless another tunnel still needs it, which its table in the firewall tells; a value that was 1 before is never touched.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use super::firewall;

const PATH: &str = "/proc/sys/net/ipv4/conf/all/src_valid_mark";

/// Why the setting could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot set net.ipv4.conf.all.src_valid_mark: {0}")]
pub struct SysctlError(io::Error);

/// The setting made 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceValidMark {
    interface: String,
    /// What it was, where that was changed.
    before: Option<String>,
}

impl SourceValidMark {
    /// The setting for this interface, not made yet.
    pub fn new(interface: &str) -> SourceValidMark {
        SourceValidMark { interface: interface.to_owned(), before: None }
    }

    /// As a person would type it.
    pub fn describe(&self) -> String {
        "sysctl -q net.ipv4.conf.all.src_valid_mark=1".to_owned()
    }

    /// Sets it, unless it is set: in many a container it can be read only.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn apply(&mut self) -> Result<(), SysctlError> {
        let value = fs::read_to_string(PATH).map_err(SysctlError)?;
        let value = value.trim();
        if value != "1" {
            fs::write(PATH, "1").map_err(SysctlError)?;
            self.before = Some(value.to_owned());
        }
        Ok(())
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

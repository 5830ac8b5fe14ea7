//! Whether the running kernel takes the engine's programs: they are loaded, attached nowhere, and dropped. For finding faults.

use crate::crypto::{self, Aead};
use crate::{Capacity, LoadError, OBJECT};

/// What the kernel does for the engine.
#[derive(Debug)]
pub struct Probe {
    /// Whether it takes the programs and their maps.
    pub load: Result<(), LoadError>,
    /// Whether it has an AEAD for programs.
    pub aead: Aead,
}

impl Probe {
    /// Tries it, in about a second. Takes CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
    pub fn run() -> Probe {
        // As small as may be: the memory of the maps is taken at once.
        let load = crate::load(OBJECT, Capacity { peers: 16, allowed_ips: 16 }).map(drop);
        Probe { load, aead: crypto::aead() }
    }
}

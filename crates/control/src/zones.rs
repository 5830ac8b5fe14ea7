//! Names of interfaces in link-local endpoints.

use config::address::Zones;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

/// Asks the kernel, each time anew: interfaces come and go, and such endpoints are rare.
pub(crate) struct SystemZones;

impl Zones for SystemZones {
    fn index(&self, name: &str) -> Option<u32> {
        let asking = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
        netdevice::name_to_index(&asking, name).ok()
    }

    fn name(&self, index: u32) -> Option<String> {
        let asking = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
        netdevice::index_to_name(&asking, index).ok()
    }
}

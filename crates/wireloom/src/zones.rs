//! What the interfaces of this network namespace are called.

use std::os::fd::OwnedFd;

use config::address::Zones;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

/// Asks the kernel. A kernel that does not answer knows no interface.
pub struct SystemZones(Option<OwnedFd>);

impl SystemZones {
    /// Opens the socket that the questions need.
    pub fn open() -> SystemZones {
        SystemZones(socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok())
    }
}

impl Zones for SystemZones {
    fn index(&self, name: &str) -> Option<u32> {
        netdevice::name_to_index(self.0.as_ref()?, name).ok()
    }

    fn name(&self, index: u32) -> Option<String> {
        netdevice::index_to_name(self.0.as_ref()?, index).ok()
    }
}

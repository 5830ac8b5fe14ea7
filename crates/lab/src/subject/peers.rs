//! The other implementations of WireGuard in userspace, each as its authors start it.

use super::{Meter, Missing, Place, Protocol, Subject, Versions, Works, missing, wireguard};
use crate::{LabError, System};

/// wireguard-go, boringtun or gotatun.
#[derive(Clone, Debug)]
pub struct Peer(System);

impl Peer {
    /// All of them.
    pub fn all() -> Vec<Peer> {
        System::peers().into_iter().map(Peer).collect()
    }
}

impl Subject for Peer {
    fn slug(&self) -> &str {
        self.0.name()
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn protocol(&self) -> Protocol {
        Protocol::WireGuard
    }

    fn place(&self) -> Place {
        Place::Userspace
    }

    fn cipher(&self) -> &str {
        match self.0 {
            System::WireguardGo => "ChaCha20-Poly1305 of Go",
            _ => "ChaCha20-Poly1305 of ring",
        }
    }

    fn available(&self) -> Result<Versions, Missing> {
        let install = match self.0 {
            System::WireguardGo => "apt-get install wireguard-go",
            _ => "cargo xtask setup",
        };
        let version = self.0.version();
        Ok(Versions::of(self.0.name(), version.map_err(|error| missing(error, install))?))
    }

    fn build(&self, works: &mut Works) -> Result<Box<dyn Meter>, LabError> {
        wireguard::build(works, |works, side| works.daemon(side, &self.0, |_| {}))
    }
}

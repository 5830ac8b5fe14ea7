//! A device: the protocol, a data plane and the outer sockets, tied together and configured from outside.
//!
//! - [`Device`] holds all of it. One lock guards what changes (the protocol's state and which sockets are bound); whoever
//!   took it carries out the protocol's events before letting go, so that they happen in order.
//! - [`Driver`] is the control thread: it waits for timers, handshakes, news from the data plane, changes of the link and
//!   signals, and ends when the interface, its socket or its user says so. There is no tick: an idle device sleeps.
//! - [`uapi`] serves the configuration socket, a thread for each connection, so that a client that stalls or brings 100,000
//!   peers delays neither timers nor packets.

#![forbid(unsafe_code)]

mod apply;
mod device;
mod driver;
mod handshakes;
mod link;
mod lock;
mod policy;
mod report;
mod sockets;
mod sources;
#[cfg(test)]
mod tests;
mod told;
pub mod uapi;
mod watchers;
mod wipe;
mod zones;

pub use device::{Device, DeviceConfig, DeviceError};
pub use driver::{Driver, DriverError, End};

/// An error with its causes, in one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

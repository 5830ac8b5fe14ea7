//! The step that gives the device its keys and peers, and the one that marks its datagrams.
//!
//! Names of endpoints are resolved as part of it, in the namespace in which the command was given, as that is where the datagrams leave. Keys are
//! never in the journal.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use config::device::DeviceChange;
use config::file::File;
use linux::netns;
use serde::{Deserialize, Serialize};

use super::step::Stage;
use crate::error::Error;
use crate::resolve::Resolver;
use crate::{client, conf};

/// Keys and peers.
#[derive(Serialize, Deserialize)]
pub struct Configure {
    /// The interface.
    pub interface: String,
    /// The file that they are from, for the eye.
    pub file: String,
    /// What the file says. It is used up by applying it.
    #[serde(skip)]
    device: Option<Box<File>>,
}

/// The mark of the device's own datagrams.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mark {
    /// The interface.
    pub interface: String,
    /// The mark.
    pub mark: u32,
}

/// Why the device is not configured.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ConfigureError(#[from] Box<Error>);

impl From<Error> for ConfigureError {
    fn from(error: Error) -> ConfigureError {
        ConfigureError(Box::new(error))
    }
}

impl Configure {
    /// What `file` says, which is at the path `name`.
    pub fn new(interface: &str, name: &str, file: File) -> Configure {
        Configure { interface: interface.to_owned(), file: name.to_owned(), device: Some(Box::new(file)) }
    }

    pub fn describe(&self) -> String {
        let Configure { interface, file, .. } = self;
        format!("wireloom setconf {interface} <(wireloom strip {file})")
    }

    pub fn apply(&mut self, stage: &mut Stage) -> Result<(), ConfigureError> {
        let Some(device) = self.device.take() else { return Ok(()) };
        let mut resolver = Resolver::stopped_by(Arc::clone(&stage.interrupted));
        let resolved = netns::run_in(stage.home.as_fd(), || Ok(conf::change(*device, conf::Mode::Set, &mut resolver)));
        let change: DeviceChange = resolved.map_err(Error::Links)??;
        client::set(&self.interface, &change)?;
        stage.endpoints = change.peers.iter().filter_map(|peer| peer.endpoint).collect::<Vec<SocketAddr>>();
        stage.mark = change.fwmark.unwrap_or(0);
        stage.port = change.listen_port.unwrap_or(0);
        Ok(())
    }
}

/// Without what the file says: there are keys in it.
impl fmt::Debug for Configure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Configure")
            .field("interface", &self.interface)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Mark {
    pub fn describe(&self) -> String {
        format!("wireloom set {} fwmark {}", self.interface, self.mark)
    }

    pub fn apply(&mut self) -> Result<(), ConfigureError> {
        let change = DeviceChange { fwmark: Some(self.mark), ..DeviceChange::default() };
        Ok(client::set(&self.interface, &change)?)
    }
}

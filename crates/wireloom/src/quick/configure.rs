//! The step that gives the device its keys and peers, and the one that marks its datagrams.
//!
//! Names of endpoints are resolved as part of it, in the namespace in which the command was given, as that is where the datagrams leave. Keys are
//! never in the journal.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use config::device::{DeviceChange, PeerChange};
use config::file::File;
use config::value::HostPort;
use linux::netns;
use noise::PublicKey;
use serde::{Deserialize, Serialize};

use super::said::Said;
use super::step::Stage;
use crate::error::Error;
use crate::resolve::Resolver;
use crate::{client, conf};

/// Endpoints that are names, and what they meant.
pub type Endpoints = BTreeMap<String, SocketAddr>;

/// Keys and peers.
#[derive(Serialize, Deserialize)]
pub struct Configure {
    /// The interface.
    pub interface: String,
    /// The file that they are from, for the eye.
    pub file: String,
    /// Where the peers were whose endpoints are names. A later daemon has that from here: it cannot ask for a name as long as everything goes
    /// through a tunnel that has no peers yet.
    #[serde(default)]
    pub endpoints: Endpoints,
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
        let (interface, file, device) = (interface.to_owned(), name.to_owned(), Some(Box::new(file)));
        Configure { interface, file, endpoints: Endpoints::new(), device }
    }

    pub fn describe(&self) -> String {
        let Configure { interface, file, .. } = self;
        format!("wireloom setconf {interface} <(wireloom strip {file})")
    }

    pub fn apply(&mut self, stage: &mut Stage) -> Result<(), ConfigureError> {
        let Some(device) = self.device.take() else { return Ok(()) };
        let names: Vec<Option<String>> =
            device.peers.iter().map(|peer| peer.endpoint.as_ref().and_then(name)).collect();
        // Of an interface that is up already there may be routes to what the file has no longer.
        let said = Said::of(&device).and_networks_of(Said::before(&self.interface));
        let mut resolver = Resolver::stopped_by(Arc::clone(&stage.interrupted));
        let resolved = netns::run_in(stage.home.as_fd(), || Ok(conf::change(*device, conf::Mode::Set, &mut resolver)));
        let change: DeviceChange = resolved.map_err(Error::Links)??;
        client::set(&self.interface, &change)?;
        let found = names.into_iter().zip(&change.peers);
        self.endpoints.extend(found.filter_map(|(name, peer)| Some((name?, peer.endpoint?))));
        said.keep(&self.interface);
        stage.endpoints = change.peers.iter().filter_map(|peer| peer.endpoint).collect::<Vec<SocketAddr>>();
        stage.mark = change.fwmark.unwrap_or(0);
        stage.port = change.listen_port.unwrap_or(0);
        Ok(())
    }
}

/// A peer whose name was not known, with its endpoint.
pub struct Late(PublicKey, HostPort);

impl Configure {
    /// Applies it to a device whose interface is up already, and perhaps has all traffic of the machine. Peers whose names are `known` go where they
    /// were: if they are there no longer, their attendant finds out. The others are for [`Configure::apply_late`].
    pub fn apply_known(&mut self, known: &Endpoints, stage: &mut Stage) -> Result<Vec<Late>, ConfigureError> {
        let mut late = Vec::new();
        for peer in self.device.iter_mut().flat_map(|device| &mut device.peers) {
            let Some((endpoint, name)) = peer.endpoint.clone().and_then(|it| name(&it).map(|name| (it, name))) else {
                continue;
            };
            peer.endpoint = known.get(&name).map(|address| {
                self.endpoints.insert(name, *address);
                written(*address)
            });
            if peer.endpoint.is_none() {
                late.push(Late(peer.public_key, endpoint));
            }
        }
        self.apply(stage)?;
        Ok(late)
    }

    /// Asks for the names that were not known, when the rest of the device works.
    pub fn apply_late(&mut self, late: Vec<Late>, stage: &Stage) -> Result<(), ConfigureError> {
        let mut resolver = Resolver::stopped_by(Arc::clone(&stage.interrupted));
        for Late(public_key, endpoint) in late {
            let resolved = netns::run_in(stage.home.as_fd(), || Ok(resolver.resolve(&endpoint)));
            let found = resolved.map_err(Error::Links)??;
            let peer = PeerChange { endpoint: Some(found), update_only: true, ..PeerChange::new(public_key) };
            client::set(&self.interface, &DeviceChange { peers: vec![peer], ..DeviceChange::default() })?;
            self.endpoints.insert(endpoint.to_string(), found);
        }
        Ok(())
    }
}

/// An address as a person would write it.
fn written(address: SocketAddr) -> HostPort {
    let host = match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        _ => address.ip().to_string(),
    };
    HostPort { host, port: address.port() }
}

/// An endpoint that is not an address, as it is noted.
fn name(endpoint: &HostPort) -> Option<String> {
    Resolver::literal(endpoint).is_none().then(|| endpoint.to_string())
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

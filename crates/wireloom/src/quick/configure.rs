//! The step that gives the device its keys and peers, and the one that marks its datagrams.
//!
//! Names of endpoints are resolved as part of it, in the namespace in which the command was given, as that is where the datagrams leave. Keys are
//! never in the journal.

use std::collections::{BTreeMap, HashSet};
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
use crate::difference::Known;
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
    /// What it says for the next time, if `device` is not that any more.
    #[serde(skip)]
    said: Option<Said>,
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
        Configure { interface, file, endpoints: Endpoints::new(), device, said: None }
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
        let said = self.said.take().unwrap_or_else(|| Said::of(&device)).and_networks_of(Said::before(&self.interface));
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

/// A peer whose endpoint is for later.
pub struct Late(PublicKey, HostPort);

/// Peers whose endpoints were left out.
#[derive(Default)]
pub struct LeftOut {
    /// Since their names were not known.
    pub unknown: Vec<Late>,
    /// Since the device knows better where they are, if it knows anything.
    pub unchanged: Vec<Late>,
}

impl Configure {
    /// Applies it to a device whose interface is up already, and perhaps has all traffic of the machine. Peers whose names are `known` go where they
    /// were: if they are there no longer, their attendant finds out. Left out are the others, and those whose endpoint was said to be the same `before`: a
    /// daemon that carries on has them where they were last seen. What is left out is for [`Configure::apply_late`].
    pub fn apply_known(
        &mut self,
        known: &Endpoints,
        before: &Known,
        stage: &mut Stage,
    ) -> Result<LeftOut, ConfigureError> {
        let mut left_out = LeftOut::default();
        self.said = self.device.as_deref().map(Said::of);
        for peer in self.device.iter_mut().flat_map(|device| &mut device.peers) {
            let Some(endpoint) = peer.endpoint.clone() else { continue };
            if let Some(name) = name(&endpoint) {
                peer.endpoint = known.get(&name).map(|address| {
                    self.endpoints.insert(name, *address);
                    written(*address)
                });
            }
            let is_unchanged = before.get(&peer.public_key).is_some_and(|before| *before == endpoint.to_string());
            match peer.endpoint.clone() {
                None => left_out.unknown.push(Late(peer.public_key, endpoint)),
                Some(address) if is_unchanged => {
                    peer.endpoint = None;
                    left_out.unchanged.push(Late(peer.public_key, address));
                }
                Some(_) => {}
            }
        }
        self.apply(stage)?;
        Ok(left_out)
    }

    /// Sets those endpoints that were left out for being unchanged, where the device knows nothing better.
    pub fn apply_unchanged(&self, mut unchanged: Vec<Late>) -> Result<(), ConfigureError> {
        if unchanged.is_empty() {
            return Ok(());
        }
        let device = client::get_openly(&self.interface)?;
        let somewhere: HashSet<PublicKey> =
            device.peers.iter().filter(|peer| peer.endpoint.is_some()).map(|peer| peer.public_key).collect();
        unchanged.retain(|Late(key, _)| !somewhere.contains(key));
        let at = |Late(key, endpoint): Late| PeerChange {
            endpoint: Resolver::literal(&endpoint),
            update_only: true,
            ..PeerChange::new(key)
        };
        let peers: Vec<PeerChange> = unchanged.into_iter().map(at).collect();
        Ok(client::set(&self.interface, &DeviceChange { peers, ..DeviceChange::default() })?)
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

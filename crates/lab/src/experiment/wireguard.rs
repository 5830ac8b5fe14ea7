//! What can be done to any implementation of WireGuard, by `wg` and from outside.

use std::fs;
use std::time::{Duration, Instant};

use crate::subject::Live;
use crate::wg::{self, Status};
use crate::{LabError, Namespace, Side, run_checked};

/// How long `wg` may take with very many peers.
const LIMIT: Duration = Duration::from_secs(180);

/// An interface of WireGuard at one end.
pub(super) struct Interface {
    namespace: Namespace,
    name: String,
}

impl Interface {
    /// The first of a gateway: of all interfaces there, the one that `wg` can speak to.
    ///
    /// # Errors
    /// There is none.
    pub fn of(live: &Live, side: Side) -> Result<Interface, LabError> {
        let namespace = live.topology.gateway(side).clone();
        let text = namespace.ip(&["-j", "link", "show"])?;
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let names = json.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
        for name in names.filter(|name| *name != "lo" && *name != live.topology.port(side).interface) {
            let interface = Interface { namespace: namespace.clone(), name: name.to_owned() };
            if interface.status().is_ok() {
                return Ok(interface);
            }
        }
        Err(LabError::Unreadable { what: "an interface of WireGuard", text })
    }

    /// What `wg` knows of it.
    pub fn status(&self) -> Result<Status, LabError> {
        wg::read_dump(&self.wg(&["show", &self.name, "dump"])?)
    }

    /// Adds what a text for `wg addconf` says: how long that took.
    pub fn add(&self, text: &str) -> Result<Duration, LabError> {
        let file = file(text)?;
        let began = Instant::now();
        self.wg(&["addconf", &self.name, &file.path().to_string_lossy()])?;
        Ok(began.elapsed())
    }

    /// Forgets all sessions: its peers are removed and made anew.
    pub fn forget(&self) -> Result<(), LabError> {
        let whole = self.wg(&["showconf", &self.name])?;
        let peers = file(whole.find("[Peer]").map_or("", |at| &whole[at..]))?;
        let keys: Vec<String> = self.status()?.peers.into_iter().map(|peer| peer.public_key).collect();
        for key in keys {
            self.wg(&["set", &self.name, "peer", &key, "remove"])?;
        }
        self.wg(&["addconf", &self.name, &peers.path().to_string_lossy()]).map(drop)
    }

    fn wg(&self, args: &[&str]) -> Result<String, LabError> {
        run_checked(self.namespace.command("wg").args(args), LIMIT)
    }
}

/// For root alone: it may hold keys.
fn file(text: &str) -> Result<tempfile::NamedTempFile, LabError> {
    let file = tempfile::NamedTempFile::new().map_err(LabError::io("a configuration file"))?;
    fs::write(file.path(), text).map_err(LabError::io("a configuration file"))?;
    Ok(file)
}

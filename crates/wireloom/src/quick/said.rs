//! What a file said when the interface was last made what it says, for the next time: beside the journal, in `IFACE.endpoints`.
//!
//! The device does not tell it. Where its peers are it knows better than the file, since they may have moved; and a daemon that is started in the
//! place of one that has died knows nothing of allowed IPs that the file has no longer, though routes still lead to them.
//!
//! A line is `KEY ENDPOINT`, or `route NETWORK`. There is no secret in it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use config::address::parse_cidr;
use config::file::File;
use config::key;
use inet::Cidr;

use super::journal::FOLDER;
use super::plan;
use crate::difference::Known;
use crate::files::{self, Readers};

const ROUTE: &str = "route";

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// `KEY ENDPOINT`, in the file's order.
    endpoints: String,
    /// What its peers are allowed.
    networks: BTreeSet<Cidr>,
}

impl Said {
    /// What this file says.
    pub fn of(file: &File) -> Said {
        let mut endpoints = String::new();
        for peer in &file.peers {
            if let Some(endpoint) = &peer.endpoint {
                endpoints += &format!("{} {endpoint}\n", key::to_base64(&peer.public_key));
            }
        }
        Said { endpoints, networks: plan::networks(file).into_iter().collect() }
    }

    /// What was kept of the one before, if anything was.
    pub fn before(interface: &str) -> Option<Said> {
        fs::read_to_string(path(interface)).ok().map(|text| Said::read(&text))
    }

    fn read(text: &str) -> Said {
        let mut said = Said { endpoints: String::new(), networks: BTreeSet::new() };
        for (word, rest) in text.lines().filter_map(|line| line.split_once(' ')) {
            if word == ROUTE {
                said.networks.extend(parse_cidr(rest).map(|(network, _)| network));
            } else {
                said.endpoints += &format!("{word} {rest}\n");
            }
        }
        said
    }

    /// With the networks of another one, too: there may still be routes to them.
    pub fn and_networks_of(mut self, other: Option<Said>) -> Said {
        self.networks.extend(other.into_iter().flat_map(|other| other.networks));
        self
    }

    /// Whether both say the same of where peers are.
    pub fn has_endpoints_of(&self, other: &Said) -> bool {
        self.endpoints == other.endpoints
    }

    /// Where it says that peers are.
    pub fn known(&self) -> Known {
        let lines = self.endpoints.lines().filter_map(|line| line.split_once(' '));
        let key = |word: &str| key::from_base64(word.as_bytes()).ok();
        lines.filter_map(|(word, endpoint)| Some((key(word)?, endpoint.to_owned()))).collect()
    }

    /// What it says that peers are allowed.
    pub fn networks(&self) -> &BTreeSet<Cidr> {
        &self.networks
    }

    fn text(&self) -> String {
        let routes: String = self.networks.iter().map(|network| format!("{ROUTE} {network}\n")).collect();
        format!("{}{routes}", self.endpoints)
    }

    /// Keeps it. Without it a reload leaves the peers that were heard from where they are.
    pub fn keep(&self, interface: &str) {
        if let Err(error) = files::replace(&path(interface), self.text().as_bytes(), Readers::Owner) {
            eprintln!("wireloom: cannot keep what the file says of endpoints: {error}");
        }
    }

    /// Forgets it.
    pub fn forget(interface: &str) -> io::Result<()> {
        match fs::remove_file(path(interface)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

fn path(interface: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{interface}.endpoints"))
}

#[cfg(test)]
mod tests {
    use config::file::parse;

    use super::*;
    use crate::resolve::SystemServices;

    const KEYS: [&str; 2] =
        ["TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="];

    fn said(text: &str) -> Said {
        Said::of(&parse(text.as_bytes(), &SystemServices).unwrap())
    }

    #[test]
    fn what_was_kept_is_what_was_said() {
        let [one, other] = KEYS;
        let first = said(&format!(
            "[Peer]\nPublicKey = {one}\nEndpoint = vpn.example:5\nAllowedIPs = 10.0.0.0/8, fd00::/8\n[Peer]\nPublicKey = {other}\nAllowedIPs = 10.9.0.1/32\n"
        ));
        assert_eq!(Said::read(&first.text()), first);
        let known: Vec<String> = first.known().into_values().collect();
        assert_eq!((known, first.networks().len()), (vec!["vpn.example:5".to_owned()], 3));
        let second = said(&format!("[Peer]\nPublicKey = {one}\nEndpoint = vpn.example:5\nAllowedIPs = 10.9.0.1/32\n"));
        assert!(second != first && second.has_endpoints_of(&first));
        assert_eq!(second.clone().and_networks_of(Some(first.clone())), first);
        assert_eq!(second.clone().and_networks_of(None), second);
        let third = said(&format!("[Peer]\nPublicKey = {one}\nEndpoint = vpn.example:6\n"));
        assert!(!third.has_endpoints_of(&first));
    }

    #[test]
    fn a_file_of_an_earlier_version_has_no_networks() {
        let said = Said::read(&format!("{} 192.0.2.1:5\n", KEYS[0]));
        assert_eq!((said.known().len(), said.networks().len()), (1, 0));
        assert_eq!(
            Said::read("nonsense\nroute nowhere\n"),
            Said { endpoints: String::new(), networks: BTreeSet::new() }
        );
    }
}

//! What is looked at besides the machine: a device that runs, ours or the kernel's, or a file that describes one.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::device::AllowedIpChange;
use config::key;
use config::quick::{self, Table};
use inet::Cidr;
use linux::rt::{Link, Rt};
use noise::PublicKey;
use zeroize::Zeroizing;

use super::finding::{Kind, OneLine, Report};
use crate::client;
use crate::error::Error;
use crate::quick::tables::SystemTables;
use crate::resolve::SystemServices;

/// A file longer than this is none.
const FILE_MAX: u64 = 64 << 20;

/// A device, as it is or as it is described.
pub struct Subject {
    /// The name of its interface.
    pub name: String,
    /// The file that describes it, where it was that which was asked for.
    pub file: Option<File>,
    /// Its public key, if it has a private one.
    pub public: Option<PublicKey>,
    /// Its UDP port; 0 for any.
    pub port: u16,
    /// The mark of what it sends; 0 for none.
    pub mark: u32,
    /// Its peers.
    pub peers: Vec<Peer>,
    /// Its addresses, each with the length of its network's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The MTU, where it is known.
    pub mtu: Option<u32>,
    /// The interface, if it is there.
    pub link: Option<Link>,
}

/// What only a file has.
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// Where its routes go.
    pub table: Table,
    /// Whether it names DNS servers.
    pub dns: bool,
}

/// A peer of it.
pub struct Peer {
    /// Its key, short, as findings call it.
    pub name: String,
    /// Its key.
    pub key: PublicKey,
    /// Whether its preshared key is there and all zeros.
    pub zero_psk: bool,
    /// Where it is, as it was written or is shown.
    pub endpoint: Option<String>,
    /// The addresses of that.
    pub at: Vec<SocketAddr>,
    /// Whether it was found that nothing gets there.
    pub lost: bool,
    /// Seconds between persistent keepalives.
    pub keepalive: u16,
    /// Its allowed IPs.
    pub allowed: Vec<Cidr>,
    /// When the last handshake ended, since the Unix epoch.
    pub handshake: Option<Duration>,
    /// Bytes received and sent.
    pub transfer: (u64, u64),
}

impl Subject {
    /// A device that runs.
    pub fn device(name: &str, rt: &mut Rt) -> Result<Subject, Error> {
        let device = client::get(name)?;
        let link = rt.link(name).ok().flatten();
        let addresses = link.as_ref().and_then(|link| rt.addresses(Some(link.index)).ok()).unwrap_or_default();
        let peers = device.peers.iter().map(|peer| Peer {
            endpoint: peer.endpoint.map(|endpoint| endpoint.to_string()),
            at: peer.endpoint.into_iter().collect(),
            keepalive: peer.persistent_keepalive,
            allowed: peer.allowed_ips.clone(),
            handshake: peer.last_handshake.filter(|at| !at.is_zero()),
            transfer: (peer.rx_bytes, peer.tx_bytes),
            ..Peer::new(peer.public_key)
        });
        Ok(Subject {
            name: name.to_owned(),
            file: None,
            public: device.private_key.as_ref().map(noise::PrivateKey::public),
            port: device.listen_port,
            mark: device.fwmark,
            peers: peers.collect(),
            addresses: addresses.iter().map(|address| (address.ip, address.len)).collect(),
            mtu: link.as_ref().map(|link| link.mtu),
            link,
        })
    }

    /// A file. One that makes no sense is a finding, and all that there is of it.
    pub fn of_file(path: &Path, rt: &mut Rt, report: &mut Report) -> Result<Option<Subject>, Error> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        let metadata = std::fs::metadata(path).map_err(read)?;
        if metadata.is_file() && metadata.len() > FILE_MAX {
            return Err(Error::TooLong { path: path.to_owned(), limit: FILE_MAX });
        }
        let text = Zeroizing::new(std::fs::read(path).map_err(read)?);
        if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
            report.add(
                Kind::FileReadable,
                format!("{} can be read by others, and it holds keys.", path.display()),
                format!("`chmod 600 {}`.", path.display()),
            );
        }
        let quick = match quick::parse(&text, &SystemServices, &SystemTables) {
            Ok(quick) => quick,
            Err(error) => {
                report.add(
                    Kind::FileInvalid,
                    format!("{}:{}: {}.", path.display(), error.line, OneLine(&error.problem)),
                    "Correct the line.",
                );
                return Ok(None);
            }
        };
        for warning in &quick.device.warnings {
            report.add(
                Kind::HostBits,
                format!("{}:{}: {warning}.", path.display(), warning.line),
                "Write the network without them, or /32 or /128 if one address was meant.",
            );
        }
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let link = rt.link(&stem).ok().flatten();
        // What it runs with now, if it does: its rules and routes are those that packets meet.
        let running = link.as_ref().and_then(|_| client::get(&stem).ok());
        let config = quick.device;
        let mut peers = Vec::with_capacity(config.peers.len());
        for peer in config.peers {
            let endpoint = peer.endpoint.as_ref();
            let added = |change: &AllowedIpChange| match change {
                AllowedIpChange::Add(network) => Some(*network),
                AllowedIpChange::Remove(_) => None,
            };
            peers.push(Peer {
                zero_psk: peer.preshared_key.as_deref().is_some_and(key::is_zero),
                endpoint: endpoint.map(ToString::to_string),
                at: Vec::new(),
                keepalive: peer.persistent_keepalive.unwrap_or_default(),
                allowed: peer.allowed_ips.iter().filter_map(added).collect(),
                ..Peer::new(peer.public_key)
            });
        }
        let mark = config.fwmark.filter(|mark| *mark != 0);
        Ok(Some(Subject {
            name: stem,
            file: Some(File { path: path.to_owned(), table: quick.table, dns: !quick.dns.is_empty() }),
            public: config.private_key.flatten().as_ref().map(noise::PrivateKey::public),
            port: config.listen_port.unwrap_or_default(),
            mark: mark.or(running.map(|device| device.fwmark)).unwrap_or_default(),
            peers,
            addresses: quick.addresses.iter().map(|address| (address.ip, address.len)).collect(),
            mtu: quick.mtu,
            link,
        }))
    }

    /// Whether it was made from a file.
    pub fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// Whether everything of a family goes to some peer: by one network, or by its two halves.
    pub fn takes_all(&self, v6: bool) -> bool {
        let mut halves = 0;
        for network in self.networks().filter(|network| network.addr().is_ipv6() == v6) {
            match network.prefix_len() {
                0 => return true,
                1 => halves += 1,
                _ => (),
            }
        }
        halves >= 2
    }

    /// All allowed IPs.
    pub fn networks(&self) -> impl Iterator<Item = Cidr> {
        self.peers.iter().flat_map(|peer| peer.allowed.iter().copied())
    }
}

impl Peer {
    /// One of which nothing is known but its key.
    pub fn new(key: PublicKey) -> Peer {
        let text = key::to_base64(&key);
        Peer {
            name: format!("{}…", &text.as_str()[..8]),
            key,
            zero_psk: false,
            endpoint: None,
            at: Vec::new(),
            lost: false,
            keepalive: 0,
            allowed: Vec::new(),
            handshake: None,
            transfer: (0, 0),
        }
    }

    /// Looks up where it is.
    pub fn resolve(&mut self, report: &mut Report) {
        let Some(endpoint) = self.endpoint.as_ref().filter(|_| self.at.is_empty()) else { return };
        match endpoint.to_socket_addrs() {
            Ok(addresses) => self.at = addresses.collect(),
            Err(error) => report.add(
                Kind::EndpointUnresolved,
                format!("The endpoint {endpoint} of peer {} cannot be resolved: {}.", self.name, OneLine(error)),
                "Correct the name, or see whether the name servers of /etc/resolv.conf answer.",
            ),
        }
    }
}

//! Reads a keyfile.

use std::collections::HashMap;

use noise::PublicKey;

use crate::address::digits;
use crate::file::FilePeer;
use crate::foreign::{ImportError, Imported, Lost, MAIN, Problem, at, is_interface, networks, peer_of};
use crate::ini::{self, Dialect, Entry, Section};
use crate::key;
use crate::quick::{self, Quick, Table};
use crate::value::{self, Quoted, Services};

/// NMSettingSecretFlags: an agent keeps the key, or nobody does.
const AGENT_OWNED: u32 = 1;
const NOT_SAVED: u32 = 2;

/// Reads a whole keyfile. `services` knows the ports that are written as names.
///
/// # Errors
/// The first line that is wrong, and what would be right.
pub fn import(text: &[u8], services: &dyn Services) -> Result<Imported, ImportError> {
    let mut parser = Parser::new(services);
    let sections = ini::sections(text, Dialect::Keyfile)?;
    for section in &sections {
        match section.name.as_str() {
            "ipv4" => parser.family(section, 0)?,
            "ipv6" => parser.family(section, 1)?,
            name if name.starts_with(PEER) => parser.peer(section)?,
            _ => {
                for entry in &section.entries {
                    parser.assign(section, entry)?;
                }
            }
        }
    }
    if !parser.is_wireguard {
        return Err(at(1)(Problem::NotWireguard("type=wireguard in [connection]")));
    }
    let interface = parser.interface.take();
    let interface = interface.ok_or_else(|| at(1)(Problem::NoName("interface-name=… in [connection]")))?;
    Ok(parser.finish(interface))
}

const PEER: &str = "wireguard-peer.";

struct Parser<'a> {
    interface: Option<String>,
    is_wireguard: bool,
    quick: Quick,
    /// Where each peer stands.
    places: HashMap<PublicKey, usize>,
    /// Whether there are routes to the allowed IPs.
    peer_routes: bool,
    /// Whether default routes are kept apart.
    auto_default: [bool; 2],
    families: [Family; 2],
    lost: Vec<Lost>,
    services: &'a dyn Services,
}

/// What is about one family, besides addresses and names.
#[derive(Default)]
struct Family {
    table: u32,
    /// Whether its servers are asked for all names.
    all_names: bool,
    has_servers: bool,
    is_on: bool,
}

impl<'a> Parser<'a> {
    fn new(services: &'a dyn Services) -> Self {
        Parser {
            interface: None,
            is_wireguard: false,
            quick: Quick::default(),
            places: HashMap::new(),
            peer_routes: true,
            auto_default: [true; 2],
            families: Default::default(),
            lost: Vec::new(),
            services,
        }
    }

    fn assign(&mut self, section: &Section, entry: &Entry) -> Result<(), ImportError> {
        let value = entry.value.as_str();
        let device = &mut self.quick.device;
        match (section.name.as_str(), entry.key.as_str()) {
            ("connection", "type") => self.is_wireguard = value == "wireguard",
            ("connection", "interface-name") if is_interface(value) => self.interface = Some(value.to_owned()),
            ("connection", "interface-name") => return Err(bad(entry, "interface-name", "the name of an interface")),
            // Its own names for it.
            ("connection", "id" | "uuid" | "timestamp") => {}
            ("wireguard", "private-key") => {
                let private = key::private_from_base64(value.as_bytes());
                device.private_key = Some(private.map_err(|error| key_problem(entry, "the private key", error))?);
            }
            ("wireguard", "private-key-flags") => self.flags(entry, "private-key-flags")?,
            ("wireguard", "listen-port") => {
                let port = value::listen_port(value, self.services);
                device.listen_port = Some(port.map_err(|error| at(entry.line)(error.into()))?);
            }
            ("wireguard", "fwmark") => {
                device.fwmark = Some(value::fwmark(value).map_err(|error| at(entry.line)(error.into()))?);
            }
            ("wireguard", "mtu") if value == "0" => self.quick.mtu = None,
            ("wireguard", "mtu") => {
                let mtu = quick::mtu(value);
                self.quick.mtu = Some(mtu.ok_or_else(|| bad(entry, "mtu", "bytes, from 68 to 65535, or 0"))?);
            }
            ("wireguard", "peer-routes") => self.peer_routes = boolean(entry, "peer-routes")?,
            // -1, the default, is as good as on.
            ("wireguard", "ip4-auto-default-route") => self.auto_default[0] = value != "0",
            ("wireguard", "ip6-auto-default-route") => self.auto_default[1] = value != "0",
            _ => self.lost.push(unknown(section, entry)),
        }
        Ok(())
    }

    fn peer(&mut self, section: &Section) -> Result<(), ImportError> {
        let public = section.name.strip_prefix(PEER).unwrap_or_default();
        let public: PublicKey = key::from_base64(public.as_bytes())
            .map_err(|error| at(section.line)(Problem::Key("the public key", error)))?;
        // A section that comes twice is one.
        let peers = &mut self.quick.device.peers;
        let place = *self.places.entry(public).or_insert_with(|| {
            peers.push(peer_of(public));
            peers.len() - 1
        });
        let mut peer = std::mem::replace(&mut peers[place], peer_of(public));
        for entry in &section.entries {
            self.assign_to_peer(section, entry, &mut peer)?;
        }
        self.quick.device.peers[place] = peer;
        Ok(())
    }

    fn assign_to_peer(&mut self, section: &Section, entry: &Entry, peer: &mut FilePeer) -> Result<(), ImportError> {
        let value = entry.value.as_str();
        match entry.key.as_str() {
            "preshared-key" => {
                let psk = key::from_base64(value.as_bytes());
                let psk = psk.map_err(|error| key_problem(entry, "the preshared key", error))?;
                peer.preshared_key = Some(Box::new(psk));
            }
            "preshared-key-flags" => self.flags(entry, "preshared-key-flags")?,
            "endpoint" => {
                let endpoint = value::endpoint(value, self.services);
                peer.endpoint = Some(endpoint.map_err(|error| at(entry.line)(error.into()))?);
            }
            "persistent-keepalive" => {
                let seconds = value::persistent_keepalive(value);
                peer.persistent_keepalive = Some(seconds.map_err(|error| at(entry.line)(error.into()))?);
            }
            "allowed-ips" => {
                peer.allowed_ips.clear();
                for item in ini::list(value) {
                    let list = value::allowed_ips(&item).map_err(|error| at(entry.line)(error.into()))?;
                    if !list.replace {
                        return Err(bad(entry, "allowed-ips", "networks such as 10.0.0.0/8, without signs"));
                    }
                    peer.allowed_ips.extend(list.changes);
                }
            }
            _ => self.lost.push(unknown(section, entry)),
        }
        Ok(())
    }

    fn family(&mut self, section: &Section, at: usize) -> Result<(), ImportError> {
        for entry in &section.entries {
            let value = entry.value.as_str();
            let family = &mut self.families[at];
            match entry.key.as_str() {
                "method" => {
                    family.is_on = value != "disabled" && value != "ignore";
                    if !matches!(value, "manual" | "disabled" | "ignore" | "link-local") {
                        self.lost.push(odd(entry, "method", value));
                    }
                }
                name if is_address(name) => {
                    // A gateway may follow, which a tunnel has no use for.
                    let (address, gateway) = value.split_once(',').unwrap_or((value, ""));
                    let parsed = quick::address(address.trim()).filter(|parsed| parsed.ip.is_ipv4() == (at == 0));
                    let expected = "an address of this family such as 10.0.0.1/24 or fd00::1/64";
                    self.quick.addresses.push(parsed.ok_or_else(|| bad(entry, "address", expected))?);
                    if !gateway.is_empty() {
                        self.lost.push(odd(entry, "gateway", gateway));
                    }
                }
                "dns" => {
                    for item in ini::list(value) {
                        match item.parse() {
                            Ok(ip) => {
                                self.quick.dns.push(ip);
                                family.has_servers = true;
                            }
                            // With a port or a name for TLS.
                            Err(_) => self.lost.push(odd(entry, "dns", &item)),
                        }
                    }
                }
                "dns-search" => {
                    for item in ini::list(value) {
                        if item == "~" {
                            family.all_names = true;
                        } else if !quick::is_search_domain(&item) {
                            self.lost.push(odd(entry, "dns-search", &item));
                        } else if !self.quick.search.contains(&item) {
                            self.quick.search.push(item);
                        }
                    }
                }
                "dns-priority" => {
                    let priority: i32 = value.parse().map_err(|_| bad(entry, "dns-priority", "a number"))?;
                    family.all_names |= priority < 0;
                }
                "route-table" => {
                    family.table = digits(value).ok_or_else(|| bad(entry, "route-table", "a number"))?;
                }
                // How IPv6 addresses are made, where none is given.
                "addr-gen-mode" => {}
                _ => self.lost.push(unknown(section, entry)),
            }
        }
        Ok(())
    }

    /// Tells of a key that the file does not have, by the flags of it.
    fn flags(&mut self, entry: &Entry, key: &'static str) -> Result<(), ImportError> {
        let flags: u32 = digits(&entry.value).ok_or_else(|| bad(entry, key, "a number"))?;
        if flags & (AGENT_OWNED | NOT_SAVED) != 0 {
            let what = key.trim_end_matches("-flags");
            self.lost.push(Lost::KeptElsewhere { line: entry.line, key: what });
        }
        Ok(())
    }

    fn finish(mut self, interface: String) -> Imported {
        if self.families.iter().any(|family| family.has_servers && !family.all_names) {
            self.lost.push(Lost::DnsForAll);
        }
        self.quick.table = self.table().unwrap_or_else(|| {
            self.lost.push(Lost::Routes);
            Table::Auto
        });
        Imported { interface, quick: self.quick, lost: self.lost }
    }

    /// What `Table` says the same; none where the two families do not agree.
    fn table(&self) -> Option<Table> {
        if !self.peer_routes {
            return Some(Table::Off);
        }
        let of = |at: usize| {
            let networks =
                || self.quick.device.peers.iter().flat_map(networks).filter(|cidr| cidr.addr().is_ipv4() == (at == 0));
            let has_default = networks().any(|cidr| cidr.prefix_len() == 0);
            let family = &self.families[at];
            // Who has nothing to route agrees with anything.
            let counts = family.is_on && (networks().next().is_some() || family.table != 0);
            counts.then_some(match family.table {
                0 | MAIN if has_default && !self.auto_default[at] => Table::Number(MAIN),
                0 | MAIN => Table::Auto,
                number => Table::Number(number),
            })
        };
        match (of(0), of(1)) {
            (Some(one), Some(other)) => (one == other).then_some(one),
            (one, other) => Some(one.or(other).unwrap_or_default()),
        }
    }
}

/// `address` with a number, or without.
fn is_address(key: &str) -> bool {
    key.strip_prefix("address").is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()))
}

fn unknown(section: &Section, entry: &Entry) -> Lost {
    Lost::Unknown { line: entry.line, section: Quoted::new(&section.name), key: Quoted::new(&entry.key) }
}

fn odd(entry: &Entry, key: &'static str, value: &str) -> Lost {
    Lost::UnknownValue { line: entry.line, key, value: Quoted::new(value) }
}

fn bad(entry: &Entry, key: &'static str, expected: &'static str) -> ImportError {
    at(entry.line)(Problem::Bad { key, value: Quoted::new(&entry.value), expected })
}

fn key_problem(entry: &Entry, what: &'static str, error: key::KeyError) -> ImportError {
    at(entry.line)(Problem::Key(what, error))
}

fn boolean(entry: &Entry, key: &'static str) -> Result<bool, ImportError> {
    match entry.value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err(bad(entry, key, "true or false")),
    }
}

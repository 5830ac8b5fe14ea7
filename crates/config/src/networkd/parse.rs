//! Reads a `.netdev` and its `.network`.
//!
//! What both say is put together: the routes decide what `Table` is. No routes at all are `off`; all to one table are that table; and where
//! the default routes have a table of their own and the two rules of wg-quick lead there, it is `auto`.

use std::net::IpAddr;

use inet::Cidr;
use noise::PublicKey;

use crate::address::{digits, masked, parse_cidr};
use crate::device::AllowedIpChange;
use crate::foreign::{ImportError, Imported, Lost, MAIN, Problem, at, is_interface, is_plain_path, networks, peer_of};
use crate::ini::{self, Dialect, Entry, Section};
use crate::key;
use crate::quick::{self, Address, KernelTables, Quick, Table, Tables};
use crate::value::{self, Quoted, Services};

/// What a `.network` says.
#[derive(Default)]
pub struct Network {
    addresses: Vec<Address>,
    dns: Vec<IpAddr>,
    search: Vec<String>,
    mtu: Option<u32>,
    routes: Vec<(Cidr, u32)>,
    rules: Vec<Rule>,
    /// Whether there are routes or rules that say more than wg-quick's.
    is_odd: bool,
    /// Whether its servers are asked for all names.
    all_names: bool,
    lost: Vec<Lost>,
}

/// A rule, as far as wg-quick's go.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rule {
    table: u32,
    mark: Option<u32>,
    is_inverted: bool,
    suppresses_default: bool,
}

impl Network {
    /// Reads a whole `.network`; `tables` knows the routing tables that have names.
    ///
    /// # Errors
    /// The first line that is wrong, and what would be right.
    pub fn parse(text: &[u8], tables: &dyn Tables) -> Result<Network, ImportError> {
        let mut network = Network::default();
        for section in ini::sections(text, Dialect::Systemd)? {
            match section.name.as_str() {
                "Route" => network.route(&section, tables)?,
                "RoutingPolicyRule" => network.rule(&section, tables)?,
                "Match" | "Network" | "Address" | "Link" => {
                    for entry in &section.entries {
                        network.assign(&section, entry)?;
                    }
                }
                _ => network.lost.push(unknown_section(&section)),
            }
        }
        if !network.dns.is_empty() && !network.all_names {
            network.lost.push(Lost::DnsForAll);
        }
        Ok(network)
    }

    /// What it says and wg-quick has no words for.
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }

    fn assign(&mut self, section: &Section, entry: &Entry) -> Result<(), ImportError> {
        let value = entry.value.as_str();
        let odd = |key, word| Lost::UnknownValue { line: entry.line, key, value: Quoted::new(word) };
        match (section.name.as_str(), entry.key.as_str()) {
            // The interface has its name from the .netdev.
            ("Match", "Name") if is_interface(value) => {}
            ("Network" | "Address", "Address") if value.is_empty() => self.addresses.clear(),
            ("Network" | "Address", "Address") => {
                let address = quick::address(value);
                let expected = "an address such as 10.0.0.1/24 or fd00::1/64";
                self.addresses.push(address.ok_or_else(|| bad(entry, "Address", expected))?);
            }
            ("Network", "DNS") if value.is_empty() => self.dns.clear(),
            ("Network", "DNS") => {
                for word in value.split_whitespace() {
                    // Others have a port, an interface or a name for TLS.
                    match word.parse() {
                        Ok(ip) => self.dns.push(ip),
                        Err(_) => self.lost.push(odd("DNS", word)),
                    }
                }
            }
            ("Network", "Domains") if value.is_empty() => self.search.clear(),
            ("Network", "Domains") => {
                for word in value.split_whitespace() {
                    if word == "~." {
                        self.all_names = true;
                    } else if quick::is_search_domain(word) {
                        self.search.push(word.to_owned());
                    } else {
                        self.lost.push(odd("Domains", word));
                    }
                }
            }
            ("Network", "DNSDefaultRoute") => self.all_names |= boolean(entry, "DNSDefaultRoute")?,
            ("Link", "MTUBytes") => self.mtu = Some(mtu(entry)?),
            _ => self.lost.push(unknown(section, entry)),
        }
        Ok(())
    }

    fn route(&mut self, section: &Section, tables: &dyn Tables) -> Result<(), ImportError> {
        let (mut to, mut table) = (None, MAIN);
        let lost_before = self.lost.len();
        for entry in &section.entries {
            match entry.key.as_str() {
                "Destination" => to = Some(destination(entry)?),
                "Table" => table = number(entry, "Table", tables)?,
                // As it is anyhow, where no gateway is told.
                "Scope" if *entry.value == "link" => {}
                _ => self.lost.push(unknown(section, entry)),
            }
        }
        match to {
            Some(to) if self.lost.len() == lost_before => self.routes.push((to, table)),
            _ => self.is_odd = true,
        }
        Ok(())
    }

    fn rule(&mut self, section: &Section, tables: &dyn Tables) -> Result<(), ImportError> {
        let mut rule = Rule { table: MAIN, ..Rule::default() };
        let lost_before = self.lost.len();
        for entry in &section.entries {
            match entry.key.as_str() {
                "Table" => rule.table = number(entry, "Table", tables)?,
                "FirewallMark" => rule.mark = Some(mark(entry)?),
                "InvertRule" => rule.is_inverted = boolean(entry, "InvertRule")?,
                "SuppressPrefixLength" if *entry.value == "0" => rule.suppresses_default = true,
                // wg-quick's come where the kernel puts them, in the families of the routes.
                "Family" | "Priority" => {}
                _ => self.lost.push(unknown(section, entry)),
            }
        }
        self.is_odd |= self.lost.len() != lost_before;
        self.rules.push(rule);
        Ok(())
    }
}

/// Reads a whole `.netdev` and puts it together with its `.network`. `services` knows the ports that are written as names, `tables` the routing
/// tables that have names.
///
/// # Errors
/// The first line of the `.netdev` that is wrong, and what would be right.
pub fn import(
    netdev: &[u8],
    network: Option<Network>,
    services: &dyn Services,
    tables: &dyn Tables,
) -> Result<Imported, ImportError> {
    let mut parser = Parser {
        interface: None,
        is_wireguard: false,
        quick: Quick::default(),
        table: None,
        own_tables: Vec::new(),
        lost: Vec::new(),
        services,
        tables,
    };
    for section in ini::sections(netdev, Dialect::Systemd)? {
        match section.name.as_str() {
            "NetDev" | "WireGuard" => {
                for entry in &section.entries {
                    parser.assign(&section, entry)?;
                }
            }
            "WireGuardPeer" => parser.peer(&section)?,
            _ => parser.lost.push(unknown_section(&section)),
        }
    }
    if !parser.is_wireguard {
        return Err(at(1)(Problem::NotWireguard("Kind=wireguard in [NetDev]")));
    }
    let interface = parser.interface.take().ok_or_else(|| at(1)(Problem::NoName("Name=… in [NetDev]")))?;
    Ok(parser.join(interface, network.unwrap_or_default()))
}

struct Parser<'a> {
    interface: Option<String>,
    is_wireguard: bool,
    quick: Quick,
    /// The table of the routes to the allowed IPs; none where there are to be no routes.
    table: Option<u32>,
    /// The same of each peer, where it says so itself.
    own_tables: Vec<Option<Option<u32>>>,
    lost: Vec<Lost>,
    services: &'a dyn Services,
    tables: &'a dyn Tables,
}

impl Parser<'_> {
    fn assign(&mut self, section: &Section, entry: &Entry) -> Result<(), ImportError> {
        let value = entry.value.as_str();
        let device = &mut self.quick.device;
        match (section.name.as_str(), entry.key.as_str()) {
            ("NetDev", "Name") if is_interface(value) => self.interface = Some(value.to_owned()),
            ("NetDev", "Name") => return Err(bad(entry, "Name", "the name of an interface")),
            ("NetDev", "Kind") => self.is_wireguard = value == "wireguard",
            ("NetDev", "MTUBytes") => self.quick.mtu = Some(mtu(entry)?),
            ("WireGuard", "PrivateKey") => {
                let private = key::private_from_base64(value.as_bytes());
                device.private_key = Some(private.map_err(|error| key_problem(entry, "the private key", error))?);
            }
            ("WireGuard", "PrivateKeyFile") => self.key_file(entry, |path| format!("wg set %i private-key {path}")),
            ("WireGuard", "ListenPort") if value == "auto" => device.listen_port = None,
            ("WireGuard", "ListenPort") => {
                let port = value::listen_port(value, self.services);
                device.listen_port = Some(port.map_err(|error| at(entry.line)(error.into()))?);
            }
            ("WireGuard", "FirewallMark") => device.fwmark = Some(mark(entry)?),
            ("WireGuard", "RouteTable") => self.table = route_table(entry, self.tables)?,
            _ => self.lost.push(unknown(section, entry)),
        }
        Ok(())
    }

    fn peer(&mut self, section: &Section) -> Result<(), ImportError> {
        let mut peer = peer_of(PublicKey::from_bytes([0; key::KEY_LEN]));
        let (mut public, mut file, mut own_table) = (None, None, None);
        for entry in &section.entries {
            let value = entry.value.as_str();
            match entry.key.as_str() {
                "PublicKey" => {
                    let key = key::from_base64(value.as_bytes());
                    peer.public_key = key.map_err(|error| key_problem(entry, "the public key", error))?;
                    public = Some(value);
                }
                "PresharedKey" if value.is_empty() => peer.preshared_key = None,
                "PresharedKey" => {
                    let psk = key::from_base64(value.as_bytes());
                    let psk = psk.map_err(|error| key_problem(entry, "the preshared key", error))?;
                    peer.preshared_key = Some(Box::new(psk));
                }
                "PresharedKeyFile" => file = Some(entry),
                "AllowedIPs" if value.is_empty() => peer.allowed_ips.clear(),
                "AllowedIPs" => {
                    let words = value.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
                    for word in words {
                        let list = value::allowed_ips(word).map_err(|error| at(entry.line)(error.into()))?;
                        let cidrs = list.changes.into_iter().filter(|change| matches!(change, AllowedIpChange::Add(_)));
                        peer.allowed_ips.extend(cidrs);
                    }
                }
                "Endpoint" if value.is_empty() => peer.endpoint = None,
                "Endpoint" => {
                    let endpoint = value::endpoint(value, self.services);
                    peer.endpoint = Some(endpoint.map_err(|error| at(entry.line)(error.into()))?);
                }
                "PersistentKeepalive" => {
                    let seconds = value::persistent_keepalive(value);
                    peer.persistent_keepalive = Some(seconds.map_err(|error| at(entry.line)(error.into()))?);
                }
                "RouteTable" => own_table = Some(route_table(entry, self.tables)?),
                _ => self.lost.push(unknown(section, entry)),
            }
        }
        let public = public.ok_or_else(|| at(section.line)(Problem::NoPublicKey))?;
        if let Some(entry) = file {
            // It goes before the key itself.
            peer.preshared_key = None;
            self.key_file(entry, |path| format!("wg set %i peer {public} preshared-key {path}"));
        }
        self.own_tables.push(own_table);
        self.quick.device.peers.push(peer);
        Ok(())
    }

    /// Puts a key that is in a file of its own into a hook, if a command can name the file.
    fn key_file(&mut self, entry: &Entry, command: impl Fn(&str) -> String) {
        if is_plain_path(&entry.value) {
            self.quick.post_up.push(command(&entry.value));
        } else {
            self.lost.push(Lost::Path { line: entry.line, path: Quoted::new(&entry.value) });
        }
    }

    fn join(mut self, interface: String, network: Network) -> Imported {
        if self.quick.post_up.iter().any(|command| command.starts_with("wg set %i private-key ")) {
            // The file goes before the key itself.
            self.quick.device.private_key = None;
        }
        self.quick.table = self.table_of_routes(&network).unwrap_or_else(|| {
            self.lost.push(Lost::Routes);
            Table::Auto
        });
        let Network { addresses, dns, search, mtu, .. } = network;
        let quick = Quick { addresses, dns, search, mtu: mtu.or(self.quick.mtu), ..self.quick };
        Imported { interface, quick, lost: self.lost }
    }

    /// What `Table` says the same as all the routes and rules; none where wg-quick has no words for them.
    fn table_of_routes(&self, network: &Network) -> Option<Table> {
        if network.is_odd {
            return None;
        }
        let mut routes = network.routes.clone();
        let mut allowed = Vec::new();
        for (peer, own) in self.quick.device.peers.iter().zip(&self.own_tables) {
            allowed.extend(networks(peer));
            if let Some(table) = own.unwrap_or(self.table) {
                routes.extend(networks(peer).map(|cidr| (cidr, table)));
            }
        }
        routes.sort_unstable_by_key(|&(cidr, table)| (cidr.addr(), cidr.prefix_len(), table));
        routes.dedup();
        allowed.sort_unstable_by_key(|cidr| (cidr.addr(), cidr.prefix_len()));
        allowed.dedup();
        if routes.is_empty() && network.rules.is_empty() {
            // Where nothing could be routed, what is said counts.
            let said = self.table.filter(|_| allowed.is_empty());
            return Some(said.map_or(Table::Off, plain_table));
        }
        if !routes.iter().map(|(cidr, _)| cidr).eq(&allowed) {
            return None;
        }
        let default = routes.iter().find(|(cidr, _)| cidr.prefix_len() == 0);
        let &(_, first) = routes.first()?;
        if network.rules.is_empty() && routes.iter().all(|&(_, to)| to == first) {
            // wg-quick would keep a default route out of the main table, unless it is told.
            return Some(if default.is_some() { Table::Number(first) } else { plain_table(first) });
        }
        // wg-quick takes the mark for the table's number, too.
        let &(_, own) = default?;
        let rules = [
            Rule { table: MAIN, suppresses_default: true, ..Rule::default() },
            Rule { table: own, mark: Some(own), is_inverted: true, suppresses_default: false },
        ];
        let has_rules = network.rules.len() == rules.len() && rules.iter().all(|rule| network.rules.contains(rule));
        let is_in_place = |&(cidr, to): &(Cidr, u32)| to == if cidr.prefix_len() == 0 { own } else { MAIN };
        let is_auto =
            has_rules && own != MAIN && self.quick.device.fwmark == Some(own) && routes.iter().all(is_in_place);
        is_auto.then_some(Table::Auto)
    }
}

/// What `Table` says of a table without default routes.
fn plain_table(number: u32) -> Table {
    if number == MAIN { Table::Auto } else { Table::Number(number) }
}

fn unknown(section: &Section, entry: &Entry) -> Lost {
    Lost::Unknown { line: entry.line, section: Quoted::new(&section.name), key: Quoted::new(&entry.key) }
}

fn unknown_section(section: &Section) -> Lost {
    Lost::UnknownSection { line: section.line, section: Quoted::new(&section.name) }
}

fn bad(entry: &Entry, key: &'static str, expected: &'static str) -> ImportError {
    at(entry.line)(Problem::Bad { key, value: Quoted::new(&entry.value), expected })
}

fn key_problem(entry: &Entry, what: &'static str, error: key::KeyError) -> ImportError {
    at(entry.line)(Problem::Key(what, error))
}

fn destination(entry: &Entry) -> Result<Cidr, ImportError> {
    let whole = |ip: IpAddr| masked(ip, if ip.is_ipv4() { 32 } else { 128 });
    let parsed = parse_cidr(&entry.value).or_else(|| whole(entry.value.parse().ok()?));
    parsed.map(|(cidr, _)| cidr).ok_or_else(|| bad(entry, "Destination", "a network such as 10.0.0.0/8"))
}

fn mtu(entry: &Entry) -> Result<u32, ImportError> {
    quick::mtu(&entry.value).ok_or_else(|| bad(entry, "MTUBytes", "bytes, from 68 to 65535"))
}

fn mark(entry: &Entry) -> Result<u32, ImportError> {
    value::fwmark(&entry.value).map_err(|error| at(entry.line)(error.into()))
}

fn boolean(entry: &Entry, key: &'static str) -> Result<bool, ImportError> {
    from_boolean(&entry.value).ok_or_else(|| bad(entry, key, "yes or no"))
}

/// As systemd spells them.
fn from_boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

/// The table of the routes to the allowed IPs; none where there are to be none.
fn route_table(entry: &Entry, tables: &dyn Tables) -> Result<Option<u32>, ImportError> {
    if from_boolean(&entry.value) == Some(false) {
        return Ok(None);
    }
    number(entry, "RouteTable", tables).map(Some)
}

fn number(entry: &Entry, key: &'static str, tables: &dyn Tables) -> Result<u32, ImportError> {
    let by_name = || KernelTables.number(&entry.value).or_else(|| tables.number(&entry.value));
    let number = digits(&entry.value).or_else(by_name).filter(|number| *number != 0);
    number.ok_or_else(|| bad(entry, key, "a table's number or name"))
}

//! The steps by which traffic finds the interface: addresses, MTU, routes and rules. The same as wg-quick has `ip` do.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use config::address::CidrText;
use config::quick::Address;
use inet::Cidr;
use linux::netns;
use linux::rt::{self, Family, MAIN, Rt, RtError};
use serde::{Deserialize, Serialize};

use super::machine;
use super::step::Stage;

/// How many routes are told one by one.
const TOLD: usize = 20;

/// Why the network is not as it should be.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum NetworkError {
    #[error(transparent)]
    Rt(#[from] RtError),
    #[error("{what}: {source}")]
    One { what: String, source: RtError },
    #[error("the interface has gone")]
    Gone,
    #[error("others keep taking the place for the rule")]
    Taken,
    #[error("UDP port {0} is in use by another program, expected another ListenPort, or none")]
    Port(u16),
}

impl From<std::io::Error> for NetworkError {
    fn from(error: std::io::Error) -> NetworkError {
        NetworkError::Rt(RtError::Io(error))
    }
}

/// A socket, and the interface's number where the thread is.
fn open(interface: &str) -> Result<(Rt, u32), NetworkError> {
    let mut rt = Rt::open()?;
    let link = rt.link(interface)?.ok_or(NetworkError::Gone)?;
    Ok((rt, link.index))
}

fn flag(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

/// An address.
#[derive(Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// The interface.
    pub interface: String,
    /// The address and its length.
    pub ip: IpAddr,
    /// How many bits of it are the network's.
    pub len: u8,
}

impl Addresses {
    pub fn new(interface: &str, address: Address) -> Addresses {
        Addresses { interface: interface.to_owned(), ip: address.ip, len: address.len }
    }

    pub fn describe(&self) -> Vec<String> {
        let Addresses { interface, ip, len } = self;
        let address = Address { ip: *ip, len: *len };
        vec![format!("ip {} address add {address} dev {interface}", flag(Family::of(*ip)))]
    }

    pub fn apply(&mut self) -> Result<(), NetworkError> {
        let (mut rt, index) = open(&self.interface)?;
        Ok(rt.add_address(rt::Address { index, ip: self.ip, len: self.len })?)
    }
}

/// MTU, and up.
#[derive(Debug, Serialize, Deserialize)]
pub struct Activate {
    /// The interface.
    pub interface: String,
    /// In bytes: what the file says, or what was found out beforehand.
    pub mtu: u32,
    /// Whether it is looked for again when the peers are known, and the least that it may be then.
    pub least: Option<u32>,
}

impl Activate {
    pub fn describe(&self) -> String {
        format!("ip link set mtu {} up dev {}", self.mtu, self.interface)
    }

    pub fn apply(&mut self, stage: &Stage) -> Result<(), NetworkError> {
        if let Some(least) = self.least {
            let find = || {
                Ok(Rt::open().map_err(RtError::Io).and_then(|mut rt| path_mtu(&mut rt, &stage.endpoints, stage.mark)))
            };
            self.mtu = machine::inner_mtu(netns::run_in(stage.home.as_fd(), find)??, least);
        }
        if netns::run_in(stage.home.as_fd(), || Ok(is_taken(stage.port)))? {
            return Err(NetworkError::Port(stage.port));
        }
        let (mut rt, index) = open(&self.interface)?;
        rt.set_mtu(index, self.mtu)?;
        Ok(rt.set_up(index, true)?)
    }
}

/// Whether somebody has the port, while the device does not: it takes it when it is set up, and nobody hears of it when our daemon cannot.
fn is_taken(port: u16) -> bool {
    let taken = |any: IpAddr| UdpSocket::bind((any, port)).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    port != 0 && (taken(Ipv4Addr::UNSPECIFIED.into()) || taken(Ipv6Addr::UNSPECIFIED.into()))
}

/// The least MTU of the ways to these addresses in bytes; of the default route, where there is none of them.
pub fn path_mtu(rt: &mut Rt, endpoints: &[SocketAddr], mark: u32) -> Result<Option<u32>, RtError> {
    machine::path_mtu(rt, endpoints, mark)
}

/// Routes to the interface, all in one table.
#[derive(Debug, Serialize, Deserialize)]
pub struct Routes {
    /// The interface.
    pub interface: String,
    /// The table.
    pub table: u32,
    /// Where they lead. The journal does without, since they go with the interface.
    #[serde(skip)]
    pub networks: Vec<Cidr>,
}

impl Routes {
    fn line(&self, network: &Cidr) -> String {
        let table = if self.table == MAIN { String::new() } else { format!(" table {}", self.table) };
        let family = flag(Family::of(network.addr()));
        format!("ip {family} route add {} dev {}{table}", CidrText(*network), self.interface)
    }

    pub fn describe(&self) -> Vec<String> {
        let told = self.networks.iter().take(TOLD).map(|network| self.line(network));
        let more = self.networks.len().saturating_sub(TOLD);
        told.chain((more > 0).then(|| format!("# and {more} more routes"))).collect()
    }

    pub fn apply(&mut self, stage: &Stage) -> Result<(), NetworkError> {
        let (mut rt, index) = open(&self.interface)?;
        // In parts, so that somebody who interrupts need not wait for all.
        const PART: usize = 4096;
        for (part, networks) in self.networks.chunks(PART).enumerate() {
            if stage.check().is_err() {
                // The next step finds out, too, and says so.
                break;
            }
            let routes: Vec<rt::Route> = networks
                .iter()
                .map(|network| rt::Route::by(index, network.addr(), network.prefix_len(), self.table))
                .collect();
            rt.add_routes(&routes).map_err(|(at, source)| NetworkError::One {
                what: self.networks.get(part * PART + at).map(|network| self.line(network)).unwrap_or_default(),
                source,
            })?;
        }
        Ok(())
    }
}

/// A rule: either that all but marked packets look at a table, or that the main table's default routes are passed over.
#[derive(Debug, Serialize, Deserialize)]
pub struct Rule {
    /// Whether it is for IPv6.
    pub v6: bool,
    /// The mark that leads past the table of the same number; none for the rule about the main table.
    pub mark: Option<u32>,
    /// Where it was put.
    pub priority: Option<u32>,
    /// The mark of the tunnel whose rule it is, where nobody noted the place: one that wg-quick made.
    pub derived: Option<u32>,
}

impl Rule {
    /// All but packets with this mark look at the table of the same number.
    pub fn marked(family: Family, mark: u32) -> Rule {
        Rule { v6: family == Family::V6, mark: Some(mark), priority: None, derived: None }
    }

    /// Before that, the main table is asked for more than its default routes.
    pub fn main(family: Family) -> Rule {
        Rule { v6: family == Family::V6, mark: None, priority: None, derived: None }
    }

    fn family(&self) -> Family {
        if self.v6 { Family::V6 } else { Family::V4 }
    }

    fn rule(&self) -> rt::Rule {
        rt::Rule {
            family: self.family(),
            priority: self.priority,
            invert: self.mark.is_some(),
            mark: self.mark,
            table: self.mark.unwrap_or(MAIN),
            suppress_prefix_length: self.mark.is_none().then_some(0),
            more: false,
        }
    }

    pub fn describe(&self) -> String {
        let family = flag(self.family());
        match self.mark {
            Some(mark) => format!("ip {family} rule add not fwmark {mark} table {mark}"),
            None => format!("ip {family} rule add table main suppress_prefixlength 0"),
        }
    }

    /// Chooses the place, which is noted before the rule is there: the one that the kernel would choose, before all but the first.
    pub fn prepare(&mut self) -> Result<(), NetworkError> {
        let rules = Rt::open()?.rules(self.family())?;
        self.priority = Some(rules.get(1).and_then(|rule| rule.priority).unwrap_or(0).saturating_sub(1));
        Ok(())
    }

    /// Adds it at its place.
    ///
    /// # Errors
    /// [`NetworkError::Taken`]: somebody else has put the same there meanwhile, and another place is to be chosen.
    pub fn apply(&mut self) -> Result<(), NetworkError> {
        match Rt::open()?.add_rule(&self.rule()) {
            Err(error) if error.is_present() => {
                // What stands there is not ours to take back.
                self.priority = None;
                Err(NetworkError::Taken)
            }
            added => Ok(added?),
        }
    }

    pub fn undo(&self) -> Result<(), NetworkError> {
        let mut rt = Rt::open()?;
        let rule = self.rule();
        let places = places(&mut rt, &rule)?;
        let gone: Vec<u32> = match (self.priority, self.mark, self.derived) {
            (Some(place), ..) => places.into_iter().filter(|other| *other == place).collect(),
            // There is one such rule for each tunnel that wg-quick made.
            (None, Some(_), Some(_)) => places,
            // There is one for each tunnel, and they all say the same: that of this one was put before its other rule, the last of all
            // that stand there.
            (None, None, Some(mark)) => {
                let other = rt::Rule { priority: None, ..Rule::marked(self.family(), mark).rule() };
                let after = self::places(&mut rt, &other)?.into_iter().min();
                places.into_iter().filter(|place| after.is_none_or(|after| *place < after)).max().into_iter().collect()
            }
            // It was not begun.
            (None, _, None) => Vec::new(),
        };
        for place in gone {
            match rt.delete_rule(&rt::Rule { priority: Some(place), ..rule.clone() }) {
                Err(error) if error.is_absent() => {}
                deleted => deleted?,
            }
        }
        Ok(())
    }
}

/// Where rules of this kind stand.
fn places(rt: &mut Rt, rule: &rt::Rule) -> Result<Vec<u32>, RtError> {
    let all = rt.rules(rule.family)?;
    Ok(all.into_iter().filter(|other| other.same(rule)).filter_map(|other| other.priority).collect())
}

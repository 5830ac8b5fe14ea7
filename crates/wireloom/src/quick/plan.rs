//! The plan: what `up` is going to do, in order. A pure function of the file, the options and what the machine is like.
//!
//! The order is wg-quick's: PreUp, the link, keys and peers, addresses, MTU and up, DNS, routes from the longest prefix to the shortest,
//! PostUp. With `Table = auto` a default route does not go into the main table, where it would catch the tunnel's own datagrams: it goes
//! into a table of its own, which all packets look at but those that bear the tunnel's mark. The main table comes first, without its
//! default routes, so that the local network stays what it is.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use config::device::AllowedIpChange;
use config::file::File;
use config::quick::{self, Address, Quick, Table};
use inet::Cidr;
use linux::rt::{Family, MAIN};
use serde::{Deserialize, Serialize};

use super::attend::Attend;
use super::configure::{Configure, Mark};
use super::dns::Dns;
use super::engine::Engine;
use super::firewall::{KillSwitch, LeakTable};
use super::hook::{Hook, When};
use super::link::Link;
use super::machine::{Facts, IPV4_LEAST, IPV6_LEAST, inner_mtu};
use super::network::{Activate, Addresses, Routes, Rule};
use super::place::Place;
use super::policy::Policy;
use super::step::Step;
use super::sysctl::SourceValidMark;
use crate::attend::Duties;

/// What was asked for besides the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// What moves the packets.
    pub engine: Engine,
    /// The namespace that the interface is put into, as `ip netns` names it.
    pub netns: Option<String>,
    /// Whether session keys are wiped before the machine sleeps.
    pub wipe_on_suspend: bool,
    /// Where metrics are served.
    pub metrics: Vec<crate::metrics::Place>,
    /// Whether nothing may leave but by the tunnel.
    pub kill_switch: bool,
    /// The file with the rules that say what may pass, by its full path.
    #[serde(default)]
    pub policy: Option<PathBuf>,
}

/// What `up` does.
pub fn up(place: &Place, quick: Quick, options: &Options, facts: &Facts) -> Vec<Step> {
    let interface = place.interface.as_str();
    let networks = networks(&quick.device);
    let duties = Duties {
        names: Duties::names(&quick.device),
        wipe_on_suspend: options.wipe_on_suspend,
        metrics: options.metrics.clone(),
    };
    let mut mark = quick.device.fwmark.filter(|mark| *mark != 0);
    let mut steps = hooks(place, When::PreUp, &quick.pre_up);
    steps.push(Step::Link(Link::new(interface, options.engine, options.netns.as_deref())));
    // First of all: what has no keys lets nothing pass.
    let policy = |file: &PathBuf| Step::Policy(Policy { interface: interface.to_owned(), file: file.clone() });
    steps.extend(options.policy.as_ref().map(policy));
    let v6 = quick.addresses.iter().any(|address| address.ip.is_ipv6())
        || networks.iter().any(|network| network.addr().is_ipv6());
    steps.push(Step::Configure(Configure::new(interface, &place.file.to_string_lossy(), quick.device)));
    if options.kill_switch {
        // In another namespace none of its datagrams come by.
        let outside = options.netns.is_none();
        if outside && mark.is_none() {
            mark = Some(facts.free_table);
            steps.push(Step::Mark(Mark { interface: interface.to_owned(), mark: facts.free_table }));
        }
        steps.push(Step::KillSwitch(KillSwitch::new(interface, mark.filter(|_| outside))));
    }
    for address in &quick.addresses {
        steps.push(Step::Addresses(Addresses::new(interface, *address)));
    }
    let least = if v6 { IPV6_LEAST } else { IPV4_LEAST };
    steps.push(Step::Activate(Activate {
        interface: interface.to_owned(),
        mtu: quick.mtu.unwrap_or_else(|| inner_mtu(facts.path_mtu, least)),
        least: quick.mtu.is_none().then_some(least),
    }));
    let names = Dns::plan(interface, &quick.dns, &quick.search, leads_everywhere(&networks), options.netns.as_deref());
    steps.extend(names.map(Step::Dns));
    let ways = Ways { interface, table: quick.table, mark, free_table: facts.free_table };
    steps.extend(ways.steps(&quick.addresses, &networks));
    steps.extend(Attend::new(interface, &place.file.to_string_lossy(), options.engine, duties).map(Step::Attend));
    steps.extend(hooks(place, When::PostUp, &quick.post_up));
    steps
}

/// The commands of one kind.
pub fn hooks(place: &Place, when: When, commands: &[String]) -> Vec<Step> {
    let interface = place.interface.as_str();
    let hook = |command: &String| Hook {
        when,
        command: quick::expand(command, interface),
        interface: interface.to_owned(),
        file: place.file.clone(),
    };
    commands.iter().map(|command| Step::Hook(hook(command))).collect()
}

/// Whether all traffic goes there: by a default route, or by two halves of one.
fn leads_everywhere(networks: &[Cidr]) -> bool {
    networks.iter().any(|network| network.prefix_len() <= 1)
}

/// What wg-quick did and nobody has noted, as far as it does not go with the interface: what it would be for a device that has this mark and these allowed
/// IPs.
pub fn derived(
    interface: &str,
    engine: Engine,
    netns: Option<&str>,
    quick: &Quick,
    mark: u32,
    networks: &[Cidr],
) -> Vec<Step> {
    let mut steps = vec![Step::Link(Link { made: true, ..Link::new(interface, engine, netns) })];
    let names = Dns::plan(interface, &quick.dns, &quick.search, leads_everywhere(networks), netns);
    steps.extend(names.map(Step::Dns));
    if quick.table != Table::Auto || mark == 0 {
        return steps;
    }
    for family in Family::ALL {
        if networks.iter().any(|network| network.prefix_len() == 0 && Family::of(network.addr()) == family) {
            let derived = Some(mark);
            steps.push(Step::Rule(Rule { derived, ..Rule::marked(family, mark) }));
            steps.push(Step::Rule(Rule { derived, ..Rule::main(family) }));
            steps.push(Step::LeakTable(LeakTable::new(interface, family, mark).made()));
        }
    }
    steps
}

/// The networks that a file lets through to its peers, from the longest prefix to the shortest. None comes twice.
pub fn networks(device: &File) -> Vec<Cidr> {
    let mut all = BTreeSet::new();
    for change in device.peers.iter().flat_map(|peer| &peer.allowed_ips) {
        match change {
            AllowedIpChange::Add(network) => all.insert(*network),
            AllowedIpChange::Remove(network) => all.remove(network),
        };
    }
    let mut all: Vec<Cidr> = all.into_iter().collect();
    // Of two that are equally long, IPv6 comes first, then the higher number: as wg-quick has it.
    all.sort_by_key(|network| Reverse((network.prefix_len(), *network)));
    all
}

/// How packets find the way.
struct Ways<'a> {
    interface: &'a str,
    table: Table,
    mark: Option<u32>,
    free_table: u32,
}

impl Ways<'_> {
    fn steps(&self, addresses: &[Address], networks: &[Cidr]) -> Vec<Step> {
        let table = match self.table {
            Table::Off => return Vec::new(),
            Table::Number(number) => return self.routes(number, networks.to_vec()).into_iter().collect(),
            Table::Auto => MAIN,
        };
        let (ends, rest): (Vec<Cidr>, Vec<Cidr>) = networks.iter().partition(|network| network.prefix_len() == 0);
        let connected = Connected::of(addresses);
        let rest = rest.into_iter().filter(|network| !connected.covers(network)).collect();
        let mut steps: Vec<Step> = self.routes(table, rest).into_iter().collect();
        if ends.is_empty() {
            return steps;
        }
        let mark = match self.mark {
            Some(mark) => mark,
            None => {
                steps.push(Step::Mark(Mark { interface: self.interface.to_owned(), mark: self.free_table }));
                self.free_table
            }
        };
        for end in ends {
            let family = Family::of(end.addr());
            steps.extend(self.routes(mark, vec![end]));
            steps.push(Step::Rule(Rule::marked(family, mark)));
            steps.push(Step::Rule(Rule::main(family)));
            if family == Family::V4 {
                steps.push(Step::SourceValidMark(SourceValidMark::new(self.interface)));
            }
            steps.push(Step::LeakTable(LeakTable::new(self.interface, family, mark)));
        }
        steps
    }

    fn routes(&self, table: u32, networks: Vec<Cidr>) -> Option<Step> {
        let interface = self.interface.to_owned();
        (!networks.is_empty()).then_some(Step::Routes(Routes { interface, table, networks }))
    }
}

/// The networks that the kernel has routes to in the main table because of addresses.
struct Connected(BTreeSet<Cidr>);

impl Connected {
    fn of(addresses: &[Address]) -> Connected {
        let mut networks = BTreeSet::new();
        for Address { ip, len } in addresses {
            let routed = match ip {
                // One that is a network by itself has its route in the local table only.
                IpAddr::V4(ip) => *len < 32 && !ip.is_unspecified(),
                IpAddr::V6(_) => true,
            };
            networks.extend(routed.then(|| Cidr::new(*ip, *len)).flatten());
        }
        Connected(networks)
    }

    fn covers(&self, network: &Cidr) -> bool {
        (0..=network.prefix_len())
            .any(|len| Cidr::new(network.addr(), len).is_some_and(|wider| self.0.contains(&wider)))
    }
}

#[cfg(test)]
mod tests;

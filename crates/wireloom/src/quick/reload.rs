//! `wireloom reload`: an interface that is up is made what its file says now, without touching what is the same.
//!
//! First the device ([`difference`]), then what `up` has put around it. Its plan is made anew and compared with the journal: addresses, routes and the MTU
//! with what the interface has, the other steps (rules, names, firewall) by what they do. Those that are no longer wanted are taken back, then new ones are
//! applied. What neither the plan nor the journal knows stays: an address that somebody added is not ours to take. Hooks are not run.
//!
//! Before all that come the rules that say what may pass, where they are of a file (`up --policy`).
//!
//! What the file's endpoints were is kept beside the journal ([`Said`]), so that a peer that has moved is moved only by a
//! change of the file. An interface without a journal, which wg-quick has brought up, has its device reloaded and no more.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use clap::Args;
use config::device::Device;
use config::file::File;
use config::policy::Rule;
use config::quick::{Address, Quick, Table};
use inet::Cidr;
use linux::netns;
use linux::rt::{self, Family, RouteKind, Rt};

use super::attend::Attend;
use super::configure::Mark;
use super::error::QuickError;
use super::journal::{self, FOLDER, Journal, Lock};
use super::link::open_netns;
use super::machine::{self, Facts};
use super::network::{Addresses, Routes};
use super::place::Place;
use super::plan;
use super::policy::Policy;
use super::said::Said;
use super::step::{Stage, Step};
use super::up::{carry_out, privileged, say};
use crate::client;
use crate::difference::{Difference, Known, Terms, difference};
use crate::error::Error;
use crate::policy;
use crate::resolve::Resolver;

/// What to reload, and how.
#[derive(Args)]
pub struct ReloadArgs {
    /// The interface, whose file is /etc/wireguard/NAME.conf, or a file
    #[arg(value_name = "NAME|FILE")]
    what: String,
    /// Print what would be changed, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Makes an interface what its file says.
pub fn reload(args: &ReloadArgs) -> Result<(), Error> {
    let place = Place::find(&args.what)?;
    let quick = place.read()?;
    let interface = place.interface.to_string();
    if !args.dry_run {
        privileged("reload")?;
    }
    let _lock = if args.dry_run { None } else { Some(Lock::take(&interface)?) };
    follow(&place, quick, args.dry_run)
}

/// Makes an interface what its file says, for whoever has its lock. A dry run needs none. The thread may be in the interface's namespace afterwards.
pub fn follow(place: &Place, quick: Quick, dry_run: bool) -> Result<(), Error> {
    let interface = place.interface.to_string();
    let journal = Journal::read(&interface)?;
    let home = netns::current().map_err(Error::Links)?;
    if let Some(journal) = &journal {
        if Some(journal.home) != journal::numbers(&home).ok() {
            return Err(QuickError::Elsewhere(interface).into());
        }
        if let Some(name) = &journal.netns {
            let inside = open_netns(name).map_err(|source| QuickError::Netns { name: name.clone(), source })?;
            netns::enter(inside.as_fd()).map_err(Error::Links)?;
        }
    }
    let device = client::get(&interface)?;
    let said = Said::of(&quick.device);
    let before = Said::before(&interface);
    let said_changes = !before.as_ref().is_some_and(|before| before.has_endpoints_of(&said));
    let table = table_of_default(journal.as_ref())?;
    let mut reload = Reload {
        interface,
        dry_run,
        home,
        journal,
        table,
        before,
        said_changes,
        addresses: BTreeSet::new(),
        flushed: false,
        hooks_differ: false,
        changes: 0,
    };
    let is_ours = reload.journal.is_some();
    reload.policy()?;
    reload.device(&device, &quick)?;
    reload.network(place, quick, &device)?;
    // It goes with the journal.
    if is_ours && !dry_run {
        said.keep(&reload.interface);
    }
    if reload.changes == 0 && !reload.hooks_differ {
        note(&format!("{}: nothing differs from {}", reload.interface, place.file.display()));
    }
    Ok(())
}

/// A reload under way.
struct Reload {
    interface: String,
    dry_run: bool,
    /// Where the command was given, and the device's sockets are.
    home: OwnedFd,
    journal: Option<Journal>,
    /// The table of the default routes and the mark, where the file has none.
    table: u32,
    /// What the file said before.
    before: Option<Said>,
    /// Whether it says otherwise now where peers are.
    said_changes: bool,
    /// The addresses that the interface has once they are the file's.
    addresses: BTreeSet<IpAddr>,
    /// Whether routes of IPv4 would be gone by then.
    flushed: bool,
    /// Whether hooks are others than were run.
    hooks_differ: bool,
    /// How many lines there were.
    changes: usize,
}

impl Reload {
    fn tell(&mut self, line: &str) {
        /// As many lines as anybody reads of a great change.
        const TOLD: usize = 100;
        self.changes += 1;
        let line = match self.changes {
            ..=TOLD => line,
            at if at == TOLD + 1 => "# and more",
            _ => return,
        };
        // Whoever listens no longer is no reason to stop half way.
        let _ = if self.dry_run { writeln!(io::stdout(), "{line}") } else { writeln!(io::stderr(), "[#] {line}") };
    }

    /// Says that hooks differ, which is all that is done about them.
    fn hooks(&mut self, wanted: &[Step], journal: &Journal) {
        let of = |steps: &[Step]| -> Vec<Vec<String>> {
            steps.iter().filter(|step| matches!(step, Step::Hook(_))).map(Step::describe).collect()
        };
        self.hooks_differ = of(wanted) != of(&journal.steps);
        if self.hooks_differ {
            note(&format!("{}: its PreUp or PostUp differs, and runs at the next `wireloom up`", self.interface));
        }
    }

    /// The rules that say what may pass, where `up` was given a file with them: first of all, as there.
    fn policy(&mut self) -> Result<(), Error> {
        let steps = self.journal.iter().flat_map(|journal| &journal.steps);
        let given = |step: &Step| if let Step::Policy(policy) = step { Some(policy.file.clone()) } else { None };
        let Some(file) = steps.filter_map(given).next() else { return Ok(()) };
        let wanted = policy::read(&file)?;
        let there: Vec<Rule> = client::policy(&self.interface)?.into_iter().map(|(rule, _)| rule).collect();
        if wanted == there {
            return Ok(());
        }
        let step = Policy { interface: self.interface.clone(), file };
        self.tell(&step.describe());
        // What was read: the file may be another one by now.
        if self.dry_run { Ok(()) } else { client::set_policy(&self.interface, &wanted) }
    }

    /// Keys, port, mark and peers.
    fn device(&mut self, device: &Device, quick: &Quick) -> Result<(), Error> {
        let known = self.journal.as_ref().and(self.before.as_ref()).map(Said::known);
        let mark = self.journal.is_some().then(|| self.mark(quick));
        let found = self.difference(device, &quick.device, known.as_ref(), mark, true)?;
        for line in &found.lines {
            self.tell(line);
        }
        if self.dry_run || found.is_none() {
            return Ok(());
        }
        match client::set(&self.interface, &found.change) {
            // All of a peer's networks at once is what every kernel takes.
            Err(Error::OldKernel(_)) => {
                let found = self.difference(device, &quick.device, known.as_ref(), mark, false)?;
                client::set(&self.interface, &found.change)
            }
            set => set,
        }
    }

    fn difference(
        &self,
        device: &Device,
        file: &File,
        known: Option<&Known>,
        mark: Option<u32>,
        single: bool,
    ) -> Result<Difference, Error> {
        let terms = Terms { interface: &self.interface, known, mark, single };
        let mut resolver = Resolver::default();
        // Names are asked for where the datagrams leave.
        let find = || Ok(difference(device, file, &terms, |endpoint| resolver.resolve(endpoint)));
        netns::run_in(self.home.as_fd(), find).map_err(Error::Links)?
    }

    /// The mark that the device should have: the file's, or the one that is chosen for a default route or a kill switch.
    fn mark(&self, quick: &Quick) -> u32 {
        let has_default = plan::networks(&quick.device).iter().any(|network| network.prefix_len() == 0);
        match quick.device.fwmark.filter(|mark| *mark != 0) {
            Some(mark) => mark,
            None if has_default && quick.table == Table::Auto => self.table,
            None if self.journal.as_ref().is_some_and(|it| has_kill_switch(it) && it.netns.is_none()) => self.table,
            None => 0,
        }
    }

    /// What `up` puts around the device.
    fn network(&mut self, place: &Place, quick: Quick, device: &Device) -> Result<(), Error> {
        let Some(mut journal) = self.journal.take() else {
            let said = "not brought up by `wireloom up`: addresses, routes and names are left as they are";
            note(&format!("{}: {said}", self.interface));
            return Ok(());
        };
        let mut rt = Rt::open().map_err(Error::Links)?;
        let link = rt.link(&self.interface).map_err(QuickError::Look)?;
        let link = link.ok_or_else(|| QuickError::NotUp(self.interface.clone()))?;
        let mtu = quick.mtu;
        let options = options(&journal);
        let wanted = plan::up(place, quick, &options, &Facts { free_table: self.table, path_mtu: None });
        let mut stage = Stage {
            interface: self.interface.clone(),
            home: self.home.try_clone().map_err(Error::Links)?,
            interrupted: Arc::default(),
            endpoints: Vec::new(),
            mark: 0,
            port: 0,
        };
        self.hooks(&wanted, &journal);
        self.addresses(&mut rt, link.index, &wanted, &mut journal)?;
        if let Some(mtu) = mtu.filter(|mtu| *mtu != link.mtu) {
            self.tell(&format!("ip link set mtu {mtu} dev {}", self.interface));
            if !self.dry_run {
                rt.set_mtu(link.index, mtu).map_err(QuickError::Look)?;
            }
        }
        // The device has it already; the next reload is to know that it was chosen.
        journal.steps.retain(|step| !matches!(step, Step::Mark(_)));
        journal.steps.extend(wanted.iter().find_map(|step| match step {
            Step::Mark(step) => Some(Step::Mark(Mark { interface: step.interface.clone(), mark: step.mark })),
            _ => None,
        }));
        let (wanted, kept): (Vec<Step>, Vec<Step>) = wanted.into_iter().partition(is_compared);
        self.undo(&wanted, &mut journal, &stage)?;
        self.routes(&mut rt, link.index, &kept, &mut journal, device)?;
        self.apply(wanted, &mut journal, &mut stage)?;
        let attend = kept.into_iter().find(|step| matches!(step, Step::Attend(_)));
        self.attend(attend, &mut journal, &mut stage)
    }

    /// Has the attendant know the names that the file has now. Its journal has none to compare them with, so that it is told whenever something differs.
    fn attend(&mut self, wanted: Option<Step>, journal: &mut Journal, stage: &mut Stage) -> Result<(), Error> {
        let at = journal.steps.iter().position(|step| matches!(step, Step::Attend(_)));
        if wanted.is_some() && at.is_some() && self.changes == 0 && !self.said_changes {
            return Ok(());
        }
        if wanted.is_none()
            && let Some(at) = at
        {
            self.tell(&format!("# undo: {}", journal.steps[at].describe().join("; ")));
            if !self.dry_run {
                journal.steps[at].undo(stage).map_err(|source| failed(&journal.steps[at], source))?;
            }
        }
        journal.steps.retain(|step| !matches!(step, Step::Attend(_)));
        if let Some(mut step) = wanted {
            let netns = journal.netns.clone();
            say(&step, netns.as_deref(), |line| self.tell(line));
            if !self.dry_run {
                step.apply(stage).map_err(|source| failed(&step, source))?;
            }
            journal.steps.push(step);
        }
        self.write(journal)
    }

    /// Takes away the addresses that are the journal's and no longer the plan's, and adds those that are missing.
    fn addresses(&mut self, rt: &mut Rt, index: u32, wanted: &[Step], journal: &mut Journal) -> Result<(), Error> {
        let of = |steps: &[Step]| -> Vec<rt::Address> {
            let address = |step: &Addresses| rt::Address { index, ip: step.ip, len: step.len };
            steps
                .iter()
                .filter_map(|step| if let Step::Addresses(step) = step { Some(address(step)) } else { None })
                .collect()
        };
        let wanted = of(wanted);
        let there = rt.addresses(Some(index)).map_err(QuickError::Look)?;
        let gone: Vec<rt::Address> = of(&journal.steps)
            .into_iter()
            .filter(|address| !wanted.contains(address) && there.contains(address))
            .collect();
        // With the last address of IPv4 the kernel takes away all its routes, which a dry run has to foresee.
        let stays = there.iter().any(|address| address.ip.is_ipv4() && !gone.contains(address));
        self.flushed = self.dry_run && !stays && gone.iter().any(|address| address.ip.is_ipv4());
        for address in &gone {
            self.tell(&self.address_line("delete", address));
            if !self.dry_run {
                rt.delete_address(*address).map_err(QuickError::Look)?;
            }
        }
        // With a first address those of its network may go, too.
        let mut there = rt.addresses(Some(index)).map_err(QuickError::Look)?;
        there.retain(|address| !gone.contains(address));
        for address in wanted.iter().filter(|address| !there.contains(address)) {
            self.tell(&self.address_line("add", address));
            if !self.dry_run {
                rt.add_address(*address).map_err(QuickError::Look)?;
            }
        }
        self.addresses = there.iter().chain(&wanted).map(|address| address.ip).collect();
        let at = journal.steps.iter().position(|step| matches!(step, Step::Addresses(_)));
        let at = at.or_else(|| journal.steps.iter().position(|step| matches!(step, Step::Activate(_))));
        journal.steps.retain(|step| !matches!(step, Step::Addresses(_)));
        let at = at.unwrap_or(journal.steps.len()).min(journal.steps.len());
        let steps = wanted.iter().map(|address| {
            Step::Addresses(Addresses::new(&self.interface, Address { ip: address.ip, len: address.len }))
        });
        journal.steps.splice(at..at, steps.collect::<Vec<_>>());
        self.write(journal)
    }

    fn address_line(&self, verb: &str, address: &rt::Address) -> String {
        let flag = if address.ip.is_ipv4() { "-4" } else { "-6" };
        let text = Address { ip: address.ip, len: address.len };
        format!("ip {flag} address {verb} {text} dev {}", self.interface)
    }

    /// Adds the routes that are missing, and takes those away that led to allowed IPs which are gone.
    fn routes(
        &mut self,
        rt: &mut Rt,
        index: u32,
        wanted: &[Step],
        journal: &mut Journal,
        device: &Device,
    ) -> Result<(), Error> {
        let of = |steps: &[Step]| -> Vec<Routes> {
            let copy = |step: &Routes| Routes {
                interface: step.interface.clone(),
                table: step.table,
                networks: step.networks.clone(),
            };
            steps
                .iter()
                .filter_map(|step| if let Step::Routes(step) = step { Some(copy(step)) } else { None })
                .collect()
        };
        let wanted = of(wanted);
        let tables: BTreeSet<u32> = of(&journal.steps).iter().chain(&wanted).map(|routes| routes.table).collect();
        let mut there: HashSet<(Cidr, u32)> = HashSet::new();
        for family in Family::ALL {
            for route in rt.routes(family, None).map_err(QuickError::Look)? {
                let is_plain = route.device == Some(index)
                    && route.gateway.is_none()
                    && route.kind == RouteKind::Unicast
                    && !(self.flushed && family == Family::V4);
                if let Some(cidr) = Cidr::new(route.to, route.len).filter(|_| is_plain && tables.contains(&route.table))
                {
                    there.insert((cidr, route.table));
                }
            }
        }
        // The kernel's own, which come and go with addresses.
        let addresses = rt.addresses(Some(index)).map_err(QuickError::Look)?;
        let connected: HashSet<Cidr> =
            addresses.iter().filter_map(|address| Cidr::new(address.ip, address.len)).collect();
        let all: HashSet<(Cidr, u32)> =
            wanted.iter().flat_map(|routes| routes.networks.iter().map(|cidr| (*cidr, routes.table))).collect();
        let said = self.before.iter().flat_map(Said::networks).copied();
        let before: HashSet<Cidr> =
            device.peers.iter().flat_map(|peer| peer.allowed_ips.iter().copied()).chain(said).collect();
        let mut missing: Vec<(Cidr, u32)> = all.iter().filter(|route| !there.contains(route)).copied().collect();
        let mut gone: Vec<(Cidr, u32)> = there
            .into_iter()
            .filter(|route| !all.contains(route) && before.contains(&route.0) && !connected.contains(&route.0))
            .collect();
        for (verb, routes) in [("add", &mut missing), ("delete", &mut gone)] {
            routes.sort_unstable();
            for (cidr, table) in routes.iter() {
                let one = Routes { interface: self.interface.clone(), table: *table, networks: vec![*cidr] };
                for line in one.describe() {
                    self.tell(&line.replacen("route add", &format!("route {verb}"), 1));
                }
            }
        }
        if self.dry_run {
            return Ok(());
        }
        let routes = |list: &[(Cidr, u32)]| -> Vec<rt::Route> {
            list.iter().map(|(cidr, table)| rt::Route::by(index, cidr.addr(), cidr.prefix_len(), *table)).collect()
        };
        rt.add_routes(&routes(&missing)).map_err(|(_, source)| QuickError::Look(source))?;
        match rt.delete_routes(&routes(&gone)) {
            Err((_, error)) if !error.is_absent() => return Err(QuickError::Look(error).into()),
            _ => {}
        }
        let at = journal.steps.iter().position(|step| matches!(step, Step::Routes(_))).unwrap_or(journal.steps.len());
        journal.steps.retain(|step| !matches!(step, Step::Routes(_)));
        let at = at.min(journal.steps.len());
        journal.steps.splice(at..at, wanted.into_iter().map(Step::Routes).collect::<Vec<_>>());
        self.write(journal)
    }

    /// Takes back what is in the journal and not wanted any more, the last first.
    fn undo(&mut self, wanted: &[Step], journal: &mut Journal, stage: &Stage) -> Result<(), Error> {
        // The order of rules counts, and a new one comes before all that are there: those of a family are made anew together.
        let rules = |steps: &[Step], v6: bool| -> Vec<Option<u32>> {
            let mark = |step: &Step| if let Step::Rule(rule) = step { Some((rule.v6, rule.mark)) } else { None };
            steps.iter().filter_map(mark).filter(|rule| rule.0 == v6).map(|rule| rule.1).collect()
        };
        let differ = [false, true].map(|v6| rules(wanted, v6) != rules(&journal.steps, v6));
        let stays = |step: &Step| match step {
            Step::Rule(rule) if differ[usize::from(rule.v6)] => false,
            step => !is_compared(step) || wanted.iter().any(|wanted| wanted.same(step) || wanted.replaces(step)),
        };
        for at in (0..journal.steps.len()).rev() {
            let step = &journal.steps[at];
            if stays(step) {
                continue;
            }
            self.tell(&format!("# undo: {}", step.describe().join("; ")));
            if !self.dry_run {
                step.undo(stage).map_err(|source| failed(step, source))?;
            }
            journal.steps.remove(at);
            self.write(journal)?;
        }
        Ok(())
    }

    /// Applies what is wanted and not in the journal yet, in the plan's order.
    fn apply(&mut self, wanted: Vec<Step>, journal: &mut Journal, stage: &mut Stage) -> Result<(), Error> {
        for mut step in wanted {
            if journal.steps.iter().any(|there| there.same(&step) && !self.is_stale(there)) {
                continue;
            }
            let netns = journal.netns.clone();
            say(&step, netns.as_deref(), |line| self.tell(line));
            if self.dry_run {
                continue;
            }
            if let Some(at) = journal.steps.iter().position(|there| step.replaces(there)) {
                // What is there stands until the moment in which the other does.
                step.apply(stage).map_err(|source| failed(&step, source))?;
                journal.steps[at] = step;
                self.write(journal)?;
                continue;
            }
            let at = journal.steps.len();
            journal.steps.push(step);
            if let Err(source) = carry_out(journal, at, stage) {
                // What it did, if anything, is taken back, so that another reload begins where this one did.
                let step = journal.steps.remove(at);
                let _ = step.undo(stage);
                self.write(journal)?;
                return Err(failed(&step, source));
            }
        }
        Ok(())
    }

    /// Whether a table guards other addresses than the interface has.
    fn is_stale(&self, step: &Step) -> bool {
        matches!(step, Step::LeakTable(table) if !table.guards(&self.addresses))
    }

    fn write(&self, journal: &Journal) -> Result<(), Error> {
        if self.dry_run {
            return Ok(());
        }
        journal.write().map_err(|source| QuickError::Journal { path: FOLDER.into(), source }.into())
    }
}

/// The table that `up` chose for default routes, or would.
fn table_of_default(journal: Option<&Journal>) -> Result<u32, Error> {
    let steps = journal.map(|journal| journal.steps.as_slice()).unwrap_or_default();
    let chosen = steps.iter().find_map(|step| if let Step::Mark(step) = step { Some(step.mark) } else { None });
    match chosen {
        Some(mark) => Ok(mark),
        None => Ok(machine::free_table(&mut Rt::open().map_err(Error::Links)?).map_err(QuickError::Look)?),
    }
}

/// Says something, if anybody listens.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "wireloom: {text}");
}

fn failed(step: &Step, source: super::step::StepError) -> Error {
    QuickError::Reload { what: step.describe().join("; "), source: Box::new(source) }.into()
}

/// What was asked for when it was brought up.
fn options(journal: &Journal) -> plan::Options {
    let attend =
        journal.steps.iter().find_map(|step| if let Step::Attend(attend) = step { Some(attend) } else { None });
    plan::Options {
        engine: journal.engine,
        netns: journal.netns.clone(),
        wipe_on_suspend: attend.is_some_and(Attend::wipes),
        metrics: attend.map(|attend| attend.metrics().to_vec()).unwrap_or_default(),
        kill_switch: has_kill_switch(journal),
        policy: journal.steps.iter().find_map(|step| match step {
            Step::Policy(policy) => Some(policy.file.clone()),
            _ => None,
        }),
    }
}

fn has_kill_switch(journal: &Journal) -> bool {
    journal.steps.iter().any(|step| matches!(step, Step::KillSwitch(_)))
}

/// Whether a step is compared by what it does: the others by what the interface has.
fn is_compared(step: &Step) -> bool {
    !matches!(
        step,
        Step::Link(_)
            | Step::Policy(_)
            | Step::Configure(_)
            | Step::Addresses(_)
            | Step::Activate(_)
            | Step::Mark(_)
            | Step::Routes(_)
            | Step::Attend(_)
            | Step::Hook(_)
    )
}

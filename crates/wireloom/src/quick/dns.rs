//! The name servers and search domains of a tunnel, told to whoever looks after name resolution here.
//!
//! Looked for in this order: `resolvconf`, as wg-quick(8) calls it, be it Debian's, openresolv or the one of systemd-resolved; systemd-resolved without that
//! program, if it runs and /etc/resolv.conf leads to it; and otherwise nobody does, and /etc/resolv.conf is replaced ([`ResolvConf`]). In a network namespace with a name it is the file that
//! `ip netns exec` puts into its place. As with wg-quick, search domains without a server are not for us.

use std::fs;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use config::address::Zones;
use serde::{Deserialize, Serialize};

use super::program::{self, ProgramError};
use super::resolv_conf::{self, ResolvConf, ResolvConfError};
use crate::zones::SystemZones;

/// Where Debian's resolvconf says which interfaces come first.
const INTERFACE_ORDER: &str = "/etc/resolvconf/interface-order";

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where systemd-resolved answers, if it runs.
const RESOLVED: &str = "/run/systemd/resolve/io.systemd.Resolve";

/// What `/etc/resolv.conf` leads to where systemd-resolved has it: its own files, or its own addresses.
const RESOLVED_FILES: [&str; 3] = ["/run/systemd/resolve", "/usr/lib/systemd/resolv.conf", "/lib/systemd/resolv.conf"];
const RESOLVED_ADDRESSES: [&str; 2] = ["127.0.0.53", "127.0.0.54"];

/// Why name resolution could not be set up, or not be put back.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum DnsError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    File(#[from] ResolvConfError),
}

/// Who is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Keeper {
    /// `resolvconf`, which knows the tunnel by this name.
    Resolvconf(String),
    /// systemd-resolved, through `resolvectl`.
    Resolved,
    /// Nobody: the file is replaced.
    File(ResolvConf),
}

/// A tunnel's name servers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dns {
    interface: String,
    servers: Vec<IpAddr>,
    search: Vec<String>,
    /// Whether all names are asked here.
    all_names: bool,
    keeper: Keeper,
}

impl Dns {
    /// What the servers and search domains of an interface take; `None` without a server. `default_route` says whether all traffic goes through the tunnel,
    /// `netns` in which network namespace the tunnel is, if it is not this one.
    pub fn plan(
        interface: &str,
        servers: &[IpAddr],
        search: &[String],
        default_route: bool,
        netns: Option<&str>,
    ) -> Option<Dns> {
        if servers.is_empty() {
            return None;
        }
        let resolved = || resolved_is_here() && program::find("resolvectl").is_some();
        let keeper = if netns.is_none() && resolvconf().is_some() {
            Keeper::Resolvconf(entry(interface))
        } else if netns.is_none() && resolved() {
            Keeper::Resolved
        } else {
            Keeper::File(ResolvConf::new(interface, netns, servers, search))
        };
        Some(Dns {
            interface: interface.to_owned(),
            servers: servers.to_vec(),
            search: search.to_vec(),
            // A tunnel to one network, which says what its names are, gets those alone.
            all_names: default_route || search.is_empty(),
            keeper,
        })
    }

    /// Whether both tell the same to the same.
    pub fn same(&self, other: &Dns) -> bool {
        let keeper = match (&self.keeper, &other.keeper) {
            (Keeper::File(file), Keeper::File(other)) => file.path() == other.path(),
            _ => self.replaces(other),
        };
        keeper && (&self.servers, self.domains()) == (&other.servers, other.domains())
    }

    /// Whether what it tells takes the place of what the other told. A file is brought back first: somebody else may have written it meanwhile.
    pub fn replaces(&self, other: &Dns) -> bool {
        match (&self.keeper, &other.keeper) {
            (Keeper::Resolvconf(entry), Keeper::Resolvconf(other)) => entry == other,
            (Keeper::Resolved, Keeper::Resolved) => true,
            _ => false,
        }
    }

    /// As a person would type it.
    pub fn describe(&self) -> String {
        let servers = words(&self.servers);
        match &self.keeper {
            Keeper::Resolvconf(entry) => format!("printf 'nameserver %s\\n' {servers} | resolvconf -a {entry} -m 0 -x"),
            Keeper::Resolved => {
                let domains = self.domains().iter().map(|domain| format!(" '{domain}'")).collect::<String>();
                format!("resolvectl dns {0} {servers} && resolvectl domain {0}{domains}", self.interface)
            }
            Keeper::File(file) => {
                let path = file.path().display();
                format!("printf 'nameserver %s\\n' {servers} > {path}  # nobody else looks after it")
            }
        }
    }

    /// Tells them.
    ///
    /// # Errors
    /// What they answer.
    pub fn apply(&mut self) -> Result<(), DnsError> {
        match &mut self.keeper {
            Keeper::Resolvconf(entry) => {
                let mut text: String = self.servers.iter().map(|server| format!("nameserver {server}\n")).collect();
                if !self.search.is_empty() {
                    text += &format!("search {}\n", self.search.join(" "));
                }
                let resolvconf = resolvconf().ok_or(ProgramError::Missing("resolvconf", "it was here a moment ago"))?;
                program::run(&resolvconf, &["-a", entry, "-m", "0", "-x"], &text)?;
            }
            Keeper::Resolved => {
                let servers = self.servers.iter().map(IpAddr::to_string);
                self.resolvectl("dns", servers)?;
                self.resolvectl("domain", self.domains().into_iter())?;
            }
            Keeper::File(file) => file.apply()?,
        }
        Ok(())
    }

    /// Takes back what they were told. The interface may be gone already.
    ///
    /// # Errors
    /// What they answer.
    pub fn undo(&self) -> Result<(), DnsError> {
        match &self.keeper {
            Keeper::Resolvconf(entry) => {
                if let Some(resolvconf) = resolvconf() {
                    program::run(&resolvconf, &["-d", entry, "-f"], "")?;
                }
            }
            // What it knows of a link goes with the link.
            Keeper::Resolved if SystemZones::open().index(&self.interface).is_none() => {}
            Keeper::Resolved => self.resolvectl("revert", std::iter::empty())?,
            Keeper::File(file) => file.undo()?,
        }
        Ok(())
    }

    fn domains(&self) -> Vec<String> {
        self.all_names.then(|| "~.".to_owned()).into_iter().chain(self.search.iter().cloned()).collect()
    }

    fn resolvectl(&self, verb: &str, values: impl Iterator<Item = String>) -> Result<(), DnsError> {
        let resolvectl =
            program::find("resolvectl").ok_or(ProgramError::Missing("resolvectl", "systemd-resolved has it"))?;
        let args: Vec<String> = [verb.to_owned(), self.interface.clone()].into_iter().chain(values).collect();
        program::run(&resolvectl, &args, "")?;
        Ok(())
    }
}

/// The program, unless it is the one of a systemd-resolved that does not run.
fn resolvconf() -> Option<PathBuf> {
    let program = program::find("resolvconf")?;
    let is_resolveds = program.canonicalize().is_ok_and(|real| real.file_name() == Some("resolvectl".as_ref()));
    (!is_resolveds || resolved_runs()).then_some(program)
}

fn resolved_runs() -> bool {
    UnixStream::connect(RESOLVED).is_ok()
}

/// Whether systemd-resolved is who answers when somebody asks as /etc/resolv.conf says.
fn resolved_is_here() -> bool {
    let leads = || {
        let real = fs::canonicalize(RESOLV_CONF).unwrap_or_default();
        let text = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        RESOLVED_FILES.iter().any(|file| real.starts_with(file))
            || resolv_conf::servers(&text).any(|server| RESOLVED_ADDRESSES.contains(&server))
    };
    resolved_runs() && leads()
}

/// The name by which resolvconf knows the tunnel, with a prefix that puts it first where Debian's orders names by patterns.
fn entry(interface: &str) -> String {
    let order = fs::read_to_string(Path::new(INTERFACE_ORDER)).unwrap_or_default();
    match prefix(&order) {
        Some(prefix) => format!("{prefix}.{interface}"),
        None => interface.to_owned(),
    }
}

/// The first pattern of `interface-order` that is a word and a star, without the star.
fn prefix(order: &str) -> Option<&str> {
    order.lines().find_map(|line| {
        let word = line.trim_matches([' ', '\t']).strip_suffix('*')?;
        let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (plain && !word.is_empty()).then_some(word)
    })
}

fn words(servers: &[IpAddr]) -> String {
    servers.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dns(keeper: Keeper) -> Dns {
        Dns {
            interface: "wg0".to_owned(),
            servers: vec!["10.0.0.53".parse().unwrap(), "fd00::53".parse().unwrap()],
            search: vec!["corp.example".to_owned()],
            all_names: true,
            keeper,
        }
    }

    #[test]
    fn each_way_is_told_as_a_command() {
        let resolvconf = dns(Keeper::Resolvconf("tun.wg0".to_owned())).describe();
        assert_eq!(resolvconf, "printf 'nameserver %s\\n' 10.0.0.53 fd00::53 | resolvconf -a tun.wg0 -m 0 -x");
        let resolved = dns(Keeper::Resolved).describe();
        assert_eq!(resolved, "resolvectl dns wg0 10.0.0.53 fd00::53 && resolvectl domain wg0 '~.' 'corp.example'");
        let file = Dns::plan("wg0", &["10.0.0.53".parse().unwrap()], &[], true, Some("blue")).unwrap().describe();
        assert_eq!(
            file,
            "printf 'nameserver %s\\n' 10.0.0.53 > /etc/netns/blue/resolv.conf  # nobody else looks after it"
        );
        assert!(Dns::plan("wg0", &[], &["corp.example".to_owned()], true, None).is_none());
    }

    #[test]
    fn another_search_domain_is_another_step() {
        for keeper in [Keeper::Resolvconf("tun.wg0".to_owned()), Keeper::Resolved] {
            let (one, mut other) = (dns(keeper.clone()), dns(keeper));
            assert!(one.same(&other));
            other.search.push("lab.example".to_owned());
            assert!(!one.same(&other) && one.replaces(&other));
        }
        assert!(!dns(Keeper::Resolved).replaces(&dns(Keeper::Resolvconf("wg0".to_owned()))));
    }

    #[test]
    fn the_prefix_is_the_first_plain_one() {
        let debian = "# interface-order(5)\nlo.inet6\nlo.inet\nlo.@(dnsmasq|pdnsd)\nlo.!(pdns|pdns-recursor)\nlo\ntun*\ntap*\nppp*\n";
        assert_eq!(prefix(debian), Some("tun"));
        assert_eq!(prefix("  @(br)*([0-9])*\n*\n\ttap-1*  \n"), Some("tap-1"));
        assert_eq!(prefix("lo\n# x*\n"), None);
    }

    proptest! {
        #[test]
        fn any_order_is_read(text in "(?s).{0,200}") {
            let found = prefix(&text);
            prop_assert!(found.is_none_or(|word| !word.is_empty() && text.contains(&(word.to_owned() + "*"))));
        }

        #[test]
        fn the_order_decides(words in proptest::collection::vec("[a-zA-Z0-9-]{1,8}", 1..5), noise in "[@.()!]{1,9}") {
            let text: String = words.iter().map(|word| format!("{noise}*\n{word}*\n")).collect();
            prop_assert_eq!(prefix(&text), Some(&words[0][..]));
        }
    }
}

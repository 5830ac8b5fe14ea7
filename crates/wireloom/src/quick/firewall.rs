//! The firewall of a tunnel: the table that goes with a default route, and the kill switch.
//!
//! The **leak table** `wg-quick-IF` is the one that wg-quick(8) makes, to the letter of `nft list ruleset`, so that either takes down what the other brought
//! up. It drops what comes in for the tunnel's addresses by any other interface, and keeps the mark of the tunnel's datagrams in the connection's entry, so
//! that the answers have it too. It is one of nftables, or of iptables where there is no `nft`.
//!
//! The **kill switch** `wireloom-kill-IF` drops all that leaves this host and is not let out by name: what goes by the loopback or the tunnel, UDP
//! with the tunnel's mark, and what the link itself needs to stay up (DHCP, neighbour discovery, multicast listener reports). It looks at packets last of all, after routing. What is
//! forwarded goes by the tunnel or not at all. The table belongs to nobody, so that it stays when the daemon dies, and is replaced
//! in one transaction, so that there is no moment without it.
//!
//! Everything is said to `nft -f -`, which hands it to the kernel as one transaction: all of it or nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use linux::rt::{Family, Rt, RtError};
use serde::{Deserialize, Serialize};

use super::program::{self, ProgramError};

const HINT: &str = "it is in the package nftables";

/// Why the firewall is not as it should be.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum FirewallError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("cannot ask for the interface's addresses: {0}")]
    Addresses(RtError),
    #[error(
        "the kill switch of '{0}' stands, and would let nothing out by another tunnel; expected `wireloom down {0}` first, or no --kill-switch here"
    )]
    Switched(String),
}

/// A family as nftables calls it.
fn nft_family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// The programs of iptables: the one that reads rules, and the one that prints them.
fn iptables(family: Family) -> [&'static str; 2] {
    match family {
        Family::V4 => ["iptables-restore", "iptables-save"],
        Family::V6 => ["ip6tables-restore", "ip6tables-save"],
    }
}

/// The table that goes with a default route of one family.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeakTable {
    interface: String,
    v6: bool,
    mark: u32,
    /// Whether it is one of iptables.
    iptables: bool,
    /// Whether it may be there.
    made: bool,
    /// The addresses that it keeps out of reach, once it was made.
    #[serde(default)]
    addresses: Vec<IpAddr>,
}

impl LeakTable {
    /// The table for the addresses of the family that the interface has by then; `mark` is the tunnel's.
    pub fn new(interface: &str, family: Family, mark: u32) -> LeakTable {
        LeakTable {
            interface: interface.to_owned(),
            v6: family == Family::V6,
            mark,
            iptables: program::find("nft").is_none() && program::find(iptables(family)[0]).is_some(),
            made: false,
            addresses: Vec::new(),
        }
    }

    /// Whether both are the same table with the same mark.
    pub fn same(&self, other: &LeakTable) -> bool {
        self.replaces(other) && self.mark == other.mark
    }

    /// Whether making it replaces the other.
    pub fn replaces(&self, other: &LeakTable) -> bool {
        (self.v6, self.iptables) == (other.v6, other.iptables)
    }

    /// Whether these are the addresses that it keeps out of reach. Those of the link alone do not count: the kernel may give them later.
    pub fn guards(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        let of_link = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let wanted = addresses.iter().filter(|ip| Family::of(**ip) == self.family() && !of_link(ip));
        let guarded: BTreeSet<&IpAddr> = self.addresses.iter().filter(|ip| !of_link(ip)).collect();
        guarded == wanted.collect()
    }

    /// The same as somebody else has made it.
    pub fn made(self) -> LeakTable {
        LeakTable { made: true, ..self }
    }

    fn family(&self) -> Family {
        if self.v6 { Family::V6 } else { Family::V4 }
    }

    /// As a person would type it, but for the table's rules.
    pub fn describe(&self) -> String {
        match self.iptables {
            true => format!("{} -n  # rules for {}", iptables(self.family())[0], self.interface),
            false => format!("nft -f -  # table {} {}", nft_family(self.family()), leak_name(&self.interface)),
        }
    }

    /// Makes the table, in place of one of that name.
    ///
    /// # Errors
    /// There is neither `nft` nor `iptables-restore`, or it refuses.
    pub fn apply(&mut self) -> Result<(), FirewallError> {
        let addresses = self.addresses().map_err(FirewallError::Addresses)?;
        require_nft(self.iptables)?;
        self.made = true;
        self.addresses.clone_from(&addresses);
        if self.iptables {
            // Twice the same rules are none the better: what is there goes first.
            remove_iptables(&self.interface, self.family())?;
            let [restore, _] = iptables(self.family());
            let restore = program::find(restore).ok_or(ProgramError::Missing("iptables-restore", HINT))?;
            program::run(&restore, &["-n"], &self.iptables_rules(&addresses))?;
            return Ok(());
        }
        nft(&self.nft_rules(&addresses))
    }

    /// Takes the table away, if it is there.
    ///
    /// # Errors
    /// The program refuses.
    pub fn undo(&self) -> Result<(), FirewallError> {
        if !self.made {
            return Ok(());
        }
        if self.iptables {
            return remove_iptables(&self.interface, self.family());
        }
        let table = format!("{} {}", nft_family(self.family()), leak_name(&self.interface));
        // Made first, since what is not there cannot be deleted.
        nft(&format!("add table {table}\ndelete table {table}\n"))
    }

    /// Those of the interface, in the kernel's order.
    fn addresses(&self) -> Result<Vec<IpAddr>, RtError> {
        let mut rt = Rt::open().map_err(RtError::Io)?;
        let Some(link) = rt.link(&self.interface)? else {
            return Ok(Vec::new());
        };
        let all = rt.addresses(Some(link.index))?.into_iter().map(|address| address.ip);
        Ok(all.filter(|ip| Family::of(*ip) == self.family()).collect())
    }

    fn nft_rules(&self, addresses: &[IpAddr]) -> String {
        let LeakTable { interface, mark, .. } = self;
        let (ip, name) = (nft_family(self.family()), leak_name(interface));
        let mut text = format!("add table {ip} {name}\ndelete table {ip} {name}\ntable {ip} {name} {{\n");
        text += " chain preraw {\n  type filter hook prerouting priority -300;\n";
        for address in addresses {
            let _ = writeln!(text, "  iifname != \"{interface}\" {ip} daddr {address} fib saddr type != local drop");
        }
        text += " }\n chain premangle {\n  type filter hook prerouting priority -150;\n";
        text += "  meta l4proto udp meta mark set ct mark\n }\n";
        text += " chain postmangle {\n  type filter hook postrouting priority -150;\n";
        let _ = writeln!(text, "  meta l4proto udp mark {mark} ct mark set mark\n }}\n}}");
        text
    }

    fn iptables_rules(&self, addresses: &[IpAddr]) -> String {
        let LeakTable { interface, mark, .. } = self;
        let comment = format!("-m comment --comment \"{}\"", comment(interface));
        let mut text = "*raw\n".to_owned();
        for address in addresses {
            let rule = format!("! -i {interface} -d {address} -m addrtype ! --src-type LOCAL -j DROP");
            let _ = writeln!(text, "-I PREROUTING {rule} {comment}");
        }
        text += "COMMIT\n*mangle\n";
        let _ = writeln!(text, "-I POSTROUTING -m mark --mark {mark} -p udp -j CONNMARK --save-mark {comment}");
        let _ = writeln!(text, "-I PREROUTING -p udp -j CONNMARK --restore-mark {comment}\nCOMMIT");
        text
    }
}

/// Only the tunnel may carry traffic.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KillSwitch {
    interface: String,
    /// The mark of the tunnel's own datagrams; where its sockets are elsewhere there are none to let out.
    mark: Option<u32>,
    /// Whether it was there before: a tunnel that died left it, and is brought up again behind it.
    stood: bool,
    /// Whether it may be there.
    made: bool,
}

impl KillSwitch {
    /// The switch for the network namespace of the interface, where the tunnel's datagrams have this mark, or do not come by.
    pub fn new(interface: &str, mark: Option<u32>) -> KillSwitch {
        KillSwitch { interface: interface.to_owned(), mark, stood: false, made: false }
    }

    /// Whether both let the same through.
    pub fn same(&self, other: &KillSwitch) -> bool {
        self.mark == other.mark
    }

    /// As a person would type it, but for the table's rules.
    pub fn describe(&self) -> String {
        format!("nft -f -  # table inet {}: nothing leaves but by {}", kill_name(&self.interface), self.interface)
    }

    /// Makes the table, in place of one of that name.
    ///
    /// # Errors
    /// There is no `nft`, or it refuses; or another interface has one, which drops what is to go by this one, as this one would drop the other's.
    pub fn apply(&mut self) -> Result<(), FirewallError> {
        let own = kill_name(&self.interface);
        let standing: Vec<String> = tables()?.into_iter().map(|(_, table)| table).collect();
        let other = |table: &String| table.strip_prefix(KILL).filter(|_| *table != own).map(interface_of);
        if let Some(other) = standing.iter().find_map(other) {
            return Err(FirewallError::Switched(other));
        }
        self.stood = standing.contains(&own);
        self.made = true;
        nft(&self.rules())
    }

    /// Takes the table away, if it is there.
    ///
    /// # Errors
    /// `nft` refuses.
    pub fn undo(&self) -> Result<(), FirewallError> {
        if !self.made {
            return Ok(());
        }
        let name = kill_name(&self.interface);
        nft(&format!("add table inet {name}\ndelete table inet {name}\n"))
    }

    /// The same as an interface that ended otherwise has left it. It stands on when what comes after it fails.
    pub fn left_standing(self) -> KillSwitch {
        KillSwitch { stood: true, made: true, ..self }
    }

    /// Whether it stood before it was applied, and so stands on when what comes after it fails.
    pub fn stood(&self) -> bool {
        self.stood
    }

    /// Whether there is one for the interface.
    ///
    /// # Errors
    /// There is no `nft`, or it refuses.
    pub fn stands(interface: &str) -> Result<bool, FirewallError> {
        Ok(tables()?.iter().any(|(_, table)| *table == kill_name(interface)))
    }

    fn rules(&self) -> String {
        let (name, interface) = (kill_name(&self.interface), &self.interface);
        let mut text =
            format!("add table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n chain leave {{\n");
        text += "  type filter hook postrouting priority 0; policy drop;\n";
        let _ = writeln!(text, "  oifname {{ \"lo\", \"{interface}\" }} accept");
        if let Some(mark) = self.mark {
            let _ = writeln!(text, "  meta l4proto udp meta mark {mark} accept");
        }
        // DHCP. What comes by way of a relay leaves the link, and so any address will do.
        text += "  udp sport 68 udp dport 67 accept\n";
        text += "  ip6 saddr fe80::/10 udp sport 546 udp dport 547 accept\n";
        // A hop limit of 255 is not for routers, and one of 1 is for none.
        text +=
            "  icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept\n";
        text +=
            "  icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } ip6 hoplimit 1 accept\n";
        text += "  counter drop\n }\n";
        // What is let out above is what this host itself sends. Of what it forwards anybody can make such packets.
        text += " chain pass {\n  type filter hook forward priority 0; policy drop;\n";
        let _ = writeln!(text, "  oifname \"{interface}\" accept\n  counter drop\n }}\n}}");
        text
    }
}

/// Whether there is a tunnel other than this one that has a default route by way of a mark.
pub(super) fn others_route_by_mark(interface: &str) -> bool {
    let own = leak_name(interface);
    if tables().unwrap_or_default().iter().any(|(_, table)| table.starts_with(&leak_name("")) && *table != own) {
        return true;
    }
    let Some(save) = program::find("iptables-save") else {
        return false;
    };
    let rules = program::run::<&str>(&save, &[], "").unwrap_or_default();
    let (any, own) = (comment(""), format!("{}\"", comment(interface)));
    rules.lines().any(|line| line.contains(&any) && !line.contains(&own))
}

/// The comment that marks a rule of iptables as an interface's.
fn comment(interface: &str) -> String {
    format!("wg-quick(8) rule for {interface}")
}

fn leak_name(interface: &str) -> String {
    format!("wg-quick-{}", identifier(interface))
}

/// What the names of all kill switches begin with.
const KILL: &str = "wireloom-kill-";

fn kill_name(interface: &str) -> String {
    format!("{KILL}{}", identifier(interface))
}

/// The interface's name as a part of an identifier of nftables: what cannot stand in one becomes a slash, which is in no interface's name, and its code.
fn identifier(interface: &str) -> String {
    let mut text = String::new();
    for byte in interface.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => text.push(byte.into()),
            _ => {
                let _ = write!(text, "/{byte:02x}");
            }
        }
    }
    text
}

/// The interface's name of such a part.
fn interface_of(identifier: &str) -> String {
    let mut parts = identifier.split('/');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        text.extend(u8::from_str_radix(code, 16).map(char::from));
        text += rest;
    }
    text
}

/// Fails where a table could not be made anyway.
fn require_nft(iptables: bool) -> Result<(), FirewallError> {
    match iptables || program::find("nft").is_some() {
        true => Ok(()),
        false => Err(ProgramError::Missing("nft", HINT).into()),
    }
}

/// Hands a transaction to the kernel.
fn nft(text: &str) -> Result<(), FirewallError> {
    let nft = program::find("nft").ok_or(ProgramError::Missing("nft", HINT))?;
    program::run(&nft, &["-f", "-"], text)?;
    Ok(())
}

/// The family and the name of each table.
fn tables() -> Result<Vec<(String, String)>, FirewallError> {
    let nft = program::find("nft").ok_or(ProgramError::Missing("nft", HINT))?;
    Ok(parse_tables(&program::run(&nft, &["list", "tables"], "")?))
}

/// Reads what `nft list tables` prints; what is no table is passed over.
fn parse_tables(text: &str) -> Vec<(String, String)> {
    let table = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["table", family, name] => Some((family.to_owned(), name.to_owned())),
            _ => None,
        }
    };
    text.lines().filter_map(table).collect()
}

/// Takes away the rules of iptables that have our comment.
fn remove_iptables(interface: &str, family: Family) -> Result<(), FirewallError> {
    let [restore, save] = iptables(family);
    let (Some(restore), Some(save)) = (program::find(restore), program::find(save)) else {
        return Ok(());
    };
    // One that cannot be asked has no rules.
    let rules = program::run::<&str>(&save, &[], "").unwrap_or_default();
    if let Some(text) = deletions(&rules, interface) {
        program::run(&restore, &["-n"], &text)?;
    }
    Ok(())
}

/// Of what `iptables-save` prints, what `iptables-restore` has to read for the rules of an interface to go.
fn deletions(rules: &str, interface: &str) -> Option<String> {
    let (mut text, mut found) = (String::new(), false);
    let comment = format!("--comment \"{}\"", comment(interface));
    for line in rules.lines() {
        match line.strip_prefix("-A ") {
            Some(rule) if rule.contains(&comment) => {
                found = true;
                let _ = writeln!(text, "-D {rule}");
            }
            None if line.starts_with('*') || line == "COMMIT" => {
                let _ = writeln!(text, "{line}");
            }
            _ => {}
        }
    }
    found.then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_what_nftables_can_read() {
        assert_eq!(leak_name("wg0"), "wg-quick-wg0");
        assert_eq!(kill_name("a+b=c.d-e_f"), "wireloom-kill-a/2bb/3dc.d-e_f");
        assert_eq!(interface_of("a/2bb/3dc.d-e_f"), "a+b=c.d-e_f");
    }

    #[test]
    fn what_nft_lists_is_read() {
        let text = "table ip wg-quick-wg0\ntable inet x/2by\n# table ip no\ntable short\n";
        let table = |family: &str, name: &str| (family.to_owned(), name.to_owned());
        assert_eq!(parse_tables(text), [table("ip", "wg-quick-wg0"), table("inet", "x/2by")]);
    }

    #[test]
    fn only_rules_of_the_interface_are_deleted() {
        let rule = |interface| {
            format!(
                "-A PREROUTING -p udp -m comment --comment \"wg-quick(8) rule for {interface}\" -j CONNMARK --restore-mark"
            )
        };
        let saved = format!(
            "# made by\n*mangle\n:PREROUTING ACCEPT [0:0]\n{}\n{}\n-A INPUT -j DROP\nCOMMIT\n",
            rule("wg0"),
            rule("wg01")
        );
        let expected = format!("*mangle\n-D{}\nCOMMIT\n", &rule("wg0")[2..]);
        assert_eq!(deletions(&saved, "wg0"), Some(expected));
        assert_eq!(deletions(&saved, "wg"), None);
    }

    proptest! {
        #[test]
        fn any_text_may_come_from_the_programs(text in "(?s).{0,200}", interface in "[a-zA-Z0-9_=+.-]{1,15}") {
            parse_tables(&text);
            prop_assert!(deletions(&text, &interface).is_none_or(|text| text.contains(&interface)));
        }

        #[test]
        fn each_table_and_each_rule_is_found(
            names in proptest::collection::vec("[a-z][a-z0-9_./-]{0,20}", 0..5),
            others in 0_usize..5,
            own in 1_usize..5,
        ) {
            let listed: String = names.iter().map(|name| format!("table ip6 {name}\n")).collect();
            let read: Vec<_> = parse_tables(&listed).into_iter().map(|(_, name)| name).collect();
            prop_assert_eq!(read, names);
            let rule = |interface| format!("-A X -m comment --comment \"wg-quick(8) rule for {interface}\" -j Y\n");
            let saved = format!("*raw\n{}{}COMMIT\n", rule("other").repeat(others), rule("wg0").repeat(own));
            let text = deletions(&saved, "wg0").unwrap_or_default();
            prop_assert_eq!(text.matches("-D X").count(), own);
        }

        #[test]
        fn identifiers_are_unique_and_readable(one in "[a-zA-Z0-9_=+.-]{1,15}", other in "[a-zA-Z0-9_=+.-]{1,15}") {
            prop_assert_eq!(identifier(&one) == identifier(&other), one == other);
            prop_assert!(identifier(&one).bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_-.".contains(&byte)));
        }
    }
}

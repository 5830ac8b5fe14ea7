//! nftables in a namespace: counting what passes on the wire, changing it, or taking it away.
//!
//! A [`Tap`] is a table of its own with one chain and one rule, so that taps do not disturb each other. It goes with its namespace.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::{LabError, Namespace, Port};

/// Where a tap looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// What comes in by any interface, before anything else is done with it.
    Incoming,
    /// What this host sends, before routing.
    Outgoing,
    /// What this host forwards.
    Forwarded,
    /// What leaves, last of all: where addresses are translated.
    Leaving,
}

/// One rule of nftables, and how many packets it has matched.
#[derive(Debug)]
pub struct Tap {
    namespace: Namespace,
    family: &'static str,
    table: String,
}

impl Tap {
    /// Counts the packets that match `rule` in nftables' language, such as `udp dport 51820 @th,64,8 4`; super-packets count once. What
    /// follows a match may stand behind it: `drop`, `ip ecn set ce`.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn new(namespace: &Namespace, hook: Hook, matches: &str, then: &str) -> Result<Tap, LabError> {
        let hook = match hook {
            Hook::Incoming => "type filter hook prerouting priority -500",
            Hook::Outgoing => "type filter hook output priority -500",
            Hook::Forwarded => "type filter hook forward priority 0",
            Hook::Leaving => "type nat hook postrouting priority 100",
        };
        Tap::make(namespace, "inet", hook, matches, then)
    }

    /// The same of what has been sent by this port of a link that leads through a switch, whatever sent it and whatever will take it. No hook of the
    /// sending host would do: the kernel lets what programs redirect pass the hook at a device, and it never comes to those before. Nor would one of the
    /// receiving host, where programs are before any of them.
    ///
    /// # Errors
    /// As [`Tap::new`], or [`LabError::NoSwitch`].
    pub fn on_wire(sender: &Port, matches: &str, then: &str) -> Result<Tap, LabError> {
        let Some(switch) = &sender.switch else {
            return Err(LabError::NoSwitch { interface: sender.interface.clone() });
        };
        let hook = format!("type filter hook ingress device {} priority 0", switch.interface);
        Tap::make(&switch.namespace, "netdev", &hook, matches, then)
    }

    fn make(
        namespace: &Namespace,
        family: &'static str,
        hook: &str,
        matches: &str,
        then: &str,
    ) -> Result<Tap, LabError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let table = format!("tap{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let ruleset = format!("table {family} {table} {{\nchain c {{\n{hook}; {matches} counter {then}\n}}\n}}");
        namespace.run("nft", &[&ruleset])?;
        Ok(Tap { namespace: namespace.clone(), family, table })
    }

    /// How many packets have matched so far.
    ///
    /// # Errors
    /// What `nft` said, or that it said nothing readable.
    pub fn packets(&self) -> Result<u64, LabError> {
        let text = self.namespace.run("nft", &["list", "table", self.family, &self.table])?;
        let count =
            text.split_once("counter packets ").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        count.ok_or(LabError::Unreadable { what: "a counter of nftables", text })
    }

    /// Takes the rule away.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn remove(self) -> Result<(), LabError> {
        self.namespace.run("nft", &["delete", "table", self.family, &self.table]).map(drop)
    }
}

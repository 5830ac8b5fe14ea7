//! A cable between two namespaces: a veth pair with addresses of both families.
//!
//! A veth hands a UDP GSO packet over whole, as no network does, which flatters whoever sends such packets. [`Gso::Off`] makes
//! the kernel cut them at the sender, as a network card would, and lets the receiver's GRO join them again: each datagram
//! crosses alone. A result is only worth something with both.
//!
//! A cable may lead through a switch, which is a bridge in a namespace of its own. Nothing there is of either host: whatever in a host's kernel
//! has sent a packet or will take it, at the switch it is a packet like any other, and a [`Tap`](crate::Tap) hears, changes or drops it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::{LabError, Namespace};

/// Whether segmentation offloads reach through the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gso {
    /// Every datagram crosses alone, as on a real link.
    Off,
    /// A plain veth: super-packets cross whole.
    Through,
}

impl Gso {
    /// For tables and file names.
    pub fn name(self) -> &'static str {
        match self {
            Gso::Through => "gso",
            Gso::Off => "no-gso",
        }
    }

    /// The label `link` of a record.
    pub fn label(self) -> &'static str {
        match self {
            Gso::Through => "gso",
            Gso::Off => "off",
        }
    }
}

/// One end of a link.
#[derive(Clone, Debug)]
pub struct Port {
    /// The host at this end.
    pub namespace: Namespace,
    /// The interface's name inside.
    pub interface: String,
    /// Its IPv4 address, in a /24 of the link.
    pub v4: Ipv4Addr,
    /// Its IPv6 address, in a /64 of the link.
    pub v6: Ipv6Addr,
    /// Where its cable leads, if that is a switch.
    pub switch: Option<SwitchPort>,
}

/// A port of a switch.
#[derive(Clone, Debug)]
pub struct SwitchPort {
    /// The switch.
    pub namespace: Namespace,
    /// The interface there.
    pub interface: &'static str,
}

/// The largest packet that a switch passes on: whatever the hosts' own ports let through.
const JUMBO: &str = "9216";

/// The ports of a switch, for the left host and for the right one.
const SIDES: [&str; 2] = ["left", "right"];

/// Both ends of a cable, up. It goes with its namespaces.
#[derive(Debug)]
pub struct Link {
    /// The first end.
    pub left: Port,
    /// The other end.
    pub right: Port,
    number: u16,
}

impl Link {
    /// Joins two namespaces by a new cable. Each link has networks of its own, so that a host may have several.
    ///
    /// # Errors
    /// What `ip` or `ethtool` said.
    pub fn new(left: &Namespace, right: &Namespace, gso: Gso) -> Result<Link, LabError> {
        Link::make(left, right, gso, |interface| {
            left.ip(&["link", "add", interface, "type", "veth", "peer", "name", interface, "netns", right.name()])?;
            Ok([None, None])
        })
    }

    /// The same through a switch.
    ///
    /// # Errors
    /// As [`Link::new`].
    pub fn switched(left: &Namespace, right: &Namespace, gso: Gso) -> Result<Link, LabError> {
        let switch = Namespace::new()?;
        // It has nothing to say itself.
        switch.set_sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        switch.ip(&["link", "add", "bridge", "up", "type", "bridge", "mcast_snooping", "0"])?;
        Link::make(left, right, gso, |interface| {
            for (host, side) in [left, right].into_iter().zip(SIDES) {
                host.ip(&["link", "add", interface, "type", "veth", "peer", "name", side, "netns", switch.name()])?;
                switch.ip(&["link", "set", side, "mtu", JUMBO, "master", "bridge", "up"])?;
            }
            Ok(SIDES.map(|interface| Some(SwitchPort { namespace: switch.clone(), interface })))
        })
    }

    /// `plug` makes the interfaces, and says which switch their cables lead to.
    fn make(
        left: &Namespace,
        right: &Namespace,
        gso: Gso,
        plug: impl FnOnce(&str) -> Result<[Option<SwitchPort>; 2], LabError>,
    ) -> Result<Link, LabError> {
        let number = next_number();
        let interface = format!("link{number}");
        let [one, other] = plug(&interface)?;
        let port = |namespace: &Namespace, host, switch| Port {
            namespace: namespace.clone(),
            interface: interface.clone(),
            v4: v4(number, host),
            v6: v6(number, host),
            switch,
        };
        let link = Link { left: port(left, 1, one), right: port(right, 2, other), number };
        for port in [&link.left, &link.right] {
            port.add_addresses(port.v4, port.v6)?;
            if gso == Gso::Off {
                let off = ["-K", &interface, "tso", "off", "gso", "off", "tx-udp-segmentation", "off", "gro", "on"];
                port.namespace.run("ethtool", &off)?;
            }
            // Not even of link-local addresses: until such a one is there, no neighbour is asked for on behalf of an address of another interface.
            for which in ["all", &interface] {
                port.namespace.set_sysctl(&format!("net/ipv6/conf/{which}/accept_dad"), "0")?;
            }
            port.namespace.ip(&["link", "set", &interface, "up"])?;
        }
        Ok(link)
    }

    /// Another IPv4 and IPv6 address in the link's networks, for a host that moves. `host` is 3 to 254.
    pub fn spare_addresses(&self, host: u8) -> (Ipv4Addr, Ipv6Addr) {
        (v4(self.number, host), v6(self.number, host))
    }
}

impl Port {
    /// Adds an address of each family. Without duplicate address detection, so that they work at once.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn add_addresses(&self, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<(), LabError> {
        let add = |address: &str, nodad: &[&str]| {
            let mut args = vec!["address", "add", address, "dev", &self.interface];
            args.extend(nodad);
            self.namespace.ip(&args).map(drop)
        };
        add(&format!("{v4}/24"), &[])?;
        add(&format!("{v6}/64"), &["nodad"])
    }

    /// Takes both addresses of this port away.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn remove_addresses(&self) -> Result<(), LabError> {
        for address in [format!("{}/24", self.v4), format!("{}/64", self.v6)] {
            self.namespace.ip(&["address", "del", &address, "dev", &self.interface])?;
        }
        Ok(())
    }

    /// Its link address, as in the frames that leave by it.
    ///
    /// # Errors
    /// What `ip` said, or that it said nothing readable.
    pub fn mac(&self) -> Result<[u8; 6], LabError> {
        let text = self.namespace.ip(&["-j", "link", "show", "dev", &self.interface])?;
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let parts = json[0]["address"].as_str().unwrap_or_default().split(':');
        let bytes: Option<Vec<u8>> = parts.map(|part| u8::from_str_radix(part, 16).ok()).collect();
        let mac = bytes.and_then(|bytes| bytes.try_into().ok());
        mac.ok_or(LabError::Unreadable { what: "a link address", text })
    }

    /// What has gone through the interface so far.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn counters(&self) -> Result<Counters, LabError> {
        Counters::of(&self.namespace, &self.interface)
    }
}

/// What has gone through an interface; a super-packet counts as one packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Bytes sent, headers included.
    pub sent_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Bytes received, headers included.
    pub received_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
}

impl Counters {
    /// The counters of any interface.
    ///
    /// # Errors
    /// What `ip` said, or that it said nothing readable.
    pub fn of(namespace: &Namespace, interface: &str) -> Result<Counters, LabError> {
        let text = namespace.ip(&["-s", "-j", "link", "show", "dev", interface])?;
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let stats = &json[0]["stats64"];
        let read = |direction: &str, unit: &str| stats[direction][unit].as_u64();
        let all = || {
            Some(Counters {
                sent_bytes: read("tx", "bytes")?,
                sent_packets: read("tx", "packets")?,
                received_bytes: read("rx", "bytes")?,
                received_packets: read("rx", "packets")?,
            })
        };
        all().ok_or(LabError::Unreadable { what: "interface statistics", text })
    }

    /// What has gone through since `before`.
    pub fn since(self, before: Counters) -> Counters {
        Counters {
            sent_bytes: self.sent_bytes - before.sent_bytes,
            sent_packets: self.sent_packets - before.sent_packets,
            received_bytes: self.received_bytes - before.received_bytes,
            received_packets: self.received_packets - before.received_packets,
        }
    }

    /// The mean size of a packet sent.
    pub fn mean_sent(self) -> u64 {
        self.sent_bytes / self.sent_packets.max(1)
    }

    /// The mean size of a packet received.
    pub fn mean_received(self) -> u64 {
        self.received_bytes / self.received_packets.max(1)
    }
}

/// The number of a new link, from which its networks follow.
pub(crate) fn next_number() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed) % 4096
}

/// The IPv4 address of a host on a link.
pub(crate) fn v4(number: u16, host: u8) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(172, 16 + high, low, host)
}

/// The IPv6 address of a host on a link.
pub(crate) fn v6(number: u16, host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd16, number, 0, 0, 0, 0, 0, u16::from(host))
}

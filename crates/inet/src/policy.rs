//! What may pass a tunnel: the rules for single packets, and how they are held against one.
//!
//! A rule is what it takes ([`Matching`]) and what becomes of that ([`Action`]). Rules stand in an order; the first that takes a packet
//! decides, and what none takes passes. Whose packet it is, which peer's, is for the caller to hold against the rule first: peers have
//! other names elsewhere.
//!
//! The same is done in BPF (`crates/ebpf/bpf/policy.h`), to the letter, and the two are held against each other by a test. So what a
//! packet is to the rules is told by a [`Flow`] alone, and what a limit remembers is one word ([`Limit::admits`]) that both may change.
//!
//! Fragments: the first has its ports, the later ones have none, and a rule that names ports does not take them. What lies behind IPv6
//! extension headers is looked for; where the chain is cut short the packet has no protocol, and only rules that name none take it.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cidr::Cidr;
use crate::ip::{IpPacket, TCP, UDP};

/// IP protocol number of DCCP (RFC 4340).
pub const DCCP: u8 = 33;
/// IP protocol number of SCTP (RFC 9260).
pub const SCTP: u8 = 132;
/// IP protocol number of UDP-Lite (RFC 3828).
pub const UDP_LITE: u8 = 136;

/// Whether the protocol's header begins with two ports.
#[inline]
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | DCCP | SCTP | UDP_LITE)
}

/// Which way a packet goes, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To a peer.
    Out,
    /// From a peer.
    In,
}

/// How often a rule has taken a packet since it is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCount {
    /// Packets that it took, whatever became of them; a super-packet counts by its segments.
    pub packets: u64,
    /// Their bytes, from the inner IP header on.
    pub bytes: u64,
    /// How many of the packets it dropped.
    pub dropped: u64,
}

/// What the rules see of an inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Whom it is from.
    pub source: IpAddr,
    /// Whom it is for.
    pub destination: IpAddr,
    /// IP protocol number, behind extension headers; `None` if those are cut short.
    pub protocol: Option<u8>,
    /// Source and destination port, if the protocol has ports and this packet has its header.
    pub ports: Option<(u16, u16)>,
}

impl Flow {
    /// What the rules see of this packet.
    #[inline]
    pub fn of(packet: &IpPacket<'_>) -> Self {
        let transport = packet.transport();
        let ports = transport.filter(|it| has_ports(it.protocol) && !it.later_fragment).and_then(|it| {
            let header: &[u8; 4] = packet.bytes().get(it.offset..)?.first_chunk()?;
            Some((u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]])))
        });
        Self { source: packet.src(), destination: packet.dst(), protocol: transport.map(|it| it.protocol), ports }
    }
}

/// Ports from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl Ports {
    fn hold(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// What a rule takes: packets of which all that is said here holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    /// Which way; both if not said.
    pub direction: Option<Direction>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Where it is from. No packet of the other address family is.
    pub source: Option<Cidr>,
    /// Where it goes.
    pub destination: Option<Cidr>,
    /// Its source port.
    pub source_ports: Option<Ports>,
    /// Its destination port.
    pub destination_ports: Option<Ports>,
}

impl Matching {
    /// Whether all of it holds.
    #[inline]
    pub fn takes(&self, direction: Direction, flow: &Flow) -> bool {
        let ports = |wanted: Option<Ports>, port: Option<u16>| {
            wanted.is_none_or(|wanted| port.is_some_and(|port| wanted.hold(port)))
        };
        self.direction.is_none_or(|wanted| wanted == direction)
            && self.protocol.is_none_or(|wanted| flow.protocol == Some(wanted))
            && self.source.is_none_or(|wanted| wanted.contains(flow.source))
            && self.destination.is_none_or(|wanted| wanted.contains(flow.destination))
            && ports(self.source_ports, flow.ports.map(|it| it.0))
            && ports(self.destination_ports, flow.ports.map(|it| it.1))
    }
}

/// What becomes of a packet that a rule takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on.
    Pass,
    /// It is dropped, and nobody is told.
    Drop,
    /// It goes on while there are not too many of them, and is dropped else.
    Limit(Limit),
}

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of inner packets, headers and all.
    Bytes,
    /// Packets; a super-packet counts for as many as it is cut into.
    Packets,
}

/// How much may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// So many each second.
    pub per_second: NonZeroU64,
    /// Of these.
    pub unit: Unit,
    /// How far ahead of the rate the packets may be: what may pass at once after a pause is what the rate gives in this time, and one packet.
    pub burst: Duration,
}

impl Limit {
    /// What a limit's packets may be ahead, if nothing else is said.
    pub const BURST: Duration = Duration::from_millis(100);

    /// Nanoseconds that so many packets of together so many bytes take at this rate.
    #[inline]
    pub fn cost(&self, packets: u32, bytes: u32) -> u64 {
        let count = match self.unit {
            Unit::Bytes => bytes,
            Unit::Packets => packets,
        };
        // Less than 2^62: no rate is below one a second, and 2^32 seconds are 2^62 ns.
        u64::from(count) * 1_000_000_000 / self.per_second
    }

    /// Whether a packet may pass now (nanoseconds of CLOCK_BOOTTIME). `until` is the time at which, at this rate, all is through that has
    /// passed so far (the generic cell rate algorithm, ITU-T I.371): a packet passes while that is no more than `burst` ahead,
    /// and adds its own time. So a packet larger than the burst passes too, in its turn.
    #[inline]
    pub fn admits(&self, until: &AtomicU64, now: u64, packets: u32, bytes: u32) -> bool {
        let burst = u64::try_from(self.burst.as_nanos()).unwrap_or(u64::MAX);
        let cost = self.cost(packets, bytes);
        let next = |until: u64| {
            let ahead = until.saturating_sub(now);
            (ahead <= burst).then(|| now.saturating_add(ahead).saturating_add(cost))
        };
        until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(protocol: Option<u8>, ports: Option<(u16, u16)>) -> Flow {
        Flow { source: "10.0.0.1".parse().unwrap(), destination: "10.0.1.2".parse().unwrap(), protocol, ports }
    }

    #[test]
    fn all_that_is_said_has_to_hold() {
        let cidr = |addr: &str, len| Cidr::new(addr.parse().unwrap(), len);
        let all = Matching {
            direction: Some(Direction::Out),
            protocol: Some(TCP),
            source: cidr("10.0.0.0", 24),
            destination: cidr("10.0.1.2", 32),
            source_ports: Some(Ports { first: 1000, last: 2000 }),
            destination_ports: Some(Ports { first: 25, last: 25 }),
        };
        let mail = flow(Some(TCP), Some((1500, 25)));
        assert!(all.takes(Direction::Out, &mail) && Matching::default().takes(Direction::In, &mail));
        assert!(!all.takes(Direction::In, &mail));
        for other in [
            Flow { protocol: Some(UDP), ..mail },
            Flow { protocol: None, ..mail },
            Flow { source: "10.0.1.1".parse().unwrap(), ..mail },
            Flow { source: "::1".parse().unwrap(), ..mail },
            Flow { destination: "10.0.1.3".parse().unwrap(), ..mail },
            Flow { ports: Some((999, 25)), ..mail },
            Flow { ports: Some((1500, 26)), ..mail },
            Flow { ports: None, ..mail },
        ] {
            assert!(!all.takes(Direction::Out, &other), "{other:?}");
        }
    }

    #[test]
    fn a_packet_shows_its_ports_where_it_has_them() {
        let mut packet = [0; 28];
        packet[0] = 0x45;
        packet[3] = 28;
        packet[9] = UDP;
        packet[20..24].copy_from_slice(&[0, 53, 0x12, 0x34]);
        let of = |packet: &[u8]| Flow::of(&IpPacket::parse(packet).unwrap());
        assert_eq!(of(&packet).ports, Some((53, 0x1234)));
        packet[9] = 1;
        assert_eq!((of(&packet).protocol, of(&packet).ports), (Some(1), None));
        packet[9] = UDP;
        packet[7] = 1;
        assert_eq!((of(&packet).protocol, of(&packet).ports), (Some(UDP), None), "a later fragment");
        packet[7] = 0;
        packet[3] = 23;
        assert_eq!(of(&packet).ports, None, "cut short");
    }

    #[test]
    fn a_limit_lets_through_what_it_says() {
        let limit =
            |per_second, unit| Limit { per_second: NonZeroU64::new(per_second).unwrap(), unit, burst: Limit::BURST };
        let (bytes, packets) = (limit(125_000, Unit::Bytes), limit(1000, Unit::Packets));
        assert_eq!((bytes.cost(1, 1250), packets.cost(3, 9)), (10_000_000, 3_000_000));
        for (limit, expected) in [(bytes, 1000), (packets, 10_000)] {
            // Ten seconds, a packet of 1250 bytes each tenth of a millisecond: ten times of what may pass at least.
            let until = AtomicU64::new(0);
            let start = 1 << 40;
            let passed = (0..100_000u64).filter(|i| limit.admits(&until, start + i * 100_000, 1, 1250)).count();
            // And what the burst lets through beyond.
            assert!((expected..=expected + expected / 50).contains(&passed), "{passed} of {expected}");
        }
        // After any pause no more than the burst, and one that is far larger than it.
        let until = AtomicU64::new(0);
        assert_eq!((0..1000).filter(|_| packets.admits(&until, 1 << 50, 1, 100)).count(), 101);
        let until = AtomicU64::new(0);
        assert!(bytes.admits(&until, 1 << 50, 1, 60_000) && !bytes.admits(&until, 1 << 50, 1, 1));
    }
}

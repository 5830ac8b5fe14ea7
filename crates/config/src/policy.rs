//! The rules that say what may pass a tunnel, as people write them: a file, one rule in a line, the first that takes a packet decides.
//!
//! ```text
//! # Nobody sends mail but the relay; echoes do not crowd out the rest; what is not taken by any rule passes.
//! pass  out peer=KEY proto=tcp dport=25
//! drop  out proto=tcp dport=25
//! limit 1mbit in proto=icmp
//! limit 500pps burst=20ms in proto=udp src=198.51.100.0/24 sport=1024-65535
//! ```
//!
//! A line is an action (`pass`, `drop`, or `limit` and a rate), a direction (`in`, `out`, or neither for both) and what the packet must
//! be, in any order. Behind `#` is comment. What a rule does with a packet is told in [`inet::policy`].

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use inet::policy::{Action, DCCP, Direction, Limit, Matching, Ports, SCTP, UDP_LITE, Unit, has_ports};
use inet::{Cidr, ip};
use noise::PublicKey;

pub use inet::policy::RuleCount;

use crate::address::{CidrText, digits, parse_cidr};
use crate::key;
use crate::value::Quoted;

/// How many rules there may be. A packet is held against each of them in turn.
pub const MAX_RULES: usize = 64;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whose packets it takes: all peers' if not said.
    pub peer: Option<PublicKey>,
    /// Which of them.
    pub matching: Matching,
    /// What becomes of them.
    pub action: Action,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It does not begin with an action.
    #[error("action {0} is not one, expected pass, drop or limit RATE")]
    Action(Quoted),
    /// A limit without a rate.
    #[error("limit has no rate, expected one after it, such as 1mbit or 500pps")]
    NoRate,
    /// A rate that is not one.
    #[error(
        "rate {0} is not one, expected a whole number of bit, kbit, mbit, gbit (up to 1000) or pps, such as 1mbit or 500pps"
    )]
    Rate(Quoted),
    /// A word that means nothing.
    #[error(
        "{0} means nothing in a rule, expected in, out, peer=, proto=, src=, dst=, sport=, dport= or, with limit, burst="
    )]
    Word(Quoted),
    /// Something is said twice.
    #[error("{0} is said twice, expected it once")]
    Twice(&'static str),
    /// A peer that is not one. The key is public, but a file with a typing error may hold another.
    #[error("peer is not a public key, expected 44 characters of base64 as `wireloom pubkey` prints them")]
    Peer,
    /// A protocol that is not one.
    #[error("protocol {0} is not one, expected tcp, udp, icmp, icmpv6, sctp, dccp, udplite or a number from 0 to 255")]
    Protocol(Quoted),
    /// A prefix that is not one.
    #[error("prefix {0} is not one, expected such as 192.0.2.0/24 or 2001:db8::/32")]
    Prefix(Quoted),
    /// Ports that are not.
    #[error("ports {0} are none, expected one from 0 to 65535 or a range such as 1024-65535")]
    Ports(Quoted),
    /// A burst that is not one.
    #[error("burst {0} is not one, expected milliseconds from 1ms to 10000ms")]
    Burst(Quoted),
    /// Ports of what has none.
    #[error(
        "sport and dport are of protocols that have ports, expected proto=tcp or proto=udp (sctp, dccp, udplite) with them"
    )]
    NoPorts,
    /// `src` of one address family, `dst` of the other.
    #[error("src and dst are of two address families, expected both IPv4 or both IPv6")]
    Families,
    /// A burst without a limit.
    #[error("burst is for limits, expected limit RATE or no burst")]
    NoLimit,
    /// There are too many.
    #[error("more than {MAX_RULES} rules, expected fewer: each packet is held against all of them")]
    TooMany,
}

/// What is wrong in a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {error}")]
pub struct PolicyError {
    /// The line, counted from one.
    pub line: usize,
    /// What is wrong with it.
    pub error: RuleError,
}

/// The rules of a file, in order.
///
/// # Errors
/// Of the first line that is wrong.
pub fn parse(text: &[u8]) -> Result<Vec<Rule>, PolicyError> {
    let mut rules = Vec::new();
    for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let failed = |error| PolicyError { line: number + 1, error };
        let line = line.split(|&byte| byte == b'#').next().unwrap_or_default().trim_ascii();
        if line.is_empty() {
            continue;
        }
        let rule = parse_rule(line).map_err(failed)?;
        if rules.len() == MAX_RULES {
            return Err(failed(RuleError::TooMany));
        }
        rules.push(rule);
    }
    Ok(rules)
}

/// One rule, without a comment.
///
/// # Errors
/// Of the first word that is wrong.
pub fn parse_rule(line: &[u8]) -> Result<Rule, RuleError> {
    // A word that is not UTF-8 is none of those that we know.
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let action = match words.next().unwrap_or_default() {
        "pass" => Action::Pass,
        "drop" => Action::Drop,
        "limit" => {
            let word = words.next().ok_or(RuleError::NoRate)?;
            let (per_second, unit) = rate(word).ok_or_else(|| RuleError::Rate(Quoted::new(word)))?;
            Action::Limit(Limit { per_second, unit, burst: Limit::BURST })
        }
        word => return Err(RuleError::Action(Quoted::new(word))),
    };
    let mut rule = Rule { peer: None, matching: Matching::default(), action };
    let mut burst = None;
    for word in words {
        apply(&mut rule, &mut burst, word)?;
    }
    match (&mut rule.action, burst) {
        (_, None) => (),
        (Action::Limit(limit), Some(burst)) => limit.burst = burst,
        (_, Some(_)) => return Err(RuleError::NoLimit),
    }
    let matching = &rule.matching;
    let names_ports = matching.source_ports.is_some() || matching.destination_ports.is_some();
    if names_ports && !matching.protocol.is_some_and(has_ports) {
        return Err(RuleError::NoPorts);
    }
    if let (Some(source), Some(destination)) = (matching.source, matching.destination)
        && source.addr().is_ipv4() != destination.addr().is_ipv4()
    {
        return Err(RuleError::Families);
    }
    Ok(rule)
}

fn apply(rule: &mut Rule, burst: &mut Option<Duration>, word: &str) -> Result<(), RuleError> {
    let matching = &mut rule.matching;
    let (name, value) = match word.split_once('=') {
        None if word == "in" => return once(&mut matching.direction, "the direction", Some(Direction::In)),
        None if word == "out" => return once(&mut matching.direction, "the direction", Some(Direction::Out)),
        None => return Err(RuleError::Word(Quoted::new(word))),
        Some(parts) => parts,
    };
    let quoted = || Quoted::new(value);
    match name {
        "peer" => once(&mut rule.peer, "peer", Some(key::from_base64(value.as_bytes()).map_err(|_| RuleError::Peer)?)),
        "proto" => {
            once(&mut matching.protocol, "proto", Some(protocol(value).ok_or_else(|| RuleError::Protocol(quoted()))?))
        }
        "src" => once(&mut matching.source, "src", Some(prefix(value)?)),
        "dst" => once(&mut matching.destination, "dst", Some(prefix(value)?)),
        "sport" => {
            once(&mut matching.source_ports, "sport", Some(ports(value).ok_or_else(|| RuleError::Ports(quoted()))?))
        }
        "dport" => once(
            &mut matching.destination_ports,
            "dport",
            Some(ports(value).ok_or_else(|| RuleError::Ports(quoted()))?),
        ),
        "burst" => {
            let millis = value.strip_suffix("ms").and_then(digits).filter(|millis| (1..=10_000).contains(millis));
            once(burst, "burst", Some(Duration::from_millis(millis.ok_or_else(|| RuleError::Burst(quoted()))?)))
        }
        _ => Err(RuleError::Word(Quoted::new(word))),
    }
}

fn once<T>(place: &mut Option<T>, name: &'static str, value: Option<T>) -> Result<(), RuleError> {
    if place.is_some() {
        return Err(RuleError::Twice(name));
    }
    *place = value;
    Ok(())
}

/// The names of protocols, and their numbers.
const PROTOCOLS: [(&str, u8); 7] = [
    ("tcp", ip::TCP),
    ("udp", ip::UDP),
    ("icmp", ip::ICMP),
    ("icmpv6", ip::ICMPV6),
    ("sctp", SCTP),
    ("dccp", DCCP),
    ("udplite", UDP_LITE),
];

fn protocol(value: &str) -> Option<u8> {
    match PROTOCOLS.iter().find(|(name, _)| *name == value) {
        Some((_, number)) => Some(*number),
        None => digits(value),
    }
}

fn prefix(value: &str) -> Result<Cidr, RuleError> {
    // An address alone is one of itself.
    let host = || value.parse().ok().map(Cidr::host);
    parse_cidr(value).map(|(cidr, _)| cidr).or_else(host).ok_or_else(|| RuleError::Prefix(Quoted::new(value)))
}

fn ports(value: &str) -> Option<Ports> {
    let (first, last) = value.split_once('-').unwrap_or((value, value));
    let ports = Ports { first: digits(first)?, last: digits(last)? };
    (ports.first <= ports.last).then_some(ports)
}

/// The units of rates: how many bits each is, the largest first.
const BITS: [(&str, u64); 4] = [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1000), ("bit", 1)];

/// The greatest rate, in bits or packets each second: far beyond any link, and all that is reckoned with it fits.
const RATE_MAX: u64 = 1_000_000_000_000;

/// A rate of bytes, or of packets, each second. Bits are bytes in eights, rounded up.
fn rate(word: &str) -> Option<(NonZeroU64, Unit)> {
    let unit = word.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = word.split_at(unit);
    let number: u64 = digits(number)?;
    if unit == "pps" {
        return Some((NonZeroU64::new(number).filter(|rate| rate.get() <= RATE_MAX)?, Unit::Packets));
    }
    let (_, bits) = BITS.iter().find(|(name, _)| *name == unit)?;
    let bits = number.checked_mul(*bits).filter(|bits| *bits <= RATE_MAX)?;
    Some((NonZeroU64::new(bits.div_ceil(8))?, Unit::Bytes))
}

impl fmt::Display for Rule {
    /// The rule as it is written, in one line, which gives the same rule when it is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Pass => f.write_str("pass")?,
            Action::Drop => f.write_str("drop")?,
            Action::Limit(limit) => {
                f.write_str("limit ")?;
                write_rate(f, &limit)?;
                if limit.burst != Limit::BURST {
                    write!(f, " burst={}ms", limit.burst.as_millis())?;
                }
            }
        }
        let matching = &self.matching;
        match matching.direction {
            Some(Direction::In) => f.write_str(" in")?,
            Some(Direction::Out) => f.write_str(" out")?,
            None => (),
        }
        if let Some(peer) = &self.peer {
            write!(f, " peer={}", key::to_base64(peer))?;
        }
        if let Some(number) = matching.protocol {
            match PROTOCOLS.iter().find(|it| it.1 == number) {
                Some((name, _)) => write!(f, " proto={name}")?,
                None => write!(f, " proto={number}")?,
            }
        }
        for (name, prefix) in [("src", matching.source), ("dst", matching.destination)] {
            if let Some(prefix) = prefix {
                write!(f, " {name}={}", CidrText(prefix))?;
            }
        }
        for (name, ports) in [("sport", matching.source_ports), ("dport", matching.destination_ports)] {
            match ports {
                Some(Ports { first, last }) if first == last => write!(f, " {name}={first}")?,
                Some(Ports { first, last }) => write!(f, " {name}={first}-{last}")?,
                None => (),
            }
        }
        Ok(())
    }
}

fn write_rate(f: &mut fmt::Formatter<'_>, limit: &Limit) -> fmt::Result {
    let number = limit.per_second.get();
    match limit.unit {
        Unit::Packets => write!(f, "{number}pps"),
        Unit::Bytes => {
            // What has come from a number of bits that is no multiple of eight is rounded, and so at most eight times what fits.
            let bits = u128::from(number) * 8;
            let of = |unit: &(&str, u64)| bits.is_multiple_of(unit.1.into());
            let (name, unit) = BITS.iter().find(|unit| of(unit)).unwrap_or(&("bit", 1));
            write!(f, "{}{name}", bits / u128::from(*unit))
        }
    }
}

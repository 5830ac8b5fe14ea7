//! The rules that say what may pass, as the programs read them (`bpf/rules.h`).
//!
//! There are two sets of rules and two of cells, in which it is kept what a rule has taken and what its limit remembers. New rules are written into the
//! set that nobody reads, and get the cells that nobody uses, emptied; the same rules told of other peers go into the other set as well, and keep their
//! cells. Then one word of the device, [`Written::word`], puts them in force at once.

use inet::Cidr;
use inet::policy::{Action, Direction, Ports, Unit};
use noise::PeerId;
use plane::policy::{PeerRule, RuleCount, Whose};
use std::io;
use std::net::IpAddr;

/// Rules of a set, and cells of one: WL_RULES_MAX.
pub const RULES_MAX: usize = 64;
/// Bytes of a `struct wl_rule`, and of a `struct wl_rule_count`.
pub const RULE_LEN: usize = 104;
/// Likewise.
pub const COUNT_LEN: usize = 24;

/// `wl_rule::peer` where the rule is about no peer in particular, and where it is about one that the programs do not serve.
const ANYBODY: u32 = 0xffff_ffff;
const NOBODY: u32 = 0xffff_fffe;

/// Which sets are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// Counts the replacements; its lowest bit is the set of rules in force.
    generation: u32,
    /// Which set of cells they have.
    cells: u32,
    rules: u32,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// For `wl_device::policy`: it puts the rules in force.
    pub word: u64,
    /// The cell of the first rule; the others' follow.
    pub first_cell: u32,
}

impl Sets {
    /// The sets that `word` (of `wl_device::policy`) tells of, in maps of a former process. Nothing of what its rules have taken is kept.
    pub fn of_word(word: u64) -> Sets {
        let generation = (word >> 32) as u32;
        Sets { generation, cells: generation & 1, rules: word as u32 }
    }

    /// Writes rules: `put` writes the element with this number into the map `rules`, `empty` empties the cell with this number. `slot` tells where
    /// the programs have a peer. What is returned is to be stored last. If the rules are not `fresh` they are those of the last time, of other peers.
    ///
    /// # Errors
    /// Those of `put` and `empty`; the rules in force stay.
    pub fn write(
        &mut self,
        rules: &[PeerRule],
        fresh: bool,
        slot: impl Fn(PeerId) -> Option<u32>,
        mut put: impl FnMut(u32, &[u8; RULE_LEN]) -> io::Result<()>,
        mut empty: impl FnMut(u32) -> io::Result<()>,
    ) -> io::Result<Written> {
        let count = u32::try_from(rules.len().min(RULES_MAX)).unwrap_or_default();
        let generation = self.generation.wrapping_add(1);
        let cells = if fresh { self.cells ^ 1 } else { self.cells };
        let (set, first_cell) = ((generation & 1) * RULES_MAX as u32, cells * RULES_MAX as u32);
        for (number, rule) in (0..count).zip(rules) {
            if fresh {
                empty(first_cell + number)?;
            }
            put(set + number, &encode(rule, &slot, first_cell + number))?;
        }
        *self = Sets { generation, cells, rules: count };
        // Zero is for none, whatever came before.
        let word = if count == 0 { 0 } else { u64::from(generation) << 32 | u64::from(count) };
        Ok(Written { word, first_cell })
    }

    /// The cells of the rules in force, in their order.
    pub fn cells(&self) -> impl Iterator<Item = u32> + use<> {
        let first = self.cells * RULES_MAX as u32;
        first..first + self.rules
    }
}

/// What a cell's rule has taken, from its counts for each processor.
pub fn sum(counts: &[u8]) -> RuleCount {
    let mut sum = RuleCount::default();
    for count in counts.as_chunks::<COUNT_LEN>().0 {
        let word = |at: usize| count[at..at + 8].try_into().map_or(0, u64::from_ne_bytes);
        sum.packets += word(0);
        sum.bytes += word(8);
        sum.dropped += word(16);
    }
    sum
}

/// A `struct wl_rule`.
fn encode(rule: &PeerRule, slot: &impl Fn(PeerId) -> Option<u32>, cell: u32) -> [u8; RULE_LEN] {
    let mut out = Out { bytes: [0; RULE_LEN], at: 0 };
    let PeerRule { whose, matching, action } = rule;
    let peer = match whose {
        Whose::Anybody => ANYBODY,
        Whose::Peer(peer) => slot(*peer).unwrap_or(NOBODY),
        Whose::Nobody => NOBODY,
    };
    let (number, per_second, burst) = match action {
        Action::Pass => (0, 0, 0),
        Action::Drop => (1, 0, 0),
        Action::Limit(limit) => {
            let number = if limit.unit == Unit::Bytes { 2 } else { 3 };
            (number, limit.per_second.get(), u64::try_from(limit.burst.as_nanos()).unwrap_or(u64::MAX))
        }
    };
    let directions = match matching.direction {
        None => 3,
        Some(Direction::Out) => 1,
        Some(Direction::In) => 2,
    };
    let family = |cidr: Option<Cidr>| cidr.map_or(0, |cidr| if cidr.addr().is_ipv4() { 4 } else { 6 });
    out.put(&peer.to_ne_bytes());
    out.put(&cell.to_ne_bytes());
    let ports = [matching.source_ports, matching.destination_ports];
    let has_ports = ports.iter().any(Option::is_some);
    out.put(&[number, directions, family(matching.source), family(matching.destination)]);
    out.put(&[matching.protocol.is_some().into(), matching.protocol.unwrap_or(0), has_ports.into(), 0]);
    for ports in ports {
        let Ports { first, last } = ports.unwrap_or(Ports { first: 0, last: u16::MAX });
        out.put(&first.to_ne_bytes());
        out.put(&last.to_ne_bytes());
    }
    for prefix in [matching.source, matching.destination] {
        let (bits, mask) = prefix.map_or(([0; 16], [0; 16]), network);
        out.put(&bits);
        out.put(&mask);
    }
    out.put(&per_second.to_ne_bytes());
    out.put(&burst.to_ne_bytes());
    out.bytes
}

/// A prefix and its mask, as they stand in a header; of IPv4 the first four bytes.
fn network(cidr: Cidr) -> ([u8; 16], [u8; 16]) {
    let (mut bits, mut mask) = ([0; 16], [0; 16]);
    match cidr.addr() {
        IpAddr::V4(addr) => {
            bits[..4].copy_from_slice(&addr.octets());
            let ones = u32::MAX.checked_shl(32 - u32::from(cidr.prefix_len())).unwrap_or(0);
            mask[..4].copy_from_slice(&ones.to_be_bytes());
        }
        IpAddr::V6(addr) => {
            bits = addr.octets();
            mask = u128::MAX.checked_shl(128 - u32::from(cidr.prefix_len())).unwrap_or(0).to_be_bytes();
        }
    }
    (bits, mask)
}

struct Out {
    bytes: [u8; RULE_LEN],
    at: usize,
}

impl Out {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

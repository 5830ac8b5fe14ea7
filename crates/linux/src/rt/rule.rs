//! Rules: which table is looked at for which packets.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::socket::{CREATE, EXCLUSIVE};
use super::{Family, Rt, RtError};

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// For which packets.
    pub family: Family,
    /// The place in the order in which rules are asked, from 0. `None` lets the kernel put a new one before all but the first.
    pub priority: Option<u32>,
    /// Whether it is for packets that are *not* as said.
    pub invert: bool,
    /// The mark of the packets.
    pub mark: Option<u32>,
    /// The table that is looked at.
    pub table: u32,
    /// Routes to networks of no more bits than these are passed over.
    pub suppress_prefix_length: Option<u32>,
    /// Whether there is more to it than is said here: it is somebody else's.
    pub more: bool,
}

impl Rule {
    /// Whether two say the same, wherever they stand.
    pub fn same(&self, other: &Rule) -> bool {
        Rule { priority: None, ..self.clone() } == Rule { priority: None, ..other.clone() }
    }
}

impl Rt {
    /// The rules of a family, in the order in which they are asked.
    pub fn rules(&mut self, family: Family) -> Result<Vec<Rule>, RtError> {
        let mut message = RuleMessage::default();
        message.header.family = family.number();
        self.socket.list(&RouteNetlinkMessage::GetRule(message), |answer| match answer.message()? {
            RouteNetlinkMessage::NewRule(message) => from_message(&message),
            _ => None,
        })
    }

    /// Adds a rule.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<(), RtError> {
        self.socket.change(RouteNetlinkMessage::NewRule(to_message(rule)), CREATE | EXCLUSIVE)
    }

    /// Deletes a rule: the first that is as said.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<(), RtError> {
        self.socket.change(RouteNetlinkMessage::DelRule(to_message(rule)), 0)
    }
}

fn to_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = rule.family.number();
    message.header.action = RuleAction::ToTable;
    // The header has room for the first 255 tables; the attribute says the rest.
    message.header.table = u8::try_from(rule.table).unwrap_or(0);
    if rule.invert {
        message.header.flags = RuleFlags::Invert;
    }
    message.attributes.push(RuleAttribute::Table(rule.table));
    message.attributes.extend(rule.priority.map(RuleAttribute::Priority));
    message.attributes.extend(rule.mark.map(RuleAttribute::FwMark));
    message.attributes.extend(rule.suppress_prefix_length.map(RuleAttribute::SuppressPrefixLen));
    message
}

fn from_message(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let mut rule = Rule {
        family: Family::from_number(header.family)?,
        // A rule at place 0 says nothing of it.
        priority: Some(0),
        invert: header.flags.contains(RuleFlags::Invert),
        mark: None,
        table: u32::from(header.table),
        suppress_prefix_length: None,
        more: header.action != RuleAction::ToTable || header.dst_len > 0 || header.src_len > 0 || header.tos > 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = Some(*priority),
            RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
            RuleAttribute::Table(table) => rule.table = *table,
            // The kernel says "none" by all ones.
            RuleAttribute::SuppressPrefixLen(len) => {
                rule.suppress_prefix_length = Some(*len).filter(|&len| len != u32::MAX)
            }
            RuleAttribute::FwMask(mask) => rule.more |= *mask != u32::MAX,
            RuleAttribute::SuppressIfGroup(group) => rule.more |= *group != u32::MAX,
            RuleAttribute::Protocol(_) => {}
            RuleAttribute::L3MDev(on) => rule.more |= *on,
            _ => rule.more = true,
        }
    }
    Some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            v6: bool, priority: u32, invert: bool, mark in prop::option::of(any::<u32>()), table in 1u32..,
            suppress_prefix_length in prop::option::of(0u32..128),
        ) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let rule = Rule { family, priority: Some(priority), invert, mark, table, suppress_prefix_length, more: false };
            prop_assert_eq!(from_message(&to_message(&rule)), Some(rule));
        }
    }
}

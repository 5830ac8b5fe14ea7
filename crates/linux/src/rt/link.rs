//! Links: network interfaces, as far as `up` makes and moves them. What happens to one that runs is followed in [`crate::link`].

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage};

use super::socket::{Answer, CREATE, EXCLUSIVE};
use super::{Rt, RtError};
use crate::link::message::LINK;
use crate::netlink::{find, u32_at};

// linux/if_link.h
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What made it: `wireguard`, `tun`, `veth`. A card has none.
    pub kind: Option<String>,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
}

impl Rt {
    /// The link of this name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, RtError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(message)
    }

    /// The link of this number.
    pub fn link_at(&mut self, index: u32) -> Result<Option<Link>, RtError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.one_link(message)
    }

    fn one_link(&mut self, mut message: LinkMessage) -> Result<Option<Link>, RtError> {
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut link = None;
        match self.socket.ask(RouteNetlinkMessage::GetLink(message), 0, |answer| link = parse(answer)) {
            Err(error) if error.is_absent() => Ok(None),
            told => told.map(|()| link),
        }
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>, RtError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.socket.list(&RouteNetlinkMessage::GetLink(message), parse)
    }

    /// Makes a link of a kind that needs no settings, such as `wireguard` or `dummy`. Takes CAP_NET_ADMIN, as all changes do.
    pub fn add_link(&mut self, name: &str, kind: &str) -> Result<(), RtError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Other(kind.to_owned()))]));
        self.socket.change(RouteNetlinkMessage::NewLink(message), CREATE | EXCLUSIVE)
    }

    /// Deletes a link, and with it its addresses and routes.
    pub fn delete_link(&mut self, index: u32) -> Result<(), RtError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.socket.change(RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Sets a link up or down.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), RtError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        self.socket.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets the MTU of a link, in bytes.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), RtError> {
        self.set_link(index, LinkAttribute::Mtu(mtu))
    }

    /// Moves a link to another network namespace, where its number may be another one. It keeps its name, loses its addresses and routes,
    /// and is down.
    pub fn move_link(&mut self, index: u32, netns: BorrowedFd<'_>) -> Result<(), RtError> {
        self.set_link(index, LinkAttribute::NetNsFd(netns.as_raw_fd()))
    }

    fn set_link(&mut self, index: u32, attribute: LinkAttribute) -> Result<(), RtError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(attribute);
        self.socket.change(RouteNetlinkMessage::SetLink(message), 0)
    }
}

/// Read by hand: drivers put much into such a message that nobody here asks for, and that may not make sense.
fn parse(answer: Answer<'_>) -> Option<Link> {
    parse_body(answer.body)
}

fn parse_body(body: &[u8]) -> Option<Link> {
    let attributes = body.get(LINK..)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.split(|&b| b == 0).next()?.to_vec()).ok();
    let kind = find(attributes, IFLA_LINKINFO).and_then(|info| find(info, IFLA_INFO_KIND)).and_then(text);
    Some(Link {
        index: u32_at(body, 4)?,
        name: text(find(attributes, IFLA_IFNAME)?)?,
        kind,
        mtu: u32_at(find(attributes, IFLA_MTU)?, 0)?,
        up: u32_at(body, 8)? & libc::IFF_UP as u32 != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::socket::encode;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn links_are_read(index: u32, mtu: u32, up: bool, name in "[a-z0-9]{1,15}", kind in prop::option::of("[a-z]{1,9}")) {
            let mut message = LinkMessage::default();
            message.header.index = index;
            message.header.flags = if up { LinkFlags::Up | LinkFlags::Broadcast } else { LinkFlags::Broadcast };
            message.attributes.push(LinkAttribute::IfName(name.clone()));
            message.attributes.push(LinkAttribute::Mtu(mtu));
            if let Some(kind) = &kind {
                let kind = InfoKind::Other(kind.clone());
                message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
            }
            let bytes = encode(RouteNetlinkMessage::NewLink(message), 0, 0);
            prop_assert_eq!(parse_body(&bytes[16..]), Some(Link { index, name, kind, mtu, up }));
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_body(&bytes);
        }
    }
}

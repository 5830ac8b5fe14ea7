//! Addresses of interfaces.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};

use super::socket::{CREATE, EXCLUSIVE};
use super::{Family, Rt, RtError};

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    /// The interface.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// How many bits of it are the network's.
    pub len: u8,
}

impl Rt {
    /// The addresses, of one interface or of all, IPv4 first.
    pub fn addresses(&mut self, index: Option<u32>) -> Result<Vec<Address>, RtError> {
        let mut all = Vec::new();
        for family in Family::ALL {
            let mut message = AddressMessage::default();
            message.header.family = family.number();
            message.header.index = index.unwrap_or(0);
            all.extend(self.socket.list(
                &RouteNetlinkMessage::GetAddress(message),
                |answer| match answer.message()? {
                    RouteNetlinkMessage::NewAddress(message) => from_message(&message),
                    _ => None,
                },
            )?);
        }
        all.retain(|address| index.is_none_or(|index| address.index == index));
        Ok(all)
    }

    /// Gives an interface an address, and with it the route to its network.
    pub fn add_address(&mut self, address: Address) -> Result<(), RtError> {
        self.socket.change(RouteNetlinkMessage::NewAddress(to_message(address)), CREATE | EXCLUSIVE)
    }

    /// Takes an address away.
    pub fn delete_address(&mut self, address: Address) -> Result<(), RtError> {
        self.socket.change(RouteNetlinkMessage::DelAddress(to_message(address)), 0)
    }
}

fn to_message(address: Address) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = Family::of(address.ip).number();
    message.header.prefix_len = address.len;
    message.header.index = address.index;
    // The one of the other end, where there is one; otherwise the same.
    message.attributes = vec![AddressAttribute::Local(address.ip), AddressAttribute::Address(address.ip)];
    message
}

fn from_message(message: &AddressMessage) -> Option<Address> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(ip) if local => Some(*ip),
            AddressAttribute::Address(ip) if !local => Some(*ip),
            _ => None,
        })
    };
    // IPv6 has no local one, unless there is another end.
    let ip = find(true).or_else(|| find(false))?;
    Some(Address { index: message.header.index, ip, len: message.header.prefix_len })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(index: u32, ip: IpAddr, len in 0u8..=128) {
            let address = Address { index, ip, len: len.min(Family::of(ip).bits()) };
            prop_assert_eq!(from_message(&to_message(address)), Some(address));
        }
    }
}

//! Joining segments into super-packets.

use crate::vnet::VnetHeader;

/// Finds which packets of a run form one super-packet.
#[derive(Debug)]
pub struct Joiner {}

/// Packets that form one super-packet.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    joiner: &'a Joiner,
}

impl Joiner {
    /// A joiner for runs of up to `capacity` packets.
    pub fn new(_capacity: usize, _udp: bool) -> Self {
        Self {}
    }
    /// Takes the next packet; `false` when full.
    pub fn offer(&mut self, _packet: &[u8]) -> bool {
        false
    }
    /// The groups.
    pub fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        std::iter::once(Group { joiner: self }).take(0)
    }
    /// Forgets the run.
    pub fn clear(&mut self) {}
}

impl Group<'_> {
    /// The numbers of the packets, in order.
    pub fn packets(&self) -> impl Iterator<Item = usize> {
        let _ = self.joiner;
        std::iter::empty()
    }
    /// How many packets there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        0
    }
    /// Bytes of IP and transport header.
    pub fn head_len(&self) -> usize {
        0
    }
    /// Writes the merged head.
    pub fn write_head(&self, _first: &[u8], _out: &mut [u8]) -> VnetHeader {
        VnetHeader::default()
    }
}

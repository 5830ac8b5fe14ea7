//! Cutting a super-packet into segments.

use std::marker::PhantomData;
use std::net::IpAddr;

use crate::vnet::VnetHeader;

/// Why a packet cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// The packet is shorter than its headers.
    #[error("truncated packet")]
    Truncated,
}

/// A super-packet or a plain packet, ready to be cut into segments.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'a>(PhantomData<&'a [u8]>);

impl<'a> Cut<'a> {
    /// Checks the packet.
    pub fn new(_header: &VnetHeader, _packet: &'a [u8]) -> Result<Self, CutError> {
        Err(CutError::Truncated)
    }
    /// How many segments there are.
    pub fn segments(&self) -> usize {
        0
    }
    /// Bytes that [`Cut::write_head`] writes.
    pub fn head_len(&self) -> usize {
        0
    }
    /// Length of segment `i`.
    pub fn segment_len(&self, _i: usize) -> usize {
        0
    }
    /// What follows the head of segment `i`.
    pub fn body(&self, _i: usize) -> &'a [u8] {
        &[]
    }
    /// Writes the head of segment `i`.
    pub fn write_head(&self, _i: usize, _out: &mut [u8]) {}
    /// The source address.
    pub fn source(&self) -> IpAddr {
        IpAddr::from([0; 4])
    }
    /// The destination address.
    pub fn destination(&self) -> IpAddr {
        IpAddr::from([0; 4])
    }
    /// The two ECN bits.
    pub fn ecn(&self) -> u8 {
        0
    }
}

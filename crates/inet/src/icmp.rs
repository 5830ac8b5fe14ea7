//! ICMP errors about an inner packet, for its sender.

use std::net::IpAddr;

/// Why the packet could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No peer's allowed IPs contain its destination.
    NoRoute,
    /// The peer has no endpoint.
    NoEndpoint,
    /// It does not fit; packets of this many bytes would.
    TooBig(u32),
    /// Policy forbids it.
    AdminProhibited,
}

/// Room that any error fits into, in bytes.
pub const MAX_LEN: usize = 1280;

/// Writes the error.
pub fn error(_reason: Reason, _packet: &[u8], _source: IpAddr, _out: &mut [u8]) -> Option<usize> {
    None
}

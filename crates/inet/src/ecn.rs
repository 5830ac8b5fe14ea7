//! The ECN bits of inner and outer packets: RFC 6040, normal mode, but for one case.
//!
//! An outer CE on a packet that is not ECN-capable means, by the RFC, that it is to be dropped. The kernel's WireGuard lets it
//! through as it is (it calls `INET_ECN_decapsulate` and passes over the answer), and so do we: on a path that marks whatever
//! it carries, nothing would arrive.
//!
//! The bits are the two lowest of the traffic class.

/// Not ECN-capable transport.
pub const NOT_ECT: u8 = 0b00;
/// ECN-capable transport, ECT(1).
pub const ECT1: u8 = 0b01;
/// ECN-capable transport, ECT(0).
pub const ECT0: u8 = 0b10;
/// Congestion experienced.
pub const CE: u8 = 0b11;

/// What becomes of the inner packet when it leaves the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decapsulated {
    /// Its bits stay.
    Keep,
    /// Its bits become these: congestion met on the way is told to the receiver.
    Set(u8),
}

/// The outer bits of a packet that enters the tunnel: the inner ones (RFC 6040, section 4.1).
#[inline]
pub fn encapsulate(inner: u8) -> u8 {
    inner & 0b11
}

/// What an outer packet's bits mean for the inner packet (RFC 6040, figure 4, less its one drop).
#[inline]
pub fn decapsulate(inner: u8, outer: u8) -> Decapsulated {
    match (inner & 0b11, outer & 0b11) {
        (ECT0 | ECT1, CE) => Decapsulated::Set(CE),
        (ECT0, ECT1) => Decapsulated::Set(ECT1),
        _ => Decapsulated::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_combinations() {
        use Decapsulated::{Keep, Set};
        // RFC 6040, figure 4; a row for each inner value, a column for each outer one.
        let outers = [NOT_ECT, ECT0, ECT1, CE];
        let table = [
            (NOT_ECT, [Keep, Keep, Keep, Keep]),
            (ECT0, [Keep, Keep, Set(ECT1), Set(CE)]),
            (ECT1, [Keep, Keep, Keep, Set(CE)]),
            (CE, [Keep, Keep, Keep, Keep]),
        ];
        for (inner, row) in table {
            assert_eq!(encapsulate(inner), inner);
            for (outer, expected) in outers.into_iter().zip(row) {
                assert_eq!(decapsulate(inner, outer), expected, "inner {inner:02b}, outer {outer:02b}");
            }
        }
    }
}

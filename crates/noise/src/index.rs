//! The numbers that name things: peers inside the process, sessions on the wire.

/// A peer of a device. Unique for the device's life: a removed peer's number is never given to another, so that what
/// still carries it finds nobody instead of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(u32);

impl PeerId {
    /// Wraps a number that a device gave out (or a test made up).
    pub const fn from_u32(id: u32) -> Self {
        Self(id)
    }

    /// The bare number, for tables outside this crate.
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

/// The index by which the receiver of a message finds its session or handshake (whitepaper 5.4: `I_i`, `I_r`). Drawn at
/// random, so that an observer learns nothing about how many sessions there are; but all of a peer's lie in one lane (see
/// `Device::set_lanes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiverIndex(u32);

impl ReceiverIndex {
    /// Wraps an index as it stands (little-endian) on the wire.
    pub const fn from_u32(index: u32) -> Self {
        Self(index)
    }

    /// The bare number.
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

/// A transport message's counter, which is also its nonce: 64 bits, never reused under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counter(u64);

impl Counter {
    /// Wraps a counter as it stands (little-endian) on the wire.
    pub const fn from_u64(counter: u64) -> Self {
        Self(counter)
    }

    /// The bare number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

//! What a device of ours tells of its work beyond what wg(8) knows: drops by reason, handshakes, and what each worker has done.
//!
//! It comes as the reply to `get=stats` (see [`crate::uapi`]); every number counts since the device was started.

use std::time::Duration;

/// Up to how many packets a batch has that is counted in each place of [`Batches::sizes`] but the last, where larger ones are.
pub const BATCH_SIZES: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Places of [`Batches::sizes`].
pub const BATCHES_SIZED: usize = BATCH_SIZES.len() + 1;

/// What a device tells of its work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Its program's version.
    pub version: String,
    /// The number of its process, in its own namespace.
    pub process: u32,
    /// How long it has been there.
    pub uptime: Duration,
    /// Packets dropped, by reason (docs/drops.md).
    pub drops: Vec<(String, u64)>,
    /// What became of packets in programs in front of the workers (docs/ebpf.md); nothing where there are none.
    pub programs: Vec<(String, u64)>,
    /// What became of handshakes, each that there is by its name.
    pub handshakes: Vec<(String, u64)>,
    /// What programs in the kernel have taken off the workers' hands, if there are any.
    pub taken: Option<Taken>,
    /// The workers, by their numbers.
    pub workers: Vec<Worker>,
}

/// Packets that programs in the kernel have handled in place of workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

/// What a worker has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worker {
    /// Processor time that it took.
    pub busy: Duration,
    /// How often it slept and was woken.
    pub wakeups: u64,
    /// Steps that it took for other workers.
    pub helped: u64,
    /// What it handed to the network.
    pub sent: Batches,
    /// What it took from the network.
    pub received: Batches,
}

/// Batches of packets one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batches {
    /// WireGuard data messages.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Batches by how many packets they have; see [`BATCH_SIZES`].
    pub sizes: [u64; BATCHES_SIZED],
}

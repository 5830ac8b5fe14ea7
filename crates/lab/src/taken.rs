//! What programs in the kernel have taken off the daemons' hands, in all that this thread has run.
//!
//! A tunnel works with the programs and without them: what they leave, the daemon's threads see to. So whoever wants to know that packets
//! went by the programs has to count, and the only one who can tell is the daemon, before it ends. Each [`Daemon`](crate::Daemon) with
//! [`Engine::Ebpf`](crate::Engine::Ebpf) that is dropped adds to the sum of the thread that drops it.

use std::cell::Cell;

thread_local! {
    static PACKETS: Cell<u64> = const { Cell::new(0) };
}

/// Begins anew.
pub fn forget() {
    PACKETS.set(0);
}

/// Packets sent and received since the last [`forget`].
pub fn so_far() -> u64 {
    PACKETS.get()
}

pub(crate) fn add(packets: u64) {
    PACKETS.set(PACKETS.get().saturating_add(packets));
}

//! What programs in the kernel have taken off the daemons' hands, in all that this thread has run.
//!
//! A tunnel works with the programs and without them: what they leave, the daemon's threads see to. So whoever wants to know that packets
//! went by the programs has to count, and the only one who can tell is the daemon, before it ends. Each [`Daemon`](crate::Daemon) with
//! [`Engine::Ebpf`](crate::Engine::Ebpf) that is dropped adds to the sum of the thread that drops it.

use std::cell::Cell;

use crate::{LabError, ask, socket_path};

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

/// Adds what programs have taken of an interface that no [`Daemon`](crate::Daemon) stands for, such as one that `wireloom up` made.
///
/// # Errors
/// It does not answer, or has no programs.
pub fn ask_interface(interface: &str) -> Result<(), LabError> {
    let text = ask(&socket_path(interface), "stats").map_err(LabError::io("asking for stats"))?;
    let (sent, received) = read(text)?;
    add(sent + received);
    Ok(())
}

/// What an answer to `get=stats` says of it, sent and received.
pub(crate) fn read(text: String) -> Result<(u64, u64), LabError> {
    let count = |name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    match (count("taken_sent"), count("taken_received")) {
        (Some(sent), Some(received)) => Ok((sent, received)),
        _ => Err(LabError::Unreadable { what: "what programs have taken", text }),
    }
}

pub(crate) fn add(packets: u64) {
    PACKETS.set(PACKETS.get().saturating_add(packets));
}

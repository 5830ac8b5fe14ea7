//! What the process may do beyond its user: capabilities, given up for good.

use std::io;

pub use rustix::thread::CapabilitySet;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
};

/// Gives up all capabilities of the calling thread but these, as far as it has them, and the ways to get others by running a
/// program. Threads that it starts later are the same. Call it while there is one thread.
pub fn keep_only(keep: CapabilitySet) -> io::Result<()> {
    set_no_new_privs(true)?;
    // A kernel older than 4.3 does not know them, and so has none.
    let _ = clear_ambient_capability_set();
    // The next two take CAP_SETPCAP. Who does not have it has nothing to gain from a program either: see above.
    for number in 0..64 {
        let _ = remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number));
    }
    let _ = set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    );
    let kept = capabilities(None)?.permitted & keep;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })?;
    Ok(())
}

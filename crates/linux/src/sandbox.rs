//! Which system calls there are, once a process has begun its work: the list that its role takes, in seccomp filters.
//!
//! Two filters, of which the stricter answer counts. What only somebody who has broken in would call ends the process
//! (SIGSYS). All else that is not on the list does not exist (ENOSYS): a C library that is newer than this list, and tries a
//! newer call first, then takes the older one. The calls of the data path are on the list whatever their arguments, so that the
//! kernel (5.11) answers for them from a bitmap, without running a filter.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod list;

/// What a process is there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Has the keys and moves packets; all that it will ever use it has opened or is handed by the steward.
    Daemon {
        /// It reads and changes eBPF maps that it has.
        maps: bool,
    },
    /// See [`crate::steward`].
    Steward {
        /// It puts eBPF programs that it is handed on interfaces.
        programs: bool,
    },
    /// Waits beside the daemon, and uses whatever the C library takes to resolve names: it has no list, but is kept from what only an intruder
    /// would call.
    Attendant,
}

/// Leaves all threads of the process, for good, with no more system calls than the role takes. Where the kernel has no seccomp,
/// or a container's policy is against it, or we have no list for the architecture, it says so in the log and goes on.
pub fn enter(role: Role) {
    match set(role) {
        Ok(()) => log::debug!("system calls are restricted to those of the {role:?}"),
        Err(error) => log::warn!("system calls are not restricted: {error}"),
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
fn set(role: Role) -> Result<(), seccompiler::Error> {
    let filters = list::filters(role).map_err(seccompiler::Error::Backend)?;
    filters.iter().try_for_each(|filter| seccompiler::apply_filter_all_threads(filter))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
fn set(_: Role) -> Result<(), &'static str> {
    Err("there is no list for this architecture")
}

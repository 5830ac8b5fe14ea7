//! Where a program meets packets: by which hook of which interface, and how it comes there and goes.
//!
//! A program on a TCX hook (Linux 6.6) or on a driver's XDP hook is held there by a link, a descriptor: it goes with the last copy of that, however
//! its holder ends. (The steward has one, too, in case that the daemon dies.) A filter in a `clsact` discipline, which older kernels have instead of TCX,
//! stays until somebody deletes it; the steward does, if the daemon did not ([`Attached`] does when it is dropped).
//!
//! Others' programs stay where they are. TCX and filters run one after the other; of XDP an interface has one, and where that is somebody else's
//! ours is refused (EBUSY). XDP is taken in the driver's form only: the generic one is slower than none.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{LINK_CREATE, LINK_UPDATE, call, filter, made};
use crate::heir::Claim;
use crate::steward::{Place, Task, perform};

// enum bpf_attach_type
const XDP: u32 = 37;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// XDP_FLAGS_DRV_MODE (linux/if_link.h).
const DRIVER: u32 = 1 << 2;

/// A place on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// What comes in, before anything else looks at it: XDP in the driver.
    Xdp,
    /// What comes in, by TCX.
    TcxIngress,
    /// What goes out, by TCX.
    TcxEgress,
    /// What comes in, by a filter of `clsact`.
    FilterIngress,
    /// What goes out, by a filter of `clsact`.
    FilterEgress,
}

impl Hook {
    pub(crate) const ALL: [Hook; 5] =
        [Hook::Xdp, Hook::TcxIngress, Hook::TcxEgress, Hook::FilterIngress, Hook::FilterEgress];

    pub(crate) fn is_filter(self) -> bool {
        matches!(self, Hook::FilterIngress | Hook::FilterEgress)
    }
}

/// The fields of `union bpf_attr` for BPF_LINK_CREATE on an interface.
#[repr(C)]
struct LinkAttributes {
    program: u32,
    interface: u32,
    kind: u32,
    flags: u32,
    /// Of TCX: beside which other program, and the revision that is expected. Zeros: behind all others.
    beside: u64,
    revision: u64,
}

/// Puts a program on an interface of this namespace. With a link as the result, or none for a filter.
pub(crate) fn attach(program: BorrowedFd<'_>, hook: Hook, interface: u32, handle: u32) -> io::Result<Option<OwnedFd>> {
    let (kind, flags) = match hook {
        Hook::Xdp => (XDP, DRIVER),
        Hook::TcxIngress => (TCX_INGRESS, 0),
        Hook::TcxEgress => (TCX_EGRESS, 0),
        Hook::FilterIngress | Hook::FilterEgress => {
            return filter::add(program, hook, interface, handle).map(|()| None);
        }
    };
    let program = program.as_raw_fd() as u32;
    let mut attributes = LinkAttributes { program, interface, kind, flags, beside: 0, revision: 0 };
    // SAFETY: plain numbers, of which none is an address.
    made(unsafe { call(LINK_CREATE, &mut attributes) }).map(Some)
}

/// Takes a filter away. What is held by a link goes with that.
pub(crate) fn detach(hook: Hook, interface: u32, handle: u32) -> io::Result<()> {
    if hook.is_filter() { filter::remove(hook, interface, handle) } else { Ok(()) }
}

/// Sees to it that, with a filter that an earlier process has put in its place, its discipline goes that was made by that.
pub(crate) fn take_over(hook: Hook, interface: u32) {
    if hook.is_filter() {
        filter::take_over(interface);
    }
}

/// Whether the discipline of this filter was made by this process.
pub(crate) fn is_made_here(hook: Hook, interface: u32) -> bool {
    hook.is_filter() && filter::is_made_here(interface)
}

/// The fields of `union bpf_attr` for BPF_LINK_UPDATE.
#[repr(C)]
struct UpdateAttributes {
    link: u32,
    program: u32,
    flags: u32,
    old: u32,
}

/// A program on an interface. It is taken away on drop; but not as long as it is somebody else's, who has left it to us.
#[derive(Debug)]
pub struct Attached {
    hook: Hook,
    interface: u32,
    handle: u32,
    /// The link; for a filter the program, by which it is deleted.
    held: OwnedFd,
    /// Whether it is ours, where that is not certain.
    claim: Option<Claim>,
}

impl Attached {
    /// Puts a program on an interface, by the steward if there is one. `handle` tells filters of different daemons on one interface apart: nobody else
    /// that lives has it.
    ///
    /// # Errors
    /// EBUSY for an XDP hook that somebody else has, EOPNOTSUPP where the driver has none, EINVAL where the kernel does not know the hook, ENODEV.
    pub fn new(program: BorrowedFd<'_>, hook: Hook, interface: u32, handle: u32) -> io::Result<Attached> {
        let link = perform(Task::Attach { hook, interface, handle }, program)?;
        let held = match link {
            Some(link) => link,
            None if hook.is_filter() => program.try_clone_to_owned()?,
            None => return Err(io::ErrorKind::InvalidData.into()),
        };
        Ok(Attached { hook, interface, handle, held, claim: None })
    }

    /// A program that another process has put in this place, and that is ours when the claim is made.
    pub(crate) fn left(place: Place, claim: Claim) -> Attached {
        let Place { hook, interface, handle, held } = place;
        Attached { hook, interface, handle, held, claim: Some(claim) }
    }

    /// Puts another program in the place of the one that is there, with no moment between the two.
    ///
    /// # Errors
    /// The program is of another kind, or the interface has gone.
    pub fn replace(&mut self, program: BorrowedFd<'_>) -> io::Result<()> {
        if self.hook.is_filter() {
            let Attached { hook, interface, handle, .. } = *self;
            perform(Task::Attach { hook, interface, handle }, program)?;
            self.held = program.try_clone_to_owned()?;
            return Ok(());
        }
        let (link, program) = (self.held.as_raw_fd() as u32, program.as_raw_fd() as u32);
        let mut attributes = UpdateAttributes { link, program, flags: 0, old: 0 };
        // SAFETY: plain numbers, of which none is an address.
        unsafe { call(LINK_UPDATE, &mut attributes) }.map(drop)
    }

    /// On which interface.
    pub fn interface(&self) -> u32 {
        self.interface
    }

    /// By which hook.
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// The link, where there is one: whoever has a copy keeps the program in its place.
    pub fn link(&self) -> Option<BorrowedFd<'_>> {
        (!self.hook.is_filter()).then(|| self.held.as_fd())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.claim.as_ref().is_some_and(|claim| !claim.is_made()) {
            return;
        }
        // The steward has a copy of a link.
        let task = Task::Detach { hook: self.hook, interface: self.interface, handle: self.handle };
        if let Err(error) = perform(task, self.held.as_fd()) {
            // With the interface all of its filters go.
            log::debug!("a program of interface {} is not taken away: {error}", self.interface);
        }
    }
}

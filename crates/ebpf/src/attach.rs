//! Where the programs are: one on the tunnel's interface, one or two on each underlay that a path leads by.
//!
//! What comes in by an underlay is met as early as its driver allows: by native XDP, of which an interface has one place (and where somebody else has it, it is
//! theirs), with a program at TC behind it that hands on what it opened; or else by TC alone. TC is TCX where the kernel has it and a `clsact` filter
//! where not. An interface that takes none of these is left to userspace, and so are all that are no Ethernet: the loopback, other tunnels.
//!
//! An underlay stays attached until it goes, whether or not paths lead by it meanwhile: what is on the way to us comes by it still. There are programs on
//! underlays only while the tunnel's interface is in the same namespace, where it can be handed packets; and a filter has the number of that
//! interface for its handle. So filters of different tunnels do not meet, a daemon that comes after one that was killed with its steward puts its own in the
//! place of what that has left, and a filter whose interface is not there is nobody's.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use linux::bpf::{Attached, Hook};
use linux::link::{Interface, Ways};
use linux::netns;
use linux::tun::Queue;

use crate::object::Programs;

/// Which hooks are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hooks {
    /// The earliest that there is.
    #[default]
    Best,
    /// No XDP.
    Tc,
    /// Filters of `clsact` alone, as on kernels before 6.6.
    Filter,
}

/// Errors by which a kernel says that it does not know a hook, and a driver that it has none.
fn is_unknown(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error())
}

fn at_tc(program: impl AsFd, egress: bool, index: u32, inner: u32, hooks: Hooks) -> io::Result<Attached> {
    let handle = inner;
    let (tcx, filter) = match egress {
        true => (Hook::TcxEgress, Hook::FilterEgress),
        false => (Hook::TcxIngress, Hook::FilterIngress),
    };
    if hooks != Hooks::Filter {
        match Attached::new(program.as_fd(), tcx, index, handle) {
            Err(error) if is_unknown(&error) => (),
            result => return result,
        }
    }
    Attached::new(program.as_fd(), filter, index, handle)
}

/// The underlays.
pub struct Underlays {
    programs: Arc<Programs>,
    hooks: Hooks,
    /// The tunnel's interface, if it is here.
    inner: Option<u32>,
    /// By index: how they are called, and what is attached; nothing where they take nothing.
    known: HashMap<u32, (String, Vec<Attached>)>,
}

impl Underlays {
    /// `left`: what another process has attached.
    pub(crate) fn new(programs: Arc<Programs>, hooks: Hooks, left: Vec<Attached>) -> Underlays {
        let mut known: HashMap<u32, (String, Vec<Attached>)> = HashMap::new();
        for attached in left {
            let index = attached.interface();
            known.entry(index).or_insert_with(|| (format!("interface {index}"), Vec::new())).1.push(attached);
        }
        Underlays { programs, hooks, inner: None, known }
    }

    /// The tunnel's interface is this one now, or not here. What was attached for another is taken away.
    pub(crate) fn belong_to(&mut self, inner: Option<u32>) {
        if self.inner.is_some() && self.inner != inner {
            self.known.clear();
        }
        self.inner = inner;
    }

    /// Puts our programs in the places of those that another process has attached.
    pub(crate) fn replace(&mut self) {
        let Programs { ingress, xdp, .. } = &*self.programs;
        self.known.retain(|_, (name, attached)| {
            let early = attached.iter().any(|attached| attached.hook() == Hook::Xdp);
            // What is handed on has to be expected before it is.
            attached.sort_by_key(|attached| attached.hook() == Hook::Xdp);
            let replaced = attached.iter_mut().try_for_each(|attached| {
                let program = match (attached.hook(), early, xdp) {
                    (Hook::Xdp, _, Some((early, _))) => early,
                    (_, true, Some((_, hand_over))) => hand_over,
                    (_, true, None) => return Err(io::ErrorKind::Unsupported.into()),
                    (_, false, _) => ingress,
                };
                attached.replace(program.as_fd())
            });
            attached.sort_by_key(|attached| attached.hook() != Hook::Xdp);
            if let Err(error) = &replaced {
                log::info!("what was attached to {name} is attached anew: {error}");
            }
            replaced.is_ok()
        });
    }

    /// Whether the programs meet what comes in by this interface, after having been put there if need be.
    pub(crate) fn take(&mut self, index: u32, interface: &Interface) -> bool {
        let Some(inner) = self.inner.filter(|_| interface.address.is_some()) else { return false };
        if !self.known.contains_key(&index) {
            let attached = self.attach(index, inner).unwrap_or_else(|error| {
                log::info!("what comes in by {} is left to userspace: {error}", interface.name);
                Vec::new()
            });
            for attached in &attached {
                log::info!("attached to {} by {:?}", interface.name, attached.hook());
            }
            self.known.insert(index, (interface.name.clone(), attached));
        }
        self.known.get(&index).is_some_and(|(_, attached)| !attached.is_empty())
    }

    fn attach(&self, index: u32, inner: u32) -> io::Result<Vec<Attached>> {
        let Programs { ingress, xdp, .. } = &*self.programs;
        let tc = |program: &OwnedFd| at_tc(program, false, index, inner, self.hooks);
        if let (Hooks::Best, Some((early, hand_over))) = (self.hooks, xdp) {
            // What is handed on has to be expected before it is, and for longer: what is taken away goes in the order of the list.
            let hand_over = tc(hand_over)?;
            match Attached::new(early.as_fd(), Hook::Xdp, index, inner) {
                Ok(early) => return Ok(vec![early, hand_over]),
                Err(error) => log::debug!("interface {index} has no place at XDP for us: {error}"),
            }
        }
        Ok(vec![tc(ingress)?])
    }

    /// The interface is not here any more.
    pub(crate) fn forget(&mut self, index: u32) {
        if let Some((name, _)) = self.known.remove(&index) {
            log::info!("{name} has gone, and the programs on it");
        }
    }

    /// Reports were missed: interfaces may have gone. Nothing else that may have happened takes a program away.
    pub(crate) fn look_for_all(&mut self, ways: &mut Ways) {
        let is_gone = |error: &io::Error| error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error());
        let gone = self.known.keys().filter(|index| ways.interface(**index).is_err_and(|error| is_gone(&error)));
        gone.copied().collect::<Vec<_>>().into_iter().for_each(|index| self.forget(index));
    }
}

/// The tunnel's own interface.
pub struct Inner {
    queue: Queue,
    /// The network namespace that we live in.
    home: OwnedFd,
    programs: Arc<Programs>,
    hooks: Hooks,
    attached: Option<(u32, Attached)>,
}

impl Inner {
    /// The interface of this queue.
    /// `left`: what another process has attached to it.
    pub(crate) fn new(
        queue: Queue,
        programs: Arc<Programs>,
        hooks: Hooks,
        left: Option<Attached>,
    ) -> io::Result<Inner> {
        let attached = left.map(|attached| (attached.interface(), attached));
        Ok(Inner { queue, home: netns::current()?, programs, hooks, attached })
    }

    /// Puts our program in the place of the one that another process has attached.
    pub(crate) fn replace(&mut self) {
        let Some((_, attached)) = &mut self.attached else { return };
        if let Err(error) = attached.replace(self.programs.egress.as_fd()) {
            log::info!("what was attached to the tunnel's interface is attached anew: {error}");
            self.attached = None;
        }
    }

    /// Looks where the interface is, and puts the program there if it is here and has none. Its index; none if it is in another network
    /// namespace, where packets cannot be handed to an underlay of this one.
    ///
    /// # Errors
    /// It cannot be found, or takes no program.
    pub(crate) fn find(&mut self, ways: &mut Ways) -> io::Result<Option<u32>> {
        if !netns::same(self.queue.netns()?.as_fd(), self.home.as_fd())? {
            self.attached = None;
            return Ok(None);
        }
        let index = ways.index(&self.queue.name()?)?;
        if self.attached.as_ref().is_none_or(|(at, _)| *at != index) {
            self.attached = None;
            let attached = at_tc(&self.programs.egress, true, index, index, self.hooks)?;
            self.attached = Some((index, attached));
        }
        Ok(Some(index))
    }

    /// Takes the program away.
    pub(crate) fn let_go(&mut self) {
        self.attached = None;
    }
}

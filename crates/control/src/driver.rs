//! The control thread.
//!
//! It waits for whatever may happen and hands it on: timers to the protocol, handshakes from the sockets through a bounded
//! queue to the protocol, news of the data plane, of the link, and the signs that it is time to end. Of everything that others can
//! make as much of as they like it takes a few at a time, so that a flood delays neither a timer nor a peer that wants a
//! session. There is no tick: when nothing is due it sleeps.

use crate::{
    device::{Device, boot},
    handshakes::Handshakes,
    link::{Link, LinkNews},
    sockets::{Buffers, buffers},
    sources::Sources,
};
use linux::{
    poll::{Event, Interest, SignalFd},
    tun::{Offloads, Queue},
    unix::DeletionWatch,
};
use plane::{ControlDrop, PlaneEvent};
use std::{io, os::fd::AsFd, sync::Arc, time::Duration};

/// How long handshakes are seen to between two looks at everything else. Longer than what can make us ask others, so that their answers
/// are seen to before more of them are asked: answers that come too late are work for nothing on both sides.
const HANDSHAKES: Duration = Duration::from_millis(10);
/// How long news of the data plane is heard, likewise. Each may be that a handshake should be begun.
const NEWS: Duration = Duration::from_millis(4);

/// What the control thread waits for.
pub(crate) mod token {
    pub(crate) const TIMER: u64 = 0;
    pub(crate) const PLANE: u64 = 1;
    pub(crate) const SOCKETS: u64 = 2;
    pub(crate) const LINK: u64 = 3;
    pub(crate) const SIGNAL: u64 = 4;
    pub(crate) const DELETION: u64 = 5;
    pub(crate) const ROUTES: u64 = 6;
}

/// Why the control thread could not start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The interface cannot be followed.
    #[error("cannot follow the interface: {0}")]
    Link(io::Error),
    /// Changes of the routes cannot be followed.
    #[error("cannot follow the routes: {0}")]
    Routes(io::Error),
    /// A wait was refused.
    #[error("the control thread cannot wait: {0}")]
    Wait(#[from] io::Error),
}

/// Why the device ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Signal,
    /// The interface was removed.
    InterfaceGone,
    /// The configuration socket was removed.
    SocketGone,
}

/// The control thread's state.
pub struct Driver {
    device: Arc<Device>,
    link: Link,
    signals: SignalFd,
    deletion: DeletionWatch,
    handshakes: Handshakes,
    sources: Sources,
    buffers: Buffers,
}

impl Driver {
    /// Starts to follow the interface, by a descriptor of one of its queues, and to wait for what may happen.
    pub fn new(
        device: Arc<Device>,
        queue: Queue,
        offloads: Offloads,
        signals: SignalFd,
        deletion: DeletionWatch,
    ) -> Result<Self, DriverError> {
        let link = Link::new(queue, offloads, &device).map_err(DriverError::Link)?;
        let sources = Sources::new().map_err(DriverError::Routes)?;
        let add = |fd, token| device.epoll.add(fd, token, Interest::READ);
        add(device.timer.as_fd(), token::TIMER)?;
        add(device.plane.event_fd(), token::PLANE)?;
        add(link.as_fd(), token::LINK)?;
        add(signals.as_fd(), token::SIGNAL)?;
        add(deletion.as_fd(), token::DELETION)?;
        add(sources.as_fd(), token::ROUTES)?;
        Ok(Self { device, link, signals, deletion, handshakes: Handshakes::new(), sources, buffers: buffers() })
    }

    /// Runs until the device's end.
    pub fn run(mut self) -> Result<End, DriverError> {
        let end = self.watch();
        self.device.let_go_of_port();
        end
    }

    fn watch(&mut self) -> Result<End, DriverError> {
        let mut events = [Event::EMPTY; 16];
        // The socket may have gone before it was watched.
        if self.deletion.deleted() {
            return Ok(End::SocketGone);
        }
        loop {
            let timeout = if self.handshakes.is_empty() { self.sources.patience() } else { Some(Duration::ZERO) };
            let device = self.device.clone();
            let mut sockets = false;
            for event in device.epoll.wait(&mut events, timeout)? {
                sockets |= event.token() == token::SOCKETS;
                if let Some(end) = self.happened(event.token())? {
                    return Ok(end);
                }
            }
            if sockets {
                self.receive();
            }
            self.handle_handshakes();
            self.sources.check(&self.device);
        }
    }

    /// Sees to what has happened. Returns the device's end, if it is that.
    fn happened(&mut self, token: u64) -> Result<Option<End>, DriverError> {
        match token {
            token::TIMER => self.device.handle_timeout(),
            token::PLANE => return Ok(self.hear()),
            // Once for all that are ready.
            token::SOCKETS => (),
            token::LINK => match self.link.news(&self.device) {
                LinkNews::None => (),
                LinkNews::Moved => self.device.epoll.add(self.link.as_fd(), token::LINK, Interest::READ)?,
                LinkNews::Gone => return Ok(Some(End::InterfaceGone)),
            },
            token::ROUTES => self.sources.hear(),
            token::SIGNAL => return Ok(self.signals.next().map(|_| End::Signal)),
            _ => return Ok(self.deletion.deleted().then_some(End::SocketGone)),
        }
        Ok(None)
    }

    fn receive(&mut self) {
        let now = boot();
        let (device, handshakes) = (&self.device, &mut self.handshakes);
        device.receive(&mut self.buffers, |from, bytes| {
            if !handshakes.push(now, from, bytes) {
                device.plane.count_control_drop(ControlDrop::QueueFull);
            }
        });
    }

    /// Takes in some of what the data plane has to say. Returns the device's end, if it is that.
    fn hear(&mut self) -> Option<End> {
        let device = &self.device;
        let start = boot();
        while boot().saturating_since(start) < NEWS {
            match device.plane.poll_event()? {
                PlaneEvent::SessionWanted(peer) => {
                    device.change(|state, now| state.noise.handle_session_wanted(now, peer));
                }
                PlaneEvent::RekeyDue(peer) => device.change(|state, now| state.noise.handle_rekey_due(now, peer)),
                PlaneEvent::SessionConfirmed(session) => {
                    device.change(|state, now| state.noise.handle_session_confirmed(now, &session));
                }
                PlaneEvent::Activity(peer) => device.change(|state, now| state.noise.handle_activity(now, peer)),
                PlaneEvent::Handshake { from, bytes } => {
                    if !self.handshakes.push(boot(), from, bytes) {
                        device.plane.count_control_drop(ControlDrop::QueueFull);
                    }
                }
                PlaneEvent::TunGone(error) => {
                    log::debug!("the interface has gone: {error}");
                    return Some(End::InterfaceGone);
                }
            }
        }
        None
    }

    fn handle_handshakes(&mut self) {
        let (start, device) = (boot(), &self.device);
        loop {
            let now = boot();
            if now.saturating_since(start) >= HANDSHAKES {
                return;
            }
            let under_load = self.handshakes.under_load(now);
            let stale = || device.plane.count_control_drop(ControlDrop::Stale);
            let Some((from, bytes)) = self.handshakes.pop(now, stale) else { return };
            device.handle_handshake(from, &bytes, under_load);
        }
    }
}

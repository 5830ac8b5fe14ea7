//! The control thread.
//!
//! It waits for whatever may happen and hands it on: timers to the protocol, handshakes from the sockets through a bounded
//! queue to the protocol, news of the data plane, of the link, and the signs that it is time to end. Handshakes are handled
//! a few at a time, so that a flood of them delays neither a timer nor a peer that wants a session.

use crate::{
    device::{Device, Origin, now},
    handshakes::Handshakes,
    link::{Link, LinkNews},
};
use inet::Endpoint;
use linux::{
    buffer::Buffer,
    poll::{Epoll, Event, Interest, SignalFd},
    tun::{Offloads, Queue},
    udp::{Received, Socket, SocketGroup},
    unix::DeletionWatch,
};
use noise::Mac1Checker;
use plane::{HandshakeBytes, PlaneEvent};
use std::{io, os::fd::AsFd, sync::Arc, time::Duration};

/// Handshakes between two looks at everything else.
const HANDSHAKES: usize = 16;
/// Datagrams, or coalesced runs of them, of one receive.
const RECEIVE: usize = 4;
/// Bytes of one receive.
const BUFFER_LEN: usize = 1 << 16;

const TIMER: u64 = 0;
const PLANE: u64 = 1;
const WAKE: u64 = 2;
const LINK: u64 = 3;
const SIGNAL: u64 = 4;
const DELETED: u64 = 5;
const SOCKET: u64 = 6;

/// Why the control thread could not start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A descriptor, a buffer or a wait was refused.
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
    epoll: Epoll,
    link: Link,
    signals: SignalFd,
    deletion: DeletionWatch,
    group: Option<Arc<SocketGroup>>,
    mac1: Option<Mac1Checker>,
    handshakes: Handshakes,
    buffers: [Buffer; RECEIVE],
}

impl Driver {
    /// Starts to follow the interface, by a descriptor of one of its queues.
    pub fn new(
        device: Arc<Device>,
        queue: Queue,
        offloads: Offloads,
        signals: SignalFd,
        deletion: DeletionWatch,
    ) -> Result<Self, DriverError> {
        let link = Link::new(queue, offloads, &device)?;
        let buffer = || Buffer::new(BUFFER_LEN);
        let epoll = Epoll::new()?;
        epoll.add(device.timer.as_fd(), TIMER, Interest::READ)?;
        epoll.add(device.plane.event_fd(), PLANE, Interest::READ)?;
        epoll.add(device.wake.as_fd(), WAKE, Interest::READ)?;
        epoll.add(link.monitor.as_fd(), LINK, Interest::READ)?;
        epoll.add(signals.as_fd(), SIGNAL, Interest::READ)?;
        epoll.add(deletion.as_fd(), DELETED, Interest::READ)?;
        let mut driver = Self {
            device,
            epoll,
            link,
            signals,
            deletion,
            group: None,
            mac1: None,
            handshakes: Handshakes::default(),
            buffers: [buffer()?, buffer()?, buffer()?, buffer()?],
        };
        driver.refresh();
        Ok(driver)
    }

    /// Runs until the device's end.
    pub fn run(mut self) -> Result<End, DriverError> {
        let mut events = [Event::EMPTY; 16];
        loop {
            let timeout = if self.handshakes.is_empty() { None } else { Some(Duration::ZERO) };
            for event in self.epoll.wait(&mut events, timeout)? {
                match event.token() {
                    TIMER => self.device.timeout(),
                    PLANE => {
                        if let Some(end) = self.hear() {
                            return Ok(end);
                        }
                    }
                    WAKE => {
                        self.device.wake.drain();
                        self.refresh();
                    }
                    LINK => match self.link.news(&self.device) {
                        LinkNews::None => (),
                        LinkNews::Moved => self.epoll.add(self.link.monitor.as_fd(), LINK, Interest::READ)?,
                        LinkNews::Gone => return Ok(End::InterfaceGone),
                    },
                    SIGNAL => {
                        if self.signals.next().is_some() {
                            return Ok(End::Signal);
                        }
                    }
                    DELETED => {
                        if self.deletion.deleted() {
                            return Ok(End::SocketGone);
                        }
                    }
                    _ => self.receive(),
                }
            }
            self.handle_handshakes();
        }
    }

    /// Waits on the sockets as they are now, and checks messages with the key as it is now.
    fn refresh(&mut self) {
        self.mac1 = self.device.mac1_checker();
        let group = self.device.sockets();
        let same = match (&self.group, &group) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        if same {
            return;
        }
        for socket in self.group.iter().flat_map(|group| &group.control) {
            // Never added, if the add failed.
            let _ = self.epoll.remove(socket.as_fd());
        }
        for socket in group.iter().flat_map(|group| &group.control) {
            if let Err(error) = self.epoll.add(socket.as_fd(), SOCKET, Interest::READ) {
                log::error!("cannot wait for handshakes: {error}");
            }
        }
        self.group = group;
    }

    /// Takes in what the data plane has to say. Returns the device's end, if it is that.
    fn hear(&mut self) -> Option<End> {
        while let Some(event) = self.device.plane.poll_event() {
            match event {
                PlaneEvent::SessionWanted(peer) => {
                    self.device.change(None, |state, now| state.noise.handle_session_wanted(now, peer));
                }
                PlaneEvent::RekeyDue(peer) => {
                    self.device.change(None, |state, now| state.noise.handle_rekey_due(now, peer));
                }
                PlaneEvent::SessionConfirmed(session) => {
                    self.device.change(None, |state, now| state.noise.handle_session_confirmed(now, &session));
                }
                PlaneEvent::Activity(peer) => {
                    self.device.change(None, |state, now| state.noise.handle_activity(now, peer));
                }
                PlaneEvent::Handshake { from, bytes } => self.handshakes.push(now().boot, from, bytes),
                PlaneEvent::TunGone(error) => {
                    log::debug!("the interface has gone: {error}");
                    return Some(End::InterfaceGone);
                }
            }
        }
        None
    }

    /// Takes handshake messages from the control sockets into the queue.
    fn receive(&mut self) {
        let Some(group) = self.group.clone() else { return };
        for socket in &group.control {
            self.receive_from(socket);
        }
    }

    fn receive_from(&mut self, socket: &Socket) {
        let now = now().boot;
        // A bound, since messages may come faster than they are taken: the rest is there at the next look.
        for _ in 0..HANDSHAKES {
            let mut received = [Received::default(); RECEIVE];
            let mut buffers = self.buffers.each_mut().map(|buffer| &mut buffer[..]);
            let count = match socket.recv(&mut buffers, &mut received) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return log::debug!("control socket: {error}"),
            };
            for (received, buffer) in received[..count].iter().zip(&self.buffers) {
                let from = Endpoint { addr: received.from, source: received.source };
                for message in buffer[..received.len].chunks(received.segment) {
                    let checked = self.mac1.as_ref().is_some_and(|mac1| mac1.check(message));
                    if let Some(bytes) = HandshakeBytes::new(message).filter(|_| checked) {
                        self.handshakes.push(now, from, bytes);
                    }
                }
            }
        }
    }

    fn handle_handshakes(&mut self) {
        for _ in 0..HANDSHAKES {
            let Some((from, bytes)) = self.handshakes.pop() else { return };
            let origin = Origin { from, len: bytes.len() as u64 };
            let under_load = self.handshakes.under_load(now().boot);
            let result = self
                .device
                .change(Some(origin), |state, now| state.noise.handle_datagram(now, from.addr, &bytes, under_load));
            if let Err(reason) = result {
                log::debug!("a handshake message was dropped: {reason:?}");
            }
        }
    }
}

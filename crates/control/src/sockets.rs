//! The outer sockets: when they are bound and closed, and how handshakes come and go through the control sockets.
//!
//! New sockets are bound before the old ones are closed, so that a port that is taken changes nothing. What changes is
//! complete when the lock is let go: the workers have their sockets, the control thread waits on the new ones, and of the old
//! ones no descriptor is left, so that their port is free.

use crate::device::{Device, State, boot};
use crate::driver::token;
use arrayvec::ArrayVec;
use inet::Endpoint;
use linux::{
    poll::Interest,
    udp::{BindError, Outgoing, Received, SendError, Socket, SocketGroup, UdpOptions},
};
use plane::{ControlDrop, HandshakeBytes};
use std::{io, time::Duration};

/// Datagrams, or coalesced runs of them, of one receive.
const RECEIVE: usize = 32;
/// Bytes of each: the longest run. Of a buffer that gets one message only the first page is ever touched.
const BUFFER_LEN: usize = 1 << 16;
/// So many messages at least, if there are as many, are received before the control thread does something else: enough that a flood shows as
/// load (see `handshakes`), however little of the processor we get, and is not left to the socket, which drops friend and foe alike.
const MESSAGES: usize = 1024;
/// And beyond those, as many as come in this time. A count of runs alone would say little: each may be one message or 64.
const RECEIVING: Duration = Duration::from_millis(4);

/// Where the control thread receives.
pub(crate) type Buffers = Vec<u8>;

/// Memory to receive in.
pub(crate) fn buffers() -> Buffers {
    vec![0; RECEIVE * BUFFER_LEN]
}

impl Device {
    /// Binds the port (0: any) in place of the one before, and hands the workers their sockets.
    pub(crate) fn bind(&self, state: &mut State, port: u16) -> Result<(), BindError> {
        let (gso, gro) = (self.config.udp_gso, self.config.udp_gro);
        let options = UdpOptions { mark: state.mark, gso, gro, ..UdpOptions::default() };
        let group = SocketGroup::bind(port, self.config.workers, &options)?;
        for socket in &group.control {
            let failed = |source| BindError::Os { what: "waiting for a UDP socket", source };
            self.epoll.add(socket, token::SOCKETS, Interest::READ).map_err(failed)?;
        }
        log::debug!("listening on UDP port {}", group.port);
        // Rules may be about our port.
        self.plane.hold_sources(true);
        self.plane.set_sockets(Some(group.workers.clone()));
        state.port = group.port;
        let old = state.group.replace(group);
        self.forget(state, old);
        self.forget_sources(state);
        self.plane.hold_sources(false);
        Ok(())
    }

    /// The device ends: from now on the port is free for whoever comes next.
    pub(crate) fn let_go_of_port(&self) {
        self.close(&mut self.state());
    }

    /// Closes all sockets.
    pub(crate) fn close(&self, state: &mut State) {
        self.plane.set_sockets(None);
        let old = state.group.take();
        self.forget(state, old);
    }

    fn forget(&self, state: &mut State, group: Option<SocketGroup>) {
        state.overflowed += group.as_ref().map_or(0, SocketGroup::overflowed);
        for socket in group.iter().flat_map(|group| &group.control) {
            if let Err(error) = self.epoll.remove(socket) {
                log::error!("an old socket stays open: {error}");
            }
        }
    }

    /// Takes in what has come to the control sockets, as far as it is meant for us, but no more than can be seen to in a
    /// moment: the rest is there at the next look.
    pub(crate) fn receive(&self, buffers: &mut Buffers, mut take: impl FnMut(Endpoint, HandshakeBytes)) {
        let start = boot();
        let (mut seen, mut dry) = (0, [false; 2]);
        while dry != [true; 2] && (seen < MESSAGES || boot().saturating_since(start) < RECEIVING) {
            // In turn, so that a flood by one family leaves the other its half.
            for v6 in [false, true] {
                if dry[usize::from(v6)] {
                    continue;
                }
                let mut received = [Received::default(); RECEIVE];
                // The lock is not held while the messages are looked at: how many there are, strangers decide.
                let (result, mac1) = {
                    let state = self.state();
                    let mut sockets = state.group.iter().flat_map(|group| &group.control);
                    let Some(socket) = sockets.find(|socket| socket.is_v6() == v6) else {
                        dry[usize::from(v6)] = true;
                        continue;
                    };
                    let mut into: ArrayVec<&mut [u8], RECEIVE> = buffers.chunks_mut(BUFFER_LEN).collect();
                    (socket.recv(&mut into, &mut received), state.mac1.clone())
                };
                let count = match result {
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        dry[usize::from(v6)] = true;
                        continue;
                    }
                    // It stands for one datagram that did not come: a report from the network.
                    Err(error) => {
                        log::debug!("control socket: {error}");
                        seen += 1;
                        continue;
                    }
                };
                for (received, buffer) in received[..count].iter().zip(buffers.chunks(BUFFER_LEN)) {
                    if received.len == 0 {
                        seen += 1;
                        self.plane.count_control_drop(ControlDrop::Refused(noise::Drop::Malformed));
                    }
                    let from = Endpoint { addr: received.from, source: received.source };
                    for message in buffer[..received.len].chunks(received.segment) {
                        seen += 1;
                        match HandshakeBytes::checked(message, mac1.as_ref()) {
                            Ok(bytes) => take(from, bytes),
                            Err(ControlDrop::Misplaced) => self.plane.take_stray(*received, message),
                            Err(drop) => self.plane.count_control_drop(drop),
                        }
                    }
                }
            }
        }
    }
}

/// Sends one datagram of this traffic class by the control socket of its family.
pub(crate) fn send(state: &State, to: Endpoint, class: u8, bytes: &[u8]) -> Result<(), SendError> {
    let family = |socket: &&Socket| socket.is_v6() == to.addr.is_ipv6();
    let Some(socket) = state.group.as_ref().and_then(|group| group.control.iter().find(family)) else {
        return Err(SendError::Unreachable(rustix::io::Errno::AFNOSUPPORT.raw_os_error()));
    };
    match socket.send(&[Outgoing { to, class, bytes, segment: None }]) {
        (1.., _) => Ok(()),
        (_, error) => Err(error.unwrap_or(SendError::WouldBlock)),
    }
}

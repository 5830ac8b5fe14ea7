//! A relay on the way between the two ends of a tunnel: it passes on every datagram and remembers it.
//!
//! Each end takes the relay for the other, and so whoever asks sees what either said and when, without a word of it being hidden or
//! held back. There is a socket and a thread for each direction.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{LabError, Namespace};

/// How often a thread looks whether it should end.
const TICK: Duration = Duration::from_millis(100);

/// A datagram that went by.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// Whether the left end sent it.
    pub from_left: bool,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Seen {
    /// Whether it is a message of this type (1 an initiation, 2 a response, 3 a cookie reply, 4 data) by this end.
    pub fn is(&self, kind: u8, from_left: bool) -> bool {
        self.from_left == from_left && self.bytes.first() == Some(&kind)
    }

    /// Whether it is a keepalive, data without any, by this end.
    pub fn is_keepalive(&self, from_left: bool) -> bool {
        self.is(4, from_left) && self.bytes.len() == 32
    }

    /// Whether it is an initiation or a response with a second mac, which proves that its sender was given a cookie.
    pub fn has_mac2(&self) -> bool {
        matches!(self.bytes.first(), Some(1 | 2)) && self.bytes.iter().rev().take(16).any(|byte| *byte != 0)
    }
}

/// A running relay. Dropping it ends it.
pub struct Relay {
    /// What the left end takes for the right one.
    pub for_left: SocketAddr,
    /// What the right end takes for the left one.
    pub for_right: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// A relay in `namespace` between two addresses, with a socket at each of the other two; their ports may be 0.
    ///
    /// # Errors
    /// A socket cannot be had.
    pub fn new(
        namespace: &Namespace,
        (left, for_left): (SocketAddr, SocketAddr),
        (right, for_right): (SocketAddr, SocketAddr),
    ) -> Result<Relay, LabError> {
        let (left_socket, right_socket) = namespace.inside(|| Ok((bind(for_left)?, bind(for_right)?)))?;
        let address = |socket: &UdpSocket| socket.local_addr().map_err(LabError::io("a relay's address"));
        let (for_left, for_right) = (address(&left_socket)?, address(&right_socket)?);
        let (seen, ending) = (Arc::default(), Arc::default());
        let (left_socket, right_socket) = (Arc::new(left_socket), Arc::new(right_socket));
        let spawn = |from_left, from: &Arc<UdpSocket>, by: &Arc<UdpSocket>, to| {
            let (from, by) = (Arc::clone(from), Arc::clone(by));
            let (seen, ending) = (Arc::clone(&seen), Arc::clone(&ending));
            thread::spawn(move || pass_on(from_left, &from, &by, to, &seen, &ending))
        };
        let threads =
            vec![spawn(true, &left_socket, &right_socket, right), spawn(false, &right_socket, &left_socket, left)];
        Ok(Relay { for_left, for_right, seen, ending, threads })
    }

    /// All that has gone by so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many of them are such.
    pub fn count(&self, is: impl Fn(&Seen) -> bool) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|seen| is(seen)).count()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_read_timeout(Some(TICK))?;
    Ok(socket)
}

fn pass_on(
    from_left: bool,
    from: &UdpSocket,
    by: &UdpSocket,
    to: SocketAddr,
    seen: &Mutex<Vec<Seen>>,
    ending: &AtomicBool,
) {
    let mut buffer = vec![0; 1 << 16];
    while !ending.load(Ordering::Relaxed) {
        // A socket that times out, or that hears that nobody was there, goes on.
        let Ok((n, _)) = from.recv_from(&mut buffer) else { continue };
        let bytes = buffer[..n].to_vec();
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { at: Instant::now(), from_left, bytes });
        let _ = by.send_to(&buffer[..n], to);
    }
}

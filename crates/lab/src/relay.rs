//! A relay on the way between the two ends of a tunnel: it passes on every datagram and remembers it, or does with it what a [`Carrier`] does.
//!
//! Each end takes the relay for the other, and so whoever asks sees what either said and when, without a word of it being hidden or
//! held back. There is a socket and a thread for each direction.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::{LabError, Namespace};

/// Bytes that may wait in the kernel.
const BUFFER: usize = 16 << 20;

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

/// What a relay does with a datagram.
pub trait Carrier: Send {
    /// A datagram came from the left end or from the right one; whatever is given to `send` goes on to the other.
    fn carry(&mut self, from_left: bool, bytes: &[u8], send: &mut dyn FnMut(&[u8]));
}

/// The usual carrier, which remembers.
impl Carrier for Vec<Seen> {
    fn carry(&mut self, from_left: bool, bytes: &[u8], send: &mut dyn FnMut(&[u8])) {
        self.push(Seen { at: Instant::now(), from_left, bytes: bytes.to_vec() });
        send(bytes);
    }
}

/// A running relay. Dropping it ends it.
pub struct Relay {
    /// What the left end takes for the right one.
    pub for_left: SocketAddr,
    /// What the right end takes for the left one.
    pub for_right: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _running: Running,
}

/// Its threads. Dropping it ends them.
struct Running {
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
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let relay = Relay::with(namespace, (left, for_left), (right, for_right), Arc::clone(&seen))?;
        Ok(Relay { seen, ..relay })
    }

    /// The same with a carrier. It has seen nothing, whoever asks it.
    ///
    /// # Errors
    /// A socket cannot be had.
    pub fn with<C: Carrier + 'static>(
        namespace: &Namespace,
        (left, for_left): (SocketAddr, SocketAddr),
        (right, for_right): (SocketAddr, SocketAddr),
        carrier: Arc<Mutex<C>>,
    ) -> Result<Relay, LabError> {
        let (left_socket, right_socket) = namespace.inside(|| Ok((bind(for_left)?, bind(for_right)?)))?;
        let address = |socket: &UdpSocket| socket.local_addr().map_err(LabError::io("a relay's address"));
        let (for_left, for_right) = (address(&left_socket)?, address(&right_socket)?);
        let ending = Arc::default();
        let (left_socket, right_socket) = (Arc::new(left_socket), Arc::new(right_socket));
        let spawn = |from_left, from: &Arc<UdpSocket>, by: &Arc<UdpSocket>, to| {
            let (from, by) = (Arc::clone(from), Arc::clone(by));
            let (carrier, ending) = (Arc::clone(&carrier), Arc::clone(&ending));
            thread::spawn(move || pass_on(from_left, &from, &by, to, &carrier, &ending))
        };
        let threads =
            vec![spawn(true, &left_socket, &right_socket, right), spawn(false, &right_socket, &left_socket, left)];
        Ok(Relay { for_left, for_right, seen: Arc::default(), _running: Running { ending, threads } })
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

impl Drop for Running {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    // A burst waits while a machine does something else: what is lost here would look like the ends' fault.
    sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)?;
    socket.set_read_timeout(Some(TICK))?;
    Ok(socket)
}

fn pass_on(
    from_left: bool,
    from: &UdpSocket,
    by: &UdpSocket,
    to: SocketAddr,
    carrier: &Mutex<impl Carrier>,
    ending: &AtomicBool,
) {
    let mut buffer = vec![0; 1 << 16];
    // One that cannot be sent is lost, as on any link.
    let mut send = |bytes: &[u8]| drop(by.send_to(bytes, to));
    while !ending.load(Ordering::Relaxed) {
        // A socket that times out, or that hears that nobody was there, goes on.
        let Ok((n, _)) = from.recv_from(&mut buffer) else { continue };
        carrier.lock().unwrap_or_else(PoisonError::into_inner).carry(from_left, &buffer[..n], &mut send);
    }
}

//! Numbered datagrams through the tunnel, and who counts them at the other end: which came, and which came twice.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lab::{End, LabError, Numbers};

use super::threads::Threads;

/// Bytes that may wait in the kernel: what is lost there the tunnel has not lost.
const BUFFER: usize = 16 << 20;

/// The port that they go to.
const PORT: u16 = 7070;

/// The bytes of a datagram, from the smallest to whole packets: its number, and zeros.
const SIZES: [usize; 4] = [8, 100, 700, 1372];

/// A running stream, in one direction. Dropping it ends it.
pub struct Stream {
    sent: Arc<AtomicU64>,
    came: Arc<Mutex<Came>>,
    threads: Threads,
}

/// What came.
#[derive(Default)]
struct Came {
    numbers: Numbers,
    twice: u64,
}

impl Stream {
    /// Starts it, with so much time between two datagrams.
    pub fn start(from: &End, to: &End, gap: Duration) -> Result<Stream, LabError> {
        let address = SocketAddr::new(to.v4.into(), PORT);
        let receiver = to.namespace().inside(|| {
            let socket = UdpSocket::bind(address)?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)?;
            Ok(socket)
        })?;
        let sender = from.namespace().inside(|| {
            let socket = UdpSocket::bind(SocketAddr::new(from.v4.into(), 0))?;
            socket.connect(address)?;
            Ok(socket)
        })?;
        let (sent, came, mut threads) =
            (Arc::<AtomicU64>::default(), Arc::<Mutex<Came>>::default(), Threads::default());
        threads.start({
            let came = Arc::clone(&came);
            move |ending| receive(&receiver, &came, ending)
        });
        threads.start({
            let sent = Arc::clone(&sent);
            move |ending| send(&sender, gap, &sent, ending)
        });
        Ok(Stream { sent, came, threads })
    }

    /// How many were sent, came, and came twice.
    pub fn counts(&self) -> (u64, u64, u64) {
        // In this order: what is on the way is not too many.
        let sent = self.sent.load(Ordering::Relaxed);
        let came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        (sent, came.numbers.len(), came.twice)
    }

    /// Ends the sending, lets arrive what is on the way, and counts.
    pub fn finish(mut self) -> (u64, u64, u64) {
        self.threads.end();
        self.counts()
    }
}

fn send(socket: &UdpSocket, gap: Duration, sent: &AtomicU64, ending: &AtomicBool) {
    let (start, mut number, bytes) = (Instant::now(), 0_u64, [0; SIZES[SIZES.len() - 1]]);
    while !ending.load(Ordering::Relaxed) {
        let mut datagram = bytes;
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        // One that cannot be sent is as good as lost.
        let _ = socket.send(&datagram[..SIZES[number as usize % SIZES.len()]]);
        number += 1;
        sent.store(number, Ordering::Relaxed);
        let due = start + gap.mul_f64(number as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn receive(socket: &UdpSocket, came: &Mutex<Came>, ending: &AtomicBool) {
    let mut buffer = [0; 2048];
    let mut quiet = 0;
    // When it is to end, only after some silence.
    while quiet < 5 || !ending.load(Ordering::Relaxed) {
        let Ok(len) = socket.recv(&mut buffer) else {
            quiet += 1;
            continue;
        };
        quiet = 0;
        if let Some(number) = buffer[..len].first_chunk() {
            let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
            let new = came.numbers.insert(u64::from_be_bytes(*number));
            came.twice += u64::from(!new);
        }
    }
}

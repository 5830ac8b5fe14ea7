//! Pings through the tunnel at a steady pace: which were answered, how soon, and when those were sent that were not.
//!
//! `ping` sends the next one some milliseconds late each time, by how coarse the kernel waits, and who ends it has lost what was on the way. This one
//! keeps to its times, and waits for the last answers. The kernel makes ICMP of what is written to its socket, which takes a group that may
//! (`ping_group_range`).

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lab::{End, LabError};
use rustix::net::{AddressFamily, SocketType, ipproto};

use super::threads::Threads;

/// The time between two pings.
pub const GAP: Duration = Duration::from_millis(10);

/// How long the last answers are waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// The first bytes of an echo request, in which the kernel writes checksum and identity.
const REQUEST: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, 0];
const REPLY: u8 = 0;

/// A running series, in one direction. Dropping it ends it.
pub struct Pings {
    began: Instant,
    sent: Arc<AtomicU64>,
    came: Arc<Mutex<Came>>,
    threads: Threads,
}

/// What came of each ping, by number: the microseconds after which it was answered.
#[derive(Default)]
struct Came {
    after: Vec<Option<u32>>,
    twice: u64,
}

/// What became of a series.
pub struct Outcome {
    /// How many were sent.
    pub sent: u64,
    /// When those were sent that were not answered, from the start.
    pub lost: Vec<Duration>,
    /// How many were answered more than once.
    pub twice: u64,
    /// The times to the answers in microseconds, sorted.
    pub micros: Vec<u32>,
}

impl Pings {
    /// Starts them.
    pub fn start(from: &End, to: &End) -> Result<Pings, LabError> {
        from.namespace().set_sysctl("net/ipv4/ping_group_range", "0 0")?;
        let socket = from.namespace().inside(|| {
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP))?;
            let socket = UdpSocket::from(socket);
            socket.connect((to.v4, 0))?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            Ok(Arc::new(socket))
        })?;
        let began = Instant::now();
        let (sent, came, mut threads) =
            (Arc::<AtomicU64>::default(), Arc::<Mutex<Came>>::default(), Threads::default());
        threads.start({
            let (socket, sent, came) = (Arc::clone(&socket), Arc::clone(&sent), Arc::clone(&came));
            move |ending| receive(&socket, began, &sent, &came, ending)
        });
        threads.start({
            let sent = Arc::clone(&sent);
            move |ending| send(&socket, began, &sent, ending)
        });
        Ok(Pings { began, sent, came, threads })
    }

    /// How many were sent, and how many answered.
    pub fn counts(&self) -> (u64, u64) {
        // In this order: what is on the way is not too many.
        let sent = self.sent.load(Ordering::Relaxed);
        let came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        (sent, came.after.iter().flatten().count() as u64)
    }

    /// When they began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Ends the sending, waits for what is on the way, and counts.
    pub fn finish(mut self) -> Outcome {
        self.threads.end();
        let sent = self.sent.load(Ordering::Relaxed);
        let came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = |number: u64| came.after.get(number as usize).copied().flatten();
        let lost = (0..sent).filter(|number| answered(*number).is_none());
        let mut micros: Vec<u32> = came.after.iter().flatten().copied().collect();
        micros.sort_unstable();
        Outcome { sent, lost: lost.map(|number| GAP * number as u32).collect(), twice: came.twice, micros }
    }
}

fn send(socket: &UdpSocket, began: Instant, sent: &AtomicU64, ending: &AtomicBool) {
    let mut number = 0_u64;
    while !ending.load(Ordering::Relaxed) {
        let now = began.elapsed().as_micros() as u64;
        let message = [&REQUEST[..], &number.to_be_bytes(), &now.to_be_bytes()].concat();
        // Counted first, since the answer may be faster. One that cannot be sent is as good as lost.
        sent.store(number + 1, Ordering::Release);
        let _ = socket.send(&message);
        number += 1;
        thread::sleep((began + GAP * number as u32).saturating_duration_since(Instant::now()));
    }
}

fn receive(socket: &UdpSocket, began: Instant, sent: &AtomicU64, came: &Mutex<Came>, ending: &AtomicBool) {
    let mut buffer = [0; 256];
    let (mut answered, mut last) = (0, Instant::now());
    // Until all are answered, or nothing more comes.
    loop {
        if !ending.load(Ordering::Relaxed) {
            last = Instant::now();
        } else if answered >= sent.load(Ordering::Acquire) || last.elapsed() > PATIENCE {
            return;
        }
        // An error is that of an earlier ping, as the kernel reports it, or that nothing came.
        let Ok(len) = socket.recv(&mut buffer) else { continue };
        let word = |at: usize| Some(u64::from_be_bytes(*buffer[..len].get(at..)?.first_chunk()?));
        let (Some(number), Some(time)) = (word(8), word(16)) else { continue };
        if buffer[0] != REPLY || number >= sent.load(Ordering::Acquire) {
            continue;
        }
        let after = (began.elapsed().as_micros() as u64).saturating_sub(time);
        let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
        let at = number as usize;
        if came.after.len() <= at {
            came.after.resize(at + 1, None);
        }
        match &mut came.after[at] {
            Some(_) => came.twice += 1,
            first => {
                *first = Some(u32::try_from(after).unwrap_or(u32::MAX));
                answered += 1;
            }
        }
    }
}

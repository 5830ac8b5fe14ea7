//! UDP in batches: numbered datagrams at a set rate, counted where they arrive, for figures that iperf3 is too dear for.
//!
//! iperf3 spends a system call, a timer and a clock on every datagram at either end, which on a small machine is most of what there
//! is. Here up to 32 datagrams share a system call, each of them a datagram of its own, without any offload, as an application with
//! much to say would send them. The pace is kept in steps of a fraction of a millisecond; what could not be sent in time is given
//! up and not made up for in a burst. The sender says goodbye several times; the receiver leaves when it has heard that and nothing
//! else for a moment, and what comes later than that counts as lost.
//!
//! The two ends are the helper program, run inside the namespaces: [`receive`] and [`send`] are its parts, [`blast`] runs both.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use inet::Endpoint;
use linux::udp::{BATCH, Outgoing, Received, SendError, Socket, SocketGroup, UdpOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::helper;
use crate::{LabError, Namespace, Process, usage};

/// Kind and number.
const HEADER: usize = 16;
const DATA: u64 = 0x6461_7461;
const GOODBYE: u64 = 0x6279_6562;

/// Bytes of a datagram, at least and at most.
pub const SIZES: std::ops::RangeInclusive<usize> = HEADER..=8192;

/// The pause between two looks at the clock, or at a socket: many small batches would cost what batches are to save.
const STEP: Duration = Duration::from_micros(250);
/// How far the sender may fall behind its pace before it gives up what it owes.
const ARREARS: Duration = Duration::from_millis(20);
/// How long after its last datagram the sender says goodbye, and how long it waits before it does so again.
const PAUSE: Duration = Duration::from_millis(20);
const GOODBYES: u32 = 20;
/// How long nothing comes before the receiver leaves, after a goodbye and without one.
const QUIET: Duration = Duration::from_millis(60);
const SILENCE: Duration = Duration::from_secs(2);
/// How much longer than asked for an end may take until it is given up.
const SLACK: Duration = Duration::from_secs(15);

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct BlastPlan {
    /// Bytes of each datagram, within [`SIZES`].
    pub size: usize,
    /// Datagrams a second; `None` is as fast as the sender can.
    pub rate: Option<u64>,
    /// For how long.
    pub time: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Blast {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that arrived.
    pub received: u64,
    /// Those that came behind a later one, or twice.
    pub late: u64,
    /// How long the sending took.
    pub seconds: f64,
    /// Processors of the whole machine that were busy meanwhile.
    pub busy: f64,
}

impl Blast {
    /// The share of datagrams that did not arrive.
    pub fn loss(&self) -> f64 {
        1.0 - self.received as f64 / self.sent.max(1) as f64
    }

    /// Datagrams sent in each second.
    pub fn offered(&self) -> f64 {
        self.sent as f64 / self.seconds.max(1e-9)
    }

    /// Datagrams that arrived of those that were sent in each second.
    pub fn arrived(&self) -> f64 {
        self.received as f64 / self.seconds.max(1e-9)
    }
}

/// What the sender tells.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sent {
    sent: u64,
    seconds: f64,
    /// Processors of the whole machine that were busy while it sent; 0 where that cannot be told.
    busy: f64,
}

/// What the receiver tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrived {
    received: u64,
    late: u64,
    next: u64,
}

impl Arrived {
    fn enter(&mut self, number: u64) {
        self.received += 1;
        if number < self.next {
            self.late += 1;
        } else {
            self.next = number + 1;
        }
    }
}

/// Sends from one host to another, at `address`.
///
/// # Errors
/// The helper is not built, or one of the two failed or took much too long.
pub fn blast(from: &Namespace, to: &Namespace, address: IpAddr, plan: &BlastPlan) -> Result<Blast, LabError> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // A port of its own for each: what is still under way from the last one is not this one's.
    let at = SocketAddr::new(address, 30_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 20_000);
    let mut command = to.command(helper()?);
    let mut receiver = Process::spawn(command.args(["receive", &at.to_string()]))?;
    receiver.wait_for_output("ready", Duration::from_secs(10))?;
    let mut command = from.command(helper()?);
    let mut words = vec!["blast".to_owned(), at.to_string(), plan.size.to_string(), plan.time.as_micros().to_string()];
    words.extend(plan.rate.map(|rate| rate.to_string()));
    let mut sender = Process::spawn(command.args(words))?;
    sender.wait_for_output("}", plan.time + SLACK)?;
    let sent: Sent = read(&sender.stdout())?;
    // It goes on saying goodbye, and is ended when that has been heard.
    let arrived: Arrived = read(&receiver.finish(SLACK)?.checked()?.stdout)?;
    Ok(Blast {
        sent: sent.sent,
        received: arrived.received,
        late: arrived.late,
        seconds: sent.seconds,
        busy: sent.busy,
    })
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, LabError> {
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last)
        .map_err(|_| LabError::Unreadable { what: "the outcome of a blast", text: text.to_owned() })
}

fn socket(port: u16, v6: bool) -> io::Result<Socket> {
    let options = UdpOptions { gso: false, gro: false, ..UdpOptions::default() };
    let group = SocketGroup::bind(port, 0, &options).map_err(io::Error::other)?;
    let mut sockets = group.control.into_iter();
    sockets.find(|socket| socket.is_v6() == v6).ok_or_else(|| io::Error::other("no such address family here"))
}

/// The receiving helper's part: counts what comes to the port, to the end. Calls `ready` when it listens.
///
/// # Errors
/// There is no socket.
pub fn receive(at: SocketAddr, ready: impl FnOnce()) -> io::Result<Arrived> {
    let socket = socket(at.port(), at.is_ipv6())?;
    let mut storage = vec![0; BATCH * SIZES.end()];
    let mut received = [Received::default(); BATCH];
    ready();
    let (mut arrived, mut last, mut over) = (Arrived::default(), Instant::now(), false);
    loop {
        let mut buffers: Vec<&mut [u8]> = storage.chunks_mut(*SIZES.end()).collect();
        let count = match socket.recv(&mut buffers, &mut received) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        for (buffer, received) in buffers.iter().zip(&received[..count]) {
            match parse(&buffer[..received.len]) {
                Some((DATA, number)) => {
                    arrived.enter(number);
                    last = Instant::now();
                }
                Some((GOODBYE, _)) => over = true,
                _ => (),
            }
        }
        if last.elapsed() > if over { QUIET } else { SILENCE } {
            return Ok(arrived);
        }
        match count {
            BATCH => (),
            // More will come, and is cheaper by the batch; the socket's buffer holds much more than comes in that time.
            1.. => thread::sleep(STEP),
            0 => {
                let timeout = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
                poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&timeout))?;
            }
        }
    }
}

/// The sending helper's part. Calls `told` with what came of it, and then says goodbye for a while.
///
/// # Errors
/// There is no socket, or the plan is none.
pub fn send(to: SocketAddr, plan: &BlastPlan, told: impl FnOnce(Sent)) -> io::Result<()> {
    if !SIZES.contains(&plan.size) {
        return Err(io::Error::other(format!("a datagram has {} to {} bytes", SIZES.start(), SIZES.end())));
    }
    let socket = socket(0, to.is_ipv6())?;
    let mut batch = vec![vec![0; plan.size]; BATCH];
    let watch = usage::Window::open().ok();
    let start = Instant::now();
    let (mut sent, mut given_up) = (0_u64, 0);
    while start.elapsed() < plan.time {
        let count = match plan.rate {
            None => BATCH,
            Some(rate) => {
                let due = |time: Duration| (time.as_secs_f64() * rate as f64) as u64;
                let owed = due(start.elapsed()).saturating_sub(sent + given_up);
                given_up += owed.saturating_sub(due(ARREARS).max(BATCH as u64));
                owed.min(BATCH as u64) as usize
            }
        };
        if count == 0 {
            thread::sleep(STEP);
            continue;
        }
        let (done, full) = send_batch(&socket, to, DATA, sent, &mut batch[..count])?;
        sent += done as u64;
        if full {
            let timeout = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&timeout))?;
        } else if count < BATCH {
            thread::sleep(STEP);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let busy = watch.and_then(|watch| watch.close().ok()).map_or(0.0, |shares| shares.iter().sum());
    told(Sent { sent, seconds, busy });
    for _ in 0..GOODBYES {
        thread::sleep(PAUSE);
        send_batch(&socket, to, GOODBYE, 0, &mut batch[..1])?;
    }
    Ok(())
}

/// Numbers the datagrams and sends them: how many, and whether the rest had no room.
fn send_batch(
    socket: &Socket,
    to: SocketAddr,
    kind: u64,
    first: u64,
    batch: &mut [Vec<u8>],
) -> io::Result<(usize, bool)> {
    for (bytes, number) in batch.iter_mut().zip(first..) {
        bytes[..8].copy_from_slice(&kind.to_be_bytes());
        bytes[8..HEADER].copy_from_slice(&number.to_be_bytes());
    }
    let outgoing: Vec<Outgoing<'_>> =
        batch.iter().map(|bytes| Outgoing { to: Endpoint::new(to), class: 0, bytes, segment: None }).collect();
    match socket.send(&outgoing) {
        (count, None) => Ok((count, false)),
        // ENOBUFS says that the interface's queue is full.
        (count, Some(SendError::WouldBlock | SendError::Other(_))) => Ok((count, true)),
        (_, Some(error)) => Err(io::Error::other(error)),
    }
}

fn parse(bytes: &[u8]) -> Option<(u64, u64)> {
    let (kind, rest) = bytes.split_first_chunk()?;
    let (number, _) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*kind), u64::from_be_bytes(*number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn everything_arrives_on_loopback_at_the_pace_asked_for() {
        for (at, size) in [("127.0.0.1:0", 64), ("[::1]:0", 1300)] {
            // Free a moment ago.
            let at = std::net::UdpSocket::bind(at).unwrap().local_addr().unwrap();
            let (ready, is_ready) = mpsc::channel();
            let receiver = thread::spawn(move || receive(at, || ready.send(()).unwrap()));
            is_ready.recv().unwrap();
            let plan = BlastPlan { size, rate: Some(20_000), time: Duration::from_millis(100) };
            let mut sent = None;
            send(at, &plan, |it| sent = Some(it)).unwrap();
            let (sent, arrived) = (sent.unwrap(), receiver.join().unwrap().unwrap());
            // A busy machine may make it fewer, and never more.
            assert!((1..=2100).contains(&sent.sent), "{sent:?}");
            assert_eq!(arrived, Arrived { received: sent.sent, late: 0, next: sent.sent });
        }
    }

    #[test]
    fn what_is_late_or_lost_is_counted() {
        let mut arrived = Arrived::default();
        [0, 1, 3, 2, 3, 5].into_iter().for_each(|number| arrived.enter(number));
        assert_eq!(arrived, Arrived { received: 6, late: 2, next: 6 });
        let blast = Blast { sent: 200, received: 150, late: 0, seconds: 0.5, busy: 1.5 };
        assert_eq!((blast.loss(), blast.offered(), blast.arrived()), (0.25, 400.0, 300.0));
    }

    #[test]
    fn a_datagram_without_a_number_is_none() {
        let plan = BlastPlan { size: 15, rate: None, time: Duration::ZERO };
        assert!(send("127.0.0.1:9".parse().unwrap(), &plan, |_| ()).is_err());
        assert_eq!(parse(&[0; 15]), None);
    }
}

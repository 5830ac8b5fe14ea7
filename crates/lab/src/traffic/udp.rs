//! UDP, checked: numbered datagrams in one or more flows, echoed or not, counted at both ends.
//!
//! A datagram is a kind, a flow, a number within the flow, and bytes of the pattern that belongs to both. Gaps in the numbers
//! are losses, which UDP may have; with echoes a flow waits for the oldest of a window of them, so that a host that is busy with other
//! things makes it slow, and not lossy. A number at or below one that was seen before is *late*: reordered or repeated, which a
//! tunnel must never do to a flow. At the end the client asks the service what it saw.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Pattern;

/// Kind, flow and number.
const HEADER: usize = 16;

const DATA: u32 = 1;
const ECHO: u32 = 2;
const REPORT: u32 = 3;

/// Datagrams of a flow that may be without their echo, and how long one more waits for the oldest of them, which may be lost.
const WINDOW: u64 = 64;
const PATIENCE: Duration = Duration::from_millis(200);

/// How long a flow waits for its last echoes.
const LINGER: Duration = Duration::from_millis(1500);

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct UdpPlan {
    /// Flows, each from a socket of its own.
    pub flows: u32,
    /// Datagrams per flow.
    pub count: u64,
    /// Bytes per datagram, at least 16.
    pub size: usize,
    /// The time between two datagrams of a flow.
    pub gap: Duration,
    /// Whether the service sends each back.
    pub echo: bool,
}

impl UdpPlan {
    /// The plan as arguments of the helper.
    pub(super) fn arguments(&self) -> [String; 5] {
        [
            self.flows.to_string(),
            self.count.to_string(),
            self.size.to_string(),
            self.gap.as_micros().to_string(),
            self.echo.to_string(),
        ]
    }
}

/// What one end saw of the datagrams that came to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Datagrams that arrived.
    pub received: u64,
    /// Those that came behind a later one of their flow, or twice.
    pub late: u64,
    /// Those whose bytes were not what had been sent.
    pub corrupt: u64,
}

/// What came of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpOutcome {
    /// Datagrams sent.
    pub sent: u64,
    /// What the service saw of them.
    pub service: Seen,
    /// What came back.
    pub echoes: Seen,
}

impl UdpOutcome {
    /// Datagrams that did not reach the service.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.service.received)
    }
}

/// The numbers seen so far, by flow.
#[derive(Default)]
struct Ledger {
    seen: Seen,
    last: HashMap<u32, u64>,
}

impl Ledger {
    fn enter(&mut self, datagram: &Datagram<'_>) {
        self.seen.received += 1;
        if datagram.is_corrupt() {
            self.seen.corrupt += 1;
            return;
        }
        match self.last.get_mut(&datagram.flow) {
            Some(last) if datagram.number <= *last => self.seen.late += 1,
            Some(last) => *last = datagram.number,
            None => {
                self.last.insert(datagram.flow, datagram.number);
            }
        }
    }
}

struct Datagram<'a> {
    kind: u32,
    flow: u32,
    number: u64,
    body: &'a [u8],
}

impl<'a> Datagram<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Datagram<'a>> {
        let (kind, rest) = bytes.split_first_chunk()?;
        let (flow, rest) = rest.split_first_chunk()?;
        let (number, body) = rest.split_first_chunk()?;
        Some(Datagram {
            kind: u32::from_be_bytes(*kind),
            flow: u32::from_be_bytes(*flow),
            number: u64::from_be_bytes(*number),
            body,
        })
    }

    fn write(kind: u32, flow: u32, number: u64, out: &mut [u8]) {
        out[..4].copy_from_slice(&kind.to_be_bytes());
        out[4..8].copy_from_slice(&flow.to_be_bytes());
        out[8..HEADER].copy_from_slice(&number.to_be_bytes());
        pattern(flow, number).fill(&mut out[HEADER..]);
    }

    fn is_corrupt(&self) -> bool {
        let kind_is_known = self.kind == DATA || self.kind == ECHO;
        !kind_is_known || pattern(self.flow, self.number).find_difference(self.body).is_some()
    }
}

fn pattern(flow: u32, number: u64) -> Pattern {
    Pattern::new((u64::from(flow) << 40) ^ number)
}

/// Answers datagrams for ever.
///
/// # Errors
/// The socket broke.
pub fn serve(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = vec![0; 65_536];
    let mut ledger = Ledger::default();
    // A report begins a new page; asked for again, because the answer was lost, it is the old page that counts.
    let mut reported: Option<(u64, Vec<u8>)> = None;
    loop {
        let (n, from) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            // An ICMP error about an echo: nobody was there any more.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        let Some(datagram) = Datagram::parse(&buffer[..n]) else {
            continue;
        };
        if datagram.kind == REPORT {
            if reported.as_ref().is_none_or(|(id, _)| *id != datagram.number) {
                let page = std::mem::take(&mut ledger);
                let text = serde_json::to_vec(&page.seen).unwrap_or_default();
                reported = Some((datagram.number, text));
            }
            if let Some((_, text)) = &reported {
                let _ = socket.send_to(text, from);
            }
            continue;
        }
        let echo = datagram.kind == ECHO;
        ledger.enter(&datagram);
        if echo {
            // The flow may have become unreachable: that is a loss like any other.
            let _ = socket.send_to(&buffer[..n], from);
        }
    }
}

/// Carries out a plan against the service at `to`, or as much of it as is sent until `enough`.
///
/// # Errors
/// A socket could not be made, or the service gave no report.
pub fn exchange(to: SocketAddr, plan: &UdpPlan, enough: &AtomicBool) -> io::Result<UdpOutcome> {
    let sent = AtomicU64::new(0);
    let echoes = Mutex::new(Seen::default());
    thread::scope(|scope| {
        let flows: Vec<_> = (0..plan.flows)
            .map(|flow| {
                let (sent, echoes) = (&sent, &echoes);
                scope.spawn(move || -> io::Result<()> {
                    let (n, seen) = run_flow(to, plan, flow, enough)?;
                    sent.fetch_add(n, Ordering::Relaxed);
                    let mut sum = echoes.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.received += seen.received;
                    sum.late += seen.late;
                    sum.corrupt += seen.corrupt;
                    Ok(())
                })
            })
            .collect();
        flows.into_iter().try_for_each(|flow| flow.join().unwrap_or_else(|_| Err(io::Error::other("a flow panicked"))))
    })?;
    Ok(UdpOutcome {
        sent: sent.into_inner(),
        service: ask_report(to)?,
        echoes: echoes.into_inner().unwrap_or_else(PoisonError::into_inner),
    })
}

fn run_flow(to: SocketAddr, plan: &UdpPlan, flow: u32, enough: &AtomicBool) -> io::Result<(u64, Seen)> {
    let socket = connected(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    // How many there are of them, once that is known.
    let total = Arc::new(AtomicU64::new(u64::MAX));
    // The number behind the newest echo.
    let echoed = Arc::new(AtomicU64::new(0));
    let listener = plan.echo.then(|| {
        let (total, echoed) = (Arc::clone(&total), Arc::clone(&echoed));
        socket.try_clone().map(|socket| thread::spawn(move || listen(&socket, &total, &echoed)))
    });
    let mut buffer = vec![0; plan.size.max(HEADER)];
    let kind = if plan.echo { ECHO } else { DATA };
    let start = Instant::now();
    let mut sent = 0;
    for number in (0..plan.count).take_while(|_| !enough.load(Ordering::Relaxed)) {
        let due = plan.gap * u32::try_from(number).unwrap_or(u32::MAX);
        thread::sleep(due.saturating_sub(start.elapsed()));
        let waiting = Instant::now();
        while plan.echo && number >= echoed.load(Ordering::Relaxed) + WINDOW && waiting.elapsed() < PATIENCE {
            thread::sleep(Duration::from_micros(200));
        }
        // What is lost is not waited for twice.
        echoed.fetch_max(number.saturating_sub(WINDOW - 1), Ordering::Relaxed);
        Datagram::write(kind, flow, number, &mut buffer);
        // Refused or unreachable for the moment: a loss, which the counts will show.
        let _ = socket.send(&buffer);
        sent += 1;
    }
    total.store(sent, Ordering::Release);
    let seen = match listener.transpose()? {
        Some(thread) => thread.join().map_err(|_| io::Error::other("a listener panicked"))?,
        None => Seen::default(),
    };
    Ok((sent, seen))
}

fn listen(socket: &UdpSocket, total: &AtomicU64, echoed: &AtomicU64) -> Seen {
    let mut ledger = Ledger::default();
    let mut buffer = vec![0; 65_536];
    let mut last = Instant::now();
    while ledger.seen.received < total.load(Ordering::Acquire) {
        match socket.recv(&mut buffer) {
            Ok(n) => {
                last = Instant::now();
                if let Some(datagram) = Datagram::parse(&buffer[..n]) {
                    ledger.enter(&datagram);
                    echoed.fetch_max(datagram.number.saturating_add(1), Ordering::Relaxed);
                }
            }
            Err(_) if total.load(Ordering::Acquire) == u64::MAX => last = Instant::now(),
            Err(_) if last.elapsed() > LINGER => break,
            Err(_) => {}
        }
    }
    ledger.seen
}

fn ask_report(to: SocketAddr) -> io::Result<Seen> {
    let socket = connected(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut question = [0; HEADER];
    Datagram::write(REPORT, 0, u64::from(std::process::id()), &mut question);
    let mut buffer = [0; 1024];
    for _ in 0..20 {
        let _ = socket.send(&question);
        if let Ok(n) = socket.recv(&mut buffer)
            && let Ok(seen) = serde_json::from_slice(&buffer[..n])
        {
            return Ok(seen);
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "the service gives no report"))
}

fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        thread::spawn(move || serve(&socket));
        at
    }

    #[test]
    fn counts_what_arrives_and_comes_back() {
        let plan = UdpPlan { flows: 3, count: 50, size: 200, gap: Duration::from_micros(200), echo: true };
        let at = service();
        let whole = Seen { received: 150, late: 0, corrupt: 0 };
        let outcome = exchange(at, &plan, &AtomicBool::new(false)).unwrap();
        assert_eq!((outcome.service, outcome.echoes), (whole, whole));
        assert_eq!((outcome.sent, outcome.lost()), (150, 0));
    }

    #[test]
    fn no_more_is_sent_than_enough_and_all_of_it_counts() {
        let enough = Arc::new(AtomicBool::new(false));
        let plan = UdpPlan { flows: 1, count: u64::MAX, size: 200, gap: Duration::from_millis(1), echo: true };
        let at = service();
        let running = {
            let enough = Arc::clone(&enough);
            thread::spawn(move || exchange(at, &plan, &enough).unwrap())
        };
        // Whatever this takes, the plan would take for ever.
        thread::sleep(Duration::from_millis(50));
        enough.store(true, Ordering::Relaxed);
        let outcome = running.join().unwrap();
        let whole = Seen { received: outcome.sent, late: 0, corrupt: 0 };
        assert_eq!((outcome.service, outcome.echoes), (whole, whole));
    }

    #[test]
    fn late_repeated_and_changed_datagrams_are_told_apart() {
        let mut ledger = Ledger::default();
        let mut enter = |flow, number, flip: bool| {
            let mut bytes = [0; 100];
            Datagram::write(DATA, flow, number, &mut bytes);
            bytes[50] ^= u8::from(flip);
            ledger.enter(&Datagram::parse(&bytes).unwrap());
            ledger.seen
        };
        enter(1, 5, false);
        assert_eq!(enter(2, 1, false).late, 0, "another flow");
        assert_eq!(enter(1, 9, false).late, 0, "a gap");
        assert_eq!(enter(1, 7, false).late, 1, "reordered");
        assert_eq!(enter(1, 9, false).late, 2, "repeated");
        assert_eq!(enter(1, 10, true).corrupt, 1);
        assert_eq!(enter(1, 11, false).received, 7);
    }
}

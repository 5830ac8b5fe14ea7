//! Serving the configuration socket.
//!
//! A thread accepts; each connection gets a thread of its own, of which there is a bounded number, and serves several
//! requests one after the other. A request is read to its end before the device is touched, and no lock is held while a
//! reply is written, so a client that stalls holds up nobody. Who keeps silent longest makes room where there is none; between
//! requests anybody may be silent for as long as there is room. What clients may make us keep is bounded for all of them together.

use crate::{
    device::{Device, boot},
    lock::lock,
    zones::SystemZones,
};
use config::uapi::{Budget, Request, RequestError, RequestReader, reply_to_get, reply_to_set};
use linux::{
    memory::hide_stack,
    poll::{Epoll, Event, EventFd, Interest},
    unix::Listener,
};
use noise::Instant;
use std::{
    cell::Cell,
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Connections at a time.
const CONNECTIONS: usize = 32;
/// Of these, how many may keep a wiped device still and for that be as silent as they like. Who comes to hold it beyond them goes like any other.
const HOLDERS: usize = 4;
/// How long a client may be silent in the middle of a request, or take nothing of what it asked for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it is waited for that a client who has to go has gone, and how long one counts as moving since it last did.
const EVICTION: Duration = Duration::from_secs(1);
/// Bytes of stack of a connection's thread.
const STACK: usize = 256 * 1024;

/// The server. Dropped, it stops to accept and closes the socket; connections end with the process or their clients.
pub struct Server {
    quit: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves the device on this socket.
    ///
    /// # Errors
    /// A descriptor or a thread was refused.
    pub fn start(listener: Listener, device: Arc<Device>) -> io::Result<Self> {
        let quit = Arc::new(EventFd::new()?);
        let epoll = Epoll::new()?;
        // Edge-triggered: when the process has no descriptor left for a connection, it is tried again with the next one, not
        // again and again.
        epoll.add(listener.as_fd(), 0, Interest::READ | Interest::EDGE)?;
        epoll.add(quit.as_fd(), 1, Interest::READ)?;
        let accepting = quit.clone();
        let thread = thread::Builder::new()
            .name("uapi".into())
            .stack_size(STACK)
            .spawn(move || accept(&listener, &epoll, &accepting, &device))?;
        Ok(Self { quit, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.quit.signal();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the configuration server panicked");
        }
    }
}

/// A connection that is served.
struct Client {
    stream: UnixStream,
    /// When it last said or took something, in nanoseconds of boot time, with its phase; or [`EVICTED`], for good.
    active: AtomicU64,
}

/// Where the phase lies in [`Client::active`]. First of all: nothing of a request has come.
const PHASE: u32 = 61;
/// Part of a request has come.
const BEGUN: u64 = 1 << PHASE;
/// A reply is on its way.
const REPLYING: u64 = 2 << PHASE;
/// A change is made, and the client must be told of it.
const APPLYING: u64 = 3 << PHASE;
/// Nothing of a request has come, but as long as it is there the device keeps still.
const HOLDING: u64 = 4 << PHASE;
/// It has to go, and nothing more is done for it. Later than any time.
const EVICTED: u64 = u64::MAX;

impl Client {
    /// Notes that something moves, and the phase. An error if the client has to go.
    fn note(&self, phase: u64) -> io::Result<()> {
        let next = boot().as_nanos() | phase;
        let update = |was| (was != EVICTED).then_some(next);
        match self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

/// Who goes first, of clients that were seen so: the longest silent, but who is in the middle of a request last; `None` must not go.
fn rank(seen: u64, now: Instant) -> Option<(bool, u64)> {
    if seen == EVICTED {
        return None;
    }
    let at = seen & (BEGUN - 1);
    let moves = now.saturating_since(Instant::from_nanos(at)) < EVICTION;
    match seen & !(BEGUN - 1) {
        APPLYING | HOLDING => None,
        REPLYING if moves => None,
        phase => Some((phase == BEGUN && moves, at)),
    }
}

/// Who goes first of these, and as what it was seen.
fn first(served: &[Arc<Client>], now: Instant) -> Option<(u64, Arc<Client>)> {
    let mut holders = 0;
    let look = |client: &Arc<Client>| {
        let seen = client.active.load(Ordering::Relaxed);
        let holds = seen != EVICTED && seen & !(BEGUN - 1) == HOLDING;
        holders += usize::from(holds);
        let rank = rank(if holds && holders > HOLDERS { seen & !HOLDING } else { seen }, now)?;
        Some((rank, seen, client.clone()))
    };
    served.iter().filter_map(look).min_by_key(|found| found.0).map(|(_, seen, client)| (seen, client))
}

/// The connections that there are.
#[derive(Default)]
struct Clients {
    served: Mutex<Vec<Arc<Client>>>,
    left: Condvar,
}

impl Clients {
    /// Takes a client in. If there are as many as may be, whoever has been silent for longest has to go: some controllers keep a connection for
    /// ever, and others die without a word. `None` if nobody can go now.
    fn take(self: &Arc<Clients>, stream: UnixStream) -> Option<Place> {
        let mut served = lock(&self.served);
        if served.len() >= CONNECTIONS {
            let now = boot();
            while let Some((seen, silent)) = first(&served, now) {
                // Unless it has moved meanwhile: then another look. From here on nothing is done for it.
                if silent.active.compare_exchange(seen, EVICTED, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                    log::debug!("a configuration client that is silent makes room for another");
                    // Its thread finds the end of the stream, whether it reads or writes.
                    let _ = silent.stream.shutdown(Shutdown::Both);
                    break;
                }
            }
            let full = |served: &mut Vec<_>| served.len() >= CONNECTIONS;
            served = self.left.wait_timeout_while(served, EVICTION, full).unwrap_or_else(PoisonError::into_inner).0;
            if served.len() >= CONNECTIONS {
                return None;
            }
        }
        let client = Arc::new(Client { stream, active: AtomicU64::new(boot().as_nanos()) });
        served.push(client.clone());
        Some(Place { clients: self.clone(), client })
    }
}

/// One of the places for connections, given back on drop.
struct Place {
    clients: Arc<Clients>,
    client: Arc<Client>,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.clients.served).retain(|client| !Arc::ptr_eq(client, &self.client));
        self.clients.left.notify_all();
    }
}

/// A client's stream, in which it is noted when something moves, and by which a request has to be finished once it was begun.
struct Watched<'a> {
    client: &'a Client,
    /// Whether anything of the request has come.
    begun: Cell<bool>,
}

impl Watched<'_> {
    /// Waits for the next request, for as long as the client likes.
    fn rest(&self, holds: bool) -> io::Result<()> {
        self.client.note(if holds { HOLDING } else { 0 })?;
        self.begun.set(false);
        self.client.stream.set_read_timeout(None)
    }
}

impl Read for &Watched<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = (&self.client.stream).read(out)?;
        self.client.note(BEGUN)?;
        if !self.begun.replace(true) {
            self.client.stream.set_read_timeout(Some(PATIENCE))?;
        }
        Ok(len)
    }
}

impl Write for &Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = (&self.client.stream).write(bytes)?;
        self.client.note(REPLYING)?;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn accept(listener: &Listener, epoll: &Epoll, quit: &EventFd, device: &Arc<Device>) {
    hide_stack();
    let (clients, budget) = (Arc::new(Clients::default()), Budget::new());
    let mut events = [Event::EMPTY; 2];
    loop {
        if let Err(error) = epoll.wait(&mut events, None) {
            return log::error!("the configuration socket cannot be waited for: {error}");
        }
        if quit.drain() {
            return;
        }
        loop {
            match listener.accept() {
                Ok(stream) => admit(stream, &clients, &budget, device),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Given up before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => (),
                Err(error) => {
                    log::error!("a configuration client cannot be accepted: {error}");
                    break;
                }
            }
        }
    }
}

fn admit(stream: UnixStream, clients: &Arc<Clients>, budget: &Arc<Budget>, device: &Arc<Device>) {
    let Some(place) = clients.take(stream) else {
        return log::error!("a configuration client was turned away: there are {CONNECTIONS} already");
    };
    let (device, budget) = (device.clone(), budget.clone());
    let serving = thread::Builder::new().name("uapi-client".into()).stack_size(STACK).spawn(move || {
        hide_stack();
        if let Err(error) = serve(&place.client, budget, &device) {
            log::debug!("a configuration client has gone: {error}");
        }
        drop(place);
    });
    if let Err(error) = serving {
        log::error!("a configuration client cannot be served: {error}");
    }
}

/// Serves one connection until the client hangs up.
fn serve(client: &Client, budget: Arc<Budget>, device: &Device) -> io::Result<()> {
    client.stream.set_write_timeout(Some(PATIENCE))?;
    let stream = &Watched { client, begun: Cell::new(false) };
    let mut requests = RequestReader::sharing(stream, budget);
    // Whoever asks for it has it until the connection ends, however that comes about.
    let mut stillness = None;
    loop {
        stream.rest(stillness.is_some())?;
        let mut out = stream;
        let reply = match requests.read(&SystemZones) {
            Ok(None) => return Ok(()),
            Ok(Some(Request::Get)) => {
                client.note(REPLYING)?;
                device.report(&mut out)?;
                reply_to_get(Ok(()))
            }
            Ok(Some(Request::Peers)) => {
                client.note(REPLYING)?;
                device.report_openly(&mut out)?;
                reply_to_get(Ok(()))
            }
            Ok(Some(Request::Drops)) => {
                client.note(REPLYING)?;
                let mut text = Vec::new();
                config::uapi::write_drops(&mut text, &device.drops());
                out.write_all(&text)?;
                reply_to_get(Ok(()))
            }
            Ok(Some(Request::Stats)) => {
                client.note(REPLYING)?;
                let mut text = Vec::new();
                config::uapi::write_stats(&mut text, &device.stats());
                out.write_all(&text)?;
                reply_to_get(Ok(()))
            }
            Ok(Some(Request::Policy)) => {
                client.note(REPLYING)?;
                let mut text = Vec::new();
                config::uapi::write_policy(&mut text, &device.policy());
                out.write_all(&text)?;
                reply_to_get(Ok(()))
            }
            Ok(Some(Request::SetPolicy(rules))) => {
                client.note(APPLYING)?;
                device.set_policy(rules);
                reply_to_set(Ok(()))
            }
            Ok(Some(Request::Watch(keys))) => {
                client.note(REPLYING)?;
                match device.watchers.take(client.stream.try_clone()?, keys) {
                    // It has its answer, and needs neither this thread nor the place.
                    Ok(()) => return Ok(()),
                    Err(errno) => reply_to_get(Err(errno)),
                }
            }
            Ok(Some(Request::Wipe)) => {
                client.note(APPLYING)?;
                if stillness.is_none() {
                    match device.wipe() {
                        Ok(still) => {
                            stillness = Some(still);
                            reply_to_get(Ok(()))
                        }
                        Err(errno) => reply_to_get(Err(errno)),
                    }
                } else {
                    reply_to_get(Ok(()))
                }
            }
            Ok(Some(Request::Set(change))) => {
                client.note(APPLYING)?;
                reply_to_set(device.apply(change))
            }
            Err(error) => {
                log::debug!("a configuration request was refused: {error}");
                let reply = match error {
                    RequestError::Get => reply_to_get(Err(error.errno())),
                    _ => reply_to_set(Err(error.errno())),
                };
                if error.ends_connection() {
                    return out.write_all(reply.as_bytes());
                }
                reply
            }
        };
        // In one write: some clients read the reply to a set in one read.
        out.write_all(reply.as_bytes())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_at_work_goes_last_or_not_at_all() {
        let now = Instant::from_nanos(1 << 40);
        let ago = |millis: u64, phase: u64| ((1 << 40) - millis * 1_000_000) | phase;
        let first = |seen: &[u64]| (0..seen.len()).filter_map(|n| Some((rank(seen[n], now)?, n))).min().map(|it| it.1);
        assert_eq!(first(&[ago(100, 0), ago(200, 0)]), Some(1), "the longest silent");
        assert_eq!(first(&[ago(500, BEGUN), ago(200, 0)]), Some(1), "between two pieces of a request");
        assert_eq!(first(&[ago(5000, BEGUN), ago(200, 0)]), Some(0), "stuck in a request");
        assert_eq!(first(&[ago(500, BEGUN), ago(5000, APPLYING)]), Some(0));
        assert_eq!(first(&[ago(500, REPLYING), ago(5000, APPLYING), EVICTED]), None);
        assert_eq!(first(&[ago(5000, REPLYING), ago(200, 0)]), Some(0), "who takes nothing of its reply");
    }

    #[test]
    fn who_keeps_the_device_still_does_not_make_room_unless_there_are_many() {
        let clients = Arc::new(Clients::default());
        let join = |phase| {
            let place = clients.take(UnixStream::pair().unwrap().0)?;
            // Before all others.
            place.client.active.store(phase | 1, Ordering::Relaxed);
            Some(place)
        };
        let holders: Vec<Place> = (0..=HOLDERS).map(|_| join(HOLDING).unwrap()).collect();
        let _others: Vec<Place> = (holders.len()..CONNECTIONS).map(|_| join(2).unwrap()).collect();
        // Nobody hangs up here, so nobody comes in.
        assert!(join(2).is_none());
        let gone: Vec<bool> =
            holders.iter().map(|place| place.client.active.load(Ordering::Relaxed) == EVICTED).collect();
        assert_eq!(gone, [false, false, false, false, true]);
    }

    #[test]
    fn nothing_is_done_for_who_has_to_go() {
        let (stream, _far) = UnixStream::pair().unwrap();
        let client = Client { stream, active: AtomicU64::new(0) };
        client.note(APPLYING).unwrap();
        client.active.store(EVICTED, Ordering::Relaxed);
        assert!(client.note(APPLYING).is_err());
        assert_eq!(client.active.load(Ordering::Relaxed), EVICTED);
    }
}

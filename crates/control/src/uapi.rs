//! Serving the configuration socket.
//!
//! A thread accepts; each connection gets a thread of its own, of which there is a bounded number, and serves several
//! requests one after the other. A request is read to its end before the device is touched, and no lock is held while a
//! reply is written, so a client that stalls holds up nobody.

use crate::{device::Device, zones::SystemZones};
use config::uapi::{Request, RequestError, RequestReader, reply_to_get, reply_to_set};
use linux::{
    memory::hide_stack,
    poll::{Epoll, Event, EventFd, Interest},
    unix::Listener,
};
use std::{
    io::{self, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Connections at a time; one more is closed at once.
const CONNECTIONS: usize = 32;
/// How long a client may take to read what it asked for.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
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

/// One of the places for connections, given back on drop.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(taken: &Arc<AtomicUsize>) -> Option<Place> {
        let place = Place(taken.clone());
        (taken.fetch_add(1, Ordering::AcqRel) < CONNECTIONS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn accept(listener: &Listener, epoll: &Epoll, quit: &EventFd, device: &Arc<Device>) {
    hide_stack();
    let taken = Arc::new(AtomicUsize::new(0));
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
                Ok(stream) => admit(stream, &taken, device),
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

fn admit(stream: UnixStream, taken: &Arc<AtomicUsize>, device: &Arc<Device>) {
    let Some(place) = Place::take(taken) else {
        return log::error!("a configuration client was turned away: there are {CONNECTIONS} already");
    };
    let device = device.clone();
    let serving = thread::Builder::new().name("uapi-client".into()).stack_size(STACK).spawn(move || {
        hide_stack();
        if let Err(error) = serve(&stream, &device) {
            log::debug!("a configuration client has gone: {error}");
        }
        drop(place);
    });
    if let Err(error) = serving {
        log::error!("a configuration client cannot be served: {error}");
    }
}

/// Serves one connection until the client hangs up.
fn serve(stream: &UnixStream, device: &Device) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut requests = RequestReader::new(stream);
    loop {
        let mut out = stream;
        let reply = match requests.read(&SystemZones) {
            Ok(None) => return Ok(()),
            Ok(Some(Request::Get)) => {
                device.report(&mut out)?;
                reply_to_get(Ok(()))
            }
            Ok(Some(Request::Drops)) => {
                let mut text = Vec::new();
                config::uapi::write_drops(&mut text, &device.drops());
                out.write_all(&text)?;
                reply_to_get(Ok(()))
            }
            Ok(Some(Request::Set(change))) => reply_to_set(device.apply(change)),
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

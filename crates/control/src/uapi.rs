//! Serving the configuration socket.
//!
//! A thread accepts; each connection gets a thread of its own, of which there is a bounded number, and serves several
//! requests one after the other. A request is read to its end before the device is touched, so a client that stalls in the
//! middle of one holds up nobody.

use crate::{device::Device, zones::SystemZones};
use config::uapi::{Request, RequestReader, reply_to_get, reply_to_set};
use linux::{
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
    thread::JoinHandle,
    time::Duration,
};

/// Connections at a time; one more is closed at once.
const CONNECTIONS: usize = 32;
/// How long a client may take to read what it asked for.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// The server. Dropped, it stops to accept and closes the socket; connections end with the process or their clients.
pub struct Server {
    quit: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves the device on this socket.
    pub fn start(listener: Listener, device: Arc<Device>) -> io::Result<Self> {
        let quit = Arc::new(EventFd::new()?);
        let epoll = Epoll::new()?;
        epoll.add(listener.as_fd(), 0, Interest::READ)?;
        epoll.add(quit.as_fd(), 1, Interest::READ)?;
        let accepting = quit.clone();
        let thread = std::thread::Builder::new()
            .name("uapi".into())
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

fn accept(listener: &Listener, epoll: &Epoll, quit: &EventFd, device: &Arc<Device>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let mut events = [Event::EMPTY; 2];
    loop {
        if let Err(error) = epoll.wait(&mut events, None) {
            return log::error!("the configuration socket cannot be waited for: {error}");
        }
        if quit.drain() {
            return;
        }
        while let Ok(stream) = listener.accept() {
            if connections.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS {
                connections.fetch_sub(1, Ordering::AcqRel);
                log::debug!("a configuration client was turned away: there are {CONNECTIONS} already");
                continue;
            }
            let (count, device) = (connections.clone(), device.clone());
            let serving = std::thread::Builder::new().name("uapi-client".into()).spawn(move || {
                if let Err(error) = serve(&stream, &device) {
                    log::debug!("a configuration client: {error}");
                }
                count.fetch_sub(1, Ordering::AcqRel);
            });
            if let Err(error) = serving {
                connections.fetch_sub(1, Ordering::AcqRel);
                log::error!("a configuration client cannot be served: {error}");
            }
        }
    }
}

/// Serves one connection until the client hangs up.
fn serve(stream: &UnixStream, device: &Device) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut requests = RequestReader::new(stream);
    loop {
        let mut out = stream;
        match requests.read(&SystemZones) {
            Ok(None) => return Ok(()),
            Ok(Some(Request::Get)) => {
                device.report(&mut out)?;
                out.write_all(reply_to_get(Ok(())).as_bytes())?;
            }
            Ok(Some(Request::Set(change))) => {
                let result = device.apply(change);
                // Written at once: some clients read once.
                out.write_all(reply_to_set(result).as_bytes())?;
            }
            Err(error) => {
                log::debug!("a configuration request was refused: {error}");
                let reply = match error {
                    config::uapi::RequestError::Get => reply_to_get(Err(error.errno())),
                    _ => reply_to_set(Err(error.errno())),
                };
                out.write_all(reply.as_bytes())?;
                if error.ends_connection() {
                    return Ok(());
                }
            }
        }
    }
}

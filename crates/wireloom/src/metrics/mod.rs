//! Serving an interface's metrics over HTTP, as the attendant's duty.
//!
//! The attendant's one thread accepts; each connection gets a thread of its own, of which there is a bounded number, and one request, which has to
//! come within seconds and whose answer has to be taken within a minute. So a client that stalls holds up nobody but, when there are as many of them
//! as may be, other scrapers. Who comes then is turned away at once. Nothing is asked of the interface while nobody asks us.

pub mod http;
pub mod place;
pub mod text;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use linux::unix::{ListenError, Listener};
use rustix::fs::Mode;

use crate::watch::Seen;
use http::{Request, Status};
pub use place::Place;
use text::Exposition;

/// Connections at a time. A Prometheus server has one; people look besides.
const CONNECTIONS: usize = 8;
/// How long a request may take to come.
const REQUEST: Duration = Duration::from_secs(5);
/// How long its answer may take to be taken: as long as a scrape of Prometheus may last by default, several times over.
const ANSWER: Duration = Duration::from_secs(60);
/// Bytes of stack of a connection's thread.
const STACK: usize = 256 * 1024;

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The address is not to be had.
    #[error("cannot serve metrics at {0}: {1}")]
    Address(std::net::SocketAddr, io::Error),
    /// The socket cannot be made.
    #[error("cannot serve metrics: {0}")]
    Path(#[from] ListenError),
    /// Its folder cannot be made, or looked at.
    #[error("cannot serve metrics in the folder {0}: {1}")]
    Folder(std::path::PathBuf, io::Error),
    /// Others could put something else in its place.
    #[error(
        "cannot serve metrics in the folder {0}, which others may write to, expected one that is its owner's alone, such as /run/wireloom-metrics"
    )]
    Shared(std::path::PathBuf),
}

enum Door {
    Tcp(TcpListener),
    Unix(Listener),
}

/// A server of one interface's metrics.
pub struct Metrics {
    doors: Vec<Door>,
    subject: Arc<Subject>,
}

/// What is served.
struct Subject {
    interface: String,
    serving: AtomicUsize,
}

impl Metrics {
    /// Listens at these places.
    ///
    /// # Errors
    /// One of them is not to be had.
    pub fn open(interface: &str, places: &[Place]) -> Result<Metrics, MetricsError> {
        let mut doors = Vec::new();
        for place in places {
            if let Place::Path(path) = place {
                private_folder(path.parent().unwrap_or(Path::new("/")))?;
                // Its mode is there with the file, so that nothing is changed later that may be another file by then. No thread runs yet that
                // could make one meanwhile.
                let umask = rustix::process::umask(Mode::empty());
                let listener = Listener::bind_as(path, 0o660);
                rustix::process::umask(umask);
                doors.push(Door::Unix(listener?));
            }
            let mut failed = None;
            let before = doors.len();
            for address in place.addresses() {
                match TcpListener::bind(address).and_then(|door| door.set_nonblocking(true).map(|()| door)) {
                    Ok(door) => doors.push(Door::Tcp(door)),
                    // A host may have one address family only.
                    Err(error) if matches!(place, Place::Loopback(_)) && is_missing(&error) => {
                        failed = failed.or(Some(MetricsError::Address(address, error)));
                    }
                    Err(error) => return Err(MetricsError::Address(address, error)),
                }
            }
            if let Some(error) = failed.filter(|_| doors.len() == before) {
                return Err(error);
            }
        }
        let serving = AtomicUsize::new(0);
        Ok(Metrics { doors, subject: Arc::new(Subject { interface: interface.to_owned(), serving }) })
    }

    /// What is to be waited for, each by its number.
    pub fn doors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.doors.iter().map(|door| match door {
            Door::Tcp(door) => door.as_fd(),
            Door::Unix(door) => door.as_fd(),
        })
    }

    /// Lets in whoever waits at the door of this number.
    pub fn accept(&self, door: usize) {
        let Some(door) = self.doors.get(door) else { return };
        loop {
            let accepted = match door {
                Door::Tcp(door) => door.accept().map(|(stream, _)| self.admit(Tcp(stream))),
                Door::Unix(door) => door.accept().map(|stream| self.admit(Unix(stream))),
            };
            match accepted {
                Ok(()) => (),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    log::debug!("a client of the metrics cannot be accepted: {error}");
                    // As long as there is no descriptor left this would be tried again and again.
                    return thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn admit(&self, stream: impl Stream) {
        let Some(place) = Serving::take(&self.subject) else {
            return log::debug!("a client of the metrics was turned away: there are {CONNECTIONS} already");
        };
        let serving = thread::Builder::new().name("metrics".into()).stack_size(STACK).spawn(move || {
            if let Err(error) = place.0.serve(stream) {
                log::debug!("a client of the metrics has gone: {error}");
            }
            drop(place);
        });
        if let Err(error) = serving {
            log::debug!("a client of the metrics cannot be served: {error}");
        }
    }
}

/// Makes a folder, and sees that nobody else may write to it: who could, could also have us remove or open another's files.
fn private_folder(folder: &Path) -> Result<(), MetricsError> {
    let failed = |error| MetricsError::Folder(folder.to_owned(), error);
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(failed)?;
    let meta = std::fs::metadata(folder).map_err(failed)?;
    let is_ours = meta.uid() == 0 || meta.uid() == rustix::process::geteuid().as_raw();
    if is_ours && meta.mode() & 0o022 == 0 { Ok(()) } else { Err(MetricsError::Shared(folder.to_owned())) }
}

/// Whether an address is none of this host's, or of no family that it has.
fn is_missing(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// One of the places for connections, given back on drop.
struct Serving(Arc<Subject>);

impl Serving {
    fn take(subject: &Arc<Subject>) -> Option<Serving> {
        if subject.serving.fetch_add(1, Ordering::AcqRel) < CONNECTIONS {
            return Some(Serving(subject.clone()));
        }
        subject.serving.fetch_sub(1, Ordering::AcqRel);
        None
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.serving.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Subject {
    fn serve(&self, stream: impl Stream) -> io::Result<()> {
        let mut timed = Timed { stream, until: Instant::now() + REQUEST };
        let request = http::read(&mut timed)?;
        timed.until = Instant::now() + ANSWER;
        match request {
            Ok(request) => self.answer(&mut timed, &request)?,
            Err(status) => {
                http::refuse(&mut timed, status, "this server tells metrics: GET /metrics")?;
            }
        }
        timed.stream.end();
        Ok(())
    }

    fn answer(&self, mut stream: &mut impl Write, request: &Request) -> io::Result<()> {
        if request.path != "/metrics" {
            return http::refuse(&mut stream, Status::NotFound, "expected /metrics");
        }
        let seen = match Seen::ask(&self.interface) {
            Ok(seen) => seen,
            Err(error) => return http::refuse(&mut stream, Status::Unavailable, &error.to_string()),
        };
        let mdlayher = request.query.split('&').any(|word| word == "names=mdlayher");
        let body = http::answer(stream, request, text::CONTENT_TYPE)?;
        Exposition::write(body, &seen, mdlayher)?.finish()
    }
}

/// A connection, of either kind.
trait Stream: Read + Write + Send + 'static {
    fn patience(&self, left: Duration) -> io::Result<()>;
    fn end(&self);
}

struct Tcp(TcpStream);
struct Unix(UnixStream);

macro_rules! stream {
    ($kind:ty) => {
        impl Read for $kind {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                self.0.read(out)
            }
        }
        impl Write for $kind {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        impl Stream for $kind {
            fn patience(&self, left: Duration) -> io::Result<()> {
                self.0.set_read_timeout(Some(left))?;
                self.0.set_write_timeout(Some(left))
            }
            /// Says that this is all. What the client still sends is taken for a moment: closed on it, it would lose the answer.
            fn end(&self) {
                let _ = self.0.shutdown(Shutdown::Write);
                let _ = self.patience(Duration::from_millis(200));
                let mut stream = &self.0;
                for _ in 0..16 {
                    if !matches!(stream.read(&mut [0; 4096]), Ok(1..)) {
                        break;
                    }
                }
            }
        }
    };
}
stream!(Tcp);
stream!(Unix);

/// A connection on which everything has to be done by a certain time, however little is missing each time.
struct Timed<S> {
    stream: S,
    until: Instant,
}

impl<S: Stream> Timed<S> {
    fn hurry(&self) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.patience(left)
    }
}

impl<S: Stream> Read for Timed<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.hurry()?;
        self.stream.read(out)
    }
}

impl<S: Stream> Write for Timed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hurry()?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

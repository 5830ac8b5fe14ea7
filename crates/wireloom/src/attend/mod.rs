//! The attendant: a process beside an interface, for what the interface itself should not do.
//!
//! Some duties of a tunnel need name servers, a message bus or clients that are not to be trusted. None of that belongs into the
//! process that has the keys, nor into the kernel. So there is at most one process for each interface, `wl-attendant`, that holds no
//! private key, has no privilege but those that its duties take, and ends when the interface does. Where nothing is asked for, nothing runs.
//!
//! [`start`] is what `run` and `up` call: it starts this program anew as `wireloom attend IFACE --duties`, tells it its [`Duties`] by standard
//! input, and returns once they are taken up, or tells why they cannot be. An attendant that is there already makes room for the new one,
//! which is also how its duties change. [`process`] is the life of that process, an event loop; each duty is a module beside it.

mod names;
mod process;
mod pursuit;
mod scrapes;
mod sleep;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use linux::process::DaemoniseError;
use linux::unix::{self, ListenError, Listener};
use serde::{Deserialize, Serialize};

use config::file;
use config::key;
use config::quick;
use config::value::HostPort;

use sleep::NoLogind;

use crate::error::Error;
use crate::interface::InterfaceName;
use crate::metrics::{MetricsError, Place};
use crate::resolve::SystemServices;
use crate::{conf, kernel};

/// Where the attendants' sockets are, and what else is ours to keep while an interface runs.
pub const FOLDER: &str = "/run/wireloom";

/// How long an attendant may take to make room for another, or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest that duties may be, in bytes: names for 100,000 peers are a tenth of it.
const LONGEST: u64 = 128 << 20;

/// What an attendant is to do. With nothing to do, there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duties {
    /// Peers whose endpoints have names, which are resolved again when handshakes fail.
    pub names: Vec<Name>,
    /// Whether session keys are wiped before the machine sleeps.
    pub wipe_on_suspend: bool,
    /// Where metrics are served.
    #[serde(default)]
    pub metrics: Vec<Place>,
}

/// Where a peer is, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// Who it is, in base64.
    pub public_key: String,
    /// The name.
    pub host: String,
    /// The UDP port.
    pub port: u16,
}

impl Duties {
    /// The peers of a file that have names.
    pub fn names(file: &file::File) -> Vec<Name> {
        let named = |peer: &file::FilePeer| {
            let HostPort { host, port } = peer.endpoint.clone()?;
            // With a zone it is an address, too.
            let address = host.split('%').next().unwrap_or_default().parse::<IpAddr>();
            address.is_err().then(|| Name {
                public_key: key::to_base64(&peer.public_key).as_str().to_owned(),
                host,
                port,
            })
        };
        file.peers.iter().filter_map(named).collect()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Duties::default()
    }
}

/// Which interface to attend to, and how.
#[derive(Args)]
pub struct AttendArgs {
    /// The interface
    pub interface: InterfaceName,
    /// A file of wg-quick or wg: names in its endpoints are resolved again when handshakes with their peers fail
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Wipe session keys before the machine sleeps: logind tells, and waits for it
    #[arg(long)]
    pub wipe_on_suspend: bool,
    /// Serve metrics for Prometheus, at a port of the loopback (9586), an address (192.0.2.1:9586) or a socket (unix:/PATH)
    #[arg(long, value_name = "PORT|ADDRESS|unix:PATH")]
    pub metrics: Vec<Place>,
    /// Read the duties from standard input
    #[arg(long, hide = true)]
    pub duties: bool,
}

/// Why an interface cannot be attended to.
#[derive(Debug, thiserror::Error)]
pub enum AttendError {
    /// The process could not be started.
    #[error("cannot start the attendant: {0}")]
    Start(io::Error),
    /// The process could not take up its duties, and said why.
    #[error("{0}")]
    Refused(String),
    /// The process could not go to the background.
    #[error("{0}")]
    Daemonise(#[from] DaemoniseError),
    /// What it is to do makes no sense.
    #[error("the attendant's duties cannot be read: {0}")]
    Duties(#[from] serde_json::Error),
    /// The metrics cannot be served.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A peer's key is not one.
    #[error("the attendant's duties have a key that is not one")]
    Key,
    /// Nobody tells when the machine sleeps.
    #[error(
        "--wipe-on-suspend takes systemd-logind or elogind, which cannot be asked ({0}); expected it on the system bus, or else no such option and \
         a script that sets the interface down before the machine sleeps, which wipes the keys as well"
    )]
    NoLogind(#[from] NoLogind),
    /// The device is another program's.
    #[error(
        "'{0}' is run by a program that does not wipe its keys when asked to, expected an interface of `wireloom run`"
    )]
    CannotWipe(String),
    /// The one that is there does not go.
    #[error("the attendant of '{0}' does not make room for another: end the process wl-attendant")]
    Stuck(String),
    /// There is no such interface.
    #[error("there is no interface '{0}' to attend to")]
    NoInterface(String),
    /// It is another kind of interface.
    #[error("interface '{0}' is not WireGuard's, expected one that `wireloom show interfaces` lists")]
    NotOurs(String),
    /// Who calls may not keep anything in the folder.
    #[error("this takes root, expected `sudo wireloom attend {0} …`")]
    NotRoot(String),
    /// Its socket could not be made.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A system call failed.
    #[error("{what}: {source}")]
    Os {
        /// What was attempted.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

fn os(what: &'static str) -> impl FnOnce(io::Error) -> AttendError {
    move |source| AttendError::Os { what, source }
}

/// `wireloom attend`.
///
/// # Errors
/// Why the interface is not attended to.
pub fn attend(args: &AttendArgs) -> Result<(), Error> {
    if args.duties {
        let mut text = Vec::new();
        io::stdin().take(LONGEST).read_to_end(&mut text).map_err(os("reading the duties"))?;
        let duties = serde_json::from_slice(&text).map_err(AttendError::Duties)?;
        return Ok(process::run(args.interface.as_str(), duties)?);
    }
    let mut duties = Duties { names: Vec::new(), wipe_on_suspend: args.wipe_on_suspend, metrics: args.metrics.clone() };
    if let Some(path) = &args.file {
        // What else it holds ends with this process, before there is another.
        let text = conf::read(path)?;
        let located =
            |error: file::FileError| Error::File { path: path.clone(), line: error.line, problem: error.problem };
        duties.names = Duties::names(&quick::parse(&text, &SystemServices, &AnyTable).map_err(located)?.device);
        if duties.names.is_empty() {
            eprintln!("wireloom: {}: no endpoint has a name, so there is none to resolve again", path.display());
        }
    }
    Ok(start(args.interface.as_str(), &duties)?)
}

/// Routes are not the attendant's, and neither is what their tables are called.
struct AnyTable;

impl quick::Tables for AnyTable {
    fn number(&self, _: &str) -> Option<u32> {
        Some(0)
    }
}

/// Starts the attendant of an interface that is there, in place of the one that it has; without duties, none. Returns when the
/// duties have been taken up.
///
/// # Errors
/// Why not: the process has told, or could not be started.
pub fn start(interface: &str, duties: &Duties) -> Result<(), AttendError> {
    let mut duties = duties.clone();
    let is_kernels = !duties.is_empty() && !unix::socket_path(interface).exists();
    if is_kernels {
        let kernels = kernel::interfaces().map_err(os("asking the kernel for its interfaces"))?;
        if !kernels.iter().any(|name| name == interface) {
            let is_there = Path::new("/sys/class/net").join(interface).exists();
            let error = if is_there { AttendError::NotOurs } else { AttendError::NoInterface };
            return Err(error(interface.to_owned()));
        }
    }
    if is_kernels && duties.wipe_on_suspend {
        eprintln!("wireloom: '{interface}' is the kernel's, which wipes session keys before suspend by itself");
        duties.wipe_on_suspend = false;
    }
    if duties.is_empty() {
        return end(interface);
    }
    let text = serde_json::to_vec(&duties)?;
    // Its standard output is where it is to write its log; standard error is ours until it is ready.
    let log = if crate::run::wants_log() { to_our_stderr() } else { Stdio::null() };
    let mut child = Command::new("/proc/self/exe")
        .arg0("wireloom")
        .args(["attend", interface, "--duties"])
        .env_remove("WG_TUN_FD")
        .env_remove("WG_UAPI_FD")
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(AttendError::Start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // If it does not read them it has something to say.
        let _ = stdin.write_all(&text);
    }
    let output = child.wait_with_output().map_err(AttendError::Start)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    Err(match said.strip_prefix("wireloom: ").unwrap_or(said) {
        "" => AttendError::Start(io::Error::other(format!("it ended with {}", output.status))),
        said => AttendError::Refused(said.to_owned()),
    })
}

/// Ends the attendant of an interface, if it has one. Of one that was killed the socket is left, and goes.
///
/// # Errors
/// It does not end.
pub fn end(interface: &str) -> Result<(), AttendError> {
    let mut stream = match UnixStream::connect(socket(interface)) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Ok(unix::remove_dead(&socket(interface))?);
        }
        Err(_) => return Ok(()),
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(os("waiting for the attendant"))?;
    // It says nothing, and hangs up when it has gone.
    match stream.read(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(AttendError::Stuck(interface.to_owned())),
        _ => Ok(()),
    }
}

/// The place of the one attendant that an interface has.
fn take_place(interface: &str) -> Result<Listener, AttendError> {
    if !Path::new(FOLDER).is_dir() {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(FOLDER);
        made.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => AttendError::NotRoot(interface.to_owned()),
            _ => AttendError::Os { what: "making the folder /run/wireloom", source },
        })?;
    }
    let start = Instant::now();
    loop {
        end(interface)?;
        match Listener::bind(&socket(interface)) {
            // Its process has hung up, and is about to remove the file; or another one is quicker.
            Err(ListenError::InUse(_)) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
            Err(ListenError::Os { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                return Err(AttendError::NotRoot(interface.to_owned()));
            }
            result => return Ok(result?),
        }
    }
}

fn socket(interface: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{interface}.attendant"))
}

/// A duplicate of standard error.
fn to_our_stderr() -> Stdio {
    let ours = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3);
    ours.map_or_else(|_| Stdio::null(), |fd| File::from(fd).into())
}

//! The helper that the lab runs inside its namespaces: checked TCP and UDP and UDP in batches (see [`crate::traffic`]), crowds
//! of peers ([`crate::crowd`]), and floods ([`crate::flood`]).
//!
//! It is a program of its own where the workspace is built. Elsewhere a program that has the lab in it is the helper too, when it is called by
//! [`NAME`]: [`Link`] makes such a name for it.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crate::LabError;
use crate::crowd::{self, MEMBERS_MAX, Role};
use crate::flood;
use crate::namespace::scratch_folder;
use crate::traffic::blast::{self, BlastPlan};
use crate::traffic::{UdpPlan, tcp, udp};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use noise::PublicKey;
use signal_hook::consts::SIGUSR1;
use tempfile::TempDir;

/// What [`Link`] made.
static LINKED: OnceLock<PathBuf> = OnceLock::new();

/// A name for this program by which it is the helper, in a folder that goes with it.
#[derive(Debug)]
pub struct Link(TempDir);

impl Link {
    /// From here on, the lab's helper is this program, which has to call [`main`] when it is called by [`NAME`].
    ///
    /// # Errors
    /// The link cannot be made.
    pub fn new() -> Result<Link, LabError> {
        let this = std::env::current_exe().map_err(LabError::io("the path of this program"))?;
        let folder = scratch_folder("a folder for the lab's helper")?;
        let path = folder.path().join(NAME);
        symlink(this, &path).map_err(LabError::io(path.display().to_string()))?;
        // A second one in a process would be the same program.
        let _ = LINKED.set(path);
        Ok(Link(folder))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }
}

/// The helper that is linked to, if there is one.
pub(crate) fn linked() -> Option<PathBuf> {
    LINKED.get().filter(|path| path.exists()).cloned()
}

/// Checked traffic between two namespaces of the lab.
#[derive(Parser)]
#[command(name = NAME)]
enum Arguments {
    /// Answer TCP and UDP on a port, until ended.
    Serve {
        /// The port.
        port: u16,
    },
    /// Send bytes to the service and take as many back, all of them checked.
    Tcp {
        /// The service.
        to: SocketAddr,
        /// How many.
        bytes: u64,
    },
    /// The same on one connection again and again, until SIGUSR1. Prints a line after each round.
    Converse {
        /// The service.
        to: SocketAddr,
        /// How many bytes a round has, each way.
        bytes: u64,
        /// Microseconds between two rounds.
        pause: u64,
    },
    /// Send numbered datagrams to the service, all or until SIGUSR1, and print what came of them as JSON.
    Udp {
        /// The service.
        to: SocketAddr,
        /// Flows.
        flows: u32,
        /// Datagrams per flow.
        count: u64,
        /// Bytes per datagram.
        size: usize,
        /// Microseconds between two of a flow.
        gap: u64,
        /// Whether the service sends them back.
        #[arg(action = clap::ArgAction::Set)]
        echo: bool,
    },
    /// Count the numbered datagrams of one `blast` and print what came of them as JSON.
    Receive {
        /// The port, and the family by its address.
        at: SocketAddr,
    },
    /// Send numbered datagrams, many in a system call, to a `receive` and print how many as JSON.
    Blast {
        /// Where it is.
        to: SocketAddr,
        /// Bytes per datagram.
        size: usize,
        /// Microseconds.
        time: u64,
        /// Datagrams a second; as many as possible otherwise.
        rate: Option<u64>,
    },
    /// Be many peers of one daemon and print what came of it as JSON.
    Crowd {
        /// Where the daemon is.
        daemon: SocketAddr,
        /// Its public key, base64.
        key: String,
        /// How many peers.
        #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MEMBERS_MAX)))]
        members: u32,
        /// Who begins.
        #[arg(value_parser = Role::ALL.map(Role::word))]
        role: String,
        /// Seconds until it ends, whatever has come of it.
        limit: u64,
    },
    /// Ask a daemon of ours something that `wg` does not, and print the answer.
    Ask {
        /// Its control socket.
        socket: PathBuf,
        /// What, such as `stats`.
        what: String,
    },
    /// Flood a daemon, and print how many datagrams that took.
    Flood {
        /// With what.
        kind: flood::Kind,
        /// Where it is.
        to: SocketAddr,
        /// Its public key, base64.
        key: String,
        /// The port of its host that is flooded, be it the daemon's or not.
        at: u16,
        /// Datagrams a second, at most.
        rate: u32,
        /// Seconds.
        seconds: u32,
    },
}

/// What the helper is called by.
pub const NAME: &str = "lab-traffic";

/// All of the helper: does what the arguments of this process say.
pub fn main() -> ExitCode {
    match act(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-traffic: {error}");
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: Arguments) -> io::Result<()> {
    match arguments {
        Arguments::Ask { socket, what } => crate::ask(&socket, &what).map(|answer| print!("{answer}")),
        Arguments::Serve { port } => serve(port),
        Arguments::Tcp { to, bytes } => tcp::exchange(to, bytes),
        Arguments::Converse { to, bytes, pause } => {
            let enough = Arc::default();
            signal_hook::flag::register(SIGUSR1, Arc::clone(&enough))?;
            let told = |round| writeln!(io::stdout(), "{round}");
            tcp::converse(to, bytes, Duration::from_micros(pause), &enough, told)
        }
        Arguments::Udp { to, flows, count, size, gap, echo } => {
            let plan = UdpPlan { flows, count, size, gap: Duration::from_micros(gap), echo };
            let enough = Arc::default();
            signal_hook::flag::register(SIGUSR1, Arc::clone(&enough))?;
            let outcome = udp::exchange(to, &plan, &enough)?;
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(())
        }
        Arguments::Receive { at } => {
            let arrived = blast::receive(at, || println!("ready"))?;
            println!("{}", serde_json::to_string(&arrived)?);
            Ok(())
        }
        Arguments::Blast { to, size, time, rate } => {
            let plan = BlastPlan { size, rate, time: Duration::from_micros(time) };
            blast::send(to, &plan, |sent| println!("{}", serde_json::to_string(&sent).unwrap_or_default()))
        }
        Arguments::Crowd { daemon, key, members, role, limit } => {
            let key = STANDARD.decode(&key).ok().and_then(|key| <[u8; 32]>::try_from(key).ok());
            let key = PublicKey::from_bytes(key.ok_or_else(|| io::Error::other("the key is not one"))?);
            let role = Role::ALL.into_iter().find(|it| it.word() == role).unwrap_or(Role::Respond);
            let ready = || println!("ready");
            let outcome = crowd::members::run(daemon, key, members, role, Duration::from_secs(limit), ready)?;
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(())
        }
        Arguments::Flood { kind, to, key, at, rate, seconds } => {
            println!("{}", flood::run(kind, to, &key, at, rate, seconds)?);
            Ok(())
        }
    }
}

fn serve(port: u16) -> io::Result<()> {
    // Both families: Linux lets an IPv6 wildcard socket take IPv4 as well.
    let listener = TcpListener::bind(("::", port))?;
    let socket = UdpSocket::bind(("::", port))?;
    println!("ready");
    thread::spawn(move || {
        if let Err(error) = udp::serve(&socket) {
            eprintln!("udp: {error}");
        }
    });
    tcp::serve(&listener)
}

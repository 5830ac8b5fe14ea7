//! The first step: the interface is there, and gone again.
//!
//! It is made in the namespace in which the command was given, since its sockets stay where it was born, and then moved into the one
//! that it is for; from there on the thread is in that one, too. The kernel's is made by rtnetlink. Ours is a daemon that goes to the
//! background once it is ready, and ends when its interface is deleted or its socket is.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use linux::rt::{Rt, RtError};
use linux::{netns, unix};
use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::step::Stage;

/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";

/// How long a daemon may take to end once its interface is gone. It is long because it wipes a hundred thousand peers.
const PATIENCE: Duration = Duration::from_secs(20);

/// The interface.
#[derive(Debug, Serialize, Deserialize)]
pub struct Link {
    /// Its name.
    pub interface: String,
    /// What moves its packets.
    pub engine: Engine,
    /// The namespace that it is put into, as `ip netns` names it.
    pub netns: Option<String>,
    /// Whether it has been made by this step.
    pub made: bool,
    /// Who starts the daemon, where it is not to be in the background.
    #[serde(skip)]
    pub starter: Option<Starter>,
}

/// Starts a daemon that is ready when it returns, and puts its interface into a namespace.
#[derive(Clone)]
pub struct Starter(Arc<Start>);

type Start = dyn Fn(Engine, Option<&str>) -> io::Result<()> + Send + Sync;

impl Starter {
    /// One that does it so.
    pub fn new(start: impl Fn(Engine, Option<&str>) -> io::Result<()> + Send + Sync + 'static) -> Starter {
        Starter(Arc::new(start))
    }
}

impl fmt::Debug for Starter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Starter")
    }
}

/// Why there is no interface, or still one.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum LinkError {
    #[error(transparent)]
    Rt(#[from] RtError),
    #[error("cannot start the daemon: {0}")]
    Start(io::Error),
    #[error("the daemon did not start ({0})")]
    Daemon(ExitStatus),
    #[error("the network namespace '{netns}' cannot be entered: {source}")]
    Netns { netns: String, source: io::Error },
    #[error("the interface has gone again at once")]
    Gone,
    #[error("the daemon has not ended within {} seconds", PATIENCE.as_secs())]
    Lives,
    #[error("cannot remove its socket: {0}")]
    Socket(io::Error),
}

/// Opens a namespace by its name.
pub fn open_netns(name: &str) -> io::Result<OwnedFd> {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(File::open(Path::new(NAMESPACES).join(name))?.into())
}

impl Link {
    /// One that is not there yet.
    pub fn new(interface: &str, engine: Engine, netns: Option<&str>) -> Link {
        Link { interface: interface.to_owned(), engine, netns: netns.map(str::to_owned), made: false, starter: None }
    }

    pub fn describe(&self) -> Vec<String> {
        let Link { interface, engine, netns, .. } = self;
        match (engine, netns) {
            (Engine::Kernel, None) => vec![format!("ip link add {interface} type wireguard")],
            (Engine::Kernel, Some(netns)) => {
                vec![
                    format!("ip link add {interface} type wireguard"),
                    format!("ip link set {interface} netns {netns}"),
                ]
            }
            (engine, netns) => {
                let engine = if *engine == Engine::Ebpf { "--engine ebpf " } else { "" };
                let netns = netns.as_ref().map(|netns| format!("--netns {netns} ")).unwrap_or_default();
                vec![format!("wireloom run {engine}{netns}{interface}")]
            }
        }
    }

    pub fn apply(&mut self) -> Result<(), LinkError> {
        let place =
            self.netns.as_ref().map(|netns| open_netns(netns)).transpose().map_err(|error| self.no_netns(error))?;
        match self.engine {
            Engine::Kernel => {
                let mut rt = Rt::open().map_err(RtError::Io)?;
                rt.add_link(&self.interface, "wireguard")?;
                self.made = true;
                if let Some(place) = &place {
                    let link = rt.link(&self.interface)?.ok_or(LinkError::Gone)?;
                    rt.move_link(link.index, place.as_fd())?;
                }
            }
            Engine::Userspace | Engine::Ebpf => {
                self.run()?;
                self.made = true;
            }
        }
        if let Some(place) = place {
            netns::enter(place.as_fd()).map_err(|error| self.no_netns(error))?;
        }
        Ok(())
    }

    /// Starts the daemon, and returns when it is ready.
    pub fn run(&self) -> Result<(), LinkError> {
        if let Some(Starter(start)) = &self.starter {
            return start(self.engine, self.netns.as_deref()).map_err(LinkError::Start);
        }
        self.start(|_| ())
    }

    /// Starts one in the place of one that has died, which lets no packet pass that the rules in the file `policy` do not. Fails where nothing was left.
    pub fn run_as_successor(&self, policy: Option<&Path>) -> Result<(), LinkError> {
        self.start(|command| {
            command.arg("--successor");
            command.args(policy.iter().flat_map(|file| [OsStr::new("--policy"), file.as_os_str()]));
        })
    }

    fn start(&self, more: impl FnOnce(&mut Command)) -> Result<(), LinkError> {
        let mut command = Command::new("/proc/self/exe");
        // By its own name it takes a command, whatever it was called here.
        command.arg0("wireloom").arg("run").args(self.engine.arguments());
        more(&mut command);
        if let Some(netns) = &self.netns {
            command.args(["--netns", netns]);
        }
        command.arg(&self.interface);
        for variable in ["WG_PROCESS_FOREGROUND", "WG_TUN_FD", "WG_UAPI_FD", "WIRELOOM_ENGINE"] {
            command.env_remove(variable);
        }
        let status = command.status().map_err(LinkError::Start)?;
        if status.success() { Ok(()) } else { Err(LinkError::Daemon(status)) }
    }

    /// Deletes it, wherever of the two places it is. One that somebody has moved elsewhere ends with its socket, if it is ours.
    pub fn undo(&self, stage: &Stage) -> Result<(), LinkError> {
        if !self.made {
            return Ok(());
        }
        let there = self.netns.as_ref().and_then(|netns| open_netns(netns).ok());
        let mut deleted = false;
        for place in there.iter().chain([&stage.home]) {
            // What has the name at home may be another's.
            if !deleted {
                deleted = netns::run_in(place.as_fd(), || Ok(delete(&self.interface))).map_err(RtError::Io)??;
            }
        }
        if self.engine == Engine::Kernel {
            return Ok(());
        }
        let socket = unix::socket_path(&self.interface);
        if !deleted
            && let Err(error) = fs::remove_file(&socket)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(LinkError::Socket(error));
        }
        // Who comes next finds the name free, the port and the mark too.
        let start = Instant::now();
        while socket.exists() {
            if start.elapsed() > PATIENCE {
                return Err(LinkError::Lives);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn no_netns(&self, source: io::Error) -> LinkError {
        LinkError::Netns { netns: self.netns.clone().unwrap_or_default(), source }
    }
}

/// Deletes the interface where the calling thread is; whether there was one.
fn delete(interface: &str) -> Result<bool, RtError> {
    let mut rt = Rt::open()?;
    let Some(link) = rt.link(interface)? else { return Ok(false) };
    if !matches!(link.kind.as_deref(), Some("wireguard" | "tun")) {
        return Ok(false);
    }
    match rt.delete_link(link.index) {
        Err(error) if error.is_absent() => Ok(false),
        deleted => deleted.map(|()| true),
    }
}

//! The systems under test: implementations of WireGuard in user space, each started the way it wants to be.
//!
//! All of them take an interface name, make a TUN of that name in the namespace where they run, and listen for `wg` on
//! `/var/run/wireguard/NAME.sock`, a folder that all namespaces share.

use std::collections::BTreeMap;
use std::env;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Engine, LabError, Namespace, Process, taken, wait_for, wait_until, wg};

/// How long a daemon may take until its control socket answers.
const START_LIMIT: Duration = Duration::from_secs(15);

/// How long what a command has put into the background may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// An implementation of WireGuard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum System {
    /// Ours: the binary at this path, and what in it moves the packets.
    Wireloom(PathBuf, Engine),
    /// The `wireguard-go` of the distribution.
    WireguardGo,
    /// `boringtun-cli`, as `cargo xtask setup` installs it.
    Boringtun,
    /// `gotatun-cli`, likewise.
    Gotatun,
    /// Any other: its command, word by word, in which [`IFNAME`] stands for the interface's name. It may go to the background.
    Command(Vec<String>),
}

/// What stands for the name of the interface in a [`System::Command`].
pub const IFNAME: &str = "{ifname}";

impl System {
    /// Ours, where `WIRELOOM_BIN` says or else as the workspace built it.
    ///
    /// # Errors
    /// [`LabError::Missing`] when it is not built.
    pub fn wireloom() -> Result<System, LabError> {
        match env::var_os("WIRELOOM_BIN") {
            Some(path) => present(PathBuf::from(path), "WIRELOOM_BIN names it"),
            None => built_binary("wireloom"),
        }
        .map(|program| System::Wireloom(program, Engine::Userspace))
    }

    /// Ours with another engine; of another's nothing changes.
    pub fn with(self, engine: Engine) -> System {
        match self {
            System::Wireloom(program, _) => System::Wireloom(program, engine),
            other => other,
        }
    }

    /// Whether it is ours, whatever its engine.
    pub fn is_ours(&self) -> bool {
        matches!(self, System::Wireloom(..))
    }

    /// The others, in the order of our tables.
    pub fn peers() -> [System; 3] {
        [System::WireguardGo, System::Boringtun, System::Gotatun]
    }

    /// The name in tables and on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            System::Wireloom(_, Engine::Userspace) => "wireloom",
            System::Wireloom(_, Engine::Ebpf) => "wireloom, eBPF",
            System::WireguardGo => "wireguard-go",
            System::Boringtun => "boringtun",
            System::Gotatun => "gotatun",
            System::Command(_) => "another",
        }
    }

    /// Where its program is.
    ///
    /// # Errors
    /// [`LabError::Missing`] when it is not installed.
    pub fn program(&self) -> Result<PathBuf, LabError> {
        let installed = "`cargo xtask setup` installs it";
        match self {
            System::Wireloom(path, _) => present(path.clone(), "build it first"),
            System::WireguardGo => in_path("wireguard-go", installed),
            System::Command(words) => {
                let first = words.first().map_or("", String::as_str);
                let hint = "a command begins with a program that is here, by its path or in PATH";
                if first.contains('/') { present(first.into(), hint) } else { in_path(first, hint) }
            }
            System::Boringtun => present(peers_folder().join("bin/boringtun-cli"), installed),
            System::Gotatun => present(peers_folder().join("bin/gotatun"), installed),
        }
    }

    /// What it says of its version, in one line; of a command, the command.
    ///
    /// # Errors
    /// It is missing or does not answer.
    pub fn version(&self) -> Result<String, LabError> {
        if let System::Command(words) = self {
            return Ok(words.join(" "));
        }
        let mut command = Command::new(self.program()?);
        let finished = crate::run(command.arg("--version"), Duration::from_secs(10))?;
        let first = finished.log().lines().next().unwrap_or_default().to_owned();
        Ok(first)
    }

    /// The command that runs it in `namespace` with an interface called `interface`, in the foreground where we have a say.
    ///
    /// # Errors
    /// [`LabError::Missing`] when it is not installed.
    pub fn command(&self, namespace: &Namespace, interface: &str) -> Result<Command, LabError> {
        let mut command = namespace.command(self.program()?);
        match self {
            System::Wireloom(_, engine) => command.arg("run").args(engine.arguments()).args(["-f", interface]),
            System::WireguardGo => command.args(["-f", interface]),
            // Both drop privileges by the name of the login, which a machine without one does not have.
            System::Boringtun | System::Gotatun => command.args(["-f", "--disable-drop-privileges", interface]),
            System::Command(words) => command.args(words.iter().skip(1).map(|word| word.replace(IFNAME, interface))),
        };
        Ok(command)
    }

    /// Starts it and waits until it answers on its control socket.
    ///
    /// # Errors
    /// It is missing, ended early, or took too long.
    pub fn start(&self, namespace: &Namespace) -> Result<Daemon, LabError> {
        self.start_with(namespace, |_| {})
    }

    /// The same with a say in its command: more arguments, or its environment.
    ///
    /// # Errors
    /// As [`System::start`].
    pub fn start_with(&self, namespace: &Namespace, adjust: impl FnOnce(&mut Command)) -> Result<Daemon, LabError> {
        let interface = unique_interface();
        let mut command = self.command(namespace, &interface)?;
        adjust(&mut command);
        match self {
            System::Command(_) => Daemon::start_any(&mut command, namespace, &interface),
            System::Wireloom(_, engine) => {
                let mut daemon = Daemon::start(&mut command, namespace, &interface)?;
                daemon.engine = *engine;
                Ok(daemon)
            }
            _ => Daemon::start(&mut command, namespace, &interface),
        }
    }
}

/// A running implementation of WireGuard. Dropping it ends it and takes away what it may have left.
pub struct Daemon {
    /// The interface's name, unique on this machine.
    pub interface: String,
    /// Where it was started.
    pub namespace: Namespace,
    /// Its process, or what put it into the background.
    pub process: Process,
    /// What moves its packets, if it is ours.
    pub engine: Engine,
    /// What else runs of it, as far as its drop has to see to that.
    others: Vec<u32>,
}

impl Daemon {
    /// Starts `command`, which runs a daemon for `interface` in the foreground, and waits until it answers on its socket.
    ///
    /// # Errors
    /// As [`System::start`].
    pub fn start(command: &mut Command, namespace: &Namespace, interface: &str) -> Result<Daemon, LabError> {
        let mut daemon = Daemon::spawn(command, namespace, interface)?;
        daemon.wait_until_it_answers()?;
        Ok(daemon)
    }

    /// Starts a command that runs a daemon for `interface` in the foreground or in the background, perhaps from a script, and waits until
    /// there is such an interface and a socket that answers.
    ///
    /// # Errors
    /// As [`System::start`].
    fn start_any(command: &mut Command, namespace: &Namespace, interface: &str) -> Result<Daemon, LabError> {
        let before = namespace.pids();
        let mut daemon = Daemon::spawn(command, namespace, interface)?;
        let name = daemon.process.name();
        let what =
            format!("`{name}` to make the interface {interface} and answer on {}", socket_path(interface).display());
        let ready = wait_for(&what, START_LIMIT, || {
            let ended = daemon.process.status();
            if UnixStream::connect(socket_path(interface)).is_ok()
                && namespace.ip(&["link", "show", "dev", interface]).is_ok()
            {
                return Ok(Some(()));
            }
            match ended {
                // It may have gone to the background; but somebody has to be there.
                Some(status) if !status.success() || namespace.pids().iter().all(|pid| before.contains(pid)) => {
                    Err(daemon.process.died(status))
                }
                _ => Ok(None),
            }
        });
        // Of one that is not ready, too, everything has to go.
        daemon.others = namespace.pids();
        daemon.others.retain(|pid| *pid != daemon.process.id() && !before.contains(pid));
        ready.map(|()| daemon)
    }

    fn spawn(command: &mut Command, namespace: &Namespace, interface: &str) -> Result<Daemon, LabError> {
        let process = Process::spawn(command)?;
        Ok(Daemon {
            interface: interface.to_owned(),
            namespace: namespace.clone(),
            process,
            engine: Engine::default(),
            others: Vec::new(),
        })
    }

    /// Kills it where it stands, and after a pause starts `command` in its place, which runs a daemon for the same interface in the foreground;
    /// waits until that answers on its socket, and tells for how long there was none.
    ///
    /// # Errors
    /// As [`System::start`].
    pub fn replace_after_a_crash(&mut self, pause: Duration, command: &mut Command) -> Result<Duration, LabError> {
        let began = Instant::now();
        self.process.signal(Signal::KILL);
        // It has no say in it, but the kernel takes its threads apart one by one, on a machine that does much else.
        self.process.wait(START_LIMIT)?;
        std::thread::sleep(pause);
        self.process = Process::spawn(command)?;
        self.wait_until_it_answers()?;
        Ok(began.elapsed())
    }

    fn wait_until_it_answers(&mut self) -> Result<(), LabError> {
        let what = format!("`{}` to answer on its socket", self.process.name());
        wait_for(&what, START_LIMIT, || {
            if let Some(status) = self.process.status() {
                return Err(self.process.died(status));
            }
            Ok(UnixStream::connect(socket_path(&self.interface)).ok().map(drop))
        })
    }

    /// Ends what runs of it besides its process: asks, waits a while, and leaves the rest to whoever deletes the namespace.
    fn stop_others(&self) {
        // Looked up anew: a number that has become somebody else's is not in this namespace.
        let alive = || self.namespace.pids().into_iter().filter(|pid| self.others.contains(pid)).collect::<Vec<_>>();
        if self.others.is_empty() {
            return;
        }
        for pid in alive() {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                // A failure means that it has ended by itself.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let _ = wait_until("all of it to end", STOP_LIMIT, || alive().is_empty());
    }

    /// What `wg` knows of it.
    ///
    /// # Errors
    /// What `wg` said.
    pub fn status(&self) -> Result<wg::Status, LabError> {
        wg::status(&self.interface)
    }

    /// What ours has dropped since its start, by reason; `wg` does not ask for it.
    ///
    /// # Errors
    /// It does not answer, or not so.
    pub fn drops(&self) -> Result<BTreeMap<String, u64>, LabError> {
        self.counts("drops", "drop_")
    }

    /// What has become of packets in the programs of ours, by outcome; nothing if there are none.
    ///
    /// # Errors
    /// It does not answer, or not so.
    pub fn programs(&self) -> Result<BTreeMap<String, u64>, LabError> {
        self.counts("stats", "program_")
    }

    /// Those lines of its answer to `get=WHAT` that begin so.
    fn counts(&self, what: &'static str, prefix: &str) -> Result<BTreeMap<String, u64>, LabError> {
        let text = self.ask(what)?;
        let counts = text.lines().filter_map(|line| line.strip_prefix(prefix)?.split_once('='));
        let counts: Option<_> = counts.map(|(name, count)| Some((name.to_owned(), count.parse().ok()?))).collect();
        counts.ok_or(LabError::Unreadable { what, text })
    }

    /// The packets that programs in the kernel have sent and received in place of ours, since its start.
    ///
    /// # Errors
    /// It does not answer, or has no programs.
    pub fn taken(&self) -> Result<(u64, u64), LabError> {
        taken::read(self.ask("stats")?)
    }

    /// The packets that the threads of ours have sent and received since its start.
    ///
    /// # Errors
    /// It does not answer, or not so.
    pub fn taken_by_threads(&self) -> Result<u64, LabError> {
        let text = self.ask("stats")?;
        let count = |line: &str| -> Option<u64> {
            line.strip_prefix("tx_packets=").or(line.strip_prefix("rx_packets="))?.parse().ok()
        };
        match text.contains("\nworker=") || text.starts_with("worker=") {
            true => Ok(text.lines().filter_map(count).sum()),
            false => Err(LabError::Unreadable { what: "the packets of threads", text }),
        }
    }

    /// What its socket answers to `get=WHAT`.
    fn ask(&self, what: &str) -> Result<String, LabError> {
        ask(&socket_path(&self.interface), what).map_err(LabError::io(format!("asking for {what}")))
    }

    /// Configures it by `wg set`.
    ///
    /// # Errors
    /// What `wg` said.
    pub fn set(&self, args: &[&str]) -> Result<(), LabError> {
        wg::set(&self.interface, args)
    }

    /// Brings the interface up.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn up(&self) -> Result<(), LabError> {
        self.namespace.ip(&["link", "set", "dev", &self.interface, "up"]).map(drop)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.engine == Engine::Ebpf
            && let Ok((sent, received)) = self.taken()
        {
            taken::add(sent + received);
        }
        self.process.stop();
        self.stop_others();
        let _ = std::fs::remove_file(socket_path(&self.interface));
        // A panicking test is about to print why; what the daemon had to say belongs next to it.
        let log = self.process.log();
        if std::thread::panicking() && !log.trim().is_empty() {
            eprintln!("--- {} ---\n{}", self.process.name(), log.trim());
        }
    }
}

/// What a control socket answers to `get=WHAT`.
///
/// # Errors
/// Nobody is there, or does not answer in time.
pub fn ask(socket: &Path, what: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(START_LIMIT))?;
    stream.write_all(format!("get={what}\n\n").as_bytes())?;
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(len) => text.push_str(&String::from_utf8_lossy(&piece[..len])),
            // With a limit a wait is not taken up again by itself.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}

/// The control socket of an interface.
pub fn socket_path(interface: &str) -> PathBuf {
    Path::new("/var/run/wireguard").join(format!("{interface}.sock"))
}

/// An interface name that nobody else on this machine has.
pub fn unique_interface() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("wl{}x{n}", std::process::id())
}

/// Where `cargo xtask setup` keeps the peers that it builds: `WIRELOOM_PEERS`, or a folder of the user's cache.
pub fn peers_folder() -> PathBuf {
    if let Some(folder) = env::var_os("WIRELOOM_PEERS") {
        return PathBuf::from(folder);
    }
    cache_folder().join("peers")
}

/// What setup keeps in the user's home.
pub(crate) fn cache_folder() -> PathBuf {
    let cache = match env::var_os("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache"),
    };
    cache.join("wireloom")
}

/// A binary of the workspace, next to the running one (tests run one folder further down).
///
/// # Errors
/// [`LabError::Missing`] when it is not built.
pub fn built_binary(name: &str) -> Result<PathBuf, LabError> {
    let this = env::current_exe().map_err(LabError::io("the path of this program"))?;
    let mut folder = this.parent().unwrap_or(Path::new("/"));
    if folder.ends_with("deps") {
        folder = folder.parent().unwrap_or(folder);
    }
    present(folder.join(name), "`cargo build` makes it, or WIRELOOM_BIN may name it")
}

fn in_path(name: &str, hint: &'static str) -> Result<PathBuf, LabError> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or(LabError::Missing { program: name.to_owned(), hint })
}

fn present(path: PathBuf, hint: &'static str) -> Result<PathBuf, LabError> {
    if path.is_file() { Ok(path) } else { Err(LabError::Missing { program: path.display().to_string(), hint }) }
}

//! `wireloom run`: an interface, from its creation to its end.
//!
//! The order matters: into the background first, while there is one thread; then everything that can be refused (the
//! device, the socket, the workers); and only when all of it stands does the foreground process end. It behaves as wireguard-go does:
//! the same environment, the same socket, the same reasons to end.

use std::env;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use config::policy::Rule;
use control::{Device, DeviceConfig, DeviceError, Driver, DriverError, End, uapi::Server};
use ebpf::{Capacity, Hooks, Left, Loaded};
use linux::capabilities::{self, CapabilitySet};
use linux::heir::{self, Heritage};
use linux::link::{Monitor, spread_flows};
use linux::poll::{Signal, SignalFd};
use linux::process::{self, DaemoniseError, Output, Readiness};
use linux::rt::{Rt, RtError};
use linux::sandbox::{self, Role};
use linux::tun::{self, Offloads, Tun, TunError};
use linux::unix::{self, DeletionWatch, ListenError, Listener, Stays};
use linux::{manager, memory, netns, steward};
use log::LevelFilter;
use plane::DataPlane;
use plane::userspace::{Helping, PlaneError, Userspace, UserspaceConfig};

use crate::attend::{self, AttendError, Duties};
use crate::interface::InterfaceName;
use crate::metrics::Place;
use crate::policy;
use crate::quick::open_netns;

/// The MTU of an interface that we make, in bytes: 1500 less IPv6, UDP and what WireGuard adds, as the kernel's WireGuard has it.
const MTU: u32 = 1420;

/// Packets that wait in an interface where nothing else bounds them: some milliseconds of super-packets.
const UNBOUNDED_PACKETS: u32 = 128;

/// The most that can be asked for, in microseconds.
const BUSY_POLL_MAX: u64 = 10_000;

/// How long the socket of a daemon that is about to end is waited for.
const SOCKET_WAIT: Duration = Duration::from_secs(2);

/// What moves the packets of an interface that a daemon of ours runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// The daemon itself
    Userspace,
    /// Programs in the kernel, and the daemon for what they leave to it
    Ebpf,
}

/// How to run an interface.
#[derive(Args)]
pub struct RunArgs {
    /// What moves the packets; userspace, if neither this nor WIRELOOM_ENGINE says
    #[arg(long, value_enum)]
    pub engine: Option<Engine>,
    /// By which hooks programs meet packets: best, tc or filter; for tests and measurements
    #[arg(long, hide = true, default_value = "best", value_parser = hooks)]
    pub hooks: Hooks,
    /// Stay in the foreground
    #[arg(short, long)]
    pub foreground: bool,
    /// How many threads move packets; as many as there are processors, if not said
    #[arg(long, value_name = "N")]
    pub workers: Option<NonZeroUsize>,
    /// How long each of these threads looks for more packets before it sleeps, up to 10000: shorter round trips, for processor time
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, hide_default_value = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(..=BUSY_POLL_MAX))]
    pub busy_poll: u64,
    /// Send each UDP datagram by itself, not in segments of one
    #[arg(long)]
    pub no_udp_gso: bool,
    /// Receive each UDP datagram by itself, not joined by the kernel
    #[arg(long)]
    pub no_udp_gro: bool,
    /// Take and give each packet of the interface by itself, with its checksum done
    #[arg(long)]
    pub no_tun_offload: bool,
    /// Keep all privileges and system calls, for debugging; else they are given up once the interface is there
    #[arg(long)]
    pub no_sandbox: bool,
    /// Wipe session keys before the machine sleeps: logind tells, and waits for it
    #[arg(long)]
    pub wipe_on_suspend: bool,
    /// Serve metrics for Prometheus, at a port of the loopback (9586), an address (192.0.2.1:9586) or a socket (unix:/PATH)
    #[arg(long, value_name = "PORT|ADDRESS|unix:PATH")]
    pub metrics: Vec<Place>,
    /// The file with the rules that say what may pass, as `wireloom policy` takes it; while it cannot be read nothing starts
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// When threads help each other: auto, never or forced; for tests and measurements
    #[arg(long, hide = true, default_value = "auto", value_parser = helping)]
    pub helping: Helping,
    /// All queues of the interface, descriptors that whoever starts us keeps, too
    #[arg(long, value_name = "FD", hide = true, value_delimiter = ',', requires = "socket", requires = "foreground")]
    pub queues: Vec<i32>,
    /// The listening socket, likewise: its file stays when we end, unless the interface has gone
    #[arg(long, value_name = "FD", hide = true, requires = "queues")]
    pub socket: Option<i32>,
    /// Only in the place of one that has died and left what it had
    #[arg(long, hide = true)]
    pub successor: bool,
    /// A socket with what an earlier daemon left, which whoever starts us has kept
    #[arg(long, value_name = "FD", hide = true, requires = "queues")]
    pub heritage: Option<i32>,
    /// The interface's MTU in bytes
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(68..))]
    pub mtu: Option<u16>,
    /// The network namespace to put the interface into, as `ip netns` names it; its sockets stay in this one
    #[arg(long, value_name = "NAME")]
    pub netns: Option<String>,
    /// The interface to create
    pub interface: InterfaceName,
}

/// Why an interface cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An environment variable says something impossible.
    #[error("{name} is '{value}', expected {expected}")]
    Environment {
        /// Which variable.
        name: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        expected: String,
    },
    /// The process could not go to the background.
    #[error("{}", Chain(.0))]
    Daemonise(#[from] DaemoniseError),
    /// A descriptor that was to be inherited is not there.
    #[error("{name} is {number}, which is not an open descriptor of this process: {source}")]
    Descriptor {
        /// Which variable named it.
        name: &'static str,
        /// Its number.
        number: i32,
        /// The system's error.
        source: std::io::Error,
    },
    /// There is nobody to succeed.
    #[error("no daemon of '{0}' has died here and left anything")]
    NothingLeft(String),
    /// The interface could not be made.
    #[error("{}", Chain(.0))]
    Tun(#[from] TunError),
    /// The configuration socket could not be made.
    #[error("{}", Chain(.0))]
    Listen(#[from] ListenError),
    /// The interface was made, and could not be set up as it should be.
    #[error("{what}: {source}")]
    Os {
        /// What was attempted.
        what: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// The namespace that the interface is for is not there.
    #[error("there is no network namespace '{name}', expected one that `ip netns list` shows: {source}")]
    Netns {
        /// Its name.
        name: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The interface could not be put where it is to be.
    #[error("cannot put the interface into the network namespace '{name}': {source}")]
    Move {
        /// The namespace's name.
        name: String,
        /// What the kernel says.
        source: RtError,
    },
    /// The data plane could not start.
    #[error("{}", Chain(.0))]
    Plane(#[from] PlaneError),
    /// The eBPF programs cannot run here.
    #[error("{} (--engine userspace runs on any kernel)", Chain(.0))]
    Programs(#[from] ebpf::LoadError),
    /// They could not be put to work.
    #[error("{} (--engine userspace runs on any kernel)", Chain(.0))]
    Ebpf(#[from] ebpf::StartError),
    /// The device could not be made.
    #[error("{}", Chain(.0))]
    Device(#[from] DeviceError),
    /// What it wants besides cannot be had.
    #[error(transparent)]
    Attend(#[from] AttendError),
    /// There are no rules where some were asked for.
    #[error(transparent)]
    Policy(#[from] Box<crate::error::Error>),
    /// The control thread failed.
    #[error("{}", Chain(.0))]
    Driver(#[from] DriverError),
}

/// An error with its causes, in one line.
struct Chain<'a, E>(&'a E);

impl<E: std::error::Error> std::fmt::Display for Chain<'_, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors tell their cause themselves.
            if !said.contains(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            cause = error.source();
        }
        Ok(())
    }
}

fn os(what: &'static str) -> impl FnOnce(std::io::Error) -> RunError {
    move |source| RunError::Os { what, source }
}

/// What the environment says, in wireguard-go's words and one of ours.
struct Environment {
    foreground: bool,
    level: LevelFilter,
    /// Log lines were asked for, and so are wanted where the command is given.
    keep_output: bool,
    tun: Option<i32>,
    uapi: Option<i32>,
    /// What packets are to be sealed and opened by.
    aead: aead::Backend,
    engine: Option<Engine>,
}

impl Environment {
    fn read() -> Result<Self, RunError> {
        let text = |name| {
            let value = env::var_os(name).filter(|value| !value.is_empty())?;
            Some(value.to_string_lossy().into_owned())
        };
        let descriptor = |name: &'static str| match text(name) {
            None => Ok(None),
            Some(value) => match value.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => {
                    Err(RunError::Environment { name, value, expected: "the number of an open descriptor".to_owned() })
                }
            },
        };
        Ok(Self {
            foreground: text("WG_PROCESS_FOREGROUND").as_deref() == Some("1"),
            level: log_level(),
            keep_output: wants_log(),
            tun: descriptor("WG_TUN_FD")?,
            uapi: descriptor("WG_UAPI_FD")?,
            aead: aead_named(text("WIRELOOM_AEAD"))?,
            engine: engine_named(text("WIRELOOM_ENGINE"))?,
        })
    }
}

/// What is to be logged, in wireguard-go's words.
pub fn log_level() -> LevelFilter {
    match env::var("LOG_LEVEL").as_deref() {
        Ok("verbose" | "debug") => LevelFilter::Debug,
        Ok("silent") => LevelFilter::Off,
        // As wireguard-go does, which takes every other word for its default.
        _ => LevelFilter::Error,
    }
}

/// Whether log lines were asked for, and are wanted where the command is given.
pub fn wants_log() -> bool {
    env::var_os("LOG_LEVEL").is_some_and(|level| !level.is_empty()) && log_level() != LevelFilter::Off
}

/// The engine of this name, if there is a name.
fn engine_named(name: Option<String>) -> Result<Option<Engine>, RunError> {
    let Some(value) = name else { return Ok(None) };
    match Engine::from_str(&value, false) {
        Ok(engine) => Ok(Some(engine)),
        Err(_) => {
            let expected = "userspace or ebpf".to_owned();
            Err(RunError::Environment { name: "WIRELOOM_ENGINE", value, expected })
        }
    }
}

/// The AEAD's implementation of this name, or the best one.
fn aead_named(name: Option<String>) -> Result<aead::Backend, RunError> {
    let Some(value) = name else { return Ok(aead::Backend::best()) };
    match value.parse::<aead::Backend>() {
        Ok(backend) if backend.available() => Ok(backend),
        _ => {
            let here: Vec<&str> = aead::Backend::all_available().map(aead::Backend::name).collect();
            let expected = format!("what this processor can do: {}", here.join(", "));
            Err(RunError::Environment { name: "WIRELOOM_AEAD", value, expected })
        }
    }
}

/// Runs an interface until it is taken away.
pub fn run(args: RunArgs) -> Result<(), RunError> {
    process::set_name().map_err(os("giving the process its name"))?;
    let environment = Environment::read()?;
    // Before it goes to the background, and while it may read what root may.
    let policy = args.policy.as_deref().map(policy::read).transpose().map_err(Box::new)?;
    let manager = manager::take().map_err(os("looking at what the service manager says"))?.manager;
    if args.foreground || environment.foreground {
        let running = Running::start(&args, &environment, policy)?;
        if let Some(manager) = manager
            && let Err(error) = manager.say("READY=1\nSTATUS=Ready to be configured")
        {
            log::warn!("the service manager is not told that we are ready: {error}");
        }
        return running.finish();
    }
    let readiness = process::daemonise()?;
    match Running::start(&args, &environment, policy) {
        Ok(running) => running.finish_in_background(readiness, environment.keep_output),
        Err(error) => {
            readiness.fail(&format!("wireloom: {error}"));
            std::process::exit(1);
        }
    }
}

/// An interface that is ready. The fields are dropped in order: the socket goes first, the workers last.
struct Running {
    server: Server,
    driver: Driver,
    plane: Arc<dyn DataPlane>,
    interface: InterfaceName,
    sandbox: Option<Role>,
    stays: Stays,
}

impl Running {
    fn start(args: &RunArgs, environment: &Environment, policy: Option<Vec<Rule>>) -> Result<Self, RunError> {
        if args.socket.is_some() {
            process::end_with_parent().map_err(os("asking to end with who started us"))?;
        }
        let engine = args.engine.or(environment.engine).unwrap_or(Engine::Userspace);
        log_to_stderr(&args.interface, environment.level);
        match environment.aead.choose() {
            Ok(()) => log::debug!("packets are sealed and opened by {}", environment.aead),
            // There is no key yet, and so nothing that could have chosen.
            Err(error) => log::warn!("packets are not sealed and opened by {}: {error}", environment.aead),
        }
        memory::hide().map_err(os("keeping the memory out of core dumps"))?;
        // Before the first thread, so that no thread takes the signals in another way.
        let signals = SignalFd::new(&[Signal::Interrupt, Signal::Terminate]).map_err(os("taking over signals"))?;
        if !args.no_sandbox {
            // While there is no thread, no interface and no key.
            steward::start(engine == Engine::Ebpf)
                .map_err(os("starting the steward, the process that keeps the privileges,"))?;
        }
        // After the last look at files of our own in /proc, which are root's from here on.
        process::no_dump().map_err(os("making the process undumpable"))?;
        let heir = heir::path(args.interface.as_str());
        let mut heritage = find_heritage(args, &heir)?;
        if args.successor && heritage.is_none() {
            return Err(RunError::NothingLeft(args.interface.to_string()));
        }
        let tun = open_tun(args, environment, heritage.as_mut())?;
        let queue = tun.queues[0].try_clone().map_err(os("duplicating the TUN descriptor"))?;
        let given = args.socket.map(|number| ("--socket", number));
        let listener = match given.or(environment.uapi.map(|number| ("WG_UAPI_FD", number))) {
            Some((name, number)) => {
                Listener::from_fd(adopt(name, number)?).map_err(os("taking over the socket that was given"))?
            }
            None => listen(&tun.name)?,
        };
        let stays = listener.stays();
        stays.set(args.socket.is_some());
        let deletion = DeletionWatch::new(&listener).map_err(os("watching the socket"))?;

        let programs = match engine {
            Engine::Userspace => None,
            Engine::Ebpf => {
                if let Err(error) = spread_flows(&queue, tun.queues.len()) {
                    log::info!("packets of a flow may come out of {} in another order: {error}", args.interface);
                }
                Some(load_programs(heritage.as_mut())?)
            }
        };
        if !args.no_sandbox {
            if let Some((loaded, _)) = &programs {
                ebpf::keep(loaded).map_err(os("handing the maps to the steward"))?;
                for (number, queue) in tun.queues.iter().enumerate() {
                    let name = format!("{}{number}", steward::QUEUE);
                    steward::keep(&name, queue).map_err(os("handing a queue to the steward"))?;
                }
                if heritage.is_none() && heir::is_answered(&heir) {
                    log::warn!("{} belongs to another daemon: if this one dies nobody carries on", heir.display());
                } else {
                    heir::await_successor(&heir).map_err(os("making the socket for a successor"))?;
                }
            }
            // All that takes a privilege of ours has been done, and the threads start without.
            steward::entrust(listener.path(), args.socket.is_some())
                .map_err(os("handing the socket to the steward"))?;
            capabilities::keep_only(CapabilitySet::empty()).map_err(os("giving up privileges"))?;
            log::debug!("all capabilities are given up");
        }
        let workers = tun.queues.len();
        let offloads = tun.offloads;
        let config = UserspaceConfig {
            offloads,
            udp_gso: !args.no_udp_gso,
            mtu: MTU,
            busy_poll: Duration::from_micros(args.busy_poll),
            helping: args.helping,
        };
        let userspace = Arc::new(Userspace::start(tun.queues, config)?);
        let plane: Arc<dyn DataPlane> = match programs {
            None => userspace,
            Some((programs, left)) => Arc::new(ebpf::Plane::start(
                userspace,
                programs,
                left,
                queue.try_clone().map_err(os("duplicating the TUN descriptor"))?,
                args.hooks,
            )?),
        };
        let config = DeviceConfig { workers, udp_gso: !args.no_udp_gso, udp_gro: !args.no_udp_gro };
        let device = Arc::new(Device::new(config, plane.clone())?);
        // Nobody has configured it yet. Without rules, too: programs that an earlier process has left may have some.
        device.set_policy(policy.unwrap_or_default());
        let driver = Driver::new(device.clone(), queue, offloads, signals, deletion)?;
        let server = Server::start(listener, device).map_err(os("serving the socket"))?;
        log::debug!("{workers} workers, {offloads:?}");
        let (wipe_on_suspend, metrics) = (args.wipe_on_suspend, args.metrics.clone());
        let duties = Duties { names: Vec::new(), wipe_on_suspend, metrics };
        if !duties.is_empty() {
            attend::start(&tun.name, &duties)?;
        }
        // From here on the steward has what a successor needs. Up to here all that was left is as it was; and nothing fails after this.
        match engine {
            Engine::Ebpf => heir::settle(heritage, Some(&ebpf::terms())),
            Engine::Userspace => heir::decline(heritage),
        }
        let sandbox = (!args.no_sandbox).then_some(Role::Daemon { maps: engine == Engine::Ebpf });
        Ok(Self { server, driver, plane, interface: args.interface.clone(), sandbox, stays })
    }

    fn finish(self) -> Result<(), RunError> {
        let Self { server, driver, plane, interface, sandbox, stays } = self;
        // What strangers can make as much of as they like, handshakes, is this thread's work; what peers send is the workers'.
        if let Err(error) = process::stand_back() {
            log::debug!("handshakes have the priority of data: {error}");
        }
        if let Some(role) = sandbox {
            sandbox::enter(role);
        }
        let end = driver.run();
        // Nobody is to carry on.
        steward::farewell();
        if matches!(end, Ok(End::InterfaceGone)) {
            // Whoever else has the socket has no use for it.
            stays.set(false);
        }
        // The socket goes last: who waits for that finds neither programs nor a port of ours.
        plane.shutdown();
        drop(server);
        log::debug!("{interface} ended: {end:?}");
        for (reason, packets) in plane.drops().into_iter().filter(|(_, packets)| *packets > 0) {
            log::debug!("{packets} packets dropped: {reason}");
        }
        end?;
        Ok(())
    }

    fn finish_in_background(self, readiness: Readiness, keep_output: bool) -> Result<(), RunError> {
        // Who asks for log lines wants to see them where the command was given, as with wireguard-go; otherwise whoever waits
        // for the end of our output must not wait for the end of the daemon.
        let output = if keep_output { Output::Keep } else { Output::Discard };
        if let Err(error) = readiness.ready(output) {
            // Nobody is to carry on.
            steward::farewell();
            return Err(os("going to the background")(error));
        }
        self.finish()
    }
}

fn hooks(word: &str) -> Result<Hooks, &'static str> {
    match word {
        "best" => Ok(Hooks::Best),
        "tc" => Ok(Hooks::Tc),
        "filter" => Ok(Hooks::Filter),
        _ => Err("best, tc or filter"),
    }
}

fn helping(word: &str) -> Result<Helping, &'static str> {
    match word {
        "auto" => Ok(Helping::Auto),
        "willing" => Ok(Helping::Willing),
        "never" => Ok(Helping::Never),
        "forced" => Ok(Helping::Forced),
        _ => Err("auto, willing, never or forced"),
    }
}

/// Makes the configuration socket. The interface of this name is ours already, so a daemon that still answers on its socket is
/// about to end, as after `ip link delete`: it gets a moment.
fn listen(interface: &str) -> Result<Listener, ListenError> {
    let start = Instant::now();
    loop {
        match Listener::bind(&unix::socket_path(interface)) {
            Err(ListenError::InUse(_)) if start.elapsed() < SOCKET_WAIT => {
                std::thread::sleep(Duration::from_millis(20))
            }
            result => return result,
        }
    }
}

/// What an earlier daemon of this interface has left with its steward, if it was one of this place.
fn find_heritage(args: &RunArgs, path: &Path) -> Result<Option<Heritage>, RunError> {
    let taking = os("taking over what an earlier daemon left");
    if let Some(number) = args.heritage {
        // Whoever has kept it has looked at it.
        return Heritage::receive(adopt("--heritage", number)?).map_err(taking);
    }
    let Some(heritage) = Heritage::find(path).map_err(taking)? else { return Ok(None) };
    let look = || {
        let Some(queue) = heritage.queue() else { return Ok(false) };
        let place = match &args.netns {
            Some(netns) => open_netns(netns)?,
            None => netns::current()?,
        };
        let is_there = queue.name()? == args.interface.as_str() && netns::same(queue.netns()?.as_fd(), place.as_fd())?;
        Ok::<_, std::io::Error>(is_there && heritage.is_of_here()?)
    };
    match look() {
        Ok(true) => return Ok(Some(heritage)),
        Err(error) => log::debug!("what an earlier daemon left cannot be used: {error}"),
        Ok(_) => (),
    }
    log::warn!("what an earlier daemon of {} left is not of this interface, and is not taken over", args.interface);
    Ok(None)
}

/// Loads the programs: over what an earlier daemon left, if that can be.
fn load_programs(heritage: Option<&mut Heritage>) -> Result<(Loaded, Option<Left>), RunError> {
    if let Some(heritage) = heritage {
        let (loaded, left) = ebpf::take_over(ebpf::OBJECT, Capacity::default(), heritage)?;
        return Ok((loaded, Some(left)));
    }
    Ok((ebpf::load(ebpf::OBJECT, Capacity::default())?, None))
}

/// Makes the interface, or takes over the one that was inherited.
fn open_tun(args: &RunArgs, environment: &Environment, heritage: Option<&mut Heritage>) -> Result<Tun, RunError> {
    let left = heritage.map(Heritage::queues);
    let taken_over = left.is_some();
    let fresh = !taken_over && args.queues.is_empty();
    let want = if args.no_tun_offload { Offloads::default() } else { Offloads::ALL };
    let (mut tun, ours) = match environment.tun {
        _ if !args.queues.is_empty() => {
            let queues = args.queues.iter().map(|number| adopt("--queues", *number)).collect::<Result<_, _>>()?;
            (tun::take_over(queues, want)?, true)
        }
        Some(number) => (tun::from_fd(adopt("WG_TUN_FD", number)?, want)?, false),
        None if left.is_some() => (tun::take_over(left.into_iter().flatten().collect(), want)?, true),
        None => {
            let workers = args.workers.map_or_else(process::cpus, NonZeroUsize::get).min(tun::QUEUES_MAX);
            (tun::create(args.interface.as_str(), workers, want)?, true)
        }
    };
    if ours
        && tun.queues.len() > 1
        && let Err(error) = tun.queues[0].set_steering_by_flow()
    {
        // The kernel's own rule moves flows from queue to queue in mid-stream, and so out of order. Order comes before speed.
        log::warn!("one worker only: flows cannot be steered, which takes CAP_BPF ({error})");
        if fresh {
            drop(tun);
            tun = tun::create(args.interface.as_str(), 1, want)?;
        }
    }
    // One that is handed over has the MTU that it is to have, or is about to get it.
    let mtu = args.mtu.map(u32::from).or(fresh.then_some(MTU));
    let home = netns::current().map_err(os("looking at the network namespace"))?;
    let monitor = Monitor::follow(&tun.queues[0], home.as_fd()).map_err(os("looking at the interface"))?;
    if let Some(mtu) = mtu {
        monitor.set_mtu(tun.index, mtu).map_err(os("setting the MTU"))?;
    }
    let bounded = if ours { tun.bound_queues() } else { Err(std::io::Error::other("it is not ours")) };
    let packets = bounded.map_or_else(
        |error| {
            log::debug!("what waits in the interface is bounded in packets only: {error}");
            UNBOUNDED_PACKETS
        },
        |()| tun::BOUND_PACKETS,
    );
    if let Err(error) = monitor.set_txqueuelen(tun.index, packets) {
        log::debug!("the interface's queue keeps its length: {error}");
    }
    let silent = match &args.netns {
        // It is there already.
        Some(_) if taken_over => Ok(()),
        Some(name) => put_into(&tun, name)?,
        None if ours => monitor.set_silent(tun.index),
        None => Ok(()),
    };
    if let Err(error) = silent {
        log::debug!("the interface may say something by itself: {error}");
    }
    Ok(tun)
}

/// Puts the interface into a network namespace, where it is told to be silent: with its first namespace it loses what it was told there.
fn put_into(tun: &Tun, name: &str) -> Result<std::io::Result<()>, RunError> {
    let place = open_netns(name).map_err(|source| RunError::Netns { name: name.to_owned(), source })?;
    let moved = Rt::open().map_err(RtError::Io).and_then(|mut rt| rt.move_link(tun.index, place.as_fd()));
    moved.map_err(|source| RunError::Move { name: name.to_owned(), source })?;
    let queue = &tun.queues[0];
    Ok(netns::run_in(place.as_fd(), || {
        let index = queue.index()?;
        Monitor::open(index)?.set_silent(index)
    }))
}

fn adopt(name: &'static str, number: i32) -> Result<OwnedFd, RunError> {
    process::adopt_fd(number).map_err(|source| RunError::Descriptor { name, number, source })
}

/// Log lines on standard error, with the interface's name, as far as the level lets them.
pub fn log_to_stderr(interface: &InterfaceName, level: LevelFilter) {
    use std::io::Write;
    let interface = interface.clone();
    env_logger::Builder::new()
        .filter_level(level)
        .format(move |out, record| writeln!(out, "{}: ({interface}) {}", record.level(), record.args()))
        .init();
}

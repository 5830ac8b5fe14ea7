//! `wireloom up --foreground`: an interface as a service, for as long as this process lives.
//!
//! ```text
//!   kept by the manager, and whole? ── no ──▶ up ──────┐
//!            └── yes ──▶ resume ───────────────────────┤
//!                                                      ▼
//!                        READY=1 ── watch ──▶ told to stop ──────▶ down, 0
//!                                     │  └──▶ told to restart ───▶ the daemon ends, all else stays, 0
//!                                     ├─────▶ the daemon crashed ▶ all else stays, 1: the manager starts us again
//!                                     └─────▶ the interface went ▶ down, 1; or 0 if `wireloom down` took it
//! ```
//!
//! The daemon is a child of this process, with the queues and the socket from the [`keeper`], which the service manager keeps as well.
//! So the interface outlives a daemon that crashes and a restart of the service: addresses, routes and rules stay, and whoever
//! connects to the socket meanwhile waits. Of the engine in the kernel sessions do, too: they are in maps, of which the manager keeps the descriptors for as
//! long. Those of the userspace engine do not: they are in the daemon alone, and no other process is to have them. They are
//! made anew, from the file and by handshakes. Without a service manager nothing stays but a kill switch, which goes only when we are told to stop.

mod keeper;
mod manager;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use linux::link::{LinkEvent, Monitor};
use linux::netns;
use linux::rt::Rt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::Error;
use crate::quick::{self, DownArgs, Engine, Journal, Lock, Manner, QuickError, Starter, UpArgs};
use crate::run::RunError;
use keeper::Keeper;
use manager::Reload;

/// How long another command may be at work on the interface when its service ends: less than the manager waits for that.
const PATIENCE: Duration = Duration::from_secs(40);

/// Why a service ends otherwise than it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The queues or the socket could not be made.
    #[error(transparent)]
    Make(Box<RunError>),
    /// The daemon has ended otherwise than by itself.
    #[error("the daemon of '{interface}' has ended ({status})")]
    Crashed {
        /// The interface.
        interface: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// Somebody has deleted the interface, or the socket.
    #[error("'{0}' was taken away, expected `wireloom down {0}`, or that its service is stopped")]
    Gone(String),
    /// A system call failed.
    #[error("{what}: {source}")]
    Os {
        /// What was attempted.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

fn os(what: &'static str) -> impl FnOnce(io::Error) -> ServiceError {
    move |source| ServiceError::Os { what, source }
}

/// Brings an interface up, stays, and takes it down.
pub fn run(args: &UpArgs) -> Result<(), Error> {
    // While there is one thread, and before anything is started that would inherit it.
    let told = linux::manager::take().map_err(os("looking at what the service manager says"))?;
    let kept = linux::manager::take_kept().map_err(os("looking at what the service manager has kept"))?;
    let signals = Signals::new().map_err(os("taking over signals"))?;
    let interface = quick::interface_of_word(&args.what)?.to_string();
    let home = netns::current().map_err(Error::Links)?;
    let mut keeper = Keeper::new(&interface, told.manager, kept);
    let journal = Journal::read(&interface)?;
    let resumed = match journal {
        Some(mut journal) if keeper.is_whole(&journal, args) => resume(&mut keeper, &mut journal, &signals.told)?,
        _ => false,
    };
    if !resumed && signals.told.load(Ordering::Relaxed) {
        // Nobody waits for it to be made anew.
        if keeper.has_manager() && manager::is_restart() {
            return Ok(());
        }
        let down = down(&interface, Manner { regardless: true, keep_kill_switch: false });
        keeper.let_go();
        return down;
    }
    let keeper = Arc::new(Mutex::new(keeper));
    if !resumed {
        lock(&keeper).give_up(args)?;
        let starting = Arc::clone(&keeper);
        let starter =
            Starter::new(move |engine, netns| lock(&starting).start_anew(engine, netns).map_err(io::Error::other));
        if let Err(error) = quick::bring_up(args, Some(starter)) {
            let mut keeper = lock(&keeper);
            keeper.end_daemon();
            keeper.let_go();
            return Err(error);
        }
    }
    // The interface may be elsewhere, and so are we: its service is at home.
    let elsewhere = netns::current().map_err(Error::Links)?;
    if !netns::same(elsewhere.as_fd(), home.as_fd()).map_err(Error::Links)? {
        netns::enter(home.as_fd()).map_err(Error::Links)?;
    }
    let engine = Journal::read(&interface)?.map(|journal| journal.engine);
    if engine == Some(Engine::Kernel) {
        lock(&keeper).keep_kernels().map_err(os("handing a sign to the service manager"))?;
    }
    let mut service =
        Service { args, interface, engine, keeper, signals, watchdog: told.watchdog, reload: Reload::default() };
    if resumed {
        // What has changed in the file meanwhile.
        service.reload.start(&args.what);
    }
    let end = service.watch(elsewhere.as_fd())?;
    service.finish(end)
}

/// Has a new daemon carry on with what was kept. False where that fails: then everything is made anew.
fn resume(keeper: &mut Keeper, journal: &mut Journal, told: &Arc<AtomicBool>) -> Result<bool, Error> {
    let lock = Lock::take(&journal.interface)?;
    let resumed = match journal.engine {
        Engine::Kernel => quick::attend_again(journal, told),
        engine @ (Engine::Userspace | Engine::Ebpf) => {
            keeper.start(engine, None).map_err(Error::from).and_then(|()| quick::configure_again(journal, told))
        }
    };
    drop(lock);
    match resumed {
        Ok(()) => {
            eprintln!("wireloom: {}: carries on with the interface that was kept", journal.interface);
            Ok(true)
        }
        Err(error) => {
            eprintln!("wireloom: what was kept is given up: {error}");
            keeper.end_daemon();
            Ok(false)
        }
    }
}

/// Why it is over.
enum End {
    /// We were told to end.
    Told,
    /// The daemon has ended.
    Daemon(ExitStatus),
    /// The kernel's interface is gone.
    Interface,
}

/// An interface that is up.
struct Service<'a> {
    args: &'a UpArgs,
    interface: String,
    engine: Option<Engine>,
    keeper: Arc<Mutex<Keeper>>,
    signals: Signals,
    watchdog: Option<Duration>,
    reload: Reload,
}

impl Service<'_> {
    /// Waits for its end, sees to signals, and says that it is well as often as somebody wants to hear it.
    fn watch(&mut self, place: BorrowedFd<'_>) -> Result<End, Error> {
        // Of a daemon's end we hear as its parent. Only the kernel's interface has to be followed.
        let mut link = match self.engine {
            Some(Engine::Kernel) => Some(self.follow(place)?),
            _ => None,
        };
        let engine = if link.is_some() { "the kernel's WireGuard" } else { "Wireloom's own WireGuard" };
        lock(&self.keeper).say(&format!("READY=1\nSTATUS={} is up, by {engine}", self.interface));
        let pidfd = lock(&self.keeper).pidfd().map_err(os("following the daemon"))?;
        // Twice as often as it has to be, as sd_watchdog_enabled(3) has it.
        let interval = self.watchdog.map(|within| within / 2);
        let mut next = interval.map(|_| Instant::now());
        loop {
            if let (Some(interval), Some(due)) = (interval, next)
                && Instant::now() >= due
            {
                self.tell_that_all_is_well(interval);
                next = Some(Instant::now() + interval);
            }
            let mut fds =
                vec![PollFd::new(&self.signals.end, PollFlags::IN), PollFd::new(&self.signals.reload, PollFlags::IN)];
            fds.extend(pidfd.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
            fds.extend(link.iter().map(|link| PollFd::from_borrowed_fd(link.as_fd(), PollFlags::IN)));
            let left = next.map(|due| due.saturating_duration_since(Instant::now()));
            let left = left.map(|left| Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos().into() });
            match poll(&mut fds, left.as_ref()) {
                // A signal: its pipe will tell.
                Err(rustix::io::Errno::INTR) => continue,
                waited => waited.map_err(|error| os("waiting")(error.into()))?,
            };
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[0] {
                return Ok(End::Told);
            }
            if ready[1] {
                self.signals.reload_seen();
                self.reload.start(&self.args.what);
            }
            if let Some(status) = lock(&self.keeper).ended() {
                return Ok(End::Daemon(status));
            }
            if let Some(link) = &mut link
                && link.is_gone()
            {
                return Ok(End::Interface);
            }
        }
    }

    fn follow(&self, place: BorrowedFd<'_>) -> Result<Followed, Error> {
        let followed = netns::run_in(place, || {
            let link = Rt::open()?.link(&self.interface).map_err(io::Error::other)?;
            Monitor::open(link.ok_or(io::ErrorKind::NotFound)?.index)
        });
        Ok(Followed(followed.map_err(Error::Links)?))
    }

    /// Says so only if it is true: the daemon answers a request that changes nothing, but passes through all that a change does.
    fn tell_that_all_is_well(&self, interval: Duration) {
        if self.engine == Some(Engine::Kernel) || manager::answers(&self.interface, interval / 2) {
            lock(&self.keeper).say("WATCHDOG=1");
        } else {
            eprintln!("wireloom: the daemon of '{}' does not answer", self.interface);
        }
    }

    /// Leaves the machine as what has happened wants it.
    fn finish(self, end: End) -> Result<(), Error> {
        let mut keeper = lock(&self.keeper);
        let interface = self.interface;
        match end {
            End::Told => {
                keeper.say("STOPPING=1");
                if keeper.has_manager() && manager::is_restart() {
                    eprintln!("wireloom: {interface}: everything but the daemon stays for the next one");
                    if self.engine == Some(Engine::Ebpf) {
                        keeper.kill_daemon();
                        keeper.keep_estate();
                    } else {
                        keeper.end_daemon();
                    }
                    return Ok(());
                }
                keeper.remove_socket();
                let down = down(&interface, Manner { regardless: true, keep_kill_switch: false });
                keeper.end_daemon();
                keeper.let_go();
                down
            }
            End::Daemon(status) if !status.success() => {
                // What is kept is for the next one.
                if self.engine == Some(Engine::Ebpf) {
                    keeper.keep_estate_of(status);
                }
                if !keeper.has_manager() {
                    keeper.remove_socket();
                    down(&interface, UNTOLD)?;
                }
                Err(ServiceError::Crashed { interface, status }.into())
            }
            End::Daemon(_) | End::Interface => {
                keeper.let_go();
                // Perhaps it was `wireloom down`, which then is not through yet.
                let lock = patiently(|| Ok(Lock::take(&interface)?))?;
                if Journal::read(&interface)?.is_none() {
                    eprintln!("wireloom: {interface} was taken down");
                    return Ok(());
                }
                drop(lock);
                keeper.remove_socket();
                down(&interface, UNTOLD)?;
                Err(ServiceError::Gone(interface).into())
            }
        }
    }
}

/// For an end that nobody has asked for: a kill switch is there for just that.
const UNTOLD: Manner = Manner { regardless: true, keep_kill_switch: true };

/// Takes down what the journal tells of, if nobody has done it meanwhile.
fn down(interface: &str, manner: Manner) -> Result<(), Error> {
    let args = DownArgs { what: interface.to_owned(), netns: None };
    match patiently(|| quick::take_down(&args, manner)) {
        Err(Error::Quick(QuickError::NotUp(_) | QuickError::NoFile { .. })) => Ok(()),
        down => down,
    }
}

/// Tries until no other command is at work on the interface.
fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(Error::Quick(QuickError::Busy(_))) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

/// A link whose end is waited for.
struct Followed(Monitor);

impl Followed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes in what has happened; whether the link is no more.
    fn is_gone(&mut self) -> bool {
        self.0.any(|event| event == LinkEvent::Removed)
    }
}

/// Signals as something to poll. (They are not blocked, which hooks would inherit.)
struct Signals {
    /// To end.
    end: UnixStream,
    /// The same, for who is at work and looks now and then.
    told: Arc<AtomicBool>,
    /// To look at the file again.
    reload: UnixStream,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        let (end, end_in) = UnixStream::pair()?;
        let (reload, reload_in) = UnixStream::pair()?;
        let told = Arc::default();
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&told))?;
            signal_hook::low_level::pipe::register(signal, end_in.try_clone()?)?;
        }
        signal_hook::low_level::pipe::register(SIGHUP, reload_in)?;
        reload.set_nonblocking(true)?;
        Ok(Signals { end, told, reload })
    }

    /// Makes it quiet until the next one.
    fn reload_seen(&self) {
        use std::io::Read;
        while (&self.reload).read(&mut [0; 64]).is_ok_and(|len| len > 0) {}
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This program, by its own name, whatever it was called as.
fn this_program() -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("wireloom");
    for variable in ["WG_PROCESS_FOREGROUND", "WG_TUN_FD", "WG_UAPI_FD", "WIRELOOM_ENGINE"] {
        command.env_remove(variable);
    }
    command
}

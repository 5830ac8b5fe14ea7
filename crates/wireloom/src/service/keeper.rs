//! What outlives a daemon: the queues of the interface and the listening socket. They are made here, handed to the service manager,
//! under names, and to the daemon; and what an earlier process has handed to the manager is what we were started with.
//!
//! A daemon of the engine in the kernel leaves maps and programs besides, with its steward. But that is a process of our group, which the manager ends with us.
//! So we ask the steward for them as a successor would, hand them to the manager (its *estate*), and give them to the next daemon, which takes them
//! as if by a steward; then the manager is told to let go of them.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use linux::heir::{self, Heritage};
use linux::manager::{self, Manager};
use linux::tun::{self, Offloads, Queue};
use linux::unix::{self, Listener};
use linux::{netns, process};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::{ServiceError, os, this_program};
use crate::error::Error;
use crate::quick::{self, DownArgs, Engine, Journal, Manner, QuickError, UpArgs};
use crate::run::RunError;

/// What the socket is kept as.
const SOCKET: &str = "socket";

/// What the queues are kept as, each with its number in the order of the kernel.
const QUEUE: &str = "queue-";

/// What is kept (nothing but a sign) where the interface is the kernel's.
const KERNEL: &str = "kernel";

/// What the names of all begin with that a daemon has left.
const ESTATE: &str = "estate-";

/// How long the manager may take to hear what it is told.
const HEARING: Duration = Duration::from_secs(10);

/// How long a daemon may take to end before it is made to. It is long because it wipes a hundred thousand peers.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a daemon may take to begin.
const START: Duration = Duration::from_secs(60);

/// How long a daemon that has taken over an estate must live for that to be above suspicion, when it ends by itself.
const TRIAL: Duration = Duration::from_secs(10);

/// Whether what a daemon has left that ended like this is fit for the next one. `taken`: so long before it took over what the one before had left. What made
/// it crash may lie in that, and would make each one crash that takes it over. To be killed is nobody's own doing.
fn is_fit(status: ExitStatus, taken: Option<Duration>) -> bool {
    status.signal() == Some(Signal::KILL.as_raw()) || taken.is_none_or(|since| since >= TRIAL)
}

/// The keeper.
pub struct Keeper {
    interface: String,
    manager: Option<Manager>,
    /// What the manager has, by name.
    kept: Vec<(String, OwnedFd)>,
    /// What it has of the estate of the last daemon, by the names which that gave.
    estate: Vec<(String, OwnedFd)>,
    /// The names of what it has or was given, to be let go.
    names: Vec<String>,
    daemon: Option<Child>,
    /// When the daemon has taken over what the one before left, if it has.
    taken: Option<Instant>,
}

impl Keeper {
    /// One with what an earlier process has left.
    pub fn new(interface: &str, manager: Option<Manager>, kept: Vec<(String, OwnedFd)>) -> Keeper {
        let names = kept.iter().map(|(name, _)| name.clone()).collect();
        let (estate, kept): (Vec<_>, Vec<_>) = kept.into_iter().partition(|(name, _)| name.starts_with(ESTATE));
        let estate = estate.into_iter().map(|(name, fd)| (name[ESTATE.len()..].to_owned(), fd)).collect();
        Keeper { interface: interface.to_owned(), manager, kept, estate, names, daemon: None, taken: None }
    }

    /// Whether somebody keeps for us.
    pub fn has_manager(&self) -> bool {
        self.manager.is_some()
    }

    /// Tells the service manager something, where there is one.
    pub fn say(&self, text: &str) {
        if let Some(manager) = &self.manager
            && let Err(error) = manager.say(text)
        {
            eprintln!("wireloom: the service manager cannot be told: {error}");
        }
    }

    /// Whether a new daemon can carry on with what was kept: it is all there, is the interface that `journal` tells of, and the one that is wanted.
    pub fn is_whole(&mut self, journal: &Journal, args: &UpArgs) -> bool {
        let here = netns::current().and_then(quick::numbers);
        if self.kept.is_empty() || here.is_ok_and(|here| here != journal.home) {
            return false;
        }
        if !args.match_those_of(journal) {
            eprintln!("wireloom: {}: what was kept is given up: it has other options, or another file", self.interface);
            return false;
        }
        if journal.engine == Engine::Kernel {
            return self.kept.iter().any(|(name, _)| name == KERNEL) && quick::has_link(journal);
        }
        let number = |name: &str| name.strip_prefix(QUEUE)?.parse::<usize>().ok();
        // As the kernel has numbered them; the manager gives them back as it likes.
        self.kept.sort_by_key(|(name, _)| number(name).unwrap_or(usize::MAX));
        let queues = self.kept.iter().filter(|(name, _)| number(name).is_some()).count();
        let all = self.kept.iter().take(queues).enumerate().all(|(at, (name, fd))| {
            let attached =
                fd.try_clone().is_ok_and(|fd| Queue::from(fd).name().is_ok_and(|name| name == self.interface));
            number(name) == Some(at) && attached
        });
        let socket = self.kept.iter().filter(|(name, _)| name == SOCKET).count();
        queues > 0 && all && socket == 1 && unix::socket_path(&self.interface).exists()
    }

    /// Gives up what was kept, with the interface that it is of; but not with its kill switch, where there is to be one again.
    pub fn give_up(&mut self, args: &UpArgs) -> Result<(), Error> {
        if self.names.is_empty() {
            return Ok(());
        }
        self.kept.clear();
        self.discard();
        self.remove_socket();
        let manner = Manner { regardless: true, keep_kill_switch: args.kill_switch };
        // By its name: it may be of another file.
        let down = quick::take_down(&DownArgs { what: self.interface.clone(), netns: None }, manner);
        self.let_go();
        match down {
            Err(Error::Quick(QuickError::NotUp(_) | QuickError::NoFile { .. })) => Ok(()),
            down => down,
        }
    }

    /// Removes the socket's file, if there is no daemon that would when its interface is deleted.
    pub fn remove_socket(&mut self) {
        if self.daemon.is_none() || self.ended().is_some() {
            // There is none of the kernel's interfaces, and none that was removed already.
            let _ = std::fs::remove_file(unix::socket_path(&self.interface));
        }
    }

    /// Takes away what the last daemon left, if nobody has it yet.
    fn discard(&mut self) {
        let estate = std::mem::take(&mut self.estate);
        if !estate.is_empty()
            && let Err(error) = heir::discard(&estate, &ebpf::terms())
        {
            eprintln!("wireloom: programs of the last daemon may stay on interfaces: {error}");
        }
    }

    /// Has the service manager keep what the daemon, which has died, has left with its steward: that will not live any longer than we do.
    pub fn keep_estate(&self) {
        let Some(manager) = &self.manager else { return };
        let keep = || -> io::Result<()> {
            let Some(heritage) = Heritage::find(&heir::path(&self.interface))? else { return Ok(()) };
            // Another one of the same name, in another network namespace, is not ours.
            let name = heritage.queue().map(|queue| queue.name()).transpose()?;
            if !heritage.is_of_here()? || name.as_ref() != Some(&self.interface) {
                return Ok(());
            }
            for (name, fd) in heritage.copies()? {
                // Queues it has already.
                if !name.starts_with(QUEUE) {
                    manager.keep(&format!("{ESTATE}{name}"), fd)?;
                }
            }
            manager.wait(HEARING)?;
            heritage.pass_on();
            Ok(())
        };
        if let Err(error) = keep() {
            eprintln!("wireloom: sessions will be made anew, as they cannot be kept: {error}");
        }
    }

    /// The same of a daemon that has ended by itself, unless it is better that the next one begins anew.
    pub fn keep_estate_of(&self, status: ExitStatus) {
        if is_fit(status, self.taken.map(|taken| taken.elapsed())) {
            self.keep_estate();
        } else {
            eprintln!("wireloom: sessions will be made anew, as the daemon has ended soon after it took them over");
        }
    }

    /// Lets go of all that the service manager has.
    pub fn let_go(&mut self) {
        self.discard();
        for name in self.names.drain(..) {
            if let Some(manager) = &self.manager {
                // What it does not let go of now goes with the service.
                let _ = manager.let_go(&name);
            }
        }
    }

    /// Makes queues and socket, has them kept, and starts the daemon with them. The interface is put into the namespace `netns`.
    pub fn start_anew(&mut self, engine: Engine, netns: Option<&str>) -> Result<(), ServiceError> {
        let make = |error: RunError| ServiceError::Make(Box::new(error));
        let mut tun = tun::create(&self.interface, process::cpus().min(tun::QUEUES_MAX), Offloads::ALL)
            .map_err(|error| make(error.into()))?;
        if tun.queues.len() > 1 && tun.queues[0].set_steering_by_flow().is_err() {
            // As `run` does it: flows that cannot be steered would lose their order.
            drop(tun);
            tun = tun::create(&self.interface, 1, Offloads::ALL).map_err(|error| make(error.into()))?;
        }
        let listener = Listener::bind(&unix::socket_path(&self.interface)).map_err(|error| make(error.into()))?;
        for (number, queue) in tun.queues.iter().enumerate() {
            let queue = queue.as_fd().try_clone_to_owned().map_err(os("duplicating a queue"))?;
            self.kept.push((format!("{QUEUE}{number}"), queue));
        }
        self.kept.push((SOCKET.to_owned(), listener.into_fd().map_err(os("duplicating the socket"))?));
        for (name, fd) in &self.kept {
            self.names.push(name.clone());
            if let Some(manager) = &self.manager {
                manager.keep(name, fd).map_err(os("handing a descriptor to the service manager"))?;
            }
        }
        self.start(engine, netns)
    }

    /// Has the service manager remember that the interface is the kernel's, and up.
    pub fn keep_kernels(&mut self) -> io::Result<()> {
        if let Some(manager) = &self.manager
            && !self.names.iter().any(|name| name == KERNEL)
        {
            manager.keep(KERNEL, std::fs::File::open("/dev/null")?)?;
            self.names.push(KERNEL.to_owned());
        }
        Ok(())
    }

    /// Starts the daemon with what is kept, of which it has the only descriptors then, besides the service manager.
    pub fn start(&mut self, engine: Engine, netns: Option<&str>) -> Result<(), ServiceError> {
        let (mut queues, mut socket) = (Vec::new(), String::new());
        // Dropped, and so closed here, once the daemon has them.
        let kept = std::mem::take(&mut self.kept);
        for (name, fd) in &kept {
            let number = manager::inherit(fd).map_err(os("handing a descriptor to the daemon"))?;
            if name == SOCKET { socket = number.to_string() } else { queues.push(number.to_string()) }
        }
        let mut command = this_program();
        command.arg("run").args(engine.arguments());
        command.args(["--foreground", "--queues", &queues.join(","), "--socket", &socket]);
        if let Some(netns) = netns {
            command.args(["--netns", netns]);
        }
        let heritage = match self.estate.is_empty() {
            true => None,
            false => {
                let (theirs, ours) = heir::hand_on(&self.estate).map_err(os("handing on what was left"))?;
                let number = manager::inherit(&theirs).map_err(os("handing a descriptor to the daemon"))?;
                command.args(["--heritage", &number.to_string()]);
                Some((theirs, ours))
            }
        };
        self.daemon = Some(command.arg(&self.interface).spawn().map_err(os("starting the daemon"))?);
        drop(kept);
        let heritage = heritage.map(|(_, ours)| ours);
        self.wait_until_ready()?;
        if let Some(ours) = heritage {
            if heir::is_taken(&ours, PATIENCE) {
                self.taken = Some(Instant::now());
            } else {
                eprintln!("wireloom: the daemon has not taken what the last one left");
                self.discard();
            }
            self.let_go_of_estate();
        }
        Ok(())
    }

    /// Leaves it to the daemon alone.
    fn let_go_of_estate(&mut self) {
        self.estate.clear();
        let (estate, names) = std::mem::take(&mut self.names).into_iter().partition(|name| name.starts_with(ESTATE));
        self.names = names;
        let estate: Vec<String> = estate;
        for (name, manager) in estate.iter().zip(std::iter::repeat(&self.manager)) {
            // What it does not let go of now goes with the service.
            let _ = manager.as_ref().map(|manager| manager.let_go(name));
        }
    }

    /// Waits for the answer to a request that changes nothing.
    fn wait_until_ready(&mut self) -> Result<(), ServiceError> {
        let ask = || {
            let mut stream = UnixStream::connect(unix::socket_path(&self.interface))?;
            stream.write_all(b"set=1\n\n").map(|()| stream)
        };
        let stream = ask().map_err(os("speaking to the daemon"))?;
        let pidfd = self.pidfd().map_err(os("following the daemon"))?;
        let mut fds = vec![PollFd::new(&stream, PollFlags::IN)];
        fds.extend(pidfd.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
        let start = Instant::now();
        loop {
            let left = START.saturating_sub(start.elapsed());
            let left = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut fds, Some(&left)) {
                Err(rustix::io::Errno::INTR) => continue,
                waited => waited.map_err(|error| os("waiting for the daemon")(error.into()))?,
            };
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            return match (ready.as_slice(), self.ended()) {
                (_, Some(status)) => Err(ServiceError::Crashed { interface: self.interface.clone(), status }),
                ([true, ..], None) => Ok(()),
                _ => Err(os("waiting for the daemon")(io::ErrorKind::TimedOut.into())),
            };
        }
    }

    /// A descriptor that tells when the daemon ends, if there is one.
    pub fn pidfd(&self) -> io::Result<Option<OwnedFd>> {
        let daemon = self.daemon.as_ref().map(Pid::from_child);
        Ok(daemon.map(|pid| pidfd_open(pid, PidfdFlags::empty())).transpose()?)
    }

    /// How the daemon has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.daemon.as_mut()?.try_wait().ok().flatten()
    }

    /// Ends the daemon in such a way that it leaves what a successor may carry on with: it has no part in that.
    pub fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Ends the daemon, if it has not.
    pub fn end_daemon(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            end_child(daemon);
        }
    }
}

/// Tells a child to end, if it has not, waits a while, and then ends it.
pub fn end_child(mut child: Child) {
    let start = Instant::now();
    let mut told = false;
    while let Ok(None) = child.try_wait() {
        if !told {
            told = true;
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_made_a_daemon_crash_is_not_for_the_next_one() {
        let (soon, later) = (TRIAL / 10, TRIAL);
        for (status, taken, fit) in [
            (Signal::ABORT.as_raw(), None, true),
            (Signal::ABORT.as_raw(), Some(soon), false),
            (Signal::ABORT.as_raw(), Some(later), true),
            (Signal::KILL.as_raw(), Some(soon), true),
            // It has panicked: exit(101).
            (101 << 8, Some(soon), false),
            (101 << 8, None, true),
        ] {
            assert_eq!(is_fit(ExitStatus::from_raw(status), taken), fit, "{status} {taken:?}");
        }
    }
}

//! A guest: a host of the lab that runs a kernel of its own, whose WireGuard is the one that all others are measured by.
//!
//! It is an emulated machine (never a virtualised one: what may be had differs from machine to machine) with one cable, a TAP in
//! a [`Namespace`]. Its disk is what [`initrd`] packs, in memory. Nothing of it outlives the process.
//!
//! Commands go in by a port of its own and not by the network: each is a shell script, they may run side by side, and each is
//! answered with its output and exit status. What runs them in the guest, `serve.sh`, tells the form. A thread here reads the
//! answers and puts them where whoever asked finds them. A guest may be a whole Debian with systemd, too, where that is a service.

mod apt;
mod build;
mod configuration;
mod image;
mod initrd;
mod kernel;
mod sizes;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

pub use build::{Stage, build};
pub use image::{Image, Package};
pub use kernel::{Kernel, Series, Unknown};
pub use sizes::{Size, Sizes};

use crate::link::{next_number, v4, v6};
use crate::namespace::scratch_folder;
use crate::{Debian, Finished, LabError, Namespace, Port, Process, wait_for};

/// How long a guest may take to boot; on a machine with nothing else to do it is ready in 5 s.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// How long [`Guest::run`] waits for a script.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// Memory of a guest in MiB, and of one with systemd. Half of it is what its disk may take.
const MEMORY: u32 = 512;
const SYSTEM_MEMORY: u32 = 1024;

/// How many guests of this process run at once; who boots another waits. Emulated machines want processors: more of them than these
/// would be too late for what is timed in them. The two of the test that takes minutes leave one to the others.
const GUESTS_MAX: usize = 3;

/// The only interface of a guest, besides its loopback.
const INTERFACE: &str = "eth0";

/// What to boot.
#[derive(Clone, Debug)]
pub struct GuestSpec {
    /// The kernel.
    pub kernel: Kernel,
    /// Programs of this machine that it finds in its path, with their libraries.
    pub programs: Vec<PathBuf>,
    /// How many processors it has.
    pub processors: u32,
}

impl GuestSpec {
    /// One processor, and no programs besides `ip`, `wg`, `ping`, `iperf3`, `ethtool` and those of busybox.
    pub fn new(kernel: Kernel) -> GuestSpec {
        GuestSpec { kernel, programs: Vec::new(), processors: 1 }
    }

    /// The same with one more program of this machine.
    pub fn program(mut self, path: impl Into<PathBuf>) -> GuestSpec {
        self.programs.push(path.into());
        self
    }

    /// Boots it with its cable in `namespace`, and waits until it runs commands and both ends of the cable have addresses.
    ///
    /// It ends with the thread that boots it, if nothing ended it before. No more than three run at once, so that a thread that has
    /// one must not boot another.
    ///
    /// # Errors
    /// [`LabError::Missing`] without setup; [`LabError::Died`] with what its console said; or it took too long.
    pub fn boot(&self, namespace: &Namespace) -> Result<Guest, LabError> {
        self.boot_with(namespace, "", MEMORY, |image, initrd| initrd::write(image, &self.programs, initrd))
    }

    /// The same of a guest whose first process is systemd, as `debian` has it. It is ready when all that is started at boot has been.
    ///
    /// # Errors
    /// As [`GuestSpec::boot`].
    pub fn boot_system(&self, debian: &Debian, namespace: &Namespace) -> Result<Guest, LabError> {
        // What services say is to be seen when something fails.
        let append = " rdinit=/lab/init systemd.journald.forward_to_console=1";
        self.boot_with(namespace, append, SYSTEM_MEMORY, |image, initrd| {
            initrd::write_system(image, debian, &self.programs, initrd)
        })
    }

    fn boot_with(
        &self,
        namespace: &Namespace,
        append: &str,
        memory: u32,
        write: impl FnOnce(&Image, &Path) -> Result<(), LabError>,
    ) -> Result<Guest, LabError> {
        let image = self.kernel.image()?;
        // First, so that it is given back last.
        let place = Place::take();
        let folder = scratch_folder("a folder for a guest")?;
        let (initrd, socket) = (folder.path().join("initrd"), folder.path().join("control"));
        write(&image, &initrd)?;

        let number = next_number();
        let interface = format!("tap{number}");
        let host = Port { namespace: namespace.clone(), interface, v4: v4(number, 1), v6: v6(number, 1), switch: None };
        namespace.ip(&["tuntap", "add", "dev", &host.interface, "mode", "tap"])?;
        host.add_addresses(host.v4, host.v6)?;
        namespace.ip(&["link", "set", &host.interface, "up"])?;

        let mut command = namespace.command("qemu-system-x86_64");
        command
            // One thread for all processors: with several, a processor may run into code that another one is just patching, which no
            // real processor would.
            .args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", &self.processors.to_string()])
            .args(["-m", &memory.to_string()])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"])
            // The kernel's test of its timer fails now and then on an emulator that does not get to run in time.
            .args(["-append", &format!("console=ttyS0 quiet panic=-1 mitigations=off no_timer_check{append}")])
            .arg("-kernel")
            .arg(image.vmlinuz())
            .arg("-initrd")
            .arg(&initrd)
            .args(["-netdev", &format!("tap,id=net,ifname={},script=no,downscript=no", host.interface)])
            .args(["-device", "virtio-net-pci,netdev=net,romfile="])
            .args(["-chardev", &format!("socket,id=control,server=on,wait=on,path={}", socket.display())])
            .args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=control,name=control"]);
        let mut process = Process::spawn(&mut command)?;
        let control = wait_for("the control port of a guest", BOOT_LIMIT, || match process.status() {
            Some(status) => Err(process.died(status)),
            None => Ok(UnixStream::connect(&socket).ok()),
        })?;
        let answers = Arc::new(Mutex::new(Answers::default()));
        let reader = control.try_clone().map_err(LabError::io("the control port of a guest"))?;
        let come = Arc::clone(&answers);
        // It ends when the guest's end of the port is closed, at the latest with the guest.
        thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            while let Some(answer) = read_answer(&mut reader) {
                lock(&come).come.insert(answer.0, answer.1);
            }
            lock(&come).closed = true;
        });
        let guest = Guest {
            kernel: self.kernel,
            release: image.release,
            v4: v4(number, 2),
            v6: v6(number, 2),
            host,
            process: Mutex::new(process),
            control: Mutex::new(control),
            answers,
            next: AtomicU64::new(1),
            _folder: folder,
            _place: place,
        };
        guest.wait_for(0, "a guest to boot", BOOT_LIMIT).map_err(|failure| match failure {
            LabError::TimedOut { what, after } => {
                LabError::TimedOut { what: format!("{what}; its console says:\n{}", guest.console()), after }
            }
            other => other,
        })?;
        guest.run(&format!(
            "ip link set {INTERFACE} up && ip addr add {}/24 dev {INTERFACE} && ip addr add {}/64 dev {INTERFACE} nodad",
            guest.v4, guest.v6
        ))?;
        Ok(guest)
    }
}

/// A running guest. It may be asked from several threads. Dropping it ends it.
pub struct Guest {
    /// What it runs.
    pub kernel: Kernel,
    /// What `uname -r` says in it.
    pub release: String,
    /// Our end of the cable: the TAP, with its addresses.
    pub host: Port,
    /// The guest's IPv4 address on the cable.
    pub v4: Ipv4Addr,
    /// The guest's IPv6 address on the cable.
    pub v6: Ipv6Addr,
    process: Mutex<Process>,
    control: Mutex<UnixStream>,
    answers: Arc<Mutex<Answers>>,
    next: AtomicU64,
    _folder: TempDir,
    // The last field, since that is when the guest is gone.
    _place: Place,
}

/// One of the [`GUESTS_MAX`] places for guests.
///
/// Whoever holds one may wait for anything but another: a thread has one guest at a time, and where a test has two they are its two
/// threads', of which neither waits for the other before its guest is gone. So that places are always given back.
struct Place;

static PLACES: (Mutex<usize>, Condvar) = (Mutex::new(GUESTS_MAX), Condvar::new());

impl Place {
    /// Waits for a free one.
    fn take() -> Place {
        let (free, given_back) = &PLACES;
        let mut free = given_back.wait_while(lock(free), |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *lock(&PLACES.0) += 1;
        PLACES.1.notify_one();
    }
}

/// What has come from a guest and nobody has taken yet.
#[derive(Default)]
struct Answers {
    come: HashMap<u64, Answer>,
    closed: bool,
}

/// How a script ended.
struct Answer {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Guest {
    /// Boots a kernel with its cable in `namespace`; [`GuestSpec`] has more to choose from.
    ///
    /// # Errors
    /// As [`GuestSpec::boot`].
    pub fn boot(kernel: Kernel, namespace: &Namespace) -> Result<Guest, LabError> {
        GuestSpec::new(kernel).boot(namespace)
    }

    /// Runs a shell script that is expected to succeed, and takes its standard output. What it leaves running (`daemon &`) goes on.
    ///
    /// # Errors
    /// [`LabError::Failed`] on an exit status other than 0; it took longer than a minute; the guest has ended.
    pub fn run(&self, script: &str) -> Result<String, LabError> {
        Ok(self.attempt(script, RUN_LIMIT)?.checked()?.stdout)
    }

    /// Runs a shell script to its end; what that was is for the caller to judge.
    ///
    /// # Errors
    /// It took longer than `limit` (it runs on then), or the guest has ended.
    pub fn attempt(&self, script: &str, limit: Duration) -> Result<Finished, LabError> {
        self.start(script)?.finish(limit)
    }

    /// Starts a shell script and does not wait.
    ///
    /// # Errors
    /// The guest has ended.
    pub fn start(&self, script: &str) -> Result<Job<'_>, LabError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let line = format!("{id} {}\n", STANDARD.encode(script));
        let sent = lock(&self.control).write_all(line.as_bytes());
        match sent {
            Ok(()) => Ok(Job { guest: self, id, script: script.to_owned() }),
            Err(source) => match self.died() {
                Some(died) => Err(died),
                None => Err(LabError::Io { what: "the control port of a guest".to_owned(), source }),
            },
        }
    }

    /// Writes a file in the guest, readable by root only.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<(), LabError> {
        self.run(&format!("umask 077; echo {} | base64 -d > '{path}'", STANDARD.encode(bytes))).map(drop)
    }

    /// What its kernel and its first process have said.
    pub fn console(&self) -> String {
        lock(&self.process).log()
    }

    /// The error for a guest that is no more, if it is.
    fn died(&self) -> Option<LabError> {
        let mut process = lock(&self.process);
        process.status().map(|status| process.died(status))
    }

    fn wait_for(&self, id: u64, what: &str, limit: Duration) -> Result<Answer, LabError> {
        wait_for(what, limit, || {
            let (answer, closed) = {
                let mut answers = lock(&self.answers);
                (answers.come.remove(&id), answers.closed)
            };
            match answer {
                Some(answer) => Ok(Some(answer)),
                None if closed => match self.died() {
                    Some(died) => Err(died),
                    // It is about to end.
                    None => Ok(None),
                },
                None => Ok(None),
            }
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        lock(&self.process).stop();
        let console = self.console();
        if thread::panicking() && !console.trim().is_empty() {
            eprintln!("--- the console of Linux {} ---\n{}", self.release, console.trim());
        }
    }
}

/// A script that runs in a guest. Dropping it lets it run on.
#[must_use]
pub struct Job<'a> {
    guest: &'a Guest,
    id: u64,
    script: String,
}

impl Job<'_> {
    /// Waits for its end.
    ///
    /// # Errors
    /// As [`Guest::attempt`].
    pub fn finish(self, limit: Duration) -> Result<Finished, LabError> {
        let what = format!("`{}` in the guest", self.script);
        let answer = self.guest.wait_for(self.id, &what, limit)?;
        Ok(Finished {
            command: self.script,
            // As wait(2) encodes an exit status.
            status: ExitStatus::from_raw((answer.status & 0xff) << 8),
            stdout: answer.stdout,
            stderr: answer.stderr,
        })
    }
}

/// Reads one answer and whose it is; nothing when there will be no more. That the guest is ready is the answer to number 0.
fn read_answer(from: &mut impl BufRead) -> Option<(u64, Answer)> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|n| *n > 0)?;
    if line.starts_with("ready ") {
        return Some((0, Answer { status: 0, stdout: line, stderr: String::new() }));
    }
    let mut numbers = line.split_whitespace().map(str::parse::<u64>);
    let mut number = || numbers.next()?.ok();
    let (id, status, out, err) = (number()?, number()?, number()?, number()?);
    let mut text = |length: u64| {
        let mut bytes = Vec::new();
        let read = from.take(length).read_to_end(&mut bytes).ok()?;
        (read as u64 == length).then(|| String::from_utf8_lossy(&bytes).into_owned())
    };
    let (stdout, stderr) = (text(out)?, text(err)?);
    Some((id, Answer { status: i32::try_from(status).ok()?, stdout, stderr }))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_no_place_waits_for_one() {
        let mut places: Vec<Place> = (0..GUESTS_MAX).map(|_| Place::take()).collect();
        let (sender, receiver) = std::sync::mpsc::channel();
        let waiting = thread::spawn(move || {
            let place = Place::take();
            sender.send(()).unwrap();
            drop(place);
        });
        assert!(receiver.recv_timeout(Duration::from_millis(100)).is_err(), "there were more places");
        places.pop();
        receiver.recv_timeout(RUN_LIMIT).unwrap();
        waiting.join().unwrap();
        drop(places);
        assert_eq!(*lock(&PLACES.0), GUESTS_MAX);
    }

    #[test]
    fn reads_answers_in_a_row() {
        let mut bytes = "ready 6.1.0\n7 1 3 4\nab\nerr\n8 0 0 0\n9 0 5 0\nhal".as_bytes();
        assert_eq!(read_answer(&mut bytes).unwrap().0, 0);
        let (id, answer) = read_answer(&mut bytes).unwrap();
        assert_eq!((id, answer.status, &*answer.stdout, &*answer.stderr), (7, 1, "ab\n", "err\n"));
        assert_eq!(read_answer(&mut bytes).unwrap().0, 8);
        // The last one is cut short.
        assert!(read_answer(&mut bytes).is_none());
        assert!(read_answer(&mut "nonsense\n".as_bytes()).is_none());
    }
}

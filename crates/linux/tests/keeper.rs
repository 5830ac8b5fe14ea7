//! What a daemon leaves behind: kept by its steward, handed over, and gone when its time is over. Each case is a process of its own in a network
//! namespace of its own, which this program starts with the case's name. Forking the steward needs a process of one thread, so there is no test
//! harness here. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by it")]

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use linux::bpf::{Attached, Hook, Map};
use linux::clock::boot_nanos;
use linux::heir::{self, Heritage};
use linux::poll::{Signal, SignalFd};
use linux::steward::{self, Terms};
use linux::tun::{self, Offloads, Queue};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, kill_process, pidfd_getfd, pidfd_open};

/// How long anything may take that is to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a session lasts where that matters, and where it does not.
const SHORT: Duration = Duration::from_millis(1500);
const LONG: Duration = Duration::from_secs(180);

const CASES: [(&str, fn()); 17] = [
    ("a successor gets everything, and the keeper ends", a_successor_gets_everything),
    ("programs stay in their places, and change without a gap", programs_stay_in_their_places),
    ("what nobody asks for goes with its keys", what_nobody_asks_for_goes_with_its_keys),
    ("a deleted interface ends it", || over(LONG, |_| assert!(command("ip", &["link", "delete", "keep0"])))),
    ("SIGTERM ends it", || over(LONG, |daemon| kill_process(daemon.steward, rustix::process::Signal::TERM).unwrap())),
    ("without a session nothing is kept", without_a_session_nothing_is_kept),
    ("after a farewell nothing is kept", after_a_farewell_nothing_is_kept),
    ("a daemon that is not through its start leaves nothing", one_that_is_not_through_leaves_nothing),
    ("nobody but root is a successor", nobody_but_root_is_a_successor),
    ("a successor that fails leaves it as it was", a_successor_that_fails_leaves_it_as_it_was),
    ("a successor that dies leaves it to the next", a_successor_that_dies_leaves_it_to_the_next),
    ("a successor keeps its predecessor from ending", a_successor_keeps_its_predecessor_from_ending),
    ("a successor that goes lets its predecessor end", || over(LONG, end_in_the_middle)),
    ("who reads late gets it all", who_reads_late_gets_it_all),
    ("somebody else can keep it in between", somebody_else_can_keep_it_in_between),
    ("who has no use for it has it taken away", who_has_no_use_for_it_has_it_taken_away),
    ("a daemon has no say about what is not its own", a_daemon_has_no_say_about_what_is_not_its_own),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--case", name] => {
            // SAFETY: there is one thread, and no descriptor is concerned.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "a network namespace of its own");
            CASES.iter().find(|(case, _)| *case == name).expect("a case").1();
        }
        ["--daemon", kind, path] => daemon(kind, Path::new(path)),
        ["--stranger", who, path] => stranger(who, Path::new(path)),
        ["--list", ..] => println!("keeper: test"),
        _ => {
            let run = |(case, _): &(&'static str, fn())| {
                let child = Command::new("/proc/self/exe").args(["--case", case]).spawn().expect("run");
                (*case, child)
            };
            for (case, mut child) in CASES.iter().map(run).collect::<Vec<_>>() {
                assert!(child.wait().expect("wait").success(), "{case}");
            }
            println!("keeper: {} cases passed", CASES.len());
        }
    }
}

// ---- the daemon

const EPOCH_AT: usize = 32;
const CREATED_AT: usize = 24;
const SESSIONS: u32 = 8;
const LIVE: u32 = 5;
/// So many descriptors are kept where many are, besides the usual.
const MANY: usize = 900;

/// A map of the type array, with elements of so many bytes.
fn array(value: u32) -> OwnedFd {
    // The first fields of `union bpf_attr` for BPF_MAP_CREATE: type, sizes of key and value, elements.
    let mut attributes = [2u32, 4, value, SESSIONS, 0];
    bpf(0, &mut attributes)
}

/// A classifier that lets everything pass.
fn program() -> OwnedFd {
    // r0 = -1 (TC_ACT_UNSPEC); exit
    let code: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        code: u64,
        license: u64,
        log: [u64; 3],
    }
    let license = c"GPL";
    let mut attributes =
        Load { kind: 3, count: 2, code: code.as_ptr() as u64, license: license.as_ptr() as u64, log: [0; 3] };
    bpf(5, &mut attributes)
}

fn bpf<T>(command: i32, attributes: &mut T) -> OwnedFd {
    // SAFETY: the attributes are those of the command, as long as it is told, and what they point to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    assert!(fd >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
    // SAFETY: the call has made it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn daemon(kind: &str, path: &Path) {
    let _signals = SignalFd::new(&[Signal::Interrupt, Signal::Terminate]).unwrap();
    steward::start(true).unwrap();
    if ["fails", "succeeds"].contains(&kind) {
        return successor(kind, path);
    }
    let tun = tun::create("keep0", 2, Offloads::default()).unwrap();
    let (sessions, keys) = (array(64), array(72));
    let map = |fd: &OwnedFd| Map::from_fd(fd.try_clone().unwrap()).unwrap();
    let mut record = [0; 64];
    // One that has ended is not looked at, however young it is.
    record[CREATED_AT..][..8].copy_from_slice(&(boot_nanos() + (1 << 50)).to_ne_bytes());
    record[EPOCH_AT] = 2;
    map(&sessions).update(&0u32.to_ne_bytes(), &record).unwrap();
    record[CREATED_AT..][..8].copy_from_slice(&boot_nanos().to_ne_bytes());
    record[EPOCH_AT] = if kind == "without" { 2 } else { 3 };
    map(&sessions).update(&LIVE.to_ne_bytes(), &record).unwrap();
    map(&keys).update(&LIVE.to_ne_bytes(), &[7; 72]).unwrap();
    for (number, queue) in tun.queues.iter().enumerate() {
        steward::keep(&format!("{}{number}", steward::QUEUE), queue).unwrap();
    }
    steward::keep("sessions", &sessions).unwrap();
    steward::keep("keys", &keys).unwrap();
    if kind == "many" {
        (0..MANY).for_each(|number| steward::keep(&format!("map-{number}"), &keys).unwrap());
    }
    heir::await_successor(path).unwrap();
    let program = program();
    let attach = |hook, interface| Attached::new(program.as_fd(), hook, interface, tun.index);
    let places = [
        (Hook::FilterIngress, 1),
        (Hook::TcxIngress, 1),
        (Hook::FilterEgress, tun.index),
        (Hook::TcxEgress, tun.index),
    ];
    // TCX is of Linux 6.6.
    let attached: Vec<_> = places.into_iter().filter_map(|(hook, interface)| attach(hook, interface).ok()).collect();
    if kind == "intruder" {
        // What another interface sends is nobody's to seal.
        for hook in [Hook::FilterEgress, Hook::TcxEgress] {
            assert_eq!(attach(hook, 1).unwrap_err().raw_os_error(), Some(libc::EPERM));
        }
        // And a filter with another number is another tunnel's.
        let foreign = Attached::new(program.as_fd(), Hook::FilterIngress, 1, tun.index + 1);
        assert_eq!(foreign.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
    if kind != "unfinished" {
        heir::settle(None, Some(&terms(if kind == "short" { SHORT } else { LONG })));
    }
    if kind == "intruder" {
        // All has been said that may be.
        assert_eq!(steward::keep("queue-9", &keys).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(steward::is_whole(&terms(LONG)).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
    println!("{}", keys.as_raw_fd());
    if kind == "farewell" {
        steward::farewell();
        return drop(attached);
    }
    loop {
        std::thread::park();
    }
}

fn terms(life: Duration) -> Terms {
    let (epoch_at, created_at) = (EPOCH_AT as u32, CREATED_AT as u32);
    Terms { sessions: "sessions".to_owned(), keys: "keys".to_owned(), epoch_at, created_at, life }
}

/// One that takes over what it finds, or fails before it is through.
fn successor(kind: &str, path: &Path) {
    let mut heritage = Heritage::find(path).unwrap().expect("somebody waits for us");
    for (name, fd) in &heritage.kept {
        steward::keep(name, fd).unwrap();
    }
    heir::await_successor(path).unwrap();
    let places = std::mem::take(&mut heritage.places);
    if kind == "fails" {
        let (_, keys) = heritage.kept.iter().find(|(name, _)| name == "keys").unwrap();
        println!("{}", keys.as_raw_fd());
        std::io::stdin().read_line(&mut String::new()).unwrap();
        return drop((places, heritage));
    }
    let keys = heritage.remove("keys").unwrap();
    heir::settle(Some(heritage), Some(&terms(LONG)));
    println!("{}", keys.as_raw_fd());
    loop {
        std::thread::park();
    }
}

/// A daemon that runs, and what the test has of it.
struct Daemon {
    child: Child,
    steward: Pid,
    end: OwnedFd,
    keys: Map,
    path: PathBuf,
    folder: Rc<tempfile::TempDir>,
}

impl Daemon {
    fn start(kind: &str) -> Daemon {
        let folder = Rc::new(tempfile::tempdir().unwrap());
        Daemon::start_in(kind, folder)
    }

    /// One that finds what this one has left.
    fn next(&self, kind: &str) -> Daemon {
        Daemon::start_in(kind, self.folder.clone())
    }

    fn start_in(kind: &str, folder: Rc<tempfile::TempDir>) -> Daemon {
        let path = folder.path().join("keep0.heir");
        let mut command = Command::new("/proc/self/exe");
        command.args(["--daemon", kind]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let pid = Pid::from_child(&child);
        let keys: i32 = line.trim().parse().expect("the daemon's descriptor");
        let (daemon, children) = (pidfd_open(pid, PidfdFlags::empty()), format!("/proc/{0}/task/{0}/children", pid));
        let keys = pidfd_getfd(daemon.unwrap(), keys, PidfdGetfdFlags::empty()).unwrap();
        let steward = std::fs::read_to_string(children).unwrap().trim().parse().expect("one child, the steward");
        let steward = Pid::from_raw(steward).unwrap();
        let end = pidfd_open(steward, PidfdFlags::empty()).unwrap();
        Daemon { child, steward, end, keys: Map::from_fd(keys).unwrap(), path, folder }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn heritage(&self) -> Heritage {
        Heritage::find(&self.path).unwrap().expect("somebody waits for us")
    }

    fn keeper_lives(&self) -> bool {
        let mut fds = [rustix::event::PollFd::new(&self.end, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default())).unwrap() == 0
    }

    fn keys_are_there(&self) -> bool {
        let mut value = [0; 72];
        self.keys.lookup(&LIVE.to_ne_bytes(), &mut value).unwrap();
        value == [7; 72]
    }
}

// ---- the cases

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn command(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).stderr(Stdio::null()).stdout(Stdio::null()).status().unwrap().success()
}

fn output(program: &str, arguments: &[&str]) -> String {
    String::from_utf8(Command::new(program).args(arguments).output().unwrap().stdout).unwrap()
}

fn is_there() -> bool {
    command("ip", &["link", "show", "keep0"])
}

/// The daemon's, and others' on the way in.
fn filters() -> String {
    [("lo", "ingress"), ("keep0", "egress")]
        .map(|(device, side)| output("tc", &["filter", "show", "dev", device, side]))
        .concat()
}

/// All that was to go is gone.
fn is_cleared(daemon: &Daemon) {
    wait_until("the keeper has ended", || !daemon.keeper_lives());
    wait_until("the interface has gone with the last descriptor", || !is_there());
    assert!(!daemon.path.exists() && filters().is_empty(), "{}", filters());
    assert!(!output("tc", &["qdisc", "show", "dev", "lo"]).contains("clsact"));
    assert!(Heritage::find(&daemon.path).unwrap().is_none());
}

fn over(life: Duration, end: impl FnOnce(&Daemon)) {
    let mut daemon = Daemon::start(if life == SHORT { "short" } else { "long" });
    daemon.kill();
    // It is kept, for whoever may come.
    drop(daemon.heritage());
    assert!(daemon.keeper_lives() && is_there() && daemon.keys_are_there());
    end(&daemon);
    is_cleared(&daemon);
    assert!(!daemon.keys_are_there(), "they are overwritten");
}

fn a_successor_gets_everything() {
    let mut daemon = Daemon::start("long");
    daemon.kill();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&daemon.path), 0o600);
    // One that comes and goes changes nothing.
    drop(daemon.heritage());
    let mut heritage = daemon.heritage();
    assert!(heritage.is_of_here().unwrap());
    let queues = heritage.queues();
    assert_eq!(queues.len(), 2);
    let map = Map::from_fd(heritage.remove("sessions").unwrap()).unwrap();
    let mut record = [0; 64];
    map.lookup(&LIVE.to_ne_bytes(), &mut record).unwrap();
    assert_eq!(record[EPOCH_AT], 3);
    assert!(heritage.remove("keys").is_some() && heritage.kept.is_empty());
    assert!(daemon.keeper_lives());
    heir::settle(Some(heritage), None);
    wait_until("the keeper has ended", || !daemon.keeper_lives());
    assert!(is_there() && daemon.keys_are_there());
    for queue in queues {
        assert_eq!(Queue::from(queue).name().unwrap(), "keep0");
    }
    wait_until("the interface has gone with the last descriptor", || !is_there());
}

fn programs_stay_in_their_places() {
    let mut daemon = Daemon::start("long");
    daemon.kill();
    let mut heritage = daemon.heritage();
    assert_eq!(filters().matches("direct-action").count(), 2, "{}", filters());
    let mut places = std::mem::take(&mut heritage.places);
    assert!([2, 4].contains(&places.len()));
    let (other, _queues) = (program(), heritage.queues());
    let before = filters();
    for place in &mut places {
        place.replace(other.as_fd()).unwrap();
    }
    let after = filters();
    assert_eq!(after.matches("direct-action").count(), 2, "{after}");
    assert_ne!(before, after, "it is another program");
    heir::settle(Some(heritage), None);
    wait_until("the keeper has ended", || !daemon.keeper_lives());
    // They are ours now, and the discipline with them.
    assert_eq!(filters(), after);
    drop(places);
    assert_eq!(filters(), "");
    assert!(!output("tc", &["qdisc", "show", "dev", "lo"]).contains("clsact"));
}

fn what_nobody_asks_for_goes_with_its_keys() {
    let start = boot_nanos();
    over(SHORT, |daemon| {
        wait_until("the last session is over", || !daemon.keeper_lives());
        assert!(boot_nanos() - start >= SHORT.as_nanos() as u64, "it was too early");
    });
}

fn without_a_session_nothing_is_kept() {
    let mut daemon = Daemon::start("without");
    daemon.kill();
    is_cleared(&daemon);
    assert!(!daemon.keys_are_there());
}

fn after_a_farewell_nothing_is_kept() {
    let mut daemon = Daemon::start("farewell");
    assert!(daemon.child.wait().unwrap().success());
    is_cleared(&daemon);
}

fn one_that_is_not_through_leaves_nothing() {
    let mut daemon = Daemon::start("unfinished");
    daemon.kill();
    is_cleared(&daemon);
}

fn nobody_but_root_is_a_successor() {
    let mut daemon = Daemon::start("long");
    daemon.kill();
    for (path, mode) in [(daemon.path.parent().unwrap(), 0o755), (&daemon.path, 0o666)] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    for who in ["of another user", "without a privilege"] {
        let told = Command::new("/proc/self/exe").args(["--stranger", who]).arg(&daemon.path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&told.stdout), "nothing\n", "{told:?}");
    }
    drop(daemon.heritage());
}

fn stranger(who: &str, path: &Path) {
    // It may show a socket, too, only that this one shows nothing.
    let socket = asked_with(path, who == "of another user");
    let found = socket.and_then(|socket| Heritage::receive(socket).expect("it may connect"));
    println!("{}", if found.is_some() { "everything" } else { "nothing" });
}

/// Asks for what was left, by hand.
fn asked_with(path: &Path, is_marked: bool) -> Option<OwnedFd> {
    use rustix::net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType,
    };
    let proof = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).unwrap();
    let one = 1i32;
    if is_marked {
        // SAFETY: the kernel reads the four bytes of `one`.
        let done = unsafe {
            libc::setsockopt(proof.as_raw_fd(), libc::SOL_SOCKET, libc::SO_DEBUG, (&raw const one).cast(), 4)
        };
        assert_eq!(done, 0);
        if std::env::args().any(|argument| argument == "--stranger") {
            // SAFETY: it touches no memory.
            assert_eq!(unsafe { libc::setresuid(65534, 65534, 65534) }, 0);
        }
    } else {
        linux::capabilities::keep_only(linux::capabilities::CapabilitySet::empty()).unwrap();
        // SAFETY: as above.
        let done = unsafe {
            libc::setsockopt(proof.as_raw_fd(), libc::SOL_SOCKET, libc::SO_DEBUG, (&raw const one).cast(), 4)
        };
        assert_eq!(done, -1, "this takes a privilege");
    }
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let proof = [proof.as_fd()];
    assert!(beside.push(SendAncillaryMessage::ScmRights(&proof)));
    let parts = [std::io::IoSlice::new(b"proof")];
    rustix::net::sendmsg(&socket, &parts, &mut beside, SendFlags::NOSIGNAL).unwrap();
    Some(socket)
}

fn a_successor_that_fails_leaves_it_as_it_was() {
    let mut daemon = Daemon::start("long");
    daemon.kill();
    let before = filters();
    assert_eq!(before.matches("direct-action").count(), 2, "{before}");
    for _ in 0..2 {
        let mut next = daemon.next("fails");
        drop(next.child.stdin.take());
        assert!(next.child.wait().unwrap().success());
        wait_until("its steward has ended", || !next.keeper_lives());
    }
    assert!(daemon.keeper_lives() && daemon.keys_are_there());
    assert_eq!(filters(), before);
    let files = std::fs::read_dir(daemon.path.parent().unwrap()).unwrap();
    assert_eq!(files.map(|file| file.unwrap().path()).collect::<Vec<_>>(), [daemon.path.clone()]);
    let places = daemon.heritage().places.len();
    assert!([2, 4].contains(&places), "{places}");
}

fn a_successor_that_dies_leaves_it_to_the_next() {
    let mut daemon = Daemon::start("long");
    daemon.kill();
    let before = filters();
    let mut next = daemon.next("succeeds");
    wait_until("the first keeper has ended", || !daemon.keeper_lives());
    next.kill();
    assert_eq!(next.heritage().queues().len(), 2);
    assert_eq!(filters(), before);
    kill_process(next.steward, rustix::process::Signal::TERM).unwrap();
    is_cleared(&next);
    assert!(!daemon.keys_are_there(), "they are overwritten");
}

fn a_successor_keeps_its_predecessor_from_ending() {
    let mut daemon = Daemon::start("long");
    daemon.kill();
    let (heritage, before) = (daemon.heritage(), filters());
    kill_process(daemon.steward, rustix::process::Signal::TERM).unwrap();
    // It takes the signal: it is pending no more.
    let status = format!("/proc/{}/status", daemon.steward);
    let pending = || std::fs::read_to_string(&status).unwrap().lines().any(|line| line == "ShdPnd:\t0000000000004000");
    wait_until("the signal is pending, and stays so", pending);
    std::thread::sleep(Duration::from_millis(200));
    assert!(daemon.keeper_lives() && daemon.keys_are_there());
    assert_eq!(filters(), before);
    let copies = heritage.copies().unwrap();
    heritage.pass_on();
    wait_until("the keeper has ended", || !daemon.keeper_lives());
    assert!(is_there() && daemon.keys_are_there());
    assert_eq!(filters(), before);
    heir::discard(&copies, &terms(LONG)).unwrap();
    drop(copies);
    assert_eq!(filters(), "");
    assert!(!daemon.keys_are_there(), "they are overwritten");
}

fn end_in_the_middle(daemon: &Daemon) {
    let heritage = daemon.heritage();
    kill_process(daemon.steward, rustix::process::Signal::TERM).unwrap();
    drop(heritage);
}

fn who_reads_late_gets_it_all() {
    let mut daemon = Daemon::start("many");
    daemon.kill();
    let socket = asked_with(&daemon.path, true).unwrap();
    // As long as whoever asked has something else to do.
    std::thread::sleep(Duration::from_millis(300));
    let heritage = Heritage::receive(socket).unwrap().expect("all of it");
    assert_eq!(heritage.kept.len(), MANY + 4);
}

fn somebody_else_can_keep_it_in_between() {
    let mut daemon = Daemon::start("long");
    daemon.kill();
    let (heritage, before) = (daemon.heritage(), filters());
    let copies = heritage.copies().unwrap();
    heritage.pass_on();
    wait_until("the keeper has ended", || !daemon.keeper_lives());
    assert!(is_there() && daemon.keys_are_there() && daemon.path.exists());
    assert_eq!(filters(), before);
    // One that fails, and one that does not.
    let (theirs, ours) = heir::hand_on(&copies).unwrap();
    drop(Heritage::receive(theirs).unwrap().expect("all of it"));
    assert!(!heir::is_taken(&ours, PATIENCE));
    assert_eq!(filters(), before);
    let (theirs, ours) = heir::hand_on(&copies).unwrap();
    let mut heritage = Heritage::receive(theirs).unwrap().expect("all of it");
    assert!(heritage.is_of_here().unwrap() && heritage.queues().len() == 2);
    let places = std::mem::take(&mut heritage.places);
    heir::settle(Some(heritage), None);
    assert!(heir::is_taken(&ours, PATIENCE));
    drop(copies);
    assert_eq!(filters().matches("direct-action").count(), 1, "the interface has gone, and its filter with it");
    drop(places);
    assert_eq!(filters(), "");
    assert!(!output("tc", &["qdisc", "show", "dev", "lo"]).contains("clsact"));
}

fn who_has_no_use_for_it_has_it_taken_away() {
    let mut daemon = Daemon::start("long");
    daemon.kill();
    let mut heritage = daemon.heritage();
    let queues = heritage.queues();
    heir::decline(Some(heritage));
    assert!(filters().is_empty() && !daemon.keys_are_there(), "{}", filters());
    assert!(is_there(), "the interface has a use");
    drop(queues);
    is_cleared(&daemon);
}

fn a_daemon_has_no_say_about_what_is_not_its_own() {
    let mut daemon = Daemon::start("intruder");
    daemon.kill();
    drop(daemon.heritage());
}

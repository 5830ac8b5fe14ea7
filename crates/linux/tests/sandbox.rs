//! What is forbidden is forbidden, and what is needed goes on: tried in processes of their own, which this program starts once
//! per case, with the case's name. Forking the steward needs a process of one thread, so there is no test harness here. Needs root.

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use linux::capabilities::{self, CapabilitySet};
use linux::icmp::RawSockets;
use linux::link::Monitor;
use linux::sandbox::{self, Role};
use linux::tun::{self, Offloads};
use linux::udp::{SocketGroup, UdpOptions};
use linux::unix::Listener;
use linux::{memory, netns, process, steward};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--case", role, case] => run_case(role, case),
        ["--list", ..] => println!("sandbox: test"),
        _ => {
            what_an_intruder_would_call_ends_the_process();
            what_programs_take_is_allowed_where_they_are();
            what_is_not_listed_does_not_exist();
            what_is_needed_goes_on();
            a_refusal_is_no_end();
            an_end_is_told();
            privileges_are_the_stewards();
            the_steward_removes_one_socket_or_none();
            one_family_of_raw_sockets_is_enough();
            what_a_killed_daemon_leaves_behind_is_removed();
            a_steward_that_cannot_settle_is_an_error_at_the_start();
            let cases = ["killed", "stopped"].map(|case| std::thread::spawn(move || a_lost_steward_is_told_once(case)));
            cases.into_iter().for_each(|case| case.join().expect("case"));
            println!("sandbox: 11 cases passed");
        }
    }
}

fn case(role: &str, name: &str) -> Output {
    Command::new("/proc/self/exe").args(["--case", role, name]).env_remove("RUST_BACKTRACE").output().expect("run")
}

fn run_case(role: &str, case: &str) {
    if role == "steward-and-daemon" {
        return with_a_steward(case);
    }
    if role == "entrusts" {
        return entrusts(case);
    }
    if role == "killed" {
        return is_killed(case);
    }
    if role == "unsettled" {
        return cannot_settle(case);
    }
    if role == "loses" {
        return loses(case);
    }
    if role == "without IPv4" {
        return sends_without_v4();
    }
    if role == "refused" {
        refuse_seccomp();
        sandbox::enter(Role::Daemon { maps: false });
        return println!("{}", if forbidden(case).is_ok() { "done" } else { "forbidden" });
    }
    if role == "daemon with maps" || role == "steward with programs" {
        sandbox::enter(match role {
            "daemon with maps" => Role::Daemon { maps: true },
            _ => Role::Steward { programs: true },
        });
        let command: libc::c_int = case.parse().expect("a number");
        // SAFETY: without attributes the kernel looks at no memory.
        let result = check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::null::<u8>(), 0) });
        return println!("{}", result.map_or_else(|error| error.raw_os_error().unwrap_or(-1), |()| 0));
    }
    sandbox::enter(if role == "daemon" { Role::Daemon { maps: false } } else { Role::Steward { programs: false } });
    let result = match case {
        "needs" => needs(),
        "panic" => panic!("a reason to end"),
        "overflow" => std::process::exit(overflow(1).count_ones() as i32),
        _ => forbidden(case),
    };
    match result {
        Ok(()) => println!("done"),
        Err(error) => println!("{}", error.raw_os_error().unwrap_or(-1)),
    }
}

fn check(value: i64) -> io::Result<()> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Tries a system call; those that need memory get none, which is an error of another kind.
fn forbidden(case: &str) -> io::Result<()> {
    let null = std::ptr::null::<u8>();
    // SAFETY: it touches no memory of ours.
    let socket = |family: i32, kind: i32| check(unsafe { libc::socket(family, kind, 0) }.into());
    // SAFETY: with all arguments zero none of these calls touches memory.
    let call = |number| check(unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) });
    match case {
        // SAFETY: each pointer is to a list or a text that ends with a zero.
        "execve" => check(unsafe { libc::execve(c"/bin/true".as_ptr(), &null.cast(), &null.cast()) }.into()),
        // SAFETY: it touches no memory of ours.
        "ptrace" => check(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }),
        // SAFETY: it touches no memory of ours.
        "setns" => check(unsafe { libc::setns(0, libc::CLONE_NEWNET) }.into()),
        // SAFETY: it touches no memory of ours.
        "setns-mount" => check(unsafe { libc::setns(0, libc::CLONE_NEWNS) }.into()),
        "process_vm_readv" => call(libc::SYS_process_vm_readv),
        "mount" => call(libc::SYS_mount),
        "bpf" => call(libc::SYS_bpf),
        "unshare" => call(libc::SYS_unshare),
        "capset" => call(libc::SYS_capset),
        "io_uring" => call(libc::SYS_io_uring_setup),
        "open" => File::open("/etc/hostname").map(drop),
        "unix" => socket(libc::AF_UNIX, libc::SOCK_DGRAM),
        "unlink" => std::fs::remove_file("/nonexistent"),
        "connect" => UdpSocket::bind("127.0.0.1:0")?.connect("127.0.0.1:9"),
        "packet" => socket(libc::AF_PACKET, libc::SOCK_RAW),
        "raw" => socket(libc::AF_INET, libc::SOCK_RAW),
        "tcp" => socket(libc::AF_INET, libc::SOCK_STREAM),
        "udp" => socket(libc::AF_INET, libc::SOCK_DGRAM),
        "netlink" => socket(libc::AF_NETLINK, libc::SOCK_RAW),
        // SAFETY: the child, if there were one, would end like its parent.
        "fork" => check(unsafe { libc::fork() }.into()),
        // SAFETY: signal 0 only asks whether there is such a process.
        "kill" => check(unsafe { libc::kill(libc::getppid(), 0) }.into()),
        // SAFETY: as there.
        "tgkill" => check(unsafe { libc::syscall(libc::SYS_tgkill, 1, 1, 0) }),
        // SAFETY: it touches no memory of ours.
        "dumpable" => check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) }.into()),
        // SAFETY: descriptor 0 is no TUN, and the null pointer would be refused.
        "tun" => check(unsafe { libc::ioctl(0, libc::TUNSETIFF as _, null) }.into()),
        "broadcast" => {
            let on = 1i32;
            let (option, len) = ((&raw const on).cast(), 4);
            // SAFETY: the option is an int, of that length, that outlives the call.
            check(unsafe { libc::setsockopt(0, libc::SOL_SOCKET, libc::SO_BROADCAST, option, len) }.into())
        }
        "code" => {
            let (rights, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: a new mapping, at a place that the kernel chooses.
            match unsafe { libc::mmap(std::ptr::null_mut(), 4096, rights, flags, -1, 0) } {
                libc::MAP_FAILED => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        }
        other => panic!("no case {other}"),
    }
}

fn what_an_intruder_would_call_ends_the_process() {
    let fatal = ["execve", "ptrace", "process_vm_readv", "mount", "bpf", "unshare", "capset", "io_uring"];
    for (role, more) in [("daemon", Some("setns")), ("steward", None)] {
        for call in fatal.into_iter().chain(more) {
            let output = case(role, call);
            assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{role} {call}: {output:?}");
        }
    }
}

/// Of bpf(2) each has the commands that it has use for, and all others end it.
fn what_programs_take_is_allowed_where_they_are() {
    // To look up, change, delete and list elements, to run a program, and to change that of a link. To make a link; and, for what a daemon leaves, to
    // look elements up and change them, and to look at a map.
    for (role, allowed) in
        [("daemon with maps", [1, 2, 3, 4, 10, 29].as_slice()), ("steward with programs", &[1, 2, 15, 28])]
    {
        for command in 0..40 {
            let output = case(role, &command.to_string());
            let expected = (!allowed.contains(&command)).then_some(libc::SIGSYS);
            assert_eq!(output.status.signal(), expected, "{role} {command}: {output:?}");
        }
    }
}

fn what_is_not_listed_does_not_exist() {
    let both = ["open", "connect", "packet", "tcp", "unix", "fork", "kill", "tgkill", "dumpable", "tun", "code"];
    let daemon = ["unlink", "raw", "netlink"];
    let steward = ["udp", "setns-mount", "broadcast"];
    for (role, more) in [("daemon", daemon), ("steward", steward)] {
        for call in both.into_iter().chain(more).filter(|call| (role, *call) != ("steward", "connect")) {
            let output = case(role, call);
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(said.trim(), libc::ENOSYS.to_string(), "{role} {call}: {output:?}");
        }
    }
}

/// What a daemon does all its life: memory, threads, waiting, datagrams.
fn needs() -> io::Result<()> {
    let group = SocketGroup::bind(0, 2, &UdpOptions::default()).map_err(io::Error::other)?;
    let epoll = linux::poll::Epoll::new()?;
    epoll.add(&group.control[0], 1, linux::poll::Interest::READ)?;
    let timer = linux::poll::BootTimer::new();
    assert!(timer.is_err(), "the daemon has its timer before");
    let thread = std::thread::Builder::new().name("client".into()).spawn(|| {
        memory::hide_stack();
        (0..200).map(|i| vec![7u8; i * 4096]).map(|v| v.len()).sum::<usize>()
    })?;
    assert_eq!(thread.join().expect("no panic"), 200 * 199 / 2 * 4096);
    UdpSocket::bind("127.0.0.1:0")?.send_to(b"hi", ("127.0.0.1", group.port))?;
    let mut events = [linux::poll::Event::EMPTY; 4];
    let count = epoll.wait(&mut events, Some(std::time::Duration::from_secs(20)))?.len();
    let (mut buffer, mut received) = ([0; 64], [linux::udp::Received::default(); 1]);
    let got = group.control[0].recv(&mut [&mut buffer[..]], &mut received)?;
    assert_eq!((count, got, &buffer[..2]), (1, 1, &b"hi"[..]));
    Ok(())
}

fn what_is_needed_goes_on() {
    let output = case("daemon", "needs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n", "{output:?}");
}

/// As a container's policy might.
fn refuse_seccomp() {
    use seccompiler::{SeccompAction, SeccompFilter, TargetArch, apply_filter};
    let rules = [(libc::SYS_seccomp, Vec::new())].into_iter().collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("architecture");
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).expect("filter");
    apply_filter(&seccompiler::BpfProgram::try_from(filter).expect("program")).expect("set");
}

fn a_refusal_is_no_end() {
    let output = case("refused", "open");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n", "{output:?}");
}

#[allow(unconditional_recursion)]
fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    overflow(frame[7] + 1) + frame[(depth % 512) as usize]
}

/// Whoever ends badly says so, for all that is forbidden.
fn an_end_is_told() {
    let output = case("daemon", "panic");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("a reason to end"), "{output:?}");
    let output = case("daemon", "overflow");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    assert!(said.contains("overflowed its stack"), "{output:?}");
}

/// In a process that has no rights left: whatever still works, the steward did.
fn with_a_steward(socket_path: &str) {
    netns::unshare().expect("netns");
    steward::start(false).expect("steward");
    let here = netns::current().expect("netns");
    process::no_dump().expect("no dump");
    let tun = tun::create("wl%d", 1, Offloads::ALL).expect("tun");
    let listener = Listener::bind(socket_path.as_ref()).expect("listener");
    steward::entrust(listener.path(), false).expect("entrusted");
    // Another namespace, with the interface in it.
    let there = std::thread::spawn(|| {
        netns::unshare().expect("netns");
        netns::current().expect("netns")
    });
    let there = there.join().expect("no panic");
    let away = format!("/proc/{}/fd/{}", std::process::id(), there.as_raw_fd());
    let status = Command::new("ip").args(["link", "set", &tun.name, "netns", &away]).status().expect("ip");
    assert!(status.success());

    capabilities::keep_only(CapabilitySet::empty()).expect("capabilities");
    sandbox::enter(Role::Daemon { maps: false });

    let mut monitor = Monitor::follow(&tun.queues[0], here.as_fd()).expect("follow");
    assert_eq!(monitor.known().name, tun.name);
    let index = monitor.index();
    monitor.set_gso_max(index, 40_000, 20).expect("super-packets");
    assert!(monitor.set_mtu(index, 1400).is_err(), "more than what the steward is for");
    assert!(monitor.set_txqueuelen(index, 77).is_err(), "likewise");
    assert_eq!(monitor.next(), None);
    use std::os::fd::AsFd;
    RawSockets::open_in(there.as_fd()).expect("raw sockets there");
    RawSockets::open_in(here.as_fd()).expect("raw sockets here");
    let group = SocketGroup::bind(7, 1, &UdpOptions { mark: 5, ..UdpOptions::default() }).expect("a privileged port");
    group.set_mark(6).expect("mark");
    group.set_mark(0).expect("no mark");
    assert_eq!(group.port, 7);
    // More than the system's limit (SO_RCVBUF counts twice).
    let buffer = rustix::net::sockopt::socket_recv_buffer_size(&group.control[0]).expect("size");
    assert_eq!(buffer, 2 * (7 << 20));
    drop(listener);
    println!("done");
}

fn privileges_are_the_stewards() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("wl.sock");
    let output = case("steward-and-daemon", path.to_str().expect("path"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n", "{output:?}");
    assert!(!path.exists());
}

/// Gives the steward something to remove first, and then what an intruder would have it remove.
fn entrusts(first: &str) {
    let folder = tempfile::tempdir().expect("folder");
    let (file, path) = (folder.path().join("file"), folder.path().join("wl.sock"));
    std::fs::write(&file, "kept").expect("file");
    steward::start(false).expect("steward");
    let listener = Listener::bind(&path).expect("listener");
    let what = match first {
        "nothing" => None,
        "a file" => Some(file.as_path()),
        _ => listener.path(),
    };
    let entrusted = steward::entrust(what, false);
    assert_eq!(
        entrusted.map_err(|error| error.raw_os_error()).err(),
        (first == "a file").then_some(Some(libc::ENOTSOCK))
    );
    let another = folder.path().join("another.sock");
    let _another = std::os::unix::net::UnixListener::bind(&another).expect("socket");
    for second in [Some(file.as_path()), Some(&another), Some(&path), None] {
        let error = steward::entrust(second, false).expect_err("a second time");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{second:?}");
    }
    drop(listener);
    assert!(file.exists() && another.exists());
    println!("done");
}

fn the_steward_removes_one_socket_or_none() {
    for first in ["nothing", "a file", "a socket"] {
        let output = case("entrusts", first);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n", "{first}: {output:?}");
    }
}

fn is_killed(path: &str) {
    steward::start(false).expect("steward");
    let listener = Listener::bind(path.as_ref()).expect("listener");
    steward::entrust(listener.path(), false).expect("entrusted");
    println!("listens");
    // SAFETY: it sends a signal, to our parent or to ourselves.
    check(unsafe { libc::kill(libc::getpid(), libc::SIGKILL) }.into()).expect("killed");
}

/// Waits for something that takes a moment.
fn wait_until(what: &str, so: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !so() {
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn what_a_killed_daemon_leaves_behind_is_removed() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("wl.sock");
    let output = case("killed", path.to_str().expect("path"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "listens\n", "{output:?}");
    assert_eq!(output.status.signal(), Some(libc::SIGKILL), "{output:?}");
    wait_until("the socket's file to go", || !path.exists());
}

/// Where there is no `/proc`.
fn cannot_settle(folder: &str) {
    std::os::unix::fs::chroot(folder).expect("chroot");
    let error = steward::start(false).expect_err("a steward that has settled");
    println!("{}", error.raw_os_error().unwrap_or(-1));
}

fn a_steward_that_cannot_settle_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().expect("folder");
    let output = case("unsettled", folder.path().to_str().expect("path"));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), libc::ENOENT.to_string(), "{output:?}");
}

/// Prints what is logged as an error.
struct Print;

impl log::Log for Print {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        println!("logged: {}", record.args());
    }

    fn flush(&self) {}
}

/// Its steward ends, or answers too late.
fn loses(how: &str) {
    use rustix::process::{Pid, Signal, kill_process};
    use std::os::fd::AsFd;
    log::set_logger(&Print).expect("logger");
    log::set_max_level(log::LevelFilter::Error);
    steward::start(false).expect("steward");
    let pid = std::process::id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
    let steward = Pid::from_raw(children.trim().parse().expect("one child")).expect("a process");
    kill_process(steward, if how == "killed" { Signal::KILL } else { Signal::STOP }).expect("signal");
    let here = netns::current().expect("netns");
    let ask = || match RawSockets::open_in(here.as_fd()) {
        Ok(_) => println!("answered"),
        Err(error) => println!("{:?}: {error}", error.kind()),
    };
    ask();
    if how == "stopped" {
        kill_process(steward, Signal::CONT).expect("signal");
        // It answers now, to what nobody waits for any longer.
    }
    ask();
}

fn a_lost_steward_is_told_once(how: &str) {
    let output = case("loses", how);
    let said = String::from_utf8_lossy(&output.stdout);
    let [logged, first, second] = said.lines().collect::<Vec<_>>()[..] else { panic!("{how}: {output:?}") };
    assert!(logged.starts_with("logged: the steward"), "{how}: {said}");
    assert_eq!((first, first.split(':').next()), (second, Some("BrokenPipe")), "{how}: {said}");
}

/// As where raw sockets of one family are refused.
fn sends_without_v4() {
    use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};
    use std::os::fd::AsFd;
    netns::unshare().expect("netns");
    Monitor::open(1).expect("lo").set_up(1, true).expect("up");
    let here = netns::current().expect("netns");
    let v4 = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, libc::AF_INET as u64).expect("v4");
    let rules = [(libc::SYS_socket, vec![SeccompRule::new(vec![v4]).expect("rule")])].into_iter().collect();
    let arch = std::env::consts::ARCH.try_into().expect("architecture");
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).expect("filter");
    seccompiler::apply_filter(&seccompiler::BpfProgram::try_from(filter).expect("program")).expect("set");
    // An error about nothing.
    let (mut packet, to) = ([0; 48], std::net::Ipv6Addr::LOCALHOST);
    (packet[0], packet[5], packet[6], packet[7], packet[40]) = (0x60, 8, 58, 64, 1);
    packet[24..40].copy_from_slice(&to.octets());
    linux::icmp::send_in(here.as_fd(), &packet, to.into()).expect("sent once");
    let raw = RawSockets::open_in(here.as_fd()).expect("raw sockets of IPv6");
    raw.send(&packet, to.into()).expect("sent");
    let v4 = std::net::Ipv4Addr::LOCALHOST.into();
    assert_eq!(raw.send(&packet, v4).expect_err("none").kind(), io::ErrorKind::Unsupported);
    println!("done");
}

fn one_family_of_raw_sockets_is_enough() {
    let output = case("without IPv4", "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n", "{output:?}");
}

//! Going to the background, seen from outside: what the foreground process answers, and what is left running.
//!
//! Forking needs a process of one thread, so there is no test harness here. The program runs itself once per case, with the case's name.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output, Stdio};

use linux::process::{self, daemonise};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--case", case, socket] => run_case(case, socket),
        // How test runners ask for the names.
        ["--list", ..] => println!("daemonise: test"),
        _ => {
            ready_means_zero_and_a_daemon();
            failure_means_one_and_its_message();
            death_means_one();
            silence_means_one();
            println!("daemonise: 4 cases passed");
        }
    }
}

fn run_case(case: &str, socket: &str) {
    let readiness = daemonise().expect("daemonise");
    match case {
        "ready" => {
            let listener = UnixListener::bind(socket).expect("bind");
            readiness.ready(process::Output::Discard).expect("ready");
            println!("this goes nowhere");
            let (mut stream, _) = listener.accept().expect("accept");
            let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
            let directory = std::env::current_dir().expect("cwd");
            write!(stream, "{}\n{stat}", directory.display()).expect("write");
        }
        "fail" => readiness.fail("the interface wg0 is in use"),
        "die" => std::process::abort(),
        "silent" => drop(readiness),
        other => panic!("no case {other}"),
    }
}

fn case(name: &str, socket: &str) -> Output {
    Command::new("/proc/self/exe").args(["--case", name, socket]).stdin(Stdio::null()).output().expect("run")
}

fn ready_means_zero_and_a_daemon() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("daemon");
    // `output` also waits for the pipes to end: the daemon must have let go of them.
    let output = case("ready", path.to_str().expect("path"));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"");
    assert_eq!(output.stderr, b"");
    let mut report = String::new();
    UnixStream::connect(&path).expect("the daemon listens").read_to_string(&mut report).expect("report");
    let (directory, stat) = report.split_once('\n').expect("two lines");
    assert_eq!(directory, "/");
    // After the name in parentheses: state, parent, group, session, terminal. It leads no session and has no terminal.
    let pid: i32 = stat.split(' ').next().and_then(|p| p.parse().ok()).expect("pid");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    let session: i32 = fields[3].parse().expect("session");
    let terminal: i32 = fields[4].parse().expect("terminal");
    assert_ne!(session, pid);
    assert_eq!(terminal, 0);
}

fn failure_means_one_and_its_message() {
    let output = case("fail", "");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"the interface wg0 is in use\n");
}

fn death_means_one() {
    let output = case("die", "");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("ended before it was ready"), "{message}");
}

fn silence_means_one() {
    let output = case("silent", "");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"the daemon ended before it was ready\n");
}

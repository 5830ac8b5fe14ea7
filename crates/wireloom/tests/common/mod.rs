//! Hosts for the tests of the commands: `wg` and `wireloom` see a folder of the test's own as `/var/run/wireguard`, in a network
//! namespace with nothing in it but `lo`, and devices that answer as the test says.
//!
//! Needs root, util-linux and wireguard-tools; a test that misses one of them fails.

#![allow(dead_code, clippy::unwrap_used)] // each test uses some of it; what cannot be set up fails the test

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

/// The command under test.
pub const WIRELOOM: &str = env!("CARGO_BIN_EXE_wireloom");

pub struct Host {
    folder: TempDir,
}

/// The requests for changes that a device was sent.
pub type Requests = Arc<Mutex<Vec<String>>>;

impl Host {
    pub fn new() -> Host {
        Host { folder: TempDir::new().unwrap() }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A device that answers each get with `get` and each set with `set`, until the test's process ends.
    pub fn serve(&self, name: &str, get: &str, set: &str) -> Requests {
        let listener = UnixListener::bind(self.folder().join(format!("{name}.sock"))).unwrap();
        let requests = Requests::default();
        let (get, set, seen) = (get.to_owned(), set.to_owned(), requests.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &get, &set, &seen);
            }
        });
        requests
    }

    /// Runs a command line on this host, with `input` on its standard input.
    pub fn run(&self, env: &[(&str, &str)], words: &[&str], input: &str) -> Output {
        let setup = "mkdir -p /var/run/wireguard && mount --bind \"$0\" /var/run/wireguard && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "sh", "-c", setup]).arg(self.folder()).args(words);
        command.env_remove("WG_COLOR_MODE").env_remove("WG_HIDE_KEYS").envs(env.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("unshare of util-linux is needed");
        // A command that fails early does not read it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Runs `wireloom`.
    pub fn wireloom(&self, words: &[&str]) -> Output {
        self.run(&[], &[&[WIRELOOM], words].concat(), "")
    }

    /// Runs `wg`, which must be there.
    pub fn wg(&self, words: &[&str]) -> Output {
        assert!(Command::new("wg").arg("--version").output().is_ok(), "wg of wireguard-tools is needed");
        self.run(&[], &[&["wg"], words].concat(), "")
    }
}

/// Serves one connection: one request, as `wg` makes them.
fn answer(mut stream: UnixStream, get: &str, set: &str, seen: &Requests) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.ends_with(b"\n\n") {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return, // somebody who only looked whether we are there
            Ok(n) => request.extend(&piece[..n]),
        }
    }
    let request = String::from_utf8(request).unwrap();
    let reply = if request.starts_with("get=1\n") {
        get
    } else {
        seen.lock().unwrap().push(request);
        set
    };
    // The client may not wait for it.
    let _ = stream.write_all(reply.as_bytes());
}

/// What a command said, for comparing.
pub fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stdout.clone()).unwrap())
}

/// The one line of standard error of a command that failed with code 1 and printed nothing else.
pub fn complaint(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!((output.status.code(), output.stdout.len(), text.lines().count()), (Some(1), 0, 1), "{text}");
    text.trim_end().strip_prefix("wireloom: ").unwrap_or_else(|| panic!("{text}")).to_owned()
}

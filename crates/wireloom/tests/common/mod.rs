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
use std::time::SystemTime;

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
    ///
    /// A handshake at second −N in `get` was N seconds ago, whenever that is asked.
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

    /// Runs each line, `wg`'s words with `NAME=VALUE` before them where the environment matters, with both programs, and tells where
    /// they print different bytes or fail.
    pub fn differences(&self, lines: &[String]) -> String {
        let files = TempDir::new().unwrap();
        let script = format!("cd '{}'\n{COMPARE}", files.path().display());
        let output = self.run(&[("W", WIRELOOM)], &["sh", "-c", &script], &(lines.join("\n") + "\n"));
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let (told, count) = told.rsplit_once("compared ").unwrap_or_else(|| panic!("{output:?}"));
        assert_eq!(count.trim(), lines.len().to_string(), "{output:?}");
        told.to_owned()
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

/// An age is another one when a second ends between the device's answer and its being told, so what differs is asked again: what
/// is told in another way differs each time.
const COMPARE: &str = r#"
count=0
while read -r line; do
    vars= words=
    for word in $line; do case $word in *=*) vars="$vars $word" ;; *) words="$words $word" ;; esac; done
    tries=0
    while :; do
        env $vars "$W" $words > ours 2> told; ours=$?
        env $vars wg $words > theirs 2> /dev/null; theirs=$?
        cmp -s ours theirs && break
        tries=$((tries + 1)); [ $tries -lt 8 ] || break
    done
    if [ $tries = 8 ] || [ $ours$theirs != 00 ]; then
        echo "--- $line: we end with $ours, wg with $theirs"; cat told; diff -a ours theirs | head -20
    fi
    count=$((count + 1))
done
echo "compared $count"
"#;

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
    let reply = if request.starts_with("get=") {
        aged(get)
    } else {
        seen.lock().unwrap().push(request);
        set.to_owned()
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

/// Puts the time in the place of an age.
fn aged(get: &str) -> String {
    const NAME: &str = "last_handshake_time_sec=";
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    let line = |line: &str| match line.strip_prefix(NAME).and_then(|at| at.trim_end().parse::<i64>().ok()) {
        Some(age) if age < 0 => format!("{NAME}{}\n", now + age),
        _ => line.to_owned(),
    };
    if get.contains("_sec=-") { get.split_inclusive('\n').map(line).collect() } else { get.to_owned() }
}

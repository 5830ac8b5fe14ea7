//! What a service of the engine in the kernel hands to its manager when its daemon dies, and the next process is started with: sessions go on. The manager is
//! this test, so that it can be looked at; what systemd makes of it is in `service.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use lab::{End, Gso, Link, Namespace, Outer, Process, ping, unique_interface, wait_until};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::common::{LIMIT, SOON, while_stopped, wireloom};

/// A service manager that keeps descriptors by name, and its one service.
struct Manager {
    socket: UnixDatagram,
    kept: BTreeMap<String, OwnedFd>,
    namespace: Namespace,
    file: PathBuf,
    folder: TempDir,
}

impl Manager {
    /// Takes in what it is told next; whether that is that the service is ready.
    fn hear(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let len = recvmsg(&self.socket, parts, &mut beside, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
        let fd = beside.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let text = String::from_utf8(bytes[..len].to_vec()).unwrap();
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
        match (name, fd) {
            // Far from the numbers that the next process is to find them by.
            (Some(name), Some(fd)) => {
                drop(self.kept.insert(name.to_owned(), fcntl_dupfd_cloexec(fd, 300).unwrap()));
            }
            (Some(name), None) => drop(self.kept.remove(name)),
            // A descriptor that comes alone is closed when it has been heard.
            (None, _) => (),
        }
        text.starts_with("READY=1")
    }

    fn is_told(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() > 0
    }

    fn start(&mut self) -> Process {
        let moves = self.kept.values().enumerate().map(|(at, fd)| format!("exec {}<&{}; ", at + 3, fd.as_raw_fd()));
        let script = format!("{}export LISTEN_PID=$$; exec \"$@\"", moves.collect::<String>());
        let names: Vec<&str> = self.kept.keys().map(String::as_str).collect();
        let mut command = self.namespace.command("bash");
        command.args(["-c", &script, "bash"]).arg(wireloom().program().unwrap());
        command.args(["up", "--foreground", "--engine", "ebpf"]).arg(&self.file);
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
        command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        self.kept.values().for_each(|fd| fcntl_setfd(fd, FdFlags::empty()).unwrap());
        let service = Process::spawn(&mut command).unwrap();
        // Who else is started here has no business with them.
        self.kept.values().for_each(|fd| fcntl_setfd(fd, FdFlags::CLOEXEC).unwrap());
        self.socket.set_read_timeout(Some(LIMIT)).unwrap();
        while !self.hear() {}
        service
    }

    /// Waits for its end, and takes in what it has said until then.
    fn wait(&mut self, service: &mut Process) -> Option<i32> {
        wait_until("the service to end", LIMIT, || {
            while self.is_told() {
                self.hear();
            }
            !PathBuf::from(format!("/proc/{}/fd/0", service.id())).exists()
        })
        .unwrap();
        service.wait(LIMIT).unwrap().code()
    }
}

#[test]
fn sessions_go_on_by_what_the_service_manager_keeps() {
    let (here, there) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let link = Link::new(&here, &there, Gso::Through).unwrap();
    let left = End::new(wireloom().start(&here).unwrap(), &link.left, 1).unwrap();
    left.bring_up(1420).unwrap();
    let (interface, keys, folder) =
        (unique_interface(), lab::wg::KeyPair::generate().unwrap(), tempfile::tempdir().unwrap());
    let file = folder.path().join(format!("{interface}.conf"));
    let text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = 51999\nAddress = 10.77.0.2/24\n[Peer]\nPublicKey = {}\nAllowedIPs = {}/32\nEndpoint = {}\n",
        fs::read_to_string(keys.private.path()).unwrap().trim(),
        left.keys.public,
        left.v4,
        left.endpoint(Outer::V4)
    );
    fs::write(&file, text).unwrap();
    let endpoint = format!("{}:51999", link.right.v4);
    left.daemon.set(&["peer", &keys.public, "allowed-ips", "10.77.0.2/32", "endpoint", &endpoint]).unwrap();
    let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let mut manager = Manager { socket, kept: BTreeMap::new(), namespace: there.clone(), file, folder };
    let mut service = manager.start();
    let to = "10.77.0.2".parse().unwrap();
    let daemon = |service: &Process| {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", service.id())).unwrap();
        Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap()).unwrap()
    };
    wait_until("the programs to carry pings alone", SOON, || {
        while_stopped(daemon(&service), || ping::once(&here, to, &["-W", "1"]).unwrap().status.success())
    })
    .unwrap();
    let since = || left.daemon.status().unwrap().peer(&keys.public).unwrap().handshake;
    let before = (since(), manager.kept.len());
    assert!(manager.kept.keys().all(|name| !name.starts_with("estate-")));
    let pings = ping::start(&here, to, 200, "0.02").unwrap();
    for _ in 0..2 {
        kill_process(daemon(&service), Signal::KILL).unwrap();
        assert_eq!(manager.wait(&mut service), Some(1), "{}", service.log());
        assert!(manager.kept.contains_key("estate-map-keys"), "{:?}", manager.kept.keys());
        // As long as there is nobody but the manager.
        assert!((0..5).all(|_| ping::once(&here, to, &["-W", "1"]).unwrap().status.success()));
        service = manager.start();
        while manager.kept.len() > before.1 {
            manager.hear();
        }
    }
    let pings = ping::collect(pings, LIMIT).unwrap();
    assert_eq!((pings.sent, pings.received), (200, 200));
    assert_eq!(since(), before.0, "it is the same session");
    service.signal(Signal::TERM);
    assert_eq!(manager.wait(&mut service), Some(0), "{}", service.log());
    assert!(manager.kept.is_empty(), "{:?}", manager.kept.keys());
    assert!(there.ip(&["link", "show", "dev", &interface]).is_err());
    assert!(!there.run("bpftool", &["net"]).unwrap().contains("wl_"));
}

//! Keys wiped before the machine sleeps: a bus, a device and datagrams that are real, and somebody in the place of logind, which would put the machine to sleep.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::UdpSocket;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lab::{End, Gso, Link, Namespace, Outer, Process, Relay, System, ping, unique_interface, wait_for, wait_until};
use rustbus::connection::Timeout;
use rustbus::connection::ll_conn::force_finish_on_error;
use rustbus::wire::UnixFd;
use rustbus::{MessageBuilder, RpcConn, standard_messages};
use rustix::process::Pid;
use tempfile::TempDir;

use crate::common::{LIMIT, SOON, check_pings, while_stopped, wireloom};
use crate::engines::each_engine;

each_engine!(keys_are_wiped_before_the_machine_sleeps_and_made_anew_after_it);

const NAME: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";

/// A bus of the test's own.
struct Bus {
    folder: TempDir,
    _daemon: Process,
}

impl Bus {
    fn new() -> Bus {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("bus");
        let config = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\"><busconfig><type>system</type>\
             <listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\"><allow own=\"*\"/>\
             <allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy></busconfig>",
            socket.display()
        );
        let path = folder.path().join("bus.conf");
        fs::write(&path, config).unwrap();
        let mut command = Command::new("dbus-daemon");
        command.args(["--nofork", "--nopidfile", "--config-file"]).arg(path);
        let daemon = Process::spawn(&mut command).unwrap();
        wait_until("the bus to answer", SOON, || UnixStream::connect(&socket).is_ok()).unwrap();
        Bus { folder, _daemon: daemon }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("bus")
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    fn connect(&self) -> RpcConn {
        let address = nix::sys::socket::UnixAddr::new(&self.socket()).unwrap();
        RpcConn::connect_to_path(address, Timeout::Duration(SOON)).unwrap()
    }
}

/// Who stands in for logind: it hands out inhibitors, says when there is sleep, and puts nobody to it.
struct Logind {
    announce: Option<Sender<bool>>,
    inhibitors: Arc<Mutex<Vec<UnixStream>>>,
    /// The connection that asked last for an inhibitor.
    asker: Arc<Mutex<String>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Logind {
    fn new(bus: &Bus) -> Logind {
        let mut bus = bus.connect();
        let mut request = standard_messages::request_name(NAME, 0);
        let serial = bus.send_message(&mut request).unwrap().write_all().map_err(force_finish_on_error).unwrap();
        bus.wait_response(serial, Timeout::Duration(SOON)).unwrap();
        let (announce, announced) = channel();
        let (inhibitors, ending) = (Arc::<Mutex<Vec<UnixStream>>>::default(), Arc::<AtomicBool>::default());
        let asker = Arc::<Mutex<String>>::default();
        let thread = thread::spawn({
            let (inhibitors, asker, ending) = (inhibitors.clone(), asker.clone(), ending.clone());
            move || serve(&mut bus, &announced, (&inhibitors, &asker), &ending)
        });
        Logind { announce: Some(announce), inhibitors, asker, ending, thread: Some(thread) }
    }

    fn say(&self, asleep: bool) {
        self.announce.as_ref().unwrap().send(asleep).unwrap();
    }

    /// How many inhibitors somebody holds.
    fn held(&self) -> usize {
        let mut inhibitors = self.inhibitors.lock().unwrap();
        inhibitors.retain_mut(|inhibitor| !matches!(inhibitor.read(&mut [0]), Ok(0)));
        inhibitors.len()
    }
}

impl Drop for Logind {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if self.thread.take().unwrap().join().is_err() && !thread::panicking() {
            panic!("who stands in for logind panicked");
        }
    }
}

fn serve(
    bus: &mut RpcConn,
    announced: &Receiver<bool>,
    (inhibitors, asker): (&Mutex<Vec<UnixStream>>, &Mutex<String>),
    ending: &AtomicBool,
) {
    while !ending.load(Ordering::Relaxed) {
        if let Ok(asleep) = announced.try_recv() {
            announce(bus, asleep, None);
        }
        let Ok(call) = bus.wait_call(Timeout::Duration(Duration::from_millis(20))) else { continue };
        let head = &call.dynheader;
        assert_eq!((head.interface.as_deref(), head.member.as_deref()), (Some(MANAGER), Some("Inhibit")));
        let (what, _who, _why, mode) = call.body.parser().get4::<&str, &str, &str, &str>().unwrap();
        assert_eq!((what, mode), ("sleep", "delay"));
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut answer = head.make_response();
        answer.body.push_param(UnixFd::new(theirs.into_raw_fd())).unwrap();
        bus.send_message(&mut answer).unwrap().write_all().map_err(force_finish_on_error).unwrap();
        // Theirs is closed here with the answer.
        drop(answer);
        inhibitors.lock().unwrap().push(ours);
        *asker.lock().unwrap() = head.sender.clone().unwrap();
    }
    // Daemons that were started meanwhile have inherited the connection, so that it does not end here.
    let mut release = standard_messages::release_name(NAME);
    let serial = bus.send_message(&mut release).unwrap().write_all().map_err(force_finish_on_error).unwrap();
    bus.wait_response(serial, Timeout::Duration(SOON)).unwrap();
}

/// Says on the bus that there is sleep, to all who listen or to one.
fn announce(bus: &mut RpcConn, asleep: bool, to: Option<&str>) {
    let mut signal = MessageBuilder::new().signal(MANAGER, "PrepareForSleep", PATH);
    if let Some(to) = to {
        signal = signal.to(to);
    }
    let mut signal = signal.build();
    signal.body.push_param(asleep).unwrap();
    bus.send_message(&mut signal).unwrap().write_all().map_err(force_finish_on_error).unwrap();
}

/// The reasons for which something was dropped since `before`, when there are any.
fn refused_for(end: &End, before: &BTreeMap<String, u64>) -> Vec<String> {
    wait_for("a datagram to be refused", SOON, || {
        let more = |(reason, n): &(String, u64)| before.get(reason).is_none_or(|before| before < n);
        let grown: Vec<String> = end.daemon.drops()?.into_iter().filter(more).map(|(reason, _)| reason).collect();
        Ok((!grown.is_empty()).then_some(grown))
    })
    .unwrap()
}

/// A run that fails, and what it said.
fn refused(namespace: &Namespace, interface: &str, bus: &str) -> String {
    let System::Wireloom(program, _) = wireloom() else { unreachable!("it is ours") };
    let mut command = namespace.command(program);
    command.args(["run", "--wipe-on-suspend", interface]).env("DBUS_SYSTEM_BUS_ADDRESS", bus);
    let told = lab::run(&mut command, LIMIT).unwrap();
    assert_eq!(told.status.code(), Some(1));
    told.log().trim().to_owned()
}

fn keys_are_wiped_before_the_machine_sleeps_and_made_anew_after_it() {
    let bus = Bus::new();
    let logind = Logind::new(&bus);
    let [a, router, b] = [(); 3].map(|()| Namespace::new().unwrap());
    let (inside, outside) =
        (Link::new(&a, &router, Gso::Through).unwrap(), Link::new(&router, &b, Gso::Through).unwrap());
    let daemon = wireloom().start_with(&a, |command| {
        command.arg("--wipe-on-suspend").env("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
    });
    let left = End::new(daemon.unwrap(), &inside.left, 1).unwrap();
    let right = End::new(wireloom().start(&b).unwrap(), &outside.right, 2).unwrap();
    left.bring_up(1420).unwrap();
    right.bring_up(1420).unwrap();
    assert_eq!(logind.held(), 1, "an inhibitor is held from the start");
    let relay = Relay::new(
        &router,
        (left.endpoint(Outer::V4), (inside.right.v4, 0).into()),
        (right.endpoint(Outer::V4), (outside.left.v4, 0).into()),
    )
    .unwrap();
    left.add_peer(&right, Some(relay.for_left), None).unwrap();
    right.add_peer(&left, Some(relay.for_right), None).unwrap();
    check_pings(&left, &right);

    // What somebody recorded: data of the right end's, in the session that there is.
    let mut unseen = relay.seen().into_iter().rfind(|seen| seen.is(4, false)).unwrap().bytes;
    // A counter that has not been there yet: it would be refused for its tag, but by whoever has the key.
    unseen[8] = unseen[8].wrapping_add(100);
    let send = |left: &End, bytes: &[u8]| {
        let socket = router.inside(|| UdpSocket::bind((inside.right.v4, 0))).unwrap();
        socket.send_to(bytes, left.endpoint(Outer::V4)).unwrap();
    };
    let before = left.daemon.drops().unwrap();
    send(&left, &unseen);
    let with_keys = refused_for(&left, &before);

    // Somebody else's word puts nobody to sleep, whether it is said to all or to the attendant alone.
    let (mut forger, asker) = (bus.connect(), logind.asker.lock().unwrap().clone());
    announce(&mut forger, true, None);
    announce(&mut forger, true, Some(&asker));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(logind.held(), 1, "somebody else's signal was taken for logind's");
    check_pings(&left, &right);

    // Another logind is asked to be waited for as the one before was.
    drop(logind);
    let logind = Logind::new(&bus);
    wait_until("the new logind to be asked for an inhibitor", SOON, || logind.held() == 1).unwrap();

    // The device does not answer, so the machine has to wait for it.
    let daemon = Pid::from_raw(left.daemon.process.id().cast_signed()).unwrap();
    while_stopped(daemon, || {
        logind.say(true);
        thread::sleep(Duration::from_secs(1));
        assert_eq!(logind.held(), 1, "the machine was let sleep with keys in its memory");
    });
    wait_until("the inhibitor to be let go", SOON, || logind.held() == 0).unwrap();

    // From that moment on nothing of the old session is known.
    let (before, received) = (left.daemon.drops().unwrap(), left.peer(&right).unwrap().received);
    send(&left, &unseen);
    assert_ne!(refused_for(&left, &before), with_keys, "its key is still there");
    assert_eq!(left.peer(&right).unwrap().received, received);
    // What is sent at the last moment makes no new one.
    let initiations = relay.count(|seen| seen.is(1, true));
    assert!(!ping::once(left.namespace(), right.v4.into(), &["-W", "1"]).unwrap().status.success());
    assert_eq!(relay.count(|seen| seen.is(1, true)), initiations);

    logind.say(false);
    wait_until("another inhibitor", SOON, || logind.held() == 1).unwrap();
    check_pings(&left, &right);
    assert!(relay.count(|seen| seen.is(1, true)) > initiations, "by a new handshake");
}

#[test]
fn without_logind_it_is_said_and_nothing_is_left() {
    let namespace = Namespace::new().unwrap();
    let interface = unique_interface();
    let bus = Bus::new();
    for (address, told) in [
        ("unix:path=/nonexistent/bus".to_owned(), "No such file"),
        ("tcp:host=localhost".to_owned(), "expected unix:path="),
        // A bus without logind.
        (bus.address(), "was not provided"),
    ] {
        let said = refused(&namespace, &interface, &address);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("wireloom: --wipe-on-suspend takes systemd-logind") && said.contains(told), "{said}");
        assert!(namespace.ip(&["link", "show", "dev", &interface]).is_err());
        wait_until("nothing to be left", SOON, || !lab::socket_path(&interface).exists()).unwrap();
        assert!(!Path::new("/run/wireloom").join(format!("{interface}.attendant")).exists());
    }
}

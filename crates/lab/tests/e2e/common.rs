//! What several tests need.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::engines;
use lab::traffic::{Service, UdpOutcome, UdpPlan, exchange_tcp, exchange_udp, finish_udp, start_udp, stop_udp};
use lab::{End, Engine, Namespace, Outer, Port, Process, System, Tunnel, TunnelSpec, ping, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// Bytes per TCP exchange and direction: a few hundred super-packets.
pub const BYTES: u64 = 8_000_000;

/// The bound of anything that should take a second or two, on a machine that does much else.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How many datagrams of a stream may come behind a later one. We reorder none, as `flows_stay_in_order` shows on a link with one queue; a
/// veth has a queue for each CPU, and so the kernel itself may where a sender moves to another CPU.
const LATE: u64 = 5;

/// The same where programs in the kernel take packets: one that they leave to the daemon, since the way changes just then, is overtaken by those
/// behind it that they take.
const LATE_BY_HANDS: u64 = 100;

/// The bound of a daemon's reaction to something.
pub const SOON: Duration = Duration::from_secs(15);

/// Ours, with the engine of the test.
pub fn wireloom() -> System {
    System::wireloom().unwrap().with(engines::engine())
}

/// Ours, as it is at the left and at the right end of a tunnel.
pub fn both() -> [System; 2] {
    engines::both().map(|engine| wireloom().with(engine))
}

/// A command of ours that will run in `namespace`. What it brings up has the engine of the test.
pub fn our_command(namespace: &Namespace) -> Command {
    let mut command = namespace.command(wireloom().program().unwrap());
    let engine = engines::engine();
    if engine != Engine::Userspace {
        command.env("WIRELOOM_ENGINE", engine.name());
    }
    command
}

/// A tunnel of ours at both ends.
pub fn our_tunnel() -> Tunnel {
    spec().build().unwrap()
}

/// What [`our_tunnel`] is made from, to be changed.
pub fn spec() -> TunnelSpec {
    let [left, right] = both();
    TunnelSpec::new(&left, &right)
}

/// Pings the other end in both families at once. The very first one may be lost to a peer that keeps nothing while it shakes hands.
#[track_caller]
pub fn check_pings(from: &End, to: &End) {
    let start = |address| ping::start_patiently(from.namespace(), address, 5, "0.2").unwrap();
    let series = to.inner().map(start);
    for (address, series) in to.inner().into_iter().zip(series) {
        let trips = ping::collect(series, LIMIT).unwrap();
        assert!(trips.received >= 4, "{address}: {trips:?}");
    }
}

/// Whether one ping to the other end comes back, asked again and again until `SOON`.
#[track_caller]
pub fn wait_for_ping(from: &End, to: &End) {
    let what = format!("a ping from {} to {}", from.v4, to.v4);
    wait_until(&what, SOON, || {
        ping::once(from.namespace(), to.v4.into(), &["-W", "1"]).is_ok_and(|finished| finished.status.success())
    })
    .unwrap();
}

/// Waits until the programs of the other end answer pings alone: it goes on without its daemon, too.
#[track_caller]
pub fn wait_until_carried(from: &End, to: &mut End) {
    wait_for_ping(from, to);
    wait_until("the programs to carry pings alone", SOON, || {
        let daemon = Pid::from_raw(to.daemon.process.id().cast_signed()).unwrap();
        while_stopped(daemon, || ping::once(from.namespace(), to.v4.into(), &["-W", "1"]).unwrap().status.success())
    })
    .unwrap();
}

/// What `look` says while no thread of the process runs. One that was signalled to stop goes on until a first thread of it has had a processor: long
/// enough to answer a ping.
#[track_caller]
pub fn while_stopped<T>(process: Pid, look: impl FnOnce() -> T) -> T {
    kill_process(process, Signal::STOP).unwrap();
    let _goes_on = GoesOn(process);
    wait_until("all threads to stop", LIMIT, || is_stopped(process)).unwrap();
    look()
}

/// Lets a process that was stopped go on, whatever happens.
struct GoesOn(Pid);

impl Drop for GoesOn {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

fn is_stopped(process: Pid) -> bool {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let states = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default());
    // Behind the name, which may have anything in it.
    states.into_iter().all(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['T', 't'])))
}

/// Ping, TCP and UDP in both families and both directions, everything checked. `from` begins.
#[track_caller]
pub fn check_traffic(from: &End, to: &End) {
    check_pings(from, to);
    let _service = Service::start(to.namespace()).unwrap();
    for address in to.inner() {
        exchange_tcp(from.namespace(), address, BYTES, LIMIT).unwrap();
        let plan = UdpPlan { flows: 2, count: 300, size: 1200, gap: Duration::from_millis(2), echo: true };
        let outcome = exchange_udp(from.namespace(), address, &plan, LIMIT).unwrap();
        assert_eq!(outcome.service.corrupt + outcome.echoes.corrupt, 0);
        // UDP may lose, on a machine with more to do than it has cores; a tunnel that works loses next to nothing.
        assert!(outcome.echoes.received > 500, "{address}: {outcome:?}");
    }
}

/// Checks that both ends count the same handshake, and traffic in both directions.
#[track_caller]
pub fn check_status(one: &End, other: &End) {
    for (here, there) in [(one, other), (other, one)] {
        let peer = here.peer(there).unwrap();
        assert!(peer.received > BYTES && peer.sent > BYTES, "{peer:?}");
    }
}

/// Two ends of ours on hosts that are there already, up, with keys, and no peers of each other yet.
#[track_caller]
pub fn ends(left: &Port, right: &Port) -> (End, End) {
    let end = |port: &Port, host, ours: &System| {
        let end = End::new(ours.start(&port.namespace).unwrap(), port, host).unwrap();
        end.bring_up(1420).unwrap();
        end
    };
    let [ours_left, ours_right] = both();
    (end(left, 1, &ours_left), end(right, 2, &ours_right))
}

/// Makes each the peer of the other, at the addresses of their ports.
#[track_caller]
pub fn introduce(left: &End, right: &End, outer: Outer) {
    left.add_peer(right, Some(right.endpoint(outer)), None).unwrap();
    right.add_peer(left, Some(left.endpoint(outer)), None).unwrap();
}

/// Datagrams that go to the other end and back while something happens: 200 in a second.
pub struct Stream {
    process: Process,
    _service: Service,
}

impl Stream {
    /// Starts it, for so many seconds.
    #[track_caller]
    pub fn start(from: &End, to: &End, seconds: u64) -> Stream {
        let service = Service::start(to.namespace()).unwrap();
        let plan = UdpPlan { flows: 1, count: 200 * seconds, size: 700, gap: Duration::from_millis(5), echo: true };
        let process = start_udp(from.namespace(), to.v4.into(), &plan).unwrap();
        Stream { process, _service: service }
    }

    /// Ends it, however much of it was to come, and judges it as [`Stream::finish`].
    #[track_caller]
    pub fn end(mut self, lost: u64) -> UdpOutcome {
        stop_udp(&mut self.process);
        self.finish(lost)
    }

    /// Waits for its end. Nothing may be damaged, next to nothing out of order, and at most `lost` missing.
    #[track_caller]
    pub fn finish(self, lost: u64) -> UdpOutcome {
        let outcome = finish_udp(self.process, LIMIT).unwrap();
        let late = if engines::both().contains(&Engine::Ebpf) { LATE_BY_HANDS } else { LATE };
        for seen in [outcome.service, outcome.echoes] {
            assert!(seen.corrupt == 0 && seen.late <= late, "{outcome:?}");
        }
        let missing = outcome.sent - outcome.echoes.received;
        assert!(missing <= lost, "{missing} missing: {outcome:?}");
        outcome
    }
}

/// Runs `ip` on the host of an end.
#[track_caller]
pub fn ip(end: &End, args: &str) -> String {
    let words: Vec<&str> = args.split(' ').collect();
    end.namespace().ip(&words).unwrap()
}

/// The rule of nftables for UDP datagrams to the port of `end`, of WireGuard's message type `kind`.
pub fn messages_to(end: &End, kind: u8) -> String {
    format!("udp dport {} @th,64,8 {kind}", end.listen_port)
}

/// Lets the tunnel interface keep its IPv6 addresses as it goes down.
#[track_caller]
pub fn keep_addresses(end: &End) {
    let path = format!("net/ipv6/conf/{}/keep_addr_on_down", end.daemon.interface);
    end.namespace().set_sysctl(&path, "1").unwrap();
}

/// Waits until an end has closed its sockets, as it does when its interface is set down.
pub fn wait_for_free_port(end: &End) {
    let port = format!("00000000:{:04X} ", end.listen_port);
    let is_free = || !end.namespace().run("cat", &["/proc/net/udp"]).unwrap().contains(&port);
    wait_until("the sockets to close", LIMIT, is_free).unwrap();
}

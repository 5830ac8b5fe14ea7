//! `wireloom up` and `down` of an interface whose daemon was killed. With programs in the kernel it is still there and carries packets; with the daemon's own
//! threads it has gone, and what belonged to it is left. Either way it ends as the command says.

use std::fs;
use std::net::UdpSocket;

use lab::wg::KeyPair;
use lab::{Daemon, Engine, Process, ping, run, wait_for, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::bed::{Bed, HOOKS, INTERFACE, failed, succeeded};
use crate::common::{LIMIT, SOON, while_stopped, wireloom};
use crate::engines::{each_engine, each_engine_untaken, engine};

each_engine!(what_the_file_says_now_is_so_after_a_kill_and_an_up);
each_engine_untaken!(down_after_a_kill_is_a_down_like_any_other);

const POLICY: &str = "/etc/wireguard/wg0.policy";

/// A host that is brought up from a file, and its peer in the world.
struct Place {
    bed: Bed,
    peer: Daemon,
    keys: [KeyPair; 2],
}

impl Place {
    #[track_caller]
    fn new() -> Place {
        let bed = Bed::new();
        let keys = [KeyPair::generate().unwrap(), KeyPair::generate().unwrap()];
        let peer = wireloom().start(&bed.world).unwrap();
        let key = keys[1].private.path();
        let allowed = "10.66.0.1/32,10.68.0.1/32";
        peer.set(&["private-key", &key, "listen-port", "51999", "peer", &keys[0].public, "allowed-ips", allowed])
            .unwrap();
        bed.world.ip(&["address", "add", "10.66.0.2/16", "dev", &peer.interface]).unwrap();
        peer.up().unwrap();
        Place { bed, peer, keys }
    }

    /// The file, with these settings and what the peer is allowed.
    #[track_caller]
    fn configure(&self, settings: &str, allowed: &str) {
        let private = fs::read_to_string(self.keys[0].private.path()).unwrap();
        self.bed.configure(&format!(
            "[Interface]\nPrivateKey = {private}\nListenPort = 51820\n{settings}\n\
             [Peer]\nPublicKey = {}\nAllowedIPs = {allowed}\nEndpoint = 192.0.2.1:51999\n",
            self.keys[1].public
        ));
    }

    fn answers(&self) -> bool {
        let reached = ping::once(&self.bed.namespace, [10, 66, 0, 2].into(), &["-W", "1"]);
        reached.is_ok_and(|finished| finished.status.success())
    }

    #[track_caller]
    fn wait_for_answer(&self) {
        wait_until("a ping", SOON, || self.answers()).unwrap();
    }

    /// When the peer last agreed on a session, which it may tell a moment after the first answer has come through it.
    #[track_caller]
    fn handshake(&self) -> u64 {
        let told = || {
            Ok(Some(self.peer.status()?.peer(&self.keys[0].public).map_or(0, |it| it.handshake)).filter(|it| *it > 0))
        };
        wait_for("the peer to tell of a handshake", SOON, told).unwrap()
    }

    /// All that the file decides.
    #[track_caller]
    fn state(&self) -> Vec<String> {
        let text = self.bed.sh(&format!(
            "ip -br address; ip -4 rule; ip -6 rule; ip -4 route show table all; ip -6 route show table all; nft -s list ruleset
             ip link show dev {INTERFACE} | grep -o 'mtu [0-9]*'; for what in allowed-ips fwmark listen-port endpoints; do wg show {INTERFACE} $what; done
             wireloom() {{ {} \"$@\"; }}; wireloom policy {INTERFACE} | cut -f 4",
            wireloom().program().unwrap().display()
        ));
        let mut lines: Vec<String> = text.lines().filter(|line| !line.contains("fe80")).map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Waits until the host's programs carry pings alone, where there are any: what is killed before leaves nothing that could go on.
    #[track_caller]
    fn wait_until_carried(&self) {
        if engine() != Engine::Ebpf {
            return self.wait_for_answer();
        }
        wait_until("the programs to carry pings alone", SOON, || while_stopped(self.process(false), || self.answers()))
            .unwrap();
    }

    /// The daemon of the host, or its steward.
    #[track_caller]
    fn process(&self, steward: bool) -> Pid {
        let name = |pid: u32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let runs = |pid: &u32| name(*pid, "cmdline").contains("\0run\0");
        let is_steward = |pid: u32| name(pid, "comm").trim() == "wl-steward";
        let wanted = |pid: &u32| runs(pid) && is_steward(*pid) == steward;
        let found: Vec<u32> = self.bed.namespace.pids().into_iter().filter(wanted).collect();
        let [pid] = found[..] else { panic!("{found:?} of {:?}", self.bed.processes()) };
        Pid::from_raw(pid.cast_signed()).unwrap()
    }

    /// Kills one of them.
    #[track_caller]
    fn kill(&self, steward: bool) {
        let pid = self.process(steward);
        kill_process(pid, Signal::KILL).unwrap();
        let number = pid.as_raw_nonzero().get().cast_unsigned();
        wait_until("it to end", SOON, || !self.bed.namespace.pids().contains(&number)).unwrap();
    }

    fn has_interface(&self) -> bool {
        self.bed.namespace.ip(&["link", "show", "dev", INTERFACE]).is_ok()
    }

    /// Waits for what the death of the daemon comes to.
    #[track_caller]
    fn wait_for_the_consequences(&self) {
        match engine() {
            Engine::Ebpf => self.wait_for_answer(),
            Engine::Userspace => wait_until("the interface to go", SOON, || !self.has_interface()).unwrap(),
        }
    }
}

fn what_the_file_says_now_is_so_after_a_kill_and_an_up() {
    let place = Place::new();
    let bed = &place.bed;
    let files = [
        ("Address = 10.66.0.1/24, fd66::1/64\nMTU = 1400", "10.66.0.2/32, 10.69.0.0/16", "pass in\n"),
        ("Address = 10.66.0.1/24, 10.68.0.1/32\nMTU = 1300", "0.0.0.0/0, 10.70.0.0/16", "drop out proto=tcp\npass\n"),
    ];
    let write = |at: usize| {
        place.configure(files[at].0, files[at].1);
        bed.write(POLICY, 0o600, files[at].2);
    };
    let up = ["up", "--policy", POLICY, INTERFACE];
    let fresh = [0, 1].map(|at| {
        write(at);
        succeeded(bed.wireloom(&up));
        let state = place.state();
        succeeded(bed.wireloom(&["down", INTERFACE]));
        state
    });
    assert_ne!(fresh[0], fresh[1]);
    write(0);
    succeeded(bed.wireloom(&up));
    place.wait_until_carried();
    let handshake = place.handshake();
    for at in [1, 0, 0] {
        place.kill(false);
        place.wait_for_the_consequences();
        write(at);
        let said = succeeded(bed.wireloom(&up));
        assert_eq!(said.contains("another one carries on"), engine() == Engine::Ebpf, "{said}");
        assert_eq!(place.state(), fresh[at], "file {at}:\n{said}");
        place.wait_until_carried();
        if engine() == Engine::Ebpf {
            assert_eq!(place.handshake(), handshake, "it is the same session");
        }
        let again = failed(bed.wireloom(&up));
        assert!(again.contains("is up already"), "{again}");
    }
    succeeded(bed.wireloom(&["down", INTERFACE]));
    bed.wait_until_idle().unwrap();
}

fn down_after_a_kill_is_a_down_like_any_other() {
    let place = Place::new();
    let bed = &place.bed;
    let before = bed.state();
    let hook = |when: &str| format!("{when} = echo {when} $(ip -br link show %i | wc -l) >> {HOOKS}\n");
    let hooks = hook("PreDown") + &hook("PostDown");
    place.configure(&format!("Address = 10.66.0.1/24\nSaveConfig = true\n{hooks}"), "0.0.0.0/0");
    let file = bed.state();
    let ran = || bed.sh(&format!("cat {HOOKS} 2>/dev/null || true; rm -f {HOOKS}"));
    succeeded(bed.wireloom(&["up", INTERFACE]));
    place.wait_until_carried();
    place.kill(false);
    place.wait_for_the_consequences();
    let said = succeeded(bed.wireloom(&["down", INTERFACE]));
    match engine() {
        Engine::Ebpf => {
            assert_eq!(ran(), "PreDown 1\nPostDown 0\n");
            assert!(said.contains("nothing is saved, since its daemon has ended"), "{said}");
        }
        // Without an interface there is nothing to do before its end.
        Engine::Userspace => assert_eq!(ran(), "PostDown 0\n"),
    }
    assert!(!place.has_interface() && !bed.has_journal());
    bed.state().assert_same(&file, "after the down");
    bed.wait_until_idle().unwrap();

    // One that nobody has brought up, but run, and that has the file's name.
    succeeded(bed.wireloom(&["run", INTERFACE]));
    let key =
        bed.sh(&format!("grep PrivateKey /etc/wireguard/{INTERFACE}.conf | cut -d ' ' -f 3 > /run/key; echo /run/key"));
    let public = &place.keys[1].public;
    bed.sh(&format!(
        "wg set {INTERFACE} private-key {} listen-port 51820 peer {public} allowed-ips 10.66.0.2/32 endpoint 192.0.2.1:51999
         rm /run/key; ip address add 10.66.0.1/24 dev {INTERFACE}; ip link set {INTERFACE} up",
        key.trim()
    ));
    place.wait_until_carried();
    place.kill(false);
    place.wait_for_the_consequences();
    let down = bed.wireloom(&["down", INTERFACE]);
    match engine() {
        Engine::Ebpf => {
            succeeded(down);
            assert_eq!(ran(), "PreDown 1\nPostDown 0\n");
        }
        Engine::Userspace => assert!(failed(down).contains("is not up")),
    }
    assert!(!place.has_interface());
    bed.wait_until_idle().unwrap();
    bed.sh(&format!("rm /etc/wireguard/{INTERFACE}.conf"));
    bed.state().without(&["/etc/wireguard"]).assert_same(&before.without(&["/etc/wireguard"]), "in the end");
}

#[test]
fn a_peer_that_had_moved_stays_where_it_is() {
    let place = Place::new();
    let bed = &place.bed;
    place.configure("Address = 10.66.0.1/24", "10.66.0.2/32");
    let up = ["up", "--engine", "ebpf", INTERFACE];
    succeeded(bed.wireloom(&up));
    place.wait_for_answer();
    let handshake = place.handshake();
    place.peer.set(&["listen-port", "52000"]).unwrap();
    let endpoint = || bed.sh(&format!("wg show {INTERFACE} endpoints | cut -f 2")).trim().to_owned();
    wait_until("the peer to be seen elsewhere", SOON, || {
        let _ = ping::once(&bed.world, [10, 66, 0, 1].into(), &["-W", "1"]);
        endpoint() == "192.0.2.1:52000"
    })
    .unwrap();
    place.kill(false);
    // One that cannot carry on leaves it to the next, and no daemon without keys.
    let bind = || Ok(bed.namespace.inside(|| UdpSocket::bind("0.0.0.0:51820")).ok());
    let taken = wait_for("the port of a daemon that was killed", SOON, bind).unwrap();
    let said = failed(bed.wireloom(&up));
    assert!(said.contains("in use"), "{said}");
    drop(taken);
    succeeded(bed.wireloom(&up));
    // The file says 51999, as it did.
    assert_eq!(endpoint(), "192.0.2.1:52000");
    assert!(place.answers());
    assert_eq!(place.handshake(), handshake, "it is the same session");
    // With another key nothing is taken up, and what the file says is all that is known.
    place.kill(false);
    let text = bed.sh(&format!("cat /etc/wireguard/{INTERFACE}.conf"));
    let key = fs::read_to_string(KeyPair::generate().unwrap().private.path()).unwrap();
    let other: Vec<String> = text
        .lines()
        .map(|line| if line.starts_with("PrivateKey") { format!("PrivateKey = {key}") } else { line.to_owned() })
        .collect();
    bed.configure(&other.join("\n"));
    succeeded(bed.wireloom(&up));
    assert_eq!(endpoint(), "192.0.2.1:51999");
    succeeded(bed.wireloom(&["down", INTERFACE]));
    bed.wait_until_idle().unwrap();
}

#[test]
fn an_interface_in_another_namespace_is_carried_on_there() {
    let place = Place::new();
    let bed = &place.bed;
    bed.sh("ip netns add web; ip -n web link set lo up");
    place.configure("Address = 10.66.0.1/24", "10.66.0.2/32");
    let up = ["up", "--engine", "ebpf", "--netns", "web", INTERFACE];
    succeeded(bed.wireloom(&up));
    let answers = || bed.sh("ip netns exec web ping -n -c 1 -W 1 10.66.0.2 || true").contains("time=");
    wait_until("a ping", SOON, answers).unwrap();
    let handshake = place.handshake();
    place.kill(false);
    // Programs cannot send from one namespace into another. But the interface is there, and so are its sessions.
    assert!(bed.sh("ip -n web -br link").contains(INTERFACE));
    place.configure("Address = 10.66.0.1/24, 10.68.0.1/32", "10.66.0.2/32, 10.70.0.0/16");
    let said = succeeded(bed.wireloom(&up));
    assert!(said.contains("another one carries on"), "{said}");
    let inside = bed.sh("ip -n web -br address; ip -n web route");
    assert!(inside.contains("10.68.0.1/32") && inside.contains("10.70.0.0/16 dev wg0"), "{inside}");
    wait_until("a ping", SOON, answers).unwrap();
    assert_eq!(place.handshake(), handshake, "it is the same session");
    succeeded(bed.wireloom(&["down", INTERFACE]));
    assert!(!bed.sh("ip -n web -br link").contains(INTERFACE));
    bed.wait_until_idle().unwrap();
}

/// Says once that something is kept, and is gone when it is asked again.
const FICKLE: &str = r#"
    use Socket;
    my $at = pack_sockaddr_un($ARGV[0]);
    unlink $ARGV[0];
    socket(my $listener, AF_UNIX, SOCK_SEQPACKET, 0) or die "socket: $!";
    bind($listener, $at) && listen($listener, 4) or die "bind: $!";
    $| = 1;
    print "kept
";
    accept(my $first, $listener) or die "accept: $!";
    send($first, "\0end", 0);
    while (accept(my $other, $listener)) { close $other }
"#;

#[test]
fn what_ends_between_asking_and_taking_is_made_anew() {
    let place = Place::new();
    let bed = &place.bed;
    place.configure("Address = 10.66.0.1/24\nMTU = 1400", "10.66.0.2/32, 10.69.0.0/16");
    let up = ["up", "--engine", "ebpf", INTERFACE];
    succeeded(bed.wireloom(&up));
    let fresh = place.state();
    // Nothing is kept, since who would keep it is dead, too.
    place.kill(true);
    place.kill(false);
    wait_until("the interface to go", SOON, || !place.has_interface()).unwrap();
    let mut fickle = bed.command("perl");
    let mut fickle = Process::spawn(fickle.args(["-e", FICKLE, &format!("/run/wireloom/{INTERFACE}.heir")])).unwrap();
    fickle.wait_for_output("kept", LIMIT).unwrap();
    let said = succeeded(bed.wireloom(&up));
    assert!(said.contains("all is made anew"), "{said}");
    fickle.stop();
    assert_eq!(place.state(), fresh);
    place.wait_for_answer();
    succeeded(bed.wireloom(&["down", INTERFACE]));

    // Who is to succeed does not begin by itself.
    let mut command = bed.command(wireloom().program().unwrap());
    let refused = run(command.args(["run", "--engine", "ebpf", "--successor", INTERFACE]), LIMIT).unwrap();
    assert!(failed(refused).contains("no daemon of 'wg0' has died here"));
    assert!(!place.has_interface());
    bed.wait_until_idle().unwrap();
}

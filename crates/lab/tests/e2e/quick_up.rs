//! `wireloom up` and `down`: tunnels whose both ends are brought up from files, and hosts that are left as they were found.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lab::wg::KeyPair;
use lab::{
    Engine, Finished, Gso, Guest, GuestSpec, Kernel, Link, Namespace, Process, System, ping, run, unique_interface,
    wait_until,
};
use tempfile::TempDir;

use crate::common::{LIMIT, SOON, our_command};
use crate::engines::{count_taken, each_engine, each_engine_untaken, engine};

each_engine!(
    both_ends_come_up_from_files_and_go_without_a_trace,
    everything_goes_through_the_tunnel_but_the_tunnel_itself,
);

each_engine_untaken!(what_has_ended_otherwise_is_cleared_away, a_namespace_takes_the_interface_while_its_sockets_stay);

/// Of a script in an emulated machine.
const LONG: Duration = Duration::from_secs(240);

fn binary() -> PathBuf {
    System::wireloom().unwrap().program().unwrap()
}

/// A host, and the file of the interface that it is to have.
struct Host {
    namespace: Namespace,
    interface: String,
    folder: TempDir,
    _traces: Traces,
}

/// The journal of an interface, which may have ended with its namespace.
struct Traces(String);

impl Drop for Traces {
    fn drop(&mut self) {
        let _ = fs::remove_file(format!("/run/wireloom/{}.json", self.0));
    }
}

impl Host {
    fn new() -> Host {
        Host::of(Namespace::new().unwrap(), tempfile::tempdir().unwrap(), &unique_interface())
    }

    fn of(namespace: Namespace, folder: TempDir, interface: &str) -> Host {
        Host { namespace, interface: interface.to_owned(), folder, _traces: Traces(interface.to_owned()) }
    }

    fn file(&self) -> String {
        self.folder.path().join(format!("{}.conf", self.interface)).to_string_lossy().into_owned()
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
        fs::set_permissions(self.file(), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A file for one peer.
    fn configure(&self, own: &KeyPair, peer: &KeyPair, settings: &str, peer_settings: &str) {
        let private = fs::read_to_string(own.private.path()).unwrap();
        let public = &peer.public;
        self.write(&format!(
            "[Interface]\nPrivateKey = {private}\n{settings}\n\n[Peer]\nPublicKey = {public}\n{peer_settings}\n"
        ));
    }

    fn command(&self, words: &str) -> Command {
        let mut command = our_command(&self.namespace);
        command.args(words.split(' ').filter(|word| !word.is_empty()));
        command
    }

    /// Runs us with these words and the file.
    fn attempt(&self, words: &str) -> Finished {
        run(self.command(words).arg(self.file()), LIMIT).unwrap()
    }

    #[track_caller]
    fn succeed(&self, words: &str) -> String {
        self.attempt(words).checked().unwrap().log()
    }

    /// What `wireloom` says of the interface.
    #[track_caller]
    fn show(&self, field: &str) -> String {
        let command = format!("show {} {field}", self.interface);
        run(&mut self.command(&command), LIMIT).unwrap().checked().unwrap().stdout.trim().to_owned()
    }

    fn ip(&self, words: &str) -> String {
        self.namespace.ip(&words.split(' ').collect::<Vec<_>>()).unwrap()
    }

    /// All that `up` could have changed. What the kernel does by itself, link-local addresses, is left out.
    fn state(&self) -> String {
        // Of links only the names: a new cable takes its time.
        let links = self.ip("-br link");
        let names = links.lines().filter_map(|line| line.split(' ').next());
        let mut state: String = names.map(|name| format!("{name}\n")).collect();
        // An interface that is made again has another number.
        let addresses = self.ip("-o address");
        state.extend(addresses.lines().filter_map(|line| line.split_once(": ")).map(|(_, line)| format!("{line}\n")));
        let shown = ["-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all"];
        state += &shown.map(|words| self.ip(words)).concat();
        state += &self.namespace.run("nft", &["list", "ruleset"]).unwrap();
        state += &self.namespace.run("cat", &["/proc/sys/net/ipv4/conf/all/src_valid_mark"]).unwrap();
        let steady = |line: &&str| !line.contains("fe80") && !line.contains("ff00::/8");
        state.lines().filter(steady).collect::<Vec<_>>().join("\n")
    }
}

/// Two hosts on one cable, with files that make them each other's peers.
struct Pair {
    left: Host,
    right: Host,
    link: Link,
    keys: [KeyPair; 2],
}

impl Pair {
    fn new() -> Pair {
        let (left, right) = (Host::new(), Host::new());
        let link = Link::new(&left.namespace, &right.namespace, Gso::Off).unwrap();
        let keys = [KeyPair::generate().unwrap(), KeyPair::generate().unwrap()];
        Pair { left, right, link, keys }
    }

    /// The left end has `settings` besides, and lets `allowed` through.
    fn configure(&self, settings: &str, allowed: &str) {
        let [left, right] = &self.keys;
        let port = 51820 + (std::process::id() % 1000);
        let endpoint = format!("AllowedIPs = {allowed}\nEndpoint = {}:{port}", self.link.right.v4);
        self.left.configure(left, right, &format!("Address = 10.66.0.1/24, fd66::1/64\n{settings}"), &endpoint);
        let own = format!("Address = 10.66.0.2/24\nAddress = fd66::2/64\nListenPort = {port}");
        self.right.configure(right, left, &own, "AllowedIPs = 10.66.0.1/32, fd66::1/128");
    }
}

/// Waits until a ping comes back.
#[track_caller]
fn reach(from: &Namespace, to: &str) {
    let address: IpAddr = to.parse().unwrap();
    let answered = || ping::once(from, address, &["-W", "2"]).is_ok_and(|finished| finished.status.success());
    wait_until(&format!("a ping to {to}"), SOON, answered).unwrap();
}

fn both_ends_come_up_from_files_and_go_without_a_trace() {
    let pair = Pair::new();
    let (left, right) = (&pair.left, &pair.right);
    pair.configure("", "10.66.0.0/24, fd66::/64, 10.67.0.0/16, fd67::/48");
    let before = [left.state(), right.state()];
    let said = left.succeed("up");
    assert!(said.contains("Wireloom's own WireGuard"), "{said}");
    assert_eq!(said.contains("(the default"), engine() == Engine::Userspace, "{said}");
    right.succeed("up");
    for (from, to) in [(left, 2), (right, 1)] {
        reach(&from.namespace, &format!("10.66.0.{to}"));
        reach(&from.namespace, &format!("fd66::{to}"));
    }
    // The networks of addresses have routes of their own; of 1500 bytes on the cable, 80 are for the tunnel.
    let name = &left.interface;
    let routes = left.ip(&format!("-4 route show dev {name}")) + &left.ip(&format!("-6 route show dev {name}"));
    let count = |network: &str| routes.lines().filter(|line| line.starts_with(network)).count();
    assert_eq!(["10.66.0.0/24", "10.67.0.0/16", "fd66::/64", "fd67::/48"].map(count), [1; 4], "{routes}");
    assert!(left.ip(&format!("link show {name}")).contains("mtu 1420"));

    let again = left.attempt("up");
    assert_eq!((again.status.code(), again.stderr.lines().count()), (Some(1), 1), "{}", again.log());
    assert!(again.stderr.contains("is up already"), "{}", again.stderr);
    count_taken(name);
    // By its name, from what was noted: the file is not in /etc/wireguard.
    run(&mut left.command(&format!("down {name}")), LIMIT).unwrap().checked().unwrap();
    right.succeed("down");
    assert_eq!([left.state(), right.state()], before);
    let again = left.attempt("down");
    assert!(!again.status.success() && again.stderr.contains("is not up"), "{}", again.log());
}

fn everything_goes_through_the_tunnel_but_the_tunnel_itself() {
    let pair = Pair::new();
    let (left, right) = (&pair.left, &pair.right);
    pair.configure("", "0.0.0.0/0, ::/0");
    // Another tunnel has been brought up with default routes before, and stays.
    left.ip("rule add not fwmark 51820 table 51820");
    left.ip("rule add table main suppress_prefixlength 0");
    left.ip(&format!("route add default dev {} table 51820", pair.link.left.interface));
    right.ip("address add 198.51.100.1/32 dev lo");
    right.ip("address add 2001:db8::1/128 dev lo");
    let before = [left.state(), right.state()];
    left.succeed("up");
    right.succeed("up");
    for far in ["198.51.100.1", "2001:db8::1", "10.66.0.2", "fd66::2"] {
        reach(&left.namespace, far);
    }
    // What is on the cable stays on the cable, and the tunnel's datagrams are there, too.
    reach(&left.namespace, &pair.link.right.v4.to_string());
    assert_eq!(left.show("fwmark"), "0xca6d");
    for family in ["-4", "-6"] {
        let rules = left.ip(&format!("{family} rule"));
        let lines: Vec<&str> = rules.lines().collect();
        assert!(lines[1].ends_with("lookup main suppress_prefixlength 0"), "{rules}");
        assert!(lines[2].ends_with("not from all fwmark 0xca6d lookup 51821"), "{rules}");
    }
    count_taken(&left.interface);
    left.succeed("down");
    right.succeed("down");
    assert_eq!([left.state(), right.state()], before);
}

#[test]
fn tables_are_as_the_file_says() {
    let pair = Pair::new();
    let left = &pair.left;
    let before = left.state();
    let name = &left.interface;
    let own = |state: &str| state.lines().filter(|line| line.contains("table 4711")).count();
    for (settings, routes) in [("Table = off", 0), ("Table = 4711\nFwMark = 0x77", 4)] {
        pair.configure(settings, "0.0.0.0/0, ::/0, 10.67.0.0/16, 10.66.0.0/24");
        left.succeed("up");
        let state = left.state();
        assert_eq!(own(&state), routes, "{state}");
        assert!(!state.contains("fwmark") && !left.ip("route show").contains("10.67"), "{state}");
        assert_eq!(left.ip(&format!("route show dev {name}")).lines().count(), 1, "the network of the address alone");
        left.succeed("down");
        assert_eq!(left.state(), before);
    }
}

#[test]
fn the_mtu_is_that_of_the_narrowest_path() {
    let pair = Pair::new();
    let left = &pair.left;
    let name = &left.interface;
    let mtu = || {
        let shown = left.ip(&format!("link show {name}"));
        let mut words = shown.split(' ').skip_while(|word| *word != "mtu");
        words.nth(1).unwrap().parse::<u32>().unwrap()
    };
    let route = format!("{} dev {}", pair.link.right.v4, pair.link.left.interface);
    // The second is the one of the cable as a whole, the last two would be too small for IPv6.
    for (set, settings, expected) in [
        (format!("route replace {route} mtu 1400"), "", 1320),
        (format!("route del {route}"), "", 1420),
        (format!("route replace {route} mtu 1400"), "MTU = 1300", 1300),
        (format!("route replace {route} mtu 1320"), "", 1280),
    ] {
        pair.configure(settings, "10.66.0.2/32, fd66::2/128");
        left.ip(&set);
        left.succeed("up");
        assert_eq!(mtu(), expected, "{set}");
        left.succeed("down");
    }
}

fn a_namespace_takes_the_interface_while_its_sockets_stay() {
    let pair = Pair::new();
    let (left, right) = (&pair.left, &pair.right);
    let inner = Namespace::new().unwrap();
    pair.configure("", "0.0.0.0/0, ::/0");
    right.ip("address add 198.51.100.1/32 dev lo");
    let inside = Host::of(inner.clone(), tempfile::tempdir().unwrap(), &left.interface);
    let before = [left.state(), inside.state()];
    right.succeed("up");
    left.succeed(&format!("up --netns {}", inner.name()));
    assert_eq!(left.state(), before[0], "nothing is different where the sockets are");
    for far in ["198.51.100.1", "10.66.0.2", "fd66::2"] {
        reach(&inner, far);
    }
    assert!(left.attempt("up").stderr.contains("is up already"));
    left.succeed("down");
    assert_eq!([left.state(), inside.state()], before);

    // Moved by hand after that, it goes on, and is found again.
    left.succeed("up");
    left.ip(&format!("link set {} netns {}", left.interface, inner.name()));
    inside.ip(&format!("address add 10.66.0.1/24 dev {}", left.interface));
    inside.ip(&format!("link set {} up", left.interface));
    reach(&inner, "10.66.0.2");
    left.succeed("down");
    wait_until("the interface to go", SOON, || inside.state() == before[1]).unwrap();
    assert_eq!(left.state(), before[0]);

    // `run` by itself does the same, and a namespace that ends takes the tunnel along.
    let short = Namespace::new().unwrap();
    let run_there = format!("run --netns {} {}", short.name(), left.interface);
    run(&mut left.command(&run_there), LIMIT).unwrap().checked().unwrap();
    assert!(short.ip(&["link", "show", &left.interface]).is_ok() && !left.state().contains(&left.interface));
    drop(short);
    let socket = lab::socket_path(&left.interface);
    wait_until("the daemon to end", SOON, || !socket.exists()).unwrap();
    right.succeed("down");
    let none = left.attempt("up --netns no-such-namespace");
    assert!(none.stderr.contains("there is no network namespace 'no-such-namespace'"), "{}", none.stderr);
}

#[test]
fn an_interrupt_takes_everything_back() {
    let pair = Pair::new();
    let left = &pair.left;
    let [own, peer] = &pair.keys;
    // A name that cannot be resolved now is asked for again and again.
    left.configure(own, peer, "Address = 10.66.0.1/24", "AllowedIPs = ::/0\nEndpoint = vpn.example:5");
    let before = left.state();
    let mut command = left.command("up");
    command.arg(left.file()).env("WG_ENDPOINT_RESOLUTION_RETRIES", "infinity");
    let mut up = Process::spawn(&mut command).unwrap();
    up.wait_for_output("trying again", LIMIT).unwrap();
    assert_ne!(left.state(), before, "there is an interface");
    up.signal(rustix::process::Signal::INT);
    let finished = up.finish(LIMIT).unwrap();
    assert!(
        !finished.status.success() && finished.stderr.contains("what was done before is undone"),
        "{}",
        finished.log()
    );
    assert_eq!(left.state(), before);
}

fn what_has_ended_otherwise_is_cleared_away() {
    let pair = Pair::new();
    let left = &pair.left;
    pair.configure("", "0.0.0.0/0, ::/0");
    let before = left.state();
    for how in ["down", "up"] {
        left.succeed("up");
        left.ip(&format!("link delete {}", left.interface));
        assert_ne!(left.state(), before, "rules are left behind");
        left.succeed(how);
    }
    // What another namespace has is not touched, unless that is no more.
    let other = Host::of(Namespace::new().unwrap(), tempfile::tempdir().unwrap(), &left.interface);
    other.write("[Interface]\n");
    for verb in ["up", "down"] {
        let refused = other.attempt(verb);
        assert!(refused.stderr.contains("was brought up from another network namespace"), "{}", refused.log());
    }
    left.succeed("down");
    assert_eq!(left.state(), before);
    other.succeed("up");
    let Host { namespace, folder, _traces, .. } = other;
    drop(namespace);
    let other = Host::of(Namespace::new().unwrap(), folder, &left.interface);
    wait_until("the name to be free", SOON, || other.attempt("up").status.success()).unwrap();
    other.succeed("down");
}

#[test]
fn a_name_means_the_file_that_it_was_brought_up_from_whatever_has_become_of_it() {
    let host = Host::new();
    let before = host.state();
    let marks = host.folder.path().join("marks");
    host.write(&format!("[Interface]\nPostDown = echo %i >> {}\nAddress = 10.66.0.1/24\n", marks.display()));
    host.succeed("up");
    run(&mut host.command(&format!("down {}", host.interface)), LIMIT).unwrap().checked().unwrap();
    assert_eq!(fs::read_to_string(&marks).unwrap(), format!("{}\n", host.interface));

    host.succeed("up");
    host.write("[Interface]\nNonsense = 1\n");
    let said = host.succeed("down");
    assert!(said.contains("no hooks are run") && said.contains(".conf:2"), "{said}");
    assert_eq!(host.state(), before);
}

#[test]
fn wg_quick_takes_down_what_we_brought_up_and_we_what_it_did() {
    let pair = Pair::new();
    let left = &pair.left;
    pair.configure("", "0.0.0.0/0, ::/0, 10.67.0.0/16");
    let before = left.state();
    let wg_quick = |verb: &str| {
        let mut command = left.namespace.command("wg-quick");
        command.args([verb, &left.file()]).env("WG_QUICK_USERSPACE_IMPLEMENTATION", binary());
        run(&mut command, LIMIT).unwrap().checked().unwrap();
    };
    // wg-quick leaves one setting behind.
    let settled = |state: String| state.rsplit_once('\n').unwrap().0.to_owned();
    wg_quick("up");
    let theirs = left.state();
    left.succeed("down");
    assert_eq!(settled(left.state()), settled(before.clone()));
    left.succeed("up");
    assert_eq!(left.state(), theirs);
    wg_quick("down");
    assert_eq!(settled(left.state()), settled(before.clone()));
    left.succeed("up");
    left.succeed("down");
    assert_eq!(settled(left.state()), settled(before));
}

#[test]
fn mistakes_are_told_in_one_line() {
    let host = Host::new();
    let refused = |finished: Finished, expected: &str| {
        let lines: Vec<&str> = finished.stderr.lines().collect();
        assert_eq!((finished.status.code(), lines.len()), (Some(1), 1), "{expected}: {}", finished.log());
        assert!(lines[0].starts_with("wireloom: ") && lines[0].contains(expected), "{}", lines[0]);
    };
    let attempt = |words: &str| run(&mut host.command(words), LIMIT).unwrap();
    refused(attempt("up no-such-one"), "there is no file /etc/wireguard/no-such-one.conf");
    refused(attempt("down no-such-one"), "there is no file /etc/wireguard/no-such-one.conf");
    refused(attempt("up /tmp/something"), "is not the file of an interface");
    refused(host.attempt("up"), "there is no file");
    host.write("[Interface]\nAddress = 10.0.0.1/33\n");
    refused(host.attempt("up"), ".conf:2: address '10.0.0.1/33' is not one");
    host.write("[Interface]\nAddress = 10.0.0.1/24\n");
    refused(host.attempt("up --engine kernel"), "this kernel has no WireGuard of its own");
    host.ip(&format!("link add {} type veth", host.interface));
    refused(host.attempt("up"), "exists already");
    refused(host.attempt("down"), "is not up");
    let mut command = host.namespace.command("setpriv");
    command.args(["--reuid", "65534", "--clear-groups"]).arg(binary()).args(["up", "--dry-run", &host.file()]);
    refused(run(&mut command, LIMIT).unwrap(), "cannot read");
    fs::set_permissions(host.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(host.file(), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(host.file(), None, Some(65534)).unwrap();
    for verb in ["up", "down"] {
        let mut command = host.namespace.command("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(binary())
            .args([verb, &host.file()]);
        refused(run(&mut command, LIMIT).unwrap(), "this takes root (CAP_NET_ADMIN)");
    }
    fs::set_permissions(host.file(), fs::Permissions::from_mode(0o644)).unwrap();
    host.ip(&format!("link delete {}", host.interface));
    let said = host.succeed("up --dry-run");
    assert!(said.contains("is world accessible") && said.contains("ip -4 address add 10.0.0.1/24"), "{said}");
    assert!(!host.state().contains(&host.interface), "nothing was done");
}

/// A tunnel between two namespaces of the guest, one end on each engine; what is left is compared with what was there. Everything goes through it, by halves,
/// since whole default routes take a firewall, which the guest does not have.
const ENGINES: &str = r#"
cd /tmp; umask 077
wg genkey > a; wg genkey > b
ip netns add far; ip link add out type veth peer name out netns far
ip addr add 172.30.0.1/24 dev out; ip link set out up
ip -n far addr add 172.30.0.2/24 dev out; ip -n far link set out up; ip -n far link set lo up
ip -n far addr add 198.51.100.1/32 dev lo
printf '[Interface]\nPrivateKey = %s\nAddress = 10.9.0.1/24, fd99::1/64\n[Peer]\nPublicKey = %s\nAllowedIPs = %s\nEndpoint = 172.30.0.2:5182\n' \
    $(cat a) $(wg pubkey < b) 0.0.0.0/1,128.0.0.0/1,::/1,8000::/1 > near.conf
printf '[Interface]\nPrivateKey = %s\nListenPort = 5182\nAddress = 10.9.0.2/24, fd99::2/64\n[Peer]\nPublicKey = %s\nAllowedIPs = %s\n' \
    $(cat b) $(wg pubkey < a) 10.9.0.1/32,fd99::1/128 > far.conf
state() { ip -br link; ip -o addr; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; }
calm() { state | grep -v -e fe80 -e ff00::/8; }
sleep_until() { tries=0; until "$@" > /dev/null 2>&1; do tries=$((tries + 1)); [ $tries -lt 60 ] || { echo "never: $*"; return; }; done; }
up() {
    wireloom up --engine $1 ./near.conf 2> told || { echo "--- up $1"; cat told; }
    grep -q "near: $2" told || { echo "--- $1"; cat told; }
    ip -d link show near | grep -q "$3" || { echo "--- not $3"; ip -d link show near; }
}
ip netns exec far wireloom up --engine auto ./far.conf 2> told || cat told
calm > before
for engine in "kernel the.kernel's.WireGuard.(engine.kernel) wireguard" "userspace Wireloom's.own.WireGuard.(engine.userspace) tun" \
    "auto the.kernel's.WireGuard.(engine.auto wireguard"; do
    set -- $engine
    up "$@"
    for to in 198.51.100.1 10.9.0.2 fd99::2; do sleep_until ping -c 1 -W 2 $to; done
    wireloom up --engine $1 ./near.conf 2> told && echo "up twice"
    grep -q "is up already" told || cat told
    wireloom down ./near.conf 2> told || cat told
    calm > after; cmp -s before after || { echo "--- $1 is left"; diff before after; }
done
# Without rules, the same in a namespace of its own.
ip netns add web; ip -n web link set lo up
for engine in kernel userspace; do
    wireloom up --engine $engine --netns web ./near.conf 2> told || cat told
    sleep_until ip netns exec web ping -c 1 -W 2 198.51.100.1
    calm > after; cmp -s before after || { echo "--- $engine, --netns"; diff before after; }
    wireloom down near 2> told || cat told
    [ -z "$(ip -n web -br link show type wireguard)$(ip -n web rule | grep fwmark)" ] || echo "left in web: $engine"
done
ip netns exec far wireloom down far 2> told || cat told
ip -n far link show far 2> /dev/null
ls /run/wireloom
"#;

#[test]
fn the_kernels_wireguard_is_an_engine_too() {
    // The older one: what it can do the newer one can, too.
    let guest: Guest = GuestSpec::new(Kernel::V6_1).program(binary()).boot(&Namespace::new().unwrap()).unwrap();
    let finished = guest.attempt(ENGINES, LONG).unwrap();
    assert!(finished.status.success() && finished.stdout.is_empty(), "{}", finished.log());
}

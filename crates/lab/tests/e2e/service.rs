//! The service: `wireloom@.service` under systemd as the first process of a Debian, in a guest, with its peer on the host.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::wg::KeyPair;
use lab::{
    Debian, End, Guest, GuestSpec, Kernel, Namespace, Outer, Process, ping, socket_path, unique_interface, wait_until,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::bed::{Bed, succeeded};
use crate::common::{LIMIT, wireloom};

/// The tunnel's interface in the guest, and what runs it.
const INTERFACE: &str = "wg0";
const UNIT: &str = "wireloom@wg0.service";

/// What a tunnel changes, and has to leave as it was. Which addresses a card has is none of it.
const STATE: &str = "ip -br link; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; \
    ls -A /run/wireguard /run/wireloom /etc/wireguard";

/// Files of the package that are as they lie in the tree.
fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(name)
}

/// The tunnel's file.
fn file(keys: &KeyPair, peer: &KeyPair, endpoint: Option<SocketAddr>) -> String {
    let private = fs::read_to_string(keys.private.path()).unwrap();
    let endpoint = endpoint.map_or_else(String::new, |endpoint| format!("Endpoint = {endpoint}\n"));
    format!(
        "[Interface]\nPrivateKey = {}\nListenPort = 51820\nAddress = 10.9.0.2/24, fd09::2/64\n\n\
         [Peer]\nPublicKey = {}\nAllowedIPs = 10.9.0.0/24, fd09::/64, 10.77.0.0/16\n{endpoint}",
        private.trim(),
        peer.public
    )
}

/// A Debian with the program and its unit where the package puts them, booted, and a peer on its host.
struct Machine {
    guest: Guest,
    peer: End,
    /// The guest's.
    keys: KeyPair,
}

impl Machine {
    fn boot() -> Machine {
        let debian = Debian::unpack().unwrap();
        debian.copy(&wireloom().program().unwrap(), "/usr/bin/wireloom").unwrap();
        debian.copy(&packaging("systemd/wireloom@.service"), "/lib/systemd/system/wireloom@.service").unwrap();
        debian.copy(&packaging("systemd/hardened.conf"), "/root/hardened.conf").unwrap();
        // Enabled, and so started at boot.
        let wants = debian.root().join("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants).unwrap();
        symlink("/lib/systemd/system/wireloom@.service", wants.join(UNIT)).unwrap();
        let keys = KeyPair::generate().unwrap();
        let peer_keys = KeyPair::generate().unwrap();
        let folder = debian.root().join("etc/wireguard");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("wg0.conf"), file(&keys, &peer_keys, None)).unwrap();
        let spec = GuestSpec { processors: 2, ..GuestSpec::new(Kernel::V6_1) };
        let guest = spec.boot_system(&debian, &Namespace::new().unwrap()).unwrap();
        let mut peer = End::new(wireloom().start(&guest.host.namespace).unwrap(), &guest.host, 1).unwrap();
        (peer.v4, peer.v6) = ("10.9.0.1".parse().unwrap(), "fd09::1".parse().unwrap());
        peer.keys = peer_keys;
        peer.bring_up(1420).unwrap();
        let allowed = "10.9.0.2/32,fd09::2/128";
        let endpoint = format!("{}:51820", guest.v4);
        peer.daemon.set(&["peer", &keys.public, "allowed-ips", allowed, "endpoint", &endpoint]).unwrap();
        Machine { guest, peer, keys }
    }

    /// With the peer's endpoint, so that either end may begin.
    fn write_file(&self) {
        let file = file(&self.keys, &self.peer.keys, Some(self.peer.endpoint(Outer::V4)));
        self.guest.write("/etc/wireguard/wg0.conf", file.as_bytes()).unwrap();
    }

    #[track_caller]
    fn run(&self, script: &str) -> String {
        let finished = self.guest.attempt(script, LIMIT).unwrap();
        if !finished.status.success() {
            let log = self.guest.run("journalctl --no-pager -n 80 -o cat").unwrap();
            panic!("`{script}`: {}\n{log}", finished.log());
        }
        finished.stdout
    }

    #[track_caller]
    fn property(&self, name: &str) -> String {
        self.run(&format!("systemctl show --value -p {name} {UNIT}")).trim().to_owned()
    }

    /// Waits until the service is up and has been started again so many times.
    #[track_caller]
    fn wait_until_restarted(&self, times: u32) {
        let times = times.to_string();
        wait_until(&format!("restart {times}"), LIMIT, || {
            self.property("NRestarts") == times && self.property("ActiveState") == "active"
        })
        .unwrap();
    }

    /// From the guest, in both families.
    #[track_caller]
    fn check_pings(&self) {
        self.run("ping -n -q -c 2 -i 0.2 -w 20 10.9.0.1 && ping -n -q -c 2 -i 0.2 -w 20 fd09::1");
        ping::once(self.peer.namespace(), "10.9.0.2".parse().unwrap(), &["-W", "5"]).unwrap().checked().unwrap();
    }

    /// What is to be the same across all restarts: the interface with its number, its addresses, and the ways to it.
    #[track_caller]
    fn interface(&self) -> String {
        self.run(&format!(
            "cat /sys/class/net/{INTERFACE}/ifindex; ip address show dev {INTERFACE}; ip route show table all dev {INTERFACE}; \
             ip -6 route show table all dev {INTERFACE}"
        ))
    }

    /// The process that has the keys, or the one that systemd has started.
    #[track_caller]
    fn daemon(&self) -> String {
        let script = format!(
            "for pid in $(cat /sys/fs/cgroup/$(systemctl show --value -p ControlGroup {UNIT})/cgroup.procs); do
                case $(tr '\\0' ' ' < /proc/$pid/cmdline) in *' run '*) [ $(cat /proc/$pid/comm) = wl-steward ] || echo $pid;; esac
            done"
        );
        self.run(&script).trim().to_owned()
    }
}

/// What a service says next to its manager.
fn hear(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let len = manager.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..len].to_vec()).unwrap()
}

#[test]
fn run_tells_its_manager_that_it_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let namespace = Namespace::new().unwrap();
    let daemon = wireloom()
        .start_with(&namespace, |command| {
            command.env("NOTIFY_SOCKET", &path);
        })
        .unwrap();
    let said = hear(&manager);
    assert!(said.starts_with("READY=1\nSTATUS="), "{said}");
    assert!(socket_path(&daemon.interface).exists(), "it was not ready");
    // It has said so once, and nobody that it has started does.
    drop(daemon);
    manager.set_nonblocking(true).unwrap();
    assert!(manager.recv(&mut [0; 10]).is_err());
}

impl Drop for Foreground {
    /// Its network goes, and so what the journal tells of.
    fn drop(&mut self) {
        let _ = fs::remove_file(format!("/run/wireloom/{}.json", self.interface));
    }
}

/// A service in the foreground of nobody, with the file that it runs.
struct Foreground {
    service: Process,
    namespace: Namespace,
    interface: String,
    file: PathBuf,
    _folder: TempDir,
}

impl Foreground {
    fn start(adjust: impl FnOnce(&mut Command)) -> Foreground {
        let folder = tempfile::tempdir().unwrap();
        let (namespace, interface) = (Namespace::new().unwrap(), unique_interface());
        let file = folder.path().join(format!("{interface}.conf"));
        let text = "[Interface]\nAddress = 10.98.0.1/24\nFwMark = 7\n[Peer]\n\
            PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nAllowedIPs = 10.99.0.0/16\n";
        fs::write(&file, text).unwrap();
        let mut command = namespace.command(wireloom().program().unwrap());
        command.args(["up", "--foreground"]).arg(&file);
        adjust(&mut command);
        let service = Process::spawn(&mut command).unwrap();
        Foreground { service, namespace, interface, file, _folder: folder }
    }

    /// Waits until its route is there, which is the last step, and it holds its interface's lock no longer: who is told to end before that undoes what
    /// has been done, and fails.
    fn wait_until_up(&mut self) {
        let (namespace, interface) = (&self.namespace, &self.interface);
        let lock = PathBuf::from(format!("/run/wireloom/{interface}.lock"));
        let routes = || namespace.ip(&["route", "show", "dev", interface]);
        let up = || routes().is_ok_and(|routes| routes.contains("10.99.0.0")) && !lock.exists();
        wait_until("the interface to be up", LIMIT, up).unwrap();
    }

    /// The process that has the keys.
    fn daemon(&self) -> Pid {
        let id = self.service.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        Pid::from_raw(children.trim().parse().unwrap()).unwrap()
    }

    /// It ends with this exit code.
    #[track_caller]
    fn wait(&mut self, code: i32) {
        let status = self.service.wait(LIMIT).unwrap();
        assert_eq!(status.code(), Some(code), "{}", self.service.log());
    }

    /// It ends with this exit code, and nothing is left.
    #[track_caller]
    fn ends(mut self, code: i32) {
        self.wait(code);
        assert!(self.namespace.ip(&["link", "show", "dev", &self.interface]).is_err(), "the interface is there");
        let journal = format!("/run/wireloom/{}.json", self.interface);
        assert!(!socket_path(&self.interface).exists() && !Path::new(&journal).exists(), "{}", self.service.log());
    }
}

#[test]
fn without_a_manager_a_service_leaves_nothing_however_it_ends() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut told = Foreground::start(|_| ());
        told.wait_until_up();
        told.service.signal(signal);
        told.ends(0);
    }

    let mut crashed = Foreground::start(|_| ());
    crashed.wait_until_up();
    kill_process(crashed.daemon(), Signal::KILL).unwrap();
    crashed.ends(1);

    let mut deleted = Foreground::start(|_| ());
    deleted.wait_until_up();
    deleted.namespace.ip(&["link", "delete", &deleted.interface]).unwrap();
    deleted.ends(1);

    let mut taken_down = Foreground::start(|_| ());
    taken_down.wait_until_up();
    let program = wireloom().program().unwrap();
    taken_down.namespace.run(program.to_str().unwrap(), &["down", taken_down.file.to_str().unwrap()]).unwrap();
    taken_down.ends(0);

    // What cannot be brought up leaves nothing either.
    let failed = Foreground::start(|command| {
        command.args(["--fail-at", "4"]);
    });
    failed.ends(1);
}

#[test]
fn a_kill_switch_goes_only_when_it_is_told_to() {
    let switch = |it: &Foreground| it.namespace.run("nft", &["list", "tables"]).unwrap().contains("wireloom-kill-");
    let program = wireloom().program().unwrap();
    for crash in [true, false] {
        let mut it = Foreground::start(|command| {
            command.arg("--kill-switch");
        });
        it.wait_until_up();
        match crash {
            true => kill_process(it.daemon(), Signal::KILL).unwrap(),
            false => drop(it.namespace.ip(&["link", "delete", &it.interface]).unwrap()),
        }
        it.wait(1);
        assert!(switch(&it), "{}", it.service.log());
        it.namespace.run(program.to_str().unwrap(), &["down", &it.interface]).unwrap();
        assert!(!switch(&it));
        it.ends(1);
    }
    let mut told = Foreground::start(|command| {
        command.arg("--kill-switch");
    });
    told.wait_until_up();
    told.service.signal(Signal::TERM);
    told.wait(0);
    assert!(!switch(&told));
    told.ends(0);
}

#[test]
fn a_hook_that_fails_does_not_stop_a_service_from_taking_all_down() {
    let mut it = Foreground::start(|_| ());
    it.wait_until_up();
    let text = fs::read_to_string(&it.file).unwrap();
    fs::write(&it.file, text.replace("[Peer]", "PreDown = false\n[Peer]")).unwrap();
    it.service.signal(Signal::TERM);
    it.ends(1);
}

#[test]
fn a_service_is_well_only_while_its_daemon_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let mut it = Foreground::start(|command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "800000");
    });
    let said = std::iter::repeat_with(|| hear(&manager))
        .find(|said| !said.starts_with("FDSTORE=1\nFDPOLL=0\nFDNAME="))
        .unwrap();
    assert!(said.starts_with("READY=1\nSTATUS="), "{said}");
    it.wait_until_up();
    assert_eq!(hear(&manager), "WATCHDOG=1");
    assert_eq!(hear(&manager), "WATCHDOG=1");

    let complaints = |it: &Foreground| it.service.stderr().matches("does not answer").count();
    let daemon = it.daemon();
    kill_process(daemon, Signal::STOP).unwrap();
    wait_until("a complaint", LIMIT, || complaints(&it) > 0).unwrap();
    manager.set_nonblocking(true).unwrap();
    while manager.recv(&mut [0; 100]).is_ok() {}
    wait_until("another complaint", LIMIT, || complaints(&it) > 1).unwrap();
    assert!(manager.recv(&mut [0; 100]).is_err(), "it says that all is well");
    manager.set_nonblocking(false).unwrap();
    kill_process(daemon, Signal::CONT).unwrap();
    assert_eq!(hear(&manager), "WATCHDOG=1");

    it.service.signal(Signal::TERM);
    let said: Vec<String> = std::iter::repeat_with(|| hear(&manager)).take_while(|said| said != "STOPPING=1").collect();
    assert!(said.iter().all(|said| said == "WATCHDOG=1"), "{said:?}");
    // Nothing is kept any longer.
    let said = hear(&manager);
    assert!(said.starts_with("FDSTOREREMOVE=1\nFDNAME="), "{said}");
    it.ends(0);
}

#[test]
fn tunnels_of_nobody_go_before_the_package() {
    let bed = Bed::new();
    bed.configure("[Interface]\nAddress = 10.9.0.2/24\nDNS = 10.9.0.1\n");
    let before = bed.state();
    succeeded(bed.wireloom(&["up", "--kill-switch", INTERFACE]));
    let (script, program) = (packaging("deb/prerm"), wireloom().program().unwrap());
    bed.sh(&format!("ln -s {} /mnt/bin/wireloom; sh {} upgrade 9", program.display(), script.display()));
    assert!(bed.has_journal(), "an upgrade stops nothing");
    bed.sh(&format!("sh {} remove", script.display()));
    bed.wait_until_idle().unwrap();
    before.assert_same(&bed.state(), "after the script");
    assert!(!bed.has_journal());
}

#[test]
fn a_tunnel_under_systemd() {
    let machine = Machine::boot();
    let state = machine.guest.attempt("systemctl is-system-running --wait", LIMIT).unwrap().stdout;
    assert_eq!(state.trim(), "running", "{}", machine.run("systemctl --failed --no-pager"));
    machine.run(&format!(
        "mkdir -p /etc/systemd/system/{UNIT}.d; printf '[Service]\nWatchdogSec=15\n' > /etc/systemd/system/{UNIT}.d/test.conf
        systemctl daemon-reload"
    ));
    // It was started at boot, and knows its peer by what came from there.
    assert_eq!(machine.property("ActiveState"), "active");
    ping::once(machine.peer.namespace(), "10.9.0.2".parse().unwrap(), &["-W", "20"]).unwrap().checked().unwrap();
    machine.run(&format!("systemctl stop {UNIT}"));
    let before = machine.run(STATE);

    machine.write_file();
    machine.run(&format!("systemctl start {UNIT}"));
    machine.check_pings();
    assert!(machine.property("StatusText").starts_with("wg0 is up"), "{}", machine.property("StatusText"));
    let interface = machine.interface();
    assert!(interface.contains("10.77.0.0/16") && interface.contains("fd09::2/64"), "{interface}");

    // All but the daemon stays, and who speaks to it meanwhile waits.
    let (main, daemon) = (machine.property("MainPID"), machine.daemon());
    assert_ne!(main, daemon);
    machine.run(&format!(
        "(for n in $(seq 200); do wireloom show {INTERFACE} public-key || echo failed; [ -e /run/enough ] && break; done > /run/clients 2>&1; \
         touch /run/done) & systemctl restart {UNIT}"
    ));
    machine.check_pings();
    machine.run("touch /run/enough; until [ -e /run/done ]; do sleep 0.05; done");
    let clients = machine.run("sort /run/clients | uniq -c");
    assert!(!clients.contains("failed") && !clients.contains("cannot"), "{clients}");
    assert_eq!(machine.interface(), interface);
    assert!(machine.property("MainPID") != main && machine.daemon() != daemon);
    assert_eq!(machine.property("NRestarts"), "0");

    // A daemon that crashes, the first process likewise, and a daemon that hangs.
    machine.run(&format!("kill -9 {}", machine.daemon()));
    machine.wait_until_restarted(1);
    machine.check_pings();
    assert_eq!(machine.interface(), interface);
    machine.run(&format!("kill -9 {}", machine.property("MainPID")));
    machine.wait_until_restarted(2);
    machine.check_pings();
    assert_eq!(machine.interface(), interface);
    machine.run(&format!("kill -STOP {}", machine.daemon()));
    machine.wait_until_restarted(3);
    machine.check_pings();
    assert_eq!(machine.interface(), interface);
    let log = machine.run(&format!("journalctl --no-pager -o cat -u {UNIT}"));
    assert!(log.contains("watchdog") && log.contains("does not answer"), "{log}");

    // Everything goes through the tunnel, and its peer has a name that nobody knows any more.
    machine.run(&format!("systemctl stop {UNIT}"));
    let named = file(&machine.keys, &machine.peer.keys, Some(machine.peer.endpoint(Outer::V4)));
    let outer = machine.peer.endpoint(Outer::V4).ip().to_string();
    let named = named
        .replace(&format!("Endpoint = {outer}"), "Endpoint = far.test")
        .replace("10.77.0.0/16", "0.0.0.0/1, 128.0.0.0/1");
    machine.guest.write("/etc/wireguard/wg0.conf", named.as_bytes()).unwrap();
    machine.run(&format!(
        "echo {outer} far.test > /etc/hosts; systemctl reset-failed {UNIT}; systemctl start {UNIT} && rm /etc/hosts"
    ));
    machine.check_pings();
    let interface = machine.interface();
    machine.run(&format!("systemctl restart {UNIT}"));
    machine.check_pings();
    assert_eq!(machine.interface(), interface);

    // Other options than what was kept was made with.
    machine.write_file();
    machine.run(&format!(
        "printf '[Service]\\nExecStart=\\nExecStart=/usr/bin/wireloom up -f --metrics 9586 %%i\\n' > /etc/systemd/system/{UNIT}.d/metrics.conf
        systemctl daemon-reload; systemctl reset-failed {UNIT}; systemctl restart {UNIT}; grep -q 9586 /run/wireloom/{INTERFACE}.json"
    ));
    machine.check_pings();
    assert_ne!(machine.interface(), interface);
    machine.run(&format!("rm /etc/systemd/system/{UNIT}.d/metrics.conf; systemctl daemon-reload"));

    // A file that makes no sense any more: what was kept goes, and the next start makes it anew.
    machine.guest.write("/etc/wireguard/wg0.conf", b"[Interface]\nNonsense = 1\n").unwrap();
    machine.guest.attempt(&format!("systemctl restart {UNIT}; systemctl stop {UNIT}"), LIMIT).unwrap();
    machine.run(&format!("until ! ip link show {INTERFACE} > /dev/null 2>&1; do sleep 0.05; done"));
    machine.write_file();
    machine.run(&format!("systemctl reset-failed {UNIT}; systemctl start {UNIT}"));
    machine.check_pings();

    machine.run(&format!("systemctl stop {UNIT}"));
    assert_eq!(machine.property("ActiveState"), "inactive");
    assert_eq!(machine.run(STATE), before);

    // The kernel's own WireGuard, which no daemon runs.
    machine.run(&format!(
        "printf '[Service]\\nExecStart=\\nExecStart=/usr/bin/wireloom up -f --engine kernel %%i\\n' > /etc/systemd/system/{UNIT}.d/kernel.conf
        systemctl daemon-reload; systemctl start {UNIT}"
    ));
    machine.check_pings();
    let interface = machine.interface();
    assert_eq!(machine.daemon(), "");
    machine.run(&format!("systemctl restart {UNIT}"));
    machine.check_pings();
    assert_eq!(machine.interface(), interface);
    machine.run(&format!("systemctl stop {UNIT}; rm /etc/systemd/system/{UNIT}.d/kernel.conf"));
    assert_eq!(machine.run(STATE), before);

    // With next to nothing, for files without hooks.
    machine.run(&format!(
        "cp /root/hardened.conf /etc/systemd/system/{UNIT}.d/; systemctl daemon-reload; systemctl start {UNIT}"
    ));
    machine.check_pings();
    let interface = machine.interface();
    machine.run(&format!("systemctl restart {UNIT}"));
    machine.check_pings();
    assert_eq!(machine.interface(), interface);
    println!("{}", machine.run(&format!("systemd-analyze security --no-pager {UNIT} | tail -1")));
    machine.run(&format!("systemctl stop {UNIT}"));
    assert_eq!(machine.run(STATE), before);
}

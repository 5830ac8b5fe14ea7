//! The service: `wireloom@.service` under systemd as the first process of a Debian, in a guest, with its peer on the host.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use lab::wg::KeyPair;
use lab::{Debian, End, Guest, GuestSpec, Kernel, Namespace, Outer, ping, socket_path, wait_until};

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

/// A Debian with the program and its unit where the package puts them, booted, and a peer on its host.
struct Machine {
    guest: Guest,
    peer: End,
}

impl Machine {
    fn boot() -> Machine {
        let debian = Debian::unpack().unwrap();
        debian.copy(&wireloom().program().unwrap(), "/usr/bin/wireloom").unwrap();
        debian.copy(&packaging("systemd/wireloom@.service"), "/lib/systemd/system/wireloom@.service").unwrap();
        debian.copy(&packaging("systemd/hardened.conf"), "/root/hardened.conf").unwrap();
        let spec = GuestSpec { processors: 2, ..GuestSpec::new(Kernel::V6_1) };
        let guest = spec.boot_system(&debian, &Namespace::new().unwrap()).unwrap();
        let mut peer = End::new(wireloom().start(&guest.host.namespace).unwrap(), &guest.host, 1).unwrap();
        (peer.v4, peer.v6) = ("10.9.0.1".parse().unwrap(), "fd09::1".parse().unwrap());
        peer.bring_up(1420).unwrap();
        let keys = KeyPair::generate().unwrap();
        peer.daemon.set(&["peer", &keys.public, "allowed-ips", "10.9.0.2/32,fd09::2/128"]).unwrap();
        let private = fs::read_to_string(keys.private.path()).unwrap();
        let file = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = 51820\nAddress = 10.9.0.2/24, fd09::2/64\n\n\
             [Peer]\nPublicKey = {}\nAllowedIPs = 10.9.0.0/24, fd09::/64, 10.77.0.0/16\nEndpoint = {}\n",
            private.trim(),
            peer.keys.public,
            peer.endpoint(Outer::V4),
        );
        guest.run("umask 077; mkdir -p /etc/wireguard /run/wireguard /run/wireloom").unwrap();
        guest.write("/etc/wireguard/wg0.conf", file.as_bytes()).unwrap();
        Machine { guest, peer }
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

#[test]
fn a_tunnel_under_systemd() {
    let machine = Machine::boot();
    let state = machine.guest.attempt("systemctl is-system-running --wait", LIMIT).unwrap().stdout;
    assert_eq!(state.trim(), "running", "{}", machine.run("systemctl --failed --no-pager"));
    machine.run(&format!(
        "mkdir -p /etc/systemd/system/{UNIT}.d; printf '[Service]\nWatchdogSec=15\n' > /etc/systemd/system/{UNIT}.d/test.conf
        systemctl daemon-reload"
    ));
    let before = machine.run(STATE);

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

    machine.run(&format!("systemctl stop {UNIT}"));
    assert_eq!(machine.property("ActiveState"), "inactive");
    assert_eq!(machine.run(STATE).replace("wg0.lock\n", ""), before);

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
    assert_eq!(machine.run(STATE).replace("wg0.lock\n", ""), before);
}

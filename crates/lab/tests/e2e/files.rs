//! The files of interfaces: saved as wg-quick saves them, exported so that systemd-networkd makes of them what `up` would, and what networkd does with an
//! interface of ours.

use std::fs;
use std::path::Path;
use std::process::Command;

use lab::{Daemon, Finished, GuestSpec, Kernel, Namespace, run};
use tempfile::TempDir;

use crate::common::{LIMIT, wireloom};

const NETWORKD: &str = "/lib/systemd/systemd-networkd";
const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const OTHER: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
const SECRET: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

/// A daemon with two peers and addresses, and a folder with its file.
struct Saved {
    daemon: Daemon,
    folder: TempDir,
}

impl Saved {
    fn new(file: &str) -> Saved {
        let namespace = Namespace::new().unwrap();
        let daemon = wireloom().start(&namespace).unwrap();
        let saved = Saved { daemon, folder: tempfile::tempdir().unwrap() };
        let interface = &saved.daemon.interface;
        // The kernel's own WireGuard has no address of this kind either; `up` sees to that.
        namespace.set_sysctl(&format!("net/ipv6/conf/{interface}/addr_gen_mode"), "1").unwrap();
        namespace.set_sysctl(&format!("net/ipv6/conf/{interface}/accept_dad"), "0").unwrap();
        fs::write(saved.folder.path().join("secret"), SECRET).unwrap();
        let secret = saved.folder.path().join("secret").display().to_string();
        saved.daemon.set(&["private-key", &secret, "listen-port", "51823", "fwmark", "7"]).unwrap();
        saved.daemon.set(&["peer", KEY, "allowed-ips", "10.0.0.0/8,fd00::/64", "persistent-keepalive", "25"]).unwrap();
        saved.daemon.set(&["peer", OTHER, "preshared-key", &secret, "endpoint", "192.0.2.1:7"]).unwrap();
        for address in ["10.0.0.1/24", "10.1.0.1/32", "fd00::1/64"] {
            namespace.ip(&["address", "add", address, "dev", interface]).unwrap();
        }
        namespace.ip(&["link", "set", interface, "mtu", "1380", "up"]).unwrap();
        fs::write(saved.file(), file).unwrap();
        saved
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join(format!("{}.conf", self.daemon.interface))
    }

    fn run(&self, program: &str, words: &[&str]) -> Finished {
        let mut command = self.daemon.namespace.command(program);
        run(command.args(words), LIMIT).unwrap()
    }

    fn save(&self, program: &str) -> String {
        let before = fs::read(self.file()).unwrap();
        let finished = self.run(program, &["save", self.file().to_str().unwrap()]);
        assert!(finished.status.success(), "{program}: {}", finished.log());
        let text = fs::read_to_string(self.file()).unwrap();
        fs::write(self.file(), before).unwrap();
        text
    }
}

fn program() -> String {
    wireloom().program().unwrap().display().to_string()
}

#[test]
fn what_runs_is_saved_as_wg_quick_saves_it() {
    for file in [
        "[Interface]\n".to_owned(),
        "[Interface]\nMTU = 1200\nTable = off\nSaveConfig = true\nPostDown = echo %i down\nPreUp = a=b\nPostUp = b\nPostUp = c\n".to_owned(),
        format!("[Interface]\nAddress = 10.9.9.9/24\nTable = auto\nSaveConfig = false\nPrivateKey = {SECRET}\n\n[Peer]\nPublicKey = {KEY}\n"),
    ] {
        let saved = Saved::new(&file);
        let (theirs, ours) = (saved.save("wg-quick"), saved.save(&program()));
        assert!(ours.contains("Address = 10.1.0.1/32\nAddress = fd00::1/64\n") && ours.contains(OTHER), "{ours}");
        assert_eq!(ours, theirs);
    }
}

#[test]
fn a_disk_that_is_full_costs_no_file() {
    let old = format!("# {}\n[Interface]\nPrivateKey = {SECRET}\n", "x".repeat(3000));
    let saved = Saved::new(&old);
    let interface = &saved.daemon.interface;
    // Two pages: one for the file, one that something else has taken.
    let script = format!(
        "set -e; cp '{}' /tmp/wl-old; mkdir /tmp/wl-full; mount -t tmpfs -o size=8k full /tmp/wl-full; cd /tmp/wl-full; cp /tmp/wl-old {interface}.conf; \
         head -c 4096 /dev/zero > other; if '{}' save ./{interface}.conf; then exit 3; fi; cmp {interface}.conf /tmp/wl-old; ls -A",
        saved.file().display(),
        program()
    );
    // In folders of its own, so that nothing of the machine's is touched.
    let script = format!(
        "mount -t tmpfs tmp /mnt; cp '{}' /mnt/c; {}",
        saved.file().display(),
        script.replace("/tmp/wl-", "/mnt/wl-")
    );
    let told = saved.run("unshare", &["--mount", "sh", "-c", &script]);
    assert!(told.status.success(), "{}", told.log());
    assert_eq!(told.stdout, format!("other\n{interface}.conf\n"));
    assert!(told.stderr.contains("which is as it was: No space left"), "{}", told.stderr);
}

/// Runs networkd for a moment, where the files of its own are in folders of the test's, and tells what was before and after.
fn with_networkd(namespace: &Namespace, interface: &str, prepare: &str) -> Finished {
    assert!(Path::new(NETWORKD).exists(), "{NETWORKD} is needed, which is in the package systemd");
    let script = format!(
        r#"
set -e
mount -t tmpfs run /run; mount -t tmpfs etc /etc/systemd/network; mount -o remount,bind,ro /sys
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp /run/systemd/networkd.conf.d
chown -R systemd-network:systemd-network /run/systemd/netif
printf '[Match]\nName=eth5\n[Network]\nAddress=192.0.2.5/24\n' > /etc/systemd/network/10-eth5.network
{prepare}
look() {{ ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; ip address show dev {interface}; }}
look | grep -E "{interface}|inet|fwmark|suppress" | grep -v "valid_lft\|eth5\|far" > /run/before
SYSTEMD_LOG_TARGET=console {NETWORKD} > /run/log 2>&1 & pid=$!
for at in $(seq 300); do ip address show dev eth5 | grep -q 192.0.2.5 && break; sleep 0.1; done
ip address show dev eth5 | grep -q 192.0.2.5 || {{ cat /run/log; exit 5; }}
{{ [ -z "$WAIT" ] || for at in $(seq 300); do grep -q "$WAIT" /run/log && break; sleep 0.1; done; }}
look | grep -E "{interface}|inet|fwmark|suppress" | grep -v "valid_lft\|eth5\|far" > /run/after
kill $pid; wait $pid || true
grep {interface} /run/log >&2 || true
diff /run/before /run/after || true
"#
    );
    let mut command = namespace.command("unshare");
    run(command.args(["--mount", "sh", "-c", &script]), LIMIT).unwrap()
}

#[test]
fn networkd_leaves_an_interface_of_ours_alone_unless_a_file_matches_it() {
    let namespace = Namespace::new().unwrap();
    let daemon = wireloom().start(&namespace).unwrap();
    let interface = daemon.interface.as_str();
    namespace.set_sysctl(&format!("net/ipv6/conf/{interface}/addr_gen_mode"), "1").unwrap();
    let ip = |words: &str| namespace.ip(&words.split(' ').collect::<Vec<_>>()).unwrap();
    ip("link add eth5 type veth peer name far");
    ip("link set far up");
    ip(&format!("address add 10.0.0.2/24 dev {interface}"));
    ip(&format!("address add fd00::2/64 dev {interface} nodad"));
    daemon.up().unwrap();
    // As `up` makes them for a default route.
    ip(&format!("route add 10.9.0.0/16 dev {interface}"));
    for family in ["-4", "-6"] {
        ip(&format!("{family} route add default dev {interface} table 51820"));
        ip(&format!("{family} rule add not fwmark 51820 table 51820"));
        ip(&format!("{family} rule add table main suppress_prefixlength 0"));
    }
    let plain = with_networkd(&namespace, interface, "");
    assert!(plain.status.success() && plain.stdout.is_empty(), "{}", plain.log());
    assert!(!plain.stderr.contains("Configuring"), "{}", plain.log());
    // A file for all interfaces takes ours, too: it gets what that says.
    let all = "printf '[Match]\\nName=*\\n[Network]\\nLinkLocalAddressing=ipv6\\n' > /etc/systemd/network/90-all.network; WAIT='IPv6LL';";
    let taken = with_networkd(&namespace, interface, all);
    assert!(taken.status.success() && taken.stderr.contains("Configuring with"), "{}", taken.log());
    assert!(taken.stdout.contains("> ") && !taken.stdout.contains("< "), "{}", taken.log());
    // Unless another says that it is not to.
    ip(&format!("-6 address flush dev {interface} scope link"));
    let unmanaged = format!(
        "{} printf '[Match]\\nName={interface}\\n[Link]\\nUnmanaged=yes\\n' > /etc/systemd/network/05-wireguard.network; WAIT=;",
        all
    );
    let left = with_networkd(&namespace, interface, &unmanaged);
    assert!(left.status.success() && left.stdout.is_empty(), "{}", left.log());
    assert!(!left.stderr.contains("Configuring"), "{}", left.log());
}

#[test]
fn networkd_makes_of_an_export_what_the_file_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wg0.conf");
    let text = format!(
        "[Interface]\nAddress = 10.0.0.2/24, fd00::2/64\nMTU = 1380\nListenPort = 51820\nPrivateKey = {SECRET}\n\n[Peer]\nPublicKey = {KEY}\n\
         PresharedKey = {OTHER}\nAllowedIPs = 0.0.0.0/0, 10.9.0.0/16, ::/0\nEndpoint = 192.0.2.7:51820\nPersistentKeepalive = 25\n"
    );
    fs::write(&file, &text).unwrap();
    let mut export = Command::new(program());
    export.args(["export", "--format", "networkd", "--output"]).arg(folder.path()).arg(&file);
    run(&mut export, LIMIT).unwrap().checked().unwrap();
    let namespace = Namespace::new().unwrap();
    let guest = GuestSpec::new(Kernel::V6_1).program(NETWORKD).boot(&namespace).unwrap();
    guest
        .run("mkdir -p /etc/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp")
        .unwrap();
    for name in ["50-wg0.netdev", "50-wg0.network"] {
        guest.write(&format!("/etc/systemd/network/{name}"), &fs::read(folder.path().join(name)).unwrap()).unwrap();
    }
    let script = r#"
echo 'root:x:0:0::/root:/bin/sh' > /etc/passwd; echo 'systemd-network:x:998:998::/:/bin/false' >> /etc/passwd
echo 'root:x:0:' > /etc/group; echo 'systemd-network:x:998:' >> /etc/group
chown 0:998 /etc/systemd/network/*; chmod 640 /etc/systemd/network/*; chmod 755 /etc /etc/systemd /etc/systemd/network
chown -R 998:998 /run/systemd/netif
mount -o remount,ro /sys
SYSTEMD_LOG_TARGET=console systemd-networkd > /run/log 2>&1 &
for at in $(seq 200); do [ "$(ip rule | grep -c 51820)$(ip -6 rule | grep -c 51820)" = 11 ] && ip address show dev wg0 | grep -q fd00::2 && break; usleep 100000; done
for at in $(seq 200); do [ "$(ip -6 route show default table 51820 | grep -c wg0)" = 1 ] && [ "$(ip route show 10.9.0.0/16 | grep -c wg0)" = 1 ] && break; usleep 100000; done
wg show wg0 dump
ip -4 -o address show dev wg0 | grep -o 'inet [^ ]*'; ip -6 -o address show dev wg0 | grep -o 'inet6 [^ ]*'
ip link show dev wg0 | grep -o 'mtu 1380'
ip route show default table 51820; ip -6 route show default table 51820; ip route show 10.9.0.0/16
ip rule | grep -v 'lookup local\|lookup default'; ip -6 rule | grep -v 'lookup local'
grep -i 'ignor\|unknown\|invalid\|fail' /run/log | grep -v 'state file\|wireless\|container\|udev\|hostname' >&2
true
"#;
    let told = guest.attempt(script, LIMIT * 3).unwrap();
    let lines: Vec<String> =
        told.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let public = run(Command::new("sh").args(["-c", &format!("echo {SECRET} | wg pubkey")]), LIMIT).unwrap().stdout;
    let expected = [
        format!("{SECRET} {} 51820 0xca6c", public.trim()),
        format!("{KEY} {OTHER} 192.0.2.7:51820 ::/0,10.9.0.0/16,0.0.0.0/0 0 0 0 25"),
        "inet 10.0.0.2/24".into(),
        "inet6 fd00::2/64".into(),
        "mtu 1380".into(),
        "default dev wg0 proto static scope link".into(),
        "default dev wg0 proto static metric 1024 pref medium".into(),
        "10.9.0.0/16 dev wg0 proto static scope link".into(),
        "32764: from all lookup main suppress_prefixlength 0 proto static".into(),
        "32765: not from all fwmark 0xca6c lookup 51820 proto static".into(),
        "32766: from all lookup main".into(),
        "32764: from all lookup main suppress_prefixlength 0 proto static".into(),
        "32765: not from all fwmark 0xca6c lookup 51820 proto static".into(),
        "32766: from all lookup main".into(),
    ];
    assert_eq!(lines, expected, "{}\n{}", told.stderr, guest.run("cat /run/log").unwrap());
    assert!(told.stderr.is_empty(), "{}", told.stderr);
}

//! Ours, run by these kernels themselves: the offloads that each has are found and used, those that it lacks are done without, and
//! the tunnel reaches the kernel's WireGuard in another namespace of the guest as well as ours on the host.

use lab::traffic::{Service, exchange_tcp};
use lab::{End, Guest, Kernel};

use super::pair::boot_with;
use super::restart;
use crate::common::{LIMIT, SOON, wireloom};

/// Another namespace `b` of the guest, and a cable to it.
const CABLE: &str = "
    ip netns add b
    ip link add v0 type veth peer name v1 netns b
    ip address add 192.0.2.1/24 dev v0
    ip link set v0 up
    ip -n b address add 192.0.2.2/24 dev v1
    ip -n b link set v1 up
    ip -n b link set lo up
    ip netns exec b lab-traffic serve 7007 > /run/service-b &
    until grep -q ready /run/service-b; do usleep 10000; done";

/// Ours as `wl0`, with what it says in `/run/wl0.log`.
fn start_ours(guest: &Guest, arguments: &str) {
    let script = format!(
        "set -e
        LOG_LEVEL=debug wireloom run -f {arguments} wl0 > /run/wl0.log 2>&1 &
        until wireloom show wl0 > /dev/null 2>&1; do
            kill -0 $! || {{ cat /run/wl0.log; exit 1; }}
            usleep 10000
        done
        umask 077
        wireloom genkey > /run/ours.key
        wireloom set wl0 listen-port 5000 private-key /run/ours.key
        ip address add 10.9.0.1/24 dev wl0
        ip address add fd09::1/64 dev wl0 nodad
        ip link set wl0 up"
    );
    guest.attempt(&script, LIMIT).unwrap().checked().unwrap();
}

/// The kernel's as `wg0` in `b`, each the other's peer.
const KERNELS: &str = "set -e
    umask 077
    wg genkey > /run/kernels.key
    ours=$(wireloom pubkey < /run/ours.key)
    kernels=$(wg pubkey < /run/kernels.key)
    ip -n b link add wg0 type wireguard
    ip netns exec b wg set wg0 listen-port 6000 private-key /run/kernels.key peer $ours allowed-ips 10.9.0.1/32,fd09::1/128
    ip -n b address add 10.9.0.2/24 dev wg0
    ip -n b address add fd09::2/64 dev wg0 nodad
    ip -n b link set wg0 up
    wireloom set wl0 peer $kernels allowed-ips 10.9.0.2/32,fd09::2/128 endpoint 192.0.2.2:6000
    ping -n -c 3 -i 0.2 -W 5 10.9.0.2
    ping -n -c 3 -i 0.2 -W 5 fd09::2";

/// What the kernel in the guest counts of an interface, such as `tx_bytes`.
fn counter(guest: &Guest, interface: &str, name: &str) -> u64 {
    let text = guest.run(&format!("cat /sys/class/net/{interface}/statistics/{name}")).unwrap();
    text.trim().parse().unwrap()
}

fn exchange(guest: &Guest, to: &str) {
    guest.attempt(&format!("lab-traffic tcp {to} 500000"), LIMIT).unwrap().checked().unwrap();
}

fn runs_ours(kernel: Kernel, has_uso: bool) {
    let guest = boot_with(kernel, 2);
    guest.run(CABLE).unwrap();

    // With all that the kernel has: two workers, and offloads at the interface and outside.
    start_ours(&guest, "");
    guest.attempt(KERNELS, LIMIT).unwrap().checked().unwrap();
    let log = guest.run("cat /run/wl0.log").unwrap();
    assert!(
        log.contains(&format!("2 workers, Offloads {{ vnet: true, csum: true, tso: true, uso: {has_uso} }}")),
        "{log}"
    );
    assert!(!log.contains("ERROR"), "{log}");
    let features = guest.run("ethtool -k wl0").unwrap();
    assert!(features.contains("tcp-segmentation-offload: on"), "{features}");
    assert_eq!(features.contains("tx-udp-segmentation: on"), has_uso, "{features}");
    let before = (counter(&guest, "v0", "tx_bytes"), counter(&guest, "v0", "tx_packets"));
    exchange(&guest, "10.9.0.2:7007");
    exchange(&guest, "[fd09::2]:7007");
    let bytes = counter(&guest, "v0", "tx_bytes") - before.0;
    let packets = counter(&guest, "v0", "tx_packets") - before.1;
    assert!(bytes / packets > 2000, "{bytes} bytes in {packets} packets: they leave one by one");
    let udp = guest.run("lab-traffic udp 10.9.0.2:7007 2 100 1200 2000 true").unwrap();
    assert!(udp.contains("\"corrupt\":0},\"echoes\"") && udp.contains("\"corrupt\":0}}"), "{udp}");
    // As `wg` reads it through the socket, and as ours does.
    assert_eq!(guest.run("wg show wl0 dump").unwrap(), guest.run("wireloom show wl0 dump").unwrap());

    // Ours on the host, by the cable that leads out of the guest.
    with_ours_on_the_host(&guest);

    // Ends with its interface, and starts anew, without any of it.
    guest.run("pid=$(pidof wireloom) && ip link del wl0 && while [ -d /proc/$pid ]; do usleep 10000; done").unwrap();
    assert_eq!(guest.run("ls /run/wireguard").unwrap(), "");
    guest.run("ip -n b link del wg0").unwrap();
    start_ours(&guest, "--no-udp-gso --no-udp-gro --no-tun-offload --workers 1");
    guest.attempt(KERNELS, LIMIT).unwrap().checked().unwrap();
    let before = (counter(&guest, "v0", "tx_bytes"), counter(&guest, "v0", "tx_packets"));
    exchange(&guest, "10.9.0.2:7007");
    let bytes = counter(&guest, "v0", "tx_bytes") - before.0;
    let packets = counter(&guest, "v0", "tx_packets") - before.1;
    assert!(bytes / packets <= 1514, "{bytes} bytes in {packets} packets: an offload is still on");
}

/// With programs in these kernels, which the kernel's own WireGuard takes for its like, whoever begins.
fn runs_programs(kernel: Kernel) {
    let guest = boot_with(kernel, 2);
    guest.run(CABLE).unwrap();
    start_ours(&guest, "--engine ebpf");
    guest.attempt(KERNELS, LIMIT).unwrap().checked().unwrap();
    exchange(&guest, "10.9.0.2:7007");
    exchange(&guest, "[fd09::2]:7007");
    let udp = guest.run("lab-traffic udp 10.9.0.2:7007 2 100 1200 2000 true").unwrap();
    assert!(udp.contains("\"corrupt\":0},\"echoes\"") && udp.contains("\"corrupt\":0}}"), "{udp}");
    // Now the kernel's begins: ours has forgotten where it is.
    let again = "set -e
        kernels=$(wg pubkey < /run/kernels.key)
        ours=$(wireloom pubkey < /run/ours.key)
        wireloom set wl0 peer $kernels remove
        wireloom set wl0 peer $kernels allowed-ips 10.9.0.2/32,fd09::2/128
        ip -n b link set wg0 down
        ip -n b link set wg0 up
        ip -n b address replace fd09::2/64 dev wg0 nodad
        ip netns exec b wg set wg0 peer $ours endpoint 192.0.2.1:5000
        ip netns exec b ping -n -c 3 -i 0.2 -W 15 10.9.0.1
        ip netns exec b ping -n -c 3 -i 0.2 -W 15 fd09::1";
    guest.attempt(again, LIMIT).unwrap().checked().unwrap();
    guest.attempt("ip netns exec b lab-traffic tcp 10.9.0.1:7007 500000", LIMIT).unwrap().checked().unwrap();
    guest.attempt("ip netns exec b lab-traffic tcp [fd09::1]:7007 500000", LIMIT).unwrap().checked().unwrap();
    let stats = guest.run("lab-traffic ask /var/run/wireguard/wl0.sock stats").unwrap();
    let taken = |name: &str| -> u64 {
        let line = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {name} in {stats}")).parse().unwrap()
    };
    // Two megabytes each way are 1400 packets of 1420 bytes at the least, whatever is acknowledged how often; of those that are
    // sent, some may be left to the daemon as super-packets.
    assert!(taken("taken_sent") > 800 && taken("taken_received") > 1400, "{stats}");
    restart::goes_on(&guest);
    let log = guest.run("cat /run/wl0.log").unwrap();
    assert!(!log.contains("ERROR"), "{log}");
    // Ends with its interface, and nothing of it stays.
    guest.run("pid=$(pidof wireloom | tr ' ' '\\n' | sort -n | head -n 1); ip link del wl0 && while [ -d /proc/$pid ]; do usleep 10000; done").unwrap();
    assert_eq!(guest.run("ls /run/wireguard").unwrap(), "");
}

fn with_ours_on_the_host(guest: &Guest) {
    let namespace = &guest.host.namespace;
    let mut host = End::new(wireloom().start(namespace).unwrap(), &guest.host, 3).unwrap();
    (host.v4, host.v6) = ("10.9.0.3".parse().unwrap(), "fd09::3".parse().unwrap());
    host.bring_up(1420).unwrap();
    let key = guest.run("wireloom pubkey < /run/ours.key").unwrap();
    let endpoint = format!("{}:5000", guest.v4);
    host.daemon.set(&["peer", key.trim(), "allowed-ips", "10.9.0.1/32,fd09::1/128", "endpoint", &endpoint]).unwrap();
    let peer = format!("peer {} allowed-ips 10.9.0.3/32,fd09::3/128", host.keys.public);
    guest.run(&format!("wireloom set wl0 {peer}")).unwrap();
    exchange_tcp(namespace, "10.9.0.1".parse().unwrap(), 500_000, LIMIT).unwrap();
    let _service = Service::start(namespace).unwrap();
    guest.attempt("ping -n -c 2 -i 0.2 -W 5 fd09::3", SOON).unwrap().checked().unwrap();
    exchange(guest, "[fd09::3]:7007");
}

#[test]
fn linux_6_1_runs_programs() {
    runs_programs(Kernel::V6_1);
}

#[test]
fn linux_6_12_runs_programs() {
    runs_programs(Kernel::V6_12);
}

#[test]
fn linux_6_1_runs_ours() {
    runs_ours(Kernel::V6_1, false);
}

#[test]
fn linux_6_12_runs_ours() {
    runs_ours(Kernel::V6_12, true);
}

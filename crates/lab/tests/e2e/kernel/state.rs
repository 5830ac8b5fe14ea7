//! What `wg` is told and what it shows, and what the interface is to the rest of the system: the same words to the kernel's
//! interface and to ours, side by side in one guest, have the same outcome, byte for byte, refusals included.

use lab::{Guest, Kernel};

use super::pair::boot;
use crate::common::LIMIT;

/// What is done to both, in this order; `DEV` is the interface. Keys are `/run/kN`, public ones `$PN`, files of a configuration as
/// `wg` wrote it `/run/DEV.conf`.
const STEPS: &[&str] = &[
    "true",
    "wg set DEV private-key /run/k0 listen-port 5555 fwmark 0xca6c",
    // In an order of its own, with bits beyond the prefix, twice.
    "wg set DEV peer $P1 allowed-ips 10.1.0.7/24,fd01::5/64,10.0.0.0/8,0.0.0.0/0,::/0,10.1.0.9/24,192.0.2.1",
    "wg set DEV peer $P2 allowed-ips 10.2.0.0/16 endpoint 192.0.2.9:51820 persistent-keepalive 25",
    "wg set DEV peer $P3 preshared-key /run/psk endpoint [2001:db8::1]:7 allowed-ips ::1/128,1.2.3.4/32",
    // One takes another's.
    "wg set DEV peer $P2 allowed-ips 10.0.0.0/8,fd01::/64",
    "wg set DEV peer $P3 persistent-keepalive 65535 preshared-key /dev/null",
    "wg set DEV peer $P2 persistent-keepalive off",
    // What is the interface's own key is no peer's.
    "wg set DEV peer $P0 allowed-ips 10.3.0.0/16",
    "wg set DEV peer $P4 remove",
    "wg set DEV peer $P3 remove peer $P4 allowed-ips '' peer $P5 endpoint 198.51.100.1:1",
    "wg set DEV peer $P1 allowed-ips ''",
    "wg set DEV listen-port 0",
    "wg set DEV fwmark off",
    // A peer whose key becomes the interface's own goes.
    "wg set DEV private-key /run/k2",
    "wg set DEV private-key /dev/null",
    "wg set DEV peer $P0 allowed-ips 10.3.0.0/16",
    "wg set DEV private-key /run/k0",
    "wg set DEV peer $P6 allowed-ips 0.0.0.0/0,0.0.0.0/1,128.0.0.0/1,::/0,8000::/1",
    "wg set DEV peer $P7 allowed-ips 0.0.0.0/0",
    // What is refused.
    "wg set DEV peer $P7 allowed-ips 10.0.0.0/33",
    "wg set DEV listen-port 65536",
    "wg set DEV peer nokey",
    // Whole configurations.
    "wg showconf DEV > /run/DEV.conf; wg setconf DEV /run/DEV.conf",
    "printf '[Peer]\\nPublicKey = %s\\nAllowedIPs = 10.4.0.0/16, 10.5.0.0/16\\n' $P1 > /run/DEV.conf; wg addconf DEV /run/DEV.conf",
    "printf '[Interface]\\nListenPort = 6666\\n[Peer]\\nPublicKey = %s\\n[Peer]\\nPublicKey = %s\\nAllowedIPs = ::/0\\n' $P7 $P1 > /run/DEV.conf; wg syncconf DEV /run/DEV.conf",
    "printf '[Interface]\\nFwMark = 7\\n[Peer]\\nPublicKey = %s\\nPersistentKeepalive = 9\\n' $P8 > /run/DEV.conf; wg setconf DEV /run/DEV.conf",
    "wg set DEV private-key /run/k1",
    "ip link set DEV up; wg set DEV listen-port 7777; ip link set DEV down",
    // One that somebody else has: the service of `lab-traffic`.
    "ip link set DEV up; wg set DEV listen-port 7007",
    "wg set DEV fwmark 8 listen-port 7007; ip link set DEV down",
    // The interface itself: what it is, and what coming up does to it. An address that nobody gave it would ask for routers and tell
    // of its groups through the tunnel.
    "ip address add 10.8.0.1/24 dev DEV; ip address add fd08::1/64 dev DEV nodad; ip link set DEV up; \
     for f in flags type addr_len mtu operstate statistics/tx_packets; do echo $f $(cat /sys/class/net/DEV/$f); done; \
     grep . /proc/sys/net/ipv4/conf/all/send_redirects /proc/sys/net/ipv4/conf/DEV/send_redirects; \
     cat /proc/sys/net/ipv6/conf/DEV/addr_gen_mode; ip -o address show DEV | sed 's/^[0-9]*//'; \
     ip maddress show dev DEV | tail -n +2; ip route show table all | grep DEV; ip -6 route show table all | grep DEV; \
     ip link set DEV down; ip address flush dev DEV",
];

/// What stands between the outcomes of two steps.
const CUT: &str = "-- next --";

/// Does it all to one interface and tells, for each step, all that can be seen.
fn act(guest: &Guest, interface: &str) -> Vec<String> {
    let mut script = ". /run/keys\n".to_owned();
    for step in STEPS {
        script.push_str(&format!(
            "{{ {}; }} 2>&1; echo status $?; wg show {interface} dump; wg showconf {interface}; echo {CUT}\n",
            step.replace("DEV", interface)
        ));
    }
    script.push_str(&format!("wg show {interface}"));
    let text = guest.attempt(&script, LIMIT).unwrap().checked().unwrap().stdout;
    text.replace(interface, "DEV").split(CUT).map(str::to_owned).collect()
}

fn shows_the_same(kernel: Kernel) {
    let guest = boot(kernel);
    guest
        .run(
            "set -e
            umask 077
            for n in 0 1 2 3 4 5 6 7 8; do wg genkey > /run/k$n; echo P$n=$(wg pubkey < /run/k$n) >> /run/keys; done
            wg genpsk > /run/psk
            ip link add knl0 type wireguard
            wireloom run our0",
        )
        .unwrap();
    let (ours, kernels) = (act(&guest, "our0"), act(&guest, "knl0"));
    let steps = STEPS.iter().chain(&["wg show DEV"]);
    let differ: Vec<String> = steps
        .zip(ours.iter().zip(&kernels))
        .filter(|(_, (ours, kernels))| ours != kernels)
        .map(|(step, (ours, kernels))| format!("after `{step}` ours shows{ours}and the kernel's{kernels}"))
        .collect();
    assert_eq!((ours.len(), kernels.len()), (STEPS.len() + 1, STEPS.len() + 1));
    assert!(differ.is_empty(), "{}", differ.join("\n\n"));
}

#[test]
fn linux_6_1_shows_what_ours_shows() {
    shows_the_same(Kernel::V6_1);
}

#[test]
fn linux_6_12_shows_what_ours_shows() {
    shows_the_same(Kernel::V6_12);
}

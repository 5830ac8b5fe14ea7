//! Our commands on devices of the kernel's own WireGuard, by netlink: they print what Debian's `wg` prints, and what they set is set.
//!
//! The devices are in a guest with a kernel of its own, one boot for each test.

use std::time::Duration;

use lab::{Guest, GuestSpec, Kernel, Namespace, System};

use crate::common::LIMIT;

/// Of a script that makes hundreds of calls in an emulated machine.
const LONG: Duration = Duration::from_secs(240);

fn boot(kernel: Kernel) -> Guest {
    let System::Wireloom(binary, _) = System::wireloom().unwrap() else { unreachable!("it is ours") };
    GuestSpec::new(kernel).program(binary).boot(&Namespace::new().unwrap()).unwrap()
}

/// Runs a script that says what is wrong, and nothing where all is well.
#[track_caller]
fn check(guest: &Guest, script: &str) {
    let finished = guest.attempt(&format!("set -u\nexport KEY={KEY} OTHER={OTHER}\n{script}"), LONG).unwrap();
    assert!(finished.status.success() && finished.stdout.is_empty(), "{}{}", finished.stdout, finished.stderr);
}

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const OTHER: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

/// Devices that each have something of their own; two of them have shaken hands. One more runs in user space.
const DEVICES: &str = r#"
cd /tmp; umask 077
wg genkey > secret; wg genpsk > psk; wg genkey > left; wg genkey > right
for name in bare key full many peers here there; do ip link add $name type wireguard; done
wg set key private-key secret
wg set full private-key secret listen-port 51820 fwmark 0xca6c \
    peer $KEY preshared-key psk endpoint [fe80::1%eth0]:5 persistent-keepalive 25 allowed-ips 10.0.0.0/8,::/0,2001:db8::/32,::1.2.3.4/128 \
    peer $OTHER endpoint 192.0.2.1:51820
seq 1 3000 | awk '{ printf "%s10.%d.%d.1/32,fd00::%x/128", NR == 1 ? "" : ",", $1 / 256, $1 % 256, $1 }' > ips
wg set many private-key secret peer $KEY allowed-ips $(cat ips)
for at in $(seq 100 400); do echo "[Peer]"; printf 'PublicKey = %s' $KEY | sed "s/boU/$at/" ; echo; echo "Endpoint = [2001:db8::$at]:$at"; echo "PersistentKeepalive = $at"; done > peers.conf
wg setconf peers peers.conf
ip netns add far; ip link set there netns far
wg set here private-key left listen-port 1001 peer $(wg pubkey < right) endpoint 127.0.0.1:1002 allowed-ips 10.9.0.2/32
ip netns exec far wg set there private-key right listen-port 1002 peer $(wg pubkey < left) allowed-ips 10.9.0.1/32
ip link set lo up; ip addr add 10.9.0.1/24 dev here; ip link set here up
ip netns exec far ip addr add 10.9.0.2/24 dev there; ip netns exec far ip link set there up
ping -c 3 -i 0.2 -W 5 10.9.0.2 > /dev/null || echo "no ping"
wireloom run us0 || echo "no daemon"
wg set us0 private-key secret peer $KEY allowed-ips 10.0.0.0/8
"#;

/// Every form of every device. What differs is asked again, since an age may be another one by then.
const FORMS: &str = r#"
cd /tmp
compare() {
    tries=0
    while :; do
        env $vars wireloom "$@" > ours 2> told; ours=$?
        env $vars wg "$@" > theirs 2> /dev/null; theirs=$?
        cmp -s ours theirs && break
        tries=$((tries + 1)); [ $tries -lt 6 ] || break
    done
    [ $tries -lt 6 ] && [ $ours$theirs = 00 ] || { echo "--- $vars $*: $ours, $theirs"; cat told; diff ours theirs | head -c 600; }
}
fields="public-key private-key listen-port fwmark peers preshared-keys endpoints allowed-ips latest-handshakes persistent-keepalive transfer dump"
for name in $(wg show interfaces); do
    for vars in "" WG_COLOR_MODE=always "WG_HIDE_KEYS=never WG_COLOR_MODE=never"; do compare show $name; done
    vars=
    compare showconf $name
    for field in $fields; do compare show $name $field; done
done
compare show interfaces; compare show; compare show all
for field in $fields; do [ $field = endpoints ] || compare show all $field; done
[ "$(wg show interfaces)" = "bare key full many peers here us0" ] || echo "order: $(wg show interfaces)"
wireloom show here | grep -q "latest handshake: " || echo "no handshake is shown"
wireloom doctor --json here > told || { echo "doctor:"; cat told; }
for id in endpoint-way path-inside handshake; do grep -q "\"id\":\"$id\",\"level\":\"ok\"" told || { echo "doctor: no $id"; cat told; }; done
case $(uname -r) in 6.1.*) hooks=ebpf-no-tcx;; *) hooks=ebpf-engine;; esac
for id in ebpf-engine $hooks; do grep -q "\"id\":\"$id\"" told || { echo "doctor: no $id"; cat told; }; done
[ $(wireloom show many allowed-ips | wc -w) = 6001 ] || echo "allowed IPs are missing"
[ $(wireloom show peers peers | wc -l) = 301 ] || echo "peers are missing"
wireloom show all --json > json || echo "no JSON"
[ "$(grep -c '"engine": "kernel"' json) $(grep -c '"engine": "wireloom"' json)" = "6 1" ] || echo "engines: $(grep '"engine"' json)"
[ "$(grep -c '"public_key"' json)" = 313 ] || echo "keys: $(grep -c '"public_key"' json)"
grep -q -F -f secret json && echo "a private key is shown"; grep -q -F -f psk json && echo "a preshared key is shown"
WG_HIDE_KEYS=never wireloom show full --json | grep -q -F -f psk || echo "no preshared key is shown"
wireloom top --once --interval 0.1 here | grep -q "10.9.0.2/32" || echo "top: $(wireloom top --once here)"
[ "$(wireloom show all endpoints | wc -l)" = 306 ] || echo "endpoints of all: $(wireloom show all endpoints | wc -l)"
"#;

/// Each line on a new device, by `wg` on one and by us on another: both are then told the same by `wg`. A line of several commands
/// makes them one after the other.
const SETTINGS: &str = r#"
cd /tmp
zeros=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=; echo $zeros > zeros
printf '[Interface]\nPrivateKey = %s\nListenPort = 7\nFwMark = 8\n[Peer]\nPublicKey = %s\nPresharedKey = %s\nAllowedIPs = 10.0.0.0/8, ::/0\nEndpoint = [::1]:5\nPersistentKeepalive = 9\n' \
    "$(cat secret)" $KEY "$(cat psk)" > full.conf
printf '[Peer]\nPublicKey = %s\nPresharedKey = %s\nPersistentKeepalive = 9\nAllowedIPs = 10.0.0.0/16\n[Peer]\nPublicKey = %s\n' $KEY "$(cat psk)" $OTHER > two.conf
printf '[Interface]\nFwMark = 3\n[Peer]\nPublicKey = %s\nAllowedIPs = 192.0.2.0/24\n' $OTHER > add.conf
: > empty.conf
apply() {
    program=$1 device=$2 rest="$3;"
    while [ -n "$rest" ]; do
        command=${rest%%;*} rest=${rest#*;}
        set -- $command; verb=$1; shift
        $program $verb $device "$@" 2> told || { echo "--- $program $command"; cat told; }
    done
    wg showconf $device > $program.out
}
PUB=$(wg pubkey < secret)
count=0
while read -r line; do
    count=$((count + 1))
    # They stay, since a device takes its time to go.
    ip link add a$count type wireguard; ip link add b$count type wireguard
    apply wg a$count "$line"; apply wireloom b$count "$line"
    cmp -s wg.out wireloom.out || { echo "--- $line"; diff wg.out wireloom.out | grep -v Key | head -c 600; }
done << END
set listen-port 5 fwmark 0x10
set fwmark 5;set fwmark off
set listen-port 5;set listen-port 0 fwmark 1
set private-key secret;set private-key zeros
set private-key secret;set private-key /dev/null
set private-key secret peer $PUB allowed-ips ::/0
set peer $PUB allowed-ips ::/0;set private-key secret
set peer $KEY
set peer $KEY;set peer $KEY remove
set peer $KEY remove
set peer $KEY peer $OTHER allowed-ips ::/0;set peer $KEY remove peer $OTHER remove
set peer $KEY preshared-key psk
set peer $KEY preshared-key psk;set peer $KEY preshared-key /dev/null
set peer $KEY endpoint 192.0.2.1:5
set peer $KEY endpoint [2001:db8::1]:5;set peer $KEY endpoint [fe80::1%eth0]:6
set peer $KEY persistent-keepalive 65535
set peer $KEY persistent-keepalive 25;set peer $KEY persistent-keepalive off
set peer $KEY allowed-ips 10.0.0.0/8,::/0,192.0.2.1
set peer $KEY allowed-ips 10.0.0.0/8;set peer $KEY allowed-ips ::/0
set peer $KEY allowed-ips 10.0.0.1/8 peer $OTHER allowed-ips 10.0.0.0/8
set peer $KEY allowed-ips 10.0.0.0/8,::/0;set peer $OTHER allowed-ips ::/0
set private-key secret listen-port 9 fwmark 9 peer $KEY preshared-key psk endpoint [::1]:5 persistent-keepalive 7 allowed-ips ::/0 peer $OTHER
setconf full.conf
setconf full.conf;setconf two.conf
setconf full.conf;setconf empty.conf
setconf two.conf;setconf full.conf
setconf full.conf;addconf add.conf
setconf two.conf;addconf full.conf
addconf add.conf;addconf add.conf
setconf full.conf;syncconf full.conf
setconf full.conf;syncconf empty.conf
setconf full.conf;syncconf two.conf
syncconf full.conf
setconf peers.conf;syncconf add.conf
setconf add.conf;syncconf peers.conf
END
# What wg mended later: a peer that stays loses what the file does not say.
ip link add dev0 type wireguard
wireloom setconf dev0 full.conf; printf '[Peer]\nPublicKey = %s\n' $KEY > less.conf
wireloom syncconf dev0 less.conf
[ "$(wg show dev0 dump | tail -n 1)" = "$(printf '%s\t(none)\t[::1]:5\t(none)\t0\t0\t0\toff' $KEY)" ] || wg show dev0 dump
# Single networks come; that they go takes Linux 6.16.
wireloom set dev0 peer $KEY allowed-ips 10.0.0.0/8
wireloom set dev0 peer $KEY allowed-ips +::/0,+192.0.2.0/24
[ "$(wg show dev0 allowed-ips)" = "$(printf '%s\t10.0.0.0/8 ::/0 192.0.2.0/24' $KEY)" ] || wg show dev0 allowed-ips
wireloom set dev0 peer $KEY allowed-ips -::/0 2> told && echo "taken away by an old kernel"
grep -q "takes Linux 6.16" told && [ $(wc -l < told) = 1 ] || cat told
"#;

/// What cannot be.
const MISTAKES: &str = r#"
cd /tmp
refused() {
    expected=$1; shift
    wireloom "$@" > out 2> told; code=$?
    [ $code = 1 ] && [ ! -s out ] && [ "$(cat told)" = "wireloom: $expected" ] || { echo "$*: $code"; cat out told; }
    wg "$@" > out 2> told; code=$?
    [ $code = 1 ] && [ ! -s out ] || { echo "wg $*: $code"; cat out told; }
}
none="no interface 'none' runs here, expected one that \`wireloom show interfaces\` lists"
not="interface 'lo' is not WireGuard's, or its daemon has gone, expected one that \`wireloom show interfaces\` lists"
for words in "show none" "show none dump" "showconf none" "set none listen-port 5" "setconf none empty.conf"; do refused "$none" $words; done
for words in "show lo" "showconf lo" "set lo listen-port 5" "addconf lo empty.conf"; do refused "$not" $words; done
ip link set full up
refused "interface 'full': Address already in use" set full listen-port 1001 fwmark 5
"#;

#[test]
fn kernel_devices_are_shown_as_wg_shows_them() {
    let guest = boot(Kernel::V6_1);
    check(&guest, DEVICES);
    check(&guest, FORMS);
}

#[test]
fn kernel_devices_are_set_as_wg_sets_them() {
    let guest = boot(Kernel::V6_12);
    check(&guest, DEVICES);
    check(&guest, SETTINGS);
    check(&guest, MISTAKES);
}

#[test]
fn a_hundred_and_thirty_thousand_allowed_ips_reach_the_kernel_and_come_back() {
    let guest = boot(Kernel::V6_12);
    let script = "cd /tmp && ip link add wg0 type wireguard && { printf '[Peer]\\nPublicKey = %s\\n' $KEY; \
        seq 0 130559 | awk '{ printf \"AllowedIPs = 10.%d.%d.%d\\n\", $1 / 65536, $1 / 256 % 256, $1 % 256 }'; } > conf \
        && wireloom setconf wg0 conf && wireloom show wg0 allowed-ips > ours && wg show wg0 allowed-ips > theirs && cmp ours theirs \
        && wc -w < ours";
    let told = guest.attempt(&format!("KEY={KEY}; {script}"), LIMIT * 3).unwrap();
    assert_eq!(told.stdout.trim(), "130561", "{}{}", told.stdout, told.stderr);
}

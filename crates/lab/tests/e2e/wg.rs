//! Debian's `wg` on a running daemon of ours: what it sets is what it sets on wireguard-go, and what it shows we show, too.

use std::process::Command;

use lab::wg::preshared_key;
use lab::{Daemon, Namespace, System, run};

use crate::common::{LIMIT, check_pings, our_tunnel, wireloom};
use crate::engines::{each_engine, each_engine_untaken};

each_engine!(a_live_device_is_shown_as_wg_shows_it);

each_engine_untaken!(what_wg_sets_is_set_as_on_wireguard_go);

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const OTHER: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
const SECRET: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

/// Makes the commands of each line on a device that nothing is set of but its port, and prints what became of it: the peers in the order
/// of their keys, and their networks in an order too, since other programs have none. What was sent is left out: wireguard-go begins while
/// the interface is down.
const SETTINGS: &str = r#"
cd "$FOLDER"; umask 077
printf '[Interface]\nListenPort = %s\n' $PORT > base.conf
echo $SECRET > secret; echo $OTHER > psk; echo AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= > zeros
printf '[Interface]\nPrivateKey = %s\nListenPort = %s\nFwMark = 8\n[Peer]\nPublicKey = %s\nPresharedKey = %s\nAllowedIPs = 10.0.0.0/8, ::/0\nEndpoint = [::1]:5\nPersistentKeepalive = 9\n' \
    $SECRET $PORT $KEY $OTHER > full.conf
printf '[Interface]\nListenPort = %s\n[Peer]\nPublicKey = %s\nPresharedKey = %s\nPersistentKeepalive = 9\nAllowedIPs = 10.0.0.0/16\n[Peer]\nPublicKey = %s\n' \
    $PORT $KEY $OTHER $OTHER > two.conf
printf '[Interface]\nFwMark = 3\n[Peer]\nPublicKey = %s\nAllowedIPs = 192.0.2.0/24\n' $OTHER > add.conf
while read -r line; do
    wg setconf $DEVICE base.conf
    echo "== $line"
    echo "$line" | sed "s|KEY|$KEY|g; s|OTHER|$OTHER|g; s|PUB|$(wg pubkey < secret)|g" | tr ';' '\n' | while read -r command; do
        set -- $command; verb=$1; shift
        wg $verb $DEVICE "$@" || echo "failed: $command"
    done
    wg show $DEVICE dump | awk -F '\t' -v OFS='\t' 'NF == 8 { n = split($4, ips, ","); for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++)
        if (ips[j] < ips[i]) { t = ips[i]; ips[i] = ips[j]; ips[j] = t }; list = ips[1]; for (i = 2; i <= n; i++) list = list "," ips[i]; $4 = list; $5 = $6 = $7 = "-" } { print }' | sort
done << END
set fwmark 0x10
set fwmark 5;set fwmark off
set private-key secret
set private-key secret;set private-key zeros
set private-key secret;set private-key /dev/null
set private-key secret peer PUB allowed-ips ::/0
set peer PUB allowed-ips ::/0;set private-key secret
set peer KEY
set peer KEY;set peer KEY remove
set peer KEY remove
set peer KEY peer OTHER allowed-ips ::/0;set peer KEY remove peer OTHER remove
set peer KEY preshared-key psk
set peer KEY preshared-key psk;set peer KEY preshared-key /dev/null
set peer KEY endpoint 192.0.2.1:5
set peer KEY endpoint [2001:db8::1]:5;set peer KEY endpoint [fe80::1%lo]:6
set peer KEY persistent-keepalive 65535
set peer KEY persistent-keepalive 25;set peer KEY persistent-keepalive off
set peer KEY allowed-ips 10.0.0.0/8,::/0,192.0.2.1
set peer KEY allowed-ips 10.0.0.0/8;set peer KEY allowed-ips ::/0
set peer KEY allowed-ips 10.0.0.0/8;set peer KEY allowed-ips
set peer KEY allowed-ips 10.0.0.1/8 peer OTHER allowed-ips 10.0.0.0/8
set peer KEY allowed-ips 10.0.0.0/8,::/0;set peer OTHER allowed-ips ::/0
set private-key secret fwmark 9 peer KEY preshared-key psk endpoint [::1]:5 persistent-keepalive 7 allowed-ips ::/0 peer OTHER
setconf full.conf
setconf full.conf;setconf two.conf
setconf two.conf;setconf full.conf
setconf full.conf;addconf add.conf
setconf two.conf;addconf full.conf
addconf add.conf;addconf add.conf
setconf full.conf;syncconf full.conf
setconf full.conf;syncconf two.conf
syncconf full.conf
END
"#;

/// What became of each line of [`SETTINGS`] on a daemon.
fn settled(daemon: &Daemon, folder: &str) -> String {
    let mut command = daemon.namespace.command("sh");
    command.args(["-c", SETTINGS]).envs([("DEVICE", daemon.interface.as_str()), ("FOLDER", folder), ("PORT", "50011")]);
    command.envs([("KEY", KEY), ("OTHER", OTHER), ("SECRET", SECRET)]);
    let finished = run(&mut command, LIMIT).unwrap();
    assert!(finished.status.success(), "{}", finished.log());
    // What `set` refuses is told here, and by both.
    finished.stdout
}

fn what_wg_sets_is_set_as_on_wireguard_go() {
    let folder = tempfile::TempDir::new().unwrap();
    let folder = folder.path().to_str().unwrap();
    let ours = wireloom().start(&Namespace::new().unwrap()).unwrap();
    let theirs = System::WireguardGo.start(&Namespace::new().unwrap()).unwrap();
    let (ours, theirs) = (settled(&ours, folder), settled(&theirs, folder));
    assert_eq!(ours.matches("== ").count(), 32);
    for (ours, theirs) in ours.split("== ").zip(theirs.split("== ")) {
        // The kernel keeps a zone, wireguard-go forgets it.
        assert_eq!(ours, theirs.replace("[fe80::1]:6", "[fe80::1%lo]:6"));
    }
}

/// Compares every form of `$DEVICE`; what differs is asked again, since an age or a counter may be another one by then.
const FORMS: &str = r#"
compare() {
    tries=0
    while :; do
        ours=$(env $vars "$WIRELOOM" "$@"; echo $?); theirs=$(env $vars wg "$@"; echo $?)
        [ "$ours" != "$theirs" ] || break
        tries=$((tries + 1)); [ $tries -lt 8 ] || { echo "--- $vars $*"; echo "$ours"; echo "$theirs"; break; }
    done
}
for vars in "" WG_COLOR_MODE=always "WG_HIDE_KEYS=never WG_COLOR_MODE=never"; do compare show $DEVICE; done
vars=
compare showconf $DEVICE
for field in public-key private-key listen-port fwmark peers preshared-keys endpoints allowed-ips latest-handshakes persistent-keepalive transfer dump; do
    compare show $DEVICE $field
done
"#;

fn a_live_device_is_shown_as_wg_shows_it() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let psk = preshared_key().unwrap();
    left.daemon
        .set(&["fwmark", "0x7", "peer", KEY, "preshared-key", &psk.path(), "persistent-keepalive", "61"])
        .unwrap();
    left.daemon.set(&["peer", OTHER, "endpoint", "[fe80::1%lo]:5", "allowed-ips", "fd00:1::/64,192.0.2.0/24"]).unwrap();
    let System::Wireloom(program, _) = wireloom() else { unreachable!("it is ours") };
    let mut command: Command = left.namespace().command("sh");
    command.args(["-c", FORMS]).env("WIRELOOM", program).env("DEVICE", &left.daemon.interface);
    let finished = run(&mut command, LIMIT).unwrap();
    assert!(finished.status.success() && finished.stdout.is_empty(), "{}", finished.log());
    assert!(lab::wg::show(&left.daemon.interface).unwrap().contains("latest handshake: "));
}

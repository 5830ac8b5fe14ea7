//! Our daemon is killed where these kernels run its programs, as filters (6.1) and by TCX (6.12): the kernel's own WireGuard at the other end notices nothing.
//! It is done with the guests of `inside`, since to boot one and to have its kernel verify the programs takes longer than all of this.

use std::time::{Duration, Instant};

use lab::{Guest, wait_until};

use crate::common::LIMIT;

/// For how long there is no daemon at the least.
const GONE: Duration = Duration::from_secs(2);

/// The daemon is the first of its processes, its steward came after it.
const KILL: &str = "pid=$(pidof wireloom | tr ' ' '\\n' | sort -n | head -n 1); kill -9 $pid; while [ -d /proc/$pid ]; do usleep 10000; done";

/// Another one, which has its keys and peers by one change, and no endpoint.
const SUCCESSOR: &str = "set -e
    LOG_LEVEL=debug wireloom run -f --engine ebpf wl0 >> /run/wl0.log 2>&1 &
    until wireloom show wl0 > /dev/null 2>&1; do kill -0 $!; usleep 10000; done
    wireloom set wl0 listen-port 5000 private-key /run/ours.key peer $(wg pubkey < /run/kernels.key) allowed-ips 10.9.0.2/32,fd09::2/128";

/// From the kernel's end to ours: one TCP connection, round by round, and pings.
const TRAFFIC: &str =
    "ip netns exec b lab-traffic converse 10.9.0.1:7007 10000 50000 > /run/rounds 2>&1 & echo $! > /run/tcp
    ip netns exec b ping -n -i 0.1 -W 2 10.9.0.1 > /run/pings 2>&1 & echo $! > /run/ping";

fn rounds(guest: &Guest) -> u64 {
    let said = guest.run("tail -n 1 /run/rounds").unwrap();
    // Until the first one has been, there is nothing.
    if said.trim().is_empty() { 0 } else { said.trim().parse().unwrap_or_else(|_| panic!("{said}")) }
}

#[track_caller]
fn wait_for_rounds(guest: &Guest, more: u64) {
    let enough = rounds(guest) + more;
    wait_until("more rounds of TCP", LIMIT, || rounds(guest) >= enough).unwrap();
}

fn handshakes(guest: &Guest) -> String {
    guest
        .run("ip netns exec b wg show wg0 latest-handshakes | cut -f 2; wireloom show wl0 latest-handshakes | cut -f 2")
        .unwrap()
}

/// What the programs have sent and received since the daemon began.
fn taken(guest: &Guest) -> u64 {
    let stats = guest.run("lab-traffic ask /var/run/wireguard/wl0.sock stats").unwrap();
    stats.lines().filter_map(|line| line.strip_prefix("taken_")?.split_once('=')?.1.parse::<u64>().ok()).sum()
}

/// With ours as `wl0` and the kernel's in `b`, which have a session.
pub fn goes_on(guest: &Guest) {
    let before = handshakes(guest);
    assert!(before.lines().count() == 2 && before.lines().all(|time| time.parse::<u64>().unwrap() > 0), "{before}");
    guest.run(TRAFFIC).unwrap();
    wait_for_rounds(guest, 3);
    guest.run(KILL).unwrap();
    let killed = Instant::now();
    wait_for_rounds(guest, 5);
    wait_until("some time to pass", LIMIT, || killed.elapsed() > GONE).unwrap();
    guest.attempt(SUCCESSOR, LIMIT).unwrap().checked().unwrap();
    let since = taken(guest);
    wait_for_rounds(guest, 3);
    assert!(taken(guest) > since + 20, "the programs are the next daemon's now");
    assert_eq!(handshakes(guest), before, "both ends have the session that they had");
    let end = "kill -USR1 $(cat /run/tcp); kill -INT $(cat /run/ping); while [ -d /proc/$(cat /run/ping) ]; do usleep 10000; done";
    guest.run(end).unwrap();
    let pings = guest.run("cat /run/pings").unwrap();
    let counts = || {
        let line = pings.lines().find(|line| line.contains("packets transmitted"))?;
        let mut numbers = line.split(", ").filter_map(|part| part.split_whitespace().next()?.parse::<u64>().ok());
        Some((numbers.next()?, numbers.next()?))
    };
    // The last one may be under way when it is told to end.
    let (sent, received) = counts().unwrap_or_else(|| panic!("{pings}"));
    assert!(sent > 20 && received + 1 >= sent, "{pings}");
}

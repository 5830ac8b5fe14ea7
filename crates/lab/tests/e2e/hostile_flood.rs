//! A flood, and those who are served all the same: a stream, a peer who begins anew, and one who was never there before.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lab::flood::{Flooder, KNOWN, Kind, Plan};
use lab::rogue::{Rogue, base64, private_key};
use lab::traffic::{Service, exchange_tcp};
use lab::{Gso, TunnelSpec, ping, usage, wait_until};

use crate::common::{BYTES, LIMIT, check_pings, spec, wait_for_free_port, wait_for_ping};
use crate::engines::each_engine;

each_engine!(a_flood_of_replays_over_ipv6, a_flood_of_garbage, a_flood_of_data_for_nobody, a_flood_of_forged_data);

/// More than one thread without an optimiser answers, on a machine that does much else.
const RATE: u32 = 30_000;

/// How often a newcomer may have to ask, and how soon it repeats itself: the kernel lets a flood fill the socket, too, and who finds it full is not heard.
const ATTEMPTS: usize = 40;
const REPEAT: Duration = Duration::from_millis(250);

/// How long a newcomer waits for an answer, as everybody does (REKEY_TIMEOUT): where more is asked than can be answered, answers are seconds late.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many newcomers at most: a flood that waits for a processor itself for a second is no load meanwhile, and nobody is asked for a cookie.
const NEWCOMERS: u64 = 10;

/// One flood at a time: each takes all of a processor or two that it gets.
static FLOODING: Mutex<()> = Mutex::new(());

/// Floods the right end of a tunnel. `signs` are the reasons for which most of the flood is dropped; `cookies` whether a newcomer must have
/// been asked to prove its address.
fn check(kind: Kind, v6: bool, signs: &[&str], cookies: bool) {
    let _flooding = FLOODING.lock().unwrap_or_else(PoisonError::into_inner);
    let tunnel = TunnelSpec { gso: Gso::Off, ..spec() }.build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let known = base64(&private_key(KNOWN).public());
    right.daemon.set(&["peer", &known, "allowed-ips", "10.77.0.9/32"]).unwrap();
    let flooder = Flooder::new(right.namespace(), Gso::Off).unwrap();
    let id = right.daemon.process.id();
    let (before, memory) = (right.daemon.drops().unwrap(), usage::memory(id).unwrap().resident);
    let grown = |reasons: &[&str]| -> u64 {
        let now = right.daemon.drops().unwrap();
        reasons.iter().map(|reason| now[*reason] - before[*reason]).sum()
    };

    // It ends by being dropped, or long after everything here must have happened.
    let plan = Plan { kind, key: &right.keys.public, port: right.listen_port, v6, rate: RATE, seconds: 300, cpu: None };
    let flood = flooder.start(&plan, right.listen_port).unwrap();
    wait_until("the flood to be felt", LIMIT, || grown(signs) > 2000).unwrap();
    if cookies {
        wait_until("cookies to be asked for", LIMIT, || grown(&["handshake-cookie-sent"]) > 100).unwrap();
    }

    // What is under way goes on, every byte of it.
    let _service = Service::start(right.namespace()).unwrap();
    exchange_tcp(left.namespace(), right.v4.into(), BYTES, LIMIT).unwrap();

    // Somebody new comes, and knows what to do with a cookie.
    let asked = (0..NEWCOMERS).any(|nth| {
        let sent = || grown(&["handshake-cookie-sent"]);
        let before = sent();
        wait_until("cookies to be asked for again", LIMIT, || !cookies || sent() > before).unwrap();
        let mut newcomer =
            Rogue::new(left.namespace(), 5 + nth, right.endpoint(lab::Outer::V4), &right.keys.public).unwrap();
        right.daemon.set(&["peer", &newcomer.mind.public_key(), "allowed-ips", "10.77.0.8/32"]).unwrap();
        let attempts = newcomer.insist(ATTEMPTS, PATIENCE, REPEAT).unwrap();
        assert!(newcomer.mind.cookies == 0 || attempts > 1, "who was asked for a cookie has to ask again with it");
        newcomer.mind.cookies > 0 || !cookies
    });
    assert!(asked, "under load nobody is answered who has not proved its address");

    // A peer who has forgotten its session (its interface was down) agrees on another.
    let handshake = left.peer(right).unwrap().handshake;
    let set = |state| left.namespace().ip(&["link", "set", &left.daemon.interface, state]).map(drop).unwrap();
    set("down");
    wait_for_free_port(left);
    set("up");
    wait_until("the peer to be back", 2 * LIMIT, || {
        ping::once(left.namespace(), right.v4.into(), &["-W", "1"]).is_ok_and(|finished| finished.status.success())
    })
    .unwrap();
    assert!(left.peer(right).unwrap().handshake > handshake);

    drop(flood);
    wait_for_ping(right, left);
    // The queue of handshakes, and what runs of datagrams are received in, are of one size for ever.
    let after = usage::memory(id).unwrap().resident;
    assert!(after < memory + 12 * 1024, "{memory} KiB grew to {after}");
}

#[test]
fn a_flood_with_a_wrong_mac1() {
    check(Kind::Mac1, false, &["handshake-mac1"], false);
}

#[test]
fn a_flood_by_strangers() {
    check(Kind::Stranger, false, &["handshake-unknown-peer", "handshake-cookie-sent"], true);
}

fn a_flood_of_replays_over_ipv6() {
    check(Kind::Replay, true, &["handshake-replayed", "handshake-cookie-sent"], true);
}

fn a_flood_of_garbage() {
    check(Kind::Garbage, true, &["handshake-mac1", "handshake-unknown-index"], false);
}

fn a_flood_of_data_for_nobody() {
    check(Kind::Index, false, &["unknown-index"], false);
}

fn a_flood_of_forged_data() {
    check(Kind::Forged, false, &["not-authentic"], false);
}

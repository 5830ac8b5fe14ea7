//! Under load: either end asks the other for proof that it is where it says, and gets it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blake2::digest::Mac;
use blake2::{Blake2s256, Blake2sMac, Digest};
use lab::{Endpoints, Guest, Kernel, Namespace, Outer, Seen, wait_until};

use super::pair::{Pair, Plan, boot};
use crate::common::LIMIT;

/// An initiation that is none, but for its mac1, which says that whoever made it knows this public key.
fn initiation(to: &str) -> Vec<u8> {
    let key = Blake2s256::new().chain_update(b"mac1----").chain_update(STANDARD.decode(to).unwrap()).finalize();
    let mut message = vec![1, 0, 0, 0];
    // The ephemeral key must be one; the rest is never looked at, since the first thing sealed does not open.
    message.extend((0..112_u8).map(|n| n.wrapping_mul(37) | 1));
    let mac = Blake2sMac::<blake2::digest::consts::U16>::new_from_slice(&key).unwrap();
    message.extend(mac.chain_update(&message).finalize().into_bytes());
    message.extend([0; 16]);
    message
}

/// How many may wait to be answered: more than what is load (512), and fewer than what fills the queue (4096), where those of others
/// would find no place.
const WINDOW: usize = 1500;

/// Sends such initiations to `to` until `done`, as fast as they are answered, and counts the cookies that are the answers.
fn flood(namespace: &Namespace, to: SocketAddr, key: &str, done: &AtomicBool, cookies: &AtomicUsize) {
    let socket = namespace
        .inside(|| {
            let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .unwrap();
    let message = initiation(key);
    let (mut buffer, mut waiting, mut heard) = ([0; 256], 0, Instant::now());
    while !done.load(Ordering::Relaxed) {
        if waiting < WINDOW {
            waiting += (0..64).filter(|_| socket.send(&message).is_ok()).count();
        } else if heard.elapsed() > Duration::from_millis(100) {
            // Without load there are no answers.
            waiting = 0;
        }
        while let Ok(n) = socket.recv(&mut buffer) {
            cookies.fetch_add(usize::from(n == 64 && buffer[0] == 3), Ordering::Relaxed);
            (waiting, heard) = (waiting.saturating_sub(1), Instant::now());
        }
        thread::sleep(Duration::from_micros(500));
    }
}

/// Floods one end until a handshake of the other one with it has come to its end, and tells what crossed.
fn under_load(pair: &Pair<'_>, victim: (SocketAddr, &str), begin: impl Fn()) {
    let (done, cookies) = (AtomicBool::new(false), AtomicUsize::new(0));
    let result = thread::scope(|scope| {
        scope.spawn(|| flood(&pair.guest.host.namespace, victim.0, victim.1, &done, &cookies));
        let loaded = wait_until("cookies", LIMIT, || cookies.load(Ordering::Relaxed) > 0);
        let result = loaded.and_then(|()| {
            begin();
            wait_until("a handshake under load", LIMIT, || {
                pair.at_ours().handshake > 0 && pair.at_kernel().handshake > 0
            })
        });
        // Whatever came of it, or the flood would go on.
        done.store(true, Ordering::Relaxed);
        result
    });
    result.unwrap_or_else(|failure| panic!("{failure}; {:?}", told(&pair.relay().seen())));
}

/// What crossed, as a person reads it: whether ours sent it, its type, and whether it has a proof.
fn told(seen: &[Seen]) -> Vec<(bool, u8, bool)> {
    seen.iter().map(|seen| (seen.from_left, seen.bytes[0], seen.has_mac2())).collect()
}

/// Checks that who began, ours or the kernel's, was sent a cookie for it, and then proved who it is, and only then was answered.
fn proved(pair: &Pair<'_>, by_us: bool) {
    let seen = pair.relay().seen();
    let first = |what: &str, is: &dyn Fn(&Seen) -> bool| {
        seen.iter().position(is).unwrap_or_else(|| panic!("no {what} in {:?}", told(&seen)))
    };
    let plain = first("initiation", &|seen| seen.is(1, by_us) && !seen.has_mac2());
    let cookie = first("cookie", &|seen| seen.is(3, !by_us));
    let proof = first("initiation with proof", &|seen| seen.is(1, by_us) && seen.has_mac2());
    let answer = first("response", &|seen| seen.is(2, !by_us));
    assert!(plain < cookie && cookie < proof && proof < answer, "{:?}", told(&seen));
}

fn the_kernel_is_under_load(guest: &Guest) {
    let pair = Plan { endpoints: Endpoints::OnlyLeft, relayed: true, ..Plan::new(1) }.build(guest);
    let ping = || {
        let to = pair.v4.to_string();
        let _ = pair.namespace().command("ping").args(["-n", "-q", "-c", "1", "-W", "1", &to]).output();
    };
    under_load(&pair, (pair.endpoint, &pair.keys.public), ping);
    proved(&pair, true);
    pair.ping_kernel();
}

fn we_are_under_load(guest: &Guest) {
    let pair = Plan { endpoints: Endpoints::OnlyRight, relayed: true, ..Plan::new(2) }.build(guest);
    let ping = || drop(pair.guest.run(&format!("ping -n -q -c 1 -W 1 {}; true", pair.ours.v4)).unwrap());
    let ours = pair.ours.endpoint(Outer::V4);
    under_load(&pair, (ours, &pair.ours.keys.public), ping);
    proved(&pair, false);
    pair.ping_ours();
}

fn prove_themselves(kernel: Kernel) {
    let guest = boot(kernel);
    we_are_under_load(&guest);
    the_kernel_is_under_load(&guest);
}

#[test]
fn linux_6_1_and_ours_prove_themselves() {
    prove_themselves(Kernel::V6_1);
}

#[test]
fn linux_6_12_and_ours_prove_themselves() {
    prove_themselves(Kernel::V6_12);
}

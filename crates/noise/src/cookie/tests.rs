//! Macs and cookies, and what they are bound to.

use std::time::Duration;

use super::*;
use crate::key::PrivateKey;
use crate::message::{INITIATION_LEN, Incoming, RESPONSE_LEN};

struct Both {
    random: Randomness,
    key: PublicKey,
    guard: Guard,
    jar: Jar,
}

fn both() -> Both {
    let mut random = Randomness::new([1; 32]);
    let key = PrivateKey::from_bytes([2; 32]).public();
    Both { guard: Guard::new(&key, &mut random), random, key, jar: Jar::default() }
}

fn at(secs: u64) -> Instant {
    Instant::from_nanos((1000 + secs) * 1_000_000_000)
}

fn source(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Both {
    fn initiation(&mut self, now: Instant) -> [u8; INITIATION_LEN] {
        let mut message = [0x11; INITIATION_LEN];
        message[..4].copy_from_slice(&[1, 0, 0, 0]);
        // Each has another ephemeral key.
        message[8..16].copy_from_slice(&now.as_nanos().to_le_bytes());
        message[INITIATION_LEN - 32..].fill(0);
        self.jar.add_macs(now, &self.key, &mut message);
        message
    }

    fn judge(&mut self, now: Instant, source: SocketAddr, message: &[u8]) -> Verdict {
        self.guard.judge(now, source, &macs(message).unwrap(), true, &mut self.random)
    }

    fn reply(&mut self, now: Instant, source: SocketAddr, message: &[u8]) -> [u8; COOKIE_REPLY_LEN] {
        let receiver = ReceiverIndex::from_u32(5);
        self.guard.reply(now, source, &macs(message).unwrap(), receiver, &mut self.random)
    }

    fn accept(&mut self, now: Instant, reply: &[u8]) -> bool {
        let Some(Incoming::CookieReply(reply)) = Incoming::parse(reply) else { panic!("no cookie reply") };
        self.jar.accept(now, &self.key, &reply)
    }
}

#[test]
fn the_mac_is_keyed_blake2s() {
    // From Python's hashlib.
    let key: Vec<u8> = (0..32).collect();
    assert_eq!(hex::encode(mac(&key, &[b"hello ", b"world"])), "9dc39de6198d670172a4bf1a20c88f06");
    assert_eq!(hex::encode(mac(&key[..16], &[b"hello world"])), "0dcfca1efa696c299724a1aaa10318c5");
}

#[test]
fn mac1_is_checked_over_all_that_comes_before() {
    let mut both = both();
    let message = both.initiation(at(0));
    let checker = both.guard.mac1_checker().clone();
    assert_eq!(checker.check(&message), Ok(()));
    for at in 0..INITIATION_LEN - 16 {
        let mut forged = message;
        forged[at] ^= 1;
        assert!(checker.check(&forged).is_err(), "byte {at}");
    }
    assert_eq!(checker.check(&message[..RESPONSE_LEN]), Err(error::Drop::Malformed), "wrong length");
    let other = Mac1Checker::new(&PrivateKey::from_bytes([3; 32]).public());
    assert_eq!(other.check(&message), Err(error::Drop::InvalidMac1), "somebody else's");
    let reply = both.reply(at(0), source("10.0.0.1:1"), &message);
    assert_eq!(checker.check(&reply), Ok(()), "cookie replies have none");
    assert!([&[4; 64][..], &[]].iter().all(|other| checker.check(other) == Err(error::Drop::Malformed)));
}

#[test]
fn without_load_mac2_is_not_asked_for() {
    let mut both = both();
    let message = both.initiation(at(0));
    let macs = macs(&message).unwrap();
    let verdict = both.guard.judge(at(0), source("10.0.0.1:1"), &macs, false, &mut both.random);
    assert_eq!(verdict, Verdict::Handle);
}

#[test]
fn a_cookie_is_asked_for_and_accepted() {
    let mut both = both();
    let here = source("10.0.0.1:1000");
    let message = both.initiation(at(0));
    assert_eq!(both.judge(at(0), here, &message), Verdict::AskForCookie);
    let reply = both.reply(at(0), here, &message);
    assert!(both.accept(at(0), &reply));
    let message = both.initiation(at(5));
    assert_eq!(both.judge(at(5), here, &message), Verdict::Handle);
}

#[test]
fn a_cookie_is_bound_to_address_and_port() {
    for (here, there) in [
        ("10.0.0.1:1000", "10.0.0.2:1000"),
        ("10.0.0.1:1000", "10.0.0.1:1001"),
        ("[2001:db8::1]:1000", "[2001:db8::2]:1000"),
        ("[2001:db8::1]:1000", "[2001:db8::1]:1001"),
    ] {
        let mut both = both();
        let message = both.initiation(at(0));
        let reply = both.reply(at(0), source(here), &message);
        assert!(both.accept(at(0), &reply));
        let message = both.initiation(at(5));
        assert_eq!(both.judge(at(5), source(there), &message), Verdict::AskForCookie, "{here} is not {there}");
        assert_eq!(both.judge(at(5), source(here), &message), Verdict::Handle);
    }
}

#[test]
fn a_cookie_and_its_secret_grow_old() {
    let mut both = both();
    let here = source("10.0.0.1:1000");
    let first = both.initiation(at(0));
    let reply = both.reply(at(0), here, &first);
    assert!(both.accept(at(0), &reply));
    let mac2 = |message: &[u8]| message[INITIATION_LEN - 16..].to_vec();
    let at_114 = both.initiation(at(114));
    assert_eq!(both.judge(at(114), here, &at_114), Verdict::Handle);
    assert_eq!(both.judge(at(119), here, &at_114), Verdict::Handle, "five seconds for the way");
    assert_eq!(both.judge(at(120), here, &at_114), Verdict::AskForCookie, "the secret has changed");
    assert_eq!(mac2(&both.initiation(at(115))), [0; 16], "the holder stops before that");
}

#[test]
fn only_an_awaited_cookie_is_accepted_and_only_once() {
    let mut both = both();
    let here = source("10.0.0.1:1000");
    let first = both.initiation(at(0));
    let reply = both.reply(at(0), here, &first);
    let second = both.initiation(at(5));
    assert!(!both.accept(at(5), &reply), "it answers an older message");
    let reply = both.reply(at(5), here, &second);
    for at_byte in 8..COOKIE_REPLY_LEN {
        let mut forged = reply;
        forged[at_byte] ^= 0x80;
        assert!(!both.accept(at(5), &forged), "byte {at_byte}");
    }
    assert!(both.accept(at(5), &reply));
    assert!(!both.accept(at(5), &reply), "one message gets one cookie");
}

#[test]
fn who_has_a_cookie_is_limited_in_rate() {
    let mut both = both();
    let here = source("10.0.0.1:1000");
    let message = both.initiation(at(0));
    let reply = both.reply(at(0), here, &message);
    assert!(both.accept(at(0), &reply));
    let message = both.initiation(at(1));
    for _ in 0..5 {
        assert_eq!(both.judge(at(1), here, &message), Verdict::Handle);
    }
    assert_eq!(both.judge(at(1), here, &message), Verdict::RateLimited);
    let later = at(1) + Duration::from_millis(50);
    assert_eq!(both.judge(later, here, &message), Verdict::Handle);
}

#[test]
fn only_so_many_cookies_leave_in_a_second() {
    let mut both = both();
    let message = both.initiation(at(0));
    let here = source("10.0.0.1:1000");
    let asked = |both: &mut Both, millis: u64, times: u32| {
        let now = at(0) + Duration::from_millis(millis);
        (0..times).filter(|_| both.judge(now, here, &message) == Verdict::AskForCookie).count()
    };
    assert_eq!(asked(&mut both, 0, 10_000), 1600, "a tenth of a second's at once");
    assert_eq!(asked(&mut both, 1, 10_000), 16);
    // Each tenth of a millisecond brings one and a part of the next, which is not lost.
    let trickle: usize = (1..=10_000)
        .map(|tenth| {
            let now = at(0) + Duration::from_millis(1) + Duration::from_micros(100) * tenth;
            (0..2).filter(|_| both.judge(now, here, &message) == Verdict::AskForCookie).count()
        })
        .sum();
    assert!((15_990..=16_000).contains(&trickle), "{trickle}");
    assert_eq!(asked(&mut both, 60_000, 10_000), 1600, "a long rest saves no more");
}

#[test]
fn who_has_no_cookie_takes_no_room_in_the_limiter() {
    let mut both = both();
    let message = both.initiation(at(0));
    let here = source("10.0.0.1:1000");
    for _ in 0..100 {
        assert_eq!(both.judge(at(0), here, &message), Verdict::AskForCookie);
    }
    let reply = both.reply(at(0), here, &message);
    assert!(both.accept(at(0), &reply));
    let message = both.initiation(at(0));
    assert_eq!(both.judge(at(0), here, &message), Verdict::Handle, "others' forgeries cost the true source nothing");
}

#[test]
fn sources_that_prove_nothing_are_not_remembered() {
    let mut both = both();
    let message = both.initiation(at(0));
    for number in 0..100_000_u32 {
        let source = SocketAddr::new(std::net::Ipv4Addr::from(number).into(), number as u16);
        assert_ne!(both.judge(at(0), source, &message), Verdict::Handle);
    }
    assert_eq!(both.guard.limiter.sources(), 0);
}

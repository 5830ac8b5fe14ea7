//! Cases as the kernel's self-test has them, and what it leaves out.

use super::*;

fn at(millis: u64) -> Instant {
    Instant::from_nanos((1_000_000 + millis) * 1_000_000)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn limiter() -> RateLimiter {
    RateLimiter::new([7; 32])
}

#[test]
fn a_burst_of_five_then_one_in_fifty_milliseconds() {
    let mut limiter = limiter();
    let source = ip("10.1.2.3");
    let expected = [
        (0, true),
        (0, true),
        (0, true),
        (0, true),
        (0, true),
        (0, false),
        (49, false),
        (50, true),
        (50, false),
        (150, true),
        (150, true),
        (150, false),
        (150 + 10_000, true),
    ];
    for (n, (millis, allowed)) in expected.into_iter().enumerate() {
        assert_eq!(limiter.allow(at(millis), source), allowed, "message {n} at {millis} ms");
    }
}

#[test]
fn twenty_in_a_second_and_not_more() {
    let mut limiter = limiter();
    let allowed = (0..10_000).filter(|&millis| limiter.allow(at(millis), ip("::1"))).count();
    assert!((204..=205).contains(&allowed), "{allowed} in ten seconds");
}

#[test]
fn one_source_does_not_spend_what_another_has() {
    let mut limiter = limiter();
    for _ in 0..100 {
        limiter.allow(at(0), ip("10.0.0.1"));
    }
    for other in ["10.0.0.2", "0.0.0.10", "2001:db8::1", "::ffff:10.0.0.1"] {
        assert!(limiter.allow(at(0), ip(other)), "{other} has a bucket of its own");
    }
    assert!(!limiter.allow(at(0), ip("10.0.0.1")));
}

#[test]
fn an_ipv6_source_is_its_slash_64() {
    let mut limiter = limiter();
    for n in 0..5 {
        assert!(limiter.allow(at(0), ip(&format!("2001:db8:1:2::{n}"))));
    }
    assert!(!limiter.allow(at(0), ip("2001:db8:1:2:ffff:ffff:ffff:ffff")));
    assert!(limiter.allow(at(0), ip("2001:db8:1:3::")));
}

#[test]
fn the_table_is_bounded_and_empties_itself() {
    let mut limiter = RateLimiter { max_sources: 10, ..limiter() };
    for n in 0..10 {
        assert!(limiter.allow(at(0), ip(&format!("10.0.0.{n}"))));
    }
    assert!(!limiter.allow(at(0), ip("10.0.0.10")), "no room");
    assert!(limiter.allow(at(0), ip("10.0.0.9")), "who has a bucket keeps it");
    assert!(limiter.allow(at(1500), ip("10.0.0.10")), "room again");
    assert_eq!(limiter.buckets.len(), 1, "full buckets are forgotten");
}

#[test]
fn more_sources_than_there_is_room_for() {
    let mut limiter = limiter();
    let source = |n: u32| IpAddr::from(std::net::Ipv6Addr::from(u128::from(n) << 64 | 0x2001 << 112));
    let allowed = (0..200_000).filter(|&n| limiter.allow(at(0), source(n))).count();
    assert_eq!((allowed, limiter.buckets.len()), (MAX_SOURCES, MAX_SOURCES));
    // A moment later all of that is forgotten, and whoever was kept out has his turn.
    assert!(limiter.allow(at(1000), source(199_999)));
    assert_eq!(limiter.buckets.len(), 1);
}

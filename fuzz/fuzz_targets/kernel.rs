//! What the kernel writes for us: control messages beside a datagram, and reports about links.

#![no_main]

use libfuzzer_sys::fuzz_target;
use linux::{link, udp};

fuzz_target!(|input: &[u8]| {
    let (_, ecn, _) = udp::read_control(input);
    assert!(ecn <= 3);
    assert!(link::read_reports(input) <= input.len() / 16);
});

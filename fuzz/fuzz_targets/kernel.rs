//! What the kernel writes for us: control messages beside a datagram, reports about links and ways, and its own WireGuard's devices.

#![no_main]

// The one parser in the binary's crate; what it says `super` for is here.
#[path = "../../crates/wireloom/src/kernel/attribute.rs"]
#[allow(dead_code)]
mod attribute;
#[path = "../../crates/wireloom/src/kernel/read.rs"]
mod read;

use libfuzzer_sys::fuzz_target;
use linux::{link, netlink::Messages, udp};

const HEADER: usize = 4;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

fuzz_target!(|input: &[u8]| {
    let (_, ecn, _) = udp::read_control(input);
    assert!(ecn <= 3);
    assert!(link::read_reports(input) <= input.len() / 16);
    assert!(link::read_ways(input) <= input.len() / 16);

    let mut device = config::device::Device::default();
    for message in Messages(input) {
        if let Err(read::Malformed(why)) = read::message(&mut device, message.body) {
            assert!(!why.is_empty());
        }
    }
    // A peer has at least its key in the answer, an allowed IP its family.
    let networks: usize = device.peers.iter().map(|peer| peer.allowed_ips.len()).sum();
    assert!(device.peers.len() * 36 + networks * 8 <= input.len());
});

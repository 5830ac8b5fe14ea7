//! Datagrams of any kind for a device with a peer, under load and not.

#![no_main]

use libfuzzer_sys::fuzz_target;
use noise::{Device, Instant, Now, PrivateKey};
use std::time::Duration;

fuzz_target!(|input: (bool, Vec<Vec<u8>>)| {
    let (under_load, datagrams) = input;
    let now = |n: u64| Now {
        boot: Instant::from_nanos((1000 + n) * 1_000_000_000),
        wall: Duration::from_secs(1_700_000_000 + n),
    };
    let mut device = Device::new([1; 32]);
    device.set_private_key(now(0), Some(PrivateKey::from_bytes([2; 32])));
    device.set_up(now(0), true);
    let peer = device.add_peer(now(0), PrivateKey::from_bytes([3; 32]).public()).expect("a new key");
    device.handle_session_wanted(now(0), peer);
    for (n, datagram) in datagrams.iter().enumerate() {
        let now = now(n as u64);
        let _ = device.handle_datagram(now, ([192, 0, 2, 1], 51820).into(), datagram, under_load);
        device.handle_timeout(now);
        while device.poll_event().is_some() {}
        let _ = noise::message::parse_transport_header(datagram);
    }
});

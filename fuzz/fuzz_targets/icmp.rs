//! Packets that an ICMP error might be sent about.

#![no_main]

use inet::{
    icmp::{self, Reason},
    ip::{self, IpPacket},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u32, Vec<u8>)| {
    let (mtu, mut packet) = input;
    let mut out = [0; icmp::MAX_LEN];
    for source in ["192.0.2.1", "2001:db8::1"] {
        let source = source.parse().expect("an address");
        for reason in [Reason::NoRoute, Reason::NoEndpoint, Reason::TooBig(mtu)] {
            if let Some(len) = icmp::error(reason, &packet, source, &mut out) {
                let error = IpPacket::parse(&out[..len]).expect("what we make is a packet");
                assert_eq!(error.total_len(), len);
            }
        }
    }
    if IpPacket::parse(&packet).is_ok() {
        ip::set_ecn(&mut packet, 3);
    }
});

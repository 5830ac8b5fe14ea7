//! IP headers: what they claim is in the packet, and ECN marks change nothing else.

#![no_main]

use inet::{
    checksum, ecn,
    ip::{self, IpPacket, Version},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (mark, mut bytes) = input;
    let Ok(packet) = IpPacket::parse(&bytes) else { return };
    let before = bytes.clone();
    assert!(packet.total_len() <= bytes.len());
    assert!(packet.header_len() <= packet.total_len());
    assert_eq!(packet.bytes().len(), packet.total_len());
    assert_eq!(packet.src().is_ipv6(), packet.version() == Version::V6);
    assert_eq!(packet.dst().is_ipv6(), packet.version() == Version::V6);
    assert_eq!(packet.ecn(), packet.traffic_class() & 3);
    if let Some(transport) = packet.transport() {
        assert!(transport.offset <= packet.total_len());
    }
    let v4_sum =
        (packet.version() == Version::V4).then(|| checksum::fold(checksum::sum(&bytes[..packet.header_len()], 0)));
    let (source, destination) = (packet.src(), packet.dst());

    // Into the tunnel and out of it again with whatever mark the way has left (RFC 6040).
    let outer = ecn::encapsulate(packet.ecn());
    assert!(outer <= 3);
    if let ecn::Decapsulated::Set(bits) = ecn::decapsulate(packet.ecn(), mark & 3) {
        ip::set_ecn(&mut bytes, bits);
        let after = IpPacket::parse(&bytes).expect("a mark makes no packet malformed");
        assert_eq!((after.ecn(), after.src(), after.dst()), (bits, source, destination));
        match v4_sum {
            // The checksum was right and is, or it was wrong and is; 0 and 0xffff are the same in it.
            Some(sum) => {
                let now = checksum::fold(checksum::sum(&bytes[..after.header_len()], 0));
                assert_eq!(sum % 0xffff, now % 0xffff);
                assert_eq!(bytes[2..10], before[2..10]);
                assert_eq!(bytes[12..], before[12..]);
            }
            None => assert_eq!(bytes[2..], before[2..]),
        }
    }
});

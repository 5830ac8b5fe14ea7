//! What a TUN gives, virtio header first.

#![no_main]

use inet::{
    cut::Cut,
    vnet::{LEN, VnetHeader},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((header, packet)) = input.split_at_checked(LEN) else { return };
    let Ok(header) = VnetHeader::parse(header) else { return };
    let Ok(cut) = Cut::new(&header, packet) else { return };
    let mut head = [0; 1 << 16];
    let mut bodies = 0;
    for i in 0..cut.segments() {
        cut.write_head(i, &mut head[..cut.head_len()]);
        assert_eq!(cut.segment_len(i), cut.head_len() + cut.body(i).len());
        bodies += cut.body(i).len();
    }
    assert!(cut.head_len() + bodies <= packet.len());
});

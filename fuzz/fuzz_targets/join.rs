//! A run of packets: none is lost, none doubled, each group is in order.

#![no_main]

use inet::join::Joiner;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|packets: Vec<Vec<u8>>| {
    let mut joiner = Joiner::new(64, true);
    let taken = packets.iter().take_while(|packet| joiner.offer(packet)).count();
    let mut seen = vec![false; taken];
    for group in joiner.groups() {
        let members: Vec<usize> = group.packets().collect();
        assert_eq!(members.len(), group.len());
        assert!(members.is_sorted());
        for member in &members {
            assert!(!std::mem::replace(&mut seen[*member], true));
        }
        let mut head = [0; 128];
        group.write_head(&packets[members[0]], &mut head);
    }
    assert!(seen.into_iter().all(|seen| seen));
});

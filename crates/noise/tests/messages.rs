//! Parsers of bytes from outside: whatever comes, nothing panics, and only what has the right form gets further.

mod support;

use noise::message::{
    COOKIE_REPLY_LEN, INITIATION_LEN, MessageType, RESPONSE_LEN, TRANSPORT_HEADER_LEN, TRANSPORT_MIN_LEN,
    parse_transport_header, write_transport_header,
};
use noise::{Drop, ReceiverIndex};
use proptest::prelude::*;
use support::*;

fn expected(bytes: &[u8]) -> Option<MessageType> {
    match (bytes.get(..4)?, bytes.len()) {
        ([1, 0, 0, 0], INITIATION_LEN) => Some(MessageType::Initiation),
        ([2, 0, 0, 0], RESPONSE_LEN) => Some(MessageType::Response),
        ([3, 0, 0, 0], COOKIE_REPLY_LEN) => Some(MessageType::CookieReply),
        ([4, 0, 0, 0], len) if len >= TRANSPORT_MIN_LEN => Some(MessageType::Transport),
        _ => None,
    }
}

/// Any bytes, but often with a valid type and length.
fn datagrams() -> impl Strategy<Value = Vec<u8>> {
    let lengths = prop_oneof![
        Just(INITIATION_LEN),
        Just(RESPONSE_LEN),
        Just(COOKIE_REPLY_LEN),
        Just(TRANSPORT_MIN_LEN),
        0usize..200
    ];
    lengths.prop_flat_map(|len| (proptest::collection::vec(any::<u8>(), len), 0u8..8)).prop_map(|(mut bytes, kind)| {
        if kind < 6 && bytes.len() >= 4 {
            bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
        }
        bytes
    })
}

#[test]
fn lengths_are_the_papers() {
    assert_eq!((INITIATION_LEN, RESPONSE_LEN, COOKIE_REPLY_LEN), (148, 92, 64));
    assert_eq!((TRANSPORT_HEADER_LEN, TRANSPORT_MIN_LEN), (16, 32));
}

proptest! {
    #[test]
    fn types_are_told_by_their_first_word_and_length(bytes in datagrams()) {
        prop_assert_eq!(MessageType::of(&bytes), expected(&bytes));
        let is_transport = expected(&bytes) == Some(MessageType::Transport);
        prop_assert_eq!(parse_transport_header(&bytes).is_some(), is_transport);
    }

    #[test]
    fn a_transport_header_reads_back(index in any::<u32>(), counter in any::<u64>(), more in 0usize..100) {
        let mut bytes = vec![0xa5; TRANSPORT_MIN_LEN + more];
        write_transport_header(&mut bytes, ReceiverIndex::from_u32(index), counter);
        let header = parse_transport_header(&bytes).unwrap();
        prop_assert_eq!((header.receiver.as_u32(), header.counter.as_u64()), (index, counter));
        prop_assert!(bytes[TRANSPORT_HEADER_LEN..].iter().all(|&byte| byte == 0xa5));
    }

    #[test]
    fn a_device_takes_anything_and_answers_nothing(bytes in datagrams(), under_load in any::<bool>()) {
        let now = at(secs(0));
        let (_, mut b) = pair(now);
        let dropped = b.device.handle_datagram(now, address(1), &bytes, under_load).unwrap_err();
        let reason = match expected(&bytes) {
            None | Some(MessageType::Transport) => Drop::Malformed,
            Some(MessageType::CookieReply) => Drop::UnknownIndex,
            Some(_) => Drop::InvalidMac1,
        };
        prop_assert_eq!(dropped, reason);
        prop_assert!(b.device.poll_event().is_none());
        prop_assert_eq!(b.device.mac1_checker().unwrap().check(&bytes).is_ok(), expected(&bytes) == Some(MessageType::CookieReply));
    }
}

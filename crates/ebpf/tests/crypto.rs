//! The kernel's own ciphers in programs: what they compute is what is published, and an AEAD is told where there is one.
#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

use ebpf::crypto::{Aead, Cipher, CipherError, MAX, aead};

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

/// NIST SP 800-38A, appendix F: the key of AES-128 and the first two blocks.
const KEY: &str = "2b7e151628aed2a6abf7158809cf4f3c";
const PLAIN: &str = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51";
const IV: &str = "000102030405060708090a0b0c0d0e0f";

#[test]
fn the_kernels_ciphers_compute_what_is_published() {
    // F.1.1 and F.2.1.
    for (name, iv, sealed) in [
        ("ecb(aes)", "", "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf"),
        ("cbc(aes)", IV, "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"),
    ] {
        let mut cipher = Cipher::new("skcipher", name, &bytes(KEY), 0).unwrap();
        assert_eq!(hex::encode(cipher.encrypt(&bytes(PLAIN), &bytes(iv)).unwrap()), sealed, "{name}");
        assert_eq!(hex::encode(cipher.decrypt(&bytes(sealed), &bytes(iv)).unwrap()), PLAIN, "{name}");
        // Not whole blocks; too much.
        assert!(matches!(cipher.encrypt(&[0; 17], &bytes(iv)), Err(CipherError::Refused(_))), "{name}");
        assert!(matches!(cipher.encrypt(&[0; MAX + 1], &bytes(iv)), Err(CipherError::TooLong)), "{name}");
    }
}

#[test]
fn what_the_kernel_does_not_have_is_refused() {
    for (kind, name, key) in
        [("skcipher", "none(such)", 16), ("nosuchtype", "ecb(aes)", 16), ("skcipher", "ecb(aes)", 17)]
    {
        let refused = Cipher::new(kind, name, &vec![0; key], 0);
        assert!(matches!(refused, Err(CipherError::Refused(_))), "{kind} {name} {key}");
    }
}

#[test]
fn an_aead_is_told_where_there_is_one() {
    match aead() {
        // The answer of all kernels so far.
        Aead::OtherCiphers => assert!(Cipher::new("skcipher", "ecb(aes)", &[0; 16], 0).is_ok()),
        // Then it does what ours does; the day that this comes up, the engine should take it.
        Aead::There => assert!(Cipher::new("aead", "rfc7539(chacha20,poly1305)", &[0; 32], 16).is_ok()),
        Aead::NoCiphers => {
            assert!(matches!(Cipher::new("skcipher", "ecb(aes)", &[0; 16], 0), Err(CipherError::Load(_))))
        }
        Aead::Unasked(error) => panic!("these tests run as root: {error}"),
    }
}

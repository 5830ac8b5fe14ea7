//! Keys as text: one spelling each, and what is not one is refused.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

use config::key::{self, BASE64_LEN, HEX_LEN, KeyError};
use noise::{PresharedKey, PrivateKey, PublicKey};
use proptest::prelude::*;

proptest! {
    #[test]
    fn base64_and_hex_read_back(bytes: [u8; 32]) {
        let public = PublicKey::from_bytes(bytes);
        prop_assert_eq!(key::from_base64(key::to_base64(&public).as_bytes()), Ok(public));
        prop_assert_eq!(key::from_hex(key::to_hex(&public).as_bytes()), Ok(public));
        let upper = key::to_hex(&public).as_str().to_uppercase();
        prop_assert_eq!(key::from_hex(upper.as_bytes()), Ok(public));
    }

    #[test]
    fn a_key_has_one_spelling_in_base64(bytes: [u8; 32], last in "[A-Za-z0-9+/]") {
        let text = key::to_base64(&PublicKey::from_bytes(bytes)).as_str().to_owned();
        let other = format!("{}{last}=", &text[..42]);
        if let Ok(read) = key::from_base64::<PublicKey>(other.as_bytes()) {
            // Another last character is another key, not another way to write this one.
            let again = key::to_base64(&read);
            prop_assert_eq!(again.as_str(), &other);
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_back(text in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(read) = key::from_base64::<PublicKey>(&text) {
            let again = key::to_base64(&read);
            prop_assert_eq!(again.as_bytes(), &text[..]);
        }
        if let Ok(read) = key::from_hex::<PublicKey>(&text) {
            let again = key::to_hex(&read);
            prop_assert_eq!(again.as_bytes(), &text.to_ascii_lowercase()[..]);
        }
    }

    #[test]
    fn almost_a_key_is_refused(bytes: [u8; 32], at in 0..BASE64_LEN, wrong in "[ -~]") {
        let text = key::to_base64(&PublicKey::from_bytes(bytes)).as_str().to_owned();
        prop_assert_eq!(key::from_base64::<PublicKey>(&text.as_bytes()[..at]), Err(KeyError::Base64));
        let longer = format!("{text}{wrong}");
        prop_assert_eq!(key::from_base64::<PublicKey>(longer.as_bytes()), Err(KeyError::Base64));
    }
}

#[test]
fn known_keys_have_the_spelling_that_wg_gives_them() {
    let bytes: [u8; 32] = std::array::from_fn(|at| at as u8);
    let public = PublicKey::from_bytes(bytes);
    assert_eq!(key::to_base64(&public).as_str(), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    assert_eq!(key::to_hex(&public).as_str(), "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
}

#[test]
fn what_wg_refuses_is_refused() {
    let refused = [
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=", // spare bits set
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",  // no padding
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8A", // 33 bytes
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==", // 31 bytes
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdH-8=", // of the URL alphabet
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n",
        "",
    ];
    for text in refused {
        assert_eq!(key::from_base64::<PublicKey>(text.as_bytes()), Err(KeyError::Base64), "{text:?}");
    }
    let hex = "0".repeat(HEX_LEN - 1);
    for last in ["", "g", "/", ":", "@", "`", "G", "00"] {
        assert_eq!(key::from_hex::<PublicKey>(format!("{hex}{last}").as_bytes()), Err(KeyError::Hex), "{last:?}");
    }
}

#[test]
fn zero_is_zero_and_nothing_else_is() {
    assert!(key::is_zero(&PresharedKey::from_bytes([0; 32])));
    for bit in 0..256 {
        let mut bytes = [0; 32];
        bytes[bit / 8] = 1 << (bit % 8);
        assert!(!key::is_zero(&PresharedKey::from_bytes(bytes)), "bit {bit}");
    }
    // A private key is clamped, so it never is.
    assert!(!key::is_zero(&PrivateKey::from_bytes([0; 32])));
}

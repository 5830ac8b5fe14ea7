//! Keys as text: what is taken for one is written the same way.

#![no_main]

use config::key::{from_base64, from_hex, to_base64, to_hex};
use libfuzzer_sys::fuzz_target;
use noise::{PresharedKey, PrivateKey, PublicKey};

fuzz_target!(|input: &[u8]| {
    if let Ok(key) = from_base64::<PublicKey>(input) {
        assert_eq!(to_base64(&key).as_bytes(), input, "a key has one spelling");
    }
    if let Ok(key) = from_hex::<PresharedKey>(input) {
        assert_eq!(to_hex(&key).as_bytes(), input.to_ascii_lowercase());
    }
    if let Ok(key) = from_base64::<PrivateKey>(input) {
        let again = from_hex::<PrivateKey>(to_hex(&key).as_bytes());
        assert!(again.is_ok_and(|again| again == key), "clamping once is enough");
    }
});

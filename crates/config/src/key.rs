//! A key as text: base64 in files and for people, hexadecimal in the UAPI.
//!
//! Both forms are strict, as in `wg`: base64 has 44 characters of which the last is `=`, and the bits that the 43rd character
//! has to spare are zero, so that a key has one spelling; hexadecimal has 64 digits of either case. Encoding and decoding branch
//! on no bit of the key, and what held a key is wiped when it is dropped.

use std::fmt;

use noise::{PresharedKey, PrivateKey, PublicKey};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Bytes of a key.
pub const KEY_LEN: usize = 32;
/// Characters of a key in base64.
pub const BASE64_LEN: usize = 44;
/// Characters of a key in hexadecimal.
pub const HEX_LEN: usize = 64;

/// A text is not a key. The text itself is not told: it may be a secret with a typing error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 44 characters of canonical base64.
    #[error("not a key, expected 44 characters of base64 as `wg genkey` prints them")]
    Base64,
    /// Not 64 hexadecimal digits.
    #[error("not a key, expected 64 hexadecimal digits")]
    Hex,
}

/// The three kinds of key, which share their text forms.
pub trait Key {
    /// The key of these bytes.
    fn from_key_bytes(bytes: [u8; KEY_LEN]) -> Self;
    /// The bytes of the key.
    fn key_bytes(&self) -> &[u8; KEY_LEN];
}

macro_rules! text_key {
    ($($kind:ty),*) => {$(
        impl Key for $kind {
            fn from_key_bytes(bytes: [u8; KEY_LEN]) -> Self {
                Self::from_bytes(bytes)
            }
            fn key_bytes(&self) -> &[u8; KEY_LEN] {
                self.as_bytes()
            }
        }
    )*};
}
text_key!(PublicKey, PrivateKey, PresharedKey);

/// The text of a key, wiped when it is dropped.
pub struct KeyText<const N: usize>(Zeroizing<[u8; N]>);

impl<const N: usize> KeyText<N> {
    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The text, as bytes of ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl<const N: usize> fmt::Display for KeyText<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// `key` in base64.
pub fn to_base64(key: &impl Key) -> KeyText<BASE64_LEN> {
    use base64ct::{Base64, Encoding};
    let mut text = Zeroizing::new([0; BASE64_LEN]);
    // The buffer is as long as the text of 32 bytes always is, so there is no error to tell.
    let _ = Base64::encode(key.key_bytes(), text.as_mut_slice());
    KeyText(text)
}

/// `key` in hexadecimal, in lower case.
pub fn to_hex(key: &impl Key) -> KeyText<HEX_LEN> {
    let mut text = Zeroizing::new([0; HEX_LEN]);
    // As above: the buffer is exactly as long as it must be.
    let _ = base16ct::lower::encode(key.key_bytes(), text.as_mut_slice());
    KeyText(text)
}

/// The key that `text` spells in base64.
pub fn from_base64<K: Key>(text: &[u8]) -> Result<K, KeyError> {
    use base64ct::{Base64, Encoding};
    if text.len() != BASE64_LEN {
        return Err(KeyError::Base64);
    }
    // One byte more than a key: 44 characters without padding would spell 33.
    let mut bytes = Zeroizing::new([0; KEY_LEN + 1]);
    let decoded = Base64::decode(text, bytes.as_mut_slice()).map_err(|_| KeyError::Base64)?;
    let key: &[u8; KEY_LEN] = decoded.try_into().map_err(|_| KeyError::Base64)?;
    Ok(K::from_key_bytes(*key))
}

/// The key that `text` spells in hexadecimal, in either case.
pub fn from_hex<K: Key>(text: &[u8]) -> Result<K, KeyError> {
    if text.len() != HEX_LEN {
        return Err(KeyError::Hex);
    }
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    base16ct::mixed::decode(text, bytes.as_mut_slice()).map_err(|_| KeyError::Hex)?;
    Ok(K::from_key_bytes(*bytes))
}

/// Whether all bits of a key are zero, which is how the formats spell "no key".
pub fn is_zero(key: &impl Key) -> bool {
    key.key_bytes().ct_eq(&[0; KEY_LEN]).into()
}

/// The private key that `text` spells in hexadecimal; all zeros mean none. The zeros are looked for before the key is clamped.
pub(crate) fn private_from_hex(text: &[u8]) -> Result<Option<PrivateKey>, KeyError> {
    let raw: PresharedKey = from_hex(text)?;
    Ok((!is_zero(&raw)).then(|| PrivateKey::from_bytes(*raw.as_bytes())))
}

/// The private key that `text` spells in base64; all zeros mean none.
pub(crate) fn private_from_base64(text: &[u8]) -> Result<Option<PrivateKey>, KeyError> {
    let raw: PresharedKey = from_base64(text)?;
    Ok((!is_zero(&raw)).then(|| PrivateKey::from_bytes(*raw.as_bytes())))
}

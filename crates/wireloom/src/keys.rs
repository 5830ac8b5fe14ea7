//! `genkey`, `genpsk`, `pubkey`, and reading a key from a file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use config::key::{self, BASE64_LEN, KEY_LEN, Key, KeyError};
use noise::{PresharedKey, PrivateKey};
use zeroize::Zeroizing;

use crate::error::Error;

/// Prints a new private key.
pub fn genkey() -> Result<(), Error> {
    generate::<PrivateKey>()
}

/// Prints a new preshared key.
pub fn genpsk() -> Result<(), Error> {
    generate::<PresharedKey>()
}

fn generate<K: Key>() -> Result<(), Error> {
    if others_may_read(io::stdout()) {
        eprintln!("Warning: writing to world accessible file.\nConsider setting the umask to 077 and trying again.");
    }
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    getrandom::fill(bytes.as_mut_slice()).map_err(Error::Random)?;
    print(&K::from_key_bytes(*bytes))
}

/// Whether `out` is a file that others than its owner and group may open.
fn others_may_read(out: impl AsFd) -> bool {
    let about = out.as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    about.is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o007 != 0)
}

/// Reads a private key from standard input and prints its public key.
pub fn pubkey() -> Result<(), Error> {
    let text = read(io::stdin().lock()).map_err(Error::Stdin)?;
    // What follows the key may be white space; NULs are there for those who print C strings.
    let key: PrivateKey = text.parse(|b| b.is_ascii_whitespace() || b == 0).map_err(Error::StdinKey)?;
    print(&key.public())
}

fn print(key: &impl Key) -> Result<(), Error> {
    let mut line = Zeroizing::new([b'\n'; BASE64_LEN + 1]);
    line[..BASE64_LEN].copy_from_slice(key::to_base64(key).as_bytes());
    let mut out = io::stdout().lock();
    out.write_all(line.as_slice()).and_then(|()| out.flush()).map_err(Error::Output)
}

/// The key in a file; an empty file holds none.
pub fn from_file<K: Key>(path: &Path) -> Result<Option<K>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let text = File::open(path).and_then(read).map_err(failed)?;
    if text.len == 0 {
        return Ok(None);
    }
    let key = text.parse(|b| b.is_ascii_whitespace());
    key.map(Some).map_err(|source| Error::KeyFile { path: path.to_owned(), source })
}

/// The private key in a file; an empty file, and one of zeros, holds none.
pub fn private_from_file(path: &Path) -> Result<Option<PrivateKey>, Error> {
    let raw: Option<PresharedKey> = from_file(path)?;
    Ok(raw.filter(|key| !key::is_zero(key)).map(|key| PrivateKey::from_bytes(*key.as_bytes())))
}

/// The start of a file that should hold a key.
struct KeyFile {
    bytes: Zeroizing<[u8; LONGEST]>,
    len: usize,
}

/// A key, and as much white space after it as anybody would leave there.
const LONGEST: usize = 4096;

fn read(mut from: impl Read) -> io::Result<KeyFile> {
    let mut file = KeyFile { bytes: Zeroizing::new([0; LONGEST]), len: 0 };
    while file.len < LONGEST {
        match from.read(&mut file.bytes[file.len..]) {
            Ok(0) => break,
            Ok(n) => file.len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(file)
}

impl KeyFile {
    /// The key, if nothing but `blank` bytes follow it.
    fn parse<K: Key>(&self, blank: impl Fn(u8) -> bool) -> Result<K, KeyError> {
        let text = &self.bytes[..self.len];
        let (key, rest) = text.split_at_checked(BASE64_LEN).ok_or(KeyError::Base64)?;
        if self.len == LONGEST || !rest.iter().all(|&b| blank(b)) {
            return Err(KeyError::Base64);
        }
        key::from_base64(key)
    }
}

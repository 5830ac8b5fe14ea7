//! The kernel's own ciphers for programs (bpf_crypto, Linux 6.10), and whether there is an AEAD among them.
//!
//! None of today's kernels offers one: a cipher has to be of a *type* that bpf_crypto knows, and the only one is `skcipher`, without authentication. So the
//! programs compute ChaCha20-Poly1305 themselves. [`aead`] asks the running kernel anew, and the day that it says yes, what it takes to go on is
//! here and tried: a context made by a program that may sleep, kept in a map, used by a program of the packets' hooks ([`Cipher`]).

use libbpf_rs::{ErrorKind, MapCore, MapFlags, Object, ObjectBuilder, ProgramInput};
use std::io;

/// The programs (`bpf/crypto.bpf.c`).
const OBJECT: &[u8] = include_bytes!("../objects/crypto.bpf.o");

/// The type and the name of the AEAD that we would take: ChaCha20-Poly1305 as in RFC 7539, in the words of the kernel's crypto API.
const AEAD: (&str, &str) = ("aead", "rfc7539(chacha20,poly1305)");

/// Bytes of WireGuard's keys and tags.
const KEY: usize = 32;
const TAG: u32 = 16;

/// The most bytes at once; it is for a trial, not for packets.
pub const MAX: usize = 64;
/// Bytes of an initial value.
const IV: usize = 16;

// Where things are in a `struct request`.
const TYPE: usize = 0;
const ALGO: usize = 16;
const KEY_AT: usize = 144;
const KEY_MAX: usize = 256;
const KEY_LEN: usize = 400;
const AUTH_SIZE: usize = 404;
const OUTCOME: usize = 408;
const LEN: usize = 412;
const IV_LEN: usize = 416;
const SOURCE: usize = 424;
const DESTINATION: usize = SOURCE + MAX;
const IV_AT: usize = DESTINATION + MAX;
const REQUEST: usize = IV_AT + IV;

/// What the kernel says of an AEAD for programs.
#[derive(Debug)]
pub enum Aead {
    /// It has ours.
    There,
    /// It has ciphers for programs, and no AEAD among them.
    OtherCiphers,
    /// It has no ciphers for programs.
    NoCiphers,
    /// It cannot be asked.
    Unasked(io::Error),
}

/// Asks the kernel whether it has ChaCha20-Poly1305 for programs. Takes CAP_BPF and CAP_NET_ADMIN.
pub fn aead() -> Aead {
    match Cipher::new(AEAD.0, AEAD.1, &[0; KEY], TAG) {
        Ok(_) => Aead::There,
        Err(CipherError::Refused(_)) => Aead::OtherCiphers,
        Err(CipherError::Load(error)) if error.kind() == ErrorKind::PermissionDenied => {
            Aead::Unasked(io::Error::other(error))
        }
        Err(CipherError::Load(_)) => Aead::NoCiphers,
        Err(error) => Aead::Unasked(io::Error::other(error)),
    }
}

/// Why the kernel does not encrypt.
#[derive(Debug, thiserror::Error)]
pub enum CipherError {
    /// It does not take the programs: it has none of the functions that they call, or lacks the right.
    #[error("the kernel has no ciphers for programs: {0}")]
    Load(libbpf_rs::Error),
    /// It has no such cipher, or does not take this key for it.
    #[error("the kernel has no such cipher for programs: {0}")]
    Refused(io::Error),
    /// A program did not run, or a map is not there.
    #[error("a program does not run: {0}")]
    Run(libbpf_rs::Error),
    /// More bytes than [`MAX`], a key of more than 256, an initial value of more than 16, or a name that is too long.
    #[error("too long")]
    TooLong,
}

impl From<libbpf_rs::Error> for CipherError {
    fn from(error: libbpf_rs::Error) -> CipherError {
        CipherError::Run(error)
    }
}

/// A cipher of the kernel's with a key, in programs.
pub struct Cipher {
    object: Object,
}

impl Cipher {
    /// A cipher of this type (`skcipher`) and name (`cbc(aes)`) with this key; `tag` is the length of an AEAD's tag in bytes, zero for others.
    ///
    /// # Errors
    /// The kernel has none, or refuses the programs.
    pub fn new(kind: &str, name: &str, key: &[u8], tag: u32) -> Result<Cipher, CipherError> {
        // Terminated by zeros, which are there.
        if kind.len() >= ALGO - 2 || name.len() >= KEY_AT - ALGO || key.len() > KEY_MAX {
            return Err(CipherError::TooLong);
        }
        let load = || ObjectBuilder::default().open_memory(OBJECT)?.load();
        let mut cipher = Cipher { object: quietly(load).map_err(CipherError::Load)? };
        let mut request = [0; REQUEST];
        let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
        put(TYPE, kind.as_bytes());
        put(ALGO, name.as_bytes());
        put(KEY_AT, key);
        put(KEY_LEN, &(key.len() as u32).to_ne_bytes());
        put(AUTH_SIZE, &tag.to_ne_bytes());
        let outcome = cipher.ask("create", &request);
        request.fill(0);
        // No key stays in the map, whatever came of it.
        cipher.write(&request)?;
        outcome.map(|_| cipher)
    }

    /// Encrypts at most [`MAX`] bytes, whole blocks of them, with an initial value if the cipher takes one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn encrypt(&mut self, message: &[u8], iv: &[u8]) -> Result<Vec<u8>, CipherError> {
        self.crypt("encrypt", message, iv)
    }

    /// Decrypts likewise.
    ///
    /// # Errors
    /// The kernel's.
    pub fn decrypt(&mut self, message: &[u8], iv: &[u8]) -> Result<Vec<u8>, CipherError> {
        self.crypt("decrypt", message, iv)
    }

    fn crypt(&mut self, program: &str, message: &[u8], iv: &[u8]) -> Result<Vec<u8>, CipherError> {
        if message.len() > MAX || iv.len() > IV {
            return Err(CipherError::TooLong);
        }
        let mut request = [0; REQUEST];
        let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
        put(LEN, &(message.len() as u32).to_ne_bytes());
        put(IV_LEN, &(iv.len() as u32).to_ne_bytes());
        put(SOURCE, message);
        put(IV_AT, iv);
        let answer = self.ask(program, &request)?;
        Ok(answer.get(DESTINATION..DESTINATION + message.len()).unwrap_or_default().to_vec())
    }

    fn write(&mut self, request: &[u8]) -> Result<(), CipherError> {
        let map = self.object.maps_mut().find(|map| map.name() == "requests").ok_or_else(missing)?;
        Ok(map.update(&[0; 4], request, MapFlags::ANY)?)
    }

    /// Runs a program on a request, and returns the request as it is then.
    fn ask(&mut self, program: &str, request: &[u8]) -> Result<Vec<u8>, CipherError> {
        self.write(request)?;
        let run = self.object.progs_mut().find(|it| it.name() == program).ok_or_else(missing)?;
        // A packet of no meaning, which such a program has to be given; one of the type SYSCALL must not have any.
        let packet = [0; 64];
        let data_in = (program != "create").then_some(&packet[..]);
        let result = run.test_run(ProgramInput { data_in, ..ProgramInput::default() })?;
        let map = self.object.maps_mut().find(|map| map.name() == "requests").ok_or_else(missing)?;
        let answer = map.lookup(&[0; 4], MapFlags::ANY)?.ok_or_else(missing)?;
        let word = answer.get(OUTCOME..OUTCOME + 4).and_then(|word| word.try_into().ok());
        match (result.return_value, word.map_or(0, i32::from_ne_bytes)) {
            (0, 0) => Ok(answer),
            (0, error) => Err(CipherError::Refused(io::Error::from_raw_os_error(-error))),
            _ => Err(CipherError::Run(io::Error::from(io::ErrorKind::InvalidInput).into())),
        }
    }
}

/// The object has what it was made with, so this does not come up.
fn missing() -> CipherError {
    CipherError::Run(io::Error::from(io::ErrorKind::NotFound).into())
}

/// Does something of libbpf's without its talk: that a kernel has no ciphers is an answer.
pub(crate) fn quietly<T>(work: impl FnOnce() -> T) -> T {
    let before = libbpf_rs::set_print(None);
    let result = work();
    libbpf_rs::set_print(before);
    result
}

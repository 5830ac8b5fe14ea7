//! The backends by name, and which of them this process uses.
//!
//! The choice is one for the whole process: [`Backend::choose`] makes it, once, before the first key; without it the first key
//! takes [`Backend::best`]. A backend is used for what it is the faster one for; the rest it leaves to `ring`.

use crate::{BatchAead, KEY_LEN, ring_backend::RingKey};
use std::{fmt, str::FromStr, sync::OnceLock};

#[cfg(target_arch = "x86_64")]
use crate::{avx2::Avx2Key, avx512::Avx512Key};

/// An implementation of the AEAD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// `ring`: one segment after the other, on every processor.
    Ring,
    /// AVX2: eight lanes.
    Avx2,
    /// AVX-512 with its 52-bit multiplier (IFMA): sixteen lanes.
    Avx512,
}

static CHOSEN: OnceLock<Backend> = OnceLock::new();

impl Backend {
    /// All that there are, on whatever machine; a better one comes after a lesser one.
    pub const ALL: [Self; 3] = [Self::Ring, Self::Avx2, Self::Avx512];

    /// Its name in settings and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Whether this processor has what it needs.
    pub fn available(self) -> bool {
        match self {
            Self::Ring => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2Key::available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512Key::available(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// Those that this processor can use.
    pub fn all_available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|backend| backend.available())
    }

    /// The fastest one of this processor.
    pub fn best() -> Self {
        Self::all_available().last().unwrap_or(Self::Ring)
    }

    /// The one that keys of this process use.
    pub fn chosen() -> Self {
        *CHOSEN.get_or_init(Self::best)
    }

    /// Makes this the one that keys of this process use, from the first one on.
    ///
    /// # Errors
    /// The processor cannot, or another one is in use already.
    pub fn choose(self) -> Result<(), BackendError> {
        if !self.available() {
            return Err(BackendError::NotHere(self));
        }
        let chosen = *CHOSEN.get_or_init(|| self);
        if chosen == self { Ok(()) } else { Err(BackendError::Chosen(chosen)) }
    }

    /// A key, if the processor can; `alone` does everything by this backend that it can do, be it faster or not.
    pub(crate) fn key(self, key: &[u8; KEY_LEN], alone: bool) -> Option<Box<dyn BatchAead>> {
        match self {
            Self::Ring => Some(Box::new(RingKey::new(key))),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Some(Box::new(Avx2Key::new(key, alone)?)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 if alone => Some(Box::new(Avx512Key::for_all_sizes(key)?)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Some(Box::new(Avx512Key::new(key)?)),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => None,
        }
    }
}

/// A key of the chosen backend.
pub(crate) fn key_of_choice(key: &[u8; KEY_LEN]) -> Box<dyn BatchAead> {
    // What was chosen is available; were it not, the packets would go by `ring`.
    Backend::chosen().key(key, false).unwrap_or_else(|| Box::new(RingKey::new(key)))
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = BackendError;

    fn from_str(name: &str) -> Result<Self, BackendError> {
        Self::ALL.into_iter().find(|backend| backend.name() == name).ok_or(BackendError::Unknown)
    }
}

/// Why a backend is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BackendError {
    /// There is none of that name.
    Unknown,
    /// This processor lacks what it needs.
    NotHere(Backend),
    /// This one is in use already.
    Chosen(Backend),
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("there is no such implementation of the AEAD"),
            Self::NotHere(backend) => write!(f, "this processor lacks the instructions for {backend}"),
            Self::Chosen(backend) => write!(f, "keys use {backend} already"),
        }
    }
}

impl std::error::Error for BackendError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for backend in Backend::ALL {
            assert_eq!(backend.to_string().parse(), Ok(backend));
        }
        for unknown in ["", "Ring", "avx", " ring", "avx512,ring"] {
            assert_eq!(unknown.parse::<Backend>(), Err(BackendError::Unknown), "{unknown}");
        }
    }

    /// The one test of this process that chooses.
    #[test]
    fn the_choice_is_made_once() {
        assert!(Backend::best().available());
        for backend in Backend::ALL.into_iter().filter(|backend| !backend.available()) {
            assert_eq!(backend.choose(), Err(BackendError::NotHere(backend)));
        }
        assert_eq!(Backend::Ring.choose(), Ok(()));
        assert_eq!(Backend::chosen(), Backend::Ring);
        assert_eq!(Backend::Ring.choose(), Ok(()));
        for backend in Backend::all_available().filter(|backend| *backend != Backend::Ring) {
            assert_eq!(backend.choose(), Err(BackendError::Chosen(Backend::Ring)));
        }
        assert_eq!(Backend::chosen(), Backend::Ring);
    }
}

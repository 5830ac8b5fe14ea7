//! The ways in which a batch can be sealed and opened.

// Each test file uses its part of it.
#![allow(dead_code)]

use aead::Backend;
use std::fmt;

/// A backend, for what it is the faster one for or for everything that it can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    pub backend: Backend,
    pub alone: bool,
}

/// What all others are compared with.
pub const RING: Way = Way { backend: Backend::Ring, alone: true };

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.backend, if self.alone { " alone" } else { " and ring" })
    }
}

/// All ways but `ring`'s, as far as this machine has them.
pub fn others() -> impl Iterator<Item = Way> {
    let backends = Backend::all_available().filter(|backend| *backend != Backend::Ring);
    backends.flat_map(|backend| [true, false].map(|alone| Way { backend, alone }))
}

/// Runs a test in every way that this machine has.
pub fn by_every_backend(mut test: impl FnMut(Way)) {
    others().chain([RING]).for_each(&mut test);
}

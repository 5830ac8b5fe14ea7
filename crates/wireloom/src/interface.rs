//! The name of an interface, as the kernel allows it.

use std::fmt;
use std::str::FromStr;

/// A name that the kernel can give to an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceName(String);

/// A name that it cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an interface, expected 1 to 15 characters without white space, '/', ':' and '%'")]
pub struct NotAName;

impl InterfaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = NotAName;

    /// As `dev_valid_name` in the kernel; `%` is left out because the kernel would put a number in its place.
    fn from_str(name: &str) -> Result<InterfaceName, NotAName> {
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%');
        let fits = (1..=15).contains(&name.len()) && name != "." && name != "..";
        if fits && !name.contains(odd) { Ok(InterfaceName(name.to_owned())) } else { Err(NotAName) }
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

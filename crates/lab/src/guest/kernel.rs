//! Which kernels there are for guests: Debian's of two series, and what is compiled here of the same sources with WireGuard built in.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::configuration;
use super::image::{Image, MODULES};
use crate::LabError;
use crate::system::cache_folder;

/// A series of kernels with a WireGuard of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// That of Debian 12. Its TUN has no UDP segmentation.
    V6_1,
    /// That of Debian 13.
    V6_12,
}

impl Series {
    /// All of them, oldest first.
    pub const ALL: [Series; 2] = [Series::V6_1, Series::V6_12];

    /// Such as `6.1`.
    pub fn name(self) -> &'static str {
        match self {
            Series::V6_1 => "6.1",
            Series::V6_12 => "6.12",
        }
    }
}

/// A kernel that a guest can boot, if it has been fetched or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Debian's image for clouds, in which WireGuard is a module.
    Debian(Series),
    /// Compiled here of Debian's sources, with WireGuard as a part of the image and no modules at all.
    BuiltIn(Series),
}

impl Kernel {
    /// Debian's of the older series.
    pub const V6_1: Kernel = Kernel::Debian(Series::V6_1);
    /// Debian's of the newer one.
    pub const V6_12: Kernel = Kernel::Debian(Series::V6_12);
    /// Debian's, oldest first.
    pub const ALL: [Kernel; 2] = [Kernel::V6_1, Kernel::V6_12];
    /// Those and what can be made of their sources.
    pub const EVERY: [Kernel; 4] =
        [Kernel::V6_1, Kernel::V6_12, Kernel::BuiltIn(Series::V6_1), Kernel::BuiltIn(Series::V6_12)];

    /// The series, such as `6.1`.
    pub fn series(self) -> &'static str {
        let (Kernel::Debian(series) | Kernel::BuiltIn(series)) = self;
        series.name()
    }

    /// What it is called, such as `6.12` or `built-in-6.12`.
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Debian(series) => series.name(),
            Kernel::BuiltIn(Series::V6_1) => "built-in-6.1",
            Kernel::BuiltIn(Series::V6_12) => "built-in-6.12",
        }
    }

    /// The command that has it come here.
    pub fn command(self) -> &'static str {
        match self {
            Kernel::Debian(Series::V6_1) => "wireloom lab kernel fetch 6.1",
            Kernel::Debian(Series::V6_12) => "wireloom lab kernel fetch 6.12",
            Kernel::BuiltIn(Series::V6_1) => "wireloom lab kernel build --series 6.1",
            Kernel::BuiltIn(Series::V6_12) => "wireloom lab kernel build --series 6.12",
        }
    }

    /// Its image, if it is here.
    ///
    /// # Errors
    /// [`LabError::Missing`].
    pub fn image(self) -> Result<Image, LabError> {
        let wanted = match self {
            Kernel::Debian(_) => MODULES.join("\n"),
            Kernel::BuiltIn(_) => configuration::text(true),
        };
        Image::of(self.folder(), &wanted).ok_or_else(|| LabError::Missing {
            program: format!("the image of Linux {} in {}", self.series(), self.folder().display()),
            hint: match self {
                Kernel::Debian(_) => "`wireloom lab kernel fetch` downloads it, as does `cargo xtask setup`",
                Kernel::BuiltIn(_) => "`wireloom lab kernel build` makes it",
            },
        })
    }

    /// Where its files are kept.
    pub(super) fn folder(self) -> PathBuf {
        cache_folder().join("kernels").join(self.name())
    }
}

/// A name that nothing has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    what: &'static str,
    known: Vec<&'static str>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no such {}, expected one of {}", self.what, self.known.join(", "))
    }
}

impl std::error::Error for Unknown {}

impl FromStr for Series {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Series, Unknown> {
        let known = || Series::ALL.map(Series::name).to_vec();
        Series::ALL.into_iter().find(|it| it.name() == text).ok_or_else(|| Unknown { what: "series", known: known() })
    }
}

impl FromStr for Kernel {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Kernel, Unknown> {
        let known = || Kernel::EVERY.map(Kernel::name).to_vec();
        Kernel::EVERY.into_iter().find(|it| it.name() == text).ok_or_else(|| Unknown { what: "kernel", known: known() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_found_by_its_name_and_its_command_names_it() {
        for kernel in Kernel::EVERY {
            assert_eq!(kernel.name().parse(), Ok(kernel));
            assert!(kernel.command().ends_with(&format!(" {}", kernel.series())), "{}", kernel.command());
        }
        let error = "6.13".parse::<Kernel>().unwrap_err().to_string();
        assert_eq!(error, "there is no such kernel, expected one of 6.1, 6.12, built-in-6.1, built-in-6.12");
        let error = "built-in-6.12".parse::<Series>().unwrap_err().to_string();
        assert_eq!(error, "there is no such series, expected one of 6.1, 6.12");
    }
}

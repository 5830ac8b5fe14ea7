//! What can be wrong with a run.

use std::io;
use std::path::PathBuf;

use crate::text::{line, one_line};

/// Each is one line: what, where, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// A file could not be read or written.
    #[error("{}: {source}", line(&path.display()))]
    File {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file is too big to be a run.
    #[error("{}: {size} bytes are more than a run has (at most {most})", line(&path.display()))]
    TooBig {
        /// Which.
        path: PathBuf,
        /// Bytes that it has.
        size: u64,
        /// Bytes that it may have.
        most: u64,
    },
    /// Not the JSON of a run.
    #[error("{}: not a run of the lab: {}", one_line(place), line(source))]
    Json {
        /// The file, or what stands for it.
        place: String,
        /// What the parser said, with line and column.
        source: serde_json::Error,
    },
    /// JSON of a run that says what cannot be.
    #[error("{}: {}", one_line(place), one_line(what))]
    Invalid {
        /// The file, or what stands for it.
        place: String,
        /// What is wrong and what would be right.
        what: String,
    },
    /// Two runs that cannot be one.
    #[error("cannot merge {} and {}: {}", one_line(one), one_line(other), one_line(why))]
    Merge {
        /// A run's name.
        one: String,
        /// The other's.
        other: String,
        /// Why not.
        why: String,
    },
}

//! What can be wrong with a run.

use std::io;
use std::path::PathBuf;

/// Each is one line: what, where, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file is too big to be a run.
    #[error("{}: {size} bytes are more than a run has (at most {most})", path.display())]
    TooBig {
        /// Which.
        path: PathBuf,
        /// Bytes that it has.
        size: u64,
        /// Bytes that it may have.
        most: u64,
    },
    /// Not the JSON of a run.
    #[error("{place}: not a run of the lab: {source}")]
    Json {
        /// The file, or what stands for it.
        place: String,
        /// What the parser said, with line and column.
        source: serde_json::Error,
    },
    /// JSON of a run that says what cannot be.
    #[error("{place}: {what}")]
    Invalid {
        /// The file, or what stands for it.
        place: String,
        /// What is wrong and what would be right.
        what: String,
    },
    /// Two runs that cannot be one.
    #[error("cannot merge {one} and {other}: {why}")]
    Merge {
        /// A run's name.
        one: String,
        /// The other's.
        other: String,
        /// Why not.
        why: String,
    },
}

//! The step that gives the device the rules which say what may pass, before it has keys and peers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::{client, policy};

/// The rules of a file. Each time it is applied they are read anew, and a file that cannot be read leaves the device without keys.
#[derive(Debug, Serialize, Deserialize)]
pub struct Policy {
    /// The interface.
    pub interface: String,
    /// The file that they are in.
    pub file: PathBuf,
}

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct PolicyError(Box<Error>);

impl Policy {
    pub fn describe(&self) -> String {
        format!("wireloom policy {} {}", self.interface, self.file.display())
    }

    pub fn apply(&self) -> Result<(), PolicyError> {
        let rules = policy::read(&self.file).map_err(|error| PolicyError(Box::new(error)))?;
        client::set_policy(&self.interface, &rules).map_err(|error| PolicyError(Box::new(error)))
    }
}

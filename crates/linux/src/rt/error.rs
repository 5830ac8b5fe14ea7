//! What the kernel refuses, and why.

use std::io;

/// Why a request had no effect.
#[derive(Debug, thiserror::Error)]
pub enum RtError {
    /// The kernel refuses.
    #[error("{source}{}", said(.text))]
    Refused {
        /// Its error number.
        source: io::Error,
        /// What it says besides (the extended acknowledgement), if it says anything.
        text: Option<String>,
    },
    /// There could be no exchange with the kernel.
    #[error("cannot speak to the kernel by rtnetlink: {0}")]
    Io(#[from] io::Error),
}

fn said(text: &Option<String>) -> String {
    text.as_ref().map(|text| format!(" ({})", text.trim_end_matches('.'))).unwrap_or_default()
}

impl RtError {
    /// The number of the error (`EEXIST` and so on), if it has one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            RtError::Refused { source, .. } | RtError::Io(source) => source.raw_os_error(),
        }
    }

    /// Whether what was to be taken away is not there: no such object, device or address.
    pub fn is_absent(&self) -> bool {
        const ABSENT: [i32; 4] = [libc::ENOENT, libc::ESRCH, libc::ENODEV, libc::EADDRNOTAVAIL];
        matches!(self, RtError::Refused { .. }) && self.errno().is_some_and(|errno| ABSENT.contains(&errno))
    }

    /// Whether it is there already.
    pub fn is_present(&self) -> bool {
        matches!(self, RtError::Refused { .. }) && self.errno() == Some(libc::EEXIST)
    }
}

//! Lines of bounded length from a stream that may carry keys.
//!
//! Both ends of the UAPI read with it. The buffer is of one size for ever and wiped at the end, so that no copy of a key is left
//! behind by a vector that grew.

use std::io::{self, Read};

use zeroize::Zeroizing;

/// The longest line that is read, in bytes, without its end. The longest that the protocol knows, an endpoint with a long zone, has
/// not a third of it.
pub(crate) const MAX_LINE: usize = 512;

const BUFFER: usize = 16 * 1024;

/// Why there is no further line.
#[derive(Debug)]
pub(crate) enum LineError {
    /// The stream failed.
    Io(io::Error),
    /// More than [`MAX_LINE`] bytes without an end of line.
    TooLong,
    /// The stream ended within a line.
    CutOff,
}

/// Reads lines from a stream; what was read beyond a line waits for the next call.
pub(crate) struct Lines<R> {
    stream: R,
    buffer: Zeroizing<Vec<u8>>,
    start: usize,
    end: usize,
    /// Bytes handed out as lines so far, ends of lines included.
    pub(crate) consumed: u64,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(stream: R) -> Lines<R> {
        Lines { stream, buffer: Zeroizing::new(vec![0; BUFFER]), start: 0, end: 0, consumed: 0 }
    }

    pub(crate) fn stream(&self) -> &R {
        &self.stream
    }

    /// The next line without its `\n`; `None` when the stream ended between two lines.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, LineError> {
        let mut seen = 0;
        let len = loop {
            let unread = &self.buffer[self.start..self.end];
            match unread[seen..].iter().position(|&b| b == b'\n') {
                Some(at) if seen + at <= MAX_LINE => break seen + at,
                None if unread.len() <= MAX_LINE => seen = unread.len(),
                _ => return Err(LineError::TooLong),
            }
            if self.fill().map_err(LineError::Io)? == 0 {
                return if seen == 0 { Ok(None) } else { Err(LineError::CutOff) };
            }
        };
        let line = self.start..self.start + len;
        self.start += len + 1;
        self.consumed += len as u64 + 1;
        Ok(Some(&self.buffer[line]))
    }

    fn fill(&mut self) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == BUFFER {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        loop {
            match self.stream.read(&mut self.buffer[self.end..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Ok(n) => {
                    self.end += n;
                    return Ok(n);
                }
                Err(e) => return Err(e),
            }
        }
    }
}

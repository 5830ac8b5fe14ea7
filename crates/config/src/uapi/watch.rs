//! What a device tells a watcher: what has happened to which peer.
//!
//! A watcher sends [`write_watch`], is answered as to any request, and then reads events until the device hangs up. An event is a block of lines that ends
//! with an empty one:
//!
//! ```text
//! event=failing
//! public_key=b111…
//! endpoint=192.0.2.1:51820
//!
//! ```
//!
//! It holds no secret. The reader passes over keys and kinds of events that it does not know, and takes a stream that has no more for now
//! (`WouldBlock`) for what it is: it goes on where it was when there is more.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use noise::PublicKey;

use super::Errno;
use super::reply::{ReplyError, parse_errno};
use crate::address::{EndpointText, NumericZones, parse_endpoint};
use crate::key;
use crate::lines::{LineError, Lines};

/// What has happened to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerEventKind {
    /// Another few initiations have gone unanswered.
    Failing,
    /// No more initiations are sent until there is something to send.
    Abandoned,
    /// A handshake has succeeded, after they had failed.
    Answered,
}

impl PeerEventKind {
    const ALL: [PeerEventKind; 3] = [PeerEventKind::Failing, PeerEventKind::Abandoned, PeerEventKind::Answered];

    fn name(self) -> &'static str {
        match self {
            PeerEventKind::Failing => "failing",
            PeerEventKind::Abandoned => "abandoned",
            PeerEventKind::Answered => "answered",
        }
    }
}

/// Something that has happened to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerEvent {
    /// What.
    pub kind: PeerEventKind,
    /// To whom.
    pub public_key: PublicKey,
    /// Where the peer was taken to be at that moment.
    pub endpoint: Option<SocketAddr>,
}

/// The request for events of these peers, or of all if there are none.
pub fn write_watch(keys: &[PublicKey]) -> Vec<u8> {
    let mut out = b"watch=1\n".to_vec();
    for key in keys {
        let _ = writeln!(out, "public_key={}", key::to_hex(key));
    }
    out.push(b'\n');
    out
}

/// The text of an event.
pub fn write_event(out: &mut Vec<u8>, event: &PeerEvent) {
    // Writing to a vector cannot fail.
    let _ = writeln!(out, "event={}\npublic_key={}", event.kind.name(), key::to_hex(&event.public_key));
    if let Some(endpoint) = event.endpoint {
        let _ = writeln!(out, "endpoint={}", EndpointText(endpoint, &NumericZones));
    }
    out.push(b'\n');
}

/// Reads the answer to a watch, and the events after it.
pub struct EventReader<R> {
    lines: Lines<R>,
    block: Block,
}

/// What was read of a block.
#[derive(Default)]
struct Block {
    /// Whether it is an answer, and if so, a refusal.
    answer: Option<Option<Errno>>,
    kind: Option<PeerEventKind>,
    public_key: Option<PublicKey>,
    endpoint: Option<SocketAddr>,
}

impl<R: Read> EventReader<R> {
    /// A reader of what comes on `stream`.
    pub fn new(stream: R) -> EventReader<R> {
        EventReader { lines: Lines::new(stream), block: Block::default() }
    }

    /// The stream, to wait for.
    pub fn stream(&self) -> &R {
        self.lines.stream()
    }

    /// The answer to the watch, of a stream that blocks until it is there.
    ///
    /// # Errors
    /// As those of [`EventReader::event`], or there is something else than an answer.
    pub fn answer(&mut self) -> Result<(), ReplyError> {
        loop {
            let line = self.lines.next()?.ok_or(ReplyError::CutOff)?;
            if !line.is_empty() {
                self.block.take(line)?;
                continue;
            }
            return match std::mem::take(&mut self.block).answer {
                Some(None) => Ok(()),
                Some(Some(errno)) => Err(ReplyError::Refused(errno)),
                None => Err(ReplyError::Malformed("no errno")),
            };
        }
    }

    /// The next event; `None` when there is none yet, of a stream that does not block.
    ///
    /// # Errors
    /// [`ReplyError::CutOff`] when the device has hung up; [`ReplyError::Refused`] when it does not let itself be watched; or nonsense.
    pub fn event(&mut self) -> Result<Option<PeerEvent>, ReplyError> {
        loop {
            let line = match self.lines.next() {
                Err(LineError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                line => line?.ok_or(ReplyError::CutOff)?,
            };
            if !line.is_empty() {
                self.block.take(line)?;
                continue;
            }
            let Block { answer, kind, public_key, endpoint } = std::mem::take(&mut self.block);
            if let Some(Some(errno)) = answer {
                return Err(ReplyError::Refused(errno));
            }
            if let (Some(kind), Some(public_key)) = (kind, public_key) {
                return Ok(Some(PeerEvent { kind, public_key, endpoint }));
            }
        }
    }
}

impl Block {
    fn take(&mut self, line: &[u8]) -> Result<(), ReplyError> {
        let at = line.iter().position(|&b| b == b'=').ok_or(ReplyError::Malformed("a line without '='"))?;
        let value =
            std::str::from_utf8(&line[at + 1..]).map_err(|_| ReplyError::Malformed("a value that is not text"))?;
        match &line[..at] {
            b"errno" => self.answer = Some(parse_errno(value)?),
            b"event" => self.kind = PeerEventKind::ALL.into_iter().find(|kind| kind.name() == value),
            b"public_key" => {
                let key =
                    key::from_hex(value.as_bytes()).map_err(|_| ReplyError::Malformed("a key that is not one"))?;
                self.public_key = Some(key);
            }
            b"endpoint" => {
                let endpoint = parse_endpoint(value, &NumericZones);
                self.endpoint = Some(endpoint.ok_or(ReplyError::Malformed("an endpoint that is not one"))?);
            }
            _ => {}
        }
        Ok(())
    }
}

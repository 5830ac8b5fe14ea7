//! Reading requests, at the device's end.
//!
//! A set is read to its end before any of it is told, so that a request that is refused, or breaks off, has changed nothing. The
//! state moves: *between requests* → (`set=1`) → *device lines* → (`public_key=`) → *peer lines*, of one peer after the
//! other → (empty line) → *between requests*. After a bad line the rest of the request is skipped, up to the empty line, and the
//! connection goes on; only what makes it unclear where the next request starts ends the connection.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use noise::PublicKey;

use super::Errno;
use crate::address::{Zones, digits, parse_cidr, parse_endpoint};
use crate::device::{AllowedIpChange, DeviceChange, PeerChange};
use crate::key::{self, KeyError};
use crate::lines::{LineError, Lines};
use crate::policy::{MAX_RULES, Rule, parse_rule};

/// The longest request, in bytes, peers and networks counted for more than their text, and the most that the requests of all connections take
/// together. A hundred thousand peers with ten networks each take most of it.
pub const MAX_REQUEST: u64 = 128 << 20;

/// What a client asks for.
pub enum Request {
    /// Tell everything about the device.
    Get,
    /// The same without secrets, and how much of what peers sent arrived. Not a request of the stock protocol, and neither are the next six.
    Peers,
    /// Tell what was dropped, by reason.
    Drops,
    /// Tell of the device's work ([`crate::stats`]).
    Stats,
    /// Tell what happens to these peers, or to all if there are none, from now on.
    Watch(Vec<PublicKey>),
    /// End all sessions, and keep still as long as the client stays.
    Wipe,
    /// Tell the rules that say what may pass, and what each has taken.
    Policy,
    /// Put these rules in the place of those.
    SetPolicy(Vec<Rule>),
    /// Change the device.
    Set(DeviceChange),
}

/// Why a request is not one.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A set was read to its end and is refused; the connection may go on.
    #[error("set: {0}")]
    Set(#[from] SetError),
    /// Something followed `get=1`, or what else takes no lines, before the empty line; the connection may go on.
    #[error("get: a line where none was expected")]
    Get,
    /// The first line is neither `get=1` nor `set=1`.
    #[error("not a request, expected get=1 or set=1")]
    UnknownOperation,
    /// A line of more than 512 bytes.
    #[error("a line of more than 512 bytes")]
    LineTooLong,
    /// More than [`MAX_REQUEST`] bytes, with those of other connections.
    #[error("requests of more than 128 MiB")]
    TooLong,
    /// The client hung up in the middle.
    #[error("the request breaks off")]
    CutOff,
    /// The connection failed.
    #[error("cannot read the request: {0}")]
    Io(#[from] io::Error),
}

impl RequestError {
    /// What to answer.
    pub fn errno(&self) -> Errno {
        match self {
            RequestError::Set(error) => error.errno(),
            RequestError::Get => Errno::INVALID,
            RequestError::Io(error) => error.into(),
            _ => Errno::PROTOCOL,
        }
    }

    /// Whether the connection cannot go on after the answer.
    pub fn ends_connection(&self) -> bool {
        !matches!(self, RequestError::Set(_) | RequestError::Get)
    }
}

/// What is wrong with a line of a set. Values are not told: they may be keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// A line without `=`.
    #[error("a line without '='")]
    NotALine,
    /// A key that devices (or peers) do not have.
    #[error("an unknown key")]
    UnknownKey,
    /// A key that is not one.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A value that this key cannot have; which key is told.
    #[error("a bad value of {0}")]
    Value(&'static str),
}

impl SetError {
    /// What to answer.
    pub fn errno(self) -> Errno {
        match self {
            SetError::NotALine => Errno::PROTOCOL,
            _ => Errno::INVALID,
        }
    }
}

/// What a request may take for its own, in bytes; beyond that it draws on a [`Budget`].
const OWN: u64 = 1 << 20;
/// What a peer and a network take in memory beyond their text, about.
const WEIGHTS: [(&[u8], u64); 2] = [(b"public_key=", 256), (b"allowed_ip=", 32)];

/// What the requests of all connections may take together, in bytes. One that is read is held whole until it is applied.
pub struct Budget(AtomicU64);

impl Budget {
    /// Enough for one request of [`MAX_REQUEST`].
    pub fn new() -> Arc<Budget> {
        Arc::new(Budget(AtomicU64::new(MAX_REQUEST)))
    }
}

/// What one request has drawn, given back when it is dropped.
struct Share {
    budget: Arc<Budget>,
    own: u64,
    drawn: u64,
}

impl Share {
    fn new(budget: Arc<Budget>) -> Share {
        Share { budget, own: OWN, drawn: 0 }
    }

    /// Takes so many bytes; whether there were any left.
    fn take(&mut self, bytes: u64) -> bool {
        if let Some(own) = self.own.checked_sub(bytes) {
            self.own = own;
            return true;
        }
        let draw = |left: u64| left.checked_sub(bytes);
        let drawn = self.budget.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, draw).is_ok();
        self.drawn += if drawn { bytes } else { 0 };
        drawn
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.drawn, Ordering::AcqRel);
    }
}

/// Reads requests from a connection.
pub struct RequestReader<R> {
    lines: Lines<R>,
    share: Share,
}

impl<R: Read> RequestReader<R> {
    /// A reader of what comes on `stream`.
    pub fn new(stream: R) -> RequestReader<R> {
        RequestReader::sharing(stream, Budget::new())
    }

    /// The same, with a budget that others draw on as well. What a request has drawn is given back when the next is read.
    pub fn sharing(stream: R, budget: Arc<Budget>) -> RequestReader<R> {
        RequestReader { lines: Lines::new(stream), share: Share::new(budget) }
    }

    /// The stream, to answer on it where it can be written through a shared reference.
    pub fn stream(&self) -> &R {
        self.lines.stream()
    }

    /// The next request; `None` when the client hung up after the last one. `zones` names the interfaces that endpoints speak of.
    pub fn read(&mut self, zones: &dyn Zones) -> Result<Option<Request>, RequestError> {
        self.share = Share::new(self.share.budget.clone());
        let request = match self.lines.next()? {
            None => return Ok(None),
            Some(b"get=1") => Request::Get,
            Some(b"get=peers") => Request::Peers,
            Some(b"get=drops") => Request::Drops,
            Some(b"get=stats") => Request::Stats,
            Some(b"watch=1") => Request::Watch(Vec::new()),
            Some(b"wipe=1") => Request::Wipe,
            Some(b"get=policy") => Request::Policy,
            Some(b"set=policy") => Request::SetPolicy(Vec::new()),
            Some(b"set=1") => Request::Set(DeviceChange::default()),
            Some(_) => return Err(RequestError::UnknownOperation),
        };
        match request {
            Request::Get | Request::Peers | Request::Drops | Request::Stats | Request::Policy | Request::Wipe => {
                let mut clean = true;
                while self.line()?.is_some() {
                    clean = false;
                }
                if clean { Ok(Some(request)) } else { Err(RequestError::Get) }
            }
            Request::Watch(mut keys) => {
                let mut refused = None;
                while let Some(line) = self.line()? {
                    match line.strip_prefix(b"public_key=").map(key::from_hex) {
                        Some(Ok(key)) => keys.push(key),
                        Some(Err(error)) => refused = Some(SetError::Key(error)),
                        None => refused = Some(SetError::UnknownKey),
                    }
                }
                match refused {
                    Some(error) => Err(error.into()),
                    None => Ok(Some(Request::Watch(keys))),
                }
            }
            Request::SetPolicy(mut rules) => {
                let mut refused = None;
                while let Some(line) = self.line()? {
                    match line.strip_prefix(b"rule=").map(parse_rule) {
                        Some(Ok(rule)) if rules.len() < MAX_RULES => rules.push(rule),
                        Some(_) => refused = Some(SetError::Value("rule")),
                        None => refused = Some(SetError::UnknownKey),
                    }
                }
                match refused {
                    Some(error) => Err(error.into()),
                    None => Ok(Some(Request::SetPolicy(rules))),
                }
            }
            Request::Set(mut change) => {
                let mut refused = None;
                while let Some(line) = self.line()? {
                    if refused.is_none() {
                        refused = apply(&mut change, line, zones).err();
                    }
                }
                match refused {
                    Some(error) => Err(error.into()),
                    None => Ok(Some(Request::Set(change))),
                }
            }
        }
    }

    /// The next line of a request; `None` for the empty line that ends it.
    fn line(&mut self) -> Result<Option<&[u8]>, RequestError> {
        let line = self.lines.next()?.ok_or(RequestError::CutOff)?;
        let weight = WEIGHTS.iter().find(|(name, _)| line.starts_with(name)).map_or(0, |(_, weight)| *weight);
        if !self.share.take(line.len() as u64 + 1 + weight) {
            return Err(RequestError::TooLong);
        }
        Ok(if line.is_empty() { None } else { Some(line) })
    }
}

impl From<LineError> for RequestError {
    fn from(error: LineError) -> RequestError {
        match error {
            LineError::Io(error) => RequestError::Io(error),
            LineError::TooLong => RequestError::LineTooLong,
            LineError::CutOff => RequestError::CutOff,
        }
    }
}

/// Adds what `line` asks for to `change`.
fn apply(change: &mut DeviceChange, line: &[u8], zones: &dyn Zones) -> Result<(), SetError> {
    let at = line.iter().position(|&b| b == b'=').ok_or(SetError::NotALine)?;
    let (name, value) = (&line[..at], &line[at + 1..]);
    if name == b"public_key" {
        change.peers.push(PeerChange::new(key::from_hex(value)?));
        return Ok(());
    }
    match change.peers.last_mut() {
        Some(peer) => apply_to_peer(peer, name, value, zones),
        None => apply_to_device(change, name, value),
    }
}

fn apply_to_device(change: &mut DeviceChange, name: &[u8], value: &[u8]) -> Result<(), SetError> {
    match name {
        b"private_key" => change.private_key = Some(key::private_from_hex(value)?),
        b"listen_port" => change.listen_port = Some(number(value, "listen_port")?),
        b"fwmark" => change.fwmark = Some(number(value, "fwmark")?),
        b"replace_peers" => change.replace_peers = yes(value, "replace_peers")?,
        _ => return Err(SetError::UnknownKey),
    }
    Ok(())
}

fn apply_to_peer(peer: &mut PeerChange, name: &[u8], value: &[u8], zones: &dyn Zones) -> Result<(), SetError> {
    match name {
        b"remove" => peer.remove = yes(value, "remove")?,
        b"update_only" => peer.update_only = yes(value, "update_only")?,
        b"preshared_key" => peer.preshared_key = Some(Box::new(key::from_hex(value)?)),
        b"endpoint" => {
            let endpoint = parse_endpoint(text(value), zones).ok_or(SetError::Value("endpoint"))?;
            // A mapped address is IPv4 on the wire, and an IPv6 socket of ours would not reach it.
            peer.endpoint = Some(match endpoint.ip().to_canonical() {
                ip @ IpAddr::V4(_) => SocketAddr::new(ip, endpoint.port()),
                IpAddr::V6(_) => endpoint,
            });
        }
        b"persistent_keepalive_interval" => {
            peer.persistent_keepalive = Some(number(value, "persistent_keepalive_interval")?);
        }
        b"replace_allowed_ips" => peer.replace_allowed_ips = yes(value, "replace_allowed_ips")?,
        b"allowed_ip" => {
            let (value, kind): (_, fn(_) -> _) = match value {
                [b'-', rest @ ..] => (rest, AllowedIpChange::Remove),
                _ => (value, AllowedIpChange::Add),
            };
            let (network, _) = parse_cidr(text(value)).ok_or(SetError::Value("allowed_ip"))?;
            peer.allowed_ips.push(kind(network));
        }
        b"protocol_version" if value == b"1" => {}
        b"protocol_version" => return Err(SetError::Value("protocol_version")),
        _ => return Err(SetError::UnknownKey),
    }
    Ok(())
}

/// Text that is not UTF-8 is no value of any key, and neither is the empty one.
fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or_default()
}

fn number<T: std::str::FromStr>(value: &[u8], name: &'static str) -> Result<T, SetError> {
    digits(text(value)).ok_or(SetError::Value(name))
}

fn yes(value: &[u8], name: &'static str) -> Result<bool, SetError> {
    if value == b"true" { Ok(true) } else { Err(SetError::Value(name)) }
}

//! Reading replies, at the client's end.
//!
//! Keys that we do not know are passed over, as the protocol asks for; a value that cannot be is an error, because a device that
//! tells nonsense must not be shown as if it were sense.

use std::io::{self, Read};
use std::time::Duration;

use super::Errno;
use crate::address::{Zones, digits, parse_cidr, parse_endpoint};
use crate::device::{Device, Peer};
use crate::key;
use crate::lines::{LineError, Lines};
use crate::policy::{MAX_RULES, Rule, RuleCount, parse_rule};
use crate::stats::{BATCHES_SIZED, Stats, Worker};

/// The longest reply that is read, in bytes.
const MAX_REPLY: u64 = 1 << 30;

/// Why a reply tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// The device refuses.
    #[error("{0}")]
    Refused(Errno),
    /// The device sent something that is not a reply; what is told.
    #[error("the device's reply has {0}")]
    Malformed(&'static str),
    /// The device hung up before the end.
    #[error("the device's reply breaks off")]
    CutOff,
    /// The connection failed.
    #[error("cannot read the device's reply: {0}")]
    Io(#[from] io::Error),
}

impl From<LineError> for ReplyError {
    fn from(error: LineError) -> ReplyError {
        match error {
            LineError::Io(error) => ReplyError::Io(error),
            LineError::TooLong => ReplyError::Malformed("a line of more than 512 bytes"),
            LineError::CutOff => ReplyError::CutOff,
        }
    }
}

/// Reads replies from a connection.
pub struct ReplyReader<R> {
    lines: Lines<R>,
}

impl<R: Read> ReplyReader<R> {
    /// A reader of what comes on `stream`.
    pub fn new(stream: R) -> ReplyReader<R> {
        ReplyReader { lines: Lines::new(stream) }
    }

    /// The reply to a set.
    pub fn set(&mut self) -> Result<(), ReplyError> {
        self.read(|_, _| Ok(()))
    }

    /// The reply to a get, with or without secrets. `zones` names the interfaces that endpoints speak of.
    pub fn get(&mut self, zones: &dyn Zones) -> Result<Device, ReplyError> {
        let mut device = Device::default();
        self.read(|name, value| apply(&mut device, name, value, zones))?;
        Ok(device)
    }

    /// The reply to a question for drops: packets by reason.
    pub fn drops(&mut self) -> Result<Vec<(String, u64)>, ReplyError> {
        let mut drops = Vec::new();
        self.read(|name, value| {
            let reason = name.strip_prefix(b"drop_").and_then(|reason| std::str::from_utf8(reason).ok());
            if let Some(reason) = reason {
                drops.push((reason.to_owned(), number(value, "a count of drops that is not one")?));
            }
            Ok(())
        })?;
        Ok(drops)
    }

    /// The reply to a question for the device's work.
    pub fn stats(&mut self) -> Result<Stats, ReplyError> {
        let mut stats = Stats::default();
        self.read(|name, value| tell(&mut stats, name, value))?;
        Ok(stats)
    }

    /// The reply to a question for the policy: the rules, and what each has taken.
    pub fn policy(&mut self) -> Result<Vec<(Rule, RuleCount)>, ReplyError> {
        const COUNT: &str = "a count that is not one";
        let mut rules = Vec::new();
        self.read(|name, value| {
            if name == b"rule" {
                let rule = parse_rule(value.as_bytes()).map_err(|_| ReplyError::Malformed("a rule that is not one"))?;
                if rules.len() == MAX_RULES {
                    return Err(ReplyError::Malformed("more rules than there may be"));
                }
                rules.push((rule, RuleCount::default()));
                return Ok(());
            }
            let Some((_, count)) = rules.last_mut() else { return Ok(()) };
            match name {
                b"rule_packets" => count.packets = number(value, COUNT)?,
                b"rule_bytes" => count.bytes = number(value, COUNT)?,
                b"rule_dropped" => count.dropped = number(value, COUNT)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(rules)
    }

    /// Hands the lines of a reply to `each`, up to the empty line, and tells what its `errno` was.
    fn read(&mut self, mut each: impl FnMut(&[u8], &str) -> Result<(), ReplyError>) -> Result<(), ReplyError> {
        let start = self.lines.consumed;
        let mut errno = None;
        loop {
            if self.lines.consumed - start > MAX_REPLY {
                return Err(ReplyError::Malformed("more than 1 GiB"));
            }
            let line = self.lines.next()?.ok_or(ReplyError::CutOff)?;
            if line.is_empty() {
                break;
            }
            let at = line.iter().position(|&b| b == b'=').ok_or(ReplyError::Malformed("a line without '='"))?;
            let value =
                std::str::from_utf8(&line[at + 1..]).map_err(|_| ReplyError::Malformed("a value that is not text"))?;
            match &line[..at] {
                b"errno" => errno = Some(parse_errno(value)?),
                name => each(name, value)?,
            }
        }
        match errno {
            None => Err(ReplyError::Malformed("no errno")),
            Some(None) => Ok(()),
            Some(Some(errno)) => Err(ReplyError::Refused(errno)),
        }
    }
}

/// The error that `errno=` tells, if any, whichever sign it has.
pub(super) fn parse_errno(value: &str) -> Result<Option<Errno>, ReplyError> {
    let number: i32 = number(value.strip_prefix('-').unwrap_or(value), "an errno that is not a number")?;
    Ok(Errno::new(number))
}

fn number<T: std::str::FromStr>(value: &str, what: &'static str) -> Result<T, ReplyError> {
    digits(value).ok_or(ReplyError::Malformed(what))
}

/// Adds what a line tells to `device`.
fn apply(device: &mut Device, name: &[u8], value: &str, zones: &dyn Zones) -> Result<(), ReplyError> {
    const KEY: ReplyError = ReplyError::Malformed("a key that is not one");
    const TIME: &str = "a handshake time that is not one";
    const PACKETS: &str = "a count of packets that is not one";
    const BYTES: &str = "a byte count that is not one";
    if name == b"public_key" {
        device.peers.push(Peer::new(key::from_hex(value.as_bytes()).map_err(|_| KEY)?));
        return Ok(());
    }
    let Some(peer) = device.peers.last_mut() else {
        match name {
            b"private_key" => device.private_key = key::private_from_hex(value.as_bytes()).map_err(|_| KEY)?,
            b"own_public_key" => device.public_key = Some(key::from_hex(value.as_bytes()).map_err(|_| KEY)?),
            b"listen_port" => device.listen_port = number(value, "a listen port that is not one")?,
            b"fwmark" => device.fwmark = number(value, "a mark that is not one")?,
            _ => {}
        }
        return Ok(());
    };
    match name {
        b"preshared_key" => {
            let psk = key::from_hex(value.as_bytes()).map_err(|_| KEY)?;
            peer.preshared_key = (!key::is_zero(&psk)).then(|| Box::new(psk));
        }
        b"endpoint" => {
            let endpoint = parse_endpoint(value, zones).ok_or(ReplyError::Malformed("an endpoint that is not one"))?;
            peer.endpoint = Some(endpoint);
        }
        b"persistent_keepalive_interval" => {
            peer.persistent_keepalive = number(value, "a keepalive interval that is not one")?
        }
        b"last_handshake_time_sec" => {
            let at = peer.last_handshake.unwrap_or_default();
            peer.last_handshake = handshake(number(value, TIME)?, at.subsec_nanos());
        }
        b"last_handshake_time_nsec" => {
            let nanos: u32 = number(value, TIME)?;
            let at = peer.last_handshake.unwrap_or_default();
            peer.last_handshake = handshake(at.as_secs(), nanos.min(999_999_999));
        }
        b"rx_bytes" => peer.rx_bytes = number(value, BYTES)?,
        b"tx_bytes" => peer.tx_bytes = number(value, BYTES)?,
        b"rx_packets" => peer.reception.get_or_insert_default().arrived = number(value, PACKETS)?,
        b"rx_expected_packets" => peer.reception.get_or_insert_default().sent = number(value, PACKETS)?,
        b"allowed_ip" => {
            let (network, _) = parse_cidr(value).ok_or(ReplyError::Malformed("an allowed IP that is not one"))?;
            peer.allowed_ips.push(network);
        }
        _ => {}
    }
    Ok(())
}

/// Most workers that a device is believed to have: as many as a TUN has queues.
const WORKERS_MAX: usize = 256;

/// Adds what a line tells to `stats`.
fn tell(stats: &mut Stats, name: &[u8], value: &str) -> Result<(), ReplyError> {
    const COUNT: &str = "a count that is not one";
    const TIME: &str = "a time that is not one";
    let named = |prefix: &[u8]| name.strip_prefix(prefix).and_then(|name| std::str::from_utf8(name).ok());
    if let Some(reason) = named(b"drop_") {
        stats.drops.push((reason.to_owned(), number(value, COUNT)?));
        return Ok(());
    }
    if let Some(what) = named(b"program_") {
        stats.programs.push((what.to_owned(), number(value, COUNT)?));
        return Ok(());
    }
    if let Some(what) = named(b"handshake_") {
        stats.handshakes.push((what.to_owned(), number(value, COUNT)?));
        return Ok(());
    }
    if name == b"worker" {
        let next: usize = number(value, COUNT)?;
        if next != stats.workers.len() || next >= WORKERS_MAX {
            return Err(ReplyError::Malformed("a worker that is not the next"));
        }
        stats.workers.push(Worker::default());
        return Ok(());
    }
    let Some(worker) = stats.workers.last_mut() else {
        match name {
            b"version" => stats.version = value.to_owned(),
            b"process" => stats.process = number(value, COUNT)?,
            b"taken_sent" => stats.taken.get_or_insert_default().sent = number(value, COUNT)?,
            b"taken_received" => stats.taken.get_or_insert_default().received = number(value, COUNT)?,
            b"uptime_nanos" => stats.uptime = Duration::from_nanos(number(value, TIME)?),
            _ => {}
        }
        return Ok(());
    };
    match name {
        b"busy_nanos" => worker.busy = Duration::from_nanos(number(value, TIME)?),
        b"wakeups" => worker.wakeups = number(value, COUNT)?,
        b"helped" => worker.helped = number(value, COUNT)?,
        _ => {
            let (batches, name) = match (named(b"tx_"), named(b"rx_")) {
                (Some(name), _) => (&mut worker.sent, name),
                (_, Some(name)) => (&mut worker.received, name),
                _ => return Ok(()),
            };
            match name {
                "packets" => batches.packets = number(value, COUNT)?,
                "bytes" => batches.bytes = number(value, COUNT)?,
                "batches" => batches.sizes = sizes(value)?,
                _ => {}
            }
        }
    }
    Ok(())
}

/// Counts of batches by their size, as many as there are sizes.
fn sizes(value: &str) -> Result<[u64; BATCHES_SIZED], ReplyError> {
    const SIZES: &str = "batches that are not counted by their sizes";
    let mut counts = [0; BATCHES_SIZED];
    let mut words = value.split(',');
    for count in &mut counts {
        *count = words.next().and_then(digits).ok_or(ReplyError::Malformed(SIZES))?;
    }
    words.next().is_none().then_some(counts).ok_or(ReplyError::Malformed(SIZES))
}

/// The time of a handshake; at zero there was none.
fn handshake(seconds: u64, nanos: u32) -> Option<Duration> {
    let at = Duration::new(seconds, nanos);
    (!at.is_zero()).then_some(at)
}

//! A crowd: as many peers as one likes, each with keys, an address and timers of its own, in one process.
//!
//! Each member is a device of our own protocol crate with one peer, the daemon under test. Members shake hands as any peer does:
//! they repeat what goes unanswered after five seconds and some jitter, answer cookies, and give up after ninety. Once agreed they
//! send one keepalive, as an initiator must, and fall silent. All share one UDP port; they differ in address, of which the crowd's
//! namespace takes a whole network for its own, so that limits by address treat them as the many hosts that they stand for.
//!
//! The helper program runs the crowd ([`members::run`]); [`start`] and [`finish`] are for whoever wants one.

pub mod members;

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use noise::{PrivateKey, PublicKey};
use serde::{Deserialize, Serialize};

use crate::{LabError, Link, Namespace, Process, traffic};

/// The most members: as many as there are addresses.
pub const MEMBERS_MAX: u32 = 1 << 17;

/// The network that the members' addresses outside are from.
const OUTSIDE: &str = "10.128.0.0/15";

/// Where all members listen.
pub const PORT: u16 = 51900;

/// Who begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// All members initiate, at one moment.
    Initiate,
    /// All members initiate, each as soon as one of a few before it has agreed or has waited too long.
    InTurn,
    /// The daemon does; the members answer.
    Respond,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Initiate, Role::InTurn, Role::Respond];

    /// The word on the helper's command line.
    pub fn word(self) -> &'static str {
        match self {
            Role::Initiate => "initiate",
            Role::InTurn => "in-turn",
            Role::Respond => "respond",
        }
    }
}

/// What came of a crowd. Times are in seconds, from the first message that any member sent or received.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// How many members there are.
    pub members: u32,
    /// How many have agreed on a session with the daemon.
    pub agreed: u32,
    /// When half of the members had.
    pub half: f64,
    /// When 99 in a hundred had.
    pub most: f64,
    /// When the last one had that did.
    pub last: f64,
    /// Initiations that left members.
    pub initiations: u64,
    /// Initiations and responses that reached members.
    pub received: u64,
    /// Of those, the ones that members could do nothing with: they came after the member had tried again.
    pub late: u64,
    /// Cookies that reached members.
    pub cookies: u64,
    /// Processors of the whole machine that were busy meanwhile; 0 where that cannot be told.
    pub busy: f64,
}

/// A member's private key.
pub fn private_key(member: u32) -> PrivateKey {
    let mut bytes = [0x5c; 32];
    bytes[8..12].copy_from_slice(&member.to_le_bytes());
    PrivateKey::from_bytes(bytes)
}

/// A member's address outside.
pub fn outside(member: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 0).to_bits() + member)
}

/// The member with this address outside.
pub fn member_at(address: Ipv4Addr) -> u32 {
    address.to_bits().wrapping_sub(outside(0).to_bits())
}

/// A member's addresses inside.
pub fn inside(member: u32) -> (Ipv4Addr, Ipv6Addr) {
    let [a, b, c, d] = member.to_be_bytes();
    let word = |high, low| u16::from_be_bytes([high, low]);
    let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() + member);
    (v4, Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, word(a, b), word(c, d)))
}

/// A key as base64.
pub fn key_text(key: &PublicKey) -> String {
    STANDARD.encode(key.as_bytes())
}

/// Sections for a configuration file, one for each member. `more` adds lines to each, such as its endpoint.
pub fn peers(members: impl IntoIterator<Item = u32>, mut more: impl FnMut(u32) -> String) -> String {
    let mut text = String::new();
    for member in members {
        let (v4, v6) = inside(member);
        let key = key_text(&private_key(member).public());
        // Writing to a string cannot fail.
        let _ = write!(text, "\n[Peer]\nPublicKey = {key}\nAllowedIPs = {v4}/32, {v6}/128\n{}", more(member));
    }
    text
}

/// The line that tells a daemon where a member is.
pub fn endpoint_line(member: u32) -> String {
    format!("Endpoint = {}\n", SocketAddr::from((outside(member), PORT)))
}

/// Gives the right end of a link to a crowd: its namespace takes all members' addresses for its own, and the left end routes to it.
///
/// # Errors
/// What `ip` said.
pub fn settle(link: &Link) -> Result<(), LabError> {
    link.right.namespace.ip(&["route", "add", "local", OUTSIDE, "dev", "lo"])?;
    link.left.namespace.ip(&["route", "add", OUTSIDE, "via", &link.right.v4.to_string()]).map(drop)
}

/// Starts a crowd in the namespace that [`settle`] prepared, and waits until it begins. It ends when all have agreed, or after `limit`.
///
/// # Errors
/// The helper is not built or cannot be started.
pub fn start(
    namespace: &Namespace,
    daemon: SocketAddr,
    daemon_key: &str,
    members: u32,
    role: Role,
    limit: Duration,
) -> Result<Process, LabError> {
    let mut command = namespace.command(traffic::helper()?);
    command.args(["crowd", &daemon.to_string(), daemon_key, &members.to_string(), role.word()]);
    let mut process = Process::spawn(command.arg(limit.as_secs().to_string()))?;
    // A member's first message takes two or three Diffie-Hellmans.
    process.wait_for_output("ready", Duration::from_secs(30) + Duration::from_millis(members.into()))?;
    Ok(process)
}

/// Waits for a crowd's end.
///
/// # Errors
/// It failed, or took longer than `limit`.
pub fn finish(process: Process, limit: Duration) -> Result<Outcome, LabError> {
    let text = process.finish(limit)?.checked()?.stdout;
    let json = text.lines().last().unwrap_or_default();
    serde_json::from_str(json).map_err(|_| LabError::Unreadable { what: "the outcome of a crowd", text: text.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_all_different() {
        for member in [0, 1, 255, 256, 65_535, MEMBERS_MAX - 1] {
            assert_eq!(member_at(outside(member)), member);
        }
        assert_eq!(outside(MEMBERS_MAX - 1), Ipv4Addr::new(10, 129, 255, 255));
        assert_eq!(inside(65_537), ("100.65.0.1".parse().unwrap(), "fd64::1:1".parse().unwrap()));
        assert_ne!(private_key(1).public(), private_key(256).public());
        let text = peers(7..9, endpoint_line);
        assert_eq!(text.matches("[Peer]").count(), 2);
        assert!(text.contains("AllowedIPs = 100.64.0.7/32, fd64::7/128\nEndpoint = 10.128.0.7:51900\n"), "{text}");
    }
}

//! Debian's `wg`, as a person would use it: keys, configuration, and what it shows.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::{Finished, LabError, run, run_checked};

/// How long a `wg` command may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// A key, in a file that only we can read, as `wg set` wants it.
pub struct SecretFile(NamedTempFile);

impl SecretFile {
    fn new(secret: &str) -> Result<SecretFile, LabError> {
        let mut file = NamedTempFile::new().map_err(LabError::io("a key file"))?;
        writeln!(file, "{}", secret.trim()).map_err(LabError::io("a key file"))?;
        Ok(SecretFile(file))
    }

    /// The file's path.
    pub fn path(&self) -> String {
        self.0.path().to_string_lossy().into_owned()
    }
}

/// A private key and its public one.
pub struct KeyPair {
    /// The private key's file.
    pub private: SecretFile,
    /// The public key, base64.
    pub public: String,
}

impl KeyPair {
    /// A new pair from `wg genkey` and `wg pubkey`.
    ///
    /// # Errors
    /// `wg` is missing or failed.
    pub fn generate() -> Result<KeyPair, LabError> {
        let private = SecretFile::new(&run_checked(Command::new("wg").arg("genkey"), LIMIT)?)?;
        let script = format!("wg pubkey < '{}'", private.path());
        let public = run_checked(Command::new("sh").args(["-c", &script]), LIMIT)?;
        Ok(KeyPair { private, public: public.trim().to_owned() })
    }
}

/// A new preshared key from `wg genpsk`.
///
/// # Errors
/// `wg` is missing or failed.
pub fn preshared_key() -> Result<SecretFile, LabError> {
    SecretFile::new(&run_checked(Command::new("wg").arg("genpsk"), LIMIT)?)
}

/// Runs `wg set INTERFACE ARGS`.
///
/// # Errors
/// What `wg` said.
pub fn set(interface: &str, args: &[&str]) -> Result<(), LabError> {
    attempt_set(interface, args)?.checked().map(drop)
}

/// Runs `wg set INTERFACE ARGS`, whatever comes of it.
///
/// # Errors
/// It could not be run.
pub fn attempt_set(interface: &str, args: &[&str]) -> Result<Finished, LabError> {
    run(Command::new("wg").args(["set", interface]).args(args), LIMIT)
}

/// What `wg show INTERFACE` prints for people.
///
/// # Errors
/// What `wg` said.
pub fn show(interface: &str) -> Result<String, LabError> {
    run_checked(Command::new("wg").args(["show", interface]), LIMIT)
}

/// What `wg showconf INTERFACE` prints: a configuration, secrets and all.
///
/// # Errors
/// What `wg` said.
pub fn show_config(interface: &str) -> Result<String, LabError> {
    run_checked(Command::new("wg").args(["showconf", interface]), LIMIT)
}

/// What `wg` knows of a device.
#[derive(Clone, Debug)]
pub struct Status {
    /// The public key, base64.
    pub public_key: String,
    /// The UDP port.
    pub port: u16,
    /// The firewall mark; 0 is none.
    pub fwmark: u32,
    /// The peers, in the device's order.
    pub peers: Vec<PeerStatus>,
}

/// What `wg` knows of a peer.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// The public key, base64.
    pub public_key: String,
    /// Where it was last seen or is configured to be.
    pub endpoint: Option<SocketAddr>,
    /// Its allowed IPs, as text.
    pub allowed_ips: Vec<String>,
    /// The latest handshake in seconds since 1970; 0 is never.
    pub handshake: u64,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// The persistent keepalive in seconds; 0 is off.
    pub keepalive: u16,
}

impl Status {
    /// The peer with this public key.
    pub fn peer(&self, public_key: &str) -> Option<&PeerStatus> {
        self.peers.iter().find(|peer| peer.public_key == public_key)
    }
}

/// Reads `wg show INTERFACE dump`.
///
/// # Errors
/// What `wg` said, or that it said nothing readable.
pub fn status(interface: &str) -> Result<Status, LabError> {
    let text = run_checked(Command::new("wg").args(["show", interface, "dump"]), LIMIT)?;
    read_dump(&text)
}

/// Reads what `wg show INTERFACE dump` printed, wherever that was.
///
/// # Errors
/// It is nothing readable.
pub fn read_dump(text: &str) -> Result<Status, LabError> {
    parse_dump(text).ok_or(LabError::Unreadable {
        what: "the dump of wg show",
        // The dump holds the private key: its shape is all that may be shown.
        text: format!("{} lines", text.lines().count()),
    })
}

fn parse_dump(text: &str) -> Option<Status> {
    let mut lines = text.lines();
    let device: Vec<_> = lines.next()?.split('\t').collect();
    let [_, public_key, port, fwmark] = device[..] else {
        return None;
    };
    let peers = lines.map(parse_peer).collect::<Option<_>>()?;
    Some(Status {
        public_key: public_key.to_owned(),
        port: port.parse().ok()?,
        fwmark: match fwmark.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => 0,
        },
        peers,
    })
}

fn parse_peer(line: &str) -> Option<PeerStatus> {
    let fields: Vec<_> = line.split('\t').collect();
    let [key, _psk, endpoint, ips, handshake, received, sent, keepalive] = fields[..] else {
        return None;
    };
    Some(PeerStatus {
        public_key: key.to_owned(),
        endpoint: endpoint.parse().ok(),
        allowed_ips: match ips {
            "(none)" => Vec::new(),
            _ => ips.split(',').map(str::to_owned).collect(),
        },
        handshake: handshake.parse().ok()?,
        received: received.parse().ok()?,
        sent: sent.parse().ok()?,
        keepalive: keepalive.parse().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_dump() {
        let text = "PRIV\tPUB\t51820\t0xca6c\n\
                    KEY\t(none)\t[fd00::1]:7\t10.0.0.1/32,fd00::/64\t1700000000\t12\t34\t25\n\
                    KEY2\tPSK\t(none)\t(none)\t0\t0\t0\toff\n";
        let status = parse_dump(text).unwrap();
        assert_eq!((status.port, status.fwmark), (51820, 0xca6c));
        let peer = status.peer("KEY").unwrap();
        assert_eq!(peer.endpoint, Some("[fd00::1]:7".parse().unwrap()));
        assert_eq!(peer.allowed_ips, ["10.0.0.1/32", "fd00::/64"]);
        assert_eq!((peer.received, peer.sent, peer.keepalive), (12, 34, 25));
        let quiet = status.peer("KEY2").unwrap();
        assert_eq!((quiet.endpoint, quiet.keepalive), (None, 0));
        assert!(quiet.allowed_ips.is_empty());
    }

    #[test]
    fn refuses_what_is_no_dump() {
        assert!(parse_dump("").is_none());
        assert!(parse_dump("a\tb\tc\n").is_none());
        assert!(parse_dump("a\tb\t1\toff\nshort\tline\n").is_none());
    }
}

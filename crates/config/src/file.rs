//! The INI files that `wg setconf`, `addconf` and `syncconf` take.
//!
//! Read as `wg` reads them: a line ends at `#`, white space is dropped wherever it stands, even inside a value, and keys and
//! sections ignore case. The state is the section: *none* → `[Interface]` or `[Peer]`, any number of times; each `[Peer]` opens
//! a peer, all `[Interface]` sections are one. A line that is neither a section nor a key of the current one is an error, and so is a
//! key without a value. Names are not resolved here: an endpoint stays `HOST:PORT`.

use noise::{PresharedKey, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use crate::device::AllowedIpChange;
use crate::key::{self, KeyError};
use crate::quick::QuickError;
use crate::value::{self, HostPort, Quoted, Services, ValueError};

/// What a file says.
#[derive(Default)]
pub struct File {
    /// The device's private key; `Some(None)` where the file spells it as zeros.
    pub private_key: Option<Option<PrivateKey>>,
    /// The UDP port.
    pub listen_port: Option<u16>,
    /// The mark of outgoing packets.
    pub fwmark: Option<u32>,
    /// The peers, in the file's order.
    pub peers: Vec<FilePeer>,
    /// What is doubtful, but no error.
    pub warnings: Vec<Warning>,
}

/// What a `[Peer]` section says.
pub struct FilePeer {
    /// Who the peer is.
    pub public_key: PublicKey,
    /// The preshared key; all zeros mean none.
    pub preshared_key: Option<Box<PresharedKey>>,
    /// Where the peer is.
    pub endpoint: Option<HostPort>,
    /// Seconds between persistent keepalives; 0 for off.
    pub persistent_keepalive: Option<u16>,
    /// Whether the allowed IPs that the peer has are removed first.
    pub replace_allowed_ips: bool,
    /// The allowed IPs, in the file's order.
    pub allowed_ips: Vec<AllowedIpChange>,
}

/// Something doubtful in a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("allowed IP {network} has host bits, which are ignored")]
pub struct Warning {
    /// The line, from 1.
    pub line: usize,
    /// The network, as it was written.
    pub network: Quoted,
}

/// A file that cannot be read, where and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {problem}")]
pub struct FileError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A section of another name.
    #[error("section {0} is unknown, expected [Interface] or [Peer]")]
    UnknownSection(Quoted),
    /// A key of another program's, or of none.
    #[error("key {name} is unknown in [{section}], expected {expected}")]
    UnknownKey {
        /// The key.
        name: Quoted,
        /// Where it stands.
        section: &'static str,
        /// The keys that may stand there.
        expected: &'static str,
    },
    /// A key that only wg-quick knows.
    #[error("key {0} is for wg-quick, expected PrivateKey, ListenPort or FwMark")]
    QuickKey(Quoted),
    /// A key before the first section.
    #[error("key {0} stands before any section, expected [Interface] or [Peer] first")]
    NoSection(Quoted),
    /// The file begins as some editors mark Unicode.
    #[error("the file begins with a byte order mark, expected text without one")]
    ByteOrderMark,
    /// A line without `=`.
    #[error("a line that is neither a section nor an assignment, expected [SECTION] or KEY = VALUE")]
    NotAnAssignment,
    /// A key without a value.
    #[error("key {0} has no value, expected one after '='")]
    NoValue(Quoted),
    /// A key that is not one; which is told.
    #[error("{0} is {1}")]
    Key(&'static str, KeyError),
    /// A value that cannot be.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A value that cannot be, of a key that only wg-quick knows.
    #[error(transparent)]
    Quick(#[from] QuickError),
    /// A value that is not text.
    #[error("key {0} has a value that is not text, expected UTF-8")]
    NotText(Quoted),
    /// A section without a public key; the line is the section's.
    #[error("the peer has no public key, expected PublicKey = … in this section")]
    NoPublicKey,
}

/// Reads a whole file. `services` knows the ports that are written as names.
pub fn parse(text: &[u8], services: &dyn Services) -> Result<File, FileError> {
    if text.starts_with(b"\xef\xbb\xbf") {
        return Err(at(1)(Problem::ByteOrderMark));
    }
    let mut parser = Parser { file: File::default(), section: Section::None, services };
    for (at, raw) in text.split(|&b| b == b'\n').enumerate() {
        let line = strip(raw);
        if !line.is_empty() {
            parser.line(at + 1, &line)?;
        }
    }
    parser.close_section()?;
    Ok(parser.file)
}

/// `raw` up to the first `#`, without white space; NULs end a line too, as a C string does.
fn strip(raw: &[u8]) -> Zeroizing<Vec<u8>> {
    let kept = raw.iter().take_while(|&&b| b != b'#' && b != 0);
    let mut line = Zeroizing::new(Vec::with_capacity(raw.len()));
    line.extend(kept.filter(|b| !matches!(b, b' ' | b'\t'..=b'\r')));
    line
}

struct Parser<'a> {
    file: File,
    section: Section,
    services: &'a dyn Services,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    None,
    Interface,
    /// That of the last peer of the file so far.
    Peer {
        /// Where it opened.
        line: usize,
        has_key: bool,
    },
}

const INTERFACE_KEYS: &str = "PrivateKey, ListenPort or FwMark";
const PEER_KEYS: &str = "PublicKey, PresharedKey, AllowedIPs, Endpoint or PersistentKeepalive";
const QUICK_KEYS: [&str; 9] =
    ["Address", "DNS", "MTU", "Table", "PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig"];

impl Parser<'_> {
    fn line(&mut self, number: usize, line: &[u8]) -> Result<(), FileError> {
        if line.starts_with(b"[") {
            self.open_section(number, line)
        } else {
            self.assign(number, line).map_err(at(number))
        }
    }

    fn open_section(&mut self, number: usize, line: &[u8]) -> Result<(), FileError> {
        self.close_section()?;
        if line.eq_ignore_ascii_case(b"[interface]") {
            self.section = Section::Interface;
        } else if line.eq_ignore_ascii_case(b"[peer]") {
            self.section = Section::Peer { line: number, has_key: false };
            self.file.peers.push(FilePeer {
                public_key: PublicKey::from_bytes([0; key::KEY_LEN]),
                preshared_key: None,
                endpoint: None,
                persistent_keepalive: None,
                replace_allowed_ips: true,
                allowed_ips: Vec::new(),
            });
        } else {
            return Err(at(number)(Problem::UnknownSection(Quoted::bytes(line))));
        }
        Ok(())
    }

    /// A peer's section must have told who the peer is.
    fn close_section(&self) -> Result<(), FileError> {
        match self.section {
            Section::Peer { line, has_key: false } => Err(at(line)(Problem::NoPublicKey)),
            _ => Ok(()),
        }
    }

    fn assign(&mut self, number: usize, line: &[u8]) -> Result<(), Problem> {
        let equals = line.iter().position(|&b| b == b'=').ok_or(Problem::NotAnAssignment)?;
        let (name, value) = (&line[..equals], &line[equals + 1..]);
        let expected = match self.section {
            Section::None => return Err(Problem::NoSection(Quoted::bytes(name))),
            Section::Interface => INTERFACE_KEYS,
            Section::Peer { .. } => PEER_KEYS,
        };
        if value.is_empty() && expected.split([',', ' ']).any(|key| is(name, key)) {
            return Err(Problem::NoValue(Quoted::bytes(name)));
        }
        let value = std::str::from_utf8(value).map_err(|_| Problem::NotText(Quoted::bytes(name)))?;
        match self.section {
            Section::Peer { .. } => self.assign_to_peer(number, name, value),
            _ => self.assign_to_interface(name, value),
        }
    }

    fn assign_to_interface(&mut self, name: &[u8], value: &str) -> Result<(), Problem> {
        if is(name, "PrivateKey") {
            let private = key::private_from_base64(value.as_bytes());
            self.file.private_key = Some(private.map_err(|e| Problem::Key("the private key", e))?);
        } else if is(name, "ListenPort") {
            self.file.listen_port = Some(value::listen_port(value, self.services)?);
        } else if is(name, "FwMark") {
            self.file.fwmark = Some(value::fwmark(value)?);
        } else if QUICK_KEYS.iter().any(|key| is(name, key)) {
            return Err(Problem::QuickKey(Quoted::bytes(name)));
        } else {
            return Err(Problem::UnknownKey {
                name: Quoted::bytes(name),
                section: "Interface",
                expected: INTERFACE_KEYS,
            });
        }
        Ok(())
    }

    fn assign_to_peer(&mut self, number: usize, name: &[u8], value: &str) -> Result<(), Problem> {
        let (Some(peer), Section::Peer { has_key, .. }) = (self.file.peers.last_mut(), &mut self.section) else {
            return Ok(()); // not reached: the section of a peer has a peer
        };
        if is(name, "PublicKey") {
            peer.public_key = key::from_base64(value.as_bytes()).map_err(|e| Problem::Key("the public key", e))?;
            *has_key = true;
        } else if is(name, "PresharedKey") {
            let psk = key::from_base64(value.as_bytes()).map_err(|e| Problem::Key("the preshared key", e))?;
            peer.preshared_key = Some(Box::new(psk));
        } else if is(name, "Endpoint") {
            peer.endpoint = Some(value::endpoint(value, self.services)?);
        } else if is(name, "PersistentKeepalive") {
            peer.persistent_keepalive = Some(value::persistent_keepalive(value)?);
        } else if is(name, "AllowedIPs") {
            let list = value::allowed_ips(value)?;
            peer.replace_allowed_ips = list.replace;
            peer.allowed_ips.extend(list.changes);
            let warnings = list.with_host_bits.into_iter().map(|network| Warning { line: number, network });
            self.file.warnings.extend(warnings);
        } else {
            return Err(Problem::UnknownKey { name: Quoted::bytes(name), section: "Peer", expected: PEER_KEYS });
        }
        Ok(())
    }
}

/// Whether a key is the one of this name.
fn is(name: &[u8], key: &str) -> bool {
    name.eq_ignore_ascii_case(key.as_bytes())
}

fn at(line: usize) -> impl Fn(Problem) -> FileError {
    move |problem| FileError { line, problem }
}

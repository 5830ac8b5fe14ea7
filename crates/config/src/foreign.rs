//! What the files of other programs and of wg-quick have to say to each other, and what they cannot.
//!
//! [`crate::networkd`] and [`crate::nm`] go both ways. What the other side has no words for is never dropped in silence: it is a [`Lost`],
//! one line for whoever asked. An export is an [`Exported`], an import an [`Imported`].

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::net::IpAddr;

use inet::Cidr;
use noise::PublicKey;
use zeroize::Zeroizing;

use crate::address::CidrText;
use crate::device::AllowedIpChange;
use crate::file::FilePeer;
use crate::key::{self, KeyError};
use crate::quick::Quick;
use crate::value::{Quoted, ValueError};

/// Files of another program.
pub struct Exported {
    /// The files.
    pub files: Vec<ExportedFile>,
    /// What they do not say.
    pub lost: Vec<Lost>,
}

/// A file of another program.
pub struct ExportedFile {
    /// What it is to be called.
    pub name: String,
    /// What is in it.
    pub text: Zeroizing<String>,
    /// Whether there are keys in it.
    pub secret: bool,
}

/// What another program's files say, in the words of wg-quick.
pub struct Imported {
    /// What the interface is called.
    pub interface: String,
    /// The file.
    pub quick: Quick,
    /// What it does not say.
    pub lost: Vec<Lost>,
}

/// Something that the other format cannot say, and so is left out or done otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// A command of wg-quick's.
    #[error("{name} = {command}: {program} runs no commands")]
    Hook {
        /// PreUp, PostUp, PreDown or PostDown.
        name: &'static str,
        /// What would be run.
        command: Quoted,
        /// Who would have to.
        program: &'static str,
    },
    /// `SaveConfig = true`.
    #[error("SaveConfig = true: {0} never writes to its files")]
    SaveConfig(&'static str),
    /// What goes with a default route beyond routes and rules.
    #[error(
        "a default route: networkd makes its routes and rules, but not the nftables table against leaks, nor does it set src_valid_mark \
         (docs/networking.md says how)"
    )]
    LeakTable,
    /// No key to run with.
    #[error("the file has no PrivateKey: {0} starts no interface without one")]
    NoPrivateKey(&'static str),
    /// Servers of a family in which the interface has no address.
    #[error("DNS = {0}: NetworkManager takes no server of a family in which the interface has no Address")]
    Dns(IpAddr),
    /// Search domains without a server are not used by wg-quick either.
    #[error("DNS = {0}: a search domain without a server, which wg-quick does not use")]
    SearchAlone(Quoted),
    /// Routes of a family in which the interface has no address.
    #[error("AllowedIPs = {0}: NetworkManager makes no IPv4 routes for an interface without an IPv4 Address")]
    NoAddress(String),
    /// NetworkManager makes IPv6 routes only where IPv6 is on.
    #[error(
        "AllowedIPs = {0}: the interface gets a link-local address, since NetworkManager makes no IPv6 routes without any Address"
    )]
    LinkLocal(String),

    /// A key of theirs that wg-quick has no word for; the value is not told, since it may be a secret.
    #[error("{line}: {key} of [{section}] has no counterpart in wg-quick")]
    Unknown {
        /// The line, from 1.
        line: usize,
        /// Where it stands.
        section: Quoted,
        /// The key.
        key: Quoted,
    },
    /// A section of theirs.
    #[error("{line}: [{section}] has no counterpart in wg-quick")]
    UnknownSection {
        /// The line, from 1.
        line: usize,
        /// Its name.
        section: Quoted,
    },
    /// A value that wg-quick has no word for.
    #[error("{line}: {key}={value} has no counterpart in wg-quick")]
    UnknownValue {
        /// The line, from 1.
        line: usize,
        /// The key.
        key: &'static str,
        /// The value.
        value: Quoted,
    },
    /// A key that is in a file whose name a command line cannot carry.
    #[error("{line}: the path {path} cannot stand in a command of wg-quick's")]
    Path {
        /// The line, from 1.
        line: usize,
        /// The path.
        path: Quoted,
    },
    /// A key that the file does not have.
    #[error("{line}: {key} is kept elsewhere than in the file, by its flags: put it in by hand")]
    KeptElsewhere {
        /// The line, from 1.
        line: usize,
        /// The key.
        key: &'static str,
    },
    /// Routes of theirs that wg-quick would not make so.
    #[error("the routes are not those of wg-quick: it routes each of AllowedIPs by the table that Table says")]
    Routes,
    /// All questions go to the servers of a tunnel that wg-quick made.
    #[error("the DNS servers are for some names only: with wg-quick they are asked for all")]
    DnsForAll,
}

impl Lost {
    /// Whether its line begins with where it is.
    pub fn has_line(&self) -> bool {
        use Lost::{KeptElsewhere, Path, Unknown, UnknownSection, UnknownValue};
        matches!(
            self,
            Unknown { .. } | UnknownSection { .. } | UnknownValue { .. } | Path { .. } | KeptElsewhere { .. }
        )
    }
}

/// A file that cannot be read, where and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {problem}")]
pub struct ImportError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with another program's file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not UTF-8.
    #[error("not text, expected UTF-8")]
    NotText,
    /// A line without `=`.
    #[error("a line that is neither a section nor an assignment, expected [SECTION] or KEY=VALUE")]
    NotAnAssignment,
    /// A key before the first section.
    #[error("key {0} stands before any section, expected [SECTION] first")]
    NoSection(Quoted),
    /// The file is about something else.
    #[error("the file is not of a WireGuard interface, expected {0}")]
    NotWireguard(&'static str),
    /// The file does not name the interface.
    #[error("the file does not name its interface, expected {0}")]
    NoName(&'static str),
    /// A peer that is nobody.
    #[error("the peer has no public key, expected PublicKey=… in this section")]
    NoPublicKey,
    /// A key that is not one; which is told.
    #[error("{0} is {1}")]
    Key(&'static str, KeyError),
    /// A value that cannot be.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// Another value that cannot be.
    #[error("{key}={value} cannot be, expected {expected}")]
    Bad {
        /// The key.
        key: &'static str,
        /// Its value.
        value: Quoted,
        /// What would be right.
        expected: &'static str,
    },
}

pub(crate) fn at(line: usize) -> impl Fn(Problem) -> ImportError {
    move |problem| ImportError { line, problem }
}

/// The table that a default route goes to, and the mark of the packets that do not, where the file says neither.
pub(crate) const DEFAULT_MARK: u32 = 51820;
/// RT_TABLE_MAIN of linux/rtnetlink.h.
pub(crate) const MAIN: u32 = 254;

/// The peers of a file, those that come twice put together as `wg setconf` does: what the later one says is added or counts.
pub fn merged(peers: &[FilePeer]) -> Vec<FilePeer> {
    let mut places: HashMap<PublicKey, usize> = HashMap::new();
    let mut whole: Vec<FilePeer> = Vec::with_capacity(peers.len());
    for from in peers {
        let at = *places.entry(from.public_key).or_insert_with(|| {
            whole.push(peer_of(from.public_key));
            whole.len() - 1
        });
        let peer = &mut whole[at];
        if from.preshared_key.is_some() {
            peer.preshared_key = from.preshared_key.clone();
        }
        if from.endpoint.is_some() {
            peer.endpoint = from.endpoint.clone();
        }
        peer.persistent_keepalive = from.persistent_keepalive.or(peer.persistent_keepalive);
        if from.replace_allowed_ips {
            peer.allowed_ips.clear();
        }
        // As many as 130,560 of them: those that are there are not looked through for each.
        let mut there: HashSet<Cidr> = networks(peer).collect();
        for &change in &from.allowed_ips {
            match change {
                AllowedIpChange::Add(cidr) if there.insert(cidr) => peer.allowed_ips.push(change),
                AllowedIpChange::Remove(cidr) if there.remove(&cidr) => {
                    peer.allowed_ips.retain(|known| *known != AllowedIpChange::Add(cidr));
                }
                _ => {}
            }
        }
    }
    // All zeros are how `wg` spells that there is none.
    for peer in &mut whole {
        peer.preshared_key = peer.preshared_key.take().filter(|psk| !key::is_zero(&**psk));
    }
    whole
}

/// A peer of which nothing is known but its key.
pub(crate) fn peer_of(public_key: PublicKey) -> FilePeer {
    FilePeer {
        public_key,
        preshared_key: None,
        endpoint: None,
        persistent_keepalive: None,
        replace_allowed_ips: true,
        allowed_ips: Vec::new(),
    }
}

/// The networks of a peer.
pub fn networks(peer: &FilePeer) -> impl Iterator<Item = Cidr> {
    peer.allowed_ips.iter().filter_map(|change| match change {
        AllowedIpChange::Add(cidr) => Some(*cidr),
        AllowedIpChange::Remove(_) => None,
    })
}

/// Networks as one value.
pub(crate) fn joined(networks: impl Iterator<Item = Cidr>, separator: &str) -> String {
    let mut text = String::new();
    for cidr in networks {
        if !text.is_empty() {
            text.push_str(separator);
        }
        let _ = write!(text, "{}", CidrText(cidr));
    }
    text
}

/// The hooks of a file but those that `keep` takes, each as what is lost with it.
pub(crate) fn lost_hooks(quick: &Quick, program: &'static str, taken: impl Fn(&str) -> bool) -> Vec<Lost> {
    let hooks = [
        ("PreUp", &quick.pre_up),
        ("PostUp", &quick.post_up),
        ("PreDown", &quick.pre_down),
        ("PostDown", &quick.post_down),
    ];
    let each = hooks.into_iter().flat_map(|(name, commands)| commands.iter().map(move |command| (name, command)));
    each.filter(|(name, command)| *name != "PostUp" || !taken(command))
        .map(|(name, command)| Lost::Hook { name, command: Quoted::new(command), program })
        .collect()
}

/// Room for the text of so many peers, so that it need not grow: a copy of the keys would stay behind each time.
pub(crate) fn room(peers: &[FilePeer]) -> usize {
    peers.iter().map(|peer| 400 + 50 * peer.allowed_ips.len()).sum::<usize>() + 4096
}

/// A command that gives a device a key from a file, and whose key it is: ours, or a peer's. The interface's name in the path is still `%i`.
pub(crate) enum KeyFrom<'a> {
    /// The private key.
    Private(&'a str),
    /// The preshared key of the peer whose public key this is.
    Preshared(&'a str, &'a str),
}

/// Reads `wg set %i private-key FILE` and `wg set %i peer KEY preshared-key FILE`, of which wg-quick(8) tells. What a shell might make something else of is
/// no such command.
pub(crate) fn key_from(command: &str) -> Option<KeyFrom<'_>> {
    let is_plain = |path: &str| is_plain_path(&path.replace("%i", ""));
    match command.split(' ').collect::<Vec<_>>()[..] {
        ["wg", "set", "%i", "private-key", path] => is_plain(path).then_some(KeyFrom::Private(path)),
        ["wg", "set", "%i", "peer", key, "preshared-key", path]
            if key::from_base64::<PublicKey>(key.as_bytes()).is_ok() =>
        {
            is_plain(path).then_some(KeyFrom::Preshared(key, path))
        }
        _ => None,
    }
}

/// Whether a path is absolute and a shell takes it as it stands.
pub(crate) fn is_plain_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@:,=".contains(&b))
}

/// Whether a name is one that an interface can have, and a file.
pub(crate) fn is_interface(name: &str) -> bool {
    let odd = |c: char| {
        c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%' | '[' | ']' | ';' | '\\' | '#' | '*' | '?')
    };
    (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.contains(odd)
}

//! The files that `wireloom up` takes, which are wg-quick's: those of `wg setconf` with a few more keys in `[Interface]`.
//!
//! A line goes one of two ways. `Address DNS MTU Table PreUp PostUp PreDown PostDown SaveConfig` within `[Interface]` are read
//! here, as wg-quick reads them: up to the first `#`, without the white space around, and keys ignore case. Everything else is [`file`]'s, which
//! gets the text with the lines that were read here made empty, so that its errors tell the right line. [`strip`] prints that part
//! alone.
//!
//! Where wg-quick leaves a value to the programs that it calls, and these refuse it halfway through `up`, it is refused here. An empty
//! value is as good as none, since files made from templates have them, but a warning.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use zeroize::Zeroizing;

use crate::address::{IpText, digits};
use crate::device::AllowedIpChange;
use crate::file::{self, File, FileError, Problem};
use crate::value::{Quoted, Services};

/// What a file says.
#[derive(Default)]
pub struct Quick {
    /// The addresses of the interface, in the file's order.
    pub addresses: Vec<Address>,
    /// The DNS servers to use while the interface is up.
    pub dns: Vec<IpAddr>,
    /// The domains that names are searched in while the interface is up.
    pub search: Vec<String>,
    /// The MTU of the interface in bytes; found out if there is none.
    pub mtu: Option<u32>,
    /// The line that says so, from 1.
    pub mtu_line: Option<usize>,
    /// What moves the packets, if the file says.
    pub engine: Option<Engine>,
    /// Where the routes go.
    pub table: Table,
    /// Whether `down` writes what the device is by then into the file.
    pub save_config: bool,
    /// Commands before the interface is there, as written: see [`expand`].
    pub pre_up: Vec<String>,
    /// Commands after all is set up.
    pub post_up: Vec<String>,
    /// Commands before anything is taken away.
    pub pre_down: Vec<String>,
    /// Commands after all is taken away.
    pub post_down: Vec<String>,
    /// The device, as `wg setconf` takes it.
    pub device: File,
    /// What is doubtful about the keys above; the device has its own warnings.
    pub warnings: Vec<Warning>,
}

/// An address of an interface, with the length of its network's prefix in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    /// The address itself.
    pub ip: IpAddr,
    /// The length: 0 to 32, or 128.
    pub len: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", IpText(self.ip), self.len)
    }
}

/// What moves the packets. It is said in a comment, `# Engine = ebpf`, which wg-quick passes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The kernel's WireGuard where it has one.
    Auto,
    /// A daemon of ours.
    Userspace,
    /// Programs in the kernel, and a daemon of ours behind them.
    Ebpf,
    /// The kernel's WireGuard.
    Kernel,
}

/// Where the routes to the allowed IPs go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Table {
    /// The main table; default routes into one of their own, with rules that lead there.
    #[default]
    Auto,
    /// Nowhere: there are none.
    Off,
    /// Into this table, all of them, and no rules.
    Number(u32),
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Table::Auto => f.write_str("auto"),
            Table::Off => f.write_str("off"),
            Table::Number(number) => write!(f, "{number}"),
        }
    }
}

/// The routing tables that have names, as in `/etc/iproute2/rt_tables`.
pub trait Tables {
    /// The number of the table of this name.
    fn number(&self, name: &str) -> Option<u32>;
}

/// Knows the three tables of the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelTables;

impl Tables for KernelTables {
    fn number(&self, name: &str) -> Option<u32> {
        match name {
            "default" => Some(253),
            "main" => Some(254),
            "local" => Some(255),
            _ => None,
        }
    }
}

/// Something doubtful in a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} has no value, and is as if it were not there")]
pub struct Warning {
    /// The line, from 1.
    pub line: usize,
    /// The key.
    pub key: &'static str,
}

/// A value that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuickError {
    /// An address that is not one.
    #[error("address {0} is not one, expected such as 10.0.0.1/24 or fd00::1/64")]
    Address(Quoted),
    /// A DNS server that looks like an address and is none.
    #[error("DNS server {0} is not an address, expected such as 10.0.0.1 or fd00::1")]
    Dns(Quoted),
    /// A search domain that no resolver takes.
    #[error("search domain {0} is not one, expected letters, digits, '-', '_' and '.'")]
    Search(Quoted),
    /// An MTU that is not one.
    #[error("MTU {0} is not one, expected a number from {MTU_MIN} to {MTU_MAX}")]
    Mtu(Quoted),
    /// An MTU with which the kernel keeps IPv6 away from an interface.
    #[error("MTU {0} is too small for IPv6, expected {MTU_V6} or more, or no IPv6 in Address and AllowedIPs")]
    MtuV6(u32),
    /// A routing table that is not one.
    #[error(
        "table {0} is not one, expected auto, off, a number from 1 to 4294967295 or a name of /etc/iproute2/rt_tables"
    )]
    Table(Quoted),
    /// Nothing that moves packets.
    #[error(
        "engine {0} is not one, expected userspace, ebpf, kernel or auto (a comment that begins otherwise is left alone)"
    )]
    Engine(Quoted),
    /// Neither yes nor no.
    #[error("SaveConfig is {0}, expected true or false")]
    SaveConfig(Quoted),
}

/// The least MTU in bytes: RFC 791.
const MTU_MIN: u32 = 68;
/// The least MTU in bytes of a link that IPv6 takes: RFC 8200, section 5.
const MTU_V6: u32 = 1280;
/// The largest MTU in bytes: the longest packet that IPv4 can tell.
const MTU_MAX: u32 = 65535;

/// What a line begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Address,
    Dns,
    Mtu,
    Table,
    PreUp,
    PostUp,
    PreDown,
    PostDown,
    SaveConfig,
}

const KEYS: [(&str, Key); 9] = [
    ("Address", Key::Address),
    ("DNS", Key::Dns),
    ("MTU", Key::Mtu),
    ("Table", Key::Table),
    ("PreUp", Key::PreUp),
    ("PostUp", Key::PostUp),
    ("PreDown", Key::PreDown),
    ("PostDown", Key::PostDown),
    ("SaveConfig", Key::SaveConfig),
];

/// Of an unknown key it is told which ones there are, ours too.
fn with_our_keys(mut error: FileError) -> FileError {
    if let Problem::UnknownKey { section: "Interface", expected, .. } = &mut error.problem {
        *expected =
            "PrivateKey, ListenPort, FwMark, Address, DNS, MTU, Table, PreUp, PostUp, PreDown, PostDown or SaveConfig";
    }
    error
}

/// Reads a whole file. `services` knows the ports that are written as names, `tables` the routing tables.
///
/// # Errors
/// The first line that is wrong, and what would be right.
pub fn parse(text: &[u8], services: &dyn Services, tables: &dyn Tables) -> Result<Quick, FileError> {
    let mut quick = Quick::default();
    let without = without_nuls(text);
    let text = without.as_deref().map_or(text, Vec::as_slice);
    // As long as the text, since each line is kept or made empty: it does not grow, and leaves no copies of keys behind.
    let mut rest = Zeroizing::new(Vec::with_capacity(text.len() + 1));
    for (at, line) in Split::new(text).enumerate() {
        let number = at + 1;
        match line {
            Line::Quick(key, name, value) => {
                let problem = |problem| FileError { line: number, problem };
                let value = value.ok_or_else(|| problem(Problem::NotAnAssignment))?;
                let value = std::str::from_utf8(value).map_err(|_| problem(Problem::NotText(Quoted::new(name))))?;
                if value.is_empty() {
                    quick.warnings.push(Warning { line: number, key: name });
                } else {
                    quick.assign(key, value, tables).map_err(|error| problem(error.into()))?;
                    if key == Key::Mtu {
                        quick.mtu_line = Some(number);
                    }
                }
            }
            Line::Engine(line, value) => {
                let engine =
                    engine(value).ok_or_else(|| QuickError::Engine(Quoted::new(&String::from_utf8_lossy(value))));
                quick.engine = Some(engine.map_err(|error| FileError { line: number, problem: error.into() })?);
                rest.extend_from_slice(line);
            }
            Line::Other(line) => rest.extend_from_slice(line),
        }
        rest.push(b'\n');
    }
    quick.device = file::parse(&rest, services).map_err(with_our_keys)?;
    Ok(quick)
}

/// A text without its NULs, if it has some: wg-quick reads by a shell, which passes over them.
fn without_nuls(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    text.contains(&0).then(|| {
        // It does not grow, and leaves no copies of keys behind.
        let mut without = Zeroizing::new(Vec::with_capacity(text.len()));
        without.extend(text.iter().filter(|&&byte| byte != 0));
        without
    })
}

/// The lines of a file that are `wg setconf`'s, as `wg-quick strip` prints them: comments too, without the blanks around each line, an
/// empty line last.
pub fn strip(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let without = without_nuls(text);
    let text = without.as_deref().map_or(text, Vec::as_slice);
    let mut rest = Zeroizing::new(Vec::with_capacity(text.len() + 2));
    // A newline at the end ends a line, it does not begin another.
    let lines = if text.is_empty() { 0 } else { usize::MAX };
    for line in Split::new(text.strip_suffix(b"\n").unwrap_or(text)).take(lines) {
        if let Line::Other(line) | Line::Engine(line, _) = line {
            let blank = |b: &u8| matches!(b, b' ' | b'\t');
            let start = line.iter().position(|b| !blank(b)).unwrap_or(line.len());
            let end = line.iter().rposition(|b| !blank(b)).map_or(start, |at| at + 1);
            rest.extend_from_slice(&line[start..end]);
            rest.push(b'\n');
        }
    }
    rest.push(b'\n');
    rest
}

/// A command of the file with the interface's name in it.
pub fn expand(command: &str, interface: &str) -> String {
    command.replace("%i", interface)
}

/// Whose a line is.
enum Line<'a> {
    /// Ours: the key and its name, and the value unless there is no `=`.
    Quick(Key, &'static str, Option<&'a [u8]>),
    /// A comment as it stands, and the engine that it names.
    Engine(&'a [u8], &'a [u8]),
    /// The device's, as it stands.
    Other(&'a [u8]),
}

/// The lines of a text, each with whose it is.
struct Split<'a> {
    lines: std::slice::Split<'a, u8, fn(&u8) -> bool>,
    in_interface: bool,
}

impl<'a> Split<'a> {
    fn new(text: &'a [u8]) -> Self {
        Split { lines: text.split(|&b| b == b'\n'), in_interface: false }
    }
}

impl<'a> Iterator for Split<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let line = self.lines.next()?;
        let said = line.split(|&b| b == b'#').next().unwrap_or_default().trim_ascii();
        if said.starts_with(b"[") {
            let name = said.iter().filter(|b| !b.is_ascii_whitespace());
            self.in_interface = name.map(u8::to_ascii_lowercase).eq(*b"[interface]");
        }
        if self.in_interface
            && let Some(value) = engine_comment(line)
        {
            return Some(Line::Engine(line, value));
        }
        let (key, value) = match said.iter().position(|&b| b == b'=') {
            Some(at) => (said[..at].trim_ascii(), Some(said[at + 1..].trim_ascii())),
            None => (said, None),
        };
        let known = KEYS.iter().find(|(name, _)| self.in_interface && key.eq_ignore_ascii_case(name.as_bytes()));
        Some(known.map_or(Line::Other(line), |&(name, known)| Line::Quick(known, name, value)))
    }
}

/// The value of a line that is the comment `# Engine = …`, up to a second `#`.
fn engine_comment(line: &[u8]) -> Option<&[u8]> {
    let comment = line.trim_ascii().strip_prefix(b"#")?;
    let said = comment.split(|&b| b == b'#').next()?;
    let (key, value) = said.split_at(said.iter().position(|&b| b == b'=')?);
    key.trim_ascii().eq_ignore_ascii_case(b"Engine").then(|| value[1..].trim_ascii())
}

fn engine(value: &[u8]) -> Option<Engine> {
    let engines =
        [("auto", Engine::Auto), ("userspace", Engine::Userspace), ("ebpf", Engine::Ebpf), ("kernel", Engine::Kernel)];
    engines.into_iter().find(|(name, _)| value.eq_ignore_ascii_case(name.as_bytes())).map(|(_, engine)| engine)
}

impl Quick {
    /// Whether an interface can be as the file says: with a smaller MTU than IPv6 takes, the kernel has no addresses of it and no routes.
    ///
    /// # Errors
    /// [`QuickError::MtuV6`], at the line of the MTU.
    pub fn check(&self) -> Result<(), FileError> {
        let (Some(mtu), Some(line)) = (self.mtu.filter(|mtu| *mtu < MTU_V6), self.mtu_line) else { return Ok(()) };
        let routed =
            |change: &AllowedIpChange| matches!(change, AllowedIpChange::Add(network) if network.addr().is_ipv6());
        let routes =
            self.table != Table::Off && self.device.peers.iter().flat_map(|peer| &peer.allowed_ips).any(routed);
        if routes || self.addresses.iter().any(|address| address.ip.is_ipv6()) {
            return Err(FileError { line, problem: QuickError::MtuV6(mtu).into() });
        }
        Ok(())
    }

    fn assign(&mut self, key: Key, value: &str, tables: &dyn Tables) -> Result<(), QuickError> {
        let words = || value.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|word| !word.is_empty());
        match key {
            Key::Address => {
                for word in words() {
                    self.addresses.push(address(word).ok_or_else(|| QuickError::Address(Quoted::new(word)))?);
                }
            }
            Key::Dns => {
                for word in words() {
                    self.name_server(word)?;
                }
            }
            Key::Mtu => {
                self.mtu = Some(mtu(value).ok_or_else(|| QuickError::Mtu(Quoted::new(value)))?);
            }
            Key::Table => self.table = table(value, tables).ok_or_else(|| QuickError::Table(Quoted::new(value)))?,
            Key::PreUp => self.pre_up.push(value.to_owned()),
            Key::PostUp => self.post_up.push(value.to_owned()),
            Key::PreDown => self.pre_down.push(value.to_owned()),
            Key::PostDown => self.post_down.push(value.to_owned()),
            Key::SaveConfig if value.eq_ignore_ascii_case("true") => self.save_config = true,
            Key::SaveConfig if value.eq_ignore_ascii_case("false") => self.save_config = false,
            Key::SaveConfig => return Err(QuickError::SaveConfig(Quoted::new(value))),
        }
        Ok(())
    }

    /// What has a colon, or only digits and dots, is a server; all else a domain.
    fn name_server(&mut self, word: &str) -> Result<(), QuickError> {
        if word.contains(':') || word.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            self.dns.push(word.parse().map_err(|_| QuickError::Dns(Quoted::new(word)))?);
            return Ok(());
        }
        if !is_search_domain(word) {
            return Err(QuickError::Search(Quoted::new(word)));
        }
        self.search.push(word.to_owned());
        Ok(())
    }
}

/// Whether a domain is one that names can be searched in: it becomes a word of a file's line and of a command.
pub(crate) fn is_search_domain(word: &str) -> bool {
    let proper = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
    let is_server = word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    !is_server && !word.starts_with('-') && word.chars().all(proper)
}

/// An MTU in bytes.
pub(crate) fn mtu(text: &str) -> Option<u32> {
    digits(text).filter(|mtu| (MTU_MIN..=MTU_MAX).contains(mtu))
}

/// An address with a length, or without for all of its bits, or with an IPv4 mask of old.
pub(crate) fn address(text: &str) -> Option<Address> {
    let (ip, len) = match text.split_once('/') {
        Some((ip, len)) => (ip, Some(len)),
        None => (text, None),
    };
    let ip: IpAddr = ip.parse().ok()?;
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    let len = match len {
        None => bits,
        Some(mask) if ip.is_ipv4() && mask.contains('.') => {
            let mask = u32::from(mask.parse::<Ipv4Addr>().ok()?);
            let len = mask.leading_ones();
            (mask.checked_shl(len).unwrap_or(0) == 0).then_some(len as u8)?
        }
        Some(len) => digits(len).filter(|len| *len <= bits)?,
    };
    Some(Address { ip, len })
}

fn table(text: &str, tables: &dyn Tables) -> Option<Table> {
    if text.eq_ignore_ascii_case("auto") {
        return Some(Table::Auto);
    }
    if text.eq_ignore_ascii_case("off") {
        return Some(Table::Off);
    }
    let hex = text.strip_prefix("0x").filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    let number = match hex {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => digits(text),
    };
    // 0 is none to the kernel, and would be the main one.
    number.or_else(|| tables.number(text)).filter(|number| *number != 0).map(Table::Number)
}

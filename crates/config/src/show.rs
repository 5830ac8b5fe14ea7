//! What `wg show` and `wg showconf` print, to the byte.
//!
//! Three forms: *pretty* for people, with colours and times in words, the peers by newest handshake; *fields* for scripts, one
//! thing per line; and *showconf*, a file that `setconf` takes. The interface's name stands first in each line of a field where
//! several interfaces are shown.

use std::cmp::Reverse;
use std::fmt::Display;
use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use crate::address::{CidrText, EndpointText, IpText, Zones};
use crate::device::{Device, Peer};
use crate::key::{self, BASE64_LEN, Key};

/// How to show.
#[derive(Clone, Copy)]
pub struct Style<'a> {
    /// Whether the pretty form has colours.
    pub colour: bool,
    /// Whether the pretty form tells secret keys.
    pub show_keys: bool,
    /// What time it is, since the Unix epoch.
    pub now: Duration,
    /// What the interfaces are called, for the zones of endpoints.
    pub zones: &'a dyn Zones,
}

/// What can be shown alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // their names in `wg` say it
pub enum Field {
    PublicKey,
    PrivateKey,
    ListenPort,
    FwMark,
    Peers,
    PresharedKeys,
    Endpoints,
    AllowedIps,
    LatestHandshakes,
    Transfer,
    PersistentKeepalive,
    Dump,
}

/// The fields by the names that `wg` has for them.
pub const FIELDS: [(&str, Field); 12] = [
    ("public-key", Field::PublicKey),
    ("private-key", Field::PrivateKey),
    ("listen-port", Field::ListenPort),
    ("fwmark", Field::FwMark),
    ("peers", Field::Peers),
    ("preshared-keys", Field::PresharedKeys),
    ("endpoints", Field::Endpoints),
    ("allowed-ips", Field::AllowedIps),
    ("latest-handshakes", Field::LatestHandshakes),
    ("persistent-keepalive", Field::PersistentKeepalive),
    ("transfer", Field::Transfer),
    ("dump", Field::Dump),
];

/// No field has this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a field")]
pub struct UnknownField;

impl FromStr for Field {
    type Err = UnknownField;

    fn from_str(name: &str) -> Result<Field, UnknownField> {
        FIELDS.iter().find(|(known, _)| *known == name).map(|&(_, field)| field).ok_or(UnknownField)
    }
}

const NONE: &str = "(none)";

/// Prints one field of a device, with the interface's name in front of each line where `name` is given.
pub fn field(
    out: &mut impl Write,
    name: Option<&str>,
    device: &Device,
    field: Field,
    zones: &dyn Zones,
) -> io::Result<()> {
    let mut prefix = name.unwrap_or_default().to_owned();
    if name.is_some() {
        prefix.push('\t');
    }
    match field {
        Field::PublicKey => writeln!(out, "{prefix}{}", or_none(public_key(device))),
        Field::PrivateKey => writeln!(out, "{prefix}{}", or_none(device.private_key.as_ref().map(key::to_base64))),
        Field::ListenPort => writeln!(out, "{prefix}{}", device.listen_port),
        Field::FwMark => writeln!(out, "{prefix}{}", fwmark(device)),
        Field::Dump => dump(out, &prefix, device, zones),
        _ => device.peers.iter().try_for_each(|peer| peer_field(out, &prefix, peer, field, zones)),
    }
}

fn peer_field(out: &mut impl Write, prefix: &str, peer: &Peer, field: Field, zones: &dyn Zones) -> io::Result<()> {
    write!(out, "{prefix}{}", key::to_base64(&peer.public_key))?;
    match field {
        Field::PresharedKeys => writeln!(out, "\t{}", or_none(peer.preshared_key.as_deref().map(key::to_base64))),
        Field::Endpoints => writeln!(out, "\t{}", or_none(endpoint(peer, zones))),
        Field::AllowedIps => {
            write!(out, "\t")?;
            allowed_ips(out, peer, " ")?;
            writeln!(out)
        }
        Field::LatestHandshakes => writeln!(out, "\t{}", handshake_seconds(peer)),
        Field::Transfer => writeln!(out, "\t{}\t{}", peer.rx_bytes, peer.tx_bytes),
        Field::PersistentKeepalive => writeln!(out, "\t{}", keepalive(peer)),
        _ => writeln!(out),
    }
}

fn dump(out: &mut impl Write, prefix: &str, device: &Device, zones: &dyn Zones) -> io::Result<()> {
    let private = or_none(device.private_key.as_ref().map(key::to_base64));
    write!(out, "{prefix}{private}\t{}\t", or_none(public_key(device)))?;
    writeln!(out, "{}\t{}", device.listen_port, fwmark(device))?;
    for peer in &device.peers {
        let psk = or_none(peer.preshared_key.as_deref().map(key::to_base64));
        write!(out, "{prefix}{}\t{psk}\t{}\t", key::to_base64(&peer.public_key), or_none(endpoint(peer, zones)))?;
        allowed_ips(out, peer, ",")?;
        let (rx, tx) = (peer.rx_bytes, peer.tx_bytes);
        writeln!(out, "\t{}\t{rx}\t{tx}\t{}", handshake_seconds(peer), keepalive(peer))?;
    }
    Ok(())
}

fn allowed_ips(out: &mut impl Write, peer: &Peer, separator: &str) -> io::Result<()> {
    for (at, &network) in peer.allowed_ips.iter().enumerate() {
        write!(out, "{}{}", if at == 0 { "" } else { separator }, CidrText(network))?;
    }
    if peer.allowed_ips.is_empty() { write!(out, "{NONE}") } else { Ok(()) }
}

fn public_key(device: &Device) -> Option<impl Display + use<>> {
    device.private_key.as_ref().map(|private| key::to_base64(&private.public()))
}

fn endpoint<'a>(peer: &Peer, zones: &'a dyn Zones) -> Option<EndpointText<'a>> {
    peer.endpoint.map(|endpoint| EndpointText(endpoint, zones))
}

fn handshake_seconds(peer: &Peer) -> u64 {
    peer.last_handshake.map_or(0, |at| at.as_secs())
}

fn fwmark(device: &Device) -> String {
    if device.fwmark == 0 { "off".to_owned() } else { format!("{:#x}", device.fwmark) }
}

fn keepalive(peer: &Peer) -> String {
    if peer.persistent_keepalive == 0 { "off".to_owned() } else { peer.persistent_keepalive.to_string() }
}

/// Displays a value, or `(none)`.
fn or_none<T: Display>(value: Option<T>) -> impl Display {
    OrNone(value)
}

struct OrNone<T>(Option<T>);

impl<T: Display> Display for OrNone<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str(NONE),
        }
    }
}

/// Prints a device as a file that `setconf` takes.
pub fn conf(out: &mut impl Write, device: &Device, zones: &dyn Zones) -> io::Result<()> {
    writeln!(out, "[Interface]")?;
    if device.listen_port != 0 {
        writeln!(out, "ListenPort = {}", device.listen_port)?;
    }
    if device.fwmark != 0 {
        writeln!(out, "FwMark = {:#x}", device.fwmark)?;
    }
    if let Some(private) = &device.private_key {
        writeln!(out, "PrivateKey = {}", key::to_base64(private))?;
    }
    for peer in &device.peers {
        writeln!(out, "\n[Peer]\nPublicKey = {}", key::to_base64(&peer.public_key))?;
        if let Some(psk) = peer.preshared_key.as_deref() {
            writeln!(out, "PresharedKey = {}", key::to_base64(psk))?;
        }
        if !peer.allowed_ips.is_empty() {
            write!(out, "AllowedIPs = ")?;
            allowed_ips(out, peer, ", ")?;
            writeln!(out)?;
        }
        if let Some(endpoint) = endpoint(peer, zones) {
            writeln!(out, "Endpoint = {endpoint}")?;
        }
        if peer.persistent_keepalive != 0 {
            writeln!(out, "PersistentKeepalive = {}", peer.persistent_keepalive)?;
        }
    }
    // The interface's section ends with an empty line also where no peer follows.
    if device.peers.is_empty() { writeln!(out) } else { Ok(()) }
}

/// Prints a device for people.
pub fn pretty(out: &mut impl Write, name: &str, device: &Device, style: &Style<'_>) -> io::Result<()> {
    let paint = Paint(style.colour);
    let [reset, bold, green, yellow, cyan] =
        [paint.on("0"), paint.on("1"), paint.on("32"), paint.on("33"), paint.on("36")];
    let item = |out: &mut dyn Write, what: &str, value: &dyn Display| writeln!(out, "  {bold}{what}{reset}: {value}");

    writeln!(out, "{reset}{green}{bold}interface{reset}: {green}{name}{reset}")?;
    if let Some(private) = &device.private_key {
        item(out, "public key", &key::to_base64(&private.public()))?;
        item(out, "private key", &secret(private, style))?;
    }
    if device.listen_port != 0 {
        item(out, "listening port", &device.listen_port)?;
    }
    if device.fwmark != 0 {
        item(out, "fwmark", &format_args!("{:#x}", device.fwmark))?;
    }

    let mut peers: Vec<&Peer> = device.peers.iter().collect();
    peers.sort_by_key(|peer| Reverse(peer.last_handshake));
    for peer in peers {
        writeln!(out, "\n{yellow}{bold}peer{reset}: {yellow}{}{reset}", key::to_base64(&peer.public_key))?;
        if let Some(psk) = peer.preshared_key.as_deref() {
            item(out, "preshared key", &secret(psk, style))?;
        }
        if let Some(endpoint) = endpoint(peer, style.zones) {
            item(out, "endpoint", &endpoint)?;
        }
        let networks = peer.allowed_ips.iter();
        let networks: Vec<String> =
            networks.map(|cidr| format!("{}{cyan}/{reset}{}", IpText(cidr.addr()), cidr.prefix_len())).collect();
        item(out, "allowed ips", &if networks.is_empty() { NONE.to_owned() } else { networks.join(", ") })?;
        if let Some(at) = peer.last_handshake.filter(|at| at.as_secs() != 0) {
            item(out, "latest handshake", &ago(at.as_secs(), style.now.as_secs(), paint))?;
        }
        if peer.rx_bytes != 0 || peer.tx_bytes != 0 {
            let (rx, tx) = (bytes(peer.rx_bytes, paint), bytes(peer.tx_bytes, paint));
            item(out, "transfer", &format_args!("{rx} received, {tx} sent"))?;
        }
        if peer.persistent_keepalive != 0 {
            item(
                out,
                "persistent keepalive",
                &format_args!("every {}", time(peer.persistent_keepalive.into(), paint)),
            )?;
        }
    }
    Ok(())
}

fn secret(key: &impl Key, style: &Style<'_>) -> OrHidden {
    OrHidden(style.show_keys.then(|| key::to_base64(key)))
}

struct OrHidden(Option<key::KeyText<BASE64_LEN>>);

impl Display for OrHidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_ref().map_or("(hidden)", |text| text.as_str()))
    }
}

/// Switches of the terminal, or nothing where there are no colours.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn on(self, code: &str) -> String {
        if self.0 { format!("\x1b[{code}m") } else { String::new() }
    }
}

/// How long ago a handshake was, in words.
fn ago(at: u64, now: u64, paint: Paint) -> String {
    match now.checked_sub(at) {
        Some(0) => "Now".to_owned(),
        Some(seconds) => format!("{} ago", time(seconds, paint)),
        None => {
            let (red, reset) = (paint.on("31"), paint.on("0"));
            format!("({red}System clock wound backward; connection problems may ensue.{reset})")
        }
    }
}

/// A length of time in words: years of 365 days, days, hours, minutes, seconds, those that are not zero.
fn time(seconds: u64, paint: Paint) -> String {
    const UNITS: [(&str, u64); 5] =
        [("year", 365 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)];
    let (cyan, reset) = (paint.on("36"), paint.on("0"));
    let mut left = seconds;
    let mut words = Vec::new();
    for (unit, len) in UNITS {
        let count = left / len;
        left %= len;
        if count != 0 {
            words.push(format!("{count} {cyan}{unit}{}{reset}", if count == 1 { "" } else { "s" }));
        }
    }
    words.join(", ")
}

/// A number of bytes in the largest unit that it fills.
fn bytes(count: u64, paint: Paint) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (cyan, reset) = (paint.on("36"), paint.on("0"));
    let unit = (1..UNITS.len()).rev().find(|&unit| count >> (10 * unit) != 0).unwrap_or(0);
    if unit == 0 {
        return format!("{count} {cyan}B{reset}");
    }
    format!("{:.2} {cyan}{}{reset}", count as f64 / (1_u64 << (10 * unit)) as f64, UNITS[unit])
}

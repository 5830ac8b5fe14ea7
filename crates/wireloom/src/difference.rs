//! The difference between a device that runs and the file that it should be: as little as takes the one to the other.
//!
//! A peer that is the same is not touched, and of one that is not only what differs: its session, its counters, and where it was last seen stay. Where
//! a network moves from one peer to another it is given to the new one, which takes it from the old at the same moment.
//!
//! Where a peer *is* is the device's to know: it may have moved. An endpoint of the file is set when the file's has changed since it was last read, as far
//! as that is known ([`Known`]), or else when the peer is nowhere, or was never heard from. A private key, a port or a mark that the file does not
//! have is left as it is: a hook may have set the one, and the others were chosen for the file.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::net::SocketAddr;

use config::address::CidrText;
use config::device::{AllowedIpChange, Device, DeviceChange, Peer, PeerChange};
use config::file::{File, FilePeer};
use config::foreign::{merged, networks};
use config::key;
use config::value::HostPort;
use inet::Cidr;
use noise::PublicKey;
use subtle::ConstantTimeEq;

/// The endpoints that the file had when it was last read, as they were written, by their peers.
pub type Known = HashMap<PublicKey, String>;

/// What differs.
#[derive(Default)]
pub struct Difference {
    /// What is to change.
    pub change: DeviceChange,
    /// The same in lines as a person would type them; keys are left out.
    pub lines: Vec<String>,
}

impl Difference {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.lines.is_empty()
    }
}

/// What a difference depends on besides the device and the file.
pub struct Terms<'a> {
    /// The interface, for the lines.
    pub interface: &'a str,
    /// What is known of the file as it was.
    pub known: Option<&'a Known>,
    /// The mark that the device should have, if that is known.
    pub mark: Option<u32>,
    /// Whether single allowed IPs can be taken away. Where they cannot, all are given anew.
    pub single: bool,
}

/// Finds the difference. Only endpoints that are to be set are resolved.
///
/// # Errors
/// Those of `resolve`.
pub fn difference<E>(
    device: &Device,
    file: &File,
    terms: &Terms<'_>,
    mut resolve: impl FnMut(&HostPort) -> Result<SocketAddr, E>,
) -> Result<Difference, E> {
    let mut found = Difference::default();
    of_device(device, file, terms, &mut found);
    let own = file.private_key.as_ref().map_or(device.private_key.as_ref(), Option::as_ref).map(|key| key.public());
    // Its own key as a peer's is what a device ignores.
    let wanted: Vec<FilePeer> = merged(&file.peers).into_iter().filter(|peer| Some(peer.public_key) != own).collect();
    let there: HashMap<PublicKey, &Peer> = device.peers.iter().map(|peer| (peer.public_key, peer)).collect();
    // A network that two have is the later one's.
    let owners: HashMap<Cidr, PublicKey> =
        wanted.iter().flat_map(|peer| networks(peer).map(|cidr| (cidr, peer.public_key))).collect();
    let listed: HashSet<PublicKey> = wanted.iter().map(|peer| peer.public_key).collect();
    for peer in device.peers.iter().filter(|peer| !listed.contains(&peer.public_key)) {
        found.push(terms.interface, PeerChange { remove: true, ..PeerChange::new(peer.public_key) });
    }
    for peer in &wanted {
        let here = there.get(&peer.public_key).copied();
        let mut change = PeerChange::new(peer.public_key);
        of_networks(here, peer, &owners, terms.single, &mut change);
        if let Some(endpoint) = peer.endpoint.as_ref()
            && let Some(address) = of_endpoint(here, peer.public_key, endpoint, terms.known, &mut resolve)?
        {
            change.endpoint = Some(address);
        }
        let seconds = peer.persistent_keepalive.unwrap_or(0);
        if here.map_or(0, |here| here.persistent_keepalive) != seconds {
            change.persistent_keepalive = Some(seconds);
        }
        let psk = (peer.preshared_key.as_deref(), here.and_then(|here| here.preshared_key.as_deref()));
        match psk {
            (None, None) => {}
            (Some(wanted), Some(here)) if wanted.as_bytes().ct_eq(here.as_bytes()).into() => {}
            (wanted, _) => change.preshared_key = Some(Box::new(wanted.cloned().unwrap_or_default())),
        }
        let is_something = !change.allowed_ips.is_empty()
            || change.replace_allowed_ips
            || change.endpoint.is_some()
            || change.persistent_keepalive.is_some()
            || change.preshared_key.is_some();
        if here.is_none() || is_something {
            found.push(terms.interface, change);
        }
    }
    Ok(found)
}

impl Difference {
    fn push(&mut self, interface: &str, change: PeerChange) {
        self.lines.push(line(interface, &change));
        self.change.peers.push(change);
    }
}

/// What is about the device and none of its peers.
fn of_device(device: &Device, file: &File, terms: &Terms<'_>, found: &mut Difference) {
    let mut words = String::new();
    if let Some(wanted) = &file.private_key {
        let is_same = match (wanted, &device.private_key) {
            (Some(wanted), Some(here)) => wanted.as_bytes().ct_eq(here.as_bytes()).into(),
            (wanted, here) => wanted.is_none() && here.is_none(),
        };
        if !is_same {
            found.change.private_key = Some(wanted.clone());
            words += " private-key …";
        }
    }
    if let Some(port) = file.listen_port.filter(|port| *port != 0 && *port != device.listen_port) {
        found.change.listen_port = Some(port);
        let _ = write!(words, " listen-port {port}");
    }
    if let Some(mark) = terms.mark.or(file.fwmark).filter(|mark| *mark != device.fwmark) {
        found.change.fwmark = Some(mark);
        let _ = write!(words, " fwmark {mark:#x}");
    }
    if !words.is_empty() {
        found.lines.push(format!("wireloom set {}{words}", terms.interface));
    }
}

/// The networks that come and go.
fn of_networks(
    here: Option<&Peer>,
    peer: &FilePeer,
    owners: &HashMap<Cidr, PublicKey>,
    single: bool,
    change: &mut PeerChange,
) {
    let wanted: Vec<Cidr> = networks(peer).filter(|cidr| owners.get(cidr) == Some(&peer.public_key)).collect();
    let wanted_set: HashSet<Cidr> = wanted.iter().copied().collect();
    let have: HashSet<Cidr> = here.map(|here| here.allowed_ips.iter().copied().collect()).unwrap_or_default();
    // One that another of the file's peers has from now on goes when it comes there.
    let gone: Vec<Cidr> = here
        .map(|here| here.allowed_ips.iter().filter(|cidr| !wanted_set.contains(cidr) && !owners.contains_key(cidr)))
        .into_iter()
        .flatten()
        .copied()
        .collect();
    if gone.is_empty() || single {
        change.allowed_ips.extend(gone.into_iter().map(AllowedIpChange::Remove));
        change.allowed_ips.extend(wanted.into_iter().filter(|cidr| !have.contains(cidr)).map(AllowedIpChange::Add));
    } else {
        change.replace_allowed_ips = true;
        change.allowed_ips.extend(wanted.into_iter().map(AllowedIpChange::Add));
    }
}

/// Where a peer is to be looked for from now on, if not where it is known to be.
fn of_endpoint<E>(
    here: Option<&Peer>,
    public_key: PublicKey,
    wanted: &HostPort,
    known: Option<&Known>,
    resolve: &mut impl FnMut(&HostPort) -> Result<SocketAddr, E>,
) -> Result<Option<SocketAddr>, E> {
    let Some(here) = here else { return resolve(wanted).map(Some) };
    let is_new = match known.map(|known| known.get(&public_key)) {
        Some(before) => before != Some(&wanted.to_string()),
        None => here.last_handshake.is_none(),
    };
    if !is_new && here.endpoint.is_some() {
        return Ok(None);
    }
    Ok(Some(resolve(wanted)?).filter(|address| here.endpoint != Some(*address)))
}

fn line(interface: &str, change: &PeerChange) -> String {
    let mut line = format!("wireloom set {interface} peer {}", key::to_base64(&change.public_key));
    if change.remove {
        line += " remove";
        return line;
    }
    if change.preshared_key.is_some() {
        line += " preshared-key …";
    }
    if let Some(endpoint) = change.endpoint {
        let _ = write!(line, " endpoint {endpoint}");
    }
    if let Some(seconds) = change.persistent_keepalive {
        let _ = write!(line, " persistent-keepalive {seconds}");
    }
    if change.replace_allowed_ips || !change.allowed_ips.is_empty() {
        // As many as anybody reads.
        const TOLD: usize = 20;
        let sign = |plus| if change.replace_allowed_ips { "" } else { plus };
        let networks = change.allowed_ips.iter().take(TOLD).map(|network| match network {
            AllowedIpChange::Add(cidr) => format!("{}{}", sign("+"), CidrText(*cidr)),
            AllowedIpChange::Remove(cidr) => format!("-{}", CidrText(*cidr)),
        });
        let networks: Vec<String> = networks.collect();
        let more = if change.allowed_ips.len() > TOLD { ",…" } else { "" };
        let _ =
            write!(line, " allowed-ips {}{more}", if networks.is_empty() { "''".into() } else { networks.join(",") });
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::value::NoServices;
    use proptest::prelude::*;

    const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    const OTHER: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

    fn file(text: &str) -> File {
        config::file::parse(text.as_bytes(), &NoServices).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn address(endpoint: &HostPort) -> Result<SocketAddr, std::net::AddrParseError> {
        endpoint.to_string().parse()
    }

    fn terms(known: Option<&Known>) -> Terms<'_> {
        Terms { interface: "wg0", known, mark: None, single: true }
    }

    fn lines(device: &Device, text: &str, known: Option<&Known>) -> Vec<String> {
        let found = difference(device, &file(text), &terms(known), address).unwrap();
        assert_eq!(found.is_none(), found.change.peers.is_empty() && found.change.listen_port.is_none());
        found.lines
    }

    /// Makes a change, as a device does.
    fn apply(device: &mut Device, change: &DeviceChange) {
        if let Some(key) = &change.private_key {
            device.private_key = key.clone();
        }
        device.listen_port = change.listen_port.unwrap_or(device.listen_port);
        device.fwmark = change.fwmark.unwrap_or(device.fwmark);
        for change in &change.peers {
            if change.remove {
                device.peers.retain(|peer| peer.public_key != change.public_key);
                continue;
            }
            if !device.peers.iter().any(|peer| peer.public_key == change.public_key) {
                device.peers.push(Peer::new(change.public_key));
            }
            for network in &change.allowed_ips {
                if let AllowedIpChange::Add(cidr) = network {
                    device.peers.iter_mut().for_each(|peer| peer.allowed_ips.retain(|known| known != cidr));
                }
            }
            let peer = device.peers.iter_mut().find(|peer| peer.public_key == change.public_key).unwrap();
            if change.replace_allowed_ips {
                peer.allowed_ips.clear();
            }
            for network in &change.allowed_ips {
                match network {
                    AllowedIpChange::Add(cidr) => peer.allowed_ips.push(*cidr),
                    AllowedIpChange::Remove(cidr) => peer.allowed_ips.retain(|known| known != cidr),
                }
            }
            if let Some(psk) = &change.preshared_key {
                peer.preshared_key = Some(psk.clone()).filter(|psk| !key::is_zero(&**psk));
            }
            peer.endpoint = change.endpoint.or(peer.endpoint);
            peer.persistent_keepalive = change.persistent_keepalive.unwrap_or(peer.persistent_keepalive);
        }
    }

    fn running(text: &str) -> Device {
        let mut device = Device::default();
        let found = difference(&device, &file(text), &terms(None), address).unwrap();
        apply(&mut device, &found.change);
        device
    }

    /// A device without the order of its peers and networks.
    fn shape(device: &Device) -> (u16, Vec<String>) {
        let mut peers: Vec<String> = device
            .peers
            .iter()
            .map(|peer| {
                let mut networks: Vec<String> =
                    peer.allowed_ips.iter().map(|cidr| CidrText(*cidr).to_string()).collect();
                networks.sort();
                let psk = peer.preshared_key.as_deref().map(|psk| key::to_base64(psk).as_str().to_owned());
                let key = key::to_base64(&peer.public_key);
                format!("{key} {psk:?} {:?} {} {networks:?}", peer.endpoint, peer.persistent_keepalive)
            })
            .collect();
        peers.sort();
        (device.listen_port, peers)
    }

    #[test]
    fn only_what_differs_is_said() {
        let text = format!(
            "[Interface]\nListenPort = 7\n[Peer]\nPublicKey = {KEY}\nAllowedIPs = 10.0.0.0/8, ::/0\nEndpoint = 192.0.2.1:1\n\
             [Peer]\nPublicKey = {OTHER}\nPresharedKey = {KEY}\nPersistentKeepalive = 5\n"
        );
        let device = running(&text);
        assert_eq!(lines(&device, &text, None), [""; 0]);
        assert_eq!(lines(&device, &text.replace("= 7", "= 8"), None), ["wireloom set wg0 listen-port 8"]);
        // Without a port the file takes any.
        assert_eq!(lines(&device, &text.replace("ListenPort = 7\n", ""), None), [""; 0]);
        assert_eq!(
            lines(&device, &text.replace("10.0.0.0/8, ::/0", "::/0,192.0.2.0/24"), None),
            [format!("wireloom set wg0 peer {KEY} allowed-ips -10.0.0.0/8,+192.0.2.0/24")]
        );
        // What moves is said once, where it goes.
        assert_eq!(
            lines(&device, &text.replace(", ::/0", "").replace("PersistentKeepalive = 5", "AllowedIPs = ::/0"), None),
            [format!("wireloom set wg0 peer {OTHER} persistent-keepalive 0 allowed-ips +::/0")]
        );
        let without: String = text.split_inclusive("[Peer]").next().unwrap().replace("[Peer]", "");
        assert_eq!(lines(&device, &without, None).len(), 2);
        assert_eq!(
            lines(&device, &text.replace(&format!("PresharedKey = {KEY}\n"), ""), None),
            [format!("wireloom set wg0 peer {OTHER} preshared-key …")]
        );
        let old_kernel = Terms { single: false, ..terms(None) };
        let found = difference(&device, &file(&text.replace("10.0.0.0/8, ", "")), &old_kernel, address).unwrap();
        assert_eq!(found.lines, [format!("wireloom set wg0 peer {KEY} allowed-ips ::/0")]);
        assert!(found.change.peers[0].replace_allowed_ips);
    }

    #[test]
    fn a_peer_that_moved_stays_where_it_is_until_the_file_moves_it() {
        let text = format!("[Peer]\nPublicKey = {KEY}\nEndpoint = 192.0.2.1:1\n");
        let mut device = running(&text);
        device.peers[0].endpoint = Some("198.51.100.1:9".parse().unwrap());
        let known: Known = device.peers.iter().map(|peer| (peer.public_key, "192.0.2.1:1".to_owned())).collect();
        let moved = text.replace("192.0.2.1:1", "192.0.2.1:2");
        let line = |to: &str| [format!("wireloom set wg0 peer {KEY} endpoint {to}")];
        assert_eq!(lines(&device, &text, Some(&known)), [""; 0]);
        assert_eq!(lines(&device, &moved, Some(&known)), line("192.0.2.1:2"));
        // Where nobody knows what the file said, who was never heard from is looked for where the file says.
        assert_eq!(lines(&device, &moved, None), line("192.0.2.1:2"));
        device.peers[0].last_handshake = Some(std::time::Duration::from_secs(1));
        assert_eq!(lines(&device, &moved, None), [""; 0]);
        device.peers[0].endpoint = None;
        assert_eq!(lines(&device, &text, Some(&known)), line("192.0.2.1:1"));
    }

    #[test]
    fn names_are_resolved_only_where_they_are_needed() {
        let text = format!("[Peer]\nPublicKey = {KEY}\nEndpoint = vpn.example.com:1\n");
        let mut device = running(&text.replace("vpn.example.com", "192.0.2.1"));
        let known: Known = device.peers.iter().map(|peer| (peer.public_key, "vpn.example.com:1".to_owned())).collect();
        let found = difference(&device, &file(&text), &terms(Some(&known)), |_| Err("asked")).unwrap();
        assert!(found.is_none());
        device.peers.clear();
        assert!(difference(&device, &file(&text), &terms(Some(&known)), |_| Err("asked")).is_err());
    }

    fn text() -> impl Strategy<Value = String> {
        let network = prop::sample::select(vec!["10.0.0.0/8", "10.1.0.0/16", "::/0", "0.0.0.0/0", "fd00::/64"]);
        let peer = (
            prop::sample::select(vec![KEY, OTHER, "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA="]),
            prop::collection::vec(network, 0..4),
            any::<bool>(),
            0..3_u16,
            0..3_u16,
        );
        (1..3_u16, prop::collection::vec(peer, 0..4)).prop_map(|(port, peers)| {
            let mut text = format!("[Interface]\nListenPort = {port}\n");
            for (key, networks, psk, endpoint, keepalive) in peers {
                text += &format!("[Peer]\nPublicKey = {key}\nPersistentKeepalive = {keepalive}\n");
                if !networks.is_empty() {
                    text += &format!("AllowedIPs = {}\n", networks.join(","));
                }
                if psk {
                    text += &format!("PresharedKey = {KEY}\n");
                }
                if endpoint > 0 {
                    text += &format!("Endpoint = 192.0.2.1:{endpoint}\n");
                }
            }
            text
        })
    }

    proptest! {
        #[test]
        fn the_difference_leads_from_one_to_the_other(before in text(), after in text(), single in any::<bool>()) {
            let mut device = running(&before);
            // No endpoint is taken away.
            let mut wanted = running(&after);
            for peer in &mut wanted.peers {
                let before = device.peers.iter().find(|before| before.public_key == peer.public_key);
                peer.endpoint = peer.endpoint.or(before.and_then(|before| before.endpoint));
            }
            let terms = Terms { single, ..terms(None) };
            let found = difference(&device, &file(&after), &terms, address).unwrap();
            apply(&mut device, &found.change);
            prop_assert_eq!(shape(&device), shape(&wanted), "{}\n{}\n{:?}", before, after, found.lines);
            // Once there, there is none.
            let again = difference(&device, &file(&after), &terms, address).unwrap();
            prop_assert!(again.is_none(), "{:?}", again.lines);
        }
    }
}

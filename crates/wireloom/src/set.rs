//! `set`: settings as words, as in `wg set`.
//!
//! The device's settings come first; each `peer KEY` opens a peer, and what follows is about it. Nothing is sent before all words are
//! read.

use std::path::Path;
use std::slice::Iter;

use config::device::{DeviceChange, PeerChange};
use config::key;
use config::value::{self, Quoted};

use crate::client;
use crate::error::Error;
use crate::interface::InterfaceName;
use crate::keys;
use crate::resolve::{Resolver, SystemServices};

/// Changes an interface as the words say.
pub fn set(interface: &InterfaceName, words: &[String]) -> Result<(), Error> {
    client::set(interface.as_str(), &parse(words)?)
}

const DEVICE_SETTINGS: &str = "listen-port, fwmark, private-key or peer";
const PEER_SETTINGS: &str = "remove, preshared-key, endpoint, persistent-keepalive, allowed-ips or peer";

fn parse(words: &[String]) -> Result<DeviceChange, Error> {
    let mut change = DeviceChange::default();
    let mut resolver = Resolver::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "peer" {
            let text = value(&mut words, "peer", "a public key")?;
            let key = key::from_base64(text.as_bytes()).map_err(|error| Error::PeerKey(Quoted::new(text), error))?;
            change.peers.push(PeerChange::new(key));
        } else if let Some(peer) = change.peers.last_mut() {
            set_peer(peer, word, &mut words, &mut resolver)?;
        } else {
            set_device(&mut change, word, &mut words)?;
        }
    }
    Ok(change)
}

fn set_device(change: &mut DeviceChange, word: &str, words: &mut Iter<'_, String>) -> Result<(), Error> {
    match word {
        "listen-port" => {
            let port = value::listen_port(value(words, "listen-port", "a port")?, &SystemServices)?;
            change.listen_port = Some(port);
        }
        "fwmark" => change.fwmark = Some(value::fwmark(value(words, "fwmark", "a mark or off")?)?),
        "private-key" => {
            let path = value(words, "private-key", "a file")?;
            change.private_key = Some(keys::private_from_file(Path::new(path))?);
        }
        _ => return Err(Error::UnknownSetting(Quoted::new(word), DEVICE_SETTINGS)),
    }
    Ok(())
}

fn set_peer(
    peer: &mut PeerChange,
    word: &str,
    words: &mut Iter<'_, String>,
    resolver: &mut Resolver,
) -> Result<(), Error> {
    match word {
        "remove" => peer.remove = true,
        "preshared-key" => {
            let path = value(words, "preshared-key", "a file")?;
            peer.preshared_key = Some(Box::new(keys::from_file(Path::new(path))?.unwrap_or_default()));
        }
        "endpoint" => {
            let endpoint = value::endpoint(value(words, "endpoint", "HOST:PORT")?, &SystemServices)?;
            peer.endpoint = Some(resolver.resolve(&endpoint)?);
        }
        "persistent-keepalive" => {
            let seconds = value(words, "persistent-keepalive", "seconds or off")?;
            peer.persistent_keepalive = Some(value::persistent_keepalive(seconds)?);
        }
        "allowed-ips" => {
            let mut text = value(words, "allowed-ips", "networks")?.to_owned();
            text.retain(|c| !c.is_ascii_whitespace());
            let list = value::allowed_ips(&text)?;
            for network in list.with_host_bits {
                eprintln!("wireloom: set: allowed IP {network} has host bits, which are ignored");
            }
            peer.replace_allowed_ips = list.replace;
            peer.allowed_ips.extend(list.changes);
        }
        _ => return Err(Error::UnknownSetting(Quoted::new(word), PEER_SETTINGS)),
    }
    Ok(())
}

fn value<'a>(words: &mut Iter<'a, String>, name: &'static str, expected: &'static str) -> Result<&'a str, Error> {
    words.next().map(String::as_str).ok_or(Error::MissingValue(name, expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    /// A word that stands somewhere in a command, or nearly. No name to resolve, and no file but one that is empty.
    fn word() -> impl Strategy<Value = String> {
        const KNOWN: &[&str] = &[
            "listen-port",
            "fwmark",
            "private-key",
            "peer",
            "remove",
            "preshared-key",
            "endpoint",
            "persistent-keepalive",
            "allowed-ips",
            "51820",
            "0xca6c",
            "off",
            "/dev/null",
            "192.0.2.1:7",
            "[2001:db8::1]:51820",
            "10.0.0.0/8,fd00::/8",
            "+10.1.2.3/8",
            "-::/0",
            "",
            KEY,
        ];
        prop_oneof![8 => prop::sample::select(KNOWN).prop_map(str::to_owned), 1 => "[0-9a-f:./,+-]{0,12}"]
    }

    proptest! {
        #[test]
        fn any_words_are_a_change_or_one_line(words in prop::collection::vec(word(), 0..12)) {
            match parse(&words) {
                Ok(change) => {
                    let peers = words.iter().filter(|word| *word == "peer").count();
                    prop_assert!(change.peers.len() <= peers);
                    prop_assert!(!words.is_empty() || change.peers.is_empty());
                }
                Err(error) => {
                    let text = error.to_string();
                    prop_assert!(!text.is_empty() && !text.chars().any(char::is_control), "{:?}", text);
                }
            }
        }
    }

    #[test]
    fn what_is_said_is_done() {
        let words = ["listen-port", "7", "peer", KEY, "allowed-ips", "10.0.0.0/8, fd00::/8", "endpoint", "[::1]:9"];
        let change = parse(&words.map(str::to_owned)).unwrap();
        assert_eq!((change.listen_port, change.peers.len()), (Some(7), 1));
        let peer = &change.peers[0];
        assert_eq!((peer.allowed_ips.len(), peer.replace_allowed_ips), (2, true));
        assert_eq!(peer.endpoint, Some("[::1]:9".parse().unwrap()));
    }
}

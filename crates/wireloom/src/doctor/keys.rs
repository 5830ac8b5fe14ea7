//! Mistakes with keys and peers.

use std::collections::HashSet;

use noise::PublicKey;

use super::finding::{Kind, Report};
use super::subject::Subject;
use crate::client;

/// Ports below this take a privilege.
const FIRST_FREE_PORT: u16 = 1024;
/// Trying a key takes a tenth of a millisecond.
const MOST_TRIED: usize = 10_000;

/// Looks at all of it.
pub fn examine(subject: &Subject, report: &mut Report) {
    let name = &subject.name;
    if subject.public.is_none() {
        report.add(
            Kind::PrivateKeyMissing,
            format!("{name} has no private key, and without one nothing can be sealed."),
            if subject.is_file() {
                "Add `PrivateKey = …` to [Interface]; `wireloom genkey` makes one.".to_owned()
            } else {
                format!("`wireloom set {name} private-key FILE`; `wireloom genkey` makes one.")
            },
        );
    }
    if subject.peers.is_empty() {
        report.add(
            Kind::NoPeers,
            format!("{name} has no peers: there is nobody to talk to."),
            "Add the other end as a peer, by its public key.",
        );
    }
    let mut seen = HashSet::new();
    for peer in &subject.peers {
        if subject.public == Some(peer.key) {
            report.add(
                Kind::KeyIsOurs,
                format!("Peer {} has the public key of {name} itself, and is ignored.", peer.name),
                "Put the other end's public key there: `wireloom pubkey`, over there.",
            );
        } else if subject.peers.len() <= MOST_TRIED && !is_usable(&peer.key) {
            report.add(
                Kind::KeyUnusable,
                format!(
                    "The public key of peer {} is one that belongs to nobody: no handshake can be made with it.",
                    peer.name
                ),
                "Put the other end's public key there: `wireloom pubkey`, over there.",
            );
        }
        if peer.zero_psk {
            report.add(
                Kind::PresharedKeyZero,
                format!("The preshared key of peer {} is all zeros, which is as good as none.", peer.name),
                "Make one with `wireloom genpsk`, and give it to both ends; or take the line out.",
            );
        }
        if !seen.insert(peer.key) {
            report.add(
                Kind::PeerTwice,
                format!(
                    "Peer {} is there twice: what the second says is added to the first, or replaces it.",
                    peer.name
                ),
                "Make one of the two, or correct the key of one.",
            );
        }
    }
    if (1..FIRST_FREE_PORT).contains(&subject.port) {
        report.add(
            Kind::PortPrivileged,
            format!("{name} listens on port {}: below {FIRST_FREE_PORT}, which takes a privilege, and belongs to other services.", subject.port),
            "Nothing, if it is meant (to get through a firewall, say).",
        );
    }
    shared(subject, report);
}

/// Two devices with one key take sessions away from each other.
fn shared(subject: &Subject, report: &mut Report) {
    let Some(public) = subject.public else { return };
    let others = client::interfaces().unwrap_or_default();
    for other in others.iter().filter(|other| **other != subject.name) {
        let Ok(device) = client::get(other) else { continue };
        if device.private_key.as_ref().map(noise::PrivateKey::public) == Some(public) {
            report.add(
                Kind::PrivateKeyShared,
                format!(
                    "{other} has the same private key as {}: a peer of both would talk to one of them at a time.",
                    subject.name
                ),
                "Give each interface a key of its own.",
            );
        }
    }
}

/// Whether a handshake can be made with a key: not with the points of low order (RFC 7748, section 6.1).
fn is_usable(key: &PublicKey) -> bool {
    // Any scalar gives zero with them.
    noise::PrivateKey::from_bytes([0x40; 32]).agree(key).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_low_order_are_no_keys() {
        let mut one = [0; 32];
        assert!(!is_usable(&PublicKey::from_bytes(one)));
        one[0] = 1;
        assert!(!is_usable(&PublicKey::from_bytes(one)));
        assert!(is_usable(&noise::PrivateKey::from_bytes([7; 32]).public()));
    }
}

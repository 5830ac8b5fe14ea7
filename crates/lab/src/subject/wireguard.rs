//! What all implementations of WireGuard have in common: a pair of keys, a file, and an interface for each tunnel and gateway.
//!
//! The interface may be a daemon's or the kernel's; from there on all is `wg setconf` and `ip`, the same for everyone.

use std::fs;

use super::{Meter, Works};
use crate::LabError;
use crate::topology::{Side, Topology};
use crate::tunnel::wait_until_it_listens;
use crate::wg::{self, KeyPair};

/// The UDP port of tunnel 1; each has one of its own.
const FIRST_PORT: u32 = 51820;

/// Makes the tunnels: `interface` makes an interface for one on a gateway, and tells its name.
pub(super) fn build(
    works: &mut Works,
    mut interface: impl FnMut(&mut Works, Side) -> Result<String, LabError>,
) -> Result<Box<dyn Meter>, LabError> {
    let ways = works.topology().ways.clone();
    let mut files = Vec::new();
    for way in &ways {
        let mut pair = Vec::new();
        for _side in Side::BOTH {
            // As a person would: wg genkey | tee private | wg pubkey.
            works.typed()?;
            pair.push(KeyPair::generate()?);
        }
        for (at, side) in Side::BOTH.into_iter().enumerate() {
            let (own, other) = (&pair[at], &pair[1 - at]);
            let private = fs::read_to_string(own.private.path()).map_err(LabError::io("a key file"))?;
            let port = FIRST_PORT + way.number;
            let text = format!(
                "[Interface]\nPrivateKey = {}\nListenPort = {port}\n\n[Peer]\nPublicKey = {}\nAllowedIPs = {}\nEndpoint = {}:{port}\n",
                private.trim(),
                other.public,
                way.prefix(side.other()),
                works.topology().port(side.other()).v4,
            );
            let file = works.file(&format!("wg-{}-{}.conf", side.name(), way.number), &text)?;
            files.push((way, side, file));
        }
    }
    // The right ends first: they are to be there when the left ones' first messages come.
    files.sort_by_key(|(way, side, _)| (*side == Side::Left, way.number));
    let mut interfaces = Interfaces(vec![String::new(); ways.len()]);
    works.go();
    for (way, side, file) in files {
        let name = interface(works, side)?;
        works.command(side, "wg", &["setconf", &name, &file.to_string_lossy()])?;
        works.connect(side, way.number, &name)?;
        // There are no more tunnels than ports.
        let port = u16::try_from(FIRST_PORT + way.number).unwrap_or(u16::MAX);
        wait_until_it_listens(works.topology().gateway(side), &name, port)?;
        if side == Side::Right {
            interfaces.0[way.number as usize - 1] = name;
        }
    }
    Ok(Box::new(interfaces))
}

/// The interfaces at the right end, by the tunnel.
struct Interfaces(Vec<String>);

impl Meter for Interfaces {
    /// As `wg` shows it: what programs in the kernel take passes by the interface, and its counters.
    fn carried(&self, topology: &Topology, number: u32) -> Result<u64, LabError> {
        let name = &self.0[number as usize - 1];
        let dump = topology.gateway(Side::Right).run("wg", &["show", name, "dump"])?;
        Ok(wg::read_dump(&dump)?.peers.iter().map(|peer| peer.received).sum())
    }
}

//! The path inside the tunnel: how large a packet may be that gets through to a peer and back.
//!
//! A small ping first, with time for a handshake; where it is answered, one as large as the interface takes; and where that is not, the
//! size between the two is halved until the largest one is known. A path that loses large packets without a word is a black hole: connections open and
//! then hang. Each step has an end, and so has all of it.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use linux::probe::Pinger;

use super::finding::{Kind, OneLine, Report};
use super::routing::Progress;
use super::subject::{Peer, Subject};

/// Peers whose path is looked at.
const MOST: usize = 4;
/// Addresses of a peer that are tried.
const ADDRESSES: usize = 2;
/// A handshake that gets lost is tried again after five seconds.
const FIRST: Duration = Duration::from_millis(6500);
const EACH: Duration = Duration::from_secs(1);
/// Tries of a size, since any packet may get lost.
const TRIES: u32 = 3;
/// What a try may take, at least: far more than the round trip.
const LEAST_PATIENCE: Duration = Duration::from_millis(150);
/// What all of it may take.
const ALL: Duration = Duration::from_secs(60);

/// Looks at the paths to the first peers.
pub fn examine(subject: &Subject, report: &mut Report, progress: Progress<'_>) {
    let Some(link) = subject.link.as_ref().filter(|link| link.up && !subject.is_file()) else { return };
    let end = Instant::now() + ALL;
    for peer in subject.peers.iter().filter(|peer| peer.endpoint.is_some() && !peer.lost).take(MOST) {
        let addresses = addresses(subject, peer);
        if addresses.is_empty() {
            report.add(
                Kind::PathInsideUnknown,
                format!("Which address peer {} has inside the tunnel cannot be told from its allowed IPs, and so the path was not measured.", peer.name),
                format!("`ping -M do -s 1372 ADDRESS` measures it by hand, or watch for connections of {} that open and then hang.", subject.name),
            );
            continue;
        }
        progress(&format!("the path inside the tunnel to {}", addresses[0]));
        let mut silent = None;
        let mut found = false;
        for (at, address) in addresses.into_iter().enumerate() {
            // There was time for a handshake before the second.
            let first = if at == 0 { FIRST } else { EACH };
            match Probe::open(&subject.name, address, end).and_then(|mut probe| probe.run(link.mtu as usize, first)) {
                Ok(Outcome::Silent) => silent = Some(address),
                Ok(outcome) => {
                    tell(subject, peer, address, link.mtu, outcome, report);
                    found = true;
                    break;
                }
                Err(error) => {
                    report.add(
                        Kind::PathInsideUnknown,
                        format!(
                            "{address}, inside the tunnel to peer {}, cannot be pinged: {}.",
                            peer.name,
                            OneLine(&error)
                        ),
                        match error.kind() {
                            io::ErrorKind::PermissionDenied => {
                                "Run it as root, or let your group ping (`sysctl net.ipv4.ping_group_range`)."
                            }
                            _ => "See whether there is a route to it, and an address of ours to come from.",
                        },
                    );
                    found = true;
                    break;
                }
            }
        }
        if let Some(address) = silent.filter(|_| !found) {
            report.add(
                Kind::PathInsideUnknown,
                format!("{address}, inside the tunnel to peer {}, does not answer pings, and so the path was not measured.", peer.name),
                "See whether that is its address, and whether its firewall lets pings in; if there is no handshake either, look at that first.",
            );
        }
    }
}

/// Where the peer can be pinged: at single addresses, or else at the first of a network of ours that is its, where a gateway often is (or the second,
/// where we are the first).
fn addresses(subject: &Subject, peer: &Peer) -> Vec<IpAddr> {
    let bits = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    let has = |ip: &IpAddr| subject.addresses.iter().any(|(own, _)| own.is_ipv4() == ip.is_ipv4());
    let single = peer.allowed.iter().filter(|network| network.prefix_len() == bits(network.addr()));
    let mut all: Vec<IpAddr> = single.map(|network| network.addr()).filter(has).collect();
    // IPv4 first: it is what most measure by.
    all.sort_by_key(IpAddr::is_ipv6);
    for &(own, len) in &subject.addresses {
        let Some(network) = inet::Cidr::new(own, len.min(bits(own).saturating_sub(2))) else { continue };
        let host = |number: u8| match network.addr() {
            IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) | u32::from(number)).into()),
            IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) | u128::from(number)).into()),
        };
        let other = if own == host(1) { host(2) } else { host(1) };
        if !all.contains(&other) && peer.allowed.iter().any(|network| network.contains(other)) {
            all.push(other);
        }
    }
    all.truncate(ADDRESSES);
    all
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing was answered.
    Silent,
    /// The largest that the interface takes gets through.
    Whole,
    /// Packets of up to so many bytes do.
    UpTo(usize),
}

struct Probe {
    pinger: Pinger,
    patience: Duration,
    end: Instant,
}

impl Probe {
    fn open(interface: &str, to: IpAddr, end: Instant) -> io::Result<Probe> {
        Ok(Probe { pinger: Pinger::open(interface, to)?, patience: EACH, end })
    }

    fn run(&mut self, mtu: usize, first: Duration) -> io::Result<Outcome> {
        let start = Instant::now();
        let small = self.pinger.least() + 8;
        let round_trip = loop {
            if let Some(time) = self.pinger.ping(small, EACH)? {
                break time;
            }
            if start.elapsed() > first || Instant::now() > self.end {
                return Ok(Outcome::Silent);
            }
        };
        // The first may have waited for a handshake.
        let again = self.pinger.ping(small, EACH)?;
        self.patience = (again.unwrap_or(round_trip) * 4).clamp(LEAST_PATIENCE, EACH);
        largest(small, mtu, |size| self.gets_through(size))
    }

    fn gets_through(&mut self, size: usize) -> io::Result<bool> {
        for _ in 0..TRIES {
            if Instant::now() > self.end {
                return Err(io::Error::other("it took too long"));
            }
            match self.pinger.ping(size, self.patience) {
                Ok(Some(_)) => return Ok(true),
                Ok(None) => (),
                // Somebody on the way says that it is too large, or it is for the interface.
                Err(error) if error.raw_os_error() == Some(EMSGSIZE) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

const EMSGSIZE: i32 = 90;

/// The largest size up to `most` that gets through; `least` does.
fn largest(least: usize, most: usize, mut gets_through: impl FnMut(usize) -> io::Result<bool>) -> io::Result<Outcome> {
    if most <= least || gets_through(most)? {
        return Ok(Outcome::Whole);
    }
    let (mut fits, mut does_not) = (least, most);
    while does_not - fits > 1 {
        let middle = fits.midpoint(does_not);
        if gets_through(middle)? {
            fits = middle;
        } else {
            does_not = middle;
        }
    }
    Ok(Outcome::UpTo(fits))
}

fn tell(subject: &Subject, peer: &Peer, address: IpAddr, mtu: u32, outcome: Outcome, report: &mut Report) {
    match outcome {
        Outcome::UpTo(size) => report.add(
            Kind::MtuBlackHole,
            format!("Packets of up to {size} bytes get through the tunnel to {address} (peer {}) and back, and longer ones, which {} takes up to {mtu}, vanish: connections open and then hang.", peer.name, subject.name),
            format!("`ip link set {} mtu {size}`, and `MTU = {size}` in its file, at both ends.", subject.name),
        ),
        _ => report.ok(
            Kind::PathInside,
            format!("Packets of {mtu} bytes, the largest that {} takes, get through the tunnel to {address} (peer {}) and back.", subject.name, peer.name),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_size_is_found_in_few_steps() {
        for (limit, expected) in [
            (1420, Outcome::Whole),
            (9000, Outcome::Whole),
            (1419, Outcome::UpTo(1419)),
            (1000, Outcome::UpTo(1000)),
            (36, Outcome::UpTo(36)),
        ] {
            let mut steps = 0;
            let found = largest(36, 1420, |size| {
                steps += 1;
                Ok(size <= limit)
            });
            assert_eq!(found.unwrap(), expected);
            assert!(steps <= 12, "{steps}");
        }
    }
}

//! The ways that packets take: to the endpoints, outside the tunnel, and to the allowed IPs, into it.
//!
//! The kernel is asked for each, with the mark that the device sets, as it will ask itself. Nothing is sent but one datagram to each
//! endpoint, to hear whether somebody refuses it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use config::quick::Table;
use inet::Cidr;
use linux::rt::{Family, Path, Route, RouteKind, Rt};
use linux::{netns, probe};

use super::finding::{Kind, OneLine, Report};
use super::machine::{sysctl, sysctl_number};
use super::networks::text;
use super::subject::{Peer, Subject};
use crate::capture;

/// Endpoints and networks that are looked at; those of 100,000 peers would take minutes.
const MOST: usize = 64;
/// How long a refusal may take to come back.
const KNOCK: Duration = Duration::from_millis(400);
/// The longest keepalive that the shortest of usual NATs allows, in seconds (RFC 4787 asks for two minutes, many forget after half of one).
const LONGEST_KEEPALIVE: u16 = 60;
/// What a datagram of data has around the packet: IP, UDP, and WireGuard's 32 bytes.
const AROUND: [u32; 2] = [60, 80];

/// Tells what is being looked at.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// Looks at all of it.
pub fn examine(subject: &mut Subject, rt: &mut Rt, report: &mut Report, progress: Progress<'_>) {
    let least = match elsewhere(subject) {
        Some(home) => {
            let inside = || Ok(ways(subject, None, &mut Rt::open()?, report, progress));
            netns::run_in(home.as_fd(), inside).unwrap_or_else(|error| {
                report.add(
                    Kind::Unseen,
                    format!(
                        "The daemon is in another network namespace, which cannot be looked at: {}.",
                        OneLine(error)
                    ),
                    "Run it as root.",
                );
                None
            })
        }
        None => ways(subject, subject.link.as_ref().map(|link| link.index), rt, report, progress),
    };
    covered(subject, rt, report);
    mtu(subject, least, report);
    if let Some(link) = subject.link.as_ref().filter(|link| link.up && !subject.is_file()) {
        routed(subject, link.index, rt, report);
    }
    if subject.is_file() || subject.link.is_some() {
        clash(subject, rt, report);
        families(subject, report);
        forwarding(subject, report);
    }
}

/// The network namespace that the device's datagrams leave in, if it is another one than its interface is looked at in. The kernel's devices do not
/// tell theirs.
fn elsewhere(subject: &Subject) -> Option<OwnedFd> {
    let home = capture::home(&subject.name).filter(|_| !subject.is_file())?;
    let here = netns::current().ok()?;
    (!netns::same(home.as_fd(), here.as_fd()).ok()?).then_some(home)
}

/// Looks at the ways to the endpoints: the longest packet that fits all of them once it is sealed, and which of them it is that sets the bound.
/// `own`: the interface, if it is in the same namespace.
fn ways(
    subject: &mut Subject,
    own: Option<u32>,
    rt: &mut Rt,
    report: &mut Report,
    progress: Progress<'_>,
) -> Option<(u32, SocketAddr)> {
    let mut peers = std::mem::take(&mut subject.peers);
    let mut least: Option<(u32, SocketAddr)> = None;
    for peer in peers.iter_mut().filter(|peer| peer.endpoint.is_some()).take(MOST) {
        progress(&format!("the way to {}", peer.endpoint.as_deref().unwrap_or_default()));
        peer.resolve(report);
        let Some(at) = peer.at.first().copied() else { continue };
        let Some(path) = way(subject, peer, at, own, rt, report) else { continue };
        if path.mtu > 0 {
            let inner = path.mtu.saturating_sub(AROUND[usize::from(at.is_ipv6())]);
            if least.is_none_or(|(before, _)| inner < before) {
                least = Some((inner, at));
            }
        }
        keepalive(peer, &path, at, report);
    }
    subject.peers = peers;
    least
}

/// The way to an endpoint, unless it is none.
fn way(
    subject: &Subject,
    peer: &mut Peer,
    at: SocketAddr,
    own: Option<u32>,
    rt: &mut Rt,
    report: &mut Report,
) -> Option<Path> {
    let (name, who) = (&subject.name, peer.name.clone());
    peer.lost = true;
    let zone = match at {
        SocketAddr::V6(at) if at.scope_id() != 0 => Some(at.scope_id()),
        _ => None,
    };
    let path = match rt.path_to(at.ip(), subject.mark, zone) {
        Ok(path) if path.route.kind != RouteKind::Refused => path,
        refused => {
            let why = refused.err().map_or_else(|| "a route refuses it".to_owned(), |error| OneLine(error).to_string());
            report.add(
                Kind::EndpointNoRoute,
                format!("There is no way to {at}, the endpoint of peer {who}: {why}."),
                "Bring the network up, or add a route; `ip route get` tells what the kernel thinks.",
            );
            return None;
        }
    };
    if path.route.device.is_some() && path.route.device == own {
        report.add(
            Kind::EndpointLoop,
            format!("The way to {at}, the endpoint of peer {who}, leads into {name} itself: what is sealed is to be sealed again, and never leaves."),
            format!("Give the endpoint a route past the tunnel (`ip route add {} via GATEWAY`), or {name} a mark and a rule, as `wireloom up` does.", at.ip()),
        );
        return None;
    }
    if path.route.kind == RouteKind::Local {
        report.add(
            Kind::EndpointHere,
            format!("{at}, the endpoint of peer {who}, is an address of this machine."),
            "Put the other end's address there, if that is not meant.",
        );
    }
    rp_filter(subject, at.ip(), &path, rt, report);
    let marked = probe::knock(at, subject.mark, KNOCK);
    let knocked = match marked {
        // Without the privilege for a mark the way could be another one.
        Err(error)
            if subject.mark != 0
                && error.kind() == io::ErrorKind::PermissionDenied
                && !rustix::process::geteuid().is_root() =>
        {
            Ok(())
        }
        knocked => knocked,
    };
    match knocked {
        Ok(()) => {
            peer.lost = false;
            let by = path.route.device.and_then(|index| rt.link_at(index).ok().flatten());
            let by = by.map_or_else(String::new, |link| format!(" by {}", link.name));
            report.ok(Kind::EndpointWay, format!("There is a way to {at}, the endpoint of peer {who}{by}, for packets of up to {} bytes.", path.mtu));
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => report.add(
            Kind::EndpointBlocked,
            format!("This machine's firewall refuses what is sent to {at}, the endpoint of peer {who}."),
            "Allow it: `nft list ruleset` or `iptables -S OUTPUT` show the rules.",
        ),
        Err(error) => report.add(
            Kind::EndpointUnreachable,
            format!("What is sent to {at}, the endpoint of peer {who}, is refused: {}.", OneLine(&error)),
            match error.kind() {
                io::ErrorKind::ConnectionRefused => "Nobody listens there: start the other end, or correct the port.",
                _ => "See whether the other end is up and its address right; `ping` and `traceroute` tell how far one gets.",
            },
        ),
    }
    Some(path)
}

/// Whether the strict filter lets an endpoint's answers in: the way back to it must be the one that they come by.
fn rp_filter(subject: &Subject, endpoint: IpAddr, path: &Path, rt: &mut Rt, report: &mut Report) {
    let Some(by) = path.route.device.and_then(|index| rt.link_at(index).ok().flatten()) else { return };
    let IpAddr::V4(_) = endpoint else { return };
    if path.route.kind == RouteKind::Local || setting("rp_filter", &by.name) != 1 {
        return;
    }
    // The mark is that which the packet was given on the way in; it counts only where this says so.
    let mark = if setting("src_valid_mark", &by.name) > 0 { subject.mark } else { 0 };
    if rt.path_to(endpoint, mark, None).is_ok_and(|back| back.route.device == Some(by.index)) {
        return;
    }
    report.add(
        Kind::RpFilter,
        format!("Answers from {endpoint} come in by {}, and are dropped there: without the mark, the way back leads elsewhere, and the filter is strict.", by.name),
        format!("`sysctl net.ipv4.conf.all.src_valid_mark=1`, or net.ipv4.conf.{}.rp_filter=2 (loose).", by.name),
    );
}

/// A setting of IPv4 for an interface, of which the larger one of it and of all counts.
fn setting(name: &str, interface: &str) -> u64 {
    let of = |interface: &str| sysctl_number(&format!("net/ipv4/conf/{interface}/{name}")).unwrap_or_default();
    of("all").max(of(interface))
}

/// Behind a NAT, who does not speak is forgotten, and who speaks too seldom.
fn keepalive(peer: &Peer, path: &Path, at: SocketAddr, report: &mut Report) {
    let from_inside = path.route.source.is_some_and(is_private) && !is_private(at.ip());
    if from_inside && (peer.keepalive == 0 || peer.keepalive > LONGEST_KEEPALIVE) {
        let what = match peer.keepalive {
            0 => "no persistent keepalive".to_owned(),
            seconds => format!("a persistent keepalive of {seconds} seconds only"),
        };
        report.add(
            Kind::KeepaliveMissing,
            format!("This machine is behind a NAT, as its private address tells, and peer {} has {what}: when nothing was sent for a while, it cannot reach us.", peer.name),
            "`PersistentKeepalive = 25`, unless only this end ever begins.",
        );
    }
    let forgets = sysctl_number("net/netfilter/nf_conntrack_udp_timeout_stream");
    if let Some(forgets) = forgets.filter(|seconds| *seconds <= peer.keepalive.into() && peer.keepalive > 0) {
        report.add(
            Kind::ConntrackTimeout,
            format!("This machine's own firewall forgets a flow of UDP after {forgets} seconds, and peer {} is sent a keepalive each {} only.", peer.name, peer.keepalive),
            "`PersistentKeepalive = 25`, where the firewall translates addresses or keeps out what it does not know.",
        );
    }
}

/// Addresses that are not of the internet.
fn is_private(ip: IpAddr) -> bool {
    const SHARED: (u8, u8) = (100, 64);
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || ip.is_link_local() || ip.is_loopback() || (a, b & 0xc0) == SHARED
        }
        // IPv6 is not translated.
        IpAddr::V6(_) => false,
    }
}

/// Of a file: routes that `up` would make, and that would lead endpoints into the tunnel.
fn covered(subject: &Subject, rt: &mut Rt, report: &mut Report) {
    let Some(file) = subject.file.as_ref().filter(|file| file.table == Table::Auto && subject.mark == 0) else {
        return;
    };
    for peer in &subject.peers {
        let Some(at) = peer.at.first() else { continue };
        // A default route comes with a mark and rules.
        let around = subject.networks().filter(|network| network.prefix_len() > 0 && network.contains(at.ip()));
        let Some(around) = around.max_by_key(Cidr::prefix_len) else { continue };
        let routes = rt.routes(Family::of(at.ip()), Some(linux::rt::MAIN)).unwrap_or_default();
        let own = subject.link.as_ref().map(|link| link.index);
        let others = routes.iter().filter(|route| route.device != own && leads_to(route, at.ip()));
        if others.map(|route| route.len).max().is_none_or(|len| len < around.prefix_len()) {
            report.add(
                Kind::EndpointCovered,
                format!("{at}, the endpoint of peer {}, is in {}, which {} routes into the tunnel: what is sealed would be sealed again, and never leave.", peer.name, text(around), file.path.display()),
                format!("Take the endpoint out of the allowed IPs, or use 0.0.0.0/0, which comes with rules against it, or add a route to {} past the tunnel.", at.ip()),
            );
        }
    }
}

fn leads_to(route: &Route, to: IpAddr) -> bool {
    route.kind == RouteKind::Unicast && Cidr::new(route.to, route.len).is_some_and(|network| network.contains(to))
}

fn mtu(subject: &Subject, least: Option<(u32, SocketAddr)>, report: &mut Report) {
    let (Some(mtu), Some((fits, at))) = (subject.mtu, least) else { return };
    if mtu > fits {
        let set = match subject.is_file() {
            true => format!("`MTU = {fits}`, or none, and it is computed"),
            false => format!("`ip link set {} mtu {fits}`", subject.name),
        };
        report.add(
            Kind::MtuTooLarge,
            format!("The MTU of {} is {mtu}, and packets of more than {fits} bytes do not fit the way to {at} in one piece: they travel in fragments, which many networks drop.", subject.name),
            format!("{set}."),
        );
    }
}

/// Whether what is to be sent to peers goes into the tunnel.
fn routed(subject: &Subject, index: u32, rt: &mut Rt, report: &mut Report) {
    let networks = subject.peers.iter().flat_map(|peer| peer.allowed.iter().map(move |network| (peer, *network)));
    for (peer, network) in networks.take(MOST) {
        let sample = sample(network);
        let path = match rt.path_to(sample, 0, None) {
            Ok(path) => path,
            Err(error) => {
                report.add(
                    Kind::AllowedIpNotRouted,
                    format!(
                        "There is no way to {}, an allowed IP of peer {}: {}.",
                        text(network),
                        peer.name,
                        OneLine(error)
                    ),
                    format!("`ip route add {} dev {}`.", text(network), subject.name),
                );
                continue;
            }
        };
        if path.route.device == Some(index) || path.route.kind == RouteKind::Local {
            continue;
        }
        let strict = if setting("rp_filter", &subject.name) == 1 && sample.is_ipv4() {
            ", and what comes from there by the tunnel is dropped by the strict filter (rp_filter)"
        } else {
            ""
        };
        report.add(
            Kind::AllowedIpNotRouted,
            format!(
                "The way to {}, an allowed IP of peer {}, does not lead into {}{strict}.",
                text(network),
                peer.name,
                subject.name
            ),
            format!(
                "`ip route add {} dev {}`, if it is to be reached through the tunnel.",
                text(network),
                subject.name
            ),
        );
    }
}

/// An address in a network: of a default route one that nobody has a route of its own for.
fn sample(network: Cidr) -> IpAddr {
    match (network.addr(), network.prefix_len()) {
        (IpAddr::V4(_), 0) => [198, 51, 100, 1].into(),
        (IpAddr::V6(_), 0) => [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
        (IpAddr::V4(ip), 1..=31) => Ipv4Addr::from(u32::from(ip) | 1).into(),
        (IpAddr::V6(ip), 1..=127) => std::net::Ipv6Addr::from(u128::from(ip) | 1).into(),
        (ip, _) => ip,
    }
}

/// Networks that are here already.
fn clash(subject: &Subject, rt: &mut Rt, report: &mut Report) {
    let own = subject.link.as_ref().map(|link| link.index);
    let mut here = Vec::new();
    for family in Family::ALL {
        let routes = rt.routes(family, Some(linux::rt::MAIN)).unwrap_or_default();
        let direct = |route: &Route| {
            route.kind == RouteKind::Unicast && route.gateway.is_none() && route.len > 0 && route.device != own
        };
        for route in routes.into_iter().filter(direct) {
            let by = route.device.and_then(|index| rt.link_at(index).ok().flatten());
            // Each interface has the network of link-local addresses.
            let network = Cidr::new(route.to, route.len).filter(|network| !is_link_local(network.addr()));
            here.extend(network.zip(by.filter(|link| link.kind.as_deref() != Some("wireguard"))));
        }
    }
    for network in subject.networks().filter(|network| network.prefix_len() > 0).take(MOST) {
        let clashes = |other: &Cidr| network.prefix_len() >= other.prefix_len() && other.contains(network.addr());
        let Some((other, link)) = here.iter().find(|(other, _)| clashes(other)) else { continue };
        // An endpoint's or a host's own route, that somebody set on purpose, is no network.
        let bits = if other.addr().is_ipv4() { 32 } else { 128 };
        if other.prefix_len() < bits {
            report.add(
                Kind::NetworkClash,
                format!("{} is to be reached through {}, and {} is also the network at {}: some of its hosts cannot be reached.", text(network), subject.name, text(*other), link.name),
                "Use networks that are not used at both ends.",
            );
        }
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    }
}

fn families(subject: &Subject, report: &mut Report) {
    let wants = subject.addresses.iter().any(|(ip, _)| ip.is_ipv6()) || subject.networks().any(|n| n.addr().is_ipv6());
    if !wants {
        return;
    }
    let of = |interface: &str| sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"));
    let interface = if subject.link.is_some() { of(&subject.name) } else { of("default") };
    let off = interface.is_none_or(|value| value == "1") || of("all").as_deref() == Some("1");
    if off {
        report.add(
            Kind::Ipv6Disabled,
            format!("{} is to carry IPv6, which is switched off on this machine.", subject.name),
            format!(
                "`sysctl net.ipv6.conf.{}.disable_ipv6=0`, or take its IPv6 addresses and allowed IPs out.",
                if subject.link.is_some() { &subject.name } else { "all" }
            ),
        );
    }
}

/// Who serves several peers that call is often meant to forward between them.
fn forwarding(subject: &Subject, report: &mut Report) {
    if subject.peers.len() < 2 || subject.takes_all(false) || subject.takes_all(true) {
        return;
    }
    for (v6, family, path) in [(false, "IPv4", "net/ipv4/ip_forward"), (true, "IPv6", "net/ipv6/conf/all/forwarding")] {
        if subject.networks().any(|network| network.addr().is_ipv6() == v6) && sysctl(path).as_deref() == Some("0") {
            report.add(
                Kind::ForwardingOff,
                format!("{} has several peers, and {family} is not forwarded: each reaches this machine, but neither another peer nor what is behind it.", subject.name),
                format!("`sysctl {}=1`, if they are to.", path.replace('/', ".")),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_behind_a_nat_are_known() {
        for private in ["10.1.2.3", "192.168.0.1", "172.31.0.1", "100.64.0.1", "100.127.255.1", "169.254.1.1"] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:db8::1", "fd00::1"] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn a_sample_is_in_its_network() {
        for network in ["0.0.0.0/0", "::/0", "10.0.0.0/8", "10.0.0.7/32", "10.0.0.6/31", "fd00::/64", "fd00::7/128"] {
            let (address, len) = network.split_once('/').unwrap();
            let network = Cidr::new(address.parse().unwrap(), len.parse().unwrap()).unwrap();
            assert!(network.contains(sample(network)), "{}", text(network));
        }
    }
}

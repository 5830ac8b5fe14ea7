//! The way to a peer, as a program needs it that sends past the host's own routing: by which interface, from which address, to which next hop and
//! hardware address, and how large a packet may be.
//!
//! The kernel is asked for a route with the mark, ports and source that a datagram of ours would have, so that rules and marks count as they would for
//! it. What was found holds until something that it rests upon changes: [`Ways::changes`] tells what of routes, addresses, links and neighbours
//! has been reported since, and when reports were lost, that anything may have.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::hops::Hops;
use super::message::{LINK, Messages, Request, find, u32_at};
use super::routes::{ROUTE, RTA_DPORT, RTA_DST, RTA_IP_PROTO, RTA_MARK, RTA_OIF, RTA_SPORT, RTA_SRC, RTMGRP_IPV4_RULE};
use super::{
    IFLA_EXT_MASK, IFLA_IFNAME, IFLA_MTU, Requests, SKIP_STATS, Target, direct, link_header, open_requests, socket,
};

// linux/rtnetlink.h
const RTMGRP_NEIGH: libc::c_int = 4;
/// RTNLGRP_IPV6_RULE, which has a number and no bit of the old kind.
const RTNLGRP_IPV6_RULE: u32 = 19;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_VIA: u16 = 18;
const RTAX_MTU: u16 = 2;
const RTN_UNICAST: u8 = 1;
// linux/neighbour.h
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// Length of `struct ndmsg`.
const NEIGHBOUR: usize = 12;
/// NUD_INCOMPLETE and NUD_FAILED: there is no address, or it is not to be used. NUD_NONE is zero.
const UNUSABLE: u16 = 0x01 | 0x20;
const IFLA_ADDRESS: u16 = 1;
const IFLA_PROMISCUITY: u16 = 30;
/// Datagrams of reports that are read in one go.
const REPORTS: usize = 64;

/// How a datagram of ours gets to another host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    /// The interface that it leaves by.
    pub interface: u32,
    /// The address that it leaves from.
    pub source: IpAddr,
    /// The next hop, if that is not its destination. It may be of the other family.
    pub gateway: Option<IpAddr>,
    /// What is known of the path's MTU besides the interface's, in bytes.
    pub mtu: Option<u32>,
}

/// An interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Its hardware address, where it is an Ethernet.
    pub address: Option<[u8; 6]>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether somebody has it take what is not for it (promiscuity), as those do who capture packets.
    pub is_watched: bool,
}

/// What has been reported.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Routes, rules, addresses or links: any way may be another one.
    pub routes: bool,
    /// Interfaces are other ones, or have other settings.
    pub links: bool,
    /// Neighbours that were asked for, by their interface and address; perhaps some more.
    pub neighbours: Vec<(u32, IpAddr)>,
    /// Interfaces that are no longer in this namespace.
    pub gone: Vec<u32>,
    /// Reports were lost: anything may have changed.
    pub lost: bool,
}

/// Ways out of the namespace that it was opened in. Its descriptor is readable when something may have changed.
#[derive(Debug)]
pub struct Ways {
    reports: OwnedFd,
    hops: Hops,
    requests: Requests,
}

impl Ways {
    /// Starts to listen.
    pub fn open() -> io::Result<Ways> {
        let v4 = libc::RTMGRP_IPV4_ROUTE | RTMGRP_IPV4_RULE | libc::RTMGRP_IPV4_IFADDR;
        let groups = v4 | libc::RTMGRP_IPV6_ROUTE | libc::RTMGRP_IPV6_IFADDR | libc::RTMGRP_LINK | RTMGRP_NEIGH;
        let groups = groups as u32 | 1 << (RTNLGRP_IPV6_RULE - 1);
        let reports = socket(groups, libc::SOCK_NONBLOCK)?;
        Ok(Ways { hops: Hops::none(reports.as_fd())?, reports, requests: Requests::over(open_requests()?) })
    }

    /// What has been reported since the last call. Reads some reports; while there are more, the descriptor stays readable.
    pub fn changes(&mut self) -> Changes {
        let (mut changes, mut buffer) = (Changes::default(), [0; 8192]);
        for _ in 0..REPORTS {
            match rustix::net::recv(&self.reports, &mut buffer[..], rustix::net::RecvFlags::DONTWAIT) {
                Ok((len, _)) => {
                    Messages(&buffer[..len]).for_each(|message| note(&mut changes, message.kind, message.body))
                }
                Err(rustix::io::Errno::INTR) => (),
                Err(rustix::io::Errno::NOBUFS) => changes.lost = true,
                Err(_) => break,
            }
        }
        changes
    }

    /// The way of a UDP datagram with this mark from our port (and address, and by the interface, where they are given) to another host. `None` if it
    /// would not leave this one.
    ///
    /// # Errors
    /// What the kernel says: there is no route, or the source is none of ours.
    pub fn way(
        &mut self,
        to: SocketAddr,
        source: Option<IpAddr>,
        interface: Option<u32>,
        port: u16,
        mark: u32,
    ) -> io::Result<Option<Way>> {
        let (family, bits) = if to.is_ipv4() { (libc::AF_INET, 32) } else { (libc::AF_INET6, 128) };
        let mut header = [0; ROUTE];
        header[..3].copy_from_slice(&[family as u8, bits, if source.is_some() { bits } else { 0 }]);
        let mut request = Request::new(libc::RTM_GETROUTE, libc::NLM_F_REQUEST as u16, 0, &header)
            .attribute(RTA_DST, octets(&to.ip()).as_ref())
            .attribute(RTA_MARK, &mark.to_ne_bytes())
            .attribute(RTA_IP_PROTO, &[libc::IPPROTO_UDP as u8])
            .attribute(RTA_SPORT, &port.to_be_bytes())
            .attribute(RTA_DPORT, &to.port().to_be_bytes());
        if let Some(source) = source {
            request.put(RTA_SRC, octets(&source).as_ref());
        }
        if let Some(interface) = interface {
            request.put(RTA_OIF, &interface.to_ne_bytes());
        }
        let mut way = None;
        self.requests.exchange(request, direct, |kind, body| {
            if kind == libc::RTM_NEWROUTE {
                way = parse_way(body, source);
            }
            true
        })?;
        Ok(way)
    }

    /// Whether an address is one of this host's. Of IPv6 the kernel does not look at the source when it is asked for a way.
    pub fn is_ours(&mut self, ip: IpAddr) -> bool {
        // The discard port, since none is asked about.
        matches!(self.way(SocketAddr::new(ip, 9), None, None, 0, 0), Ok(None))
    }

    /// Forgets which neighbours were asked for, but for these.
    pub fn keep_neighbours(&mut self, which: impl Fn(&(u32, IpAddr)) -> bool) {
        if let Err(error) = self.hops.keep(self.reports.as_fd(), which) {
            log::debug!("of some neighbours it is told in vain: {error}");
        }
    }

    /// The hardware address of a neighbour, as far as it is known. From now on its changes are told.
    pub fn neighbour(&mut self, interface: u32, ip: IpAddr) -> Option<[u8; 6]> {
        // Before it is asked for, or what happens in between would be missed.
        self.hops.add(self.reports.as_fd(), (interface, ip)).ok()?;
        let mut header = [0; NEIGHBOUR];
        header[0] = if ip.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 };
        header[4..8].copy_from_slice(&interface.to_ne_bytes());
        let request = Request::new(libc::RTM_GETNEIGH, libc::NLM_F_REQUEST as u16, 0, &header)
            .attribute(NDA_DST, octets(&ip).as_ref());
        let mut address = None;
        let told = self.requests.exchange(request, direct, |kind, body| {
            if kind == libc::RTM_NEWNEIGH {
                address = parse_neighbour(body);
            }
            true
        });
        told.ok().and(address)
    }

    /// The index of the interface of this name. ENODEV when there is none.
    pub fn index(&mut self, name: &str) -> io::Result<u32> {
        let (index, _) = self.requests.find(Target::Name(name))?;
        Ok(index)
    }

    /// An interface. ENODEV when there is none.
    pub fn interface(&mut self, index: u32) -> io::Result<Interface> {
        let request = Request::new(libc::RTM_GETLINK, libc::NLM_F_REQUEST as u16, 0, &link_header(index, 0, 0))
            .attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        let mut found = None;
        self.requests.exchange(request, direct, |kind, body| {
            if kind == libc::RTM_NEWLINK {
                found = parse_interface(body);
            }
            true
        })?;
        found.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl AsFd for Ways {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reports.as_fd()
    }
}

/// An address's bytes.
fn octets(ip: &IpAddr) -> Box<[u8]> {
    match ip {
        IpAddr::V4(ip) => Box::from(ip.octets()),
        IpAddr::V6(ip) => Box::from(ip.octets()),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn note(changes: &mut Changes, kind: u16, body: &[u8]) {
    match kind {
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
            let dst = body.get(NEIGHBOUR..).and_then(|attributes| find(attributes, NDA_DST)).and_then(address);
            if let (Some(interface), Some(dst)) = (u32_at(body, 4), dst) {
                changes.neighbours.push((interface, dst));
            }
        }
        libc::RTM_DELLINK => {
            // Ports leave a bridge by a report of the same kind, of another family.
            if body.first() == Some(&(libc::AF_UNSPEC as u8)) {
                changes.gone.extend(u32_at(body, 4));
                changes.routes = true;
            }
        }
        _ => {
            changes.routes = true;
            changes.links |= kind == libc::RTM_NEWLINK;
        }
    }
}

fn parse_way(body: &[u8], source: Option<IpAddr>) -> Option<Way> {
    let attributes = body.get(ROUTE..)?;
    if body[7] != RTN_UNICAST {
        return None;
    }
    let ip = |kind| find(attributes, kind).and_then(address);
    // A family's number, and the address: a next hop of IPv6 on the way to IPv4.
    let via = find(attributes, RTA_VIA).and_then(|via| address(via.get(2..)?));
    let metrics = find(attributes, RTA_METRICS);
    Some(Way {
        interface: u32_at(find(attributes, RTA_OIF)?, 0)?,
        source: source.or_else(|| ip(RTA_PREFSRC))?,
        gateway: ip(RTA_GATEWAY).or(via),
        mtu: metrics.and_then(|metrics| u32_at(find(metrics, RTAX_MTU)?, 0)).filter(|mtu| *mtu > 0),
    })
}

fn parse_neighbour(body: &[u8]) -> Option<[u8; 6]> {
    let state = u16::from_ne_bytes(body.get(8..10)?.try_into().ok()?);
    if state == 0 || state & UNUSABLE != 0 {
        return None;
    }
    find(body.get(NEIGHBOUR..)?, NDA_LLADDR)?.try_into().ok()
}

fn parse_interface(body: &[u8]) -> Option<Interface> {
    let attributes = body.get(LINK..)?;
    let kind = u16::from_ne_bytes([body[2], body[3]]);
    let name = find(attributes, IFLA_IFNAME)?.split(|b| *b == 0).next()?;
    let address = find(attributes, IFLA_ADDRESS).and_then(|address| address.try_into().ok());
    Some(Interface {
        name: String::from_utf8_lossy(name).into_owned(),
        mtu: u32_at(find(attributes, IFLA_MTU)?, 0)?,
        address: address.filter(|_| kind == libc::ARPHRD_ETHER),
        up: u32_at(body, 8)? & libc::IFF_UP as u32 != 0,
        is_watched: find(attributes, IFLA_PROMISCUITY)
            .and_then(|count| u32_at(count, 0))
            .is_some_and(|count| count > 0),
    })
}

/// Reads a report in every way that there is, for the fuzz targets.
#[cfg(fuzzing)]
pub fn read_ways(bytes: &[u8]) -> usize {
    let mut changes = Changes::default();
    Messages(bytes)
        .map(|message| {
            note(&mut changes, message.kind, message.body);
            (parse_way(message.body, None), parse_neighbour(message.body), parse_interface(message.body))
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    fn ip(args: &str) {
        let status = Command::new("ip").args(args.split(' ')).status().unwrap();
        assert!(status.success(), "ip {args}");
    }

    fn host(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_way_is_the_one_that_routes_rules_and_neighbours_say_and_changes_are_told() {
        std::thread::spawn(|| {
            crate::netns::unshare().unwrap();
            ip("link set lo up");
            for (name, net) in [("one", "1"), ("two", "2")] {
                ip(&format!("link add {name} address 02:00:00:00:00:0{net} type veth peer name {name}-peer"));
                ip(&format!("address add 192.0.{net}.1/24 dev {name}"));
                ip(&format!("address add fd0{net}::1/64 dev {name} nodad"));
                ip(&format!("link set {name}-peer up"));
                ip(&format!("link set {name} up"));
            }
            let mut ways = Ways::open().unwrap();
            let index = |name: &str| {
                let name = std::ffi::CString::new(name).unwrap();
                // SAFETY: the name ends with a zero and outlives the call.
                unsafe { libc::if_nametoindex(name.as_ptr()) }
            };
            let (one, two) = (index("one"), index("two"));
            let to = |text: &str| SocketAddr::new(host(text), 51820);
            let way = |ways: &mut Ways, text, source: Option<&str>, mark| {
                ways.way(to(text), source.map(host), None, 51821, mark).map_err(|error| error.raw_os_error())
            };
            let found = |interface, source, gateway: Option<&str>, mtu| {
                Ok(Some(Way { interface, source: host(source), gateway: gateway.map(host), mtu }))
            };
            assert_eq!(way(&mut ways, "192.0.1.9", None, 0), found(one, "192.0.1.1", None, None));
            assert_eq!(way(&mut ways, "fd02::9", None, 0), found(two, "fd02::1", None, None));
            assert_eq!(way(&mut ways, "192.0.1.1", None, 0), Ok(None), "it is ourselves");
            assert_eq!(way(&mut ways, "198.51.100.1", None, 0), Err(Some(libc::ENETUNREACH)));
            for net in ["192.0.1.", "fd01::"] {
                assert!(ways.is_ours(host(&format!("{net}1"))) && !ways.is_ours(host(&format!("{net}3"))), "{net}");
            }
            ip("address add 192.0.1.7/24 dev one");
            ip("route add 198.51.100.0/24 via 192.0.1.254 mtu 1300");
            ip("route add 198.51.100.0/24 via 192.0.2.254 table 77");
            ip("route add default via fd01::254");
            ip("route add 203.0.113.0/24 via inet6 fd02::254");
            ip("rule add fwmark 5 table 77");
            assert_eq!(
                way(&mut ways, "198.51.100.1", None, 0),
                found(one, "192.0.1.1", Some("192.0.1.254"), Some(1300))
            );
            assert_eq!(
                way(&mut ways, "198.51.100.1", Some("192.0.1.7"), 0),
                found(one, "192.0.1.7", Some("192.0.1.254"), Some(1300))
            );
            assert_eq!(way(&mut ways, "198.51.100.1", None, 5), found(two, "192.0.2.1", Some("192.0.2.254"), None));
            assert_eq!(way(&mut ways, "2001:db8::1", None, 0), found(one, "fd01::1", Some("fd01::254"), None));
            assert_eq!(way(&mut ways, "203.0.113.1", None, 0), found(two, "192.0.2.1", Some("fd02::254"), None));
            // Of IPv4 the kernel looks whether the source is ours; which error it has for it depends on its version.
            assert!(way(&mut ways, "198.51.100.1", Some("192.0.3.3"), 0).is_err());

            let interface = ways.interface(one).unwrap();
            assert_eq!((interface.name.as_str(), interface.mtu, interface.up), ("one", 1500, true));
            assert_eq!(interface.address, Some([2, 0, 0, 0, 0, 1]));
            assert!(!interface.is_watched);
            while ways.changes() != Changes::default() {}
            let capture = crate::packet::PacketSocket::open(crate::packet::Listen::Interface(one), 4096).unwrap();
            capture.announce(one).unwrap();
            assert!(ways.changes().links && ways.interface(one).unwrap().is_watched);
            drop(capture);
            assert!(ways.changes().links && !ways.interface(one).unwrap().is_watched);
            assert_eq!(ways.interface(index("lo")).unwrap().address, None);
            assert_eq!(ways.interface(999).unwrap_err().raw_os_error(), Some(libc::ENODEV));

            while ways.changes() != Changes::default() {}
            let gateway = host("192.0.1.254");
            assert_eq!(ways.neighbour(one, gateway), None);
            ip("neighbour replace 192.0.1.254 lladdr 02:00:00:00:00:99 dev one");
            assert_eq!(ways.changes(), Changes { neighbours: vec![(one, gateway)], ..Changes::default() });
            assert_eq!(ways.neighbour(one, gateway), Some([2, 0, 0, 0, 0, 0x99]));
            // Of others nothing is heard, nor of one that nobody is interested in any more.
            ip("neighbour replace 192.0.1.253 lladdr 02:00:00:00:00:97 dev one");
            ip("neighbour replace 192.0.2.254 lladdr 02:00:00:00:00:96 dev two");
            ip("neighbour replace fd01::253 lladdr 02:00:00:00:00:95 dev one");
            assert_eq!(ways.changes(), Changes::default());
            assert_eq!(ways.neighbour(two, host("192.0.2.254")), Some([2, 0, 0, 0, 0, 0x96]));
            ways.keep_neighbours(|(interface, _)| *interface == one);
            ip("neighbour replace 192.0.2.254 lladdr 02:00:00:00:00:94 dev two");
            assert_eq!(ways.changes(), Changes::default());
            ip("neighbour del 192.0.1.254 dev one");
            let told = ways.changes().neighbours;
            assert!(!told.is_empty() && told.iter().all(|hop| *hop == (one, gateway)), "{told:?}");
            ip("neighbour replace 192.0.1.254 lladdr 02:00:00:00:00:99 dev one");
            ip("neighbour replace fd01::254 lladdr 02:00:00:00:00:98 dev one");
            assert_eq!(ways.neighbour(one, host("fd01::254")), Some([2, 0, 0, 0, 0, 0x98]));
            while ways.changes() != Changes::default() {}
            ip("rule del fwmark 5 table 77");
            assert!(ways.changes().routes);
            ip("-6 rule add fwmark 6 table 78");
            assert!(ways.changes().routes);
            ip("link delete one");
            let changes = ways.changes();
            assert!(changes.routes && changes.gone.contains(&one), "{changes:?}");
        })
        .join()
        .unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(kind: u16, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut changes = Changes::default();
            for kind in [kind, libc::RTM_NEWNEIGH, libc::RTM_DELLINK, libc::RTM_NEWLINK] {
                note(&mut changes, kind, &bytes);
            }
            let _ = (parse_way(&bytes, None), parse_neighbour(&bytes), parse_interface(&bytes));
        }
    }
}

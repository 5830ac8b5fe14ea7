//! Mistakes with addresses and allowed IPs, as they are written; what becomes of them in the routing tables is looked at in `routing`.

use std::collections::HashMap;
use std::net::IpAddr;

use inet::Cidr;

use super::finding::{Kind, Report};
use super::subject::Subject;

/// Looks at all of it.
pub fn examine(subject: &Subject, report: &mut Report) {
    let name = &subject.name;
    if subject.addresses.is_empty() && (subject.is_file() || subject.link.is_some()) {
        report.add(
            Kind::NoAddress,
            format!("{name} has no address: programs have nothing to send from."),
            if subject.is_file() {
                "Add `Address = …` to [Interface].".to_owned()
            } else {
                format!("`ip address add ADDRESS/LENGTH dev {name}`.")
            },
        );
    }
    for peer in subject.peers.iter().filter(|peer| peer.allowed.is_empty()) {
        report.add(
            Kind::AllowedIpsMissing,
            format!("Peer {} has no allowed IPs: nothing is sent to it, and nothing taken from it.", peer.name),
            "Give it the addresses that it has inside the tunnel, and the networks behind it.",
        );
    }
    if subject.file.as_ref().is_some_and(|file| file.dns) && !super::machine::has_dns_program() {
        report.add(
            Kind::DnsNoProgram,
            "The file names DNS servers, and there is neither resolvconf nor systemd-resolved to be told of them: /etc/resolv.conf is written instead.",
            "Install resolvconf, openresolv or systemd-resolved, if another program writes that file too.",
        );
    }
    overlaps(subject, report);
    own_addresses(subject, report);
    leaks(subject, report);
}

/// A network of two peers is the last one's; one inside another is fine, if it is meant.
fn overlaps(subject: &Subject, report: &mut Report) {
    let mut owners: HashMap<Cidr, usize> = HashMap::new();
    let mut lengths = [false; 129];
    for (at, peer) in subject.peers.iter().enumerate() {
        for network in &peer.allowed {
            lengths[usize::from(network.prefix_len())] = true;
            let Some(before) = owners.insert(*network, at).filter(|before| *before != at) else { continue };
            report.add(
                Kind::AllowedIpTwice,
                format!(
                    "{} is an allowed IP of peer {} and of peer {}: it goes to the last of them only.",
                    text(*network),
                    subject.peers[before].name,
                    peer.name
                ),
                "Give it to one of them, or each a part of it.",
            );
        }
    }
    for (at, peer) in subject.peers.iter().enumerate() {
        for network in &peer.allowed {
            // A default route is there for what others do not have.
            let around = (1..network.prefix_len()).rev().filter(|len| lengths[usize::from(*len)]).find_map(|len| {
                let wider = Cidr::new(network.addr(), len)?;
                owners.get(&wider).filter(|owner| **owner != at).map(|owner| (wider, *owner))
            });
            if let Some((wider, owner)) = around {
                report.add(
                    Kind::AllowedIpWithin,
                    format!(
                        "{} of peer {} is a part of {} of peer {}.",
                        text(*network),
                        peer.name,
                        text(wider),
                        subject.peers[owner].name
                    ),
                    "Nothing, if it is meant: the smaller network goes to its own peer.",
                );
            }
        }
    }
}

fn own_addresses(subject: &Subject, report: &mut Report) {
    for &(address, len) in &subject.addresses {
        let own = Cidr::host(address);
        if let Some(peer) = subject.peers.iter().find(|peer| peer.allowed.contains(&own)) {
            report.add(
                Kind::AddressIsPeers,
                format!(
                    "{address} is the address of {} itself, and an allowed IP of peer {}.",
                    subject.name, peer.name
                ),
                "Allowed IPs are the addresses of the other end: put its own there.",
            );
        }
        // A single address has no network, and that of a default route is reached anyway.
        let network = Cidr::new(address, len).filter(|network| *network != own);
        let covered = |network: &Cidr| {
            let meets = |allowed: Cidr| allowed.contains(network.addr()) || network.contains(allowed.addr());
            subject.networks().any(meets)
        };
        if let Some(network) = network.filter(|network| !covered(network)) {
            report.add(
                Kind::SubnetUnreachable,
                format!(
                    "{} is the network of {}'s address, and no peer has any of it: nobody in it can be reached.",
                    text(network),
                    subject.name
                ),
                "Add it to a peer's allowed IPs, or make the address a single one (/32 or /128).",
            );
        }
    }
    for v6 in [false, true] {
        let family = if v6 { "IPv6" } else { "IPv4" };
        let is = |ip: IpAddr| ip.is_ipv6() == v6;
        if !subject.addresses.is_empty()
            // All of a family is also sent there for nothing of it to go past the tunnel.
            && subject.networks().any(|network| is(network.addr()) && network.prefix_len() > 1)
            && !subject.addresses.iter().any(|(ip, _)| is(*ip))
        {
            report.add(
                Kind::AddressFamilyMissing,
                format!("Peers have allowed IPs of {family}, and {} has no address of it: what is sent there has no address to come from, or a wrong one.", subject.name),
                format!("Add an address of {family}, or take these allowed IPs out."),
            );
        }
    }
}

/// All of one family goes through the tunnel, and the other one past it.
fn leaks(subject: &Subject, report: &mut Report) {
    let [v4, v6] = [false, true].map(|v6| subject.takes_all(v6));
    let name = &subject.name;
    if v4 && !v6 {
        report.add(
            Kind::Ipv6Leak,
            format!("All of IPv4 goes through {name}, and IPv6 goes past it."),
            "Add ::/0 to the allowed IPs, or switch IPv6 off where it is not wanted.",
        );
    }
    if v6 && !v4 {
        report.add(
            Kind::Ipv4Leak,
            format!("All of IPv6 goes through {name}, and IPv4 goes past it."),
            "Add 0.0.0.0/0 to the allowed IPs.",
        );
    }
}

/// As it is written.
pub fn text(network: Cidr) -> String {
    config::address::CidrText(network).to_string()
}

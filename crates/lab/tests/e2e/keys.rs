//! Identities and who may speak for what, changed while the tunnel carries traffic.

use std::net::{IpAddr, SocketAddr};

use lab::wg::{KeyPair, preshared_key};
use lab::{End, Gso, Hook, Link, Namespace, Outer, Tap, Tunnel, ping, wait_until};

use crate::common::{
    SOON, Stream, check_pings, ends, introduce, ip, keep_addresses, messages_to, our_tunnel, wait_for_ping, wireloom,
};
use crate::engines::each_engine;

each_engine!(
    a_new_private_key_is_used_at_once,
    without_a_private_key_nothing_new_begins,
    a_peers_own_key_ends_the_peer,
    a_preshared_key_counts_from_the_next_handshake,
    a_peer_that_is_removed_and_added_again_is_new,
    all_peers_replaced_by_themselves_begin_anew,
    an_allowed_ip_moves_at_once_in_both_directions,
    replaced_allowed_ips_are_gone_at_once,
    nothing_is_sent_to_keys_of_low_order,
    a_longer_prefix_of_another_peers_takes_the_source_away,
);

fn comes_back(from: &End, to: &End) -> bool {
    ping::once(from.namespace(), to.v4.into(), &["-W", "1"]).unwrap().status.success()
}

/// Waits until datagrams of the stream that has been started go there and back.
#[track_caller]
fn wait_for_flow(tunnel: &Tunnel) {
    let (left, right) = (&tunnel.left, &tunnel.right);
    wait_until("the stream to flow", SOON, || left.peer(right).unwrap().received > 100_000).unwrap();
}

fn a_new_private_key_is_used_at_once() {
    let mut tunnel = our_tunnel();
    check_pings(&tunnel.left, &tunnel.right);
    let stream = Stream::start(&tunnel.left, &tunnel.right, 4);
    wait_for_flow(&tunnel);
    let old = std::mem::replace(&mut tunnel.left.keys, KeyPair::generate().unwrap());
    let (left, right) = (&tunnel.left, &tunnel.right);
    // The right end knows the new key first; it is not the peer that the traffic comes from, and takes no addresses yet.
    right.daemon.set(&["peer", &left.keys.public]).unwrap();
    left.daemon.set(&["private-key", &left.keys.private.path()]).unwrap();
    // The current session only receives now: what is sent next begins a handshake, and waits for it.
    right.add_peer(left, None, None).unwrap();
    right.daemon.set(&["peer", &old.public, "remove"]).unwrap();
    wait_until("a handshake", SOON, || right.peer(left).unwrap().handshake > 0).unwrap();
    // Lost is what the right end sent to the old identity meanwhile; far less than a retry, which is 1000 datagrams.
    stream.finish(200);
    check_pings(right, left);
    assert_eq!(right.daemon.status().unwrap().peers.len(), 1);
}

fn without_a_private_key_nothing_new_begins() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let handshakes = Tap::new(right.namespace(), Hook::Incoming, &messages_to(right, 1), "").unwrap();
    left.daemon.set(&["private-key", "/dev/null"]).unwrap();
    assert_eq!(left.daemon.status().unwrap().public_key, "(none)");
    // The session may receive, but not send, and there is no key for a new one.
    assert!(!comes_back(left, right));
    assert!(!comes_back(right, left));
    assert_eq!(handshakes.packets().unwrap(), 0);
    // With the key, what has waited is sent: the ping does not have to be repeated.
    let waiting = ping::start_patiently(left.namespace(), right.v4.into(), 1, "1").unwrap();
    left.daemon.set(&["private-key", &left.keys.private.path()]).unwrap();
    assert_eq!(ping::collect(waiting, SOON).unwrap().received, 1);
    assert!(handshakes.packets().unwrap() > 0);
    check_pings(right, left);
}

fn a_peers_own_key_ends_the_peer() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    left.daemon.set(&["private-key", &right.keys.private.path()]).unwrap();
    assert!(left.daemon.status().unwrap().peers.is_empty());
    assert!(!comes_back(left, right));
    // Nor can it be added: it is passed over without an error.
    left.add_peer(right, Some(right.endpoint(Outer::V4)), None).unwrap();
    assert!(left.daemon.status().unwrap().peers.is_empty());
    // As itself again it can.
    left.daemon.set(&["private-key", &left.keys.private.path()]).unwrap();
    left.add_peer(right, Some(right.endpoint(Outer::V4)), None).unwrap();
    wait_for_ping(left, right);
}

fn a_preshared_key_counts_from_the_next_handshake() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let stream = Stream::start(left, right, 3);
    wait_for_flow(&tunnel);
    // The session stands, whoever has the key.
    let key = preshared_key().unwrap();
    left.daemon.set(&["peer", &right.keys.public, "preshared-key", &key.path()]).unwrap();
    check_pings(left, right);
    right.daemon.set(&["peer", &left.keys.public, "preshared-key", &key.path()]).unwrap();
    stream.finish(10);

    // A new session is made with it, and only with it.
    let restart = |end: &End| {
        ip(end, &format!("link set {} down", end.daemon.interface));
        ip(end, &format!("link set {} up", end.daemon.interface));
    };
    restart(left);
    wait_for_ping(left, right);
    right.daemon.set(&["peer", &left.keys.public, "preshared-key", "/dev/null"]).unwrap();
    restart(left);
    assert!(!comes_back(left, right), "the right end has no such key any more");
    left.daemon.set(&["peer", &right.keys.public, "preshared-key", "/dev/null"]).unwrap();
    wait_for_ping(left, right);
}

fn a_peer_that_is_removed_and_added_again_is_new() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let stream = Stream::start(left, right, 3);
    wait_for_flow(&tunnel);
    left.daemon.set(&["peer", &right.keys.public, "remove"]).unwrap();
    left.add_peer(right, Some(right.endpoint(Outer::V4)), None).unwrap();
    // The left end sends, so it begins anew, and what it sends waits for that. The right end learns of it.
    stream.finish(100);
    let peer = left.peer(right).unwrap();
    assert!(peer.handshake > 0 && peer.sent < 3 * 200 * 800, "counted from the beginning: {peer:?}");
    check_pings(right, left);
}

fn all_peers_replaced_by_themselves_begin_anew() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let stream = Stream::start(left, right, 3);
    wait_for_flow(&tunnel);
    let file = tempfile(&lab::wg::show_config(&right.daemon.interface).unwrap());
    let initiations =
        [left, right].map(|end| Tap::new(end.namespace(), Hook::Incoming, &messages_to(end, 1), "").unwrap());
    let begun = || initiations.iter().map(|tap| tap.packets().unwrap()).sum::<u64>();
    // `setconf` replaces all peers, `syncconf` changes only what is different.
    for verb in ["syncconf", "setconf"] {
        let before = right.peer(left).unwrap().handshake;
        let mut command = std::process::Command::new("wg");
        command.args([verb, &right.daemon.interface]).arg(file.path());
        lab::run_checked(&mut command, SOON).unwrap();
        let after = right.peer(left).unwrap().handshake;
        match verb {
            "syncconf" => assert_eq!((after, begun()), (before, 0)),
            // There is none, or another: the right end may have had something to send.
            _ => assert!(after == 0 || begun() > 0, "the old session lives on"),
        }
    }
    // The right end echoes, and so begins anew as soon as something comes; the left end must notice first, by the new
    // handshake: the endpoint is in the configuration.
    drop(stream);
    wait_for_ping(right, left);
    wait_for_ping(left, right);
}

fn tempfile(text: &str) -> tempfile::NamedTempFile {
    use std::io::Write;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// A hub with two peers, on a link each.
struct Hub {
    hub: End,
    one: End,
    two: End,
}

fn hub() -> Hub {
    let [a, b, c] = [(); 3].map(|()| Namespace::new().unwrap());
    let to_b = Link::new(&a, &b, Gso::Through).unwrap();
    let to_c = Link::new(&a, &c, Gso::Through).unwrap();
    let (hub, one) = ends(&to_b.left, &to_b.right);
    let two = End::new(wireloom().start(&c).unwrap(), &to_c.right, 3).unwrap();
    two.bring_up(1420).unwrap();
    introduce(&hub, &one, Outer::V4);
    hub.add_peer(&two, Some(two.endpoint(Outer::V4)), None).unwrap();
    let hub_at = SocketAddr::from((to_c.left.v4, hub.listen_port));
    two.add_peer(&hub, Some(hub_at), None).unwrap();
    Hub { hub, one, two }
}

fn an_allowed_ip_moves_at_once_in_both_directions() {
    let Hub { hub, one, two } = hub();
    check_pings(&hub, &one);
    check_pings(&hub, &two);
    // Both have the address, as a service that is taken over; the hub decides whose it is.
    for end in [&one, &two] {
        ip(end, &format!("address add 10.77.1.1/32 dev {}", end.daemon.interface));
    }
    ip(&hub, &format!("route add 10.77.1.1/32 dev {}", hub.daemon.interface));
    let taps: Vec<Tap> = [&one, &two]
        .map(|end| Tap::new(end.namespace(), Hook::Incoming, "ip daddr 10.77.1.1", "").unwrap())
        .into_iter()
        .collect();
    let packets = || [taps[0].packets().unwrap(), taps[1].packets().unwrap()];
    let take = |end: &End| {
        let allowed = format!("{}/32,{}/128,10.77.1.1/32", end.v4, end.v6);
        hub.daemon.set(&["peer", &end.keys.public, "allowed-ips", &allowed])
    };
    let series = ping::start(hub.namespace(), [10, 77, 1, 1].into(), 200, "0.01").unwrap();
    let mut former = [0, 0];
    for (round, end) in [&one, &two, &one, &two].into_iter().enumerate() {
        take(end).unwrap();
        let before = packets();
        wait_until("pings to the new owner", SOON, || packets()[round % 2] > before[round % 2] + 5).unwrap();
        // A packet or two may have been on the way as the address moved.
        let (then, now) = (before[1 - round % 2], packets()[1 - round % 2]);
        assert!(now <= then + 2, "{now} - {then} packets to the former owner");
        former[1 - round % 2] = now;
    }
    let trips = ping::collect(series, SOON).unwrap();
    assert!(trips.received + 20 >= trips.sent, "{trips:?}");
    // The other direction: what the former owner sends from that address is dropped, the new owner's is taken.
    let from = |end: &End, seconds: &str| {
        let options = ["-I", "10.77.1.1", "-W", seconds];
        ping::once(end.namespace(), hub.v4.into(), &options).unwrap().status.success()
    };
    assert!(from(&two, "10"));
    let came = hub.counters().unwrap().received_packets;
    assert!(!from(&one, "1"));
    assert_eq!(hub.counters().unwrap().received_packets, came, "a packet from an address that is another peer's");
}

fn replaced_allowed_ips_are_gone_at_once() {
    let Hub { hub, one, .. } = hub();
    check_pings(&hub, &one);
    hub.daemon.set(&["peer", &one.keys.public, "allowed-ips", "10.99.0.0/24"]).unwrap();
    assert_eq!(hub.peer(&one).unwrap().allowed_ips, ["10.99.0.0/24"]);
    assert!(!comes_back(&hub, &one));
    let came = hub.counters().unwrap().received_packets;
    assert!(!comes_back(&one, &hub));
    assert_eq!(hub.counters().unwrap().received_packets, came);
    hub.add_peer(&one, None, None).unwrap();
    check_pings(&hub, &one);
    check_pings(&one, &hub);
}

/// The points of small order on Curve25519 and its twist, and those encodings of them that are not reduced (RFC 7748, section 7).
const LOW_ORDER: [&str; 7] = [
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA=",
    "X5yVvKNQjCSx0LFVnIPvWwREXMRYHI6G2CJO3dCfEVc=",
    "7P///////////////////////////////////////38=",
    "7f///////////////////////////////////////38=",
    "7v///////////////////////////////////////38=",
];

fn nothing_is_sent_to_keys_of_low_order() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let to = |port: u16| format!("{}:{port}", right.port.v4);
    let sent = Tap::new(left.namespace(), Hook::Outgoing, "udp dport 1111-1117", "").unwrap();
    for (port, key) in (1111..).zip(LOW_ORDER) {
        let allowed = format!("10.78.0.{}/32", port - 1110);
        left.daemon
            .set(&["peer", key, "persistent-keepalive", "1", "endpoint", &to(port), "allowed-ips", &allowed])
            .unwrap();
    }
    let interface = &left.daemon.interface;
    ip(left, &format!("route add 10.78.0.0/24 dev {interface}"));
    let status = left.daemon.status().unwrap();
    assert!(LOW_ORDER.iter().all(|key| status.peer(key).is_some_and(|peer| peer.keepalive == 1)));
    // What is sent to them waits in vain, and holds up nobody.
    for host in 1..=7 {
        let lost = ping::ping(left.namespace(), [10, 78, 0, host].into(), 3, "0.01", SOON).unwrap();
        assert_eq!(lost.received, 0);
    }
    // Through everything that makes a device send by itself.
    keep_addresses(left);
    ip(left, &format!("link set {interface} down"));
    ip(left, &format!("link set {interface} up"));
    ip(left, &format!("route add 10.78.0.0/24 dev {interface}"));
    left.daemon.set(&["private-key", "/dev/null"]).unwrap();
    left.daemon.set(&["private-key", &left.keys.private.path()]).unwrap();
    check_pings(left, right);
    assert_eq!(sent.packets().unwrap(), 0);
    // They can be told apart from nobody else, and be removed.
    for key in LOW_ORDER {
        left.daemon.set(&["peer", key, "remove"]).unwrap();
    }
    assert_eq!(left.daemon.status().unwrap().peers.len(), 1);
}

fn a_longer_prefix_of_another_peers_takes_the_source_away() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    for (network, address) in [("10.77.0.0/24", IpAddr::from(right.v4)), ("fd77::/64", IpAddr::from(right.v6))] {
        left.daemon.set(&["peer", &right.keys.public, "allowed-ips", network]).unwrap();
        let own = if address.is_ipv4() { IpAddr::from(left.v4) } else { left.v6.into() };
        let came = || left.counters().unwrap().received_packets;
        let send = || ping::once(right.namespace(), own, &["-W", "1"]).unwrap().status.success();
        assert!(send(), "{network}");
        // Somebody else has just this address now: what comes from it by this peer is not believed, but it is from the peer.
        let other = KeyPair::generate().unwrap().public;
        let only = format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
        left.daemon.set(&["peer", &other, "allowed-ips", &only]).unwrap();
        let port = format!("{}", 50_200 + u32::from(address.is_ipv6()));
        right.daemon.set(&["listen-port", &port]).unwrap();
        let before = came();
        assert!(!send(), "{network}");
        assert_eq!(came(), before);
        let endpoint = left.peer(right).unwrap().endpoint.unwrap();
        assert_eq!(endpoint.port().to_string(), port, "the peer has moved all the same");
        left.daemon.set(&["peer", &other, "remove"]).unwrap();
        assert!(send(), "{network}");
    }
}

//! Behind a router that translates addresses and soon forgets whom it did it for.

use std::time::Duration;

use lab::{End, Gso, Hook, Link, Namespace, Outer, Tap, ping, wait_until};

use crate::common::{SOON, Stream, check_pings, ends, ip, wait_for_ping};
use crate::engines::{each_engine, each_engine_and_mixed};

each_engine_and_mixed!(a_router_that_changes_ports_under_traffic_costs_little);

each_engine!(a_keepalive_keeps_the_way_in_open, a_new_port_of_the_router_is_followed);

/// For how long the router remembers a flow, in seconds: longer than a keepalive of one second can be late on a machine that does much else,
/// and shorter than the ten seconds after which an end that owes an answer sends a keepalive.
const MEMORY: u64 = 5;

/// Left, router, right. The right host knows no way to the left one but through the router's translation.
struct Behind {
    router: Namespace,
    left: End,
    right: End,
    /// The router's address on the right side.
    outside: String,
    translation: Tap,
}

impl Behind {
    fn new() -> Behind {
        let [a, router, b] = [(); 3].map(|()| Namespace::new().unwrap());
        let inside = Link::new(&a, &router, Gso::Through).unwrap();
        let outside = Link::new(&router, &b, Gso::Through).unwrap();
        router.set_sysctl("net/ipv4/ip_forward", "1").unwrap();
        // Netfilter's times, in seconds, before and after there was traffic in both directions.
        let translation = translate(&router, 40_001);
        for name in ["udp_timeout", "udp_timeout_stream"] {
            router.set_sysctl(&format!("net/netfilter/nf_conntrack_{name}"), &MEMORY.to_string()).unwrap();
        }
        let (left, right) = ends(&inside.left, &outside.right);
        ip(&left, &format!("route add default via {}", inside.right.v4));
        left.add_peer(&right, Some(right.endpoint(Outer::V4)), None).unwrap();
        right.add_peer(&left, None, None).unwrap();
        // Nothing that does not belong to a flow begun from inside comes in.
        let closed = "ct state new iifname != ".to_owned() + &inside.right.interface;
        Tap::new(&router, Hook::Forwarded, &closed, "drop").unwrap();
        Behind { router, left, right, outside: outside.left.v4.to_string(), translation }
    }

    /// Where the right end sees the left one.
    fn seen_at(&self) -> String {
        self.right.peer(&self.left).unwrap().endpoint.unwrap().to_string()
    }

    fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.outside)
    }

    /// Nothing passes for longer than the router remembers. How many flows it knows does not tell: it keeps old ones in its
    /// table until it comes across them.
    fn forget(&self) {
        std::thread::sleep(Duration::from_secs(MEMORY) + Duration::from_millis(500));
    }
}

/// From now on, new flows leave by this port.
fn translate(router: &Namespace, port: u16) -> Tap {
    Tap::new(router, Hook::Leaving, "udp dport 51822", &format!("masquerade to :{port}")).unwrap()
}

fn comes_back(from: &End, to: &End, seconds: &str) -> bool {
    ping::once(from.namespace(), to.v4.into(), &["-W", seconds]).unwrap().status.success()
}

fn a_keepalive_keeps_the_way_in_open() {
    let net = Behind::new();
    let (left, right) = (&net.left, &net.right);
    left.daemon.set(&["peer", &right.keys.public, "persistent-keepalive", "1"]).unwrap();
    check_pings(left, right);
    assert_eq!(net.seen_at(), net.at(40_001));
    // Longer than the router remembers.
    std::thread::sleep(Duration::from_secs(MEMORY + 1));
    assert!(comes_back(right, left, "10"));
    assert_eq!(net.seen_at(), net.at(40_001));
}

fn a_new_port_of_the_router_is_followed() {
    let mut net = Behind::new();
    check_pings(&net.left, &net.right);
    assert_eq!(net.seen_at(), net.at(40_001));
    // What the timers owe (a keepalive after ten seconds at most) would open the way again.
    net.forget();
    assert!(!comes_back(&net.right, &net.left, "1"), "the router lets anybody in");

    let translation = translate(&net.router, 40_002);
    std::mem::replace(&mut net.translation, translation).remove().unwrap();
    let before = net.right.peer(&net.left).unwrap().handshake;
    assert!(comes_back(&net.left, &net.right, "10"));
    assert_eq!(net.seen_at(), net.at(40_002));
    assert!(comes_back(&net.right, &net.left, "10"));
    assert_eq!(net.right.peer(&net.left).unwrap().handshake, before, "the session lives on");
}

fn a_router_that_changes_ports_under_traffic_costs_little() {
    let mut net = Behind::new();
    let (left, right) = (&net.left, &net.right);
    check_pings(left, right);
    let stream = Stream::start(left, right, 3);
    wait_until("the stream to flow", SOON, || left.peer(right).unwrap().sent > 100_000).unwrap();
    // The left host's own port changes, and so the router begins a new flow: from another port of its own.
    let translation = translate(&net.router, 40_003);
    std::mem::replace(&mut net.translation, translation).remove().unwrap();
    left.daemon.set(&["listen-port", "50100"]).unwrap();
    wait_until("the right end to follow", SOON, || net.seen_at() == net.at(40_003)).unwrap();
    stream.finish(40);
    wait_for_ping(right, left);
}

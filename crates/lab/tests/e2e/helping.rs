//! Workers that help each other: one flow by several threads, and never out of order.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use lab::traffic::{Service, UdpPlan, exchange_tcp, finish_udp, start_udp};
use lab::{End, Gso, TunnelSpec};

use crate::common::{BYTES, LIMIT, check_pings, check_traffic, spec};

/// How often each worker of an end has gone to sleep so far.
fn sleeps(end: &End) -> BTreeMap<String, u64> {
    let folder = format!("/proc/{}/task", end.daemon.process.id());
    let mut sleeps = BTreeMap::new();
    for task in fs::read_dir(&folder).unwrap() {
        // A thread that is no worker may have ended since it was listed.
        let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else { continue };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let name = field("Name:");
        if name.starts_with("worker-") {
            sleeps.insert(name, field("voluntary_ctxt_switches:").parse().unwrap());
        }
    }
    sleeps
}

/// How many workers but the busiest, whose the flow is, have been awake again and again since `before`.
fn active(before: &BTreeMap<String, u64>, end: &End) -> usize {
    let woken = |(name, count): (String, u64)| count - before[&name];
    let mut woken: Vec<u64> = sleeps(end).into_iter().map(woken).collect();
    woken.sort_unstable();
    woken.pop();
    // Pings and handshakes wake one now and then.
    woken.into_iter().filter(|count| *count > 100).count()
}

#[test]
fn one_flow_keeps_its_order_whoever_helps() {
    for (helping, helped) in [("never", false), ("forced", true)] {
        // With GRO at the receiver a veth has one queue: the link itself does not reorder, whichever core sends. Each datagram is a
        // job of its own at both ends, and helpers are called whenever there are two.
        let arguments = vec!["--workers", "4", "--helping", helping, "--no-udp-gro"];
        let tunnel = TunnelSpec { gso: Gso::Off, arguments, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        let before = (sleeps(left), sleeps(right));
        let (mut received, mut workers) = (0, (0, 0));
        // Once is nearly always enough; a machine that is busy with other things may need more.
        for _ in 0..10 {
            check_pings(left, right);
            let _service = Service::start(right.namespace()).unwrap();
            let plan = UdpPlan { flows: 1, count: 40_000, size: 1000, gap: Duration::ZERO, echo: false };
            let outcome = finish_udp(start_udp(left.namespace(), right.v4.into(), &plan).unwrap(), LIMIT).unwrap();
            assert_eq!((outcome.service.late, outcome.service.corrupt), (0, 0), "{helping}: {outcome:?}");
            // A queue that is full may drop; what is left must be enough to tell.
            received += outcome.service.received;
            workers = (active(&before.0, left), active(&before.1, right));
            if received > 5_000 && (!helped || (workers.0 > 0 && workers.1 > 0)) {
                break;
            }
        }
        eprintln!("{helping}: {received} received, {workers:?} other workers were active");
        assert!(received > 5_000, "{helping}: {received}");
        assert_eq!((workers.0 > 0, workers.1 > 0), (helped, helped), "{helping}: {workers:?}");
    }
}

#[test]
fn much_at_once_is_whole_and_in_order_whoever_helps() {
    let arguments = vec!["--workers", "3", "--helping", "forced"];
    let tunnel = TunnelSpec { gso: Gso::Off, arguments, ..spec() }.build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_traffic(left, right);
    let _there = Service::start(right.namespace()).unwrap();
    let _back = Service::start(left.namespace()).unwrap();
    let plan = UdpPlan { flows: 6, count: 4_000, size: 400, gap: Duration::from_micros(300), echo: true };
    let one = start_udp(left.namespace(), right.v4.into(), &plan).unwrap();
    let two = start_udp(right.namespace(), left.v6.into(), &plan).unwrap();
    exchange_tcp(left.namespace(), right.v4.into(), BYTES, LIMIT).unwrap();
    // Sockets are replaced while helpers may be using them.
    for port in [50_001, 50_002, 50_003] {
        right.daemon.set(&["listen-port", &port.to_string()]).unwrap();
    }
    exchange_tcp(right.namespace(), left.v6.into(), BYTES, LIMIT).unwrap();
    for process in [one, two] {
        let outcome = finish_udp(process, LIMIT).unwrap();
        let (service, echoes) = (outcome.service, outcome.echoes);
        assert_eq!((service.late, echoes.late), (0, 0), "{outcome:?}");
        assert_eq!((service.corrupt, echoes.corrupt), (0, 0), "{outcome:?}");
        assert!(service.received > outcome.sent / 4, "{outcome:?}");
    }
}

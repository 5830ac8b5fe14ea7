//! What waits and what wakes: the interface's queue, threads that look for work before they sleep, and sleep itself.

use std::time::Duration;

use lab::traffic::{Service, UdpPlan, exchange_tcp, exchange_udp};
use lab::usage::{process_cpu, sleeps};
use lab::{End, TunnelSpec, ping, wait_for, wait_until};

use super::common::{LIMIT, check_pings, our_tunnel, spec};
use crate::engines::each_engine;

each_engine!(small_packets_after_bulk_are_not_lost, a_tunnel_at_rest_sleeps);

/// Packets that the kernel did not queue for the daemon.
fn refused(end: &End) -> u64 {
    let file = format!("/sys/class/net/{}/statistics/tx_dropped", end.daemon.interface);
    let read = lab::run_checked(end.namespace().command("cat").arg(file), LIMIT).unwrap();
    read.trim().parse().unwrap()
}

/// The kernel drops whatever comes while the length of an interface's queue is changed, so nothing may change it on account of what is sent.
/// The sender waits for echoes and so never fills a queue.
fn small_packets_after_bulk_are_not_lost() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    let _service = Service::start(right.namespace()).unwrap();
    exchange_tcp(left.namespace(), right.v4.into(), 100_000_000, LIMIT).unwrap();
    let before = [refused(left), refused(right)];
    let plan = UdpPlan { flows: 1, count: 20_000, size: 64, gap: Duration::ZERO, echo: true };
    let outcome = exchange_udp(left.namespace(), right.v4.into(), &plan, LIMIT).unwrap();
    assert_eq!([refused(left), refused(right)], before, "{outcome:?}");
    assert_eq!((outcome.sent, outcome.echoes.received), (20_000, 20_000), "{outcome:?}");
}

#[test]
fn busy_polling_does_not_sleep_between_packets_and_does_after_them() {
    let slept = |arguments: &[&'static str]| {
        let arguments = [&["--workers", "1"], arguments].concat();
        let tunnel = TunnelSpec { arguments, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        check_pings(left, right);
        let pid = right.daemon.process.id();
        let before = sleeps(pid).unwrap();
        let series = ping::start(left.namespace(), right.v4.into(), 500, "0.002").unwrap();
        assert_eq!(ping::collect(series, LIMIT).unwrap().received, 500);
        let slept = sleeps(pid).unwrap() - before;
        // It may poll for 10 ms.
        let mut last = (0, Duration::ZERO);
        wait_until("the daemon to come to rest", LIMIT, || {
            std::thread::sleep(Duration::from_millis(500));
            let now = (sleeps(pid).unwrap(), process_cpu(pid).unwrap());
            std::mem::replace(&mut last, now) == now
        })
        .unwrap();
        slept
    };
    // Two in a round trip without: when the packet has been seen to, and when the answer has.
    let (without, with) = (slept(&[]), slept(&["--busy-poll", "10000"]));
    assert!(without >= 250, "{without}");
    assert!(with <= 50, "{with}, and {without} without");
}

fn a_tunnel_at_rest_sleeps() {
    let tunnel = our_tunnel();
    let ends = [&tunnel.left, &tunnel.right];
    for end in ends {
        // Else the kernel would send something itself now and then.
        end.namespace().set_sysctl(&format!("net/ipv6/conf/{}/disable_ipv6", end.daemon.interface), "1").unwrap();
    }
    assert!(ping::once(ends[0].namespace(), ends[1].v4.into(), &["-c", "3"]).unwrap().status.success());
    // The last of the timers that the traffic started is over after 25 s.
    wait_for("10 s without a wake-up", Duration::from_secs(45), || {
        let slept = || ends.map(|end| sleeps(end.daemon.process.id()).unwrap());
        let before = slept();
        std::thread::sleep(Duration::from_secs(10));
        Ok((slept() == before).then_some(()))
    })
    .unwrap();
}

//! A tunnel that outlives its first session. Nobody can hurry a stock peer, whose sessions last 120 s, so that all pairs wait
//! side by side.

use std::time::Duration;

use lab::traffic::{Service, UdpPlan, exchange_tcp, finish_udp, start_udp};
use lab::{Endpoints, Engine, System, Tunnel, TunnelSpec, wait_until};

use crate::common::{LIMIT, SOON, check_pings, wireloom};

/// Datagrams per second through each tunnel.
const RATE: u64 = 20;

/// REKEY_AFTER_TIME, and time for the handshake after it.
const SECONDS: u64 = 128;

/// How many datagrams of a tunnel may be lost, there and back: half a second's worth, on a machine that does much else. A rekey
/// that stalled the tunnel would cost at least a retry, five seconds.
const MAY_BE_LOST: u64 = RATE / 2;

#[test]
fn every_pair_goes_on_without_a_gap() {
    let [ours, ebpf] = [Engine::Userspace, Engine::Ebpf].map(|engine| wireloom().with(engine));
    let mut pairs = vec![(ours.clone(), ebpf.clone()), (ebpf.clone(), ours.clone())];
    for ours in [ours, ebpf] {
        pairs.push((ours.clone(), ours.clone()));
        for peer in System::peers() {
            pairs.push((ours.clone(), peer.clone()));
            pairs.push((peer, ours.clone()));
        }
    }
    let tunnels: Vec<Tunnel> = pairs
        .iter()
        .map(|(left, right)| {
            TunnelSpec { preshared: true, endpoints: Endpoints::OnlyLeft, ..TunnelSpec::new(left, right) }
                .build()
                .unwrap()
        })
        .collect();

    let plan =
        UdpPlan { flows: 1, count: RATE * SECONDS, size: 300, gap: Duration::from_millis(1000 / RATE), echo: true };
    let mut runs = Vec::new();
    for ((left, right), tunnel) in pairs.iter().zip(tunnels) {
        // The first session is made before anything is counted.
        check_pings(&tunnel.left, &tunnel.right);
        let service = Service::start(tunnel.right.namespace()).unwrap();
        let before = our_handshake(left, &tunnel);
        let to = tunnel.right.v4.into();
        let traffic = start_udp(tunnel.left.namespace(), to, &plan).unwrap();
        let name = format!("{} to {}", left.name(), right.name());
        runs.push((name, left, right, before, traffic, service, tunnel));
    }

    let limit = Duration::from_secs(SECONDS) + LIMIT;
    for (name, left, right, before, traffic, _service, tunnel) in runs {
        let outcome = finish_udp(traffic, limit).unwrap();
        eprintln!("{name}: {outcome:?}");
        assert!(outcome.lost() <= MAY_BE_LOST, "{name}: {outcome:?}");
        let back = outcome.sent - outcome.echoes.received;
        assert!(back <= MAY_BE_LOST, "{name}: {outcome:?}");
        assert_eq!(outcome.service.corrupt + outcome.echoes.corrupt, 0);
        wait_until(&format!("{name}: a second handshake"), SOON, || our_handshake(left, &tunnel) > before + 100)
            .unwrap();
        for (end, system) in [(&tunnel.left, left), (&tunnel.right, right)] {
            if end.daemon.engine == Engine::Ebpf {
                let (sent, received) = end.daemon.taken().unwrap();
                assert!(sent.min(received) > RATE * SECONDS * 9 / 10, "{name}: {}: {sent}, {received}", system.name());
            }
        }
        // The new session carries the full load too, in both directions.
        let to = tunnel.right.v6.into();
        exchange_tcp(tunnel.left.namespace(), to, 2_000_000, LIMIT).unwrap();
    }
}

/// The latest handshake as our end tells it, in seconds since 1970.
fn our_handshake(left: &System, tunnel: &Tunnel) -> u64 {
    let peer = match left {
        left if left.is_ours() => tunnel.left.peer(&tunnel.right),
        _ => tunnel.right.peer(&tunnel.left),
    };
    peer.unwrap().handshake
}

//! What several tests need.

use std::time::Duration;

use lab::traffic::{Service, UdpPlan, exchange_tcp, exchange_udp};
use lab::{End, System, Tunnel, TunnelSpec, ping, wait_until};

/// Bytes per TCP exchange and direction: a few hundred super-packets.
pub const BYTES: u64 = 8_000_000;

/// The bound of anything that should take a second or two, on a machine that does much else.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The bound of a daemon's reaction to something.
pub const SOON: Duration = Duration::from_secs(15);

/// Ours.
pub fn wireloom() -> System {
    System::wireloom().unwrap()
}

/// A tunnel of ours at both ends.
pub fn our_tunnel() -> Tunnel {
    spec().build().unwrap()
}

/// What [`our_tunnel`] is made from, to be changed.
pub fn spec() -> TunnelSpec {
    let ours = wireloom();
    TunnelSpec::new(&ours, &ours)
}

/// Pings the other end in both families. The very first one may be lost to a peer that keeps nothing while it shakes hands.
#[track_caller]
pub fn check_pings(from: &End, to: &End) {
    for address in to.inner() {
        let trips = ping::ping(from.namespace(), address, 5, "0.2", LIMIT).unwrap();
        assert!(trips.received >= 4, "{address}: {trips:?}");
    }
}

/// Whether one ping to the other end comes back, asked again and again until `SOON`.
#[track_caller]
pub fn wait_for_ping(from: &End, to: &End) {
    let what = format!("a ping from {} to {}", from.v4, to.v4);
    wait_until(&what, SOON, || {
        ping::once(from.namespace(), to.v4.into(), &["-W", "1"]).is_ok_and(|finished| finished.status.success())
    })
    .unwrap();
}

/// Ping, TCP and UDP in both families and both directions, everything checked. `from` begins.
#[track_caller]
pub fn check_traffic(from: &End, to: &End) {
    check_pings(from, to);
    let _service = Service::start(to.namespace()).unwrap();
    for address in to.inner() {
        exchange_tcp(from.namespace(), address, BYTES, LIMIT).unwrap();
        let plan = UdpPlan { flows: 2, count: 300, size: 1200, gap: Duration::from_millis(2), echo: true };
        let outcome = exchange_udp(from.namespace(), address, &plan, LIMIT).unwrap();
        assert_eq!(outcome.service.corrupt + outcome.echoes.corrupt, 0);
        // UDP may lose, on a machine with more to do than it has cores; a tunnel that works loses next to nothing.
        assert!(outcome.echoes.received > 550, "{address}: {outcome:?}");
    }
}

/// Checks that both ends count the same handshake, and traffic in both directions.
#[track_caller]
pub fn check_status(one: &End, other: &End) {
    for (here, there) in [(one, other), (other, one)] {
        let peer = here.peer(there).unwrap();
        assert!(peer.received > BYTES && peer.sent > BYTES, "{peer:?}");
    }
}

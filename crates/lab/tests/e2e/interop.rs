//! Every peer against ours: who begins, IPv4 and IPv6 outside and inside, with a preshared key and without.

use lab::{Endpoints, Engine, Outer, System, TunnelSpec};

use crate::common::{both, check_status, check_traffic, wireloom};
use crate::engines::{each_engine, each_engine_and_mixed, engine};

each_engine_and_mixed!(ours_with_ours);

each_engine!(
    ours_begins_with_wireguard_go,
    wireguard_go_begins_with_ours,
    ours_begins_with_boringtun,
    boringtun_begins_with_ours,
    ours_begins_with_gotatun,
    gotatun_begins_with_ours,
);

/// The left end begins, and is the only one that knows where the other is.
fn check(left: &System, right: &System) {
    for outer in [Outer::V4, Outer::V6] {
        for preshared in [false, true] {
            if engine() == Engine::Ebpf && preshared != (outer == Outer::V6) {
                // The programs are given keys of sessions, and know nothing of how those came about.
                continue;
            }
            eprintln!("{outer:?} outside, preshared key: {preshared}");
            let tunnel =
                TunnelSpec { outer, preshared, endpoints: Endpoints::OnlyLeft, ..TunnelSpec::new(left, right) }
                    .build()
                    .unwrap();
            check_traffic(&tunnel.left, &tunnel.right);
            check_status(&tunnel.left, &tunnel.right);
            // boringtun does not tell `wg` of handshakes: ours is asked, and is at one of the ends.
            let ours = match left {
                ours if ours.is_ours() => tunnel.left.peer(&tunnel.right),
                _ => tunnel.right.peer(&tunnel.left),
            };
            assert!(ours.unwrap().handshake > 0);
        }
    }
}

fn ours_with_ours() {
    let [left, right] = both();
    check(&left, &right);
}

fn ours_begins_with_wireguard_go() {
    check(&wireloom(), &System::WireguardGo);
}

fn wireguard_go_begins_with_ours() {
    check(&System::WireguardGo, &wireloom());
}

fn ours_begins_with_boringtun() {
    check(&wireloom(), &System::Boringtun);
}

fn boringtun_begins_with_ours() {
    check(&System::Boringtun, &wireloom());
}

fn ours_begins_with_gotatun() {
    check(&wireloom(), &System::Gotatun);
}

fn gotatun_begins_with_ours() {
    check(&System::Gotatun, &wireloom());
}

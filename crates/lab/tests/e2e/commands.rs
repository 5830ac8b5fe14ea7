//! The lab itself: daemons that are given as a command, and datagrams in batches.

use std::net::IpAddr;
use std::time::Duration;

use lab::traffic::blast::{BlastPlan, blast};
use lab::{IFNAME, LabError, Namespace, System, TunnelSpec, socket_path};

use crate::common::{wait_for_ping, wireloom};

fn command(words: &[&str]) -> System {
    System::Command(words.iter().map(|word| (*word).to_owned()).collect())
}

#[test]
fn a_command_may_stay_or_go_to_the_background_and_is_ended() {
    let program = wireloom().program().unwrap().display().to_string();
    for words in [
        &["env", "LOG_LEVEL=error", &program, "run", "-f", IFNAME][..],
        &[&program, "run", IFNAME],
        &["sh", "-c", &format!("{program} run -f {IFNAME}; true")],
    ] {
        let namespace = Namespace::new().unwrap();
        let daemon = command(words).start(&namespace).unwrap();
        assert!(daemon.status().unwrap().peers.is_empty(), "{words:?}");
        assert!(!namespace.pids().is_empty(), "{words:?}");
        let interface = daemon.interface.clone();
        drop(daemon);
        assert_eq!(namespace.pids(), [0_u32; 0], "{words:?}");
        assert!(!socket_path(&interface).exists(), "{words:?}");
        assert!(namespace.ip(&["link", "show", "dev", &interface]).is_err(), "{words:?}");
    }
}

#[test]
fn a_command_that_does_nothing_is_told_of() {
    let namespace = Namespace::new().unwrap();
    let fails = |words: &[&str]| command(words).start(&namespace).err().unwrap();
    assert!(matches!(fails(&["no-such-program", IFNAME]), LabError::Missing { .. }));
    assert!(matches!(fails(&["/no/such/program", IFNAME]), LabError::Missing { .. }));
    assert!(matches!(fails(&["false", IFNAME]), LabError::Died { .. }));
    assert!(matches!(fails(&["true", IFNAME]), LabError::Died { .. }));
}

#[test]
fn batches_of_datagrams_come_through_a_tunnel() {
    let tunnel = TunnelSpec::new(&wireloom(), &wireloom()).build().unwrap();
    wait_for_ping(&tunnel.left, &tunnel.right);
    let (from, to) = (tunnel.left.namespace(), tunnel.right.namespace());
    for (address, size) in [(IpAddr::from(tunnel.right.v4), 64), (tunnel.right.v6.into(), 1300)] {
        let plan = BlastPlan { size, rate: Some(2000), time: Duration::from_millis(300) };
        let outcome = blast(from, to, address, &plan).unwrap();
        assert!((1..=700).contains(&outcome.sent), "{outcome:?}");
        // As few as these get lost on no machine.
        assert_eq!((outcome.received, outcome.late), (outcome.sent, 0), "{outcome:?}");
    }
    // Nobody listens to what this is sent to, and that is no reason to wait for ever.
    let nowhere = IpAddr::from([10, 77, 0, 99]);
    let plan = BlastPlan { size: 64, rate: Some(1000), time: Duration::from_millis(50) };
    assert_eq!(blast(from, to, nowhere, &plan).map_or(0, |outcome| outcome.received), 0);
}

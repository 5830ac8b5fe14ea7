//! The lab itself: daemons that are given as a command, and datagrams in batches. And what becomes of a command of ours that is none.

use std::net::IpAddr;
use std::time::Duration;

use lab::traffic::blast::{BlastPlan, blast};
use lab::{IFNAME, LabError, Namespace, System, TunnelSpec, run, socket_path};

use crate::bed::{Bed, failed, succeeded};
use crate::common::{LIMIT, wait_for_ping, wireloom};

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
fn a_slip_in_a_command_makes_no_interface() {
    let bed = Bed::new();
    let links = || bed.namespace.ip(&["-br", "link"]).unwrap();
    let without = |words: &[&str]| {
        let mut command = bed.command(wireloom().program().unwrap());
        run(command.env_remove("WG_QUICK_USERSPACE_IMPLEMENTATION").args(words), LIMIT).unwrap()
    };
    let refused = without(&["hsow"]);
    assert_eq!((refused.status.code(), refused.log().lines().count()), (Some(1), 1), "{}", refused.log());
    assert!(failed(refused).starts_with("wireloom: 'hsow' is no command, expected `wireloom show`"));
    assert!(!links().contains("hsow"));
    // It is one where somebody says so: by a file, by the command, or since it is wg-quick that asks. And names are names.
    bed.write("/etc/wireguard/hsow.conf", 0o600, "[Interface]\n");
    for (words, name) in [(&["hsow"][..], "hsow"), (&["run", "dwon"], "dwon"), (&["wg0"], "wg0")] {
        succeeded(without(words));
        assert!(links().contains(name), "{words:?}");
        bed.namespace.ip(&["link", "delete", name]).unwrap();
        bed.wait_until_idle().unwrap();
    }
    succeeded(bed.wireloom(&["rnu"]));
    assert!(links().contains("rnu"));
    bed.namespace.ip(&["link", "delete", "rnu"]).unwrap();
    bed.wait_until_idle().unwrap();
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

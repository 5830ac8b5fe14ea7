//! Programs as filters of `clsact`, as on kernels before 6.6, which nobody takes away with the last descriptor: whose they are, and what becomes of
//! them when the daemon and its steward are killed.

use std::process::Command;

use lab::{Daemon, End, Outer, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::{LIMIT, SOON, spec, wait_for_ping, wireloom};

const ARGUMENTS: [&str; 4] = ["--engine", "ebpf", "--hooks", "filter"];

/// For which interfaces there are filters of ours where the end's packets come in.
fn filters(end: &End, underlay: &str) -> Vec<u32> {
    let text = end.namespace().run("tc", &["filter", "show", "dev", underlay, "ingress"]).unwrap();
    let ours = text.lines().filter(|line| line.contains(" wireloom "));
    let handle = |line: &str| {
        let (_, rest) = line.split_once(" handle 0x").unwrap_or_else(|| panic!("{line}"));
        u32::from_str_radix(rest.split(' ').next().unwrap(), 16).unwrap()
    };
    let mut handles: Vec<u32> = ours.map(handle).collect();
    handles.sort();
    handles
}

fn index(end: &End) -> u32 {
    let path = format!("/sys/class/net/{}/ifindex", end.daemon.interface);
    end.namespace().run("cat", &[&path]).unwrap().trim().parse().unwrap()
}

fn sorted<const N: usize>(mut indices: [u32; N]) -> [u32; N] {
    indices.sort();
    indices
}

#[test]
fn filters_of_the_dead_are_taken_away_and_those_of_the_living_stay() {
    let mut spec = spec();
    spec.arguments = ARGUMENTS.to_vec();
    let mut tunnel = spec.build().unwrap();
    let (left, right) = (&tunnel.left, &mut tunnel.right);
    wait_for_ping(left, right);
    let underlay = tunnel.link.right.interface.clone();
    // The daemon itself may have carried the ping.
    wait_until("a filter", SOON, || filters(right, &underlay) == [index(right)]).unwrap();
    // Another tunnel of the same host, by the same underlay.
    let adjust = |command: &mut Command| {
        command.args(ARGUMENTS);
    };
    let other = wireloom().start_with(right.namespace(), adjust).unwrap();
    let other = End::new(other, &tunnel.link.right, 7).unwrap();
    other.bring_up(1420).unwrap();
    other.add_peer(left, Some(left.endpoint(Outer::V4)), None).unwrap();
    let both = sorted([index(right), index(&other)]);
    wait_until("a filter for each", SOON, || filters(right, &underlay) == both).unwrap();

    // Killed together with its steward: the interface goes, and its filter is nobody's.
    let id = right.daemon.process.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let steward = Pid::from_raw(children.trim().parse().expect("one child, the steward")).unwrap();
    kill_process(steward, Signal::KILL).unwrap();
    right.daemon.process.signal(Signal::KILL);
    right.daemon.process.wait(LIMIT).unwrap();
    let link = ["link", "show", "dev", &right.daemon.interface];
    wait_until("the interface to go", SOON, || right.namespace().ip(&link).is_err()).unwrap();
    assert_eq!(filters(right, &underlay), both);

    let (namespace, interface) = (right.daemon.namespace.clone(), right.daemon.interface.clone());
    let mut command = wireloom().command(&namespace, &interface).unwrap();
    let next = Daemon::start(command.args(ARGUMENTS), &namespace, &interface).unwrap();
    // Dropping the one before would take away what is the next one's now.
    std::mem::forget(std::mem::replace(&mut right.daemon, next));
    right.bring_up(1420).unwrap();
    right.add_peer(left, Some(left.endpoint(Outer::V4)), None).unwrap();
    let both = sorted([index(right), index(&other)]);
    wait_until("a filter for each", SOON, || filters(right, &underlay) == both).unwrap();
}

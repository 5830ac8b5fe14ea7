//! The kernel's own WireGuard, in guests that run real kernels: the peer that all others are measured by.

mod inside;
mod interop;
mod load;
pub mod pair;
mod restart;
mod state;

use std::time::Duration;

use lab::{Guest, Kernel, LabError, Namespace};

/// The harness itself: what it says of a guest is so.
fn runs_commands(kernel: Kernel) {
    let namespace = Namespace::new().unwrap();
    let guest = Guest::boot(kernel, &namespace).unwrap();
    assert_eq!(guest.run("uname -r").unwrap().trim(), guest.release);
    assert!(guest.release.starts_with(kernel.series()), "{}", guest.release);
    let failed = guest.attempt("echo out; echo err >&2; exit 7", Duration::from_secs(20)).unwrap();
    assert_eq!((&*failed.stdout, &*failed.stderr, failed.status.code()), ("out\n", "err\n", Some(7)));
    assert!(matches!(guest.run("false"), Err(LabError::Failed { .. })));
    // Side by side, and answered in the order of their ends; a process left behind keeps nobody waiting.
    let slow = guest.start("sleep 1; echo slow").unwrap();
    assert_eq!(guest.run("sleep 1000 & echo quick").unwrap(), "quick\n");
    assert_eq!(slow.finish(Duration::from_secs(20)).unwrap().stdout, "slow\n");
    // What has lost its parent is buried.
    guest
        .run("pid=$(sh -c 'sleep 0.2 > /dev/null & echo $!'); while [ -d /proc/$pid ]; do usleep 10000; done")
        .unwrap();
    // More than any buffer on the way.
    let many = guest.run("seq 100000").unwrap();
    assert_eq!((many.lines().count(), many.lines().last()), (100_000, Some("100000")));
    guest.write("/tmp/file", b"\0bytes\n").unwrap();
    assert_eq!(guest.run("cat /tmp/file").unwrap(), "\0bytes\n");
    namespace.run("ping", &["-n", "-c", "2", "-i", "0.2", &guest.v4.to_string()]).unwrap();
    namespace.run("ping", &["-n", "-c", "2", "-i", "0.2", &guest.v6.to_string()]).unwrap();
    guest.run("ip link add wg0 type wireguard && wg show wg0 && ip link del wg0").unwrap();
    // One that ends is told from one that is slow.
    assert!(matches!(guest.run("poweroff -f; sleep 100"), Err(LabError::Died { .. })));
}

#[test]
fn linux_6_1_runs_commands() {
    runs_commands(Kernel::V6_1);
}

#[test]
fn linux_6_12_runs_commands() {
    runs_commands(Kernel::V6_12);
}

//! WireGuard, by whom it may be.

use crate::check;
use lab::subject;

#[test]
fn ours_as_it_comes() {
    check::carries("wireloom");
}

#[test]
fn ours_inline_only() {
    check::carries("wireloom-inline");
}

#[test]
fn ours_with_programs_in_the_kernel() {
    check::carries("wireloom-ebpf");
}

#[test]
fn ours_with_another_aead() {
    check::carries("wireloom-ring");
}

#[test]
fn wireguard_go() {
    check::carries("wireguard-go");
}

#[test]
fn boringtun() {
    check::carries("boringtun");
}

#[test]
fn gotatun() {
    check::carries("gotatun");
}

#[test]
fn ours_leaves_nothing_half_way() {
    check::fails_cleanly("wireloom");
}

#[test]
fn ours_with_programs_in_the_kernel_leaves_nothing_half_way() {
    // Here the second daemon has just been started.
    check::fails_cleanly_from("wireloom-ebpf", 11);
}

#[test]
fn others_leave_nothing_half_way() {
    check::fails_cleanly("wireguard-go");
}

/// With a kernel that has it, it works, and with another it says so.
#[test]
fn the_kernels() {
    match subject::named("kernel").unwrap().available() {
        Ok(_) => check::carries("kernel"),
        Err(missing) => assert!(missing.what.contains("has no WireGuard"), "{missing}"),
    }
}

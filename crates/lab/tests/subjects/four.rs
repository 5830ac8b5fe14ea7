//! Source, two gateways and a drain.

use crate::check;
use lab::Shape;

#[test]
fn gateways_forward_without_a_tunnel() {
    check::carries_on("none", Shape::Four, 2);
}

#[test]
fn gateways_forward_by_ours() {
    check::carries_on("wireloom", Shape::Four, 3);
}

#[test]
fn gateways_forward_by_programs_in_the_kernel() {
    check::carries_on("wireloom-ebpf", Shape::Four, 3);
}

#[test]
fn gateways_forward_by_openvpn() {
    check::carries_on("openvpn-aes", Shape::Four, 2);
}

#[test]
fn gateways_forward_by_strongswan() {
    check::carries_on("strongswan-libipsec-aes", Shape::Four, 2);
}

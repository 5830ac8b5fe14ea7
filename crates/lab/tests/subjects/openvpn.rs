//! OpenVPN.

use crate::check;
use lab::subject;

#[test]
fn openvpn_with_aes() {
    check::carries("openvpn-aes");
}

#[test]
fn openvpn_with_chacha() {
    check::carries("openvpn-chacha");
}

#[test]
fn openvpn_leaves_nothing_half_way() {
    check::fails_cleanly("openvpn-aes");
}

/// With its module it works, and without it says so.
#[test]
fn openvpn_by_the_kernel() {
    match subject::named("openvpn-dco").unwrap().available() {
        Ok(_) => check::carries("openvpn-dco"),
        Err(missing) => assert!(missing.what.contains("no module"), "{missing}"),
    }
}

//! strongSwan.

use crate::check;
use lab::subject;

#[test]
fn strongswan_with_aes() {
    check::carries("strongswan-libipsec-aes");
}

#[test]
fn strongswan_with_chacha() {
    check::carries("strongswan-libipsec-chacha");
}

#[test]
fn strongswan_leaves_nothing_half_way() {
    check::fails_cleanly("strongswan-libipsec-aes");
}

/// With a kernel that has ESP it works, and with another it says so.
#[test]
fn strongswan_by_the_kernel() {
    for slug in ["strongswan-aes", "strongswan-chacha"] {
        match subject::named(slug).unwrap().available() {
            Ok(_) => check::carries(slug),
            Err(missing) => assert!(missing.what.contains("no ESP"), "{missing}"),
        }
    }
}

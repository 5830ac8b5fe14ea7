//! The service: `wireloom@.service` under systemd as the first process of a Debian, in a guest, with its peer on the host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::{Debian, Guest, GuestSpec, Kernel, Namespace};

use crate::common::wireloom;

/// Files of the package that are as they lie in the tree.
fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(name)
}

/// A Debian with the program and its unit where the package puts them, booted.
fn boot(namespace: &Namespace) -> Guest {
    let debian = Debian::unpack().unwrap();
    debian.copy(&wireloom().program().unwrap(), "/usr/bin/wireloom").unwrap();
    debian.copy(&packaging("systemd/wireloom@.service"), "/lib/systemd/system/wireloom@.service").unwrap();
    GuestSpec { processors: 2, ..GuestSpec::new(Kernel::V6_1) }.boot_system(&debian, namespace).unwrap()
}

#[test]
fn boots() {
    let namespace = Namespace::new().unwrap();
    let guest = boot(&namespace);
    let state = guest.attempt("systemctl is-system-running --wait", Duration::from_secs(60)).unwrap();
    assert_eq!(state.stdout.trim(), "running", "{}", guest.run("systemctl --failed --no-pager").unwrap());
    assert_eq!(guest.run("cat /proc/1/comm").unwrap().trim(), "systemd");
}

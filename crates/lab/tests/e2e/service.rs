//! The service: `wireloom@.service` under systemd as the first process of a Debian, in a guest, with its peer on the host.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::{Debian, Guest, GuestSpec, Kernel, Namespace, socket_path};

use crate::common::{LIMIT, wireloom};

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

/// What a service says next to its manager.
fn hear(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let len = manager.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..len].to_vec()).unwrap()
}

#[test]
fn run_tells_its_manager_that_it_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let namespace = Namespace::new().unwrap();
    let daemon = wireloom()
        .start_with(&namespace, |command| {
            command.env("NOTIFY_SOCKET", &path);
        })
        .unwrap();
    let said = hear(&manager);
    assert!(said.starts_with("READY=1\nSTATUS="), "{said}");
    assert!(socket_path(&daemon.interface).exists(), "it was not ready");
    // It has said so once, and nobody that it has started does.
    drop(daemon);
    manager.set_nonblocking(true).unwrap();
    assert!(manager.recv(&mut [0; 10]).is_err());
}

#[test]
fn boots() {
    let namespace = Namespace::new().unwrap();
    let guest = boot(&namespace);
    let state = guest.attempt("systemctl is-system-running --wait", Duration::from_secs(60)).unwrap();
    assert_eq!(state.stdout.trim(), "running", "{}", guest.run("systemctl --failed --no-pager").unwrap());
    assert_eq!(guest.run("cat /proc/1/comm").unwrap().trim(), "systemd");
}

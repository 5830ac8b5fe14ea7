//! The socket of the configuration protocol: who gets it, who may use it, and when it counts as deleted.

mod common;

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

use common::{readable, readable_now};
use linux::unix::{DeletionWatch, ListenError, Listener, remove_dead, socket_path};

fn mode(path: &Path) -> u32 {
    let meta = std::fs::symlink_metadata(path).expect("metadata");
    meta.permissions().mode() & 0o777
}

#[test]
fn the_socket_is_private_and_gone_afterwards() {
    let root = tempfile::tempdir().expect("root");
    let path = root.path().join("run/wireguard/wg0.sock");
    let listener = Listener::bind(&path).expect("bind");
    assert_eq!(listener.path(), Some(path.as_path()));
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(path.parent().expect("folder")), 0o755);
    assert!(listener.accept().is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock));
    let mut client = UnixStream::connect(&path).expect("connect");
    let mut server = listener.accept().expect("accept");
    client.write_all(b"get=1\n\n").expect("write");
    let mut request = [0; 7];
    server.read_exact(&mut request).expect("the stream blocks");
    drop(listener);
    assert!(!path.exists());
    assert_eq!(socket_path("wg0"), Path::new("/var/run/wireguard/wg0.sock"));
}

#[test]
fn a_stale_socket_is_replaced_a_living_one_is_not() {
    let root = tempfile::tempdir().expect("root");
    let path = root.path().join("wg0.sock");
    drop(UnixListener::bind(&path).expect("bind"));
    assert!(path.exists());
    let listener = Listener::bind(&path).expect("stale");
    assert!(matches!(Listener::bind(&path), Err(ListenError::InUse(p)) if p == path));
    // The refused one has not taken the file with it.
    UnixStream::connect(&path).expect("connect");
    // Even where nobody accepts and the queue is full.
    let mut callers = Vec::new();
    while let Ok(caller) = connect_now(&path) {
        callers.push(caller);
        assert!(callers.len() < 10_000);
    }
    assert!(matches!(Listener::bind(&path), Err(ListenError::InUse(_))));
    drop(listener);
}

fn connect_now(path: &Path) -> rustix::io::Result<std::os::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let root = tempfile::tempdir().expect("root");
    let path = root.path().join("wg0.sock");
    std::fs::write(&path, b"precious").expect("write");
    assert!(matches!(Listener::bind(&path), Err(ListenError::NotASocket(_))));
    assert_eq!(std::fs::read(&path).expect("read"), b"precious");
}

#[test]
fn of_many_at_once_one_wins() {
    let root = tempfile::tempdir().expect("root");
    let path = root.path().join("wg0.sock");
    for _ in 0..20 {
        drop(UnixListener::bind(&path).expect("a stale one"));
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| Listener::bind(&path))).collect();
            threads.into_iter().map(|t| t.join().expect("join")).collect()
        });
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
        UnixStream::connect(&path).expect("the winner has the file");
    }
}

#[test]
fn a_socket_is_removed_where_nobody_listens_any_more_and_nowhere_else() {
    let root = tempfile::tempdir().expect("root");
    let path = root.path().join("wg0.sock");
    remove_dead(&path).expect("nothing is there");
    let listener = UnixListener::bind(&path).expect("bind");
    remove_dead(&path).expect("somebody listens");
    UnixStream::connect(&path).expect("and still does");
    drop(listener);
    assert!(path.exists(), "a socket outlives its listener");
    remove_dead(&path).expect("nobody listens");
    assert!(!path.exists());
    std::fs::write(&path, "").expect("a file");
    assert!(matches!(remove_dead(&path), Err(ListenError::NotASocket(_))));
    assert!(path.exists());
}

#[test]
fn deletion_is_noticed() {
    let root = tempfile::tempdir().expect("root");
    let path = root.path().join("wg0.sock");
    let listener = Listener::bind(&path).expect("bind");
    let watch = DeletionWatch::new(&listener).expect("watch");
    assert!(!watch.deleted());
    // A change of another kind wakes, but is none.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o770)).expect("chmod");
    assert!(readable(&watch));
    assert!(!watch.deleted());
    assert!(!readable_now(&watch));
    std::fs::remove_file(&path).expect("remove");
    assert!(readable(&watch));
    assert!(watch.deleted());
    assert!(!readable_now(&watch));
    assert!(watch.deleted());
}

#[test]
fn replacement_is_deletion_and_the_new_file_stays() {
    let root = tempfile::tempdir().expect("root");
    let path = root.path().join("wg0.sock");
    for rename_over in [true, false] {
        let listener = Listener::bind(&path).expect("bind");
        let watch = DeletionWatch::new(&listener).expect("watch");
        let aside = root.path().join("aside");
        let other = if rename_over {
            let other = UnixListener::bind(&aside).expect("other");
            std::fs::rename(&aside, &path).expect("rename");
            other
        } else {
            std::fs::rename(&path, &aside).expect("rename");
            UnixListener::bind(&path).expect("other")
        };
        assert!(readable(&watch));
        assert!(watch.deleted());
        drop(listener);
        UnixStream::connect(&path).expect("the other's file is still there");
        drop(other);
        let _ = std::fs::remove_file(&aside);
    }
}

#[test]
fn a_file_that_was_gone_before_the_watch_is_deleted() {
    let root = tempfile::tempdir().expect("root");
    let path = root.path().join("wg0.sock");
    let listener = Listener::bind(&path).expect("bind");
    std::fs::remove_file(&path).expect("remove");
    let watch = DeletionWatch::new(&listener).expect("watch");
    assert!(watch.deleted());
}

#[test]
fn an_inherited_listener_is_used_watched_and_unlinked() {
    let root = tempfile::tempdir().expect("root");
    let path = root.path().join("wg0.sock");
    let listener = Listener::from_fd(UnixListener::bind(&path).expect("bind").into()).expect("from_fd");
    let watch = DeletionWatch::new(&listener).expect("watch");
    let _client = UnixStream::connect(&path).expect("connect");
    assert!(listener.accept().is_ok());
    assert!(listener.accept().is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock));
    assert!(!watch.deleted());
    drop(listener);
    assert!(!path.exists());
    assert!(watch.deleted());
    // A name in nobody's folder has no file to care for.
    let address = SocketAddr::from_abstract_name(format!("wireloom-{}", std::process::id())).expect("name");
    let listener = Listener::from_fd(UnixListener::bind_addr(&address).expect("bind").into()).expect("from_fd");
    assert!(!DeletionWatch::new(&listener).expect("watch").deleted());
    let not_listening = UnixStream::pair().expect("pair").0;
    assert!(Listener::from_fd(not_listening.into()).is_err());
}

//! How the daemon starts and how it ends, and that nothing of it stays.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use lab::{Daemon, Namespace, System, run, socket_path, unique_interface, wait_until};
use rustix::process::Signal;

use crate::common::{LIMIT, SOON, check_pings, check_traffic, our_tunnel, wireloom};
use crate::engines::each_engine_untaken;

each_engine_untaken!(
    a_signal_ends_it,
    deleting_the_interface_ends_it,
    who_finds_its_socket_gone_finds_its_port_free,
    deleting_the_socket_ends_it,
    a_stale_socket_is_replaced,
    in_the_background_it_is_ready_when_the_command_returns,
    an_open_tun_is_taken_over,
    an_open_socket_is_taken_over,
    a_second_daemon_for_an_interface_is_refused,
);

fn program() -> PathBuf {
    wireloom().program().unwrap()
}

fn has_interface(namespace: &Namespace, interface: &str) -> bool {
    namespace.ip(&["link", "show", "dev", interface]).is_ok()
}

/// The daemon ends well by itself, and leaves neither interface nor socket.
#[track_caller]
fn check_gone(mut daemon: Daemon) {
    let status = daemon.process.wait(SOON).unwrap();
    assert!(status.success(), "{status}: {}", daemon.process.log());
    assert!(!has_interface(&daemon.namespace, &daemon.interface));
    assert!(!socket_path(&daemon.interface).exists());
}

#[test]
fn the_socket_is_for_root_alone() {
    let daemon = wireloom().start(&Namespace::new().unwrap()).unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(socket_path(&daemon.interface)), 0o700);
    assert_eq!(mode(PathBuf::from("/var/run/wireguard")), 0o755);
}

fn a_signal_ends_it() {
    for signal in [Signal::TERM, Signal::INT] {
        // In the middle of a tunnel that has carried something.
        let tunnel = our_tunnel();
        check_pings(&tunnel.left, &tunnel.right);
        let mut daemon = tunnel.left.daemon;
        daemon.process.signal(signal);
        check_gone(daemon);
    }
}

fn deleting_the_interface_ends_it() {
    let tunnel = our_tunnel();
    check_pings(&tunnel.left, &tunnel.right);
    let daemon = tunnel.left.daemon;
    daemon.namespace.ip(&["link", "delete", &daemon.interface]).unwrap();
    check_gone(daemon);
}

fn who_finds_its_socket_gone_finds_its_port_free() {
    let namespace = Namespace::new().unwrap();
    for _ in 0..10 {
        let daemon = wireloom().start(&namespace).unwrap();
        namespace.ip(&["link", "set", &daemon.interface, "up"]).unwrap();
        let port = daemon.status().unwrap().port;
        namespace.ip(&["link", "delete", &daemon.interface]).unwrap();
        let start = Instant::now();
        // Looked at without a pause between, and with nothing in between but the binding.
        while socket_path(&daemon.interface).exists() {
            assert!(start.elapsed() < SOON, "the socket stays");
        }
        namespace.inside(|| UdpSocket::bind(("0.0.0.0", port))).unwrap();
        check_gone(daemon);
    }
}

fn deleting_the_socket_ends_it() {
    let daemon = wireloom().start(&Namespace::new().unwrap()).unwrap();
    fs::remove_file(socket_path(&daemon.interface)).unwrap();
    check_gone(daemon);
}

fn a_stale_socket_is_replaced() {
    let namespace = Namespace::new().unwrap();
    let interface = unique_interface();
    // Without a steward, which would remove it.
    let mut command = wireloom().command(&namespace, &interface).unwrap();
    let mut killed = Daemon::start(command.arg("--no-sandbox"), &namespace, &interface).unwrap();
    killed.process.signal(Signal::KILL);
    killed.process.wait(SOON).unwrap();
    assert!(socket_path(&killed.interface).exists());
    let mut command = wireloom().command(&namespace, &killed.interface).unwrap();
    let again = Daemon::start(&mut command, &namespace, &killed.interface).unwrap();
    again.status().unwrap();
}

/// Runs a command that puts a daemon in the background, and checks that everything is there as it returns.
#[track_caller]
fn check_background(namespace: &Namespace, command: &mut Command, interface: &str) {
    run(command, LIMIT).unwrap().checked().unwrap();
    // No waiting here: ready is what its return means.
    lab::wg::status(interface).unwrap();
    assert!(has_interface(namespace, interface));
    assert!(!namespace.pids().is_empty());
    namespace.ip(&["link", "delete", interface]).unwrap();
    wait_until("the daemon to end", SOON, || namespace.pids().is_empty()).unwrap();
    assert!(!socket_path(interface).exists());
}

fn in_the_background_it_is_ready_when_the_command_returns() {
    let (namespace, interface) = (Namespace::new().unwrap(), unique_interface());
    let mut command = namespace.command(program());
    check_background(&namespace, command.args(["run", &interface]), &interface);
}

#[test]
fn called_by_another_name_it_takes_just_the_interface() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("wireguard-go");
    symlink(program(), &name).unwrap();
    for program in [name, program()] {
        let (namespace, interface) = (Namespace::new().unwrap(), unique_interface());
        let mut command = namespace.command(program);
        check_background(&namespace, command.arg(&interface), &interface);
    }
}

#[test]
fn the_environment_keeps_it_in_the_foreground() {
    let (namespace, interface) = (Namespace::new().unwrap(), unique_interface());
    let mut command = namespace.command(program());
    command.arg(&interface).env("WG_PROCESS_FOREGROUND", "1");
    let mut daemon = Daemon::start(&mut command, &namespace, &interface).unwrap();
    assert!(daemon.process.status().is_none());
    daemon.process.signal(Signal::TERM);
    check_gone(daemon);
}

/// Opens a TUN with the flags of its first argument and the name of its second, and passes it on to the rest.
pub const WITH_TUN: &str = r#"
    $^F = 255;
    open(my $tun, "+<", "/dev/net/tun") or die "open: $!";
    ioctl($tun, 0x400454ca, pack("a16 s x22", $ARGV[1], hex($ARGV[0]))) or die "TUNSETIFF: $!";
    $ENV{WG_TUN_FD} = fileno($tun);
    exec @ARGV[2 .. $#ARGV] or die "exec: $!";
"#;

/// Listens on the socket of its first argument, and passes that on to the rest.
pub const WITH_SOCKET: &str = r#"
    use Socket;
    $^F = 255;
    umask 077;
    socket(my $socket, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!";
    bind($socket, pack_sockaddr_un($ARGV[0])) or die "bind: $!";
    listen($socket, 16) or die "listen: $!";
    $ENV{WG_UAPI_FD} = fileno($socket);
    exec @ARGV[1 .. $#ARGV] or die "exec: $!";
"#;

fn an_open_tun_is_taken_over() {
    // IFF_TUN | IFF_NO_PI, without and with IFF_VNET_HDR.
    for flags in ["0x1001", "0x5001"] {
        let mut tunnel = our_tunnel();
        let namespace = tunnel.left.namespace().clone();
        let interface = unique_interface();
        let mut command = namespace.command("perl");
        command.args(["-e", WITH_TUN, flags, &interface]).arg(program()).args(["run", "-f", &interface]);
        // In the place of the left daemon, which ends as it is dropped, with its addresses.
        tunnel.left.daemon = Daemon::start(&mut command, &namespace, &interface).unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        left.bring_up(1420).unwrap();
        let endpoint = right.endpoint(lab::Outer::V4);
        left.add_peer(right, Some(endpoint), None).unwrap();
        check_traffic(left, right);
    }
}

fn an_open_socket_is_taken_over() {
    let (namespace, interface) = (Namespace::new().unwrap(), unique_interface());
    fs::create_dir_all("/var/run/wireguard").unwrap();
    let mut command = namespace.command("perl");
    command.args(["-e", WITH_SOCKET]).arg(socket_path(&interface)).arg(program()).args(["run", "-f", &interface]);
    let daemon = Daemon::start(&mut command, &namespace, &interface).unwrap();
    daemon.set(&["listen-port", "50010"]).unwrap();
    assert_eq!(daemon.status().unwrap().port, 50010);
}

#[test]
fn packets_are_sealed_by_what_the_environment_names() {
    for backend in aead::Backend::ALL.into_iter().filter(|backend| !backend.available()) {
        println!("not covered: this processor cannot run {backend}");
    }
    for backend in aead::Backend::all_available() {
        let mut tunnel = our_tunnel();
        let namespace = tunnel.left.namespace().clone();
        let adjust = |command: &mut Command| {
            command.env("WIRELOOM_AEAD", backend.name()).env("LOG_LEVEL", "debug");
        };
        // In the place of the left daemon; the right one takes what is best here.
        tunnel.left.daemon = wireloom().start_with(&namespace, adjust).unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        left.bring_up(1420).unwrap();
        left.add_peer(right, Some(right.endpoint(lab::Outer::V4)), None).unwrap();
        check_traffic(left, right);
        let log = left.daemon.process.log();
        assert!(log.contains(&format!("packets are sealed and opened by {backend}\n")), "{log}");
    }
}

#[test]
fn an_environment_that_makes_no_sense_is_one_clear_line() {
    let namespace = Namespace::new().unwrap();
    let here: Vec<_> = aead::Backend::all_available().map(aead::Backend::name).collect();
    let here = here.join(", ");
    let lacking = aead::Backend::ALL.into_iter().filter(|backend| !backend.available()).map(aead::Backend::name);
    for name in lacking.chain(["aes", "Ring", "ring,avx512", " "]) {
        for arguments in [&["run", "-f", "wl"][..], &["run", "wl"]] {
            let mut command = namespace.command(program());
            let finished = run(command.args(arguments).env("WIRELOOM_AEAD", name), LIMIT).unwrap();
            check_refusal(&finished);
            let expected = format!("WIRELOOM_AEAD is '{name}', expected what this processor can do: {here}");
            assert!(finished.stderr.contains(&expected), "{finished:?}");
        }
    }
    assert!(namespace.pids().is_empty());
}

#[test]
fn a_name_that_cannot_be_is_one_clear_line() {
    let namespace = Namespace::new().unwrap();
    for (name, foreground) in [
        ("much-too-long-for-an-interface", true),
        ("with/slash", true),
        ("", true),
        ("much-too-long-for-an-interface", false),
    ] {
        let mut command = namespace.command(program());
        command.arg("run");
        if foreground {
            command.arg("-f");
        }
        let finished = run(command.arg(name), LIMIT).unwrap();
        check_refusal(&finished);
    }
    assert!(namespace.pids().is_empty());
}

#[test]
fn a_name_that_is_taken_is_one_clear_line() {
    let namespace = Namespace::new().unwrap();
    let interface = unique_interface();
    namespace.ip(&["link", "add", &interface, "type", "veth"]).unwrap();
    for arguments in [&["run", "-f", &interface][..], &["run", &interface]] {
        let mut command = namespace.command(program());
        check_refusal(&run(command.args(arguments), LIMIT).unwrap());
        assert!(!socket_path(&interface).exists());
    }
}

fn a_second_daemon_for_an_interface_is_refused() {
    let daemon = wireloom().start(&Namespace::new().unwrap()).unwrap();
    let elsewhere = Namespace::new().unwrap();
    for namespace in [&daemon.namespace, &elsewhere] {
        let System::Wireloom(program, _) = wireloom() else { unreachable!("that is what it is") };
        let mut command = namespace.command(program);
        check_refusal(&run(command.args(["run", "-f", &daemon.interface]), LIMIT).unwrap());
    }
    daemon.status().unwrap();
}

#[track_caller]
fn check_refusal(finished: &lab::Finished) {
    assert!(!finished.status.success(), "{finished:?}");
    let lines: Vec<_> = finished.stderr.trim().lines().collect();
    assert!(matches!(lines[..], [line] if !line.is_empty()), "{finished:?}");
    assert!(!finished.stderr.contains("panicked"), "{finished:?}");
}

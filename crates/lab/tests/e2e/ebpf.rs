//! The engine whose programs run in the kernel, as it stands among other programs, interfaces that come and go, and its own end. What it carries is
//! tested with all that carries packets; here it is always asked who carried them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use lab::{Daemon, End, Namespace, Tunnel, TunnelSpec, ping, run, socket_path, unique_interface, wait_until};
use rustix::process::Signal;

use crate::common::{LIMIT, SOON, check_pings, check_traffic, spec, wait_for_ping, wireloom};

/// Packets that the programs have sent and received.
fn taken(daemon: &Daemon) -> (u64, u64) {
    let mut stream = UnixStream::connect(socket_path(&daemon.interface)).unwrap();
    stream.write_all(b"get=stats\n\n").unwrap();
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        let mut piece = [0; 4096];
        let len = stream.read(&mut piece).unwrap();
        assert!(len > 0, "{text}");
        text.push_str(std::str::from_utf8(&piece[..len]).unwrap());
    }
    let count = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
    };
    (count("taken_sent="), count("taken_received="))
}

fn with(arguments: &[&'static str]) -> TunnelSpec {
    let mut spec = spec();
    spec.arguments = [&["--engine", "ebpf"], arguments].concat();
    spec
}

/// Waits until pings from one end to the other, and back, are the programs' alone at this end.
#[track_caller]
fn wait_until_programs_take(end: &End, other: &End) {
    wait_until("the programs to take pings", SOON, || {
        let before = taken(&end.daemon);
        let answered = ping::once(end.namespace(), other.v4.into(), &["-W", "1"]).unwrap().status.success();
        let after = taken(&end.daemon);
        answered && after.0 > before.0 && after.1 > before.1
    })
    .unwrap();
}

/// Our filters and disciplines on this host, in whatever words.
fn filters(host: &Namespace) -> Vec<String> {
    let (net, disciplines) = (host.run("bpftool", &["net"]).unwrap(), host.run("tc", &["qdisc", "show"]).unwrap());
    let ours = |line: &&str| line.contains("wireloom") || line.contains("clsact");
    net.lines().chain(disciplines.lines()).filter(ours).map(str::to_owned).collect()
}

/// The numbers of maps and programs that a process has descriptors of.
fn objects(process: u32) -> BTreeSet<(&'static str, u32)> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{process}/fdinfo")).unwrap() {
        // One may be closed meanwhile.
        let text = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        for (field, kind) in [("map_id:", "map"), ("prog_id:", "prog")] {
            let id = text.lines().find_map(|line| line.strip_prefix(field)?.trim().parse().ok());
            found.extend(id.map(|id| (kind, id)));
        }
    }
    found
}

fn exists((kind, id): (&str, u32)) -> bool {
    let shown = run(Command::new("bpftool").args([kind, "show", "id", &id.to_string()]), LIMIT).unwrap();
    shown.status.success()
}

/// Carries traffic, and ends the right end by `how`: nothing of it is left.
#[track_caller]
fn check_end(arguments: &[&'static str], how: impl FnOnce(&mut Tunnel)) {
    let mut tunnel = with(arguments).build().unwrap();
    wait_for_ping(&tunnel.left, &tunnel.right);
    wait_until_programs_take(&tunnel.right, &tunnel.left);
    let host = tunnel.right.namespace().clone();
    // An egress and an ingress, and the discipline of each.
    let expected = if arguments.contains(&"filter") { 4 } else { 0 };
    assert_eq!(filters(&host).len(), expected, "{:?}", filters(&host));
    let objects = objects(tunnel.right.daemon.process.id());
    assert!(objects.iter().all(|object| exists(*object)) && objects.len() > 10, "{objects:?}");
    how(&mut tunnel);
    tunnel.right.daemon.process.wait(LIMIT).unwrap();
    // The kernel frees them when nobody can be at work with them any more. A program that is attached anywhere is there.
    wait_until("maps and programs to go", LIMIT, || !objects.iter().any(|object| exists(*object))).unwrap();
    wait_until("filters to go", LIMIT, || filters(&host).is_empty()).unwrap();
}

#[test]
fn programs_carry_what_they_can_and_userspace_the_rest() {
    let tunnel = with(&[]).build().unwrap();
    check_traffic(&tunnel.left, &tunnel.right);
    for (end, other) in [(&tunnel.left, &tunnel.right), (&tunnel.right, &tunnel.left)] {
        wait_until_programs_take(end, other);
        let peer = end.peer(other).unwrap();
        let (sent, received) = taken(&end.daemon);
        assert!(peer.sent > 32 * sent && peer.received > 32 * received, "what programs take is counted: {peer:?}");
    }
}

#[test]
fn nothing_is_left_after_a_signal() {
    check_end(&[], |tunnel| tunnel.right.daemon.process.signal(Signal::TERM));
}

#[test]
fn nothing_is_left_after_the_interface_is_deleted_though_filters_were_used() {
    check_end(&["--hooks", "filter"], |tunnel| {
        let name = tunnel.right.daemon.interface.clone();
        tunnel.right.namespace().ip(&["link", "delete", &name]).unwrap();
    });
}

#[test]
fn nothing_is_left_of_a_killed_daemon_whose_interface_is_deleted_though_filters_were_used() {
    check_end(&["--hooks", "filter"], |tunnel| {
        tunnel.right.daemon.process.signal(Signal::KILL);
        // Its steward keeps everything for another daemon, for as long as there is the interface.
        let name = tunnel.right.daemon.interface.clone();
        tunnel.right.daemon.process.wait(LIMIT).unwrap();
        tunnel.right.namespace().ip(&["link", "delete", &name]).unwrap();
    });
}

#[test]
fn others_filters_stay_as_they_are() {
    let (host, away) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let link = lab::Link::new(&away, &host, lab::Gso::Through).unwrap();
    let device = link.right.interface.as_str();
    host.run("tc", &["qdisc", "add", "dev", device, "clsact"]).unwrap();
    let filter = ["filter", "add", "dev", device, "ingress", "pref", "7", "protocol", "all"];
    host.run("tc", &[&filter[..], &["u32", "match", "u32", "0", "0", "flowid", "1:1"]].concat()).unwrap();
    let shown = || host.run("tc", &["filter", "show", "dev", device, "ingress"]).unwrap();
    let before = shown();
    for hooks in ["filter", "best"] {
        let start = |namespace: &Namespace, hooks: &'static str| {
            let daemon = wireloom().start_with(namespace, |command| {
                command.args(["--engine", "ebpf", "--hooks", hooks]);
            });
            daemon.unwrap()
        };
        let left = End::new(start(&away, "best"), &link.left, 1).unwrap();
        let right = End::new(start(&host, hooks), &link.right, 2).unwrap();
        for end in [&left, &right] {
            end.bring_up(1420).unwrap();
        }
        crate::common::introduce(&left, &right, lab::Outer::V4);
        check_pings(&left, &right);
        drop(right);
        wait_until("the daemon's filter to go", LIMIT, || shown() == before).unwrap();
        assert!(host.run("tc", &["qdisc", "show", "dev", device]).unwrap().contains("clsact"));
    }
}

#[test]
fn an_underlay_may_go_down_and_take_another_name_and_be_replaced() {
    let tunnel = with(&[]).build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    wait_for_ping(left, right);
    wait_until_programs_take(right, left);
    let (host, device) = (right.namespace(), right.port.interface.as_str());
    host.ip(&["link", "set", device, "down"]).unwrap();
    host.ip(&["link", "set", device, "up"]).unwrap();
    wait_until_programs_take(right, left);
    host.ip(&["link", "set", device, "down"]).unwrap();
    host.ip(&["link", "set", device, "name", "other0"]).unwrap();
    host.ip(&["link", "set", "other0", "up"]).unwrap();
    right.port.clone().add_addresses(right.port.v4, right.port.v6).unwrap_or(());
    wait_until_programs_take(right, left);
    // Both ends of the cable go, and another has their names and addresses, and the same index.
    let index = index_of(host, "other0");
    host.ip(&["link", "delete", "other0"]).unwrap();
    let away = left.namespace();
    host.ip(&[
        "link",
        "add",
        "other0",
        "index",
        &index,
        "type",
        "veth",
        "peer",
        "name",
        &left.port.interface,
        "netns",
        away.name(),
    ])
    .unwrap();
    let place = lab::Port { interface: "other0".to_owned(), ..right.port.clone() };
    for port in [&place, &left.port] {
        port.add_addresses(port.v4, port.v6).unwrap();
        port.namespace.ip(&["link", "set", &port.interface, "up"]).unwrap();
    }
    wait_until_programs_take(right, left);
    wait_until_programs_take(left, right);
}

fn index_of(host: &Namespace, device: &str) -> String {
    host.run("cat", &[&format!("/sys/class/net/{device}/ifindex")]).unwrap().trim().to_owned()
}

#[test]
fn ways_are_those_of_the_mark_and_change_with_routes() {
    let tunnel = with(&[]).build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    wait_for_ping(left, right);
    wait_until_programs_take(right, left);
    let host = right.namespace();
    // Nothing that bears the mark has a way out.
    host.ip(&["route", "add", "unreachable", "default", "table", "77"]).unwrap();
    host.ip(&["rule", "add", "fwmark", "77", "lookup", "77"]).unwrap();
    wait_until_programs_take(right, left);
    right.daemon.set(&["fwmark", "77"]).unwrap();
    let sent = || taken(&right.daemon).0;
    let ping = || ping::once(host, left.v4.into(), &["-W", "1"]).unwrap().status.success();
    wait_until("the programs to know no way", SOON, || {
        let before = sent();
        !ping() && sent() == before
    })
    .unwrap();
    host.ip(&["rule", "del", "fwmark", "77", "lookup", "77"]).unwrap();
    wait_until_programs_take(right, left);
}

#[test]
fn an_interface_that_is_moved_away_is_left_to_userspace_until_it_is_back() {
    let tunnel = with(&[]).build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    wait_for_ping(left, right);
    wait_until_programs_take(right, left);
    let (home, away, name) = (right.namespace(), Namespace::new().unwrap(), right.daemon.interface.as_str());
    let move_to = |from: &Namespace, to: &Namespace| {
        from.ip(&["link", "set", name, "netns", to.name()]).unwrap();
        to.ip(&["address", "add", &format!("{}/24", right.v4), "dev", name]).unwrap();
        to.ip(&["link", "set", name, "up"]).unwrap();
    };
    move_to(home, &away);
    wait_until("a ping from elsewhere", SOON, || {
        ping::once(&away, left.v4.into(), &["-W", "1"]).unwrap().status.success()
    })
    .unwrap();
    let before = taken(&right.daemon);
    for _ in 0..5 {
        assert!(ping::once(&away, left.v4.into(), &["-W", "5"]).unwrap().status.success());
    }
    assert_eq!(taken(&right.daemon), before);
    move_to(&away, home);
    wait_until_programs_take(right, left);
}

#[test]
fn who_may_not_load_programs_is_told_in_a_line_and_leaves_nothing() {
    let host = Namespace::new().unwrap();
    let name = unique_interface();
    let program = wireloom().program().unwrap();
    let mut command = host.command("setpriv");
    command.args(["--bounding-set", "-bpf,-sys_admin,-perfmon", "--inh-caps", "-all"]).arg(&program);
    let refused = run(command.args(["run", "--foreground", "--engine", "ebpf", &name]), LIMIT).unwrap();
    assert!(!refused.status.success());
    let told = refused.log();
    assert!(told.contains("not allowed to load eBPF programs") && told.trim().lines().count() == 1, "{told}");
    assert!(host.ip(&["link", "show", "dev", &name]).is_err());
    assert!(!socket_path(&name).exists());

    let mut command = host.command(&program);
    let refused = run(command.env("WIRELOOM_ENGINE", "steam").args(["run", "--foreground", &name]), LIMIT).unwrap();
    assert_eq!(refused.log().trim(), "wireloom: WIRELOOM_ENGINE is 'steam', expected userspace or ebpf");
}

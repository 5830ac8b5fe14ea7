//! The monitor of an interface, and its settings, in namespaces of their own.

mod common;

use std::os::fd::AsFd;

use common::{Room, in_new_netns, ip, readable};
use linux::link::{LinkEvent, Monitor};
use linux::netns;
use linux::tun::{self, Offloads};

/// The events until one comes that the test waits for.
fn until(monitor: &mut Monitor, last: &LinkEvent) -> Vec<LinkEvent> {
    let mut events = Vec::new();
    while events.last() != Some(last) {
        match monitor.next() {
            Some(event) => events.push(event),
            None => assert!(readable(&*monitor), "waited for {last:?} after {events:?}"),
        }
    }
    events
}

fn monitored() -> (tun::Tun, Monitor) {
    let tun = tun::create("wl%d", 1, Offloads::ALL).expect("tun");
    let monitor = Monitor::open(tun.index).expect("monitor");
    (tun, monitor)
}

#[test]
fn each_change_is_an_event() {
    in_new_netns(|| {
        let (tun, mut monitor) = monitored();
        let index = tun.index;
        let state = monitor.state(index).expect("state");
        assert_eq!((state.name.as_str(), state.up, state.mtu), (tun.name.as_str(), false, 1500));
        assert_eq!(monitor.known(), &state);
        assert_eq!(monitor.next(), None);

        monitor.set_mtu(index, 1420).expect("mtu");
        assert_eq!(until(&mut monitor, &LinkEvent::Mtu(1420)), [LinkEvent::Mtu(1420)]);
        monitor.set_up(index, true).expect("up");
        until(&mut monitor, &LinkEvent::Up);
        monitor.set_up(index, false).expect("down");
        until(&mut monitor, &LinkEvent::Down);
        ip(&format!("link set {} name renamed0", tun.name));
        until(&mut monitor, &LinkEvent::Renamed("renamed0".into()));
        assert_eq!(tun.queues[0].name().expect("name"), "renamed0");
        assert_eq!(monitor.state(index).expect("state").name, "renamed0");
        ip("link delete renamed0");
        until(&mut monitor, &LinkEvent::Removed);
        assert_eq!(monitor.next(), None);
        let error = monitor.state(index).expect_err("gone");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(Monitor::open(index).is_err());
    });
}

#[test]
fn other_interfaces_are_none_of_our_business() {
    in_new_netns(|| {
        let (tun, mut monitor) = monitored();
        ip("link add other0 type veth peer name other1");
        ip("link set other0 up mtu 1300");
        ip("link delete other0");
        monitor.set_mtu(tun.index, 1280).expect("mtu");
        assert_eq!(until(&mut monitor, &LinkEvent::Mtu(1280)), [LinkEvent::Mtu(1280)]);
    });
}

#[test]
fn settings_reach_the_kernel() {
    in_new_netns(|| {
        let (tun, monitor) = monitored();
        monitor.set_gso_max(tun.index, 62_000, 45).expect("gso");
        monitor.set_txqueuelen(tun.index, 77).expect("txqueuelen");
        let shown = ip(&format!("-d link show {}", tun.name));
        for part in ["gso_max_size 62000", "gso_max_segs 45", "qlen 77"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        monitor.set_silent(tun.index).expect("silent");
        let shown = ip(&format!("-d link show {}", tun.name));
        assert!(shown.contains("addrgenmode none") && !shown.contains("MULTICAST"), "{shown}");
        let error = monitor.set_mtu(tun.index, 1).expect_err("too small");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        // The next answer is not mistaken for that one.
        monitor.set_mtu(tun.index, 1400).expect("mtu");
    });
}

#[test]
fn lost_reports_are_made_up_for() {
    in_new_netns(|| {
        let (tun, mut monitor) = monitored();
        rustix::net::sockopt::set_socket_recv_buffer_size(&monitor, 1).expect("the smallest");
        for mtu in 1300..1400 {
            monitor.set_mtu(tun.index, mtu).expect("mtu");
        }
        let events = until(&mut monitor, &LinkEvent::Mtu(1399));
        assert!(events.len() < 100, "some were lost");
        assert_eq!(monitor.by_ref().collect::<Vec<_>>(), [], "what was not lost is older");
        assert_eq!(monitor.known().mtu, 1399);

        monitor.set_mtu(tun.index, 1200).expect("mtu");
        for mtu in 1300..1400 {
            monitor.set_mtu(tun.index, mtu).expect("mtu");
        }
        drop(tun);
        until(&mut monitor, &LinkEvent::Removed);
    });
}

#[test]
fn a_device_is_followed_into_another_namespace() {
    in_new_netns(|| {
        let (tun, mut monitor) = monitored();
        let queue = &tun.queues[0];
        let room = Room::new();
        // Its index is taken there, so that it gets another.
        let name = tun.name.clone();
        let index = tun.index;
        room.run(move || ip("link add taken0 type veth peer name taken1"));
        let here = netns::current().expect("netns");
        assert!(netns::same(queue.netns().expect("netns").as_fd(), here.as_fd()).expect("same"));
        move_to(&name, &room);
        until(&mut monitor, &LinkEvent::Removed);
        assert!(queue.is_attached());
        let there = queue.netns().expect("netns");
        assert!(netns::same(there.as_fd(), room.netns()).expect("same"));
        let mut monitor = Monitor::follow(queue, here.as_fd()).expect("follow");
        assert_ne!(monitor.index(), index);
        assert_eq!(monitor.known().name, name);
        room.run({
            let name = name.clone();
            move || ip(&format!("link set {name} mtu 1333"))
        });
        until(&mut monitor, &LinkEvent::Mtu(1333));
        room.run(move || ip(&format!("link delete {name}")));
        until(&mut monitor, &LinkEvent::Removed);
        assert!(!queue.is_attached());
        assert!(queue.netns().is_err());
        assert!(queue.read(&mut [0; 64]).is_err_and(|e| e.raw_os_error() == Some(libc::EBADFD)));
    });
}

/// Moves an interface of the thread's namespace into the room's.
fn move_to(name: &str, room: &Room) {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/{}/fd/{}", std::process::id(), room.netns().as_raw_fd());
    ip(&format!("link set {name} netns {path}"));
}

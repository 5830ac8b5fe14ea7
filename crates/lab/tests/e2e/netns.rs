//! `up --netns`: the interface in a namespace that has nothing else, its sockets where the command was given.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::wg::KeyPair;
use lab::{
    End, Finished, Gso, Hook, Link, Namespace, Outer, Tap, ping, run, run_checked, socket_path, unique_interface,
    wait_until,
};
use tempfile::TempDir;

use crate::common::{LIMIT, SOON, ip, our_command, wireloom};
use crate::engines::{each_engine, each_engine_untaken};

// An interface in another namespace than its underlay is userspace's.
each_engine_untaken!(a_namespace_has_no_other_way_out_than_the_tunnel);
each_engine!(
    two_namespaces_have_a_tunnel_each,
    a_namespace_that_ends_takes_its_tunnel_along_and_may_be_made_again,
    an_interface_moves_on_from_namespace_to_namespace,
);

/// A host with files for as many tunnels as one likes, all to the right host, and that host.
struct Home {
    namespace: Namespace,
    link: Link,
    right: End,
    folder: TempDir,
}

/// A namespace, and the interface that goes there.
struct Room {
    namespace: Namespace,
    interface: String,
    v4: String,
    v6: String,
}

impl Home {
    fn new() -> Home {
        let (namespace, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        let link = Link::new(&namespace, &b, Gso::Through).unwrap();
        let right = End::new(wireloom().start(&b).unwrap(), &link.right, 2).unwrap();
        right.bring_up(1420).unwrap();
        // Behind the tunnel, and as well what the left host would reach by its default route.
        for address in ["198.51.100.1/32", "fd51::1/128"] {
            ip(&right, &format!("address add {address} dev lo"));
        }
        for (family, via) in [("-4", link.right.v4.to_string()), ("-6", link.right.v6.to_string())] {
            namespace.ip(&[family, "route", "add", "default", "via", &via]).unwrap();
        }
        Home { namespace, link, right, folder: tempfile::tempdir().unwrap() }
    }

    fn room(&self, host: u8, outer: Outer) -> Room {
        let room = Room {
            namespace: Namespace::new().unwrap(),
            interface: unique_interface(),
            v4: format!("10.77.0.{host}"),
            v6: format!("fd77::{host}"),
        };
        let keys = KeyPair::generate().unwrap();
        let allowed = format!("{}/32,{}/128", room.v4, room.v6);
        self.right.daemon.set(&["peer", &keys.public, "allowed-ips", &allowed]).unwrap();
        let text = format!(
            "[Interface]\nPrivateKey = {}\nAddress = {}/24, {}/64\n\n[Peer]\nPublicKey = {}\nAllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = {}\n",
            fs::read_to_string(keys.private.path()).unwrap().trim(),
            room.v4,
            room.v6,
            self.right.keys.public,
            self.right.endpoint(outer),
        );
        let file = self.file(&room);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        room
    }

    fn file(&self, room: &Room) -> PathBuf {
        self.folder.path().join(format!("{}.conf", room.interface))
    }

    fn attempt(&self, words: &[&str], room: &Room) -> Finished {
        let mut command = our_command(&self.namespace);
        run(command.args(words).arg(self.file(room)), LIMIT).unwrap()
    }

    fn up(&self, room: &Room) {
        self.attempt(&["up", "--netns", room.namespace.name()], room).checked().unwrap();
    }

    fn down(&self, room: &Room) {
        self.attempt(&["down"], room).checked().unwrap();
    }

    /// Datagrams that leave this host and are not the tunnel's.
    fn plain(&self) -> Tap {
        let rule = format!("oifname {} udp dport != {}", self.link.left.interface, self.right.listen_port);
        Tap::new(&self.namespace, Hook::Outgoing, &rule, "").unwrap()
    }

    /// Echo requests that leave this host as they are.
    fn questions(&self) -> [Tap; 2] {
        ["icmp", "icmpv6"].map(|kind| {
            let rule = format!("iifname {} {kind} type echo-request", self.link.right.interface);
            Tap::new(self.right.namespace(), Hook::Incoming, &rule, "").unwrap()
        })
    }
}

impl Room {
    fn reaches(&self, address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        ping::once(&self.namespace, address, &["-W", "2"]).is_ok_and(|finished| finished.status.success())
    }

    #[track_caller]
    fn reach(&self, address: &str) {
        wait_until(&format!("a ping to {address}"), SOON, || self.reaches(address)).unwrap();
    }

    fn interfaces(&self) -> String {
        self.namespace.ip(&["-o", "link", "show"]).unwrap()
    }
}

const FAR: [&str; 4] = ["198.51.100.1", "fd51::1", "10.77.0.2", "fd77::2"];

fn a_namespace_has_no_other_way_out_than_the_tunnel() {
    for outer in [Outer::V4, Outer::V6] {
        let home = Home::new();
        let room = home.room(11, outer);
        let (plain, questions) = (home.plain(), home.questions());
        home.up(&room);
        assert_eq!(room.interfaces().lines().count(), 2, "{}", room.interfaces());
        for address in FAR {
            room.reach(address);
        }
        // Without the tunnel there is none at all: the host's own default route is not the namespace's.
        let key = home.right.daemon.status().unwrap().peers[0].public_key.clone();
        home.right.daemon.set(&["peer", &key, "remove"]).unwrap();
        for address in FAR {
            assert!(!room.reaches(address), "{outer:?} {address}");
        }
        room.namespace.ip(&["link", "set", &room.interface, "down"]).unwrap();
        for address in FAR {
            assert!(!room.reaches(address), "{outer:?} {address}");
        }
        assert_eq!(plain.packets().unwrap(), 0);
        assert_eq!(questions.each_ref().map(|tap| tap.packets().unwrap()), [0, 0]);
        home.down(&room);
        assert_eq!(room.interfaces().lines().count(), 1);
    }
}

fn two_namespaces_have_a_tunnel_each() {
    let home = Home::new();
    let rooms = [home.room(11, Outer::V4), home.room(12, Outer::V6)];
    for room in &rooms {
        home.up(room);
    }
    for room in &rooms {
        for address in FAR {
            room.reach(address);
        }
    }
    // Through the far end from one to the other, each by its own interface.
    home.right.namespace().set_sysctl("net/ipv4/ip_forward", "1").unwrap();
    home.right.namespace().set_sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
    rooms[0].reach(&rooms[1].v4);
    rooms[1].reach(&rooms[0].v6);
    // One goes; the other stays. And it may come back.
    home.down(&rooms[0]);
    assert!(!rooms[0].reaches(FAR[0]));
    rooms[1].reach(FAR[0]);
    home.up(&rooms[0]);
    rooms[0].reach(FAR[1]);
    for room in &rooms {
        home.down(room);
    }
}

fn a_namespace_that_ends_takes_its_tunnel_along_and_may_be_made_again() {
    let home = Home::new();
    let room = home.room(11, Outer::V4);
    // The link-local address of a link that has just been made may be tentative still.
    let addresses = || home.namespace.ip(&["address"]).unwrap().replace(" tentative", "");
    let before = addresses();
    let journal = Path::new("/run/wireloom").join(format!("{}.json", room.interface));
    for by_down in [true, false] {
        home.up(&room);
        room.reach(FAR[0]);
        let name = room.namespace.name();
        run_checked(Command::new("ip").args(["netns", "delete", name]), LIMIT).unwrap();
        wait_until("the daemon to end", SOON, || !socket_path(&room.interface).exists()).unwrap();
        assert_eq!(addresses(), before);
        run_checked(Command::new("ip").args(["netns", "add", name]), LIMIT).unwrap();
        if by_down {
            home.down(&room);
            assert!(!journal.exists());
        }
    }
    // What was left of it stands in nobody's way.
    home.up(&room);
    room.reach(FAR[0]);
    home.down(&room);
    assert!(!journal.exists() && !socket_path(&room.interface).exists());
    assert_eq!(addresses(), before);
}

fn an_interface_moves_on_from_namespace_to_namespace() {
    let home = Home::new();
    let room = home.room(11, Outer::V6);
    let other = Namespace::new().unwrap();
    home.up(&room);
    room.reach(FAR[0]);
    let before = home.right.daemon.status().unwrap().peers[0].handshake;
    room.namespace.ip(&["link", "set", &room.interface, "netns", other.name()]).unwrap();
    other.ip(&["address", "add", &format!("{}/24", room.v4), "dev", &room.interface]).unwrap();
    other.ip(&["link", "set", &room.interface, "up"]).unwrap();
    let far: IpAddr = FAR[2].parse().unwrap();
    wait_until("a ping from the other", SOON, || ping::once(&other, far, &["-W", "2"]).unwrap().status.success())
        .unwrap();
    assert!(home.right.daemon.status().unwrap().peers[0].handshake >= before);
    // It is nowhere that `down` was told of, and ends all the same.
    home.down(&room);
    wait_until("it to go", SOON, || other.ip(&["link", "show", "dev", &room.interface]).is_err()).unwrap();
    assert!(!socket_path(&room.interface).exists());
    // The right host has been well all the time.
    let end = home.room(13, Outer::V4);
    home.up(&end);
    end.reach(FAR[0]);
    home.down(&end);
}

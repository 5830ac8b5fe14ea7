//! A test bed for the data path's programs: a host in a namespace with a TUN, a cable, and the programs attached to both; the maps are written as
//! the daemon would.

use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use lab::{Gso, Link, Namespace, Port, wait_until};
use libbpf_rs::libbpf_sys::bpf_insn;
use libbpf_rs::{
    MapCore, MapFlags, MapHandle, Object, ObjectBuilder, TC_EGRESS, TC_INGRESS, TcHookBuilder, Xdp, XdpFlags,
};
use linux::tun::{Offloads, Tun};

use crate::wire::Sockets;

/// The longest that anything here may take.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Where both ends listen.
pub const PORT: u16 = 51820;
/// The inner device's MTU.
pub const MTU: u32 = 1420;

/// What the programs count, in the order of `counts.h`.
pub const COUNTS: &str = include_str!("../../bpf/counts.h");

/// The programs of the object.
pub const PROGRAMS: &[&str] = &["wl_egress", "wl_ingress", "wl_xdp", "wl_hand_over", "wl_arm"];

/// The object.
pub fn object() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/objects/wireloom.bpf.o")).unwrap()
}

/// The place of a count in `enum wl_count`.
pub fn place(name: &str) -> u32 {
    let (_, names) = COUNTS.split_once("enum wl_count {").unwrap();
    let names = names.split_once("};").unwrap().0.lines().filter_map(|line| {
        let name = line.trim().split([',', ' ', '\t']).next()?;
        name.starts_with("WL_").then_some(name)
    });
    names.enumerate().find(|(_, it)| *it == name).unwrap_or_else(|| panic!("no count {name}")).0 as u32
}

/// `WL_LAYOUT`; programs over maps of another one do nothing.
const LAYOUT: u32 = 3;

/// Bytes of a struct of `layout.h`, written field by field.
#[derive(Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
    pub fn be16(mut self, value: u16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }
    pub fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend(value);
        self
    }
    /// IPv6, or IPv4 in the first four of 16 bytes.
    pub fn address(self, value: Option<IpAddr>) -> Self {
        let mut bytes = [0; 16];
        match value {
            Some(IpAddr::V4(v4)) => bytes[..4].copy_from_slice(&v4.octets()),
            Some(IpAddr::V6(v6)) => bytes = v6.octets(),
            None => {}
        }
        self.bytes(&bytes)
    }
    pub fn zeros(mut self, until: usize) -> Self {
        assert!(self.0.len() <= until);
        self.0.resize(until, 0);
        self
    }
}

/// Limits that a test may shorten: names of `maps.h`, and nanoseconds or messages.
pub type Limits<'a> = &'a [(&'a str, u64)];

/// The programs, loaded for one host.
pub struct Loaded {
    pub object: Object,
}

pub const LEDGER_LEN: usize = 80 + 8 * 512;
pub const PEER_LEN: usize = 184;

/// Where fields of `struct wl_ledger` lie.
pub mod ledger {
    pub const NEXT_COUNTER: usize = 0;
    pub const RECEIVED_NEXT: usize = 8;
    pub const ARRIVED: usize = 16;
    pub const CREATED: usize = 24;
    pub const EPOCH: usize = 32;
    pub const MAY_SEND: usize = 36;
    pub const AWAITS_CONFIRMATION: usize = 40;
    pub const REKEY_ON_SEND: usize = 48;
    pub const REKEY_ON_RECEIVE: usize = 52;
}

/// Where fields of `struct wl_peer` lie.
pub mod peer {
    pub const AWAITING_SINCE: usize = 0;
    pub const OWING_SINCE: usize = 8;
    pub const LAST_DATA_SENT: usize = 16;
    pub const LAST_TRAVERSAL: usize = 24;
    pub const OWING_MORE: usize = 32;
    pub const ARMED: usize = 36;
    pub const CURRENT: usize = 40;
    pub const PATH_SEQ: usize = 48;
    pub const FAMILY: usize = 106;
    pub const PATH_MTU: usize = 112;
    pub const HAS_MAC: usize = 116;
}

/// A session for a slot, as the daemon makes it.
#[derive(Clone, Copy)]
pub struct Session {
    pub slot: u32,
    pub epoch: u32,
    pub local: u32,
    pub remote: u32,
    pub send: [u8; 32],
    pub receive: [u8; 32],
    pub initiator: bool,
    pub peer: u32,
}

/// A session of the peer in slot 0, which this host began.
pub const KEYS: Session = Session {
    slot: 3,
    epoch: 5,
    local: 0x1111_0001,
    remote: 0x2222_0002,
    send: [7; 32],
    receive: [9; 32],
    initiator: true,
    peer: 0,
};

impl Session {
    pub fn reference(&self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.epoch)
    }
    /// The same session as the other side has it.
    pub fn mirrored(&self) -> Session {
        Session {
            local: self.remote,
            remote: self.local,
            send: self.receive,
            receive: self.send,
            initiator: !self.initiator,
            ..*self
        }
    }
}

/// A way to a peer.
#[derive(Clone, Copy)]
pub struct Way {
    pub remote: IpAddr,
    pub local: IpAddr,
    pub port: u16,
    pub ifindex: u32,
    pub mtu: u32,
    pub macs: Option<[[u8; 6]; 2]>,
    pub mark: u32,
}

impl Loaded {
    pub fn new(limits: Limits<'_>) -> Loaded {
        let mut open = ObjectBuilder::default().open_memory(&object()).unwrap();
        for mut map in open.maps_mut() {
            match map.name().to_str().unwrap() {
                "peers" | "traffic" => map.set_max_entries(8).unwrap(),
                "ledgers" | "keys" | "sessions" => map.set_max_entries(16).unwrap(),
                "supers" => map.set_max_entries(libbpf_rs::num_possible_cpus().unwrap() as u32).unwrap(),
                name if name.ends_with(".rodata") => {
                    let data = map.initial_value_mut().unwrap();
                    for (name, value) in limits {
                        // The order of `maps.h`; the test of the limits would notice another.
                        let names = [
                            "wl_rekey_after_time",
                            "wl_reject_after_time",
                            "wl_rekey_on_receive_after",
                            "wl_rekey_after_messages",
                            "wl_reject_after_messages",
                        ];
                        let defaults =
                            [120_000_000_000, 180_000_000_000, 165_000_000_000, 1 << 60, u64::MAX - (1 << 13)];
                        let at = names.iter().position(|it| it == name).unwrap();
                        let bytes: [u8; 8] = u64::to_ne_bytes(defaults[at]);
                        let found = data.chunks_exact(8).position(|chunk| chunk == bytes).unwrap();
                        data[found * 8..][..8].copy_from_slice(&value.to_ne_bytes());
                    }
                }
                _ => {}
            }
        }
        Loaded { object: open.load().unwrap() }
    }

    pub fn map(&self, name: &str) -> MapHandle {
        let map = self.object.maps().find(|map| map.name() == OsStr::new(name)).unwrap();
        MapHandle::try_from(&map).unwrap()
    }

    pub fn get(&self, map: &str, slot: u32) -> Vec<u8> {
        self.map(map).lookup(&slot.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap()
    }

    pub fn set(&self, map: &str, key: &[u8], value: &[u8]) {
        self.map(map).update(key, value, MapFlags::ANY).unwrap();
    }

    /// A 64-bit field of a map's value.
    pub fn field64(&self, map: &str, slot: u32, at: usize) -> u64 {
        u64::from_ne_bytes(self.get(map, slot)[at..at + 8].try_into().unwrap())
    }

    /// A 32-bit field of a map's value.
    pub fn field32(&self, map: &str, slot: u32, at: usize) -> u32 {
        u32::from_ne_bytes(self.get(map, slot)[at..at + 4].try_into().unwrap())
    }

    /// Writes into a map's value; nothing else may be moving.
    pub fn poke(&self, map: &str, slot: u32, at: usize, bytes: &[u8]) {
        let mut value = self.get(map, slot);
        value[at..at + bytes.len()].copy_from_slice(bytes);
        self.set(map, &slot.to_ne_bytes(), &value);
    }

    pub fn count(&self, name: &str) -> u64 {
        let values = self.map("counts").lookup_percpu(&place(name).to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
        values.iter().map(|value| u64::from_ne_bytes(value[..8].try_into().unwrap())).sum()
    }

    /// What the programs have told since they were last asked: the kind, and a slot.
    pub fn events(&self) -> Vec<[u32; 2]> {
        let (ring, events) = (self.map("events"), std::cell::RefCell::new(Vec::new()));
        let mut builder = libbpf_rs::RingBufferBuilder::new();
        let word = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        builder
            .add(&ring, |bytes: &[u8]| {
                events.borrow_mut().push([word(bytes, 0), word(bytes, 4)]);
                0
            })
            .unwrap();
        builder.build().unwrap().consume().unwrap();
        events.take()
    }

    /// All that was counted, for messages.
    pub fn counts(&self) -> String {
        let (_, names) = COUNTS.split_once("enum wl_count {").unwrap();
        let names = names.split_once("};").unwrap().0.lines().filter_map(|line| {
            let name = line.trim().split([',', ' ', '\t']).next()?;
            (name.starts_with("WL_") && name != "WL_COUNTS").then_some(name)
        });
        let told = names.map(|name| (name, self.count(name))).filter(|(_, count)| *count > 0);
        told.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    }

    /// tx_bytes, rx_bytes, tx_packets, rx_packets of a peer.
    pub fn traffic(&self, slot: u32) -> [u64; 4] {
        let values = self.map("traffic").lookup_percpu(&slot.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
        std::array::from_fn(|i| {
            values.iter().map(|value| u64::from_ne_bytes(value[i * 8..][..8].try_into().unwrap())).sum()
        })
    }

    pub fn device(&self, inner: u32, mtu: u32) {
        let bytes = Bytes::default().u32(LAYOUT).u32(1).u32(inner).u32(mtu).be16(PORT).zeros(48);
        self.set("device", &0u32.to_ne_bytes(), &bytes.0);
    }

    pub fn allow(&self, net: IpAddr, prefix: u32, peer: u32) {
        let (map, octets) = match net {
            IpAddr::V4(v4) => ("allowed4", v4.octets().to_vec()),
            IpAddr::V6(v6) => ("allowed6", v6.octets().to_vec()),
        };
        self.set(map, &Bytes::default().u32(prefix).bytes(&octets).0, &peer.to_ne_bytes());
    }

    pub fn peer(&self, slot: u32, way: Option<Way>, current: u64) {
        let mut bytes = Bytes::default().zeros(40).u64(current).u32(2).u32(0);
        if let Some(way) = way {
            let [to, from] = way.macs.unwrap_or_default();
            bytes = bytes.address(Some(way.remote)).address(Some(way.local)).address(None).be16(way.port);
            bytes = bytes.bytes(&[if way.remote.is_ipv4() { 4 } else { 6 }, 0]).u32(way.ifindex).u32(way.mtu);
            bytes = bytes.u32(way.macs.is_some().into()).bytes(&to).bytes(&from).u32(way.mark);
        }
        self.set("peers", &slot.to_ne_bytes(), &bytes.zeros(PEER_LEN).0);
    }

    /// Makes the session live, in the order that `layout.h` tells.
    pub fn session(&self, session: &Session) {
        let slot = session.slot.to_ne_bytes();
        let keys = Bytes::default().bytes(&session.send).bytes(&session.receive).u32(session.epoch).zeros(88);
        self.set("keys", &slot, &keys.0);
        let bytes = Bytes::default().u64(0).u64(0).u64(0).u64(linux::clock::boot_nanos());
        let bytes = bytes.u32(session.epoch).u32(1).u32(0).u32(session.initiator.into()).u32(0).u32(0);
        let bytes = bytes.u32(session.local.to_le()).u32(session.remote.to_le()).u32(session.peer);
        self.set("ledgers", &slot, &bytes.zeros(LEDGER_LEN).0);
        self.set("sessions", &session.local.to_le_bytes(), &session.reference().to_ne_bytes());
    }

    /// Has a slot's keys wiped after so many nanoseconds, if their session is too old then.
    pub fn arm(&self, slot: u32, after: u64) {
        let program = self.object.progs_mut().find(|it| it.name() == OsStr::new("wl_arm")).unwrap();
        let context = Bytes::default().u32(slot).u32(0).u64(after).0;
        // The kernel takes the timer's memory without waiting for it, and says ENOMEM where another is at it.
        let set = || {
            let input = libbpf_rs::ProgramInput { context_in: Some(&mut context.clone()), ..Default::default() };
            match program.test_run(input).unwrap().return_value.cast_signed() {
                0 => true,
                error => {
                    assert_eq!(error, -rustix::io::Errno::NOMEM.raw_os_error());
                    false
                }
            }
        };
        wait_until("a timer", LIMIT, set).unwrap();
    }

    /// Attaches the program for XDP to an interface of the namespace, in its driver.
    pub fn attach_xdp(&self, namespace: &Namespace, ifindex: u32) {
        let program = self.object.progs().find(|it| it.name() == OsStr::new("wl_xdp")).unwrap();
        let fd = program.as_fd();
        let attach = move || Xdp::new(fd).attach(ifindex as i32, XdpFlags::DRV_MODE).map_err(std::io::Error::other);
        namespace.inside(attach).unwrap();
    }

    /// Attaches a program to an interface of the namespace.
    pub fn attach(&self, namespace: &Namespace, program: &str, ifindex: u32, ingress: bool) {
        let program = self.object.progs().find(|it| it.name() == OsStr::new(program)).unwrap();
        attach(namespace, program.as_fd(), ifindex, ingress);
    }
}

/// Attaches a program, in the place of the one before.
fn attach(namespace: &Namespace, program: BorrowedFd<'_>, ifindex: u32, ingress: bool) {
    let attach = move || {
        let mut hook = TcHookBuilder::new(program)
            .ifindex(ifindex as i32)
            .replace(true)
            .handle(1)
            .priority(1)
            .hook(if ingress { TC_INGRESS } else { TC_EGRESS });
        hook.create().and_then(|mut hook| hook.attach()).map_err(std::io::Error::other).map(drop)
    };
    namespace.inside(attach).unwrap();
}

/// Gives all that leaves by an interface of the namespace the tag of a VLAN, beside the frame as for a card that inserts it.
pub fn push_vlan(namespace: &Namespace, ifindex: u32, vlan: i32) {
    let load = |register: u8, imm: i32| instruction(0xb7, register, imm);
    // bpf_skb_vlan_push(skb, ETH_P_8021Q, vlan); return TC_ACT_OK
    let code = [
        load(2, u16::to_be(0x8100).into()),
        load(3, vlan),
        instruction(0x85, 0, 18),
        load(0, 0),
        instruction(0x95, 0, 0),
    ];
    // SAFETY: the names end with a zero, the instructions are as many as is said, and there are no options.
    let program = unsafe {
        let kind = libbpf_rs::libbpf_sys::BPF_PROG_TYPE_SCHED_CLS;
        let (name, none) = (c"push_vlan".as_ptr(), std::ptr::null_mut());
        let count = code.len() as libbpf_rs::libbpf_sys::size_t;
        libbpf_rs::libbpf_sys::bpf_prog_load(kind, name, c"GPL".as_ptr(), code.as_ptr(), count, none)
    };
    assert!(program >= 0, "{program}");
    // SAFETY: the call has made the descriptor, and nobody else has it.
    let program = unsafe { OwnedFd::from_raw_fd(program) };
    attach(namespace, program.as_fd(), ifindex, false);
}

fn instruction(code: u8, to: u8, imm: i32) -> bpf_insn {
    let mut instruction = bpf_insn { code, imm, ..Default::default() };
    instruction.set_dst_reg(to);
    instruction
}

/// A host: its programs, its TUN, its end of the cable.
pub struct Host {
    pub loaded: Loaded,
    pub tun: Tun,
    pub port: Port,
    /// The cable's index, and its link address.
    pub ifindex: u32,
    pub mac: [u8; 6],
    /// Whether it opens at XDP.
    pub xdp: bool,
}

impl Host {
    /// A host with addresses of the inner networks, of which `number` is the last part.
    pub fn new(port: &Port, number: u8, offloads: Offloads, limits: Limits<'_>, xdp: bool) -> Host {
        let namespace = &port.namespace;
        // The kernel's own chatter (neighbours, routers) is not what is tested.
        for family in ["all", "default"] {
            namespace.set_sysctl(&format!("net/ipv6/conf/{family}/accept_ra"), "0").unwrap();
            namespace.set_sysctl(&format!("net/ipv6/conf/{family}/router_solicitations"), "0").unwrap();
        }
        let tun = namespace.inside(|| linux::tun::create("wg0", 1, offloads).map_err(std::io::Error::other)).unwrap();
        namespace.set_sysctl("net/ipv6/conf/wg0/addr_gen_mode", "1").unwrap();
        namespace.ip(&["link", "set", "wg0", "mtu", &MTU.to_string(), "up"]).unwrap();
        namespace.ip(&["addr", "add", &format!("192.0.2.{number}/24"), "dev", "wg0"]).unwrap();
        namespace.ip(&["addr", "add", &format!("2001:db8::{number}/64"), "dev", "wg0", "nodad"]).unwrap();
        let (ifindex, mac) = link_of(port);
        let loaded = Loaded::new(limits);
        loaded.device(tun.index, MTU);
        loaded.attach(namespace, "wl_egress", tun.index, false);
        if xdp {
            loaded.attach(namespace, "wl_hand_over", ifindex, true);
            loaded.attach_xdp(namespace, ifindex);
        } else {
            loaded.attach(namespace, "wl_ingress", ifindex, true);
        }
        Host { loaded, tun, port: port.clone(), ifindex, mac, xdp }
    }

    /// Has the peer in slot 0 at the other end of the cable, with all that `number` stands for.
    pub fn meet(&self, other: &Port, v6: bool, number: u8, session: Option<&Session>) {
        let (_, theirs) = link_of(other);
        let way = Way {
            remote: if v6 { other.v6.into() } else { other.v4.into() },
            local: if v6 { self.port.v6.into() } else { self.port.v4.into() },
            port: PORT,
            ifindex: self.ifindex,
            mtu: 1500,
            macs: Some([theirs, self.mac]),
            mark: 0,
        };
        // As the daemon would have learnt it.
        let theirs: Vec<String> = theirs.iter().map(|byte| format!("{byte:02x}")).collect();
        let (to, dev) = (way.remote.to_string(), &self.port.interface);
        let add = ["neigh", "replace", &to, "lladdr", &theirs.join(":"), "nud", "reachable", "dev", dev];
        self.port.namespace.ip(&add).unwrap();
        self.loaded.peer(0, Some(way), session.map_or(0, Session::reference));
        self.loaded.allow([192, 0, 2, number].into(), 32, 0);
        self.loaded.allow(format!("2001:db8::{number}").parse().unwrap(), 128, 0);
        if let Some(session) = session {
            self.loaded.session(session);
        }
    }

    /// Waits until a count has reached so much.
    pub fn wait_count(&self, name: &str, at_least: u64) {
        wait_until(name, LIMIT, || self.loaded.count(name) >= at_least)
            .unwrap_or_else(|error| panic!("{error}; counted: {}", self.loaded.counts()));
    }
}

/// A host that has [`KEYS`], and at the other end of its cable its peer, which is a socket.
pub struct Scene {
    pub host: Host,
    pub theirs: Sockets,
    pub link: Link,
    /// The family outside.
    pub v6: bool,
}

impl Scene {
    pub fn new(v6: bool, xdp: bool, offloads: Offloads, limits: Limits<'_>) -> Scene {
        let (left, right) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        let link = Link::new(&left, &right, Gso::Off).unwrap();
        let host = Host::new(&link.left, 1, offloads, limits, xdp);
        host.meet(&link.right, v6, 2, Some(&KEYS));
        Scene { host, theirs: Sockets::bind(&right, PORT), link, v6 }
    }

    /// Where the host listens.
    pub fn here(&self) -> SocketAddr {
        let Port { v4, v6, .. } = &self.link.left;
        SocketAddr::new(if self.v6 { (*v6).into() } else { (*v4).into() }, PORT)
    }
}

/// A user's address inside, on the host of this number.
pub fn user(number: u8, v6: bool) -> SocketAddr {
    let ip: IpAddr = if v6 { format!("2001:db8::{number}").parse().unwrap() } else { [192, 0, 2, number].into() };
    SocketAddr::new(ip, 7000)
}

/// Index and link address of a port.
pub fn link_of(port: &Port) -> (u32, [u8; 6]) {
    let read = |what: &str| port.namespace.run("cat", &[&format!("/sys/class/net/{}/{what}", port.interface)]).unwrap();
    let mac: Vec<u8> = read("address").trim().split(':').map(|it| u8::from_str_radix(it, 16).unwrap()).collect();
    (read("ifindex").trim().parse().unwrap(), mac.try_into().unwrap())
}

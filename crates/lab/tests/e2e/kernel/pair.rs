//! A tunnel between ours and the kernel's.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lab::traffic::{Service, exchange_tcp, helper};
use lab::wg::{self, KeyPair, PeerStatus, SecretFile};
use lab::{End, Endpoints, Engine, Gso, Guest, GuestSpec, Kernel, Link, Namespace, Outer, Port, Relay, System};

use crate::common::{LIMIT, wireloom};
use crate::engines::engine;

/// Bytes per TCP exchange and direction. The guest's processor is emulated.
pub const BYTES: u64 = 300_000;

/// Boots a guest that has our programs, on a host of ours. In the guest, too, a service answers.
pub fn boot(kernel: Kernel) -> Guest {
    boot_with(kernel, 1)
}

/// The same with so many processors.
pub fn boot_with(kernel: Kernel, processors: u32) -> Guest {
    let System::Wireloom(ours, _) = wireloom() else { unreachable!("it is ours") };
    let spec = GuestSpec { processors, ..GuestSpec::new(kernel).program(ours).program(helper().unwrap()) };
    let guest = spec.boot(&Namespace::new().unwrap()).unwrap();
    guest
        .run("lab-traffic serve 7007 > /run/service & until grep -q ready /run/service; do usleep 10000; done")
        .unwrap();
    guest
}

/// What to build.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Sets it apart from others with the same guest; it numbers addresses and interfaces.
    pub number: u8,
    /// The family outside.
    pub outer: Outer,
    /// Whether there is a preshared key.
    pub preshared: bool,
    /// Who knows where the other is. Ours is the left end.
    pub endpoints: Endpoints,
    /// Whether a relay stands between them. Then ours is on a host of its own, beyond the one that the guest hangs on.
    pub relayed: bool,
    /// What moves the packets of ours.
    pub engine: Engine,
}

impl Plan {
    pub fn new(number: u8) -> Plan {
        Plan {
            number,
            outer: Outer::V4,
            preshared: false,
            endpoints: Endpoints::Both,
            relayed: false,
            engine: engine(),
        }
    }

    pub fn build(self, guest: &Guest) -> Pair<'_> {
        Pair::new(guest, self)
    }
}

/// The two ends and what is between them.
pub struct Pair<'a> {
    pub guest: &'a Guest,
    pub ours: End,
    /// The interface in the guest.
    pub interface: String,
    pub keys: KeyPair,
    /// The addresses of the kernel's end, inside.
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    /// Where it listens.
    pub endpoint: SocketAddr,
    pub relay: Option<Relay>,
    _link: Option<Link>,
}

impl<'a> Pair<'a> {
    fn new(guest: &'a Guest, plan: Plan) -> Pair<'a> {
        let Plan { number, outer, .. } = plan;
        let namespace = &guest.host.namespace;
        let link = plan.relayed.then(|| Link::new(&Namespace::new().unwrap(), namespace, Gso::Through).unwrap());
        let port = link.as_ref().map_or(&guest.host, |link| &link.left);
        let ours = wireloom().with(plan.engine).start(&port.namespace).unwrap();
        let mut ours = End::new(ours, port, 1).unwrap();
        let inside = |host: u8| {
            (Ipv4Addr::new(10, number, 0, host), Ipv6Addr::new(0xfd00, number.into(), 0, 0, 0, 0, 0, host.into()))
        };
        (ours.v4, ours.v6) = inside(1);
        ours.listen_port = 52000 + u16::from(number);
        ours.bring_up(1420).unwrap();
        let (v4, v6) = inside(2);
        let ip: IpAddr = match outer {
            Outer::V4 => guest.v4.into(),
            Outer::V6 => guest.v6.into(),
        };
        let endpoint = SocketAddr::new(ip, 53000 + u16::from(number));
        let keys = KeyPair::generate().unwrap();
        let preshared = plan.preshared.then(|| wg::preshared_key().unwrap());
        let our_endpoint = ours.endpoint(outer);
        let relay = link.as_ref().map(|link| {
            let at = |port: &Port| match outer {
                Outer::V4 => SocketAddr::new(port.v4.into(), 0),
                Outer::V6 => SocketAddr::new(port.v6.into(), 0),
            };
            Relay::new(namespace, (our_endpoint, at(&link.right)), (endpoint, at(&guest.host))).unwrap()
        });
        let interface = format!("wg{number}");
        let pair = Pair { guest, ours, interface, keys, v4, v6, endpoint, relay, _link: link };

        let for_kernel = pair.relay.as_ref().map_or(our_endpoint, |relay| relay.for_right);
        let knows = plan.endpoints != Endpoints::OnlyLeft;
        pair.make_kernel_end(knows.then_some(for_kernel), preshared.as_ref());
        let for_us = pair.relay.as_ref().map_or(endpoint, |relay| relay.for_left).to_string();
        let allowed = format!("10.{number}.0.0/24,fd00:{number:x}::/64");
        let mut args = vec!["peer", &pair.keys.public, "allowed-ips", &allowed];
        if plan.endpoints != Endpoints::OnlyRight {
            args.extend(["endpoint", &for_us]);
        }
        let path = preshared.as_ref().map(SecretFile::path);
        args.extend(path.iter().flat_map(|path| ["preshared-key", path]));
        pair.ours.daemon.set(&args).unwrap();
        pair
    }

    fn make_kernel_end(&self, endpoint: Option<SocketAddr>, preshared: Option<&SecretFile>) {
        let (interface, ours) = (&self.interface, &self.ours);
        let port = self.endpoint.port();
        let put = |kind: &str, secret: &SecretFile| {
            let path = format!("/run/{interface}.{kind}");
            self.guest.write(&path, &fs::read(secret.path()).unwrap()).unwrap();
            path
        };
        let key = put("key", &self.keys.private);
        let net = ours.v4.octets()[1];
        let mut peer = format!("peer {} allowed-ips 10.{net}.0.0/24,fd00:{net:x}::/64", ours.keys.public);
        if let Some(secret) = preshared {
            peer.push_str(&format!(" preshared-key {}", put("psk", secret)));
        }
        if let Some(endpoint) = endpoint {
            peer.push_str(&format!(" endpoint {endpoint}"));
        }
        let script = format!(
            "set -e
            ip link add {interface} type wireguard
            wg set {interface} private-key {key} listen-port {port} {peer}
            ip address add {}/24 dev {interface}
            ip address add {}/64 dev {interface} nodad
            ip link set {interface} mtu 1420 up",
            self.v4, self.v6
        );
        self.guest.run(&script).unwrap();
    }

    pub fn namespace(&self) -> &Namespace {
        self.ours.namespace()
    }

    pub fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("it was planned with a relay")
    }

    /// That programs have sent and received so many packets each, if ours has any.
    #[track_caller]
    pub fn check_taken(&self, packets: u64) {
        if self.ours.daemon.engine == Engine::Ebpf {
            let (sent, received) = self.ours.daemon.taken().unwrap();
            assert!(sent.min(received) >= packets, "the programs took {sent} and {received} packets");
        }
    }

    /// What our end knows of the kernel's.
    pub fn at_ours(&self) -> PeerStatus {
        self.ours.daemon.status().unwrap().peer(&self.keys.public).unwrap().clone()
    }

    /// What the kernel's end knows of ours.
    pub fn at_kernel(&self) -> PeerStatus {
        let text = self.guest.run(&format!("wg show {} dump", self.interface)).unwrap();
        wg::read_dump(&text).unwrap().peer(&self.ours.keys.public).unwrap().clone()
    }

    /// Pings from our end, in both families.
    #[track_caller]
    pub fn ping_kernel(&self) {
        for to in [IpAddr::from(self.v4), self.v6.into()] {
            let series = lab::ping::start_patiently(self.namespace(), to, 5, "0.2").unwrap();
            let trips = lab::ping::collect(series, LIMIT).unwrap();
            assert!(trips.received >= 4, "{to}: {trips:?}");
        }
    }

    /// Pings from the kernel's end, in both families.
    #[track_caller]
    pub fn ping_ours(&self) {
        for to in self.ours.inner() {
            let pings = self.guest.attempt(&format!("ping -n -c 5 -i 0.2 -W 15 {to}"), LIMIT).unwrap();
            let came = pings.stdout.matches("time=").count();
            assert!(came >= 4, "{to}: {}", pings.log());
        }
    }

    /// TCP both ways in both families, every byte checked; our end connects.
    #[track_caller]
    pub fn exchange_with_kernel(&self) {
        for to in [IpAddr::from(self.v4), self.v6.into()] {
            exchange_tcp(self.namespace(), to, BYTES, LIMIT).unwrap();
        }
    }

    /// The same, and the kernel's end connects.
    #[track_caller]
    pub fn exchange_with_ours(&self) {
        let _service = Service::start(self.namespace()).unwrap();
        for to in self.ours.inner() {
            let to = SocketAddr::new(to, 7007);
            self.guest.attempt(&format!("lab-traffic tcp {to} {BYTES}"), LIMIT).unwrap().checked().unwrap();
        }
    }
}

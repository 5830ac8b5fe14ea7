//! A tunnel: two systems on two hosts, a link between them, configured by `wg` as a person would.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::wg::{self, KeyPair, SecretFile};
use crate::{Counters, Daemon, Gso, LabError, Link, Namespace, Port, System, wait_for};

/// How long a daemon may take to hear that its interface is up.
const LISTEN_LIMIT: Duration = Duration::from_secs(15);

/// The address family that carries the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// Over IPv4.
    V4,
    /// Over IPv6.
    V6,
}

/// Who is told where the other is, and so who can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// Both ends know the other's address.
    Both,
    /// Only the left one: it must initiate, and the right one learns from it.
    OnlyLeft,
    /// Only the right one.
    OnlyRight,
}

/// What to build.
#[derive(Clone, Debug)]
pub struct TunnelSpec {
    /// What runs at the left end.
    pub left: System,
    /// What runs at the right end.
    pub right: System,
    /// The family outside; both are set up inside.
    pub outer: Outer,
    /// Whether the two share a preshared key.
    pub preshared: bool,
    /// Who knows the other's address.
    pub endpoints: Endpoints,
    /// The link.
    pub gso: Gso,
    /// Whether it leads through a switch, so that a [`Tap`](crate::Tap) may listen in.
    pub switched: bool,
    /// The MTU inside.
    pub mtu: u32,
    /// More arguments for our own daemons.
    pub arguments: Vec<&'static str>,
}

impl TunnelSpec {
    /// The usual tunnel: IPv4 outside, no preshared key, both endpoints known, a plain veth, MTU 1420.
    pub fn new(left: &System, right: &System) -> TunnelSpec {
        TunnelSpec {
            left: left.clone(),
            right: right.clone(),
            outer: Outer::V4,
            preshared: false,
            endpoints: Endpoints::Both,
            gso: Gso::Through,
            switched: false,
            mtu: 1420,
            arguments: Vec::new(),
        }
    }

    /// Builds it: two namespaces, a link, two daemons, keys, addresses, routes.
    ///
    /// # Errors
    /// Whatever stood in the way; what was made until then is taken away.
    pub fn build(&self) -> Result<Tunnel, LabError> {
        let (a, b) = (Namespace::new()?, Namespace::new()?);
        let link = if self.switched { Link::switched(&a, &b, self.gso) } else { Link::new(&a, &b, self.gso) }?;
        let start = |system: &System, namespace| match system {
            System::Wireloom(..) => system.start_with(namespace, |command| {
                command.args(&self.arguments);
            }),
            _ => system.start(namespace),
        };
        let left = End::new(start(&self.left, &a)?, &link.left, 1)?;
        let right = End::new(start(&self.right, &b)?, &link.right, 2)?;
        let tunnel = Tunnel { preshared: self.preshared.then(wg::preshared_key).transpose()?, left, right, link };
        tunnel.configure(self)?;
        Ok(tunnel)
    }
}

/// One end of a tunnel.
pub struct End {
    // Before the port, so that the daemon ends before the last handle of its namespace goes.
    /// The daemon.
    pub daemon: Daemon,
    /// Its keys.
    pub keys: KeyPair,
    /// Its end of the link.
    pub port: Port,
    /// Its IPv4 address inside, in 10.77.0.0/24.
    pub v4: Ipv4Addr,
    /// Its IPv6 address inside, in `fd77::/64`.
    pub v6: Ipv6Addr,
    /// The UDP port that it listens on.
    pub listen_port: u16,
}

impl End {
    /// An end around a daemon that nobody has configured yet; `host` numbers its addresses inside.
    ///
    /// # Errors
    /// No keys could be made.
    pub fn new(daemon: Daemon, port: &Port, host: u8) -> Result<End, LabError> {
        Ok(End {
            daemon,
            keys: KeyPair::generate()?,
            port: port.clone(),
            v4: Ipv4Addr::new(10, 77, 0, host),
            v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(host)),
            listen_port: 51820 + u16::from(host),
        })
    }

    /// Where a peer reaches this end from outside.
    pub fn endpoint(&self, outer: Outer) -> SocketAddr {
        let ip = match outer {
            Outer::V4 => IpAddr::V4(self.port.v4),
            Outer::V6 => IpAddr::V6(self.port.v6),
        };
        SocketAddr::new(ip, self.listen_port)
    }

    /// The host that this end is on.
    pub fn namespace(&self) -> &Namespace {
        &self.daemon.namespace
    }

    /// What has gone through its tunnel interface so far.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn counters(&self) -> Result<Counters, LabError> {
        Counters::of(self.namespace(), &self.daemon.interface)
    }

    /// Its two addresses inside.
    pub fn inner(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// Sets the private key and the port, gives the interface its MTU and addresses and brings it up.
    ///
    /// # Errors
    /// What `wg` or `ip` said.
    pub fn bring_up(&self, mtu: u32) -> Result<(), LabError> {
        let interface = &self.daemon.interface;
        let (key, port) = (self.keys.private.path(), self.listen_port.to_string());
        self.daemon.set(&["private-key", &key, "listen-port", &port])?;
        let ip = |args: &[&str]| self.namespace().ip(args).map(drop);
        ip(&["link", "set", "dev", interface, "mtu", &mtu.to_string()])?;
        ip(&["addr", "add", &format!("{}/24", self.v4), "dev", interface])?;
        let v6 = format!("{}/64", self.v6);
        ip(&["addr", "add", &v6, "dev", interface, "nodad"])?;
        self.daemon.up()?;
        wait_until_it_listens(self.namespace(), interface, self.listen_port)
    }

    /// Makes `other` a peer, with its addresses inside as allowed IPs.
    ///
    /// # Errors
    /// What `wg` said.
    pub fn add_peer(
        &self,
        other: &End,
        endpoint: Option<SocketAddr>,
        preshared: Option<&SecretFile>,
    ) -> Result<(), LabError> {
        let allowed = format!("{}/32,{}/128", other.v4, other.v6);
        let mut args = vec!["peer", &other.keys.public, "allowed-ips", &allowed];
        let endpoint = endpoint.map(|endpoint| endpoint.to_string());
        if let Some(endpoint) = &endpoint {
            args.extend(["endpoint", endpoint]);
        }
        let preshared = preshared.map(SecretFile::path);
        if let Some(path) = &preshared {
            args.extend(["preshared-key", path]);
        }
        self.daemon.set(&args)
    }

    /// What this end knows of `other`.
    ///
    /// # Errors
    /// What `wg` said, or that it does not know the peer.
    pub fn peer(&self, other: &End) -> Result<wg::PeerStatus, LabError> {
        let status = self.daemon.status()?;
        status
            .peer(&other.keys.public)
            .cloned()
            .ok_or(LabError::Unreadable { what: "the peer", text: format!("`wg show {}`", self.daemon.interface) })
    }
}

/// Two configured daemons and the link between them. Dropping it takes all of it away.
pub struct Tunnel {
    /// The left end, 10.77.0.1 and `fd77::1` inside.
    pub left: End,
    /// The right end, 10.77.0.2 and `fd77::2` inside.
    pub right: End,
    /// The preshared key, if there is one.
    pub preshared: Option<SecretFile>,
    /// The link.
    pub link: Link,
}

impl Tunnel {
    /// Who knows whom: the left end's peer is the right one and the reverse.
    fn configure(&self, spec: &TunnelSpec) -> Result<(), LabError> {
        let (left, right) = (&self.left, &self.right);
        left.bring_up(spec.mtu)?;
        right.bring_up(spec.mtu)?;
        let left_knows = spec.endpoints != Endpoints::OnlyRight;
        let right_knows = spec.endpoints != Endpoints::OnlyLeft;
        let preshared = self.preshared.as_ref();
        left.add_peer(right, left_knows.then(|| right.endpoint(spec.outer)), preshared)?;
        right.add_peer(left, right_knows.then(|| left.endpoint(spec.outer)), preshared)
    }
}

/// That an interface is up its daemon hears a moment after `ip` has returned. A peer's first message would find nobody until then, and would be repeated
/// only after five seconds: so this waits until somebody in the namespace has the UDP port.
pub(crate) fn wait_until_it_listens(namespace: &Namespace, interface: &str, port: u16) -> Result<(), LabError> {
    let what = format!("`{interface}` to listen on port {port}");
    let end_of_address = format!(":{port:04X}");
    wait_for(&what, LISTEN_LIMIT, || {
        let files = namespace.inside(|| {
            // The calling thread's, which is in the namespace, and not the process's.
            let read = |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
            Ok([read("udp")?, read("udp6").unwrap_or_default()])
        })?;
        let local = files.iter().flat_map(|file| file.lines()).filter_map(|line| line.split_whitespace().nth(1));
        Ok(local.into_iter().any(|address| address.ends_with(&end_of_address)).then_some(()))
    })
}

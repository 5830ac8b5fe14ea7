//! Floods: as many datagrams as a core can send, from many addresses at once, to a daemon that did not ask for them.
//!
//! The flooder owns a whole network of each family: its host takes all of it for local, so that it may send from any address, and the
//! victim has a route back, so that its answers cost what they cost. One thread, one UDP port, 32 datagrams in a system call; what
//! comes back is thrown away. The helper program floods ([`run`]); [`Flood`] is for whoever wants one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use inet::{Endpoint, Source};
use linux::udp::{Outgoing, Received, SendError, SocketGroup, UdpOptions};
use noise::PublicKey;

use crate::rogue::{Mind, from_base64};
use crate::traffic::helper;
use crate::{LabError, Link, Namespace, Port, Process};

/// Datagrams in one system call.
const BATCH: usize = 32;
/// Different messages of one kind.
const VARIETY: usize = 64;
/// Addresses of each family.
const SOURCES: u32 = 1 << 17;
/// The networks that are flooded from.
const NETWORKS: [&str; 2] = ["198.18.0.0/15", "2001:db8::/32"];
/// The seed of the one key of ours that the victim may have for a peer.
pub const KNOWN: u64 = 1;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Initiations with a wrong mac1
    Mac1,
    /// Initiations with a right mac1, by nobody whom the victim knows
    Stranger,
    /// Initiations of a peer, again and again
    Replay,
    /// Random bytes in the size and with the type of handshake messages
    Garbage,
    /// Data for sessions that do not exist
    Index,
    /// Data for a session that exists, sealed with another key
    Forged,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 6] = [Kind::Mac1, Kind::Stranger, Kind::Replay, Kind::Garbage, Kind::Index, Kind::Forged];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Mac1 => "mac1",
            Kind::Stranger => "stranger",
            Kind::Replay => "replay",
            Kind::Garbage => "garbage",
            Kind::Index => "index",
            Kind::Forged => "forged",
        }
    }
}

/// A host that floods another.
pub struct Flooder {
    namespace: Namespace,
    /// The cable to the victim.
    pub link: Link,
}

impl Flooder {
    /// A new host, on a cable of its own to the victim's.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn new(victim: &Namespace, gso: crate::Gso) -> Result<Flooder, LabError> {
        let namespace = Namespace::new()?;
        let link = Link::new(victim, &namespace, gso)?;
        let Port { interface, v4, v6, .. } = &link.right;
        for (network, via) in NETWORKS.into_iter().zip([IpAddr::from(*v4), IpAddr::from(*v6)]) {
            namespace.ip(&["route", "add", "local", network, "dev", "lo"])?;
            victim.ip(&["route", "add", network, "via", &via.to_string()])?;
        }
        // An address of a local route is none of the interface's; IPv6 wants to hear that this is meant.
        namespace.set_sysctl("net/ipv6/ip_nonlocal_bind", "1")?;
        for name in ["all", interface] {
            victim.set_sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
        }
        Ok(Flooder { namespace, link })
    }

    /// The host.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Floods port `at` of the victim's host, which may be another one than the daemon's: what it takes to know the daemon is done first.
    ///
    /// # Errors
    /// The helper is not built, or cannot be started.
    pub fn start(&self, plan: &Plan<'_>, at: u16) -> Result<Flood, LabError> {
        // Where processors are short, it is the flooder that waits: otherwise whom it floods would have no time to answer anybody.
        let mut command = self.namespace.command("nice");
        command.args(["-n", "19"]);
        if let Some(cpu) = plan.cpu {
            command.args(["taskset", "-c", &cpu.to_string()]);
        }
        command.arg(helper()?);
        let ip: IpAddr = if plan.v6 { self.link.left.v6.into() } else { self.link.left.v4.into() };
        let to = SocketAddr::new(ip, plan.port).to_string();
        command.args(["flood", plan.kind.name(), &to, plan.key, &at.to_string()]);
        command.args([plan.rate, plan.seconds].map(|number| number.to_string()));
        let mut process = Process::spawn(&mut command)?;
        process.wait_for_output("flooding", Duration::from_secs(20))?;
        Ok(Flood(process))
    }
}

/// What is to be flooded, and how.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// What is sent.
    pub kind: Kind,
    /// The victim's public key, base64.
    pub key: &'a str,
    /// The daemon's UDP port.
    pub port: u16,
    /// Whether it is reached over IPv6.
    pub v6: bool,
    /// Datagrams a second, at most.
    pub rate: u32,
    /// Seconds until it ends by itself.
    pub seconds: u32,
    /// The processor that the flooder stays on.
    pub cpu: Option<usize>,
}

/// A flood under way. Dropping it ends it.
pub struct Flood(Process);

impl Flood {
    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits for its end; how many datagrams were sent.
    ///
    /// # Errors
    /// The helper failed, or does not end.
    pub fn finish(self, limit: Duration) -> Result<u64, LabError> {
        let text = self.0.finish(limit)?.checked()?.stdout;
        let count = text.lines().last().and_then(|line| line.parse().ok());
        count.ok_or(LabError::Unreadable { what: "how much was flooded", text })
    }
}

/// A source of bytes that look random (SplitMix64), and are cheap.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]));
    }
}

/// The helper's part: floods port `at` of the daemon's host until it is ended or `seconds` have passed. Says how many datagrams were sent.
///
/// # Errors
/// The key is not one, there is no socket, or (for [`Kind::Forged`]) the victim does not shake hands.
pub fn run(kind: Kind, daemon: SocketAddr, key: &str, at: u16, rate: u32, seconds: u32) -> io::Result<u64> {
    let key = from_base64(key).ok_or_else(|| io::Error::other("the key is not one"))?;
    let options = UdpOptions { gso: false, gro: false, ..UdpOptions::default() };
    let sockets = SocketGroup::bind(0, 0, &options).map_err(io::Error::other)?;
    let to = SocketAddr::new(daemon.ip(), at);
    let family = |socket: &&linux::udp::Socket| socket.is_v6() == to.is_ipv6();
    let socket = sockets.control.iter().find(family).ok_or_else(|| io::Error::other("no such address family here"))?;
    let mut noise = Noise(u64::from(std::process::id()) << 32 ^ linux::clock::boot_nanos());
    let mut messages = messages(kind, daemon, key, socket, &mut noise)?;
    println!("flooding");

    let (start, limit) = (Instant::now(), Duration::from_secs(seconds.into()));
    let mut sent = 0_u64;
    let (mut sink, mut sunk) = (vec![0; BATCH * 256], [Received::default(); BATCH]);
    while start.elapsed() < limit {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        if due < sent + BATCH as u64 {
            std::thread::sleep(Duration::from_micros(500));
            continue;
        }
        for message in &mut messages {
            // What is drawn at random is drawn anew, a little: each is another message.
            match kind {
                Kind::Mac1 => noise.fill(&mut message[8..16]),
                Kind::Index => noise.fill(&mut message[4..8]),
                Kind::Garbage => noise.fill(&mut message[4..16]),
                Kind::Stranger | Kind::Replay | Kind::Forged => (),
            }
        }
        for messages in messages.chunks(BATCH) {
            let outgoing: Vec<Outgoing<'_>> = messages
                .iter()
                .map(|bytes| {
                    let source = Source { ip: source(to.is_ipv6(), noise.next() as u32 % SOURCES), ifindex: 0 };
                    Outgoing { to: Endpoint { addr: to, source: Some(source) }, class: 0, bytes, segment: None }
                })
                .collect();
            let (count, error) = socket.send(&outgoing);
            sent += count as u64;
            match error {
                None | Some(SendError::WouldBlock | SendError::Unreachable(_) | SendError::Other(_)) => (),
                Some(error) => return Err(io::Error::other(error)),
            }
            // Answers: taken and thrown away.
            let mut into: Vec<&mut [u8]> = sink.chunks_mut(256).collect();
            while socket.recv(&mut into, &mut sunk).is_ok() {}
        }
    }
    Ok(sent)
}

fn source(v6: bool, number: u32) -> IpAddr {
    if v6 {
        // Each in a /64 of its own.
        let [a, b, c, d] = number.to_be_bytes().map(u16::from);
        Ipv6Addr::new(0x2001, 0xdb8, a << 8 | b, c << 8 | d, 0, 0, 0, 1).into()
    } else {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number).into()
    }
}

fn messages(
    kind: Kind,
    to: SocketAddr,
    key: PublicKey,
    socket: &linux::udp::Socket,
    noise: &mut Noise,
) -> io::Result<Vec<Vec<u8>>> {
    let mind = |seed| Mind::new(seed, key).ok_or_else(|| io::Error::other("the key is ours"));
    let initiations = |mind: &mut Mind| -> Vec<Vec<u8>> { (0..VARIETY).map(|_| mind.initiation()).collect() };
    Ok(match kind {
        Kind::Stranger => initiations(&mut mind(noise.next() | 1 << 63)?),
        Kind::Replay => initiations(&mut mind(KNOWN)?),
        Kind::Mac1 => {
            let mut messages = initiations(&mut mind(noise.next() | 1 << 63)?);
            messages.iter_mut().for_each(|message| message[120] ^= 1);
            messages
        }
        Kind::Garbage => (0..VARIETY)
            .map(|number| {
                let (kind, len) = [(1, 148), (2, 92), (3, 64)][number % 3];
                let mut message = vec![0; len];
                noise.fill(&mut message);
                message[..4].copy_from_slice(&[kind, 0, 0, 0]);
                message
            })
            .collect(),
        Kind::Index => (0..VARIETY).map(|_| data(noise, None)).collect(),
        Kind::Forged => {
            let mut mind = mind(KNOWN)?;
            let session = shake_hands(&mut mind, to, socket)?;
            (0..VARIETY).map(|_| data(noise, Some(session))).collect()
        }
    })
}

/// A data packet of 80 bytes that nobody sealed.
fn data(noise: &mut Noise, index: Option<u32>) -> Vec<u8> {
    let mut message = vec![0; 80];
    noise.fill(&mut message);
    message[..4].copy_from_slice(&[4, 0, 0, 0]);
    if let Some(index) = index {
        message[4..8].copy_from_slice(&index.to_le_bytes());
    }
    // A number that may well come.
    message[8..16].copy_from_slice(&(noise.next() % 1000).to_le_bytes());
    message
}

/// Shakes hands, and returns the victim's index for us.
fn shake_hands(mind: &mut Mind, to: SocketAddr, socket: &linux::udp::Socket) -> io::Result<u32> {
    for _ in 0..20 {
        let initiation = mind.initiation();
        let outgoing = Outgoing { to: Endpoint::new(to), class: 0, bytes: &initiation, segment: None };
        socket.send(&[outgoing]);
        let (mut buffer, mut received) = ([0; 256], [Received::default()]);
        let deadline = Instant::now() + Duration::from_millis(500);
        while Instant::now() < deadline {
            if let Ok(1..) = socket.recv(&mut [&mut buffer], &mut received) {
                mind.hear(to, &buffer[..received[0].len]);
            }
            if let Some(session) = &mind.session {
                return Ok(session.remote_index().as_u32());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Err(io::Error::other("the victim does not shake hands"))
}

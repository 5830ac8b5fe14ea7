//! What `top` shows: two looks at an interface, one interval apart, made into rates.

use std::cmp::Reverse;
use std::time::{Duration, Instant, SystemTime};

use config::address::{CidrText, EndpointText, NumericZones};
use config::key;
use config::stats::{Batches, Worker};

use crate::watch::Seen;

/// A look, and when it was.
pub struct Look {
    /// When.
    pub at: Instant,
    /// What was seen.
    pub seen: Seen,
}

/// By what the peers are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// What moves most first.
    #[default]
    Traffic,
    /// The latest handshake first.
    Handshake,
    /// What loses most first.
    Loss,
    /// As they are called.
    Name,
}

impl Order {
    /// The next one.
    pub fn next(self) -> Order {
        match self {
            Order::Traffic => Order::Handshake,
            Order::Handshake => Order::Loss,
            Order::Loss => Order::Name,
            Order::Name => Order::Traffic,
        }
    }

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Order::Traffic => "traffic",
            Order::Handshake => "handshake",
            Order::Loss => "loss",
            Order::Name => "name",
        }
    }
}

/// A peer's line.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The beginning of its key.
    pub name: String,
    /// Where it is.
    pub endpoint: String,
    /// Its networks.
    pub allowed_ips: String,
    /// Bits a second from it and to it.
    pub rates: [f64; 2],
    /// How long ago the latest handshake was.
    pub handshake: Option<Duration>,
    /// How much of what it sent within the interval did not come, of 1; `None` if it sent nothing or that is not known.
    pub loss: Option<f64>,
}

/// A worker's line.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// How much of one processor it took, of 1.
    pub busy: f64,
    /// Packets a second from the network and to it.
    pub packets: [f64; 2],
    /// Packets of a batch, on average, each way.
    pub batch: [Option<f64>; 2],
}

/// What is shown of an interface.
pub struct View {
    /// The line above all: what it is.
    pub title: String,
    /// Bits a second in and out.
    pub rates: [f64; 2],
    /// The peers, sorted.
    pub peers: Vec<Row>,
    /// The workers, if they are told of.
    pub workers: Vec<Load>,
    /// Reasons for which packets were dropped: how many a second now, and how many in all. Those that grow come first.
    pub drops: Vec<(String, f64, u64)>,
    /// Handshakes by what became of them, in all.
    pub handshakes: Vec<(String, u64)>,
}

impl View {
    /// What happened between two looks at the same interface.
    pub fn of(before: &Look, after: &Look, order: Order, now: SystemTime) -> View {
        let (then, seen) = (&before.seen, &after.seen);
        let seconds = after.at.saturating_duration_since(before.at).as_secs_f64().max(0.001);
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        let former: std::collections::BTreeMap<_, _> =
            then.device.peers.iter().map(|peer| (peer.public_key, peer)).collect();
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let peers = seen.device.peers.iter().map(|peer| {
            // One that is new has moved all that it has since.
            let former = former.get(&peer.public_key);
            let bits = |bytes: u64, before: Option<u64>| 8.0 * rate(before.unwrap_or(0), bytes);
            let loss = peer.reception.and_then(|after| {
                let before = former.and_then(|peer| peer.reception).unwrap_or_default();
                let sent = after.sent.checked_sub(before.sent).filter(|sent| *sent > 0)?;
                let arrived = after.arrived.saturating_sub(before.arrived);
                Some(sent.saturating_sub(arrived) as f64 / sent as f64)
            });
            let networks: Vec<_> = peer.allowed_ips.iter().map(|&network| CidrText(network).to_string()).collect();
            let handshake = peer.last_handshake.filter(|at| at.as_secs() != 0);
            Row {
                name: key::to_base64(&peer.public_key).as_str().chars().take(8).chain(['…']).collect(),
                endpoint: peer.endpoint.map_or("-".into(), |it| EndpointText(it, &NumericZones).to_string()),
                allowed_ips: if networks.is_empty() { "-".to_owned() } else { networks.join(",") },
                rates: [
                    bits(peer.rx_bytes, former.map(|it| it.rx_bytes)),
                    bits(peer.tx_bytes, former.map(|it| it.tx_bytes)),
                ],
                handshake: handshake.map(|at| now.saturating_sub(at)),
                loss,
            }
        });
        let mut peers: Vec<Row> = peers.collect();
        sort(&mut peers, order);
        let rates = [0, 1].map(|way| peers.iter().map(|row| row.rates[way]).sum());
        let (mut workers, mut drops, mut handshakes) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(stats) = &seen.stats {
            let before = then.stats.as_ref();
            let former = |at: usize| before.and_then(|it| it.workers.get(at)).copied().unwrap_or_default();
            workers.extend(stats.workers.iter().enumerate().map(|(at, worker)| load(&former(at), worker, seconds)));
            let counted = |reason: &str| {
                before.into_iter().flat_map(|it| &it.drops).find(|it| it.0 == reason).map_or(0, |it| it.1)
            };
            let all = stats.drops.iter().filter(|(_, count)| *count > 0);
            drops.extend(all.map(|(name, count)| (name.clone(), rate(counted(name), *count), *count)));
            drops.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.2.cmp(&a.2)));
            handshakes = stats.handshakes.clone();
        }
        View { title: title(seen), rates, peers, workers, drops, handshakes }
    }
}

fn load(before: &Worker, after: &Worker, seconds: f64) -> Load {
    let ways = [(&before.received, &after.received), (&before.sent, &after.sent)];
    let count = |it: &Batches| it.sizes.iter().sum::<u64>();
    Load {
        busy: (after.busy.saturating_sub(before.busy).as_secs_f64() / seconds).min(1.0),
        packets: ways.map(|(before, after)| after.packets.saturating_sub(before.packets) as f64 / seconds),
        batch: ways.map(|(before, after)| {
            let batches = count(after).saturating_sub(count(before));
            (batches > 0).then(|| after.packets.saturating_sub(before.packets) as f64 / batches as f64)
        }),
    }
}

fn sort(peers: &mut [Row], order: Order) {
    match order {
        Order::Traffic => peers.sort_by(|a, b| (b.rates[0] + b.rates[1]).total_cmp(&(a.rates[0] + a.rates[1]))),
        Order::Handshake => peers.sort_by_key(|row| (row.handshake.is_none(), row.handshake)),
        Order::Loss => peers.sort_by_key(|row| Reverse((row.loss.unwrap_or(-1.0) * 1e9) as i64)),
        Order::Name => peers.sort_by(|a, b| a.name.cmp(&b.name)),
    }
}

fn title(seen: &Seen) -> String {
    let mut words = vec![seen.name.clone()];
    words.push(match &seen.stats {
        Some(stats) => format!("wireloom {}", stats.version),
        None => format!("run by {}", if seen.engine.name() == "kernel" { "the kernel" } else { "another program" }),
    });
    words.extend(seen.stats.as_ref().map(|stats| format!("up {}", age(stats.uptime))));
    words.extend((seen.device.listen_port != 0).then(|| format!("port {}", seen.device.listen_port)));
    words.push(match seen.device.peers.len() {
        1 => "1 peer".to_owned(),
        peers => format!("{peers} peers"),
    });
    words.extend(seen.resident.map(|bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))));
    words.join(" · ")
}

/// A length of time in its two largest units.
pub fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A number with the prefix that leaves at most three digits before the point.
pub fn scaled(value: f64, unit: &str) -> String {
    const PREFIXES: [&str; 5] = ["", "k", "M", "G", "T"];
    let (mut value, mut at) = (value, 0);
    // What would be rounded to 1000 has the next one.
    while value >= 999.5 && at + 1 < PREFIXES.len() {
        value /= 1000.0;
        at += 1;
    }
    let places = usize::from(at > 0 && value < 99.95);
    format!("{value:.places$} {}{unit}", PREFIXES[at])
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::client::Engine;
    use config::device::{Device, Peer};
    use config::stats::Stats;
    use noise::{PublicKey, Reception};

    /// A look, so many seconds after the first, at an interface on which so many bytes and packets have moved since.
    pub fn look(first: Instant, seconds: u64, moved: u64) -> Look {
        let mut device = Device { listen_port: 51820, ..Device::default() };
        for (number, part) in [(1, 1), (2, 3), (3, 0)] {
            let mut peer = Peer::new(PublicKey::from_bytes([number; 32]));
            peer.rx_bytes = 1000 + moved * part;
            peer.tx_bytes = moved * part / 2;
            peer.endpoint = (part > 0).then(|| format!("192.0.2.{number}:51820").parse().unwrap());
            peer.allowed_ips = vec![inet::Cidr::new([10, 0, 0, number].into(), 32).unwrap()];
            peer.last_handshake = (part > 0).then(|| Duration::from_secs(1_700_000_000 - 65 * part));
            peer.reception = Some(Reception { arrived: moved * part / 200, sent: moved * part / 100 });
            device.peers.push(peer);
        }
        let worker = |share: u64| Worker {
            busy: Duration::from_millis(seconds * share),
            received: Batches { packets: moved / 10, bytes: moved, sizes: [0, 0, moved / 40, 0, 0, 0, 0, 0] },
            ..Worker::default()
        };
        let stats = Stats {
            version: "1.2.3".to_owned(),
            process: 1,
            uptime: Duration::from_secs(3700),
            drops: vec![("no-route".into(), 7), ("replayed".into(), moved), ("looped".into(), 0)],
            handshakes: vec![("initiations_sent".into(), 5)],
            taken: None,
            programs: Vec::new(),
            workers: vec![worker(1000), worker(250)],
        };
        let engine = Engine::Wireloom { process: None };
        let resident = Some(12 << 20);
        let seen = Seen { name: "wg0".into(), engine, device, stats: Some(stats), policy: Vec::new(), resident };
        Look { at: first + Duration::from_secs(seconds), seen }
    }

    pub fn time() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    #[test]
    fn rates_are_what_happened_between_two_looks() {
        let start = Instant::now();
        let view = View::of(&look(start, 0, 0), &look(start, 2, 2000), Order::Traffic, time());
        assert_eq!(view.title, "wg0 · wireloom 1.2.3 · up 1 h 1 min · port 51820 · 3 peers · 12.0 MiB");
        let names: Vec<_> = view.peers.iter().map(|row| &row.allowed_ips[..]).collect();
        assert_eq!(names, ["10.0.0.2/32", "10.0.0.1/32", "10.0.0.3/32"], "what moves most first");
        assert_eq!(view.peers[0].rates, [8.0 * 3000.0, 8.0 * 1500.0]);
        assert_eq!(view.rates, [8.0 * 4000.0, 8.0 * 2000.0]);
        assert_eq!(view.peers[0].loss, Some(0.5));
        assert_eq!(view.peers[2].loss, None, "it sent nothing");
        assert_eq!(view.peers[1].handshake, Some(Duration::from_secs(65)));
        assert_eq!(view.workers[0].busy, 1.0);
        assert_eq!(view.workers[1].busy, 0.25);
        assert_eq!((view.workers[0].packets, view.workers[0].batch), ([100.0, 0.0], [Some(4.0), None]));
        assert_eq!(view.drops, [("replayed".into(), 1000.0, 2000), ("no-route".into(), 0.0, 7)]);
        let by = |order| View::of(&look(start, 0, 0), &look(start, 2, 2000), order, time()).peers;
        assert_eq!(by(Order::Handshake)[0].allowed_ips, "10.0.0.1/32");
        assert_eq!(by(Order::Name)[0].allowed_ips, "10.0.0.1/32");
        assert_eq!(by(Order::Loss)[2].allowed_ips, "10.0.0.3/32");
    }

    #[test]
    fn a_restart_between_two_looks_is_no_rate_below_zero() {
        let start = Instant::now();
        let view = View::of(&look(start, 9, 2000), &look(start, 10, 10), Order::Traffic, time());
        assert!(view.peers.iter().all(|row| row.rates.iter().all(|rate| *rate >= 0.0)));
        assert!(view.workers.iter().all(|load| load.packets == [0.0; 2] && load.batch == [None; 2]));
    }

    #[test]
    fn numbers_fit_their_columns() {
        let told = [0.0, 999.0, 999.6, 12_345.0, 99_960.0, 999_499.0, 1e9, 9.9e15].map(|n| scaled(n, "b/s"));
        assert_eq!(
            told,
            ["0 b/s", "999 b/s", "1.0 kb/s", "12.3 kb/s", "100 kb/s", "999 kb/s", "1.0 Gb/s", "9900 Tb/s"]
        );
        let ages = [5, 65, 3700, 90_000].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]);
    }
}

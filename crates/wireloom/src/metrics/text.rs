//! The metrics of an interface, in the text format of Prometheus. docs/metrics.md tells what each means.
//!
//! The names of the first part are those of MindFlavor's prometheus_wireguard_exporter, with its labels, and on request
//! (`?names=mdlayher`) also those of mdlayher's wireguard_exporter: dashboards are there that use them. What only we know begins with `wireloom_`. No
//! key is told but public ones. The text is written as it is made, for there may be 100,000 peers, and each name has its lines in one place.

use std::fmt::{self, Display};
use std::io::{self, Write};

use config::address::{CidrText, EndpointText, NumericZones};
use config::device::Peer;
use config::key;
use config::policy::RuleCount;
use config::stats::{BATCH_SIZES, Batches, Stats, Worker};

use crate::watch::Seen;

/// The type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes metrics.
pub struct Exposition<'a, W> {
    out: W,
    seen: &'a Seen,
}

/// A value of a label, as it has to be written.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);
        impl fmt::Write for Escaping<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for piece in text.split_inclusive(['\\', '"', '\n']) {
                    let (plain, last) = match piece.char_indices().next_back() {
                        Some((at, last @ ('\\' | '"' | '\n'))) => (&piece[..at], Some(last)),
                        _ => (piece, None),
                    };
                    self.0.write_str(plain)?;
                    match last {
                        Some('\n') => self.0.write_str("\\n")?,
                        Some(special) => write!(self.0, "\\{special}")?,
                        None => (),
                    }
                }
                Ok(())
            }
        }
        fmt::Write::write_fmt(&mut Escaping(f), format_args!("{}", self.0))
    }
}

/// Networks with commas between them.
struct Networks<'a>(&'a Peer);

impl Display for Networks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, &network) in self.0.allowed_ips.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { "," }, CidrText(network))?;
        }
        Ok(())
    }
}

impl<'a, W: Write> Exposition<'a, W> {
    /// Writes all metrics of an interface; `mdlayher` says whether those names are wanted too.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(out: W, seen: &'a Seen, mdlayher: bool) -> io::Result<W> {
        let mut it = Exposition { out, seen };
        it.peers()?;
        if mdlayher {
            it.mdlayher()?;
        }
        it.device()?;
        if let Some(stats) = &seen.stats {
            it.work(stats)?;
            it.policy()?;
        }
        Ok(it.out)
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) -> io::Result<()> {
        writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    /// A metric that there is once.
    fn one(&mut self, name: &str, kind: &str, help: &str, labels: &str, value: impl Display) -> io::Result<()> {
        self.head(name, kind, help)?;
        writeln!(self.out, "{name}{{interface=\"{}\"{labels}}} {value}", Escaped(&self.seen.name))
    }

    /// A metric that each peer has, in the words of prometheus_wireguard_exporter.
    fn each<T: Display>(&mut self, name: &str, kind: &str, help: &str, value: impl Fn(&Peer) -> T) -> io::Result<()> {
        self.head(name, kind, help)?;
        for peer in &self.seen.device.peers {
            let (interface, key) = (Escaped(&self.seen.name), key::to_base64(&peer.public_key));
            writeln!(
                self.out,
                "{name}{{interface=\"{interface}\",public_key=\"{key}\",allowed_ips=\"{}\"}} {}",
                Networks(peer),
                value(peer)
            )?;
        }
        Ok(())
    }

    fn peers(&mut self) -> io::Result<()> {
        let sent = "Bytes sent to the peer";
        self.each("wireguard_sent_bytes_total", "counter", sent, |peer| peer.tx_bytes)?;
        let received = "Bytes received from the peer";
        self.each("wireguard_received_bytes_total", "counter", received, |peer| peer.rx_bytes)?;
        let handshake = "UNIX timestamp of the latest handshake with the peer, 0 if there was none";
        self.each("wireguard_latest_handshake_seconds", "gauge", handshake, handshake_of)?;
        let peers = self.seen.device.peers.len();
        self.one("wireguard_peers_total", "gauge", "Number of peers", "", peers)
    }

    fn mdlayher(&mut self) -> io::Result<()> {
        let key = |key| key::to_base64(&key).as_str().to_owned();
        let own = self.seen.device.public_key.map(key).unwrap_or_default();
        self.head("wireguard_device_info", "gauge", "Metadata about a device")?;
        let device = Escaped(&self.seen.name);
        writeln!(self.out, "wireguard_device_info{{device=\"{device}\",public_key=\"{own}\"}} 1")?;
        self.head("wireguard_peer_info", "gauge", "Metadata about a peer")?;
        for peer in &self.seen.device.peers {
            let (device, key) = (Escaped(&self.seen.name), key::to_base64(&peer.public_key));
            let endpoint = peer.endpoint.map(|it| EndpointText(it, &NumericZones).to_string()).unwrap_or_default();
            writeln!(
                self.out,
                "wireguard_peer_info{{allowed_ips=\"{}\",device=\"{device}\",endpoint=\"{}\",public_key=\"{key}\"}} 1",
                Networks(peer),
                Escaped(endpoint)
            )?;
        }
        type Value = fn(&Peer) -> u64;
        let each: [(&str, &str, &str, Value); 3] = [
            ("wireguard_peer_receive_bytes_total", "counter", "Bytes received from the peer", |peer| peer.rx_bytes),
            ("wireguard_peer_transmit_bytes_total", "counter", "Bytes sent to the peer", |peer| peer.tx_bytes),
            ("wireguard_peer_last_handshake_seconds", "gauge", "UNIX timestamp of the latest handshake", handshake_of),
        ];
        for (name, kind, help, value) in each {
            self.head(name, kind, help)?;
            for peer in &self.seen.device.peers {
                let (device, key) = (Escaped(&self.seen.name), key::to_base64(&peer.public_key));
                writeln!(self.out, "{name}{{device=\"{device}\",public_key=\"{key}\"}} {}", value(peer))?;
            }
        }
        Ok(())
    }

    fn device(&mut self) -> io::Result<()> {
        let engine = format!(",engine=\"{}\"", self.seen.engine.name());
        self.one("wireloom_interface_info", "gauge", "What runs the interface", &engine, 1)?;
        let version = format!(",version=\"{}\"", env!("CARGO_PKG_VERSION"));
        self.one("wireloom_exporter_info", "gauge", "What serves these metrics", &version, 1)?;
        if let Some(resident) = self.seen.resident {
            let help = "Resident memory of the interface's process";
            self.one("wireloom_resident_memory_bytes", "gauge", help, "", resident)?;
        }
        Ok(())
    }

    fn work(&mut self, stats: &Stats) -> io::Result<()> {
        let version = format!(",version=\"{}\"", Escaped(&stats.version));
        self.one("wireloom_build_info", "gauge", "The interface's program", &version, 1)?;
        let uptime = stats.uptime.as_secs_f64();
        self.one("wireloom_uptime_seconds", "gauge", "How long the interface has been there", "", uptime)?;
        self.arrived()?;

        let interface = Escaped(&self.seen.name);
        self.head("wireloom_dropped_packets_total", "counter", "Packets dropped, by reason")?;
        for (reason, packets) in &stats.drops {
            writeln!(
                self.out,
                "wireloom_dropped_packets_total{{interface=\"{interface}\",reason=\"{}\"}} {packets}",
                Escaped(reason)
            )?;
        }
        if !stats.programs.is_empty() {
            let name = "wireloom_program_packets_total";
            self.head(
                name,
                "counter",
                "What became of packets in the eBPF programs: taken, or left to the daemon and why",
            )?;
            for (outcome, packets) in &stats.programs {
                writeln!(self.out, "{name}{{interface=\"{interface}\",outcome=\"{}\"}} {packets}", Escaped(outcome))?;
            }
        }
        self.handshakes(&stats.handshakes)?;

        type Read = fn(&Worker) -> f64;
        let counts: [(&str, &str, Read); 3] = [
            ("wireloom_worker_busy_seconds_total", "Processor time that the worker took", |it| it.busy.as_secs_f64()),
            ("wireloom_worker_wakeups_total", "How often the worker slept and was woken", |it| it.wakeups as f64),
            ("wireloom_worker_helped_steps_total", "Steps that the worker took for others", |it| it.helped as f64),
        ];
        for (name, help, count) in counts {
            self.head(name, "counter", help)?;
            for (number, worker) in stats.workers.iter().enumerate() {
                let count = count(worker);
                writeln!(self.out, "{name}{{interface=\"{interface}\",worker=\"{number}\"}} {count}")?;
            }
        }
        self.batches(stats)
    }

    /// What each rule of the policy has taken.
    fn policy(&mut self) -> io::Result<()> {
        type Read = fn(&RuleCount) -> u64;
        let counts: [(&str, &str, Read); 3] = [
            ("wireloom_rule_packets_total", "Packets that the rule took", |it| it.packets),
            ("wireloom_rule_bytes_total", "Bytes of packets that the rule took", |it| it.bytes),
            ("wireloom_rule_dropped_packets_total", "Packets that the rule dropped", |it| it.dropped),
        ];
        for (name, help, count) in counts {
            self.head(name, "counter", help)?;
            for (number, (rule, it)) in (1..).zip(&self.seen.policy) {
                let (interface, count) = (Escaped(&self.seen.name), count(it));
                writeln!(
                    self.out,
                    "{name}{{interface=\"{interface}\",number=\"{number}\",rule=\"{}\"}} {count}",
                    Escaped(rule)
                )?;
            }
        }
        Ok(())
    }

    /// How much of what peers sent arrived.
    fn arrived(&mut self) -> io::Result<()> {
        let told = self.seen.device.peers.iter().filter_map(|peer| Some((peer, peer.reception?)));
        let told: Vec<_> = told.collect();
        for (name, help, expected) in [
            ("wireloom_peer_received_packets_total", "Data messages of the peer that arrived", false),
            (
                "wireloom_peer_expected_packets_total",
                "Data messages that the peer had sent by then, as its counters tell",
                true,
            ),
        ] {
            self.head(name, "counter", help)?;
            for (peer, reception) in &told {
                let count = if expected { reception.sent } else { reception.arrived };
                let (interface, key) = (Escaped(&self.seen.name), key::to_base64(&peer.public_key));
                writeln!(self.out, "{name}{{interface=\"{interface}\",public_key=\"{key}\"}} {count}")?;
            }
        }
        Ok(())
    }

    fn handshakes(&mut self, counts: &[(String, u64)]) -> io::Result<()> {
        let interface = Escaped(&self.seen.name);
        let name = "wireloom_handshake_messages_total";
        self.head(name, "counter", "Handshake messages that were sent, or received and taken")?;
        let (mut tries, mut messages) = (Vec::new(), Vec::new());
        for (what, count) in counts {
            match what.rsplit_once('_') {
                Some((message, direction @ ("sent" | "received"))) => messages.push((message, direction, count)),
                _ => tries.push((what, count)),
            }
        }
        for (message, direction, count) in messages {
            let message = message.strip_suffix('s').unwrap_or(message);
            writeln!(
                self.out,
                "{name}{{interface=\"{interface}\",message=\"{}\",direction=\"{direction}\"}} {count}",
                Escaped(message)
            )?;
        }
        let name = "wireloom_handshake_failures_total";
        self.head(name, "counter", "Tries that went unanswered, and handshakes that were given up")?;
        for (what, count) in tries {
            writeln!(self.out, "{name}{{interface=\"{interface}\",outcome=\"{}\"}} {count}", Escaped(what))?;
        }
        Ok(())
    }

    fn batches(&mut self, stats: &Stats) -> io::Result<()> {
        fn ways(worker: &Worker) -> [(&'static str, &Batches); 2] {
            [("sent", &worker.sent), ("received", &worker.received)]
        }
        let interface = Escaped(&self.seen.name);
        let name = "wireloom_worker_bytes_total";
        self.head(name, "counter", "Bytes of data messages that the worker's batches held")?;
        for (number, worker) in stats.workers.iter().enumerate() {
            for (direction, batches) in ways(worker) {
                let bytes = batches.bytes;
                writeln!(
                    self.out,
                    "{name}{{interface=\"{interface}\",worker=\"{number}\",direction=\"{direction}\"}} {bytes}"
                )?;
            }
        }
        let name = "wireloom_batch_packets";
        self.head(name, "histogram", "Batches by how many data messages they held")?;
        for (number, worker) in stats.workers.iter().enumerate() {
            for (direction, batches) in ways(worker) {
                let labels = format!("interface=\"{interface}\",worker=\"{number}\",direction=\"{direction}\"");
                let mut count = 0;
                for (at, size) in batches.sizes.iter().enumerate() {
                    count += size;
                    match BATCH_SIZES.get(at) {
                        Some(up_to) => writeln!(self.out, "{name}_bucket{{{labels},le=\"{up_to}\"}} {count}")?,
                        None => writeln!(self.out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?,
                    }
                }
                writeln!(self.out, "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {count}", batches.packets)?;
            }
        }
        Ok(())
    }
}

fn handshake_of(peer: &Peer) -> u64 {
    peer.last_handshake.map_or(0, |at| at.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a label's value was before it was escaped.
    fn unescaped(text: &str) -> Option<String> {
        let (mut out, mut chars) = (String::new(), text.chars());
        while let Some(c) = chars.next() {
            out.push(match c {
                '\\' => match chars.next()? {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    _ => return None,
                },
                '"' | '\n' => return None,
                c => c,
            });
        }
        Some(out)
    }

    proptest! {
        #[test]
        fn a_value_is_escaped_so_that_it_can_be_read(text in "[\\\\\"\na-cé]{0,20}|.{0,20}") {
            prop_assert_eq!(unescaped(&Escaped(&text).to_string()), Some(text));
        }
    }
}

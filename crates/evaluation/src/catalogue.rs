//! Every experiment that the lab knows: what it asks, along which axis, in which metrics, and which figure of the thesis it answers.
//!
//! The thesis is Mirco Barone, "Toward High-Speed Tunneling Technologies" (Politecnico di Torino, July 2024): chapter 5 on MTU, 6 on
//! tunnels of the kernel's WireGuard, 7 on its variant that handles each packet on one processor.

use crate::unit::Unit;

/// One experiment.
#[derive(Debug)]
pub struct Experiment {
    /// Its name in records and on the command line.
    pub slug: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// What it is to find out.
    pub question: &'static str,
    /// How it is measured, in a sentence.
    pub method: &'static str,
    /// What is varied, if anything is.
    pub axis: Option<Axis>,
    /// What is measured. The first decides the verdict.
    pub metrics: &'static [Metric],
    /// Figures of the thesis, or the empty string.
    pub thesis: &'static str,
    /// The experiment whose records it reads: another's, where it only looks at them differently.
    pub source: &'static str,
    /// Whether the verdict is drawn where the axis begins rather than where it ends: small packets are what is hard.
    pub near: bool,
    /// Whether it is about speed, of which nothing is said where the processor was emulated.
    pub speed: bool,
}

/// What is varied.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// Its name in `x` of a record.
    pub key: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// What it counts in.
    pub unit: Unit,
    /// Whether its values grow by factors.
    pub log: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name in `metrics` of a record.
    pub key: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// What it counts in: records hold base units.
    pub unit: Unit,
    /// What is good.
    pub better: Better,
}

/// Which of two values is the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The larger.
    More,
    /// The smaller.
    Less,
    /// Neither: it explains the others.
    Neither,
}

const fn metric(key: &'static str, name: &'static str, unit: Unit, better: Better) -> Metric {
    Metric { key, name, unit, better }
}

const fn axis(key: &'static str, name: &'static str, unit: Unit, log: bool) -> Option<Axis> {
    Some(Axis { key, name, unit, log })
}

/// Payload that arrived, in bits per second.
pub const THROUGHPUT: Metric = metric("throughput", "throughput", Unit::BitsPerSecond, Better::More);
/// Processors of the whole machine that were busy meanwhile, senders and receivers of the traffic included.
pub const PROCESSORS: Metric = metric("processors", "busy processors", Unit::Processors, Better::Less);
/// Busy time of the whole machine for each byte of payload.
pub const COST: Metric = metric("cost", "processor time per gigabyte", Unit::SecondsPerByte, Better::Less);
/// The first by the second: reckoned, where a record has both.
pub const PER_PROCESSOR: Metric =
    metric("per_processor", "throughput per busy processor", Unit::BitsPerSecondPerProcessor, Better::More);
/// Memory of all processes of one end, of what they share each its part, and of the BPF maps that they have open.
pub const MEMORY: Metric = metric("memory", "memory of one end", Unit::Bytes, Better::Less);
/// Echo requests without an answer, as a share of all that were sent.
pub const LOST: Metric = metric("lost", "lost", Unit::Share, Better::Less);
/// A percentile counts what was lost as slower than anything.
pub const P50: Metric = metric("p50", "round trip, median", Unit::Seconds, Better::Less);
/// As above.
pub const P99: Metric = metric("p99", "round trip, 99th percentile", Unit::Seconds, Better::Less);
/// The share that a percentile's key stands for.
pub const PERCENTILES: [(&str, f64); 2] = [(P50.key, 0.5), (P99.key, 0.99)];

/// All of them, in the order of the report.
pub const EXPERIMENTS: [Experiment; 18] = [
    Experiment {
        slug: "streams",
        title: "Throughput against streams",
        question: "How much does one tunnel carry, and do more TCP streams in it bring more?",
        method: "TCP streams side by side through one tunnel; payload that arrived, and busy time of the whole machine. On a link off each datagram crosses alone, as by a network card; one labelled gso hands super-packets over whole, which flatters who sends them.",
        axis: axis("streams", "TCP streams in one tunnel", Unit::Count, false),
        metrics: &[THROUGHPUT, COST, PROCESSORS],
        thesis: "6.2",
        source: "streams",
        near: false,
        speed: true,
    },
    Experiment {
        slug: "tunnels",
        title: "Throughput against tunnels",
        question: "Does throughput grow with the number of tunnels used at once?",
        method: "Source, two gateways and drain; one TCP stream through each tunnel between the gateways, all at once; WireGuard and OpenVPN have a daemon for each tunnel, strongSwan one for all.",
        axis: axis("tunnels", "tunnels", Unit::Count, false),
        metrics: &[THROUGHPUT, COST, PROCESSORS],
        thesis: "6.4, 6.6, 7.2",
        source: "tunnels",
        near: false,
        speed: true,
    },
    Experiment {
        slug: "cores",
        title: "Load of each processor",
        question: "Is the work spread over the processors, or does one of them stop the others?",
        method: "Busy share of each processor while the tunnels carry traffic.",
        axis: axis("core", "processors, the busiest of each round first", Unit::Count, false),
        metrics: &[metric("busy", "busy share", Unit::Share, Better::Neither)],
        thesis: "6.3, 6.5, 7.3, 7.4",
        source: "cores",
        near: false,
        speed: true,
    },
    Experiment {
        slug: "efficiency",
        title: "Throughput per processor",
        question: "How much does each busy processor carry, and does that last with more tunnels?",
        method: "Throughput against tunnels, divided by the processors that were busy meanwhile.",
        axis: axis("tunnels", "tunnels", Unit::Count, false),
        metrics: &[PER_PROCESSOR],
        thesis: "7.5",
        source: "tunnels",
        near: false,
        speed: true,
    },
    Experiment {
        slug: "mtu",
        title: "Throughput against MTU",
        question: "What do larger packets bring?",
        method: "One TCP stream through one tunnel, with the MTU of the link and of the tunnel raised together.",
        axis: axis("mtu", "MTU of the tunnel", Unit::Octets, false),
        metrics: &[THROUGHPUT, COST, PROCESSORS],
        thesis: "5.2",
        source: "mtu",
        near: false,
        speed: true,
    },
    Experiment {
        slug: "sizes",
        title: "Packets per second against their size",
        question: "How many packets a second pass without loss, small and large?",
        method: "UDP at the highest rate of which at most one in a hundred is lost.",
        axis: axis("size", "UDP payload", Unit::Octets, true),
        metrics: &[
            metric("packets", "packets carried", Unit::PacketsPerSecond, Better::More),
            THROUGHPUT,
            metric("lost", "lost", Unit::Share, Better::Neither),
            PROCESSORS,
        ],
        thesis: "",
        source: "sizes",
        near: true,
        speed: true,
    },
    Experiment {
        slug: "flood",
        title: "Packets per second under a flood",
        question: "What still arrives when more is sent than can be carried?",
        method: "UDP as fast as the sender can; what arrived of it.",
        axis: axis("size", "UDP payload", Unit::Octets, true),
        metrics: &[
            metric("packets", "packets carried", Unit::PacketsPerSecond, Better::More),
            metric("sent", "packets sent", Unit::PacketsPerSecond, Better::Neither),
            PROCESSORS,
        ],
        thesis: "",
        source: "flood",
        near: true,
        speed: true,
    },
    Experiment {
        slug: "latency",
        title: "Latency of an idle tunnel",
        question: "How long does a packet take there and back when nothing else is under way?",
        method: "Echo requests one after the other; the whole distribution.",
        axis: None,
        metrics: &[P50, P99, LOST],
        thesis: "",
        source: "latency",
        near: false,
        speed: true,
    },
    Experiment {
        slug: "latency-loaded",
        title: "Latency of a busy tunnel",
        question: "How long does a packet wait behind a download?",
        method: "Echo requests beside one TCP stream in the same tunnel; the whole distribution, and what the stream did meanwhile.",
        axis: None,
        metrics: &[P99, P50, LOST, THROUGHPUT],
        thesis: "",
        source: "latency-loaded",
        near: false,
        speed: true,
    },
    Experiment {
        slug: "handshakes",
        title: "Handshakes per second",
        question: "How many clients can connect in a second?",
        method: "Clients call one server, 64 at any time and each as soon as one before it has agreed, for less time than they take to repeat what was lost.",
        axis: None,
        metrics: &[metric("handshakes", "handshakes", Unit::PerSecond, Better::More), PROCESSORS],
        thesis: "",
        source: "handshakes",
        near: false,
        speed: true,
    },
    Experiment {
        slug: "first-byte",
        title: "Time to the first byte",
        question: "How long does a new connection take to its first byte?",
        method: "From the first packet sent into a tunnel without a session to its answer.",
        axis: None,
        metrics: &[metric("first_byte", "time to the first byte", Unit::Seconds, Better::Less)],
        thesis: "",
        source: "first-byte",
        near: false,
        speed: true,
    },
    Experiment {
        slug: "recovery",
        title: "Recovery from loss of the path",
        question: "How long after the path is back does traffic flow again?",
        method: "The link is taken away and given back; from then to the first answer, told to about 10 ms.",
        axis: axis("outage", "length of the outage", Unit::Seconds, true),
        metrics: &[metric("recovery", "time until traffic flows", Unit::Seconds, Better::Less)],
        thesis: "",
        source: "recovery",
        near: false,
        speed: true,
    },
    Experiment {
        slug: "start",
        title: "Start-up",
        question: "How long does it take from nothing to a working tunnel?",
        method: "From the first command on both ends to the first packet that arrives, less what it takes to start as many programs that do nothing.",
        axis: None,
        metrics: &[
            metric("start", "start-up", Unit::Seconds, Better::Less),
            metric("stop", "tear-down", Unit::Seconds, Better::Neither),
        ],
        thesis: "",
        source: "start",
        near: false,
        speed: true,
    },
    Experiment {
        slug: "memory",
        title: "Memory",
        question: "How much memory does one end take, idle and after load?",
        method: "Memory of all processes of one end, of what they share each its part, and of their BPF maps; what else the kernel holds cannot be told.",
        axis: None,
        metrics: &[
            metric("loaded", "memory after load", Unit::Bytes, Better::Less),
            metric("idle", "memory idle", Unit::Bytes, Better::Less),
        ],
        thesis: "",
        source: "memory",
        near: false,
        speed: false,
    },
    Experiment {
        slug: "wakeups",
        title: "Wake-ups of an idle tunnel",
        question: "Does an idle tunnel let the processor sleep?",
        method: "How often the processes of both ends were scheduled while nothing was sent.",
        axis: None,
        metrics: &[metric("wakeups", "wake-ups", Unit::PerSecond, Better::Less)],
        thesis: "",
        source: "wakeups",
        near: false,
        speed: false,
    },
    Experiment {
        slug: "peers",
        title: "Memory against the number of peers",
        question: "What does each peer cost in memory?",
        method: "One server with so many peers; memory of the server.",
        axis: axis("peers", "peers of one server", Unit::Count, true),
        metrics: &[MEMORY, metric("configure", "time to configure them", Unit::Seconds, Better::Less)],
        thesis: "",
        source: "peers",
        near: false,
        speed: false,
    },
    Experiment {
        slug: "crowd",
        title: "Throughput against the number of peers",
        question: "Do many peers slow down the traffic of one?",
        method: "One server with so many peers; TCP throughput to one of them.",
        axis: axis("peers", "peers of one server", Unit::Count, true),
        metrics: &[THROUGHPUT, COST],
        thesis: "",
        source: "peers",
        near: false,
        speed: true,
    },
    Experiment {
        slug: "scaling",
        title: "Throughput against processors",
        question: "What do more processors bring, here and beyond this machine?",
        method: "The same traffic with the tunnel held to so many processors; a model fitted to it tells what more would bring.",
        axis: axis("workers", "processors", Unit::Count, false),
        metrics: &[THROUGHPUT],
        thesis: "7.2",
        source: "scaling",
        near: false,
        speed: true,
    },
];

/// The experiment of a name.
pub fn find(slug: &str) -> Option<&'static Experiment> {
    EXPERIMENTS.iter().find(|it| it.slug == slug)
}

/// The metric of a name that records of an experiment may have: its own, or that of an experiment that reads them.
pub fn metric_of(source: &str, key: &str) -> Option<&'static Metric> {
    EXPERIMENTS.iter().filter(|it| it.source == source).flat_map(|it| it.metrics).find(|metric| metric.key == key)
}

/// Whether records of an experiment may have a distribution of times.
pub fn has_times(slug: &str) -> bool {
    ["latency", "latency-loaded", "first-byte"].contains(&slug)
}

impl Experiment {
    /// What decides the verdict.
    pub fn main(&self) -> &'static Metric {
        &self.metrics[0]
    }

    /// Whether it reads another's records.
    pub fn derived(&self) -> bool {
        self.source != self.slug
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn is_in_itself_consistent() {
        let slugs: BTreeSet<_> = EXPERIMENTS.iter().map(|it| it.slug).collect();
        assert_eq!(slugs.len(), EXPERIMENTS.len());
        for it in &EXPERIMENTS {
            let source = find(it.source).unwrap();
            assert!(!source.derived(), "{}", it.slug);
            assert_eq!(it.axis.map(|axis| axis.key), source.axis.map(|axis| axis.key), "{}", it.slug);
            let keys: BTreeSet<_> = it.metrics.iter().map(|metric| metric.key).collect();
            assert_eq!(keys.len(), it.metrics.len());
            assert!(it.question.ends_with('?') && it.method.ends_with('.'), "{}", it.slug);
            // One name never means two things.
            for metric in it.metrics {
                assert_eq!(metric_of(it.source, metric.key).unwrap().unit, metric.unit);
            }
        }
    }

    #[test]
    fn every_figure_of_the_thesis_has_an_experiment() {
        for figure in ["5.2", "6.2", "6.3", "6.4", "6.5", "6.6", "7.2", "7.3", "7.5"] {
            assert!(EXPERIMENTS.iter().any(|it| it.thesis.split(", ").any(|one| one == figure)), "{figure}");
        }
    }
}

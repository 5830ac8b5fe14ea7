//! `show --json`: all that is known of interfaces, for programs.
//!
//! ```json
//! {"schema": 1, "interfaces": [{"name": "wg0", "engine": "wireloom", …, "peers": […], "drops": {…}, "workers": […]}]}
//! ```
//!
//! The man page (`wireloom-show(1)`) tells the fields. What is not set is `null`; what the kind of device cannot know is not there at all. Fields
//! may be added; `schema` counts up when one changes its meaning or goes.

use std::collections::BTreeMap;
use std::io::{self, Write};

use config::address::{CidrText, EndpointText};
use config::device::{Device, Peer};
use config::key;
use config::policy::{Rule, RuleCount};
use config::stats::{BATCH_SIZES, Batches, Stats, Worker};
use noise::PublicKey;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use crate::client;
use crate::error::Error;
use crate::watch::Seen;
use crate::zones::SystemZones;

/// The version of the form.
const SCHEMA: u32 = 1;
/// What stands in the place of a key that is not shown.
const HIDDEN: &str = "(hidden)";

/// An interface, with its keys as far as they may be shown.
pub struct Told {
    seen: Seen,
    private_key: Option<Zeroizing<String>>,
    preshared_keys: BTreeMap<PublicKey, Zeroizing<String>>,
}

impl Told {
    /// Asks the interface.
    pub fn ask(name: &str, show_keys: bool) -> Result<Told, Error> {
        let seen = Seen::ask(name)?;
        // Whether there is a preshared key is no secret, but is told with it.
        let device = client::get(name)?;
        let shown = |text: &str| Zeroizing::new(if show_keys { text.to_owned() } else { HIDDEN.to_owned() });
        let private_key = device.private_key.as_ref().map(|key| shown(key::to_base64(key).as_str()));
        let with_key = device.peers.iter().filter_map(|peer| Some((peer.public_key, peer.preshared_key.as_deref()?)));
        let preshared_keys = with_key.map(|(peer, key)| (peer, shown(key::to_base64(key).as_str()))).collect();
        Ok(Told { seen, private_key, preshared_keys })
    }
}

/// Prints interfaces.
///
/// # Errors
/// Those of the writer.
pub fn write(out: &mut impl Write, interfaces: &[Told]) -> io::Result<()> {
    let zones = SystemZones::open();
    let interfaces: Vec<Interface<'_>> = interfaces.iter().map(|told| interface(told, &zones)).collect();
    serde_json::to_writer_pretty(&mut *out, &All { schema: SCHEMA, interfaces })?;
    writeln!(out)
}

#[derive(Serialize)]
struct All<'a> {
    schema: u32,
    interfaces: Vec<Interface<'a>>,
}

#[derive(Serialize)]
struct Interface<'a> {
    name: &'a str,
    engine: &'static str,
    public_key: Option<String>,
    private_key: Option<&'a str>,
    listen_port: Option<u16>,
    fwmark: Option<u32>,
    peers: Peers<'a>,
    #[serde(flatten)]
    work: Option<Work<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Vec<OneRule>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resident_bytes: Option<u64>,
}

fn interface<'a>(told: &'a Told, zones: &'a SystemZones) -> Interface<'a> {
    let Told { seen, private_key, .. } = told;
    let Device { listen_port, fwmark, .. } = seen.device;
    Interface {
        name: &seen.name,
        engine: seen.engine.name(),
        public_key: seen.device.public_key.as_ref().map(base64),
        private_key: private_key.as_ref().map(|key| key.as_str()),
        listen_port: (listen_port != 0).then_some(listen_port),
        fwmark: (fwmark != 0).then_some(fwmark),
        peers: Peers { told, zones },
        work: seen.stats.as_ref().map(work),
        policy: seen.stats.as_ref().map(|_| seen.policy.iter().map(rule).collect()),
        resident_bytes: seen.resident,
    }
}

/// The peers, each made when it is written: there may be 100,000.
struct Peers<'a> {
    told: &'a Told,
    zones: &'a SystemZones,
}

impl Serialize for Peers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.told.seen.device.peers.iter().map(|peer| self.one(peer)))
    }
}

#[derive(Serialize)]
struct OnePeer<'a> {
    public_key: String,
    preshared_key: Option<&'a str>,
    endpoint: Option<String>,
    allowed_ips: Vec<String>,
    /// Seconds since 1970.
    latest_handshake: Option<u64>,
    rx_bytes: u64,
    tx_bytes: u64,
    /// Seconds.
    persistent_keepalive: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rx_packets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rx_expected_packets: Option<u64>,
}

impl<'a> Peers<'a> {
    fn one(&self, peer: &'a Peer) -> OnePeer<'a> {
        OnePeer {
            public_key: base64(&peer.public_key),
            preshared_key: self.told.preshared_keys.get(&peer.public_key).map(|key| key.as_str()),
            endpoint: peer.endpoint.map(|endpoint| EndpointText(endpoint, self.zones).to_string()),
            allowed_ips: peer.allowed_ips.iter().map(|&network| CidrText(network).to_string()).collect(),
            latest_handshake: peer.last_handshake.map(|at| at.as_secs()).filter(|at| *at != 0),
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
            persistent_keepalive: Some(peer.persistent_keepalive).filter(|seconds| *seconds != 0),
            rx_packets: peer.reception.map(|reception| reception.arrived),
            rx_expected_packets: peer.reception.map(|reception| reception.sent),
        }
    }
}

/// What a device of ours does.
#[derive(Serialize)]
struct Work<'a> {
    version: &'a str,
    process: u32,
    uptime_seconds: f64,
    handshakes: Counts<'a>,
    drops: Counts<'a>,
    #[serde(skip_serializing_if = "Counts::is_empty")]
    programs: Counts<'a>,
    workers: Vec<OneWorker>,
}

fn work(stats: &Stats) -> Work<'_> {
    Work {
        version: &stats.version,
        process: stats.process,
        uptime_seconds: stats.uptime.as_secs_f64(),
        handshakes: Counts(&stats.handshakes),
        drops: Counts(&stats.drops),
        programs: Counts(&stats.programs),
        workers: stats.workers.iter().map(worker).collect(),
    }
}

/// Counts by name, in the order in which they were told.
struct Counts<'a>(&'a [(String, u64)]);

impl Counts<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Counts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, count) in self.0 {
            map.serialize_entry(name, count)?;
        }
        map.end()
    }
}

/// A rule that says what may pass, and what it has taken.
#[derive(Serialize)]
struct OneRule {
    rule: String,
    packets: u64,
    bytes: u64,
    dropped: u64,
}

fn rule((rule, count): &(Rule, RuleCount)) -> OneRule {
    OneRule { rule: rule.to_string(), packets: count.packets, bytes: count.bytes, dropped: count.dropped }
}

#[derive(Serialize)]
struct OneWorker {
    busy_seconds: f64,
    wakeups: u64,
    helped: u64,
    sent: OneWay,
    received: OneWay,
}

fn worker(worker: &Worker) -> OneWorker {
    OneWorker {
        busy_seconds: worker.busy.as_secs_f64(),
        wakeups: worker.wakeups,
        helped: worker.helped,
        sent: way(&worker.sent),
        received: way(&worker.received),
    }
}

#[derive(Serialize)]
struct OneWay {
    packets: u64,
    bytes: u64,
    batches: Vec<Size>,
}

/// How many batches had up to so many packets, and more than those of the entry before.
#[derive(Serialize)]
struct Size {
    /// `null` in the last: all that are larger.
    up_to: Option<u32>,
    count: u64,
}

fn way(batches: &Batches) -> OneWay {
    let sizes = batches.sizes.iter().enumerate();
    let sizes = sizes.map(|(at, &count)| Size { up_to: BATCH_SIZES.get(at).copied(), count });
    OneWay { packets: batches.packets, bytes: batches.bytes, batches: sizes.collect() }
}

fn base64(key: &PublicKey) -> String {
    key::to_base64(key).as_str().to_owned()
}

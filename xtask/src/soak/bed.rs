//! The two hosts, the one between them, and what goes on there.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lab::traffic::{Service, exchange_tcp};
use lab::{
    End, Engine, Gso, LabError, Link, Namespace, Outer, Process, Relay, System, Witness, ping, run_checked, wait_until,
};

use super::carrier::Recorder;
use super::stream::Stream;
use crate::error::Failure;

/// REKEY_AFTER_TIME of the daemons: the feature `hurried` of the crate `noise`.
pub const REKEY: Duration = Duration::from_secs(6);

/// The time between two datagrams of each direction.
const GAP: Duration = Duration::from_micros(1000);

/// Bytes of a TCP exchange in each direction; there is always one.
const BYTES: u64 = 1_000_000;

/// The bound of what should take a moment, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(60);

/// How many datagrams of a kill may be lost, on the whole way: those that were just with the daemon.
const LOST_BY_A_KILL: u64 = 5;

/// All of it. Dropping it takes it away.
pub struct Bed {
    engine: Engine,
    system: System,
    streams: Vec<Stream>,
    pings: Vec<Process>,
    _service: Service,
    left: End,
    right: End,
    _relay: Relay,
    carrier: Arc<Mutex<Recorder>>,
    _links: [Link; 2],
    kills: u64,
    /// The longest that there was no daemon.
    longest: Duration,
    exchanges: u64,
}

impl Bed {
    /// Builds it, and starts all traffic.
    pub fn build(ours: &System, length: Duration) -> Result<Bed, Failure> {
        let (a, between, b) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        let links = [Link::new(&a, &between, Gso::Through)?, Link::new(&between, &b, Gso::Through)?];
        let end = |port: &lab::Port, host| -> Result<End, LabError> {
            let end = End::new(ours.start(&port.namespace)?, port, host)?;
            end.bring_up(1420)?;
            Ok(end)
        };
        let (left, right) = (end(&links[0].left, 1)?, end(&links[1].right, 2)?);
        let carrier = Arc::new(Mutex::new(Recorder::new(Witness::new(REKEY.mul_f64(0.9)))));
        let at = |port: &lab::Port| SocketAddr::new(port.v4.into(), 0);
        let relay = Relay::with(
            &between,
            (left.endpoint(Outer::V4), at(&links[0].right)),
            (right.endpoint(Outer::V4), at(&links[1].left)),
            Arc::clone(&carrier),
        )?;
        left.add_peer(&right, Some(relay.for_left), None)?;
        right.add_peer(&left, Some(relay.for_right), None)?;
        let first = || ping::once(left.namespace(), right.v4.into(), &["-W", "1"]);
        wait_until("the first ping", LIMIT, || first().is_ok_and(|ping| ping.status.success()))?;

        let service = Service::start(right.namespace())?;
        let count = (length.as_millis() / 10) as u32;
        let pings = vec![
            ping::start(left.namespace(), right.v4.into(), count, "0.01")?,
            ping::start(right.namespace(), left.v4.into(), count, "0.01")?,
        ];
        let streams = vec![Stream::start(&left, &right, GAP)?, Stream::start(&right, &left, GAP)?];
        Ok(Bed {
            engine: left.daemon.engine,
            system: ours.clone(),
            streams,
            pings,
            _service: service,
            left,
            right,
            _relay: relay,
            carrier,
            _links: links,
            kills: 0,
            longest: Duration::ZERO,
            exchanges: 0,
        })
    }

    /// Kills the left daemon where it stands, starts another one and tells it what the first one had been told.
    pub fn kill_and_restart(&mut self) -> Result<(), Failure> {
        let interface = self.left.daemon.interface.clone();
        let file = tempfile::NamedTempFile::new().map_err(Failure::io("a temporary file"))?;
        let text = lab::wg::show_config(&interface)?;
        std::fs::write(file.path(), text).map_err(Failure::io("a temporary file"))?;
        let mut command = self.system.command(self.left.namespace(), &interface)?;
        let gone = self.left.daemon.replace_after_a_crash(&mut command)?;
        run_checked(Command::new("wg").args(["setconf", &interface]).arg(file.path()), LIMIT)?;
        self.kills += 1;
        self.longest = self.longest.max(gone);
        Ok(())
    }

    /// How it stands, in one line that takes the place of the last one; and some TCP.
    pub fn tell(&mut self, now: Duration, length: Duration) {
        if exchange_tcp(self.left.namespace(), self.right.v4.into(), BYTES, LIMIT).is_ok() {
            self.exchanges += 1;
        }
        let counts: Vec<_> = self.streams.iter().map(Stream::counts).collect();
        let sum = |of: fn(&(u64, u64, u64)) -> u64| counts.iter().map(of).sum::<u64>();
        let recorder = self.carrier.lock().unwrap_or_else(PoisonError::into_inner);
        print!(
            "\r{:>5} of {} s  {} messages, {} sessions, {} repeated; {} datagrams, {} not yet come, {} twice; {} kills  {} offences ",
            now.as_secs(),
            length.as_secs(),
            recorder.witness.messages(),
            recorder.witness.sessions(),
            recorder.repeated,
            sum(|it| it.0),
            sum(|it| it.0.saturating_sub(it.1)),
            sum(|it| it.2),
            self.kills,
            recorder.witness.offences().len(),
        );
        let _ = std::io::stdout().flush();
    }

    /// What the daemons have said.
    pub fn show_logs(&self) {
        for end in [&self.left, &self.right] {
            eprintln!("--- {} said:\n{}", end.daemon.process.name(), end.daemon.process.log());
        }
    }

    /// Ends the traffic: a summary, and what was not as it should be. Everything is taken away.
    pub fn finish(mut self) -> Result<(String, Vec<String>), Failure> {
        let mut faults = Vec::new();
        let mut lines = Vec::new();
        for (series, way) in self.pings.drain(..).zip(["left to right", "right to left"]) {
            let trips = ping::collect(series, LIMIT)?;
            let at = |share| trips.percentile(share).unwrap_or(f64::NAN) / 1000.0;
            lines.push(format!(
                "pings {way:<15} {} of {} came back; {:.2} ms in the median, {:.1} ms at most",
                trips.received,
                trips.sent,
                at(0.5),
                at(1.0)
            ));
            if trips.received < trips.sent {
                faults.push(format!("{} pings from {way} were lost", trips.sent - trips.received));
            }
        }
        for (stream, way) in self.streams.drain(..).zip(["left to right", "right to left"]) {
            let (sent, came, twice) = stream.finish();
            lines.push(format!("datagrams {way:<11} {came} of {sent} came, {twice} twice"));
            if twice > 0 {
                faults.push(format!("{twice} repeated messages were let in, {way}"));
            }
            if sent - came > 5 + self.kills * LOST_BY_A_KILL {
                faults.push(format!("{} datagrams were lost, {way}", sent - came));
            }
        }
        let replayed = self.right.daemon.drops()?.get("replayed").copied().unwrap_or_default();
        if self.engine == Engine::Ebpf {
            for (end, name) in [(&self.left, "left"), (&self.right, "right")] {
                let (sent, received) = end.daemon.taken()?;
                lines.push(format!("programs, {name:<11} sent {sent} and received {received} packets"));
                if sent == 0 || received == 0 {
                    faults.push(format!("the programs of the {name} end took nothing"));
                }
            }
        }
        let recorder = self.carrier.lock().unwrap_or_else(PoisonError::into_inner);
        let witness = &recorder.witness;
        lines.push(format!(
            "on the wire           {} data messages in {} sessions, each nonce once; {} repeated, of which the right end refused {replayed}",
            witness.messages(),
            witness.sessions(),
            recorder.repeated,
        ));
        if replayed == 0 {
            faults.push("no repeated message was refused: none can have come".to_owned());
        }
        let offences = witness.offences();
        faults.extend(offences.iter().take(5).map(|offence| format!("{offence:?}")));
        if offences.len() > 5 {
            faults.push(format!("{} more offences", offences.len() - 5));
        }
        lines.push(format!(
            "the left daemon       killed {} times, {:.0} ms without one at most; {} TCP exchanges of {} MB",
            self.kills,
            self.longest.as_secs_f64() * 1000.0,
            self.exchanges,
            2 * BYTES / 1_000_000
        ));
        drop(recorder);
        let namespaces = [self.left.namespace().clone(), self.right.namespace().clone()];
        drop(self);
        for namespace in namespaces {
            let left = || namespace.pids().len();
            if wait_until("all processes to end", LIMIT, || left() == 0).is_err() {
                faults.push(format!("{} processes have stayed", left()));
            }
        }
        Ok((lines.join("\n"), faults))
    }
}

//! The two hosts, the one between them, and what goes on there.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lab::traffic::{Service, exchange_tcp};
use lab::{
    End, Engine, Gso, LabError, Link, Namespace, Outer, Relay, System, Witness, ping, run_checked, wait_for, wait_until,
};
use rustix::process::Pid;

use super::carrier::{Mark, Recorder};
use super::kernel::Objects;
use super::kills::{Kill, Moment};
use super::pings::Pings;
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

/// The two ways, and the two ends that they begin at.
const WAYS: [&str; 2] = ["left to right", "right to left"];
const SIDES: [&str; 2] = ["left", "right"];

/// How many lost pings are told one by one.
const TOLD: usize = 10;

/// All of it. Dropping it takes it away.
pub struct Bed {
    engine: Engine,
    system: System,
    streams: Vec<Stream>,
    pings: Vec<Pings>,
    _service: Service,
    left: End,
    right: End,
    _relay: Relay,
    carrier: Arc<Mutex<Recorder>>,
    _links: [Link; 2],
    began: Instant,
    /// When there was no daemon, from the start, and of which end.
    kills: Vec<(Duration, Duration, Kill)>,
    /// What the daemons said that were killed.
    said: String,
    exchanges: u64,
    objects: Objects,
    /// How many objects of the kernel's the daemons held in the beginning.
    held: [usize; 3],
}

impl Bed {
    /// Builds it, and starts all traffic.
    pub fn build(ours: &System) -> Result<Bed, Failure> {
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
        let mut objects = Objects::default();
        let held = objects.look(&[left.namespace(), right.namespace()])?;
        let began = Instant::now();
        let pings = vec![Pings::start(&left, &right)?, Pings::start(&right, &left)?];
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
            began,
            kills: Vec::new(),
            said: String::new(),
            exchanges: 0,
            objects,
            held,
        })
    }

    /// Kills a daemon where it stands, starts another one and tells it what the first one had been told.
    pub fn kill_and_restart(&mut self, mut kill: Kill) -> Result<(), Failure> {
        self.look()?;
        let mut texts = Vec::new();
        for end in [&self.left, &self.right] {
            texts.push(lab::wg::show_config(&end.daemon.interface)?);
        }
        if let Some(Moment { kind, by_killed }) = kill.at {
            let carrier = || self.carrier.lock().unwrap_or_else(PoisonError::into_inner);
            let pids = [&self.left, &self.right].map(|end| Pid::from_raw(end.daemon.process.id().cast_signed()));
            if let [Some(left), Some(right)] = pids {
                carrier().mark = Some(Mark { pids: [left, right], kind, sender: by_killed });
            }
            kill.left = wait_for("a handshake to kill in", LIMIT, || Ok(carrier().struck.take()))?;
        }
        let at = self.began.elapsed();
        let (end, text) = if kill.left { (&mut self.left, &texts[0]) } else { (&mut self.right, &texts[1]) };
        let interface = end.daemon.interface.clone();
        let file = tempfile::NamedTempFile::new().map_err(Failure::io("a temporary file"))?;
        std::fs::write(file.path(), text).map_err(Failure::io("a temporary file"))?;
        let mut command = self.system.command(end.namespace(), &interface)?;
        self.said += &end.daemon.process.log();
        end.daemon.replace_after_a_crash(kill.pause, &mut command)?;
        run_checked(Command::new("wg").args(["setconf", &interface]).arg(file.path()), LIMIT)?;
        self.kills.push((at, self.began.elapsed(), kill));
        self.look().map(drop)
    }

    /// Writes down what the daemons hold in the kernel.
    fn look(&mut self) -> Result<[usize; 3], Failure> {
        let now = self.objects.look(&[self.left.namespace(), self.right.namespace()])?;
        if self.kills.is_empty() {
            // The first daemons may still be putting programs in their places.
            self.held = std::array::from_fn(|kind| now[kind].max(self.held[kind]));
        }
        Ok(now)
    }

    /// How it stands, in one line that takes the place of the last one; and some TCP.
    ///
    /// # Errors
    /// What the daemons hold in the kernel cannot be seen.
    pub fn tell(&mut self, now: Duration, length: Duration) -> Result<(), Failure> {
        self.look()?;
        if exchange_tcp(self.left.namespace(), self.right.v4.into(), BYTES, LIMIT).is_ok() {
            self.exchanges += 1;
        }
        let counts: Vec<_> = self.streams.iter().map(Stream::counts).collect();
        let sum = |of: fn(&(u64, u64, u64)) -> u64| counts.iter().map(of).sum::<u64>();
        let open: u64 = self.pings.iter().map(Pings::counts).map(|(sent, came)| sent.saturating_sub(came)).sum();
        let recorder = self.carrier.lock().unwrap_or_else(PoisonError::into_inner);
        print!(
            "\r{:>5} of {} s  {} messages, {} sessions, {} repeated; {} datagrams, {} not yet come, {} twice; {open} pings open; {} kills  {} offences ",
            now.as_secs(),
            length.as_secs(),
            recorder.witness.messages(),
            recorder.witness.sessions(),
            recorder.repeated,
            sum(|it| it.0),
            sum(|it| it.0.saturating_sub(it.1)),
            sum(|it| it.2),
            self.kills.len(),
            recorder.witness.offences().len(),
        );
        let _ = std::io::stdout().flush();
        Ok(())
    }

    /// What the daemons have said.
    pub fn show_logs(&self) {
        if !self.said.is_empty() {
            eprintln!("--- those that were killed said:\n{}", self.said);
        }
        for end in [&self.left, &self.right] {
            eprintln!("--- {} said:\n{}", end.daemon.process.name(), end.daemon.process.log());
        }
    }

    /// Ends the traffic: a summary, and what was not as it should be. Everything is taken away.
    pub fn finish(mut self) -> Result<(String, Vec<String>), Failure> {
        let mut faults = Vec::new();
        let mut lines = Vec::new();
        for (series, way) in self.pings.drain(..).zip(WAYS) {
            let offset = series.began() - self.began;
            let trips = series.finish();
            let at = |share| f64::from(percentile(&trips.micros, share)) / 1000.0;
            lines.push(format!(
                "pings {way:<15} {} of {} came back; {:.2} ms in the median, {:.1} ms at most",
                trips.micros.len(),
                trips.sent,
                at(0.5),
                at(1.0)
            ));
            for lost in trips.lost.iter().take(TOLD) {
                faults.push(format!("a ping from {way} was lost, {}", place(*lost + offset, &self.kills)));
            }
            if trips.lost.len() > TOLD {
                faults.push(format!("{} more pings from {way} were lost", trips.lost.len() - TOLD));
            }
            if trips.twice > 0 {
                faults.push(format!("{} pings from {way} were answered twice", trips.twice));
            }
        }
        for (stream, way) in self.streams.drain(..).zip(WAYS) {
            let (sent, came, twice) = stream.finish();
            lines.push(format!("datagrams {way:<11} {came} of {sent} came, {twice} twice"));
            if twice > 0 {
                faults.push(format!("{twice} repeated messages were let in, {way}"));
            }
            if sent - came > 5 + self.kills.len() as u64 * LOST_BY_A_KILL {
                faults.push(format!("{} datagrams were lost, {way}", sent - came));
            }
        }
        let replayed = self.right.daemon.drops()?.get("replayed").copied().unwrap_or_default();
        if self.engine == Engine::Ebpf {
            for (end, name) in [&self.left, &self.right].into_iter().zip(SIDES) {
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
        let of = |left| self.kills.iter().filter(|(.., kill)| kill.left == left).count();
        let without = self.kills.iter().map(|(from, to, _)| to.saturating_sub(*from)).max().unwrap_or_default();
        lines.push(format!(
            "daemons               killed: left {}, right {} times, at most {:.0} ms until the next was configured; {} TCP exchanges of {} MB",
            of(true),
            of(false),
            without.as_secs_f64() * 1000.0,
            self.exchanges,
            2 * BYTES / 1_000_000
        ));
        drop(recorder);
        self.count_objects(&mut lines, &mut faults)?;
        let (said, objects) = (std::mem::take(&mut self.said), std::mem::take(&mut self.objects));
        if let Some(line) = said.lines().next() {
            faults.push(format!("a daemon that was killed had said: {line}"));
        }
        let namespaces = [self.left.namespace().clone(), self.right.namespace().clone()];
        drop(self);
        for namespace in &namespaces {
            let left = || namespace.pids().len();
            if wait_until("all processes to end", LIMIT, || left() == 0).is_err() {
                faults.push(format!("{} processes have stayed", left()));
            }
        }
        let stayed = objects.wait_for_end(&[])?;
        faults.extend(stayed.iter().map(|object| format!("{object} is still in the kernel when all has ended")));
        Ok((lines.join("\n"), faults))
    }

    /// What the daemons hold in the kernel, against the beginning; and what those that were killed have left there that nobody holds.
    fn count_objects(&mut self, lines: &mut Vec<String>, faults: &mut Vec<String>) -> Result<(), Failure> {
        let before = self.held;
        // What is about to be let go of may take a moment.
        let enough = wait_for("no more to be held than in the beginning", LIMIT, || {
            let now = self.objects.look(&[self.left.namespace(), self.right.namespace()])?;
            Ok(now.iter().zip(before).all(|(now, before)| *now <= before).then_some(now))
        });
        let now = match enough {
            Ok(now) => now,
            Err(LabError::TimedOut { .. }) => self.look()?,
            Err(error) => return Err(error.into()),
        };
        let count = |[maps, programs, links]: [usize; 3]| format!("{maps} maps, {programs} programs, {links} links");
        if now.iter().zip(before).any(|(now, before)| *now > before) {
            faults.push(format!("the daemons hold {}, and held {} in the beginning", count(now), count(before)));
        }
        if self.engine == Engine::Ebpf {
            lines.push(format!("in the kernel         {} are held; {} were", count(now), count(self.objects.seen())));
            if now.contains(&0) {
                faults.push("the daemons hold nothing of a kind: it was not seen".to_owned());
            }
        }
        let stayed = self.objects.wait_for_end(&[self.left.namespace(), self.right.namespace()])?;
        faults.extend(stayed.iter().map(|object| format!("{object} is in the kernel, and no daemon holds it")));
        Ok(())
    }
}

/// Of sorted times, the one that a share of them does not exceed.
fn percentile(sorted: &[u32], share: f64) -> u32 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

/// A time, and where it lies between the kills.
fn place(at: Duration, kills: &[(Duration, Duration, Kill)]) -> String {
    let seconds = at.as_secs_f64();
    match kills.iter().rev().find(|(from, ..)| *from <= at + Duration::from_millis(100)) {
        None => format!("at {seconds:.3} s"),
        Some((from, to, kill)) => format!(
            "at {seconds:.3} s, where the {} daemon was killed{} at {:.3} s and its successor configured at {:.3} s",
            SIDES[usize::from(!kill.left)],
            kill.at.map_or(String::new(), |at| format!(" in a handshake, {at:?},")),
            from.as_secs_f64(),
            to.as_secs_f64()
        ),
    }
}

//! Traffic that checks itself: what arrives is compared with what was sent, byte by byte and datagram by datagram.
//!
//! The two ends are the helper program `lab-traffic`, run inside the namespaces. [`Service`] answers TCP and UDP on one port;
//! [`exchange_tcp`], [`Conversation`] and [`exchange_udp`] are its clients. The bytes come from a [`Pattern`], so that both ends know them
//! without having to tell each other. What counts datagrams and does not look at their bytes is [`blast`].

pub mod blast;
pub mod clean;
mod pattern;
pub mod tcp;
pub mod udp;

use std::env;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::helper::{self, NAME};
use crate::{LabError, Namespace, Process, built_binary, run_checked};

pub use pattern::Pattern;
pub use udp::{UdpOutcome, UdpPlan};

/// The port of the service, where nobody chose another.
const PORT: u16 = 7007;

/// Where the helper is: what [`helper::Link`] made, or next to this program, or in the release build beside it; the newer one, where both are.
///
/// # Errors
/// [`LabError::Missing`] when it is not built.
pub fn helper() -> Result<PathBuf, LabError> {
    if let Some(path) = helper::linked() {
        return Ok(path);
    }
    let beside = built_binary(NAME);
    let release = env::current_exe()
        .ok()
        .and_then(|this| Some(this.parent()?.parent()?.join("release").join(NAME)))
        .filter(|path| path.is_file());
    let age = |path: &PathBuf| path.metadata().and_then(|it| it.modified()).ok();
    match (beside, release) {
        (Ok(beside), Some(release)) => Ok(if age(&release) > age(&beside) { release } else { beside }),
        (Err(_), Some(release)) => Ok(release),
        (beside, None) => beside,
    }
}

/// The answering end, in a namespace.
pub struct Service(Process);

impl Service {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// The helper is not built or could not listen.
    pub fn start(namespace: &Namespace) -> Result<Service, LabError> {
        let mut command = namespace.command(helper()?);
        let mut process = Process::spawn(command.args(["serve", &PORT.to_string()]))?;
        process.wait_for_output("ready", Duration::from_secs(10))?;
        Ok(Service(process))
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

/// Sends `bytes` to the service at `to` and takes as many back, each checked by its receiver.
///
/// # Errors
/// A byte differs, the connection fails, or it takes longer than `limit`.
pub fn exchange_tcp(from: &Namespace, to: IpAddr, bytes: u64, limit: Duration) -> Result<(), LabError> {
    let mut command = from.command(helper()?);
    let to = SocketAddr::new(to, PORT).to_string();
    command.args(["tcp", &to, &bytes.to_string()]);
    run_checked(&mut command, limit).map(drop)
}

/// TCP that goes on: one connection, bytes there and back, all of them checked, round by round.
pub struct Conversation(Process);

impl Conversation {
    /// Begins one with the service at `to`, of so many bytes each way in a round.
    ///
    /// # Errors
    /// The helper is not built or cannot be started.
    pub fn start(from: &Namespace, to: IpAddr, bytes: u64, pause: Duration) -> Result<Conversation, LabError> {
        let mut command = from.command(helper()?);
        command.arg("converse").arg(SocketAddr::new(to, PORT).to_string());
        command.args([bytes.to_string(), pause.as_micros().to_string()]);
        Process::spawn(&mut command).map(Conversation)
    }

    /// The rounds so far.
    pub fn rounds(&self) -> u64 {
        self.0.stdout().lines().last().and_then(|line| line.parse().ok()).unwrap_or(0)
    }

    /// Waits for so many more rounds.
    ///
    /// # Errors
    /// The connection broke or a byte differed: [`LabError::Died`], with what it said. Or it took longer than `limit`.
    pub fn wait_for(&mut self, more: u64, limit: Duration) -> Result<(), LabError> {
        let enough = self.rounds() + more;
        crate::wait_for(&format!("{more} more rounds of TCP"), limit, || match self.0.status() {
            Some(status) => Err(self.0.died(status)),
            None => Ok((self.rounds() >= enough).then_some(())),
        })
    }

    /// Ends it after the round under way: how many there were.
    ///
    /// # Errors
    /// As [`Conversation::wait_for`].
    pub fn end(mut self, limit: Duration) -> Result<u64, LabError> {
        self.0.signal(Signal::USR1);
        let rounds = self.0.finish(limit)?.checked()?.stdout;
        Ok(rounds.lines().count() as u64)
    }
}

/// Starts sending numbered datagrams to the service at `to`.
///
/// # Errors
/// The helper is not built or cannot be started.
pub fn start_udp(from: &Namespace, to: IpAddr, plan: &UdpPlan) -> Result<Process, LabError> {
    let mut command = from.command(helper()?);
    command.arg("udp").arg(SocketAddr::new(to, PORT).to_string());
    command.args(plan.arguments());
    Process::spawn(&mut command)
}

/// Has what [`start_udp`] began send no more than it has.
pub fn stop_udp(process: &mut Process) {
    process.signal(Signal::USR1);
}

/// Waits for the end of what [`start_udp`] began.
///
/// # Errors
/// The helper failed or took longer than `limit`.
pub fn finish_udp(process: Process, limit: Duration) -> Result<UdpOutcome, LabError> {
    let text = process.finish(limit)?.checked()?.stdout;
    serde_json::from_str(&text).map_err(|_| LabError::Unreadable { what: "the outcome of UDP", text })
}

/// Sends numbered datagrams to the service at `to`, to the end.
///
/// # Errors
/// As [`start_udp`] and [`finish_udp`].
pub fn exchange_udp(from: &Namespace, to: IpAddr, plan: &UdpPlan, limit: Duration) -> Result<UdpOutcome, LabError> {
    finish_udp(start_udp(from, to, plan)?, limit)
}

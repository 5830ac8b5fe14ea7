//! `cargo xtask soak`: what must never happen, looked for while everything happens at once.
//!
//! Two hosts and a third between them, on which a relay carries what they say: it is a witness of all of it, and it repeats old messages
//! all the time. Through the tunnel go pings, a hundred in a second in each direction, and datagrams and TCP. Sessions are renewed every few
//! seconds, and the daemons of both ends are killed and started anew again and again: at any time, in the middle of a handshake, and with a pause in
//! which there is none.
//!
//! What is looked for: a nonce that is used twice, a message that is let in twice, a session that is lost, a ping or a datagram that
//! is, and maps, programs and processes that stay.

mod bed;
mod carrier;
mod kernel;
mod kills;
mod pings;
mod stream;
mod threads;

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use lab::{Engine, LabError, interrupted};

use crate::cargo::build_hurried;
use crate::error::Failure;
use crate::setup;
use bed::Bed;
use kills::Kill;

/// Nobody is killed in so much time before the end: what it breaks should be seen.
const LAST: Duration = Duration::from_secs(8);

/// What `soak` may be told.
#[derive(Args, Debug)]
pub struct Options {
    /// For how long
    #[arg(long, default_value_t = 30.0, value_parser = minutes)]
    minutes: f64,
    /// What moves the packets
    #[arg(long, value_enum, default_value_t = Choice::Ebpf)]
    engine: Choice,
    /// Leave the daemons alone
    #[arg(long)]
    no_kill: bool,
}

/// The engines, by the name that the command line has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    Ebpf,
    Userspace,
}

fn minutes(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number of minutes"))?;
    match (0.2..=10_000.0).contains(&number) {
        true => Ok(number),
        false => Err("it takes at least 0.2 minutes, and at most 10000".to_owned()),
    }
}

/// Runs it.
pub fn run(options: &Options) -> Result<(), Failure> {
    lab::require_root()?;
    setup::run(&setup::Options { no_peers: true })?;
    let ours = build_hurried()?;
    soak(&ours, options)
}

/// The short form of it, as `test` has it.
pub fn short() -> Result<(), Failure> {
    run(&Options { minutes: 1.0, engine: Choice::Ebpf, no_kill: false })
}

fn soak(ours: &lab::System, options: &Options) -> Result<(), Failure> {
    let engine = match options.engine {
        Choice::Ebpf => Engine::Ebpf,
        Choice::Userspace => Engine::Userspace,
    };
    // A daemon in userspace takes its sessions along.
    let kills = engine == Engine::Ebpf && !options.no_kill;
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    println!(
        "{} at both ends for {} s, sessions of {} s{}. Ctrl-C ends it.\n",
        ours.clone().with(engine).name(),
        length.as_secs(),
        bed::REKEY.as_secs(),
        if kills { ", daemons killed every few seconds" } else { "" }
    );
    let mut bed = Bed::build(&ours.clone().with(engine))?;
    let outcome = keep_on(&mut bed, length, kills);
    println!();
    if outcome.is_err() && !interrupted() {
        bed.show_logs();
    }
    outcome?;
    let (summary, faults) = bed.finish()?;
    println!("{summary}");
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Failure::Soak(faults.join("; "))),
    }
}

/// Lets the time pass, kills and starts, and says every second how it stands.
fn keep_on(bed: &mut Bed, length: Duration, kills: bool) -> Result<(), Failure> {
    let (start, mut told, mut killed, mut number) = (Instant::now(), Instant::now(), Instant::now(), 0);
    while start.elapsed() < length {
        if interrupted() {
            return Err(LabError::Interrupted.into());
        }
        let kill = Kill::number(number);
        if kills && killed.elapsed() >= kill.after && start.elapsed() + LAST < length {
            bed.kill_and_restart(kill)?;
            killed = Instant::now();
            number += 1;
        }
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            bed.tell(start.elapsed(), length)?;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_checked() {
        assert_eq!((minutes("2"), minutes("0.5")), (Ok(2.0), Ok(0.5)));
        for bad in ["", "x", "0", "-1", "nan", "1e9"] {
            assert!(minutes(bad).is_err(), "{bad}");
        }
    }
}
